#!/bin/sh
# hygiene.sh -- what every netkit header promises about its own form, checked.
#
#   tests/hygiene.sh [--quick] [--only CHECK] [HEADER...]   default: all netkit_*.h at top level
#   tests/hygiene.sh --self-test                            every check must refuse its broken sample (tests/broken/*.sed)
#   tests/hygiene.sh --both                                 first the one, then the other
#
# --quick leaves out what needs more than cc, sh, awk and sed. One line per check and header; what is wrong follows as file:line
# where there is a line. The last line is `N passed, N failed`. Warnings are not failures; what cannot run is named SKIPPED.
#
# A check is a function check_NAME that prints one line per problem and nothing when all is well. It finds in
#   H path, F file name, HD directory, N name (http), U its capitals (HTTP), P prefix (nkhttp_), PU its capitals (NKHTTP_),
#   CODE the header with comments removed and strings emptied, same line numbers, T a directory of its own,
#   DS DE IS IE first and last lines of declarations and implementation (0: not found).
# To add one: write check_NAME, name it in one of the four lists below, add tests/broken/NAME.sed.
set -u
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd) || exit 1
top=${here%/tests}

text_checks="format preface version includes guard rooms sizes platform comments public_types foreign_macros banned_calls privates"
cc_checks="c99 c11 decl_then_impl impl_twice two_units two_static no_loop slices ndebug hooks hostile_decl hostile_impl
    macros_decl macros_impl symbols late_include"
full_checks="std:gcc:c99 std:gcc:c11 std:clang:c99 std:clang:c11 std:g++:c++11 std:g++:c++20 std:clang++:c++11 std:clang++:c++20
    cxx_caller m32 mingw:x86_64 mingw:i686"
suite_checks="shared unity home_paths"

CC=${CC:-cc}
CXX=${CXX:-c++}
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"
room_most=400     # lines; longer is a warning
function_most=80  # lines; longer is a warning

quick=0 only= self=0
while [ $# -gt 0 ]; do
    case $1 in
        --quick)     quick=1 ;;
        --only)      only=$2; shift ;;
        --self-test) self=1 ;;
        --both)      self=2 ;;
        -*)          echo "hygiene.sh: unknown option $1"; exit 1 ;;
        *)           break ;;
    esac
    shift
done

tmp=$(mktemp -d "${TMPDIR:-/tmp}/hygiene.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null) || cpus=2

# ==== reading a header ==========================================================================

# Removes comments and the contents of strings; keeps every line where it was.
strip() {
    awk -v q="'" '
    !inside && !index($0, "/") && !index($0, "\"") && !index($0, q) { print; next }
    !inside && /^[ \t]*#[ \t]*include/ { sub(/[ \t]*\/[\/*].*/, ""); print; next }
    {
        out = ""
        n = length($0)
        for (i = 1; i <= n; i++) {
            c = substr($0, i, 1)
            two = substr($0, i, 2)
            if (inside) { if (two == "*/") { inside = 0; i++ }; continue }
            if (two == "//") break
            if (two == "/*") { inside = 1; i++; out = out " "; continue }
            out = out c
            if (c != "\"" && c != q) continue
            for (i++; i <= n; i++) {
                d = substr($0, i, 1)
                if (d == "\\") i++
                else if (d == c) break
            }
            out = out c
        }
        print out
    }' "$1"
}

# Prints first and last line of the declarations and of the implementation, and how deep in #ifs the latter begins.
find_parts() {
    awk -v U="$2" '
    /^[ \t]*#[ \t]*if/ {
        depth++
        if (!ds && $0 ~ ("ifndef[ \t]+NETKIT_" U "_INCLUDED")) { ds = NR; dd = depth }
        if (!is && $0 ~ ("ifdef[ \t]+NETKIT_" U "_IMPLEMENTATION[ \t]*$")) { is = NR; id = depth }
        if (!is && $0 ~ ("if[ \t]+defined[(]NETKIT_" U "_IMPLEMENTATION[)][ \t]*$")) { is = NR; id = depth }
    }
    /^[ \t]*#[ \t]*endif/ {
        if (ds && !de && depth == dd) de = NR
        if (is && !ie && depth == id) ie = NR
        depth--
    }
    END { print ds + 0, de + 0, is + 0, ie + 0, id + 0 }' "$1"
}

