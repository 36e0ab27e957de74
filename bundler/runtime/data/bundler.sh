#!/bin/sh
# Starts the bundler that belongs to this installation, wherever it was moved to. A wrapper and not a
# shebang: those can't hold a path with spaces.
set -eu
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
python=$root/runtime/bin/python
[ -x "$python" ] || python=@PYTHON@
if [ ! -x "$python" ]; then
  printf 'error: bundler is not in this installation any more\n  where: %s\n  fix:   sh BUNDLE/install.sh %s\n' \
    "$root/runtime" "$root" >&2
  exit 3
fi
BUNDLER_HOME=${BUNDLER_HOME:-$root}
BUNDLER_INSTALLATION=$root
export BUNDLER_HOME BUNDLER_INSTALLATION
# -I: neither the current folder nor the user's Python settings decide what runs. -B: on a full disk Python
# leaves a compiled module cut short, and stumbles over it ever after.
exec "$python" -I -B -m bundler "$@"
