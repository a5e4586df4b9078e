#!/bin/sh
# run.sh -- runs test programs side by side and adds up what they checked.
#
#   tests/run.sh [-n] JOB...     each JOB is one command line, split at blanks: "build/tests/test_x" or "sh tests/hygiene.sh --quick"
#   -n                           do not compare the working tree before and after
#
# A job whose program is named net_* runs twice, with NKTEST_BACKEND=epoll and =poll. A job passes when its last line of the
# form `N passed, N failed` says so and its status is 0; a crash, a missing line or zero checks count as one failure. A job that
# prints `SKIPPED: ...` and checks nothing is shown, not failed. The last line of all is the sum.
#
#   JOBS   how many at a time   (default: the processors, at least 4)
#   LIMIT  seconds for one job  (default 100; a job that takes longer is killed and counts as a failure)
#   BACKENDS  of the net_* jobs (default "epoll poll"; "-" runs them once, as they are)
#   WRAP   put before the command, such as "valgrind -q" (scripts are not wrapped)
set -u
LC_ALL=C
export LC_ALL
check_tree=1
if [ "${1:-}" = -n ]; then check_tree=0; shift; fi
LIMIT=${LIMIT:-100}
WRAP=${WRAP:-}
BACKENDS=${BACKENDS:-epoll poll}
cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null) || cpus=4
JOBS=${JOBS:-$cpus}
case $JOBS in ''|*[!0-9]*) JOBS=4 ;; esac
[ "$JOBS" -ge 4 ] || [ "$JOBS" != "$cpus" ] || JOBS=4

tmp=$(mktemp -d "${TMPDIR:-/tmp}/netkit.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# ---- one job -----------------------------------------------------------------------------------

# Kills $1 after LIMIT seconds. Ends its own sleep when it is told to stop, so that nothing outlives the run.
watch_over() {
    nap=
    trap '[ -z "$nap" ] || kill "$nap" 2>/dev/null; exit 0' TERM
    sleep "$LIMIT" & nap=$!
    wait "$nap"
    : >"$2.killed"
    kill -TERM "$1" 2>/dev/null
    sleep 2 & nap=$!
    wait "$nap"
    kill -KILL "$1" 2>/dev/null
}

# run_one NUMBER BACKEND COMMAND...: leaves $tmp/NUMBER.out and $tmp/NUMBER.row = "passed failed"
run_one() {
    base=$tmp/$1 backend=$2
    shift 2
    name=$(job_name "$@")
    mkdir "$base.tmp"
    began=$(date +%s)
    (
        TMPDIR=$base.tmp
        export TMPDIR
        if [ "$backend" != - ]; then NKTEST_BACKEND=$backend; export NKTEST_BACKEND; fi
        case $1 in
            sh) exec "$@" ;;
            *)  exec $WRAP "$@" ;;
        esac
    ) >"$base.out" 2>&1 </dev/null & child=$!
    ( watch_over "$child" "$base" ) >/dev/null 2>&1 </dev/null & watcher=$!
    echo "$child $watcher" >"$base.pids"
    wait "$child" 2>/dev/null
    status=$?
    kill -TERM "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    took=$(($(date +%s) - began))
    rm -rf "$base.tmp" "$base.pids"
    judge
}

# Reads the summary line, decides, prints one line; and the whole output of a job that failed.
judge() {
    passed=0 failed=0 skipped=0 why=
    line=$(tr -d '\r' <"$base.out" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' | tail -n 1)
    if [ -n "$line" ]; then
        passed=${line% *} failed=${line#* }
    else
        why="no summary line"
    fi
    if [ -f "$base.killed" ]; then
        why="killed after $LIMIT s"
    elif [ "$status" -eq 127 ] && [ -z "$line" ]; then
        why="not built"
    elif [ "$status" -gt 128 ]; then
        why="crashed, signal $((status - 128))"
    elif [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
        why="status $status"
    elif [ -n "$line" ] && [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
        if grep -q '^SKIPPED: ' "$base.out"; then skipped=1; else why="no checks"; fi
    fi
    [ -z "$why" ] || failed=$((failed + 1))
    echo "$passed $failed" >"$base.row"
    {
        if [ "$failed" -gt 0 ]; then
            echo "---- output of $name $backend ----"
            cat "$base.out"
            echo "---- end of $name $backend ----"
        else
            grep -E '^(SKIPPED: |warning: )' "$base.out"
        fi
        if [ "$skipped" -eq 1 ]; then
            printf 'skip  %-28s %s\n' "$name" "$backend"
        else
            verdict=ok
            [ "$failed" -eq 0 ] || verdict=FAIL
            printf '%-5s %-28s %-6s %7d passed %5d failed %4d s%s\n' \
                "$verdict" "$name" "$backend" "$passed" "$failed" "$took" "${why:+   ($why)}"
        fi
    } >"$base.report"
    cat "$base.report"
}

job_name() {
    [ "$1" != sh ] || shift
    n=${1##*/}
    echo "${n%.sh}"
}

# ---- all jobs ----------------------------------------------------------------------------------

count=0
add() { count=$((count + 1)); echo "$*" >"$tmp/$count.job"; }
for job in "$@"; do
    case $(job_name $job) in
        net_*) for backend in $BACKENDS; do add "$backend" "$job"; done ;;
        *)     add - "$job" ;;
    esac
done
if [ "$count" -eq 0 ]; then
    echo "run.sh: nothing to run"
    echo "0 passed, 1 failed"
    exit 1
fi

# Each worker walks the whole list and takes what nobody has claimed: mkdir is atomic everywhere.
worker() {
    i=0
    while [ "$i" -lt "$count" ]; do
        i=$((i + 1))
        mkdir "$tmp/$i.claim" 2>/dev/null || continue
        read -r backend command <"$tmp/$i.job"
        run_one "$i" "$backend" $command
    done
}

tree_state() { git status --porcelain 2>/dev/null; }
watched=0
if [ "$check_tree" -eq 1 ] && command -v git >/dev/null 2>&1 && git rev-parse --git-dir >/dev/null 2>&1; then
    watched=1
    tree_state >"$tmp/tree.before"
fi

w=0 workers=
while [ "$w" -lt "$JOBS" ] && [ "$w" -lt "$count" ]; do
    w=$((w + 1))
    worker &
    workers="$workers $!"
done
trap 'kill $workers $(cat "$tmp"/*.pids 2>/dev/null) 2>/dev/null; exit 1' HUP INT TERM
wait $workers

passed=0 failed=0 i=0
while [ "$i" -lt "$count" ]; do
    i=$((i + 1))
    if read -r p f 2>/dev/null <"$tmp/$i.row"; then
        passed=$((passed + p)) failed=$((failed + f))
    else
        echo "run.sh: job $i has no result"
        failed=$((failed + 1))
    fi
done
if [ "$watched" -eq 1 ]; then
    tree_state >"$tmp/tree.after"
    if ! cmp -s "$tmp/tree.before" "$tmp/tree.after"; then
        echo "the working tree changed during the run:"
        diff "$tmp/tree.before" "$tmp/tree.after" | sed -n 's/^[<>]/&/p'
        if [ -s "$tmp/tree.before" ]; then
            echo "(not counted: it was not clean before, so someone is at work in it)"
        else
            failed=$((failed + 1))
        fi
    fi
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
