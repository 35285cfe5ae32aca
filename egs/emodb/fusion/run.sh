#!/usr/bin/env bash
# Berlin EmoDB: seven emotions (--label-set 4: angry, happy, neutral, sad), five folds of two speakers (speakers of a fold are never trained on)
#   ./run.sh --corpus /path/to/EmoDB --w2v2 facebook/wav2vec2-base-960h --bert bert-base-uncased --fusion-config conf/fusion_small.conf
# The stages and their options are in local/steps/fusion.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/EmoDB
corpus_name=emodb
label_set=7
prepare_options() { echo --label-set "$label_set"; }
. fusion.sh
