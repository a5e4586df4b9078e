#!/bin/sh
# run.sh -- netkit's HTTP server against the floor and the peers that are installed, in one run.
#
#     sh bench/run.sh                                  all of it, about six minutes
#     BENCH_PAIRS=1 BENCH_SECONDS=1 sh bench/run.sh    a quick look
#
# bench/README.md says what is measured and how to read it. Environment, with defaults:
#     CC=cc  BENCH_CFLAGS=-O2     compile the floor, the tools and netkit's examples with these
#     BENCH_PAIRS=7               rounds; a ratio is taken within a round and the median printed
#     BENCH_SECONDS=2             length of one measurement, whole seconds
#     BENCH_CASES="get pipelined post"
#     BENCH_PEERS="nginx h2o libmicrohttpd node"    "" for none
#     BENCH_CLIENT=auto           wrk, load (bench/load.c), or auto: wrk if it is installed
#     BENCH_COUNTED=3200          requests of the runs in which system calls are counted
#     BENCH_IDLE=15000            idle connections, less if the file limit is lower; 0 for none
#     BENCH_HELLO, BENCH_ECHO     other programs in netkit's place; the last argument is an address
#
# The status is 0 unless a server answers wrongly. No number is judged. Linux only.
set -u
cd "$(dirname "$0")/.." || exit 1

CC=${CC:-cc}
CFLAGS_USED=${BENCH_CFLAGS:--O2}
PAIRS=${BENCH_PAIRS:-7}
SECONDS_EACH=${BENCH_SECONDS:-2}
CASES=${BENCH_CASES-get pipelined post}
PEERS=${BENCH_PEERS-nginx h2o libmicrohttpd node}
CLIENT=${BENCH_CLIENT:-auto}
COUNTED=${BENCH_COUNTED:-3200}
IDLE=${BENCH_IDLE:-15000}
CONNECTIONS=64

BIN=build/bench
OUT=bench/out
umask 022
TMP=$(mktemp -d "${TMPDIR:-/tmp}/netkit-bench.XXXXXX") || exit 1
chmod 755 "$TMP" # h2o started by root reads its file as another user
STATUS=0
PIDS=

# ---- leaving -------------------------------------------------------------------------------------

