#!/usr/bin/env bash
# RAVDESS: eight emotions (--label-set 4: angry, happy, neutral, sad), six folds of four actors (speakers of a fold are never
# trained on)
#   ./run.sh --corpus /path/to/RAVDESS --w2v2 facebook/wav2vec2-base-960h --bert bert-base-uncased --fusion-config conf/fusion_small.conf
# The stages and their options are in local/steps/fusion.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/RAVDESS
corpus_name=ravdess
label_set=8
prepare_options() { echo --label-set "$label_set"; }
. fusion.sh
