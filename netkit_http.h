#if defined(NETKIT_IMPLEMENTATION) && !defined(NETKIT_HTTP_IMPLEMENTATION)
#define NETKIT_HTTP_IMPLEMENTATION
#endif
#if defined(NETKIT_HTTP_IMPLEMENTATION) && !defined(NETKIT_HTTP_IMPLEMENTED)
    #ifndef _GNU_SOURCE
        // the first system header settles what the others declare; harmless where it means nothing
        #define _GNU_SOURCE 1
    #endif
    #ifndef _FILE_OFFSET_BITS
        #define _FILE_OFFSET_BITS 64 // files over 2 GiB on 32-bit systems
    #endif
#endif
#ifndef NETKIT_HTTP_INCLUDED
#define NETKIT_HTTP_INCLUDED 1
/*  netkit_http.h -- HTTP/1.1 server, and its parser alone.  v0.1.0  MIT or public domain (see end)

DO THIS
    In one .c or .cpp file of its own, as its first lines:
        #define NETKIT_IMPLEMENTATION
        #include "netkit_http.h"
    and everywhere else just #include "netkit_http.h". It includes netkit_loop.h, which must lie beside it.
    For the parser and the helpers alone: #define NETKIT_HTTP_NO_LOOP before every #include; nothing else is needed.

LINK WITH
    POSIX: -lpthread. Windows: ws2_32. With NETKIT_HTTP_NO_LOOP: nothing.

DOES
    - HTTP/1.0 and 1.1 by RFC 9110 and 9112, strict where looseness lets one request hide another
    - pipelining, replies in order however late and from whatever thread they come; Expect, HEAD, OPTIONS, upgrades
    - bodies in memory up to a limit, or streamed both ways with backpressure; chunked with trailers; events (SSE)
    - routes with {param} and {path*}; 404, 405 with Allow; handlers in the loop or on a pool of workers
    - limits and deadlines for head, body, idle, writing and handling, each with its status code
    - static files from a directory, a table, or callbacks: ETag, Range, conditionals, sendfile, precompressed .gz
    - queries, forms, cookies, multipart, Basic auth, negotiation, CORS, Host allow-list, PROXY protocol, codec slot
DOES NOT
    - HTTP/2 and 3, a client (there is nkhttp_parse_response), TLS of its own (a filter of the loop does that)
    - obs-fold, bare LF, or any other leniency: such requests are answered 400 and the connection ends
    - sessions, templates, Digest, WebSocket (netkit_ws.h takes over a stream with nkhttp_detach)
    - files without blocking: opening and reading happen on the loop's thread

EXAMPLE
    // example.c -- build with `cc example.c -lpthread`, then `curl -i http://127.0.0.1:8080/hello/world`
    #define NETKIT_IMPLEMENTATION
    #include "netkit_http.h"

    static void on_hello(void* user, nkhttp_req* req) {
        nkhttp_str name = nkhttp_param(req, "name");
        char text[256];
        int n = snprintf(text, sizeof text, "Hello, %.*s!\n", (int)(name.len < 200 ? name.len : 200), name.ptr);
        (void)user;
        nkhttp_reply(req, 200, "text/plain; charset=utf-8", text, (size_t)n);
    }

    static void on_ready(void* user, nkloop* L, nkhttp_server* srv) {
        (void)user; (void)L;
        nkhttp_route(srv, "GET", "/hello/{name}", on_hello, NULL);
    }

    int main(void) {
        nkhttp_server_desc d = { 0 };
        int err;
        d.address = "127.0.0.1:8080";
        err = nkhttp_run(&d, on_ready); // or nkhttp_server_create on a loop of your own, pumped once per frame
        if (err < 0) printf("cannot serve on %s: %s\n", d.address, nkhttp_strerror(err));
        return err < 0;
    }

IDEAS
    Two halves. The core is pure functions over bytes: heads, chunks, dates, queries, multipart, ranges, routes.
    It does no I/O, allocates nothing (the router takes your allocator), reads no clock, and everything it reads
    may be hostile. The server is the other half: connections on an nkloop, on its thread.
    A handler sees an nkhttp_req. Its slices point into the receive buffer and are good until the handler
    returns. It answers with exactly one reply, or nkhttp_defer, or nkhttp_detach; if it does none of these, 500
    is sent for it.
    nkhttp_defer gives a handle, a number that is good on any thread while the server lives: when the client is
    gone, or the reply was made, every call with it says NKHTTP_ERR_STALE. Nothing has to be cancelled.
    With workers the handlers run on a pool and may run at the same time; nkhttp_req functions are then called
    on the worker. Streamed bodies, upgrades and routes with in_loop = 1 stay on the loop's thread.
    Replies of one connection leave in the order of its requests. Those made out of turn wait, within
    max_buffered_bytes.
    Errors of a client are answered once with Connection: close; the stream is then half-closed and drained, so
    that the answer arrives although the client may still be sending.
    Nothing a program puts into a header can break out of it: CR, LF and NUL are refused with
    NKHTTP_ERR_HEADER_VALUE.

TOUR
    core      nkhttp_parse_request parse_response find has_token, nkhttp_chunked_next, nkhttp_out_..., format_date
    helpers   nkhttp_query_next percent_decode cookie_get basic_auth router_add multipart_next parse_range
    server    nkhttp_run, or nkhttp_server_create listen attach address shutdown destroy; nkhttp_route serve_files
    request   nkhttp_param header_value peer trailers
    reply     nkhttp_reply reply_text reply_with redirect set_header require_basic_auth reply_file
    later     nkhttp_defer, then nkhttp_later_reply, or later_begin write end abort, later_watch; nkhttp_sse_begin send
    hand over nkhttp_detach, nkhttp_pause_body

OPTIONS
    macro                       default                     where
    NETKIT_HTTP_API             extern                      everywhere; e.g. your dllexport
    NETKIT_HTTP_STATIC          off                         everywhere; all functions static
    NETKIT_HTTP_NO_LOOP         off                         everywhere; core and helpers only
    NETKIT_HTTP_NO_FILES        off                         everywhere; no static files, ranges, conditionals
    NETKIT_HTTP_NO_MULTIPART    off                         everywhere; no multipart parser
    NETKIT_HTTP_NO_WORKERS      off                         implementation only; desc.workers must be 0
    NETKIT_HTTP_NO_SIMD         off                         implementation only; scan by 8-byte words
    NETKIT_HTTP_NO_LOG          off                         implementation only; no log texts
    NETKIT_HTTP_ASSERT(c)       NETKIT_ASSERT, else assert  implementation only
    NETKIT_HTTP_SYS_...         the system's                implementation only; file calls, for fault tests (see @os)

LIMITS AND SAFETY
    Everything a peer sends may be hostile, and everything is bounded: nkhttp_server_desc lists the numbers,
    zero is a sensible one. Idle connections cost 224 bytes, loop included. Patterns hold at most 16 parameters
    and 32 segments. Trailers count as head. Files are served from below their root only, whatever the path
    says; links that leave it are refused. alloc_fn of the loop must be thread-safe with workers or when other
    threads answer. Parser, chunks, multipart, queries, ranges, dates and paths are fuzzed; every allocation and
    system call is made to fail in the tests.

CHANGES
    0.1.0  first version
*/
#include <stddef.h>
#include <stdint.h>
#ifndef NETKIT_HTTP_NO_LOOP
    #include "netkit_loop.h"
    #if NETKIT_LOOP_VERSION < 100
        #error "netkit_http.h needs netkit_loop.h 0.1.0 or later"
    #endif
#endif
#define NETKIT_HTTP_VERSION 100 // 0.1.0 = major * 10000 + minor * 100 + patch
#ifndef NETKIT_HTTP_API
    #if defined(NETKIT_HTTP_STATIC)
        #if defined(__GNUC__)
            #define NETKIT_HTTP_API __attribute__((unused)) static
        #else
            #define NETKIT_HTTP_API static
        #endif
    #else
        #define NETKIT_HTTP_API extern
    #endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

// -- errors ------------------------------------------------------------------------------------
// name, code, HTTP status that answers a peer whose bytes caused it (0: not a peer's doing), text
#define NKHTTP_ERRORS(X) \
    X(SYNTAX,           -100, 400, "malformed message") \
    X(HOST,             -101, 400, "missing, repeated or invalid Host") \
    X(LENGTH,           -102, 400, "invalid or ambiguous body length") \
    X(TOO_LONG,         -103, 414, "request line too long") \
    X(HEAD_TOO_LARGE,   -104, 431, "header or trailer section too large") \
    X(TOO_MANY_HEADERS, -105, 431, "too many header fields") \
    X(VERSION,          -106, 505, "HTTP version not supported") \
    X(CODING,           -107, 501, "transfer coding not supported") \
    X(METHOD,           -108, 501, "method name too long") \
    X(EXPECTATION,      -109, 417, "expectation not supported") \
    X(BODY_TOO_LARGE,   -110, 413, "body too large") \
    X(CHUNK,            -111, 400, "malformed chunked body") \
    X(RANGE,            -112, 416, "range not satisfiable") \
    X(MULTIPART,        -113, 400, "malformed multipart body") \
    X(HEADER_VALUE,     -114,   0, "name or value may not stand in a header field") \
    X(NOSPACE,          -115,   0, "output buffer too small") \
    X(ENCODING,         -116, 400, "invalid percent-encoding or character") \
    X(REPLIED,          -140,   0, "request was already answered") \
    X(DETACHED,         -141,   0, "stream was detached") \
    X(STALE,            -142,   0, "request is gone") \
    X(ABSENT,           -150,   0, "no such key, cookie, parameter or field") \
    X(PATH,             -151, 404, "path is not safe to open") \
    X(PATTERN,          -152,   0, "malformed route pattern or method, or too many") \
    X(DUPLICATE,        -153,   0, "route is taken") \
    X(NO_ROUTE,         -154, 404, "no route for this path") \
    X(NO_METHOD,        -155, 405, "no route for this method") \
    X(MEMORY,           -156, 503, "out of memory") \
    X(PROXY,            -157, 400, "malformed PROXY header") \
    X(PART_HEAD,        -158, 413, "head of a multipart part is too large") \
    X(PART_COUNT,       -159, 413, "too many multipart parts") \
    X(NOT_FOUND,        -170, 404, "no such file") \
    X(FORBIDDEN,        -171, 403, "file may not be read") \
    X(UNAVAILABLE,      -172, 503, "no descriptor or memory left just now")

enum {
    NKHTTP_OK = 0,
#define NKHTTP_P_ENUM(name, code, status, text) NKHTTP_ERR_##name = (code),
    NKHTTP_ERRORS(NKHTTP_P_ENUM)
#undef NKHTTP_P_ENUM
    NKHTTP_ERR_LAST = -199 // the range -100 .. -199 belongs to this header
};

NETKIT_HTTP_API const char* nkhttp_strerror(int err);  // never NULL; the text is static
NETKIT_HTTP_API int         nkhttp_status_of(int err); // 400, 431, ... as listed above, else 500
NETKIT_HTTP_API const char* nkhttp_reason(int status); // reason phrase, "" when there is none

// -- heads of messages -------------------------------------------------------------------------
// Not terminated. In results ptr is never NULL, but for nkhttp_param.
typedef struct nkhttp_str    { const char* ptr; size_t len; } nkhttp_str;
typedef struct nkhttp_header { nkhttp_str name, value; } nkhttp_header;   // value without OWS around it

enum { // nkhttp_head.method_id; other methods are 0 and told apart by nkhttp_head.method
    NKHTTP_GET = 1, NKHTTP_HEAD, NKHTTP_POST, NKHTTP_PUT, NKHTTP_DELETE, NKHTTP_PATCH,
    NKHTTP_OPTIONS, NKHTTP_CONNECT, NKHTTP_TRACE
};

enum { // nkhttp_head.flags: what the head says about its body and its connection, all rules applied
    NKHTTP_KEEP_ALIVE      = 0x001, // the connection may carry another message afterwards
    NKHTTP_HAS_LENGTH      = 0x002, // content_length was given
    NKHTTP_CHUNKED         = 0x004, // body is chunked; never together with NKHTTP_HAS_LENGTH
    NKHTTP_EXPECT_CONTINUE = 0x008, // HTTP/1.1, a body follows, the client may wait for 100
    NKHTTP_UPGRADE         = 0x010, // HTTP/1.1, an Upgrade field, "upgrade" in Connection
    NKHTTP_HAS_HOST        = 0x020, // host is known, by field or by target
    NKHTTP_ABSOLUTE        = 0x040, // target was in absolute-form
    NKHTTP_HAS_QUERY       = 0x080, // target had a "?", query may still be empty
    NKHTTP_TE_TRAILERS     = 0x100, // the client said it will take trailer fields
    NKHTTP_NO_BODY         = 0x200, // responses: 1xx, 204, 304 never have one
    NKHTTP_UNTIL_CLOSE     = 0x400  // responses: body ends with the connection
};

typedef struct nkhttp_head {
    nkhttp_header* headers;        // in: your array, filled in the order sent
    uint32_t       max_headers;    // in: its capacity; more is NKHTTP_ERR_TOO_MANY_HEADERS
    uint32_t       max_line_bytes; // in: longest request or status line with its CRLF, 0 = 8192
    uint32_t       max_head_bytes; // in: longest head, 0 = 32768
    uint32_t       num_headers;    // out, as everything below; valid only after a result > 0
    uint32_t       head_bytes;     // the same number the parser returned
    uint32_t       flags;          // NKHTTP_KEEP_ALIVE | ...
    int            method_id;      // NKHTTP_GET ..., or 0
    int            minor_version;  // 0 or 1; HTTP/1.2 to 1.9 are 1
    int            status;         // responses: 100 .. 999
    uint64_t       content_length; // 0 unless NKHTTP_HAS_LENGTH; at most 2^63 - 1
    nkhttp_str     method, target; // as sent
    nkhttp_str     path, query;    // percent-encoded; path: "/...", "*" (OPTIONS), "" (CONNECT)
    nkhttp_str     host;           // host[:port], checked; of an absolute target, else of Host
    nkhttp_str     reason;         // responses
} nkhttp_head;

// > 0: bytes of the head, 0: incomplete, < 0: error. Stateless: call again from the start with more
// bytes. Slices point into buf. On success all rules about framing, Host, Connection, Expect and
// Upgrade have been applied. A malformed line is reported at its first bad byte, whatever follows.
// To keep a slow sender cheap, call again only when an LF has come or your buffer is full.
NETKIT_HTTP_API int nkhttp_parse_request(const char* buf, size_t len, nkhttp_head* head);
// The same for clients. Flags cannot know that the request was HEAD or CONNECT; the caller does.
NETKIT_HTTP_API int nkhttp_parse_response(const char* buf, size_t len, nkhttp_head* head);
// Moves all slices after the bytes of the head were copied from old_base to new_base.
NETKIT_HTTP_API void nkhttp_head_rebase(nkhttp_head* head, const char* old_base,
                                        const char* new_base);

// Field names are compared without regard to case.
// the first field of that name, or NULL
NETKIT_HTTP_API const nkhttp_header* nkhttp_find(const nkhttp_head* head, const char* name);
// the next field of that name after `after`, or NULL
NETKIT_HTTP_API const nkhttp_header* nkhttp_find_next(const nkhttp_head* head,
                                                      const nkhttp_header* after, const char* name);
// value of the first such field, empty if there is none
NETKIT_HTTP_API nkhttp_str  nkhttp_value(const nkhttp_head* head, const char* name);
// the same in plain types, for other headers to call; NULL if there is none
NETKIT_HTTP_API const char* nkhttp_find_header(const void* head, const char* name, size_t* len);

NETKIT_HTTP_API int nkhttp_is(nkhttp_str s, const char* text);            // equal but for case (ASCII)
NETKIT_HTTP_API int nkhttp_has_token(nkhttp_str list, const char* token); // in "a, b"; not in "b;q=1"

// -- chunked bodies ----------------------------------------------------------------------------
// A pull decoder: give it the bytes you have, drop `used` bytes, until it says DONE or an error.
typedef struct nkhttp_chunked { // all-zero is ready to use; nothing in it is yours
    uint64_t left, data_bytes, framing_bytes;
    uint32_t trailer_bytes;
    uint32_t state;
} nkhttp_chunked;

enum {
    NKHTTP_CHUNK_MORE = 0, // no event without more bytes; `used` may still be > 0, keep the rest
    NKHTTP_CHUNK_DATA,     // data is a piece of the body inside buf
    NKHTTP_CHUNK_TRAILER,  // data is a trailer field line without its CRLF; see nkhttp_trailer
    NKHTTP_CHUNK_DONE      // the body is over; unused bytes belong to the next message
};

// Trailer fields that frame, route, authenticate or condition a message are checked and dropped
// (RFC 9110 6.5.1). After an error every later call repeats it.
NETKIT_HTTP_API int nkhttp_chunked_next(nkhttp_chunked* c, const char* buf, size_t len,
                                        size_t* used, nkhttp_str* data);
NETKIT_HTTP_API nkhttp_header nkhttp_trailer(nkhttp_str line); // splits what CHUNK_TRAILER gave

// -- writing -----------------------------------------------------------------------------------
// Appends to memory of yours. The first error sticks in err and stops all later writing, so that one
// check at the end is enough. Names and values that could split a head are NKHTTP_ERR_HEADER_VALUE.
typedef struct nkhttp_out { char* ptr; size_t len, cap; int err; } nkhttp_out;

// mem: kept, yours
NETKIT_HTTP_API void nkhttp_out_init(nkhttp_out* o, char* mem, size_t cap);
NETKIT_HTTP_API void nkhttp_out_raw(nkhttp_out* o, const char* bytes, size_t len); // unchecked
NETKIT_HTTP_API void nkhttp_out_status(nkhttp_out* o, int status); // "HTTP/1.1 200 OK\r\n"; 100 .. 999
// Request line, and Host unless host is NULL.
NETKIT_HTTP_API void nkhttp_out_request(nkhttp_out* o, const char* method, const char* target,
                                        const char* host);
// sets err to NKHTTP_ERR_HEADER_VALUE and writes nothing if the field could break out of its line
NETKIT_HTTP_API void nkhttp_out_field(nkhttp_out* o, const char* name, const char* value, size_t len);
// the same with a decimal number
NETKIT_HTTP_API void nkhttp_out_field_u64(nkhttp_out* o, const char* name, uint64_t value);
NETKIT_HTTP_API void nkhttp_out_date(nkhttp_out* o, int64_t unix_seconds); // "Date: ...\r\n"
NETKIT_HTTP_API int  nkhttp_out_end(nkhttp_out* o);                        // empty line; returns err

// 1: may be sent as a field
NETKIT_HTTP_API int    nkhttp_field_ok(const char* name, size_t name_len,
                                       const char* value, size_t value_len);
// "1a2b\r\n", what stands before a chunk; no terminator; its length
NETKIT_HTTP_API size_t nkhttp_chunk_head(char dst[20], uint64_t size);

// -- dates -------------------------------------------------------------------------------------
// "Sun, 06 Nov 1994 08:49:37 GMT", no terminator; clamped to years 1 .. 9999
NETKIT_HTTP_API void nkhttp_format_date(char dst[29], int64_t unix_seconds);
// All three formats of RFC 9110 5.6.7. 0 or NKHTTP_ERR_SYNTAX.
NETKIT_HTTP_API int  nkhttp_parse_date(const char* text, size_t len, int64_t* unix_seconds);

// -- helpers -----------------------------------------------------------------------------------
// Everything from here to the server is pure: no I/O, no clock, no allocation (but for the router's
// own table), and every input may come from a hostile peer. Functions that write text into `out`
// end it with a NUL that the length does not count, and give NKHTTP_ERR_NOSPACE when text and NUL
// do not fit. Slices point into what you passed in.
// -- percent-encoding, queries and forms -------------------------------------------------------
// dst may be src when decoding. 0 and *len, or NKHTTP_ERR_ENCODING ("%" without two hex digits),
// NKHTTP_ERR_NOSPACE. The result may hold any byte, NUL, CR and LF included, and need not be UTF-8:
// check it before it goes anywhere else.

// Of a path: "+" stays what it is.
NETKIT_HTTP_API int nkhttp_percent_decode(char* dst, size_t cap, const char* src, size_t n,
                                          size_t* len);
// Of a query or a form: "+" is a space.
NETKIT_HTTP_API int nkhttp_form_decode(char* dst, size_t cap, const char* src, size_t n,
                                       size_t* len);
// Fit for a path segment and for a query value; dst may not be src.
NETKIT_HTTP_API int nkhttp_percent_encode(char* dst, size_t cap, const char* src, size_t n,
                                          size_t* len);
// 1: no overlong form, surrogate or number above U+10FFFF.
NETKIT_HTTP_API int nkhttp_utf8_ok(const char* p, size_t n);

// Raw pairs of "a=1&b=2": 1 and a pair, 0 at the end; *rest moves on. Empty pairs are skipped,
// repeated keys all come.
NETKIT_HTTP_API int nkhttp_query_next(nkhttp_str* rest, nkhttp_str* key, nkhttp_str* value);
// First value of a key, both form-decoded: its length (it may be 0),
// or NKHTTP_ERR_ABSENT, _ENCODING, _NOSPACE.
NETKIT_HTTP_API int nkhttp_query_get(nkhttp_str query, const char* name, char* out, size_t cap);

// -- cookies -----------------------------------------------------------------------------------
// Reads the value of a Cookie field as browsers write it. Quotes around a value are taken off,
// bytes are not decoded. 1: a pair, 0: the end; *rest moves on.
NETKIT_HTTP_API int nkhttp_cookie_next(nkhttp_str* rest, nkhttp_str* name, nkhttp_str* value);
// 0 or NKHTTP_ERR_ABSENT.
NETKIT_HTTP_API int nkhttp_cookie_get(nkhttp_str field, const char* name, nkhttp_str* value);

typedef struct nkhttp_cookie {
    const char* name;         // token. "__Secure-" and "__Host-" bring the rules browsers attach to them
    const char* value;        // NULL is empty. No space, quote, comma, semicolon, backslash or control: encode those
    const char* path;         // NULL: not sent, the client takes the directory of the request
    const char* domain;       // NULL: not sent, this host only
    int64_t     max_age_s;    // seconds from now; 0: not sent (session cookie), < 0: delete it
    int64_t     expires_unix; // for clients that predate Max-Age; 0: not sent
    int         same_site;    // 0: not sent, else NKHTTP_SAME_SITE_...
    int         secure, http_only, partitioned; // SameSite=None and Partitioned want secure: refused without
} nkhttp_cookie;
enum { NKHTTP_SAME_SITE_LAX = 1, NKHTTP_SAME_SITE_STRICT, NKHTTP_SAME_SITE_NONE };

// Value of one Set-Cookie field: its length,
// or NKHTTP_ERR_HEADER_VALUE for what browsers would misread or drop.
NETKIT_HTTP_API int nkhttp_cookie_format(char* out, size_t cap, const nkhttp_cookie* cookie);

// -- authorization -----------------------------------------------------------------------------
// Base64 with padding, strict both ways (RFC 4648 4):
// 0 and *len, or NKHTTP_ERR_ENCODING, NKHTTP_ERR_NOSPACE.
NETKIT_HTTP_API int nkhttp_base64_encode(char* dst, size_t cap, const void* src, size_t n,
                                         size_t* len);
// dst may be src.
NETKIT_HTTP_API int nkhttp_base64_decode(void* dst, size_t cap, const char* src, size_t n,
                                         size_t* len);
// Value of an Authorization field. 0: user and pass point into buf.
// NKHTTP_ERR_ABSENT: empty or another scheme.
NETKIT_HTTP_API int nkhttp_basic_auth(nkhttp_str field, char* buf, size_t cap, nkhttp_str* user,
                                      nkhttp_str* pass);
// 1: equal. Time depends on the first length alone: the peer's bytes first, the secret second.
NETKIT_HTTP_API int nkhttp_equal_secret(const void* a, size_t an, const void* b, size_t bn);

// -- negotiation -------------------------------------------------------------------------------
// Weight 0..1000 the client gives; 0 is refused. Fields sent several times: join them with commas,
// or take the first. Encoding: without the field only "identity" (RFC 9110 would allow any, old
// clients do not); identity not named weighs 1.
NETKIT_HTTP_API int nkhttp_accepts_encoding(nkhttp_str accept_encoding, const char* coding);
// "text/html"; without the field 1000.
NETKIT_HTTP_API int nkhttp_accepts_type(nkhttp_str accept, const char* type);

// -- router ------------------------------------------------------------------------------------
// "/users/{id}/files/{path*}": literals, {name} is one segment that is not empty, {name*} is the
// rest and comes last. Literals win over {name}, {name} over {name*}, segment by segment from the
// left, and only routes that have the method count. "/a" and "/a/" are two routes. Literals may
// hold %XX and are compared decoded; parameters come raw, so that "%2F" stays data: decode them
// with nkhttp_percent_decode. Add everything first; from then on any thread may match.

// new_size 0 gives ptr back, ptr NULL asks for new memory; as nkloop_alloc_fn.
typedef void* (*nkhttp_alloc_fn)(void* user, void* ptr, size_t old_size, size_t new_size);

// of a pattern, of a pattern, of a router
enum { NKHTTP_MAX_PARAMS = 16, NKHTTP_MAX_SEGMENTS = 32, NKHTTP_MAX_METHODS = 32 };

typedef struct nkhttp_router { // init sets everything; nothing in it is yours
    nkhttp_alloc_fn          alloc_fn;
    void*                    alloc_user;
    struct nkhttp_p_router_node*    nodes;
    struct nkhttp_p_router_route*   routes;
    uint32_t*                slots;
    char*                    text;
    uint32_t num_nodes, cap_nodes, num_routes, cap_routes, cap_slots, num_text, cap_text;
    uint32_t num_methods, max_depth;
    uint32_t methods[32];     // NKHTTP_MAX_METHODS
} nkhttp_router;

// name lies in the router's memory, value in the path
typedef struct nkhttp_path_param { nkhttp_str name, value; } nkhttp_path_param;
typedef struct nkhttp_match {
    void*        value;       // what nkhttp_router_add was given
    uint32_t     num_params;
    uint32_t     allowed;     // NKHTTP_ERR_NO_METHOD: what to hand to nkhttp_router_allow
    nkhttp_path_param params[16];  // NKHTTP_MAX_PARAMS
} nkhttp_match;

// alloc_fn NULL: realloc and free.
NETKIT_HTTP_API void nkhttp_router_init(nkhttp_router* r, nkhttp_alloc_fn alloc_fn,
                                        void* alloc_user);
NETKIT_HTTP_API void nkhttp_router_free(nkhttp_router* r); // empty again, ready for use
// method "" or NULL: any. Both texts are copied, value is kept.
// 0, or NKHTTP_ERR_PATTERN, _DUPLICATE, _MEMORY.
NETKIT_HTTP_API int nkhttp_router_add(nkhttp_router* r, const char* method, const char* pattern,
                                      void* value);
// path: raw, without the query. HEAD takes GET's.
// 0 and *out, or NKHTTP_ERR_NO_ROUTE, _NO_METHOD, _ENCODING (answer 400).
NETKIT_HTTP_API int nkhttp_router_match(const nkhttp_router* r, const char* method, size_t mlen,
                                        const char* path, size_t plen, nkhttp_match* out);
// Value of Allow, "GET, HEAD, OPTIONS": its length or NKHTTP_ERR_NOSPACE. HEAD comes with GET, OPTIONS always.
NETKIT_HTTP_API int nkhttp_router_allow(const nkhttp_router* r, uint32_t allowed, char* out,
                                        size_t cap);
// Raw; empty if there is none.
NETKIT_HTTP_API nkhttp_str nkhttp_match_param(const nkhttp_match* m, const char* name);

// -- multipart/form-data -----------------------------------------------------------------------
#ifndef NETKIT_HTTP_NO_MULTIPART
// A pull parser that keeps nothing but its state: hand it the bytes you have, handle the event,
// drop `used` bytes, ask again. At NKHTTP_PART_MORE keep what is left (at most 8 KiB) and append to
// it. Slices die with the bytes they point into.
typedef struct nkhttp_multipart { // nothing in it is yours
    uint32_t max_parts;  // may be set after init; UINT32_MAX: no limit
    uint32_t num_parts;
    uint32_t state, scanned, line_start, delim_len;
    char     delim[76];
} nkhttp_multipart;

enum {
    NKHTTP_PART_MORE = 0, // no event without more bytes; `used` may still be > 0
    NKHTTP_PART_BEGIN,    // a part starts; every member of the event but data is set
    NKHTTP_PART_DATA,     // data: the next piece of its content, never empty
    NKHTTP_PART_END,
    NKHTTP_PART_DONE      // the final boundary was seen; whatever follows is swallowed
};

typedef struct nkhttp_part_event {
    nkhttp_str name;         // as between the quotes; nkhttp_unquote takes the backslashes out
    nkhttp_str filename;     // the same; hostile text: see nkhttp_part_filename
    nkhttp_str content_type; // empty: text/plain
    nkhttp_str disposition;  // whole Content-Disposition value
    nkhttp_str headers;      // all field lines of the part, each with its CRLF
    nkhttp_str data;
    int        is_file;      // there was a filename, maybe an empty one (no file chosen)
} nkhttp_part_event;

// 0, or NKHTTP_ERR_ABSENT, _MULTIPART.
NETKIT_HTTP_API int nkhttp_boundary(nkhttp_str content_type, nkhttp_str* boundary);
// Copies it; max_parts is 1000.
NETKIT_HTTP_API int nkhttp_multipart_init(nkhttp_multipart* m, nkhttp_str boundary);
// NKHTTP_PART_... or NKHTTP_ERR_MULTIPART, _PART_HEAD, _PART_COUNT;
// after an error every later call repeats it.
NETKIT_HTTP_API int nkhttp_multipart_next(nkhttp_multipart* m, const char* buf, size_t len,
                                          size_t* used, nkhttp_part_event* ev);
// At the end of the body: 0, or it was cut short.
NETKIT_HTTP_API int nkhttp_multipart_finish(const nkhttp_multipart* m);
// UTF-8 name a browser meant, filename* (RFC 8187) before filename, directories taken off: its
// length, or NKHTTP_ERR_ABSENT, _ENCODING (control characters), _NOSPACE. Still no path to open:
// run it through nkhttp_path_clean first.
NETKIT_HTTP_API int nkhttp_part_filename(const nkhttp_part_event* ev, char* out, size_t cap);
// Length; \" and \\ lose their backslash.
NETKIT_HTTP_API int nkhttp_unquote(nkhttp_str raw, char* out, size_t cap);
// After the last / or \; empty for "." and ".."
NETKIT_HTTP_API nkhttp_str nkhttp_basename(nkhttp_str path);
#endif // NETKIT_HTTP_NO_MULTIPART

// -- proxies and hosts -------------------------------------------------------------------------
typedef struct nkhttp_proxy {
    int      version;          // 1 or 2
    int      is_unknown;       // UNKNOWN, LOCAL, UNSPEC or a Unix socket: use the connection's own addresses
    char     src_addr[46], dst_addr[46]; // "1.2.3.4" or "2001:db8::1", terminated; empty if is_unknown
    uint16_t src_port, dst_port;
} nkhttp_proxy;

// PROXY protocol 1 and 2. > 0: bytes consumed, 0: incomplete, NKHTTP_ERR_PROXY: it is none, or over
// its limit (1: 107 bytes, 2: 536 bytes; a stream header of TCP or Unix sockets). Only for
// connections from addresses that you trust: anybody can write these bytes.
NETKIT_HTTP_API int nkhttp_parse_proxy(const char* buf, size_t len, nkhttp_proxy* out);

typedef int (*nkhttp_is_trusted_fn)(void* user, nkhttp_str addr);

// Client address in X-Forwarded-For, when the connection itself comes from a trusted proxy. With
// is_trusted: the last address it says 0 to (the first one if it trusts all). Without: the entry
// number `hops` from the right, hops >= 1 being the number of your proxies. Ports and brackets are
// cut off. NKHTTP_ERR_ABSENT, or NKHTTP_ERR_SYNTAX for what is no address: then the connection's
// address is all you know.
NETKIT_HTTP_API int nkhttp_forwarded_for(const nkhttp_head* head, nkhttp_is_trusted_fn is_trusted,
                                         void* user, uint32_t hops, nkhttp_str* addr);

// 1: the name in a Host value is one of the entries ("example.com", "*.example.com", "10.0.0.1",
// "[::1]", or several of them with spaces between), up to NULL. Ports are not compared,
// "*.example.com" covers a.b.example.com but not example.com, one final dot of the name is ignored.
NETKIT_HTTP_API int nkhttp_host_ok(nkhttp_str host, const char* const* allowed);
#define NKHTTP_HOSTS_LOOPBACK "localhost 127.0.0.1 [::1]" // an entry: no DNS rebinding against tools on loopback
// Same IP however written; no brackets, no port.
NETKIT_HTTP_API int nkhttp_same_address(nkhttp_str a, nkhttp_str b);

#ifndef NETKIT_HTTP_NO_FILES
// -- ranges and preconditions ------------------------------------------------------------------
// both inclusive; always inside the representation
typedef struct nkhttp_range { uint64_t first, last; } nkhttp_range;

// > 0: number of ranges in out, in the order asked for, those that overlap or touch joined (RFC
// 9110 15.3.7.2). 0: ignore the field (other unit, syntax error, more than max ranges, more than
// two overlaps, or more bytes than there are). NKHTTP_ERR_RANGE: none can be satisfied, answer 416.
// GET only, and only if nkhttp_if_range_ok.
NETKIT_HTTP_API int nkhttp_parse_range(nkhttp_str value, uint64_t size, nkhttp_range* out,
                                       uint32_t max_ranges);

// RFC 9110 13.2.2: 0 go on, 304 or 412. etag: `"x"` or `W/"x"`, empty if there is none; mtime_unix:
// <= 0 if not known; exists: there is a representation now; now_unix: an If-Modified-Since later
// than it is ignored, 0 skips that test.
NETKIT_HTTP_API int nkhttp_check_preconditions(const nkhttp_head* head, int is_get_or_head,
                                               nkhttp_str etag, int64_t mtime_unix, int exists,
                                               int64_t now_unix);
// 1: honour Range.
NETKIT_HTTP_API int nkhttp_if_range_ok(const nkhttp_head* head, nkhttp_str etag,
                                       int64_t mtime_unix);

// -- paths of files ----------------------------------------------------------------------------
enum { NKHTTP_PATH_DOTFILES = 1 }; // let segments start with a dot

// Makes a raw request path (or the raw value of a {path*}) a relative file name: decoded once,
// UTF-8, "/" between segments, empty and "." segments dropped, none at either end; "/" itself gives
// length 0. Refused with NKHTTP_ERR_PATH on every platform alike: any "..", encoded "/", backslash,
// colon, control characters, trailing dots and spaces, Windows device names and 8.3 short names.
// NKHTTP_ERR_ENCODING: bad %XX or bad UTF-8. Whether it ended in "/" is for you to see in raw_path.
NETKIT_HTTP_API int nkhttp_path_clean(char* dst, size_t cap, nkhttp_str raw_path, uint32_t flags);
// Media type by extension, with a charset for text; application/octet-stream if it is not known.
NETKIT_HTTP_API const char* nkhttp_mime(const char* path, size_t len);
#endif // NETKIT_HTTP_NO_FILES

#ifndef NETKIT_HTTP_NO_LOOP
// ==== integrated half: a server on netkit_loop.h ===============================================
typedef struct nkhttp_server nkhttp_server;
enum { NKHTTP_ERR_FULL = NKLOOP_ERR_FULL }; // the reply's queue is full: wait for on_writable
// A request to be answered later. Good on any thread for as long as the server lives: when the
// client is gone every call with it says NKHTTP_ERR_STALE. {0} is none.
typedef struct nkhttp_handle { uint64_t id; } nkhttp_handle;

// What a handler sees. All slices and the body are valid until the handler returns.
typedef struct nkhttp_req {
    const nkhttp_head* head;    // method, target, path, query, host, headers (nkhttp_find), minor_version
    const uint8_t*     body;    // whole body, NULL if there is none or if it was streamed
    size_t             body_bytes;
    nkhttp_server*     server;
    nkloop*            loop;
    void*              request_user; // yours: NULL at first, kept from on_begin to on_end
    struct nkhttp_p_exchange* p;     // private
} nkhttp_req;

typedef struct nkhttp_reply_desc {
    int                  status;        // default 200
    const char*          content_type;  // default none
    const nkhttp_header* headers;       // extra fields; copied
    uint32_t             num_headers;
    const void*          body;          // copied, or kept until release_fn if that is set
    size_t               body_bytes;
    // exactly once, also when the reply could not be sent: on the loop's thread, or on the caller's,
    // inside the call, if that fails
    void               (*release_fn)(void* release_user);
    void*                release_user;
} nkhttp_reply_desc;

typedef struct nkhttp_log_entry {       // one per request, when its reply has been handed to the loop
    const char* peer;                   // "127.0.0.1:1234", or what the trusted proxy said
    nkhttp_str  method, target, host, user_agent, referer; // empty if the head could not be parsed
    int         status, minor_version;
    int         error;                  // 0, or the NKHTTP_ERR_... that ended it
    uint64_t    bytes_in, bytes_out;    // body bytes received, bytes of the reply with its head
    uint64_t    duration_ns;            // from the first byte of the head
} nkhttp_log_entry;

// Compression of replies: fill it from netkit_deflate.h or zlib. State is per reply.
typedef struct nkhttp_codec {
    const char* coding;         // "gzip": the token for Content-Encoding
    void* user;
    void* (*begin)(void* user); // NULL: out of memory, the reply goes out unencoded
    // Consumes from in (*in_bytes -> consumed), produces into out (*out_bytes -> produced). flush:
    // 0 go on, 1 sync, 2 finish. 1 done, 0 call again, < 0 error.
    int   (*run)(void* state, const uint8_t* in, size_t* in_bytes, uint8_t* out, size_t* out_bytes, int flush);
    void  (*end)(void* state);
} nkhttp_codec;

typedef void (*nkhttp_handler)(void* user, nkhttp_req* req);

typedef struct nkhttp_server_desc {
    // default "127.0.0.1:8080"; numeric, "localhost:PORT" or "unix:/path"; port 0: any;
    // "none": no listener, use nkhttp_server_attach; copied
    const char*    address;
    nkhttp_handler on_request;  // requests that no route takes; default 404
    void*          user;        // for all callbacks of this desc
    uint32_t workers;           // threads that run the handlers; 0: they run in the loop
    int      reuse_port;        // 1: see nkloop_listen_desc
    // limits; UINT32_MAX means none where none makes sense
    uint32_t max_connections;   // default the loop's max_streams; more wait in the backlog
    uint32_t max_connections_per_address; // default none; more are answered 503
    uint32_t max_requests_per_connection; // default none
    uint32_t max_pipeline;      // requests of one connection being answered at once, default 16
    uint32_t max_line_bytes;    // request line, default 8192 + 256: 414
    uint32_t max_head_bytes;    // whole head, default 32 KiB (less than the loop's rx_bytes): 431
    uint32_t max_headers;       // default 100, at most 1000: 431
    uint64_t max_body_bytes;    // of a buffered body, default 1 MiB; a route may say otherwise: 413
    uint64_t max_buffered_bytes;// bodies and waiting replies of all connections together, default 64 MiB: 503
    uint32_t drain_bytes;       // most of an unwanted body that is read to keep the connection, default 256 KiB
    // deadlines; 0 default, UINT32_MAX none
    uint32_t head_timeout_ms;   // from the first byte of a head to its end, default 10 s: 408
    uint32_t body_timeout_ms;   // grace before body_min_rate is enforced, default 10 s: 408
    uint32_t body_min_rate;     // bytes a second, default 1024
    uint32_t idle_timeout_ms;   // between requests, and before the first, default 60 s: closes silently
    uint32_t write_timeout_ms;  // without the client taking a byte, default 30 s: closes
    uint32_t handler_timeout_ms;// from the end of the request to the reply, default none: 503
    uint32_t connection_ttl_ms; // default none; ends after the reply under way
    // policy
    int      require_length;    // 1: a POST, PUT or PATCH without Content-Length or chunked is 411
    int      disable_date;      // 1: no Date field (no clock)
    int      proxy_protocol;    // 1: every connection must start with PROXY protocol v1 or v2, from a trusted peer
    // addresses ("127.0.0.1", "::1", "unix:") whose X-Forwarded-For and PROXY lines are believed;
    // ends with NULL; copied
    const char* const* trusted_proxies;
    // Host names served, "*.example.com" too; others 421; ends with NULL; default any; copied
    const char* const* allowed_hosts;
    const char* const* cors_origins;    // origins that may read replies, or "*"; ends with NULL; default none; copied
    const char* cors_headers;   // Access-Control-Allow-Headers, default echoes the request's; copied
    int      cors_credentials;  // 1: Access-Control-Allow-Credentials
    uint32_t cors_max_age_s;    // default 600
    const char* server_name;    // Server field, default none; copied
    const nkhttp_codec* codec;  // compresses replies of compressible types; default none; kept
    uint32_t codec_min_bytes;   // smaller bodies are left alone, default 1024
    // more callbacks, all optional, all on the loop's thread
    // accepted, before the first byte: set a filter here; < 0 closes
    int    (*on_stream)(void* user, nkloop* L, nkloop_stream s);
    // a request with Upgrade, always on the loop: nkhttp_detach, reply, or return to have it
    // handled as any other
    void   (*on_upgrade)(void* user, nkhttp_req* req);
    void   (*on_log)(void* user, const nkhttp_log_entry* entry);             // valid during the call
    // the graceful stop has ended, no connection is left; may destroy the server, unless nkhttp_run made it
    void   (*on_stopped)(void* user);
} nkhttp_server_desc;

typedef struct nkhttp_route_desc {
    const char*    method;      // "GET" also serves HEAD; NULL or "": any
    const char*    pattern;     // "/users/{id}", "/static/{path*}"; copied
    nkhttp_handler on_request;  // the whole request is there
    void*          user;        // for the callbacks of this route
    uint64_t       max_body_bytes; // default the server's; UINT64_MAX: no limit (streamed bodies only)
    int            in_loop;     // 1: on the loop's thread even if the server has workers
    // Streamed body, always on the loop's thread: on_begin at the end of the head (may reply at
    // once and so refuse the body), on_body as bytes arrive, on_request at the end.
    void         (*on_begin)(void* user, nkhttp_req* req);
    // < 0: answer 500 and close. See nkhttp_pause_body.
    int          (*on_body) (void* user, nkhttp_req* req, const uint8_t* bytes, size_t n);
    // exactly once per request that reached this route, last: NKHTTP_OK, or why it broke off.
    // On the loop's thread. head is NULL here.
    void         (*on_end)  (void* user, nkhttp_req* req, int why);
} nkhttp_route_desc;

// -- life: everything on the loop's thread but where it says any thread
// desc may be NULL, nothing of it is kept but what says so; listens at once; L must outlive the server
NETKIT_HTTP_API int  nkhttp_server_create(nkhttp_server** out, nkloop* L, const nkhttp_server_desc* desc);
// one more address; desc's on_accept and user are ours
NETKIT_HTTP_API int  nkhttp_server_listen(nkhttp_server* srv, const nkloop_listen_desc* desc);
// serve HTTP on a stream you opened or detached; given to us, unless it fails
NETKIT_HTTP_API int  nkhttp_server_attach(nkhttp_server* srv, nkloop_stream s);
// of the first listener, "127.0.0.1:8080"; as nkloop_listener_address
NETKIT_HTTP_API int  nkhttp_server_address(nkhttp_server* srv, char* out, size_t cap);
// any thread, any number of times, also before the loop runs: stops listening, requests under way
// are answered, then connections close; after grace_ms (0: 10 s) they are cut
NETKIT_HTTP_API void nkhttp_server_shutdown(nkhttp_server* srv, uint32_t grace_ms);
// cuts what is open, waits for the workers; before nkloop_destroy. No thread may use srv afterwards,
// nkhttp_later_... included: join your own first. NULL is harmless.
NETKIT_HTTP_API void nkhttp_server_destroy(nkhttp_server* srv);
// before requests arrive; NKHTTP_ERR_DUPLICATE if taken
NETKIT_HTTP_API int  nkhttp_route(nkhttp_server* srv, const char* method, const char* pattern,
                                  nkhttp_handler fn, void* user);
// with everything a route can say
NETKIT_HTTP_API int  nkhttp_route_add(nkhttp_server* srv, const nkhttp_route_desc* desc);
// Creates a loop and a server, prints nothing, runs until nkhttp_server_shutdown or nkloop_stop;
// ready_fn (may be NULL; user is the desc's) gets both once it listens, to print the address and add
// routes. 0, or the error that kept it from listening.
NETKIT_HTTP_API int  nkhttp_run(const nkhttp_server_desc* desc,
                                void (*ready_fn)(void* user, nkloop* L, nkhttp_server* srv));

// -- reading a request: in a handler, on whatever thread it runs; results are valid until it returns
// "{name}" of the route, percent-decoded; ptr NULL if there is none or its encoding is broken
NETKIT_HTTP_API nkhttp_str nkhttp_param(nkhttp_req* req, const char* name);
NETKIT_HTTP_API nkhttp_str nkhttp_header_value(nkhttp_req* req, const char* name);   // first such field
// "127.0.0.1:1234"; or the address without port that a trusted proxy named
NETKIT_HTTP_API const char* nkhttp_peer(nkhttp_req* req);
NETKIT_HTTP_API const nkhttp_header* nkhttp_trailers(nkhttp_req* req, uint32_t* num);// of a chunked body

// -- answering in the handler: exactly one reply, defer or detach; none at all: 500 is sent for you
// before the reply; copied; NKHTTP_ERR_HEADER_VALUE if it could not stand in a field;
// the same name twice sends two
NETKIT_HTTP_API int  nkhttp_set_header(nkhttp_req* req, const char* name, const char* value);
// copied; content_type may be NULL; NKHTTP_ERR_REPLIED the second time
NETKIT_HTTP_API int  nkhttp_reply(nkhttp_req* req, int status, const char* content_type, const void* body, size_t n);
// text/plain; charset=utf-8
NETKIT_HTTP_API int  nkhttp_reply_text(nkhttp_req* req, int status, const char* text);
// headers, bodies without a copy
NETKIT_HTTP_API int  nkhttp_reply_with(nkhttp_req* req, const nkhttp_reply_desc* desc);
NETKIT_HTTP_API int  nkhttp_redirect(nkhttp_req* req, int status, const char* location);     // 301 302 303 307 308
// 1: authorised; 0: 401 has been sent. realm: at most 128 bytes without quote and backslash, else sent empty
NETKIT_HTTP_API int  nkhttp_require_basic_auth(nkhttp_req* req, const char* realm,
                                               const char* user_name, const char* password);
// answer later, from any thread; the request may be read until the handler returns;
// {0} if it was answered already
NETKIT_HTTP_API nkhttp_handle nkhttp_defer(nkhttp_req* req);
// on_upgrade, or a handler in the loop: http lets go of the stream, bytes behind the head stay in
// it; {0} if it may not
NETKIT_HTTP_API nkloop_stream nkhttp_detach(nkhttp_req* req);

// -- answering later: any thread. On the loop's thread the result is final, elsewhere NKHTTP_OK means posted.
// Calls of one thread keep their order; those of the loop's thread may overtake what others have posted.
NETKIT_HTTP_API int  nkhttp_later_reply(nkhttp_server* srv, nkhttp_handle h, const nkhttp_reply_desc* desc);
// text/plain; charset=utf-8
NETKIT_HTTP_API int  nkhttp_later_text (nkhttp_server* srv, nkhttp_handle h, int status, const char* text);
// Streamed replies: chunked (close-delimited for HTTP/1.0), or with a length that is then held to
// (a mismatch closes); UINT64_MAX: not known. The desc's body, if any, is sent first.
NETKIT_HTTP_API int  nkhttp_later_begin(nkhttp_server* srv, nkhttp_handle h,
                                        const nkhttp_reply_desc* desc, uint64_t length);
// Copied. NKHTTP_ERR_FULL: wait for on_writable; STALE: the client is gone. Other threads are never
// told FULL: what they write piles up to max_buffered_bytes, then the connection is cut.
NETKIT_HTTP_API int  nkhttp_later_write(nkhttp_server* srv, nkhttp_handle h, const void* bytes, size_t n);
// trailers only if chunked
NETKIT_HTTP_API int  nkhttp_later_end  (nkhttp_server* srv, nkhttp_handle h,
                                        const nkhttp_header* trailers, uint32_t num);
// cannot go on: cuts the connection, so that the client sees an incomplete reply and not a short one
NETKIT_HTTP_API int  nkhttp_later_abort(nkhttp_server* srv, nkhttp_handle h);
// loop's thread; on_gone once: sent whole (0) or client gone; either may be NULL
NETKIT_HTTP_API int  nkhttp_later_watch(nkhttp_server* srv, nkhttp_handle h,
                                        void (*on_writable)(void* user, nkhttp_handle h),
                                        void (*on_gone)(void* user, nkhttp_handle h, int why), void* user);
// loop's thread, streamed bodies: stop and go on reading
NETKIT_HTTP_API int  nkhttp_pause_body(nkhttp_server* srv, nkhttp_handle h, int paused);
// the same handle without deferring (for nkhttp_pause_body)
NETKIT_HTTP_API nkhttp_handle nkhttp_handle_of(nkhttp_req* req);
// Server-Sent Events: defers and begins the reply; in a handler; {0} if a reply was already made.
// End with nkhttp_later_end.
NETKIT_HTTP_API nkhttp_handle nkhttp_sse_begin(nkhttp_req* req);
// As nkhttp_later_write, FULL: the client is slow, this event is not sent. data may have several
// lines; event and id may be NULL.
NETKIT_HTTP_API int  nkhttp_sse_send(nkhttp_server* srv, nkhttp_handle h, const char* event,
                                     const char* id, const char* data);

typedef struct nkhttp_stats {
    uint64_t requests, replies_2xx, replies_3xx, replies_4xx, replies_5xx;
    uint64_t connections, refused, bytes_in, bytes_out, parse_errors, timeouts;
    uint64_t buffered_bytes;    // now
    uint32_t open_connections, open_requests; // now
} nkhttp_stats;
// since nkhttp_server_create; loop's thread
NETKIT_HTTP_API void nkhttp_get_stats(const nkhttp_server* srv, nkhttp_stats* out);

#ifndef NETKIT_HTTP_NO_FILES
// -- static files: a directory, a table in the program, or callbacks -----------------------------
// Reading from disk happens on the loop's thread: files of up to 64 KiB are read at once, larger
// ones go out by sendfile.

typedef struct nkhttp_embedded {
    const char* path;           // "css/site.css": clean, no leading slash, case matters
    const void* bytes;          // kept
    size_t      num_bytes;
    const char* etag;           // with its quotes; NULL: made from the bytes, once, by nkhttp_serve_files
    int64_t     mtime;          // Unix seconds, 0 none
} nkhttp_embedded;

// what a virtual file system's open fills in; it comes to you as zeros, os_file NKLOOP_NO_FD
typedef struct nkhttp_file {
    uint64_t    size;
    int64_t     mtime;          // Unix seconds, 0 unknown
    int         is_directory;
    char        etag[64];       // with its quotes; empty: made from size and mtime, none without mtime
    const void* bytes;          // the whole content if it is in memory and stays until close_fn; else NULL
    nkloop_fd   os_file;        // else an open regular file for sendfile, or NKLOOP_NO_FD: then read_fn is called
    void*       file_user;      // yours
} nkhttp_file;

// All on the loop's thread, none may block for long. path is clean (see nkhttp_path_clean),
// relative, never escapes; "" is the root.
typedef struct nkhttp_vfs {
    // 0, NKHTTP_ERR_NOT_FOUND, _FORBIDDEN, _UNAVAILABLE, or another error (500)
    int  (*open_fn) (void* user, const char* path, nkhttp_file* out);
    // bytes read, 1 .. n; anything else cuts the connection
    int  (*read_fn) (void* user, nkhttp_file* f, uint64_t offset, void* out, size_t n);
    // once per open that succeeded, directories too; f may have moved; may be NULL
    void (*close_fn)(void* user, nkhttp_file* f);
    // any order; 0 or an error; may be NULL
    int  (*list_fn) (void* user, const char* path,
                     void (*entry)(void* sink, const char* name, int is_directory, uint64_t size, int64_t mtime),
                     void* sink);
} nkhttp_vfs;

typedef struct nkhttp_files_desc {
    const char* root;           // a directory; opened now, once; copied
    // or files in the program, num_embedded of them, any order; kept until nkloop_destroy
    const nkhttp_embedded* table;
    uint32_t    num_embedded;
    const nkhttp_vfs* vfs;      // or callbacks; kept until nkloop_destroy, which may close the last file
    void*       vfs_user;
    const char* index;          // default "index.html", "" none; copied
    const char* cache_control;  // default none; copied
    int  list_directories;      // 1: a directory without index is listed (HTML), else 404; needs list_fn with vfs
    int  allow_dotfiles;        // 1: names that begin with a dot are served
    int  follow_symlinks;       // 1: links inside the root are followed; those that leave it never are
    int  disable_precompressed; // 1: FILE.gz is not sent in place of FILE to clients that take gzip
    int  disable_nosniff;       // 1: no X-Content-Type-Options: nosniff
} nkhttp_files_desc;
// prefix "/" or "/static/": GET and HEAD below it; before requests arrive; NKHTTP_ERR_NOT_FOUND if
// there is no such root
NETKIT_HTTP_API int  nkhttp_serve_files(nkhttp_server* srv, const char* prefix, const nkhttp_files_desc* desc);
// one file of your choice, with Range and conditionals, or its 404, 403, 503; NKLOOP_ERR_INVAL from
// a worker (see in_loop); links are followed; content_type NULL: by name
NETKIT_HTTP_API int  nkhttp_reply_file(nkhttp_req* req, const char* os_path, const char* content_type);
#endif // NETKIT_HTTP_NO_FILES
#endif // NETKIT_HTTP_NO_LOOP

#ifdef __cplusplus
} // extern "C"
#endif
#endif // NETKIT_HTTP_INCLUDED

#ifdef NETKIT_HTTP_IMPLEMENTATION
#ifndef NETKIT_HTTP_IMPLEMENTED // a live macro and a second include are normal life
#define NETKIT_HTTP_IMPLEMENTED 1
/*  ROOMS   @config @util @scan @errors @host @field @head @chunked @date @write @decode @cookies @auth
            @negotiate @router @match @multipart @proxy @hosts @ranges @paths @types @memory @fields @policy
            @codec @reply @streaming @later @request @sse @order @workers @dispatch @bodies @conn @server
            @os @vfs @filebody @listing @filejob @files
    PLEASE KEEP THE STRUCTURE INTACT: new code goes into the right room or founds one.
    The rooms before the one with the types are pure functions over bytes; from there on it is the server. */

// ---- @config ---------------------------------------------------------------------------------
// Headers, hooks, and which vector instructions the compiler says are there.

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GLIBC__) && !defined(__USE_XOPEN2K)
    #error "netkit_http.h: included too late: make this #include the first line of its file"
#endif

#ifndef NETKIT_HTTP_ASSERT
    #ifdef NETKIT_ASSERT
        #define NETKIT_HTTP_ASSERT(c) NETKIT_ASSERT(c)
    #else
        #define NETKIT_HTTP_ASSERT(c) assert(c)
    #endif
#endif

#ifdef NETKIT_HTTP_NO_SIMD
    #define NKHTTP_P_SIMD 0
#elif defined(__SSE2__) || defined(_M_X64) || (defined(_M_IX86_FP) && _M_IX86_FP >= 2)
    #include <emmintrin.h>
    #define NKHTTP_P_SIMD 1
    #define NKHTTP_P_SSE2 1
#elif defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN)
    #include <arm_neon.h>
    #define NKHTTP_P_SIMD 1
#else
    #define NKHTTP_P_SIMD 0
#endif
#if defined(_MSC_VER) && !defined(__clang__)
    #include <intrin.h>
#endif

// ---- @util -----------------------------------------------------------------------------------
// Characters, numbers and case: what every other room needs. Locale never has a say.

enum { // bits of nkhttp_p_chars
    NKHTTP_P_TOKEN      = 0x01, // RFC 9110 5.6.2 tchar
    NKHTTP_P_VALUE      = 0x02, // RFC 9110 5.5: VCHAR, SP, HTAB, obs-text
    NKHTTP_P_TARGET     = 0x04, // RFC 3986 path and query, and [ ] { } | ^ ` (browsers do)
    NKHTTP_P_UNRESERVED = 0x08, // RFC 3986 2.3
    NKHTTP_P_REGNAME    = 0x10, // RFC 3986 3.2.2 reg-name without comma and percent
    NKHTTP_P_ALNUM      = 0x20,
    NKHTTP_P_DIGIT      = 0x40,
    NKHTTP_P_HEX        = 0x80
};

static const uint8_t nkhttp_p_chars[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, // HTAB
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x02, 0x17, 0x02, 0x03, 0x17, 0x07, 0x17, 0x17, // SP ! " # $ % & '
    0x16, 0x16, 0x17, 0x17, 0x06, 0x1f, 0x1f, 0x06, // ( ) * + , - . /
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // 0 1 2 3 4 5 6 7
    0xff, 0xff, 0x06, 0x16, 0x02, 0x16, 0x02, 0x06, // 8 9 : ; < = > ?
    0x06, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf, 0x3f, // @ A B C D E F G
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, // H I J K L M N O
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, // P Q R S T U V W
    0x3f, 0x3f, 0x3f, 0x06, 0x02, 0x06, 0x07, 0x1f, // X Y Z [ backslash ] ^ _
    0x07, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf, 0x3f, // ` a b c d e f g
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, // h i j k l m n o
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, // p q r s t u v w
    0x3f, 0x3f, 0x3f, 0x06, 0x07, 0x06, 0x1f, 0x00, // x y z { | } ~ DEL
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2  // obs-text
};

// Value of one hex digit, or -1. Not isxdigit(): locale must not change what a peer may send.
static int nkhttp_p_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static char nkhttp_p_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static int nkhttp_p_ieq(const char* a, const char* b, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        if (nkhttp_p_lower(a[i]) != nkhttp_p_lower(b[i])) return 0;
    }
    return 1;
}

// True when c has one of the bits.
static int nkhttp_p_char(char c, int bits) { return nkhttp_p_chars[(unsigned char)c] & bits; }

// Length of the longest prefix whose characters all have one of the bits.
static size_t nkhttp_p_span(const char* p, size_t len, int bits) {
    size_t i = 0;
    while (i < len && nkhttp_p_char(p[i], bits)) i++;
    return i;
}

static nkhttp_str nkhttp_p_str(const char* p, size_t len) {
    nkhttp_str s;
    s.ptr = p;
    s.len = len;
    return s;
}

// s without spaces and tabs at either end (RFC 9110 5.6.3 OWS).
static nkhttp_str nkhttp_p_trim(nkhttp_str s) {
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) { s.ptr++; s.len--; }
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) s.len--;
    return s;
}

// Takes the next element off a comma-separated list, trimmed, maybe empty. Returns 0 at the end.
static int nkhttp_p_list_next(nkhttp_str* list, nkhttp_str* item) {
    const char* comma;
    if (!list->len) return 0;
    comma = (const char*)memchr(list->ptr, ',', list->len);
    item->ptr = list->ptr;
    item->len = comma ? (size_t)(comma - list->ptr) : list->len;
    list->ptr += item->len;
    list->len -= item->len;
    if (comma) { list->ptr++; list->len--; }
    *item = nkhttp_p_trim(*item);
    return 1;
}

static const char nkhttp_p_pairs[] =
    "00010203040506070809101112131415161718192021222324"
    "25262728293031323334353637383940414243444546474849"
    "50515253545556575859606162636465666768697071727374"
    "75767778798081828384858687888990919293949596979899";

// Decimal, no terminator. dst holds 20 bytes; returns how many were used.
static size_t nkhttp_p_u64(char* dst, uint64_t v) {
    char tmp[20];
    size_t i = sizeof tmp;
    for (; v >= 100; v /= 100) {
        i -= 2;
        memcpy(tmp + i, nkhttp_p_pairs + v % 100 * 2, 2);
    }
    if (v >= 10) {
        i -= 2;
        memcpy(tmp + i, nkhttp_p_pairs + v * 2, 2);
    } else {
        tmp[--i] = (char)('0' + v);
    }
    memcpy(dst, tmp + i, sizeof tmp - i);
    return sizeof tmp - i;
}

// 1*DIGIT and nothing else, at most 2^63 - 1. 1 ok, 0 not a number, -1 too large.
static int nkhttp_p_number(nkhttp_str s, uint64_t* out) {
    uint64_t n = 0;
    size_t i;
    int large = 0;
    for (i = 0; i < s.len; i++) {
        uint64_t digit = (uint64_t)(uint8_t)s.ptr[i] - '0'; // wraps for what is below '0'
        if (digit > 9) return 0;
        if (i >= 18 && n > ((uint64_t)INT64_MAX - digit) / 10) large = 1; // 18 digits always fit
        n = n * 10 + digit;
    }
    *out = n;
    return s.len == 0 ? 0 : large ? -1 : 1;
}

// ---- @scan -----------------------------------------------------------------------------------
// Finding the first byte that does not belong, 16 or 8 bytes at a time. Never reads at or past end.
// Without vectors, values go by words and the rest by the table.

#if NKHTTP_P_SIMD
#ifdef NKHTTP_P_SSE2
typedef __m128i nkhttp_p_v16;
static nkhttp_p_v16 nkhttp_p_v_load(const char* p) {
    return _mm_loadu_si128((const __m128i*)(const void*)p);
}
static nkhttp_p_v16 nkhttp_p_v_or(nkhttp_p_v16 a, nkhttp_p_v16 b) { return _mm_or_si128(a, b); }
static nkhttp_p_v16 nkhttp_p_v_eq(nkhttp_p_v16 v, int c) {
    return _mm_cmpeq_epi8(v, _mm_set1_epi8((char)c));
}
static nkhttp_p_v16 nkhttp_p_v_in(nkhttp_p_v16 v, int low, int high) { // low <= byte <= high
    nkhttp_p_v16 d = _mm_sub_epi8(v, _mm_set1_epi8((char)low));
    return _mm_cmpeq_epi8(_mm_min_epu8(d, _mm_set1_epi8((char)(high - low))), d);
}
static nkhttp_p_v16 nkhttp_p_v_fold(nkhttp_p_v16 v) { return _mm_or_si128(v, _mm_set1_epi8(0x20)); }
static nkhttp_p_v16 nkhttp_p_v_not(nkhttp_p_v16 v) { return _mm_xor_si128(v, _mm_set1_epi8(-1)); }
static int nkhttp_p_v_first(nkhttp_p_v16 mask) { // index of the first byte set, 16 if none is
    unsigned bits = (unsigned)_mm_movemask_epi8(mask) | 0x10000u;
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long i;
    _BitScanForward(&i, bits);
    return (int)i;
#else
    return __builtin_ctz(bits);
#endif
}
#else
typedef uint8x16_t nkhttp_p_v16;
static nkhttp_p_v16 nkhttp_p_v_load(const char* p) {
    return vld1q_u8((const uint8_t*)(const void*)p);
}
static nkhttp_p_v16 nkhttp_p_v_or(nkhttp_p_v16 a, nkhttp_p_v16 b) { return vorrq_u8(a, b); }
static nkhttp_p_v16 nkhttp_p_v_eq(nkhttp_p_v16 v, int c) {
    return vceqq_u8(v, vdupq_n_u8((uint8_t)c));
}
static nkhttp_p_v16 nkhttp_p_v_in(nkhttp_p_v16 v, int low, int high) { // low <= byte <= high
    nkhttp_p_v16 d = vsubq_u8(v, vdupq_n_u8((uint8_t)low));
    return vcleq_u8(d, vdupq_n_u8((uint8_t)(high - low)));
}
static nkhttp_p_v16 nkhttp_p_v_fold(nkhttp_p_v16 v) { return vorrq_u8(v, vdupq_n_u8(0x20)); }
static nkhttp_p_v16 nkhttp_p_v_not(nkhttp_p_v16 v) { return vmvnq_u8(v); }
static int nkhttp_p_v_first(nkhttp_p_v16 mask) { // index of the first byte set, 16 if none is
    uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(mask), 4); // four bits of each byte remain
    uint64_t bits = vget_lane_u64(vreinterpret_u64_u8(nibbles), 0);
    int i = 0;
    if (!bits) return 16;
#if defined(_MSC_VER) && !defined(__clang__)
    for (; !(bits & 15); bits >>= 4) i++;
    return i;
#else
    (void)i;
    return __builtin_ctzll(bits) >> 2;
#endif
}
#endif // NKHTTP_P_SSE2

static int nkhttp_p_v_value(const char* p) { // 0..15: where no field value may go on; 16: all is well
    nkhttp_p_v16 v = nkhttp_p_v_load(p);
    nkhttp_p_v16 bad = nkhttp_p_v_or(nkhttp_p_v_in(v, 0, 8), nkhttp_p_v_in(v, 10, 31));
    return nkhttp_p_v_first(nkhttp_p_v_or(bad, nkhttp_p_v_eq(v, 127)));
}

static int nkhttp_p_v_target(const char* p) { // the same for request-targets
    nkhttp_p_v16 v = nkhttp_p_v_load(p);
    nkhttp_p_v16 bad = nkhttp_p_v_or(nkhttp_p_v_in(v, 0, 0x20), nkhttp_p_v_in(v, 0x7f, 0xff));
    bad = nkhttp_p_v_or(bad, nkhttp_p_v_in(v, '"', '#'));
    bad = nkhttp_p_v_or(bad, nkhttp_p_v_or(nkhttp_p_v_eq(v, '<'), nkhttp_p_v_eq(v, '>')));
    return nkhttp_p_v_first(nkhttp_p_v_or(bad, nkhttp_p_v_eq(v, '\\')));
}

static int nkhttp_p_v_name(const char* p) { // first byte that is no letter, digit or hyphen
    nkhttp_p_v16 v = nkhttp_p_v_load(p);
    nkhttp_p_v16 good = nkhttp_p_v_in(nkhttp_p_v_fold(v), 'a', 'z');
    good = nkhttp_p_v_or(good, nkhttp_p_v_or(nkhttp_p_v_in(v, '0', '9'), nkhttp_p_v_eq(v, '-')));
    return nkhttp_p_v_first(nkhttp_p_v_not(good));
}
#else
// True when one of eight bytes is below 0x20 or is 0x7f. HTAB counts: the caller looks closer.
static int nkhttp_p_word_ctl(const char* p) {
    const uint64_t ones = UINT64_MAX / 255, high = ones * 128;
    uint64_t w, del;
    memcpy(&w, p, 8);
    del = w ^ (ones * 127);
    return (((w - ones * 32) & ~w & high) | ((del - ones) & ~del & high)) != 0;
}
#endif // NKHTTP_P_SIMD

static const char* nkhttp_p_scan_value(const char* p, const char* end) {
#if NKHTTP_P_SIMD
    for (; end - p >= 16; p += 16) {
        int i = nkhttp_p_v_value(p);
        if (i < 16) return p + i;
    }
#else
    while (end - p >= 8 && !nkhttp_p_word_ctl(p)) p += 8;
#endif
    while (p < end && nkhttp_p_char(*p, NKHTTP_P_VALUE)) p++;
    return p;
}

static const char* nkhttp_p_scan_target(const char* p, const char* end) {
#if NKHTTP_P_SIMD
    for (; end - p >= 16; p += 16) {
        int i = nkhttp_p_v_target(p);
        if (i < 16) return p + i;
    }
#endif
    while (p < end && nkhttp_p_char(*p, NKHTTP_P_TARGET)) p++;
    return p;
}

static const char* nkhttp_p_scan_name(const char* p, const char* end) {
#if NKHTTP_P_SIMD
    if (end - p >= 16) {
        p += nkhttp_p_v_name(p);
        if (p < end && *p == ':') return p;
    }
#endif
    while (p < end && nkhttp_p_char(*p, NKHTTP_P_TOKEN)) p++;
    return p;
}

#undef NKHTTP_P_SIMD
#undef NKHTTP_P_SSE2

// ---- @errors ---------------------------------------------------------------------------------
// Texts: error codes, status codes.

NETKIT_HTTP_API const char* nkhttp_strerror(int err) {
    switch (err) {
    case NKHTTP_OK: return "ok";
#define NKHTTP_P_CASE(name, code, status, text) case (code): return text;
    NKHTTP_ERRORS(NKHTTP_P_CASE)
#undef NKHTTP_P_CASE
    default: break;
    }
#ifdef NETKIT_HTTP_NO_LOOP
    return "unknown error";
#else
    return nkloop_strerror(err);
#endif
}

NETKIT_HTTP_API int nkhttp_status_of(int err) {
    switch (err) {
#define NKHTTP_P_CASE(name, code, status, text) case (code): return (status) ? (status) : 500;
    NKHTTP_ERRORS(NKHTTP_P_CASE)
#undef NKHTTP_P_CASE
    default: return 500;
    }
}

// The registry of RFC 9110 16.2, complete; 306 and 418 are reserved there without a meaning.
NETKIT_HTTP_API const char* nkhttp_reason(int status) {
    switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 102: return "Processing";
    case 103: return "Early Hints";
    case 104: return "Upload Resumption Supported";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 203: return "Non-Authoritative Information";
    case 204: return "No Content";
    case 205: return "Reset Content";
    case 206: return "Partial Content";
    case 207: return "Multi-Status";
    case 208: return "Already Reported";
    case 226: return "IM Used";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 305: return "Use Proxy";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 407: return "Proxy Authentication Required";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 423: return "Locked";
    case 424: return "Failed Dependency";
    case 425: return "Too Early";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 451: return "Unavailable For Legal Reasons";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 506: return "Variant Also Negotiates";
    case 507: return "Insufficient Storage";
    case 508: return "Loop Detected";
    case 510: return "Not Extended";
    case 511: return "Network Authentication Required";
    default: return "";
    }
}

// ---- @host -----------------------------------------------------------------------------------
// uri-host [":" port], as it stands in Host and in request-targets.

// dec-octet "." dec-octet "." dec-octet "." dec-octet
static int nkhttp_p_ipv4_ok(const char* p, size_t len) {
    size_t i = 0;
    int part;
    for (part = 0; part < 4; part++) {
        size_t digits = 0, n = 0;
        if (part && (i == len || p[i++] != '.')) return 0;
        while (i < len && digits < 4 && nkhttp_p_char(p[i], NKHTTP_P_DIGIT)) {
            n = n * 10 + (size_t)(p[i++] - '0');
            digits++;
        }
        if (!digits || n > 255 || (digits > 1 && p[i - digits] == '0')) return 0;
    }
    return i == len;
}

// Eight groups of 1 to 4 hex digits; one run of zeros may be "::", the last two an IPv4 address.
static int nkhttp_p_ipv6_ok(const char* p, size_t len) {
    size_t i = 0, groups = 0;
    int shortened = 0;
    if (len >= 2 && p[0] == ':' && p[1] == ':') {
        shortened = 1;
        i = 2;
    }
    while (i < len) {
        size_t n = nkhttp_p_span(p + i, len - i, NKHTTP_P_HEX);
        if (i + n < len && p[i + n] == '.') {
            if (!nkhttp_p_ipv4_ok(p + i, len - i)) return 0;
            groups += 2;
            break;
        }
        if (n < 1 || n > 4) return 0;
        groups++;
        i += n;
        if (i == len) break;
        if (p[i++] != ':' || i == len) return 0;
        if (p[i] != ':') continue;
        if (shortened) return 0;
        shortened = 1;
        i++;
    }
    return shortened ? groups < 8 : groups == 8;
}

static int nkhttp_p_port_ok(const char* p, size_t len) { // empty is legal: RFC 3986 3.2.3
    uint64_t n = 0;
    if (!len) return 1;
    return nkhttp_p_number(nkhttp_p_str(p, len), &n) == 1 && n <= 65535;
}

// RFC 9112 3.2: a Host that is not a valid authority without userinfo must be refused. Stricter than
// the grammar in two places: no comma (two values in one line) and no IPvFuture (nobody has one).
static int nkhttp_p_host_ok(nkhttp_str s) {
    size_t host;
    if (s.len && s.ptr[0] == '[') {
        const char* close_bracket = (const char*)memchr(s.ptr, ']', s.len);
        if (!close_bracket) return 0;
        host = (size_t)(close_bracket - s.ptr);
        if (!nkhttp_p_ipv6_ok(s.ptr + 1, host - 1)) return 0;
        host++;
    } else {
        host = nkhttp_p_span(s.ptr, s.len, NKHTTP_P_REGNAME);
        while (host < s.len && s.ptr[host] == '%') {
            if (nkhttp_p_span(s.ptr + host + 1, s.len - host - 1, NKHTTP_P_HEX) < 2) return 0;
            host += 3;
            host += nkhttp_p_span(s.ptr + host, s.len - host, NKHTTP_P_REGNAME);
        }
        if (!host) return 0; // RFC 9110 4.2.1: an http URI with an empty host is invalid
    }
    if (host == s.len) return 1;
    return s.ptr[host] == ':' && nkhttp_p_port_ok(s.ptr + host + 1, s.len - host - 1);
}

// ---- @field ----------------------------------------------------------------------------------
// Field lines, and what the known ones say about body and connection. Knows no first line.

enum { // what has been seen so far
    NKHTTP_P_SEEN_HOST       = 0x001,
    NKHTTP_P_SEEN_LENGTH     = 0x002,
    NKHTTP_P_SEEN_CODING     = 0x004, // a Transfer-Encoding field
    NKHTTP_P_CODING_OTHER    = 0x008, // with a coding that is not chunked
    NKHTTP_P_CODING_CHUNKED  = 0x010,
    NKHTTP_P_CODING_FINAL    = 0x020, // chunked is the last one so far
    NKHTTP_P_CODING_TWICE    = 0x040,
    NKHTTP_P_SEEN_CLOSE      = 0x080,
    NKHTTP_P_SEEN_KEEP_ALIVE = 0x100,
    NKHTTP_P_SEEN_UPGRADE    = 0x200, // Upgrade field
    NKHTTP_P_ASKS_UPGRADE    = 0x400, // "upgrade" in Connection
    NKHTTP_P_SEEN_EXPECT     = 0x800,
    NKHTTP_P_IS_RESPONSE     = 0x1000,
    NKHTTP_P_HOST_IN_TARGET  = 0x2000
};
enum { NKHTTP_P_METHOD_MAX = 32, NKHTTP_P_LEADING_CRLF_MAX = 4 };

// Compares n bytes with text, lower-case letters and hyphens. No other byte a field may contain turns
// into one of these by setting the bit of lower case.
static int nkhttp_p_name_is(const char* name, const char* text, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        if ((name[i] | 0x20) != text[i]) return 0;
    }
    return 1;
}

// One "Name: value CRLF". >0 bytes consumed, 0 need more, <0 error. Caller knows that p < end.
static int nkhttp_p_field_line(const char* p, const char* end, nkhttp_header* out) {
    const char* colon = nkhttp_p_scan_name(p, end);
    const char *value, *eol, *last;
    if (colon == end) return 0;
    // RFC 9112 5.1: nothing between name and colon; 5.2: white space at the start is obs-fold
    if (*colon != ':' || colon == p) return NKHTTP_ERR_SYNTAX;
    value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    eol = nkhttp_p_scan_value(value, end);
    if (eol == end) return 0;
    if (*eol != '\r') return NKHTTP_ERR_SYNTAX; // RFC 9110 5.5: controls; RFC 9112 2.2: no bare LF
    if (eol + 1 == end) return 0;
    if (eol[1] != '\n') return NKHTTP_ERR_SYNTAX; // RFC 9112 2.2: no bare CR
    last = eol;
    while (last > value && (last[-1] == ' ' || last[-1] == '\t')) last--;
    out->name.ptr = p;
    out->name.len = (size_t)(colon - p);
    out->value.ptr = value;
    out->value.len = (size_t)(last - value);
    return (int)(eol + 2 - p);
}

static int nkhttp_p_on_host(nkhttp_head* head, uint32_t* seen, nkhttp_str value) {
    if (*seen & NKHTTP_P_IS_RESPONSE) return 0;
    // RFC 9112 3.2: in any request, more than one Host or an invalid one is 400
    if ((*seen & NKHTTP_P_SEEN_HOST) || !nkhttp_p_host_ok(value)) return NKHTTP_ERR_HOST;
    *seen |= NKHTTP_P_SEEN_HOST;
    head->flags |= NKHTTP_HAS_HOST;
    if (!(*seen & NKHTTP_P_HOST_IN_TARGET)) head->host = value; // RFC 9112 3.2.2: the target wins
    return 0;
}

// RFC 9112 6.3 (5) would allow "5, 5"; a list or a second field is refused,
// as it always means trouble upstream.
static int nkhttp_p_on_length(nkhttp_head* head, uint32_t* seen, nkhttp_str value) {
    int r = nkhttp_p_number(value, &head->content_length);
    if (r == 0 || (*seen & NKHTTP_P_SEEN_LENGTH)) return NKHTTP_ERR_LENGTH;
    if (r < 0) return NKHTTP_ERR_BODY_TOO_LARGE;
    *seen |= NKHTTP_P_SEEN_LENGTH;
    return 0;
}

static void nkhttp_p_on_coding(uint32_t* seen, nkhttp_str value) {
    nkhttp_str item;
    *seen |= NKHTTP_P_SEEN_CODING;
    while (nkhttp_p_list_next(&value, &item)) {
        if (!item.len) continue; // RFC 9110 5.6.1.2: empty elements are ignored
        if (nkhttp_is(item, "chunked")) {
            if (*seen & NKHTTP_P_CODING_CHUNKED) *seen |= NKHTTP_P_CODING_TWICE;
            *seen |= NKHTTP_P_CODING_CHUNKED | NKHTTP_P_CODING_FINAL;
        } else {
            *seen |= NKHTTP_P_CODING_OTHER;
            *seen &= ~(uint32_t)NKHTTP_P_CODING_FINAL;
        }
    }
}

static void nkhttp_p_on_connection(uint32_t* seen, nkhttp_str value) {
    nkhttp_str item;
    while (nkhttp_p_list_next(&value, &item)) {
        if (item.len == 5 && nkhttp_p_name_is(item.ptr, "close", 5)) {
            *seen |= NKHTTP_P_SEEN_CLOSE;
        } else if (item.len == 7 && nkhttp_p_name_is(item.ptr, "upgrade", 7)) {
            *seen |= NKHTTP_P_ASKS_UPGRADE;
        } else if (item.len == 10 && nkhttp_p_name_is(item.ptr, "keep-alive", 10)) {
            *seen |= NKHTTP_P_SEEN_KEEP_ALIVE;
        }
    }
}

static int nkhttp_p_on_expect(nkhttp_head* head, uint32_t* seen, nkhttp_str value) {
    nkhttp_str item;
    // RFC 9110 10.1.1: ignored in HTTP/1.0; any expectation but this one may be answered with 417
    if (head->minor_version == 0 || (*seen & NKHTTP_P_IS_RESPONSE)) return 0;
    while (nkhttp_p_list_next(&value, &item)) {
        if (!item.len) continue;
        if (!nkhttp_is(item, "100-continue")) return NKHTTP_ERR_EXPECTATION;
        *seen |= NKHTTP_P_SEEN_EXPECT;
    }
    return 0;
}

// Fields that decide where the message ends and what becomes of the connection.
static int nkhttp_p_known_field(nkhttp_head* head, uint32_t* seen, const nkhttp_header* h) {
    const char* name = h->name.ptr;
    switch (h->name.len) {
    case 2:
        if (nkhttp_p_name_is(name, "te", 2) && nkhttp_has_token(h->value, "trailers")) {
            head->flags |= NKHTTP_TE_TRAILERS;
        }
        return 0;
    case 4:
        if (nkhttp_p_name_is(name, "host", 4)) return nkhttp_p_on_host(head, seen, h->value);
        return 0;
    case 6:
        if (nkhttp_p_name_is(name, "expect", 6)) return nkhttp_p_on_expect(head, seen, h->value);
        return 0;
    case 7:
        if (h->value.len && nkhttp_p_name_is(name, "upgrade", 7)) *seen |= NKHTTP_P_SEEN_UPGRADE;
        return 0;
    case 10:
        if (nkhttp_p_name_is(name, "connection", 10)) nkhttp_p_on_connection(seen, h->value);
        return 0;
    case 14:
        if (!nkhttp_p_name_is(name, "content-length", 14)) return 0;
        return nkhttp_p_on_length(head, seen, h->value);
    case 17:
        if (nkhttp_p_name_is(name, "transfer-encoding", 17)) nkhttp_p_on_coding(seen, h->value);
        return 0;
    default:
        return 0;
    }
}

// Field lines up to and with the empty line. >0 bytes consumed, 0 need more, <0 error.
static int nkhttp_p_fields(nkhttp_head* head, uint32_t* seen, const char* start, const char* end) {
    const char* p = start;
    uint32_t n = 0;
    for (;;) {
        int r;
        if (p == end) return 0;
        if (*p == '\r') {
            if (end - p < 2) return 0;
            if (p[1] != '\n') return NKHTTP_ERR_SYNTAX;
            head->num_headers = n;
            return (int)(p + 2 - start);
        }
        if (n == head->max_headers) return NKHTTP_ERR_TOO_MANY_HEADERS;
        r = nkhttp_p_field_line(p, end, &head->headers[n]);
        if (r <= 0) return r;
        p += r;
        r = nkhttp_p_known_field(head, seen, &head->headers[n]);
        if (r < 0) return r;
        n++;
    }
}

// RFC 9112 6.1 and 6.3: the length of the body, or a refusal wherever two readers could disagree.
static int nkhttp_p_framing(nkhttp_head* head, uint32_t seen) {
    if (seen & NKHTTP_P_SEEN_CODING) {
        if (head->minor_version == 0) return NKHTTP_ERR_LENGTH; // 6.1: faulty framing
        if (seen & NKHTTP_P_SEEN_LENGTH) return NKHTTP_ERR_LENGTH; // 6.1: request smuggling
        if (!(seen & NKHTTP_P_CODING_FINAL)) return NKHTTP_ERR_LENGTH; // 6.3 (4)
        if (seen & NKHTTP_P_CODING_TWICE) return NKHTTP_ERR_LENGTH; // 6.1: chunked only once
        if (seen & NKHTTP_P_CODING_OTHER) return NKHTTP_ERR_CODING;
        head->flags |= NKHTTP_CHUNKED;
    }
    if (seen & NKHTTP_P_SEEN_LENGTH) head->flags |= NKHTTP_HAS_LENGTH;
    return 0;
}

// RFC 9112 9.3 and RFC 9110 7.8: what becomes of the connection.
static void nkhttp_p_persistence(nkhttp_head* head, uint32_t seen) {
    uint32_t wanted = NKHTTP_P_SEEN_UPGRADE | NKHTTP_P_ASKS_UPGRADE;
    if (!(seen & NKHTTP_P_SEEN_CLOSE)
        && (head->minor_version == 1 || (seen & NKHTTP_P_SEEN_KEEP_ALIVE))) {
        head->flags |= NKHTTP_KEEP_ALIVE;
    }
    if (head->minor_version == 1 && (seen & wanted) == wanted) head->flags |= NKHTTP_UPGRADE;
}

// ---- @head -----------------------------------------------------------------------------------
// Request and status lines, and whole heads. One pass from left to right, so that a prefix of a
// message never gets another error than the whole.

// "HTTP/1.1" and the byte after it. 9 when matched, 0 need more, <0 error; `after` is CR or SP.
static int nkhttp_p_version(const char* p, const char* end, char after, int* minor) {
    static const char form[] = "HTTP/0.0";
    size_t i, len = (size_t)(end - p);
    for (i = 0; i < 8; i++) {
        if (i == len) return 0;
        if (form[i] == '0' && nkhttp_p_char(p[i], NKHTTP_P_DIGIT)) continue;
        if (form[i] == '0' || p[i] != form[i]) return NKHTTP_ERR_SYNTAX;
    }
    if (i == len) return 0;
    if (p[8] != after) return NKHTTP_ERR_SYNTAX;
    if (p[5] != '1') return NKHTTP_ERR_VERSION;
    *minor = p[7] == '0' ? 0 : 1; // RFC 9110 2.5: 1.2 to 1.9 are processed as 1.1
    return 9;
}

static int nkhttp_p_method_id(const char* m, size_t len) {
    switch (len) {
    case 3:
        if (memcmp(m, "GET", 3) == 0) return NKHTTP_GET;
        return memcmp(m, "PUT", 3) == 0 ? NKHTTP_PUT : 0;
    case 4:
        if (memcmp(m, "POST", 4) == 0) return NKHTTP_POST;
        return memcmp(m, "HEAD", 4) == 0 ? NKHTTP_HEAD : 0;
    case 5:
        if (memcmp(m, "PATCH", 5) == 0) return NKHTTP_PATCH;
        return memcmp(m, "TRACE", 5) == 0 ? NKHTTP_TRACE : 0;
    case 6:
        return memcmp(m, "DELETE", 6) == 0 ? NKHTTP_DELETE : 0;
    case 7:
        if (memcmp(m, "OPTIONS", 7) == 0) return NKHTTP_OPTIONS;
        return memcmp(m, "CONNECT", 7) == 0 ? NKHTTP_CONNECT : 0;
    default:
        return 0;
    }
}

// Splits "/path?query".
static void nkhttp_p_set_path(nkhttp_head* head, nkhttp_str s) {
    const char* mark = s.len ? (const char*)memchr(s.ptr, '?', s.len) : NULL;
    head->path = s;
    if (!mark) return;
    head->path.len = (size_t)(mark - s.ptr);
    head->query = nkhttp_p_str(mark + 1, s.len - head->path.len - 1);
    head->flags |= NKHTTP_HAS_QUERY;
}

// RFC 9112 3.2.2: "http://host[:port][/path][?query]"
static int nkhttp_p_absolute(nkhttp_head* head, uint32_t* seen) {
    nkhttp_str t = head->target;
    size_t scheme = 0, i;
    if (t.len >= 7 && nkhttp_p_ieq(t.ptr, "http://", 7)) scheme = 7;
    else if (t.len >= 8 && nkhttp_p_ieq(t.ptr, "https://", 8)) scheme = 8;
    else return NKHTTP_ERR_SYNTAX;
    for (i = scheme; i < t.len && t.ptr[i] != '/' && t.ptr[i] != '?'; i++) {}
    head->host = nkhttp_p_str(t.ptr + scheme, i - scheme);
    if (!nkhttp_p_host_ok(head->host)) return NKHTTP_ERR_HOST; // RFC 9110 4.2.4: no userinfo either
    head->flags |= NKHTTP_HAS_HOST | NKHTTP_ABSOLUTE;
    *seen |= NKHTTP_P_HOST_IN_TARGET;
    nkhttp_p_set_path(head, nkhttp_p_str(t.ptr + i, t.len - i));
    if (!head->path.len) head->path = nkhttp_p_str("/", 1);
    return 0;
}

// RFC 9112 3.2.3 and RFC 9110 9.3.6: CONNECT host:port, the port is not optional
static int nkhttp_p_authority(nkhttp_head* head, uint32_t* seen) {
    nkhttp_str t = head->target;
    size_t i = t.len;
    while (i && nkhttp_p_char(t.ptr[i - 1], NKHTTP_P_DIGIT)) i--;
    if (!i || i == t.len || t.ptr[i - 1] != ':' || !nkhttp_p_host_ok(t)) return NKHTTP_ERR_HOST;
    head->host = t;
    head->flags |= NKHTTP_HAS_HOST;
    *seen |= NKHTTP_P_HOST_IN_TARGET;
    return 0;
}

static int nkhttp_p_target(nkhttp_head* head, uint32_t* seen) {
    nkhttp_str t = head->target;
    if (head->method_id == NKHTTP_CONNECT) return nkhttp_p_authority(head, seen);
    if (t.ptr[0] == '/') {
        nkhttp_p_set_path(head, t);
        return 0;
    }
    if (t.len == 1 && t.ptr[0] == '*') {
        if (head->method_id != NKHTTP_OPTIONS) return NKHTTP_ERR_SYNTAX; // RFC 9112 3.2.4
        head->path = t;
        return 0;
    }
    return nkhttp_p_absolute(head, seen);
}

// RFC 9112 3: method SP target SP version CRLF, one SP each.
// >0 bytes consumed, 0 need more, <0 error.
static int nkhttp_p_request_line(nkhttp_head* head, uint32_t* seen, const char* start,
                                 const char* end) {
    const char* p = start;
    const char* most = end;
    int r;
    if (end - start > NKHTTP_P_METHOD_MAX + 1) most = start + NKHTTP_P_METHOD_MAX + 1;
    while (p < most && nkhttp_p_char(*p, NKHTTP_P_TOKEN)) p++;
    if (p - start > NKHTTP_P_METHOD_MAX) return NKHTTP_ERR_METHOD;
    if (p == end) return 0;
    if (*p != ' ' || p == start) return NKHTTP_ERR_SYNTAX;
    head->method = nkhttp_p_str(start, (size_t)(p - start));
    head->method_id = nkhttp_p_method_id(start, head->method.len);

    head->target.ptr = ++p;
    p = nkhttp_p_scan_target(p, end);
    if (p == end) return 0;
    if (*p != ' ' || p == head->target.ptr) return NKHTTP_ERR_SYNTAX;
    head->target.len = (size_t)(p - head->target.ptr);
    r = nkhttp_p_target(head, seen);
    if (r < 0) return r;
    p++;
    if (end - p >= 10 && memcmp(p, "HTTP/1.1\r\n", 10) == 0) {
        head->minor_version = 1;
        return (int)(p + 10 - start);
    }
    r = nkhttp_p_version(p, end, '\r', &head->minor_version);
    if (r <= 0) return r;
    p += r;
    if (p == end) return 0;
    if (*p != '\n') return NKHTTP_ERR_SYNTAX;
    return (int)(p + 1 - start);
}

// RFC 9112 4: version SP 3DIGIT SP [reason] CRLF; the second SP may be missing, as it often is.
static int nkhttp_p_status_line(nkhttp_head* head, const char* start, const char* end) {
    const char* p = start;
    int i, r = nkhttp_p_version(p, end, ' ', &head->minor_version);
    if (r <= 0) return r;
    p += r;
    for (i = 0; i < 3; i++, p++) {
        if (p == end) return 0;
        if (!nkhttp_p_char(*p, NKHTTP_P_DIGIT) || (i == 0 && *p == '0')) return NKHTTP_ERR_SYNTAX;
        head->status = head->status * 10 + (*p - '0');
    }
    if (p == end) return 0;
    if (*p == ' ') {
        head->reason.ptr = ++p;
        p = nkhttp_p_scan_value(p, end);
        head->reason.len = (size_t)(p - head->reason.ptr);
        if (p == end) return 0;
    }
    if (*p != '\r') return NKHTTP_ERR_SYNTAX;
    if (++p == end) return 0;
    if (*p != '\n') return NKHTTP_ERR_SYNTAX;
    return (int)(p + 1 - start);
}

static void nkhttp_p_head_clear(nkhttp_head* head) {
    const nkhttp_str empty = nkhttp_p_str("", 0);
    head->num_headers = head->head_bytes = head->flags = 0;
    head->method_id = head->minor_version = head->status = 0;
    head->content_length = 0;
    head->method = head->target = head->path = head->query = head->host = head->reason = empty;
}

// First line and fields within the limits. Limits clip what may be looked at, so they hit at the same
// byte however the message arrives.
static int nkhttp_p_head(const char* buf, size_t len, nkhttp_head* head, uint32_t* seen) {
    size_t most = head->max_head_bytes ? head->max_head_bytes : 32768;
    size_t line = head->max_line_bytes ? head->max_line_bytes : 8192;
    const char *p = buf, *end, *line_end;
    int r;
    NETKIT_HTTP_ASSERT(head->headers || !head->max_headers);
    if (most > INT32_MAX) most = INT32_MAX; // results are int
    nkhttp_p_head_clear(head);
    end = buf + (len < most ? len : most);
    // RFC 9112 2.2: empty lines before a request line are ignored, a bounded number of them
    while (p < end && *p == '\r' && !(*seen & NKHTTP_P_IS_RESPONSE)) {
        if (p - buf == 2 * NKHTTP_P_LEADING_CRLF_MAX) return NKHTTP_ERR_SYNTAX;
        if (end - p < 2) break;
        if (p[1] != '\n') return NKHTTP_ERR_SYNTAX;
        p += 2;
    }
    line_end = (size_t)(end - p) < line ? end : p + line;
    r = 0;
    if (p < end && (*p != '\r' || (*seen & NKHTTP_P_IS_RESPONSE))) {
        if (*seen & NKHTTP_P_IS_RESPONSE) r = nkhttp_p_status_line(head, p, line_end);
        else r = nkhttp_p_request_line(head, seen, p, line_end);
    }
    if (r == 0 && (size_t)(line_end - p) == line) return NKHTTP_ERR_TOO_LONG;
    if (r > 0) {
        p += r;
        r = nkhttp_p_fields(head, seen, p, end);
    }
    if (r == 0 && (size_t)(end - buf) == most) return NKHTTP_ERR_HEAD_TOO_LARGE;
    if (r <= 0) return r;
    head->head_bytes = (uint32_t)(p + r - buf);
    return (int)head->head_bytes;
}

NETKIT_HTTP_API int nkhttp_parse_request(const char* buf, size_t len, nkhttp_head* head) {
    uint32_t seen = 0;
    int r, n = nkhttp_p_head(buf, len, head, &seen);
    if (n <= 0) return n;
    // RFC 9112 3.2: HTTP/1.1 must have a Host field, even with an absolute target
    if (head->minor_version == 1 && !(seen & NKHTTP_P_SEEN_HOST)) return NKHTTP_ERR_HOST;
    r = nkhttp_p_framing(head, seen);
    if (r < 0) return r;
    nkhttp_p_persistence(head, seen);
    if ((seen & NKHTTP_P_SEEN_EXPECT) && ((head->flags & NKHTTP_CHUNKED) || head->content_length)) {
        head->flags |= NKHTTP_EXPECT_CONTINUE;
    }
    return n;
}

NETKIT_HTTP_API int nkhttp_parse_response(const char* buf, size_t len, nkhttp_head* head) {
    uint32_t seen = NKHTTP_P_IS_RESPONSE;
    int r, n = nkhttp_p_head(buf, len, head, &seen);
    if (n <= 0) return n;
    r = nkhttp_p_framing(head, seen);
    if (r < 0) return r;
    nkhttp_p_persistence(head, seen);
    if (head->status < 200 || head->status == 204 || head->status == 304) {
        head->flags |= NKHTTP_NO_BODY; // RFC 9112 6.3 (1), whatever the fields say
    } else if (!(head->flags & (NKHTTP_CHUNKED | NKHTTP_HAS_LENGTH))) {
        head->flags |= NKHTTP_UNTIL_CLOSE; // RFC 9112 6.3 (8)
    }
    return n;
}

static void nkhttp_p_rebase(nkhttp_str* s, uintptr_t base, size_t len, const char* to) {
    uintptr_t offset = (uintptr_t)s->ptr - base; // as integers: constants like "/" lie outside
    if ((uintptr_t)s->ptr >= base && offset <= len) s->ptr = to + offset;
}

NETKIT_HTTP_API void nkhttp_head_rebase(nkhttp_head* head, const char* old_base,
                                        const char* new_base) {
    nkhttp_str* slices[6];
    uintptr_t base = (uintptr_t)old_base;
    size_t i, len = head->head_bytes;
    slices[0] = &head->method; slices[1] = &head->target; slices[2] = &head->path;
    slices[3] = &head->query;  slices[4] = &head->host;   slices[5] = &head->reason;
    for (i = 0; i < 6; i++) nkhttp_p_rebase(slices[i], base, len, new_base);
    for (i = 0; i < head->num_headers; i++) {
        nkhttp_p_rebase(&head->headers[i].name, base, len, new_base);
        nkhttp_p_rebase(&head->headers[i].value, base, len, new_base);
    }
}

// From field i on.
static const nkhttp_header* nkhttp_p_find_from(const nkhttp_head* head, size_t i,
                                               const char* name) {
    size_t n = strlen(name);
    int first = name[0] | 0x20; // differs for a few symbols only; the full comparison decides
    for (; i < head->num_headers; i++) {
        const nkhttp_header* h = &head->headers[i];
        if (h->name.len != n || n == 0 || (h->name.ptr[0] | 0x20) != first) continue;
        if (nkhttp_p_ieq(h->name.ptr, name, n)) return h;
    }
    return NULL;
}

NETKIT_HTTP_API const nkhttp_header* nkhttp_find(const nkhttp_head* head, const char* name) {
    return nkhttp_p_find_from(head, 0, name);
}

NETKIT_HTTP_API const nkhttp_header* nkhttp_find_next(const nkhttp_head* head,
                                                      const nkhttp_header* after,
                                                      const char* name) {
    return nkhttp_p_find_from(head, (size_t)(after - head->headers) + 1, name);
}

NETKIT_HTTP_API nkhttp_str nkhttp_value(const nkhttp_head* head, const char* name) {
    const nkhttp_header* h = nkhttp_find(head, name);
    return h ? h->value : nkhttp_p_str("", 0);
}

NETKIT_HTTP_API const char* nkhttp_find_header(const void* head, const char* name, size_t* len) {
    const nkhttp_header* h = nkhttp_find((const nkhttp_head*)head, name);
    *len = h ? h->value.len : 0;
    return h ? h->value.ptr : NULL;
}

NETKIT_HTTP_API int nkhttp_is(nkhttp_str s, const char* text) {
    return strlen(text) == s.len && nkhttp_p_ieq(s.ptr, text, s.len);
}

NETKIT_HTTP_API int nkhttp_has_token(nkhttp_str list, const char* token) {
    nkhttp_str item;
    while (nkhttp_p_list_next(&list, &item)) {
        if (item.len && nkhttp_is(item, token)) return 1;
    }
    return 0;
}

// ---- @chunked --------------------------------------------------------------------------------
// Transfer-Encoding: chunked (RFC 9112 7.1). Hands out slices of the caller's buffer, copies nothing.

enum {
    NKHTTP_P_CHUNK_SIZE = 0, NKHTTP_P_CHUNK_BODY, NKHTTP_P_CHUNK_CRLF, NKHTTP_P_CHUNK_TRAILERS,
    NKHTTP_P_CHUNK_OVER // anything above is an error code
};
enum {
    NKHTTP_P_CHUNK_LINE_MAX = 256, NKHTTP_P_TRAILER_MAX = 8192, NKHTTP_P_OVERHEAD_MIN = 100 * 1024
};

// Skips *( SP / HTAB ). RFC 9112 7.1.1: BWS round ";" and "=" must be parsed.
static size_t nkhttp_p_skip_ws(const char* p, size_t len, size_t i) {
    while (i < len && (p[i] == ' ' || p[i] == '\t')) i++;
    return i;
}

// token / quoted-string at *at. 1 ok, 0 need more, <0 error.
static int nkhttp_p_ext_value(const char* p, size_t len, size_t* at) {
    size_t i = *at;
    if (i == len) return 0;
    if (p[i] != '"') {
        size_t n = nkhttp_p_span(p + i, len - i, NKHTTP_P_TOKEN);
        *at = i + n;
        if (*at == len) return 0;
        return n ? 1 : NKHTTP_ERR_CHUNK;
    }
    for (i++; i < len && p[i] != '"'; i++) {
        if (p[i] == '\\' && ++i == len) return 0;
        if (!nkhttp_p_char(p[i], NKHTTP_P_VALUE)) return NKHTTP_ERR_CHUNK;
    }
    *at = i + 1;
    return i < len;
}

// BWS ";" BWS name [ BWS "=" BWS value ], *at is at the semicolon. 1 ok, 0 need more, <0 error.
static int nkhttp_p_chunk_ext(const char* p, size_t len, size_t* at) {
    size_t i = nkhttp_p_skip_ws(p, len, *at + 1);
    size_t n = nkhttp_p_span(p + i, len - i, NKHTTP_P_TOKEN);
    if (i + n == len) return 0;
    if (!n) return NKHTTP_ERR_CHUNK;
    *at = i + n;
    i = nkhttp_p_skip_ws(p, len, *at);
    if (i == len) return 0;
    if (p[i] != '=') return 1;
    *at = nkhttp_p_skip_ws(p, len, i + 1);
    return nkhttp_p_ext_value(p, len, at);
}

// Extensions and CRLF from p[i] on. >0 bytes of the line, 0 need more, <0 error.
static int nkhttp_p_chunk_line_end(const char* p, size_t len, size_t i) {
    for (;;) {
        size_t at = nkhttp_p_skip_ws(p, len, i);
        int r;
        if (at == len) return 0;
        if (p[at] == '\r') {
            if (at != i) return NKHTTP_ERR_CHUNK; // white space belongs to an extension or nowhere
            if (at + 1 == len) return 0;
            return p[at + 1] == '\n' ? (int)(at + 2) : NKHTTP_ERR_CHUNK;
        }
        if (p[at] != ';') return NKHTTP_ERR_CHUNK; // a bare LF hides a second message from others
        r = nkhttp_p_chunk_ext(p, len, &at);
        if (r <= 0) return r;
        i = at;
    }
}

// Reads "1a;ext=1\r\n". >0 bytes consumed, 0 need more, <0 error; *size is set only on success.
static int nkhttp_p_chunk_line(const char* p, size_t len, uint64_t* size) {
    const size_t limit = NKHTTP_P_CHUNK_LINE_MAX;
    size_t i, most = len < limit ? len : limit;
    uint64_t n = 0;
    int r = 0;
    for (i = 0; i < most && nkhttp_p_hex(p[i]) >= 0; i++) {
        if (n >> 59) return NKHTTP_ERR_CHUNK; // RFC 9112 7.1: 2^63 and more must not wrap
        n = n * 16 + (uint64_t)nkhttp_p_hex(p[i]);
    }
    if (i < most) r = i ? nkhttp_p_chunk_line_end(p, most, i) : NKHTTP_ERR_CHUNK;
    if (r == 0 && most == limit) return NKHTTP_ERR_CHUNK; // RFC 9112 7.1.1: limit extensions
    if (r > 0) *size = n;
    return r;
}

// CRLF at p. 2 ok, 0 need more, <0 error.
static int nkhttp_p_crlf(const char* p, size_t len) {
    if (len && p[0] != '\r') return NKHTTP_ERR_CHUNK;
    if (len < 2) return 0;
    return p[1] == '\n' ? 2 : NKHTTP_ERR_CHUNK;
}

// RFC 9110 6.5.1: fields for framing, routing, request modifiers, authentication, content format.
static int nkhttp_p_trailer_forbidden(nkhttp_str name) {
    static const char list[] =
        "transfer-encoding,content-length,host,te,trailer,connection,keep-alive,"
        "proxy-connection,upgrade,content-encoding,content-type,content-range,content-location,"
        "cache-control,expect,max-forwards,pragma,range,expires,date,age,vary,location,retry-after,"
        "if-match,if-none-match,if-modified-since,if-unmodified-since,if-range,"
        "authorization,proxy-authorization,proxy-authenticate,www-authenticate,"
        "authentication-info,proxy-authentication-info,cookie,set-cookie,origin,"
        "forwarded,x-forwarded-for,x-forwarded-host,x-forwarded-proto,x-real-ip";
    nkhttp_str all = nkhttp_p_str(list, sizeof list - 1), item;
    while (nkhttp_p_list_next(&all, &item)) {
        if (item.len == name.len && nkhttp_p_ieq(item.ptr, name.ptr, name.len)) return 1;
    }
    return 0;
}

// One trailer line or the end of all. NKHTTP_CHUNK_TRAILER, _DONE, _MORE or an error;
// -1: a line to skip.
static int nkhttp_p_trailer(nkhttp_chunked* c, const char* p, size_t len, size_t* used,
                            nkhttp_str* line) {
    size_t most = NKHTTP_P_TRAILER_MAX - c->trailer_bytes;
    nkhttp_header h;
    int r;
    if (len && p[0] == '\r') {
        r = nkhttp_p_crlf(p, len);
        if (r <= 0) return r;
        *used += 2;
        return NKHTTP_CHUNK_DONE;
    }
    if (!len) return NKHTTP_CHUNK_MORE;
    r = nkhttp_p_field_line(p, p + (len < most ? len : most), &h);
    if (r == 0 && len >= most) return NKHTTP_ERR_HEAD_TOO_LARGE;
    if (r <= 0) return r;
    c->trailer_bytes += (uint32_t)r;
    *used += (size_t)r;
    if (nkhttp_p_trailer_forbidden(h.name)) return -1;
    *line = nkhttp_p_str(p, (size_t)r - 2);
    return NKHTTP_CHUNK_TRAILER;
}

// The framing before the next piece of body. 0 go on, 1 need more, <0 error.
static int nkhttp_p_chunk_framing(nkhttp_chunked* c, const char* p, size_t len, size_t* used) {
    uint64_t size = 0;
    int r;
    if (c->state == NKHTTP_P_CHUNK_CRLF) {
        r = nkhttp_p_crlf(p, len);
        if (r > 0) c->state = NKHTTP_P_CHUNK_SIZE;
    } else {
        r = nkhttp_p_chunk_line(p, len, &size);
        if (r > 0) c->state = size ? NKHTTP_P_CHUNK_BODY : NKHTTP_P_CHUNK_TRAILERS;
    }
    if (r <= 0) return r < 0 ? r : 1;
    c->left = size;
    c->framing_bytes += (uint64_t)r;
    *used += (size_t)r;
    // Tiny chunks cost us far more than the sender: past 100 KB of framing, a quarter must be data.
    if (c->framing_bytes > NKHTTP_P_OVERHEAD_MIN && c->framing_bytes / 3 > c->data_bytes) {
        return NKHTTP_ERR_CHUNK;
    }
    return 0;
}

static int nkhttp_p_chunk_step(nkhttp_chunked* c, const char* buf, size_t len, size_t* used,
                               nkhttp_str* data) {
    int r;
    for (;;) {
        const char* p = buf + *used;
        size_t n = len - *used;
        switch (c->state) {
        case NKHTTP_P_CHUNK_BODY:
            if (!n) return NKHTTP_CHUNK_MORE;
            if (n > c->left) n = (size_t)c->left;
            c->left -= n;
            c->data_bytes += n;
            if (!c->left) c->state = NKHTTP_P_CHUNK_CRLF;
            *used += n;
            *data = nkhttp_p_str(p, n);
            return NKHTTP_CHUNK_DATA;
        case NKHTTP_P_CHUNK_TRAILERS:
            r = nkhttp_p_trailer(c, p, n, used, data);
            if (r == -1) break;
            if (r == NKHTTP_CHUNK_DONE) c->state = NKHTTP_P_CHUNK_OVER;
            return r;
        case NKHTTP_P_CHUNK_OVER:
            return NKHTTP_CHUNK_DONE;
        default:
            r = nkhttp_p_chunk_framing(c, p, n, used);
            if (r) return r < 0 ? r : NKHTTP_CHUNK_MORE;
            break;
        }
    }
}

NETKIT_HTTP_API int nkhttp_chunked_next(nkhttp_chunked* c, const char* buf, size_t len,
                                        size_t* used, nkhttp_str* data) {
    int r;
    *used = 0;
    *data = nkhttp_p_str("", 0);
    if (c->state > NKHTTP_P_CHUNK_OVER) return -(int)c->state; // an earlier error
    r = nkhttp_p_chunk_step(c, buf, len, used, data);
    if (r < 0) c->state = (uint32_t)-r;
    return r;
}

NETKIT_HTTP_API nkhttp_header nkhttp_trailer(nkhttp_str line) {
    nkhttp_header h;
    size_t n = 0;
    while (n < line.len && line.ptr[n] != ':') n++;
    h.name = nkhttp_p_str(line.ptr, n);
    if (n < line.len) n++;
    h.value = nkhttp_p_trim(nkhttp_p_str(line.ptr + n, line.len - n));
    return h;
}

// ---- @date -----------------------------------------------------------------------------------
// The three date formats of RFC 9110 5.6.7, without the C library, which knows locales and zones.

static const char nkhttp_p_days[] = "SunMonTueWedThuFriSat";
static const char nkhttp_p_months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

// Days since 1970-01-01. Years begin in March, so that the leap day comes last. Caller: year >= 1.
static int64_t nkhttp_p_days_of(int year, int month, int day) {
    int64_t y = month > 2 ? year : year - 1;
    int64_t m = month > 2 ? month - 3 : month + 9;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static void nkhttp_p_two(char* dst, int v) { memcpy(dst, nkhttp_p_pairs + v * 2, 2); }

NETKIT_HTTP_API void nkhttp_format_date(char dst[29], int64_t unix_seconds) {
    const int64_t first = -62135596800, last = 253402300799; // years 1 and 9999
    int64_t t = unix_seconds < first ? first : unix_seconds > last ? last : unix_seconds;
    int64_t days = (t - first) / 86400, rest = (t - first) % 86400, year, m;
    int weekday = (int)((days + 1) % 7); // 0001-01-01 was a Monday
    days += 306;                         // since 0000-03-01
    year = (days - (days + 1) / 146097 - (days + 1) / 1461 + (days + 1) / 36525) / 365;
    while (365 * year + year / 4 - year / 100 + year / 400 > days) year--;
    days -= 365 * year + year / 4 - year / 100 + year / 400;
    m = (5 * days + 2) / 153;
    days -= (153 * m + 2) / 5;
    if (m >= 10) year++;
    memcpy(dst, "Sun, 00 Jan 0000 00:00:00 GMT", 29);
    memcpy(dst, nkhttp_p_days + weekday * 3, 3);
    nkhttp_p_two(dst + 5, (int)days + 1);
    memcpy(dst + 8, nkhttp_p_months + (m + 2) % 12 * 3, 3);
    nkhttp_p_two(dst + 12, (int)(year / 100));
    nkhttp_p_two(dst + 14, (int)(year % 100));
    nkhttp_p_two(dst + 17, (int)(rest / 3600));
    nkhttp_p_two(dst + 20, (int)(rest / 60 % 60));
    nkhttp_p_two(dst + 23, (int)(rest % 60));
}

// Matches text against a form: 9 digit, # weekday, @ month, everything else itself. Names are
// case-sensitive. Digits are collected in the order they come.
static int nkhttp_p_date_form(const char* p, const char* form, char* digits, int* month) {
    for (; *form; form++) {
        size_t i;
        if (*form == '9') {
            if (!nkhttp_p_char(*p, NKHTTP_P_DIGIT)) return 0;
            *digits++ = *p++;
        } else if (*form == '#' || *form == '@') {
            const char* names = *form == '#' ? nkhttp_p_days : nkhttp_p_months;
            size_t n = *form == '#' ? 7 : 12;
            for (i = 0; i < n && memcmp(p, names + i * 3, 3) != 0; i++) {}
            if (i == n) return 0;
            if (*form == '@') *month = (int)i + 1;
            p += 3;
        } else if (*p++ != *form) {
            return 0;
        }
    }
    return 1;
}

static int nkhttp_p_digits(const char* p, int n) {
    int v = 0;
    while (n-- > 0) v = v * 10 + (*p++ - '0');
    return v;
}

// clock: six digits hhmmss. 60 seconds is a leap second (RFC 9110 5.6.7).
static int nkhttp_p_date_make(int year, int month, int day, const char* clock, int64_t* out) {
    static const char lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    int hour = nkhttp_p_digits(clock, 2), minute = nkhttp_p_digits(clock + 2, 2);
    int second = nkhttp_p_digits(clock + 4, 2);
    int most = lengths[month - 1] + (month == 2 && leap);
    if (year < 1 || day < 1 || day > most) return NKHTTP_ERR_SYNTAX;
    if (hour > 23 || minute > 59 || second > 60) return NKHTTP_ERR_SYNTAX;
    *out = nkhttp_p_days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    return 0;
}

// "Sunday, 06-Nov-94 08:49:37 GMT". A year more than 50 years ahead means the past one with the same
// digits; for want of a clock in here that is 77 .. 99 -> 19xx, as it was when this was written.
static int nkhttp_p_date_850(const char* text, size_t len, int64_t* out) {
    static const char longer[] = "Sunday   Monday   Tuesday  WednesdayThursday Friday   Saturday ";
    static const char rest[] = ", 99-@-99 99:99:99 GMT";
    char d[10];
    size_t i, n;
    int month = 0, year;
    for (n = 0; n < len && text[n] != ','; n++) {}
    for (i = 0; i < 7; i++) {
        size_t full = 9;
        while (longer[i * 9 + full - 1] == ' ') full--;
        if (n == full && memcmp(text, longer + i * 9, n) == 0) break;
    }
    if (i == 7 || len - n != 24) return NKHTTP_ERR_SYNTAX;
    if (!nkhttp_p_date_form(text + n, rest, d, &month)) return NKHTTP_ERR_SYNTAX;
    year = nkhttp_p_digits(d + 2, 2);
    year += year >= 77 ? 1900 : 2000;
    return nkhttp_p_date_make(year, month, nkhttp_p_digits(d, 2), d + 4, out);
}

NETKIT_HTTP_API int nkhttp_parse_date(const char* text, size_t len, int64_t* unix_seconds) {
    const char* form = "#, 99 @ 9999 99:99:99 GMT";
    char d[14];
    int month = 0, year = 2, day = 2, clock = 6; // where they are in d, and how long the day is
    if (len == 24 && text[3] == ' ') {           // asctime: the day may be a space and one digit
        day = text[8] == ' ' ? 1 : 2;
        form = day == 1 ? "# @  9 99:99:99 9999" : "# @ 99 99:99:99 9999";
        clock = day;
        year = day + 6;
    } else if (len != 29 || text[3] != ',') {
        return nkhttp_p_date_850(text, len, unix_seconds);
    }
    if (!nkhttp_p_date_form(text, form, d, &month)) return NKHTTP_ERR_SYNTAX;
    return nkhttp_p_date_make(nkhttp_p_digits(d + year, 4), month, nkhttp_p_digits(d, day), d + clock,
                              unix_seconds);
}

// ---- @write ----------------------------------------------------------------------------------
// Heads into memory. What the application gives is checked: a CR or LF would be a second response.

// RFC 9110 5.5, RFC 9112 11.1
NETKIT_HTTP_API int nkhttp_field_ok(const char* name, size_t name_len,
                                    const char* value, size_t value_len) {
    if (!name_len || nkhttp_p_span(name, name_len, NKHTTP_P_TOKEN) != name_len) return 0;
    return !value_len || nkhttp_p_scan_value(value, value + value_len) == value + value_len;
}

// Room for n more bytes, or NULL with err set.
static char* nkhttp_p_room(nkhttp_out* o, size_t n) {
    char* at;
    if (o->err) return NULL;
    if (n > o->cap - o->len) {
        o->err = NKHTTP_ERR_NOSPACE;
        return NULL;
    }
    at = o->ptr + o->len;
    o->len += n;
    return at;
}

NETKIT_HTTP_API void nkhttp_out_init(nkhttp_out* o, char* mem, size_t cap) {
    o->ptr = mem;
    o->len = 0;
    o->cap = cap;
    o->err = 0;
}

NETKIT_HTTP_API void nkhttp_out_raw(nkhttp_out* o, const char* bytes, size_t len) {
    char* at = nkhttp_p_room(o, len);
    if (at && len) memcpy(at, bytes, len);
}

NETKIT_HTTP_API void nkhttp_out_status(nkhttp_out* o, int status) {
    const char* reason = nkhttp_reason(status);
    size_t n = strlen(reason);
    char* at;
    if (status < 100 || status > 999) {
        if (!o->err) o->err = NKHTTP_ERR_HEADER_VALUE;
        return;
    }
    at = nkhttp_p_room(o, 13 + n + 2);
    if (!at) return;
    memcpy(at, "HTTP/1.1 000 ", 13);
    at[9] = (char)('0' + status / 100);
    nkhttp_p_two(at + 10, status % 100);
    memcpy(at + 13, reason, n);
    memcpy(at + 13 + n, "\r\n", 2);
}

NETKIT_HTTP_API void nkhttp_out_request(nkhttp_out* o, const char* method, const char* target,
                                        const char* host) {
    size_t m = strlen(method), t = strlen(target);
    if (o->err) return;
    if (!m || nkhttp_p_span(method, m, NKHTTP_P_TOKEN) != m || !t
        || nkhttp_p_scan_target(target, target + t) != target + t
        || (host && !nkhttp_p_host_ok(nkhttp_p_str(host, strlen(host))))) {
        o->err = NKHTTP_ERR_HEADER_VALUE;
        return;
    }
    nkhttp_out_raw(o, method, m);
    nkhttp_out_raw(o, " ", 1);
    nkhttp_out_raw(o, target, t);
    nkhttp_out_raw(o, " HTTP/1.1\r\n", 11);
    if (host) nkhttp_out_field(o, "Host", host, strlen(host));
}

// name and value were checked
static void nkhttp_p_out_field(nkhttp_out* o, const char* name, size_t n, const char* value,
                               size_t len) {
    char* at = nkhttp_p_room(o, len);
    if (!at) return;
    o->len -= len; // len alone fits, so the sum below cannot wrap
    at = nkhttp_p_room(o, n + 4 + len);
    if (!at) return;
    memcpy(at, name, n);
    memcpy(at + n, ": ", 2);
    if (len) memcpy(at + n + 2, value, len);
    memcpy(at + n + 2 + len, "\r\n", 2);
}

NETKIT_HTTP_API void nkhttp_out_field(nkhttp_out* o, const char* name, const char* value,
                                      size_t len) {
    size_t n = strlen(name);
    if (o->err) return;
    if (!nkhttp_field_ok(name, n, value, len)) {
        o->err = NKHTTP_ERR_HEADER_VALUE;
        return;
    }
    nkhttp_p_out_field(o, name, n, value, len);
}

NETKIT_HTTP_API void nkhttp_out_field_u64(nkhttp_out* o, const char* name, uint64_t value) {
    char digits[20];
    nkhttp_out_field(o, name, digits, nkhttp_p_u64(digits, value));
}

NETKIT_HTTP_API void nkhttp_out_date(nkhttp_out* o, int64_t unix_seconds) {
    char text[29];
    nkhttp_format_date(text, unix_seconds);
    nkhttp_p_out_field(o, "Date", 4, text, sizeof text);
}

NETKIT_HTTP_API int nkhttp_out_end(nkhttp_out* o) {
    nkhttp_out_raw(o, "\r\n", 2);
    return o->err;
}

NETKIT_HTTP_API size_t nkhttp_chunk_head(char dst[20], uint64_t size) {
    size_t digits = 1, i;
    while (digits < 16 && size >> (digits * 4)) digits++;
    for (i = digits; i-- > 0; size >>= 4) dst[i] = "0123456789abcdef"[size & 15];
    memcpy(dst + digits, "\r\n", 2);
    return digits + 2;
}

// ---- @decode ---------------------------------------------------------------------------------
// Percent-encoding, UTF-8, query strings and forms. Knows nothing of paths: what a decoded byte may
// do is for others to say.

// Ends text in out with a NUL. Its length, or NKHTTP_ERR_NOSPACE when the NUL has no room.
static int nkhttp_p_end_text(char* out, size_t cap, size_t len) {
    if (len >= cap || len > 0x7fffffff) return NKHTTP_ERR_NOSPACE;
    out[len] = 0;
    return (int)len;
}

// The byte that "%XX" at p stands for, or -1. Caller checked p[0] is '%'.
static int nkhttp_p_escape(const char* p, size_t len) {
    int high, low;
    if (len < 3) return -1;
    high = nkhttp_p_hex(p[1]);
    low = nkhttp_p_hex(p[2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// dst may be src: the result is never longer,
// and a byte is written only after all it came from were read.
static int nkhttp_p_decode(char* dst, size_t cap, nkhttp_str src, char space, size_t* len) {
    size_t i = 0, n = 0;
    while (i < src.len) {
        char c = src.ptr[i];
        size_t step = 1;
        if (c == '%') {
            int byte = nkhttp_p_escape(src.ptr + i, src.len - i);
            if (byte < 0) return NKHTTP_ERR_ENCODING;
            c = (char)byte;
            step = 3;
        } else if (c == space) {
            c = ' ';
        }
        if (n == cap) return NKHTTP_ERR_NOSPACE;
        dst[n++] = c;
        i += step;
    }
    *len = n;
    return NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_percent_decode(char* dst, size_t cap, const char* src, size_t n,
                                          size_t* len) {
    return nkhttp_p_decode(dst, cap, nkhttp_p_str(src, n), ' ', len);
}

NETKIT_HTTP_API int nkhttp_form_decode(char* dst, size_t cap, const char* src, size_t n,
                                       size_t* len) {
    return nkhttp_p_decode(dst, cap, nkhttp_p_str(src, n), '+', len);
}

// Everything but RFC 3986 2.3 unreserved is escaped, which is right in a path segment,
// a query and a form alike.
NETKIT_HTTP_API int nkhttp_percent_encode(char* dst, size_t cap, const char* src, size_t n,
                                          size_t* len) {
    static const char digits[] = "0123456789ABCDEF";
    size_t i, o = 0;
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)src[i];
        if (nkhttp_p_char(src[i], NKHTTP_P_UNRESERVED)) {
            if (o == cap) return NKHTTP_ERR_NOSPACE;
            dst[o++] = src[i];
        } else {
            if (cap - o < 3) return NKHTTP_ERR_NOSPACE;
            dst[o++] = '%';
            dst[o++] = digits[c >> 4];
            dst[o++] = digits[c & 15];
        }
    }
    *len = o;
    return NKHTTP_OK;
}

// [shared utf8]
// Bytes of the character at p, 0 if it is none (RFC 3629 4: no overlong form, no surrogate, nothing
// above U+10FFFF). Caller checked n > 0.
static size_t nkhttp_p_utf8_char(const char* p, size_t n) {
    unsigned char c = (unsigned char)p[0], low = 0x80, high = 0xbf;
    size_t i, more;
    if (c < 0x80) return 1;
    if (c < 0xc2 || c > 0xf4) return 0;
    more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    if (n <= more) return 0;
    for (i = 1; i <= more; i++) {
        unsigned char next = (unsigned char)p[i];
        if (next < low || next > high) return 0;
        low = 0x80;
        high = 0xbf;
    }
    return more + 1;
}

NETKIT_HTTP_API int nkhttp_utf8_ok(const char* p, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        size_t step;
        if (n - i >= sizeof word) { // most text is ASCII: eight bytes at a glance
            memcpy(&word, p + i, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                i += sizeof word;
                continue;
            }
        }
        step = nkhttp_p_utf8_char(p + i, n - i);
        if (!step) return 0;
        i += step;
    }
    return 1;
}
// [/shared]

NETKIT_HTTP_API int nkhttp_query_next(nkhttp_str* rest, nkhttp_str* key, nkhttp_str* value) {
    while (rest->len) {
        const char* end = (const char*)memchr(rest->ptr, '&', rest->len);
        const char* equals;
        nkhttp_str pair = nkhttp_p_str(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
        rest->ptr += pair.len + (end ? 1 : 0);
        rest->len -= pair.len + (end ? 1 : 0);
        if (!pair.len) continue;
        equals = (const char*)memchr(pair.ptr, '=', pair.len);
        *key = nkhttp_p_str(pair.ptr, equals ? (size_t)(equals - pair.ptr) : pair.len);
        *value = nkhttp_p_str(pair.ptr + pair.len, 0);
        if (equals) *value = nkhttp_p_str(equals + 1, pair.len - key->len - 1);
        return 1;
    }
    return 0;
}

// Form-decoded raw equals name. Needs no buffer, so a key of any length costs no more than its bytes.
static int nkhttp_p_form_is(nkhttp_str raw, const char* name) {
    size_t i = 0;
    for (; i < raw.len; name++) {
        int c = raw.ptr[i] == '+' ? ' ' : (unsigned char)raw.ptr[i];
        size_t step = 1;
        if (c == '%') {
            c = nkhttp_p_escape(raw.ptr + i, raw.len - i);
            step = 3;
        }
        if (!*name || c != (unsigned char)*name) return 0;
        i += step;
    }
    return !*name;
}

NETKIT_HTTP_API int nkhttp_query_get(nkhttp_str query, const char* name, char* out, size_t cap) {
    nkhttp_str key, value;
    while (nkhttp_query_next(&query, &key, &value)) {
        size_t len = 0;
        int err;
        if (!nkhttp_p_form_is(key, name)) continue;
        err = nkhttp_p_decode(out, cap, value, '+', &len);
        return err ? err : nkhttp_p_end_text(out, cap, len);
    }
    return NKHTTP_ERR_ABSENT;
}

// ---- @cookies --------------------------------------------------------------------------------
// Cookie fields in, Set-Cookie fields out (RFC 6265bis). Reading is lenient, as the text comes from
// many kinds of servers by way of the browser;
// writing refuses everything that some browser would read differently.

NETKIT_HTTP_API int nkhttp_cookie_next(nkhttp_str* rest, nkhttp_str* name, nkhttp_str* value) {
    while (rest->len) {
        const char* end = (const char*)memchr(rest->ptr, ';', rest->len);
        const char* equals;
        nkhttp_str pair = nkhttp_p_str(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
        rest->ptr += pair.len + (end ? 1 : 0);
        rest->len -= pair.len + (end ? 1 : 0);
        equals = pair.len ? (const char*)memchr(pair.ptr, '=', pair.len) : NULL;
        if (!equals) continue;
        *name = nkhttp_p_trim(nkhttp_p_str(pair.ptr, (size_t)(equals - pair.ptr)));
        *value = nkhttp_p_trim(nkhttp_p_str(equals + 1, pair.len - (size_t)(equals - pair.ptr) - 1));
        if (!name->len) continue; // "=x": browsers send it, nobody can ask for it
        if (value->len >= 2 && value->ptr[0] == '"' && value->ptr[value->len - 1] == '"') {
            *value = nkhttp_p_str(value->ptr + 1, value->len - 2);
        }
        return 1;
    }
    return 0;
}

// The first one of a name wins: browsers send the cookie with the longest path first (RFC 6265 5.4).
NETKIT_HTTP_API int nkhttp_cookie_get(nkhttp_str field, const char* name, nkhttp_str* value) {
    nkhttp_str key, found;
    size_t len = strlen(name);
    while (nkhttp_cookie_next(&field, &key, &found)) {
        if (key.len == len && !memcmp(key.ptr, name, len)) {
            *value = found;
            return NKHTTP_OK;
        }
    }
    return NKHTTP_ERR_ABSENT;
}

// RFC 6265 4.1.1 cookie-octet.
static int nkhttp_p_cookie_value_ok(const char* p) {
    for (; *p; p++) {
        if (*p <= ' ' || *p > '~' || *p == '"' || *p == ',' || *p == ';' || *p == '\\') return 0;
    }
    return 1;
}

// RFC 6265 4.1.1 path-value: no control character, no semicolon. Browsers ignore what does not
// begin with a slash.
static int nkhttp_p_cookie_path_ok(const char* p) {
    if (*p != '/') return 0;
    for (; *p; p++) {
        if (*p < ' ' || *p > '~' || *p == ';') return 0;
    }
    return 1;
}

static int nkhttp_p_cookie_domain_ok(const char* p) {
    if (!*p) return 0;
    for (; *p; p++) {
        if (!nkhttp_p_char(*p, NKHTTP_P_ALNUM) && *p != '-' && *p != '.') return 0;
    }
    return 1;
}

static int nkhttp_p_starts_with(const char* text, const char* prefix) {
    size_t n = strlen(prefix);
    return strlen(text) >= n && nkhttp_p_ieq(text, prefix, n);
}

// 0 for a cookie that would change the field's meaning, or that browsers drop without a word.
static int nkhttp_p_cookie_ok(const nkhttp_cookie* c) {
    size_t len = c->name ? strlen(c->name) : 0;
    int host_only;
    if (!len || nkhttp_p_span(c->name, len, NKHTTP_P_TOKEN) != len) return 0;
    if (c->value && !nkhttp_p_cookie_value_ok(c->value)) return 0;
    if (c->path && !nkhttp_p_cookie_path_ok(c->path)) return 0;
    if (c->domain && !nkhttp_p_cookie_domain_ok(c->domain)) return 0;
    if (c->same_site < 0 || c->same_site > NKHTTP_SAME_SITE_NONE) return 0;
    host_only = nkhttp_p_starts_with(c->name, "__Host-"); // RFC 6265bis 4.1.3
    if (host_only && (!c->path || strcmp(c->path, "/") != 0 || c->domain)) return 0;
    if (host_only || nkhttp_p_starts_with(c->name, "__Secure-")) return c->secure != 0;
    if (c->same_site == NKHTTP_SAME_SITE_NONE || c->partitioned) return c->secure != 0;
    return 1;
}

static void nkhttp_p_out_text(nkhttp_out* o, const char* label, const char* text) {
    nkhttp_out_raw(o, label, strlen(label));
    nkhttp_out_raw(o, text, strlen(text));
}

NETKIT_HTTP_API int nkhttp_cookie_format(char* out, size_t cap, const nkhttp_cookie* c) {
    static const char* const same_site[] = { "", "Lax", "Strict", "None" };
    nkhttp_out o;
    char number[20], date[29];
    if (!nkhttp_p_cookie_ok(c)) return NKHTTP_ERR_HEADER_VALUE;
    nkhttp_out_init(&o, out, cap);
    nkhttp_p_out_text(&o, c->name, "=");
    if (c->value) nkhttp_p_out_text(&o, "", c->value);
    if (c->path) nkhttp_p_out_text(&o, "; Path=", c->path);
    if (c->domain) nkhttp_p_out_text(&o, "; Domain=", c->domain);
    if (c->max_age_s) {
        nkhttp_p_out_text(&o, "; Max-Age=", "");
        nkhttp_out_raw(&o, number, nkhttp_p_u64(number, c->max_age_s < 0 ? 0 : (uint64_t)c->max_age_s));
    }
    if (c->expires_unix) {
        nkhttp_format_date(date, c->expires_unix);
        nkhttp_p_out_text(&o, "; Expires=", "");
        nkhttp_out_raw(&o, date, sizeof date);
    }
    if (c->secure) nkhttp_p_out_text(&o, "; Secure", "");
    if (c->http_only) nkhttp_p_out_text(&o, "; HttpOnly", "");
    if (c->same_site) nkhttp_p_out_text(&o, "; SameSite=", same_site[c->same_site]);
    if (c->partitioned) nkhttp_p_out_text(&o, "; Partitioned", "");
    return o.err ? o.err : nkhttp_p_end_text(out, cap, o.len);
}

// ---- @auth -----------------------------------------------------------------------------------
// Base64, Basic credentials, and a comparison that tells nobody how much of a secret was right.

NETKIT_HTTP_API int nkhttp_base64_encode(char* dst, size_t cap, const void* src, size_t n,
                                         size_t* len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t* p = (const uint8_t*)src;
    size_t i, o = 0;
    if (n / 3 + (n % 3 != 0) > cap / 4) return NKHTTP_ERR_NOSPACE;
    for (i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v = (uint32_t)p[i] << 16;
        if (left > 1) v |= (uint32_t)p[i + 1] << 8;
        if (left > 2) v |= p[i + 2];
        dst[o++] = digits[v >> 18];
        dst[o++] = digits[v >> 12 & 63];
        dst[o++] = left > 1 ? digits[v >> 6 & 63] : '=';
        dst[o++] = left > 2 ? digits[v & 63] : '=';
    }
    *len = o;
    return NKHTTP_OK;
}

static int nkhttp_p_base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

NETKIT_HTTP_API int nkhttp_base64_decode(void* dst, size_t cap, const char* src, size_t n,
                                         size_t* len) {
    uint8_t* out = (uint8_t*)dst;
    size_t i, k, o = 0, pad = 0;
    if (n % 4) return NKHTTP_ERR_ENCODING;
    if (n && src[n - 1] == '=') pad = src[n - 2] == '=' ? 2 : 1;
    if (n / 4 * 3 - pad > cap) return NKHTTP_ERR_NOSPACE;
    for (i = 0; i < n; i += 4) {
        size_t digits = i + 4 == n ? 4 - pad : 4;
        uint32_t v = 0;
        for (k = 0; k < 4; k++) {
            int d = k < digits ? nkhttp_p_base64_digit(src[i + k]) : 0;
            if (d < 0) return NKHTTP_ERR_ENCODING;
            v = v << 6 | (uint32_t)d;
        }
        // RFC 4648 3.5: bits behind the last byte are zero,
        // or one secret would have several spellings.
        if ((digits == 3 && v & 0xff) || (digits == 2 && v & 0xffff)) return NKHTTP_ERR_ENCODING;
        out[o++] = (uint8_t)(v >> 16);
        if (digits > 2) out[o++] = (uint8_t)(v >> 8);
        if (digits > 3) out[o++] = (uint8_t)v;
    }
    *len = o;
    return NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_basic_auth(nkhttp_str field, char* buf, size_t cap, nkhttp_str* user,
                                      nkhttp_str* pass) {
    const char* colon;
    size_t i, len = 0, skip = 5;
    int err;
    if (field.len < 6 || !nkhttp_p_ieq(field.ptr, "basic", 5) || field.ptr[5] != ' ') return NKHTTP_ERR_ABSENT;
    while (skip < field.len && field.ptr[skip] == ' ') skip++; // RFC 9110 11.4: 1*SP
    err = nkhttp_base64_decode(buf, cap, field.ptr + skip, field.len - skip, &len);
    if (err) return err;
    for (i = 0; i < len; i++) { // RFC 7617 2: no control characters
        if ((unsigned char)buf[i] < ' ' || buf[i] == 0x7f) return NKHTTP_ERR_ENCODING;
    }
    colon = len ? (const char*)memchr(buf, ':', len) : NULL;
    if (!colon) return NKHTTP_ERR_ENCODING;
    *user = nkhttp_p_str(buf, (size_t)(colon - buf));
    *pass = nkhttp_p_str(colon + 1, len - user->len - 1);
    return NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_equal_secret(const void* a, size_t an, const void* b, size_t bn) {
    const uint8_t* p = (const uint8_t*)a;
    const uint8_t* q = (const uint8_t*)b;
    static const uint8_t nothing[1] = { 0 };
    volatile uint8_t differ = an != bn; // volatile: the loop must not end early
    size_t i, k = 0;
    if (!bn) {
        q = nothing;
        bn = 1;
    }
    for (i = 0; i < an; i++) {
        differ = (uint8_t)(differ | (p[i] ^ q[k]));
        k = k + 1 == bn ? 0 : k + 1;
    }
    return !differ;
}

// ---- @negotiate ------------------------------------------------------------------------------
// Accept and Accept-Encoding (RFC 9110 12.4, 12.5).
// Also the cutting of lists whose elements may hold quoted strings.

// Takes what stands before the next sep off *rest, trimmed. Separators inside quoted strings do not
// count. 0 at the end.
static int nkhttp_p_cut(nkhttp_str* rest, char sep, nkhttp_str* item) {
    size_t i;
    int quoted = 0;
    if (!rest->len) return 0;
    for (i = 0; i < rest->len && (quoted || rest->ptr[i] != sep); i++) {
        if (rest->ptr[i] == '"') quoted = !quoted;
        else if (quoted && rest->ptr[i] == '\\' && i + 1 < rest->len) i++;
    }
    *item = nkhttp_p_trim(nkhttp_p_str(rest->ptr, i));
    if (i < rest->len) i++;
    rest->ptr += i;
    rest->len -= i;
    return 1;
}

// RFC 9110 12.4.2 qvalue in thousandths, or -1.
static int nkhttp_p_qvalue(nkhttp_str s) {
    int q, scale = 100;
    size_t i;
    if (!s.len || s.len > 5 || (s.ptr[0] != '0' && s.ptr[0] != '1')) return -1;
    if (s.len > 1 && s.ptr[1] != '.') return -1;
    q = (s.ptr[0] - '0') * 1000;
    for (i = 2; i < s.len; i++, scale /= 10) {
        if (!nkhttp_p_char(s.ptr[i], NKHTTP_P_DIGIT)) return -1;
        q += (s.ptr[i] - '0') * scale;
    }
    return q > 1000 ? -1 : q;
}

// Splits "text/html;level=1;q=0.5": name, whether it has parameters other than q,
// and its weight (-1: malformed).
static int nkhttp_p_weight(nkhttp_str item, nkhttp_str* name, int* has_params) {
    nkhttp_str param;
    int q = 1000;
    *has_params = 0;
    *name = nkhttp_p_str(item.ptr, 0);
    if (!nkhttp_p_cut(&item, ';', name)) return -1;
    while (nkhttp_p_cut(&item, ';', &param)) {
        if (param.len >= 2 && nkhttp_p_lower(param.ptr[0]) == 'q' && param.ptr[1] == '=') {
            q = nkhttp_p_qvalue(nkhttp_p_str(param.ptr + 2, param.len - 2));
            if (q < 0) return -1;
        } else if (param.len) {
            *has_params = 1;
        }
    }
    return q;
}

// RFC 9110 8.4.1: x-gzip and x-compress are gzip and compress.
static int nkhttp_p_coding_is(nkhttp_str name, const char* coding) {
    if (nkhttp_is(name, coding)) return 1;
    if (name.len < 3 || !nkhttp_p_ieq(name.ptr, "x-", 2)) return 0;
    name = nkhttp_p_str(name.ptr + 2, name.len - 2);
    return nkhttp_is(name, coding) && (nkhttp_is(name, "gzip") || nkhttp_is(name, "compress"));
}

NETKIT_HTTP_API int nkhttp_accepts_encoding(nkhttp_str accept, const char* coding) {
    nkhttp_str item, name;
    int is_identity = nkhttp_is(nkhttp_p_str("identity", 8), coding);
    int exact = -1, star = -1, listed = 0, has_params;
    while (nkhttp_p_cut(&accept, ',', &item)) {
        int q;
        if (!item.len) continue; // RFC 9110 5.6.1: empty elements do not count
        listed = 1;
        q = nkhttp_p_weight(item, &name, &has_params);
        if (q < 0) continue;
        if (exact < 0 && nkhttp_p_coding_is(name, coding)) exact = q;
        if (star < 0 && nkhttp_is(name, "*")) star = q;
    }
    if (exact >= 0) return exact;
    if (star >= 0) return star;
    if (!is_identity) return 0;
    return listed ? 1 : 1000; // RFC 9110 12.5.3: identity is acceptable unless it was refused
}

// 4 names the type, 3 names it with parameters that we do not know,
// 2 "type/*", 1 "*/*", 0 something else.
static int nkhttp_p_type_rank(nkhttp_str range, const char* type, int has_params) {
    size_t slash = strcspn(type, "/");
    if (nkhttp_is(range, type)) return has_params ? 3 : 4;
    if (nkhttp_is(range, "*/*")) return 1;
    if (range.len != slash + 2 || range.ptr[slash] != '/' || range.ptr[slash + 1] != '*') return 0;
    return nkhttp_p_ieq(range.ptr, type, slash) ? 2 : 0;
}

NETKIT_HTTP_API int nkhttp_accepts_type(nkhttp_str accept, const char* type) {
    nkhttp_str item, name;
    int best = 0, best_rank = 0, listed = 0, has_params;
    while (nkhttp_p_cut(&accept, ',', &item)) {
        int q, rank;
        if (!item.len) continue;
        listed = 1;
        q = nkhttp_p_weight(item, &name, &has_params);
        rank = q < 0 ? 0 : nkhttp_p_type_rank(name, type, has_params);
        if (rank > best_rank) { // RFC 9110 12.5.1: the most specific range has precedence
            best_rank = rank;
            best = q;
        }
    }
    return listed ? best : 1000;
}

// ---- @router ---------------------------------------------------------------------------------
// Method and path to a value. A trie of path segments; literal children are found in one hash table
// keyed by parent and decoded segment, so a match costs the same with ten routes and with ten
// thousand. Only building it allocates.

enum { // kinds of pattern segments, and method numbers
    NKHTTP_P_LITERAL = 0, NKHTTP_P_PARAM, NKHTTP_P_REST,
    NKHTTP_P_STANDARD_METHODS = 9, NKHTTP_P_ANY_METHOD = 254, NKHTTP_P_NO_METHOD = 255
};

// 0 means none in all links: node 0 is the root, route 0 is never used
struct nkhttp_p_router_node {
    uint32_t hash, parent;
    uint32_t text, len;    // the decoded literal
    uint32_t param;        // child that takes any one segment
    uint32_t routes;       // routes that end here
    uint32_t rest;         // routes that take all that follows
    uint32_t is_literal;
};

struct nkhttp_p_router_route {
    void*    value;
    uint32_t next;
    uint32_t names;        // parameter names in text, each behind one byte of length
    uint8_t  method, num_names;
};

typedef struct nkhttp_p_router_segment {
    const char* ptr;
    size_t      len, decoded_len;
    uint32_t    hash;
    int         kind;
} nkhttp_p_router_segment;

static nkhttp_str nkhttp_p_method_name(const nkhttp_router* r, uint32_t i) {
    static const char* const standard[NKHTTP_P_STANDARD_METHODS] = {
        // Also the order in Allow
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"
    };
    const char* p;
    if (i < NKHTTP_P_STANDARD_METHODS) return nkhttp_p_str(standard[i], strlen(standard[i]));
    p = r->text + r->methods[i];
    return nkhttp_p_str(p + 1, (unsigned char)p[0]);
}

static int nkhttp_p_method_find(const nkhttp_router* r, const char* method, size_t len) {
    uint32_t i;
    for (i = 0; i < r->num_methods; i++) {
        nkhttp_str name = nkhttp_p_method_name(r, i);
        if (name.len == len && !memcmp(name.ptr, method, len)) return (int)i;
    }
    return NKHTTP_P_NO_METHOD;
}

// Fills hash and decoded_len from ptr and len. Escapes were checked.
static void nkhttp_p_segment_hash(nkhttp_p_router_segment* s) {
    uint32_t h = 2166136261u;
    size_t i = 0;
    for (s->decoded_len = 0; i < s->len; s->decoded_len++) {
        int c = (unsigned char)s->ptr[i++];
        if (c == '%') {
            c = nkhttp_p_escape(s->ptr + i - 1, 3);
            i += 2;
        }
        h = (h ^ (uint32_t)c) * 16777619u;
    }
    s->hash = h;
}

static int nkhttp_p_segment_is(const nkhttp_p_router_segment* s, const char* text) {
    size_t i = 0, o;
    if (s->len == s->decoded_len) return !memcmp(s->ptr, text, s->len);
    for (o = 0; o < s->decoded_len; o++) {
        int c = (unsigned char)s->ptr[i++];
        if (c == '%') {
            c = nkhttp_p_escape(s->ptr + i - 1, 3);
            i += 2;
        }
        if (c != (unsigned char)text[o]) return 0;
    }
    return 1;
}

static uint32_t nkhttp_p_router_slot(uint32_t hash, uint32_t parent, uint32_t num_slots) {
    uint32_t h = hash ^ parent * 2654435769u;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return h & (num_slots - 1);
}

// The literal child for a segment, or 0.
static uint32_t nkhttp_p_router_child(const nkhttp_router* r, uint32_t parent,
                                      const nkhttp_p_router_segment* s) {
    uint32_t i, n;
    if (!r->cap_slots) return 0;
    i = nkhttp_p_router_slot(s->hash, parent, r->cap_slots);
    for (; (n = r->slots[i]) != 0; i = (i + 1) & (r->cap_slots - 1)) {
        const struct nkhttp_p_router_node* node = &r->nodes[n];
        if (node->hash != s->hash || node->parent != parent || node->len != s->decoded_len) continue;
        if (nkhttp_p_segment_is(s, r->text + node->text)) return n;
    }
    return 0;
}

static void nkhttp_p_router_slot_put(uint32_t* slots, uint32_t num_slots,
                                     const struct nkhttp_p_router_node* node, uint32_t n) {
    uint32_t i = nkhttp_p_router_slot(node->hash, node->parent, num_slots);
    while (slots[i]) i = (i + 1) & (num_slots - 1);
    slots[i] = n;
}

static void* nkhttp_p_router_alloc(nkhttp_router* r, void* ptr, size_t old_size, size_t new_size) {
    if (r->alloc_fn) return r->alloc_fn(r->alloc_user, ptr, old_size, new_size);
    if (new_size) return realloc(ptr, new_size);
    free(ptr);
    return NULL;
}

// Room for need elements in *array. On failure nothing has changed.
static int nkhttp_p_router_grow(nkhttp_router* r, void** array, uint32_t* cap, size_t size,
                                uint32_t need) {
    uint32_t n = *cap ? *cap : 16;
    void* grown;
    if (need <= *cap) return NKHTTP_OK;
    if (need > 0x1000000) return NKHTTP_ERR_MEMORY; // 16 M: no product here comes near 2^32
    while (n < need) n *= 2;
    grown = nkhttp_p_router_alloc(r, *array, *cap * size, n * size);
    if (!grown) return NKHTTP_ERR_MEMORY;
    *array = grown;
    *cap = n;
    return NKHTTP_OK;
}

// At least half of the slots stay empty, so that a search for a segment that is not there ends soon.
static int nkhttp_p_router_slots(nkhttp_router* r, uint32_t num_nodes) {
    uint32_t i, n = r->cap_slots ? r->cap_slots : 32;
    uint32_t* slots;
    while (n < num_nodes * 2) n *= 2;
    if (n == r->cap_slots) return NKHTTP_OK;
    slots = (uint32_t*)nkhttp_p_router_alloc(r, NULL, 0, n * sizeof *slots);
    if (!slots) return NKHTTP_ERR_MEMORY;
    memset(slots, 0, n * sizeof *slots);
    for (i = 1; i < r->num_nodes; i++) {
        if (r->nodes[i].is_literal) nkhttp_p_router_slot_put(slots, n, &r->nodes[i], i);
    }
    if (r->slots) nkhttp_p_router_alloc(r, r->slots, r->cap_slots * sizeof *slots, 0);
    r->slots = slots;
    r->cap_slots = n;
    return NKHTTP_OK;
}

// Everything one more route can need is reserved before the first change:
// nkhttp_router_add cannot fail half-way.
static int nkhttp_p_router_reserve(nkhttp_router* r, uint32_t num_segments, uint32_t num_text) {
    void* array = r->nodes;
    int err = nkhttp_p_router_grow(r, &array, &r->cap_nodes, sizeof *r->nodes, r->num_nodes + num_segments + 1);
    r->nodes = (struct nkhttp_p_router_node*)array;
    if (err) return err;
    array = r->routes;
    err = nkhttp_p_router_grow(r, &array, &r->cap_routes, sizeof *r->routes, r->num_routes + 2);
    r->routes = (struct nkhttp_p_router_route*)array;
    if (err) return err;
    array = r->text;
    err = nkhttp_p_router_grow(r, &array, &r->cap_text, 1, r->num_text + num_text);
    r->text = (char*)array;
    if (err) return err;
    return nkhttp_p_router_slots(r, r->num_nodes + num_segments + 1);
}

static uint32_t nkhttp_p_router_text(nkhttp_router* r, const char* p, size_t len) {
    uint32_t at = r->num_text;
    if (len) memcpy(r->text + at, p, len);
    r->num_text += (uint32_t)len;
    return at;
}

// Caller checked len < 256
static uint32_t nkhttp_p_router_name(nkhttp_router* r, const char* p, size_t len) {
    char size = (char)len;
    uint32_t at = nkhttp_p_router_text(r, &size, 1);
    nkhttp_p_router_text(r, p, len);
    return at;
}

static uint32_t nkhttp_p_router_node_put(nkhttp_router* r, uint32_t parent) {
    uint32_t n = r->num_nodes++;
    memset(&r->nodes[n], 0, sizeof r->nodes[n]);
    r->nodes[n].parent = parent;
    return n;
}

// One segment of a pattern. 0, or NKHTTP_ERR_PATTERN.
static int nkhttp_p_pattern_segment(nkhttp_p_router_segment* s) {
    size_t i;
    s->kind = NKHTTP_P_LITERAL;
    if (s->len && s->ptr[0] == '{') {
        if (s->len < 3 || s->ptr[s->len - 1] != '}') return NKHTTP_ERR_PATTERN;
        s->kind = s->ptr[s->len - 2] == '*' ? NKHTTP_P_REST : NKHTTP_P_PARAM;
        s->len -= s->kind == NKHTTP_P_REST ? 3u : 2u;
        s->ptr++;
        for (i = 0; i < s->len; i++) {
            char c = s->ptr[i];
            if (!nkhttp_p_char(c, NKHTTP_P_ALNUM) && c != '_' && c != '-') return NKHTTP_ERR_PATTERN;
        }
        if (!s->len || s->len > 63) return NKHTTP_ERR_PATTERN;
        return NKHTTP_OK;
    }
    for (i = 0; i < s->len; i++) {
        unsigned char c = (unsigned char)s->ptr[i];
        if (c <= ' ' || c == 0x7f || c == '{' || c == '}' || c == '?' || c == '#') return NKHTTP_ERR_PATTERN;
        if (c == '%' && nkhttp_p_escape(s->ptr + i, s->len - i) < 0) return NKHTTP_ERR_PATTERN;
    }
    nkhttp_p_segment_hash(s);
    return NKHTTP_OK;
}

// Parameter names of one pattern differ, and there are not too many.
static int nkhttp_p_names_ok(const nkhttp_p_router_segment* s, uint32_t n) {
    uint32_t i, k, params = 0;
    for (i = 0; i < n; i++) {
        if (s[i].kind == NKHTTP_P_LITERAL) continue;
        if (++params > NKHTTP_MAX_PARAMS) return 0;
        for (k = 0; k < i; k++) {
            if (s[k].kind == NKHTTP_P_LITERAL || s[k].len != s[i].len) continue;
            if (!memcmp(s[k].ptr, s[i].ptr, s[i].len)) return 0;
        }
    }
    return 1;
}

// Number of segments, or NKHTTP_ERR_PATTERN. "/" is one empty segment;
// others may be empty only at the end.
static int nkhttp_p_pattern_split(const char* pattern, nkhttp_p_router_segment* s) {
    const char* p = pattern;
    uint32_t n = 0;
    if (*p != '/' || strlen(p) > 4096) return NKHTTP_ERR_PATTERN;
    while (*p) {
        if (n == NKHTTP_MAX_SEGMENTS) return NKHTTP_ERR_PATTERN;
        s[n].ptr = ++p;
        s[n].len = strcspn(p, "/");
        p += s[n].len;
        if (nkhttp_p_pattern_segment(&s[n])) return NKHTTP_ERR_PATTERN;
        if (*p && (!s[n].len || s[n].kind == NKHTTP_P_REST)) return NKHTTP_ERR_PATTERN;
        n++;
    }
    return nkhttp_p_names_ok(s, n) ? (int)n : NKHTTP_ERR_PATTERN;
}

// Number of a method, or NKHTTP_P_NO_METHOD if it is no token or the table is full.
// Room in text was reserved.
static int nkhttp_p_method_add(nkhttp_router* r, const char* method, size_t len) {
    int found;
    if (!len) return NKHTTP_P_ANY_METHOD;
    found = nkhttp_p_method_find(r, method, len);
    if (found != NKHTTP_P_NO_METHOD) return found;
    if (r->num_methods == NKHTTP_MAX_METHODS) return NKHTTP_P_NO_METHOD;
    r->methods[r->num_methods] = nkhttp_p_router_name(r, method, len);
    return (int)r->num_methods++;
}

static uint32_t nkhttp_p_router_descend(nkhttp_router* r, uint32_t node,
                                        const nkhttp_p_router_segment* s) {
    uint32_t child = s->kind == NKHTTP_P_PARAM ? r->nodes[node].param : nkhttp_p_router_child(r, node, s);
    size_t len = 0;
    if (child) return child;
    child = nkhttp_p_router_node_put(r, node);
    if (s->kind == NKHTTP_P_PARAM) {
        r->nodes[node].param = child;
        return child;
    }
    r->nodes[child].hash = s->hash;
    r->nodes[child].text = r->num_text;
    r->nodes[child].len = (uint32_t)s->decoded_len;
    r->nodes[child].is_literal = 1;
    nkhttp_p_decode(r->text + r->num_text, s->decoded_len, nkhttp_p_str(s->ptr, s->len), ' ', &len);
    r->num_text += (uint32_t)len;
    nkhttp_p_router_slot_put(r->slots, r->cap_slots, &r->nodes[child], child);
    return child;
}

// Appends a route to a list of one node. NKHTTP_ERR_DUPLICATE only if the whole pattern was there
// before: no node was made.
static int nkhttp_p_router_route_put(nkhttp_router* r, uint32_t* list, int method,
                                     const nkhttp_p_router_segment* s, uint32_t n, void* value) {
    struct nkhttp_p_router_route* route;
    uint32_t i;
    for (; *list; list = &r->routes[*list].next) {
        if (r->routes[*list].method == method) return NKHTTP_ERR_DUPLICATE;
    }
    // The list head is a node or another route; neither moves, room was reserved
    *list = ++r->num_routes;
    route = &r->routes[r->num_routes];
    memset(route, 0, sizeof *route);
    route->value = value;
    route->method = (uint8_t)method;
    route->names = r->num_text;
    for (i = 0; i < n; i++) {
        if (s[i].kind == NKHTTP_P_LITERAL) continue;
        nkhttp_p_router_name(r, s[i].ptr, s[i].len);
        route->num_names++;
    }
    return NKHTTP_OK;
}

NETKIT_HTTP_API void nkhttp_router_init(nkhttp_router* r, nkhttp_alloc_fn alloc_fn,
                                        void* alloc_user) {
    memset(r, 0, sizeof *r);
    r->alloc_fn = alloc_fn;
    r->alloc_user = alloc_user;
    r->num_methods = NKHTTP_P_STANDARD_METHODS;
}

NETKIT_HTTP_API void nkhttp_router_free(nkhttp_router* r) {
    if (r->nodes) nkhttp_p_router_alloc(r, r->nodes, r->cap_nodes * sizeof *r->nodes, 0);
    if (r->routes) nkhttp_p_router_alloc(r, r->routes, r->cap_routes * sizeof *r->routes, 0);
    if (r->slots) nkhttp_p_router_alloc(r, r->slots, r->cap_slots * sizeof *r->slots, 0);
    if (r->text) nkhttp_p_router_alloc(r, r->text, r->cap_text, 0);
    nkhttp_router_init(r, r->alloc_fn, r->alloc_user);
}

NETKIT_HTTP_API int nkhttp_router_add(nkhttp_router* r, const char* method, const char* pattern,
                                      void* value) {
    nkhttp_p_router_segment segments[NKHTTP_MAX_SEGMENTS];
    size_t mlen = method ? strlen(method) : 0;
    int count = nkhttp_p_pattern_split(pattern, segments), number, err;
    uint32_t i, n, node = 0;
    uint32_t* list;
    if (count < 0) return count;
    if (mlen > 64 || nkhttp_p_span(method, mlen, NKHTTP_P_TOKEN) != mlen) return NKHTTP_ERR_PATTERN;
    n = (uint32_t)count;
    // Every byte of the pattern is stored at most once,
    // plus one of length for each name and the method.
    err = nkhttp_p_router_reserve(r, n, (uint32_t)(strlen(pattern) + mlen) + NKHTTP_MAX_PARAMS + 1);
    if (err) return err;
    number = nkhttp_p_method_add(r, method, mlen);
    if (number == NKHTTP_P_NO_METHOD) return NKHTTP_ERR_PATTERN;
    if (!r->num_nodes) nkhttp_p_router_node_put(r, 0);
    for (i = 0; i < n && segments[i].kind != NKHTTP_P_REST; i++) {
        node = nkhttp_p_router_descend(r, node, &segments[i]);
    }
    if (n > r->max_depth) r->max_depth = n;
    list = i < n ? &r->nodes[node].rest : &r->nodes[node].routes;
    return nkhttp_p_router_route_put(r, list, number, segments, n, value);
}

// ---- @match ----------------------------------------------------------------------------------
// A request's method and path against the router: reads it only, so any thread may. Backtracks, as
// a literal may turn out to be a dead end where a parameter is not.

typedef struct nkhttp_p_router_walk {
    const nkhttp_router* r;
    const char*      end;      // of the path
    int              method;   // number of the request's method, or NKHTTP_P_NO_METHOD
    uint32_t         num_segments;
    int              has_more; // the path is deeper than any pattern
    uint32_t         num_values;
    uint32_t         allowed;
    nkhttp_str       values[NKHTTP_MAX_PARAMS];
    nkhttp_p_router_segment segments[NKHTTP_MAX_SEGMENTS];
} nkhttp_p_router_walk;

// Cuts the path into as many segments as the deepest pattern has. 0, or NKHTTP_ERR_ENCODING:
// anywhere in the path, so that the answer to a bad escape does not depend on the routes.
static int nkhttp_p_path_split(nkhttp_p_router_walk* w, const char* path, size_t len) {
    const char* end = path + len;
    const char* p = path;
    while ((p = (const char*)memchr(p, '%', (size_t)(end - p))) != NULL) {
        if (nkhttp_p_escape(p, (size_t)(end - p)) < 0) return NKHTTP_ERR_ENCODING;
        p += 3;
    }
    w->end = end;
    for (p = path; p && w->num_segments < w->r->max_depth; w->num_segments++) {
        nkhttp_p_router_segment* s = &w->segments[w->num_segments];
        s->ptr = ++p;
        p = (const char*)memchr(p, '/', (size_t)(end - p));
        s->len = (size_t)((p ? p : end) - s->ptr);
        nkhttp_p_segment_hash(s);
    }
    w->has_more = p != NULL;
    return NKHTTP_OK;
}

// The route of a list that serves the method, or 0. RFC 9110 9.3.2: what answers GET answers HEAD.
static uint32_t nkhttp_p_router_pick(nkhttp_p_router_walk* w, uint32_t list) {
    uint32_t get = 0, any = 0;
    for (; list; list = w->r->routes[list].next) {
        uint32_t method = w->r->routes[list].method;
        if ((int)method == w->method) return list;
        if (method == NKHTTP_P_ANY_METHOD) any = list;
        else w->allowed |= (uint32_t)1 << method;
        if (method == 0 && w->method == 1) get = list;
    }
    return get ? get : any;
}

// Route for segments i and later below a node, or 0. True recursion: at most NKHTTP_MAX_SEGMENTS
// deep, and as every node has one way to it, no node is seen twice: a path cannot make it cost more
// than the routes that look like it.
static uint32_t nkhttp_p_router_step(nkhttp_p_router_walk* w, uint32_t node, uint32_t i) {
    const struct nkhttp_p_router_node* at = &w->r->nodes[node];
    const nkhttp_p_router_segment* s = &w->segments[i];
    uint32_t child, route = 0;
    if (i == w->num_segments) return w->has_more ? 0 : nkhttp_p_router_pick(w, at->routes);
    child = nkhttp_p_router_child(w->r, node, s);
    if (child) route = nkhttp_p_router_step(w, child, i + 1);
    if (!route && at->param && s->len) {
        w->values[w->num_values++] = nkhttp_p_str(s->ptr, s->len);
        route = nkhttp_p_router_step(w, at->param, i + 1);
        if (!route) w->num_values--;
    }
    if (!route && at->rest) {
        route = nkhttp_p_router_pick(w, at->rest);
        if (route) w->values[w->num_values++] = nkhttp_p_str(s->ptr, (size_t)(w->end - s->ptr));
    }
    return route;
}

static void nkhttp_p_router_fill(const nkhttp_p_router_walk* w,
                                 const struct nkhttp_p_router_route* route, nkhttp_match* out) {
    const char* name = w->r->text + route->names;
    uint32_t i;
    out->value = route->value;
    out->num_params = route->num_names;
    for (i = 0; i < out->num_params; i++) {
        out->params[i].name = nkhttp_p_str(name + 1, (unsigned char)name[0]);
        out->params[i].value = w->values[i];
        name += 1 + out->params[i].name.len;
    }
}

NETKIT_HTTP_API int nkhttp_router_match(const nkhttp_router* r, const char* method, size_t mlen,
                                        const char* path, size_t plen, nkhttp_match* out) {
    nkhttp_p_router_walk w;
    uint32_t route;
    out->value = NULL;
    out->num_params = 0;
    out->allowed = 0;
    if (!plen || path[0] != '/' || !r->num_routes) return NKHTTP_ERR_NO_ROUTE;
    w.r = r; // the arrays stay as they are: a kilobyte of zeros per request buys nothing
    w.method = nkhttp_p_method_find(r, method, mlen);
    w.num_segments = 0;
    w.num_values = 0;
    w.allowed = 0;
    if (nkhttp_p_path_split(&w, path, plen)) return NKHTTP_ERR_ENCODING;
    route = nkhttp_p_router_step(&w, 0, 0);
    if (route) {
        nkhttp_p_router_fill(&w, &r->routes[route], out);
        return NKHTTP_OK;
    }
    out->allowed = w.allowed;
    return w.allowed ? NKHTTP_ERR_NO_METHOD : NKHTTP_ERR_NO_ROUTE;
}

// RFC 9110 10.2.1. HEAD comes with GET, and OPTIONS is always answered.
NETKIT_HTTP_API int nkhttp_router_allow(const nkhttp_router* r, uint32_t allowed, char* out,
                                        size_t cap) {
    nkhttp_out o;
    uint32_t i;
    nkhttp_out_init(&o, out, cap);
    if (allowed & 1) allowed |= 2;
    allowed |= 64; // OPTIONS
    for (i = 0; i < r->num_methods; i++) {
        nkhttp_str name = nkhttp_p_method_name(r, i);
        if (!(allowed >> i & 1)) continue;
        if (o.len) nkhttp_out_raw(&o, ", ", 2);
        nkhttp_out_raw(&o, name.ptr, name.len);
    }
    return o.err ? o.err : nkhttp_p_end_text(out, cap, o.len);
}

NETKIT_HTTP_API nkhttp_str nkhttp_match_param(const nkhttp_match* m, const char* name) {
    size_t len = strlen(name);
    uint32_t i;
    for (i = 0; i < m->num_params; i++) {
        if (m->params[i].name.len == len && !memcmp(m->params[i].name.ptr, name, len)) return m->params[i].value;
    }
    return nkhttp_p_str("", 0);
}

// ---- @multipart ------------------------------------------------------------------------------
// multipart/form-data (RFC 7578, RFC 2046) as a pull parser over the caller's bytes. Also
// parameters of field values, which nothing but multipart needs. Bytes after the boundary of a line
// decide whether it is one: "--boundaryX" is content.

#ifndef NETKIT_HTTP_NO_MULTIPART
enum { // nkhttp_multipart.state
    NKHTTP_P_PREAMBLE = 0, NKHTTP_P_BOUNDARY, NKHTTP_P_PADDING,
    NKHTTP_P_PART_HEAD, NKHTTP_P_CONTENT, NKHTTP_P_EPILOGUE,
    NKHTTP_P_BROKEN, // scanned holds the error
    NKHTTP_P_PART_HEAD_BYTES = 8192
};

// A quoted string at the start of p, its inside to *value. Bytes consumed, or 0 if it does not end.
static size_t nkhttp_p_quoted(const char* p, size_t len, nkhttp_str* value) {
    size_t i;
    for (i = 1; i < len && p[i] != '"'; i++) {
        if (p[i] == '\\' && i + 1 < len) i++;
    }
    if (i >= len) return 0;
    *value = nkhttp_p_str(p + 1, i - 1);
    return i + 1;
}

// Takes `; name=value` off *rest. 1, 0 at the end, -1 malformed. Values without quotes may hold
// characters that are no token: "boundary=a=b/c" is common.
static int nkhttp_p_param_next(nkhttp_str* rest, nkhttp_str* name, nkhttp_str* value) {
    nkhttp_str s = nkhttp_p_trim(*rest);
    size_t n;
    while (s.len && s.ptr[0] == ';') s = nkhttp_p_trim(nkhttp_p_str(s.ptr + 1, s.len - 1));
    *rest = s;
    if (!s.len) return 0;
    n = nkhttp_p_span(s.ptr, s.len, NKHTTP_P_TOKEN);
    *name = nkhttp_p_str(s.ptr, n);
    s = nkhttp_p_trim(nkhttp_p_str(s.ptr + n, s.len - n));
    if (!n || !s.len || s.ptr[0] != '=') return -1;
    s = nkhttp_p_trim(nkhttp_p_str(s.ptr + 1, s.len - 1));
    if (s.len && s.ptr[0] == '"') {
        n = nkhttp_p_quoted(s.ptr, s.len, value);
        if (!n) return -1;
    } else {
        for (n = 0; n < s.len && s.ptr[n] != ';' && s.ptr[n] != '"'; n++) {}
        *value = nkhttp_p_trim(nkhttp_p_str(s.ptr, n));
    }
    *rest = nkhttp_p_trim(nkhttp_p_str(s.ptr + n, s.len - n));
    return rest->len && rest->ptr[0] != ';' ? -1 : 1;
}

// What stands before the first parameter; *rest is left with the parameters.
static nkhttp_str nkhttp_p_param_head(nkhttp_str value, nkhttp_str* rest) {
    const char* semicolon = value.len ? (const char*)memchr(value.ptr, ';', value.len) : NULL;
    size_t n = semicolon ? (size_t)(semicolon - value.ptr) : value.len;
    *rest = nkhttp_p_str(value.ptr + n, value.len - n);
    return nkhttp_p_trim(nkhttp_p_str(value.ptr, n));
}

// RFC 2046 5.1.1: 1 to 70 bchars, the last one no space.
static int nkhttp_p_boundary_ok(nkhttp_str b) {
    size_t i;
    if (!b.len || b.len > 70 || b.ptr[b.len - 1] == ' ') return 0;
    for (i = 0; i < b.len; i++) {
        if (nkhttp_p_char(b.ptr[i], NKHTTP_P_ALNUM)) continue;
        if (!b.ptr[i] || !strchr("'()+_,-./:=? ", b.ptr[i])) return 0;
    }
    return 1;
}

NETKIT_HTTP_API int nkhttp_boundary(nkhttp_str content_type, nkhttp_str* boundary) {
    nkhttp_str rest, name, value, type = nkhttp_p_param_head(content_type, &rest);
    int more, seen = 0;
    if (type.len < 11 || !nkhttp_p_ieq(type.ptr, "multipart/", 10)) return NKHTTP_ERR_ABSENT;
    while ((more = nkhttp_p_param_next(&rest, &name, &value)) > 0) {
        if (!nkhttp_is(name, "boundary")) continue;
        if (seen++) return NKHTTP_ERR_MULTIPART; // two readers would choose differently
        *boundary = value;
    }
    return more < 0 || !seen || !nkhttp_p_boundary_ok(*boundary) ? NKHTTP_ERR_MULTIPART : NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_multipart_init(nkhttp_multipart* m, nkhttp_str boundary) {
    memset(m, 0, sizeof *m);
    m->max_parts = 1000;
    m->line_start = 1;
    if (!nkhttp_p_boundary_ok(boundary)) {
        m->state = NKHTTP_P_BROKEN;
        m->scanned = (uint32_t)-NKHTTP_ERR_MULTIPART;
        return NKHTTP_ERR_MULTIPART;
    }
    memcpy(m->delim, "\r\n--", 4);
    memcpy(m->delim + 4, boundary.ptr, boundary.len);
    m->delim_len = (uint32_t)boundary.len + 4;
    return NKHTTP_OK;
}

// Is there a delimiter at p, of which `skip` bytes came before?
// 1 yes, 0 cannot say yet, -1 no, or NKHTTP_ERR_MULTIPART.
static int nkhttp_p_delimiter_at(const nkhttp_multipart* m, const char* p, size_t len,
                                 size_t skip) {
    size_t n = m->delim_len - skip;
    char next;
    if (memcmp(p, m->delim + skip, len < n ? len : n) != 0) return -1;
    if (len <= n) return 0;
    next = p[n];
    if (next == ' ' || next == '\t') return 1; // RFC 2046 5.1.1 transport-padding
    if (next == '\n') return NKHTTP_ERR_MULTIPART; // a lenient reader would end the part here
    if (next != '\r' && next != '-') return -1;
    if (len == n + 1) return 0;
    return p[n + 1] == (next == '-' ? '-' : '\n') ? 1 : -1;
}

// Finds the next delimiter. *content: bytes before it, or, when there is none yet, bytes that
// cannot belong to one. 1: it starts there, 0: not found, < 0 error. memchr for CR: one look at a
// byte, and no CR is inside a delimiter.
static int nkhttp_p_delimiter_find(nkhttp_multipart* m, const char* p, size_t len,
                                   size_t* content) {
    size_t at = 0;
    *content = 0;
    if (m->line_start) {
        int found = nkhttp_p_delimiter_at(m, p, len, 2);
        if (found == NKHTTP_ERR_MULTIPART || found >= 0) return found;
        m->line_start = 0;
    }
    while (at < len) {
        const char* cr = (const char*)memchr(p + at, '\r', len - at);
        int found;
        if (!cr) break;
        *content = (size_t)(cr - p);
        found = nkhttp_p_delimiter_at(m, cr, len - *content, 0);
        if (found == 1 || found == 0) return found;
        // Content first, at any split
        if (found == NKHTTP_ERR_MULTIPART) return *content ? 1 : found;
        at = *content + 1;
    }
    *content = len;
    return 0;
}

static int nkhttp_p_disposition(nkhttp_part_event* ev) {
    nkhttp_str rest, name, value;
    int more, named = 0, filed = 0;
    nkhttp_p_param_head(ev->disposition, &rest);
    while ((more = nkhttp_p_param_next(&rest, &name, &value)) > 0) {
        if (nkhttp_is(name, "name")) {
            // Said twice: two readers would choose differently
            if (named++) return NKHTTP_ERR_MULTIPART;
            ev->name = value;
        } else if (nkhttp_is(name, "filename")) {
            if (filed++) return NKHTTP_ERR_MULTIPART;
            ev->is_file = 1;
            ev->filename = value;
        } else if (nkhttp_is(name, "filename*")) {
            ev->is_file = 1;
        }
    }
    return more < 0 ? NKHTTP_ERR_MULTIPART : NKHTTP_OK;
}

// One field line of a part, without its CRLF.
static int nkhttp_p_part_field(nkhttp_part_event* ev, const char* p, size_t len) {
    size_t n = nkhttp_p_span(p, len, NKHTTP_P_TOKEN);
    nkhttp_str name = nkhttp_p_str(p, n), value;
    // Folded lines too: they begin with a space
    if (!n || n == len || p[n] != ':') return NKHTTP_ERR_MULTIPART;
    value = nkhttp_p_str(p + n + 1, len - n - 1);
    if (nkhttp_p_span(value.ptr, value.len, NKHTTP_P_VALUE) != value.len) return NKHTTP_ERR_MULTIPART;
    value = nkhttp_p_trim(value);
    if (nkhttp_is(name, "content-disposition")) {
        if (ev->disposition.len || !value.len) return NKHTTP_ERR_MULTIPART;
        ev->disposition = value;
        return nkhttp_p_disposition(ev);
    }
    if (nkhttp_is(name, "content-type")) {
        if (ev->content_type.len) return NKHTTP_ERR_MULTIPART;
        ev->content_type = value;
    }
    return NKHTTP_OK;
}

static void nkhttp_p_event_clear(nkhttp_part_event* ev) {
    nkhttp_str none = nkhttp_p_str("", 0);
    ev->name = ev->filename = ev->content_type = ev->disposition = ev->headers = ev->data = none;
    ev->is_file = 0;
}

// Caller checked that every LF in the block follows a CR, and that it ends with an empty line.
static int nkhttp_p_part_fields(nkhttp_part_event* ev, const char* p, size_t len) {
    const char* end = p + len - 2;
    ev->headers = nkhttp_p_str(p, len - 2);
    while (p < end) {
        const char* lf = (const char*)memchr(p, '\n', (size_t)(end - p));
        int err = nkhttp_p_part_field(ev, p, (size_t)(lf - p) - 1);
        if (err) return err;
        p = lf + 1;
    }
    return NKHTTP_OK;
}

// The header block, which may be nothing but the empty line.
// Looks at each byte once, however it arrives.
static int nkhttp_p_part_head(nkhttp_multipart* m, const char* p, size_t len, size_t* used,
                              nkhttp_part_event* ev) {
    size_t most = NKHTTP_P_PART_HEAD_BYTES, cap = len < most ? len : most;
    size_t at = m->scanned < cap ? m->scanned : cap;
    const char* lf;
    while (at < cap && (lf = (const char*)memchr(p + at, '\n', cap - at)) != NULL) {
        size_t i = (size_t)(lf - p);
        int err;
        // RFC 2046 4.1.1: lines end with CRLF
        if (!i || p[i - 1] != '\r') return NKHTTP_ERR_MULTIPART;
        at = i + 1;
        if (i != 1 && p[i - 2] != '\n') continue;
        err = nkhttp_p_part_fields(ev, p, at);
        if (err) return err;
        *used = at;
        m->state = NKHTTP_P_CONTENT;
        m->line_start = 1; // its CRLF may also be the one of a delimiter: a part without content
        return NKHTTP_PART_BEGIN;
    }
    m->scanned = (uint32_t)cap;
    if (cap == most) return NKHTTP_ERR_PART_HEAD;
    return NKHTTP_PART_MORE;
}

// Behind the boundary: "--", or white space and CRLF.
static int nkhttp_p_part_start(nkhttp_multipart* m, const char* p, size_t len, size_t* used) {
    size_t i = 0;
    if (m->state == NKHTTP_P_BOUNDARY) {
        if (len < 2) return NKHTTP_PART_MORE;
        m->state = p[0] == '-' ? NKHTTP_P_EPILOGUE : NKHTTP_P_PADDING;
        if (p[0] == '-') {
            *used = 2;
            return NKHTTP_PART_DONE;
        }
    }
    while (i < len && (p[i] == ' ' || p[i] == '\t')) i++;
    *used = i;
    if (i == len) return NKHTTP_PART_MORE;
    if (p[i] != '\r') return NKHTTP_ERR_MULTIPART;
    if (i + 1 == len) return NKHTTP_PART_MORE;
    if (p[i + 1] != '\n') return NKHTTP_ERR_MULTIPART;
    if (m->num_parts >= m->max_parts && m->max_parts != UINT32_MAX) return NKHTTP_ERR_PART_COUNT;
    m->num_parts++;
    m->scanned = 0;
    m->state = NKHTTP_P_PART_HEAD;
    *used = i + 2;
    return NKHTTP_PART_MORE;
}

// Content of a part, or the preamble, whose bytes nobody sees.
static int nkhttp_p_part_content(nkhttp_multipart* m, const char* p, size_t len, size_t* used,
                                 nkhttp_part_event* ev) {
    size_t content = 0;
    int was_content = m->state == NKHTTP_P_CONTENT;
    int found = nkhttp_p_delimiter_find(m, p, len, &content);
    if (found < 0) return found;
    *used = content;
    if (content) m->line_start = 0;
    if (content && was_content) {
        ev->data = nkhttp_p_str(p, content);
        return NKHTTP_PART_DATA;
    }
    if (content || !found) return NKHTTP_PART_MORE;
    *used = m->delim_len - (m->line_start ? 2u : 0u);
    m->state = NKHTTP_P_BOUNDARY;
    return was_content ? NKHTTP_PART_END : NKHTTP_PART_MORE;
}

NETKIT_HTTP_API int nkhttp_multipart_next(nkhttp_multipart* m, const char* buf, size_t len,
                                          size_t* used,
                                          nkhttp_part_event* ev) {
    int result = NKHTTP_PART_MORE;
    size_t step;
    *used = 0;
    nkhttp_p_event_clear(ev);
    if (m->state == NKHTTP_P_BROKEN) return -(int)m->scanned;
    do { // every turn takes bytes or ends
        const char* p = buf + *used;
        size_t left = len - *used;
        step = 0;
        if (!left) return NKHTTP_PART_MORE;
        switch (m->state) {
        case NKHTTP_P_BOUNDARY:
        case NKHTTP_P_PADDING:   result = nkhttp_p_part_start(m, p, left, &step); break;
        case NKHTTP_P_PART_HEAD: result = nkhttp_p_part_head(m, p, left, &step, ev); break;
        case NKHTTP_P_EPILOGUE:  step = left; break;
        default:                 result = nkhttp_p_part_content(m, p, left, &step, ev); break;
        }
        *used += step;
    } while (result == NKHTTP_PART_MORE && step);
    if (result < 0) {
        nkhttp_p_event_clear(ev);
        m->state = NKHTTP_P_BROKEN;
        m->scanned = (uint32_t)-result;
    }
    return result;
}

// RFC 2046 5.1.1: only the close-delimiter says that nothing is missing.
NETKIT_HTTP_API int nkhttp_multipart_finish(const nkhttp_multipart* m) {
    if (m->state == NKHTTP_P_BROKEN) return -(int)m->scanned;
    return m->state == NKHTTP_P_EPILOGUE ? NKHTTP_OK : NKHTTP_ERR_MULTIPART;
}

// Only \" and \\ are taken for escapes: old browsers send "C:\dir\file" as it is.
NETKIT_HTTP_API int nkhttp_unquote(nkhttp_str raw, char* out, size_t cap) {
    size_t i, n = 0;
    for (i = 0; i < raw.len; i++) {
        char next = i + 1 < raw.len ? raw.ptr[i + 1] : 'x';
        if (raw.ptr[i] == '\\' && (next == '"' || next == '\\')) i++;
        if (n == cap) return NKHTTP_ERR_NOSPACE;
        out[n++] = raw.ptr[i];
    }
    return nkhttp_p_end_text(out, cap, n);
}

NETKIT_HTTP_API nkhttp_str nkhttp_basename(nkhttp_str path) {
    size_t i = path.len;
    while (i && path.ptr[i - 1] != '/' && path.ptr[i - 1] != '\\') i--;
    path = nkhttp_p_str(path.ptr + i, path.len - i);
    if (path.len && path.len <= 2 && path.ptr[0] == '.' && path.ptr[path.len - 1] == '.') path.len = 0;
    return path;
}

// RFC 8187 3.2.1: charset ' language ' percent-encoded. UTF-8 only, as every sender of today.
// Length, or an error.
static int nkhttp_p_ext_decode(nkhttp_str value, char* out, size_t cap) {
    const char* quote;
    size_t len = 0;
    int err;
    if (value.len < 7 || !nkhttp_p_ieq(value.ptr, "utf-8'", 6)) return NKHTTP_ERR_ENCODING;
    quote = (const char*)memchr(value.ptr + 6, '\'', value.len - 6);
    if (!quote) return NKHTTP_ERR_ENCODING;
    quote++;
    err = nkhttp_percent_decode(out, cap, quote, value.len - (size_t)(quote - value.ptr), &len);
    return err ? err : nkhttp_p_end_text(out, cap, len);
}

// Directories off, UTF-8 and control characters checked, in place.
static int nkhttp_p_filename_clean(char* out, int len) {
    nkhttp_str base = nkhttp_basename(nkhttp_p_str(out, (size_t)len));
    size_t i;
    if (!nkhttp_utf8_ok(base.ptr, base.len)) return NKHTTP_ERR_ENCODING;
    for (i = 0; i < base.len; i++) {
        if ((unsigned char)base.ptr[i] < ' ' || base.ptr[i] == 0x7f) return NKHTTP_ERR_ENCODING;
    }
    memmove(out, base.ptr, base.len);
    out[base.len] = 0;
    return (int)base.len;
}

NETKIT_HTTP_API int nkhttp_part_filename(const nkhttp_part_event* ev, char* out, size_t cap) {
    nkhttp_str rest, name, value;
    int len;
    nkhttp_p_param_head(ev->disposition, &rest);
    while (nkhttp_p_param_next(&rest, &name, &value) > 0) {
        if (!nkhttp_is(name, "filename*")) continue;
        len = nkhttp_p_ext_decode(value, out, cap);
        if (len >= 0) len = nkhttp_p_filename_clean(out, len);
        if (len >= 0 || len == NKHTTP_ERR_NOSPACE) return len;
    }
    if (!ev->is_file) return NKHTTP_ERR_ABSENT;
    len = nkhttp_unquote(ev->filename, out, cap);
    return len < 0 ? len : nkhttp_p_filename_clean(out, len);
}
#endif // NETKIT_HTTP_NO_MULTIPART

// ---- @proxy ----------------------------------------------------------------------------------
// IP addresses as text and bytes, the PROXY protocol
// (haproxy's proxy-protocol.txt) and X-Forwarded-For.

// Strict dotted quad: no leading zeros, which some read as octal. 1 and four bytes.
static int nkhttp_p_ip4(const char* p, size_t len, uint8_t out[4]) {
    size_t i = 0;
    int part;
    for (part = 0; part < 4; part++) {
        size_t start = i;
        int v = 0;
        for (; i < len && i - start < 3 && nkhttp_p_char(p[i], NKHTTP_P_DIGIT); i++) v = v * 10 + (p[i] - '0');
        if (i == start || v > 255 || (p[start] == '0' && i - start > 1)) return 0;
        out[part] = (uint8_t)v;
        if (part < 3 && (i == len || p[i++] != '.')) return 0;
    }
    return i == len;
}

// Up to four hex digits. How many there were.
static size_t nkhttp_p_ip6_group(const char* p, size_t len, uint8_t out[2]) {
    uint32_t v = 0;
    size_t i = 0;
    for (; i < len && i < 4 && nkhttp_p_hex(p[i]) >= 0; i++) v = v << 4 | (uint32_t)nkhttp_p_hex(p[i]);
    out[0] = (uint8_t)(v >> 8);
    out[1] = (uint8_t)v;
    return i;
}

// Spreads n bytes over 16, with zeros at `gap`, where "::" stood.
static void nkhttp_p_ip6_fill(uint8_t out[16], size_t n, size_t gap) {
    size_t tail = n - gap;
    memmove(out + 16 - tail, out + gap, tail);
    memset(out + gap, 0, 16 - n);
}

// RFC 4291 2.2, without zone. 1 and sixteen bytes.
static int nkhttp_p_ip6(const char* p, size_t len, uint8_t out[16]) {
    size_t i = 0, n = 0, gap = 17;
    if (len >= 2 && p[0] == ':' && p[1] == ':') {
        gap = 0;
        i = 2;
    }
    while (i < len) {
        size_t digits;
        if (n == 16) return 0;
        digits = nkhttp_p_ip6_group(p + i, len - i, out + n);
        if (!digits) return 0;
        if (i + digits < len && p[i + digits] == '.') { // the last 32 bits as a dotted quad
            if (n > 12 || !nkhttp_p_ip4(p + i, len - i, out + n)) return 0;
            n += 4;
            break;
        }
        n += 2;
        i += digits;
        if (i == len) break;
        if (p[i++] != ':') return 0;
        if (i < len && p[i] == ':') {
            if (gap <= 16) return 0;
            gap = n;
            i++;
        } else if (i == len) {
            return 0;
        }
    }
    if (gap > 16) return n == 16;
    if (n == 16) return 0; // "::" stands for one group at least
    nkhttp_p_ip6_fill(out, n, gap);
    return 1;
}

// Either kind as sixteen bytes, IPv4 as ::ffff:a.b.c.d: an address has one form however a
// dual-stack socket reports it.
static int nkhttp_p_ip(nkhttp_str s, uint8_t out[16]) {
    memset(out, 0, 10);
    out[10] = out[11] = 0xff;
    return nkhttp_p_ip4(s.ptr, s.len, out + 12) || nkhttp_p_ip6(s.ptr, s.len, out);
}

NETKIT_HTTP_API int nkhttp_same_address(nkhttp_str a, nkhttp_str b) {
    uint8_t x[16], y[16];
    return nkhttp_p_ip(a, x) && nkhttp_p_ip(b, y) && !memcmp(x, y, 16);
}

// dst holds 16 bytes; returns the length.
static size_t nkhttp_p_ip4_text(char* dst, const uint8_t* ip) {
    size_t i, n = 0;
    for (i = 0; i < 4; i++) {
        if (i) dst[n++] = '.';
        n += nkhttp_p_u64(dst + n, ip[i]);
    }
    dst[n] = 0;
    return n;
}

static size_t nkhttp_p_hex_text(char* dst, uint32_t v) {
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    int shift = 12;
    while (shift && !(v >> shift)) shift -= 4;
    for (; shift >= 0; shift -= 4) dst[n++] = digits[v >> shift & 15];
    return n;
}

// RFC 5952: the first longest run of two or more zero groups becomes "::".
static void nkhttp_p_ip6_zeros(const uint8_t* ip, size_t* start, size_t* count) {
    size_t i, run = 0;
    *start = 8;
    *count = 1;
    for (i = 0; i < 8; i++) {
        run = ip[i * 2] || ip[i * 2 + 1] ? 0 : run + 1;
        if (run > *count) {
            *count = run;
            *start = i + 1 - run;
        }
    }
}

// dst holds 46 bytes.
static void nkhttp_p_ip6_text(char* dst, const uint8_t* ip) {
    static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    size_t i, n = 0, zeros, count;
    if (!memcmp(ip, mapped, 12)) {
        memcpy(dst, "::ffff:", 7);
        nkhttp_p_ip4_text(dst + 7, ip + 12);
        return;
    }
    nkhttp_p_ip6_zeros(ip, &zeros, &count);
    for (i = 0; i < 8; i++) {
        if (i == zeros) {
            dst[n++] = ':';
            i += count - 1;
            if (i == 7) dst[n++] = ':';
            continue;
        }
        if (i) dst[n++] = ':';
        n += nkhttp_p_hex_text(dst + n, (uint32_t)ip[i * 2] << 8 | ip[i * 2 + 1]);
    }
    dst[n] = 0;
}

static uint16_t nkhttp_p_be16(const uint8_t* p) { return (uint16_t)((uint32_t)p[0] << 8 | p[1]); }

// Takes what stands before the next space. An empty word is an error for all callers.
static nkhttp_str nkhttp_p_word(nkhttp_str* rest) {
    const char* space = rest->len ? (const char*)memchr(rest->ptr, ' ', rest->len) : NULL;
    nkhttp_str word = nkhttp_p_str(rest->ptr, space ? (size_t)(space - rest->ptr) : rest->len);
    rest->ptr += word.len + (space ? 1 : 0);
    rest->len -= word.len + (space ? 1 : 0);
    return word;
}

static int nkhttp_p_proxy_address(nkhttp_str s, int is_ip6, char dst[46]) {
    uint8_t ip[16];
    if (is_ip6) {
        if (!nkhttp_p_ip6(s.ptr, s.len, ip)) return 0;
        nkhttp_p_ip6_text(dst, ip);
        return 1;
    }
    if (!nkhttp_p_ip4(s.ptr, s.len, ip)) return 0;
    nkhttp_p_ip4_text(dst, ip);
    return 1;
}

static int nkhttp_p_proxy_port(nkhttp_str s, uint16_t* port) {
    uint64_t v = 0;
    if (s.len > 5 || nkhttp_p_number(s, &v) != 1 || v > 65535 || (s.len > 1 && s.ptr[0] == '0')) return 0;
    *port = (uint16_t)v;
    return 1;
}

// The line behind "PROXY ", without its CRLF.
static int nkhttp_p_proxy_line(nkhttp_str line, nkhttp_proxy* out) {
    nkhttp_str family = nkhttp_p_word(&line), src, dst;
    int is_ip6 = family.len == 4 && !memcmp(family.ptr, "TCP6", 4);
    if (family.len == 7 && !memcmp(family.ptr, "UNKNOWN", 7)) {
        out->is_unknown = 1; // 2.1: the rest of the line must be ignored
        return 1;
    }
    if (!is_ip6 && (family.len != 4 || memcmp(family.ptr, "TCP4", 4) != 0)) return 0;
    src = nkhttp_p_word(&line);
    dst = nkhttp_p_word(&line);
    if (!nkhttp_p_proxy_address(src, is_ip6, out->src_addr)) return 0;
    if (!nkhttp_p_proxy_address(dst, is_ip6, out->dst_addr)) return 0;
    src = nkhttp_p_word(&line);
    return nkhttp_p_proxy_port(src, &out->src_port) && nkhttp_p_proxy_port(line, &out->dst_port);
}

static int nkhttp_p_proxy_v1(const char* buf, size_t len, nkhttp_proxy* out) {
    size_t i, cap = len < 107 ? len : 107; // 2.1: 107 bytes hold the longest line
    for (i = 6; i < cap; i++) {
        if (buf[i] == '\r') {
            if (i + 1 == cap) break;
            if (buf[i + 1] != '\n') return NKHTTP_ERR_PROXY;
            if (!nkhttp_p_proxy_line(nkhttp_p_str(buf + 6, i - 6), out)) return NKHTTP_ERR_PROXY;
            return (int)(i + 2);
        }
        if (buf[i] < ' ' || buf[i] > '~') return NKHTTP_ERR_PROXY;
    }
    return cap == 107 ? NKHTTP_ERR_PROXY : 0;
}

// 2.2: what follows the addresses is a row of type, 16 bits of length, value.
// Nothing in them is used.
static int nkhttp_p_proxy_tlvs_ok(const uint8_t* p, size_t len) {
    while (len) {
        size_t n;
        if (len < 3) return 0;
        n = 3u + nkhttp_p_be16(p + 1);
        if (n > len) return 0;
        p += n;
        len -= n;
    }
    return 1;
}

static int nkhttp_p_proxy_v2(const uint8_t* p, size_t len, nkhttp_proxy* out) {
    size_t size, addr;
    if (len > 12 && p[12] != 0x20 && p[12] != 0x21) return NKHTTP_ERR_PROXY;
    if (len < 16) return 0;
    size = nkhttp_p_be16(p + 14);
    addr = p[13] == 0x11 ? 12u : p[13] == 0x21 ? 36u : p[13] == 0x31 ? 216u : 0u;
    // 2.2: every receiver must take 536 bytes; ample for us
    if (size > 520) return NKHTTP_ERR_PROXY;
    if (p[12] == 0x20) addr = 0; // 2.2: LOCAL, the family must be ignored
    else if (size < addr || (!addr && p[13] != 0)) return NKHTTP_ERR_PROXY; // no datagrams in HTTP/1.1
    if (len < 16 + size) return 0;
    if (addr && !nkhttp_p_proxy_tlvs_ok(p + 16 + addr, size - addr)) return NKHTTP_ERR_PROXY;
    out->is_unknown = addr == 0 || addr == 216; // UNSPEC and Unix sockets name nobody
    if (out->is_unknown) return (int)(16 + size);
    if (addr == 12) {
        nkhttp_p_ip4_text(out->src_addr, p + 16);
        nkhttp_p_ip4_text(out->dst_addr, p + 20);
    } else {
        nkhttp_p_ip6_text(out->src_addr, p + 16);
        nkhttp_p_ip6_text(out->dst_addr, p + 32);
    }
    out->src_port = nkhttp_p_be16(p + 16 + addr - 4);
    out->dst_port = nkhttp_p_be16(p + 16 + addr - 2);
    return (int)(16 + size);
}

NETKIT_HTTP_API int nkhttp_parse_proxy(const char* buf, size_t len, nkhttp_proxy* out) {
    static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
    memset(out, 0, sizeof *out);
    if (!len) return 0;
    if (buf[0] == 'P') {
        if (memcmp(buf, "PROXY ", len < 6 ? len : 6) != 0) return NKHTTP_ERR_PROXY;
        out->version = 1;
        return len < 6 ? 0 : nkhttp_p_proxy_v1(buf, len, out);
    }
    if (memcmp(buf, signature, len < 12 ? len : 12) != 0) return NKHTTP_ERR_PROXY;
    out->version = 2;
    return nkhttp_p_proxy_v2((const uint8_t*)buf, len, out);
}

// "1.2.3.4", "1.2.3.4:5", "2001:db8::1", "[2001:db8::1]:5" to the address alone. 0 if it is none.
static int nkhttp_p_forwarded_item(nkhttp_str item, nkhttp_str* addr) {
    uint8_t ip[16];
    const char* mark;
    size_t port; // where ":5" would start
    *addr = item;
    if (nkhttp_p_ip(item, ip)) return 1;
    mark = (const char*)memchr(item.ptr, item.len && item.ptr[0] == '[' ? ']' : ':', item.len);
    if (!mark) return 0;
    port = (size_t)(mark - item.ptr);
    *addr = nkhttp_p_str(item.ptr, port);
    if (*mark == ']') {
        *addr = nkhttp_p_str(item.ptr + 1, port - 1);
        if (!nkhttp_p_ip6(addr->ptr, addr->len, ip)) return 0;
        if (++port == item.len) return 1;
    } else if (!nkhttp_p_ip4(addr->ptr, addr->len, ip)) {
        return 0;
    }
    item = nkhttp_p_str(item.ptr + port, item.len - port);
    return item.len > 1 && item.len <= 6 && item.ptr[0] == ':'
        && nkhttp_p_span(item.ptr + 1, item.len - 1, NKHTTP_P_DIGIT) == item.len - 1;
}

// Takes the last element off a list. 0 when there is none left.
static int nkhttp_p_list_last(nkhttp_str* list, nkhttp_str* item) {
    do {
        size_t i = list->len;
        if (!i) return 0;
        while (i && list->ptr[i - 1] != ',') i--;
        *item = nkhttp_p_trim(nkhttp_p_str(list->ptr + i, list->len - i));
        list->len = i ? i - 1 : 0;
    } while (!item->len);
    return 1;
}

NETKIT_HTTP_API int nkhttp_forwarded_for(const nkhttp_head* head, nkhttp_is_trusted_fn is_trusted,
                                         void* user, uint32_t hops, nkhttp_str* addr) {
    uint32_t i, seen = 0;
    for (i = head->num_headers; i-- > 0;) { // several fields are one list, the last one is its end
        nkhttp_str list = head->headers[i].value, item, found;
        if (!nkhttp_is(head->headers[i].name, "x-forwarded-for")) continue;
        while (nkhttp_p_list_last(&list, &item)) {
            if (!nkhttp_p_forwarded_item(item, &found)) return NKHTTP_ERR_SYNTAX;
            *addr = found;
            seen++;
            if (is_trusted ? !is_trusted(user, found) : seen >= hops) return NKHTTP_OK;
        }
    }
    if (!seen) return NKHTTP_ERR_ABSENT;
    return NKHTTP_OK;
}

// ---- @hosts ----------------------------------------------------------------------------------
// Which Host names a server answers to. A page in a browser can make its own name resolve to
// 127.0.0.1, but not lie in Host.

// The host without its port. Empty if the value is malformed.
static nkhttp_str nkhttp_p_host_name(nkhttp_str host) {
    size_t n = 0;
    if (host.len && host.ptr[0] == '[') {
        while (n < host.len && host.ptr[n] != ']') n++;
        if (n == host.len) return nkhttp_p_str(host.ptr, 0);
        n++;
    } else {
        while (n < host.len && host.ptr[n] != ':') n++;
    }
    if (n < host.len) {
        size_t digits = host.len - n - 1;
        if (host.ptr[n] != ':' || nkhttp_p_span(host.ptr + n + 1, digits, NKHTTP_P_DIGIT) != digits) n = 0;
    }
    return nkhttp_p_str(host.ptr, n);
}

static nkhttp_str nkhttp_p_no_brackets(nkhttp_str s) {
    if (s.len < 2 || s.ptr[0] != '[' || s.ptr[s.len - 1] != ']') return s;
    return nkhttp_p_str(s.ptr + 1, s.len - 2);
}

static int nkhttp_p_host_is(nkhttp_str name, nkhttp_str entry) {
    if (entry.len > 2 && entry.ptr[0] == '*' && entry.ptr[1] == '.') {
        size_t tail = entry.len - 1; // with the dot, so that "badexample.com" is not covered
        return name.len > tail && nkhttp_p_ieq(name.ptr + name.len - tail, entry.ptr + 1, tail);
    }
    if (nkhttp_same_address(nkhttp_p_no_brackets(name), nkhttp_p_no_brackets(entry))) return 1;
    return name.len == entry.len && nkhttp_p_ieq(name.ptr, entry.ptr, name.len);
}

NETKIT_HTTP_API int nkhttp_host_ok(nkhttp_str host, const char* const* allowed) {
    nkhttp_str name = nkhttp_p_host_name(host);
    if (name.len > 1 && name.ptr[name.len - 1] == '.') name.len--; // the same name, written in full
    if (!name.len) return 0;
    for (; *allowed; allowed++) {
        nkhttp_str rest = nkhttp_p_str(*allowed, strlen(*allowed));
        while (rest.len) {
            nkhttp_str entry = nkhttp_p_word(&rest);
            if (entry.len && nkhttp_p_host_is(name, entry)) return 1;
        }
    }
    return 0;
}

// ---- @ranges ---------------------------------------------------------------------------------
// Range (RFC 9110 14) and conditional requests (RFC 9110 13). Says what to do; files and their
// times are known elsewhere.

#ifndef NETKIT_HTTP_NO_FILES
// 1*DIGIT, as large as it likes: beyond 2^64 - 1 it stays there. 0 if it is no number.
static int nkhttp_p_range_number(const char* p, size_t len, uint64_t* out) {
    uint64_t n = 0;
    size_t i;
    if (!len || nkhttp_p_span(p, len, NKHTTP_P_DIGIT) != len) return 0;
    for (i = 0; i < len; i++) {
        uint64_t digit = (uint64_t)(p[i] - '0');
        n = n > (UINT64_MAX - digit) / 10 ? UINT64_MAX : n * 10 + digit;
    }
    *out = n;
    return 1;
}

// One range-spec. 1 satisfiable, 0 not, -1 malformed.
static int nkhttp_p_range_spec(nkhttp_str s, uint64_t size, nkhttp_range* r) {
    const char* dash = (const char*)memchr(s.ptr, '-', s.len);
    size_t before, after;
    uint64_t n;
    if (!dash) return -1;
    before = (size_t)(dash - s.ptr);
    after = s.len - before - 1;
    if (!before) { // suffix-range
        if (!nkhttp_p_range_number(dash + 1, after, &n)) return -1;
        if (!n) return 0; // RFC 9110 14.1.2: a suffix-length of zero is unsatisfiable
        if (!size) return -1; // it would be all of nothing, for which there is no Content-Range
        r->first = n < size ? size - n : 0;
        r->last = size - 1;
        return 1;
    }
    r->last = UINT64_MAX;
    if (!nkhttp_p_range_number(s.ptr, before, &r->first)) return -1;
    if (after && !nkhttp_p_range_number(dash + 1, after, &r->last)) return -1;
    if (r->last < r->first) return -1; // RFC 9110 14.1.1: invalid
    if (r->first >= size) return 0;
    if (r->last >= size) r->last = size - 1;
    return 1;
}

// Adds r to n ranges of which no two touch, and keeps it so. New n.
// The place of the first one it touches is kept.
static uint32_t nkhttp_p_range_join(nkhttp_range* out, uint32_t n, nkhttp_range r,
                                    uint32_t* overlaps) {
    uint32_t i, kept = 0, at = UINT32_MAX;
    for (i = 0; i < n; i++) {
        nkhttp_range o = out[i];
        if (r.first > o.last + 1 || o.first > r.last + 1) { // no overflow: both are less than size
            out[kept++] = o;
            continue;
        }
        if (r.first <= o.last && o.first <= r.last) ++*overlaps;
        if (o.first < r.first) r.first = o.first;
        if (o.last > r.last) r.last = o.last;
        if (at == UINT32_MAX) at = kept++;
    }
    if (at == UINT32_MAX) at = kept++;
    out[at] = r;
    return kept;
}

NETKIT_HTTP_API int nkhttp_parse_range(nkhttp_str value, uint64_t size, nkhttp_range* out,
                                       uint32_t max_ranges) {
    uint64_t left = size;
    uint32_t specs = 0, n = 0, overlaps = 0;
    nkhttp_str item;
    // RFC 9110 14.2: unknown units are ignored
    if (value.len < 6 || !nkhttp_p_ieq(value.ptr, "bytes=", 6)) return 0;
    value = nkhttp_p_str(value.ptr + 6, value.len - 6);
    while (nkhttp_p_list_next(&value, &item)) {
        nkhttp_range r;
        int ok;
        if (!item.len) continue;
        ok = ++specs > max_ranges ? -1 : nkhttp_p_range_spec(item, size, &r);
        if (ok < 0) return 0;
        if (!ok) continue;
        // More bytes than there are: an amplification attack
        if (r.last - r.first >= left) return 0;
        left -= r.last - r.first + 1;
        n = nkhttp_p_range_join(out, n, r, &overlaps);
        // RFC 9110 14.2: more than two overlapping ranges may be refused
        if (overlaps > 2) return 0;
    }
    if (!specs) return 0;
    return n ? (int)n : NKHTTP_ERR_RANGE;
}

// Takes the next entity-tag off a list; what is none is skipped (RFC 9110 8.8.3).
// Commas may stand inside the quotes.
static int nkhttp_p_etag_next(nkhttp_str* rest, nkhttp_str* tag) {
    const char* p = rest->ptr;
    const char* end = p + rest->len;
    while (p < end) {
        const char* start;
        const char* close_quote = NULL;
        while (p < end && (*p == ' ' || *p == '\t' || *p == ',')) p++;
        start = p;
        if (end - p >= 3 && p[0] == 'W' && p[1] == '/') p += 2; // case-sensitive
        if (p < end && *p == '"') close_quote = (const char*)memchr(p + 1, '"', (size_t)(end - p) - 1);
        if (close_quote) {
            *tag = nkhttp_p_str(start, (size_t)(close_quote + 1 - start));
            for (p = close_quote + 1; p < end && (*p == ' ' || *p == '\t'); p++) {}
            if (p == end || *p == ',') {
                *rest = nkhttp_p_str(p, (size_t)(end - p));
                return 1;
            }
        }
        while (p < end && *p != ',') p++;
    }
    return 0;
}

// RFC 9110 8.8.3.2. Strong: neither is weak. Weak: the opaque parts decide.
static int nkhttp_p_etag_equal(nkhttp_str a, nkhttp_str b, int strong) {
    int weak_a = a.len > 2 && a.ptr[0] == 'W';
    int weak_b = b.len > 2 && b.ptr[0] == 'W';
    if (strong && (weak_a || weak_b)) return 0;
    if (weak_a) a = nkhttp_p_str(a.ptr + 2, a.len - 2);
    if (weak_b) b = nkhttp_p_str(b.ptr + 2, b.len - 2);
    return a.len == b.len && !memcmp(a.ptr, b.ptr, a.len);
}

// -1: no such field; 1: etag is listed, or "*" and something exists; 0: neither.
static int nkhttp_p_etag_listed(const nkhttp_head* head, const char* field, nkhttp_str etag,
                                int exists, int strong) {
    const nkhttp_header* h = nkhttp_find(head, field);
    if (!h) return -1;
    for (; h; h = nkhttp_find_next(head, h, field)) {
        nkhttp_str rest = h->value, tag;
        if (rest.len == 1 && rest.ptr[0] == '*') {
            if (exists) return 1;
            continue;
        }
        while (exists && etag.len && nkhttp_p_etag_next(&rest, &tag)) {
            if (nkhttp_p_etag_equal(tag, etag, strong)) return 1;
        }
    }
    return 0;
}

// A date field that was sent once and is valid: 1.
static int nkhttp_p_date_field(const nkhttp_head* head, const char* field, int64_t* when) {
    const nkhttp_header* h = nkhttp_find(head, field);
    if (!h || nkhttp_find_next(head, h, field)) return 0;
    return nkhttp_parse_date(h->value.ptr, h->value.len, when) == NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_check_preconditions(const nkhttp_head* head, int is_get_or_head,
                                               nkhttp_str etag,
                                               int64_t mtime_unix, int exists, int64_t now_unix) {
    int64_t when = 0;
    int listed = nkhttp_p_etag_listed(head, "if-match", etag, exists, 1);
    int dated = exists && mtime_unix > 0;
    if (listed == 0) return 412; // RFC 9110 13.1.1
    if (listed < 0 && dated && nkhttp_p_date_field(head, "if-unmodified-since", &when)) {
        if (mtime_unix > when) return 412; // RFC 9110 13.1.4
    }
    listed = nkhttp_p_etag_listed(head, "if-none-match", etag, exists, 0);
    if (listed > 0) return is_get_or_head ? 304 : 412; // RFC 9110 13.1.2
    if (listed == 0 || !is_get_or_head || !dated) return 0; // RFC 9110 13.1.3: If-None-Match wins
    if (!nkhttp_p_date_field(head, "if-modified-since", &when)) return 0;
    if (now_unix > 0 && when > now_unix) return 0;
    return mtime_unix <= when ? 304 : 0;
}

// RFC 9110 13.1.5: strong comparison, and a date must be the very one.
NETKIT_HTTP_API int nkhttp_if_range_ok(const nkhttp_head* head, nkhttp_str etag,
                                       int64_t mtime_unix) {
    const nkhttp_header* h = nkhttp_find(head, "if-range");
    nkhttp_str rest, tag;
    int64_t when = 0;
    if (!h) return 1;
    if (nkhttp_find_next(head, h, "if-range")) return 0;
    rest = h->value;
    if (nkhttp_p_etag_next(&rest, &tag)) {
        return tag.len == h->value.len && etag.len && nkhttp_p_etag_equal(tag, etag, 1);
    }
    if (nkhttp_parse_date(h->value.ptr, h->value.len, &when)) return 0;
    return mtime_unix > 0 && when == mtime_unix;
}
#endif // NETKIT_HTTP_NO_FILES

// ---- @paths ----------------------------------------------------------------------------------
// From a request path to a file name that cannot leave its root, and from a file name to a media
// type. What one platform would misread is refused on all of them, so that what was tested on one
// holds on the others.

#ifndef NETKIT_HTTP_NO_FILES
// A name Windows takes for a device, whatever stands behind its first dot:
// "con", "LPT1.txt", "com\xc2\xb9".
static int nkhttp_p_is_device(const char* p, size_t len) {
    static const char* const names[] = { "con", "prn", "aux", "nul", "conin$", "conout$" };
    size_t i, n = 0;
    while (n < len && p[n] != '.') n++;
    while (n && p[n - 1] == ' ') n--; // "con .txt"
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        if (nkhttp_is(nkhttp_p_str(p, n), names[i])) return 1;
    }
    if (n < 4 || (!nkhttp_p_ieq(p, "com", 3) && !nkhttp_p_ieq(p, "lpt", 3))) return 0;
    if (n == 4) return p[3] >= '1' && p[3] <= '9';
    if (n != 5 || p[3] != '\xc2') return 0;
    return p[4] == '\xb9' || p[4] == '\xb2' || p[4] == '\xb3'; // superscript 1, 2, 3
}

// "GIT~1", the other name of ".git" on NTFS and FAT: at most 8 characters that end in a tilde and
// digits, and an extension.
static int nkhttp_p_is_short_name(const char* p, size_t len) {
    size_t n = 0, tilde;
    while (n < len && p[n] != '.') n++;
    if (n > 8) return 0;
    for (tilde = n; tilde && nkhttp_p_char(p[tilde - 1], NKHTTP_P_DIGIT); tilde--) {}
    return tilde > 1 && tilde < n && p[tilde - 1] == '~' && (n == len || len - n <= 4);
}

// One decoded segment, not empty and not ".".
static int nkhttp_p_segment_ok(const char* p, size_t len, uint32_t flags) {
    size_t i;
    for (i = 0; i < len; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c < ' ' || c == 0x7f || c == '/' || c == '\\' || c == ':') return 0;
    }
    // Windows drops them; and this is where ".." ends
    if (p[len - 1] == '.' || p[len - 1] == ' ') return 0;
    if (p[0] == '.' && !(flags & NKHTTP_PATH_DOTFILES)) return 0;
    return !nkhttp_p_is_device(p, len) && !nkhttp_p_is_short_name(p, len);
}

// A ".." is refused even where it would stay inside: clients resolve it before they send (RFC 3986
// 5.2.4), so whoever sends one is probing.
NETKIT_HTTP_API int nkhttp_path_clean(char* dst, size_t cap, nkhttp_str raw_path, uint32_t flags) {
    size_t n = 0;
    while (raw_path.len) {
        const char* slash = (const char*)memchr(raw_path.ptr, '/', raw_path.len);
        nkhttp_str raw = nkhttp_p_str(raw_path.ptr, slash ? (size_t)(slash - raw_path.ptr) : raw_path.len);
        size_t start = n ? n + 1 : 0, len = 0;
        int err;
        raw_path.ptr += raw.len + (slash ? 1 : 0);
        raw_path.len -= raw.len + (slash ? 1 : 0);
        if (!raw.len) continue;
        if (start >= cap) return NKHTTP_ERR_NOSPACE;
        err = nkhttp_percent_decode(dst + start, cap - start, raw.ptr, raw.len, &len);
        if (err) return err;
        if (len == 1 && dst[start] == '.') continue;
        if (!nkhttp_utf8_ok(dst + start, len)) return NKHTTP_ERR_ENCODING;
        if (!nkhttp_p_segment_ok(dst + start, len, flags)) return NKHTTP_ERR_PATH;
        if (n) dst[n] = '/';
        n = start + len;
    }
    return nkhttp_p_end_text(dst, cap, n);
}

typedef struct nkhttp_p_mime { const char* ext; const char* type; } nkhttp_p_mime;

static const nkhttp_p_mime nkhttp_p_mimes[] = { // sorted by extension
    { "7z", "application/x-7z-compressed" },
    { "aac", "audio/aac" },
    { "apk", "application/vnd.android.package-archive" },
    { "apng", "image/apng" },
    { "atom", "application/atom+xml" },
    { "avi", "video/x-msvideo" },
    { "avif", "image/avif" },
    { "bin", "application/octet-stream" },
    { "bmp", "image/bmp" },
    { "br", "application/x-brotli" },
    { "bz2", "application/x-bzip2" },
    { "cjs", "text/javascript; charset=utf-8" },
    { "conf", "text/plain; charset=utf-8" },
    { "css", "text/css; charset=utf-8" },
    { "csv", "text/csv; charset=utf-8" },
    { "doc", "application/msword" },
    { "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document" },
    { "eot", "application/vnd.ms-fontobject" },
    { "epub", "application/epub+zip" },
    { "flac", "audio/flac" },
    { "gif", "image/gif" },
    { "glb", "model/gltf-binary" },
    { "gltf", "model/gltf+json" },
    { "gz", "application/gzip" },
    { "heic", "image/heic" },
    { "htm", "text/html; charset=utf-8" },
    { "html", "text/html; charset=utf-8" },
    { "ico", "image/vnd.microsoft.icon" },
    { "ics", "text/calendar; charset=utf-8" },
    { "ini", "text/plain; charset=utf-8" },
    { "jar", "application/java-archive" },
    { "jpeg", "image/jpeg" },
    { "jpg", "image/jpeg" },
    { "js", "text/javascript; charset=utf-8" },
    { "json", "application/json" },
    { "jsonld", "application/ld+json" },
    { "jxl", "image/jxl" },
    { "ktx2", "image/ktx2" },
    { "log", "text/plain; charset=utf-8" },
    { "m3u8", "application/vnd.apple.mpegurl" },
    { "m4a", "audio/mp4" },
    { "m4v", "video/mp4" },
    { "map", "application/json" },
    { "md", "text/markdown; charset=utf-8" },
    { "mid", "audio/midi" },
    { "midi", "audio/midi" },
    { "mjs", "text/javascript; charset=utf-8" },
    { "mkv", "video/matroska" },
    { "mov", "video/quicktime" },
    { "mp3", "audio/mpeg" },
    { "mp4", "video/mp4" },
    { "mpd", "application/dash+xml" },
    { "mpeg", "video/mpeg" },
    { "mpg", "video/mpeg" },
    { "obj", "model/obj" },
    { "odp", "application/vnd.oasis.opendocument.presentation" },
    { "ods", "application/vnd.oasis.opendocument.spreadsheet" },
    { "odt", "application/vnd.oasis.opendocument.text" },
    { "oga", "audio/ogg" },
    { "ogg", "audio/ogg" },
    { "ogv", "video/ogg" },
    { "opus", "audio/ogg" },
    { "otf", "font/otf" },
    { "pdf", "application/pdf" },
    { "png", "image/png" },
    { "ppt", "application/vnd.ms-powerpoint" },
    { "pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation" },
    { "rar", "application/vnd.rar" },
    { "rss", "application/rss+xml" },
    { "rtf", "application/rtf" },
    { "srt", "text/plain; charset=utf-8" },
    { "stl", "model/stl" },
    { "svg", "image/svg+xml" },
    { "svgz", "image/svg+xml" },
    { "tar", "application/x-tar" },
    { "tif", "image/tiff" },
    { "tiff", "image/tiff" },
    { "toml", "application/toml" },
    { "ts", "video/mp2t" },
    { "tsv", "text/tab-separated-values; charset=utf-8" },
    { "ttf", "font/ttf" },
    { "txt", "text/plain; charset=utf-8" },
    { "vcf", "text/vcard; charset=utf-8" },
    { "vtt", "text/vtt; charset=utf-8" },
    { "wasm", "application/wasm" },
    { "wav", "audio/wav" },
    { "weba", "audio/webm" },
    { "webm", "video/webm" },
    { "webmanifest", "application/manifest+json" },
    { "webp", "image/webp" },
    { "woff", "font/woff" },
    { "woff2", "font/woff2" },
    { "xhtml", "application/xhtml+xml" },
    { "xls", "application/vnd.ms-excel" },
    { "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" },
    { "xml", "application/xml" },
    { "xz", "application/x-xz" },
    { "yaml", "application/yaml" },
    { "yml", "application/yaml" },
    { "zip", "application/zip" },
    { "zst", "application/zstd" }
};

// Like strcmp, without regard to the case of p.
static int nkhttp_p_ext_compare(const char* p, size_t len, const char* ext) {
    size_t i;
    for (i = 0; i < len; i++) {
        int d = (unsigned char)nkhttp_p_lower(p[i]) - (unsigned char)ext[i];
        if (!ext[i]) return 1;
        if (d) return d;
    }
    return ext[len] ? -1 : 0;
}

NETKIT_HTTP_API const char* nkhttp_mime(const char* path, size_t len) {
    size_t low = 0, high = sizeof nkhttp_p_mimes / sizeof *nkhttp_p_mimes;
    size_t dot = len;
    while (dot && path[dot - 1] != '.' && path[dot - 1] != '/') dot--;
    if (dot < 2 || path[dot - 1] != '.' || path[dot - 2] == '/') low = high; // ".png" is a name
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = nkhttp_p_ext_compare(path + dot, len - dot, nkhttp_p_mimes[mid].ext);
        if (!order) return nkhttp_p_mimes[mid].type;
        if (order < 0) high = mid;
        else low = mid + 1;
    }
    return "application/octet-stream";
}
#endif // NETKIT_HTTP_NO_FILES

#ifndef NETKIT_HTTP_NO_LOOP

// ---- @types ----------------------------------------------------------------------------------
// Every structure of the server. A connection that is idle is one nkhttp_p_conn and nothing else; a
// request under way borrows an nkhttp_p_exchange. Several exchanges of a connection may be open:
// they form a list in the order of arrival, and only the first one writes to the stream.
#include <time.h>

#ifdef NETKIT_HTTP_NO_LOG
    #define NKHTTP_P_LOG(srv, level, text) ((void)(srv))
#else
    #define NKHTTP_P_LOG(srv, level, text) nkloop_log((srv)->L, (level), "http", (text))
#endif

typedef struct nkhttp_p_a32 { volatile uint32_t v; } nkhttp_p_a32;
#if defined(__GNUC__) || defined(__clang__)
static uint32_t nkhttp_p_a32_add(nkhttp_p_a32* a, uint32_t n) { return __atomic_add_fetch(&a->v, n, __ATOMIC_SEQ_CST); }
static uint32_t nkhttp_p_a32_exchange(nkhttp_p_a32* a, uint32_t n) {
    return __atomic_exchange_n(&a->v, n, __ATOMIC_SEQ_CST);
}
#else
static uint32_t nkhttp_p_a32_add(nkhttp_p_a32* a, uint32_t n) {
    return (uint32_t)_InterlockedExchangeAdd((volatile long*)&a->v, (long)n) + n;
}
static uint32_t nkhttp_p_a32_exchange(nkhttp_p_a32* a, uint32_t n) {
    return (uint32_t)_InterlockedExchange((volatile long*)&a->v, (long)n);
}
#endif

typedef struct nkhttp_p_exchange nkhttp_p_exchange;
typedef struct nkhttp_p_conn nkhttp_p_conn;

enum { // bytes
    NKHTTP_P_STEP         = 64 * 1024, // bodies grow by what really arrived, from here on by doubling
    NKHTTP_P_KEPT         = 4096,      // a buffer of an exchange up to this size stays with it
    NKHTTP_P_INLINE       = 2048,      // bodies up to here are copied behind their head
    NKHTTP_P_HEAD_EXTRA   = 320,       // status line, Date, framing, Connection, Content-Encoding, Vary: never more
    NKHTTP_P_BIG_WRITE    = 64 * 1024, // from here on a write gets a deadline at once
    NKHTTP_P_STREAM_HIGH  = 256 * 1024 // most bytes a streamed reply may hold back while earlier ones go first
};

// A piece of a reply that waits, or memory that lives as long as an exchange. Owned bytes lie behind it.
typedef struct nkhttp_p_block {
    struct nkhttp_p_block* next;
    nkloop*     L;
    size_t      size;          // of the allocation
    const void* bytes;
    size_t      num_bytes;
    void      (*release_fn)(void* user); // NULL: the bytes lie in this block
    void*       release_user;
} nkhttp_p_block;

typedef struct nkhttp_p_buf { char* ptr; size_t len, cap; } nkhttp_p_buf;

// A body that its owner writes to the stream itself, piece by piece, once its exchange is first in order.
typedef struct nkhttp_p_pull {
    // Writes more of the body with nkloop_write / _write_ref / _write_file straight onto s; adds
    // what it wrote to *written.
    // 1: everything has been written; 0: a write said NKLOOP_ERR_FULL, call again on drain; < 0:
    // cannot go on, cut the connection.
    // Never called again after a result other than 0. Does not call back into http.
    int  (*pull_fn)(void* self, nkloop* L, nkloop_stream s, uint64_t* written);
    // Exactly once, last, on the loop's thread: after 1 or < 0, when the client is gone, for HEAD,
    // or when the reply could not be made.
    void (*end_fn)(void* self);
    void* self;
} nkhttp_p_pull;

// A call from another thread, or one that must wait until a worker has let go of its request. One
// allocation with all copies.
enum { NKHTTP_P_OP_REPLY, NKHTTP_P_OP_BEGIN, NKHTTP_P_OP_WRITE, NKHTTP_P_OP_END, NKHTTP_P_OP_ABORT };
typedef struct nkhttp_p_op {
    nkloop_job job;
    struct nkhttp_p_op* next;
    nkhttp_server* srv;
    size_t size;
    int kind;
    nkhttp_handle handle;
    nkhttp_reply_desc desc;    // headers: also the trailers of OP_END; body: also the bytes of OP_WRITE
    uint64_t length;
} nkhttp_p_op;

typedef struct nkhttp_p_endpoint { // a route, or what no route takes
    nkhttp_route_desc desc;
    struct nkhttp_p_endpoint* next;
} nkhttp_p_endpoint;

typedef struct nkhttp_p_addr {     // connections of one address
    struct nkhttp_p_addr* next;
    uint32_t count, hash;
    char text[64];
} nkhttp_p_addr;

enum { // nkhttp_p_conn.flags
    NKHTTP_P_STOP     = 0x0001, // no more requests: what still comes is thrown away
    NKHTTP_P_BLOCKED  = 0x0002, // requests wait unread: too many are open, or one must be the first in order
    NKHTTP_P_PAUSED   = 0x0004, // nkloop_pause is in force
    NKHTTP_P_FULL     = 0x0008, // a write said FULL: wait for on_drain
    NKHTTP_P_FINISHED = 0x0010, // nkloop_finish or nkloop_close was called
    NKHTTP_P_DETACHED = 0x0020, // the stream is somebody else's
    NKHTTP_P_LINE     = 0x0040, // the request line of the head that is arriving is complete
    NKHTTP_P_PROXY    = 0x0080, // a PROXY header must come first
    NKHTTP_P_CRLF     = 0x0100, // one empty line may be dropped: it belongs to the body before
    NKHTTP_P_EOF      = 0x0200  // the peer will send no more
};

struct nkhttp_p_conn {             // at most 128 bytes
    nkhttp_server* srv;
    nkloop_stream stream;
    nkhttp_p_exchange* first;      // oldest open request: the one whose turn it is
    nkhttp_p_exchange* last;
    nkhttp_p_exchange* body;       // whose body is arriving
    nkhttp_p_conn* prev;
    nkhttp_p_conn* next;
    nkhttp_p_addr* addr;           // counted there
    nkhttp_p_block* proxied;       // peer address that the PROXY header named
    uint64_t mark_ns;              // start of the head that is arriving, or of idleness
    uint64_t alarm_ns;             // when the alarm will ring, 0 not set
    uint64_t written, sent_mark;   // bytes; what was sent when we last looked
    uint64_t stall_ns;             // when that was
    uint32_t seen;                 // bytes of an incomplete head looked at already
    uint32_t requests;
    uint32_t opened_ms;            // since the server started; wraps after 49 days
    uint16_t num_open, flags;
};

enum { // nkhttp_p_exchange.flags
    NKHTTP_P_X_USED     = 0x00001, // not in the free list
    NKHTTP_P_X_KEEP     = 0x00002, // the connection goes on after the reply
    NKHTTP_P_X_HEAD     = 0x00004, // HEAD: no body in the reply
    NKHTTP_P_X_10       = 0x00008, // HTTP/1.0
    NKHTTP_P_X_HANDLER  = 0x00010, // a callback of the application is running in the loop
    NKHTTP_P_X_RUNNING  = 0x00020, // a worker has it
    NKHTTP_P_X_DEFERRED = 0x00040,
    NKHTTP_P_X_DETACHED = 0x00080,
    NKHTTP_P_X_UPGRADE  = 0x00100,
    NKHTTP_P_X_HELD     = 0x00200, // complete, but must be first in order
    NKHTTP_P_X_OWN_HEAD = 0x00400, // the head was copied
    NKHTTP_P_X_LENGTH   = 0x00800, // body_left counts
    NKHTTP_P_X_CHUNKED  = 0x01000,
    NKHTTP_P_X_STREAMED = 0x02000, // body goes to on_body
    NKHTTP_P_X_DISCARD  = 0x04000, // body is not wanted
    NKHTTP_P_X_CONTINUE = 0x08000, // client waits for 100
    NKHTTP_P_X_PAUSED   = 0x10000, // nkhttp_pause_body
    NKHTTP_P_X_WRITABLE = 0x20000, // somebody was told FULL
    NKHTTP_P_X_REACHED  = 0x40000, // route's on_end is owed
    NKHTTP_P_X_READY    = 0x80000, // request is complete: handler_timeout counts
    NKHTTP_P_X_BROKEN   = 0x100000,// head could not be parsed
    NKHTTP_P_X_ACCEPTS  = 0x200000,// client takes the codec's coding
    NKHTTP_P_X_REFUSED  = 0x400000 // the final reply is an error of ours: leave its body alone
};

enum { // what fields say that we must know; bits of nkhttp_p_exchange.kinds
    NKHTTP_P_F_DATE = 1, NKHTTP_P_F_ETAG = 2, NKHTTP_P_F_ENCODING = 4, NKHTTP_P_F_RANGE = 8, NKHTTP_P_F_TYPE = 16,
    NKHTTP_P_F_CONNECTION = 32, NKHTTP_P_F_FRAMING = 64, NKHTTP_P_F_SERVER = 128
};
enum { NKHTTP_P_NONE, NKHTTP_P_BEGUN, NKHTTP_P_DONE }; // nkhttp_p_exchange.reply

struct nkhttp_p_exchange {
    nkhttp_req req;
    nkhttp_head head;              // its headers lie behind this structure
    nkhttp_p_conn* conn;           // NULL: the client is gone
    nkhttp_p_exchange* next;       // in the connection, or in the free list
    uint32_t slot, generation;     // handle
    uint32_t flags;
    int reply, status, verdict;    // verdict: the status to answer with if there is no endpoint
    int err;                       // why it ended, for the log
    const nkhttp_p_endpoint* endpoint;
    const char* base;              // where the head's slices point
    uint64_t start_ns, ready_ns;   // first byte, handler called
    uint64_t body_ns, body_base;   // when the client's rate was first measured, bytes_in then
    uint64_t body_left;            // of Content-Length
    uint64_t bytes_in, bytes_out;  // body received, reply handed on
    uint64_t drained;
    uint64_t reply_left;           // of a streamed reply with a length; UINT64_MAX: not known
    size_t queued;                 // bytes in out_first..out_last
    size_t charged;                // of the body, in srv->stats.buffered_bytes
    nkhttp_p_block* out_first;
    nkhttp_p_block* out_last;
    nkhttp_p_block* scratch;       // decoded parameters
    nkhttp_p_op* stored;           // a worker's reply
    int worker;                    // 1: a worker has it; what the worker looks at, as flags belong to the loop
    int deferring;                 // the worker called nkhttp_defer
    nkhttp_p_op* pending;          // calls that wait for the worker
    nkhttp_p_op* pending_last;
    nkhttp_p_buf copy;             // of the head
    nkhttp_p_buf body;
    nkhttp_p_buf fields;           // nkhttp_set_header, as they will be sent
    nkhttp_p_buf tail;             // trailer lines, LF between them
    uint32_t kinds;                // NKHTTP_P_F_... in fields
    uint32_t num_params, num_trailers;
    uint32_t chunked_out;          // 1: the streamed reply is chunked
    size_t etag_at;                // of the value, in fields
    void* codec;                   // state of a streamed reply
    nkhttp_p_pull pull;
    void (*on_writable)(void* user, nkhttp_handle h);
    void (*on_gone)(void* user, nkhttp_handle h, int why);
    void* watch_user;
    nkloop_job job;
    nkhttp_chunked chunked;
    nkhttp_match match;            // only num_params of it are valid
    char peer[64];                 // "" not asked yet
};

typedef struct nkhttp_p_ticket { nkhttp_p_exchange* x; uint32_t generation, next_free; } nkhttp_p_ticket;

enum { NKHTTP_P_SLAB = 32, NKHTTP_P_BUCKETS = 256, NKHTTP_P_IDLE_EXCHANGES = 64 };
typedef struct nkhttp_p_slab { struct nkhttp_p_slab* next; nkhttp_p_conn conns[NKHTTP_P_SLAB]; } nkhttp_p_slab;

struct nkhttp_server {
    nkloop* L;
    nkhttp_server_desc desc;       // defaults applied; text is ours
    nkhttp_router router;
    uint32_t num_routes;
    nkhttp_p_endpoint* endpoints;
    nkhttp_p_endpoint fallback;    // desc.on_request
    nkhttp_p_block* texts;         // copies of what the desc pointed to
    const char* const* hosts;      // copy of desc.allowed_hosts
    const char* trusted;           // the lists of the desc, each joined by blanks
    const char* origins;
    nkloop_listener* listeners;
    uint32_t num_listeners;
    nkhttp_p_slab* slabs;
    nkhttp_p_conn* conns;          // open ones
    nkhttp_p_conn* free_conns;
    nkhttp_p_conn* limbo;          // closed ones that a caller up the stack may still look at
    uint64_t limbo_turn;           // of the loop, when the last of them came
    nkhttp_p_addr** addrs;         // NKHTTP_P_BUCKETS
    nkhttp_p_ticket* table;
    uint32_t table_num, table_cap, free_entry;
    nkhttp_p_exchange* free_exchanges;
    uint32_t num_idle;
    uint64_t date_due_ns, start_ns;
    int64_t date_s;
    uint32_t prefix_len, server_len;
    char prefix[64];               // "HTTP/1.1 200 OK\r\nDate: ...\r\n"
    char* server_line;             // "Server: ...\r\n"
    nkhttp_stats stats;
    nkloop_timer grace;
    nkloop_job stop_job, stopped_job;
    uint32_t stop_grace_ms;
    nkhttp_p_a32 stop_posted, refs;// refs: jobs on their way, and one for the owner
    int stopping, stopped, dead, accept_paused, owns_run;
    int choosy;                    // there is a policy: nkhttp_p_choose must look at every request
#ifndef NETKIT_HTTP_NO_WORKERS
    nkloop_pool* pool;
#endif
    struct nkhttp_p_files* files;
};

static void nkhttp_p_advance(nkhttp_p_conn* c);     // @conn: whatever has become possible
#ifndef NETKIT_HTTP_NO_FILES
static void nkhttp_p_files_destroy(nkhttp_server* srv); // @files
#endif

// ---- @memory ---------------------------------------------------------------------------------
// Buffers, blocks, and exchanges with their handles. Nothing here knows HTTP.
static void nkhttp_p_drop(nkloop* L, void* ptr, size_t size) { if (ptr) nkloop_alloc(L, ptr, size, 0); }

static void nkhttp_p_buf_drop(nkloop* L, nkhttp_p_buf* b, size_t keep) {
    b->len = 0;
    if (b->cap <= keep) return;
    nkhttp_p_drop(L, b->ptr, b->cap);
    b->ptr = NULL;
    b->cap = 0;
}

// Room for n more bytes behind len. Doubles; a first size is taken as asked.
static int nkhttp_p_buf_room(nkloop* L, nkhttp_p_buf* b, size_t n) {
    size_t want = b->cap * 2;
    char* grown;
    if (n <= b->cap - b->len) return NKHTTP_OK;
    if (n > ((size_t)-1) / 4 - b->len) return NKLOOP_ERR_NOMEM;
    if (want < b->len + n) want = b->len + n;
    if (want < 256) want = 256;
    grown = (char*)nkloop_alloc(L, b->ptr, b->cap, want);
    if (!grown) return NKLOOP_ERR_NOMEM;
    b->ptr = grown;
    b->cap = want;
    return NKHTTP_OK;
}

static int nkhttp_p_buf_add(nkloop* L, nkhttp_p_buf* b, const void* bytes, size_t n) {
    if (nkhttp_p_buf_room(L, b, n) < 0) return NKLOOP_ERR_NOMEM;
    if (n) memcpy(b->ptr + b->len, bytes, n);
    b->len += n;
    return NKHTTP_OK;
}

static nkhttp_p_block* nkhttp_p_block_new(nkloop* L, size_t n) {
    nkhttp_p_block* b;
    if (n > ((size_t)-1) - sizeof *b) return NULL;
    b = (nkhttp_p_block*)nkloop_alloc(L, NULL, 0, sizeof *b + n);
    if (!b) return NULL;
    memset(b, 0, sizeof *b);
    b->L = L;
    b->size = sizeof *b + n;
    b->bytes = b + 1;
    return b;
}

static char* nkhttp_p_block_bytes(nkhttp_p_block* b) { return (char*)(b + 1); }

static void nkhttp_p_block_free(void* user) { // also a release_fn: bytes that the loop has sent
    nkhttp_p_block* b = (nkhttp_p_block*)user;
    nkhttp_p_drop(b->L, b, b->size);
}

static void nkhttp_p_block_end(nkhttp_p_block* b) {
    if (b->release_fn) b->release_fn(b->release_user);
    nkhttp_p_block_free(b);
}

static void nkhttp_p_blocks_end(nkhttp_p_block** list) {
    nkhttp_p_block* b;
    while ((b = *list) != NULL) {
        *list = b->next;
        nkhttp_p_block_end(b);
    }
}

// n bytes that live as long as the list. NULL: out of memory.
static char* nkhttp_p_keep(nkloop* L, nkhttp_p_block** list, size_t n) {
    nkhttp_p_block* b = nkhttp_p_block_new(L, n);
    if (!b) return NULL;
    b->next = *list;
    *list = b;
    return nkhttp_p_block_bytes(b);
}

static char* nkhttp_p_keep_text(nkloop* L, nkhttp_p_block** list, const char* text, size_t n) {
    char* to = n < ((size_t)-1) ? nkhttp_p_keep(L, list, n + 1) : NULL;
    if (!to) return NULL;
    if (n) memcpy(to, text, n);
    to[n] = 0;
    return to;
}

static size_t nkhttp_p_exchange_size(const nkhttp_server* srv) {
    return sizeof(nkhttp_p_exchange) + srv->desc.max_headers * sizeof(nkhttp_header);
}

static int nkhttp_p_ticket_take(nkhttp_server* srv, uint32_t* slot) {
    nkhttp_p_ticket* grown;
    uint32_t cap;
    if (srv->free_entry != UINT32_MAX) {
        *slot = srv->free_entry;
        srv->free_entry = srv->table[*slot].next_free;
        return NKHTTP_OK;
    }
    if (srv->table_num == srv->table_cap) {
        cap = srv->table_cap ? srv->table_cap * 2 : 16;
        grown = (nkhttp_p_ticket*)nkloop_alloc(srv->L, srv->table, srv->table_cap * sizeof *grown,
                                               cap * sizeof *grown);
        if (!grown) return NKLOOP_ERR_NOMEM;
        srv->table = grown;
        srv->table_cap = cap;
    }
    *slot = srv->table_num++;
    srv->table[*slot].generation = 0;
    return NKHTTP_OK;
}

static nkhttp_p_exchange* nkhttp_p_exchange_new(nkhttp_server* srv) {
    nkhttp_p_exchange* x;
    uint32_t slot;
    x = (nkhttp_p_exchange*)nkloop_alloc(srv->L, NULL, 0, nkhttp_p_exchange_size(srv));
    if (!x) return NULL;
    if (nkhttp_p_ticket_take(srv, &slot) < 0) {
        nkhttp_p_drop(srv->L, x, nkhttp_p_exchange_size(srv));
        return NULL;
    }
    memset(x, 0, sizeof *x);
    x->slot = slot;
    x->generation = srv->table[slot].generation;
    srv->table[slot].x = x;
    x->head.headers = (nkhttp_header*)(void*)(x + 1);
    x->head.max_headers = srv->desc.max_headers;
    x->head.max_line_bytes = srv->desc.max_line_bytes;
    x->head.max_head_bytes = srv->desc.max_head_bytes;
    x->req.server = srv;
    x->req.loop = srv->L;
    x->req.p = x;
    return x;
}

// Lends an exchange. What it held before was given back by nkhttp_p_exchange_put.
static nkhttp_p_exchange* nkhttp_p_exchange_take(nkhttp_server* srv) {
    nkhttp_p_exchange* x = srv->free_exchanges;
    if (x) {
        srv->free_exchanges = x->next;
        srv->num_idle--;
    } else if (!(x = nkhttp_p_exchange_new(srv))) {
        return NULL;
    }
    x->generation++;
    x->flags = NKHTTP_P_X_USED;
    x->next = NULL;
    return x;
}

static void nkhttp_p_exchange_free(nkhttp_server* srv, nkhttp_p_exchange* x) {
    nkhttp_p_buf_drop(srv->L, &x->copy, 0);
    nkhttp_p_buf_drop(srv->L, &x->body, 0);
    nkhttp_p_buf_drop(srv->L, &x->fields, 0);
    nkhttp_p_buf_drop(srv->L, &x->tail, 0);
    srv->table[x->slot].x = NULL;
    srv->table[x->slot].generation = x->generation;
    srv->table[x->slot].next_free = srv->free_entry;
    srv->free_entry = x->slot;
    nkhttp_p_drop(srv->L, x, nkhttp_p_exchange_size(srv));
}

static void nkhttp_p_exchange_reset(nkhttp_server* srv, nkhttp_p_exchange* x) {
    nkhttp_p_buf_drop(srv->L, &x->copy, NKHTTP_P_KEPT);
    nkhttp_p_buf_drop(srv->L, &x->body, NKHTTP_P_KEPT);
    nkhttp_p_buf_drop(srv->L, &x->fields, NKHTTP_P_KEPT);
    nkhttp_p_buf_drop(srv->L, &x->tail, NKHTTP_P_KEPT);
    if (x->scratch) nkhttp_p_blocks_end(&x->scratch);
    x->conn = NULL;
    x->reply = x->status = x->verdict = x->err = x->deferring = 0;
    x->endpoint = NULL;
    x->req.head = NULL;
    x->req.body = NULL;
    x->req.body_bytes = 0;
    x->req.request_user = NULL;
    x->body_left = x->bytes_in = x->bytes_out = x->drained = 0;
    x->kinds = x->num_params = x->num_trailers = x->chunked_out = 0;
    x->on_writable = NULL;
    x->on_gone = NULL;
    x->peer[0] = 0;
}

static void nkhttp_p_exchange_put(nkhttp_server* srv, nkhttp_p_exchange* x) {
    nkhttp_p_exchange_reset(srv, x);
    x->generation++;
    x->flags = 0;
    if (srv->num_idle >= NKHTTP_P_IDLE_EXCHANGES) {
        nkhttp_p_exchange_free(srv, x);
        return;
    }
    x->next = srv->free_exchanges;
    srv->free_exchanges = x;
    srv->num_idle++;
}

static nkhttp_handle nkhttp_p_handle(const nkhttp_p_exchange* x) {
    nkhttp_handle h;
    h.id = (uint64_t)x->generation << 32 | (x->slot + 1);
    return h;
}

// The exchange of a handle whose client is still there, or NULL.
static nkhttp_p_exchange* nkhttp_p_find(nkhttp_server* srv, nkhttp_handle h) {
    uint32_t slot = (uint32_t)h.id - 1;
    nkhttp_p_exchange* x = (uint32_t)h.id && slot < srv->table_num ? srv->table[slot].x : NULL;
    if (!x || x->generation != (uint32_t)(h.id >> 32) || !(x->flags & NKHTTP_P_X_USED)) return NULL;
    return x->conn ? x : NULL;
}

static nkhttp_p_conn* nkhttp_p_conn_take(nkhttp_server* srv) {
    nkhttp_p_slab* slab;
    nkhttp_p_conn* c = srv->free_conns;
    int i;
    if (!c) {
        slab = (nkhttp_p_slab*)nkloop_alloc(srv->L, NULL, 0, sizeof *slab);
        if (!slab) return NULL;
        slab->next = srv->slabs;
        srv->slabs = slab;
        for (i = NKHTTP_P_SLAB - 1; i >= 0; i--) {
            slab->conns[i].next = c;
            c = &slab->conns[i];
        }
    }
    srv->free_conns = c->next;
    memset(c, 0, sizeof *c);
    c->srv = srv;
    return c;
}

// Those of earlier turns: no caller up the stack can hold one of them.
static void nkhttp_p_conns_reclaim(nkhttp_server* srv) {
    nkhttp_p_conn* c;
    nkloop_stats st;
    if (!srv->limbo) return;
    nkloop_get_stats(srv->L, &st);
    if (srv->limbo_turn == st.turns) return;
    while ((c = srv->limbo) != NULL) {
        srv->limbo = c->next;
        c->next = srv->free_conns;
        srv->free_conns = c;
    }
}

// A job that ends after the server was destroyed finds nothing to do; the last one frees it.
static void nkhttp_p_ref(nkhttp_server* srv) { nkhttp_p_a32_add(&srv->refs, 1); }
static void nkhttp_p_unref(nkhttp_server* srv) {
    nkloop* L = srv->L;
    if (nkhttp_p_a32_add(&srv->refs, UINT32_MAX) == 0) nkhttp_p_drop(L, srv, sizeof *srv);
}

// ---- @fields ---------------------------------------------------------------------------------
// Header fields of the application, checked and kept as they will be sent, and what we must know about them.
static int nkhttp_p_name_eq(nkhttp_str name, const char* text, size_t n) {
    return name.len == n && nkhttp_p_ieq(name.ptr, text, n);
}

// Which field this is, told by length first: almost every name is decided there.
static uint32_t nkhttp_p_kind_of(nkhttp_str name) {
    switch (name.len) {
    case 4:
        if (nkhttp_p_name_eq(name, "Date", 4)) return NKHTTP_P_F_DATE;
        return nkhttp_p_name_eq(name, "ETag", 4) ? NKHTTP_P_F_ETAG : 0;
    case 6:  return nkhttp_p_name_eq(name, "Server", 6) ? NKHTTP_P_F_SERVER : 0;
    case 10: return nkhttp_p_name_eq(name, "Connection", 10) ? NKHTTP_P_F_CONNECTION : 0;
    case 12: return nkhttp_p_name_eq(name, "Content-Type", 12) ? NKHTTP_P_F_TYPE : 0;
    case 13: return nkhttp_p_name_eq(name, "Content-Range", 13) ? NKHTTP_P_F_RANGE : 0;
    case 14: return nkhttp_p_name_eq(name, "Content-Length", 14) ? NKHTTP_P_F_FRAMING : 0;
    case 16: return nkhttp_p_name_eq(name, "Content-Encoding", 16) ? NKHTTP_P_F_ENCODING : 0;
    case 17: return nkhttp_p_name_eq(name, "Transfer-Encoding", 17) ? NKHTTP_P_F_FRAMING : 0;
    default: return 0;
    }
}

// May the application send this field? Framing is ours; of Connection it may say "close", which we then do.
static int nkhttp_p_field_check(nkhttp_str name, nkhttp_str value, uint32_t* kind) {
    *kind = nkhttp_p_kind_of(name);
    if (!nkhttp_field_ok(name.ptr, name.len, value.ptr, value.len)) return NKHTTP_ERR_HEADER_VALUE;
    if (*kind & NKHTTP_P_F_FRAMING) return NKHTTP_ERR_HEADER_VALUE;
    if ((*kind & NKHTTP_P_F_CONNECTION) && !nkhttp_is(value, "close")) return NKHTTP_ERR_HEADER_VALUE;
    return NKHTTP_OK;
}

static char* nkhttp_p_put(char* o, const void* bytes, size_t n) {
    if (n) memcpy(o, bytes, n);
    return o + n;
}

// With etag_weak, a strong ETag becomes a weak one: the bytes that go out are not the ones it named.
static char* nkhttp_p_put_field(char* o, nkhttp_str name, nkhttp_str value, int etag_weak) {
    o = nkhttp_p_put(o, name.ptr, name.len);
    o = nkhttp_p_put(o, ": ", 2);
    if (etag_weak && value.len && value.ptr[0] == '"') o = nkhttp_p_put(o, "W/", 2);
    o = nkhttp_p_put(o, value.ptr, value.len);
    return nkhttp_p_put(o, "\r\n", 2);
}

static int nkhttp_p_add_field(nkhttp_p_exchange* x, nkhttp_str name, nkhttp_str value) {
    nkloop* L = x->req.loop;
    uint32_t kind;
    char* end;
    int err = nkhttp_p_field_check(name, value, &kind);
    if (err < 0) return err;
    if (kind & NKHTTP_P_F_CONNECTION) {
        x->kinds |= kind;
        return NKHTTP_OK;
    }
    err = nkhttp_p_buf_room(L, &x->fields, name.len + value.len + 4);
    if (err < 0) return err;
    if (kind & NKHTTP_P_F_ETAG) x->etag_at = x->fields.len + name.len + 2;
    end = nkhttp_p_put_field(x->fields.ptr + x->fields.len, name, value, 0);
    x->fields.len = (size_t)(end - x->fields.ptr);
    x->kinds |= kind;
    return NKHTTP_OK;
}

static int nkhttp_p_add_text(nkhttp_p_exchange* x, const char* name, const char* value) {
    return nkhttp_p_add_field(x, nkhttp_p_str(name, strlen(name)), nkhttp_p_str(value, strlen(value)));
}

// ---- @policy ---------------------------------------------------------------------------------
// Who may talk to us, and who they are: hosts, origins, proxies, connections of one address.

// Is text one of the words of a list joined by blanks?
static int nkhttp_p_in_list(const char* list, const char* text, size_t n) {
    const char* at = list;
    size_t len;
    if (!list || !n) return 0;
    for (; *at; at += len + (at[len] == ' ')) {
        const char* blank = strchr(at, ' ');
        len = blank ? (size_t)(blank - at) : strlen(at);
        if (len == n && memcmp(at, text, n) == 0) return 1;
    }
    return 0;
}

// "127.0.0.1" of "127.0.0.1:80", "::1" of "[::1]:80"; an IPv4 address inside IPv6 is the IPv4 address.
static nkhttp_str nkhttp_p_addr_only(const char* text) {
    nkhttp_str s = nkhttp_p_str(text, strlen(text));
    const char* colon;
    if (s.len >= 5 && memcmp(text, "unix:", 5) == 0) return nkhttp_p_str(text, 5);
    if (s.len && text[0] == '[') {
        const char* close_at = strchr(text, ']');
        s.ptr++;
        s.len = close_at ? (size_t)(close_at - text) - 1 : s.len - 1;
    } else if ((colon = strchr(text, ':')) != NULL && !strchr(colon + 1, ':')) {
        s.len = (size_t)(colon - text);
    }
    if (s.len > 7 && memcmp(s.ptr, "::ffff:", 7) == 0 && memchr(s.ptr, '.', s.len)) {
        s.ptr += 7;
        s.len -= 7;
    }
    return s;
}

static int nkhttp_p_is_trusted(void* user, nkhttp_str addr) {
    return nkhttp_p_in_list(((nkhttp_server*)user)->trusted, addr.ptr, addr.len);
}

static void nkhttp_p_conn_peer(nkhttp_p_conn* c, char out[64]) {
    out[0] = 0;
    if (c->proxied) memcpy(out, c->proxied->bytes, 64);
    else if (nkloop_peer_address(c->srv->L, c->stream, out, 64) < 0) out[0] = 0;
}

// Fills x->peer. X-Forwarded-For counts only when the connection itself comes from a trusted proxy.
static void nkhttp_p_fill_peer(nkhttp_p_exchange* x) {
    nkhttp_server* srv = x->req.server;
    nkhttp_str addr;
    if (x->peer[0] || !x->conn) return;
    nkhttp_p_conn_peer(x->conn, x->peer);
    if (!srv->trusted || !x->req.head || !nkhttp_p_is_trusted(srv, nkhttp_p_addr_only(x->peer))) return;
    if (nkhttp_forwarded_for(x->req.head, nkhttp_p_is_trusted, srv, 0, &addr) < 0
        || addr.len >= sizeof x->peer) return;
    memcpy(x->peer, addr.ptr, addr.len);
    x->peer[addr.len] = 0;
}

static uint32_t nkhttp_p_hash(const char* text, size_t n) { // FNV-1a; a peer cannot choose its address freely
    uint32_t h = 2166136261u;
    size_t i;
    for (i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h;
}

// Counts a connection of its address. 0 counted, -1: one too many, or no memory to tell.
static int nkhttp_p_addr_enter(nkhttp_p_conn* c) {
    nkhttp_server* srv = c->srv;
    char text[64];
    nkhttp_str s;
    nkhttp_p_addr *a, **bucket;
    uint32_t hash;
    if (!srv->addrs) return 0;
    nkhttp_p_conn_peer(c, text);
    s = nkhttp_p_addr_only(text);
    hash = nkhttp_p_hash(s.ptr, s.len);
    bucket = &srv->addrs[hash % NKHTTP_P_BUCKETS];
    for (a = *bucket; a; a = a->next) {
        if (a->hash == hash && strlen(a->text) == s.len && !memcmp(a->text, s.ptr, s.len)) break;
    }
    if (a && a->count >= srv->desc.max_connections_per_address) return -1;
    if (!a) {
        a = (nkhttp_p_addr*)nkloop_alloc(srv->L, NULL, 0, sizeof *a);
        if (!a) return -1;
        memset(a, 0, sizeof *a);
        a->hash = hash;
        memcpy(a->text, s.ptr, s.len);
        a->next = *bucket;
        *bucket = a;
    }
    a->count++;
    c->addr = a;
    return 0;
}

static void nkhttp_p_addr_leave(nkhttp_p_conn* c) {
    nkhttp_server* srv = c->srv;
    nkhttp_p_addr *a = c->addr, **at;
    c->addr = NULL;
    if (!a || --a->count) return;
    for (at = &srv->addrs[a->hash % NKHTTP_P_BUCKETS]; *at != a; at = &(*at)->next) {}
    *at = a->next;
    nkhttp_p_drop(srv->L, a, sizeof *a);
}

// Adds the fields a browser needs to let a script of another origin read the reply. 1: the origin may.
static int nkhttp_p_cors(nkhttp_p_exchange* x) {
    nkhttp_server* srv = x->req.server;
    nkhttp_str origin = nkhttp_value(&x->head, "Origin");
    int any = nkhttp_p_in_list(srv->origins, "*", 1), err = 0;
    // caches must tell replies apart
    if (!any || srv->desc.cors_credentials) err |= nkhttp_p_add_text(x, "Vary", "Origin");
    if (!origin.len || (!any && !nkhttp_p_in_list(srv->origins, origin.ptr, origin.len))) return 0;
    if (any && !srv->desc.cors_credentials) err |= nkhttp_p_add_text(x, "Access-Control-Allow-Origin", "*");
    else err |= nkhttp_p_add_field(x, nkhttp_p_str("Access-Control-Allow-Origin", 27), origin);
    if (srv->desc.cors_credentials) err |= nkhttp_p_add_text(x, "Access-Control-Allow-Credentials", "true");
    return err >= 0;
}

// A preflight asks before a request that a form could not make. Answered with 204 and what the
// routes of the path allow.
static void nkhttp_p_preflight(nkhttp_p_exchange* x, const char* allow) {
    nkhttp_server* srv = x->req.server;
    nkhttp_str wanted = nkhttp_value(&x->head, "Access-Control-Request-Headers");
    char age[24];
    age[nkhttp_p_u64(age, srv->desc.cors_max_age_s)] = 0;
    nkhttp_p_add_text(x, "Access-Control-Allow-Methods", allow);
    if (srv->desc.cors_headers) nkhttp_p_add_text(x, "Access-Control-Allow-Headers", srv->desc.cors_headers);
    else if (wanted.len) nkhttp_p_add_field(x, nkhttp_p_str("Access-Control-Allow-Headers", 28), wanted);
    nkhttp_p_add_text(x, "Access-Control-Max-Age", age);
}

// ---- @codec ----------------------------------------------------------------------------------
// Compression of replies through the user's codec. Which replies are fit for it, and running it.
static int nkhttp_p_compressible(nkhttp_str type) {
    static const char* const fit[] = {
        "application/json", "application/javascript", "application/xml", "application/wasm",
                                       "application/manifest+json", "image/svg+xml" };
    size_t i;
    const char* end = type.len ? (const char*)memchr(type.ptr, ';', type.len) : NULL; // parameters do not matter
    if (end) type.len = (size_t)(end - type.ptr);
    while (type.len && (type.ptr[type.len - 1] == ' ' || type.ptr[type.len - 1] == '\t')) type.len--;
    if (type.len > 5 && nkhttp_p_ieq(type.ptr, "text/", 5)) return 1;
    for (i = 0; i < sizeof fit / sizeof fit[0]; i++) if (nkhttp_is(type, fit[i])) return 1;
    return (type.len > 5 && nkhttp_p_ieq(type.ptr + type.len - 5, "+json", 5))
        || (type.len > 4 && nkhttp_p_ieq(type.ptr + type.len - 4, "+xml", 4));
}

// Runs bytes through a codec into out. 0, or an error; with flush 2 the codec's stream is complete afterwards.
static int nkhttp_p_codec_run(nkhttp_server* srv, void* state, const void* bytes, size_t n,
                              int flush, nkhttp_p_buf* out) {
    const uint8_t* in = (const uint8_t*)bytes;
    size_t left, room;
    int r, idle = 0;
    for (;;) {
        if (nkhttp_p_buf_room(srv->L, out, 1024) < 0) return NKLOOP_ERR_NOMEM;
        left = n;
        room = out->cap - out->len;
        r = srv->desc.codec->run(state, in, &left, (uint8_t*)out->ptr + out->len, &room, flush);
        if (r < 0 || left > n || room > out->cap - out->len) return NKHTTP_ERR_CODING;
        idle = left || room ? 0 : idle + 1;
        in += left;
        n -= left;
        out->len += room;
        if (r == 1 || (flush == 0 && n == 0)) return NKHTTP_OK;
        if (idle == 2) return NKHTTP_ERR_CODING; // it neither eats nor speaks: it never will
    }
}

// The whole body encoded, or NULL: it goes out as it is.
static nkhttp_p_block* nkhttp_p_encode(nkhttp_server* srv, const void* body, size_t n) {
    const nkhttp_codec* codec = srv->desc.codec;
    void* state = codec->begin(codec->user);
    nkhttp_p_block* b = NULL;
    nkhttp_p_buf out = { NULL, 0, 0 };
    if (!state) return NULL;
    if (nkhttp_p_codec_run(srv, state, body, n, 2, &out) == NKHTTP_OK && out.len < n) {
        b = nkhttp_p_block_new(srv->L, out.len);
    }
    codec->end(state);
    if (b) {
        if (out.len) memcpy(nkhttp_p_block_bytes(b), out.ptr, out.len);
        b->num_bytes = out.len;
    }
    nkhttp_p_buf_drop(srv->L, &out, 0);
    return b;
}

// ---- @reply ----------------------------------------------------------------------------------
// Heads of replies, their bodies, and the order in which they leave. The first open request of a
// connection writes to the stream at once; what later ones say waits in blocks
// until it is their turn (nkhttp_p_advance).

// Makes sure the alarm rings no later than at_ns. Ringing too early is harmless: on_alarm looks at
// what is really due.
static void nkhttp_p_arm(nkhttp_p_conn* c, uint64_t at_ns) {
    uint64_t now = nkloop_now_ns(c->srv->L), ms;
    if (c->alarm_ns && c->alarm_ns <= at_ns) return;
    ms = at_ns > now ? (at_ns - now + 999999u) / 1000000u : 1;
    if (ms > 0x7fffffffu) ms = 0x7fffffffu; // 24 days
    c->alarm_ns = at_ns;
    nkloop_set_alarm(c->srv->L, c->stream, (uint32_t)(ms ? ms : 1));
}

static void nkhttp_p_arm_in(nkhttp_p_conn* c, uint32_t ms) {
    if (ms != UINT32_MAX) nkhttp_p_arm(c, nkloop_now_ns(c->srv->L) + (uint64_t)ms * 1000000u);
}

// The connection cannot go on: no orderly end is possible. on_close follows.
static void nkhttp_p_conn_cut(nkhttp_p_conn* c) {
    c->flags |= NKHTTP_P_STOP | NKHTTP_P_FINISHED;
    nkloop_close(c->srv->L, c->stream);
}

// time() four times a second at most: the date is late by a quarter of a second, and no reply pays for a clock.
static void nkhttp_p_date(nkhttp_server* srv) {
    uint64_t now = nkloop_now_ns(srv->L);
    int64_t s;
    if (now < srv->date_due_ns) return;
    srv->date_due_ns = now + 250000000u;
    s = (int64_t)time(NULL);
    if (s == srv->date_s) return;
    srv->date_s = s;
    nkhttp_format_date(srv->prefix + 23, s);
}

static void nkhttp_p_date_init(nkhttp_server* srv) {
    memcpy(srv->prefix, "HTTP/1.1 200 OK\r\nDate: ", 23);
    memcpy(srv->prefix + 52, "\r\n", 2);
    srv->prefix_len = srv->desc.disable_date ? 17 : 54;
    srv->date_s = -1;
}

typedef struct nkhttp_p_plan {     // how one reply goes out
    const nkhttp_reply_desc* d;
    nkhttp_str type;
    uint64_t length;               // of the body; UINT64_MAX: not known
    size_t bound;                  // most bytes its head can take
    uint32_t kinds;
    int status;
    int bare;                      // 1: x->fields belong to a worker, leave them alone
    int bodiless;                  // status says that there is none: RFC 9110 6.4.1
    int chunked, encoded, vary;
} nkhttp_p_plan;

static int nkhttp_p_plan_headers(nkhttp_p_plan* plan) {
    const nkhttp_reply_desc* d = plan->d;
    uint32_t i, kind;
    int err;
    for (i = 0; i < d->num_headers; i++) {
        err = nkhttp_p_field_check(d->headers[i].name, d->headers[i].value, &kind);
        if (err < 0) return err;
        plan->kinds |= kind;
        plan->bound += d->headers[i].name.len + d->headers[i].value.len + 6;
    }
    return NKHTTP_OK;
}

static int nkhttp_p_plan_make(nkhttp_p_exchange* x, const nkhttp_reply_desc* d, uint64_t length,
                              nkhttp_p_plan* plan) {
    nkhttp_server* srv = x->req.server;
    plan->d = d;
    plan->status = d->status ? d->status : 200;
    if (plan->status < 200 || plan->status > 999) return NKLOOP_ERR_INVAL; // an interim reply is not an answer
    plan->type = nkhttp_p_str(d->content_type ? d->content_type : "", d->content_type ? strlen(d->content_type) : 0);
    if (nkhttp_p_scan_value(plan->type.ptr, plan->type.ptr + plan->type.len) != plan->type.ptr + plan->type.len) {
        return NKHTTP_ERR_HEADER_VALUE;
    }
    plan->bare = (x->flags & NKHTTP_P_X_RUNNING) != 0;
    plan->kinds = plan->bare ? 0 : x->kinds;
    plan->bound = NKHTTP_P_HEAD_EXTRA + srv->server_len + plan->type.len + (plan->bare ? 0 : x->fields.len);
    plan->length = length;
    plan->bodiless = plan->status == 204 || plan->status == 304;
    plan->chunked = length == UINT64_MAX && !(x->flags & NKHTTP_P_X_10) && !plan->bodiless;
    plan->encoded = plan->vary = 0;
    return d->num_headers ? nkhttp_p_plan_headers(plan) : NKHTTP_OK;
}

// Is this reply one that the codec should see? Says so in Vary even when this client does not take the coding.
static int nkhttp_p_plan_codec(nkhttp_p_exchange* x, nkhttp_p_plan* plan, uint64_t length) {
    nkhttp_server* srv = x->req.server;
    if (!srv->desc.codec || plan->bare || plan->bodiless || plan->status == 206) return 0;
    if (plan->kinds & (NKHTTP_P_F_ENCODING | NKHTTP_P_F_RANGE)) return 0;
    if (!plan->type.len || !nkhttp_p_compressible(plan->type)) return 0;
    plan->vary = 1;
    return (x->flags & NKHTTP_P_X_ACCEPTS) && length >= srv->desc.codec_min_bytes;
}

// Will the connection go on? Decided when the head of the reply is written, which has to say it.
static void nkhttp_p_plan_keep(nkhttp_p_exchange* x, const nkhttp_p_plan* plan, int complete) {
    nkhttp_p_conn* c = x->conn;
    nkhttp_server* srv = x->req.server;
    if (plan->kinds & NKHTTP_P_F_CONNECTION) x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
    if (srv->stopping && c->last == x) x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
    // RFC 9112 9.3: without a length the end of the connection is the end of the body
    if (plan->length == UINT64_MAX && !plan->chunked && !plan->bodiless) x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
    if (complete && c->body == x) {
        // RFC 9110 10.1.1: nobody knows whether a client that waits for 100 will send the body now
        if (x->flags & NKHTTP_P_X_CONTINUE) x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
        if ((x->flags & NKHTTP_P_X_LENGTH) && x->body_left > srv->desc.drain_bytes) {
            x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
        }
    }
    if (!(x->flags & NKHTTP_P_X_KEEP)) c->flags |= NKHTTP_P_STOP;
}

static char* nkhttp_p_put_status(nkhttp_server* srv, char* o, int status) {
    const char* reason = nkhttp_reason(status);
    o = nkhttp_p_put(o, "HTTP/1.1 ", 9);
    o += nkhttp_p_u64(o, (uint64_t)status);
    *o++ = ' ';
    o = nkhttp_p_put(o, reason, strlen(reason));
    o = nkhttp_p_put(o, "\r\n", 2);
    if (!srv->desc.disable_date) o = nkhttp_p_put(o, srv->prefix + 17, 37);
    return o;
}

static char* nkhttp_p_put_framing(const nkhttp_p_exchange* x, const nkhttp_p_plan* plan, char* o) {
    if (plan->chunked) {
        o = nkhttp_p_put(o, "Transfer-Encoding: chunked\r\n", 28);
    } else if (!plan->bodiless && plan->length != UINT64_MAX) { // RFC 9110 8.6: never with 204
        o = nkhttp_p_put(o, "Content-Length: ", 16);
        o += nkhttp_p_u64(o, plan->length);
        o = nkhttp_p_put(o, "\r\n", 2);
    }
    if (!(x->flags & NKHTTP_P_X_KEEP)) o = nkhttp_p_put(o, "Connection: close\r\n", 19);
    else if (x->flags & NKHTTP_P_X_10) o = nkhttp_p_put(o, "Connection: keep-alive\r\n", 24);
    return nkhttp_p_put(o, "\r\n", 2);
}

static char* nkhttp_p_put_fields(nkhttp_p_exchange* x, const nkhttp_p_plan* plan, char* o) {
    size_t cut = x->etag_at;
    uint32_t i;
    if (!plan->bare && plan->encoded && (x->kinds & NKHTTP_P_F_ETAG) && x->fields.ptr[cut] == '"') {
        o = nkhttp_p_put(o, x->fields.ptr, cut);
        o = nkhttp_p_put(o, "W/", 2);
        o = nkhttp_p_put(o, x->fields.ptr + cut, x->fields.len - cut);
    } else if (!plan->bare) {
        o = nkhttp_p_put(o, x->fields.ptr, x->fields.len);
    }
    for (i = 0; i < plan->d->num_headers; i++) {
        const nkhttp_header* h = &plan->d->headers[i];
        uint32_t kind = nkhttp_p_kind_of(h->name);
        if (kind & NKHTTP_P_F_CONNECTION) continue; // said by nkhttp_p_put_framing
        o = nkhttp_p_put_field(o, h->name, h->value, plan->encoded && (kind & NKHTTP_P_F_ETAG));
    }
    return o;
}

// At most plan->bound bytes. Everything in it was checked by nkhttp_p_plan_make.
static size_t nkhttp_p_put_head(nkhttp_p_exchange* x, const nkhttp_p_plan* plan, char* out) {
    nkhttp_server* srv = x->req.server;
    char* o = out;
    nkhttp_p_date(srv);
    if (plan->kinds & NKHTTP_P_F_DATE) { // the application's own
        const char* reason = nkhttp_reason(plan->status);
        o = nkhttp_p_put(o, "HTTP/1.1 ", 9);
        o += nkhttp_p_u64(o, (uint64_t)plan->status);
        *o++ = ' ';
        o = nkhttp_p_put(o, reason, strlen(reason));
        o = nkhttp_p_put(o, "\r\n", 2);
    } else if (plan->status == 200) {
        o = nkhttp_p_put(o, srv->prefix, srv->prefix_len);
    } else {
        o = nkhttp_p_put_status(srv, o, plan->status);
    }
    if (srv->server_len && !(plan->kinds & NKHTTP_P_F_SERVER)) o = nkhttp_p_put(o, srv->server_line, srv->server_len);
    if (plan->type.len) {
        o = nkhttp_p_put(o, "Content-Type: ", 14);
        o = nkhttp_p_put(o, plan->type.ptr, plan->type.len);
        o = nkhttp_p_put(o, "\r\n", 2);
    }
    if (plan->d->num_headers || (!plan->bare && x->fields.len)) o = nkhttp_p_put_fields(x, plan, o);
    if (plan->encoded) {
        const char* coding = srv->desc.codec->coding;
        o = nkhttp_p_put(o, "Content-Encoding: ", 18);
        o = nkhttp_p_put(o, coding, strlen(coding));
        o = nkhttp_p_put(o, "\r\n", 2);
    }
    if (plan->vary) o = nkhttp_p_put(o, "Vary: Accept-Encoding\r\n", 23);
    return (size_t)(nkhttp_p_put_framing(x, plan, o) - out);
}

// May x write to the stream now?
static int nkhttp_p_direct(const nkhttp_p_exchange* x) {
    return x->conn->first == x && !x->out_first && !(x->conn->flags & NKHTTP_P_FULL);
}

static void nkhttp_p_wrote(nkhttp_p_exchange* x, uint64_t n) {
    x->bytes_out += n;
    x->conn->written += n;
    if (n >= NKHTTP_P_BIG_WRITE) nkhttp_p_arm_in(x->conn, x->req.server->desc.write_timeout_ms);
}

// Hands a block to the loop. 1: gone, 0: the queue is full and the block still ours, < 0: the connection was cut.
static int nkhttp_p_block_send(nkhttp_p_exchange* x, nkhttp_p_block* b) {
    nkhttp_p_conn* c = x->conn;
    size_t n = b->num_bytes;
    int r;
    if (n == 0) { nkhttp_p_block_end(b); return 1; }
    if (b->release_fn) r = nkloop_write_ref(c->srv->L, c->stream, b->bytes, n, b->release_fn, b->release_user);
    else r = nkloop_write_ref(c->srv->L, c->stream, b->bytes, n, nkhttp_p_block_free, b);
    if (r == NKLOOP_OK) {
        if (b->release_fn) nkhttp_p_block_free(b);
        nkhttp_p_wrote(x, n);
        return 1;
    }
    if (r == NKLOOP_ERR_FULL) {
        c->flags |= NKHTTP_P_FULL;
        nkhttp_p_arm_in(c, c->srv->desc.write_timeout_ms);
        return 0;
    }
    nkhttp_p_conn_cut(c);
    return r;
}

// Sends a block, or queues it behind what waits already. Takes the block in any case.
static void nkhttp_p_push(nkhttp_p_exchange* x, nkhttp_p_block* b) {
    if (x->conn->flags & NKHTTP_P_FINISHED) { nkhttp_p_block_end(b); return; }
    if (nkhttp_p_direct(x) && nkhttp_p_block_send(x, b) > 0) return;
    b->next = NULL;
    if (x->out_first) x->out_last->next = b;
    else x->out_first = b;
    x->out_last = b;
    x->queued += b->num_bytes;
    x->req.server->stats.buffered_bytes += b->num_bytes;
}

// Head and a small body straight into the send queue. 0: no room there.
static int nkhttp_p_emit_direct(nkhttp_p_exchange* x, const nkhttp_p_plan* plan, const void* body, size_t n) {
    nkhttp_p_conn* c = x->conn;
    uint8_t* room;
    size_t used;
    int r = nkloop_reserve(c->srv->L, c->stream, plan->bound + n, &room);
    if (r < 0) return 0;
    used = nkhttp_p_put_head(x, plan, (char*)room);
    if (n) memcpy(room + used, body, n);
    nkloop_commit(c->srv->L, c->stream, used + n);
    nkhttp_p_wrote(x, used + n);
    return 1;
}

// Head and n bytes of body. The bytes are copied, or given back by release_fn; on error nothing was done.
static int nkhttp_p_emit(nkhttp_p_exchange* x, const nkhttp_p_plan* plan, const void* body, size_t n,
                         void (*release_fn)(void*), void* release_user) {
    nkloop* L = x->req.loop;
    nkhttp_p_block *head, *ref = NULL;
    int split = release_fn && n > NKHTTP_P_INLINE;
    if (!split && n <= NKHTTP_P_INLINE && plan->bound + n <= NKLOOP_RESERVE_MAX && nkhttp_p_direct(x)
        && nkhttp_p_emit_direct(x, plan, body, n)) {
        if (release_fn) release_fn(release_user);
        return NKHTTP_OK;
    }
    if (split && !(ref = nkhttp_p_block_new(L, 0))) return NKLOOP_ERR_NOMEM;
    head = n < ((size_t)-1) / 2 ? nkhttp_p_block_new(L, plan->bound + (split ? 0 : n)) : NULL;
    if (!head) {
        if (ref) nkhttp_p_block_free(ref);
        return NKLOOP_ERR_NOMEM;
    }
    head->num_bytes = nkhttp_p_put_head(x, plan, nkhttp_p_block_bytes(head));
    if (!split && n) {
        memcpy(nkhttp_p_block_bytes(head) + head->num_bytes, body, n);
        head->num_bytes += n;
    }
    nkhttp_p_push(x, head);
    if (split) {
        ref->bytes = body;
        ref->num_bytes = n;
        ref->release_fn = release_fn;
        ref->release_user = release_user;
        nkhttp_p_push(x, ref);
    } else if (release_fn) {
        release_fn(release_user);
    }
    return NKHTTP_OK;
}

static void nkhttp_p_count_reply(nkhttp_p_exchange* x, int status) {
    nkhttp_stats* st = &x->req.server->stats;
    x->status = status;
    if (status < 300) st->replies_2xx++;
    else if (status < 400) st->replies_3xx++;
    else if (status < 500) st->replies_4xx++;
    else st->replies_5xx++;
}

// The whole reply has been said. A body that still arrives is not wanted any more.
static void nkhttp_p_reply_done(nkhttp_p_exchange* x) {
    nkhttp_p_conn* c = x->conn;
    x->reply = NKHTTP_P_DONE;
    if (c->body != x) return;
    if (x->flags & NKHTTP_P_X_KEEP) x->flags |= NKHTTP_P_X_DISCARD;
    else c->body = NULL;
}

static int nkhttp_p_over_budget(const nkhttp_server* srv, uint64_t n) {
    return n > srv->desc.max_buffered_bytes || srv->stats.buffered_bytes > srv->desc.max_buffered_bytes - n;
}

// Makes the whole reply. On success d's body has been copied or will be given back;
// on error it is the caller's again.
static int nkhttp_p_reply_now(nkhttp_p_exchange* x, const nkhttp_reply_desc* d) {
    nkhttp_p_plan plan;
    nkhttp_p_block* encoded = NULL;
    int err;
    size_t n = d->body_bytes;
    if (x->conn->flags & NKHTTP_P_FINISHED) return NKHTTP_ERR_STALE;
    err = nkhttp_p_plan_make(x, d, n, &plan);
    if (err < 0) return err;
    if (!nkhttp_p_direct(x) && !d->release_fn && !(x->flags & NKHTTP_P_X_REFUSED)
        && nkhttp_p_over_budget(x->req.server, n)) {
        return NKLOOP_ERR_NOMEM;
    }
    if (x->req.server->desc.codec && nkhttp_p_plan_codec(x, &plan, n)) {
        encoded = nkhttp_p_encode(x->req.server, d->body, n);
    }
    if (encoded) {
        plan.encoded = 1;
        plan.length = n = encoded->num_bytes;
    }
    nkhttp_p_plan_keep(x, &plan, 1);
    if ((x->flags & NKHTTP_P_X_HEAD) || plan.bodiless) n = 0; // RFC 9110 9.3.2: the head as for GET, no content
    if (encoded) err = nkhttp_p_emit(x, &plan, encoded->bytes, n, nkhttp_p_block_free, encoded);
    else err = nkhttp_p_emit(x, &plan, d->body, n, d->release_fn, d->release_user);
    if (err < 0) {
        if (encoded) nkhttp_p_block_free(encoded);
        return err;
    }
    if (encoded && d->release_fn) d->release_fn(d->release_user);
    nkhttp_p_count_reply(x, plan.status);
    nkhttp_p_reply_done(x);
    return NKHTTP_OK;
}

// A short answer of our own. If there is no memory even for that, the connection is cut.
static void nkhttp_p_reply_error(nkhttp_p_exchange* x, int status, const char* text) {
    nkhttp_reply_desc d;
    char line[160];
    size_t n = strlen(text);
    if (!x->conn || x->reply != NKHTTP_P_NONE) return;
    if (x->conn->flags & NKHTTP_P_FINISHED) { // too late, and what goes first may still be on its way
        x->reply = NKHTTP_P_DONE;
        return;
    }
    if (n > sizeof line - 1) n = sizeof line - 1;
    memcpy(line, text, n);
    line[n++] = '\n';
    memset(&d, 0, sizeof d);
    d.status = status;
    d.content_type = "text/plain; charset=utf-8";
    d.body = line;
    d.body_bytes = n;
    x->flags |= NKHTTP_P_X_REFUSED;
    if (nkhttp_p_reply_now(x, &d) < 0) {
        x->reply = NKHTTP_P_DONE;
        nkhttp_p_conn_cut(x->conn);
    }
}

// ---- @streaming ------------------------------------------------------------------------------
// Replies that are made piece by piece: begin, write, end; and bodies that pull themselves (files).
static void nkhttp_p_codec_drop(nkhttp_p_exchange* x) {
    if (x->codec) x->req.server->desc.codec->end(x->codec);
    x->codec = NULL;
}

// HEAD, 204 and 304: what the application writes is swallowed.
static int nkhttp_p_is_mute(const nkhttp_p_exchange* x) {
    return (x->flags & NKHTTP_P_X_HEAD) || x->status == 204 || x->status == 304;
}

// One piece of a streamed body with its framing: in the send queue if it fits there, else in a block.
static int nkhttp_p_write_piece(nkhttp_p_exchange* x, const void* bytes, size_t n) {
    nkhttp_p_conn* c = x->conn;
    nkhttp_p_block* b = NULL;
    uint8_t* room = NULL;
    char *o, *start;
    if (n == 0) return NKHTTP_OK; // a chunk of no bytes would end the body
    if (n > ((size_t)-1) / 2) return NKLOOP_ERR_NOMEM;
    if (n > NKHTTP_P_INLINE || !nkhttp_p_direct(x)
        || nkloop_reserve(c->srv->L, c->stream, n + 24, &room) < 0) room = NULL;
    if (!room && !(b = nkhttp_p_block_new(c->srv->L, n + 24))) return NKLOOP_ERR_NOMEM;
    start = o = room ? (char*)room : nkhttp_p_block_bytes(b);
    if (x->chunked_out) o += nkhttp_chunk_head(o, n);
    o = nkhttp_p_put(o, bytes, n);
    if (x->chunked_out) o = nkhttp_p_put(o, "\r\n", 2);
    if (room) {
        nkloop_commit(c->srv->L, c->stream, (size_t)(o - start));
        nkhttp_p_wrote(x, (uint64_t)(o - start));
    } else {
        b->num_bytes = (size_t)(o - start);
        nkhttp_p_push(x, b);
    }
    return NKHTTP_OK;
}

static int nkhttp_p_write_encoded(nkhttp_p_exchange* x, const void* bytes, size_t n, int flush) {
    nkhttp_p_buf out = { NULL, 0, 0 };
    int err = nkhttp_p_codec_run(x->req.server, x->codec, bytes, n, flush, &out);
    if (err == NKHTTP_OK) err = nkhttp_p_write_piece(x, out.ptr, out.len);
    nkhttp_p_buf_drop(x->req.loop, &out, 0);
    if (err < 0) nkhttp_p_conn_cut(x->conn); // its stream has a hole now
    return err;
}

// force: the bytes come from another thread and cannot be handed back; only the budget of all connections stops them.
static int nkhttp_p_write_now(nkhttp_p_exchange* x, const void* bytes, size_t n, int force) {
    nkhttp_p_conn* c = x->conn;
    int err = NKHTTP_OK;
    if (c->flags & NKHTTP_P_FINISHED) return NKHTTP_ERR_STALE;
    if (x->reply == NKHTTP_P_NONE) return NKLOOP_ERR_INVAL;
    if (x->reply == NKHTTP_P_DONE || x->pull.pull_fn) return NKHTTP_ERR_REPLIED;
    if (!force && x->out_first && (c->first == x || x->queued >= NKHTTP_P_STREAM_HIGH)) {
        x->flags |= NKHTTP_P_X_WRITABLE;
        return NKHTTP_ERR_FULL;
    }
    if (!nkhttp_p_direct(x) && nkhttp_p_over_budget(c->srv, n)) {
        if (!force) x->flags |= NKHTTP_P_X_WRITABLE;
        if (!force) return NKHTTP_ERR_FULL;
        nkhttp_p_conn_cut(c);
        return NKLOOP_ERR_NOMEM;
    }
    if (n > x->reply_left) { // more would be read as the next reply
        nkhttp_p_conn_cut(c);
        return NKHTTP_ERR_LENGTH;
    }
    if (!nkhttp_p_is_mute(x)) {
        err = x->codec ? nkhttp_p_write_encoded(x, bytes, n, 1) : nkhttp_p_write_piece(x, bytes, n);
    }
    if (err == NKHTTP_OK && x->reply_left != UINT64_MAX) x->reply_left -= n;
    return err;
}

static int nkhttp_p_begin_now(nkhttp_p_exchange* x, const nkhttp_reply_desc* d, uint64_t length) {
    nkhttp_server* srv = x->req.server;
    nkhttp_p_plan plan;
    int err;
    if (x->conn->flags & NKHTTP_P_FINISHED) return NKHTTP_ERR_STALE;
    err = nkhttp_p_plan_make(x, d, length, &plan);
    if (err < 0) return err;
    if (length == UINT64_MAX && nkhttp_p_plan_codec(x, &plan, UINT64_MAX)) {
        x->codec = srv->desc.codec->begin(srv->desc.codec->user);
        plan.encoded = x->codec != NULL;
    }
    nkhttp_p_plan_keep(x, &plan, 0);
    err = nkhttp_p_emit(x, &plan, NULL, 0, NULL, NULL);
    if (err < 0) {
        nkhttp_p_codec_drop(x);
        return err;
    }
    nkhttp_p_count_reply(x, plan.status);
    x->reply = NKHTTP_P_BEGUN;
    x->reply_left = length;
    x->chunked_out = (uint32_t)plan.chunked;
    if (d->body_bytes) err = nkhttp_p_write_now(x, d->body, d->body_bytes, 1);
    if (err < 0) nkhttp_p_conn_cut(x->conn);
    else if (d->release_fn) d->release_fn(d->release_user);
    return err;
}

// The trailers were checked by nkhttp_later_end.
static int nkhttp_p_write_last(nkhttp_p_exchange* x, const nkhttp_header* trailers, uint32_t num) {
    nkhttp_p_block* b;
    size_t size = 8;
    uint32_t i;
    char* o;
    for (i = 0; i < num; i++) size += trailers[i].name.len + trailers[i].value.len + 4;
    b = nkhttp_p_block_new(x->req.loop, size);
    if (!b) return NKLOOP_ERR_NOMEM;
    o = nkhttp_p_put(nkhttp_p_block_bytes(b), "0\r\n", 3);
    for (i = 0; i < num; i++) o = nkhttp_p_put_field(o, trailers[i].name, trailers[i].value, 0);
    o = nkhttp_p_put(o, "\r\n", 2);
    b->num_bytes = (size_t)(o - nkhttp_p_block_bytes(b));
    nkhttp_p_push(x, b);
    return NKHTTP_OK;
}

static int nkhttp_p_end_now(nkhttp_p_exchange* x, const nkhttp_header* trailers, uint32_t num) {
    int err = NKHTTP_OK;
    if (x->conn->flags & NKHTTP_P_FINISHED) return NKHTTP_ERR_STALE;
    if (x->reply == NKHTTP_P_NONE) return NKLOOP_ERR_INVAL;
    if (x->reply == NKHTTP_P_DONE || x->pull.pull_fn) return NKHTTP_ERR_REPLIED;
    if (x->reply_left != UINT64_MAX && x->reply_left && !nkhttp_p_is_mute(x)) {
        nkhttp_p_conn_cut(x->conn); // RFC 9112 8: the client must see that it is incomplete
        return NKHTTP_ERR_LENGTH;
    }
    if (x->codec && !nkhttp_p_is_mute(x)) err = nkhttp_p_write_encoded(x, "", 0, 2);
    nkhttp_p_codec_drop(x);
    if (err == NKHTTP_OK && x->chunked_out && !nkhttp_p_is_mute(x)) err = nkhttp_p_write_last(x, trailers, num);
    if (err < 0) {
        nkhttp_p_conn_cut(x->conn);
        return err;
    }
    nkhttp_p_reply_done(x);
    return NKHTTP_OK;
}

static void nkhttp_p_pull_drop(nkhttp_p_exchange* x) {
    nkhttp_p_pull pull = x->pull;
    memset(&x->pull, 0, sizeof x->pull);
    if (pull.pull_fn) pull.end_fn(pull.self);
}

// 1: the body is out, 0: not yet (or never: the connection was cut).
static int nkhttp_p_pull_more(nkhttp_p_exchange* x) {
    nkhttp_p_conn* c = x->conn;
    uint64_t written = 0;
    int r = x->pull.pull_fn(x->pull.self, c->srv->L, c->stream, &written);
    if (written > x->reply_left || (r == 1 && written != x->reply_left)) r = NKHTTP_ERR_LENGTH;
    else x->reply_left -= written;
    nkhttp_p_wrote(x, written);
    if (r == 0) {
        c->flags |= NKHTTP_P_FULL;
        nkhttp_p_arm_in(c, c->srv->desc.write_timeout_ms);
        return 0;
    }
    nkhttp_p_pull_drop(x);
    if (r == 1) nkhttp_p_reply_done(x);
    else nkhttp_p_conn_cut(c);
    return r == 1;
}

// Hands on what waits. 1: nothing waits any more.
static int nkhttp_p_drain(nkhttp_p_exchange* x) {
    nkhttp_p_block *b, *next;
    size_t n;
    if (x->conn->flags & (NKHTTP_P_FULL | NKHTTP_P_FINISHED)) return !x->out_first && !x->pull.pull_fn;
    while ((b = x->out_first) != NULL) {
        next = b->next;
        n = b->num_bytes;
        if (nkhttp_p_block_send(x, b) <= 0) return 0;
        x->out_first = next;
        x->queued -= n;
        x->req.server->stats.buffered_bytes -= n;
    }
    return x->pull.pull_fn ? nkhttp_p_pull_more(x) : 1;
}

// ---- @later ----------------------------------------------------------------------------------
// Calls that wait: from other threads they come as posted jobs, and while a worker holds a request
// they queue up behind it.
// A job is one allocation with copies of everything the caller said.
static void nkhttp_p_release(const nkhttp_reply_desc* d) { if (d->release_fn) d->release_fn(d->release_user); }

static void nkhttp_p_op_free(void* user) { // also the release_fn of a body that lies in the job
    nkhttp_p_op* op = (nkhttp_p_op*)user;
    nkhttp_p_drop(op->srv->L, op, op->size);
}

// A body that lies in the job is given back by its memory. The server may be gone by then, the loop is not.
typedef struct nkhttp_p_kept { nkloop* L; size_t size; } nkhttp_p_kept;
static void nkhttp_p_kept_free(void* user) {
    nkhttp_p_kept* k = (nkhttp_p_kept*)user;
    nkhttp_p_drop(k->L, k, k->size);
}

static char* nkhttp_p_copy_str(char* at, nkhttp_str* s) {
    char* to = at;
    at = nkhttp_p_put(at, s->ptr, s->len);
    s->ptr = to;
    return at;
}

static size_t nkhttp_p_op_size(const nkhttp_reply_desc* d) {
    size_t n = sizeof(nkhttp_p_op) + d->num_headers * sizeof(nkhttp_header);
    uint32_t i;
    for (i = 0; i < d->num_headers; i++) n += d->headers[i].name.len + d->headers[i].value.len;
    return n + (d->content_type ? strlen(d->content_type) + 1 : 0);
}

// Copies the body into memory of its own, so that it can go out later without another copy.
static int nkhttp_p_op_body(nkhttp_server* srv, nkhttp_reply_desc* d) {
    nkhttp_p_kept* k;
    if (d->release_fn || !d->body_bytes) return NKHTTP_OK;
    if (d->body_bytes > ((size_t)-1) / 2) return NKLOOP_ERR_NOMEM;
    k = (nkhttp_p_kept*)nkloop_alloc(srv->L, NULL, 0, sizeof *k + d->body_bytes);
    if (!k) return NKLOOP_ERR_NOMEM;
    k->L = srv->L;
    k->size = sizeof *k + d->body_bytes;
    memcpy(k + 1, d->body, d->body_bytes);
    d->body = k + 1;
    d->release_fn = nkhttp_p_kept_free;
    d->release_user = k;
    return NKHTTP_OK;
}

static nkhttp_p_op* nkhttp_p_op_new(nkhttp_server* srv, nkhttp_handle h, int kind,
                                    const nkhttp_reply_desc* d, uint64_t length) {
    size_t size = nkhttp_p_op_size(d);
    nkhttp_p_op* op = (nkhttp_p_op*)nkloop_alloc(srv->L, NULL, 0, size);
    nkhttp_header* headers;
    char* at;
    uint32_t i;
    if (!op) return NULL;
    memset(op, 0, sizeof *op);
    op->srv = srv;
    op->size = size;
    op->kind = kind;
    op->handle = h;
    op->length = length;
    op->desc = *d;
    if (nkhttp_p_op_body(srv, &op->desc) < 0) {
        nkhttp_p_op_free(op);
        return NULL;
    }
    headers = (nkhttp_header*)(void*)(op + 1);
    at = (char*)(headers + d->num_headers);
    for (i = 0; i < d->num_headers; i++) {
        headers[i] = d->headers[i];
        at = nkhttp_p_copy_str(at, &headers[i].name);
        at = nkhttp_p_copy_str(at, &headers[i].value);
    }
    op->desc.headers = headers;
    if (d->content_type) {
        memcpy(at, d->content_type, strlen(d->content_type) + 1);
        op->desc.content_type = at;
    }
    return op;
}

static void nkhttp_p_op_drop(nkhttp_p_op* op) {
    nkhttp_p_release(&op->desc);
    nkhttp_p_op_free(op);
}

static int nkhttp_p_op_apply(nkhttp_p_exchange* x, nkhttp_p_op* op) {
    const nkhttp_reply_desc* d = &op->desc;
    int err;
    switch (op->kind) {
    case NKHTTP_P_OP_REPLY: return x->reply != NKHTTP_P_NONE ? NKHTTP_ERR_REPLIED : nkhttp_p_reply_now(x, d);
    case NKHTTP_P_OP_BEGIN: return x->reply != NKHTTP_P_NONE
        ? NKHTTP_ERR_REPLIED : nkhttp_p_begin_now(x, d, op->length);
    case NKHTTP_P_OP_WRITE:
        err = nkhttp_p_write_now(x, d->body, d->body_bytes, 1);
        if (err == NKHTTP_OK) nkhttp_p_release(d);
        return err;
    case NKHTTP_P_OP_END: return nkhttp_p_end_now(x, d->headers, d->num_headers);
    default:
        if (x->reply == NKHTTP_P_DONE) return NKHTTP_ERR_REPLIED;
        nkhttp_p_conn_cut(x->conn); // RFC 9112 8: the client must see that it is incomplete
        return NKHTTP_OK;
    }
}

// Does what a job says and frees it. A reply that cannot be made is replaced by a 500, so that the
// client does not wait; a piece that cannot be sent leaves a hole, which the client must see.
static int nkhttp_p_op_run(nkhttp_p_exchange* x, nkhttp_p_op* op) {
    int err = x ? nkhttp_p_op_apply(x, op) : NKHTTP_ERR_STALE;
    if (err < 0) nkhttp_p_release(&op->desc);
    if (err < 0 && x && op->kind < NKHTTP_P_OP_WRITE && x->reply == NKHTTP_P_NONE) {
        NKHTTP_P_LOG(op->srv, NKLOOP_LOG_WARN, nkhttp_strerror(err));
        nkhttp_p_reply_error(x, 500, "The reply could not be made.");
    } else if (err < 0 && x && op->kind >= NKHTTP_P_OP_WRITE && x->reply == NKHTTP_P_BEGUN && !x->pull.pull_fn) {
        nkhttp_p_conn_cut(x->conn);
    }
    nkhttp_p_op_free(op);
    return err;
}

static void nkhttp_p_wait_for_worker(nkhttp_p_exchange* x, nkhttp_p_op* op) {
    op->next = NULL;
    if (x->pending) x->pending_last->next = op;
    else x->pending = op;
    x->pending_last = op;
}

static void nkhttp_p_settle_later(nkhttp_p_exchange* x) {
    if (!(x->flags & NKHTTP_P_X_HANDLER)) nkhttp_p_advance(x->conn); // else when the handler returns
}

static void nkhttp_p_later_run(nkhttp_p_op* op) {
    nkhttp_p_exchange* x = nkhttp_p_find(op->srv, op->handle);
    if (x && (x->flags & NKHTTP_P_X_RUNNING)) { nkhttp_p_wait_for_worker(x, op); return; }
    nkhttp_p_op_run(x, op);
    if (x) nkhttp_p_settle_later(x);
}

static void nkhttp_p_later_done(void* user) {
    nkhttp_p_op* op = (nkhttp_p_op*)user;
    nkhttp_server* srv = op->srv;
    if (srv->dead) nkhttp_p_op_drop(op);
    else nkhttp_p_later_run(op);
    nkhttp_p_unref(srv);
}

// One call of nkhttp_later_...: at once on the loop's thread, else as a job.
static int nkhttp_p_later(nkhttp_server* srv, nkhttp_handle h, int kind,
                          const nkhttp_reply_desc* d, uint64_t length) {
    int here = nkloop_on_thread(srv->L), err;
    nkhttp_p_exchange* x = here ? nkhttp_p_find(srv, h) : NULL;
    nkhttp_p_op op, *copy;
    if (here && !x) {
        nkhttp_p_release(d);
        return NKHTTP_ERR_STALE;
    }
    if (!here || (x->flags & NKHTTP_P_X_RUNNING)) {
        copy = nkhttp_p_op_new(srv, h, kind, d, length);
        if (!copy) {
            nkhttp_p_release(d);
            return NKLOOP_ERR_NOMEM;
        }
        if (here) { nkhttp_p_wait_for_worker(x, copy); return NKHTTP_OK; }
        copy->job.done = nkhttp_p_later_done;
        copy->job.user = copy;
        nkhttp_p_ref(srv);
        nkloop_post_job(srv->L, &copy->job);
        return NKHTTP_OK;
    }
    op.kind = kind;
    op.desc = *d;
    op.length = length;
    err = nkhttp_p_op_apply(x, &op);
    if (err < 0) nkhttp_p_release(d);
    nkhttp_p_settle_later(x);
    return err;
}

NETKIT_HTTP_API int nkhttp_later_reply(nkhttp_server* srv, nkhttp_handle h, const nkhttp_reply_desc* desc) {
    return nkhttp_p_later(srv, h, NKHTTP_P_OP_REPLY, desc, 0);
}

NETKIT_HTTP_API int nkhttp_later_text(nkhttp_server* srv, nkhttp_handle h, int status, const char* text) {
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    d.status = status;
    d.content_type = "text/plain; charset=utf-8";
    d.body = text;
    d.body_bytes = text ? strlen(text) : 0;
    return nkhttp_later_reply(srv, h, &d);
}

NETKIT_HTTP_API int nkhttp_later_begin(nkhttp_server* srv, nkhttp_handle h,
                                       const nkhttp_reply_desc* desc, uint64_t length) {
    return nkhttp_p_later(srv, h, NKHTTP_P_OP_BEGIN, desc, length);
}

NETKIT_HTTP_API int nkhttp_later_write(nkhttp_server* srv, nkhttp_handle h, const void* bytes, size_t n) {
    nkhttp_reply_desc d;
    nkhttp_p_exchange* x;
    if (nkloop_on_thread(srv->L)) {
        x = nkhttp_p_find(srv, h);
        if (!x) return NKHTTP_ERR_STALE;
        if (!(x->flags & NKHTTP_P_X_RUNNING)) return nkhttp_p_write_now(x, bytes, n, 0);
    }
    memset(&d, 0, sizeof d);
    d.body = bytes;
    d.body_bytes = n;
    return nkhttp_p_later(srv, h, NKHTTP_P_OP_WRITE, &d, 0);
}

NETKIT_HTTP_API int nkhttp_later_end(nkhttp_server* srv, nkhttp_handle h,
                                     const nkhttp_header* trailers, uint32_t num) {
    nkhttp_reply_desc d;
    uint32_t i, kind;
    for (i = 0; i < num; i++) { // here, where the caller hears of it, on whatever thread
        if (nkhttp_p_field_check(trailers[i].name, trailers[i].value, &kind) < 0 || kind) {
            return NKHTTP_ERR_HEADER_VALUE;
        }
    }
    memset(&d, 0, sizeof d);
    d.headers = trailers;
    d.num_headers = num;
    return nkhttp_p_later(srv, h, NKHTTP_P_OP_END, &d, 0);
}

NETKIT_HTTP_API int nkhttp_later_abort(nkhttp_server* srv, nkhttp_handle h) {
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    return nkhttp_p_later(srv, h, NKHTTP_P_OP_ABORT, &d, 0);
}

NETKIT_HTTP_API int nkhttp_later_watch(nkhttp_server* srv, nkhttp_handle h,
                                       void (*on_writable)(void* user, nkhttp_handle h),
                                       void (*on_gone)(void* user, nkhttp_handle h, int why), void* user) {
    nkhttp_p_exchange* x = nkhttp_p_find(srv, h);
    if (!x) return NKHTTP_ERR_STALE;
    x->on_writable = on_writable;
    x->on_gone = on_gone;
    x->watch_user = user;
    return NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_pause_body(nkhttp_server* srv, nkhttp_handle h, int paused) {
    nkhttp_p_exchange* x = nkhttp_p_find(srv, h);
    if (!x) return NKHTTP_ERR_STALE;
    if (paused) {
        x->flags |= NKHTTP_P_X_PAUSED;
    } else if (x->flags & NKHTTP_P_X_PAUSED) {
        x->flags &= ~(uint32_t)NKHTTP_P_X_PAUSED;
        x->body_ns = nkloop_now_ns(srv->L); // the time of the pause is not the client's
        x->body_base = x->bytes_in;
        if (x->conn->body == x) nkhttp_p_arm_in(x->conn, srv->desc.body_timeout_ms);
    }
    nkhttp_p_settle_later(x);
    return NKHTTP_OK;
}

// ---- @request --------------------------------------------------------------------------------
// What a handler calls with its nkhttp_req: reading, answering, deferring. Runs in the loop or on a
// worker; a worker's reply is stored in the exchange and made when the worker is done.

// May this request still be answered by its handler? A worker must not look at flags and reply: the
// loop may be writing them.
static int nkhttp_p_answerable(const nkhttp_p_exchange* x) {
    if (x->worker) return x->stored || x->deferring ? NKHTTP_ERR_REPLIED : NKHTTP_OK;
    if (x->flags & NKHTTP_P_X_DETACHED) return NKHTTP_ERR_DETACHED;
    if (!x->conn) return NKHTTP_ERR_STALE;
    return x->reply != NKHTTP_P_NONE || (x->flags & NKHTTP_P_X_DEFERRED) ? NKHTTP_ERR_REPLIED : NKHTTP_OK;
}

NETKIT_HTTP_API nkhttp_str nkhttp_param(nkhttp_req* req, const char* name) {
    nkhttp_p_exchange* x = req->p;
    nkhttp_str raw = { NULL, 0 };
    uint32_t i;
    size_t len = 0;
    char* text;
    for (i = 0; i < x->num_params; i++) {
        const nkhttp_str* n = &x->match.params[i].name;
        if (n->len == strlen(name) && memcmp(n->ptr, name, n->len) == 0) raw = x->match.params[i].value;
    }
    if (!raw.ptr || !raw.len || !memchr(raw.ptr, '%', raw.len)) return raw;
    text = nkhttp_p_keep_text(req->loop, &x->scratch, raw.ptr, raw.len);
    raw.ptr = text;
    if (!text || nkhttp_percent_decode(text, raw.len + 1, text, raw.len, &len) < 0) raw.ptr = NULL;
    raw.len = raw.ptr ? len : 0;
    return raw;
}

NETKIT_HTTP_API nkhttp_str nkhttp_header_value(nkhttp_req* req, const char* name) {
    return req->head ? nkhttp_value(req->head, name) : nkhttp_p_str("", 0);
}

NETKIT_HTTP_API const char* nkhttp_peer(nkhttp_req* req) {
    if (!req->p->worker) nkhttp_p_fill_peer(req->p); // before a worker gets it, that was done
    return req->p->peer;
}

NETKIT_HTTP_API const nkhttp_header* nkhttp_trailers(nkhttp_req* req, uint32_t* num) {
    *num = req->p->num_trailers;
    return req->p->head.headers + req->p->head.num_headers;
}

NETKIT_HTTP_API int nkhttp_set_header(nkhttp_req* req, const char* name, const char* value) {
    int err = nkhttp_p_answerable(req->p);
    if (err == NKHTTP_OK && (!name || !value)) err = NKHTTP_ERR_HEADER_VALUE; // such as a getenv that found nothing
    return err < 0 ? err : nkhttp_p_add_text(req->p, name, value);
}

NETKIT_HTTP_API int nkhttp_reply_with(nkhttp_req* req, const nkhttp_reply_desc* desc) {
    nkhttp_p_exchange* x = req->p;
    int err = nkhttp_p_answerable(x);
    if (err < 0) {
        NKHTTP_P_LOG(req->server, NKLOOP_LOG_WARN, "request was answered twice, or after it was deferred or detached");
        nkhttp_p_release(desc);
        return err;
    }
    if (x->worker) {
        x->stored = nkhttp_p_op_new(req->server, nkhttp_p_handle(x), NKHTTP_P_OP_REPLY, desc, 0);
        if (!x->stored) err = NKLOOP_ERR_NOMEM;
    } else {
        err = nkhttp_p_reply_now(x, desc);
    }
    if (err < 0) nkhttp_p_release(desc);
    return err;
}

NETKIT_HTTP_API int nkhttp_reply(nkhttp_req* req, int status, const char* content_type, const void* body, size_t n) {
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    d.status = status;
    d.content_type = content_type;
    d.body = body;
    d.body_bytes = n;
    return nkhttp_reply_with(req, &d);
}

NETKIT_HTTP_API int nkhttp_reply_text(nkhttp_req* req, int status, const char* text) {
    return nkhttp_reply(req, status, "text/plain; charset=utf-8", text, text ? strlen(text) : 0);
}

NETKIT_HTTP_API int nkhttp_redirect(nkhttp_req* req, int status, const char* location) {
    int err;
    if (status != 301 && status != 302 && status != 303 && status != 307 && status != 308) return NKLOOP_ERR_INVAL;
    err = nkhttp_set_header(req, "Location", location);
    return err < 0 ? err : nkhttp_reply(req, status, NULL, NULL, 0);
}

NETKIT_HTTP_API int nkhttp_require_basic_auth(nkhttp_req* req, const char* realm,
                                              const char* user_name, const char* password) {
    char buf[1024], challenge[200];
    nkhttp_str user, pass;
    size_t n = realm ? strlen(realm) : 0;
    int ok;
    if (nkhttp_basic_auth(nkhttp_header_value(req, "Authorization"), buf, sizeof buf, &user, &pass) == NKHTTP_OK) {
        ok = nkhttp_equal_secret(user.ptr, user.len, user_name, strlen(user_name));
        // both, always: time must not tell which
        ok &= nkhttp_equal_secret(pass.ptr, pass.len, password, strlen(password));
        if (ok) return 1;
    }
    // it could not be quoted, or could break out of its line
    if (n > 128 || (n && (strpbrk(realm, "\"\\") || !nkhttp_field_ok("x", 1, realm, n)))) n = 0;
    memcpy(challenge, "Basic realm=\"", 13);
    if (n) memcpy(challenge + 13, realm, n);
    memcpy(challenge + 13 + n, "\", charset=\"UTF-8\"", 19);
    nkhttp_set_header(req, "WWW-Authenticate", challenge); // RFC 9110 11.6.1
    nkhttp_reply_text(req, 401, "Unauthorized\n");
    return 0;
}

NETKIT_HTTP_API nkhttp_handle nkhttp_handle_of(nkhttp_req* req) { return nkhttp_p_handle(req->p); }

NETKIT_HTTP_API nkhttp_handle nkhttp_defer(nkhttp_req* req) {
    nkhttp_p_exchange* x = req->p;
    nkhttp_handle none = { 0 };
    if (nkhttp_p_answerable(x) < 0) return none;
    if (x->worker) x->deferring = 1;
    else x->flags |= NKHTTP_P_X_DEFERRED;
    return nkhttp_p_handle(x);
}

// The stream has no protocol until its new owner sets one: the loop keeps the bytes behind the head for it.
NETKIT_HTTP_API nkloop_stream nkhttp_detach(nkhttp_req* req) {
    nkhttp_p_exchange* x = req->p;
    nkhttp_p_conn* c;
    nkloop_stream none = { 0 };
    if (x->worker || nkhttp_p_answerable(x) < 0) return none;
    c = x->conn;
    if (!(x->flags & NKHTTP_P_X_HANDLER) || c->first != x || c->last != x || c->body == x
        || !nkhttp_p_direct(x)) return none;
    x->flags |= NKHTTP_P_X_DETACHED;
    c->flags |= NKHTTP_P_DETACHED | NKHTTP_P_STOP;
    nkloop_set_alarm(req->loop, c->stream, 0);
    if (c->flags & NKHTTP_P_PAUSED) nkloop_pause(req->loop, c->stream, 0); // it waited for its turn
    nkloop_set_proto(req->loop, c->stream, NULL, NULL);
    return c->stream;
}

#ifndef NETKIT_HTTP_NO_FILES
// Like nkhttp_reply_with (desc's status, content_type, headers; its body is not used), but with
// "Content-Length: length" and the body from src. For HEAD: the same head, no pull. On error end_fn
// has been called too. In the loop only.
static int nkhttp_p_reply_pulled(nkhttp_req* req, const nkhttp_reply_desc* desc, uint64_t length,
                                 const nkhttp_p_pull* src) {
    nkhttp_p_exchange* x = req->p;
    nkhttp_p_plan plan;
    nkhttp_reply_desc d = *desc;
    int err = nkhttp_p_answerable(x);
    if (err == NKHTTP_OK && x->worker) err = NKLOOP_ERR_INVAL;
    if (err == NKHTTP_OK && (x->conn->flags & NKHTTP_P_FINISHED)) err = NKHTTP_ERR_STALE;
    d.body = NULL;
    d.body_bytes = 0;
    if (err == NKHTTP_OK) err = nkhttp_p_plan_make(x, &d, length, &plan);
    if (err == NKHTTP_OK) {
        nkhttp_p_plan_keep(x, &plan, 1);
        err = nkhttp_p_emit(x, &plan, NULL, 0, NULL, NULL);
    }
    if (err < 0) {
        src->end_fn(src->self);
        return err;
    }
    nkhttp_p_count_reply(x, plan.status);
    if (nkhttp_p_is_mute(x) || (x->conn->flags & NKHTTP_P_FINISHED)) {
        src->end_fn(src->self);
        nkhttp_p_reply_done(x);
        return NKHTTP_OK;
    }
    x->reply = NKHTTP_P_BEGUN;
    x->reply_left = length;
    x->pull = *src;
    if (nkhttp_p_direct(x)) nkhttp_p_pull_more(x);
    return NKHTTP_OK;
}
#endif // NETKIT_HTTP_NO_FILES

// ---- @sse ------------------------------------------------------------------------------------
// Server-Sent Events: a streamed reply of lines, https://html.spec.whatwg.org/multipage/server-sent-events.html
NETKIT_HTTP_API nkhttp_handle nkhttp_sse_begin(nkhttp_req* req) {
    static const nkhttp_header fields[] = {
        { { "Cache-Control", 13 }, { "no-cache", 8 } },
        { { "X-Accel-Buffering", 17 }, { "no", 2 } }
    };
    nkhttp_handle h = nkhttp_defer(req), none = { 0 };
    nkhttp_p_exchange* x = req->p;
    nkhttp_reply_desc d;
    if (!h.id) return none;
    memset(&d, 0, sizeof d);
    d.content_type = "text/event-stream";
    d.headers = fields;
    d.num_headers = 2;
    if (x->worker) { // kept like a reply: what the loop's thread says with the handle must not overtake it
        x->stored = nkhttp_p_op_new(req->server, h, NKHTTP_P_OP_BEGIN, &d, UINT64_MAX);
        if (x->stored) return h;
        x->deferring = 0; // nobody has the handle: the handler must answer, or 500 does
        return none;
    }
    if (nkhttp_later_begin(req->server, h, &d, UINT64_MAX) == NKHTTP_OK) return h;
    x->flags &= ~(uint32_t)NKHTTP_P_X_DEFERRED;
    return none;
}

static int nkhttp_p_sse_line(nkloop* L, nkhttp_p_buf* out, const char* name, const char* text, size_t n) {
    int err = nkhttp_p_buf_add(L, out, name, strlen(name));
    if (err == NKHTTP_OK) err = nkhttp_p_buf_add(L, out, text, n);
    return err == NKHTTP_OK ? nkhttp_p_buf_add(L, out, "\n", 1) : err;
}

// CR, LF and CRLF all end a line there: every line of data gets its own field.
static int nkhttp_p_sse_data(nkloop* L, nkhttp_p_buf* out, const char* data) {
    int err;
    size_t n;
    for (;;) {
        n = strcspn(data, "\r\n");
        err = nkhttp_p_sse_line(L, out, "data: ", data, n);
        data += n;
        if (err < 0 || !*data) return err;
        data += data[0] == '\r' && data[1] == '\n' ? 2 : 1;
    }
}

NETKIT_HTTP_API int nkhttp_sse_send(nkhttp_server* srv, nkhttp_handle h, const char* event,
                                    const char* id, const char* data) {
    nkhttp_p_buf out = { NULL, 0, 0 };
    int err = NKHTTP_OK;
    if ((event && strpbrk(event, "\r\n")) || (id && strpbrk(id, "\r\n"))) return NKHTTP_ERR_HEADER_VALUE;
    if (event) err = nkhttp_p_sse_line(srv->L, &out, "event: ", event, strlen(event));
    if (err == NKHTTP_OK && id) err = nkhttp_p_sse_line(srv->L, &out, "id: ", id, strlen(id));
    if (err == NKHTTP_OK) err = nkhttp_p_sse_data(srv->L, &out, data ? data : "");
    if (err == NKHTTP_OK) err = nkhttp_p_buf_add(srv->L, &out, "\n", 1);
    if (err == NKHTTP_OK) err = nkhttp_later_write(srv, h, out.ptr, out.len);
    nkhttp_p_buf_drop(srv->L, &out, 0);
    return err;
}

// ---- @order ----------------------------------------------------------------------------------
// The list of open requests of a connection, what keeps them when the loop's buffer moves on, and how each one ends.
static void nkhttp_p_settle(nkhttp_p_exchange* x);

static void nkhttp_p_log_request(nkhttp_p_exchange* x, int err) {
    nkhttp_server* srv = x->req.server;
    const nkhttp_head* head = x->req.head;
    nkhttp_log_entry e;
    if (!srv->desc.on_log) return;
    memset(&e, 0, sizeof e);
    nkhttp_p_fill_peer(x);
    e.peer = x->peer;
    e.method = e.target = e.host = e.user_agent = e.referer = nkhttp_p_str("", 0);
    if (head && !(x->flags & NKHTTP_P_X_BROKEN)) {
        e.method = head->method;
        e.target = head->target;
        e.host = head->host;
        e.user_agent = nkhttp_value(head, "User-Agent");
        e.referer = nkhttp_value(head, "Referer");
        e.minor_version = head->minor_version;
    }
    e.status = x->status;
    e.error = err;
    e.bytes_in = x->bytes_in;
    e.bytes_out = x->bytes_out;
    e.duration_ns = nkloop_now_ns(srv->L) - x->start_ns;
    srv->desc.on_log(srv->desc.user, &e);
}

static void nkhttp_p_ops_drop(nkhttp_p_exchange* x) {
    nkhttp_p_op* op;
    if (x->stored) nkhttp_p_op_drop(x->stored);
    x->stored = NULL;
    while ((op = x->pending) != NULL) {
        x->pending = op->next;
        nkhttp_p_op_drop(op);
    }
}

// The last thing that happens to an exchange. It is in no list any more; its handle is stale from here on.
static void nkhttp_p_end(nkhttp_p_exchange* x, int why) {
    nkhttp_server* srv = x->req.server;
    nkhttp_handle h = nkhttp_p_handle(x);
    nkhttp_p_log_request(x, why);
    x->conn = NULL;
    x->req.head = NULL;
    x->req.body = NULL;
    x->req.body_bytes = 0;
    srv->stats.bytes_out += x->bytes_out;
    srv->stats.buffered_bytes -= x->queued + x->charged;
    x->queued = x->charged = 0;
    if (x->out_first) nkhttp_p_blocks_end(&x->out_first);
    if (x->pull.pull_fn) nkhttp_p_pull_drop(x);
    if (x->codec) nkhttp_p_codec_drop(x);
    if (x->stored || x->pending) nkhttp_p_ops_drop(x);
    if ((x->flags & NKHTTP_P_X_REACHED) && x->endpoint->desc.on_end) {
        x->endpoint->desc.on_end(x->endpoint->desc.user, &x->req, why);
    }
    if (x->on_gone) x->on_gone(x->watch_user, h, why);
    srv->stats.open_requests--;
    nkhttp_p_exchange_put(srv, x);
}

static void nkhttp_p_link(nkhttp_p_conn* c, nkhttp_p_exchange* x) {
    x->conn = c;
    if (c->last) c->last->next = x;
    else c->first = x;
    c->last = x;
    c->num_open++;
    c->srv->stats.open_requests++;
    if (c->srv->desc.on_log) x->start_ns = c->seen ? c->mark_ns : nkloop_now_ns(c->srv->L);
}

static void nkhttp_p_unlink_first(nkhttp_p_conn* c) {
    nkhttp_p_exchange* x = c->first;
    c->first = x->next;
    if (!c->first) c->last = NULL;
    if (c->body == x) c->body = NULL;
    x->next = NULL;
    c->num_open--;
}

// All is said on this connection: half-close, let the client read it, close.
static void nkhttp_p_finish(nkhttp_p_conn* c) {
    if (c->flags & NKHTTP_P_FINISHED) return;
    c->flags |= NKHTTP_P_FINISHED | NKHTTP_P_STOP;
    c->flags &= (uint16_t)~NKHTTP_P_PAUSED;
    nkhttp_p_arm_in(c, c->srv->desc.write_timeout_ms);
    nkloop_finish(c->srv->L, c->stream);
}

static void nkhttp_p_update_pause(nkhttp_p_conn* c) {
    nkhttp_p_exchange* body = c->body;
    int want;
    if ((c->flags & NKHTTP_P_BLOCKED) && c->num_open < c->srv->desc.max_pipeline && !(c->flags & NKHTTP_P_FULL)
        && !(c->last && (c->last->flags & NKHTTP_P_X_HELD))) {
        c->flags &= (uint16_t)~NKHTTP_P_BLOCKED;
    }
    want = (c->flags & NKHTTP_P_BLOCKED) || (body
                         && (body->flags & (NKHTTP_P_X_PAUSED | NKHTTP_P_X_DISCARD)) == NKHTTP_P_X_PAUSED);
    if (!want == !(c->flags & NKHTTP_P_PAUSED)) return;
    c->flags ^= NKHTTP_P_PAUSED;
    nkloop_pause(c->srv->L, c->stream, want);
}

// Requests wait unread until there is room for them.
static size_t nkhttp_p_block_reading(nkhttp_p_conn* c) {
    c->flags |= NKHTTP_P_BLOCKED;
    nkhttp_p_update_pause(c);
    if (c->flags & NKHTTP_P_FULL) nkhttp_p_arm_in(c, c->srv->desc.write_timeout_ms);
    return 0;
}

// RFC 9110 10.1.1: the client waits with its body; said only in its turn, and not while the
// application will not take it.
static void nkhttp_p_say_continue(nkhttp_p_exchange* x) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    nkhttp_p_conn* c = x->conn;
    int r;
    if (x->reply != NKHTTP_P_NONE || c->body != x) return;
    if ((x->flags & NKHTTP_P_X_PAUSED) || (c->flags & NKHTTP_P_FULL)) return;
    r = nkloop_write(c->srv->L, c->stream, text, sizeof text - 1);
    if (r == NKLOOP_ERR_FULL) { // a large reply goes first: again on drain
        c->flags |= NKHTTP_P_FULL;
        nkhttp_p_arm_in(c, c->srv->desc.write_timeout_ms);
        return;
    }
    x->flags &= ~(uint32_t)NKHTTP_P_X_CONTINUE;
    if (r < 0) nkhttp_p_conn_cut(c);
    else c->written += sizeof text - 1;
}

// Slices of the head and of the parameters follow the head into memory of our own.
static int nkhttp_p_own_head(nkhttp_p_exchange* x) {
    size_t n = x->head.head_bytes;
    uint32_t i;
    if (x->flags & (NKHTTP_P_X_OWN_HEAD | NKHTTP_P_X_BROKEN)) return NKHTTP_OK;
    x->copy.len = 0;
    if (nkhttp_p_buf_add(x->req.loop, &x->copy, x->base, n) < 0) return NKLOOP_ERR_NOMEM;
    for (i = 0; i < x->num_params; i++) {
        nkhttp_str* v = &x->match.params[i].value;
        if (v->len) v->ptr = x->copy.ptr + (v->ptr - x->base);
    }
    nkhttp_head_rebase(&x->head, x->base, x->copy.ptr);
    x->base = x->copy.ptr;
    x->flags |= NKHTTP_P_X_OWN_HEAD;
    return NKHTTP_OK;
}

// A body that lies in the loop's buffer has to outlive this call.
static int nkhttp_p_own_body(nkhttp_p_exchange* x) {
    if (!x->req.body || x->req.body == (const uint8_t*)x->body.ptr) return NKHTTP_OK;
    if (nkhttp_p_over_budget(x->req.server, x->req.body_bytes)) return NKLOOP_ERR_NOMEM;
    x->body.len = 0;
    if (nkhttp_p_buf_add(x->req.loop, &x->body, x->req.body, x->req.body_bytes) < 0) return NKLOOP_ERR_NOMEM;
    x->charged += x->req.body_bytes;
    x->req.server->stats.buffered_bytes += x->req.body_bytes;
    x->req.body = (const uint8_t*)x->body.ptr;
    return NKHTTP_OK;
}

#ifndef NETKIT_HTTP_NO_WORKERS
// ---- @workers --------------------------------------------------------------------------------
// Handlers on the pool. While NKHTTP_P_X_RUNNING is set the worker owns the request, its fields and
// its stored reply; the loop owns everything else, and waits for done().
static void nkhttp_p_work_run(void* user) {
    nkhttp_p_exchange* x = (nkhttp_p_exchange*)user;
    x->endpoint->desc.on_request(x->endpoint->desc.user, &x->req);
}

static void nkhttp_p_work_done(void* user) {
    nkhttp_p_exchange* x = (nkhttp_p_exchange*)user;
    nkhttp_p_op* op;
    x->flags &= ~(uint32_t)NKHTTP_P_X_RUNNING;
    x->worker = 0;
    if (!x->conn) { // the client vanished, or was told 503
        nkhttp_p_end(x, x->err);
        return;
    }
    if (x->deferring) x->flags |= NKHTTP_P_X_DEFERRED;
    x->flags |= NKHTTP_P_X_HANDLER; // as if the handler had run here: nothing is settled before its last call
    op = x->stored;
    x->stored = NULL;
    if (op) nkhttp_p_op_run(x, op);
    while ((op = x->pending) != NULL) {
        x->pending = op->next;
        nkhttp_p_op_run(x, op);
    }
    x->flags &= ~(uint32_t)NKHTTP_P_X_HANDLER;
    nkhttp_p_settle(x);
}

static void nkhttp_p_submit(nkhttp_p_exchange* x) {
    nkhttp_server* srv = x->req.server;
    if (nkhttp_p_own_head(x) < 0 || nkhttp_p_own_body(x) < 0) {
        nkhttp_p_reply_error(x, 503, "Out of memory.");
        nkhttp_p_settle(x);
        return;
    }
    nkhttp_p_fill_peer(x);
    x->flags |= NKHTTP_P_X_RUNNING;
    x->worker = 1;
    if (srv->desc.handler_timeout_ms != UINT32_MAX) nkhttp_p_arm_in(x->conn, srv->desc.handler_timeout_ms);
    x->job.run = nkhttp_p_work_run;
    x->job.done = nkhttp_p_work_done;
    x->job.user = x;
    nkloop_pool_submit(srv->pool, &x->job);
}
#endif // NETKIT_HTTP_NO_WORKERS

// ---- @dispatch -------------------------------------------------------------------------------
// A complete request and its handler: what is answered for the application, what goes to it, and
// what becomes of it then.

// Copied only when something will still look at the head after the loop's buffer has moved on.
static void nkhttp_p_keep_head(nkhttp_p_exchange* x) {
    if (x->flags & NKHTTP_P_X_OWN_HEAD) return;
    if (!x->req.server->desc.on_log || nkhttp_p_own_head(x) < 0) x->req.head = NULL;
}

static void nkhttp_p_conn_gone(nkhttp_p_conn* c);

// The stream has a new owner.
static void nkhttp_p_let_go(nkhttp_p_exchange* x) {
    nkhttp_p_conn* c = x->conn;
    x->status = 101;
    nkhttp_p_unlink_first(c);
    nkhttp_p_end(x, NKHTTP_OK);
    nkhttp_p_conn_gone(c);
}

// After a handler has returned.
static void nkhttp_p_settle(nkhttp_p_exchange* x) {
    nkhttp_p_conn* c = x->conn;
    if (x->flags & NKHTTP_P_X_DETACHED) { nkhttp_p_let_go(x); return; }
    if (x->reply == NKHTTP_P_NONE && !(x->flags & NKHTTP_P_X_DEFERRED)) {
        NKHTTP_P_LOG(c->srv, NKLOOP_LOG_WARN, "a handler returned without an answer: 500 was sent");
        nkhttp_p_reply_error(x, 500, "No answer was given.");
    }
    // a connection that was cut keeps the request until on_close
    if (x->reply != NKHTTP_P_DONE || c->first != x || x->out_first || (c->flags & NKHTTP_P_FINISHED)) {
        nkhttp_p_keep_head(x);
    }
    if (x->reply == NKHTTP_P_NONE) nkhttp_p_arm_in(c, c->srv->desc.handler_timeout_ms);
    nkhttp_p_advance(c);
}

static void nkhttp_p_verdict(nkhttp_p_exchange* x) {
    nkhttp_reply_desc d;
    if (x->verdict == 204) {
        memset(&d, 0, sizeof d);
        d.status = 204;
        if (nkhttp_p_reply_now(x, &d) < 0) nkhttp_p_reply_error(x, 503, "Out of memory.");
    } else {
        if (x->verdict == 413) x->err = NKHTTP_ERR_BODY_TOO_LARGE;
        nkhttp_p_reply_error(x, x->verdict, nkhttp_reason(x->verdict));
    }
    if (x->conn->first != x || x->out_first || x->conn->body == x
        || (x->conn->flags & NKHTTP_P_FINISHED)) nkhttp_p_keep_head(x);
    nkhttp_p_advance(x->conn);
}

// Must wait until the replies before it are out: an upgrade takes the stream with it.
static void nkhttp_p_hold(nkhttp_p_exchange* x) {
    if (nkhttp_p_own_head(x) < 0 || nkhttp_p_own_body(x) < 0) {
        x->verdict = 503;
        nkhttp_p_verdict(x);
        return;
    }
    x->flags |= NKHTTP_P_X_HELD;
    nkhttp_p_block_reading(x->conn);
}

// 1: the request has been taken care of.
static int nkhttp_p_try_upgrade(nkhttp_p_exchange* x) {
    nkhttp_server* srv = x->req.server;
    if (x->conn->first != x || !nkhttp_p_direct(x)) {
        nkhttp_p_hold(x);
        return 1;
    }
    x->flags &= ~(uint32_t)NKHTTP_P_X_UPGRADE;
    x->flags |= NKHTTP_P_X_HANDLER;
    srv->desc.on_upgrade(srv->desc.user, &x->req);
    x->flags &= ~(uint32_t)NKHTTP_P_X_HANDLER;
    if (x->reply == NKHTTP_P_NONE && !(x->flags & (NKHTTP_P_X_DEFERRED | NKHTTP_P_X_DETACHED))) return 0;
    nkhttp_p_settle(x);
    return 1;
}

// The request is complete.
static void nkhttp_p_dispatch(nkhttp_p_exchange* x) {
    const nkhttp_p_endpoint* ep = x->endpoint;
    nkhttp_server* srv = x->req.server;
    // a path of which only on_upgrade knows needs no route
    if ((x->flags & NKHTTP_P_X_UPGRADE) && (ep || x->verdict == 404) && nkhttp_p_try_upgrade(x)) return;
    if (!ep) { nkhttp_p_verdict(x); return; }
    x->flags |= NKHTTP_P_X_READY | NKHTTP_P_X_REACHED;
    if (srv->desc.handler_timeout_ms != UINT32_MAX) x->ready_ns = nkloop_now_ns(srv->L);
#ifndef NETKIT_HTTP_NO_WORKERS
    if (srv->pool && !ep->desc.in_loop && !(x->flags & NKHTTP_P_X_STREAMED) && ep->desc.on_request) {
        nkhttp_p_submit(x);
        return;
    }
#endif
    x->flags |= NKHTTP_P_X_HANDLER;
    if (ep->desc.on_request) ep->desc.on_request(ep->desc.user, &x->req);
    x->flags &= ~(uint32_t)NKHTTP_P_X_HANDLER;
    nkhttp_p_settle(x);
}

static void nkhttp_p_route_verdict(nkhttp_p_exchange* x, int err, int cors) {
    nkhttp_server* srv = x->req.server;
    char allow[512];
    int options = x->head.method_id == NKHTTP_OPTIONS;
    x->verdict = err == NKHTTP_ERR_NO_METHOD ? 405 : err == NKHTTP_ERR_NO_ROUTE ? 404 : 400;
    x->endpoint = NULL;
    if (err != NKHTTP_ERR_NO_METHOD) return;
    if (nkhttp_router_allow(&srv->router, x->match.allowed, allow, sizeof allow) < 0) return;
    if (nkhttp_p_add_text(x, "Allow", allow) < 0) { // RFC 9110 15.5.6, 9.3.7: never without it
        x->verdict = 503;
        return;
    }
    if (options) x->verdict = 204;
    if (options && cors && nkhttp_find(&x->head, "Access-Control-Request-Method")) nkhttp_p_preflight(x, allow);
}

static void nkhttp_p_refuse_with_allow(nkhttp_p_exchange* x, int status) {
    static const char usual[] = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";
    x->endpoint = NULL;
    x->verdict = nkhttp_p_add_text(x, "Allow", usual) < 0 ? 503 : status;
    if (status == 204 && nkhttp_find(&x->head, "Access-Control-Request-Method")) nkhttp_p_preflight(x, usual);
}

// What is decided before the body: who answers, or with which status we do.
static void nkhttp_p_choose_policy(nkhttp_p_exchange* x) {
    nkhttp_server* srv = x->req.server;
    nkhttp_head* h = &x->head;
    int cors, err = NKHTTP_ERR_NO_ROUTE;
    if (h->method_id == NKHTTP_CONNECT || h->method_id == NKHTTP_TRACE) { // no tunnel, and no echo of cookies
        // what follows may be meant for the tunnel
        if (h->method_id == NKHTTP_CONNECT) x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
        nkhttp_p_refuse_with_allow(x, 405);
        return;
    }
    if (srv->hosts && !nkhttp_host_ok(h->host, srv->hosts)) { // RFC 9110 15.5.20
        x->endpoint = NULL;
        x->verdict = 421;
        return;
    }
    cors = srv->origins ? nkhttp_p_cors(x) : 0;
    if (h->path.len == 1 && h->path.ptr[0] == '*') { nkhttp_p_refuse_with_allow(x, 204); return; } // RFC 9110 9.3.7
    if (srv->num_routes) err = nkhttp_router_match(&srv->router, h->method.ptr, h->method.len,
                                                   h->path.ptr, h->path.len, &x->match);
    if (err == NKHTTP_OK) {
        x->endpoint = (const nkhttp_p_endpoint*)x->match.value;
        x->num_params = x->match.num_params;
    } else if (err != NKHTTP_ERR_NO_ROUTE || !srv->fallback.desc.on_request) {
        nkhttp_p_route_verdict(x, err, cors);
        return;
    }
    if (cors && h->method_id == NKHTTP_OPTIONS && nkhttp_find(h, "Access-Control-Request-Method"))
        nkhttp_p_refuse_with_allow(x, 204);
    if (srv->desc.require_length && !(h->flags & (NKHTTP_HAS_LENGTH | NKHTTP_CHUNKED))
        && (h->method_id == NKHTTP_POST || h->method_id == NKHTTP_PUT || h->method_id == NKHTTP_PATCH)) {
        x->endpoint = NULL;
        x->verdict = 411;
    }
}

static void nkhttp_p_choose(nkhttp_p_exchange* x) {
    nkhttp_server* srv = x->req.server;
    x->endpoint = &srv->fallback;
    if (srv->choosy || srv->num_routes || x->head.method_id >= NKHTTP_OPTIONS) {
        nkhttp_p_choose_policy(x);
    } else if (!srv->fallback.desc.on_request) {
        x->endpoint = NULL;
        x->verdict = 404;
    }
}

// ---- @bodies ---------------------------------------------------------------------------------
// Request bodies: buffered, streamed to a route, or read and thrown away.
static uint64_t nkhttp_p_max_body(const nkhttp_p_exchange* x) {
    uint64_t most = x->endpoint ? x->endpoint->desc.max_body_bytes : 0;
    return most ? most : x->req.server->desc.max_body_bytes;
}

// The body cannot be taken: answer if that is still possible, and close.
static void nkhttp_p_fail_body(nkhttp_p_exchange* x, int status, int err) {
    nkhttp_p_conn* c = x->conn;
    x->err = err;
    x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
    c->flags |= NKHTTP_P_STOP;
    if (c->body == x) c->body = NULL;
    if (x->reply == NKHTTP_P_NONE) nkhttp_p_reply_error(x, status, err < 0
                                                        ? nkhttp_strerror(err) : nkhttp_reason(status));
    else if (x->reply == NKHTTP_P_BEGUN) nkhttp_p_conn_cut(c);
    nkhttp_p_advance(c);
}

static int nkhttp_p_stream_body(nkhttp_p_exchange* x, const uint8_t* p, size_t n) {
    nkhttp_p_conn* c = x->conn;
    const nkhttp_route_desc* route = &x->endpoint->desc;
    int r = 0;
    x->flags |= NKHTTP_P_X_HANDLER;
    if (route->on_body) r = route->on_body(route->user, &x->req, p, n);
    x->flags &= ~(uint32_t)NKHTTP_P_X_HANDLER;
    if (r < 0) {
        nkhttp_p_fail_body(x, 500, 0);
        return -1;
    }
    if (x->reply != NKHTTP_P_NONE) nkhttp_p_advance(c);
    return 0;
}

static int nkhttp_p_buffer_body(nkhttp_p_exchange* x, const uint8_t* p, size_t n) {
    nkhttp_server* srv = x->req.server;
    size_t first = n;
    if (nkhttp_p_over_budget(srv, n)) {
        nkhttp_p_fail_body(x, 503, NKLOOP_ERR_NOMEM);
        return -1;
    }
    // Never what Content-Length promises: memory follows bytes.
    if (!x->body.len && (x->flags & NKHTTP_P_X_LENGTH)) first = x->body_left < NKHTTP_P_STEP
        ? n + (size_t)x->body_left : n + NKHTTP_P_STEP;
    if (nkhttp_p_buf_room(srv->L, &x->body, first) < 0 || nkhttp_p_buf_add(srv->L, &x->body, p, n) < 0) {
        nkhttp_p_fail_body(x, 503, NKLOOP_ERR_NOMEM);
        return -1;
    }
    x->charged += n;
    srv->stats.buffered_bytes += n;
    return 0;
}

// n more bytes of the body. < 0: the exchange has failed, or has ended.
static int nkhttp_p_take_body(nkhttp_p_exchange* x, const uint8_t* p, size_t n) {
    nkhttp_p_conn* c = x->conn;
    x->bytes_in += n;
    if (x->flags & NKHTTP_P_X_DISCARD) {
        x->drained += n;
        if (x->drained <= c->srv->desc.drain_bytes) return 0;
        x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP; // it said that the connection stays, but this is too much
        c->flags |= NKHTTP_P_STOP;
        c->body = NULL;
        nkhttp_p_advance(c);
        return -1;
    }
    if (x->bytes_in > nkhttp_p_max_body(x)) {
        nkhttp_p_fail_body(x, 413, NKHTTP_ERR_BODY_TOO_LARGE);
        return -1;
    }
    return x->flags & NKHTTP_P_X_STREAMED ? nkhttp_p_stream_body(x, p, n) : nkhttp_p_buffer_body(x, p, n);
}

// Trailer lines were collected; now they become fields behind those of the head.
static void nkhttp_p_make_trailers(nkhttp_p_exchange* x) {
    const char* at = x->tail.ptr;
    const char* end = at + x->tail.len;
    nkhttp_header* out = x->head.headers + x->head.num_headers;
    while (at < end && x->head.num_headers + x->num_trailers < x->head.max_headers) {
        const char* lf = (const char*)memchr(at, '\n', (size_t)(end - at));
        out[x->num_trailers++] = nkhttp_trailer(nkhttp_p_str(at, (size_t)(lf - at)));
        at = lf + 1;
    }
}

static int nkhttp_p_save_trailer(nkhttp_p_exchange* x, nkhttp_str line) {
    if (nkhttp_p_buf_add(x->req.loop, &x->tail, line.ptr, line.len) < 0) return NKLOOP_ERR_NOMEM;
    return nkhttp_p_buf_add(x->req.loop, &x->tail, "\n", 1);
}

// Decodes in place: the body's bytes move together at p, *len of them. NKHTTP_CHUNK_MORE, _DONE or an error.
static int nkhttp_p_dechunk(nkhttp_p_exchange* x, uint8_t* p, size_t n, size_t* used, size_t* len) {
    nkhttp_str data;
    size_t u;
    int r;
    *used = *len = 0;
    for (;;) {
        r = nkhttp_chunked_next(&x->chunked, (const char*)p + *used, n - *used, &u, &data);
        if (r == NKHTTP_CHUNK_DATA) {
            memmove(p + *len, data.ptr, data.len);
            *len += data.len;
        } else if (r == NKHTTP_CHUNK_TRAILER) {
            if (nkhttp_p_save_trailer(x, data) < 0) return NKLOOP_ERR_NOMEM;
        }
        if (r >= 0) *used += u;
        if (r != NKHTTP_CHUNK_DATA && r != NKHTTP_CHUNK_TRAILER) return r;
    }
}

static void nkhttp_p_body_done(nkhttp_p_exchange* x) {
    nkhttp_p_conn* c = x->conn;
    c->body = NULL;
    c->flags |= NKHTTP_P_CRLF;
    if (x->flags & NKHTTP_P_X_DISCARD || x->reply == NKHTTP_P_DONE) { nkhttp_p_advance(c); return; }
    if (x->tail.len) nkhttp_p_make_trailers(x);
    if (x->body.len) {
        x->req.body = (const uint8_t*)x->body.ptr;
        x->req.body_bytes = x->body.len;
    }
    nkhttp_p_dispatch(x);
}

static size_t nkhttp_p_feed_body(nkhttp_p_conn* c, uint8_t* p, size_t n) {
    nkhttp_p_exchange* x = c->body;
    size_t used, len;
    int r;
    if ((x->flags & (NKHTTP_P_X_PAUSED | NKHTTP_P_X_DISCARD)) == NKHTTP_P_X_PAUSED) {
        nkhttp_p_update_pause(c);
        return 0;
    }
    x->flags &= ~(uint32_t)NKHTTP_P_X_CONTINUE; // it did not wait
    if (x->flags & NKHTTP_P_X_LENGTH) {
        used = x->body_left < n ? (size_t)x->body_left : n;
        x->body_left -= used;
        if (nkhttp_p_take_body(x, p, used) < 0 || c->body != x) return used;
        if (x->body_left == 0) nkhttp_p_body_done(x);
        return used;
    }
    r = nkhttp_p_dechunk(x, p, n, &used, &len);
    if (len && (nkhttp_p_take_body(x, p, len) < 0 || c->body != x)) return used;
    if (r == NKHTTP_CHUNK_DONE) nkhttp_p_body_done(x);
    else if (r < 0) nkhttp_p_fail_body(x, nkhttp_status_of(r), r);
    return r < 0 ? n : used;
}

// The body is not here yet, at least not all of it.
static void nkhttp_p_await_body(nkhttp_p_exchange* x, int some_here) {
    nkhttp_p_conn* c = x->conn;
    c->body = x;
    x->body_ns = nkloop_now_ns(c->srv->L);
    x->body_base = 0;
    if ((x->head.flags & NKHTTP_EXPECT_CONTINUE) && !some_here) x->flags |= NKHTTP_P_X_CONTINUE;
    nkhttp_p_arm_in(c, c->srv->desc.body_timeout_ms);
}

static void nkhttp_p_begin_streamed(nkhttp_p_exchange* x, size_t n) {
    const nkhttp_route_desc* route = &x->endpoint->desc;
    x->flags |= NKHTTP_P_X_STREAMED | NKHTTP_P_X_REACHED | NKHTTP_P_X_HANDLER;
    nkhttp_p_await_body(x, n > 0);
    if (route->on_begin) route->on_begin(route->user, &x->req);
    x->flags &= ~(uint32_t)NKHTTP_P_X_HANDLER;
    if (x->flags & NKHTTP_P_X_PAUSED) nkhttp_p_update_pause(x->conn);
    nkhttp_p_advance(x->conn); // says "100 Continue", or goes on after a refusal
}

// A body follows the head; n bytes of what follows are here. Returns how many of them were used up.
static size_t nkhttp_p_begin_body(nkhttp_p_conn* c, nkhttp_p_exchange* x, uint8_t* p, size_t n) {
    const nkhttp_p_endpoint* ep = x->endpoint;
    uint64_t length = x->head.content_length;
    size_t used = 0, len = 0;
    int r = NKHTTP_CHUNK_MORE, chunked = (x->head.flags & NKHTTP_CHUNKED) != 0;
    x->flags |= chunked ? NKHTTP_P_X_CHUNKED : NKHTTP_P_X_LENGTH;
    x->body_left = chunked ? 0 : length;
    if (chunked) memset(&x->chunked, 0, sizeof x->chunked);
    if (ep && !chunked && length > nkhttp_p_max_body(x)) { // before any byte of it
        x->endpoint = NULL;
        x->verdict = 413;
    }
    if (!x->endpoint) {
        nkhttp_p_await_body(x, n > 0);
        nkhttp_p_verdict(x);
        return 0;
    }
    if (ep->desc.on_begin || ep->desc.on_body) {
        if (nkhttp_p_own_head(x) < 0) { nkhttp_p_fail_body(x, 503, NKLOOP_ERR_NOMEM); return 0; }
        nkhttp_p_begin_streamed(x, n);
        return 0;
    }
    if (chunked) r = nkhttp_p_dechunk(x, p, n, &used, &len);
    else if (n >= length) { r = NKHTTP_CHUNK_DONE; used = len = (size_t)length; }
    if (r == NKHTTP_CHUNK_DONE && len <= nkhttp_p_max_body(x)) { // all here: the handler reads it where it lies
        x->bytes_in = len;
        x->req.body = len ? p : NULL;
        x->req.body_bytes = len;
        if (x->tail.len) nkhttp_p_make_trailers(x);
        c->flags |= NKHTTP_P_CRLF;
        nkhttp_p_dispatch(x);
        return used;
    }
    if (r < 0) { nkhttp_p_fail_body(x, nkhttp_status_of(r), r); return n; }
    if (nkhttp_p_own_head(x) < 0) { nkhttp_p_fail_body(x, 503, NKLOOP_ERR_NOMEM); return n; }
    nkhttp_p_await_body(x, n > 0);
    if (len && nkhttp_p_take_body(x, p, len) < 0) return n;
    if (r == NKHTTP_CHUNK_DONE) nkhttp_p_body_done(x);
    else if (c->first == x && (x->flags & NKHTTP_P_X_CONTINUE)) nkhttp_p_say_continue(x);
    return used;
}

// ---- @conn -----------------------------------------------------------------------------------
// The life of a connection: heads in, replies out in order, deadlines, the end.
static void nkhttp_p_check_stopped(nkhttp_server* srv);
static void nkhttp_p_accept_more(nkhttp_server* srv);

static void nkhttp_p_conn_gone(nkhttp_p_conn* c) {
    nkhttp_server* srv = c->srv;
    nkloop_stats st;
    if (c->prev) c->prev->next = c->next;
    else srv->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    nkhttp_p_addr_leave(c);
    if (c->proxied) nkhttp_p_block_free(c->proxied);
    c->proxied = NULL;
    nkhttp_p_conns_reclaim(srv);
    c->next = srv->limbo;
    srv->limbo = c;
    nkloop_get_stats(srv->L, &st);
    srv->limbo_turn = st.turns;
    srv->stats.open_connections--;
    if (srv->accept_paused) nkhttp_p_accept_more(srv);
    if (srv->stopping) nkhttp_p_check_stopped(srv);
}

// Nothing is under way.
static void nkhttp_p_rest(nkhttp_p_conn* c) {
    nkhttp_server* srv = c->srv;
    c->mark_ns = nkloop_now_ns(srv->L);
    if (srv->stopping || ((c->flags & NKHTTP_P_EOF) && !(c->flags & NKHTTP_P_BLOCKED))) nkhttp_p_finish(c);
    else nkhttp_p_arm_in(c, srv->desc.idle_timeout_ms);
}

// Whatever has become possible: the first request's bytes go out, finished requests leave, the next
// one takes its turn.
// Callbacks may come back in here; nothing is held across them but c, which lives until on_close.
static void nkhttp_p_advance(nkhttp_p_conn* c) {
    nkhttp_p_exchange* x;
    int keep;
    while ((x = c->first) != NULL && !(c->flags & (NKHTTP_P_FINISHED | NKHTTP_P_DETACHED))) {
        if ((x->out_first || x->pull.pull_fn) && !nkhttp_p_drain(x)) return;
        if ((x->flags & NKHTTP_P_X_WRITABLE) && !(c->flags & NKHTTP_P_FULL)) {
            x->flags &= ~(uint32_t)NKHTTP_P_X_WRITABLE;
            if (x->on_writable && x->reply == NKHTTP_P_BEGUN) { x->on_writable(x->watch_user,
                nkhttp_p_handle(x)); continue; }
        }
        if (x->flags & NKHTTP_P_X_HELD) {
            x->flags &= ~(uint32_t)NKHTTP_P_X_HELD;
            nkhttp_p_dispatch(x); // comes back here when it is done
            return;
        }
        if (x->flags & NKHTTP_P_X_CONTINUE) nkhttp_p_say_continue(x);
        if (x->reply != NKHTTP_P_DONE || (x->flags & NKHTTP_P_X_HANDLER) || c->body == x) break;
        keep = (x->flags & NKHTTP_P_X_KEEP) != 0;
        nkhttp_p_unlink_first(c);
        if (!keep) nkhttp_p_finish(c);
        if (x->flags & NKHTTP_P_X_RUNNING) x->conn = NULL; // was told 503; ends when the worker lets go of it
        else nkhttp_p_end(x, x->err);
    }
    if (c->flags & (NKHTTP_P_FINISHED | NKHTTP_P_DETACHED)) return;
    if ((c->flags & (NKHTTP_P_BLOCKED | NKHTTP_P_PAUSED)) || c->body) nkhttp_p_update_pause(c);
    if (!c->first) nkhttp_p_rest(c);
}

// A reply of our own to bytes that are no request, or that came too late.
static void nkhttp_p_refuse(nkhttp_p_conn* c, nkhttp_p_exchange* x, int status, int err) {
    if (!x) {
        x = nkhttp_p_exchange_take(c->srv);
        if (!x) { nkhttp_p_conn_cut(c); return; }
        nkhttp_p_link(c, x);
    }
    x->flags |= NKHTTP_P_X_BROKEN;
    x->err = err;
    c->flags |= NKHTTP_P_STOP;
    nkhttp_p_reply_error(x, status, err < 0 ? nkhttp_strerror(err) : nkhttp_reason(status));
    nkhttp_p_advance(c);
}

// The head is not complete. Remembers what was seen, so that a slow sender does not make us parse it again and again.
static size_t nkhttp_p_head_incomplete(nkhttp_p_conn* c, const uint8_t* p, size_t n) {
    size_t i = 0;
    if (!c->seen) {
        c->mark_ns = nkloop_now_ns(c->srv->L);
        nkhttp_p_arm_in(c, c->srv->desc.head_timeout_ms); // from the first byte, whatever comes after it
    }
    while (i < n && (p[i] == '\r' || p[i] == '\n')) i++; // RFC 9112 2.2: empty lines before the request line
    if (i < n && memchr(p + i, '\n', n - i)) c->flags |= NKHTTP_P_LINE;
    c->seen = (uint32_t)n;
    return 0;
}

static size_t nkhttp_p_feed_proxy(nkhttp_p_conn* c, const uint8_t* p, size_t n) {
    nkhttp_proxy proxy;
    char* text;
    int r = nkhttp_parse_proxy((const char*)p, n, &proxy);
    if (r == 0) return nkhttp_p_head_incomplete(c, p, n);
    if (r > 0 && !proxy.is_unknown) {
        c->proxied = nkhttp_p_block_new(c->srv->L, 64);
        if (c->proxied) {
            text = nkhttp_p_block_bytes(c->proxied);
            if (strchr(proxy.src_addr, ':')) *text++ = '[';
            text = nkhttp_p_put(text, proxy.src_addr, strlen(proxy.src_addr));
            if (strchr(proxy.src_addr, ':')) *text++ = ']';
            *text++ = ':';
            text[nkhttp_p_u64(text, proxy.src_port)] = 0;
        }
    }
    if (r < 0 || (!proxy.is_unknown && !c->proxied)) { nkhttp_p_conn_cut(c); return n; }
    c->seen = 0;
    c->flags &= (uint16_t)~(NKHTTP_P_PROXY | NKHTTP_P_LINE);
    c->mark_ns = nkloop_now_ns(c->srv->L);
    if (nkhttp_p_addr_enter(c) < 0) {
        c->srv->stats.refused++;
        nkhttp_p_refuse(c, NULL, 503, 0);
    }
    return (size_t)r;
}

// Both times wrap after 49 days, their difference does not matter then: a connection that old is long over its time.
static uint32_t nkhttp_p_age_ms(const nkhttp_p_conn* c) {
    return (uint32_t)((nkloop_now_ns(c->srv->L) - c->srv->start_ns) / 1000000u) - c->opened_ms;
}

// A head is complete. Returns how much was used up, body included if it was here.
static size_t nkhttp_p_begin(nkhttp_p_conn* c, nkhttp_p_exchange* x, uint8_t* p, size_t n) {
    nkhttp_server* srv = c->srv;
    const nkhttp_head* head = &x->head;
    size_t used = head->head_bytes;
    x->base = (const char*)p;
    x->req.head = head;
    if (head->flags & NKHTTP_KEEP_ALIVE) x->flags |= NKHTTP_P_X_KEEP;
    if (head->method_id == NKHTTP_HEAD) x->flags |= NKHTTP_P_X_HEAD;
    if (head->minor_version == 0) x->flags |= NKHTTP_P_X_10;
    if ((head->flags & NKHTTP_UPGRADE) && srv->desc.on_upgrade) x->flags |= NKHTTP_P_X_UPGRADE;
    srv->stats.requests++;
    if (++c->requests >= srv->desc.max_requests_per_connection
        && srv->desc.max_requests_per_connection != UINT32_MAX) {
        x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
    }
    if (srv->desc.connection_ttl_ms != UINT32_MAX
        && nkhttp_p_age_ms(c) >= srv->desc.connection_ttl_ms) {
        x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
    }
    if (srv->desc.codec
        && nkhttp_accepts_encoding(nkhttp_value(head, "Accept-Encoding"), srv->desc.codec->coding) > 0) {
        x->flags |= NKHTTP_P_X_ACCEPTS;
    }
    nkhttp_p_choose(x);
    if (!(x->flags & NKHTTP_P_X_KEEP)) c->flags |= NKHTTP_P_STOP; // RFC 9112 9.6: nothing behind it is a request
    if ((head->flags & NKHTTP_CHUNKED) || head->content_length) {
        return used + nkhttp_p_begin_body(c, x, p + used, n - used);
    }
    nkhttp_p_dispatch(x);
    return used;
}

static size_t nkhttp_p_feed_head(nkhttp_p_conn* c, uint8_t* p, size_t n) {
    nkhttp_server* srv = c->srv;
    nkhttp_p_exchange* x;
    int r;
    if (c->num_open >= srv->desc.max_pipeline || (c->flags & (NKHTTP_P_FULL | NKHTTP_P_BLOCKED))) {
        return nkhttp_p_block_reading(c);
    }
    if (c->flags & (NKHTTP_P_PROXY | NKHTTP_P_CRLF)) {
        if (c->flags & NKHTTP_P_PROXY) return nkhttp_p_feed_proxy(c, p, n);
        c->flags &= (uint16_t)~NKHTTP_P_CRLF;
        if (n >= 2 && p[0] == '\r' && p[1] == '\n') return 2; // RFC 9112 2.2: old clients send it after a body
    }
    if ((c->flags & NKHTTP_P_LINE) && n <= srv->desc.max_head_bytes && n >= c->seen
        && !memchr(p + c->seen, '\n', n - c->seen)) {
        c->seen = (uint32_t)n;
        return 0;
    }
    x = nkhttp_p_exchange_take(srv);
    if (!x) { nkhttp_p_conn_cut(c); return n; }
    r = nkhttp_parse_request((const char*)p, n, &x->head);
    if (r == 0) {
        nkhttp_p_exchange_put(srv, x);
        return nkhttp_p_head_incomplete(c, p, n);
    }
    nkhttp_p_link(c, x);
    c->seen = 0;
    c->flags &= (uint16_t)~NKHTTP_P_LINE;
    if (r > 0) return nkhttp_p_begin(c, x, p, n);
    srv->stats.parse_errors++;
    nkhttp_p_refuse(c, x, nkhttp_status_of(r), r);
    return n;
}

static size_t nkhttp_p_on_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    nkhttp_p_conn* c = (nkhttp_p_conn*)self;
    size_t used = 0, step;
    (void)L; (void)s;
    while (used < n && !(c->flags & (NKHTTP_P_DETACHED | NKHTTP_P_FINISHED))) {
        if (c->body) step = nkhttp_p_feed_body(c, bytes + used, n - used);
        else if (c->flags & NKHTTP_P_STOP) step = n - used; // never looked at
        else step = nkhttp_p_feed_head(c, bytes + used, n - used);
        if (step == 0) break;
        used += step;
    }
    c->srv->stats.bytes_in += used;
    return c->flags & NKHTTP_P_FINISHED ? n : used;
}

static void nkhttp_p_on_drain(void* self, nkloop* L, nkloop_stream s) {
    nkhttp_p_conn* c = (nkhttp_p_conn*)self;
    (void)L; (void)s;
    c->flags &= (uint16_t)~NKHTTP_P_FULL;
    nkhttp_p_advance(c);
}

static void nkhttp_p_on_eof(void* self, nkloop* L, nkloop_stream s) {
    nkhttp_p_conn* c = (nkhttp_p_conn*)self;
    nkhttp_p_exchange* x = c->body;
    (void)L; (void)s;
    c->flags |= NKHTTP_P_EOF;
    if (x) { // RFC 9112 8: a body cut short is no body
        if (x->flags & NKHTTP_P_X_DISCARD) {
            c->body = NULL;
            x->flags &= ~(uint32_t)NKHTTP_P_X_KEEP;
            nkhttp_p_advance(c);
        } else {
            nkhttp_p_fail_body(x, 400, NKLOOP_ERR_CLOSED);
        }
    } else if (!c->first && !(c->flags & NKHTTP_P_BLOCKED)) {
        nkhttp_p_finish(c);
    }
}

// -- deadlines: one alarm; what is due is worked out when it rings
static int nkhttp_p_due(uint64_t from_ns, uint32_t ms, uint64_t now, uint64_t* next) {
    uint64_t at = from_ns + (uint64_t)ms * 1000000u;
    if (ms == UINT32_MAX) return 0;
    if (now >= at) return 1;
    if (at < *next) *next = at;
    return 0;
}

// Bytes wait for the client: has it taken any since we last looked?
static void nkhttp_p_due_write(nkhttp_p_conn* c, uint64_t now, uint64_t* next) {
    uint64_t unsent = nkloop_unsent(c->srv->L, c->stream), sent = c->written - unsent;
    if (!unsent) { c->stall_ns = 0; return; }
    if (!c->stall_ns || sent != c->sent_mark) {
        c->stall_ns = now;
        c->sent_mark = sent;
    }
    if (!nkhttp_p_due(c->stall_ns, c->srv->desc.write_timeout_ms, now, next)) return;
    c->srv->stats.timeouts++;
    nkhttp_p_conn_cut(c);
}

// RFC 9110 15.5.9: the request did not come in time.
static void nkhttp_p_due_body(nkhttp_p_conn* c, uint64_t now, uint64_t* next) {
    nkhttp_p_exchange* x = c->body;
    const nkhttp_server_desc* d = &c->srv->desc;
    uint64_t earned;
    if ((x->flags & (NKHTTP_P_X_PAUSED | NKHTTP_P_X_DISCARD)) == NKHTTP_P_X_PAUSED
        || d->body_timeout_ms == UINT32_MAX) return;
    if (c->first != x && (x->flags & NKHTTP_P_X_CONTINUE)) return; // it waits for us
    earned = d->body_min_rate == UINT32_MAX
        ? UINT64_MAX / 4 : (x->bytes_in - x->body_base) * 1000000u / d->body_min_rate * 1000u;
    if (!nkhttp_p_due(x->body_ns + earned, d->body_timeout_ms, now, next)) return;
    c->srv->stats.timeouts++;
    if (x->reply == NKHTTP_P_DONE) nkhttp_p_conn_cut(c);
    else nkhttp_p_fail_body(x, 408, NKLOOP_ERR_TIMEOUT);
}

static void nkhttp_p_due_read(nkhttp_p_conn* c, uint64_t now, uint64_t* next) {
    const nkhttp_server_desc* d = &c->srv->desc;
    if (c->body) { nkhttp_p_due_body(c, now, next); return; }
    if (c->flags & (NKHTTP_P_STOP | NKHTTP_P_BLOCKED)) return;
    if (c->seen || (c->flags & NKHTTP_P_PROXY)) {
        if (!nkhttp_p_due(c->mark_ns, d->head_timeout_ms, now, next)) return;
        c->srv->stats.timeouts++;
        if (c->flags & NKHTTP_P_PROXY) nkhttp_p_conn_cut(c);
        else nkhttp_p_refuse(c, NULL, 408, NKLOOP_ERR_TIMEOUT);
    } else if (!c->first && (nkhttp_p_due(c->mark_ns, d->idle_timeout_ms, now, next)
               || nkhttp_p_due(nkloop_now_ns(c->srv->L) - (uint64_t)nkhttp_p_age_ms(c) * 1000000u,
                               d->connection_ttl_ms, now, next))) {
        nkhttp_p_conn_cut(c); // silently: nothing was asked
    }
}

static void nkhttp_p_due_handlers(nkhttp_p_conn* c, uint64_t now, uint64_t* next) {
    nkhttp_p_exchange* x;
    int any = 0;
    if (c->srv->desc.handler_timeout_ms == UINT32_MAX) return;
    for (x = c->first; x; x = x->next) {
        if (!(x->flags & NKHTTP_P_X_READY) || x->reply != NKHTTP_P_NONE) continue;
        if (!nkhttp_p_due(x->ready_ns, c->srv->desc.handler_timeout_ms, now, next)) continue;
        x->err = NKLOOP_ERR_TIMEOUT;
        c->srv->stats.timeouts++;
        nkhttp_p_reply_error(x, 503, "The answer took too long.");
        any = 1;
    }
    if (any) nkhttp_p_advance(c);
}

static void nkhttp_p_on_alarm(void* self, nkloop* L, nkloop_stream s) {
    nkhttp_p_conn* c = (nkhttp_p_conn*)self;
    uint64_t now = nkloop_now_ns(L) + 999999u, next = UINT64_MAX; // the alarm counts whole milliseconds
    (void)s;
    c->alarm_ns = 0;
    nkhttp_p_due_write(c, now, &next);
    if (!(c->flags & NKHTTP_P_FINISHED)) nkhttp_p_due_read(c, now, &next);
    if (!(c->flags & NKHTTP_P_FINISHED)) nkhttp_p_due_handlers(c, now, &next);
    if (next != UINT64_MAX && !(c->flags & NKHTTP_P_DETACHED) && nkloop_alive(L, c->stream)) nkhttp_p_arm(c, next);
}

static void nkhttp_p_conn_end(nkhttp_p_conn* c, int why) {
    nkhttp_p_exchange* x;
    c->flags |= NKHTTP_P_FINISHED | NKHTTP_P_STOP;
    if (why == NKLOOP_OK) why = NKLOOP_ERR_CLOSED; // it was us, and these had not been answered
    while ((x = c->first) != NULL) {
        nkhttp_p_unlink_first(c);
        if (!x->err) x->err = why;
        if (x->flags & NKHTTP_P_X_RUNNING) x->conn = NULL; // ends when the worker lets go of it
        else nkhttp_p_end(x, x->err);
    }
    nkhttp_p_conn_gone(c);
}

static void nkhttp_p_on_close(void* self, nkloop* L, nkloop_stream s, int why) {
    (void)L; (void)s;
    nkhttp_p_conn_end((nkhttp_p_conn*)self, why);
}

static const nkloop_proto nkhttp_p_proto = { "http", nkhttp_p_on_data, nkhttp_p_on_drain, nkhttp_p_on_close,
                                             nkhttp_p_on_eof, NULL, nkhttp_p_on_alarm };

static int nkhttp_p_peer_trusted(nkhttp_p_conn* c) {
    char peer[64];
    nkhttp_p_conn_peer(c, peer);
    return nkhttp_p_is_trusted(c->srv, nkhttp_p_addr_only(peer));
}

// A stream becomes a connection. < 0: it could not, the stream is as it was.
static int nkhttp_p_open(nkhttp_server* srv, nkloop_stream s) {
    nkhttp_p_conn* c;
    int r;
    nkhttp_p_conns_reclaim(srv);
    c = srv->stopping ? NULL : nkhttp_p_conn_take(srv);
    if (!c) return srv->stopping ? NKLOOP_ERR_SHUTDOWN : NKLOOP_ERR_NOMEM;
    c->stream = s;
    r = nkloop_set_proto(srv->L, s, &nkhttp_p_proto, c);
    if (r < 0) {
        c->next = srv->free_conns;
        srv->free_conns = c;
        return r;
    }
    c->next = srv->conns;
    if (srv->conns) srv->conns->prev = c;
    srv->conns = c;
    srv->stats.connections++;
    srv->stats.open_connections++;
    c->mark_ns = nkloop_now_ns(srv->L);
    c->opened_ms = (uint32_t)((c->mark_ns - srv->start_ns) / 1000000u);
    nkhttp_p_arm_in(c, srv->desc.proxy_protocol ? srv->desc.head_timeout_ms : srv->desc.idle_timeout_ms);
    if (srv->desc.connection_ttl_ms != UINT32_MAX) nkhttp_p_arm_in(c, srv->desc.connection_ttl_ms);
    if (srv->desc.proxy_protocol) {
        c->flags |= NKHTTP_P_PROXY;
        if (!nkhttp_p_peer_trusted(c)) nkhttp_p_conn_cut(c); // anybody can write such a header
    } else if (nkhttp_p_addr_enter(c) < 0) {
        srv->stats.refused++;
        nkhttp_p_refuse(c, NULL, 503, 0);
    }
    return NKHTTP_OK;
}

static void nkhttp_p_pause_listeners(nkhttp_server* srv, int paused) {
    uint32_t i;
    srv->accept_paused = paused;
    for (i = 0; i < srv->num_listeners; i++) nkloop_listener_pause(srv->L, srv->listeners[i], paused);
}

static void nkhttp_p_accept_more(nkhttp_server* srv) {
    if (srv->stats.open_connections < srv->desc.max_connections && !srv->dead) nkhttp_p_pause_listeners(srv, 0);
}

static void nkhttp_p_on_accept(void* user, nkloop* L, nkloop_stream s) {
    nkhttp_server* srv = (nkhttp_server*)user;
    if (srv->desc.on_stream && srv->desc.on_stream(srv->desc.user, L, s) < 0) {
        srv->stats.refused++;
        nkloop_close(L, s);
        return;
    }
    if (nkhttp_p_open(srv, s) < 0) {
        srv->stats.refused++;
        nkloop_close(L, s);
    } else if (srv->stats.open_connections >= srv->desc.max_connections) {
        nkhttp_p_pause_listeners(srv, 1); // more wait in the backlog
    }
}

// ---- @server ---------------------------------------------------------------------------------
// Creating, listening, routes, stopping, and the blocking start.
static void nkhttp_p_stop_done(void* user);
static void nkhttp_p_stopped_done(void* user);

static void nkhttp_p_default_u32(uint32_t* v, uint32_t value) { if (*v == 0) *v = value; }

static void nkhttp_p_desc_defaults(nkhttp_server_desc* d, const nkloop* L) {
    nkhttp_p_default_u32(&d->max_connections, UINT32_MAX);
    nkhttp_p_default_u32(&d->max_connections_per_address, UINT32_MAX);
    nkhttp_p_default_u32(&d->max_requests_per_connection, UINT32_MAX);
    nkhttp_p_default_u32(&d->max_pipeline, 16);
    if (d->max_pipeline > 1000) d->max_pipeline = 1000;
    nkhttp_p_default_u32(&d->max_line_bytes, 8192 + 256);
    nkhttp_p_default_u32(&d->max_head_bytes, 32 * 1024);
    // a longer one would end without an answer, because the loop keeps no more unread bytes
    // one less: a buffer that is full of an unfinished head must still be answered
    if (d->max_head_bytes >= nkloop_rx_bytes(L)) d->max_head_bytes = nkloop_rx_bytes(L) - 1;
    nkhttp_p_default_u32(&d->max_headers, 100);
    if (d->max_headers > 1000) d->max_headers = 1000;
    if (d->max_body_bytes == 0) d->max_body_bytes = 1024 * 1024;
    if (d->max_buffered_bytes == 0) d->max_buffered_bytes = 64 * 1024 * 1024;
    nkhttp_p_default_u32(&d->drain_bytes, 256 * 1024);
    nkhttp_p_default_u32(&d->head_timeout_ms, 10000);
    nkhttp_p_default_u32(&d->body_timeout_ms, 10000);
    nkhttp_p_default_u32(&d->body_min_rate, 1024);
    nkhttp_p_default_u32(&d->idle_timeout_ms, 60000);
    nkhttp_p_default_u32(&d->write_timeout_ms, 30000);
    nkhttp_p_default_u32(&d->handler_timeout_ms, UINT32_MAX);
    nkhttp_p_default_u32(&d->connection_ttl_ms, UINT32_MAX);
    nkhttp_p_default_u32(&d->cors_max_age_s, 600);
    nkhttp_p_default_u32(&d->codec_min_bytes, 1024);
}

// The words of a list, joined by blanks; NULL for no list, "" for an empty one: nobody. 0, or out of memory.
static int nkhttp_p_join(nkhttp_server* srv, const char* const* list, const char** out) {
    size_t n = 1, i;
    char* to;
    *out = NULL;
    if (!list) return NKHTTP_OK;
    for (i = 0; list[i]; i++) n += strlen(list[i]) + 1;
    to = nkhttp_p_keep(srv->L, &srv->texts, n);
    if (!to) return NKLOOP_ERR_NOMEM;
    *out = to;
    for (i = 0; list[i]; i++) {
        if (i) *to++ = ' ';
        to = nkhttp_p_put(to, list[i], strlen(list[i]));
    }
    *to = 0;
    return NKHTTP_OK;
}

static int nkhttp_p_copy_hosts(nkhttp_server* srv, const char* const* list) {
    size_t n = 0, i;
    const char** copy;
    if (!list) return NKHTTP_OK;
    while (list[n]) n++;
    copy = (const char**)(void*)nkhttp_p_keep(srv->L, &srv->texts, (n + 1) * sizeof *copy);
    if (!copy) return NKLOOP_ERR_NOMEM;
    for (i = 0; i < n; i++) {
        copy[i] = nkhttp_p_keep_text(srv->L, &srv->texts, list[i], strlen(list[i]));
        if (!copy[i]) return NKLOOP_ERR_NOMEM;
    }
    copy[n] = NULL;
    srv->hosts = copy;
    return NKHTTP_OK;
}

static int nkhttp_p_copy_name(nkhttp_server* srv, const char* name) {
    size_t n = name ? strlen(name) : 0;
    char* end;
    if (!n) return NKHTTP_OK;
    if (n > 256 || !nkhttp_field_ok("Server", 6, name, n)) return NKHTTP_ERR_HEADER_VALUE;
    srv->server_line = nkhttp_p_keep(srv->L, &srv->texts, n + 10);
    if (!srv->server_line) return NKLOOP_ERR_NOMEM;
    end = nkhttp_p_put_field(srv->server_line, nkhttp_p_str("Server", 6), nkhttp_p_str(name, n), 0);
    srv->server_len = (uint32_t)(end - srv->server_line);
    return NKHTTP_OK;
}

// From here on nothing points into the caller's desc.
static int nkhttp_p_copy_texts(nkhttp_server* srv) {
    nkhttp_server_desc* d = &srv->desc;
    if (nkhttp_p_join(srv, d->trusted_proxies, &srv->trusted) < 0) return NKLOOP_ERR_NOMEM;
    if (nkhttp_p_join(srv, d->cors_origins, &srv->origins) < 0) return NKLOOP_ERR_NOMEM;
    if (nkhttp_p_copy_hosts(srv, d->allowed_hosts) < 0) return NKLOOP_ERR_NOMEM;
    if (d->cors_headers) {
        d->cors_headers = nkhttp_p_keep_text(srv->L, &srv->texts, d->cors_headers, strlen(d->cors_headers));
        if (!d->cors_headers) return NKLOOP_ERR_NOMEM;
    }
    d->trusted_proxies = d->cors_origins = d->allowed_hosts = NULL;
    return nkhttp_p_copy_name(srv, d->server_name);
}

// NKHTTP_P_HEAD_EXTRA has room for so much. A name of a field is a token, as a coding is.
static int nkhttp_p_coding_ok(const char* coding) {
    return coding && strlen(coding) <= 64 && nkhttp_field_ok(coding, strlen(coding), "", 0);
}

static int nkhttp_p_server_init(nkhttp_server* srv) {
    nkhttp_server_desc* d = &srv->desc;
    nkloop_listen_desc listen_desc;
    int err;
    nkhttp_p_desc_defaults(d, srv->L);
    nkhttp_p_date_init(srv);
    err = nkhttp_p_copy_texts(srv);
    if (err < 0) return err;
    if (d->codec && !nkhttp_p_coding_ok(d->codec->coding)) return NKHTTP_ERR_HEADER_VALUE;
    srv->choosy = srv->hosts || srv->origins || d->require_length;
    srv->fallback.desc.on_request = d->on_request;
    srv->fallback.desc.user = d->user;
    if (d->max_connections_per_address != UINT32_MAX) {
        srv->addrs = (nkhttp_p_addr**)nkloop_alloc(srv->L, NULL, 0, NKHTTP_P_BUCKETS * sizeof *srv->addrs);
        if (!srv->addrs) return NKLOOP_ERR_NOMEM;
        memset(srv->addrs, 0, NKHTTP_P_BUCKETS * sizeof *srv->addrs);
    }
    if (d->workers) {
#ifdef NETKIT_HTTP_NO_WORKERS
        return NKLOOP_ERR_UNSUPPORTED;
#else
        err = nkloop_pool_create(&srv->pool, srv->L, d->workers);
        if (err < 0) return err;
#endif
    }
    if (d->address && strcmp(d->address, "none") == 0) return NKHTTP_OK;
    memset(&listen_desc, 0, sizeof listen_desc);
    listen_desc.address = d->address ? d->address : "127.0.0.1:8080";
    listen_desc.reuse_port = d->reuse_port;
    return nkhttp_server_listen(srv, &listen_desc);
}

static void* nkhttp_p_router_memory(void* user, void* ptr, size_t old_size, size_t new_size) {
    return nkloop_alloc((nkloop*)user, ptr, old_size, new_size);
}

NETKIT_HTTP_API int nkhttp_server_create(nkhttp_server** out, nkloop* L, const nkhttp_server_desc* desc) {
    nkhttp_server* srv = (nkhttp_server*)nkloop_alloc(L, NULL, 0, sizeof *srv);
    int err;
    *out = NULL;
    if (!srv) return NKLOOP_ERR_NOMEM;
    memset(srv, 0, sizeof *srv);
    srv->L = L;
    if (desc) srv->desc = *desc;
    srv->refs.v = 1;
    srv->free_entry = UINT32_MAX;
    srv->start_ns = nkloop_now_ns(L);
    srv->stop_job.done = nkhttp_p_stop_done;
    srv->stop_job.user = srv;
    srv->stopped_job.done = nkhttp_p_stopped_done;
    srv->stopped_job.user = srv;
    nkhttp_router_init(&srv->router, nkhttp_p_router_memory, L);
    err = nkhttp_p_server_init(srv);
    if (err < 0) {
        nkhttp_server_destroy(srv);
        return err;
    }
    *out = srv;
    return NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_server_listen(nkhttp_server* srv, const nkloop_listen_desc* desc) {
    nkloop_listen_desc d = *desc;
    nkloop_listener* grown;
    int err;
    if (srv->stopping) return NKLOOP_ERR_SHUTDOWN;
    grown = (nkloop_listener*)nkloop_alloc(srv->L, srv->listeners, srv->num_listeners * sizeof *grown,
                                           (srv->num_listeners + 1) * sizeof *grown);
    if (!grown) return NKLOOP_ERR_NOMEM;
    srv->listeners = grown;
    d.on_accept = nkhttp_p_on_accept;
    d.user = srv;
    err = nkloop_listen(srv->L, &d, &grown[srv->num_listeners]);
    if (err < 0) { // the array keeps its size: nkloop_alloc must be told the right one
        grown[srv->num_listeners].id = 0;
    }
    srv->num_listeners++;
    return err;
}

NETKIT_HTTP_API int nkhttp_server_attach(nkhttp_server* srv, nkloop_stream s) { return nkhttp_p_open(srv, s); }

NETKIT_HTTP_API int nkhttp_server_address(nkhttp_server* srv, char* out, size_t cap) {
    if (srv->num_listeners == 0) return NKLOOP_ERR_STALE;
    return nkloop_listener_address(srv->L, srv->listeners[0], out, cap);
}

NETKIT_HTTP_API int nkhttp_route_add(nkhttp_server* srv, const nkhttp_route_desc* desc) {
    nkhttp_p_endpoint* ep = (nkhttp_p_endpoint*)nkloop_alloc(srv->L, NULL, 0, sizeof *ep);
    int err;
    if (!ep) return NKLOOP_ERR_NOMEM;
    ep->desc = *desc;
    err = nkhttp_router_add(&srv->router, desc->method, desc->pattern, ep);
    if (err < 0) {
        nkhttp_p_drop(srv->L, ep, sizeof *ep);
        return err;
    }
    ep->desc.method = ep->desc.pattern = NULL; // the router has its copies
    ep->next = srv->endpoints;
    srv->endpoints = ep;
    srv->num_routes++;
    return NKHTTP_OK;
}

NETKIT_HTTP_API int nkhttp_route(nkhttp_server* srv, const char* method, const char* pattern,
                                 nkhttp_handler fn, void* user) {
    nkhttp_route_desc d;
    memset(&d, 0, sizeof d);
    d.method = method;
    d.pattern = pattern;
    d.on_request = fn;
    d.user = user;
    return nkhttp_route_add(srv, &d);
}

NETKIT_HTTP_API void nkhttp_get_stats(const nkhttp_server* srv, nkhttp_stats* out) { *out = srv->stats; }

// -- stopping
static void nkhttp_p_stopped_done(void* user) {
    nkhttp_server* srv = (nkhttp_server*)user;
    if (!srv->dead) {
        if (srv->owns_run) nkloop_stop(srv->L);
        if (srv->desc.on_stopped) srv->desc.on_stopped(srv->desc.user); // may destroy the server
    }
    nkhttp_p_unref(srv);
}

static void nkhttp_p_check_stopped(nkhttp_server* srv) {
    if (srv->stopped || srv->dead || srv->stats.open_connections) return;
    srv->stopped = 1;
    nkloop_timer_stop(srv->L, srv->grace);
    nkhttp_p_ref(srv);
    nkloop_post_job(srv->L, &srv->stopped_job); // not from here: a callback may be on the stack
}

static void nkhttp_p_grace_over(void* user) {
    nkhttp_p_conn* c;
    for (c = ((nkhttp_server*)user)->conns; c; c = c->next) nkhttp_p_conn_cut(c);
}

static void nkhttp_p_close_listeners(nkhttp_server* srv) {
    uint32_t i;
    for (i = 0; i < srv->num_listeners; i++) nkloop_listener_close(srv->L, srv->listeners[i]);
}

static void nkhttp_p_stop_done(void* user) {
    nkhttp_server* srv = (nkhttp_server*)user;
    nkhttp_p_conn* c;
    uint32_t grace_ms = srv->stop_grace_ms; // before the next shutdown may write it
    nkhttp_p_a32_exchange(&srv->stop_posted, 0);
    if (!srv->dead) {
        srv->stopping = 1;
        nkhttp_p_close_listeners(srv);
        nkloop_timer_stop(srv->L, srv->grace);
        for (c = srv->conns; c; c = c->next) if (!c->first) nkhttp_p_finish(c);
        // without a timer nobody would end the grace: it ends now
        if (nkloop_timer_start(srv->L, grace_ms, 0, nkhttp_p_grace_over, srv, &srv->grace) < 0) {
            nkhttp_p_grace_over(srv);
        }
        nkhttp_p_check_stopped(srv);
    }
    nkhttp_p_unref(srv);
}

NETKIT_HTTP_API void nkhttp_server_shutdown(nkhttp_server* srv, uint32_t grace_ms) {
    if (nkhttp_p_a32_exchange(&srv->stop_posted, 1) != 0) return; // one is on its way
    srv->stop_grace_ms = grace_ms ? grace_ms : 10000;
    nkhttp_p_ref(srv);
    nkloop_post_job(srv->L, &srv->stop_job);
}

static void nkhttp_p_free_all(nkhttp_server* srv) {
    nkloop* L = srv->L;
    nkhttp_p_endpoint* ep;
    nkhttp_p_slab* slab;
    uint32_t i;
    for (i = 0; i < srv->table_num; i++) if (srv->table[i].x) nkhttp_p_exchange_free(srv, srv->table[i].x);
    nkhttp_p_drop(L, srv->table, srv->table_cap * sizeof *srv->table);
    while ((slab = srv->slabs) != NULL) {
        srv->slabs = slab->next;
        nkhttp_p_drop(L, slab, sizeof *slab);
    }
    while ((ep = srv->endpoints) != NULL) {
        srv->endpoints = ep->next;
        nkhttp_p_drop(L, ep, sizeof *ep);
    }
    nkhttp_router_free(&srv->router);
    nkhttp_p_blocks_end(&srv->texts);
    nkhttp_p_drop(L, srv->addrs, NKHTTP_P_BUCKETS * sizeof *srv->addrs);
    nkhttp_p_drop(L, srv->listeners, srv->num_listeners * sizeof *srv->listeners);
#ifndef NETKIT_HTTP_NO_FILES
    nkhttp_p_files_destroy(srv);
#endif
}

NETKIT_HTTP_API void nkhttp_server_destroy(nkhttp_server* srv) {
    nkhttp_p_conn* c;
    if (!srv) return;
    srv->dead = 1; // first of all: jobs that run while the pool ends must not call on_stopped
    srv->stopping = 1;
#ifndef NETKIT_HTTP_NO_WORKERS
    if (srv->pool) {
        nkloop_pool* pool = srv->pool;
        srv->pool = NULL; // whatever still comes runs here
        nkloop_pool_destroy(pool);
    }
#endif
    nkloop_timer_stop(srv->L, srv->grace);
    nkhttp_p_close_listeners(srv);
    while ((c = srv->conns) != NULL) {
        nkloop_set_proto(srv->L, c->stream, NULL, NULL); // no on_close: there is nobody any more
        nkloop_close(srv->L, c->stream);
        nkhttp_p_conn_end(c, NKLOOP_ERR_SHUTDOWN);
    }
    nkhttp_p_free_all(srv);
    nkhttp_p_unref(srv);
}

NETKIT_HTTP_API int nkhttp_run(const nkhttp_server_desc* desc,
                               void (*ready_fn)(void* user, nkloop* L, nkhttp_server* srv)) {
    nkloop* L = NULL;
    nkhttp_server* srv = NULL;
    int err = nkloop_create(&L, NULL);
    if (err < 0) return err;
    err = nkhttp_server_create(&srv, L, desc);
    if (err == NKHTTP_OK) {
        srv->owns_run = 1;
        if (ready_fn) ready_fn(desc ? desc->user : NULL, L, srv);
        err = nkloop_run(L);
        nkhttp_server_destroy(srv);
    }
    nkloop_destroy(L);
    return err;
}

#ifndef NETKIT_HTTP_NO_FILES
// ---- @os -------------------------------------------------------------------------------------
// Files as the system has them: a root that is opened once, names that are opened beneath it and
// never lead out, reading, listing. The only room that knows platforms; system calls that tests
// want to see fail are macros. Names come clean from nkhttp_path_clean: no "..", no empty segment,
// no leading slash. What is done here is about links, which only the system sees, and about what a
// name turns out to be.

typedef struct nkhttp_p_os_info { // of something that was opened
    uint64_t size, id;            // id: inode, or what comes closest
    int64_t  mtime;
    uint64_t mtime_ns;            // the whole time in nanoseconds, modulo 2^64
    int      is_directory;
} nkhttp_p_os_info;

typedef void (*nkhttp_p_entry_fn)(void* sink, const char* name, int is_directory, uint64_t size,
                                  int64_t mtime);

#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
    #define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
    #define NOMINMAX
#endif
#include <winsock2.h> // before windows.h, which would bring in its predecessor
#include <windows.h>

// A name goes to the kernel behind the canonical path of the root. Whatever was opened is asked for
// its own canonical path: if that is not the one expected, a link,
// a junction or a short name led elsewhere.
enum { NKHTTP_P_WIDE = 4096 }; // characters of a path; longer ones are not found
#ifndef NETKIT_HTTP_SYS_CREATEFILE
    #define NETKIT_HTTP_SYS_CREATEFILE(path, flags) \
        CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, \
                    NULL, OPEN_EXISTING, flags, NULL)
#endif

typedef struct nkhttp_p_root {
    int      follow;
    size_t   len;
    wchar_t* path; // "\\?\C:\www", no backslash at its end
    nkloop*  L;
} nkhttp_p_root;

static uint64_t nkhttp_p_os_ticks(FILETIME t) { // of 100 ns since 1601
    return ((uint64_t)t.dwHighDateTime << 32) | t.dwLowDateTime;
}

static int64_t nkhttp_p_os_unix(FILETIME t) {
    return (int64_t)(nkhttp_p_os_ticks(t) / 10000000u) - 11644473600ll;
}

static int64_t nkhttp_p_os_now(void) { // Unix seconds
    FILETIME t;
    GetSystemTimeAsFileTime(&t);
    return nkhttp_p_os_unix(t);
}

static int nkhttp_p_os_error(DWORD code) {
    switch (code) {
    case ERROR_FILE_NOT_FOUND: case ERROR_PATH_NOT_FOUND: case ERROR_DIRECTORY:
    case ERROR_INVALID_NAME: case ERROR_BAD_PATHNAME: case ERROR_BAD_NETPATH:
    case ERROR_FILENAME_EXCED_RANGE: case ERROR_NO_UNICODE_TRANSLATION:
    case ERROR_CANT_RESOLVE_FILENAME:
        return NKHTTP_ERR_NOT_FOUND;
    case ERROR_ACCESS_DENIED: case ERROR_SHARING_VIOLATION: case ERROR_LOCK_VIOLATION:
        return NKHTTP_ERR_FORBIDDEN;
    case ERROR_TOO_MANY_OPEN_FILES: case ERROR_NOT_ENOUGH_MEMORY: case ERROR_OUTOFMEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
        return NKHTTP_ERR_UNAVAILABLE;
    default: return NKLOOP_ERR_SYSTEM;
    }
}

static void nkhttp_p_os_close(nkloop_fd file) { CloseHandle((HANDLE)file); }

static int nkhttp_p_os_read_at(nkloop_fd file, uint64_t offset, void* out, size_t n) {
    OVERLAPPED at;
    DWORD got = 0;
    memset(&at, 0, sizeof at);
    at.Offset = (DWORD)(offset & 0xffffffffu);
    at.OffsetHigh = (DWORD)(offset >> 32);
    if (n > 0x40000000u) n = 0x40000000u;
    return ReadFile((HANDLE)file, out, (DWORD)n, &got, &at) ? (int)got : NKLOOP_ERR_FILE;
}

static int nkhttp_p_os_inspect(HANDLE h, nkhttp_p_os_info* out) {
    BY_HANDLE_FILE_INFORMATION i;
    if (GetFileType(h) != FILE_TYPE_DISK) return NKHTTP_ERR_NOT_FOUND; // pipes, consoles, devices
    if (!GetFileInformationByHandle(h, &i)) return nkhttp_p_os_error(GetLastError());
    out->size = ((uint64_t)i.nFileSizeHigh << 32) | i.nFileSizeLow;
    out->id = ((uint64_t)i.nFileIndexHigh << 32) | i.nFileIndexLow;
    out->mtime = nkhttp_p_os_unix(i.ftLastWriteTime);
    out->mtime_ns = nkhttp_p_os_ticks(i.ftLastWriteTime) * 100u;
    out->is_directory = (i.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    return NKHTTP_OK;
}

// Root and a clean name as one wide path. Returns its length, 0 if it does not fit or is no UTF-8.
static size_t nkhttp_p_os_wide(const nkhttp_p_root* r, const char* path, wchar_t* out) {
    size_t i, len = r->len;
    int n;
    if (len + 4 > NKHTTP_P_WIDE) return 0;
    memcpy(out, r->path, len * sizeof(wchar_t));
    out[len] = 0;
    if (!*path) return len;
    out[len++] = L'\\';
    n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out + len,
                            (int)(NKHTTP_P_WIDE - len - 3));
    if (n <= 0) return 0;
    for (i = len; out[i]; i++) if (out[i] == L'/') out[i] = L'\\';
    return i;
}

// Is what was opened where it should be? Without follow exactly at `want`,
// with it anywhere beneath the root.
static int nkhttp_p_os_inside(const nkhttp_p_root* r, HANDLE h, const wchar_t* want) {
    wchar_t real[NKHTTP_P_WIDE];
    DWORD n = GetFinalPathNameByHandleW(h, real, NKHTTP_P_WIDE, FILE_NAME_NORMALIZED);
    if (n == 0 || n >= NKHTTP_P_WIDE || n < r->len) return 0;
    if (!r->follow) return CompareStringOrdinal(real, -1, want, -1, TRUE) == CSTR_EQUAL;
    if (CompareStringOrdinal(real, (int)r->len, r->path, (int)r->len, TRUE) != CSTR_EQUAL) return 0;
    return real[r->len] == 0 || real[r->len] == L'\\';
}

static int nkhttp_p_os_open(const nkhttp_p_root* r, const char* path, nkloop_fd* file,
                            nkhttp_p_os_info* info) {
    wchar_t wide[NKHTTP_P_WIDE];
    HANDLE h;
    int err;
    if (!nkhttp_p_os_wide(r, path, wide)) return NKHTTP_ERR_NOT_FOUND;
    h = NETKIT_HTTP_SYS_CREATEFILE(wide, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_SEQUENTIAL_SCAN);
    if (h == INVALID_HANDLE_VALUE) return nkhttp_p_os_error(GetLastError());
    err = nkhttp_p_os_inside(r, h, wide) ? nkhttp_p_os_inspect(h, info) : NKHTTP_ERR_NOT_FOUND;
    if (err) CloseHandle(h);
    else *file = (nkloop_fd)h;
    return err;
}

static int nkhttp_p_os_open_any(const char* os_path, nkloop_fd* file, nkhttp_p_os_info* info) {
    wchar_t wide[NKHTTP_P_WIDE];
    HANDLE h;
    int err;
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, os_path, -1, wide, NKHTTP_P_WIDE) <= 0) {
        return NKHTTP_ERR_NOT_FOUND;
    }
    h = NETKIT_HTTP_SYS_CREATEFILE(wide, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_SEQUENTIAL_SCAN);
    if (h == INVALID_HANDLE_VALUE) return nkhttp_p_os_error(GetLastError());
    err = nkhttp_p_os_inspect(h, info);
    if (err) CloseHandle(h);
    else *file = (nkloop_fd)h;
    return err;
}

static int nkhttp_p_os_root_open(nkhttp_p_root* r, nkloop* L, const char* dir, int follow) {
    nkhttp_p_os_info info;
    wchar_t real[NKHTTP_P_WIDE];
    nkloop_fd file = NKLOOP_NO_FD;
    DWORD n;
    int err = nkhttp_p_os_open_any(dir, &file, &info);
    if (err) return err;
    n = GetFinalPathNameByHandleW((HANDLE)file, real, NKHTTP_P_WIDE, FILE_NAME_NORMALIZED);
    CloseHandle((HANDLE)file);
    if (!info.is_directory || n == 0 || n >= NKHTTP_P_WIDE) return NKHTTP_ERR_NOT_FOUND;
    while (n && real[n - 1] == L'\\') n--;
    r->path = (wchar_t*)nkloop_alloc(L, NULL, 0, (n + 1) * sizeof(wchar_t));
    if (!r->path) return NKLOOP_ERR_NOMEM;
    memcpy(r->path, real, n * sizeof(wchar_t));
    r->path[n] = 0;
    r->len = n;
    r->L = L;
    r->follow = follow;
    return NKHTTP_OK;
}

static void nkhttp_p_os_root_close(nkhttp_p_root* r) {
    if (r->path) nkloop_alloc(r->L, r->path, (r->len + 1) * sizeof(wchar_t), 0);
    r->path = NULL;
}

static int nkhttp_p_os_list(const nkhttp_p_root* r, const char* path, nkhttp_p_entry_fn entry,
                            void* sink) {
    wchar_t wide[NKHTTP_P_WIDE];
    char name[1024];
    WIN32_FIND_DATAW d;
    HANDLE h;
    uint64_t size;
    int n, is_directory;
    size_t len = nkhttp_p_os_wide(r, path, wide);
    if (!len || len + 3 > NKHTTP_P_WIDE) return NKHTTP_ERR_NOT_FOUND;
    memcpy(wide + len, L"\\*", 3 * sizeof(wchar_t));
    h = FindFirstFileW(wide, &d);
    if (h == INVALID_HANDLE_VALUE) return nkhttp_p_os_error(GetLastError());
    do {
        if ((d.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) && !r->follow) continue;
        n = WideCharToMultiByte(CP_UTF8, 0, d.cFileName, -1, name, sizeof name, NULL, NULL);
        if (n <= 0) continue;
        size = ((uint64_t)d.nFileSizeHigh << 32) | d.nFileSizeLow;
        is_directory = (d.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
        entry(sink, name, is_directory, size, nkhttp_p_os_unix(d.ftLastWriteTime));
    } while (FindNextFileW(h, &d));
    FindClose(h);
    return NKHTTP_OK;
}

#else // POSIX
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
    #include <sys/syscall.h>
    #ifdef SYS_openat2
        #define NKHTTP_P_SYS_OPENAT2 SYS_openat2
    #else
        #define NKHTTP_P_SYS_OPENAT2 437 // for kernel headers before 5.6
    #endif
    #ifndef NETKIT_HTTP_SYS_OPENAT2
        #define NETKIT_HTTP_SYS_OPENAT2(dir, path, how, size) \
            ((int)syscall(NKHTTP_P_SYS_OPENAT2, dir, path, how, size))
    #endif
#endif
#ifndef NETKIT_HTTP_SYS_OPENAT
    #define NETKIT_HTTP_SYS_OPENAT(dir, path, flags) openat(dir, path, flags)
#endif
#ifndef NETKIT_HTTP_SYS_FSTAT
    #define NETKIT_HTTP_SYS_FSTAT(fd, st) fstat(fd, st)
#endif
#ifndef NETKIT_HTTP_SYS_PREAD
    #define NETKIT_HTTP_SYS_PREAD(fd, out, n, offset) pread(fd, out, n, offset)
#endif
#ifndef NETKIT_HTTP_SYS_CLOSE
    #define NETKIT_HTTP_SYS_CLOSE(fd) close(fd)
#endif
#ifdef PATH_MAX
    #define NKHTTP_P_REAL_MAX PATH_MAX // what realpath may fill
#else
    #define NKHTTP_P_REAL_MAX 4096
#endif

// O_NONBLOCK: a FIFO without a writer would hold the loop for ever;
// it means nothing to a regular file.
enum { NKHTTP_P_O_FILE = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY };
#if defined(O_PATH)
    #define NKHTTP_P_O_WALK (O_PATH | O_DIRECTORY | O_CLOEXEC) // need not be readable
#elif defined(O_SEARCH)
    #define NKHTTP_P_O_WALK (O_SEARCH | O_DIRECTORY | O_CLOEXEC)
#else
    #define NKHTTP_P_O_WALK (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif

typedef struct nkhttp_p_root {
    int     fd;
    int     follow;
    int     no_openat2; // this kernel, or the sandbox we are in, does not have it
    size_t  len;
    char*   path;       // canonical; only with follow
    nkloop* L;
} nkhttp_p_root;

static int64_t nkhttp_p_os_now(void) { return (int64_t)time(NULL); } // Unix seconds

static int nkhttp_p_os_error(int code) {
    switch (code) {
    case ENOENT: case ENOTDIR: case ENAMETOOLONG:
    case ELOOP: case EMLINK: // a link where none is allowed; FreeBSD says EMLINK
    case EXDEV:              // openat2: the name would leave the root
    case ENXIO: case ENODEV: // sockets, devices without a driver
        return NKHTTP_ERR_NOT_FOUND;
    case EACCES: case EPERM: return NKHTTP_ERR_FORBIDDEN;
    case EMFILE: case ENFILE: case ENOMEM: case EAGAIN: return NKHTTP_ERR_UNAVAILABLE;
    default: return NKLOOP_ERR_SYSTEM;
    }
}

static void nkhttp_p_os_close(nkloop_fd file) { (void)NETKIT_HTTP_SYS_CLOSE((int)file); }

// EINTR is possible on network file systems.
static int nkhttp_p_os_openat(int dir, const char* name, int flags) {
    int fd;
    do fd = NETKIT_HTTP_SYS_OPENAT(dir, name, flags);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int nkhttp_p_os_read_at(nkloop_fd file, uint64_t offset, void* out, size_t n) {
    long got;
    if (n > 0x40000000u) n = 0x40000000u;
    do got = (long)NETKIT_HTTP_SYS_PREAD((int)file, out, n, (off_t)offset);
    while (got < 0 && errno == EINTR);
    return got < 0 ? NKLOOP_ERR_FILE : (int)got;
}

static int nkhttp_p_os_inspect(int fd, nkhttp_p_os_info* out) {
    struct stat st;
    if (NETKIT_HTTP_SYS_FSTAT(fd, &st) != 0) return nkhttp_p_os_error(errno);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return NKHTTP_ERR_NOT_FOUND; // FIFOs, devices
    out->size = (uint64_t)st.st_size;
    out->id = (uint64_t)st.st_ino;
    out->mtime = (int64_t)st.st_mtime;
#ifdef __APPLE__
    out->mtime_ns = (uint64_t)st.st_mtime * 1000000000u + (uint64_t)st.st_mtimespec.tv_nsec;
#else
    out->mtime_ns = (uint64_t)st.st_mtime * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
#endif
    out->is_directory = S_ISDIR(st.st_mode) ? 1 : 0;
    return NKHTTP_OK;
}

// Segment by segment; no segment may be a link. For kernels without openat2. -1 and errno on failure.
static int nkhttp_p_os_walk(int root, const char* path) {
    char name[256]; // NAME_MAX and its NUL everywhere this runs
    int dir = root, next, code;
    for (;;) {
        const char* slash = strchr(path, '/');
        size_t n = slash ? (size_t)(slash - path) : strlen(path);
        if (n < sizeof name) {
            memcpy(name, path, n);
            name[n] = 0;
            next = nkhttp_p_os_openat(dir, n ? name : ".",
                                      (slash ? NKHTTP_P_O_WALK : NKHTTP_P_O_FILE) | O_NOFOLLOW);
        } else {
            next = -1;
            errno = ENAMETOOLONG;
        }
        code = errno;
        if (dir != root) nkhttp_p_os_close((nkloop_fd)dir);
        errno = code;
        if (next < 0 || !slash) return next;
        dir = next;
        path = slash + 1;
    }
}

// The same where links inside the root are allowed: they are resolved first, then the result is
// walked without any, so that nobody can slip a link in between.
// Only taken when the plain way met something odd.
static int nkhttp_p_os_walk_links(const nkhttp_p_root* r, const char* path) {
    char name[NKHTTP_P_REAL_MAX], real[NKHTTP_P_REAL_MAX];
    size_t n = strlen(path);
    if (r->len + n + 2 > sizeof name) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, r->path, r->len);
    name[r->len] = '/';
    memcpy(name + r->len + 1, path, n + 1);
    if (!realpath(name, real)) return -1;
    if (strncmp(real, r->path, r->len) != 0 || (real[r->len] != '/' && real[r->len])) {
        errno = EXDEV;
        return -1;
    }
    return nkhttp_p_os_walk(r->fd, real[r->len] ? real + r->len + 1 : "");
}

#ifdef __linux__
// <linux/openat2.h>
typedef struct nkhttp_p_open_how { uint64_t flags, mode, resolve; } nkhttp_p_open_how;
enum { NKHTTP_P_NO_MAGICLINKS = 0x02, NKHTTP_P_NO_SYMLINKS = 0x04, NKHTTP_P_BENEATH = 0x08 };

// -2: this system has no openat2.
static int nkhttp_p_os_openat2(const nkhttp_p_root* r, const char* path) {
    nkhttp_p_open_how how;
    int fd, tries;
    memset(&how, 0, sizeof how);
    how.flags = (uint64_t)NKHTTP_P_O_FILE;
#ifdef O_LARGEFILE
    how.flags |= (uint64_t)O_LARGEFILE; // no C library adds it here
#endif
    how.resolve = NKHTTP_P_BENEATH;
    how.resolve |= (uint64_t)(r->follow ? NKHTTP_P_NO_MAGICLINKS : NKHTTP_P_NO_SYMLINKS);
    for (tries = 0; tries < 8; tries++) { // EAGAIN: a rename came between while a link was followed
        fd = NETKIT_HTTP_SYS_OPENAT2(r->fd, *path ? path : ".", &how, sizeof how);
        if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) break;
    }
    if (fd >= 0) return fd;
    if (errno == ENOSYS || errno == E2BIG || errno == EINVAL) return -2;
    return errno == EPERM ? -2 : -1; // seccomp's, or the file's: then the other way says it too
}
#endif

static int nkhttp_p_os_open_beneath(nkhttp_p_root* r, const char* path) {
    int fd;
#ifdef __linux__
    if (!r->no_openat2) {
        fd = nkhttp_p_os_openat2(r, path);
        if (fd == -1 && r->follow && errno == EXDEV) { // maybe an absolute link that ends inside
            return nkhttp_p_os_walk_links(r, path);
        }
        if (fd != -2) return fd;
        if (errno == ENOSYS) r->no_openat2 = 1;
    }
#endif
    fd = nkhttp_p_os_walk(r->fd, path);
    if (fd >= 0 || !r->follow || (errno != ELOOP && errno != EMLINK && errno != ENOTDIR)) return fd;
    return nkhttp_p_os_walk_links(r, path);
}

static int nkhttp_p_os_opened(int fd, nkloop_fd* file, nkhttp_p_os_info* info) {
    int err;
    if (fd < 0) return nkhttp_p_os_error(errno);
    err = nkhttp_p_os_inspect(fd, info);
    if (err) nkhttp_p_os_close((nkloop_fd)fd);
    else *file = (nkloop_fd)fd;
    return err;
}

// A regular file or a directory beneath the root, or an error and nothing opened.
static int nkhttp_p_os_open(nkhttp_p_root* r, const char* path, nkloop_fd* file,
                            nkhttp_p_os_info* info) {
    return nkhttp_p_os_opened(nkhttp_p_os_open_beneath(r, path), file, info);
}

// The same for a path of the application's, anywhere.
static int nkhttp_p_os_open_any(const char* os_path, nkloop_fd* file, nkhttp_p_os_info* info) {
    return nkhttp_p_os_opened(nkhttp_p_os_openat(AT_FDCWD, os_path, NKHTTP_P_O_FILE), file, info);
}

static void nkhttp_p_os_root_close(nkhttp_p_root* r) {
    if (r->path) nkloop_alloc(r->L, r->path, r->len + 1, 0);
    if (r->fd >= 0) nkhttp_p_os_close((nkloop_fd)r->fd);
    r->path = NULL;
    r->fd = -1;
}

static int nkhttp_p_os_root_open(nkhttp_p_root* r, nkloop* L, const char* dir, int follow) {
    char real[NKHTTP_P_REAL_MAX];
    r->L = L;
    r->follow = follow;
    r->path = NULL;
    r->len = 0;
    r->fd = nkhttp_p_os_openat(AT_FDCWD, dir, NKHTTP_P_O_WALK);
    if (r->fd < 0) return nkhttp_p_os_error(errno);
    if (!follow) return NKHTTP_OK;
    if (!realpath(dir, real)) real[0] = 0;
    r->len = strlen(real);
    if (r->len == 1) r->len = 0; // "/" itself: what follows it starts with a slash all the same
    r->path = (char*)nkloop_alloc(L, NULL, 0, r->len + 1);
    if (!r->path || !real[0]) {
        nkhttp_p_os_root_close(r);
        if (!real[0]) return NKHTTP_ERR_NOT_FOUND;
        return NKLOOP_ERR_NOMEM;
    }
    memcpy(r->path, real, r->len);
    r->path[r->len] = 0;
    return NKHTTP_OK;
}

// What a name in a directory is, for a listing. 0: not shown, because it would not be served either.
static int nkhttp_p_os_look(nkhttp_p_root* r, int dir, const char* path, const char* name,
                            nkhttp_p_os_info* info) {
    char full[NKHTTP_P_REAL_MAX];
    size_t pn = strlen(path), nn = strlen(name);
    struct stat st;
    nkloop_fd file = NKLOOP_NO_FD;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return 0;
    info->size = (uint64_t)st.st_size;
    info->mtime = (int64_t)st.st_mtime;
    info->is_directory = S_ISDIR(st.st_mode) ? 1 : 0;
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) return 1;
    if (!S_ISLNK(st.st_mode) || !r->follow || pn + nn + 2 > sizeof full) return 0;
    memcpy(full, path, pn); // opened as a request for the link would be: nothing leaks
    if (pn) full[pn++] = '/';
    memcpy(full + pn, name, nn + 1);
    if (nkhttp_p_os_open(r, full, &file, info) != NKHTTP_OK) return 0;
    nkhttp_p_os_close(file);
    return 1;
}

static int nkhttp_p_os_list(nkhttp_p_root* r, const char* path, nkhttp_p_entry_fn entry,
                            void* sink) {
    int fd = nkhttp_p_os_open_beneath(r, path);
    nkhttp_p_os_info info;
    struct dirent* e;
    DIR* d;
    if (fd < 0) return nkhttp_p_os_error(errno);
    d = fdopendir(fd);
    if (!d) {
        int err = nkhttp_p_os_error(errno);
        nkhttp_p_os_close((nkloop_fd)fd);
        return err;
    }
    while ((e = readdir(d)) != NULL) { // a read error ends the list early
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (nkhttp_p_os_look(r, fd, path, e->d_name, &info)) {
            entry(sink, e->d_name, info.is_directory, info.size, info.mtime);
        }
    }
    closedir(d);
    return NKHTTP_OK;
}
#undef NKHTTP_P_SYS_OPENAT2
#undef NKHTTP_P_REAL_MAX
#undef NKHTTP_P_O_WALK
#endif // POSIX

// ---- @vfs ------------------------------------------------------------------------------------
// What files are served from: a directory and a table in the program, each dressed as nkhttp_vfs,
// so that everything below knows one kind of source only.

enum {
    NKHTTP_P_FILE_CHUNK = 64 * 1024, // smaller files are read at once, larger ones in pieces
    NKHTTP_P_FILE_PATH  = 4096,      // longest name of a file, the index name and ".gz" included
    NKHTTP_P_FILE_RANGES = 16        // more ranges in one request: the whole file
};

static void nkhttp_p_file_hex(nkhttp_out* o, uint64_t v) {
    char tmp[16];
    size_t i = sizeof tmp;
    do tmp[--i] = "0123456789abcdef"[v & 15];
    while ((v >>= 4) != 0);
    nkhttp_out_raw(o, tmp + i, sizeof tmp - i);
}

static void nkhttp_p_file_u64(nkhttp_out* o, uint64_t v) {
    char tmp[20];
    nkhttp_out_raw(o, tmp, nkhttp_p_u64(tmp, v));
}

static void nkhttp_p_file_put(nkhttp_out* o, const char* text) {
    nkhttp_out_raw(o, text, strlen(text));
}

// Strong: another content has another size, time (to the nanosecond, where there are any) or inode.
// RFC 9110 8.8.3
static void nkhttp_p_make_etag(char etag[64], uint64_t size, uint64_t time_part, uint64_t id) {
    nkhttp_out o;
    nkhttp_out_init(&o, etag, 64);
    nkhttp_p_file_put(&o, "\"");
    nkhttp_p_file_hex(&o, size);
    nkhttp_p_file_put(&o, "-");
    nkhttp_p_file_hex(&o, time_part);
    nkhttp_p_file_put(&o, "-");
    nkhttp_p_file_hex(&o, id);
    nkhttp_out_raw(&o, "\"", 2); // at most 53 bytes with the NUL
}

// -- a directory
static void nkhttp_p_disk_describe(const nkhttp_p_os_info* info, nkloop_fd file, nkhttp_file* out) {
    out->size = info->size;
    out->mtime = info->mtime;
    out->is_directory = info->is_directory;
    out->os_file = file;
    nkhttp_p_make_etag(out->etag, info->size, info->mtime_ns, info->id);
}

static int nkhttp_p_disk_open(void* user, const char* path, nkhttp_file* out) {
    nkhttp_p_os_info info;
    nkloop_fd file = NKLOOP_NO_FD;
    int err = nkhttp_p_os_open((nkhttp_p_root*)user, path, &file, &info);
    if (!err) nkhttp_p_disk_describe(&info, file, out);
    return err;
}

static int nkhttp_p_disk_read(void* user, nkhttp_file* f, uint64_t offset, void* out, size_t n) {
    (void)user;
    return nkhttp_p_os_read_at(f->os_file, offset, out, n);
}

static void nkhttp_p_disk_close(void* user, nkhttp_file* f) {
    (void)user;
    nkhttp_p_os_close(f->os_file);
}

static int nkhttp_p_disk_list(void* user, const char* path, nkhttp_p_entry_fn entry, void* sink) {
    return nkhttp_p_os_list((nkhttp_p_root*)user, path, entry, sink);
}

static const nkhttp_vfs nkhttp_p_disk = {
    nkhttp_p_disk_open, nkhttp_p_disk_read, nkhttp_p_disk_close, nkhttp_p_disk_list
};

// -- a table in the program, found through an index sorted by path
typedef struct nkhttp_p_embed {
    const nkhttp_embedded* e;
    uint64_t hash; // of the bytes if etag is NULL
} nkhttp_p_embed;

typedef struct nkhttp_p_table {
    nkhttp_p_embed* at;
    uint32_t        num;
    nkloop*         L;
} nkhttp_p_table;

static int nkhttp_p_embed_compare(const void* a, const void* b) {
    return strcmp(((const nkhttp_p_embed*)a)->e->path, ((const nkhttp_p_embed*)b)->e->path);
}

// 8 bytes at a time; names a content among its own later versions, no more.
static uint64_t nkhttp_p_content_hash(const void* bytes, size_t n) {
    const uint8_t* p = (const uint8_t*)bytes;
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    size_t w;
    for (; n; p += w, n -= w) {
        uint64_t v = 0;
        w = n < 8 ? n : 8;
        memcpy(&v, p, w);
        h = (h ^ v) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

static int nkhttp_p_table_init(nkhttp_p_table* t, nkloop* L, const nkhttp_embedded* table,
                               uint32_t num) {
    uint32_t i;
    t->L = L;
    t->num = 0;
    t->at = (nkhttp_p_embed*)nkloop_alloc(L, NULL, 0, (size_t)num * sizeof(nkhttp_p_embed));
    if (!t->at) return NKLOOP_ERR_NOMEM; // caller checked num > 0
    t->num = num;
    for (i = 0; i < num; i++) {
        const nkhttp_embedded* e = &table[i];
        t->at[i].e = e;
        t->at[i].hash = e->etag ? 0 : nkhttp_p_content_hash(e->bytes, e->num_bytes);
    }
    qsort(t->at, num, sizeof(nkhttp_p_embed), nkhttp_p_embed_compare);
    return NKHTTP_OK;
}

static void nkhttp_p_table_free(nkhttp_p_table* t) {
    if (t->at) nkloop_alloc(t->L, t->at, (size_t)t->num * sizeof(nkhttp_p_embed), 0);
    t->at = NULL;
}

// First entry that is not before path, or before path and a "/" behind it:
// that is where a directory's entries begin.
static uint32_t nkhttp_p_table_find(const nkhttp_p_table* t, const char* path, int below) {
    size_t n = strlen(path);
    uint32_t low = 0, high = t->num;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const char* name = t->at[mid].e->path;
        int order = strncmp(name, path, n);
        if (!order) order = below ? (unsigned char)name[n] - '/' : name[n] != 0;
        if (order < 0) low = mid + 1;
        else high = mid;
    }
    return low;
}

// 1: entry i lies below the directory path, and *rest is its name from there.
static int nkhttp_p_table_below(const nkhttp_p_table* t, uint32_t i, const char* path,
                                const char** rest) {
    size_t n = strlen(path);
    const char* name = i < t->num ? t->at[i].e->path : "";
    if (i >= t->num || strncmp(name, path, n) != 0 || (n && name[n] != '/')) return 0;
    *rest = name + n + (n != 0);
    return 1;
}

static int nkhttp_p_table_open(void* user, const char* path, nkhttp_file* out) {
    const nkhttp_p_table* t = (const nkhttp_p_table*)user;
    const char* rest;
    size_t n;
    uint32_t i = nkhttp_p_table_find(t, path, 0);
    if (i < t->num && strcmp(t->at[i].e->path, path) == 0) {
        const nkhttp_embedded* e = t->at[i].e;
        out->size = e->num_bytes;
        out->mtime = e->mtime;
        out->bytes = e->bytes ? e->bytes : "";
        n = e->etag ? strlen(e->etag) + 1 : 0;
        if (!n) nkhttp_p_make_etag(out->etag, e->num_bytes, t->at[i].hash, 0);
        else if (n <= sizeof out->etag) memcpy(out->etag, e->etag, n);
        return NKHTTP_OK;
    }
    i = nkhttp_p_table_find(t, path, 1);
    out->is_directory = !*path || nkhttp_p_table_below(t, i, path, &rest);
    if (!out->is_directory) return NKHTTP_ERR_NOT_FOUND;
    return NKHTTP_OK;
}

static int nkhttp_p_table_list(void* user, const char* path, nkhttp_p_entry_fn entry, void* sink) {
    const nkhttp_p_table* t = (const nkhttp_p_table*)user;
    char name[256], last[256] = "";
    const char* rest;
    uint32_t i = *path ? nkhttp_p_table_find(t, path, 1) : 0;
    for (; nkhttp_p_table_below(t, i, path, &rest); i++) {
        const char* slash = strchr(rest, '/');
        size_t n = slash ? (size_t)(slash - rest) : strlen(rest);
        if (n >= sizeof name) continue;
        memcpy(name, rest, n);
        name[n] = 0;
        if (!slash) {
            entry(sink, name, 0, t->at[i].e->num_bytes, t->at[i].e->mtime);
        } else if (strcmp(name, last) != 0) { // the files of one directory follow each other
            memcpy(last, name, n + 1);
            entry(sink, name, 1, 0, 0);
        }
    }
    return NKHTTP_OK;
}

static const nkhttp_vfs nkhttp_p_embedded = {
    nkhttp_p_table_open, NULL, NULL, nkhttp_p_table_list
};

// -- any of them
static int nkhttp_p_vfs_open(const nkhttp_vfs* vfs, void* user, const char* path,
                             nkhttp_file* out) {
    memset(out, 0, sizeof *out);
    out->os_file = NKLOOP_NO_FD;
    return vfs->open_fn(user, path, out);
}

// 1 .. n bytes, or an error: at the end of the file too,
// for callers never ask for more than its size.
static int nkhttp_p_vfs_read(const nkhttp_vfs* vfs, void* user, nkhttp_file* f, uint64_t offset,
                             void* out, size_t n) {
    int got = vfs->read_fn ? vfs->read_fn(user, f, offset, out, n) : -1;
    return got > 0 && (size_t)got <= n ? got : NKLOOP_ERR_FILE;
}

static void nkhttp_p_vfs_close(const nkhttp_vfs* vfs, void* user, nkhttp_file* f) {
    if (vfs->close_fn) vfs->close_fn(user, f);
}

// ---- @filebody -------------------------------------------------------------------------------
// A file, or ranges of it, on its way to a client. The server asks for more whenever the stream can
// take more; the file stays open until the loop has given back the last piece.

typedef struct nkhttp_p_filebody {
    nkloop*           L;
    const nkhttp_vfs* vfs;
    void*             vfs_user;
    nkhttp_file       file;
    nkhttp_range      ranges[NKHTTP_P_FILE_RANGES];
    uint32_t          num_ranges, at_range;
    uint32_t          refs;         // the exchange, and each piece that the loop holds
    int               is_multipart, head_sent; // head_sent: of the part at_range
    uint64_t          offset;       // next byte of the file
    struct nkhttp_p_filepiece* piece;   // read, but refused by the stream so far
    char              boundary[20];
    char              type[128];
} nkhttp_p_filebody;

typedef struct nkhttp_p_filepiece { // cap bytes follow
    nkloop* L;
    size_t  n, cap;
} nkhttp_p_filepiece;

static uint8_t* nkhttp_p_filepiece_bytes(nkhttp_p_filepiece* p) { return (uint8_t*)(p + 1); }

static nkhttp_p_filepiece* nkhttp_p_filepiece_new(nkloop* L, size_t cap) {
    nkhttp_p_filepiece* p = (nkhttp_p_filepiece*)nkloop_alloc(L, NULL, 0, sizeof *p + cap);
    if (!p) return NULL;
    p->L = L;
    p->n = 0;
    p->cap = cap;
    return p;
}

static void nkhttp_p_filepiece_free(void* user) {
    nkhttp_p_filepiece* p = (nkhttp_p_filepiece*)user;
    nkloop_alloc(p->L, p, sizeof *p + p->cap, 0);
}

static void nkhttp_p_filebody_release(void* user) {
    nkhttp_p_filebody* b = (nkhttp_p_filebody*)user;
    if (--b->refs) return;
    if (b->piece) nkhttp_p_filepiece_free(b->piece);
    nkhttp_p_vfs_close(b->vfs, b->vfs_user, &b->file);
    nkloop_alloc(b->L, b, sizeof *b, 0);
}

// Head of the part at range i, or with i == num_ranges the end of them all. RFC 9110 14.6
static size_t nkhttp_p_filebody_text(const nkhttp_p_filebody* b, uint32_t i, char* text,
                                     size_t cap) {
    nkhttp_out o;
    nkhttp_out_init(&o, text, cap);
    nkhttp_p_file_put(&o, i ? "\r\n--" : "--");
    nkhttp_p_file_put(&o, b->boundary);
    if (i == b->num_ranges) {
        nkhttp_p_file_put(&o, "--\r\n");
        return o.len;
    }
    nkhttp_p_file_put(&o, "\r\nContent-Type: ");
    nkhttp_p_file_put(&o, b->type);
    nkhttp_p_file_put(&o, "\r\nContent-Range: bytes ");
    nkhttp_p_file_u64(&o, b->ranges[i].first);
    nkhttp_p_file_put(&o, "-");
    nkhttp_p_file_u64(&o, b->ranges[i].last);
    nkhttp_p_file_put(&o, "/");
    nkhttp_p_file_u64(&o, b->file.size);
    nkhttp_p_file_put(&o, "\r\n\r\n");
    return o.len;
}

// Sum of ranges and texts. Cannot wrap: ranges lie within the file and do not overlap.
static uint64_t nkhttp_p_filebody_length(const nkhttp_p_filebody* b) {
    char text[320];
    uint64_t sum = 0;
    uint32_t i;
    for (i = 0; i < b->num_ranges; i++) sum += b->ranges[i].last - b->ranges[i].first + 1;
    for (i = 0; b->is_multipart && i <= b->num_ranges; i++) {
        sum += nkhttp_p_filebody_text(b, i, text, sizeof text);
    }
    return sum;
}

// One piece through read_fn. It is kept if the stream refuses it, so that nothing is read twice.
static int nkhttp_p_filebody_read(nkhttp_p_filebody* b, nkloop_stream s, uint64_t want,
                                  size_t* sent) {
    nkhttp_p_filepiece* p = b->piece;
    int err, got;
    if (!p) {
        if (want > NKHTTP_P_FILE_CHUNK) want = NKHTTP_P_FILE_CHUNK;
        p = nkhttp_p_filepiece_new(b->L, (size_t)want);
        if (!p) return NKLOOP_ERR_NOMEM;
        b->piece = p;
        got = nkhttp_p_vfs_read(b->vfs, b->vfs_user, &b->file, b->offset,
                                nkhttp_p_filepiece_bytes(p), p->cap);
        if (got < 0) return got; // shrunk, or unreadable now: the length can no longer be kept
        p->n = (size_t)got;
    }
    err = nkloop_write_ref(b->L, s, nkhttp_p_filepiece_bytes(p), p->n, nkhttp_p_filepiece_free, p);
    if (err) return err;
    *sent = p->n;
    b->piece = NULL;
    return NKHTTP_OK;
}

// As much of the range as the stream takes in one call:
// all of it where the loop reads the file or the bytes stay.
static int nkhttp_p_filebody_range(nkhttp_p_filebody* b, nkloop_stream s, uint64_t want,
                                   uint64_t* sent) {
    size_t n = want > (SIZE_MAX >> 1) ? (SIZE_MAX >> 1) : (size_t)want;
    int err;
    *sent = n;
    if (b->file.bytes) {
        err = nkloop_write_ref(b->L, s, (const uint8_t*)b->file.bytes + b->offset, n,
                               nkhttp_p_filebody_release, b);
    } else if (b->file.os_file != NKLOOP_NO_FD) {
        *sent = want;
        err = nkloop_write_file(b->L, s, b->file.os_file, b->offset, want,
                                nkhttp_p_filebody_release, b);
    } else {
        err = nkhttp_p_filebody_read(b, s, want, &n);
        *sent = n;
        return err;
    }
    if (!err) b->refs++;
    return err;
}

// See nkhttp_p_pull.
static int nkhttp_p_filebody_pull(void* self, nkloop* L, nkloop_stream s, uint64_t* written) {
    nkhttp_p_filebody* b = (nkhttp_p_filebody*)self;
    char text[320];
    uint64_t n = 0;
    int err;
    for (;;) {
        if (b->is_multipart && !b->head_sent) {
            n = nkhttp_p_filebody_text(b, b->at_range, text, sizeof text);
            err = nkloop_write(L, s, text, (size_t)n);
            if (!err) b->head_sent = 1;
        } else if (b->at_range == b->num_ranges) {
            return 1;
        } else {
            uint64_t end = b->ranges[b->at_range].last + 1;
            err = nkhttp_p_filebody_range(b, s, end - b->offset, &n);
            if (!err && (b->offset += n) == end) {
                b->head_sent = 0;
                if (++b->at_range < b->num_ranges) b->offset = b->ranges[b->at_range].first;
            }
        }
        if (err) return err == NKLOOP_ERR_FULL ? 0 : err;
        *written += n;
    }
}

// ---- @listing --------------------------------------------------------------------------------
// A directory as a page of HTML. Names are hostile: whoever can put a file there chooses them.

enum { NKHTTP_P_LISTING_MAX = 10000 }; // entries; the page says when there are more

typedef struct nkhttp_p_text { // grows
    nkloop* L;
    char*   ptr;
    size_t  len, cap;
    int     failed;
} nkhttp_p_text;

typedef struct nkhttp_p_entry {
    const char* name;
    size_t      at;
    uint64_t    size;
    int64_t     mtime;
    int         is_directory;
} nkhttp_p_entry;

typedef struct nkhttp_p_listing {
    const char*     prefix;
    const char*     path;
    nkhttp_p_text   names;   // one after the other, each with its NUL
    nkhttp_p_entry* entries; // name is valid only once all are there: names move while they grow
    uint32_t        num, cap, flags;
    int             failed, more;
} nkhttp_p_listing;

static void nkhttp_p_text_add(nkhttp_p_text* t, const char* p, size_t n) {
    if (t->cap - t->len < n && !t->failed) {
        size_t cap = t->cap ? t->cap * 2 : 4096; // cannot wrap: entries are bounded
        char* ptr;
        while (cap - t->len < n) cap *= 2;
        ptr = (char*)nkloop_alloc(t->L, t->ptr, t->cap, cap);
        if (!ptr) t->failed = 1;
        else { t->ptr = ptr; t->cap = cap; }
    }
    if (t->failed) return;
    if (n) memcpy(t->ptr + t->len, p, n);
    t->len += n;
}

static void nkhttp_p_text_put(nkhttp_p_text* t, const char* s) {
    nkhttp_p_text_add(t, s, strlen(s));
}

static void nkhttp_p_text_free(nkhttp_p_text* t) {
    if (t->ptr) nkloop_alloc(t->L, t->ptr, t->cap, 0);
    t->ptr = NULL;
    t->len = t->cap = 0;
}

// As text or as the value of a quoted attribute.
static void nkhttp_p_text_html(nkhttp_p_text* t, const char* s, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        switch (s[i]) {
        case '&':  nkhttp_p_text_put(t, "&amp;"); break;
        case '<':  nkhttp_p_text_put(t, "&lt;"); break;
        case '>':  nkhttp_p_text_put(t, "&gt;"); break;
        case '"':  nkhttp_p_text_put(t, "&quot;"); break;
        case '\'': nkhttp_p_text_put(t, "&#39;"); break;
        default:   nkhttp_p_text_add(t, s + i, 1);
        }
    }
}

// Would a request for this name find it? Names with control characters, backslashes or bad UTF-8,
// Windows devices and hidden files are not reachable, so they are not shown.
static int nkhttp_p_listable(const char* name, uint32_t flags) {
    char raw[3 * 256], clean[256];
    size_t n = 0;
    if (!*name || strlen(name) > 255) return 0;
    if (nkhttp_percent_encode(raw, sizeof raw, name, strlen(name), &n) != NKHTTP_OK) return 0;
    if (nkhttp_path_clean(clean, sizeof clean, nkhttp_p_str(raw, n), flags) <= 0) return 0;
    return strcmp(clean, name) == 0;
}

static void nkhttp_p_listing_add(void* sink, const char* name, int is_directory, uint64_t size,
                                 int64_t mtime) {
    nkhttp_p_listing* l = (nkhttp_p_listing*)sink;
    nkhttp_p_entry* e;
    if (l->failed || l->more || !nkhttp_p_listable(name, l->flags)) return;
    if (l->num == NKHTTP_P_LISTING_MAX) {
        l->more = 1;
        return;
    }
    if (l->num == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 64;
        e = (nkhttp_p_entry*)nkloop_alloc(l->names.L, l->entries, l->cap * sizeof *e,
                                          cap * sizeof *e);
        if (!e) {
            l->failed = 1;
            return;
        }
        l->entries = e;
        l->cap = cap;
    }
    e = &l->entries[l->num++];
    e->name = NULL;
    e->at = l->names.len;
    e->size = size;
    e->mtime = mtime;
    e->is_directory = is_directory;
    nkhttp_p_text_add(&l->names, name, strlen(name) + 1);
    l->failed = l->names.failed;
}

// directories first, then by the bytes of the names
static int nkhttp_p_entry_compare(const void* a, const void* b) {
    const nkhttp_p_entry* x = (const nkhttp_p_entry*)a;
    const nkhttp_p_entry* y = (const nkhttp_p_entry*)b;
    if (x->is_directory != y->is_directory) return y->is_directory - x->is_directory;
    return strcmp(x->name, y->name);
}

static void nkhttp_p_listing_row(nkhttp_p_text* t, const nkhttp_p_entry* e) {
    char text[3 * 256];
    size_t n = 0;
    nkhttp_p_text_put(t, "<tr><td><a href=\"./"); // "./": no name is taken for a scheme or a host
    nkhttp_percent_encode(text, sizeof text, e->name, strlen(e->name), &n);
    nkhttp_p_text_html(t, text, n);
    nkhttp_p_text_put(t, e->is_directory ? "/\">" : "\">");
    nkhttp_p_text_html(t, e->name, strlen(e->name));
    nkhttp_p_text_put(t, e->is_directory ? "/</a></td><td>" : "</a></td><td>");
    if (!e->is_directory) nkhttp_p_text_add(t, text, nkhttp_p_u64(text, e->size));
    nkhttp_p_text_put(t, "</td><td>");
    if (e->mtime > 0) {
        nkhttp_format_date(text, e->mtime);
        nkhttp_p_text_add(t, text, 29);
    }
    nkhttp_p_text_put(t, "</td></tr>\n");
}

static void nkhttp_p_listing_title(nkhttp_p_text* t, const nkhttp_p_listing* l) {
    nkhttp_p_text_html(t, l->prefix, strlen(l->prefix));
    nkhttp_p_text_html(t, l->path, strlen(l->path));
}

static void nkhttp_p_listing_page(nkhttp_p_text* t, nkhttp_p_listing* l) {
    uint32_t i;
    for (i = 0; i < l->num; i++) l->entries[i].name = l->names.ptr + l->entries[i].at;
    if (l->num) qsort(l->entries, l->num, sizeof(nkhttp_p_entry), nkhttp_p_entry_compare);
    nkhttp_p_text_put(t, "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>");
    nkhttp_p_listing_title(t, l);
    nkhttp_p_text_put(t, "</title><style>td{padding:0 1em;font-family:monospace}</style></head>");
    nkhttp_p_text_put(t, "<body><h1>");
    nkhttp_p_listing_title(t, l);
    nkhttp_p_text_put(t, "</h1>\n<table>\n");
    if (*l->path) nkhttp_p_text_put(t, "<tr><td><a href=\"../\">../</a></td></tr>\n");
    for (i = 0; i < l->num; i++) nkhttp_p_listing_row(t, &l->entries[i]);
    nkhttp_p_text_put(t, "</table>\n");
    if (l->more) nkhttp_p_text_put(t, "<p>... and more</p>\n");
    nkhttp_p_text_put(t, "</body></html>\n");
}

// l: zeros, but for prefix, path and flags. 0 and a page that the caller frees, or an error and
// nothing to free. page has its L.
static int nkhttp_p_listing_make(nkhttp_p_text* page, nkhttp_p_listing* l, const nkhttp_vfs* vfs,
                                 void* user) {
    int err;
    l->names.L = page->L;
    err = vfs->list_fn(user, l->path, nkhttp_p_listing_add, l);
    if (!err && l->failed) err = NKLOOP_ERR_NOMEM;
    if (!err) nkhttp_p_listing_page(page, l);
    if (!err && page->failed) err = NKLOOP_ERR_NOMEM;
    if (err) nkhttp_p_text_free(page);
    nkhttp_p_text_free(&l->names);
    if (l->entries) nkloop_alloc(page->L, l->entries, l->cap * sizeof *l->entries, 0);
    return err;
}

// ---- @filejob --------------------------------------------------------------------------------
// From an open file to the reply: whether, which form of it, which part. Knows nothing of paths.

typedef struct nkhttp_p_filefields { nkhttp_header at[10]; uint32_t num; } nkhttp_p_filefields;

// A reply in the making. From here on the file is ours to close.
typedef struct nkhttp_p_filejob {
    nkhttp_req*       req;
    const nkhttp_vfs* vfs;
    void*             vfs_user;
    nkhttp_file       file;
    const char*       type;
    const char*       cache_control; // "" none
    int               nosniff, vary, is_gzip;
    int64_t           now;
    nkhttp_p_filefields   fields;
    char              modified[29];
    char              content_range[72];
    char              multipart[64];
    nkhttp_range      ranges[NKHTTP_P_FILE_RANGES];
    int               num_ranges;    // 0 all of it
} nkhttp_p_filejob;

static void nkhttp_p_filefields_add(nkhttp_p_filefields* f, const char* name, const char* value,
                                    size_t n) {
    NETKIT_HTTP_ASSERT(f->num < sizeof f->at / sizeof f->at[0]);
    f->at[f->num].name = nkhttp_p_str(name, strlen(name));
    f->at[f->num].value = nkhttp_p_str(value, n);
    f->num++;
}

static void nkhttp_p_filefields_cache(nkhttp_p_filefields* f, const char* value) {
    if (*value) nkhttp_p_filefields_add(f, "Cache-Control", value, strlen(value));
}

static int nkhttp_p_file_status(int err) {
    switch (err) {
    case NKHTTP_ERR_NOT_FOUND: case NKHTTP_ERR_PATH: case NKHTTP_ERR_NOSPACE: return 404;
    case NKHTTP_ERR_FORBIDDEN: return 403;
    case NKHTTP_ERR_UNAVAILABLE: case NKLOOP_ERR_NOMEM: return 503;
    case NKHTTP_ERR_ENCODING: return 400;
    default: return 500;
    }
}

// fields may be NULL.
static int nkhttp_p_file_refuse(nkhttp_req* req, int status, const nkhttp_p_filefields* fields) {
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    d.status = status;
    if (fields) {
        d.headers = fields->at;
        d.num_headers = fields->num;
    }
    if (status != 304) { // RFC 9110 15.4.5: no content
        d.content_type = "text/plain; charset=utf-8";
        d.body = nkhttp_reason(status);
        d.body_bytes = strlen(nkhttp_reason(status));
    }
    return nkhttp_reply_with(req, &d);
}

// -- one file
// Validators as they go out. RFC 9110 8.8.2.1:
// a time in the future is not sent, the time of the reply is.
static void nkhttp_p_filejob_validators(nkhttp_p_filejob* j) {
    nkhttp_file* f = &j->file;
    j->now = nkhttp_p_os_now();
    f->etag[sizeof f->etag - 1] = 0;
    if (!f->etag[0] && f->mtime > 0) nkhttp_p_make_etag(f->etag, f->size, (uint64_t)f->mtime, 0);
    if (f->mtime > j->now) f->mtime = j->now;
    if (f->mtime < 0) f->mtime = 0;
}

static void nkhttp_p_filejob_fields(nkhttp_p_filejob* j) {
    nkhttp_p_filefields* f = &j->fields;
    if (j->file.etag[0]) nkhttp_p_filefields_add(f, "ETag", j->file.etag, strlen(j->file.etag));
    if (j->file.mtime) {
        nkhttp_format_date(j->modified, j->file.mtime);
        nkhttp_p_filefields_add(f, "Last-Modified", j->modified, sizeof j->modified);
    }
    nkhttp_p_filefields_cache(f, j->cache_control);
    if (j->vary) nkhttp_p_filefields_add(f, "Vary", "Accept-Encoding", 15);
    if (j->nosniff) nkhttp_p_filefields_add(f, "X-Content-Type-Options", "nosniff", 7);
}

// "bytes 0-4/10", or "bytes */10" for NULL.
static void nkhttp_p_filejob_content_range(nkhttp_p_filejob* j, const nkhttp_range* r) {
    nkhttp_out o;
    nkhttp_out_init(&o, j->content_range, sizeof j->content_range);
    nkhttp_p_file_put(&o, "bytes ");
    if (r) {
        nkhttp_p_file_u64(&o, r->first);
        nkhttp_p_file_put(&o, "-");
        nkhttp_p_file_u64(&o, r->last);
    } else {
        nkhttp_p_file_put(&o, "*");
    }
    nkhttp_p_file_put(&o, "/");
    nkhttp_p_file_u64(&o, j->file.size);
    nkhttp_p_filefields_add(&j->fields, "Content-Range", j->content_range, o.len);
}

// Number of ranges to send, 0: the whole file, NKHTTP_ERR_RANGE.
static int nkhttp_p_filejob_ranges(nkhttp_p_filejob* j) {
    const nkhttp_head* head = j->req->head;
    const nkhttp_header* h = nkhttp_find(head, "Range");
    nkhttp_str etag = nkhttp_p_str(j->file.etag, strlen(j->file.etag));
    // RFC 9110 14.2: Range means something with GET only
    if (head->method_id != NKHTTP_GET || j->is_gzip) return 0;
    if (!h || nkhttp_find_next(head, h, "Range")) return 0;
    if (!nkhttp_if_range_ok(head, etag, j->file.mtime ? j->file.mtime : -1)) return 0;
    return nkhttp_parse_range(h->value, j->file.size, j->ranges, NKHTTP_P_FILE_RANGES);
}

// 64 bits that nobody knew when the file was written.
static void nkhttp_p_filejob_boundary(nkhttp_p_filejob* j, char boundary[20]) {
    static const char hex[] = "0123456789abcdef";
    uint64_t h = nkhttp_p_content_hash(j->file.etag, strlen(j->file.etag));
    int i;
    h ^= nkloop_now_ns(j->req->loop);
    memcpy(boundary, "nk-", 3);
    for (i = 0; i < 16; i++, h = (h << 4) | (h >> 60)) boundary[3 + i] = hex[h >> 60];
    boundary[19] = 0;
}

// n > 0 bytes into out, or an error.
static int nkhttp_p_filejob_read(nkhttp_p_filejob* j, uint64_t offset, uint8_t* out, size_t n) {
    size_t have = 0;
    while (have < n) {
        int got = nkhttp_p_vfs_read(j->vfs, j->vfs_user, &j->file, offset + have, out + have,
                                    n - have);
        if (got < 0) return got;
        have += (size_t)got;
    }
    return NKHTTP_OK;
}

// Small files: one read, and head and body leave together. Tiny ones are copied by the server,
// nothing is allocated here.
static int nkhttp_p_filejob_small(nkhttp_p_filejob* j, nkhttp_reply_desc* d, uint64_t offset,
                                  size_t n) {
    uint8_t tiny[4096];
    nkhttp_p_filepiece* p;
    int err = NKHTTP_OK;
    d->body = tiny;
    d->body_bytes = n;
    if (j->file.bytes) {
        d->body = (const uint8_t*)j->file.bytes + offset;
    } else if (n <= sizeof tiny) {
        err = nkhttp_p_filejob_read(j, offset, tiny, n);
    } else if ((p = nkhttp_p_filepiece_new(j->req->loop, n)) == NULL) {
        err = NKLOOP_ERR_NOMEM;
    } else {
        d->body = nkhttp_p_filepiece_bytes(p);
        err = nkhttp_p_filejob_read(j, offset, nkhttp_p_filepiece_bytes(p), n);
        if (err) nkhttp_p_filepiece_free(p);
        d->release_fn = nkhttp_p_filepiece_free;
        d->release_user = p;
    }
    if (err) err = nkhttp_p_file_refuse(j->req, nkhttp_p_file_status(err), NULL);
    else err = nkhttp_reply_with(j->req, d);
    nkhttp_p_vfs_close(j->vfs, j->vfs_user, &j->file);
    return err;
}

// RFC 9110 14.6: the type of the file moves into the parts.
static void nkhttp_p_filejob_multipart(nkhttp_p_filejob* j, nkhttp_p_filebody* b,
                                       nkhttp_reply_desc* d) {
    nkhttp_out o;
    size_t n = strlen(j->type);
    if (n >= sizeof b->type) n = 0; // nobody reads a type that long; the part then has an empty one
    memcpy(b->type, j->type, n);
    nkhttp_p_filejob_boundary(j, b->boundary);
    nkhttp_out_init(&o, j->multipart, sizeof j->multipart);
    nkhttp_p_file_put(&o, "multipart/byteranges; boundary=");
    nkhttp_out_raw(&o, b->boundary, sizeof b->boundary); // with its NUL
    d->content_type = j->multipart;
}

// Large files, several ranges, and HEAD, for which nothing is read at all.
static int nkhttp_p_filejob_large(nkhttp_p_filejob* j, nkhttp_reply_desc* d, uint64_t offset,
                                  uint64_t n) {
    nkhttp_p_filebody* b = (nkhttp_p_filebody*)nkloop_alloc(j->req->loop, NULL, 0, sizeof *b);
    nkhttp_p_pull pull;
    if (!b) {
        nkhttp_p_vfs_close(j->vfs, j->vfs_user, &j->file);
        return nkhttp_p_file_refuse(j->req, 503, NULL);
    }
    memset(b, 0, sizeof *b);
    b->L = j->req->loop;
    b->vfs = j->vfs;
    b->vfs_user = j->vfs_user;
    b->file = j->file;
    b->refs = 1;
    b->num_ranges = n ? 1 : 0;
    b->ranges[0].first = b->offset = offset;
    b->ranges[0].last = offset + n - 1;
    if (j->num_ranges > 1) {
        b->is_multipart = 1;
        b->num_ranges = (uint32_t)j->num_ranges;
        memcpy(b->ranges, j->ranges, b->num_ranges * sizeof b->ranges[0]);
        b->offset = b->ranges[0].first;
        nkhttp_p_filejob_multipart(j, b, d);
    }
    pull.pull_fn = nkhttp_p_filebody_pull;
    pull.end_fn = nkhttp_p_filebody_release;
    pull.self = b;
    return nkhttp_p_reply_pulled(j->req, d, nkhttp_p_filebody_length(b), &pull);
}

// 200 or 206, or 416.
static int nkhttp_p_filejob_content(nkhttp_p_filejob* j) {
    nkhttp_reply_desc d;
    uint64_t offset = 0, n = j->file.size;
    int num = nkhttp_p_filejob_ranges(j);
    if (num < 0) { // RFC 9110 15.5.17
        nkhttp_p_filejob_content_range(j, NULL);
        nkhttp_p_vfs_close(j->vfs, j->vfs_user, &j->file);
        return nkhttp_p_file_refuse(j->req, 416, &j->fields);
    }
    j->num_ranges = num;
    if (num == 1) {
        offset = j->ranges[0].first;
        n = j->ranges[0].last - offset + 1;
        nkhttp_p_filejob_content_range(j, &j->ranges[0]);
    }
    if (!j->is_gzip) nkhttp_p_filefields_add(&j->fields, "Accept-Ranges", "bytes", 5);
    else nkhttp_p_filefields_add(&j->fields, "Content-Encoding", "gzip", 4);
    memset(&d, 0, sizeof d);
    d.status = num ? 206 : 200;
    d.content_type = j->type;
    d.headers = j->fields.at;
    d.num_headers = j->fields.num;
    if (num <= 1 && n > 0 && n <= NKHTTP_P_FILE_CHUNK && j->req->head->method_id == NKHTTP_GET) {
        return nkhttp_p_filejob_small(j, &d, offset, (size_t)n);
    }
    return nkhttp_p_filejob_large(j, &d, offset, n);
}

// req, vfs, file, type and the choices are set; answers in any case.
static int nkhttp_p_filejob_reply(nkhttp_p_filejob* j) {
    nkhttp_str etag;
    int64_t mtime;
    int status;
    nkhttp_p_filejob_validators(j);
    nkhttp_p_filejob_fields(j);
    etag = nkhttp_p_str(j->file.etag, strlen(j->file.etag));
    mtime = j->file.mtime ? j->file.mtime : -1;
    status = nkhttp_check_preconditions(j->req->head, 1, etag, mtime, 1, j->now);
    if (status == 0) return nkhttp_p_filejob_content(j);
    nkhttp_p_vfs_close(j->vfs, j->vfs_user, &j->file);
    return nkhttp_p_file_refuse(j->req, status, &j->fields);
}

// ---- @files ----------------------------------------------------------------------------------
// From a request to the file: paths below a prefix, directories, .gz files; and what the user calls.

typedef struct nkhttp_p_files {     // one nkhttp_serve_files
    struct nkhttp_p_files* next;    // list of the server
    nkloop*           L;
    const nkhttp_vfs* vfs;
    void*             vfs_user;
    nkhttp_p_root     root;         // only one of these two is in use, or none
    nkhttp_p_table    table;
    const char*       index;        // "" none
    const char*       cache_control;// "" none
    char              prefix[256];  // with its last slash
    uint32_t          slashes;      // in the prefix: what is behind so many in a path is ours
    uint32_t          path_flags;
    size_t            bytes;        // of this block; the texts stand behind the struct
    int               has_root, list_directories, precompressed, nosniff;
} nkhttp_p_files;

// -- a request below a prefix
// The raw path behind the prefix. ptr NULL: the path is the prefix without its last slash. The
// router has compared the segments, maybe in another encoding,
// so they are counted and not compared again.
static nkhttp_str nkhttp_p_files_rest(const nkhttp_p_files* fs, nkhttp_str path) {
    uint32_t slashes = 0;
    size_t i;
    for (i = 0; i < path.len; i++) {
        if (path.ptr[i] != '/' || ++slashes != fs->slashes) continue;
        return nkhttp_p_str(path.ptr + i + 1, path.len - i - 1);
    }
    return nkhttp_p_str(NULL, 0);
}

// Does a raw path name a directory by its last segment: "" or "."?
static int nkhttp_p_files_slash(nkhttp_str raw) {
    size_t n = raw.len;
    while (n && raw.ptr[n - 1] != '/') n--;
    raw = nkhttp_p_str(raw.ptr + n, raw.len - n);
    return !raw.len || nkhttp_is(raw, ".") || nkhttp_is(raw, "%2e");
}

// 301 to the same name with a slash, relative, so that proxies that rewrite paths do no harm. "./"
// and the encoding see to it that it stays a name:
// "//evil.example" and "javascript:" are out of reach.
static int nkhttp_p_files_redirect(nkhttp_req* req) {
    char name[3 * 256], location[8 * 1024];
    nkhttp_str path = req->head->path;
    nkhttp_reply_desc d;
    nkhttp_header h;
    nkhttp_out o;
    size_t i = path.len, n = 0;
    int err;
    while (i && path.ptr[i - 1] != '/') i--;
    err = nkhttp_percent_decode(name, sizeof name, path.ptr + i, path.len - i, &n);
    nkhttp_out_init(&o, location, sizeof location);
    nkhttp_p_file_put(&o, "./");
    if (!err) err = nkhttp_percent_encode(location + o.len, sizeof location - o.len, name, n, &n);
    if (err) return nkhttp_p_file_refuse(req, 404, NULL);
    o.len += n;
    nkhttp_p_file_put(&o, "/");
    if (req->head->flags & NKHTTP_HAS_QUERY) {
        nkhttp_p_file_put(&o, "?");
        nkhttp_out_raw(&o, req->head->query.ptr, req->head->query.len);
    }
    if (o.err) return nkhttp_p_file_refuse(req, 404, NULL);
    memset(&d, 0, sizeof d);
    h.name = nkhttp_p_str("Location", 8);
    h.value = nkhttp_p_str(location, o.len);
    d.status = 301;
    d.headers = &h;
    d.num_headers = 1;
    return nkhttp_reply_with(req, &d);
}

// The .gz beside a file, if there is one: Vary says so to caches in any case. Ranges count bytes of
// the plain form, so that is what a request with Range gets. path has room for three more bytes.
static void nkhttp_p_files_gzip(nkhttp_p_filejob* j, char* path, size_t n) {
    nkhttp_str accept = nkhttp_value(j->req->head, "Accept-Encoding");
    nkhttp_file gz;
    int weight;
    memcpy(path + n, ".gz", 4);
    if (nkhttp_p_vfs_open(j->vfs, j->vfs_user, path, &gz) == NKHTTP_OK) {
        weight = nkhttp_accepts_encoding(accept, "gzip");
        j->vary |= !gz.is_directory;
        if (!gz.is_directory && weight > 0 && weight >= nkhttp_accepts_encoding(accept, "identity")
            && !nkhttp_find(j->req->head, "Range")) {
            nkhttp_file plain = j->file;
            j->file = gz;
            gz = plain;
            j->is_gzip = 1;
        }
        nkhttp_p_vfs_close(j->vfs, j->vfs_user, &gz);
    }
    path[n] = 0;
}

static int nkhttp_p_files_file(nkhttp_p_files* fs, nkhttp_p_filejob* j, char* path, size_t n) {
    j->type = nkhttp_mime(path, n);
    j->cache_control = fs->cache_control;
    j->nosniff = fs->nosniff;
    if (fs->precompressed) nkhttp_p_files_gzip(j, path, n);
    return nkhttp_p_filejob_reply(j);
}

static void nkhttp_p_files_page_free(void* user) {
    nkhttp_p_text* page = (nkhttp_p_text*)user;
    nkloop* L = page->L;
    nkhttp_p_text_free(page);
    nkloop_alloc(L, page, sizeof *page, 0);
}

// NULL: *err says why.
static nkhttp_p_text* nkhttp_p_files_page(nkhttp_p_files* fs, const char* path, int* err) {
    nkhttp_p_text* page = (nkhttp_p_text*)nkloop_alloc(fs->L, NULL, 0, sizeof *page);
    nkhttp_p_listing l;
    *err = NKLOOP_ERR_NOMEM;
    if (!page) return NULL;
    memset(page, 0, sizeof *page);
    memset(&l, 0, sizeof l);
    page->L = fs->L;
    l.prefix = fs->prefix;
    l.path = path;
    l.flags = fs->path_flags;
    *err = nkhttp_p_listing_make(page, &l, fs->vfs, fs->vfs_user);
    if (!*err) return page;
    nkhttp_p_files_page_free(page);
    return NULL;
}

static int nkhttp_p_files_list(nkhttp_p_files* fs, nkhttp_req* req, const char* path) {
    static const char policy[] = "default-src 'none'; style-src 'unsafe-inline'";
    int err;
    nkhttp_p_text* page = nkhttp_p_files_page(fs, path, &err);
    nkhttp_p_filefields f;
    nkhttp_reply_desc d;
    if (!page) return nkhttp_p_file_refuse(req, nkhttp_p_file_status(err), NULL);
    f.num = 0;
    nkhttp_p_filefields_cache(&f, fs->cache_control);
    if (fs->nosniff) nkhttp_p_filefields_add(&f, "X-Content-Type-Options", "nosniff", 7);
    nkhttp_p_filefields_add(&f, "Content-Security-Policy", policy, sizeof policy - 1);
    memset(&d, 0, sizeof d);
    d.status = 200;
    d.content_type = "text/html; charset=utf-8";
    d.headers = f.at;
    d.num_headers = f.num;
    d.body = page->ptr;
    d.body_bytes = page->len;
    d.release_fn = nkhttp_p_files_page_free;
    d.release_user = page;
    return nkhttp_reply_with(req, &d);
}

// A directory asked for with its slash. path has room for the index name.
static int nkhttp_p_files_directory(nkhttp_p_files* fs, nkhttp_p_filejob* j, char* path, size_t n) {
    size_t at = n;
    int err = NKHTTP_ERR_NOT_FOUND;
    if (*fs->index) {
        if (at) path[at++] = '/';
        memcpy(path + at, fs->index, strlen(fs->index) + 1);
        err = nkhttp_p_vfs_open(fs->vfs, fs->vfs_user, path, &j->file);
        if (!err && !j->file.is_directory) return nkhttp_p_files_file(fs, j, path, strlen(path));
        if (!err) nkhttp_p_vfs_close(fs->vfs, fs->vfs_user, &j->file);
        if (!err) err = NKHTTP_ERR_NOT_FOUND;
        path[n] = 0;
    }
    if (err == NKHTTP_ERR_NOT_FOUND && fs->list_directories && fs->vfs->list_fn) {
        return nkhttp_p_files_list(fs, j->req, path);
    }
    return nkhttp_p_file_refuse(j->req, nkhttp_p_file_status(err), NULL);
}

static void nkhttp_p_files_serve(void* user, nkhttp_req* req) {
    nkhttp_p_files* fs = (nkhttp_p_files*)user;
    nkhttp_str raw = nkhttp_p_files_rest(fs, req->head->path);
    char path[NKHTTP_P_FILE_PATH];
    nkhttp_p_filejob j;
    int n, err;
    if (!raw.ptr) {
        nkhttp_p_files_redirect(req);
        return;
    }
    n = (int)(strlen(fs->index) + sizeof "/.gz"); // what may be added to the path
    n = nkhttp_path_clean(path, sizeof path - (size_t)n, raw, fs->path_flags);
    memset(&j, 0, sizeof j);
    j.req = req;
    j.vfs = fs->vfs;
    j.vfs_user = fs->vfs_user;
    err = n < 0 ? n : nkhttp_p_vfs_open(fs->vfs, fs->vfs_user, path, &j.file);
    if (err) {
        nkhttp_p_file_refuse(req, nkhttp_p_file_status(err), NULL);
        return;
    }
    if (!j.file.is_directory && !nkhttp_p_files_slash(raw)) {
        nkhttp_p_files_file(fs, &j, path, (size_t)n);
        return;
    }
    nkhttp_p_vfs_close(fs->vfs, fs->vfs_user, &j.file);
    if (!j.file.is_directory) nkhttp_p_file_refuse(req, 404, NULL); // "/file.txt/"
    else if (!nkhttp_p_files_slash(raw)) nkhttp_p_files_redirect(req);
    else nkhttp_p_files_directory(fs, &j, path, (size_t)n);
}

// -- life
static void nkhttp_p_files_free(nkhttp_p_files* fs) {
    if (fs->has_root) nkhttp_p_os_root_close(&fs->root);
    nkhttp_p_table_free(&fs->table);
    nkloop_alloc(fs->L, fs, fs->bytes, 0);
}

// Called once by the server, when no request is left.
static void nkhttp_p_files_destroy(nkhttp_server* srv) {
    while (srv->files) {
        nkhttp_p_files* fs = srv->files;
        srv->files = fs->next;
        nkhttp_p_files_free(fs);
    }
}

static int nkhttp_p_files_source(nkhttp_p_files* fs, const nkhttp_files_desc* d) {
    int err = NKHTTP_OK;
    if (d->vfs) {
        fs->vfs = d->vfs;
        fs->vfs_user = d->vfs_user;
    } else if (d->table) {
        fs->vfs = &nkhttp_p_embedded;
        fs->vfs_user = &fs->table;
        err = nkhttp_p_table_init(&fs->table, fs->L, d->table, d->num_embedded);
    } else {
        fs->vfs = &nkhttp_p_disk;
        fs->vfs_user = &fs->root;
        err = nkhttp_p_os_root_open(&fs->root, fs->L, d->root, d->follow_symlinks);
        fs->has_root = !err;
    }
    return err;
}

static int nkhttp_p_files_new(nkhttp_p_files** out, nkloop* L, const nkhttp_files_desc* d) {
    const char* index = d->index ? d->index : "index.html";
    const char* cache = d->cache_control ? d->cache_control : "";
    size_t in = strlen(index) + 1, cn = strlen(cache) + 1;
    nkhttp_p_files* fs;
    int err;
    if (in > 256 || cn > 1024) return NKLOOP_ERR_INVAL;
    if (!nkhttp_field_ok("Cache-Control", 13, cache, cn - 1)) return NKLOOP_ERR_INVAL;
    fs = (nkhttp_p_files*)nkloop_alloc(L, NULL, 0, sizeof *fs + in + cn);
    if (!fs) return NKLOOP_ERR_NOMEM;
    memset(fs, 0, sizeof *fs);
    fs->L = L;
    fs->bytes = sizeof *fs + in + cn;
    fs->index = (char*)memcpy(fs + 1, index, in);
    fs->cache_control = (char*)memcpy((char*)(fs + 1) + in, cache, cn);
    fs->path_flags = d->allow_dotfiles ? NKHTTP_PATH_DOTFILES : 0;
    fs->list_directories = d->list_directories;
    fs->precompressed = !d->disable_precompressed;
    fs->nosniff = !d->disable_nosniff;
    err = nkhttp_p_files_source(fs, d);
    if (err) nkhttp_p_files_free(fs);
    else *out = fs;
    return err;
}

static int nkhttp_p_files_route(nkhttp_server* srv, nkhttp_p_files* fs, const char* pattern) {
    nkhttp_route_desc r;
    memset(&r, 0, sizeof r);
    r.method = "GET";
    r.pattern = pattern;
    r.on_request = nkhttp_p_files_serve;
    r.user = fs;
    r.in_loop = 1; // files are opened where they are sent
    return nkhttp_route_add(srv, &r);
}

// "/static/": everything below it, and "/static" for a redirect. The latter and "/static/" itself
// may be taken by routes of the application's own.
static int nkhttp_p_files_routes(nkhttp_server* srv, nkhttp_p_files* fs, const char* prefix,
                                 size_t n) {
    char pattern[256 + 16];
    int err;
    memcpy(pattern, prefix, n);
    memcpy(pattern + n, "{path*}", 8);
    err = nkhttp_p_files_route(srv, fs, pattern);
    if (err) {
        nkhttp_p_files_free(fs);
        return err;
    }
    fs->next = srv->files;
    srv->files = fs;
    pattern[n] = 0;
    err = nkhttp_p_files_route(srv, fs, pattern);
    if (err && err != NKHTTP_ERR_DUPLICATE) return err;
    if (n == 1) return NKHTTP_OK;
    pattern[n - 1] = 0;
    err = nkhttp_p_files_route(srv, fs, pattern);
    return err == NKHTTP_ERR_DUPLICATE ? NKHTTP_OK : err;
}

NETKIT_HTTP_API int nkhttp_serve_files(nkhttp_server* srv, const char* prefix,
                                       const nkhttp_files_desc* desc) {
    char full[256];
    nkhttp_p_files* fs;
    size_t n, i;
    int err, sources;
    NETKIT_HTTP_ASSERT(srv && prefix && desc);
    n = strlen(prefix);
    if (n + 2 > sizeof full || prefix[0] != '/') return NKLOOP_ERR_INVAL;
    sources = (desc->root != NULL) + (desc->vfs != NULL);
    sources += desc->table != NULL && desc->num_embedded > 0;
    if (sources != 1 || (desc->vfs && !desc->vfs->open_fn)) return NKLOOP_ERR_INVAL;
    memcpy(full, prefix, n);
    if (full[n - 1] != '/') full[n++] = '/'; // "/static" means "/static/"
    err = nkhttp_p_files_new(&fs, srv->L, desc);
    if (err) return err;
    memcpy(fs->prefix, full, n);
    for (i = 0; i < n; i++) fs->slashes += full[i] == '/';
    return nkhttp_p_files_routes(srv, fs, full, n);
}

NETKIT_HTTP_API int nkhttp_reply_file(nkhttp_req* req, const char* os_path,
                                      const char* content_type) {
    nkhttp_p_filejob j;
    nkhttp_p_os_info info;
    nkloop_fd file = NKLOOP_NO_FD;
    int err = nkhttp_p_answerable(req->p);
    if (!err && (req->p->flags & NKHTTP_P_X_RUNNING)) err = NKLOOP_ERR_INVAL; // in a worker
    if (err) return err;
    err = nkhttp_p_os_open_any(os_path, &file, &info);
    if (!err && info.is_directory) {
        nkhttp_p_os_close(file);
        err = NKHTTP_ERR_NOT_FOUND;
    }
    if (err) return nkhttp_p_file_refuse(req, nkhttp_p_file_status(err), NULL);
    memset(&j, 0, sizeof j);
    nkhttp_p_disk_describe(&info, file, &j.file);
    j.req = req;
    j.vfs = &nkhttp_p_disk;
    j.type = content_type ? content_type : nkhttp_mime(os_path, strlen(os_path));
    j.cache_control = "";
    return nkhttp_p_filejob_reply(&j);
}
#endif // NETKIT_HTTP_NO_FILES

#undef NKHTTP_P_LOG
#endif // NETKIT_HTTP_NO_LOOP
#endif // NETKIT_HTTP_IMPLEMENTED
#endif // NETKIT_HTTP_IMPLEMENTATION

/*  LICENCE: MIT or public domain, as you prefer.

    MIT: Copyright (c) 2026 the netkit authors. Permission is hereby granted, free of charge,
        to any person obtaining a
    copy of this software and associated documentation files (the "Software"), to deal in the Software without
    restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
    and/or sell copies of the Software,
        and to permit persons to whom the Software is furnished to do so, subject to the
    following conditions: The above copyright notice and this permission notice shall be included in all copies or
    substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
    IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
    NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
    LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
    SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

    Public domain (unlicense.org): This is free and unencumbered software released into the public domain. Anyone is
    free to copy, modify, publish, use, compile, sell, or distribute this software, either in source code form or as a
    compiled binary, for any purpose, commercial or non-commercial, and by any means. */
