#!/usr/bin/env bash
# Any Kaldi data directory with text and utt2emo, and folds/<k>/{train,valid,test}.list; without folds there are five of its
# speakers, none of whom is trained and tested on. wav.scp as in egs/kaldi_dir/ctc.
#   ./run.sh --corpus /path/to/data-dir --w2v2 facebook/wav2vec2-base-960h --bert bert-base-uncased
# The stages and their options are in local/steps/fusion.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db
corpus_name=kaldi prepare_into=/kaldi
prepare_options() { :; }
. fusion.sh