# Sets every variable a check may use. $1 = header
load() {
    NESTED=0 H=$1 F=${1##*/} HD=$(cd "$(dirname "$1")" && pwd)
    N=${F#netkit_} N=${N%.h}
    U=$(echo "$N" | tr '[:lower:]' '[:upper:]')
    case $N in
        profile*) P=nkprof${N#profile}_ ;;
        *)        P=nk${N}_ ;;
    esac
    PU=$(echo "$P" | tr '[:lower:]' '[:upper:]')
    CODE=$tmp/code.$(echo "$H" | tr '/.' '__')
    [ -f "$CODE" ] || strip "$H" >"$CODE"
    read -r DS DE IS IE IMPL_DEPTH <<PARTS
$(find_parts "$CODE" "$U")
PARTS
    [ "$IS" -eq 0 ] || [ "$IS" -gt "$DE" ] || DE=$((IS - 1)) NESTED=1
}

code_part() { awk -v a="$1" -v b="$2" 'NR >= a && NR <= b { print NR ":" $0 }' "$CODE"; }

siblings() { sed -n 's/^ *\(# *include "netkit_[a-z_]*\.h"\).*/\1/p' "$CODE"; }

# Names of the public functions, as the compiler sees them. Further arguments: -D options
api_names() {
    echo "#include \"$F\"" | $CC "$@" -I "$HD" "-DNETKIT_${U}_API=netkit_api_mark" -E -x c - 2>"$T/api.log" |
        sed -n "s/.*netkit_api_mark.*[^a-z0-9_]\\(${P}[a-z0-9_]*\\) *(.*/\\1/p" | sort -u
}

# ==== helpers for checks that compile ===========================================================

# -fsyntax-only is for declarations: gcc speaks of unused functions only when it makes an object.

# try LABEL COMMAND...: silent if it works; else one line, and the beginning of what was said
try() {
    label=$1
    shift
    "$@" >"$T/log" 2>&1 && return 0
    echo "$F: $label: failed"
    sed -n "1,14s|^|    |p" "$T/log"
    return 1
}

# source NAME LINE...: writes $T/NAME
source_file() {
    out=$T/$1
    shift
    printf '%s\n' "$@" >"$out"
}

# A translation unit that takes the address of every public function. $1 = file name, $2 = main or another function name
user_file() {
    {
        echo "#include \"$F\""
        echo "typedef void (*any_function)(void);"
        [ "$2" = main ] || echo "int $2(void);"
        echo "int $2(void) {"
        echo "    static any_function all[] = {"
        api_names | sed 's/.*/        (any_function)&,/'
        echo "        (any_function)0 };"
        echo "    volatile unsigned i = 0;"
        echo "    while (all[i]) i++;"
        echo "    return i == sizeof all / sizeof all[0] - 1 && i > 0 ? 0 : 1;"
        echo "}"
    } >"$T/$1"
}

have() { command -v "$1" >/dev/null 2>&1; }
skip() { echo "SKIPPED: $F: $1"; }

# ==== checks: text ==============================================================================

check_format() {
    awk -v F="$F" '
    /\t/            { print F ":" NR ": tab" }
    /\r/            { print F ":" NR ": carriage return" }
    /[ \t]$/        { print F ":" NR ": trailing blank" }
    length($0) > 120 { print F ":" NR ": " length($0) " columns, most 120" }
    /[^ -~\t\r]/    { print F ":" NR ": not ASCII" }' "$H"
    [ -z "$(tail -c 1 "$H")" ] || echo "$F: no newline at the end"
}

check_preface() {
    awk -v F="$F" '
    BEGIN { n = split("DO THIS|LINK WITH|DOES|EXAMPLE|IDEAS|TOUR|OPTIONS|LIMITS|CHANGES", want, "|"); next_one = 1 }
    !start && /^\/\*/ {
        start = NR
        if (index($0, "/*  " F " -- ") != 1) print F ":" NR ": preface must begin with \"/*  " F " -- \""
        if ($0 !~ /  v[0-9]+\.[0-9]+\.[0-9]+  /) print F ":" NR ": no version like v0.1.0 between double blanks"
        if ($0 !~ /MIT or public domain/) print F ":" NR ": no licence word"
    }
    !start { next }
    !over {
        t = $0
        sub(/^ ? ? ? ?/, "", t)
        if (t ~ /^DOES NOT/ || t ~ /^DOES .*DOES NOT/) does_not = 1
        for (i = 1; i <= n; i++) {
            if (substr(t, 1, length(want[i])) != want[i] || substr(t, length(want[i]) + 1, 1) ~ /[A-Za-z_]/) continue
            if (i < next_one) continue
            if (i > next_one) print F ":" NR ": chapter " want[i] " comes before " want[next_one]
            next_one = i + 1
        }
        if (index($0, "*/")) over = NR
    }
    END {
        if (!start) { print F ": no preface"; exit }
        if (over - start + 1 > 200) print F ":" start ": preface has " (over - start + 1) " lines, most 200"
        if (next_one <= n) print F ":" over ": chapter missing: " want[next_one]
        if (!does_not) print F ":" over ": nothing says what it DOES NOT"
    }' "$H"
}

check_version() {
    shown=$(sed -n '/^\/\*/,$s/.*  v\([0-9][0-9]*\)\.\([0-9][0-9]*\)\.\([0-9][0-9]*\)  .*/\1 \2 \3/p' "$H" | sed 1q)
    line=$(grep -n "^#define NETKIT_${U}_VERSION " "$H" | sed 1q)
    if [ -z "$shown" ] || [ -z "$line" ]; then
        echo "$F: version not found in preface or in NETKIT_${U}_VERSION"
        return
    fi
    set -- $shown
    want=$(($1 * 10000 + $2 * 100 + $3))
    got=$(echo "$line" | awk '{ print $3 }')
    [ "$want" = "$got" ] || echo "$F:${line%%:*}: NETKIT_${U}_VERSION is $got, the preface says $want"
}

check_includes() {
    code_part 1 "$DE" | awk -v F="$F" '
    /:[ \t]*#[ \t]*include/ {
        split($0, a, ":")
        if ($0 ~ /<(stddef|stdint|stdarg)\.h>/ || $0 ~ /"netkit_[a-z_]*\.h"/) next
        print F ":" a[1] ": declarations may include stddef.h, stdint.h, stdarg.h and siblings only"
    }'
}

check_guard() {
    [ "$DS" -gt 0 ] || echo "$F: no #ifndef NETKIT_${U}_INCLUDED"
    [ "$IS" -gt 0 ] || echo "$F: no #ifdef NETKIT_${U}_IMPLEMENTATION"
    [ "$NESTED" -eq 1 ] || [ "$IMPL_DEPTH" -le 1 ] || echo "$F:$IS: implementation lies inside another #if"
    [ "$NESTED" -eq 0 ] || echo "$F:$IS: implementation begins before the declarations end"
    grep -q "^#ifndef NETKIT_${U}_IMPLEMENTED" "$CODE" || echo "$F:$IS: no #ifndef NETKIT_${U}_IMPLEMENTED"
    sed -n 1p "$H" | grep -q "^#if defined(NETKIT_IMPLEMENTATION) && !defined(NETKIT_${U}_IMPLEMENTATION)" ||
        echo "$F:1: the umbrella macro NETKIT_IMPLEMENTATION must be looked at first"
    code_part "$DS" "$DE" | grep -q 'extern "' || echo "$F:$DS: no extern \"C\" around the declarations"
}

