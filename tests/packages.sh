# Sourced by scripts that install what they need.

have() { type -P "$1" >/dev/null; }

install() { # PACKAGE...
  have apt-get && [ "$(id -u)" = 0 ] || return 1
  echo "installing: $*"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y "$@" >/dev/null 2>&1 ||
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y "$@" >/dev/null; }
}

# Builds a tool of cargo's kind where it is not there, once: not optimized, as building it takes longer than running it ever does.
tool() { # NAME VERSION [OPTION]...
  local target
  target=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")
  PATH=$PATH:$target/tools/bin
  have "$1" || CARGO_TARGET_DIR=$target/tools/build CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install --quiet --locked --debug --root "$target/tools" "$1" --version "$2" "${@:3}" || return 1
  rm -rf -- "$target/tools/build"
}
