#!/usr/bin/env bash
# once.sh [--also FILE]... MARKER COMMAND ARG...: run the command unless MARKER says this very command is finished.
# The marker holds the command line with a checksum of every file it names (and of the lists in every directory it
# names) and the age of every archive behind an scp file, so a changed option, config, model or corpus runs again, and
# half-done work is not taken for finished, nor what was removed since. --also names an input that is not an argument, or a
# directory of which all files below count, by size and age.
set -euo pipefail
also=() trees=()
while [ "${1:-}" = --also ]; do if [ -d "$2" ]; then trees+=("$2"); else also+=("$2"); fi; shift 2; done
marker=$1; shift
command=("$@")
# What makes two directories different for the stages after them; files that later stages add are not listed.
lists="wav.scp segments text utt2spk utt2emo lexicon.txt tokens.txt words.txt final.ie final.dubm final.mat global_cmvn.stats splice_opts online_cmvn.conf online_cmvn_iextractor ivector_extractor.conf"
signature() {
  local argument path list
  for path in ${trees[@]+"${trees[@]}"}; do
    printf '%s %s\n' "$path" "$(find -L "$path" -type f -exec stat -L -c '%n %s %Y' {} + | LC_ALL=C sort | cksum)"
  done
  for argument in "${command[@]}" ${also[@]+"${also[@]}"}; do
    printf '%s\n' "$argument"
    path=${argument#scp:}
    case "$path" in *.log) continue ;; esac
    if [ -f "$path" ]; then cksum < "$path"; fi
    case "$path" in
      *.scp) if [ -f "$path" ]; then sed -n 's/^[^ ]* \(.*\.ark\):[0-9]*$/\1/p' "$path" | sort -u | xargs -r stat -c '%n %s %Y'; fi ;;
    esac
    if [ -d "$path" ]; then for list in $lists; do if [ -f "$path/$list" ]; then cksum < "$path/$list"; fi; done; fi
  done
}
# The tables it has written (ark,scp:FILE,FILE) must still be there.
written() {
  local argument
  for argument in "$@"; do
    case "$argument" in
      ark,scp:*) argument=${argument#ark,scp:}; [ -f "${argument%%,*}" ] && [ -f "${argument#*,}" ] || return 1 ;;
    esac
  done
}
if [ -f "$marker" ] && written "$@" && [ "$(cat "$marker")" = "$(signature 2>/dev/null)" ]; then
  echo "  already done: ${*:1:3} ($marker)"
  exit 0
fi
rm -f "$marker"
"$@"
mkdir -p "$(dirname "$marker")"
signature > "$marker.tmp"
mv "$marker.tmp" "$marker"
