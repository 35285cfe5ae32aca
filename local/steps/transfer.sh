# The stages of every TDNN transfer recipe; egs/*/tdnn/run.sh sources this file after saying what is particular to its
# corpus: corpus_name and prepare_options() (for `pyser corpus prepare`, which also writes the folds).
#
#   corpus -> data/<name> -> MFCC -> i-vectors -> bottleneck -> frame classifier, fold by fold -> UA, WA
#
# Begin configuration section
stage=0
stop_stage=6
nj=$(nproc)
data=data
exp=exp
am=../../tedlium2/tdnn/exp     # an acoustic-model recipe's exp: tdnn/ and ivector_extractor/ are used
node=tdnnf12                   # the bottleneck, or several "tdnnf8 tdnnf12"; lda is the network's input (no acoustic model at all)
pretrained=true                # false: the same network with random parameters, each seed's own
speeds=                        # 0.9,1.0,1.1: classifiers learn from training utterances at other speeds too
use_ivectors=true              # false: for an acoustic model that was trained without
train_above=                   # layers above this node learn with the classifier (lda: all, the node itself: none); not given: bottlenecks are dumped
pooling=sum                    # of frame posteriors, or of their logarithms (log), or statistics or attention over the frames
class_balanced=                # true or false: whether every class counts the same; not given: as ser_config says
cmvn=none                      # speaker: bottlenecks are normalised by all that a speaker says, a test speaker too
vad=false                      # true: silence is left out, by energy
vad_config=conf/vad.conf
ser_config=                    # conf/ser.conf, ser_utterances.conf with statistics or attention, ser_layers.conf with --train-above
selection=valid                # valid: the epoch is chosen on training speakers; last: fixed number of epochs
seeds=0                        # "0 1 2" for three
carry_over=false               # true: i-vectors learn from the speaker's earlier utterances as well, in the order of their names. Kaldi's
                               # online decoding does so; here that order may tell the emotion (stage 5 says how much)
against=                       # results.json of another system, one per seed, to compare this one with: "A/results.json ..."
subsampling=1                  # 3: bottlenecks at the chain model's own 33 Hz, a third of the work
frames_per_chunk=150
max_dropped=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 6] [--corpus DIR] [--am DIR] [--node tdnnf12] [--pooling sum] [--nj N] [--cmd run.sh] [--data data] [--exp exp]
  0 prepare  1 features  2 i-vectors  3 bottleneck features  4 train a classifier per fold  5 score  6 compare the nodes
systems: [--node 'lda tdnnf8 tdnnf12'] [--pretrained false] [--use-ivectors false] [--carry-over true|false] [--train-above lda]
  [--pooling sum|log|statistics|attention] [--cmvn speaker] [--vad true] [--subsampling 3] [--frames-per-chunk 150]
training: [--ser-config FILE] [--class-balanced true|false] [--speeds 0.9,1.0,1.1] [--selection valid|last] [--seeds '0 1 2'] [--max-dropped 5%]
comparing: [--against 'A/results.json A_seed1/results.json'] paired tests of this system against A; with several nodes, of each
  against the first
Another corpus, --label-set, --subset or --am needs a --data and an --exp of its own."
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
if [ -z "$ser_config" ]; then
  ser_config=conf/ser.conf
  if [ "$pooling" = statistics ] || [ "$pooling" = attention ]; then ser_config=conf/ser_utterances.conf; fi
  if [ -n "$train_above" ]; then ser_config=conf/ser_layers.conf; fi
fi
source_data=$data/$corpus_name set=$corpus_name suffix=
if [ -n "$speeds" ]; then set=${corpus_name}_sp suffix=_sp; fi
if [ "$pretrained" = false ]; then suffix=${suffix}_random; fi
ivectors=$exp/ivectors_$set
mode=per-utterance
if ! $use_ivectors; then suffix=${suffix}_noiv
elif $carry_over; then suffix=${suffix}_carry ivectors=${ivectors}_carry mode=carry-over; fi
if [ "$subsampling" != 1 ]; then suffix=${suffix}_sub$subsampling; fi
if [ "$frames_per_chunk" != 150 ]; then suffix=${suffix}_chunk$frames_per_chunk; fi
ivector_dir=() init_ivectors=() extractor=()
if $use_ivectors; then
  ivector_dir=(--ivector-dir "$ivectors")
  init_ivectors=(--ivectors "scp:$ivectors/ivector_online.scp")
  extractor=(--extractor "$am/ivector_extractor" --ivector-mode "$mode")
fi

if wanted 0; then
  announce 0 "prepare the corpus and its folds"
  once.sh --also "$corpus" "$data/.done/prepare" pyser corpus prepare "$corpus_name" $(prepare_options) --max-dropped "$max_dropped" "$corpus" "$data"
fi

if wanted 1; then
  announce 1 "features: MFCC as the acoustic model was trained on"
  [ -f "$am/tdnn/mfcc.conf" ] || { echo "$0: no acoustic model in $am: run egs/tedlium2/tdnn/run.sh (or egs/kaldi_dir/tdnn/run.sh) first, or give --am" >&2; exit 1; }
  if [ -n "$speeds" ]; then
    once.sh --also "$source_data/utt2emo" "$data/.done/speeds" pyser data perturb-speed --factors "$speeds" "$source_data" "$data/$set"
  fi
  make_mfcc.sh --nj "$nj" --cmd "$cmd" --mfcc-config "$am/tdnn/mfcc.conf" --max-dropped "$max_dropped" "$data/$set" "$exp/make_mfcc" "$exp/mfcc"
