#!/usr/bin/env bash
# Dump a node of a network for a whole data directory, as Kaldi's steps/nnet3/make_bottleneck_features.sh: <bnf-data-dir>
# becomes a data directory whose feats.scp holds the node's outputs (utt2emo and the other lists are carried along).
nj=4
cmd=run.sh
ivector_dir=
frames_per_chunk=150
subsampling=1
max_dropped=5%
help_message="usage: make_bottleneck_features.sh [--nj 4] [--cmd run.sh] [--ivector-dir D] [--frames-per-chunk 150] [--subsampling 1] <node> <data-dir> <bnf-data-dir> <model.safetensors> <bnf-dir>"
. parse_options.sh || exit 1
[ $# -eq 5 ] || { echo "$help_message" >&2; exit 1; }
set -euo pipefail
node=$1 data=$2 bnf_data=$3 model=$4 bnf_dir=$5
split=$(split_data.sh --nj "$nj" "$data"); nj=$(basename "$split"); nj=${nj#split}
ivectors=()
if [ -n "$ivector_dir" ]; then ivectors=(--ivectors "scp:$ivector_dir/ivector_online.scp"); fi
export OMP_NUM_THREADS=1
$cmd JOB=1:"$nj" "$bnf_dir/log/make_bnf_$node.JOB.log" \
  once.sh "$bnf_dir/.done.$node.JOB" \
  pyser bottleneck compute --node "$node" ${ivectors[@]+"${ivectors[@]}"} --frames-per-chunk "$frames_per_chunk" \
  --subsampling "$subsampling" --max-dropped "$max_dropped" "$model" "scp:$split/JOB/feats.scp" \
  "ark,scp:$bnf_dir/raw_bnfeat_$node.JOB.ark,$bnf_dir/raw_bnfeat_$node.JOB.scp"
pyser data copy "$data" "$bnf_data"
scps=(); for job in $(seq "$nj"); do scps+=("$bnf_dir/raw_bnfeat_$node.$job.scp"); done
pyser data feats --max-dropped "$max_dropped" "$bnf_data" "${scps[@]}"
