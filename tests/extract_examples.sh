#!/bin/sh
# extract_examples.sh -- prints the example program that stands in a header's preface.
#
#   tests/extract_examples.sh netkit_http.h >build/preface/http.c
#
# The program begins at the line `// example.c` inside the chapter EXAMPLE of the preface and goes on to the heading of the next
# chapter, IDEAS. Its indentation is that of its first line. It stands in a comment, so its own comments are // ones.
set -u
awk '
FNR == 1 { in_example = started = 0 }
/^ ? ? ? ?EXAMPLE([^A-Za-z_]|$)/ && !done { in_example = 1; next }
in_example && /^ ? ? ? ?IDEAS([^A-Za-z_]|$)/ { in_example = 0; done = 1 }
in_example && /^[ ]*\/\/ example\.c/ {
    started = 1
    indent = index($0, "/") - 1
    print "#line " FNR " \"" FILENAME "\""
}
in_example && started {
    line = $0
    if (line ~ /[^ ]/ && substr(line, 1, indent) ~ /[^ ]/) { print FILENAME ":" FNR ": indented less than its first line" >"/dev/stderr"; failed = 1 }
    print substr(line, indent + 1)
}
END {
    if (!done) { print FILENAME ": no program found between `// example.c` in chapter EXAMPLE and chapter IDEAS" >"/dev/stderr"; failed = 1 }
    exit failed
}' "${1:?header}"
