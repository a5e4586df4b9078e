#!/bin/sh
# curl.sh -- curl talks to the example servers.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
if ! command -v curl >/dev/null 2>&1; then
    echo "SKIPPED: interop: no curl"
    echo "0 passed, 0 failed"
    exit 0
fi
tmp=$(mktemp -d "${TMPDIR:-/tmp}/curl.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT

# ---- the client's side, called again by with_server.sh with ADDR in the environment ----
passed=0 failed=0
is() { # WHAT GOT WANT
    if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: got \`$2', want \`$3'"; fi
}
get() { curl -sS --max-time 20 "$@"; }
code() { get -o /dev/null -w '%{http_code}' "$@"; }

hello() {
    is "hello" "$(get "http://$ADDR/")" "Hello, World!"
    is "hello, HTTP/1.0" "$(get -0 "http://$ADDR/")" "Hello, World!"
    is "hello, HEAD" "$(code -I "http://$ADDR/")" 200
    is "three on one connection" "$(get -w '%{num_connects} ' -o /dev/null "http://$ADDR/a" -o /dev/null "http://$ADDR/b" -o /dev/null "http://$ADDR/c")" "1 0 0 "
}
echo_back() {
    awk 'BEGIN { for (i = 0; i < 60000; i++) print "line " i }' >"$TMP/big"
    is "POST" "$(get -d 'a=1&b=2' "http://$ADDR/")" "a=1&b=2"
    get -H 'Expect: 100-continue' --data-binary "@$TMP/big" "http://$ADDR/" | cmp - "$TMP/big" >/dev/null
    is "large body with 100-continue" $? 0
    get -H 'Expect:' -H 'Transfer-Encoding: chunked' -T "$TMP/big" "http://$ADDR/up" | cmp - "$TMP/big" >/dev/null
    is "large chunked body" $? 0
    is "PUT, empty" "$(code -X PUT "http://$ADDR/")" 200
}
files() {
    is "file" "$(get "http://$ADDR/a.txt")" "alpha"
    is "type" "$(get -o /dev/null -w '%{content_type}' "http://$ADDR/a.txt" | cut -d ';' -f 1)" "text/plain"
    is "range" "$(get -r 1-3 "http://$ADDR/a.txt")" "lph"
    is "range, status" "$(code -r 1-3 "http://$ADDR/a.txt")" 206
    is "range outside" "$(code -r 100-200 "http://$ADDR/a.txt")" 416
    is "missing" "$(code "http://$ADDR/none")" 404
    is "outside the root" "$(get --path-as-is "http://$ADDR/../secret" | grep -c geheim)" 0
    is "outside the root, encoded" "$(get --path-as-is "http://$ADDR/%2e%2e/secret" | grep -c geheim)" 0
    etag=$(get -D - -o /dev/null "http://$ADDR/a.txt" | tr -d '\r' | sed -n 's/^[Ee][Tt][Aa][Gg]: //p')
    is "304 by ETag" "$(code -H "If-None-Match: $etag" "http://$ADDR/a.txt")" 304
    is "304 by date" "$(code -z "$TMP/root/a.txt" "http://$ADDR/a.txt")" 304
}
app() {
    is "route and JSON" "$(get "http://$ADDR/api/hello/w%22%C3%B6")" '{"hello":"w\"ö"}'
    is "form" "$(get -d 'text=a+b&x=%41' "http://$ADDR/form")" '{"text":"a b","x":"A"}'
    is "first visit" "$(get -c "$TMP/jar" "http://$ADDR/visits")" 1
    is "second visit" "$(get -b "$TMP/jar" "http://$ADDR/visits")" 2
    awk 'BEGIN { for (i = 0; i < 300000; i++) print "line " i }' >"$TMP/up" # 3.6 MB, over the limit for bodies kept in memory
    is "upload" "$(get -F "file=@$TMP/up" -F note=hi "http://$ADDR/upload")" "{\"file\":$(wc -c <"$TMP/up" | tr -d ' '),\"note\":2}"
    is "upload, not multipart" "$(code -d x "http://$ADDR/upload")" 400
    is "answered later" "$(get "http://$ADDR/later?ms=50")" "better late than never"
    is "streamed" "$(get "http://$ADDR/stream" | wc -l | tr -d ' ')" 200000
    is "streamed, last line" "$(get "http://$ADDR/stream" | tail -n 1)" "line 00199999 of a reply that is made while it is sent"
    is "events" "$([ "$(curl -sN --max-time 3 "http://$ADDR/events" | grep -c '^data: second ')" -ge 2 ] && echo some)" some
    is "no password" "$(code "http://$ADDR/private")" 401
    is "password" "$(get -u demo:demo "http://$ADDR/private")" welcome
    is "wrong password" "$(code -u demo:wrong "http://$ADDR/private")" 401
    is "wrong method" "$(get -X DELETE -D - -o /dev/null "http://$ADDR/form" | tr -d '\r' | sed -n 's/^Allow: //p')" "POST, OPTIONS"
}
if [ $# -gt 0 ]; then
    "$1"
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
fi

# ---- the servers ----
mkdir "$tmp/root"
printf alpha >"$tmp/root/a.txt"
printf geheim >"$tmp/secret"
TMP=$tmp
export TMP B
serve() { # CASE SERVER ARGUMENT...
    name=$1
    shift
    sh tests/with_server.sh "$@" -- sh tests/interop/curl.sh "$name" >"$tmp/out" 2>&1
    status=$?
    line=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$tmp/out" | tail -n 1)
    sed '/^[0-9]* passed, [0-9]* failed$/d' "$tmp/out"
    if [ -z "$line" ]; then line="0 1"; elif [ "$status" -ne 0 ] && [ "${line#* }" -eq 0 ]; then line="${line% *} 1"; fi
    passed=$((passed + ${line% *})) failed=$((failed + ${line#* }))
}
serve hello "$B/http_hello" "{ADDR}"
serve echo_back "$B/http_echo" "{ADDR}"
serve files "$B/http_files" "{ADDR}" "$tmp/root"
serve app "$B/http_app" "{ADDR}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