check_rooms() {
    awk -v F="$F" '
    after { if ($0 !~ /^\/\/ /) print F ":" NR ": room @" after " does not say what lives here"; after = "" }
    /^\/\*  ROOMS/ { listing = NR }
    listing && !listed_end {
        for (i = 1; i <= NF; i++) if ($i ~ /^@[a-z0-9_]+$/) {
            t = substr($i, 2)
            if (t in place) print F ":" NR ": room @" t " is listed twice"
            place[t] = ++count
            name[count] = t
        }
        if (index($0, "*/")) listed_end = NR
        next
    }
    /^\/\/ ---- @/ {
        t = $3
        sub(/^@/, "", t)
        after = t
        if (NF != 4 || $4 !~ /^----*$/) print F ":" NR ": banner of @" t " is not `// ---- @" t " ----`"
        if (t in seen) print F ":" NR ": room @" t " appears twice"
        seen[t] = NR
        if (!(t in place)) { print F ":" NR ": room @" t " is not in ROOMS"; next }
        if (place[t] < last) print F ":" NR ": room @" t " is not in the listed order"
        last = place[t]
    }
    END {
        if (!listing) print F ": no ROOMS list"
        for (i = 1; i <= count; i++) if (!(name[i] in seen)) print F ":" listing ": room @" name[i] " is listed but has no banner"
    }' "$H"
}

# Warnings only: a long room or function is a question, not a mistake.
check_sizes() {
    awk -v F="$F" -v most="$room_most" '
    function close_room() { if (room && NR - from > most) print "warning: " F ":" from ": room @" room " has " (NR - from) " lines" }
    /^\/\/ ---- @/ { close_room(); room = substr($3, 2); from = NR }
    END { close_room() }' "$H"
    awk -v F="$F" -v most="$function_most" '
    /^[A-Za-z_].*[)][ \t]*[{][ \t]*$/ { from = NR; name = $0; sub(/[ \t]*[(].*/, "", name); sub(/.*[ *]/, "", name) }
    /^}/ {
        if (from && NR - from > most) print "warning: " F ":" from ": " name " has " (NR - from + 1) " lines"
        from = 0
    }' "$CODE"
}

# The rooms that may ask which platform this is: @config, @os and the backends.
check_platform() {
    awk -v F="$F" '
    FNR == NR { if ($0 ~ /^\/\/ ---- @/) { split($0, a, " "); room_at[FNR] = a[3] }; next }
    FNR in room_at { room = room_at[FNR] }
    /(^|[^A-Za-z0-9_])(_WIN32|_WIN64|__linux__|__linux|__APPLE__|__FreeBSD__|__OpenBSD__|__NetBSD__|__DragonFly__|__ANDROID__|__sun|__CYGWIN__|__unix__|__EMSCRIPTEN__)([^A-Za-z0-9_]|$)/ {
        if (room ~ /^@(config|os|epoll|kqueue|poll|wsapoll)$/) next
        print F ":" FNR ": platform macro " (room ? "in room " room : "outside the rooms")
    }' "$H" "$CODE"
}

check_comments() {
    awk -v F="$F" -v from="$DS" -v to="$DE" -v api="NETKIT_${U}_API" '
    FNR == NR { code[FNR] = $0; next }
    FNR < from || FNR > to { before = $0; next }
    open { if (index($0, "//")) said = 1 }
    !open && code[FNR] ~ ("^[ \t]*" api "[ \t]") {
        open = FNR
        said = index($0, "//") || before ~ /^[ \t]*\/\// || before ~ /\*\/[ \t]*$/
    }
    open && index(code[FNR], ";") {
        if (!said) print F ":" open ": public function without a comment on its line or above"
        open = 0
    }
    { before = $0 }' "$CODE" "$H"
}

check_public_types() {
    code_part "$DS" "$DE" | awk -v F="$F" '
    /(^|[^A-Za-z0-9_])(ssize_t|off_t|bool|_Bool|long|wchar_t|time_t|socklen_t|SOCKET)([^A-Za-z0-9_]|$)/ {
        split($0, a, ":")
        print F ":" a[1] ": type that differs between platforms in a public declaration"
    }'
    awk -v F="$F" -v P="$P" '
    /^[ \t]*#/ { next }
    $0 ~ ("(^|[^A-Za-z0-9_])" P "[a-z0-9_]*_t([^A-Za-z0-9_]|$)") { print F ":" NR ": _t belongs to POSIX" }' "$CODE"
}

# Macros of the user or of the system that a header must neither read nor set.
check_foreign_macros() {
    awk -v F="$F" '
    /^[ \t]*#[ \t]*(if|ifdef|ifndef|elif)/ {
        t = $0
        gsub(/[^A-Za-z0-9_]/, " ", t)
        n = split(t, w, " ")
        for (i = 1; i <= n; i++) if (w[i] ~ /^(DEBUG|_DEBUG|RELEASE|VERBOSE|TESTING|TEST|WIN32|linux|unix|LOG|USE_[A-Z_]*|HAVE_[A-Z_]*)$/)
            print F ":" NR ": reads " w[i] ", which is not ours"
    }
    /^[ \t]*#[ \t]*define[ \t]+(_CRT_|_WIN32_WINNT|_WINSOCK_DEPRECATED|_POSIX_C_SOURCE|_XOPEN_SOURCE|_DEFAULT_SOURCE)/ {
        print F ":" NR ": sets a macro for the whole file it is included in"
    }' "$CODE"
}

