#!/bin/sh
# Brings bundler itself onto a host that has no Python, then lets it unpack this bundle:
#
#     sh install.sh DEST [options of "bundler unpack"]
#
# Needs sh, tar, gzip, sha256sum and the usual small tools (coreutils or busybox). Nothing is run from the
# bundle's own disk, which may be mounted read-only and noexec. Run again, it goes on where it stopped.
# Before it runs, verify it by hand: it can't vouch for itself. What it does vouch for, where the host has a file
# of allowed signers, is that nothing else of the disk is used before the signature over SHA256SUMS is checked.
set -eu
# A hardened host's umask would close the runtime to the user that serves.
umask 022
LC_ALL=C
export LC_ALL
unset CDPATH PYTHONHOME PYTHONPATH || true

# Written when the bundle is packed.
runtime_kib=0
payload_kib=0
payload_names=''
oldest_glibc=2.28

longest_path=200
host_signers=/etc/bundler/allowed_signers
newline='
'

usage() {
  cat <<USAGE
usage: sh install.sh [--runtime-only] DEST [options of "bundler unpack"]

  DEST             the folder to install into; it is made if it isn't there
  --runtime-only   bring bundler to DEST/bin/bundler and stop there
  everything after DEST goes to "bundler unpack", for example another disk's folder or --partial;
  --allowed-signers FILE, --sha256 DIGEST and --insecure-unsigned are heeded here already
USAGE
}

say() { printf 'install.sh: %s\n' "$1" >&2; }

stop() { # CODE WHAT FIX
  printf 'install.sh: %s\n  fix:   %s\n' "$2" "$3" >&2
  exit "$1"
}

quoted() { # WORD: as a shell reads it back
  left=$1 right=
  while :; do
    case $left in
      *\'*) right="$right${left%%\'*}'\\''"; left=${left#*\'} ;;
      *) break ;;
    esac
  done
  printf "'%s'" "$right$left"
}

findings=0
worst=8
finding() { # WHAT FIX
  [ "$findings" -gt 0 ] || say 'this host or this bundle is not ready:'
  findings=$((findings + 1))
  printf '  - %s\n    fix: %s\n' "$1" "$2" >&2
}

# ---- what this host is -------------------------------------------------------------------------------------

glibc_version() { # prints a version, or "musl", or nothing where no C library can be found
  said=$(getconf GNU_LIBC_VERSION 2>/dev/null) || said=
  case $said in
    'glibc '[0-9]*) printf '%s' "${said#glibc }"; return ;;
  esac
  said=$(ldd --version 2>&1) || true
  case $said in
    *musl*) printf musl; return ;;
    *GLIBC* | *'GNU libc'*) said=${said%%"$newline"*}; printf '%s' "${said##* }"; return ;;
  esac
  for library in /lib64/libc.so.6 /lib/x86_64-linux-gnu/libc.so.6 /usr/lib64/libc.so.6 \
    /usr/lib/x86_64-linux-gnu/libc.so.6 /lib/libc.so.6 /usr/lib/libc.so.6; do
    [ -e "$library" ] || continue
    said=$("$library" 2>/dev/null) || said=$(grep -a 'GNU C Library' "$library" 2>/dev/null) || said=
    case $said in
      *' version '[0-9]*) said=${said#*' version '}; said=${said%%[!0-9.]*}; printf '%s' "${said%.}"; return ;;
    esac
  done
  for library in /lib/ld-musl-*; do
    [ ! -e "$library" ] || printf musl
  done
}

older() { # A B: whether version A is older than version B; two numbers each
  a_minor=${1#*.} b_minor=${2#*.}
  a_minor=${a_minor%%[!0-9]*}
  [ "${1%%.*}" -lt "${2%%.*}" ] || { [ "${1%%.*}" -eq "${2%%.*}" ] && [ "${a_minor:-0}" -lt "$b_minor" ]; }
}

check_system() {
  for tool in tar gzip sha256sum uname df du mkdir mv rm chmod dirname readlink cat id ls; do
    command -v "$tool" >/dev/null 2>&1 || finding "the command $tool is missing" \
      "install the packages tar, gzip and coreutils (or busybox)"
  done
  machine="$(uname -s) $(uname -m)"
  [ "$machine" = 'Linux x86_64' ] || finding "this is $machine; the bundle is for Linux x86_64" \
    'install on a host with an x86-64 processor'
  found=$(glibc_version)
  case $found in
    musl*) finding "the C library here is musl; the runtime needs glibc $oldest_glibc or newer" \
      'install on a distribution with glibc (Debian, Ubuntu, Rocky, SLES), or in a container of one' ;;
    [0-9]*.[0-9]*) ! older "$found" "$oldest_glibc" || finding \
      "glibc is $found; the runtime needs $oldest_glibc or newer" \
      'install on a newer distribution (Debian 10, Ubuntu 20.04, RHEL 8 or later)' ;;
    *) finding "no glibc was found; the runtime needs $oldest_glibc or newer" \
      'install on a distribution with glibc (Debian, Ubuntu, Rocky, SLES), or in a container of one' ;;
  esac
}

