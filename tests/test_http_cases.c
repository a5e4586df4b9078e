// test_http_cases.c -- the cases of http_cases.h through the parser and the chunked decoder alone:
// no socket, no loop, no clock. Every input is given whole, cut in two at every byte, and byte by
// byte; what comes out must always be the same.
#define NETKIT_IMPLEMENTATION
#define NETKIT_HTTP_NO_LOOP
#include "netkit_http.h"
#include "http_cases.h"
#include "nktest.h"

// ---- a server without a network ---------------------------------------------------------------
// Reads messages one after the other and writes down what it has understood. That record does not
// show where the input was cut.
enum { IN_HEAD, IN_LENGTH, IN_CHUNKED, REFUSED, CLOSED };
enum { MAX_HEADERS = 100, MAX_LINE = 8192 + 256, MAX_HEAD = 32768, EXACT_COPY = 4096 };

typedef struct reader {
    const char*    bytes;     // the whole input
    size_t         at;        // consumed so far
    int            state;
    int            messages;  // that are complete
    int            expecting; // the head under way wants to hear 100 Continue
    int            status;    // that a refusal is answered with
    uint64_t       left;      // of a body with a length
    nkhttp_chunked chunked;
    uint32_t       flags;
    size_t         body_at, body_len; // of the first message, in the record
    char*          record;
    size_t         len, cap;
} reader;

static void note(reader* r, const void* bytes, size_t n) {
    if (r->cap - r->len < n) {
        r->cap = (r->len + n) * 2 + 1024;
        r->record = (char*)realloc(r->record, r->cap);
        if (!r->record) {
            printf("out of memory\n");
            exit(1);
        }
    }
    if (n) memcpy(r->record + r->len, bytes, n);
    r->len += n;
}
static void note_text(reader* r, const char* text) { note(r, text, strlen(text)); }
static void note_str(reader* r, nkhttp_str s) {
    char number[32];
    sprintf(number, "%lu:", (unsigned long)s.len);
    note_text(r, number);
    note(r, s.ptr, s.len);
}
static void note_head(reader* r, const nkhttp_head* h) {
    char text[128];
    uint32_t i;
    sprintf(text, "\nHEAD %lx %d %d %lu %lu ", (unsigned long)h->flags, h->method_id,
            h->minor_version, (unsigned long)h->content_length, (unsigned long)h->head_bytes);
    note_text(r, text);
    note_str(r, h->method);
    note_str(r, h->target);
    note_str(r, h->path);
    note_str(r, h->query);
    note_str(r, h->host);
    for (i = 0; i < h->num_headers; i++) {
        note_str(r, h->headers[i].name);
        note_str(r, h->headers[i].value);
    }
}

static void refuse(reader* r, int err) {
    char text[64];
    sprintf(text, "\nERROR %d", err);
    note_text(r, text);
    r->status = nkhttp_status_of(err);
    r->state = REFUSED;
}
static void body_bytes(reader* r, const char* p, size_t n) {
    note(r, p, n);
    if (r->messages == 0) r->body_len += n;
}
static void message_end(reader* r) {
    note_text(r, "\nEND");
    r->messages++;
    r->expecting = 0;
    r->state = r->flags & NKHTTP_KEEP_ALIVE ? IN_HEAD : CLOSED;
}