cleanup() {
    trap - EXIT INT TERM HUP
    [ -f "$TMP/tracer" ] && kill "$(cat "$TMP/tracer")" 2>/dev/null
    for pid in $PIDS; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$TMP"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

say() { printf '%s\n' "$*" | tee -a "$OUT/results.txt"; }
note() { printf '# %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
fail() { say "FAILED $*"; STATUS=1; }

# ---- building ------------------------------------------------------------------------------------

# compile NAME SOURCE [LIBRARY...]: says SKIPPED with the first error when it does not compile.
compile() {
    name=$1
    src=$2
    shift 2
    # shellcheck disable=SC2086
    $CC -std=c99 $CFLAGS_USED -I. "$src" -o "$BIN/$name" "$@" 2>"$TMP/cc.err" && return 0
    say "SKIPPED $name: $(grep -m1 -i 'error' "$TMP/cc.err" || head -n1 "$TMP/cc.err")"
    return 1
}

# The examples are built here once more: a build/http_hello left by another target may lack -O2.
build() {
    mkdir -p "$BIN" "$OUT" || exit 1
    : >"$OUT/results.txt"
    : >"$TMP/bench"
    for tool in floor_http load host idle; do
        compile "$tool" "bench/$tool.c" || exit 1
    done
    HELLO=${BENCH_HELLO:-}
    ECHO=${BENCH_ECHO:-}
    if [ -z "$HELLO" ]; then
        compile http_hello examples/http_hello.c -lpthread || exit 1
        HELLO=$BIN/http_hello
    fi
    if [ -z "$ECHO" ]; then
        compile http_echo examples/http_echo.c -lpthread || exit 1
        ECHO=$BIN/http_echo
    fi
}

header() {
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n1)
    say "# netkit bench, $(date -u '+%Y-%m-%d %H:%M UTC')"
    say "# compiler $($CC --version | head -n1), flags -std=c99 $CFLAGS_USED"
    say "# kernel $(uname -sr), CPU ${cpu:-unknown}, server on $SERVER_CPU, client on $CLIENT_CPU"
    say "# client $CLIENT, $CONNECTIONS connections, $PAIRS x $SECONDS_EACH s"
    [ "$SERVER_CPU" = "$CLIENT_CPU" ] && say "# one CPU only: server and client disturb each other"
}

# ---- starting servers ----------------------------------------------------------------------------

# start NAME CMD...: runs CMD on the server's CPU; sets PID and, from its "listening on" line, ADDR.
start() {
    name=$1
    shift
    : >"$TMP/$name.out" # now: the shell below opens it when it gets to it
    "$BIN/host" pin "$SERVER_CPU" "$@" >"$TMP/$name.out" 2>"$TMP/$name.err" </dev/null &
    PID=$!
    PIDS="$PIDS $PID"
    tries=0
    while [ "$tries" -lt 100 ]; do
        ADDR=$(sed -n 's/^listening on //p' "$TMP/$name.out" | head -n1)
        [ -n "$ADDR" ] && return 0
        kill -0 "$PID" 2>/dev/null || break
        tries=$((tries + 1))
        sleep 0.05
    done
    return 1
}

# start_at PORT NAME CMD...: the same for a server that must be told a port and says nothing.
start_at() {
    ADDR=127.0.0.1:$1
    name=$2
    shift 2
    "$BIN/host" pin "$SERVER_CPU" "$@" >"$TMP/$name.out" 2>"$TMP/$name.err" </dev/null &
    PID=$!
    PIDS="$PIDS $PID"
    tries=0
    while [ "$tries" -lt 60 ]; do
        "$BIN/load" check "$ADDR" get >/dev/null 2>&1 && return 0
        kill -0 "$PID" 2>/dev/null || break
        tries=$((tries + 1))
        sleep 0.05
    done
    return 1
}

stop() {
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

start_nginx() {
    port=$("$BIN/host" port)
    mkdir -p "$TMP/nginx"
    cat >"$TMP/nginx/nginx.conf" <<END
daemon off;
master_process off;
pid $TMP/nginx/pid;
error_log $TMP/nginx/error.log;
worker_rlimit_nofile 20000;
events { worker_connections 19500; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    client_body_temp_path $TMP/nginx/body;
    proxy_temp_path $TMP/nginx/proxy;
    fastcgi_temp_path $TMP/nginx/fastcgi;
    uwsgi_temp_path $TMP/nginx/uwsgi;
    scgi_temp_path $TMP/nginx/scgi;
    server {
        listen 127.0.0.1:$port backlog=4096;
        location / { default_type text/plain; return 200 "Hello, World!"; }
    }
}
END
    start_at "$port" "$1" nginx -p "$TMP/nginx" -e "$TMP/nginx/error.log" -c "$TMP/nginx/nginx.conf"
}

# h2o has no constant answer: a file is its fastest, and only a handler in mruby can echo.
start_h2o() {
    port=$("$BIN/host" port)
    mkdir -p "$TMP/www"
    printf 'Hello, World!' >"$TMP/www/index.txt"
    cat >"$TMP/h2o.$port.conf" <<END
num-threads: 1
max-connections: 19500
http1-request-timeout: 3600
listen: {host: 127.0.0.1, port: $port}
hosts:
  default:
    paths:
      "/":
END
    if [ "$2" = post ]; then
        cat >>"$TMP/h2o.$port.conf" <<END
        mruby.handler: |
          Proc.new do |env|
            input = env["rack.input"]
            [200, {"content-type" => "text/plain"}, [input ? input.read : "Hello, World!"]]
          end
END
    else
        cat >>"$TMP/h2o.$port.conf" <<END
        file.dir: $TMP/www
        file.index: [index.txt]
END
    fi
    start_at "$port" "$1" h2o -c "$TMP/h2o.$port.conf"
}

start_node() {
    cat >"$TMP/node.js" <<'END'
const http = require('http');
const type = { 'Content-Type': 'text/plain' };
function reply(res, body) {
    res.writeHead(200, Object.assign({ 'Content-Length': body.length }, type));
    res.end(body);
}
const server = http.createServer((req, res) => {
    if (req.method === 'GET') return reply(res, 'Hello, World!');
    const parts = [];
    req.on('data', (d) => parts.push(d));
    req.on('end', () => reply(res, Buffer.concat(parts)));
});
server.keepAliveTimeout = 3600e3;
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 },
    () => console.log('listening on 127.0.0.1:' + server.address().port));
process.on('SIGTERM', () => process.exit(0));
END
    start "$1" node "$TMP/node.js"
}