# ---- the destination ---------------------------------------------------------------------------------------

free_kib() { # FOLDER: KiB that may still be written there
  df -Pk "$1" 2>/dev/null | {
    read -r _ || true
    read -r line || line=
    # The device and the mount point may hold spaces: what counts stands before the percentage.
    before=
    set -f
    for word in $line; do
      case $word in
        [0-9]*%) printf '%s' "$before"; break ;;
      esac
      before=$word
    done
  }
}

used_kib() { # FOLDER: KiB that an earlier run has written already
  [ -d "$1" ] || { printf 0; return; }
  size=$(du -skx "$1" 2>/dev/null) || true
  size=${size%%[!0-9]*}
  printf '%s' "${size:-0}"
}

check_space() {
  free=$(free_kib "$probe")
  [ -n "$free" ] || return 0
  places=$probe
  if [ -d "$dest/weights" ]; then
    elsewhere=$(free_kib "$dest/weights")
    if [ -n "$elsewhere" ] && [ "$elsewhere" -ne "$free" ]; then
      free=$((free + elsewhere + $(used_kib "$dest/weights")))
      places="$places and $dest/weights"
    fi
  fi
  needed=$((runtime_kib + payload_kib - $(used_kib "$dest")))
  [ "$free" -ge "$needed" ] && return 0
  what="$((free / 1024)) MiB are free at $places; $((needed / 1024)) MiB are needed"
  if [ "$skip" = yes ]; then say "warning: $what"; else
    finding "$what" 'free that much, choose a larger file system, or go on nevertheless: --skip-preflight'
  fi
}

