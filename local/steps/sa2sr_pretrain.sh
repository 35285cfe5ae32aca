# The stages of pretraining for emotion regression; egs/*/sa2sr/run.sh sources this file after saying what is particular to
# its corpus: prepare(), which makes the data directories $data/$train_set and $data/$dev_set, with transcripts.
#
#   data -> sentiment of the words -> copies at other speeds -> filterbanks -> encoder, by each objective
#
# Begin configuration section
stage=0
stop_stage=4
nj=$(nproc)
data=data
exp=exp
fbank_config=conf/fbank.conf
pretrain_config=conf/pretrain.conf
sentiment=cardiffnlp/twitter-roberta-base-sentiment-latest  # a model of Hugging Face's (name or directory), or vader: a lexicon, offline
speeds=0.9,1.0,1.1             # 1.0: no copies
objectives="asr sa2sr cpc"     # asr: CTC alone; sa2sr: and the sentiment; cpc: contrastive predictive coding, without labels
seed=0
max_dropped=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 4] [--corpus DIR | --train DIR --dev DIR] [--sentiment MODEL|vader] [--objectives 'asr sa2sr cpc'] [--nj N] [--cmd run.sh] [--data data] [--exp exp]
  0 prepare  1 sentiment of the transcripts  2 copies at other speeds  3 filterbanks  4 pretrain"
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
copies=$data/${train_set}_sp

if wanted 0; then
  announce 0 "prepare the corpus"
  prepare
fi

if wanted 1 && [[ $objectives == *sa2sr* ]]; then
  announce 1 "sentiment of the transcripts, by $sentiment"
  for set in "$train_set" "$dev_set"; do
    once.sh "$data/.done/sentiment_$set" pyser sentiment label --model "$sentiment" --use-gpu optional --max-dropped "$max_dropped" "$data/$set"
  done
fi

if wanted 2; then
  announce 2 "copies at speeds $speeds"
  also=(); if [ -f "$data/$train_set/utt2sentiment" ]; then also=(--also "$data/$train_set/utt2sentiment"); fi
  once.sh ${also[@]+"${also[@]}"} "$data/.done/speeds" pyser data perturb-speed --factors "$speeds" "$data/$train_set" "$copies"
fi

if wanted 3; then
  announce 3 "filterbanks"
  for set in "${train_set}_sp" "$dev_set"; do
    make_fbank.sh --nj "$nj" --cmd "$cmd" --fbank-config "$fbank_config" --max-dropped "$max_dropped" "$data/$set" "$exp/make_fbank" "$exp/fbank"
  done
fi

if wanted 4; then
  for objective in $objectives; do
    model=$exp/pretrain_$objective
    announce 4 "pretrain: $objective (log: $model/log/train.log)"
    also=(--also "$copies/feats.scp" --also "$data/$dev_set/feats.scp")
    if [ "$objective" = sa2sr ]; then also+=(--also "$copies/utt2sentiment" --also "$data/$dev_set/utt2sentiment"); fi
    once.sh "${also[@]}" "$model/.done" $cmd "$model/log/train.log" \
      pyser sa2sr pretrain --conf "$pretrain_config" --objective "$objective" --seed "$seed" "$copies" "$data/$dev_set" "$model"
    tail -n 2 "$model/log/train.log" | grep -v '^#' || true
  done
fi
