#!/usr/bin/env bash
# The job runner, called as Kaldi's run.pl is:
#   run.sh [--max-jobs-run N] [--mem M] [--num-threads N] [--gpu N] [JOB=1:4] LOG COMMAND ARG...
# JOB in the log's name and in the command becomes the job's number; a job that fails makes run.sh fail and names its
# log. Jobs run side by side on this machine, as many at once as it has processors (or --max-jobs-run).
set -u
max_jobs=$(env -u OMP_NUM_THREADS nproc)  # (nproc counts threads, the steps set one for each job)
while [[ ${1:-} == --* ]]; do
  [ $# -ge 2 ] || { echo "run.sh: option $1 needs a value" >&2; exit 1; }
  case "$1" in
    --max-jobs-run) max_jobs=$2 ;;
    --mem | --num-threads | --gpu | --config | --time) ;;  # a cluster's business
    *) echo "run.sh: unknown option $1" >&2; exit 1 ;;
  esac
  shift 2
done
name= first=1 last=1
if [[ ${1:-} =~ ^([A-Za-z_]+)=([0-9]+)(:([0-9]+))?$ ]]; then
  name=${BASH_REMATCH[1]} first=${BASH_REMATCH[2]} last=${BASH_REMATCH[4]:-${BASH_REMATCH[2]}}
  shift
fi
[ $# -ge 2 ] || { echo "usage: run.sh [options] [JOB=1:N] LOG COMMAND ARG..." >&2; exit 1; }
log=$1; shift
if [ "$first" -lt 1 ] || [ "$last" -lt "$first" ]; then echo "run.sh: bad job range $first:$last" >&2; exit 1; fi
if [ "$last" -gt "$first" ] && [[ $log != *"$name"* ]]; then echo "run.sh: the log's name must contain $name" >&2; exit 1; fi

# An argument with a space, quote or other special character is quoted; a lone | < > is left to the shell, as in run.pl.
command_line() {
  local argument out=
  for argument in "$@"; do
    if [[ $argument =~ ^[A-Za-z0-9_./:=,@%+^~-]+$ || $argument =~ ^([|<>]|>>|2\>\&1|\&\&|\|\|)$ ]]; then out+="$argument "
    elif [[ $argument == *\"* ]]; then out+="'$argument' "
    else out+="\"$argument\" "; fi
  done
  printf %s "$out"
}
template=$(command_line "$@")

run_job() {
  local log_file=$log line=$template code start
  if [ -n "$name" ]; then log_file=${log//$name/$1}; line=${template//$name/$1}; fi
  mkdir -p "$(dirname "$log_file")"
  start=$(date +%s)
  { echo "# $line"; echo "# Started at $(date)"; } > "$log_file"
  bash -c "set -o pipefail; $line" >> "$log_file" 2>&1 < /dev/null
  code=$?
  { echo "# Accounting: time=$(($(date +%s) - start)) threads=1"; echo "# Ended (code $code) at $(date)"; } >> "$log_file"
  if [ $code -ne 0 ]; then
    grep -v '^# ' "$log_file" | tail -n 3 >&2
    echo "run.sh: job failed with code $code, log in $log_file" >&2
  fi
  return $code
}

trap 'trap - INT TERM; kill 0; exit 130' INT TERM
# Every 10 seconds one line says how far the oldest running job's log has come.
(while sleep 10 > /dev/null 2>&1; do  # (a killed ticker leaves its sleep behind: it must not hold our stdout open)
  for ((job = first; job <= last; job++)); do
    log_file=$log; [ -z "$name" ] || log_file=${log//$name/$job}
    if [ -f "$log_file" ] && ! grep -q '^# Ended' "$log_file"; then
      line=$(grep -v '^#' "$log_file" | tr '\r' '\n' | tail -n 1 | cut -c 1-150)
      [ -z "$line" ] || echo "  [$((job - first + 1))/$((last - first + 1)) $(basename "$log_file")] $line"
      break
    fi
  done
done) &
ticker=$!
failed=0 pids=()
for ((job = first; job <= last; job++)); do
  while [ "$(jobs -rp | wc -l)" -gt "$max_jobs" ]; do wait -n; done
  run_job "$job" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || failed=$((failed + 1)); done
{ kill $ticker && wait $ticker; } 2>/dev/null
if [ $failed -gt 0 ]; then echo "run.sh: $failed of $((last - first + 1)) jobs failed" >&2; exit 1; fi