# Calls that do not belong into a library, or only into one place of it.
check_banned_calls() {
    awk -v F="$F" -v A="NETKIT_${U}_ASSERT" '
    function has(word) { return $0 ~ ("(^|[^A-Za-z0-9_.>])(" word ")[ \t]*[(]") }
    function bad(why) { print F ":" NR ": " why }
    /^[A-Za-z_].*[)][ \t]*[{]/ { fn = $0; sub(/[ \t]*[(].*/, "", fn); sub(/.*[ *]/, "", fn) }
    /^}/ { fn = "" }
    has("assert") && index($0, A) == 0 { bad("assert: use " A) }
    has("malloc|calloc|realloc|free|strdup|aligned_alloc|posix_memalign") && fn !~ /alloc/ { bad("memory that does not pass the allocator hook") }
    has("printf|fprintf|vfprintf|puts|fputs|putchar|perror") && fn !~ /log_stderr/ { bad("prints") }
    has("exit|_exit|abort|quick_exit|atexit|system|popen") { bad("takes the process away from its owner") }
    has("signal|sigaction|sigprocmask|raise|kill") { bad("signals belong to the program") }
    has("strcpy|strcat|sprintf|vsprintf|gets|strtok|alloca") { bad("no bounds") }
    has("isalpha|isdigit|isalnum|isxdigit|isspace|isupper|islower|isprint|ispunct|tolower|toupper|strcasecmp|strncasecmp|atoi|atol|atof|strtod") {
        bad("locale or overflow decides the result")
    }
    has("localtime|gmtime|ctime|asctime|inet_ntoa|inet_addr|gethostbyname|strerror_r|rand|srand|setlocale|strerror") { bad("shared state, or two signatures") }
    has("select|gettimeofday|usleep") { bad("select and wall clocks are not for servers") }' "$CODE"
}

