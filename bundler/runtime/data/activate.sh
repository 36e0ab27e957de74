# Activates the environment @ENVIRONMENT@ in the shell that reads this file:
#
#     . bin/activate-@ENVIRONMENT@.sh
#
# bash and zsh tell where the file lies; for other shells an installation that was moved is named by
# BUNDLER_HOME.
# shellcheck disable=SC2128,SC3028 # asked of bash only
if [ -n "${BASH_VERSION:-}" ]; then
  _bundler_root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE}")")")
elif [ -n "${ZSH_VERSION:-}" ]; then
  eval '_bundler_root=${${(%):-%x}:A:h:h}'
else
  _bundler_root=${BUNDLER_HOME:-@ROOT@}
fi
_bundler_python=$_bundler_root/runtime/bin/python
[ -x "$_bundler_python" ] || _bundler_python=@PYTHON@
# Which generation counts is written in one file alone.
_bundler_number=$(sed -n 's/^ *"current": *\([0-9][0-9]*\).*/\1/p' "$_bundler_root/@RECORD@" 2>/dev/null) || :
case $_bundler_number in
  '' | 1) _bundler_number= ;;
  *) _bundler_number=@GENERATIONS@/$_bundler_number/ ;;
esac
if _bundler_lines=$("$_bundler_python" -I -B -m bundler.activation "$_bundler_root/$_bundler_number.pixi/envs/@ENVIRONMENT@")
then
  eval "$_bundler_lines"
  unset _bundler_root _bundler_python _bundler_number _bundler_lines
else
  unset _bundler_root _bundler_python _bundler_number _bundler_lines
  false
fi