# launch SERVER CASE NAME: starts one server for a case; 2 means it does not offer the case.
# shellcheck disable=SC2086 # ECHO and HELLO may carry options
launch() {
    case $1,$2 in
        floor,post) start "$3" "$BIN/floor_http" 127.0.0.1:0 --post-echo ;;
        floor,*) start "$3" "$BIN/floor_http" 127.0.0.1:0 ;;
        netkit,post) start "$3" $ECHO 127.0.0.1:0 ;;
        netkit,*) start "$3" $HELLO 127.0.0.1:0 ;;
        nginx,post) return 2 ;; # it has no echo of its own
        nginx,*) start_nginx "$3" ;;
        h2o,*) start_h2o "$3" "$2" ;;
        libmicrohttpd,post) start "$3" "$BIN/peer_mhd" echo ;;
        libmicrohttpd,*) start "$3" "$BIN/peer_mhd" hello ;;
        node,*) start_node "$3" ;;
        *) return 2 ;;
    esac
}

# The peers that can run here, in PRESENT.
find_peers() {
    PRESENT=
    for peer in $PEERS; do
        case $peer in
            libmicrohttpd)
                echo '#include <microhttpd.h>' >"$TMP/mhd.c"
                if ! $CC -fsyntax-only "$TMP/mhd.c" 2>/dev/null; then
                    say "SKIPPED libmicrohttpd: no microhttpd.h"
                    continue
                fi
                compile peer_mhd bench/peer_mhd.c -lmicrohttpd || continue ;;
            *)
                have "$peer" || { say "SKIPPED $peer: not installed"; continue; } ;;
        esac
        PRESENT="$PRESENT $peer"
    done
}

# Starts every server of every case and checks a reply; the good ones go to $TMP/CASE.servers.
start_all() {
    for case in $CASES; do
        : >"$TMP/$case.servers"
        for server in floor netkit $PRESENT; do
            launch "$server" "$case" "$server.$case"
            case $? in
                0) ;;
                2) say "SKIPPED $server in case $case: not offered"; continue ;;
                *) not_started "$server" "$case"; continue ;;
            esac
            if reply=$("$BIN/load" check "$ADDR" "$case" 2>"$TMP/check.err"); then
                echo "$server $ADDR $PID $reply" >>"$TMP/$case.servers"
            else
                fail "$server in case $case: $(head -n3 "$TMP/check.err" | tr '\r\n' '  ')"
                stop "$PID"
            fi
        done
    done
}

not_started() {
    reason=$(head -n1 "$TMP/$1.$2.err")
    case $1 in
        floor | netkit) fail "$1 in case $2 did not start: $reason" ;;
        *) say "SKIPPED $1 in case $2: did not start: $reason" ;;
    esac
}

# ---- CPU time per request ------------------------------------------------------------------------

write_scripts() {
    : >"$TMP/get.lua"
    cat >"$TMP/pipelined.lua" <<'END'
local batch
init = function(args)
    local r = {}
    for i = 1, 16 do r[i] = wrk.format(nil, "/") end
    batch = table.concat(r)
end
request = function() return batch end
END
    cat >"$TMP/post.lua" <<'END'
wrk.method = "POST"
wrk.body = string.rep("abcdefgh", 128)
END
}

