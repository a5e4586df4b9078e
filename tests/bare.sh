#!/bin/sh
# bare.sh -- clones the repository and runs `make test` there with a PATH that holds cc, make, sh and the usual small tools only.
#
# Uses busybox for sh and the tools when it is installed and BARE_BUSYBOX is set to 1: no bash, no GNU anything but cc and make.
set -u
here=$(cd "$(dirname "$0")/.." && pwd) || exit 1
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bare.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
if ! command -v git >/dev/null 2>&1; then
    echo "SKIPPED: bare: no git to clone with"
    echo "0 passed, 0 failed"
    exit 0
fi
git clone -q "$here" "$tmp/clone" || exit 1
mkdir "$tmp/bin"
box=
[ "${BARE_BUSYBOX:-0}" != 1 ] || box=$(command -v busybox)
for t in sh awk basename cat chmod cmp comm cp cut date diff dirname echo env expr false find getconf grep head kill ls mkdir mktemp mv od \
    printf ps pwd rm sed sleep sort tail tee test touch tr true uname uniq wc; do
    if [ -n "$box" ] && "$box" --list | grep -qx "$t"; then
        ln -s "$box" "$tmp/bin/$t"
    else
        real=$(command -v "$t" 2>/dev/null)
        case $real in /*) ln -s "$real" "$tmp/bin/$t" ;; esac
    fi
done
for t in cc gcc as ld nm make; do # cc may look for as and ld in PATH
    real=$(command -v "$t" 2>/dev/null)
    case $real in /*) ln -s "$real" "$tmp/bin/$t" ;; esac
done
cd "$tmp/clone" || exit 1
PATH=$tmp/bin make test SHELL="$tmp/bin/sh"
