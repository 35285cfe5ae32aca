#!/usr/bin/env bash
# MSP-Podcast: activation, valence and dominance (1-7), the corpus's own partition: Test1 is tested, Development validates
#   ./run.sh --corpus /path/to/MSP-Podcast --seeds "0 1 2"
# The encoders are those of egs/librispeech/sa2sr/run.sh. The stages and their options are in local/steps/sa2sr.sh;
# ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/MSP-Podcast
corpus_name=msp-podcast
label_set=all  # utterances without a majority category are rated too
derived=false
speeds=0.9,1.0,1.1
prepare_options() { echo --label-set "$label_set"; }
. sa2sr.sh
