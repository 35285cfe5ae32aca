#!/usr/bin/env bash
# Dump a node of a network for a whole data directory, used as Kaldi's steps/nnet3/make_bottleneck_features.sh is:
# <bnf-data-dir> becomes a data directory whose feats.scp holds the node's outputs, with utt2num_frames, frame_shift and
# CMVN statistics (utt2emo and the other lists are carried along). <nnet-dir> is Kaldi's (final.raw or final.mdl) or
# one of pyser's (final.safetensors). A dump that was broken off goes on where it was, with the same bytes in the end.
# Begin configuration section
stage=1
nj=4
cmd=run.sh
use_gpu=false
ivector_dir=
compress=true
frames_per_chunk=50      # as nnet3-compute has it; one i-vector for each chunk
subsampling=1            # 3: only every third frame, the output rate of chain models
fast=false               # one i-vector for a whole utterance: not Kaldi's numbers, less work
bfloat16=false
max_dropped=0%           # Kaldi accepts no lost utterance either
# End configuration section
help_message="usage: make_bottleneck_features.sh [options] <bnf-node-name> <input-data-dir> <bnf-data-dir> <nnet-dir> [<log-dir> [<bnfdir>]]
e.g.:  make_bottleneck_features.sh tdnnf12 data/train data/train_bnf exp/chain/tdnn
<log-dir> defaults to <bnf-data-dir>/log, <bnfdir> to <bnf-data-dir>/data. Options:
  --nj 4 --cmd run.sh           # parallel jobs, and what runs them
  --ivector-dir DIR             # with ivector_online.scp and ivector_period
  --use-gpu true --compress false --frames-per-chunk 50 --subsampling 1 --fast true --bfloat16 true --max-dropped 0%"
echo "$0 $*"
. parse_options.sh || exit 1
if [ $# -lt 4 ] || [ $# -gt 6 ]; then echo "$help_message" >&2; exit 1; fi
set -euo pipefail
fail() { echo "make_bottleneck_features.sh: $*" >&2; exit 1; }
node=$1 data=$2 bnf_data=$3 nnet=$4
log_dir=${5:-$bnf_data/log} bnf_dir=${6:-$bnf_data/data}
name=$(basename "$data")
[ -s "$data/feats.scp" ] || fail "$data/feats.scp is missing or empty; run the feature stage first"

[ -e "$nnet" ] || fail "$nnet: no such directory or model; train or import one"
nnet_dir=$nnet model=$nnet         # (a model file will do, what lies beside it counts)
if [ ! -d "$nnet" ]; then nnet_dir=$(dirname "$nnet"); fi
for file in final.safetensors final.raw final.mdl; do if [ -f "$model/$file" ]; then model=$model/$file; fi; done  # (in this order)
if [ -f "$nnet_dir/cmvn_opts" ]; then read -r -a cmvn_opts < <(tr _ - < "$nnet_dir/cmvn_opts") || true
elif [ -f "$nnet_dir/final.safetensors" ] || [[ $nnet == *.safetensors ]]; then cmvn_opts=(--norm-means=false --norm-vars=false)
else fail "$nnet_dir/cmvn_opts is missing; it says whether the network's input was normalised"; fi

case " ${cmvn_opts[*]} " in
  *" --norm-means=false "*"--norm-vars=true "* | *" --norm-vars=true "*"--norm-means=false "*)
    fail "$nnet_dir/cmvn_opts: variances are normalised only together with means" ;;
esac

ivectors=()
if [ -n "$ivector_dir" ]; then
  [ -f "$ivector_dir/ivector_online.scp" ] || fail "$ivector_dir/ivector_online.scp is missing; extract the i-vectors first"
  if [ -s "$nnet_dir/final.ie.id" ] && [ -s "$ivector_dir/final.ie.id" ]; then
    cmp -s "$nnet_dir/final.ie.id" "$ivector_dir/final.ie.id" ||
      fail "the i-vectors in $ivector_dir are not from the extractor $nnet was trained with (final.ie.id differ); extract them with that one"
  else
    echo "$0: no final.ie.id in $nnet_dir or $ivector_dir; cannot tell whether the i-vectors fit the network"
  fi
  ivectors=(--ivectors "scp:$ivector_dir/ivector_online.scp")
