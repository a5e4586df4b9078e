/*  fuzz_http_request.c -- any bytes as the head of a request and of a response.
    Every prefix must give the same answer as the whole, slices must lie inside the bytes, and what was
    read must come out the same when it is written and read again.  */
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"

#define MUST(c) do { if (!(c)) __builtin_trap(); } while (0)
enum { FIELDS_MAX = 64 };

typedef int (*parse_fn)(const char* buf, size_t len, nkhttp_head* head);

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

static int parse(parse_fn fn, const char* p, size_t n, nkhttp_head* head, nkhttp_header* fields, int tight) {
    memset(head, 0, sizeof *head);
    head->headers = fields;
    head->max_headers = tight ? 4 : FIELDS_MAX;
    head->max_line_bytes = tight ? 40 : 0;
    head->max_head_bytes = tight ? 120 : 0;
    return fn(p, n, head);
}

static void check_slice(nkhttp_str s, const char* p, size_t n, int constant) {
    MUST(s.ptr != NULL);
    if (s.ptr >= p && s.ptr <= p + n) MUST(s.len <= (size_t)(p + n - s.ptr));
    else MUST(s.len == 0 || (constant && s.len == 1 && s.ptr[0] == '/'));
}

static void check_head(const nkhttp_head* h, const char* p, size_t n) {
    uint32_t i;
    check_slice(h->method, p, n, 0);
    check_slice(h->target, p, n, 0);
    check_slice(h->path, p, n, 1);
    check_slice(h->query, p, n, 0);
    check_slice(h->host, p, n, 0);
    check_slice(h->reason, p, n, 0);
    for (i = 0; i < h->num_headers; i++) {
        nkhttp_header f = h->headers[i];
        check_slice(f.name, p, n, 0);
        check_slice(f.value, p, n, 0);
        MUST(f.name.len > 0 && nkhttp_field_ok(f.name.ptr, f.name.len, f.value.ptr, f.value.len));
        nkhttp_has_token(f.value, "close");
    }
    MUST(!(h->flags & NKHTTP_CHUNKED) || !(h->flags & NKHTTP_HAS_LENGTH));
    MUST(h->content_length <= INT64_MAX && h->head_bytes == n && memcmp(p + n - 2, "\r\n", 2) == 0);
}

// Prefixes in memory of exactly their size, so that the sanitizer sees every byte too many.
static void check_prefixes(parse_fn fn, const char* bytes, size_t size, int tight) {
    nkhttp_header a[FIELDS_MAX], b[FIELDS_MAX];
    nkhttp_head whole, part;
    size_t k, step = size > 600 ? size / 300 : 1;
    int r = parse(fn, bytes, size, &whole, a, tight);
    MUST(r <= (int)size);
    if (r > 0) check_head(&whole, bytes, (size_t)r);
    for (k = 0; k <= size; k += step) {
        char* copy = (char*)malloc(k ? k : 1);
        int q;
        MUST(copy != NULL);
        if (k) memcpy(copy, bytes, k);
        q = parse(fn, copy, k, &part, b, tight);
        MUST(q == r || q == 0);
        if (r > 0) MUST((q == r) == (k >= (size_t)r));
        if (q > 0) {
            check_head(&part, copy, (size_t)q);
            MUST(part.flags == whole.flags && part.num_headers == whole.num_headers);
            MUST(part.content_length == whole.content_length && part.path.len == whole.path.len);
            nkhttp_head_rebase(&part, copy, bytes);
            MUST(memcmp(b, a, sizeof a[0] * part.num_headers) == 0 && part.target.ptr == whole.target.ptr);
        }
        free(copy);
    }
}

static void check_rewritten(const char* bytes, size_t size) {
    nkhttp_header a[FIELDS_MAX], b[FIELDS_MAX];
    nkhttp_head h, again;
    nkhttp_out o;
    char *mem, name[33];
    uint32_t i;
    int r = parse(nkhttp_parse_request, bytes, size, &h, a, 0);
    if (r <= 0) return;
    mem = (char*)malloc((size_t)r + 4 * FIELDS_MAX + 100);
    MUST(mem != NULL);
    nkhttp_out_init(&o, mem, (size_t)r + 4 * FIELDS_MAX + 100);
    memcpy(name, h.method.ptr, h.method.len);
    nkhttp_out_raw(&o, name, h.method.len);
    nkhttp_out_raw(&o, " ", 1);
    nkhttp_out_raw(&o, h.target.ptr, h.target.len);
    nkhttp_out_raw(&o, h.minor_version ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n", 11);
    for (i = 0; i < h.num_headers; i++) {
        char* text = (char*)malloc(a[i].name.len + 1);
        MUST(text != NULL);
        memcpy(text, a[i].name.ptr, a[i].name.len);
        text[a[i].name.len] = 0;
        nkhttp_out_field(&o, text, a[i].value.ptr, a[i].value.len);
        MUST(nkhttp_find(&h, text) != NULL);
        free(text);
    }
    MUST(nkhttp_out_end(&o) == 0);
    // adding a blank after each colon may push it over the limit, nothing else may differ
    r = parse(nkhttp_parse_request, mem, o.len, &again, b, 0);
    MUST(r == (int)o.len || r == NKHTTP_ERR_HEAD_TOO_LARGE);
    if (r > 0) MUST(again.flags == h.flags && again.num_headers == h.num_headers && again.method_id == h.method_id);
    free(mem);
}

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    const char* text = (const char*)bytes;
    int64_t t;
    char date[29];
    if (size > 40000) return 0;
    if (!text) text = "";
    check_prefixes(nkhttp_parse_request, text, size, 0);
    check_prefixes(nkhttp_parse_request, text, size, 1);
    check_prefixes(nkhttp_parse_response, text, size, 0);
    check_prefixes(nkhttp_parse_response, text, size, 1);
    check_rewritten(text, size);
    if (nkhttp_parse_date(text, size, &t) == 0 && t % 60 != 0) { // not a leap second, which comes back as :00
        int64_t u;
        nkhttp_format_date(date, t);
        MUST(nkhttp_parse_date(date, 29, &u) == 0 && u == t);
    }
    return 0;
}
