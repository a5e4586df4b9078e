#!/bin/sh
# loop_tls.sh -- makes certificates, builds net_tls.c with both TLS libraries, runs it with each backend.
set -u
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc}
skip() {
    echo "SKIPPED: loop_tls: $*"
    echo "0 passed, 0 failed"
    exit 0
}
command -v openssl >/dev/null 2>&1 || skip "no openssl"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/loop_tls.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
libs="-lssl -lcrypto -lmbedtls -lmbedx509 -lmbedcrypto -lpthread"
printf '#include <openssl/ssl.h>\n#include <mbedtls/ssl.h>\nint main(void) { return 0; }\n' >"$tmp/probe.c"
$CC "$tmp/probe.c" -o "$tmp/probe" $libs >/dev/null 2>&1 || skip "no headers of OpenSSL or mbedTLS"
sh tests/make_certs.sh "$tmp" >"$tmp/log" 2>&1 || { cat "$tmp/log"; echo "0 passed, 1 failed"; exit 1; }

if ! $CC -std=c99 -g -O1 -Wall -Wextra -I. ${TLS_CFLAGS:-} tests/interop/net_tls.c -o "$tmp/net_tls" $libs; then
    echo "net_tls.c does not build"
    echo "0 passed, 1 failed"
    exit 1
fi
passed=0 failed=0
for backend in epoll poll; do
    TLS_DIR=$tmp NKTEST_BACKEND=$backend ${TLS_WRAP:-} "$tmp/net_tls" "$@" >"$tmp/out" 2>&1
    status=$?
    line=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$tmp/out" | tail -n 1)
    sed '/^[0-9]* passed, [0-9]* failed$/d' "$tmp/out"
    if [ -z "$line" ]; then line="0 1"; elif [ "$status" -ne 0 ] && [ "${line#* }" -eq 0 ]; then line="${line% *} 1"; fi
    passed=$((passed + ${line% *})) failed=$((failed + ${line#* }))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