// These take what they can of n bytes and return how much; 0 means: not without more.
static size_t read_head(reader* r, const char* p, size_t n) {
    nkhttp_header headers[MAX_HEADERS];
    nkhttp_head h;
    int used;
    memset(&h, 0, sizeof h);
    h.headers = headers;
    h.max_headers = MAX_HEADERS;
    h.max_line_bytes = MAX_LINE;
    h.max_head_bytes = MAX_HEAD;
    used = nkhttp_parse_request(p, n, &h);
    if (used < 0) refuse(r, used);
    if (used <= 0) return 0;
    note_head(r, &h);
    if (h.method_id == NKHTTP_CONNECT) { // not a thing to ask of a server that is no proxy
        r->status = 405;
        r->state = REFUSED;
        return 0;
    }
    r->flags = h.flags;
    r->expecting = (h.flags & NKHTTP_EXPECT_CONTINUE) != 0;
    r->left = h.content_length;
    memset(&r->chunked, 0, sizeof r->chunked);
    note_text(r, "\nBODY ");
    if (r->messages == 0) r->body_at = r->len;
    r->state = h.flags & NKHTTP_CHUNKED ? IN_CHUNKED : IN_LENGTH;
    if (r->state == IN_LENGTH && r->left == 0) message_end(r);
    return (size_t)used;
}
static size_t read_length(reader* r, const char* p, size_t n) {
    if (n > r->left) n = (size_t)r->left;
    body_bytes(r, p, n);
    r->left -= n;
    if (r->left == 0) message_end(r);
    return n;
}
static size_t read_chunked(reader* r, const char* p, size_t n) {
    nkhttp_str data;
    size_t used = 0;
    int event = nkhttp_chunked_next(&r->chunked, p, n, &used, &data);
    if (used > n) CHECK(used <= n);
    if (event < 0) refuse(r, event);
    if (event == NKHTTP_CHUNK_DATA) body_bytes(r, data.ptr, data.len);
    if (event == NKHTTP_CHUNK_TRAILER) {
        note_text(r, "\nTRAILER ");
        note_str(r, data);
    }
    if (event == NKHTTP_CHUNK_DONE) message_end(r);
    return event < 0 ? 0 : used;
}
static size_t read_some(reader* r, const char* p, size_t n) {
    if (n) r->expecting = 0; // RFC 9110 10.1.1: once the body has begun nobody waits for 100
    if (r->state == IN_LENGTH) return read_length(r, p, n);
    return read_chunked(r, p, n);
}

// Shows the reader the input up to `end`. Short windows are copied first, to memory of their own
// length, so that tools see who reads past it.
static void feed(reader* r, size_t end) {
    size_t start = r->at, window = end - r->at, at = 0;
    char* copy = NULL;
    const char* p = r->bytes + start;
    if (window > 0 && window <= EXACT_COPY) {
        copy = (char*)malloc(window);
        if (!copy) exit(1);
        memcpy(copy, p, window);
        p = copy;
    }
    while (r->state < REFUSED && at < window) {
        int state = r->state, messages = r->messages;
        size_t left = window - at;
        size_t used = state == IN_HEAD ? read_head(r, p + at, left) : read_some(r, p + at, left);
        at += used;
        if (used == 0 && r->state == state && r->messages == messages) break;
    }
    r->at = start + at;
    free(copy);
}

// Is it worth asking again, in a long input? A head needs a line end, or the buffer is full; of a
// megabyte of body not every byte is news.
static int worth_it(const reader* r, size_t end) {
    if (r->state == IN_LENGTH) return end % 509 == 0 || end - r->at == r->left;
    return r->state != IN_HEAD || r->bytes[end - 1] == '\n' || end - r->at >= MAX_HEAD;
}

static void reader_begin(reader* r, const http_input* in) {
    char* record = r->record;
    size_t cap = r->cap;
    memset(r, 0, sizeof *r);
    r->record = record;
    r->cap = cap;
    r->bytes = in->bytes;
}

// ---- what it has made of the input ------------------------------------------------------------
static const char* outcome_of(const reader* r) {
    if (r->messages) return "A";
    if (r->state == REFUSED) return "R";
    return r->expecting ? "100" : "T";
}

static int judge(const http_case* c, const reader* r) {
    const char* got = outcome_of(r);
    int answers = r->messages + (r->state == REFUSED), good = 1;
    int refused = got[0] == 'R'; // "O" is the same as far as the parser goes
    if (!http_outcome_in(got, c->want) && !(refused && http_outcome_in("O", c->want))) good = 0;
    if (r->messages > c->most) good = 0;
    if (got[0] == 'A' && strcmp(c->want, "A") == 0 && answers < c->least) good = 0;
    if (got[0] == 'A' && c->must_close && r->state != CLOSED && r->state != REFUSED) good = 0;
    if (got[0] == 'A' && c->body) {
        size_t n = strlen(c->body);
        if (r->body_len != n || memcmp(r->record + r->body_at, c->body, n) != 0) good = 0;
    }
    if (r->state == REFUSED && (r->status < 400 || r->status > 599)) good = 0;
    if (!CHECK(good)) {
        printf("    %s: wanted %s, got %s: %d messages (most %d), state %d, status %d (RFC %s; %s)\n",
               c->id, c->want, got, r->messages, c->most, r->state, r->status, c->section, c->note);
    }
    return good;
}

static int same(const http_case* c, const char* how, size_t at, const reader* want,
                const reader* got) {
    int equal = want->state == got->state && want->messages == got->messages
             && want->expecting == got->expecting && want->status == got->status
             && want->len == got->len
             && (got->len == 0 || memcmp(want->record, got->record, got->len) == 0);
    if (!equal) {
        printf("    %s, %s %lu: another result than from the whole input\n", c->id, how,
               (unsigned long)at);
        nktest_show("whole", (const unsigned char*)want->record, want->len);
        nktest_show("parts", (const unsigned char*)got->record, got->len);
    }
    return equal;
}

