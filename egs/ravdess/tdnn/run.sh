#!/usr/bin/env bash
# RAVDESS: eight emotions (--label-set 4: angry, happy, neutral, sad), six folds of four actors (speakers of a fold are never
# trained on)
#   ./run.sh --corpus /path/to/RAVDESS --am ../../tedlium2/tdnn/exp
# The stages and their options are in local/steps/transfer.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/RAVDESS
corpus_name=ravdess
label_set=8
prepare_options() { echo --label-set "$label_set"; }
. transfer.sh
