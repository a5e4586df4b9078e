#!/bin/sh
# run.sh -- runs the probes of this directory against the example servers.
#
# A probe is a *.py that begins with #!; it is called as PROBE NAME PORT, prints `N of M as wanted`,
# and its status says whether that is all of them.
# The part of its name before the first _ names the server: http_probe.py talks to build/http_echo. The other *.py are case tables.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
PYTHON=${PYTHON:-python3}
if ! command -v "$PYTHON" >/dev/null 2>&1; then
    echo "SKIPPED: conformance: no $PYTHON"
    echo "0 passed, 0 failed"
    exit 0
fi
tmp=$(mktemp -d "${TMPDIR:-/tmp}/conformance.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
for probe in tests/conformance/*.py; do
    [ -f "$probe" ] || continue
    case $(sed -n 1p "$probe") in '#!'*) ;; *) continue ;; esac
    name=${probe##*/}
    variants=plain
    [ "${name%%_*}" = http ] && variants="plain --workers=3" # handlers in the loop, and on a pool
    for variant in $variants; do
    echo "-- $name $variant"
    arguments=
    [ "$variant" = plain ] || arguments="${variant%%=*} ${variant#*=}"
    # shellcheck disable=SC2086
    PYTHONDONTWRITEBYTECODE=1 sh tests/with_server.sh "$B/${name%%_*}_echo" "{ADDR}" $arguments -- "$PYTHON" "$probe" netkit "{PORT}" >"$tmp/out" 2>&1
    status=$?
    cat "$tmp/out"
    good=0 all=0
    read -r good all <<CASES
$(sed -n 's/.* \([0-9][0-9]*\) of \([0-9][0-9]*\) as wanted.*/\1 \2/p' "$tmp/out" | tail -n 1)
CASES
    passed=$((passed + ${good:-0})) failed=$((failed + ${all:-0} - ${good:-0}))
    if [ "${all:-0}" -eq 0 ] || { [ "$status" -ne 0 ] && [ "$good" -eq "$all" ]; }; then
        failed=$((failed + 1))
        echo "FAIL  $name $variant: status $status"
    fi
    done
done
if [ $((passed + failed)) -eq 0 ]; then
    echo "conformance: no probe"
    failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
