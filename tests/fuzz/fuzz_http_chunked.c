/*  fuzz_http_chunked.c -- any bytes as a chunked body.
    However the bytes are cut, the same body, the same trailers, the same end; and a body that was decoded
    must decode to itself when it is encoded again.  */
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"

#define MUST(c) do { if (!(c)) __builtin_trap(); } while (0)

typedef struct outcome { char* text; size_t body, total, used; int end; } outcome; // body, then trailer lines

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

// Gives the decoder pieces of `piece` bytes after a first one; each call sees memory of its own size.
static outcome decode(const char* bytes, size_t size, size_t first, size_t piece) {
    nkhttp_chunked c;
    nkhttp_str data;
    outcome o;
    size_t have = first < size ? first : size, used;
    memset(&c, 0, sizeof c);
    memset(&o, 0, sizeof o);
    o.text = (char*)malloc(size + 1);
    MUST(o.text != NULL);
    for (;;) {
        size_t n = have - o.used;
        char* copy = (char*)malloc(n ? n : 1);
        MUST(copy != NULL);
        if (n) memcpy(copy, bytes + o.used, n);
        o.end = nkhttp_chunked_next(&c, copy, n, &used, &data);
        MUST(used <= n && data.ptr != NULL);
        if (o.end == NKHTTP_CHUNK_DATA || o.end == NKHTTP_CHUNK_TRAILER) {
            MUST(data.len > 0 && data.ptr >= copy && data.len <= (size_t)(copy + used - data.ptr));
            memcpy(o.text + o.total, data.ptr, data.len);
            o.total += data.len;
            if (o.end == NKHTTP_CHUNK_DATA) o.body += data.len;
            if (o.end == NKHTTP_CHUNK_TRAILER) MUST(nkhttp_trailer(data).name.len > 0);
        }
        free(copy);
        if (o.end < 0) { // where in a line an error is noticed depends on the cut, what came before does not
            MUST(nkhttp_chunked_next(&c, bytes, size, &used, &data) == o.end && used == 0);
            break;
        }
        o.used += used;
        if (o.end == NKHTTP_CHUNK_DONE) break;
        if (o.end != NKHTTP_CHUNK_MORE) continue;
        if (have == size) break;
        have = size - have < piece ? size : have + piece;
    }
    return o;
}

static void same(outcome a, outcome b) {
    MUST(a.end == b.end && a.body == b.body && a.total == b.total);
    MUST(a.end < 0 || a.used == b.used);
    MUST(a.total == 0 || memcmp(a.text, b.text, a.total) == 0);
    free(b.text);
}

static void round_trip(const char* body, size_t len, size_t piece) {
    size_t cap = len + (len / piece + 2) * 24, n = 0, at;
    char* coded = (char*)malloc(cap);
    outcome o;
    MUST(coded != NULL);
    for (at = 0; at < len; at += piece) {
        size_t k = len - at < piece ? len - at : piece;
        n += nkhttp_chunk_head(coded + n, k);
        memcpy(coded + n, body + at, k);
        memcpy(coded + n + k, "\r\n", 2);
        n += k + 2;
    }
    memcpy(coded + n, "0\r\n\r\n", 5);
    n += 5;
    o = decode(coded, n, n, n);
    MUST(o.end == NKHTTP_CHUNK_DONE && o.used == n && o.body == len && o.total == len);
    MUST(len == 0 || memcmp(o.text, body, len) == 0);
    free(o.text);
    free(coded);
}

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    const char* text = size ? (const char*)bytes : "";
    outcome whole;
    size_t cut, step = size > 200 ? size / 100 : 1;
    if (size > 20000) return 0;
    whole = decode(text, size, size, size + 1);
    if (size <= 4000) same(whole, decode(text, size, 1, 1));
    same(whole, decode(text, size, 3, 7));
    for (cut = 1; cut < size; cut += step) same(whole, decode(text, size, cut, size));
    round_trip(whole.text, whole.body, 5);
    round_trip(whole.text, whole.body, 17);
    free(whole.text);
    return 0;
}
