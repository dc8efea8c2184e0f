#!/usr/bin/env bash
# Ways of a shell script to meet the end of its memory: eat.sh WAY [CODE]. EATER is a program that eats.
set -o pipefail

work() {
  local sum=0 i
  for ((i = 0; i < 2000; i++)); do sum=$((sum + i)); done
  echo "$sum"
}

case $1 in
  pipeline)
    # The member that fails is not the last one: only pipefail tells.
    "$EATER" perror | cat
    exit
    ;;
  errexit)
    set -e
    "$EATER" unchecked
    echo "not reached"
    ;;
  exec)
    exec "$EATER" perror
    ;;
  itself)
    # The shell's own memory.
    echo "pid $$"
    text=x
    while :; do text+=$text; done
    ;;
  own)
    echo "own $(work)"
    exit "$2"
    ;;
esac
exit 77
