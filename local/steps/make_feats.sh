# What make_mfcc.sh and make_fbank.sh do, which source this file after setting `kind`: features of a data directory into
# Kaldi archives, and its feats.scp and utt2num_frames.
nj=4
cmd=run.sh
max_dropped=5%
name=make_$kind.sh conf=${kind}_config
help_message="usage: $name [--nj 4] [--cmd run.sh] [--$kind-config ${!conf}] [--max-dropped 5%] <data-dir> <exp-dir> <$kind-dir>"
. parse_options.sh || exit 1
[ $# -eq 3 ] || { echo "$help_message" >&2; exit 1; }
set -euo pipefail
data=$1 exp=$2 feats_dir=$3 set=$(basename "$1")
[ -f "${!conf}" ] || { echo "$name: no such config ${!conf}" >&2; exit 1; }
split=$(split_data.sh --nj "$nj" "$data"); nj=$(basename "$split"); nj=${nj#split}
segments=()
if [ -f "$data/segments" ]; then segments=(--segments "$split/JOB/segments"); fi
$cmd JOB=1:"$nj" "$exp/log/make_${kind}_$set.JOB.log" \
  once.sh "$feats_dir/.done.$set.JOB" \
  pyser "$kind" compute --config "${!conf}" --max-dropped "$max_dropped" ${segments[@]+"${segments[@]}"} \
  "scp:$split/JOB/wav.scp" "ark,scp:$feats_dir/raw_${kind}_$set.JOB.ark,$feats_dir/raw_${kind}_$set.JOB.scp"
scps=(); for job in $(seq "$nj"); do scps+=("$feats_dir/raw_${kind}_$set.$job.scp"); done
pyser data feats --max-dropped "$max_dropped" "$data" "${scps[@]}"
