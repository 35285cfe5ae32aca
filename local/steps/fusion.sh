# The stages of every fusion recipe; egs/*/fusion/run.sh sources this file after saying what is particular to its corpus:
# corpus_name and prepare_options() (for `pyser corpus prepare`, which also writes the folds), and prepare_into, where in
# data it puts what it writes, if that is the data directory itself.
#
#   corpus -> data/<name> -> MFCC                                         \
#                         -> speech encoder -> hidden states              -> fusion, fold by fold -> UA, WA
#                                           -> words -> text encoder     /
#
# Begin configuration section
stage=0
stop_stage=6
nj=$(nproc)
data=data
exp=exp
mfcc_config=conf/mfcc_hires.conf
fusion_config=conf/fusion.conf
w2v2=facebook/wav2vec2-base-960h  # speech encoder with a CTC head: a name on the Hugging Face hub or a directory
bert=bert-base-uncased            # text encoder, likewise; where the hub is out of reach: local/get_text_encoder.sh DIR
lm=                               # word LM (ARPA) for the CTC beam search, such as 3-gram.pruned.1e-7.arpa of openslr.org/11; none: greedy
words=                            # what the search can find, one per line; none: all words of --lm
layers=three                      # hidden states that are kept: first, middle and last; or all, or 0,6,12
streams=mfcc,hidden,text          # in the order of the fusion; gt: the reference's words, as a text stream that no system has
fusion=hierarchical               # or concat, coattention
layer=last                        # of the stream hidden: first, middle, last or a number
freeze=encoder                    # features or none: the speech encoder learns with the fusion, by CTC on text too
grid=                             # table3: MFCC and all fusions with it; table4: single streams, every layer kept
selection=valid                   # valid: the epoch is chosen on training speakers; last: fixed number of epochs
seeds=0                           # "0 1 2" for three
use_gpu=no                        # yes or optional: encoders run on it in stages 2 and 3 (with --nj 1); training takes one if there is one
max_dropped=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 6] [--corpus DIR] [--w2v2 MODEL] [--bert MODEL] [--streams mfcc,hidden,text] [--fusion hierarchical] [--layer last] [--grid table3|table4] [--lm FILE.arpa] [--nj N] [--data data] [--exp exp]
  0 prepare  1 MFCC  2 hidden states and words  3 text features  4 train a fusion per fold  5 score  6 table, chart of the layers"
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
corpus_data=$data/$corpus_name
encoder=$exp/encoder
search=()
if [ -n "$lm" ]; then search=(--lm "$lm" ${words:+--words "$words"}); fi
gpu=()
if [ "$use_gpu" != no ]; then gpu=(--use-gpu "$use_gpu"); fi
case $grid in
  "" | table3) ;;
  table4) layers=all ;;
  *) echo "$0: --grid $grid: it is table3 or table4" >&2; exit 1 ;;
esac

if wanted 0; then
  announce 0 "prepare the corpus and its folds"
  once.sh --also "$corpus" "$data/.done/prepare" pyser corpus prepare "$corpus_name" $(prepare_options) --max-dropped "$max_dropped" "$corpus" "$data${prepare_into:-}"
  [ -d "$corpus_data/folds" ] || { echo "$0: $corpus has no emotions (utt2emo) of two speakers or more; take another --corpus" >&2; exit 1; }
fi

if wanted 1; then
  announce 1 "MFCC"
  make_mfcc.sh --nj "$nj" --cmd "$cmd" --mfcc-config "$mfcc_config" --max-dropped "$max_dropped" "$corpus_data" "$exp/make_mfcc" "$exp/mfcc"
fi

if wanted 2; then
  announce 2 "hidden states and words by $w2v2 (log: $encoder/log)"
  dump_encoder.sh --nj "$nj" --cmd "$cmd" --layers "$layers" --use-gpu "$use_gpu" --max-dropped "$max_dropped" "$w2v2" "$corpus_data" "$encoder"
  if [ -z "$lm" ]; then echo "  without --lm words are spelled greedily; a beam search with a word LM makes fewer errors"; fi
  once.sh --also "$encoder/logits.scp" "$exp/decode/.done" pyser encoder decode ${search[@]+"${search[@]}"} --data "$corpus_data" "$w2v2" \
    "$encoder/logits.scp" "$exp/decode"
  if [ -f "$exp/decode/ref.txt" ]; then
    pyser score wer --by emotion,length --data "$corpus_data" --out "$exp/decode" "$exp/decode" | tee "$exp/decode/analysis.txt"
  fi
