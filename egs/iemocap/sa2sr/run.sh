#!/usr/bin/env bash
# IEMOCAP: activation, valence and dominance (1-5), leave one session out, five folds. --label-set 5531|4936|5500
#   ./run.sh --corpus /path/to/IEMOCAP_full_release --seeds "0 1 2" [--sentiment cardiffnlp/twitter-roberta-base-sentiment-latest]
# The encoders are those of egs/librispeech/sa2sr/run.sh. The stages and their options are in local/steps/sa2sr.sh;
# ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/IEMOCAP_full_release
corpus_name=iemocap
label_set=5531 subset=all
derived=false
prepare_options() { echo --label-set "$label_set" --subset "$subset"; }
. sa2sr.sh
