#!/usr/bin/env bash
# Mel filterbanks of a data directory: make_fbank.sh [--fbank-config conf/fbank.conf] <data-dir> <exp-dir> <fbank-dir>
kind=fbank
fbank_config=conf/fbank.conf
. make_feats.sh