# File-scope names of the implementation: types and macros (functions are seen by `symbols`).
check_privates() {
    awk -v F="$F" -v from="$IS" -v to="$IE" -v P="$P" -v PU="$PU" -v U="$U" '
    function report(what, name) { print F ":" NR ": " what " " name " has no prefix of this header" }
    NR < from || NR > to { next }
    /^[ \t]*#[ \t]*define[ \t]/ {
        t = $0
        sub(/^[ \t]*#[ \t]*define[ \t]+/, "", t)
        sub(/[^A-Za-z0-9_].*/, "", t)
        if (index(t, PU) == 1 || index(t, "NETKIT_" U "_") == 1) next
        if (t ~ /^(_GNU_SOURCE|WIN32_LEAN_AND_MEAN|NOMINMAX|_FILE_OFFSET_BITS|_DARWIN_C_SOURCE|__BSD_VISIBLE)$/) next
        report("macro", t)
    }
    /^(typedef[ \t]+)?(struct|union|enum)[ \t]+[A-Za-z_]/ {
        t = $0
        sub(/^(typedef[ \t]+)?(struct|union|enum)[ \t]+/, "", t)
        rest = t
        if (/^typedef/ && t !~ /[{]/) sub(/^[A-Za-z0-9_]+[ \t*]+/, "", t) # typedef struct iovec OURS; names only the second
        sub(/[^A-Za-z0-9_].*/, "", t)
        if (index(t, P) != 1 && t "_" != P && rest !~ /[(=]/) report("type", t)
    }
    /^}[ \t]*[A-Za-z_][A-Za-z0-9_]*;/ {
        t = $0
        gsub(/[^A-Za-z0-9_]/, "", t)
        if (index(t, P) != 1) report("type", t)
    }' "$CODE"
}

# ==== checks: compiled, cc only =================================================================

impl_source() { source_file own.c "#define NETKIT_${U}_IMPLEMENTATION" "#include \"$F\""; }
all_source() { source_file all.c "#define NETKIT_IMPLEMENTATION" "#include \"$F\""; }

check_c99() { impl_source; try "implementation, c99" $CC -std=c99 $warn -O1 -I "$HD" -c "$T/own.c" -o "$T/own.o"; }

check_c11() {
    impl_source
    source_file decl.c "#include \"$F\"" "typedef int not_empty;"
    try "declarations, c11" $CC -std=c11 $warn -I "$HD" -fsyntax-only "$T/decl.c"
    try "implementation, c11" $CC -std=c11 $warn -I "$HD" -c "$T/own.c" -o "$T/own.o"
}

check_decl_then_impl() {
    user_file user.c main
    {
        echo "#include \"$F\""
        echo "#define NETKIT_IMPLEMENTATION"
        siblings # a second include of the header does not reach its own includes
        cat "$T/user.c"
    } >"$T/both.c"
    # The first <stdint.h> settles the feature macros, so this order needs them from outside: as gnu99 or by -D.
    try "declarations, then implementation" $CC -std=c99 -D_GNU_SOURCE -I "$HD" "$T/both.c" -o "$T/both" -lpthread &&
        try "declarations, then implementation: run" "$T/both"
}

check_impl_twice() {
    source_file twice.c "#define NETKIT_IMPLEMENTATION" "#include \"$F\"" "#include \"$F\"" \
        "#undef NETKIT_${U}_IMPLEMENTATION" "#define NETKIT_${U}_IMPLEMENTATION" "#include \"$F\""
    try "implementation included twice" $CC -std=c99 -I "$HD" -fsyntax-only "$T/twice.c"
}

link_two() { # OPTIONS...
    all_source
    user_file user.c main
    grep -q "(any_function)$P" "$T/user.c" || { echo "$F: no public function found"; return 1; }
    try "unit with the implementation" $CC "$@" -std=c99 -I "$HD" -c "$T/all.c" -o "$T/all.o" &&
        try "unit without it" $CC "$@" -std=c99 $warn -I "$HD" -c "$T/user.c" -o "$T/user.o" &&
        try "both linked" $CC "$@" "$T/all.o" "$T/user.o" -o "$T/two" -lpthread &&
        try "both linked: run" "$T/two"
}
check_two_units() { link_two; }

check_two_static() {
    user_file user.c main
    user_file other.c other_user
    for f in user other; do
        {
            for h in "$HD"/netkit_*.h; do
                s=${h##*/netkit_}
                echo "#define NETKIT_$(echo "${s%.h}" | tr '[:lower:]' '[:upper:]')_STATIC"
            done
            echo "#define NETKIT_IMPLEMENTATION"
            cat "$T/$f.c"
        } >"$T/$f.static.c"
        try "NETKIT_${U}_STATIC" $CC -std=c99 $warn -I "$HD" -c "$T/$f.static.c" -o "$T/$f.o" || return
    done
    try "two static copies linked" $CC "$T/user.o" "$T/other.o" -o "$T/two" -lpthread
    nm -g -P "$T/user.o" | awk -v F="$F" '$2 != "U" && $1 ~ /^_?nk/ { print F ": NETKIT_..._STATIC still exports " $1 }'
}

check_no_loop() {
    grep -q "NETKIT_${U}_NO_LOOP" "$CODE" || return 0
    source_file core.c "#define NETKIT_${U}_NO_LOOP" "#define NETKIT_${U}_IMPLEMENTATION" "#include \"$F\""
    try "NETKIT_${U}_NO_LOOP" $CC -std=c99 $warn -I "$HD" -c "$T/core.c" -o "$T/core.o" || return
    nm -P "$T/core.o" | awk -v F="$F" '$1 ~ /^_?nkloop_/ { print F ": without the loop it still needs " $1 }'
    mkdir "$T/alone"
    cp "$H" "$T/alone/"
    try "NETKIT_${U}_NO_LOOP in a directory of its own" $CC -std=c99 -I "$T/alone" -fsyntax-only "$T/core.c"
}

# Every NETKIT_X_NO_... switch alone, then all of them together.
check_slices() {
    names=$(grep -o "NETKIT_${U}_NO_[A-Z0-9_]*" "$CODE" | sort -u | grep -v "_NO_LOOP$")
    impl_source
    all=
    for s in $names; do
        all="$all -D$s"
        try "-D$s" $CC -std=c99 $warn "-D$s" -I "$HD" -c "$T/own.c" -o "$T/own.o"
    done
    [ -z "$all" ] || try "$all" $CC -std=c99 $warn $all -I "$HD" -c "$T/own.c" -o "$T/own.o"
}

check_ndebug() {
    impl_source
    try "-DNDEBUG" $CC -std=c99 $warn -DNDEBUG -I "$HD" -c "$T/own.c" -o "$T/own.o"
}

check_hooks() {
    source_file hook.c "void hook_assert(const char* text);" \
        "#define NETKIT_${U}_ASSERT(c) ((c) ? (void)0 : hook_assert(#c))" \
        "#define NETKIT_${U}_IMPLEMENTATION" "#include \"$F\""
    try "NETKIT_${U}_ASSERT overridden" $CC -std=c99 $warn -I "$HD" -c "$T/hook.c" -o "$T/hook.o" || return
    if [ "$(grep -c "NETKIT_${U}_ASSERT(" "$CODE")" -gt 1 ]; then
        nm -P "$T/hook.o" | grep -q hook_assert || echo "$F: NETKIT_${U}_ASSERT is not used although it was set"
        nm -P "$T/hook.o" | grep -q __assert_fail && echo "$F: assert is called although NETKIT_${U}_ASSERT was set"
    fi
    program=$HD/tests/hygiene/${N}_hooks.c
    [ -f "$program" ] || return 0
    try "${N}_hooks.c" $CC -std=c99 -I "$HD" -I "$top/tests" "$program" -o "$T/hooks" -lpthread || return
    try "${N}_hooks.c: run" "$T/hooks" || return
    grep -q '^balanced' "$T/log" || echo "$F: ${N}_hooks.c did not print \`balanced\`: $(sed 1q "$T/log")"
}

check_hostile_decl() {
    source_file hostile.c '#include "hostile.h"' "#include \"$F\"" "typedef int not_empty;"
    try "declarations after hostile.h" $CC -std=c99 -D_GNU_SOURCE $warn -I "$HD" -I "$top/tests" -fsyntax-only "$T/hostile.c"
}

check_hostile_impl() {
    source_file hostile.c '#include "hostile.h"' "#define NETKIT_${U}_IMPLEMENTATION" "#include \"$F\""
    try "implementation after hostile.h" $CC -std=c99 -D_GNU_SOURCE $warn -I "$HD" -I "$top/tests" -fsyntax-only "$T/hostile.c"
}

macro_names() { $CC -std=c99 -I "$HD" -dM -E "$1" | awk '{ sub(/[(].*/, "", $2); print $2 }' | sort -u; }

check_macros_decl() {
    {
        printf '#include <%s>\n' stddef.h stdint.h stdarg.h
        siblings
    } >"$T/before.c"
    { cat "$T/before.c"; echo "#include \"$F\""; } >"$T/after.c"
    macro_names "$T/before.c" >"$T/before"
    macro_names "$T/after.c" >"$T/after"
    comm -13 "$T/before" "$T/after" >"$T/new"
    [ -s "$T/new" ] || echo "$F: defines no macro at all?"
    grep -v -e "^NETKIT_${U}_" -e "^${PU}" "$T/new" | sed "s/^/$F: the declarations define /"
    grep -e "^${PU}P_" "$T/new" | sed "s/^/$F: the declarations leave a private macro: /"
}

# What the header's own lines have defined and not undefined again by the end of the implementation.
check_macros_impl() {
    impl_source
    try "-dD -E" $CC -std=c99 -I "$HD" -dD -E "$T/own.c" || return
    awk -v F="$F" '
    /^# [0-9]+ "/ { split($0, a, "\""); n = split(a[2], b, "/"); ours = (b[n] == F) }
    /^#define / { t = $2; sub(/[(].*/, "", t); if (ours) live[t] = 1 }
    /^#undef / { delete live[$2] }
    END { for (t in live) print t }' "$T/log" | sort >"$T/live"
    grep -q "^NETKIT_${U}_IMPLEMENTED$" "$T/live" || echo "$F: NETKIT_${U}_IMPLEMENTED is not defined"
    grep -v -e "^NETKIT_${U}_" -e "^${PU}" -e '^_GNU_SOURCE$' -e '^_FILE_OFFSET_BITS$' "$T/live" | sed "s/^/$F: the implementation leaves behind /"
    grep -e "^${PU}P_" "$T/live" | sed "s/^/$F: private macro without #undef at the end: /"
}

check_symbols() {
    if ! have nm; then skip "symbols: no nm"; return; fi
    impl_source
    try "implementation" $CC -std=c99 -O0 -I "$HD" -c "$T/own.c" -o "$T/own.o" || return
    nm -P "$T/own.o" | awk '{ sub(/^_nk/, "nk", $1); print $1, $2 }' >"$T/nm"
    api_names >"$T/api"
    [ -s "$T/api" ] || echo "$F: no public function found"
    awk '$2 ~ /^[TDBRCVW]$/ { print $1 }' "$T/nm" | sort -u >"$T/global"
    comm -23 "$T/api" "$T/global" | sed "s/^/$F: declared but not defined: /"
    grep -v "^$P" "$T/global" | sed "s/^/$F: exported without the prefix: /"
    grep "^${P}p_" "$T/global" | sed "s/^/$F: private but exported: /"
    comm -13 "$T/api" "$T/global" | grep "^$P" | grep -v "^${P}p_" | sed "s/^/$F: exported but not declared: /"
    awk -v F="$F" -v P="${P}p_" '
    $2 ~ /^[tdbr]$/ && $1 !~ /^[.$]/ && $1 !~ /[.]/ && $1 !~ /^__/ && index($1, P) != 1 { print F ": static name without the prefix " P ": " $1 }' "$T/nm"
}

# Included after a system header it must work, or say what to do.
check_late_include() {
    source_file late.c "#include <stdio.h>" "#define NETKIT_${U}_IMPLEMENTATION" "#include \"$F\""
    $CC -std=c99 -I "$HD" -fsyntax-only "$T/late.c" >"$T/log" 2>&1 && return
    grep -q 'first line' "$T/log" || echo "$F: after <stdio.h> at c99 it fails without #error saying that it must come first"
}

# ==== checks: more tools ========================================================================

check_std() { # COMPILER STANDARD
    have "$1" || { skip "$2 with $1: not installed"; return; }
    case $1 in
        *++) lang=c++ ;;
        *)   lang=c ;;
    esac
    impl_source
    source_file decl.c "#include \"$F\"" "typedef int not_empty;"
    try "declarations, $1 $2" "$1" -x $lang "-std=$2" $warn -I "$HD" -fsyntax-only "$T/decl.c"
    case $2 in
        c99 | c++11) try "implementation, $1 $2 -O2" "$1" -x $lang "-std=$2" $warn -O2 -I "$HD" -c "$T/own.c" -o "$T/own.o" ;;
        *)           try "implementation, $1 $2" "$1" -x $lang "-std=$2" $warn -I "$HD" -c "$T/own.c" -o "$T/own.o" ;;
    esac
}

