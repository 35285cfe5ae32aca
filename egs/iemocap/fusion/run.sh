#!/usr/bin/env bash
# IEMOCAP: leave one session out, five folds. --label-set 5531|4936|5500, --subset all|improvised|scripted
#   ./run.sh --corpus /path/to/IEMOCAP_full_release --w2v2 facebook/wav2vec2-base-960h --bert bert-base-uncased
# The stages and their options are in local/steps/fusion.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/IEMOCAP_full_release
corpus_name=iemocap
label_set=5500 subset=all  # the set of the paper
prepare_options() { echo --label-set "$label_set" --subset "$subset"; }
. fusion.sh
