#!/usr/bin/env bash
# Run the tests: local/test.sh [--torch2] [pytest arguments]. Style (ruff) and types (mypy) first, they are quick.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --torch2 ]; then export PYSER_STACK=torch2; shift; fi
. ./path.sh
echo "test.sh: ruff, mypy, pytest in $(dirname "$(dirname "$(command -v pyser)")")"
ruff check pyser tests egs setup.py
mypy pyser
exec python -m pytest -q "$@"
