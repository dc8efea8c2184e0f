#!/bin/sh
# Runs a command with FIRST_MIB of memory and, whenever that proves too small, again with twice as much.
#
#     retry.sh FIRST_MIB CEILING_MIB OUTPUT COMMAND [ARGUMENT]...
#
# OUTPUT gets what the command that succeeded printed: all of it or nothing. Every failure but a lack of memory is passed
# on at once. Needs `oomguard` in PATH. Where nothing is to be cleaned up between the attempts, one line does it all:
#
#     oomguard run --limit 64Mi --retries 4 --grow 2 --max-limit 1Gi -- COMMAND
#
# For a pipeline, `oomguard run -- bash -c 'set -o pipefail; a | b'`: without pipefail a shell hides how `a` ended.
set -u

[ $# -ge 4 ] || { echo "usage: retry.sh FIRST_MIB CEILING_MIB OUTPUT COMMAND [ARGUMENT]..." >&2; exit 2; }
limit=$1
ceiling=$2
output=$3
shift 3

partial=$output.partial
trap 'rm -f -- "$partial"' EXIT
while :; do
    oomguard run --limit "${limit}Mi" -- "$@" > "$partial"
    code=$?
    if [ "$code" = 0 ]; then
        mv -- "$partial" "$output"
        exit
    fi
    if [ "$code" != 198 ] || [ "$limit" -ge "$ceiling" ]; then
        echo "retry.sh: giving up with a limit of $limit MiB: exit code $code" >&2
        exit "$code"
    fi
    limit=$((limit * 2 < ceiling ? limit * 2 : ceiling))
    echo "retry.sh: out of memory, trying $limit MiB" >&2
done
