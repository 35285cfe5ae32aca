# The stages of every acoustic-model recipe; egs/*/tdnn/run.sh sources this file after saying what is particular to its
# corpus: train_set, dev_set, test_sets, prepare() (stage 0) and $lexicon (a file, or cmudict).
#
#   corpus -> data/<set> -> MFCC -> i-vectors -> lang -> monophones -> alignment -> biphones with LF-MMI -> WER
#
# Begin configuration section
stage=0
stop_stage=6
nj=$(nproc)
data=data
exp=exp
mfcc_config=conf/mfcc_hires.conf
tdnn_config=conf/tdnn.conf
speed_perturb=true
use_ivectors=true    # false: a network without them, and stage 2 does nothing (--data and --exp of its own)
num_gauss=512        # of the diagonal UBM
ivector_dim=100
ivector_iters=10
topology=chain       # Kaldi's, a pdf for the first frame of a phone and one for the others; or ctc
context=biphone      # pdfs for each phone behind each other, which begin with monophones' layers and alignments; or mono
min_biphone_count=100  # rarer pairs of phones share pdfs
mono_epochs=${mono_epochs:-2}
mono_max_duration=   # seconds of speech in the monophones' batches; not given: as tdnn_config says. 20 below three hours of speech
phone_lm_order=3
word_lm_order=3
word_lm_min_counts=${word_lm_min_counts:-}  # of each order, how often an n-gram must occur: 1,1,2
rescore_lm_order=${rescore_lm_order:-}      # of a larger word LM for the n-best lists; none: that of the decoding graph
rescore_min_counts=${rescore_min_counts:-}
vocabulary=${vocabulary:-training}  # words that can be recognised: of the training transcripts (each other one is an error), all
                             # of the lexicon, or both: a graph of each, their n-best lists taken together
nbest=100            # hypotheses for the choice of scales and the larger LM; 0 where k2 is not installed
average=2            # epochs averaged into the final model
seeds=0              # "0 1" trains two networks, tdnn and tdnn_seed1, and combines what they hear; a --seed of tdnn_config is for 0
max_dropped=5%
max_oov=5%
# End configuration section
help_message="usage: $0 [--stage 0] [--stop-stage 6] [--corpus DIR] [--nj N] [--cmd run.sh] [--data data] [--exp exp] [--tdnn-config F] [--seeds '0 1'] [--vocabulary training|lexicon|both] [--use-ivectors false]
  0 prepare  1 features  2 i-vectors  3 lang  4 monophones from a flat start, alignment  5 train the TDNN-F with LF-MMI
  6 average, decode, rescore; combine the networks of several seeds"
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

graphs=(lang)
case $vocabulary in
  training | lexicon) ;;
  both)
    graphs+=(lang_whole)
    if [ "$nbest" = 0 ] || [ -n "$rescore_lm_order" ]; then
      echo "$0: --vocabulary both takes n-best lists together (--nbest 100), and does not go with --rescore-lm-order" >&2; exit 1
    fi ;;
  *) echo "$0: --vocabulary $vocabulary: it is training, lexicon or both" >&2; exit 1 ;;
esac

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

of_ivectors() { if $use_ivectors; then echo "$exp/ivectors_$1"; else echo -; fi; }  # <set>
if wanted 2 && $use_ivectors; then
  announce 2 "i-vectors: UBM of $num_gauss Gaussians, $ivector_dim-d extractor; extraction every 10 frames"
  once.sh --also "$data/$fit_set/feats.scp" "$exp/ivector_extractor/.done" \
    $cmd "$exp/ivector_extractor/log/train.log" pyser ivector train --num-gauss "$num_gauss" --ivector-dim "$ivector_dim" --num-iters "$ivector_iters" \
    "$data/$fit_set" "$exp/ivector_extractor"
  extract_ivectors_online.sh --nj "$nj" --cmd "$cmd" --utts-per-spk-max 2 "$data/$fit_set" "$exp/ivector_extractor" "$exp/ivectors_$fit_set"
  for set in $dev_set $test_sets; do
    extract_ivectors_online.sh --nj "$nj" --cmd "$cmd" "$data/$set" "$exp/ivector_extractor" "$exp/ivectors_$set"
  done
fi

mono=false
if [ "$topology $context" = "chain biphone" ]; then mono=true; fi

