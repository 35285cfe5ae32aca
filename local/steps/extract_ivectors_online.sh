#!/usr/bin/env bash
# Online i-vectors of a data directory: <ivector-dir>/ivector_online.scp, ivector_period and final.ie.id, as Kaldi's
# script of this name.
nj=4
cmd=run.sh
period=10
max_count=0
utts_per_spk_max=  # split speakers into pseudo-speakers of so many utterances (2 for training, as Kaldi's recipes do)
carry_over=true  # false: every utterance starts fresh, nothing is learnt from the speaker's other utterances
help_message="usage: extract_ivectors_online.sh [--nj 4] [--cmd run.sh] [--period 10] [--max-count 0] [--utts-per-spk-max N] [--carry-over true] <data-dir> <extractor-dir> <ivector-dir>"
. parse_options.sh || exit 1
[ $# -eq 3 ] || { echo "$help_message" >&2; exit 1; }
set -euo pipefail
data=$1 extractor=$2 out=$3
split=$(split_data.sh --nj "$nj" "$data"); nj=$(basename "$split"); nj=${nj#split}
speakers=()
if $carry_over; then speakers=(--spk2utt "$split/JOB/spk2utt"); fi
if [ -n "$utts_per_spk_max" ]; then speakers+=(--utts-per-spk-max "$utts_per_spk_max"); fi
export OMP_NUM_THREADS=1  # one thread a job: the jobs are the parallelism
$cmd JOB=1:"$nj" "$out/log/extract_ivectors.JOB.log" \
  once.sh "$out/.done.JOB" \
  pyser ivector extract --period "$period" --max-count "$max_count" ${speakers[@]+"${speakers[@]}"} \
  "$extractor" "scp:$split/JOB/feats.scp" "ark,scp:$out/ivector_online.JOB.ark,$out/ivector_online.JOB.scp"
rm -f "$out/ivector_online.scp"
for job in $(seq "$nj"); do cat "$out/ivector_online.$job.scp"; done | sort > "$out/.ivector_online.scp.tmp"
echo "$period" > "$out/ivector_period"
# final.ie.id tells later stages whose i-vectors these are: what lies beside the extractor, or its MD5, as Kaldi's
# steps/nnet2/get_ivector_id.sh has it (which keeps the latter there if it may). A conf file says where the extractor is.
ie=$extractor/final.ie
for conf in "$extractor" "$extractor/ivector_extractor.conf" "$extractor/conf/ivector_extractor.conf"; do
  [ -f "$conf" ] || continue
  named=$(sed -n 's/#.*//; s/^[[:blank:]]*--ivector[-_]extractor=[[:blank:]]*//p' "$conf" | sed 's/[[:blank:]]*$//' | tail -n 1)
  if [ -n "$named" ]; then ie=$named; if [ ! -e "$ie" ]; then ie=$(dirname "$conf")/$named; fi; fi
  break
done
id=$(dirname "$ie")/final.ie.id
if [ "$(basename "$ie")" = final.ie ] && [ -s "$id" ]; then cat "$id" > "$out/final.ie.id"
else
  md5sum < "$ie" | cut -d ' ' -f 1 > "$out/final.ie.id"
  if [ "$(basename "$ie")" = final.ie ]; then cp "$out/final.ie.id" "$id" 2>/dev/null || true; fi
fi
mv "$out/.ivector_online.scp.tmp" "$out/ivector_online.scp"
