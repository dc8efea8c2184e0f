#!/bin/sh
# How many bytes does the guard add to a stripped release binary (aim: at most 56 KiB), how long does the crate take to
# compile (aim: under 5 s), and what does it depend on?
#
# Builds the smallest program there is, with and without the guard, in a folder of its own. With LTO and without.
#
# With a number of KiB as its argument it only looks, without LTO, whether the guard adds more than that: then it fails.
set -eu
most_kib=${1:-}

crate=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset CARGO_TARGET_DIR

mkdir -p "$work/src/bin"
echo 'fn main() {}' > "$work/src/bin/bare.rs"
echo 'oomguard::guard!(); fn main() {}' > "$work/src/bin/guarded.rs"
cat > "$work/Cargo.toml" <<END
[package]
name = "measured"
version = "0.0.0"
edition = "2024"

[dependencies]
oomguard = { path = "$crate" }

[profile.release]
strip = true

[profile.release-lto]
inherits = "release"
lto = true
codegen-units = 1
panic = "abort"

[workspace]
END
cd "$work"
cp "$crate/Cargo.lock" .

cargo fetch --quiet
if [ -n "$most_kib" ]; then
    cargo build --quiet --release --bins
    more=$(($(stat -c %s target/release/guarded) - $(stat -c %s target/release/bare)))
    echo "the guard adds $more bytes to a program that does nothing; $most_kib KiB are allowed"
    [ "$more" -le $((most_kib << 10)) ]
    exit
fi
cargo build --quiet --release -p libc -p once_cell -p parking_lot
begin=$(date +%s%N)
cargo build --quiet --release -p oomguard
end=$(date +%s%N)
cargo build --quiet --release --bins
cargo build --quiet --profile release-lto --bins

echo
echo "Bytes of a stripped program that does nothing."
echo
echo "| profile | not guarded | guarded | difference |"
echo "|---|---:|---:|---:|"
for profile in release release-lto; do
    bare=$(stat -c %s "target/$profile/bare")
    guarded=$(stat -c %s "target/$profile/guarded")
    awk -v p="$profile" -v b="$bare" -v g="$guarded" \
        'BEGIN { printf "| `%s` | %d | %d | %+.1f KiB |\n", p, b, g, (g - b) / 1024 }'
done
echo
awk -v ns="$((end - begin))" \
    'BEGIN { printf "The crate itself compiles in %.1f s (release, default features, dependencies built before).\n", ns / 1e9 }'
echo
cargo tree --quiet -e normal -p oomguard --prefix depth | sed 's/ (.*//'