check_destination() {
  case $dest in
    *[:\'\"\\\$\`]* | *"$newline"*) finding \
      "the destination's path holds one of : ' \" \\ \$ \` or a line break" \
      'choose another path: PATH, or the scripts of the environments, can not name such a folder' ;;
  esac
  [ ${#dest} -le "$longest_path" ] || finding \
    "the destination's path is ${#dest} bytes long; environments can't be moved to paths over $longest_path" \
    'choose a shorter path'
  case $dest/ in
    "$bundle"/*) finding 'the destination lies inside the bundle' 'choose a folder outside it'; return 0 ;;
  esac
  probe=$dest
  while [ ! -e "$probe" ] && [ ! -h "$probe" ]; do probe=$(dirname -- "$probe"); done
  if [ ! -d "$probe" ]; then
    finding "$probe is not a folder" 'choose another destination'
    return 0
  fi
  check_planted
  check_others
  check_writing
  check_space
}

check_planted() { # whether another user could lead what is written here elsewhere
  for own in .bundler .bundler/bundles bin runtime .pixi; do
    [ -e "$dest/$own" ] || [ -h "$dest/$own" ] || continue
    if [ -h "$dest/$own" ] || [ ! -d "$dest/$own" ]; then
      finding "$own in the destination is a link or no folder" 'move it away, or choose another destination'
      continue
    fi
    # The third word of a long listing with numbers is the owner.
    read -r _ _ owner _ <<LISTING
$(ls -ldn "$dest/$own")
LISTING
    [ "$owner" = "$(id -u)" ] || [ "$owner" = 0 ] || finding \
      "$own in the destination belongs to another user (uid $owner)" \
      'run this as that user, or choose another destination'
  done
}

check_others() {
  # What bundler asks of a new folder; once its own folders are in there it couldn't tell any more.
  [ ! -d "$dest/.bundler" ] || return 0
  # What stock tools took out of this bundle is adopted by "bundler unpack", file by file.
  for other in "$dest"/* "$dest"/.[!.]* "$dest"/..?*; do
    case " .pixi bin runtime lost+found $payload_names " in
      *" ${other##*/} "*) continue ;;
    esac
    [ -e "$other" ] || [ -h "$other" ] || continue
    finding "the destination holds other things: ${other##*/}" \
      'name a new or empty folder, or an installation to add this bundle to'
    return 0
  done
}

check_writing() {
  # In a folder made for it: a name that others may have planted there is never written through.
  try="$probe/.bundler-try.$$"
  if ! (umask 077 && mkdir "$try" && printf '#!/bin/sh\nexit 0\n' >"$try/run" && chmod 700 "$try/run") 2>/dev/null; then
    rmdir "$try" 2>/dev/null || true
    finding "nothing can be written to $probe" \
      'choose a folder that you may write to, run this as its owner, or mount it read-write'
    return 0
  fi
  "$try/run" 2>/dev/null || finding "programs can't be run from $probe (mounted noexec?)" \
    'mount it with exec, or choose another file system'
  rm -rf "$try"
}

# ---- what is about to be run -------------------------------------------------------------------------------

read_options() { # those of "bundler unpack" that count here already
  option=
  for word in "$@"; do
    case $option in
      --allowed-signers) allowed=$word; option=; continue ;;
      --sha256) digest=$word; option=; continue ;;
    esac
    case $word in
      --skip-preflight) skip=yes ;;
      --insecure-unsigned) insecure=yes ;;
      --allowed-signers | --sha256) option=$word ;;
      --allowed-signers=*) allowed=${word#*=} ;;
      --sha256=*) digest=${word#*=} ;;
    esac
  done
  [ -z "$allowed" ] || return 0
  # One that can't be seen for want of rights may be there all the same.
  if [ -e "$host_signers" ] || [ -h "$host_signers" ] ||
    { [ -d "${host_signers%/*}" ] && [ ! -x "${host_signers%/*}" ]; }; then
    allowed=$host_signers
  fi
}

distrust() { # WHAT FIX
  finding "$1" "$2"
  worst=16
}

keygen() { # WORDS of ssh-keygen, in an environment that holds nothing of ours
  env -i PATH="$PATH" LC_ALL=C "$ssh_keygen" "$@"
}