# with_wrk CASE ADDR PID: prints requests=N seconds=S cpu_ns=C, as bench/load does.
with_wrk() {
    before=$("$BIN/load" cpu "$3") || return 1
    if [ "$1" = get ]; then set -- "$@" ""; else set -- "$@" "-s$TMP/$1.lua"; fi
    # shellcheck disable=SC2086
    "$BIN/host" pin "$CLIENT_CPU" wrk -t1 -c"$CONNECTIONS" -d"${SECONDS_EACH}s" $4 "http://$2/" \
        >"$TMP/wrk.out" 2>&1 </dev/null || return 1
    after=$("$BIN/load" cpu "$3") || return 1
    if grep -q 'Socket errors\|Non-2xx' "$TMP/wrk.out"; then return 1; fi
    awk -v cpu="$before $after" '
        / requests in / {
            split(cpu, c, " ")
            s = $4
            if (s ~ /ms,$/) s = s / 1000
            else if (s ~ /m,$/) s = s * 60
            ok = $1 > 0
            if (ok) printf "requests=%d seconds=%.3f cpu_ns=%.0f\n", $1, s, c[2] - c[1]
        }
        END { exit !ok }' "$TMP/wrk.out"
}

with_load() {
    "$BIN/host" pin "$CLIENT_CPU" "$BIN/load" run "$2" "$1" --pid "$3" \
        --connections "$CONNECTIONS" --seconds "$SECONDS_EACH" </dev/null
}

# measure CASE SERVER ADDR PID ROUND: one line `raw ...` to stdout.
measure() {
    if result=$("with_$CLIENT" "$1" "$3" "$4" 2>"$TMP/measure.err"); then
        echo "raw case=$1 server=$2 pair=$5 $result"
    else
        fail "$2 in case $1 under load: $(cat "$TMP/measure.err" "$TMP/wrk.out" 2>/dev/null |
            grep -i 'load:\|error\|non-2xx\|unable' | head -n2 | tr '\r\n' '  ')" >&2
    fi
}

# Rounds interleave the servers, and every second round runs backwards, so that drift cancels out.
measure_all() {
    for case in $CASES; do
        count=$(wc -l <"$TMP/$case.servers")
        note "$case: $((count)) servers, $PAIRS x $SECONDS_EACH s each"
        round=1
        while [ "$round" -le "$PAIRS" ]; do
            if [ $((round % 2)) -eq 1 ]; then
                cp "$TMP/$case.servers" "$TMP/order"
            else
                awk '{ l[NR] = $0 } END { for (i = NR; i > 0; i--) print l[i] }' \
                    "$TMP/$case.servers" >"$TMP/order"
            fi
            while read -r server addr pid rest; do
                measure "$case" "$server" "$addr" "$pid" "$round" >>"$TMP/raw.$server.$case"
            done <"$TMP/order"
            round=$((round + 1))
        done
    done
}

# ---- system calls and instructions per request ---------------------------------------------------

# Commands that bench/load runs around its counted requests: attach a tracer to $1, and detach it.
write_hooks() {
    cat >"$TMP/strace.sh" <<END
rm -f "$TMP/trace"
strace -c -f -o "$TMP/trace" -p "\$1" >/dev/null 2>"$TMP/trace.err" </dev/null &
echo \$! >"$TMP/tracer"
END
    cat >"$TMP/perf.sh" <<END
rm -f "$TMP/trace"
perf stat -x, -e instructions -o "$TMP/trace" -p "\$1" >/dev/null 2>"$TMP/trace.err" </dev/null &
echo \$! >"$TMP/tracer"
sleep 0.3
END
    cat >>"$TMP/strace.sh" <<END
i=0
while ! grep -q attached "$TMP/trace.err"; do
    i=\$((i + 1))
    [ "\$i" -lt 60 ] || exit 1
    sleep 0.05
done
END
    cat >"$TMP/detach.sh" <<END
kill -INT "\$(cat "$TMP/tracer")" || exit 1
i=0
while ! grep -q 'total\|instructions' "$TMP/trace" 2>/dev/null; do
    i=\$((i + 1))
    [ "\$i" -lt 60 ] || exit 1
    sleep 0.05
done
rm -f "$TMP/tracer"
END
}

