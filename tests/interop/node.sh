#!/bin/sh
# node.sh -- Node's http client with a keep-alive agent talks to http_echo.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
if ! command -v node >/dev/null 2>&1; then
    echo "SKIPPED: interop: no node"
    echo "0 passed, 0 failed"
    exit 0
fi
exec sh tests/with_server.sh "$B/http_echo" "{ADDR}" -- node tests/interop/node_client.js "{PORT}"
