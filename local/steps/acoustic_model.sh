# The stages of every acoustic-model recipe; egs/*/tdnn/run.sh sources this file after saying what is particular to its
# corpus: train_set, dev_set, test_sets, prepare() (stage 0) and $lexicon (a file, or cmudict).
#
#   corpus -> data/<set> -> MFCC -> i-vectors -> lang -> TDNN-F with LF-MMI -> WER
#
# Begin configuration section
stage=0
stop_stage=5
nj=$(nproc)
data=data
exp=exp
mfcc_config=conf/mfcc_hires.conf
tdnn_config=conf/tdnn.conf
speed_perturb=true
num_gauss=512        # of the diagonal UBM
ivector_dim=100
ivector_iters=10
topology=ctc         # or chain: Kaldi's, a pdf for the first frame of a phone and one for the others
context=mono         # or biphone: a pair of pdfs for each phone behind each other (chain only)
phone_lm_order=2
word_lm_order=3
average=2            # epochs averaged into the final model
max_dropped=5%
max_oov=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 5] [--corpus DIR] [--nj N] [--cmd run.sh] [--data data] [--exp exp] [--tdnn-config F]
  0 prepare  1 features  2 i-vectors  3 lang  4 train the TDNN-F with LF-MMI  5 average and decode"
. parse_options.sh || exit 1
set -euo pipefail
trap 'echo "$0: stopped at line $LINENO (stage $at); mend what the line above says and run it again with --stage $at" >&2' ERR

test_sets=${test_sets:-$(for directory in ${test:-}; do basename "$directory"; done | xargs)}  # egs/kaldi_dir gives --test

lexicon=${lexicon:-$data/local/dict/lexicon.txt}  # written by `pyser corpus prepare` where a corpus has its own

announce() { at=$1; echo "$(date +%H:%M:%S) stage $1: $2"; }
wanted() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
at=$stage
fit_set=$train_set
if $speed_perturb; then fit_set=${train_set}_sp; fi

if wanted 0; then
  announce 0 "prepare the corpus"
  prepare
fi

if wanted 1; then
  announce 1 "features: 40-d hires MFCC of $fit_set, $dev_set and $test_sets"
  if $speed_perturb; then
    once.sh "$data/.done/speed" pyser data perturb-speed --factors 0.9,1.0,1.1 "$data/$train_set" "$data/${fit_set}_clean"
    once.sh "$data/.done/volume" pyser data perturb-volume "$data/${fit_set}_clean" "$data/$fit_set"
  fi
  for set in $fit_set $dev_set $test_sets; do
    make_mfcc.sh --nj "$nj" --cmd "$cmd" --mfcc-config "$mfcc_config" --max-dropped "$max_dropped" "$data/$set" "$exp/make_mfcc" "$exp/mfcc"
  done
fi

if wanted 2; then
  announce 2 "i-vectors: UBM of $num_gauss Gaussians, $ivector_dim-d extractor; extraction every 10 frames"
  once.sh --also "$data/$fit_set/feats.scp" "$exp/ivector_extractor/.done" \
    $cmd "$exp/ivector_extractor/log/train.log" pyser ivector train --num-gauss "$num_gauss" --ivector-dim "$ivector_dim" --num-iters "$ivector_iters" \
    "$data/$fit_set" "$exp/ivector_extractor"
  extract_ivectors_online.sh --nj "$nj" --cmd "$cmd" --utts-per-spk-max 2 "$data/$fit_set" "$exp/ivector_extractor" "$exp/ivectors_$fit_set"
  for set in $dev_set $test_sets; do
    extract_ivectors_online.sh --nj "$nj" --cmd "$cmd" "$data/$set" "$exp/ivector_extractor" "$exp/ivectors_$set"
  done
fi

if wanted 3; then
  announce 3 "lang: lexicon, phone LM (order $phone_lm_order), word LM (order $word_lm_order), decoding graph"
  # The word LM sees the training transcripts only; held-out words outside the lexicon count as errors.
  once.sh "$data/.done/lexicon" pyser lang lexicon --source "$lexicon" --max-oov "$max_oov" "$data/$train_set" "$data/dict"
  once.sh "$data/.done/lang" pyser lang prepare --share-silence-phones "$data/dict" "$data/lang"
  once.sh --also "$data/.done/lang" "$data/.done/topo" pyser lang topo --type "$topology" --context "$context" "$data/lang"
  once.sh "$data/.done/phone_lm" pyser lang phone-lm --order "$phone_lm_order" "$data/lang" "$data/$train_set"
  once.sh "$data/.done/word_lm" pyser lang word-lm --order "$word_lm_order" "$data/lang" "$data/$train_set"
  once.sh --also "$data/lang/G.arpa" --also "$data/.done/topo" "$data/.done/graph" pyser lang graph "$data/lang"
fi

if wanted 4; then
  announce 4 "train the TDNN-F with LF-MMI (log: $exp/tdnn/log/train.log)"
  once.sh --also "$data/$fit_set/feats.scp" --also "$data/.done/topo" --also "$data/lang/P.fst.txt" "$exp/tdnn/.done" \
    $cmd "$exp/tdnn/log/train.log" pyser chain train --conf "$tdnn_config" "$data/$fit_set" "$data/$dev_set" "$data/lang" \
    "$exp/ivectors_$fit_set" "$exp/ivectors_$dev_set" "$exp/tdnn"
  grep -v '^#' "$exp/tdnn/log/train.log" | grep -i epoch | tail -n 3 || true
fi

if wanted 5; then
  announce 5 "average the last $average epochs, decode $dev_set $test_sets"
  once.sh --also "$exp/tdnn/history.json" "$exp/tdnn/.done.average" pyser chain average --avg "$average" "$exp/tdnn"
  cp "$mfcc_config" "$exp/tdnn/mfcc.conf"
  cp "$exp/ivectors_$dev_set/final.ie.id" "$exp/tdnn/final.ie.id"  # these two as Kaldi keeps them beside a network
  echo "--norm-means=false --norm-vars=false" > "$exp/tdnn/cmvn_opts"
  for set in $dev_set $test_sets; do
    once.sh --also "$exp/tdnn/final.safetensors" --also "$data/lang/HLG.safetensors" "$exp/tdnn/decode_$set/.done" \
      $cmd "$exp/tdnn/log/decode_$set.log" pyser chain decode --ivectors "$exp/ivectors_$set" "$exp/tdnn" "$data/lang" "$data/$set" "$exp/tdnn/decode_$set"
    echo "  $set: $(grep WER "$exp/tdnn/decode_$set/wer.txt")"
  done
fi
if wanted 5; then echo "$(date +%H:%M:%S) done; acoustic model in $exp/tdnn, extractor in $exp/ivector_extractor"; fi
