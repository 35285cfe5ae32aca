#!/usr/bin/env bash
# Set pyser up from scratch: local/install.sh [--torch2]
#   default    .venv         Python 3.10, torch 1.13.1, k2    (everything)
#   --torch2   .venv-torch2  Python 3.11+, torch 2.x, no k2   (everything but composing decoding graphs and n-best lists)
# All versions are pinned in setup.py. $PYTHON names the interpreter to use if it is not found by itself.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
stack=k2
case "${1:-}" in
  "") ;;
  --torch2) stack=torch2 ;;
  *) echo "usage: local/install.sh [--torch2]" >&2; exit 1 ;;
esac
log() { echo "install.sh: $*"; }
die() { echo "install.sh: $*" >&2; exit 1; }
is_version() { "$1" -c "import sys; sys.exit(not ($2))" >/dev/null 2>&1; }

# A `python3.10` on PATH may be a shim that fails, so every candidate is run before it is believed.
find_python() {  # find_python CONDITION CANDIDATE...
  local condition=$1 candidate; shift
  for candidate in "$@"; do
    if is_version "$candidate" "$condition"; then echo "$candidate"; return 0; fi
  done
  return 1
}
pyenv_root=${PYENV_ROOT:-$HOME/.pyenv}
if command -v pyenv >/dev/null; then pyenv_root=$(pyenv root); fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi; }
apt_install() { command -v apt-get >/dev/null || return 1; log "apt-get install $*"; as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null; }

if [ $stack = k2 ]; then
  venv=$root/.venv
  condition='sys.version_info[:2] == (3, 10)'
  if ! python=$(find_python "$condition" ${PYTHON:+"$PYTHON"} python3.10 python3 "$pyenv_root"/versions/3.10*/bin/python /opt/*/bin/python3.10); then
    log "no Python 3.10 found (k2's wheel needs it); fetching one with uv"
    { python3 -m venv "$root/.uv" && "$root/.uv/bin/pip" install -q uv && "$root/.uv/bin/uv" python install -q 3.10; } ||
      die "no Python 3.10: install one (pyenv install 3.10, or uv python install 3.10) and run PYTHON=/path/to/python3.10 local/install.sh"
    python=$("$root/.uv/bin/uv" python find 3.10)
  fi
else
  venv=$root/.venv-torch2
  python=$(find_python 'sys.version_info[:2] >= (3, 11)' ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 "$pyenv_root"/versions/3.1[123]*/bin/python) ||
    die "no Python 3.11 or newer: install one and run PYTHON=/path/to/python3 local/install.sh --torch2"
fi

log "$stack stack with $python -> $venv"
rm -f "$venv/.installed"
if ! "$python" -m venv "$venv" 2>/dev/null; then
  apt_install python3-venv || die "python3 has no venv module: apt-get install python3-venv, then run this again"
  "$python" -m venv "$venv"
fi
# pip 24.1 and later reject the file name of k2's wheel.
"$venv/bin/pip" install -q --disable-pip-version-check 'pip==23.3.2' 'setuptools<81' wheel 2> >(grep -v '^WARNING' >&2)
if [ $stack = k2 ] && ! "$venv/bin/python" -c "import k2" 2>/dev/null; then
  # k2's wheels for Python 3.7 to 3.11 all say that they suit any Python 3; the one for 3.10 is told by its hash (then macOS's).
  printf 'k2==1.23.4 --hash=sha256:%s --hash=sha256:%s\n' \
    1404589732fdb7f6f5bf62297a20dd73318b7b4f2e10dd52dc3d5b6669688a4c \
    89d38aab1df9e5d10f59379a93f0c8b033ea10a7515083e05740afa3edf15e84 > "$venv/k2.txt"
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --force-reinstall --require-hashes -r "$venv/k2.txt" 2> >(grep -v '^WARNING' >&2) ||
    die "pip could not install k2; its lines above say why"
fi
"$venv/bin/pip" install -q --disable-pip-version-check -e "$root[$stack,test]" 2> >(grep -v '^WARNING' >&2) ||
  die "pip could not install the $stack stack; its lines above say why"

if [ $stack = k2 ]; then "$venv/bin/python" -c 'import k2' || die "k2 was installed but cannot be imported; the lines above say why"; fi
cat "$root/setup.py" "$root"/pyser/native/*.{cpp,h} > "$venv/.installed"
log "done: $("$venv/bin/pyser" --version)"
