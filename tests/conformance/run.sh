#!/bin/sh
# run.sh -- runs the probes of this directory against the example servers.
#
# A probe is a *.py that begins with #!; it is called as PROBE NAME PORT and its status says whether every case was as wanted.
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
passed=0 failed=0
for probe in tests/conformance/*.py; do
    [ -f "$probe" ] || continue
    case $(sed -n 1p "$probe") in '#!'*) ;; *) continue ;; esac
    name=${probe##*/}
    echo "-- $name"
    if PYTHONDONTWRITEBYTECODE=1 sh tests/with_server.sh "$B/${name%%_*}_echo" "{ADDR}" -- "$PYTHON" "$probe" netkit "{PORT}"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL  $name"
    fi
done
if [ $((passed + failed)) -eq 0 ]; then
    echo "conformance: no probe"
    failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
