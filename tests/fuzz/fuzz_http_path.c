/*  fuzz_http_path.c -- any bytes as file paths and as routes: one pattern a line, the last line is the path to look up.
    A clean path cannot leave its root and stays what it is when cleaned again; the router finds what trying every pattern finds.  */
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"

#define MUST(c) do { if (!(c)) __builtin_trap(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

static void clean(const char* p, size_t size, uint32_t flags) {
    char* out = (char*)malloc(size + 1);
    char* again = (char*)malloc(size * 3 + 1);
    size_t i, start = 0, len = 0;
    int n;
    MUST(out && again);
    n = nkhttp_path_clean(out, size + 1, nkhttp_p_str(p, size), flags);
    MUST(n == NKHTTP_ERR_PATH || n == NKHTTP_ERR_ENCODING || (n >= 0 && (size_t)n <= size)); // size + 1 bytes are enough
    if (n > 0) {
        MUST(strlen(out) == (size_t)n && nkhttp_utf8_ok(out, (size_t)n) && out[0] != '/' && out[n - 1] != '/');
        for (i = 0; i <= (size_t)n; i++) {
            MUST(i == (size_t)n || ((unsigned char)out[i] >= ' ' && out[i] != '\\' && out[i] != ':' && out[i] != 0x7f));
            if (i < (size_t)n && out[i] != '/') continue;
            MUST(i > start && out[i - 1] != '.' && out[i - 1] != ' ' && ((flags & 1) || out[start] != '.'));
            MUST(nkhttp_percent_encode(again + len, 3 * (i - start), out + start, i - start, &start) == 0);
            len += start;
            if (i < (size_t)n) again[len++] = '/';
            start = i + 1;
        }
        MUST(nkhttp_path_clean(again, len + 1, nkhttp_p_str(again, len), flags) == n && !memcmp(again, out, (size_t)n + 1));
    }
    MUST(nkhttp_mime(p, size) != NULL);
    free(out);
    free(again);
}

typedef struct pattern { nkhttp_str text; int any; } pattern;

// Next segment of a path or pattern behind its slash. 0 at the end.
static int segment(nkhttp_str* rest, nkhttp_str* s) {
    size_t n = 1;
    if (!rest->len) return 0;
    while (n < rest->len && rest->ptr[n] != '/') n++;
    *s = nkhttp_p_str(rest->ptr + 1, n - 1);
    *rest = nkhttp_p_str(rest->ptr + n, rest->len - n);
    return 1;
}

static int literal_is(nkhttp_str a, nkhttp_str b) {
    char x[512], y[512];
    size_t n = 0, m = 0;
    if (nkhttp_percent_decode(x, sizeof x, a.ptr, a.len, &n) || nkhttp_percent_decode(y, sizeof y, b.ptr, b.len, &m)) return 0;
    return n == m && !memcmp(x, y, n);
}

// Which kinds of segments matched, '0' literal, '1' {x}, '2' {x*}: the smaller text wins. 0: no match.
static int rank(nkhttp_str pat, nkhttp_str path, char kinds[40]) {
    nkhttp_str a, b;
    size_t n = 0;
    while (segment(&pat, &a)) {
        int is_param = a.len && a.ptr[0] == '{';
        if (!segment(&path, &b)) return 0;
        if (is_param && a.ptr[a.len - 2] == '*') {
            kinds[n++] = '2';
            path.len = 0;
            break;
        }
        if (is_param ? !b.len : !literal_is(a, b)) return 0;
        kinds[n++] = is_param ? '1' : '0';
    }
    kinds[n] = 0;
    return path.len == 0;
}

static void routes(const char* p, size_t size) {
    pattern list[64];
    uint32_t n = 0, i, best = UINT32_MAX;
    nkhttp_router r;
    nkhttp_match m;
    char text[512], best_kinds[40] = "", kinds[40];
    nkhttp_str path;
    int rc;
    nkhttp_router_init(&r, NULL, NULL);
    for (;;) {
        const char* lf = size ? (const char*)memchr(p, '\n', size) : NULL;
        size_t len = lf ? (size_t)(lf - p) : 0;
        if (!lf || n == 64 || len >= sizeof text) break;
        memcpy(text, p, len);
        text[len] = 0;
        list[n].text = nkhttp_p_str(p, len);
        list[n].any = len & 1;
        if (strlen(text) == len && nkhttp_router_add(&r, len & 1 ? "" : "GET", text, &list[n]) == 0) n++;
        size -= len + 1;
        p = lf + 1;
    }
    path = nkhttp_p_str(p, size);
    rc = nkhttp_router_match(&r, "GET", 3, p, size, &m);
    MUST(rc == 0 || rc == NKHTTP_ERR_NO_ROUTE || rc == NKHTTP_ERR_ENCODING);
    if (rc != NKHTTP_ERR_ENCODING && size < 500) {
        for (i = 0; i < n && size && p[0] == '/'; i++) {
            int order;
            if (!rank(list[i].text, path, kinds)) continue;
            order = best == UINT32_MAX ? -1 : strcmp(kinds, best_kinds);
            if (order > 0 || (order == 0 && list[i].any)) continue;
            best = i;
            memcpy(best_kinds, kinds, sizeof kinds);
        }
        MUST((rc == 0) == (best != UINT32_MAX));
        if (rc == 0) MUST(m.value == &list[best]);
    }
    if (rc == 0) {
        for (i = 0; i < m.num_params; i++) {
            MUST(m.params[i].value.ptr >= p && m.params[i].value.ptr + m.params[i].value.len <= p + size);
            MUST(nkhttp_p_boundary_ok(m.params[i].name));
        }
    }
    rc = nkhttp_router_match(&r, "POST", 4, p, size, &m);
    if (rc == NKHTTP_ERR_NO_METHOD) {
        MUST(nkhttp_router_allow(&r, m.allowed, text, sizeof text) == 18 && !strcmp(text, "GET, HEAD, OPTIONS"));
    }
    nkhttp_router_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    char* p;
    if (size > 8192) return 0;
    p = (char*)malloc(size ? size : 1);
    MUST(p != NULL);
    if (size) memcpy(p, bytes, size);
    clean(p, size, 0);
    clean(p, size, NKHTTP_PATH_DOTFILES);
    routes(p, size);
    free(p);
    return 0;
}
