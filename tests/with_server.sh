#!/bin/sh
# with_server.sh -- starts an example server, runs a command against it, stops it.
#
#   tests/with_server.sh build/http_files {ADDR} DIRECTORY -- curl http://{ADDR}/
#
# {ADDR} before the -- becomes 127.0.0.1:0, after it the address the server has printed; {PORT} is its port. Both are in the
# environment of the command too. The status is that of the command, or 1 if the server did not start, died, or did not
# leave with status 0 within 15 s of SIGTERM.
set -u
tmp=$(mktemp -d "${TMPDIR:-/tmp}/server.XXXXXX") || exit 1
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

started_with=$1
: >"$tmp/out"
if [ ! -x "$1" ]; then
    echo "with_server.sh: $1 is not built"
    exit 1
fi
set -- "$@"
# Everything up to -- is the server; sh has no arrays, so the words go round once.
count=$# server_words=0 seen=0
for word in "$@"; do
    if [ "$seen" -eq 0 ] && [ "$word" = -- ]; then seen=1; continue; fi
    [ "$seen" -eq 1 ] || server_words=$((server_words + 1))
done
if [ "$seen" -eq 0 ]; then
    echo "usage: with_server.sh SERVER ARGUMENT... -- COMMAND..."
    exit 1
fi

launch() { # WORD... : the first $server_words of them
    i=0
    for word in "$@"; do
        shift
        i=$((i + 1))
        [ "$i" -le "$server_words" ] || continue
        [ "$word" != "{ADDR}" ] || word=127.0.0.1:0
        set -- "$@" "$word"
    done
    exec "$@"
}
( launch "$@" ) >"$tmp/out" 2>"$tmp/err" </dev/null &
server=$!

tries=0 ADDR=
while [ -z "$ADDR" ]; do
    ADDR=$(sed -n 's/^listening on \([^ ]*:[0-9][0-9]*\).*/\1/p' "$tmp/out")
    [ -z "$ADDR" ] || break
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "with_server.sh: $started_with did not say \`listening on HOST:PORT\`"
        cat "$tmp/out" "$tmp/err"
        exit 1
    fi
    sleep 0.1 2>/dev/null || sleep 1
done
PORT=${ADDR##*:}
export ADDR PORT

client() {
    i=0
    for word in "$@"; do
        shift
        i=$((i + 1))
        [ "$i" -gt $((server_words + 1)) ] || continue
        word=$(printf '%s\n' "$word" | sed "s/{ADDR}/$ADDR/g; s/{PORT}/$PORT/g")
        set -- "$@" "$word"
    done
    "$@"
}
client "$@"
status=$?

kill -TERM "$server" 2>/dev/null || { echo "with_server.sh: $started_with died"; cat "$tmp/err"; status=1; }
( n=0; while [ "$n" -lt 15 ]; do sleep 1; n=$((n + 1)); done; kill -KILL "$server" 2>/dev/null ) >/dev/null 2>&1 &
patience=$!
wait "$server"
left=$?
server=
kill "$patience" 2>/dev/null # its last sleep ends within a second
if [ "$left" -ne 0 ]; then
    echo "with_server.sh: $started_with left with status $left"
    cat "$tmp/err"
    [ "$status" -ne 0 ] || status=1
fi
exit "$status"
