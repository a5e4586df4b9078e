/*  nktest.h -- the whole test framework.

    TEST(name) { ... }          registers itself; tests run in the order they are written
    CHECK(c)                    c must be true
    CHECK_INT(a, b)             two integers must be equal; prints both
    CHECK_STR(p, n, "text")     n bytes at p must equal the text; prints both
    CHECK_MEM(p, q, n)          n bytes must be equal; prints the first difference

    A failing check prints `file:line:` and both values, is counted, and the test goes on. The program ends with one line
    `N passed, N failed` (checks, not tests) and status 1 if any failed, or if it ran no check at all.
    First argument: run only tests whose name contains it. NKTEST_VERBOSE=1 names each test as it starts.
*/
#ifndef NKTEST_INCLUDED
#define NKTEST_INCLUDED 1
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct nktest_case { const char* name; void (*fn)(void); struct nktest_case* next; } nktest_case;
static nktest_case* nktest_first;
static nktest_case** nktest_link = &nktest_first;
static long nktest_passed, nktest_failed;

static void nktest_add(nktest_case* c) { *nktest_link = c; nktest_link = &c->next; }

#define TEST(name) \
    static void nktest_fn_##name(void); \
    static nktest_case nktest_case_##name = { #name, nktest_fn_##name, NULL }; \
    __attribute__((constructor)) static void nktest_reg_##name(void) { nktest_add(&nktest_case_##name); } \
    static void nktest_fn_##name(void)

static int nktest_bool(const char* file, int line, const char* text, int ok) {
    if (ok) { nktest_passed++; return 1; }
    nktest_failed++;
    printf("%s:%d: false: %s\n", file, line, text);
    return 0;
}
static int nktest_int(const char* file, int line, const char* text, long long a, long long b) {
    if (a == b) { nktest_passed++; return 1; }
    nktest_failed++;
    printf("%s:%d: %s: got %lld, want %lld\n", file, line, text, a, b);
    return 0;
}
static void nktest_show(const char* label, const unsigned char* p, size_t n) {
    size_t i;
    printf("    %s (%lu bytes) \"", label, (unsigned long)n);
    for (i = 0; i < n && i < 300; i++) {
        if (p[i] >= 32 && p[i] < 127 && p[i] != '"' && p[i] != '\\') putchar(p[i]);
        else printf("\\x%02x", p[i]);
    }
    printf(i < n ? "\"...\n" : "\"\n");
}
static int nktest_mem(const char* file, int line, const char* text, const void* a, size_t an, const void* b, size_t bn) {
    if (an == bn && (an == 0 || memcmp(a, b, an) == 0)) { nktest_passed++; return 1; }
    nktest_failed++;
    printf("%s:%d: %s differs\n", file, line, text);
    nktest_show("got ", (const unsigned char*)a, an);
    nktest_show("want", (const unsigned char*)b, bn);
    return 0;
}
#define CHECK(c)           nktest_bool(__FILE__, __LINE__, #c, (c) ? 1 : 0)
#define CHECK_INT(a, b)    nktest_int(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))
#define CHECK_STR(p, n, s) nktest_mem(__FILE__, __LINE__, #p, (p), (n), (s), strlen(s))
#define CHECK_MEM(p, q, n) nktest_mem(__FILE__, __LINE__, #p, (p), (n), (q), (n))

int main(int argc, char** argv) {
    nktest_case* c;
    const char* v = getenv("NKTEST_VERBOSE");
    setvbuf(stdout, NULL, _IOLBF, 4096);
    (void)nktest_bool; (void)nktest_int; (void)nktest_mem; // a test file may leave some unused
    for (c = nktest_first; c; c = c->next) {
        if (argc > 1 && !strstr(c->name, argv[1])) continue;
        if (v && *v == '1') printf("-- %s\n", c->name);
        c->fn();
    }
    printf("%ld passed, %ld failed\n", nktest_passed, nktest_failed);
    return nktest_failed != 0 || nktest_passed == 0;
}
#endif // NKTEST_INCLUDED
