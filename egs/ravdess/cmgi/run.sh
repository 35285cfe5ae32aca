#!/usr/bin/env bash
# RAVDESS: eight emotions (--label-set 4: angry, happy, neutral, sad), six folds of four actors (speakers of a fold are never
# trained on)
#   ./run.sh --corpus /path/to/RAVDESS --hubert facebook/hubert-large-ll60k --bert bert-base-uncased --exp table2
# The stages and their options are in local/steps/cmgi.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/RAVDESS
corpus_name=ravdess
label_set=8
prepare_options() { echo --label-set "$label_set"; }
. cmgi.sh
