#!/usr/bin/env bash
# Encoders for emotion regression, pretrained on transcribed speech and the sentiment of its words (Ghriss et al. 2022):
#   ./run.sh --corpus /path/to/LibriSpeech            its train-* and dev-* parts
#   ./run.sh --train DIR --dev DIR --sentiment vader  any Kaldi data directories with transcripts, without a network
# egs/{msp_podcast,iemocap,ravdess}/sa2sr fine-tune them. The stages and their options are in local/steps/sa2sr_pretrain.sh;
# ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/LibriSpeech
train= dev=
train_set=train dev_set=dev

prepare() {
  if [ -n "$train" ] || [ -n "$dev" ]; then
    [ -n "$train" ] && [ -n "$dev" ] || { echo "$0: give --train DIR and --dev DIR (Kaldi data directories), or --corpus" >&2; exit 1; }
    once.sh "$data/.done/prepare_train" pyser corpus prepare kaldi --max-dropped "$max_dropped" "$train" "$data/train"
    once.sh "$data/.done/prepare_dev" pyser corpus prepare kaldi --max-dropped "$max_dropped" "$dev" "$data/dev"
    return
  fi
  local set
  once.sh --also "$corpus" "$data/.done/prepare" pyser corpus prepare librispeech --max-dropped "$max_dropped" "$corpus" "$data"
  for set in train dev; do
    [ -n "$(ls -d "$data/${set}"_* 2> /dev/null | grep -v _sp)" ] || { echo "$0: no $set-* part in $corpus" >&2; exit 1; }
    once.sh "$data/.done/combine_$set" pyser data combine "$data/$set" $(ls -d "$data/${set}"_* | grep -v _sp)
  done
}
. sa2sr_pretrain.sh
