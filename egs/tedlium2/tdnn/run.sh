#!/usr/bin/env bash
# TED-LIUM 2 -> a TDNN-F acoustic model trained with LF-MMI: ./run.sh --corpus /path/to/TEDLIUM_release2
# The stages and their options are in local/steps/acoustic_model.sh; ./run.sh --help lists them.
cd "$(dirname "$0")" || exit 1
. ./path.sh || exit 1
. ./cmd.sh
corpus=db/TEDLIUM_release2
train_set=train dev_set=dev test_sets=test
# The release's own dictionary, and 150 million words of text for the language models: a trigram to decode with, of about
# two million n-grams, and a 4-gram for the n-best lists.
vocabulary=lexicon
word_lm_min_counts=1,5,10
rescore_lm_order=4
rescore_min_counts=1,1,2,2
mono_epochs=1

prepare() {
  once.sh --also "$corpus" "$data/.done/prepare" pyser corpus prepare tedlium2 --max-dropped "$max_dropped" "$corpus" "$data"
}
lexicon=  # the corpus's own dictionary
. acoustic_model.sh
