#!/usr/bin/env bash
# IEMOCAP: leave one session out, five folds. --label-set 5531|4936|5500, --subset all|improvised|scripted
#   ./run.sh --corpus /path/to/IEMOCAP_full_release --hubert facebook/hubert-large-ll60k --bert bert-base-uncased --exp table2
# The stages and their options are in local/steps/cmgi.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/IEMOCAP_full_release
corpus_name=iemocap
label_set=5531 subset=all  # the set of the paper
prepare_options() { echo --label-set "$label_set" --subset "$subset"; }
. cmgi.sh