# traced TRACER CASE ADDR PID: $COUNTED requests with the tracer attached; its output in trace.
traced() {
    "$BIN/host" pin "$CLIENT_CPU" "$BIN/load" run "$3" "$2" --requests "$COUNTED" \
        --connections "$CONNECTIONS" --before "sh '$TMP/$1.sh' $4" --after "sh '$TMP/detach.sh'" \
        >"$TMP/traced.out" 2>"$TMP/traced.err" </dev/null || return 1
    grep -q "requests=$COUNTED " "$TMP/traced.out"
}

can_strace() {
    have strace || { say "SKIPPED system calls per request: strace is not installed"; return 1; }
    strace -c -f -o "$TMP/trace" true 2>/dev/null && return 0
    say "SKIPPED system calls per request: strace may not trace here"
    return 1
}

can_perf() {
    have perf || { say "instructions per request: not supported (no perf)"; return 1; }
    perf stat -x, -e instructions -o "$TMP/trace" true 2>/dev/null
    grep -q '^[0-9][0-9]*,.*instructions' "$TMP/trace" 2>/dev/null && return 0
    say "instructions per request: not supported (perf cannot count them here)"
    return 1
}

count_calls() {
    if traced strace "$1" "$3" "$4"; then
        awk -v what="calls case=$1 server=$2 requests=$COUNTED" '
            NF < 5 || $4 !~ /^[0-9]+$/ || $NF == "total" || $NF == "syscall" { next }
            $NF ~ /^(recvfrom|recvmsg|recvmmsg|read|readv)$/ { recv += $4; next }
            $NF ~ /^(sendto|sendmsg|sendmmsg|write|writev|sendfile)$/ { send += $4; next }
            $NF ~ /^(epoll_wait|epoll_pwait|epoll_pwait2|poll|ppoll|select)$/ { wait += $4; next }
            { other += $4 }
            END { printf "%s recv=%d send=%d wait=%d other=%d\n", what, recv, send, wait, other }
        ' "$TMP/trace" >>"$TMP/raw.$2.$1"
    else
        reason=$(cat "$TMP/traced.err" "$TMP/trace.err" | head -n1)
        say "SKIPPED system calls of $2 in case $1: $reason"
        [ -f "$TMP/tracer" ] && kill "$(cat "$TMP/tracer")" 2>/dev/null
        rm -f "$TMP/tracer"
    fi
}

count_instructions() {
    traced perf "$1" "$3" "$4" || return 0
    awk -F, -v what="instr case=$1 server=$2 requests=$COUNTED" \
        '/instructions/ && $1 ~ /^[0-9]+$/ { print what " instructions=" $1 }' \
        "$TMP/trace" >>"$TMP/raw.$2.$1"
}

count_all() {
    strace_works=0
    perf_works=0
    can_strace && strace_works=1
    can_perf && perf_works=1
    [ "$strace_works$perf_works" = 00 ] && return
    note "system calls: $COUNTED requests each"
    for case in $CASES; do
        while read -r server addr pid rest; do
            [ "$strace_works" = 1 ] && count_calls "$case" "$server" "$addr" "$pid"
            [ "$perf_works" = 1 ] && count_instructions "$case" "$server" "$addr" "$pid"
        done <"$TMP/$case.servers"
    done
}

# ---- idle connections ----------------------------------------------------------------------------

rss_of() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$1/status"; }

# hold_idle ADDR COUNT: opens connections that stay open; sets HELD, HOLDER. let_go closes them.
hold_idle() {
    rm -f "$TMP/hold"
    mkfifo "$TMP/hold"
    : >"$TMP/idle.out"
    "$BIN/host" pin "$CLIENT_CPU" "$BIN/idle" "$1" "$2" \
        <"$TMP/hold" >"$TMP/idle.out" 2>"$TMP/idle.err" &
    HOLDER=$!
    PIDS="$PIDS $HOLDER"
    exec 9>"$TMP/hold"
    tries=0
    HELD=
    while [ "$tries" -lt 1200 ]; do
        HELD=$(sed -n 's/^open //p' "$TMP/idle.out")
        [ -n "$HELD" ] && return 0
        kill -0 "$HOLDER" 2>/dev/null || break
        tries=$((tries + 1))
        sleep 0.05
    done
    exec 9>&-
    return 1
}