if wanted 3; then
  announce 3 "lang: lexicon, phone LM (order $phone_lm_order), word LM (order $word_lm_order), decoding graph"
  make_dict() {  # <directory> [--whole]
    once.sh "$data/.done/${1/dict/lexicon}" pyser lang lexicon --source "$lexicon" ${2:-} --max-oov "$max_oov" "$data/$train_set" "$data/$1"
  }
  make_lang() {  # <directory> <dict> [options of topo]
    local lang=$1 dict=$2; shift 2
    once.sh "$data/.done/$lang" pyser lang prepare --share-silence-phones "$data/$dict" "$data/$lang"
    once.sh "$data/.done/$lang.phone_lm" pyser lang phone-lm --order "$phone_lm_order" "$data/$lang" "$data/$train_set"
    once.sh --also "$data/.done/$lang" "$data/.done/$lang.topo" pyser lang topo "$@" "$data/$lang"
  }
  make_graph() {  # <directory>
    once.sh --also "$data/.done/$1" "$data/.done/$1.word_lm" pyser lang word-lm --order "$word_lm_order" \
      ${word_lm_min_counts:+--min-counts "$word_lm_min_counts"} --dev "$data/$dev_set" "$data/$1" "${lm_texts[@]}"
    if [ -n "$rescore_lm_order" ]; then
      once.sh --also "$data/.done/$1" "$data/.done/$1.rescore_lm" pyser lang word-lm --order "$rescore_lm_order" \
        ${rescore_min_counts:+--min-counts "$rescore_min_counts"} --dev "$data/$dev_set" --out "$data/$1/G.$rescore_lm_order.arpa" \
        "$data/$1" "${lm_texts[@]}"
    fi
    once.sh --also "$data/$1/G.arpa" --also "$data/.done/$1.topo" "$data/.done/$1.graph" pyser lang graph "$data/$1"
  }
  lm_texts=("$data/$train_set")
  if [ -f "$data/local/lm/text.gz" ]; then lm_texts+=("$data/local/lm/text.gz"); fi
  topo_options=(--type "$topology" --context "$context")
  if $mono; then topo_options+=(--tie "$data/$train_set" --min-biphone-count "$min_biphone_count"); fi
  make_dict dict $(if [ "$vocabulary" = lexicon ]; then echo --whole; fi)
  if $mono; then make_lang lang_mono dict --context mono; fi
  make_lang lang dict "${topo_options[@]}"
  make_graph lang
  if [ "$vocabulary" = both ]; then
    make_dict dict_whole --whole
    make_lang lang_whole dict_whole "${topo_options[@]}"
    if ! cmp -s <(grep -v '^#' "$data/lang/tokens.txt") <(grep -v '^#' "$data/lang_whole/tokens.txt"); then
      echo "$0: $lexicon has phones that the words of $data/$train_set lack, so networks of data/lang do not fit all of it; use --vocabulary lexicon" >&2
      exit 1
    fi
    make_graph lang_whole
  fi
fi

train_tdnn() {  # <set> <lang> <exp dir> [options]
  local set=$1 lang=$2 dir=$3; shift 3
  once.sh --also "$set/feats.scp" --also "$lang/tree" --also "$lang/P.fst.txt" "$dir/.done" \
    $cmd "$dir/log/train.log" pyser chain train --conf "$tdnn_config" "$@" "$set" "$data/$dev_set" "$lang" \
    "$(of_ivectors "$fit_set")" "$(of_ivectors "$dev_set")" "$dir"
  grep -v '^#' "$dir/log/train.log" | grep '^epoch' | tail -n 3 || true
}

if wanted 4 && $mono; then
  announce 4 "monophones from a flat start, $mono_epochs epochs, and their alignment of $fit_set (log: $exp/mono/log)"
  mono_set=$data/$fit_set
  if $speed_perturb; then  # without the copies: an alignment has less to learn
    mono_set=$data/${train_set}_mono
    once.sh --also "$data/$fit_set/feats.scp" "$data/.done/mono" pyser data subset --utt-list "$data/$train_set/utt2spk" "$data/$fit_set" "$mono_set"
  fi
  # An epoch near phones spread evenly comes first: without it silence may take all frames, and the phones one each.
  # Neither masks nor dropout: they are for long training.
  mild=(--spec-augment-schedule 0 --dropout-schedule 0 ${mono_max_duration:+--max-duration "$mono_max_duration"})
  once.sh --also "$mono_set/feats.scp" "$exp/equal_ali/.done" \
    pyser chain align-equal --max-dropped "$max_dropped" "$data/lang_mono" "$mono_set" "$exp/equal_ali"
  train_tdnn "$mono_set" "$data/lang_mono" "$exp/mono0" --num-epochs 1 "${mild[@]}" --ali-dir "$exp/equal_ali"
  once.sh --also "$exp/mono0/history.json" "$exp/mono0/.done.average" pyser chain average --avg 1 "$exp/mono0"
  train_tdnn "$mono_set" "$data/lang_mono" "$exp/mono" --num-epochs "$mono_epochs" "${mild[@]}" --init "$exp/mono0"
  once.sh --also "$exp/mono/history.json" "$exp/mono/.done.average" pyser chain average --avg 1 "$exp/mono"
  ivectors=(); if $use_ivectors; then ivectors=(--ivectors "$exp/ivectors_$fit_set"); fi
  once.sh --also "$exp/mono/final.safetensors" "$exp/mono_ali/.done" $cmd "$exp/mono/log/align.log" \
    pyser chain align ${ivectors[@]+"${ivectors[@]}"} "$exp/mono" "$data/lang_mono" "$data/$fit_set" "$exp/mono_ali"
