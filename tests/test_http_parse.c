/*  test_http_parse.c -- the sans-I/O half of netkit_http.h: heads, chunked bodies, writing, dates.
    POSIX only: inputs are put against pages that may not be touched.

    A case is bytes and the transcript a server made of them must give: "200[body]" for every request
    accepted, "close" when the connection ends in good order, and "400 close" and the like for a refusal.
    Nothing at all means: still waiting. Every case is run whole, cut in two at every byte, and byte by
    byte, and must always give the same transcript. The names in the first column are stable.
*/
#if !defined(_DEFAULT_SOURCE)
    #define _DEFAULT_SOURCE 1 // MAP_ANONYMOUS
#endif
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"
#include "nktest.h"
#include <sys/mman.h>
#include <unistd.h>

// ---- a server without a socket ---------------------------------------------------------------

enum { BODY_MAX = 2000000, LOG_MAX = 2000, HEADERS_MAX = 100 };

typedef struct session {
    char *in, *body, log[LOG_MAX];
    size_t len, body_len, log_len;
    int dead, where; // 0 head, 1 body by length, 2 chunked
    uint64_t left;
    uint32_t flags;
    nkhttp_chunked chunked;
} session;

static void session_log(session* s, const char* text) {
    size_t n = strlen(text);
    if (s->log_len + n + 1 > LOG_MAX) return;
    memcpy(s->log + s->log_len, text, n + 1);
    s->log_len += n;
}

static void session_show(char* dst, const char* p, size_t n) { // controls as dots
    size_t i;
    for (i = 0; i < n; i++) dst[i] = p[i] >= 32 && p[i] < 127 ? p[i] : '.';
    dst[n] = 0;
}

static void session_end(session* s, int err) {
    char text[40];
    if (err < 0) {
        snprintf(text, sizeof text, "%s%d close", s->log_len ? " " : "", nkhttp_status_of(err));
        session_log(s, text);
    } else {
        char shown[100];
        if (s->body_len > 60) snprintf(shown, sizeof shown, "#%lu", (unsigned long)s->body_len);
        else session_show(shown, s->body, s->body_len);
        session_log(s, s->log_len ? " 200[" : "200[");
        session_log(s, shown);
        session_log(s, s->flags & NKHTTP_KEEP_ALIVE ? "]" : "] close");
    }
    s->dead = err < 0 || !(s->flags & NKHTTP_KEEP_ALIVE);
    s->where = 0;
    s->body_len = 0;
}

static size_t session_head(session* s) {
    nkhttp_header headers[HEADERS_MAX];
    nkhttp_head head;
    int r;
    memset(&head, 0, sizeof head);
    head.headers = headers;
    head.max_headers = HEADERS_MAX;
    r = nkhttp_parse_request(s->in, s->len, &head);
    if (r == 0) return 0;
    s->flags = head.flags;
    if (r > 0 && head.content_length > BODY_MAX) r = NKHTTP_ERR_BODY_TOO_LARGE;
    if (r > 0 && head.method_id == NKHTTP_CONNECT) r = NKHTTP_ERR_METHOD;
    if (r < 0) {
        session_end(s, r);
        return s->len;
    }
    s->left = head.content_length;
    s->where = head.flags & NKHTTP_CHUNKED ? 2 : 1;
    memset(&s->chunked, 0, sizeof s->chunked);
    return (size_t)r;
}

static size_t session_body(session* s) {
    size_t used = s->len < s->left ? s->len : (size_t)s->left;
    nkhttp_str data;
    int r;
    if (s->where == 1) {
        memcpy(s->body + s->body_len, s->in, used);
        s->body_len += used;
        s->left -= used;
        if (!s->left) session_end(s, 0);
        return used;
    }
    r = nkhttp_chunked_next(&s->chunked, s->in, s->len, &used, &data);
    if (s->chunked.left + s->body_len > BODY_MAX) r = NKHTTP_ERR_BODY_TOO_LARGE;
    if (r == NKHTTP_CHUNK_DATA) {
        memcpy(s->body + s->body_len, data.ptr, data.len);
        s->body_len += data.len;
    } else if (r == NKHTTP_CHUNK_DONE || r < 0) {
        session_end(s, r < 0 ? r : 0);
    }
    return used;
}

static void session_feed(session* s, const char* bytes, size_t n) {
    memcpy(s->in + s->len, bytes, n);
    s->len += n;
    while (!s->dead) {
        int where = s->where;
        size_t used = where ? session_body(s) : session_head(s);
        memmove(s->in, s->in + used, s->len - used);
        s->len -= used;
        if (!used && where == s->where) break;
    }
    if (s->dead) s->len = 0; // bytes after the end are never looked at
}

static session* session_new(void) {
    static char in[BODY_MAX + 100000], body[BODY_MAX + 100000];
    static session s;
    memset(&s, 0, sizeof s);
    s.in = in;
    s.body = body;
    return &s;
}

// Feeds bytes in pieces of `piece`, the first one of `first`.
static const char* transcript(const char* bytes, size_t n, size_t first, size_t piece) {
    session* s = session_new();
    size_t at = first < n ? first : n;
    session_feed(s, bytes, at);
    while (at < n) {
        size_t k = n - at < piece ? n - at : piece;
        session_feed(s, bytes + at, k);
        at += k;
    }
    return s->log;
}

static void check_case(const char* id, const char* bytes, size_t n, const char* want) {
    size_t cut;
    const char* got = transcript(bytes, n, n, n);
    if (!CHECK_STR(got, strlen(got), want)) printf("    case %s\n", id);
    got = transcript(bytes, n, 1, n > 20000 ? 997 : 1);
    if (strcmp(got, want) != 0 && !CHECK_STR(got, strlen(got), want)) printf("    case %s bytewise\n", id);
    for (cut = 1; cut < n && n <= 2000; cut++) {
        got = transcript(bytes, n, cut, n);
        if (strcmp(got, want) == 0) continue;
        CHECK_STR(got, strlen(got), want);
        printf("    case %s cut at %lu\n", id, (unsigned long)cut);
        return;
    }
}

// ---- cases -----------------------------------------------------------------------------------

#define B(text) text, sizeof(text) - 1
#define GET  "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\n"
#define HOST "Host: a\r\n"
#define TE   "Transfer-Encoding: chunked\r\n"
#define END  "0\r\n\r\n"
#define HIDDEN "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

typedef struct example { const char *id, *bytes; size_t len; const char* want; } example;