let_go() {
    exec 9>&-
    wait "$HOLDER" 2>/dev/null
    lost=$(sed -n 's/^closed //p' "$TMP/idle.out")
    [ "${lost:-0}" = 0 ] || say "# $1 closed $lost of the idle connections meanwhile"
}

# The first connections pay for what is used once; that must not count as memory per connection.
warm() { "$BIN/load" run "$1" get --requests 6400 --connections "$CONNECTIONS" >/dev/null 2>&1; }

# Asks bench/mem_http for the bytes that are live in its allocator.
live_now() {
    lines=$(grep -c '^live' "$TMP/mem_http.out")
    kill -USR1 "$1"
    tries=0
    while [ "$(grep -c '^live' "$TMP/mem_http.out")" = "$lines" ] && [ "$tries" -lt 60 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    sed -n 's/^live //p' "$TMP/mem_http.out" | tail -n1
}

# Live bytes per idle connection, through netkit's allocator hook, in LIVE. Not warmed up: what the
# loop allocates once counts too, in its disfavour.
measure_live() {
    LIVE=
    [ -f bench/mem_http.c ] || { say "SKIPPED live bytes: no bench/mem_http.c"; return; }
    compile mem_http bench/mem_http.c -lpthread || return
    start mem_http "$BIN/mem_http" 127.0.0.1:0 || { fail "mem_http did not start"; return; }
    before=$(live_now "$PID")
    if hold_idle "$ADDR" "$IDLE"; then
        after=$(live_now "$PID")
        LIVE=$(awk -v a="$before" -v b="$after" -v n="$HELD" 'BEGIN { printf "%.1f", (b - a) / n }')
        let_go mem_http
    else
        fail "mem_http: $(head -n1 "$TMP/idle.err")"
    fi
    stop "$PID"
}

# idle_beside SERVER ADDR PID: CPU per request of 64 active connections on this instance, which
# holds the idle ones, and on another that does not, in pairs.
idle_beside() {
    launch "$1" get "$1.alone" || return 0
    note "idle beside active, $1: $PAIRS x $SECONDS_EACH s"
    : >"$TMP/beside"
    round=1
    while [ "$round" -le "$PAIRS" ]; do
        measure get floor "$ADDR" "$PID" "$round" >>"$TMP/beside"
        measure get crowded "$2" "$3" "$round" >>"$TMP/beside"
        round=$((round + 1))
    done
    # The instance alone is called floor, because stats.awk takes its ratios against that name.
    awk -f bench/stats.awk "$TMP/beside" | awk -v server="$1" -v held="$HELD" '
        { for (i = 1; i <= NF; i++) { split($i, kv, "="); v[NR, kv[1]] = kv[2] } }
        END {
            if (NR != 2) exit
            printf "bench case=get_idle server=%s connections=%d cpu_us=%s cpu_us_alone=%s", \
                server, held, v[2, "cpu_us"], v[1, "cpu_us"]
            printf " ratio=%s ratio_low=%s ratio_high=%s\n", \
                v[2, "ratio"], v[2, "ratio_low"], v[2, "ratio_high"]
        }' >>"$TMP/bench"
    stop "$PID"
}

# One server with idle connections: RSS for each; for floor and netkit what the active ones pay.
idle_one() {
    launch "$1" get "$1.idle" || return 0
    idle_pid=$PID
    idle_addr=$ADDR
    warm "$idle_addr"
    rss0=$(rss_of "$idle_pid")
    held_here=$IDLE
    case $1 in
        floor | netkit) ;;
        *) held_here=$((IDLE / 3)) ;; # for a peer's RSS that is plenty, and it saves time
    esac
    if hold_idle "$idle_addr" "$held_here"; then
        rss1=$(rss_of "$idle_pid")
        live=
        [ "$1" = netkit ] && live=$LIVE
        echo "bench case=idle server=$1 connections=$HELD${live:+ live_bytes=$live}" \
            "rss_bytes=$(((rss1 - rss0) / HELD))" >>"$TMP/bench"
        case $1 in
            floor | netkit) idle_beside "$1" "$idle_addr" "$idle_pid" ;;
        esac
        let_go "$1"
    elif [ "$1" = netkit ]; then
        fail "netkit with idle connections: $(head -n1 "$TMP/idle.err")"
    else
        say "SKIPPED idle connections of $1: $(head -n1 "$TMP/idle.err")"
    fi
    stop "$idle_pid"
}

