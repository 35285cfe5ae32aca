# The stages of every recipe of emotion regression; egs/*/sa2sr/run.sh sources this file after saying what is particular to
# its corpus: corpus_name, prepare_options() (for `pyser corpus prepare`, which also writes the folds), derived, and
# prepare_into, where in data it puts what it writes, if that is the data directory itself.
#
#   corpus -> data/<name> with utt2avd -> [copies at other speeds] -> filterbanks -> encoder and regressor, fold by fold -> CCC
#
# Begin configuration section
stage=0
stop_stage=4
nj=$(nproc)
data=data
exp=exp
pretrained=../../librispeech/sa2sr/exp  # where the recipe of pretraining left pretrain_asr, pretrain_sa2sr and pretrain_cpc
fbank_config=conf/fbank.conf
regression_config=conf/regression.conf
systems="none asr cpc sa2sr asr_frozen sa2sr_frozen"  # none: no pretraining; _frozen: the encoder keeps its parameters
speeds=${speeds-}              # 0.9,1.0,1.1: training utterances at other speeds too
sentiment=                     # a text model, or vader: the words' sentiment by the voice's emotion, of a corpus with transcripts
selection=valid                # valid: the epoch is chosen on training speakers; last: fixed number of epochs
seeds=0                        # "0 1 2" for three
max_dropped=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 4] [--corpus DIR] [--pretrained DIR] [--systems 'none asr sa2sr'] [--seeds '0 1 2'] [--selection valid|last] [--speeds 0.9,1.0,1.1] [--sentiment MODEL|vader] [--nj N] [--cmd run.sh] [--data data] [--exp exp]
  0 prepare  1 filterbanks  2 fine-tune, fold by fold  3 score  4 tables 1 (with --sentiment) to 4 of the paper, and paired tests"
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
source_data=$data/$corpus_name corpus_data=$data/$corpus_name
if [ -n "$speeds" ]; then corpus_data=${source_data}_sp; fi

if wanted 0; then
  announce 0 "prepare the corpus and its folds"
  once.sh --also "$corpus" "$data/.done/prepare" pyser corpus prepare "$corpus_name" $(prepare_options) --max-dropped "$max_dropped" "$corpus" "$data${prepare_into:-}"
  [ -d "$source_data/folds" ] || { echo "$0: $corpus has no ratings (utt2avd) of two speakers or more; take another --corpus" >&2; exit 1; }
  if $derived; then pyser corpus circumplex "$source_data"; fi
fi

if wanted 1; then
  announce 1 "filterbanks"
  if [ -n "$speeds" ]; then
    once.sh --also "$source_data/utt2avd" "$data/.done/speeds" pyser data perturb-speed --factors "$speeds" "$source_data" "$corpus_data"
  fi
  make_fbank.sh --nj "$nj" --cmd "$cmd" --fbank-config "$fbank_config" --max-dropped "$max_dropped" "$corpus_data" "$exp/make_fbank" "$exp/fbank"
fi

result() { echo "$exp/avd_$1$(if [ "$selection" = last ]; then echo _last; fi)$(if [ "$2" != 0 ]; then echo "_seed$2"; fi)"; }  # <system> <seed>
for system in $systems; do
  objective=${system%_frozen} options=()
  case $objective in
    none) ;;
    asr | sa2sr | cpc) options=(--encoder "$pretrained/pretrain_$objective") ;;
    *) echo "$0: --systems $system: they are none, asr, cpc and sa2sr, and these with _frozen" >&2; exit 1 ;;
  esac
  if [ "$system" != "$objective" ]; then options+=(--freeze); fi
  for seed in $seeds; do
    ser=$(result "$system" "$seed")
    if wanted 2; then
      announce 2 "fine-tune per fold: $system (seed $seed, log: $ser/log/train.log)"
      marker=(--also "$source_data/folds" --also "$corpus_data/feats.scp" --also "$corpus_data/utt2avd" --also "$pretrained/pretrain_$objective/final.safetensors")
      once.sh "${marker[@]}" "$ser/.done" $cmd "$ser/log/train.log" pyser sa2sr fine-tune --conf "$regression_config" \
        ${options[@]+"${options[@]}"} --selection "$selection" --seed "$seed" --max-dropped "$max_dropped" \
        "$corpus_data" "$source_data/folds" "$ser"
      pyser sa2sr package "$ser" "$fbank_config" >/dev/null
    fi
    if wanted 3; then
      announce 3 "score (seed $seed)"
      pyser score ratings "$ser"
    fi
  done
done

scored() { local seed; for seed in $seeds; do ls "$(result "$1" "$seed")/results.json" 2>/dev/null || true; done; }  # <system>
table() {  # <number> <title> <system>...: of those that are there
  local number=$1 title=$2 system count=0 results=(); shift 2
  for system in "$@"; do
    if [ -n "$(scored "$system")" ]; then count=$((count + 1)); results+=($(scored "$system")); fi
  done
  if [ "$count" -lt 2 ]; then return; fi
  { echo "Table $number: $title"; pyser score ratings-table "${results[@]}"; echo; pyser score ratings-compare "${results[@]}"; } \
    | tee "$exp/table$number.txt"
}
against() {  # <number> <system> <system>: also compared in that table
  if [ -z "$(scored "$2")" ] || [ -z "$(scored "$3")" ]; then return; fi
  { echo; echo "Also (p not corrected for the number of comparisons):"; pyser score ratings-compare $(scored "$2") $(scored "$3"); } | tee -a "$exp/table$1.txt"
}
if wanted 4; then
  announce 4 "tables"
  if [ -n "$sentiment" ]; then
    once.sh --also "$source_data/utt2sentiment" "$data/.done/sentiment" pyser sentiment label --model "$sentiment" --use-gpu optional --max-dropped 50% "$source_data"
    pyser score sentiment --out "$exp/table1.png" "$source_data" | tee "$exp/table1.txt"
  fi
  table 2 "without pretraining, and with ASR" none asr
  table 3 "pretraining by ASR, by CPC, and by ASR and sentiment" asr cpc sa2sr
  against 3 cpc sa2sr
  against 3 none sa2sr
  table 4 "encoders frozen and fine-tuned" asr_frozen asr sa2sr_frozen sa2sr
  against 4 sa2sr_frozen sa2sr
fi
