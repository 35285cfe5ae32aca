# Sourced after a script's configuration section: `. parse_options.sh || exit 1`. Kaldi's rules:
#   --name value        sets the variable `name` (dashes become underscores), which the script must already have set
#   --name=value        is rejected;  a variable that is true or false takes only true or false;  --cmd may not be empty
#   --stage, --stop-stage and --nj take whole numbers (this is ours, a stage "x" would otherwise skip everything)
#   --config FILE       is sourced before all other options, wherever it stands
#   --help, -h          prints $help_message
# What is left in "$@" are the positional arguments.

__options_fail() { echo "$0: $*" >&2; exit 1; }

for ((__i = 1; __i < $#; __i++)); do
  if [ "${!__i}" = --config ]; then
    __next=$((__i + 1))
    [ -r "${!__next}" ] || __options_fail "cannot read the config ${!__next}"
    . "${!__next}"
  fi
done

while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      if [ -n "${help_message:-}" ]; then printf '%s\n' "$help_message" >&2; else echo "No help found." >&2; fi
      exit 0 ;;
    --*=*) __options_fail "$1: write '--name value', not '--name=value'" ;;
    --) shift; break ;;
    --*)
      __name=${1#--}
      __name=${__name//-/_}
      [[ $__name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || __options_fail "invalid option $1"
      [ $# -ge 2 ] || __options_fail "option $1 needs a value"
      if [ "$__name" != config ]; then
        [ -n "${!__name+set}" ] || __options_fail "invalid option $1"
        case "${!__name}" in
          true | false)
            case "$2" in true | false) ;; *) __options_fail "option $1 takes true or false, not '$2'" ;; esac ;;
        esac
        case "$__name" in
          stage | stop_stage | nj) [[ $2 =~ ^-?[0-9]+$ ]] || __options_fail "option $1 takes a whole number, not '$2'" ;;
        esac
        if [ "$__name" = cmd ] && [ -z "$2" ]; then __options_fail "option --cmd is empty"; fi
        printf -v "$__name" %s "$2"
      fi
      shift 2 ;;
    *) break ;;
  esac
done
unset __i __next __name
true
