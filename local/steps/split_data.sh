#!/usr/bin/env bash
# Split a data directory by speaker into <data-dir>/splitN/{1..N} and print that folder; N <= --nj and <= speakers.
nj=4
help_message="usage: split_data.sh [--nj 4] <data-dir>"
. parse_options.sh || exit 1
[ $# -eq 1 ] || { echo "$help_message" >&2; exit 1; }
set -euo pipefail
[ -s "$1/spk2utt" ] || { echo "split_data.sh: $1/spk2utt is missing or empty; run the prepare stage first" >&2; exit 1; }
[ "$nj" -ge 1 ] || { echo "split_data.sh: --nj $nj: at least one job is needed" >&2; exit 1; }
speakers=$(wc -l < "$1/spk2utt")
if [ "$nj" -gt "$speakers" ]; then nj=$speakers; fi
pyser data split --nj "$nj" "$1" "$1/split$nj" >&2
echo "$1/split$nj"