fi

network_of() { if [ "$1" = 0 ]; then echo "$exp/tdnn"; else echo "$exp/tdnn_seed$1"; fi; }  # <seed>
networks=()
for seed in $seeds; do networks+=("$(network_of "$seed")"); done

if wanted 5; then
  for seed in $seeds; do
    net=$(network_of "$seed")
    announce 5 "train the TDNN-F with LF-MMI (log: $net/log/train.log)"
    options=()
    if $mono; then options=(--init "$exp/mono" --ali-dir "$exp/mono_ali"); fi
    if [ "$seed" != 0 ]; then options+=(--seed "$seed"); fi
    train_tdnn "$data/$fit_set" "$data/lang" "$net" ${options[@]+"${options[@]}"}
  done
fi

decode_dir() { echo "$1/decode${2#lang}_$3"; }  # <network> <lang> <set>

rescore() {  # <network> <set> <name of the results> <decode dir>...: the scales are chosen on the development set
  local net=$1 set=$2 name=$3 scales=() also=() decoded; shift 3
  if [ "$set" != "$dev_set" ]; then scales=(--scales-of "$net/${name}_$dev_set"); fi
  for decoded in "$@"; do also+=(--also "$decoded/nbest/words"); done
  once.sh "${also[@]}" --also "$net/${name}_$dev_set/scales.json" "$net/${name}_$set/.done" \
    pyser chain rescore ${new_lm[@]+"${new_lm[@]}"} ${scales[@]+"${scales[@]}"} "$data/lang" "$@" "$net/${name}_$set"
}

if wanted 6; then
  new_lm=()
  if [ -n "$rescore_lm_order" ]; then new_lm=(--lm "$data/lang/G.$rescore_lm_order.arpa"); fi
  for net in "${networks[@]}"; do
    announce 6 "$net: average the last $average epochs, decode $dev_set $test_sets"
    once.sh --also "$net/history.json" "$net/.done.average" pyser chain average --avg "$average" "$net"
    cp "$mfcc_config" "$net/mfcc.conf"  # this and what follows as Kaldi keeps it beside a network
    if $use_ivectors; then cp "$exp/ivectors_$dev_set/final.ie.id" "$net/final.ie.id"; fi
    echo "--norm-means=false --norm-vars=false" > "$net/cmvn_opts"
    for set in $dev_set $test_sets; do
      lists=() ivectors=()
      if $use_ivectors; then ivectors=(--ivectors "$exp/ivectors_$set"); fi
      for lang in "${graphs[@]}"; do
        decoded=$(decode_dir "$net" "$lang" "$set")
        lists+=("$decoded")
        once.sh --also "$net/final.safetensors" --also "$data/$lang/HLG.safetensors" "$decoded/.done" \
          $cmd "$net/log/$(basename "$decoded").log" pyser chain decode --nbest "$nbest" ${ivectors[@]+"${ivectors[@]}"} \
          "$net" "$data/$lang" "$data/$set" "$decoded"
        echo "  $set, $lang: $(grep WER "$decoded/wer.txt")"
      done
      if [ "$nbest" -gt 0 ]; then rescore "$net" "$set" rescore "${lists[@]}"; fi
    done
  done
  if [ ${#networks[@]} -gt 1 ] && [ "$nbest" -gt 0 ]; then
    announce 6 "combine ${networks[*]}"
    for set in $dev_set $test_sets; do
      lists=()
      for net in "${networks[@]}"; do
        for lang in "${graphs[@]}"; do lists+=("$(decode_dir "$net" "$lang" "$set")"); done
      done
      rescore "$exp/tdnn" "$set" combine "${lists[@]}"
    done
  fi
fi
if wanted 6; then echo "$(date +%H:%M:%S) done; acoustic model in $exp/tdnn$(if $use_ivectors; then echo ", extractor in $exp/ivector_extractor"; fi)"; fi
