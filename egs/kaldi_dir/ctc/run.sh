#!/usr/bin/env bash
# Any transcribed speech in Kaldi data directories -> a speech encoder (wav2vec 2.0, HuBERT, WavLM) that reads it, by CTC:
#   ./run.sh --train DIR --dev DIR --test "DIR DIR"                                a small one from random parameters
#   ./run.sh --train DIR --dev DIR --w2v2 facebook/wav2vec2-base --ctc-config F    one that was pretrained
# egs/*/fusion and egs/*/cmgi take exp/encoder by --w2v2 and --hubert. wav.scp may hold paths relative to the directory or its
# parent, in any format libsndfile reads.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
# Begin configuration section
stage=0
stop_stage=2
nj=$(nproc)
train= dev= test=
data=data
exp=exp
w2v2=         # the model to begin with: a name on the Hugging Face hub or a directory; none: one of random parameters
like=small    # its size, and
type=wav2vec2 # its kind: wav2vec2, hubert or wavlm
ctc_config=conf/ctc.conf
lm=           # word LM (ARPA) for the beam search in stage 2; none: greedy
max_dropped=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 2] --train DIR --dev DIR [--test 'DIR DIR'] [--w2v2 MODEL | --like small --type wav2vec2] [--ctc-config F] [--lm ARPA] [--nj N] [--cmd run.sh] [--data data] [--exp exp]
  0 prepare  1 train with CTC  2 decode"
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
sets=dev
for directory in $test; do sets="$sets $(basename "$directory")"; done

if wanted 0; then
  announce 0 "prepare the corpus"
  [ -n "$train" ] && [ -n "$dev" ] || { echo "$0: give --train DIR and --dev DIR (Kaldi data directories)" >&2; exit 1; }
  once.sh "$data/.done/prepare_train" pyser corpus prepare kaldi --max-dropped "$max_dropped" "$train" "$data/train"
  once.sh "$data/.done/prepare_dev" pyser corpus prepare kaldi --max-dropped "$max_dropped" "$dev" "$data/dev"
  for directory in $test; do
    set=$(basename "$directory")
    once.sh "$data/.done/prepare_$set" pyser corpus prepare kaldi --max-dropped "$max_dropped" "$directory" "$data/$set"
  done
fi

if wanted 1; then
  announce 1 "train with CTC (log: $exp/encoder/log/train.log)"
  if [ -z "$w2v2" ]; then
    w2v2=$exp/untrained_${type}_$like
    if [ ! -f "$w2v2/model.safetensors" ]; then pyser encoder init --like "$like" --type "$type" "$w2v2"; fi
  fi
  once.sh --also "$w2v2/model.safetensors" "$exp/encoder/.done" $cmd "$exp/encoder/log/train.log" \
    pyser encoder train-ctc --conf "$ctc_config" "$w2v2" "$data/train" "$data/dev" "$exp/encoder"
fi

if wanted 2; then
  for set in $sets; do
    announce 2 "decode $set"
    dump_encoder.sh --nj "$nj" --cmd "$cmd" --layers 0 --max-dropped "$max_dropped" "$exp/encoder" "$data/$set" "$exp/dump_$set"
    once.sh --also "$exp/dump_$set/logits.scp" "$exp/decode_$set/.done" pyser encoder decode ${lm:+--lm "$lm"} --data "$data/$set" \
      "$exp/encoder" "$exp/dump_$set/logits.scp" "$exp/decode_$set"
  done
fi
