# The stages of every CmGI recipe; egs/*/cmgi/run.sh sources this file after saying what is particular to its corpus:
# corpus_name and prepare_options() (for `pyser corpus prepare`, which also writes the folds), and prepare_into, where in
# data it puts what it writes, if that is the data directory itself.
#
#   corpus -> data/<name> -> speech encoder, CTC and emotions     (first stage)
#                         -> speech encoder, CTC -> words -> text encoder, CmGI, fold by fold -> UA, WA, WER
#
# Begin configuration section
stage=0
stop_stage=3
data=data
exp_dir=exp
cmgi_config=conf/cmgi.conf
exp=cmgi                          # table1, table2 or one of their rows (pyser cmgi rows table1); first stages are trained too
hubert=facebook/hubert-large-ll60k   # speech encoder: a name on the Hugging Face hub or a directory (wav2vec 2.0, HuBERT, WavLM)
w2v2=facebook/wav2vec2-base-960h     # of row 6
bert=bert-base-uncased            # text encoder, likewise; where the hub is out of reach: local/get_text_encoder.sh DIR
hyp=                              # words of a DNN-HMM for row 5, of all utterances: hyp.txt of pyser chain decode
lm=                               # word LM (ARPA) for the CTC beam search; none: greedy
selection=valid                   # valid: the epoch is chosen on training speakers; last: fixed number of epochs
seeds=0                           # "0 1 2" for three
precision=float32                 # bfloat16 or float16 on a GPU
gradient_checkpointing=false      # true: less memory, slower
max_dropped=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 3] [--corpus DIR] [--exp table1|table2|ROW] [--hubert MODEL] [--w2v2 MODEL] [--bert MODEL] [--hyp FILE] [--data data] [--exp-dir exp]
  0 prepare  1 train a model per row, seed and fold  2 score  3 table
rows: 1 to 10 of Table 1; cmgi, cmgi-pooled-gate, self, self-gate, cross, cross-gate of Table 2
training: [--cmgi-config conf/cmgi.conf] [--lm FILE.arpa] [--selection valid|last] [--seeds '0 1 2'] [--precision bfloat16]
  [--gradient-checkpointing true] [--max-dropped 5%]"
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
corpus_data=$data/$corpus_name
# Where a row of a seed is.
place() { echo "$exp_dir/cmgi_$1$([ "$selection" = valid ] || echo _last)$([ "$2" = 0 ] || echo "_seed$2")"; }
rows=$(pyser cmgi rows "$exp")

if wanted 0; then
  announce 0 "prepare the corpus and its folds"
  once.sh --also "$corpus" "$data/.done/prepare" pyser corpus prepare "$corpus_name" $(prepare_options) --max-dropped "$max_dropped" "$corpus" "$data${prepare_into:-}"
  [ -d "$corpus_data/folds" ] || { echo "$0: $corpus has no emotions (utt2emo) of two speakers or more; take another --corpus" >&2; exit 1; }
fi

results=()
while read -r row first what; do
  if [ "$row" = 5 ] && [ -z "$hyp" ] && [ "$exp" != 5 ]; then
    echo "row 5 is left out: it reads what a DNN-HMM hears, --hyp FILE"
    continue
  fi
  for seed in $seeds; do
    ser=$(place "$row" "$seed")
    results+=("$ser/results.json")
    options=(--precision "$precision" --gradient-checkpointing "$gradient_checkpointing")
    if [ "$row" = 3 ] || [ "$row" = 4 ] || [ "$row" = 5 ]; then options=(); fi  # (of transformers)
    if [ "$first" != - ]; then options+=(--init "$(place "$first" "$seed")"); fi
    if [ "$row" = 5 ]; then options+=(--hyp "$hyp"); fi
    also=(--also "$corpus_data/folds")
    for file in "$hubert" "$w2v2" "$bert" "$(place "$first" "$seed")"/fold*/test_posteriors.txt; do also+=(--also "$file"); done
    if wanted 1; then
      announce 1 "row $row, $what (seed $seed, log: $ser/log/train.log)"
      once.sh "${also[@]}" "$ser/.done" $cmd "$ser/log/train.log" pyser cmgi train --row "$row" --conf "$cmgi_config" --hubert "$hubert" \
        --w2v2 "$w2v2" --bert "$bert" ${lm:+--lm "$lm"} ${options[@]+"${options[@]}"} --selection "$selection" --seed "$seed" \
        --max-dropped "$max_dropped" "$corpus_data" "$corpus_data/folds" "$ser"
    fi
    if wanted 2; then
      announce 2 "score row $row (seed $seed)"
      pyser score ser "$ser"
    fi
  done
done <<< "$rows"

if wanted 3; then
  announce 3 "table"
  pyser score table "${results[@]}" | tee "$exp_dir/$exp.txt"
fi
