/*  test_http_parse_words.c -- all of test_http_parse.c once more without vector instructions. POSIX only.  */
#define NETKIT_HTTP_NO_SIMD
#include "test_http_parse.c"
