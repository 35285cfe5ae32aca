#!/usr/bin/env bash
# Hires MFCC of a data directory into Kaldi archives, and its feats.scp and utt2num_frames.
nj=4
cmd=run.sh
mfcc_config=conf/mfcc_hires.conf
max_dropped=5%
help_message="usage: make_mfcc.sh [--nj 4] [--cmd run.sh] [--mfcc-config conf/mfcc_hires.conf] [--max-dropped 5%] <data-dir> <exp-dir> <mfcc-dir>"
. parse_options.sh || exit 1
[ $# -eq 3 ] || { echo "$help_message" >&2; exit 1; }
set -euo pipefail
data=$1 exp=$2 mfcc_dir=$3 name=$(basename "$1")
[ -f "$mfcc_config" ] || { echo "make_mfcc.sh: no such config $mfcc_config" >&2; exit 1; }
split=$(split_data.sh --nj "$nj" "$data"); nj=$(basename "$split"); nj=${nj#split}
segments=()
if [ -f "$data/segments" ]; then segments=(--segments "$split/JOB/segments"); fi
$cmd JOB=1:"$nj" "$exp/log/make_mfcc_$name.JOB.log" \
  once.sh "$mfcc_dir/.done.$name.JOB" \
  pyser mfcc compute --config "$mfcc_config" --max-dropped "$max_dropped" ${segments[@]+"${segments[@]}"} \
  "scp:$split/JOB/wav.scp" "ark,scp:$mfcc_dir/raw_mfcc_$name.JOB.ark,$mfcc_dir/raw_mfcc_$name.JOB.scp"
scps=(); for job in $(seq "$nj"); do scps+=("$mfcc_dir/raw_mfcc_$name.$job.scp"); done
pyser data feats --max-dropped "$max_dropped" "$data" "${scps[@]}"