static const example examples[] = {
    { "RL-01", B("\r\n" GET HOST "\r\n"), "200[]" },
    { "RL-02", B("\r\n\r\n\r\n" GET HOST "\r\n"), "200[]" },
    { "RL-03", B("get / HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "RL-04", B("GET  / HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-05", B("GET /  HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-06", B("GET\t/\tHTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-07", B("GET /a b HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-08", B("GET / http/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-09", B("GET / HTTP/1.1 \r\n" HOST "\r\n"), "400 close" },
    { "RL-10", B("GET / HTTP/1.32\r\n" HOST "\r\n"), "400 close" },
    { "RL-11", B("GET / HTTP/1.2\r\n" HOST "\r\n"), "200[]" },
    { "RL-12", B("GET / HTTP/2.0\r\n" HOST "\r\n"), "505 close" },
    { "RL-13", B("GET / HTTP/0.9\r\n" HOST "\r\n"), "505 close" },
    { "RL-14", B("GET /\r\n\r\n"), "400 close" },
    { "RL-15", B("GET ! HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-16", B("GET /\x00x HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-17", B("GET /\x7fx HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-18", B("GET /\xff\xfe HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-19", B("GET /%zz HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "RL-20", B("GET /%00 HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "RL-21", B("G=\":<>(e),[T];?\" / HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-22", B("SLUDGE / HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "RL-23", B("GET / HTTP/1.1\n" HOST "\r\n"), "400 close" },
    { "RL-24", B("GET / HTTP/1.1\rHost: a\r\n\r\n"), "400 close" },
    { "RL-25", B("GET /\nHTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-26", B(" " GET HOST "\r\n"), "400 close" },
    { "RL-27", B(" \r\n" GET HOST "\r\n"), "400 close" },
    { "RL-31", B("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00"), "400 close" },
    { "RL-32", B("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "400 close" },
    { "RL-33", B("GET / HTTP/1.1\x00\r\n" HOST "\r\n"), "400 close" },
    { "RL-34", B("GET / HTTP/01.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-35", B("GET / HTTP/1,1\r\n" HOST "\r\n"), "400 close" },
    { "RL-36", B("GET /a#frag HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-37", B("GET /a\"b<c>^`{|} HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "RL-38", B("GET /a\\..\\b HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "HO-01", B("GET http://a/x HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "HO-02", B("GET http://b/x HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "HO-03", B("GET http://a HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "HO-04", B("GET http://a?x=1 HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "HO-05", B("GET http://a/x HTTP/1.1\r\n\r\n"), "400 close" },
    { "HO-06", B("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "HO-07", B("GET * HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "HO-08", B("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), "501 close" },
    { "HO-09", B("GET a:80 HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "HO-10", B(GET "Host: \r\n\r\n"), "400 close" },
    { "HO-11", B(GET "Host: a b\r\n\r\n"), "400 close" },
    { "HO-12", B(GET "Host: a:b\r\n\r\n"), "400 close" },
    { "HO-13", B(GET "Host: a/../b\r\n\r\n"), "400 close" },
    { "HO-14", B(GET "Host: a@b\r\n\r\n"), "400 close" },
    { "HO-15", B(GET "Host: [::1]:8080\r\n\r\n"), "200[]" },
    { "HO-16", B(GET "Host: [::1\r\n\r\n"), "400 close" },
    { "HO-17", B(GET "Host: a, b\r\n\r\n"), "400 close" },
    { "HO-18", B(GET HOST "host: a\r\n\r\n"), "400 close" },
    { "HO-19", B("GET / HTTP/1.0\r\n\r\n"), "200[] close" },
    { "HO-20", B("GET / HTTP/1.0\r\n" HOST "Host: b\r\n\r\n"), "400 close" },
    { "HO-21", B(GET "Host: a\x00" "b\r\n\r\n"), "400 close" },
    { "HO-22", B("GET http://u:p@a/ HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "HO-23", B("GET //evil/x HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "HO-24", B(GET "Host: \xff" "a\xff\r\n\r\n"), "400 close" },
    { "HD-01", B(GET HOST "X : 1\r\n\r\n"), "400 close" },
    { "HD-02", B(GET HOST "X\t: 1\r\n\r\n"), "400 close" },
    { "HD-03", B(GET " X: 1\r\n" HOST "\r\n"), "400 close" },
    { "HD-04", B(GET "\tContent-Length: 1\r\n" HOST "\r\nX"), "400 close" },
    { "HD-05", B(GET HOST "X: a\r\n b\r\n\r\n"), "400 close" },
    { "HD-06", B(GET HOST "X: a\r\n\tb\r\n\r\n"), "400 close" },
    { "HD-07", B(GET HOST "X:\r\n \r\n\r\n"), "400 close" },
    { "HD-08", B(GET HOST ": v\r\n\r\n"), "400 close" },
    { "HD-09", B(GET HOST "NoColon\r\n\r\n"), "400 close" },
    { "HD-10", B(GET HOST "X: a\x00" "b\r\n\r\n"), "400 close" },
    { "HD-11", B(GET HOST "X: a\rb\r\n\r\n"), "400 close" },
    { "HD-12", B(GET HOST "X: a\nY: b\r\n\r\n"), "400 close" },
    { "HD-13", B("GET / HTTP/1.1\nHost: a\nX: 1\n\n"), "400 close" },
    { "HD-14", B(GET HOST "X\x00Y: 1\r\n\r\n"), "400 close" },
    { "HD-15", B(GET HOST "X\xe9: 1\r\n\r\n"), "400 close" },
    { "HD-16", B(GET HOST "X(Y: 1\r\n\r\n"), "400 close" },
    { "HD-17", B(GET HOST "!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n"), "200[]" },
    { "HD-18", B(GET HOST "X: caf\xe9\r\n\r\n"), "200[]" },
    { "HD-19", B(GET HOST "X: a\tb\r\n\r\n"), "200[]" },
    { "HD-20", B(GET HOST "X: a\x7f" "b\r\n\r\n"), "400 close" },
    { "HD-21", B(GET HOST "X: a\x1b" "b\r\n\r\n"), "400 close" },
    { "HD-22", B(GET HOST "X:\t  v  \t\r\n\r\n"), "200[]" },
    { "HD-23", B(GET HOST "X: 1\r\nX: 2\r\n\r\n"), "200[]" },
    { "HD-28", B(GET HOST "\rZ" HIDDEN), "400 close" },
    { "HD-29", B(GET HOST "\n"), "400 close" },
    { "HD-30", B(GET HOST "Transfer-\r\nEncoding: chunked\r\n\r\n"), "400 close" },
    { "HD-31", B(GET HOST "X: a\x85\r\nY: \xa0\r\n\r\n"), "200[]" },
    { "CL-01", B(POST HOST "Content-Length: +5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-02", B(POST HOST "Content-Length: -5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-03", B(POST HOST "Content-Length: 5 \r\n\r\nhello" HIDDEN), "200[hello] 200[]" },
    { "CL-04", B(POST HOST "Content-Length: 0x5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-05", B(POST HOST "Content-Length: 5_0\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-06", B(POST HOST "Content-Length: 5.0\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-07", B(POST HOST "Content-Length: 5;a\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-08", B(POST HOST "Content-Length: 5 5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-09", B(POST HOST "Content-Length: \r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-10", B(POST HOST "Content-Length: 5, 5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-11", B(POST HOST "Content-Length: 5, 6\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-12", B(POST HOST "Content-Length: 5,\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-13", B(POST HOST "Content-Length: 005\r\n\r\nhello" HIDDEN), "200[hello] 200[]" },
    { "CL-14", B(POST HOST "Content-Length: 18446744073709551621\r\n\r\nhello" HIDDEN), "413 close" },
    { "CL-15", B(POST HOST "Content-Length: 4294967301\r\n\r\nhello" HIDDEN), "413 close" },
    { "CL-16", B(POST HOST "Content-Length: 99999999999999999999999999\r\n\r\nhello" HIDDEN), "413 close" },
    { "CL-17", B(POST HOST "Content-Length: \xef\xbc\x95\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-18", B(POST HOST "Content-Length: 5\x00\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-19", B(POST HOST "Content-Length: 1e1\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-20", B(POST HOST "Content-Length: \x0b" "5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-21", B(POST HOST "Content-Length: 0b5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-30", B(POST HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), "400 close" },
    { "CL-31", B(POST HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-32", B(POST HOST "Content-Length: \r\nContent-Length: 5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-33", B(POST HOST "Content-Length : 5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-34", B(POST HOST "Content-Length 5\r\n\r\nhello" HIDDEN), "400 close" },
    { "CL-35", B(POST HOST "Content_Length: 5\r\n\r\nGET /x HTTP/1.1\r\n" HOST "\r\n"), "200[] 200[]" },
    { "CL-36", B(GET HOST "Content-Length: 5\r\n\r\nhello"), "200[hello]" },
    { "CL-37", B(POST HOST "\r\n"), "200[]" },
    { "CL-38", B(POST HOST "Content-Length: 0\r\n\r\n" GET HOST "\r\n"), "200[] 200[]" },
    { "CL-39", B(GET HOST "Content-Length\x85: 5\r\n\r\nhello"), "400 close" },
    { "CL-40", B(POST HOST "Content-Length: 5\r\n X: y\r\n\r\nhello"), "400 close" },
    { "CL-41", B(POST HOST "Content-Length: 9223372036854775807\r\n\r\nhello"), "413 close" },
    { "TE-01", B(POST HOST TE "\r\n5\r\nhello\r\n" END), "200[hello]" },
    { "TE-02", B(POST HOST "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n" END), "200[hello]" },
    { "TE-03", B(POST HOST TE "Content-Length: 6\r\n\r\n0\r\n\r\n" HIDDEN), "400 close" },
    { "TE-04", B(POST HOST "Content-Length: 5\r\n" TE "\r\n0\r\n\r\n" HIDDEN), "400 close" },
    { "TE-05", B(POST HOST "Transfer-Encoding: identity\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-06", B(POST HOST "Transfer-Encoding: gzip\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-07", B(POST HOST "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n" END), "501 close" },
    { "TE-08", B(POST HOST "Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-09", B(POST HOST "Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-10", B(POST HOST TE TE "\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-11", B(POST HOST "Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-12", B(POST HOST "Transfer-Encoding: chunkedx\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-13", B(POST HOST "Transfer-Encoding: ,chunked\r\n\r\n5\r\nhello\r\n" END), "200[hello]" },
    { "TE-14", B(POST HOST "Transfer-Encoding: \x0b" "chunked\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-15", B(POST HOST "Transfer-Encoding: chunked\x00\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-16", B(POST HOST "Transfer-Encoding: \"chunked\"\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-17", B(POST HOST "Transfer-Encoding: chunked;q=1\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-18", B(POST HOST "Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-19", B(POST HOST "Transfer-Encoding:chunked\r\n\r\n5\r\nhello\r\n" END), "200[hello]" },
    { "TE-20", B(POST HOST "Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-21", B(POST HOST "X: y\rTransfer-Encoding: chunked\r\n\r\n" END), "400 close" },
    { "TE-22", B(POST HOST "X: y\n" TE "\r\n" END), "400 close" },
    { "TE-23", B(POST HOST TE "Transfer-Encoding: cow\r\n\r\n" END), "400 close" },
    { "TE-24", B(POST HOST "Transfer-Encoding: cow\r\n" TE "\r\n" END), "501 close" },
    { "TE-25", B(POST HOST "Transfer_Encoding: chunked\r\n\r\n"), "200[]" },
    { "TE-26", B("POST / HTTP/1.0\r\n" HOST TE "\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-27", B(POST HOST "Transfer-Encoding: \r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "TE-28", B(POST HOST "Transfer-Encoding: \xa0" "chunked\r\n\r\n5\r\nhello\r\n" END), "400 close" },
    { "CH-01", B(POST HOST TE "\r\nA\r\n0123456789\r\n" END), "200[0123456789]" },
    { "CH-02", B(POST HOST TE "\r\n005\r\nhello\r\n000\r\n\r\n"), "200[hello]" },
    { "CH-03", B(POST HOST TE "\r\n5;ext=1\r\nhello\r\n" END), "200[hello]" },
    { "CH-04", B(POST HOST TE "\r\n5;ext=\"a;b\\\"c\"\r\nhello\r\n" END), "200[hello]" },
    { "CH-05", B(POST HOST TE "\r\n5 ; ext = 1\r\nhello\r\n" END), "200[hello]" },
    { "CH-06", B(POST HOST TE "\r\n5 \r\nhello\r\n" END), "400 close" },
    { "CH-07", B(POST HOST TE "\r\n 5\r\nhello\r\n" END), "400 close" },
    { "CH-08", B(POST HOST TE "\r\n+5\r\nhello\r\n" END), "400 close" },
    { "CH-09", B(POST HOST TE "\r\n-5\r\nhello\r\n" END), "400 close" },
    { "CH-10", B(POST HOST TE "\r\n0x5\r\nhello\r\n" END), "400 close" },
    { "CH-11", B(POST HOST TE "\r\n5_0\r\nhello\r\n" END), "400 close" },
    { "CH-12", B(POST HOST TE "\r\n5z\r\nhello\r\n" END), "400 close" },
    { "CH-13", B(POST HOST TE "\r\ng\r\n0123456789abcdef\r\n" END), "400 close" },
    { "CH-14", B(POST HOST TE "\r\n\r\nhello\r\n" END), "400 close" },
    { "CH-15", B(POST HOST TE "\r\n;x\r\nhello\r\n" END), "400 close" },
    { "CH-16", B(POST HOST TE "\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" HIDDEN), "400 close" },
    { "CH-17", B(POST HOST TE "\r\n100000005\r\nhello\r\n0\r\n\r\n" HIDDEN), "413 close" },
    { "CH-18", B(POST HOST TE "\r\nFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n" HIDDEN), "400 close" },
    { "CH-20", B(POST HOST TE "\r\n5\nhello\n0\n\n"), "400 close" },
    { "CH-21", B(POST HOST TE "\r\n5\r\nhello\n" END), "400 close" },
    { "CH-22", B(POST HOST TE "\r\n5\nhello\r\n" END), "400 close" },
    { "CH-23", B(POST HOST TE "\r\n5\r\nhelloXX0\r\n\r\n"), "400 close" },
    { "CH-24", B(POST HOST TE "\r\n5\r\nhello!\r\n" END), "400 close" },
    { "CH-25", B(POST HOST TE "\r\n5\rXhello\r\n" END), "400 close" },
    { "CH-26", B(POST HOST TE "\r\n5;a\rb\r\nhello\r\n" END), "400 close" },
    { "CH-27", B(POST HOST TE "\r\n5;a\nhello\r\n" END), "400 close" },
    { "CH-29", B(POST HOST TE "\r\n5;\x00\r\nhello\r\n" END), "400 close" },
    { "CH-30", B(POST HOST TE "\r\n5\r\nhello\r\n0\r\nTrailer: v\r\n\r\n"), "200[hello]" },
    { "CH-31", B(POST HOST TE "\r\n5\r\nhello\r\n0\r\nTrailer: v\r\n\r\n" GET HOST "\r\n"),
      "200[hello] 200[]" },
    { "CH-32", B(POST HOST TE
      "\r\n5\r\nhello\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n" GET
      HOST "\r\n"),
      "200[hello] 200[]" },
    { "CH-33", B(POST HOST TE "\r\n5\r\nhello\r\n0\r\nbad trailer\r\n\r\n"), "400 close" },
    { "CH-34", B(POST HOST TE "\r\n5\r\nhello\r\n0\r\nX : v\r\n\r\n"), "400 close" },
    { "CH-36", B(POST HOST TE "\r\n0\r\nX:POST / HTTP/1.1\r\n\r\n"), "200[]" },
    { "CH-37", B(POST HOST TE "\r\n5\r\nhello\r\n0\r\n\r\n\x00"), "200[hello] 400 close" },
    { "CH-38", B(POST HOST TE "\r\n1\r\nZ\r\nINVALID\r\n" HIDDEN), "400 close" },
    { "CH-39", B(POST HOST TE "\r\n5\r\nhello\r\n" END), "200[hello]" },
    { "CH-40", B(POST HOST TE "\r\n5\r\nhello\r\n3\r\nfoo\r\n"), "" },
    { "CH-42", B(POST HOST TE "\r\n5\r\nhello\r\n00000000000000000000\r\n\r\n"), "200[hello]" },
    { "CH-43", B(POST HOST TE "\r\n5;\r\nhello\r\n" END), "400 close" },
    { "CN-01", B(GET HOST "\r\n" GET HOST "\r\n"), "200[] 200[]" },
    { "CN-03", B(GET HOST "Connection: close\r\n\r\n" GET HOST "\r\n"), "200[] close" },
    { "CN-04", B(GET HOST "Connection: foo, Close\r\n\r\n" GET HOST "\r\n"), "200[] close" },
    { "CN-05", B(GET HOST "Connection: keep-alive\r\nConnection: close\r\n\r\n" GET HOST "\r\n"),
      "200[] close" },
    { "CN-06", B("GET / HTTP/1.0\r\n\r\n" GET HOST "\r\n"), "200[] close" },
    { "CN-07", B("GET / HTTP/1.0\r\n" HOST "Connection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n" HOST "\r\n"),
      "200[] 200[] close" },
    { "CN-08", B(GET HOST "\r\nBAD\r\n\r\n"), "200[] 400 close" },
    { "CN-09", B(POST HOST "Content-Length: 5\r\n\r\nhello\r\n" GET HOST "\r\n"), "200[hello] 200[]" },
    { "CN-10", B(GET HOST "\r\n"), "200[]" },
    { "CN-11", B(GET HOST "X: y\r\n\r\n"), "200[]" },
    { "CN-12", B(POST HOST "Content-Length: 5\r\n\r\nhello" GET HOST "\r\n"), "200[hello] 200[]" },
    { "CN-13", B(GET HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), "200[]" },
    { "CN-14", B(GET HOST "Upgrade: h2c\r\n" "Connection: Upgrade, HTTP2-Settings\r\n"
      "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"),
      "200[]" },
    { "CN-15", B("GET / HTTP/1.0\r\n" HOST "Upgrade: websocket\r\n" "Connection: Upgrade\r\n"
      "Sec-WebSocket-Version: 13\r\n" "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
      "200[] close" },
    { "EX-01", B(POST HOST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"), "" },
    { "EX-02", B(POST HOST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"), "200[hello]" },
    { "EX-03", B("POST / HTTP/1.0\r\n" HOST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"), "" },
    { "EX-04", B(GET HOST "Expect: 200-ok\r\n\r\n"), "417 close" },
    { "EX-05", B(POST HOST TE "Expect: 100-Continue\r\n\r\n"), "" },
    { "ME-01", B("HEAD / HTTP/1.1\r\n" HOST "\r\n" GET HOST "\r\n"), "200[] 200[]" },
    { "ME-02", B("OPTIONS / HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "ME-03", B("TRACE / HTTP/1.1\r\n" HOST "Cookie: s=1\r\n\r\n"), "200[]" },
    { "ME-04", B("DELETE / HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "ME-05", B("PATCH / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"), "200[hello]" },
    { "ME-06", B("M-SEARCH / HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "SZ-02", B(GET HOST "X-0: y\r\nX-1: y\r\nX-2: y\r\n\r\n"), "200[]" }
};

typedef struct long_example { const char *id, *before, *unit; int times; const char *after, *want; } long_example;

static const long_example long_examples[] = {
    { "RL-28", "GET /", "a", 7900, " HTTP/1.1\r\n" HOST "\r\n", "200[]" },
    { "RL-29", "GET /", "a", 200000, " HTTP/1.1\r\n" HOST "\r\n", "414 close" },
    { "RL-30", "A", "A", 299, " / HTTP/1.1\r\n" HOST "\r\n", "501 close" },
    { "HD-24", GET HOST, "X-1: v\r\n", 64, "\r\n", "200[]" },
    { "HD-25", GET HOST, "X-1: v\r\n", 20000, "\r\n", "431 close" },
    { "HD-26", GET HOST "X: ", "a", 6000, "\r\n\r\n", "200[]" },
    { "HD-27", GET HOST "X: ", "a", 300000, "\r\n\r\n", "431 close" },
    { "CL-42", "PATCH / HTTP/1.1\r\n" HOST, "X0: y\r\n", 29, "Content-Length: 35\r\n\r\n" HIDDEN,
      "200[GET /smuggled HTTP/1.1..Host: a....]" },
    { "CL-43", "PATCH / HTTP/1.1\r\n" HOST, "X0: y\r\n", 63, "Content-Length: 35\r\n\r\n" HIDDEN,
      "200[GET /smuggled HTTP/1.1..Host: a....]" },
    { "CL-44", "PATCH / HTTP/1.1\r\n" HOST, "X0: y\r\n", 300, "Content-Length: 35\r\n\r\n" HIDDEN,
      "431 close" },
    { "CL-45", POST HOST, "X0: y\r\n", 150, TE "\r\n5\r\nhello\r\n" END, "431 close" },
    { "CH-19", POST HOST TE "\r\n", "0", 5000, "5\r\nhello\r\n" END, "400 close" },
    { "CH-28", POST HOST TE "\r\n5;", "a", 100000, "\r\nhello\r\n" END, "400 close" },
    { "CH-35", POST HOST TE "\r\n5\r\nhello\r\n0\r\n", "X: y\r\n", 20000, "\r\n", "431 close" },
    { "CH-41", POST HOST TE "\r\n", "1\r\na\r\n", 3000, END, "200[#3000]" },
    { "CN-02", "", GET HOST "\r\n", 4, "", "200[] 200[] 200[] 200[]" },
    { "SZ-01", POST HOST "Content-Length: 1000000\r\n\r\n", "z", 1000000, "", "200[#1000000]" },
    // past 100 KB, framing may not be more than three quarters of all
    { "one-byte chunks", POST HOST TE "\r\n", "1\r\na\r\n", 30000, END, "400 close" },
    { "seven to two", POST HOST TE "\r\n", "2;a\r\nab\r\n", 30000, END, "400 close" },
    { "two-byte chunks", POST HOST TE "\r\n", "2\r\nab\r\n", 30000, END, "200[#60000]" },
    { "long extensions", POST HOST TE "\r\n", "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n", 5000, END,
      "400 close" },
    { "empty lines", "", "\r\n", 4, GET HOST "\r\n", "200[]" },
    { "empty lines", "", "\r\n", 5, GET HOST "\r\n", "400 close" },
    { "leading zeros", POST HOST TE "\r\n", "0", 250, "5\r\nhello\r\n" END, "200[hello]" },
    { "trailers", POST HOST TE "\r\n" "0\r\n", "X: y\r\n", 1300, "\r\n", "200[]" }
};

static const example more_examples[] = {
    { "host port", B(GET "Host: a:\r\n\r\n"), "200[]" },
    { "host port", B(GET "Host: a:65535\r\n\r\n"), "200[]" },
    { "host port", B(GET "Host: a:65536\r\n\r\n"), "400 close" },
    { "host port", B(GET "Host: :80\r\n\r\n"), "400 close" },
    { "host percent", B(GET "Host: a%20b\r\n\r\n"), "200[]" },
    { "host percent", B(GET "Host: %41%42:1\r\n\r\n"), "200[]" },
    { "host percent", B(GET "Host: a%2\r\n\r\n"), "400 close" },
    { "host percent", B(GET "Host: a%g0\r\n\r\n"), "400 close" },
    { "host bracket", B(GET "Host: [::1]x\r\n\r\n"), "400 close" },
    { "host bracket", B(GET "Host: []\r\n\r\n"), "400 close" },
    { "host in 1.0", B("GET / HTTP/1.0\r\nHost: a b\r\n\r\n"), "400 close" },
    { "scheme", B("GET https://a/ HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "scheme", B("GET HTTP://a/ HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "scheme", B("GET ftp://a/ HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "scheme", B("GET http:///x HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "scheme", B("GET http://a:x/ HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "scheme", B("GET x HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "query", B("GET ?a HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "browser query", B("GET /a|b?ids[]=1&x={y}^` HTTP/1.1\r\n" HOST "\r\n"), "200[]" },
    { "asterisk", B("OPTIONS ** HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "connect", B("CONNECT a HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "connect", B("CONNECT a: HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "connect", B("CONNECT :80 HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "connect", B("CONNECT /x HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "connect", B("CONNECT [::1]:80 HTTP/1.1\r\n" HOST "\r\n"), "501 close" },
    { "no target", B("GET  HTTP/1.1\r\n" HOST "\r\n"), "400 close" },
    { "LF first", B("\n" GET HOST "\r\n"), "400 close" },
    { "CR LF LF", B("\r\n\n" GET HOST "\r\n"), "400 close" },
    { "no fields", B(GET "\r\n"), "400 close" },
    { "no fields", B("GET / HTTP/1.0\r\n\r\n"), "200[] close" },
    { "version 3", B("GET / HTTP/3.0\r\n\r\n"), "505 close" },
    { "version x", B("GET / HTTP/x.1\r\n\r\n"), "400 close" },
    { "length 2^63-1", B(POST HOST "Content-Length: 9223372036854775807\r\n\r\n"), "413 close" },
    { "length 2^63", B(POST HOST "Content-Length: 9223372036854775808\r\n\r\n"), "413 close" },
    { "length junk", B(POST HOST "Content-Length: 9999999999999999999999x\r\n\r\n"), "400 close" },
    { "length twice", B(POST HOST "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"), "400 close" },
    { "coding empty", B(POST HOST "Transfer-Encoding: , ,\r\n\r\n"), "400 close" },
    { "coding commas", B(POST HOST "Transfer-Encoding: , chunked ,\r\n\r\n" END), "200[]" },
    { "coding list", B(POST HOST "Transfer-Encoding: gzip\r\n" TE "\r\n" END), "501 close" },
    { "coding quoted", B(POST HOST "Transfer-Encoding: x=\",chunked\"\r\n\r\n" END), "400 close" },
    { "expect empty", B(GET HOST "Expect:\r\n\r\n"), "200[]" },
    { "expect twice", B(GET HOST "Expect: 100-continue\r\nExpect: x\r\n\r\n"), "417 close" },
    { "expect list", B(GET HOST "Expect: 100-continue, x\r\n\r\n"), "417 close" },
    { "expect 1.0", B("GET / HTTP/1.0\r\nExpect: x\r\n\r\n"), "200[] close" },
    { "1.0 both", B("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"), "200[] close" },
    { "chunk 2^60", B(POST HOST TE "\r\n1000000000000000\r\n"), "413 close" },
    { "chunk 2^63", B(POST HOST TE "\r\n8000000000000000\r\n"), "400 close" },
    { "chunk 2^64", B(POST HOST TE "\r\n10000000000000000\r\n"), "400 close" },
    { "chunk zeros", B(POST HOST TE "\r\n0000000000000000000000005\r\nhello\r\n" END), "200[hello]" },
    { "ext two", B(POST HOST TE "\r\n1;a;b=c;d=\"\"\r\nx\r\n" END), "200[x]" },
    { "ext last", B(POST HOST TE "\r\n0;a=b\r\n\r\n"), "200[]" },
    { "ext blank", B(POST HOST TE "\r\n1;a \r\nx\r\n" END), "400 close" },
    { "ext blank", B(POST HOST TE "\r\n1;a=b\t\r\nx\r\n" END), "400 close" },
    { "ext no value", B(POST HOST TE "\r\n1;a=\r\nx\r\n" END), "400 close" },
    { "ext open quote", B(POST HOST TE "\r\n1;a=\"b\r\nx\r\n" END), "400 close" },
    { "ext after quote", B(POST HOST TE "\r\n1;a=\"b\"c\r\nx\r\n" END), "400 close" },
    { "ext quoted CR", B(POST HOST TE "\r\n1;a=\"\\\r\"\r\nx\r\n" END), "400 close" },
    { "ext tab", B(POST HOST TE "\r\n1\t;\ta\t=\tb\r\nx\r\n" END), "200[x]" },
    { "trailer fold", B(POST HOST TE "\r\n0\r\nA: b\r\n c\r\n\r\n"), "400 close" },
    { "trailer LF", B(POST HOST TE "\r\n0\r\n\n"), "400 close" },
    { "trailer CR", B(POST HOST TE "\r\n0\r\n\rX"), "400 close" },
    { "trailer NUL", B(POST HOST TE "\r\n0\r\nA: \x00\r\n\r\n"), "400 close" }
};

TEST(examples_give_their_transcripts) {
    size_t i;
    for (i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        check_case(examples[i].id, examples[i].bytes, examples[i].len, examples[i].want);
    }
    for (i = 0; i < sizeof more_examples / sizeof more_examples[0]; i++) {
        const example* e = &more_examples[i];
        check_case(e->id, e->bytes, e->len, e->want);
    }
}

TEST(long_examples_give_their_transcripts) {
    static char bytes[BODY_MAX];
    size_t i;
    int k;
    for (i = 0; i < sizeof long_examples / sizeof long_examples[0]; i++) {
        const long_example* e = &long_examples[i];
        size_t n = strlen(e->before), unit = strlen(e->unit), after = strlen(e->after);
        memcpy(bytes, e->before, n);
        for (k = 0; k < e->times; k++, n += unit) memcpy(bytes + n, e->unit, unit);
        memcpy(bytes + n, e->after, after);
        check_case(e->id, bytes, n + after, e->want);
    }
}

// ---- guard pages -----------------------------------------------------------------------------

static char *guard_first, *guard_end; // readable memory between two pages that are not

static void guard_make(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = page * 4;
    char* p = (char*)mmap(NULL, n + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (guard_first) return;
    if (p == (char*)MAP_FAILED || mprotect(p + page, n, PROT_READ | PROT_WRITE) != 0) {
        printf("no guard pages\n");
        exit(1);
    }
    guard_first = p + page;
    guard_end = guard_first + n;
}

static int parse_at(char* at, const char* bytes, size_t n, nkhttp_head* head, nkhttp_header* headers) {
    if (n) memcpy(at, bytes, n);
    memset(head, 0, sizeof *head);
    head->headers = headers;
    head->max_headers = HEADERS_MAX;
    return nkhttp_parse_request(at, n, head);
}

static int same_slice(nkhttp_str a, const char* a0, nkhttp_str b, const char* b0, size_t n) {
    if (a.len != b.len) return 0;
    if (a.ptr < a0 || a.ptr > a0 + n) return a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0; // "" or "/"
    return a.ptr - a0 == b.ptr - b0;
}

static int same_heads(const nkhttp_head* a, const char* a0, const nkhttp_head* b, const char* b0) {
    size_t n = a->head_bytes, i;
    int same = n == b->head_bytes && a->flags == b->flags && a->num_headers == b->num_headers
        && a->content_length == b->content_length && a->method_id == b->method_id
        && a->minor_version == b->minor_version && same_slice(a->method, a0, b->method, b0, n)
        && same_slice(a->target, a0, b->target, b0, n) && same_slice(a->path, a0, b->path, b0, n)
        && same_slice(a->query, a0, b->query, b0, n) && same_slice(a->host, a0, b->host, b0, n);
    for (i = 0; same && i < a->num_headers; i++) {
        same = same_slice(a->headers[i].name, a0, b->headers[i].name, b0, n)
            && same_slice(a->headers[i].value, a0, b->headers[i].value, b0, n);
    }
    return same;
}

// Every prefix against both guard pages: the same result, an error once seen stays, a head is found
// at its last byte.
static void check_prefixes(const char* id, const char* bytes, size_t n) {
    nkhttp_header h[HEADERS_MAX], h1[HEADERS_MAX], h2[HEADERS_MAX];
    nkhttp_head whole, left, right;
    size_t k;
    int r = parse_at(guard_first, bytes, n, &whole, h), r1, r2, ok = 1;
    if (r > 0) parse_at(guard_end - r, bytes, (size_t)r, &whole, h);
    for (k = 0; k <= n && ok; k++) {
        r2 = parse_at(guard_end - k, bytes, k, &right, h2);
        if (r2 > 0) ok = same_heads(&whole, guard_end - r, &right, guard_end - k);
        r1 = parse_at(guard_first, bytes, k, &left, h1);
        ok = ok && r1 == r2 && (r1 == r || r1 == 0) && (r <= 0 || (r1 == r) == (k >= (size_t)r));
        if (r > 0 && k == n) parse_at(guard_end - r, bytes, (size_t)r, &whole, h);
    }
    if (!CHECK(ok)) printf("    case %s, prefix of %lu bytes\n", id, (unsigned long)k - 1);
}

TEST(no_prefix_reads_outside_its_bytes) {
    size_t i;
    guard_make();
    for (i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        check_prefixes(examples[i].id, examples[i].bytes, examples[i].len);
    }
    for (i = 0; i < sizeof more_examples / sizeof more_examples[0]; i++) {
        check_prefixes(more_examples[i].id, more_examples[i].bytes, more_examples[i].len);
    }
}

TEST(no_chunked_prefix_reads_outside_its_bytes) {
    size_t i, k;
    guard_make();
    for (i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const example* e = &examples[i];
        if (strncmp(e->id, "CH-", 3) != 0) continue;
        for (k = 0; k <= e->len; k++) { // as if the whole example were a body; mostly errors, never a crash
            nkhttp_chunked c;
            nkhttp_str data;
            size_t at = 0, used;
            char* p = guard_end - k;
            int r;
            memset(&c, 0, sizeof c);
            memcpy(p, e->bytes + e->len - k, k);
            do {
                r = nkhttp_chunked_next(&c, p + at, k - at, &used, &data);
                at += used;
                if (used > k || at > k) break;
            } while (r == NKHTTP_CHUNK_DATA || r == NKHTTP_CHUNK_TRAILER);
            if (at > k) CHECK(at <= k);
        }
    }
    CHECK(1);
}

// ---- scanners --------------------------------------------------------------------------------

TEST(scanners_agree_with_the_table) {
    int c, at;
    guard_make();
    for (c = 0; c < 256; c++) {
        for (at = 0; at < 48; at++) {
            char* p = guard_end - 48;
            int bits = nkhttp_p_chars[c], ok;
            memset(p, 'a', 48);
            p[at] = (char)c;
            ok = nkhttp_p_scan_value(p, guard_end) == (bits & NKHTTP_P_VALUE ? guard_end : p + at)
                && nkhttp_p_scan_target(p, guard_end) == (bits & NKHTTP_P_TARGET ? guard_end : p + at)
                && nkhttp_p_scan_name(p, guard_end) == (bits & NKHTTP_P_TOKEN ? guard_end : p + at);
            if (!ok) {
                CHECK(ok);
                printf("    character %d at %d\n", c, at);
            }
        }
    }
    CHECK(1);
}

TEST(character_classes_are_those_of_the_rfcs) {
    static const char tchar[] = "!#$%&'*+-.^_`|~";
    static const char target[] = "-._~!$&'()*+,;=%:@/?[]{}|^`";
    int c;
    for (c = 0; c < 256; c++) {
        int alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        int bits = nkhttp_p_chars[c], hex = nkhttp_p_hex((char)c) >= 0;
        int ok = !!(bits & NKHTTP_P_TOKEN) == (alnum || (c && strchr(tchar, c)))
            && !!(bits & NKHTTP_P_TARGET) == (alnum || (c && strchr(target, c)))
            && !!(bits & NKHTTP_P_VALUE) == (c == 9 || (c >= 32 && c != 127))
            && !!(bits & NKHTTP_P_UNRESERVED) == (alnum || (c && strchr("-._~", c)))
            && !!(bits & NKHTTP_P_REGNAME) == (alnum || (c && strchr("-._~!$&'()*+;=", c)))
            && !!(bits & NKHTTP_P_ALNUM) == alnum && !!(bits & NKHTTP_P_HEX) == hex
            && !!(bits & NKHTTP_P_DIGIT) == (c >= '0' && c <= '9');
        if (!ok) CHECK_INT(c, -1);
    }
    CHECK_INT(nkhttp_p_hex('F'), 15);
    CHECK_INT(nkhttp_p_hex('g'), -1);
}

// ---- heads in detail -------------------------------------------------------------------------

static nkhttp_header fields[HEADERS_MAX];

static int request(nkhttp_head* head, const char* text) {
    memset(head, 0, sizeof *head);
    head->headers = fields;
    head->max_headers = HEADERS_MAX;
    return nkhttp_parse_request(text, strlen(text), head);
}

static int response(nkhttp_head* head, const char* text) {
    memset(head, 0, sizeof *head);
    head->headers = fields;
    head->max_headers = HEADERS_MAX;
    return nkhttp_parse_response(text, strlen(text), head);
}

#define CHECK_SLICE(s, text) CHECK_STR((s).ptr, (s).len, text)

TEST(request_is_taken_apart) {
    nkhttp_head h;
    const char* text = "\r\nPOST /a/b%20c?x=1&y=?2 HTTP/1.1\r\nhOsT: Example.org:81\r\n"
                       "X-Empty:\r\nX:\t a b \t\r\n\r\nrest";
    CHECK_INT(request(&h, text), strlen(text) - 4);
    CHECK_INT(h.head_bytes, strlen(text) - 4);
    CHECK_SLICE(h.method, "POST");
    CHECK_INT(h.method_id, NKHTTP_POST);
    CHECK_SLICE(h.target, "/a/b%20c?x=1&y=?2");
    CHECK_SLICE(h.path, "/a/b%20c");
    CHECK_SLICE(h.query, "x=1&y=?2");
    CHECK_SLICE(h.host, "Example.org:81");
    CHECK_INT(h.minor_version, 1);
    CHECK_INT(h.num_headers, 3);
    CHECK_SLICE(h.headers[0].name, "hOsT");
    CHECK_SLICE(h.headers[1].value, "");
    CHECK_SLICE(h.headers[2].value, "a b");
    CHECK_INT(h.flags, NKHTTP_KEEP_ALIVE | NKHTTP_HAS_HOST | NKHTTP_HAS_QUERY);
}

TEST(targets_in_all_forms) {
    nkhttp_head h;
    CHECK(request(&h, "GET http://b:8/x/y?q HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    CHECK_SLICE(h.host, "b:8");
    CHECK_SLICE(h.path, "/x/y");
    CHECK_SLICE(h.query, "q");
    CHECK(h.flags & NKHTTP_ABSOLUTE);
    CHECK(request(&h, "GET http://b?q HTTP/1.0\r\n\r\n") > 0);
    CHECK_SLICE(h.path, "/");
    CHECK_SLICE(h.query, "q");
    CHECK_SLICE(h.host, "b");
    CHECK(h.flags & NKHTTP_HAS_HOST);
    CHECK(request(&h, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    CHECK_SLICE(h.path, "*");
    CHECK(request(&h, "CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n") > 0);
    CHECK_SLICE(h.path, "");
    CHECK_SLICE(h.host, "[::1]:443");
    CHECK(request(&h, "GET /? HTTP/1.1\r\nHost: x\r\n\r\n") > 0);
    CHECK(h.flags & NKHTTP_HAS_QUERY);
    CHECK_SLICE(h.query, "");
}

TEST(methods_are_known_by_number) {
    static const char* const names[] = { "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE" };
    static const int ids[] = { NKHTTP_GET, NKHTTP_HEAD, NKHTTP_POST, NKHTTP_PUT, NKHTTP_DELETE, NKHTTP_PATCH,
                               NKHTTP_OPTIONS, NKHTTP_TRACE };
    char text[100];
    nkhttp_head h;
    size_t i;
    for (i = 0; i < 8; i++) {
        snprintf(text, sizeof text, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", names[i]);
        CHECK(request(&h, text) > 0);
        CHECK_INT(h.method_id, ids[i]);
        text[0] ^= 0x20;
        CHECK(request(&h, text) > 0);
        CHECK_INT(h.method_id, 0);
    }
    snprintf(text, sizeof text, "%.32s / HTTP/1.0\r\n\r\n", "abcdefghijklmnopqrstuvwxyz0123456789");
    CHECK(request(&h, text) > 0);
    CHECK_INT(h.method.len, 32);
    CHECK_INT(request(&h, "abcdefghijklmnopqrstuvwxyz0123456"), NKHTTP_ERR_METHOD);
    CHECK_INT(request(&h, "abcdefghijklmnopqrstuvwxyz012345"), 0);
}

TEST(flags_say_what_follows) {
    static const struct { const char* fields; uint32_t flags; } rows[] = {
        { "Content-Length: 7\r\n", NKHTTP_HAS_LENGTH },
        { "Content-Length: 7\r\nExpect: 100-continue\r\n", NKHTTP_HAS_LENGTH | NKHTTP_EXPECT_CONTINUE },
        { "Content-Length: 0\r\nExpect: 100-continue\r\n", NKHTTP_HAS_LENGTH },
        { "expect: 100-Continue\r\nTRANSFER-ENCODING: CHUNKED\r\n", NKHTTP_CHUNKED | NKHTTP_EXPECT_CONTINUE },
        { "Expect: 100-continue\r\n", 0 },
        { "Connection: x, Upgrade\r\nUpgrade: websocket\r\n", NKHTTP_UPGRADE },
        { "Upgrade: websocket\r\n", 0 },
        { "Connection: upgrade\r\n", 0 },
        { "Connection: upgrade\r\nUpgrade:\r\n", 0 },
        { "TE: gzip;q=0.5, trailers\r\n", NKHTTP_TE_TRAILERS },
        { "TE: trailers;q=1\r\n", 0 }
    };
    char text[300];
    nkhttp_head h;
    size_t i;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", rows[i].fields);
        CHECK(request(&h, text) > 0);
        if (!CHECK_INT(h.flags, rows[i].flags | NKHTTP_KEEP_ALIVE | NKHTTP_HAS_HOST)) puts(rows[i].fields);
        CHECK_INT(h.content_length, strstr(rows[i].fields, " 7") ? 7 : 0);
    }
    CHECK(request(&h, "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n") > 0);
    CHECK_INT(h.flags, 0);
}

TEST(errors_show_at_their_first_byte) {
    static const struct { const char* prefix; int err; } rows[] = {
        { "\x16", NKHTTP_ERR_SYNTAX }, { " ", NKHTTP_ERR_SYNTAX }, { "\n", NKHTTP_ERR_SYNTAX },
        { "\rG", NKHTTP_ERR_SYNTAX }, { "G(", NKHTTP_ERR_SYNTAX }, { "GET\t", NKHTTP_ERR_SYNTAX },
        { "GET\r", NKHTTP_ERR_SYNTAX }, { "GET  ", NKHTTP_ERR_SYNTAX }, { "GET /\"", NKHTTP_ERR_SYNTAX },
        { "GET /\n", NKHTTP_ERR_SYNTAX }, { "GET /\r", NKHTTP_ERR_SYNTAX }, { "GET x ", NKHTTP_ERR_SYNTAX },
        { "GET / h", NKHTTP_ERR_SYNTAX }, { "GET / HTTP/x", NKHTTP_ERR_SYNTAX },
        { "GET / HTTP/1.1\n", NKHTTP_ERR_SYNTAX }, { "GET / HTTP/1.1\rx", NKHTTP_ERR_SYNTAX },
        { "GET / HTTP/2.0\r", NKHTTP_ERR_VERSION }, { GET " ", NKHTTP_ERR_SYNTAX }, { GET ":", NKHTTP_ERR_SYNTAX },
        { GET "A ", NKHTTP_ERR_SYNTAX }, { GET "A: \x01", NKHTTP_ERR_SYNTAX }, { GET "A: b\n", NKHTTP_ERR_SYNTAX },
        { GET "A: b\rc", NKHTTP_ERR_SYNTAX }, { GET "Host:\r\n", NKHTTP_ERR_HOST },
        { GET "Content-Length: x\r\n", NKHTTP_ERR_LENGTH }, { GET HOST "\rx", NKHTTP_ERR_SYNTAX }
    };
    nkhttp_head h;
    size_t i;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!CHECK_INT(request(&h, rows[i].prefix), rows[i].err)) puts(rows[i].prefix);
    }
}

TEST(limits_hit_at_the_byte_they_name) {
    static char text[40000];
    nkhttp_head h;
    nkhttp_header one[1];
    int n;
    memset(&h, 0, sizeof h);
    h.headers = one;
    h.max_headers = 1;
    n = snprintf(text, sizeof text, "GET /%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 83, 0);
    h.max_line_bytes = 99;
    CHECK_INT(nkhttp_parse_request(text, (size_t)n, &h), n);
    h.max_line_bytes = 98;
    CHECK_INT(nkhttp_parse_request(text, (size_t)n, &h), NKHTTP_ERR_TOO_LONG);
    CHECK_INT(nkhttp_parse_request(text, 98, &h), NKHTTP_ERR_TOO_LONG);
    CHECK_INT(nkhttp_parse_request(text, 97, &h), 0);
    h.max_line_bytes = 0;
    h.max_head_bytes = (uint32_t)n;
    CHECK_INT(nkhttp_parse_request(text, (size_t)n, &h), n);
    h.max_head_bytes = (uint32_t)n - 1;
    CHECK_INT(nkhttp_parse_request(text, (size_t)n, &h), NKHTTP_ERR_HEAD_TOO_LARGE);
    CHECK_INT(nkhttp_parse_request(text, (size_t)n - 1, &h), NKHTTP_ERR_HEAD_TOO_LARGE);
    CHECK_INT(nkhttp_parse_request(text, (size_t)n - 2, &h), 0);
    h.max_head_bytes = UINT32_MAX;
    h.max_line_bytes = UINT32_MAX;
    CHECK_INT(nkhttp_parse_request(text, (size_t)n, &h), n);
    h.max_headers = 0;
    CHECK_INT(nkhttp_parse_request(text, (size_t)n, &h), NKHTTP_ERR_TOO_MANY_HEADERS);
    h.headers = NULL;
    CHECK_INT(nkhttp_parse_request("GET / HTTP/1.0\r\n\r\n", 18, &h), 18);
}

TEST(finding_fields) {
    nkhttp_head h;
    const nkhttp_header* f;
    const char* found;
    size_t len = 99;
    CHECK(request(&h, "GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\naccept: y\r\nEtag: z\r\nACCEPT: w\r\n\r\n") > 0);
    f = nkhttp_find(&h, "Accept");
    CHECK(f == &h.headers[1]);
    f = nkhttp_find_next(&h, f, "Accept");
    CHECK(f == &h.headers[2]);
    f = nkhttp_find_next(&h, f, "Accept");
    CHECK(f == &h.headers[4]);
    CHECK(nkhttp_find_next(&h, f, "Accept") == NULL);
    CHECK(nkhttp_find(&h, "Accep") == NULL);
    CHECK(nkhttp_find(&h, "") == NULL);
    CHECK_SLICE(nkhttp_value(&h, "etag"), "z");
    CHECK_SLICE(nkhttp_value(&h, "none"), "");
    found = nkhttp_find_header(&h, "HOST", &len);
    CHECK_STR(found, len, "a");
    CHECK(nkhttp_find_header(&h, "X", &len) == NULL);
    CHECK_INT(len, 0);
}

static nkhttp_str slice(const char* text) { return nkhttp_p_str(text, strlen(text)); }

TEST(tokens_in_lists) {
    CHECK(nkhttp_has_token(slice("close"), "close"));
    CHECK(nkhttp_has_token(slice(" a ,\tClose\t, b"), "close"));
    CHECK(nkhttp_has_token(slice(",,close"), "CLOSE"));
    CHECK(!nkhttp_has_token(slice("closed, xclose, close x"), "close"));
    CHECK(!nkhttp_has_token(slice(""), "close"));
    CHECK(!nkhttp_has_token(slice(", ,"), ""));
    CHECK(!nkhttp_has_token(slice("close;q=1"), "close"));
    CHECK(nkhttp_is(slice("GzIp"), "gzip") && !nkhttp_is(slice("gzi"), "gzip"));
    CHECK(!nkhttp_is(slice("@"), "`")); // letters fold, symbols do not
}

TEST(rebase_moves_what_points_into_the_head) {
    const char* text = "GET http://h?q HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n";
    char copy[100];
    nkhttp_head h;
    int n = request(&h, text);
    CHECK(n > 0);
    memcpy(copy, text, (size_t)n);
    nkhttp_head_rebase(&h, text, copy);
    CHECK(h.method.ptr == copy && h.target.ptr == copy + 4 && h.host.ptr == copy + 11 && h.query.ptr == copy + 13);
    CHECK_SLICE(h.path, "/"); // a constant
    CHECK_SLICE(h.reason, "");
    CHECK(h.headers[0].name.ptr == copy + 25 && h.headers[0].value.ptr == copy + 31);
    CHECK(h.headers[1].value.ptr == copy + 36);
}

TEST(hosts) {
    static const char* const good[] = { "a", "a.b-c_d~", "1.2.3.4", "[::]", "[::1]:1", "[1:2:3:4:5:6:7:8]",
        "[1::8]", "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:1.2.3.4]", "[fe80::1:2]", "x:0", "[::2:3:4:5:6:7:8]", "a%41" };
    static const char* const bad[] = { "", ":", ":1", "[", "[]", "[:]", "[:::]", "[1]", "[1:2:3:4:5:6:7]",
        "[1:2:3:4:5:6:7:8:9]", "[1::2::3]", "[12345::]", "[::1.2.3]", "[::1.2.3.256]", "[::01.2.3.4]",
        "[::1.2.3.4:1]",
        "[1:]", "[::1", "::1", "a:b", "a:1:2", "a:999999", "a/b", "a,b", "a@b", "a?b", "a b", "%", "%4", "%zz",
        "[v1.x]", "[fe80::1%25eth0]", "[::g]", "[1:2:3:4:5:6:7:8::]", "[::1]x", "[::1]:-1" };
    size_t i;
    for (i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!CHECK(nkhttp_p_host_ok(slice(good[i])))) puts(good[i]);
    }
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (!CHECK(!nkhttp_p_host_ok(slice(bad[i])))) puts(bad[i]);
    }
}

TEST(responses) {
    nkhttp_head h;
    CHECK(request(&h, "HTTP/1.1 200 OK\r\n\r\n") < 0);
    CHECK_INT(response(&h, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), 38);
    CHECK_INT(h.status, 200);
    CHECK_SLICE(h.reason, "OK");
    CHECK_INT(h.flags, NKHTTP_KEEP_ALIVE | NKHTTP_HAS_LENGTH);
    CHECK_INT(h.content_length, 3);
    CHECK_INT(response(&h, "HTTP/1.1 404\r\n\r\n"), 16);
    CHECK_INT(h.flags, NKHTTP_KEEP_ALIVE | NKHTTP_UNTIL_CLOSE);
    CHECK_INT(response(&h, "HTTP/1.0 404 Not\tF\xfcnd \r\nConnection: keep-alive\r\n\r\n"), 50);
    CHECK_INT(h.flags, NKHTTP_KEEP_ALIVE | NKHTTP_UNTIL_CLOSE);
    CHECK(response(&h, "HTTP/1.1 204 \r\n\r\n") > 0);
    CHECK_INT(h.flags, NKHTTP_KEEP_ALIVE | NKHTTP_NO_BODY);
    CHECK_SLICE(h.reason, "");
    CHECK(response(&h, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n") > 0);
    CHECK_INT(h.flags, NKHTTP_CHUNKED);
    CHECK(response(&h, "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n") > 0);
    CHECK_INT(h.flags, NKHTTP_KEEP_ALIVE | NKHTTP_NO_BODY | NKHTTP_UPGRADE);
    CHECK(response(&h, "HTTP/1.1 200 OK\r\nHost: a b\r\nExpect: what\r\n\r\n") > 0); // mean nothing here
    CHECK_INT(response(&h, "HTTP/1.1 20"), 0);
    CHECK_INT(response(&h, "HTTP/1.1 200 O"), 0);
    CHECK_INT(response(&h, "\r\nHTTP/1.1 200 OK\r\n\r\n"), NKHTTP_ERR_SYNTAX);
    CHECK_INT(response(&h, "HTTP/1.1 2x"), NKHTTP_ERR_SYNTAX);
    CHECK_INT(response(&h, "HTTP/1.1 099"), NKHTTP_ERR_SYNTAX);
    CHECK_INT(response(&h, "HTTP/1.1 2000"), NKHTTP_ERR_SYNTAX);
    CHECK_INT(response(&h, "HTTP/1.1 200 O\n"), NKHTTP_ERR_SYNTAX);
    CHECK_INT(response(&h, "HTTP/2.0 200 OK\r\n\r\n"), NKHTTP_ERR_VERSION);
    CHECK_INT(response(&h, "HTTP/1.1 200 OK\r\n" TE "Content-Length: 1\r\n\r\n"), NKHTTP_ERR_LENGTH);
    CHECK_INT(response(&h, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), NKHTTP_ERR_CODING);
}

// ---- chunked bodies in detail ----------------------------------------------------------------

TEST(chunked_events) {
    const char* text = "3;x=y\r\nabc\r\n0\r\nX-Sum: 7\r\nHost: evil\r\nSet-cookie: a\r\nY:\r\n\r\nGET";
    nkhttp_chunked c;
    nkhttp_str data;
    size_t used, at = 0, n = strlen(text);
    CHECK(sizeof c <= 32);
    memset(&c, 0, sizeof c);
    CHECK_INT(nkhttp_chunked_next(&c, text, n, &used, &data), NKHTTP_CHUNK_DATA);
    CHECK_SLICE(data, "abc");
    at += used;
    CHECK_INT(nkhttp_chunked_next(&c, text + at, n - at, &used, &data), NKHTTP_CHUNK_TRAILER);
    CHECK_SLICE(data, "X-Sum: 7");
    CHECK_SLICE(nkhttp_trailer(data).name, "X-Sum");
    CHECK_SLICE(nkhttp_trailer(data).value, "7");
    at += used;
    CHECK_INT(nkhttp_chunked_next(&c, text + at, n - at, &used, &data), NKHTTP_CHUNK_TRAILER);
    CHECK_SLICE(nkhttp_trailer(data).name, "Y"); // Host and Set-Cookie were dropped
    CHECK_SLICE(nkhttp_trailer(data).value, "");
    at += used;
    CHECK_INT(nkhttp_chunked_next(&c, text + at, n - at, &used, &data), NKHTTP_CHUNK_DONE);
    at += used;
    CHECK_STR(text + at, n - at, "GET");
    CHECK_INT(nkhttp_chunked_next(&c, text + at, n - at, &used, &data), NKHTTP_CHUNK_DONE);
    CHECK_INT(used, 0);
}

TEST(chunked_errors_stay) {
    nkhttp_chunked c;
    nkhttp_str data;
    size_t used;
    memset(&c, 0, sizeof c);
    CHECK_INT(nkhttp_chunked_next(&c, "", 0, &used, &data), NKHTTP_CHUNK_MORE);
    CHECK_INT(nkhttp_chunked_next(&c, "2", 1, &used, &data), NKHTTP_CHUNK_MORE);
    CHECK_INT(used, 0);
    CHECK_INT(nkhttp_chunked_next(&c, "2\r\n", 3, &used, &data), NKHTTP_CHUNK_MORE);
    CHECK_INT(used, 3);
    CHECK_INT(nkhttp_chunked_next(&c, "abX", 3, &used, &data), NKHTTP_CHUNK_DATA);
    CHECK_INT(used, 2);
    CHECK_INT(nkhttp_chunked_next(&c, "X", 1, &used, &data), NKHTTP_ERR_CHUNK);
    CHECK_INT(nkhttp_chunked_next(&c, "\r\n" END, 7, &used, &data), NKHTTP_ERR_CHUNK);
    CHECK_INT(nkhttp_chunked_next(&c, END, 5, &used, &data), NKHTTP_ERR_CHUNK);
    CHECK_INT(used, 0);
}

TEST(chunk_heads_decode_again) {
    static const uint64_t sizes[] = { 0, 1, 15, 16, 255, 4096, 0xdeadbeef, 0x123456789abcdefULL, INT64_MAX };
    size_t i, n;
    for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char text[20];
        uint64_t size = 99;
        n = nkhttp_chunk_head(text, sizes[i]);
        CHECK_INT(nkhttp_p_chunk_line(text, n, &size), n);
        CHECK(size == sizes[i]);
    }
    CHECK_INT(nkhttp_chunk_head((char*)fields, UINT64_MAX), 18);
}

// ---- writing ---------------------------------------------------------------------------------

TEST(out_writes_heads) {
    char mem[300];
    nkhttp_out o;
    nkhttp_head h;
    nkhttp_out_init(&o, mem, sizeof mem);
    nkhttp_out_status(&o, 200);
    nkhttp_out_date(&o, 784111777);
    nkhttp_out_field(&o, "X-Note", "caf\xe9\t!", 6);
    nkhttp_out_field(&o, "X-None", NULL, 0);
    nkhttp_out_field_u64(&o, "Content-Length", UINT64_MAX);
    CHECK_INT(nkhttp_out_end(&o), 0);
    CHECK_STR(mem, o.len, "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Note: caf\xe9\t!\r\n"
              "X-None: \r\nContent-Length: 18446744073709551615\r\n\r\n");
    nkhttp_out_init(&o, mem, sizeof mem);
    nkhttp_out_status(&o, 599);
    CHECK_STR(mem, o.len, "HTTP/1.1 599 \r\n");
    nkhttp_out_init(&o, mem, sizeof mem);
    nkhttp_out_request(&o, "PUT", "/x?y", "a:1");
    CHECK_INT(nkhttp_out_end(&o), 0);
    mem[o.len] = 0;
    CHECK_INT(request(&h, mem), o.len);
    CHECK_SLICE(h.host, "a:1");
}

static int out_err(const char* name, const char* value, size_t n) {
    char mem[100];
    nkhttp_out o;
    nkhttp_out_init(&o, mem, sizeof mem);
    nkhttp_out_field(&o, name, value, n);
    if (o.err) CHECK_INT(o.len, 0);
    nkhttp_out_field(&o, "A", "b", 1); // the first error stays
    return nkhttp_out_end(&o);
}

static int request_err(const char* method, const char* target, const char* host) {
    char mem[100];
    nkhttp_out o;
    nkhttp_out_init(&o, mem, sizeof mem);
    nkhttp_out_request(&o, method, target, host);
    return o.err;
}

TEST(out_refuses_injection) {
    CHECK_INT(out_err("A", "b", 1), 0);
    CHECK_INT(out_err("A", "b\r\nC: d", 7), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("A", "b\n", 2), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("A", "\rb", 2), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("A", "b\0c", 3), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("A", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", 41), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("", "b", 1), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("A:", "b", 1), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("A\r\nB", "b", 1), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(out_err("A b", "b", 1), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(request_err("GET", "/", "a"), 0);
    CHECK_INT(request_err("GET", "/", NULL), 0);
    CHECK_INT(request_err("G T", "/", "a"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(request_err("", "/", "a"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(request_err("GET", "/ ", "a"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(request_err("GET", "", "a"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(request_err("GET", "/", "a\r\nb"), NKHTTP_ERR_HEADER_VALUE);
}

TEST(out_stops_at_its_capacity) {
    char mem[64];
    nkhttp_out o;
    size_t cap;
    for (cap = 0; cap < 40; cap++) {
        memset(mem, '#', sizeof mem);
        nkhttp_out_init(&o, mem, cap);
        nkhttp_out_status(&o, 204);   // 25 bytes
        nkhttp_out_field(&o, "A", "b", 1); // 6
        nkhttp_out_end(&o);           // 2
        CHECK_INT(o.err, cap < 33 ? NKHTTP_ERR_NOSPACE : 0);
        CHECK(o.len <= cap && mem[cap] == '#');
    }
    nkhttp_out_init(&o, mem, sizeof mem);
    nkhttp_out_status(&o, 99);
    CHECK_INT(o.err, NKHTTP_ERR_HEADER_VALUE);
    nkhttp_out_init(&o, mem, 0);
    nkhttp_out_raw(&o, NULL, 0);
    CHECK_INT(o.err, 0);
}

TEST(numbers) {
    static const uint64_t values[] = { 0, 1, 9, 10, 11, 99, 100, 101, 999, 1000, 65535, 4294967295u,
        4294967296u, 9999999999u, 10000000000u, INT64_MAX, UINT64_MAX };
    uint64_t n = 0;
    size_t i;
    for (i = 0; i < sizeof values / sizeof values[0]; i++) {
        char got[20], want[30];
        snprintf(want, sizeof want, "%llu", (unsigned long long)values[i]);
        CHECK_STR(got, nkhttp_p_u64(got, values[i]), want);
        CHECK_INT(nkhttp_p_number(slice(want), &n), values[i] <= INT64_MAX ? 1 : -1);
        if (values[i] <= INT64_MAX) CHECK(n == values[i]);
    }
    CHECK_INT(nkhttp_p_number(slice(""), &n), 0);
    CHECK_INT(nkhttp_p_number(slice("1 "), &n), 0);
    CHECK_INT(nkhttp_p_number(slice("-1"), &n), 0);
    CHECK_INT(nkhttp_p_number(slice("00000000000000000000000000000012"), &n), 1);
    CHECK_INT(n, 12);
    CHECK_INT(nkhttp_p_number(slice("9223372036854775808"), &n), -1);
}

TEST(texts_of_codes) {
    CHECK_STR(nkhttp_reason(200), 2, "OK");
    CHECK_STR(nkhttp_reason(511), strlen(nkhttp_reason(511)), "Network Authentication Required");
    CHECK_STR(nkhttp_reason(299), 0, "");
    CHECK_INT(nkhttp_status_of(NKHTTP_ERR_VERSION), 505);
    CHECK_INT(nkhttp_status_of(NKHTTP_ERR_NOSPACE), 500);
    CHECK_INT(nkhttp_status_of(-9999), 500);
    CHECK(strlen(nkhttp_strerror(NKHTTP_ERR_CHUNK)) > 5);
    CHECK_STR(nkhttp_strerror(0), 2, "ok");
    CHECK(nkhttp_strerror(-9999) != NULL);
}

// ---- dates -----------------------------------------------------------------------------------

TEST(dates_are_written_and_read) {
    static const struct { int64_t t; const char* text; } rows[] = {
        { 0, "Thu, 01 Jan 1970 00:00:00 GMT" },          { -1, "Wed, 31 Dec 1969 23:59:59 GMT" },
        { 784111777, "Sun, 06 Nov 1994 08:49:37 GMT" },  { 951782400, "Tue, 29 Feb 2000 00:00:00 GMT" },
        { 951868799, "Tue, 29 Feb 2000 23:59:59 GMT" },  { 951868800, "Wed, 01 Mar 2000 00:00:00 GMT" },
        { 1709164800, "Thu, 29 Feb 2024 00:00:00 GMT" }, { 4107542400, "Mon, 01 Mar 2100 00:00:00 GMT" },
        { 2147483648, "Tue, 19 Jan 2038 03:14:08 GMT" }, { 253402300799, "Fri, 31 Dec 9999 23:59:59 GMT" },
        { -62135596800, "Mon, 01 Jan 0001 00:00:00 GMT" }
    };
    char text[29];
    int64_t t;
    size_t i;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nkhttp_format_date(text, rows[i].t);
        CHECK_STR(text, 29, rows[i].text);
        t = 1;
        CHECK_INT(nkhttp_parse_date(text, 29, &t), 0);
        CHECK_INT(t, rows[i].t);
    }
    nkhttp_format_date(text, INT64_MAX);
    CHECK_STR(text, 29, "Fri, 31 Dec 9999 23:59:59 GMT");
    nkhttp_format_date(text, INT64_MIN);
    CHECK_STR(text, 29, "Mon, 01 Jan 0001 00:00:00 GMT");
}

TEST(every_day_of_10000_years) {
    int64_t day, t = 0, last = 253402300799 / 86400, bad = 0;
    char text[29], before[29] = "";
    for (day = -62135596800 / 86400; day <= last; day++) {
        nkhttp_format_date(text, day * 86400 + 86399);
        if (nkhttp_parse_date(text, 29, &t) != 0 || t != day * 86400 + 86399) bad++;
        if (memcmp(text, before, 29) == 0) bad++;
        memcpy(before, text, 29);
    }
    CHECK_INT(bad, 0);
}

TEST(dates_in_three_formats) {
    static const struct { const char* text; int64_t t; } good[] = {
        { "Sun, 06 Nov 1994 08:49:37 GMT", 784111777 },  { "Sunday, 06-Nov-94 08:49:37 GMT", 784111777 },
        { "Sun Nov  6 08:49:37 1994", 784111777 },       { "Wed Nov 16 08:49:37 1994", 784975777 },
        { "Wednesday, 01-Jan-20 00:00:00 GMT", 1577836800 }, { "Saturday, 01-Jan-77 00:00:00 GMT", 220924800 },
        { "Wednesday, 01-Jan-76 00:00:00 GMT", 3345062400 }, { "Sat, 31 Dec 2016 23:59:60 GMT", 1483228800 }
    };
    static const char* const bad[] = { "", "x", "Sun, 06 Nov 1994 08:49:37 gmt", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 6 Nov 1994 08:49:37 GMT", "Sun,  6 Nov 1994 08:49:37 GMT", "sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 NOV 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 31 Nov 1994 08:49:37 GMT",
        "Tue, 29 Feb 1900 00:00:00 GMT", "Tue, 29 Feb 2023 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ", " Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GM",
        "Sun, 06 Nov 94 08:49:37 GMT", "Sunday, 06-Nov-1994 08:49:37 GMT", "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday 06-Nov-94 08:49:37 GMT", "Sunda, 06-Nov-94 08:49:37 GMT", "Sun Nov 06 08:49:37 94",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  06 8:49:37 1994", "Xxx Nov  6 08:49:37 1994", "Sun Xxx  6 08:49:37 1994", "1994-11-06T08:49:37Z",
        "Thursday , 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37\0GMT" };
    size_t i;
    int64_t t = 0;
    guard_make();
    for (i = 0; i < sizeof good / sizeof good[0]; i++) {
        size_t n = strlen(good[i].text);
        memcpy(guard_end - n, good[i].text, n);
        if (!CHECK_INT(nkhttp_parse_date(guard_end - n, n, &t), 0)) puts(good[i].text);
        CHECK_INT(t, good[i].t);
    }
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t n = strlen(bad[i]);
        memcpy(guard_end - n, bad[i], n);
        if (!CHECK_INT(nkhttp_parse_date(guard_end - n, n, &t), NKHTTP_ERR_SYNTAX)) puts(bad[i]);
    }
}