check_signature() { # the signature over what $sums holds: nothing is read again from the disk
  signature=$bundle/SHA256SUMS.sig
  signer=
  client='install OpenSSH 8.2 or newer here (openssh-client, openssh-clients)'
  ssh_keygen=$(command -v ssh-keygen) || ssh_keygen=
  case $ssh_keygen in
    "$bundle"/*) ssh_keygen= ;;
    /*) ;;
    *) ssh_keygen= ;;
  esac
  if [ ! -f "$allowed" ] || [ ! -r "$allowed" ]; then
    distrust "the file of allowed signers can't be read: $allowed" 'name one of this host with --allowed-signers'
    return 0
  fi
  case $(readlink -f "$allowed" 2>/dev/null) in
    '' | "$bundle"/*)
      distrust "the file of allowed signers lies in the bundle, which can't vouch for itself" \
        "name one of this host's own, $host_signers for instance"
      return 0 ;;
  esac
  if [ ! -f "$signature" ]; then
    distrust "the bundle is not signed, and $allowed asks for a signature" \
      'have it signed: bundler sign BUNDLE --key KEY; --insecure-unsigned goes on without'
    return 0
  fi
  if [ -z "$ssh_keygen" ]; then
    distrust "the signature can't be checked: there is no ssh-keygen here" "$client"
    return 0
  fi
  said=$(keygen -Y find-principals -s "$signature" -f "$allowed" 2>&1 >/dev/null) || true
  principals=$(keygen -Y find-principals -s "$signature" -f "$allowed" 2>/dev/null) || principals=
  while IFS= read -r principal; do
    [ -n "$principal" ] || continue
    said=$(printf '%s\n' "$sums" |
      keygen -Y verify -f "$allowed" -I "$principal" -n bundler -s "$signature" 2>&1) || continue
    signer=$principal
    break
  done <<PRINCIPALS
$principals
PRINCIPALS
  [ -z "$signer" ] || return 0
  case $said in
    *'option -- Y'* | *"option -- 'Y"* | *nsupported\ operation*)
      distrust "the signature can't be checked: the ssh-keygen here is too old" "$client" ;;
    *)
      printf '%s\n' "$said" >&2
      distrust "the bundle's signature is not a good one by an allowed signer ($allowed)" \
        "don't use what is on this disk; ask who packed it for a bundle that an allowed signer signed" ;;
  esac
}

check_provenance() { # whether SHA256SUMS, as read into $sums, is what this host asks for
  sums_sha256=$(printf '%s\n' "$sums" | sha256sum) || sums_sha256=
  sums_sha256=${sums_sha256%% *}
  [ -z "$digest" ] || [ "$digest" = "$sums_sha256" ] ||
    distrust "SHA256SUMS is not the one that --sha256 names: its sha256 is $sums_sha256" \
      "compare the digest with what pack printed; where they differ, don't use what is on this disk"
  [ -z "$allowed" ] || [ "$insecure" = yes ] || check_signature
}

say_provenance() {
  say "sha256 of SHA256SUMS: $sums_sha256"
  if [ "$insecure" = yes ]; then
    say 'warning: no signature was asked for (--insecure-unsigned)'
  elif [ -n "$allowed" ]; then
    say "signed by $signer, checked against $allowed"
  elif [ -z "$digest" ]; then
    say "no signature was checked; compare the digest with the one that pack printed"
  fi
}

size_of() { # FILE: its bytes; the fifth word of a long listing with numbers
  read -r _ _ _ _ size _ <<LISTING
$(ls -ldnL "$1")
LISTING
  printf '%s' "$size"
}

check_bundle() {
  if [ ! -f "$bundle/SHA256SUMS" ]; then
    finding "SHA256SUMS is missing in $bundle" 'copy the bundle again, whole'
    return 0
  fi
  # It is held in memory, and one of 10 TB has 128 KiB.
  if [ "$(size_of "$bundle/SHA256SUMS")" -gt 4194304 ]; then
    finding "SHA256SUMS is larger than any bundle's" 'copy the bundle again, whole'
    return 0
  fi
  # Read once: what is checked is what is believed, whatever the disk says the next time.
  sums=$(cat <"$bundle/SHA256SUMS") || sums=
  check_provenance
  [ "$worst" -ne 16 ] || return 0
  for name in runtime.tar.gz manifest.json; do
    promised=
    while read -r sum listed || [ -n "$sum" ]; do
      # Not by cutting the star off: some shells take minutes for that where a line is long.
      case $listed in
        "$name" | "*$name") promised=$sum ;;
      esac
    done <<SUMS
$sums
SUMS
    if [ ! -f "$bundle/$name" ]; then
      finding "$name is missing in $bundle" 'copy the bundle again, whole'
    elif [ "$name" = manifest.json ] && [ "$(size_of "$bundle/$name")" -gt 134217728 ]; then
      finding "$name is larger than any bundle's" 'copy the bundle again, whole'
    elif [ -z "$promised" ]; then
      finding "SHA256SUMS doesn't list $name" 'copy the bundle again, and find out who changed it'
      worst=5
    else
      sum=$(sha256sum <"$bundle/$name") || sum=unreadable
      if [ "${sum%% *}" != "$promised" ]; then
        finding "$name is damaged or altered: SHA256SUMS promises $promised" \
          "copy $name again; it lies on each of the bundle's disks"
        worst=5
      fi
    fi
    [ "$name" != runtime.tar.gz ] || runtime_sha256=$promised
  done
}

# ---- the work ----------------------------------------------------------------------------------------------

work_alone() { # one install.sh at a time: a second one waits, and then finds all done
  command -v flock >/dev/null 2>&1 || return 0
  # The folder itself is locked, until "bundler unpack" ends, which takes this process's place.
  exec 9<"$dest/.bundler"
  flock -n 9 && return 0
  say 'another install.sh is at work in this destination: waiting for it'
  flock 9
}

check_addition() { # whether an installation takes this bundle: asked of the new bundler, before the old one goes
  code=0
  said=$("$partial/bin/python" -I -B -m bundler unpack --dry-run "$bundle" "$@" "$dest" 2>&1) || code=$?
  [ "$code" -ne 0 ] || return 0
  printf '%s\n' "$said" >&2
  rm -rf "$partial"
  exit "$code"
}

install_runtime() {
  ready=$dest/.bundler/runtime.ready
  stamp="$runtime_sha256 $dest"
  if [ -f "$ready" ] && [ "$(cat "$ready")" = "$stamp" ] && [ -x "$dest/runtime/bin/python" ]; then
    say "bundler is in $dest/runtime already"
    return 0
  fi
  say "unpacking bundler's own runtime to $dest/runtime"
  partial=$dest/.bundler/runtime.partial
  old=$dest/.bundler/runtime.old
  # A run that was killed between the two moves below has left the old one aside.
  [ -e "$dest/runtime" ] || [ ! -e "$old" ] || mv "$old" "$dest/runtime"
  rm -rf "$partial" "$old"
  mkdir -p "$partial"
  # What is unpacked is a copy that was checked: a drive may say something else the second time.
  archive=$dest/.bundler/runtime.partial.tar.gz
  rm -f "$archive"
  cat <"$bundle/runtime.tar.gz" >"$archive" || {
    rm -f "$archive"
    stop 10 'runtime.tar.gz could not be copied' 'see the message above, then run the same command again'
  }
  sum=$(sha256sum <"$archive") || sum=unreadable
  if [ "${sum%% *}" != "$runtime_sha256" ]; then
    rm -f "$archive"
    stop 5 'runtime.tar.gz was read differently the second time' 'try another drive, or copy the bundle again'
  fi
  # sh knows the exit code of a pipe's last command only.
  unpacked=yes
  { gzip -dc <"$archive" || : >"$partial/.failed"; } | (cd "$partial" && tar -xof -) || unpacked=no
  rm -f "$archive"
  [ "$unpacked" = yes ] ||
    stop 10 'the runtime could not be unpacked' 'see the message above, then run the same command again'
  [ ! -e "$partial/.failed" ] ||
    stop 5 'runtime.tar.gz could not be read to its end' 'copy it again, or try another drive'
  [ "$runtime_only" = yes ] || [ ! -f "$dest/.bundler/receipt.json" ] || check_addition "$@"
  # A runtime without pixi takes nobody's pixi away.
  if [ -x "$dest/runtime/bin/pixi" ] && [ ! -e "$partial/bin/pixi" ]; then
    { cat <"$dest/runtime/bin/pixi" >"$partial/bin/pixi" && chmod 755 "$partial/bin/pixi"; } ||
      stop 10 'the pixi that is here could not be kept' 'see the message above, then run this again'
  fi
  rm -f "$ready"
  [ ! -e "$dest/runtime" ] || mv "$dest/runtime" "$old"
  mv "$partial" "$dest/runtime"
  rm -rf "$old"
  "$dest/runtime/bin/python" -E -s -B "$dest/runtime/bin/conda-unpack" ||
    stop 10 'the runtime could not be fitted to its new place' 'see the message above, then run this again'
  # The note below must not outlive a power cut that the runtime doesn't.
  sync -f "$dest" 2>/dev/null || sync 2>/dev/null || true
  printf '%s' "$stamp" >"$ready"
}

runtime_only=no
skip=no
case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --runtime-only) runtime_only=yes; shift ;;
esac
case ${1:-} in
  '' | -*) usage >&2; exit 2 ;;
  /*) dest=$1 ;;
  *) dest=$(pwd)/$1 ;;
esac
shift
while [ "$dest" != "${dest%/}" ]; do dest=${dest%/}; done
allowed=${BUNDLER_ALLOWED_SIGNERS:-}
digest=
insecure=no
read_options "$@"

bundle=$(cd -- "$(dirname -- "$0")" && pwd -P)
runtime_sha256=
check_system
check_destination
check_bundle
[ "$findings" -eq 0 ] || exit "$worst"
say_provenance

mkdir -p "$dest/.bundler" || stop 9 "$dest can't be made" 'choose a folder that you may write to'
dest=$(cd -- "$dest" && pwd -P)
work_alone
install_runtime "$@"
"$dest/runtime/bin/python" -I -B -m bundler.runtime.launchers "$dest" ||
  stop 10 "the launchers in $dest/bin could not be written" 'see the message above, then run this again'
if [ "$runtime_only" = yes ]; then
  say "done; go on with: $(quoted "$dest/bin/bundler") unpack $(quoted "$bundle") $(quoted "$dest")"
  exit 0
fi
exec "$dest/bin/bundler" unpack "$bundle" "$@" "$dest"
