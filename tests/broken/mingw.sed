# full
s/^#if defined(_WIN32)/#if 0/
