#!/bin/sh
# python.sh -- Python's http.client talks to http_echo: pipelining by hand, chunked bodies, many connections at once.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
if ! command -v python3 >/dev/null 2>&1; then
    echo "SKIPPED: interop: no python3"
    echo "0 passed, 0 failed"
    exit 0
fi
exec sh tests/with_server.sh "$B/http_echo" "{ADDR}" -- python3 tests/interop/python_client.py "{PORT}"
