#!/bin/sh
# size.sh -- bytes of code and data of the headers at -Os, netkit_http.h by slice. For README.
set -u
cd "$(dirname "$0")/.." || exit 1
CC=${CC:-cc}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/size.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

measure() { # HEADER LABEL OPTION...
    header=$1 label=$2
    shift 2
    upper=$(echo "$header" | tr '[:lower:]' '[:upper:]')
    printf '#define NETKIT_%s_IMPLEMENTATION\n#include "netkit_%s.h"\n' "$upper" "$header" >"$tmp/one.c"
    if $CC -std=c99 -Os -DNDEBUG -ffunction-sections "$@" -I. -c "$tmp/one.c" -o "$tmp/one.o" 2>"$tmp/log"; then
        size "$tmp/one.o" | awk -v h="netkit_$header.h" -v l="$label" 'NR == 2 { printf "%-16s %-34s %7d text %6d data %6d bss\n", h, l, $1, $2, $3 }'
        passed=$((passed + 1))
    else
        echo "FAIL  netkit_$header.h $label"
        sed 5q "$tmp/log"
        failed=$((failed + 1))
    fi
}

if ! command -v size >/dev/null 2>&1; then
    echo "SKIPPED: size: no size (binutils)"
    echo "0 passed, 0 failed"
    exit 0
fi
echo "$($CC --version | sed 1q), -Os -DNDEBUG"
for h in netkit_*.h; do
    name=${h#netkit_} name=${name%.h}
    upper=$(echo "$name" | tr '[:lower:]' '[:upper:]')
    measure "$name" whole
    all=
    for s in $(grep -o "NETKIT_${upper}_NO_[A-Z0-9_]*" "$h" | sort -u | grep -v NO_PRAGMA_LIB); do
        measure "$name" "without ${s##*_NO_}" "-D$s"
        [ "${s##*_NO_}" = LOOP ] || all="$all -D$s"
    done
    [ -z "$all" ] || measure "$name" "without any of these, with loop" $all
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