static int in_two(const http_case* c, const http_input* in, const reader* want, reader* r,
                  size_t cut) {
    reader_begin(r, in);
    feed(r, cut);
    feed(r, in->len);
    return same(c, "cut at", cut, want, r);
}

// ---- the tests --------------------------------------------------------------------------------
static reader whole, parts;

TEST(outcomes) {
    int i;
    for (i = 0; i < HTTP_CASES; i++) {
        http_input in;
        http_input_make(&in, &http_cases[i]);
        reader_begin(&whole, &in);
        feed(&whole, in.len);
        judge(&http_cases[i], &whole);
        http_input_free(&in);
    }
}

// All cuts of a short input. Of a long one the first and the last hundred, and 200 in between.
TEST(cut_in_two) {
    int i;
    for (i = 0; i < HTTP_CASES; i++) {
        http_input in;
        size_t cut, step;
        int equal = 1;
        http_input_make(&in, &http_cases[i]);
        reader_begin(&whole, &in);
        feed(&whole, in.len);
        step = in.len <= 4096 ? 1 : (in.len - 200) / 200;
        for (cut = 1; cut < in.len && equal; cut += cut < 100 || cut + 100 >= in.len ? 1 : step) {
            equal = in_two(&http_cases[i], &in, &whole, &parts, cut);
        }
        CHECK(equal);
        http_input_free(&in);
    }
}

TEST(byte_by_byte) {
    int i;
    for (i = 0; i < HTTP_CASES; i++) {
        http_input in;
        size_t end;
        http_input_make(&in, &http_cases[i]);
        reader_begin(&whole, &in);
        feed(&whole, in.len);
        reader_begin(&parts, &in);
        for (end = 1; end <= in.len && parts.state < REFUSED; end++) {
            if (in.len <= 4096 || worth_it(&parts, end)) feed(&parts, end);
        }
        CHECK(same(&http_cases[i], "bytes", end, &whole, &parts));
        http_input_free(&in);
    }
}

TEST(as_the_case_cuts_it) {
    int i;
    for (i = 0; i < HTTP_CASES; i++) {
        http_input in;
        size_t k;
        http_input_make(&in, &http_cases[i]);
        reader_begin(&whole, &in);
        feed(&whole, in.len);
        reader_begin(&parts, &in);
        for (k = 0; k < in.segments; k++) feed(&parts, in.ends[k]);
        CHECK(same(&http_cases[i], "segments", k, &whole, &parts));
        http_input_free(&in);
    }
}

// ---- the table itself -------------------------------------------------------------------------
static uint32_t crc;
static void crc_bytes(const char* p, size_t n) { // CRC-32 as in zlib
    int bit;
    crc = ~crc;
    for (; n; n--, p++) {
        crc ^= (unsigned char)*p;
        for (bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0);
    }
    crc = ~crc;
}

// tests/conformance/http_cases.py computes the same number from its own list.
TEST(table_is_the_one_that_python_has) {
    int i;
    size_t k;
    for (i = 0; i < HTTP_CASES; i++) {
        const http_case* c = &http_cases[i];
        http_input in;
        char text[128];
        http_input_make(&in, c);
        sprintf(text, "%.12s %.8s %.8s %d %d %d ", c->id, c->want, c->allows, c->most, c->least,
                c->must_close);
        crc_bytes(text, strlen(text));
        if (c->body) crc_bytes(c->body, strlen(c->body));
        for (k = 0; k < in.segments; k++) {
            sprintf(text, " %lu ", (unsigned long)in.ends[k]);
            crc_bytes(text, strlen(text));
        }
        crc_bytes(in.bytes, in.len);
        http_input_free(&in);
    }
    if (!CHECK_INT(crc, HTTP_CASES_CRC)) {
        printf("    HTTP_CASES_CRC would be 0x%08xu\n", (unsigned)crc);
    }
    CHECK_INT(HTTP_CASES, 229);
}

TEST(ids_are_unique) {
    int i, k, twice = 0;
    for (i = 0; i < HTTP_CASES; i++) {
        for (k = 0; k < i; k++) twice += strcmp(http_cases[i].id, http_cases[k].id) == 0;
    }
    CHECK_INT(twice, 0);
    free(whole.record);
    free(parts.record);
}