fi

if wanted 3; then
  announce 3 "text features by $bert"
  marker=(--also "$bert/model.safetensors")
  once.sh "${marker[@]}" "$exp/text/.done/hyp" \
    pyser encoder text-features ${gpu[@]+"${gpu[@]}"} "$bert" "$exp/decode/hyp.txt" "ark,scp:$exp/text/hyp.ark,$exp/text/hyp.scp"
  if [ -f "$corpus_data/text" ]; then
    once.sh "${marker[@]}" "$exp/text/.done/gt" \
      pyser encoder text-features ${gpu[@]+"${gpu[@]}"} "$bert" "$corpus_data/text" "ark,scp:$exp/text/gt.ark,$exp/text/gt.scp"
  fi
fi

last=$(sed -n 's/.*"num_layers": *\([0-9]*\).*/\1/p' "$encoder/dump.json" 2>/dev/null || true)
if [ -z "$last" ] && [ "$stop_stage" -ge 4 ]; then echo "$0: no hidden states in $encoder: run stage 2 first" >&2; exit 1; fi
case $grid in
  table3)
    systems=("mfcc concat last")
    for one in mfcc,gt mfcc,hidden mfcc,text mfcc,hidden,text; do systems+=("$one concat $layer" "$one coattention $layer"); done
    systems+=("mfcc,hidden,text hierarchical $layer") ;;
  table4)
    systems=("mfcc concat last" "text concat last" "gt concat last")
    for number in $(seq 0 "$last"); do systems+=("hidden concat $number"); done ;;
  *) systems=("$streams $fusion $layer") ;;
esac

results=() by_layer=()
for system in "${systems[@]}"; do
  read -r names kind number <<< "$system"
  case $number in first) number=0 ;; middle) number=$((last / 2)) ;; last) number=$last ;; esac
  name=${names//,/+}
  inputs=() options=() joint=
  for stream in ${names//,/ }; do
    case $stream in
      mfcc) inputs+=(--stream "mfcc=$corpus_data/feats.scp") ;;
      hidden)
        name=$name-layer$number
        options+=(--layer "$number")
        if [ "$freeze" = encoder ]; then inputs+=(--stream "hidden=$encoder/layer$number.scp")
        else inputs+=(--stream hidden=-); options+=(--speech "$w2v2" --freeze "$freeze"); joint=_joint; fi ;;
      text) inputs+=(--stream "text=$exp/text/hyp.scp") ;;
      gt) inputs+=(--stream "gt=$exp/text/gt.scp") ;;
      *) echo "$0: --streams $names: they are mfcc, hidden, text and gt" >&2; exit 1 ;;
    esac
  done
  if [[ $names == *,* ]]; then name=${name}_$kind; fi
  name=$name$joint
  if [ "$selection" = last ]; then name=${name}_last; fi
  for seed in $seeds; do
    ser=$exp/fusion_$name
    if [ "$seed" != 0 ]; then ser=${ser}_seed$seed; fi
    results+=("$ser/results.json")
    if [ "$names" = hidden ]; then by_layer+=("$ser/results.json"); fi
    if wanted 4; then
      announce 4 "train a fusion per fold: $names, $kind (seed $seed, log: $ser/log/train.log)"
      marker=(--also "$corpus_data/folds" --also "$corpus_data/feats.scp" --also "$encoder/logits.scp" --also "$exp/text/hyp.scp")
      once.sh "${marker[@]}" "$ser/.done" $cmd "$ser/log/train.log" pyser fusion train --conf "$fusion_config" --fusion "$kind" \
        "${inputs[@]}" ${options[@]+"${options[@]}"} --selection "$selection" --seed "$seed" --max-dropped "$max_dropped" \
        "$corpus_data" "$corpus_data/folds" "$ser"
      pyser fusion package --layer "${number:--1}" ${search[@]+"${search[@]}"} "$ser" "$w2v2" "$bert" "$mfcc_config"
    fi
    if wanted 5; then
      announce 5 "score (seed $seed)"
      pyser score ser "$ser"
    fi
  done
done
if wanted 6; then
  announce 6 "table"
  if [ ${#results[@]} -gt 1 ]; then pyser score table "${results[@]}" | tee "$exp/table${grid:+_$grid}.txt"; fi
  if [ ${#by_layer[@]} -gt 1 ]; then pyser score layers "$exp/layers.png" "${by_layer[@]}"; fi
fi