fi
options=(--max-dropped "$max_dropped" --frames-per-chunk "$frames_per_chunk" --subsampling "$subsampling")
if $compress; then options+=(--compress); else options+=(--no-compress); fi
if $fast; then options+=(--fast); fi
if $bfloat16; then options+=(--bfloat16); fi
queue=()
if $use_gpu; then options+=(--use-gpu yes); queue=(--gpu 1); fi

split=$(split_data.sh --nj "$nj" "$data"); nj=$(basename "$split"); nj=${nj#split}
mkdir -p "$log_dir" "$bnf_data" "$bnf_dir"
arks=(); scps=()
for job in $(seq "$nj"); do arks+=("$bnf_dir/raw_bnfeat_$name.$job.ark"); scps+=("$bnf_dir/raw_bnfeat_$name.$job.scp"); done
export OMP_NUM_THREADS=1  # one thread a job: the jobs are the parallelism

# The features as the network was trained on them: as they are, with their speaker's statistics, or online.
feats=$split/JOB/feats.scp
cmvn() { $cmd JOB=1:"$nj" "$log_dir/cmvn_$name.JOB.log" once.sh "$bnf_dir/.cmvn_$name.JOB.done" pyser cmvn "$@" "ark,scp:${feats%.scp}.ark,$feats"; }
if [ "$stage" -gt 1 ]; then :
elif [ -f "$nnet_dir/online_cmvn" ]; then
  feats=$bnf_dir/.cmvn_$name.JOB.scp
  cmvn apply-online "${cmvn_opts[@]}" --spk2utt "$split/JOB/spk2utt" "$nnet_dir/global_cmvn.stats" "scp:$split/JOB/feats.scp"
elif [[ " ${cmvn_opts[*]} " != *" --norm-means=false "* ]]; then
  [ -f "$data/cmvn.scp" ] || fail "$data/cmvn.scp is missing, and $nnet_dir/cmvn_opts wants the input normalised; run pyser cmvn compute"
  feats=$bnf_dir/.cmvn_$name.JOB.scp
  cmvn apply "${cmvn_opts[@]}" --utt2spk "$split/JOB/utt2spk" "scp:$split/JOB/cmvn.scp" "scp:$split/JOB/feats.scp"
fi

if [ "$stage" -le 1 ]; then
  echo "$0: node $node of $nnet for $(wc -l < "$data/feats.scp") utterances, $nj jobs"
  echo "output-node name=output input=$node" > "$bnf_data/output.config"
  echo "$nj" > "$bnf_dir/num_jobs"
  $cmd ${queue[@]+"${queue[@]}"} JOB=1:"$nj" "$log_dir/make_bnf_$name.JOB.log" \
    once.sh --also "$model" --also "${ivector_dir:-$nnet_dir}/ivector_period" "$bnf_dir/.done.$name.JOB" \
    pyser bottleneck dump --node "$node" ${ivectors[@]+"${ivectors[@]}"} "${options[@]}" "$nnet" "scp:$feats" \
    "ark,scp:$bnf_dir/raw_bnfeat_$name.JOB.ark,$bnf_dir/raw_bnfeat_$name.JOB.scp" &
  jobs=$!
  bar=
  if [ -t 2 ]; then pyser bottleneck watch --total "$(wc -l < "$data/feats.scp")" "${arks[@]}" & bar=$!; fi
  trap 'kill $jobs $bar 2>/dev/null || true' INT TERM
  code=0; wait $jobs || code=$?
  if [ -n "$bar" ]; then kill "$bar" 2>/dev/null || true; wait "$bar" 2>/dev/null || true; echo >&2; fi
  if [ $code -ne 0 ]; then exit $code; fi
  rm -f "$bnf_dir"/.cmvn_"$name".*
fi

pyser data copy --no-feats "$data" "$bnf_data"
pyser data feats --max-dropped "$max_dropped" "$bnf_data" "${scps[@]}"
shift_in=0.01
if [ -s "$data/frame_shift" ]; then shift_in=$(cat "$data/frame_shift"); fi
awk "BEGIN {print $shift_in * $subsampling}" > "$bnf_data/frame_shift"
pyser cmvn compute --spk2utt "$bnf_data/spk2utt" "scp:$bnf_data/feats.scp" "ark,scp:$bnf_dir/cmvn_$name.ark,$bnf_data/cmvn.scp"
echo "$0: done making bottleneck features in $bnf_data"
