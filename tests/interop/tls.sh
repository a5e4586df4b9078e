#!/bin/sh
# tls.sh -- curl and openssl s_client talk to http_tls and http_tls_mbedtls.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
skip() {
    echo "SKIPPED: tls: $*"
    echo "0 passed, 0 failed"
    exit 0
}

# ---- the client's side, called again by with_server.sh with ADDR in the environment ----
passed=0 failed=0
is() { # WHAT GOT WANT
    if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$LIB: $1: got \`$2', want \`$3'"; fi
}
has() { # WHAT TEXT PART
    case $2 in *"$3"*) is "$1" yes yes ;; *) is "$1" "$2" "...$3..." ;; esac
}
get() { curl -sS --max-time 20 --noproxy '*' --cacert "$TMP/ca.pem" --connect-to "::127.0.0.1:$PORT" "$@"; }
s_client() { timeout 20 openssl s_client -connect "$ADDR" -CAfile "$TMP/ca.pem" "$@" 2>&1; }
subject() { s_client "$@" </dev/null | sed -n 's/^subject=.*CN *= *\([a-z]*\).*/\1/p'; }
request='GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'

https() {
    head -c 1048576 /dev/urandom >"$TMP/big"
    u=https://localhost
    is "greeting" "$(get $u/)" "Hello, World!"
    is "by HTTP/1.0" "$(get -0 $u/)" "Hello, World!"
    is "three on one connection" \
        "$(get -w '%{num_connects} ' -o /dev/null $u/a -o /dev/null $u/b -o /dev/null $u/c)" "1 0 0 "
    get --data-binary "@$TMP/big" $u/echo | cmp - "$TMP/big" >/dev/null
    is "1 MiB there and back" $? 0
    get -H 'Transfer-Encoding: chunked' -H 'Expect:' --data-binary "@$TMP/big" $u/echo | cmp - "$TMP/big" >/dev/null
    is "1 MiB there and back, chunked" $? 0
    is "16 MiB" "$(get $u/zeros | wc -c | tr -d ' ')" 16777216
    is "a slow reader that gives up" "$(get --limit-rate 1M --max-time 1 -o /dev/null -w '%{http_code}' $u/zeros 2>/dev/null)" 200
    is "TLS 1.2" "$(get --tls-max 1.2 $u/)" "Hello, World!"
    if [ "$LIB" = openssl ]; then is "TLS 1.3" "$(get --tlsv1.3 $u/)" "Hello, World!"; fi
    is "24 at a time" "$(get --parallel --parallel-max 24 "$u/zeros?[1-24]" -o /dev/null -w '%{size_download}\n' 2>/dev/null |
        grep -c '^16777216$')" 24
    curl -sS --max-time 20 "http://$ADDR/" >/dev/null 2>&1
    is "plain HTTP gets nothing" "$(test $? -ne 0 && echo refused)" refused
    is "and the server goes on" "$(get $u/)" "Hello, World!"
}
names() {
    is "second name" "$(get https://second.test/)" "Hello, World!"
    is "a name of the wildcard" "$(get https://a.wild.test/)" "Hello, World!"
    is "address" "$(get https://127.0.0.1/)" "Hello, World!"
    is "certificate without a name" "$(subject -noservername)" server
    is "certificate by name" "$(subject -servername second.test)" second
    is "certificate by wildcard" "$(subject -servername b.wild.test)" second
    is "two labels for a wildcard" "$(subject -servername a.b.wild.test)" server
    is "certificate for a stranger's name" "$(subject -servername nobody.test)" server
    get https://nobody.test/ >/dev/null 2>&1
    is "wrong name is noticed" $? 60
    curl -sS --max-time 20 --cacert "$TMP/other_ca.pem" --connect-to "::127.0.0.1:$PORT" https://localhost/ >/dev/null 2>&1
    is "wrong CA is noticed" $? 60
}
protocol() {
    has "ALPN" "$(s_client -alpn h2,http/1.1 </dev/null)" "ALPN protocol: http/1.1"
    has "ALPN, nothing in common" "$(s_client -alpn h2 </dev/null)" "no application protocol"
    has "no ALPN" "$(s_client </dev/null)" "No ALPN negotiated"
    has "TLS 1.1 is refused" "$(s_client -tls1_1 -cipher DEFAULT@SECLEVEL=0 </dev/null)" "Cipher is (NONE)"
    for v in -tls1_2 -tls1_3; do
        [ "$LIB" = openssl ] || [ $v = -tls1_2 ] || continue
        has "s_client $v" "$(printf "$request" | s_client -quiet $v)" "Hello, World!"
        # Its input ends at once: it says close_notify, and both sides end.
        printf "$request" | s_client $v >/dev/null
        is "s_client $v that hangs up" $? 0
    done
    # A line that begins with R asks for a new handshake.
    has "renegotiation" "$( (sleep 1; printf 'R\n'; sleep 1) | s_client -tls1_2)" "no renegotiation"
    if [ "$LIB" = openssl ]; then
        s_client -tls1_3 -sess_out "$TMP/session" -quiet >/dev/null <<EOT
GET / HTTP/1.0

EOT
        has "resumed by ticket" "$(s_client -tls1_3 -sess_in "$TMP/session" </dev/null)" "Reused, TLSv1.3"
    fi
    is "the server goes on" "$(get https://localhost/)" "Hello, World!"
}
if [ $# -gt 0 ]; then
    https
    names
    protocol
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
fi

# ---- the servers ----
for tool in curl openssl timeout; do command -v $tool >/dev/null 2>&1 || skip "no $tool"; done
curl --version | grep -q '^Protocols:.* https' || skip "curl without TLS"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/tls.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
sh tests/make_certs.sh "$tmp" >"$tmp/log" 2>&1 || { cat "$tmp/log"; echo "0 passed, 1 failed"; exit 1; }
TMP=$tmp
export TMP B
probe() { printf '#include <%s>\nint main(void) { return 0; }\n' "$1" | ${CC:-cc} -x c - -o "$tmp/probe" >/dev/null 2>&1; }
serve() { # LIBRARY PROGRAM
    LIB=$1
    export LIB
    if [ ! -x "$B/$2" ] && ! probe "$1/ssl.h"; then echo "SKIPPED: tls: no headers of $1"; return; fi
    sh tests/with_server.sh "$B/$2" "{ADDR}" "$tmp/server.pem" "$tmp/server.key" "$tmp/second.pem" "$tmp/second.key" -- \
        sh tests/interop/tls.sh client >"$tmp/out" 2>&1
    status=$?
    line=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$tmp/out" | tail -n 1)
    sed '/^[0-9]* passed, [0-9]* failed$/d' "$tmp/out"
    if [ -z "$line" ]; then line="0 1"; elif [ "$status" -ne 0 ] && [ "${line#* }" -eq 0 ]; then line="${line% *} 1"; fi
    passed=$((passed + ${line% *})) failed=$((failed + ${line#* }))
}
serve openssl http_tls
serve mbedtls http_tls_mbedtls
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
