# Sourced by every recipe: `. ./path.sh`. Makes `pyser` and local/ callable, and sets the environment up the first time.
# PYSER_STACK=torch2 chooses the modern stack (.venv-torch2, no k2) instead of the default one (.venv, with k2).

PYSER_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYSER_ROOT
case "${PYSER_STACK:-k2}" in
  k2) pyser_venv=$PYSER_ROOT/.venv ;;
  torch2) pyser_venv=$PYSER_ROOT/.venv-torch2 ;;
  *) echo "path.sh: PYSER_STACK is '$PYSER_STACK', it must be k2 or torch2" >&2; return 1 2>/dev/null || exit 1 ;;
esac
if ! cat "$PYSER_ROOT/setup.py" "$PYSER_ROOT"/pyser/native/*.{cpp,h} | cmp -s - "$pyser_venv/.installed"; then  # pins and C++ changed: again
  echo "path.sh: setting up $pyser_venv (first time: a few minutes and about 4 GB)" >&2
  if [ "${PYSER_STACK:-k2}" = torch2 ]; then
    "$PYSER_ROOT/local/install.sh" --torch2 >&2 || return 1 2>/dev/null || exit 1
  else
    "$PYSER_ROOT/local/install.sh" >&2 || return 1 2>/dev/null || exit 1
  fi
fi
export PATH=$pyser_venv/bin:$PYSER_ROOT/local:$PYSER_ROOT/local/steps:$PATH
export LC_ALL=C  # Kaldi's sorting
export PYTHONUTF8=1 PYTHONUNBUFFERED=1
