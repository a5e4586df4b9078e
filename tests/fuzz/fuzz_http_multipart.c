/*  fuzz_http_multipart.c -- any bytes as a multipart body, after one line with the boundary.
    The same events however the bytes are cut, never more kept than promised, and an error that stays.  */
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"

#define MUST(c) do { if (!(c)) __builtin_trap(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

typedef struct trail { char* text; size_t len, cap; } trail; // what happened, with content joined

static void put(trail* t, const char* p, size_t n) {
    if (t->len + n + 1 > t->cap) {
        t->cap = (t->len + n + 1) * 2;
        t->text = (char*)realloc(t->text, t->cap);
        MUST(t->text != NULL);
    }
    if (n) memcpy(t->text + t->len, p, n);
    t->len += n;
}

static void put_slice(trail* t, char tag, nkhttp_str s, const char* buf, size_t len) {
    char head[9];
    size_t i;
    MUST(s.ptr != NULL);
    MUST(!s.len || (s.ptr >= buf && s.ptr + s.len <= buf + len));
    head[0] = tag;
    for (i = 0; i < 8; i++) head[1 + i] = (char)(s.len >> (8 * i));
    put(t, head, sizeof head);
    put(t, s.ptr, s.len);
}

static void look_at_names(const nkhttp_part_event* ev) {
    char name[64];
    nkhttp_str base;
    int i, n = nkhttp_part_filename(ev, name, sizeof name);
    MUST(n < (int)sizeof name);
    if (n >= 0) {
        MUST(name[n] == 0 && nkhttp_utf8_ok(name, (size_t)n));
        for (i = 0; i < n; i++) MUST(name[i] != '/' && name[i] != '\\' && name[i] != 0 && name[i] != '\r' && name[i] != '\n');
        MUST(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
    }
    n = nkhttp_unquote(ev->name, name, sizeof name);
    MUST(n <= (int)ev->name.len);
    base = nkhttp_basename(ev->filename);
    MUST(base.len <= ev->filename.len);
}

static void event(trail* t, int rc, const nkhttp_part_event* ev, const char* buf, size_t len) {
    char tag = (char)('0' + rc);
    if (rc == NKHTTP_PART_DATA) {
        MUST(ev->data.len > 0 && ev->data.ptr >= buf && ev->data.ptr + ev->data.len <= buf + len);
        put(t, ev->data.ptr, ev->data.len);
        return;
    }
    if (rc == 0) return;
    put(t, &tag, 1);
    if (rc != NKHTTP_PART_BEGIN) return;
    put_slice(t, 'n', ev->name, buf, len);
    put_slice(t, 'f', ev->filename, buf, len);
    put_slice(t, 't', ev->content_type, buf, len);
    put_slice(t, 'd', ev->disposition, buf, len);
    put_slice(t, 'h', ev->headers, buf, len);
    look_at_names(ev);
}

static trail parse(nkhttp_str boundary, const char* body, size_t size, size_t first, size_t piece) {
    nkhttp_multipart m;
    nkhttp_part_event ev;
    trail t = { NULL, 0, 0 };
    size_t at = 0, have = first < size ? first : size, used;
    char end;
    int rc;
    MUST(nkhttp_multipart_init(&m, boundary) == 0);
    m.max_parts = 20;
    for (;;) {
        size_t n = have - at;
        char* copy = (char*)malloc(n ? n : 1); // each call sees memory of its own size
        MUST(copy != NULL);
        if (n) memcpy(copy, body + at, n);
        rc = nkhttp_multipart_next(&m, copy, n, &used, &ev);
        MUST(used <= n);
        event(&t, rc, &ev, copy, n);
        free(copy);
        at += used;
        if (rc < 0) {
            MUST(nkhttp_multipart_next(&m, "x", 1, &used, &ev) == rc && nkhttp_multipart_finish(&m) == rc);
            break;
        }
        if (rc > 0) continue;
        MUST(have - at <= (m.state == NKHTTP_P_PART_HEAD ? 8192 : boundary.len + 8));
        if (have == size) break;
        have = size - have < piece ? size : have + piece;
    }
    end = nkhttp_multipart_finish(&m) ? 'e' : 'o';
    put(&t, &end, 1);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    const char* p = (const char*)bytes;
    const char* lf = size ? (const char*)memchr(p, '\n', size) : NULL;
    nkhttp_str boundary, line;
    trail whole, cut;
    size_t first;
    if (!lf || size > 40000) return 0;
    line = nkhttp_p_str(p, (size_t)(lf - p));
    nkhttp_boundary(line, &boundary);
    if (line.len > 70) line.len = 70;
    boundary = line;
    if (!nkhttp_p_boundary_ok(boundary)) boundary = nkhttp_p_str("b", 1);
    size -= (size_t)(lf + 1 - p);
    p = lf + 1;
    whole = parse(boundary, p, size, size, size + 1);
    first = size ? (unsigned char)p[size / 2] % (size + 1) : 0;
    cut = parse(boundary, p, size, first, size + 1);
    MUST(cut.len == whole.len && !memcmp(cut.text, whole.text, cut.len));
    free(cut.text);
    if (size < 3000) {
        cut = parse(boundary, p, size, 1, 1 + first % 5);
        MUST(cut.len == whole.len && !memcmp(cut.text, whole.text, cut.len));
        free(cut.text);
    }
    free(whole.text);
    return 0;
}
