#!/usr/bin/env bash
# Hires MFCC of a data directory: make_mfcc.sh [--mfcc-config conf/mfcc_hires.conf] <data-dir> <exp-dir> <mfcc-dir>
kind=mfcc
mfcc_config=conf/mfcc_hires.conf
. make_feats.sh
