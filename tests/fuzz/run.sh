#!/bin/sh
# run.sh -- fuzzes for a while: tests/fuzz/run.sh SECONDS TARGET...
#
# Each target is tests/fuzz/fuzz_TARGET.c with its corpus in tests/fuzz/corpus/TARGET/ and, if it has one, its dictionary in
# tests/fuzz/TARGET.dict. Works on a copy of the corpus below build/fuzz, so the tree stays as it is: new inputs and crashes are
# found there. Needs clang with libFuzzer.
set -u
cd "$(dirname "$0")/../.." || exit 1
CLANG=${CLANG:-clang}
seconds=$1
shift
out=build/fuzz
flags="-std=c99 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all"

mkdir -p "$out"
printf '#include <stddef.h>\nint LLVMFuzzerTestOneInput(const unsigned char*, size_t);\n%s\n' \
    'int LLVMFuzzerTestOneInput(const unsigned char* p, size_t n) { (void)p; (void)n; return 0; }' >"$out/probe.c"
if ! $CLANG $flags "$out/probe.c" -o "$out/probe" >"$out/probe.log" 2>&1; then
    echo "SKIPPED: fuzz: $CLANG with -fsanitize=fuzzer,address,undefined is not here"
    echo "0 passed, 0 failed"
    exit 0
fi

passed=0 failed=0
for t in "$@"; do
    work=$out/$t
    mkdir -p "$work/corpus" "$work/crashes"
    for f in "tests/fuzz/corpus/$t"/*; do [ -f "$f" ] && cp "$f" "$work/corpus/"; done
    dict=
    [ ! -f "tests/fuzz/$t.dict" ] || dict="-dict=tests/fuzz/$t.dict"
    if ! $CLANG $flags -I. "tests/fuzz/fuzz_$t.c" -o "$work/fuzz_$t" -lpthread; then
        echo "FAIL  fuzz_$t: does not compile"
        failed=$((failed + 1))
        continue
    fi
    "$work/fuzz_$t" $dict -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$work/crashes/" "$work/corpus" >"$work/log" 2>&1 </dev/null
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log" | tail -n 1)
    if [ "$status" -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
        passed=$((passed + 1))
        printf 'ok    fuzz_%-20s %12s executions\n' "$t" "$runs"
    else
        failed=$((failed + 1))
        printf 'FAIL  fuzz_%-20s status %s after %s executions; input in %s\n' "$t" "$status" "${runs:-no}" "$work/crashes/"
        tail -n 40 "$work/log"
    fi
done
if [ $# -eq 0 ]; then
    echo "fuzz: no target"
    failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
