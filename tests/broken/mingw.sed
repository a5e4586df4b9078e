# full
/^#if defined(_WIN32)/{
n
s/0/nowhere/
}