check_cxx_caller() {
    have "$CXX" || { skip "C++ caller: no $CXX"; return; }
    all_source
    user_file user.cc main
    try "C unit with the implementation" $CC -std=c99 -I "$HD" -c "$T/all.c" -o "$T/all.o" &&
        try "C++ unit without it" "$CXX" -std=c++11 -I "$HD" -c "$T/user.cc" -o "$T/user.o" &&
        try "both linked" "$CXX" "$T/all.o" "$T/user.o" -o "$T/two" -lpthread
}

# Debian's 32-bit compiler without gcc-multilib (which excludes cross compilers) looks for asm/ in the wrong place.
check_m32() {
    echo "#include <errno.h>" >"$T/probe.c"
    echo "int main(void) { return 0; }" >>"$T/probe.c"
    m32=-m32
    if ! $CC $m32 "$T/probe.c" -o "$T/probe" >/dev/null 2>&1; then
        m32="-m32 -idirafter /usr/include/$($CC -print-multiarch 2>/dev/null)"
        $CC $m32 "$T/probe.c" -o "$T/probe" >/dev/null 2>&1 || { skip "32 bit: $CC -m32 does not link"; return; }
    fi
    impl_source
    try "implementation, -m32" $CC $m32 -std=c99 $warn -O1 -I "$HD" -c "$T/own.c" -o "$T/own.o" && link_two $m32
}

