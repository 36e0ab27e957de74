#!/bin/sh
# Starts the pixi that belongs to this installation, with the installation's cache and lock:
#
#     bin/pixi run -e cu128 python
set -eu
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
pixi=${BUNDLER_PIXI:-$root/runtime/bin/pixi}
if [ ! -x "$pixi" ]; then
  printf 'error: there is no pixi here\n  where: %s\n  fix:   name one: BUNDLER_PIXI=/path/to/pixi\n' \
    "$pixi" >&2
  exit 3
fi

if [ -z "${PIXI_CACHE_DIR:-}" ]; then
  # pixi locks its cache, so it needs one that this user may write to.
  PIXI_CACHE_DIR=$root/@CACHE@
  mkdir -p "$PIXI_CACHE_DIR" 2>/dev/null || true
  if [ ! -w "$PIXI_CACHE_DIR" ]; then
    PIXI_CACHE_DIR=${XDG_CACHE_HOME:-${HOME:-/tmp/bundler-$(id -u)}/.cache}/bundler/pixi
  fi
  export PIXI_CACHE_DIR
fi
# The lock decides: without a network nothing can be solved anew. Who can't write here can't install either,
# only run what is installed.
PIXI_FROZEN=${PIXI_FROZEN:-true}
export PIXI_FROZEN
# Which generation counts is written in one file alone.
number=$(sed -n 's/^ *"current": *\([0-9][0-9]*\).*/\1/p' "$root/@RECORD@" 2>/dev/null) || number=
case $number in
  '' | 1) counting=$root ;;
  *) counting=$root/@GENERATIONS@/$number ;;
esac
if [ ! -w "$counting/.pixi" ]; then
  PIXI_NO_INSTALL=${PIXI_NO_INSTALL:-true}
  export PIXI_NO_INSTALL
fi
manifest=$counting/pixi.toml
for other in pyproject.toml mojoproject.toml; do
  [ -e "$manifest" ] || [ ! -e "$counting/$other" ] || manifest=$counting/$other
done
# Taken where the current folder lies in no workspace.
PIXI_PROJECT_MANIFEST=${PIXI_PROJECT_MANIFEST:-$manifest}
export PIXI_PROJECT_MANIFEST
exec "$pixi" "$@"
