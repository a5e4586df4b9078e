#!/bin/sh
# docs.sh -- every test that docs/tested.md names as `file: name` exists: a TEST in a .c file, a case of http_cases.h by its
# number, or a word of a script.
set -u
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0
while IFS= read -r pair; do
    file=tests/${pair%%: *} name=${pair#*: }
    case $file in
        *.c) found=$(grep -c "^TEST($name)" "$file" 2>/dev/null) ;;
        *.h) found=$(grep -c "^    { \"$name\"," "$file" 2>/dev/null) ;;
        *)   found=$(grep -c -F -e "$name" "$file" 2>/dev/null) ;;
    esac
    if [ "${found:-0}" -gt 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "docs/tested.md: no \`$pair'"; fi
done <<END
$(grep -o '`[A-Za-z0-9_/]*\.[a-z]*: [^`]*`' docs/tested.md | tr -d '`' | sort -u)
END
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