check_mingw() { # MACHINE
    have "$1-w64-mingw32-gcc" || { skip "$1-w64-mingw32-gcc: not installed"; return; }
    impl_source
    source_file decl.c "#include <windows.h>" "#include \"$F\"" "typedef int not_empty;"
    source_file late.c "#include <windows.h>" "#define NETKIT_${U}_IMPLEMENTATION" "#include \"$F\""
    try "implementation, mingw" "$1-w64-mingw32-gcc" -std=c99 $warn -O1 -I "$HD" -c "$T/own.c" -o "$T/own.o"
    try "declarations after windows.h" "$1-w64-mingw32-gcc" -std=c99 -I "$HD" -fsyntax-only "$T/decl.c"
    if ! "$1-w64-mingw32-gcc" -std=c99 -I "$HD" -fsyntax-only "$T/late.c" >"$T/log" 2>&1; then
        grep -q '#error' "$T/log" || echo "$F: after windows.h the implementation fails without #error saying why"
    fi
    have "$1-w64-mingw32-g++" || { skip "$1-w64-mingw32-g++: not installed"; return; }
    try "implementation, mingw C++" "$1-w64-mingw32-g++" -x c++ -std=c++11 $warn -I "$HD" -c "$T/own.c" -o "$T/own.o"
}

# ==== checks over all headers ===================================================================

# Blocks between `// [shared name]` and `// [/shared]` are the same in every header, prefixes aside.
check_shared() {
    for h in $headers; do
        load "$h"
        awk -v F="$F" -v P="$P" -v PU="$PU" -v U="NETKIT_${U}_" '
        /^[ \t]*\/\/ \[shared [a-z0-9_]+\]/ {
            if (name) print F ":" NR ": [shared] inside [shared " name "]" >"/dev/stderr"
            name = $3
            sub(/\].*/, "", name)
            from = NR
            next
        }
        /^[ \t]*\/\/ \[\/shared\]/ { if (!name) print F ":" NR ": [/shared] without a beginning" >"/dev/stderr"; name = ""; next }
        name {
            t = $0
            gsub(P, "PREFIX_", t)
            gsub(PU, "PREFIX_CAPITALS_", t)
            gsub(U, "NETKIT_X_", t)
            print name "\t" F ":" NR "\t" (NR - from) "\t" t
        }
        END { if (name) print F ":" from ": [shared " name "] does not end" >"/dev/stderr" }' "$H"
    done >"$T/blocks"
    awk -F '\t' '
    { split($2, a, ":"); file = a[1]; line = $4; for (i = 5; i <= NF; i++) line = line "\t" $i }
    !($1 in first) { first[$1] = file }
    { text[$1, file, $3] = line; where[$1, file, $3] = $2; if ($3 > size[$1, file]) size[$1, file] = $3; pair[$1 "\t" file] = 1 }
    END {
        for (p in pair) {
            split(p, a, "\t")
            f = first[a[1]]
            if (a[2] == f) continue
            if (size[a[1], a[2]] + 0 != size[a[1], f] + 0) { print a[2] ": [shared " a[1] "] has not the same length as in " f; continue }
            for (i = 1; i <= size[a[1], f] + 0; i++) if (text[a[1], f, i] != text[a[1], a[2], i]) {
                print where[a[1], a[2], i] ": [shared " a[1] "] differs from " where[a[1], f, i]
                break
            }
        }
    }' "$T/blocks"
}

# All implementations in one unit, in both orders: unity builds put our file scope in theirs.
check_unity() {
    F=unity HD=$(cd "$(dirname "${headers%% *}")" && pwd)
    forward= backward=
    for h in $headers; do
        forward="$forward ${h##*/}"
        backward="${h##*/} $backward"
    done
    for order in "$forward" "$backward"; do
        { echo "#define NETKIT_IMPLEMENTATION"; printf '#include "%s"\n' $order; } >"$T/unity.c"
        try "all in one unit:$order" $CC -std=c99 $warn -I "$HD" -c "$T/unity.c" -o "$T/unity.o"
    done
}

