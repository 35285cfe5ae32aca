#!/usr/bin/env bash
# Any transcribed speech in Kaldi data directories -> a TDNN-F acoustic model trained with LF-MMI:
#   ./run.sh --train DIR --dev DIR --test "DIR DIR" [--lexicon FILE]
# wav.scp may hold paths relative to the directory or its parent, in any format libsndfile reads. The lexicon is CMUdict
# unless one is given; with --vocabulary lexicon all its words can be recognised, without it those of the training
# transcripts. The stages and their options are in local/steps/acoustic_model.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
train= dev= test= lexicon=cmudict
train_set=train dev_set=dev
test_sets=

prepare() {
  local directory
  [ -n "$train" ] && [ -n "$dev" ] || { echo "$0: give --train DIR and --dev DIR (Kaldi data directories)" >&2; exit 1; }
  once.sh "$data/.done/prepare_train" pyser corpus prepare kaldi --max-dropped "$max_dropped" "$train" "$data/train"
  once.sh "$data/.done/prepare_dev" pyser corpus prepare kaldi --max-dropped "$max_dropped" "$dev" "$data/dev"
  for directory in $test; do
    once.sh "$data/.done/prepare_$(basename "$directory")" \
      pyser corpus prepare kaldi --max-dropped "$max_dropped" "$directory" "$data/$(basename "$directory")"
  done
}
. acoustic_model.sh
