#!/bin/sh
# windows.sh -- cross-compiles with mingw and runs the tests under wine: tests/windows.sh OUTDIR FILE.c...
#
# A file with `POSIX only` in a comment of its first ten lines is listed and left out.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$1
shift
MINGW=${MINGW:-x86_64-w64-mingw32-gcc}
if ! command -v "$MINGW" >/dev/null 2>&1; then
    echo "SKIPPED: windows: no $MINGW"
    echo "0 passed, 0 failed"
    exit 0
fi
WINE=${WINE:-}
for w in wine64 wine /usr/lib/wine/wine64; do
    [ -n "$WINE" ] || ! command -v "$w" >/dev/null 2>&1 || WINE=$w
done
WINEDEBUG=-all
export WINEDEBUG
mkdir -p "$out"
if [ -n "$WINE" ]; then
    WINEPREFIX=$(cd "$out" && pwd)/prefix
    export WINEPREFIX
fi

passed=0 failed=0 jobs=
for f in "$@"; do
    name=${f##*/} name=${name%.c}
    if sed 10q "$f" | grep -q 'POSIX only'; then
        echo "not for Windows: $f"
        continue
    fi
    libs=-lws2_32
    for lib in openssl mbedtls; do
        ! grep -q "<$lib/" "$f" || libs="no $lib for mingw"
    done
    case $libs in no*) echo "skipped: $f: $libs"; continue ;; esac
    rm -f "$out/$name.exe"
    if $MINGW -std=c99 -g -O1 -Wall -Wextra -I. "$f" -o "$out/$name.exe" $libs >"$out/$name.log" 2>&1; then
        passed=$((passed + 1))
        [ ! -s "$out/$name.log" ] || sed "s/^/      /" "$out/$name.log" | sed 10q
        case $name in test_* | net_*) jobs="$jobs $out/$name.exe" ;; esac
    else
        failed=$((failed + 1))
        echo "FAIL  $f does not compile with $MINGW"
        sed -n '1,15s/^/      /p' "$out/$name.log"
    fi
done
echo "compiled for Windows: $passed, not: $failed"

if [ -z "$WINE" ]; then
    echo "SKIPPED: windows: no wine, so nothing was run"
elif [ -n "$jobs" ]; then
    "$WINE" cmd /c exit >"$out/wine.log" 2>&1 </dev/null # makes the prefix once, before several want to at the same time
    WRAP=$WINE BACKENDS=- LIMIT=${LIMIT:-200} sh tests/run.sh $jobs >"$out/run.log" 2>&1
    sed '$d' "$out/run.log" | tr -d '\r'
    last=$(sed -n '$p' "$out/run.log")
    passed=$((passed + ${last%% *}))
    last=${last#*, }
    failed=$((failed + ${last%% *}))
fi
for server in wineserver /usr/lib/wine/wineserver64; do # of our own WINEPREFIX, nobody else's
    if [ -n "$WINE" ] && command -v "$server" >/dev/null 2>&1; then
        "$server" -k >/dev/null 2>&1
        break
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
