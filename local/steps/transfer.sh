# The stages of every TDNN transfer recipe; egs/*/tdnn/run.sh sources this file after saying what is particular to its
# corpus: corpus_name and prepare_options() (for `pyser corpus prepare`, which also writes the folds).
#
#   corpus -> data/<name> -> MFCC -> i-vectors -> bottleneck -> frame classifier, fold by fold -> UA, WA
#
# Begin configuration section
stage=0
stop_stage=5
nj=$(nproc)
data=data
exp=exp
am=../../tedlium2/tdnn/exp     # an acoustic-model recipe's exp: tdnn/ and ivector_extractor/ are used
node=tdnnf12                   # the bottleneck; lda is the network's input (no acoustic model at all)
pretrained=true                # false: the same network with random parameters
ser_config=conf/ser.conf
selection=valid                # valid: the epoch is chosen on training speakers; last: fixed number of epochs
seeds=0                        # "0 1 2" for three
carry_over=true                # i-vectors learn from the speaker's earlier utterances (false: per utterance)
subsampling=1                  # 3: bottlenecks at the chain model's own 33 Hz, a third of the work
frames_per_chunk=150
max_dropped=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 5] [--corpus DIR] [--am DIR] [--node tdnnf12] [--nj N] [--cmd run.sh] [--data data] [--exp exp]
  0 prepare  1 features  2 i-vectors  3 bottleneck features  4 train a classifier per fold  5 score"
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
model=$am/tdnn/final.safetensors
name=$node
if [ "$pretrained" = false ]; then model=$exp/random.safetensors; name=${node}_random; fi
if ! $carry_over; then name=${name}_perutt; fi
ivectors=$exp/ivectors_$corpus_name
if ! $carry_over; then ivectors=${ivectors}_perutt; fi
bnf=$data/${corpus_name}_$name

if wanted 0; then
  announce 0 "prepare the corpus and its folds"
  once.sh "$data/.done/prepare" pyser corpus prepare "$corpus_name" $(prepare_options) --max-dropped "$max_dropped" "$corpus" "$data"
fi

if wanted 1; then
  announce 1 "features: MFCC as the acoustic model was trained on"
  [ -f "$am/tdnn/mfcc.conf" ] || { echo "$0: no acoustic model in $am: run egs/tedlium2/tdnn/run.sh (or egs/kaldi_dir/tdnn/run.sh) first, or give --am" >&2; exit 1; }
  make_mfcc.sh --nj "$nj" --cmd "$cmd" --mfcc-config "$am/tdnn/mfcc.conf" --max-dropped "$max_dropped" "$data/$corpus_name" "$exp/make_mfcc" "$exp/mfcc"
fi

if wanted 2; then
  announce 2 "online i-vectors by the acoustic model's extractor"
  extract_ivectors_online.sh --nj "$nj" --cmd "$cmd" --carry-over "$carry_over" "$data/$corpus_name" "$am/ivector_extractor" "$ivectors"
fi

if wanted 3; then
  announce 3 "bottleneck features: node $node of $model"
  if [ "$pretrained" = false ]; then
    once.sh "$exp/.done/random" pyser chain init --seed 0 --ivectors "scp:$ivectors/ivector_online.scp" \
      "$am/tdnn/final.safetensors" "scp:$data/$corpus_name/feats.scp" "$model"
  fi
  make_bottleneck_features.sh --nj "$nj" --cmd "$cmd" --ivector-dir "$ivectors" --frames-per-chunk "$frames_per_chunk" \
    --subsampling "$subsampling" --max-dropped "$max_dropped" "$node" "$data/$corpus_name" "$bnf" "$model" \
    "$exp/bnf_$name/log" "$exp/bnf_$name"
fi

results=()
for seed in $seeds; do
  ser=$exp/ser_$name
  if [ "$selection" = last ]; then ser=${ser}_last; fi
  if [ "$seed" != 0 ]; then ser=${ser}_seed$seed; fi
  results+=("$ser/results.json")
  if wanted 4; then
    announce 4 "train a frame classifier per fold (seed $seed, log: $ser/log/train.log)"
    once.sh --also "$bnf/feats.scp" "$ser/.done" $cmd "$ser/log/train.log" \
      pyser ser train --conf "$ser_config" --selection "$selection" --seed "$seed" "$bnf" "$data/$corpus_name/folds" "$ser"
    i_vectors=carry-over
    if ! $carry_over; then i_vectors=per-utterance; fi
    pyser ser package-frontend --node "$node" --subsampling "$subsampling" --frames-per-chunk "$frames_per_chunk" \
      --extractor "$am/ivector_extractor" --ivector-mode "$i_vectors" "$ser" "$model" "$am/tdnn/mfcc.conf"
  fi
  if wanted 5; then
    announce 5 "score (seed $seed)"
    pyser score ser "$ser"
  fi
done
if wanted 5 && [ ${#results[@]} -gt 1 ]; then pyser score table "${results[@]}"; fi
