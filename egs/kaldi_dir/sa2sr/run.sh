#!/usr/bin/env bash
# Any Kaldi data directory with utt2avd (utterance, activation, valence, dominance, "-" where one was not rated), and
# folds/<k>/{train,valid,test}.list; without folds there are five of its speakers, none of whom is trained and tested on.
# What the ratings are, "1-7" or "category-derived", is said in folds/info.json: {"avd": "1-7"}. wav.scp as in egs/kaldi_dir/ctc.
#   ./run.sh --corpus /path/to/data-dir --seeds "0 1 2"
# The encoders are those of egs/librispeech/sa2sr/run.sh. The stages and their options are in local/steps/sa2sr.sh;
# ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db
corpus_name=kaldi prepare_into=/kaldi
derived=false
prepare_options() { :; }
. sa2sr.sh
