#!/usr/bin/env bash
# RAVDESS: six folds of four actors. Nobody rated its utterances: activation and valence are DERIVED FROM THEIR CATEGORIES, by
# the categories' places on Russell's circle (pyser corpus circumplex), and results say so
#   ./run.sh --corpus /path/to/RAVDESS --seeds "0 1 2"
# The encoders are those of egs/librispeech/sa2sr/run.sh. The stages and their options are in local/steps/sa2sr.sh;
# ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/RAVDESS
corpus_name=ravdess
label_set=8
derived=true
prepare_options() { echo --label-set "$label_set"; }
. sa2sr.sh
