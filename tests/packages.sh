# Sourced by scripts that install what they need.

have() { type -P "$1" >/dev/null; }

install() { # PACKAGE...
  have apt-get && [ "$(id -u)" = 0 ] || return 1
  echo "installing: $*"
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$@" >/dev/null 2>&1 ||
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$@" >/dev/null; }
}
