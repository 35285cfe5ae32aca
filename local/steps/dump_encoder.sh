#!/usr/bin/env bash
# Hidden states and CTC outputs of a speech encoder for a whole data directory: <dir>/layerN.scp, <dir>/logits.scp. A dump
# that was broken off goes on where it was.
nj=4
cmd=run.sh
layers=three
use_gpu=no
max_dropped=5%
help_message="usage: dump_encoder.sh [--nj 4] [--cmd run.sh] [--layers three|all|0,6,12] [--use-gpu no] [--max-dropped 5%] <model> <data-dir> <dir>"
. parse_options.sh || exit 1
[ $# -eq 3 ] || { echo "$help_message" >&2; exit 1; }
set -euo pipefail
model=$1 data=$2 dir=$3
nj=$(cat "$dir/num_jobs" 2>/dev/null || echo "$nj")  # a dump goes on with as many as it began with
split=$(split_data.sh --nj "$nj" "$data"); nj=$(basename "$split"); nj=${nj#split}
mkdir -p "$dir"
echo "$nj" > "$dir/num_jobs"
export OMP_NUM_THREADS=1  # one thread a job: the jobs are the parallelism
$cmd JOB=1:"$nj" "$dir/log/dump.JOB.log" \
  pyser encoder dump --layers "$layers" --use-gpu "$use_gpu" --max-dropped "$max_dropped" "$model" "$split/JOB" "$dir/JOB"
rm -f "$dir"/layer*.scp  # of another model
for first in "$dir"/1/*.scp; do
  name=$(basename "$first")
  for job in $(seq "$nj"); do cat "$dir/$job/$name"; done | sort > "$dir/.$name"
  mv "$dir/.$name" "$dir/$name"
done
cp "$dir/1/dump.json" "$dir/dump.json"