fi

if wanted 2 && $use_ivectors; then
  announce 2 "online i-vectors by the acoustic model's extractor"
  extract_ivectors_online.sh --nj "$nj" --cmd "$cmd" --carry-over "$carry_over" "$data/$set" "$am/ivector_extractor" "$ivectors"
fi

if [ "$stage" -le 4 ] && [ "$stop_stage" -ge 3 ] && $vad; then
  once.sh --also "$data/$set/feats.scp" "$exp/.done/vad_$set" \
    pyser vad compute --config "$vad_config" "scp:$data/$set/feats.scp" "ark,scp:$exp/vad_$set.ark,$exp/vad_$set.scp"
fi

seed_suffix() { if [ "$1" != 0 ]; then echo "_seed$1"; fi; }  # <seed>
model_of() { if [ "$pretrained" = false ]; then echo "$exp/random$(seed_suffix "$1").safetensors"; else echo "$am/tdnn/final.safetensors"; fi; }
bottlenecks_of() { echo "$one$suffix$(if [ "$pretrained" = false ]; then seed_suffix "$1"; fi)"; }  # one dump for all seeds of a trained model

results=()
for one in $node; do
  name=$one$suffix
  for seed in $seeds; do
    dumped=$(bottlenecks_of "$seed") model=$(model_of "$seed")
    if [ "$pretrained" = false ] && [ "$stage" -le 4 ] && [ "$stop_stage" -ge 3 ]; then
      once.sh "$exp/.done/$(basename "$model" .safetensors)" pyser chain init --seed "$seed" ${init_ivectors[@]+"${init_ivectors[@]}"} \
        "$am/tdnn/final.safetensors" "scp:$data/$set/feats.scp" "$model"
    fi
    if wanted 3 && [ -z "$train_above" ] && [ "$dumped" != "${dumped_last:-}" ]; then
      announce 3 "bottleneck features: node $one of $model"
      make_bottleneck_features.sh --nj "$nj" --cmd "$cmd" ${ivector_dir[@]+"${ivector_dir[@]}"} --frames-per-chunk "$frames_per_chunk" \
        --subsampling "$subsampling" --max-dropped "$max_dropped" "$one" "$data/$set" "$data/${corpus_name}_$dumped" "$model" \
        "$exp/bnf_$dumped/log" "$exp/bnf_$dumped"
      dumped_last=$dumped
    fi
  done
  options=(--pooling "$pooling" --selection "$selection" --cmvn "$cmvn") package=()
  if [ "$pooling" != sum ]; then name=${name}_$pooling; fi
  if [ -n "$train_above" ]; then
    name=${name}_above_$train_above
    if [ "$pretrained" = false ]; then options+=(--learning-rate-factor 1); fi  # layers that know nothing have everything to learn
    options+=(--node "$one" --train-above "$train_above" --subsampling "$subsampling" ${ivector_dir[@]+"${ivector_dir[@]}"})
  fi
  if [ "$cmvn" != none ]; then name=${name}_cmvn; fi
  if $vad; then
    name=${name}_vad
    options+=(--vad-scp "$exp/vad_$set.scp")
    package=(--vad-config "$vad_config")
  fi
  if [ -n "$class_balanced" ]; then
    if $class_balanced; then name=${name}_balanced options+=(--class-balanced); else name=${name}_unbalanced options+=(--no-class-balanced); fi
  fi
  if [ "$selection" = last ]; then name=${name}_last; fi
  for seed in $seeds; do
    ser=$exp/ser_$name$(seed_suffix "$seed") model=$(model_of "$seed")
    input=$data/${corpus_name}_$(bottlenecks_of "$seed") network=()
    if [ -n "$train_above" ]; then input=$data/$set network=(--am "$model"); fi
    results+=("$ser/results.json")
    if wanted 4; then
      announce 4 "train a classifier per fold (seed $seed, log: $ser/log/train.log)"
      once.sh --also "$input/feats.scp" --also "$source_data/folds" "$ser/.done" $cmd "$ser/log/train.log" \
        pyser ser train --conf "$ser_config" "${options[@]}" ${network[@]+"${network[@]}"} --seed "$seed" "$input" "$source_data/folds" "$ser"
      pyser ser package-frontend --node "$one" --subsampling "$subsampling" --frames-per-chunk "$frames_per_chunk" \
        ${extractor[@]+"${extractor[@]}"} ${package[@]+"${package[@]}"} "$ser" "$model" "$am/tdnn/mfcc.conf"
    fi
    if wanted 5; then
      announce 5 "score (seed $seed)"
      pyser score ser "$ser"
    fi
  done
done
if wanted 5 && [ ${#results[@]} -gt 1 ]; then pyser score table "${results[@]}"; fi
if wanted 6; then
  case $node in
    *" "*)
      announce 6 "UA by node"
      pyser score layers "$exp/layers${name#"$one"}.png" "${results[@]}"
      pyser score compare "${results[@]}" | tee "$exp/compare${name#"$one"}.txt" ;;
  esac
  if [ -n "$against" ]; then
    announce 6 "paired tests against $against"
    pyser score compare $against "${results[@]}" | tee "$exp/compare_$name.txt"
  fi
fi