# No file of the repository names a directory of the machine it was written on.
check_home_paths() {
    dir=$(cd "$(dirname "${headers%% *}")" && pwd)
    homes='(^|[^A-Za-z0-9_.$}{/-])/((home|Users)/[a-z]|roo[t]/([.]|[A-Za-z0-9_-]+/))|[A-Z]:\\Users\\'
    mine=$(printf '%s\n' "$dir" "${HOME:-}" | awk 'length($0) > 6 && split($0, a, "/") > 2')
    (
        cd "$dir" || exit
        if have git && [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$dir" ]; then
            git ls-files
        else
            find . -name build -prune -o -name .git -prune -o -type f -print
        fi >"$T/files"
        while read -r f; do
            [ -f "$f" ] || continue
            grep -nIE "$homes" "$f" /dev/null
            [ -z "$mine" ] || grep -nIF "$mine" "$f" /dev/null
        done <"$T/files"
    ) | awk -F : '!seen[$1 ":" $2]++ { print $1 ":" $2 ": absolute path of a home or of this checkout" }'
}

# ==== running them ==============================================================================

# Every worker walks the whole list and takes what nobody has claimed: mkdir is atomic everywhere.
worker() {
    i=0
    while read -r check header; do
        i=$((i + 1))
        mkdir "$tmp/job.$i" 2>/dev/null || continue
        (
            T=$tmp/job.$i
            [ "$header" = "(all)" ] || load "$header"
            IFS=:
            set -- $check
            unset IFS
            name=$1
            shift
            "check_$name" "$@"
        ) >"$tmp/job.$i.out" 2>&1
        : >"$tmp/job.$i.done"
    done <"$tmp/jobs"
}

run_checks() {
    for h in $headers; do load "$h"; done # so that CODE exists before the workers look for it
    for h in $headers; do
        for c in $text_checks $cc_checks; do echo "$c $h"; done
        [ "$quick" -eq 1 ] || for c in $full_checks; do echo "$c $h"; done
    done >"$tmp/jobs"
    for c in $suite_checks; do echo "$c (all)"; done >>"$tmp/jobs"
    if [ -n "$only" ]; then
        grep -e "^$only[ :]" "$tmp/jobs" >"$tmp/some"
        mv "$tmp/some" "$tmp/jobs"
    fi
    w=0 pids=
    while [ "$w" -lt "$cpus" ]; do
        w=$((w + 1))
        worker &
        pids="$pids $!"
    done
    wait $pids
}

report() {
    i=0
    while read -r check header; do
        i=$((i + 1))
        out=$tmp/job.$i.out
        [ -f "$tmp/job.$i.done" ] || echo "did not finish" >>"$out"
        grep -E '^(SKIPPED|warning): ' "$out"
        grep -vE '^(SKIPPED|warning): ' "$out" >"$tmp/problems"
        if [ -s "$tmp/problems" ]; then
            failed=$((failed + 1))
            printf 'FAIL  %-22s %s\n' "$check" "${header##*/}"
            awk 'NR <= 30 { print "      " $0 } END { if (NR > 30) print "      and " (NR - 30) " more lines" }' "$tmp/problems"
        elif ! grep -q '^SKIPPED: ' "$out"; then
            passed=$((passed + 1))
            printf 'ok    %-22s %s\n' "$check" "${header##*/}"
        fi
    done <"$tmp/jobs"
}

# ==== self-test =================================================================================

# Lays out a sample header, its sibling and its hook program in $1, with one thing broken by the sed script $2.
lay_out() {
    mkdir -p "$1/tests/hygiene"
    sed 's/sample/other/g; s/SAMPLE/OTHER/g' "$here/broken/netkit_sample.h" >"$1/netkit_other.h"
    cp "$here/broken/sample_hooks.c" "$1/tests/hygiene/sample_hooks.c"
    sed -f "$2" "$here/broken/netkit_sample.h" >"$1/netkit_sample.h"
}

# Checks that refused the header in $1. Further arguments: options
refused_by() {
    dir=$1
    shift
    sh "$here/hygiene.sh" "$@" "$dir/netkit_sample.h" "$dir/netkit_other.h" >"$dir/out" 2>&1
    awk '$1 == "FAIL" { sub(/:.*/, "", $2); print $2 }' "$dir/out" | sort -u | tr '\n' ' '
}

# A sample is tests/broken/CHECK.sed or CHECK-what.sed. Its comment lines may say `# also: CHECK...` when another check must notice
# as well, `# full` when the check needs more than cc, and `# warning` when it must warn but not refuse.
self_test_one() {
    base=${1##*/} base=${base%.sed}
    check=${base%%-*} dir=$tmp/self.$base
    lay_out "$dir" "$1"
    cmp -s "$dir/netkit_sample.h" "$here/broken/netkit_sample.h" && echo "$base: the script changes nothing"
    option=--quick
    ! grep -q '^# full' "$1" || option=
    want=$({ echo "$check"; sed -n 's/^# also: //p' "$1" | tr ' ' '\n'; } | sort -u | tr '\n' ' ')
    ! grep -q '^# warning' "$1" || want=
    got=$(refused_by "$dir" $option)
    if [ -n "$option" ] || ! grep -q '^SKIPPED: ' "$dir/out"; then
        [ "$got" = "$want" ] || { echo "$base: refused by ( $got), should be ( $want)"; grep -A 3 '^FAIL' "$dir/out"; }
    else # without some tool at least the named check must speak
        case " $got" in
            *" $check "*) ;;
            *) grep -q "^ok *$check" "$dir/out" && echo "$base: accepted" ;;
        esac
    fi
    ! grep -q '^# warning' "$1" || grep -q '^warning: ' "$dir/out" || echo "$base: no warning"
}

self_worker() {
    for script in "$here"/broken/*.sed; do
        mkdir "$tmp/claim.${script##*/}" 2>/dev/null || continue
        self_test_one "$script" >"$tmp/${script##*/}.out" 2>&1
    done
}

self_test() {
    echo >"$tmp/nothing.sed"
    lay_out "$tmp/good" "$tmp/nothing.sed"
    got=$(refused_by "$tmp/good")
    if [ -z "$got" ]; then
        passed=$((passed + 1))
        echo "ok    the whole sample is accepted"
    else
        failed=$((failed + 1))
        echo "FAIL  the whole sample is refused by: $got"
        cat "$tmp/good/out"
    fi
    w=0 pids=
    while [ "$w" -lt "$cpus" ]; do
        w=$((w + 1))
        self_worker &
        pids="$pids $!"
    done
    wait $pids
    count=0
    for script in "$here"/broken/*.sed; do
        out=$tmp/${script##*/}.out
        if [ -f "$out" ] && [ ! -s "$out" ]; then
            passed=$((passed + 1)) count=$((count + 1))
        else
            failed=$((failed + 1))
            echo "FAIL  ${script##*/}"
            sed 's/^/      /' "$out"
        fi
    done
    for c in $(printf '%s\n' $text_checks $cc_checks $full_checks $suite_checks | sed 's/:.*//' | sort -u); do
        ls "$here/broken/$c.sed" "$here/broken/$c"-*.sed >"$tmp/samples" 2>/dev/null
        [ -s "$tmp/samples" ] || { failed=$((failed + 1)); echo "FAIL  check $c has no broken sample"; }
    done
    echo "self-test: $count checks rejected their sample"
}

# ==== here it begins ============================================================================

passed=0 failed=0
if [ "$self" -ne 1 ]; then
    headers=$*
    if [ -z "$headers" ]; then
        cd "$top" || exit 1
        for h in netkit_*.h; do [ -f "$h" ] && headers="$headers $h"; done
        headers=${headers# }
    fi
    if [ -n "$headers" ]; then
        run_checks
        report
    else
        echo "hygiene.sh: no header"
        failed=1
    fi
fi
[ "$self" -eq 0 ] || self_test
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