idle_all() {
    limit=$(ulimit -n)
    [ "$limit" = unlimited ] || [ "$IDLE" -le $((limit - 500)) ] || IDLE=$((limit - 500))
    [ "$IDLE" -gt 0 ] || { say "SKIPPED idle connections"; return; }
    note "idle: $IDLE connections"
    measure_live
    for server in floor netkit $PRESENT; do idle_one "$server"; done
}

# ---- reporting -----------------------------------------------------------------------------------

parser_bench() {
    [ -f bench/bench_parser.c ] || { say "SKIPPED bench_parser: no bench/bench_parser.c"; return; }
    compile bench_parser bench/bench_parser.c || return
    note "parser"
    "$BIN/host" pin "$SERVER_CPU" "$BIN/bench_parser" >"$TMP/parser.out" 2>&1 ||
        fail "bench_parser: $(tail -n1 "$TMP/parser.out")"
    say "$(cat "$TMP/parser.out")"
}

# chart FILE TITLE NOTE MARK: from `label value [low high]` lines on standard input; none, no chart.
chart() {
    cat >"$TMP/chart"
    [ -s "$TMP/chart" ] || return 0
    awk -v title="$2" -v note="$3" -v mark="$4" -f bench/chart.awk "$TMP/chart" >"$OUT/$1.svg"
}

# rows CASE KEY...: of each bench line of the case that has the keys: server and values.
rows() {
    want=$1
    shift
    awk -v want="$want" -v keys="$*" '
        $1 == "bench" {
            split("", v)
            for (i = 2; i <= NF; i++) { split($i, kv, "="); v[kv[1]] = kv[2] }
            n = split(keys, k, " ")
            if (v["case"] != want || v[k[1]] == "") next
            s = v["server"]
            for (i = 1; i <= n; i++) s = s " " v[k[i]]
            print s
        }' "$TMP/bench"
}

charts() {
    rm -f "$OUT"/*.svg
    where="$CONNECTIONS connections, $PAIRS x $SECONDS_EACH s"
    for case in $CASES; do
        rows "$case" ratio ratio_low ratio_high | chart "cpu_$case" \
            "CPU time per request, $case (floor = 1)" "median (lowest .. highest); $where" 1
        rows "$case" recv send | awk '{ print $1, $2 + $3 }' | chart "calls_$case" \
            "System calls per request, $case" "recv and send, over $COUNTED requests" ""
    done
    rows idle rss_bytes | chart idle_rss "Memory per idle connection, bytes" \
        "growth of the resident set per connection, after one request on each" ""
}

report() {
    for case in $CASES; do
        while read -r server rest; do
            [ -f "$TMP/raw.$server.$case" ] && cat "$TMP/raw.$server.$case"
        done <"$TMP/$case.servers"
    done | awk -f bench/stats.awk >"$TMP/cpu"
    cat "$TMP/cpu" "$TMP/bench" >"$TMP/all"
    mv "$TMP/all" "$TMP/bench"
    say "$(cat "$TMP/bench")"
    say "$(awk -f bench/table.awk "$TMP/bench")"
    charts
    say ""
    say "charts and this text: $OUT"
}

# ---- the run -------------------------------------------------------------------------------------

ulimit -n "$(ulimit -Hn)" 2>/dev/null
[ "$CLIENT" != auto ] || if have wrk; then CLIENT=wrk; else CLIENT=load; fi
case $CLIENT in
    wrk | load) ;;
    *) echo "BENCH_CLIENT must be wrk, load or auto" >&2; exit 2 ;;
esac
note "building"
build
# shellcheck disable=SC2046
set -- $("$BIN/host" cpus)
SERVER_CPU=${1:-0}
CLIENT_CPU=${2:-$SERVER_CPU}
header
find_peers
write_scripts
write_hooks
start_all
measure_all
count_all
idle_all
parser_bench
report
exit "$STATUS"
