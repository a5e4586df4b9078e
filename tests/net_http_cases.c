// net_http_cases.c -- the cases of http_cases.h against a server, over sockets; then sequences on
// one connection, and requests cut at every byte. Server and clients share one thread: no client
// ever blocks, and the loop is turned in between. POSIX only.
//
// NKTEST_SILENCE_MS: how long a connection must be silent before we believe that nothing more will
// come (default 250). What fails for want of an answer is tried again with ten times the patience.
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include "http_cases.h"
#include "nktest.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define MILLISECOND ((uint64_t)1000000)
#define POST   "POST / HTTP/1.1\r\nHost: a\r\n"
#define HELLO  POST "Content-Length: 5\r\n"
#define TE     "Transfer-Encoding: chunked\r\n"
#define AFTER  "GET /after-the-end HTTP/1.1\r\nHost: a\r\n\r\n"
#define NEXT   "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
#define HIDDEN "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

static uint64_t now_ns(void) { // not the loop's: that one stands still between its turns
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 * MILLISECOND + (uint64_t)t.tv_nsec;
}

// ---- the server -------------------------------------------------------------------------------
static nkloop* loop;
static nkhttp_server* server;
static unsigned short port;
static int forbidden_seen; // requests that no handler should ever have seen; counted on any thread

static void on_request(void* user, nkhttp_req* req) {
    nkhttp_str path = req->head->path;
    (void)user;
    if (nkhttp_is(path, "/after-the-end") || nkhttp_is(path, "/hidden")) {
        __atomic_fetch_add(&forbidden_seen, 1, __ATOMIC_RELAXED);
    }
    nkhttp_reply(req, 200, "application/octet-stream", req->body, req->body_bytes);
}

static int server_start(uint32_t workers) {
    nkloop_desc ld;
    nkhttp_server_desc sd;
    const char* backend = getenv("NKTEST_BACKEND");
    char address[64];
    memset(&ld, 0, sizeof ld);
    memset(&sd, 0, sizeof sd);
    if (backend && strcmp(backend, "epoll") == 0) ld.backend = NKLOOP_BACKEND_EPOLL;
    if (backend && strcmp(backend, "poll") == 0) ld.backend = NKLOOP_BACKEND_POLL;
    sd.address = "127.0.0.1:0";
    sd.on_request = on_request;
    sd.workers = workers;
    sd.disable_date = 1; // so that equal answers are equal byte for byte
    sd.max_body_bytes = 64u * 1024 * 1024;
    sd.max_buffered_bytes = 512u * 1024 * 1024;
    server = NULL;
    __atomic_store_n(&forbidden_seen, 0, __ATOMIC_RELAXED);
    if (!CHECK_INT(nkloop_create(&loop, &ld), NKLOOP_OK)) return 0;
    if (!CHECK_INT(nkhttp_server_create(&server, loop, &sd), NKHTTP_OK)) return 0;
    if (!CHECK(nkhttp_server_address(server, address, sizeof address) > 0)) return 0;
    port = (unsigned short)atoi(strrchr(address, ':') + 1);
    return 1;
}
static void server_stop(void) {
    nkhttp_stats stats;
    int i;
    for (i = 0; i < 2000; i++) { // clients have gone: the server should notice
        nkhttp_get_stats(server, &stats);
        if (stats.open_connections == 0) break;
        nkloop_wait(loop, 2);
    }
    CHECK_INT(stats.open_connections, 0);
    CHECK_INT(stats.open_requests, 0);
    CHECK_INT(stats.buffered_bytes, 0);
    CHECK_INT(__atomic_load_n(&forbidden_seen, __ATOMIC_RELAXED), 0);
    nkhttp_server_destroy(server);
    nkloop_destroy(loop);
}

// ---- a client ---------------------------------------------------------------------------------
typedef struct client {
    int           fd;
    const char*   out;        // what it says, in segments: one for each turn of the loop
    const size_t* ends;
    size_t        segments, segment, sent;
    char*         in;         // what it has heard
    size_t        len, cap;
    size_t        expected;   // bytes after which it closes its side; 0: never
    int           said, shut; // everything; its side is closed
    int           eof, broken;
    int           late;       // bytes came behind the end
    uint64_t      moved_ns;   // when the last byte went either way
    int           still;      // turns of the loop since then
} client;

static void client_open(client* c) {
    struct sockaddr_in a;
    int one = 1;
    memset(c, 0, sizeof *c);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_INT(connect(c->fd, (const struct sockaddr*)(const void*)&a, sizeof a), 0);
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->moved_ns = now_ns();
}
static void client_close(client* c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    free(c->in);
    c->in = NULL;
}
static void client_say(client* c, const char* bytes, const size_t* ends, size_t segments) {
    c->out = bytes;
    c->ends = ends;
    c->segments = segments;
    c->segment = c->sent = 0;
    c->said = 0;
}

// At most the rest of one segment, so that the server reads it by itself.
static int client_send(client* c) {
    ssize_t n;
    if (c->said || c->segment == c->segments) return 0;
    n = send(c->fd, c->out + c->sent, c->ends[c->segment] - c->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) c->said = 1; // nobody listens; what was the answer?
        return 0;
    }
    c->sent += (size_t)n;
    if (c->sent == c->ends[c->segment]) c->segment++;
    if (c->segment == c->segments) c->said = 1;
    return 1;
}
static int client_receive(client* c) {
    int moved = 0;
    while (!c->eof) {
        ssize_t n;
        if (c->cap - c->len < 8192) {
            c->cap = c->cap * 2 + 16384;
            c->in = (char*)realloc(c->in, c->cap);
            if (!c->in) exit(1);
        }
        n = recv(c->fd, c->in + c->len, c->cap - c->len, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) {
            c->eof = 1;
            c->broken = n < 0;
            break;
        }
        c->len += (size_t)n;
        moved = 1;
    }
    return moved;
}
static int client_step(client* c) {
    int moved = client_send(c);
    if (client_receive(c)) moved = 1;
    if (c->said && c->expected && c->len >= c->expected && !c->shut) {
        shutdown(c->fd, SHUT_WR);
        c->shut = 1;
    }
    c->still = moved ? 0 : c->still + 1;
    if (moved) c->moved_ns = now_ns();
    return moved;
}

// ---- what it has heard ------------------------------------------------------------------------
// Written apart from the parser of the header, which must not be its own judge.
typedef struct answers {
    int         finals, accepted, interim;
    int         first_status;      // of a final answer
    const char* first_body;
    size_t      first_body_len;
    int         last_says_close;
    int         nonsense;          // bytes that are no answer, or one that hides its length
} answers;

static const char* find_text(const char* p, const char* end, const char* text) {
    size_t n = strlen(text);
    for (; (size_t)(end - p) >= n; p++) {
        size_t i = 0;
        while (i < n && (p[i] == text[i] || (p[i] <= 'Z' && p[i] >= 'A' && p[i] + 32 == text[i]))) {
            i++;
        }
        if (i == n) return p;
    }
    return NULL;
}

// One answer; 0 if it is not whole.
static size_t read_answer(const char* p, size_t n, int to_head, answers* a) {
    const char *end = find_text(p, p + n, "\r\n\r\n"), *length;
    size_t head, body;
    int status;
    if (n >= 12 && (memcmp(p, "HTTP/1.1 ", 9) != 0 || p[9] < '1' || p[9] > '5')) a->nonsense = 1;
    if (!end || a->nonsense) return 0;
    head = (size_t)(end - p) + 4;
    status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
    if (status < 200) {
        if (!a->interim) a->interim = status;
        return head;
    }
    length = find_text(p, end, "\r\ncontent-length: ");
    if (!length && status != 204 && status != 304) a->nonsense = 1;
    body = length ? (size_t)strtoul(length + 18, NULL, 10) : 0;
    if (to_head) body = 0;
    if (a->nonsense || n - head < body) return 0;
    if (!a->finals) {
        a->first_status = status;
        a->first_body = p + head;
        a->first_body_len = body;
    }
    a->finals++;
    if (status < 300 || status == 404) a->accepted++;
    a->last_says_close = find_text(p, end + 2, "\r\nconnection: close\r\n") != NULL;
    return head + body;
}
static answers read_answers(const client* c, int first_is_head) {
    answers a;
    size_t at = 0, n;
    memset(&a, 0, sizeof a);
    while (at < c->len) {
        n = read_answer(c->in + at, c->len - at, first_is_head && a.finals == 0, &a);
        if (n == 0) break;
        at += n;
    }
    if (at < c->len && c->eof) a.nonsense = 1; // the connection ended in the middle of an answer
    return a;
}

// ---- many clients at a time -------------------------------------------------------------------
enum { PARALLEL = 48, STILL_TURNS = 10, TURNS_AFTER_EOF = 4, LONGEST_MS = 8000 };

typedef struct job {
    const char*   bytes;
    const size_t* ends;
    size_t        segments;
    size_t        expected;    // see client.expected
    uint32_t      silence_ms;  // 0: wait for the end of the connection
    int           go_on;       // after the server has closed: say AFTER, and see what comes
    void        (*done)(const struct job* j, const client* c, size_t len_at_eof);
    int           index;
} job;

typedef struct runner {
    client     c;
    const job* j;
    int        after;          // turns since the server has closed
    size_t     len_at_eof;
    uint64_t   start_ns;
} runner;

static void runner_begin(runner* r, const job* j) {
    memset(r, 0, sizeof *r);
    r->j = j;
    client_open(&r->c);
    r->c.expected = j->expected;
    client_say(&r->c, j->bytes, j->ends, j->segments);
    r->start_ns = now_ns();
}

// After the end: whoever goes on talking must not be heard.
static int runner_after(runner* r) {
    char rest[64];
    if (r->after++ == 0) {
        r->len_at_eof = r->c.len;
        if (!r->j->go_on) return 1;
        (void)!send(r->c.fd, AFTER, sizeof AFTER - 1, MSG_NOSIGNAL);
    }
    if (recv(r->c.fd, rest, sizeof rest, 0) > 0) r->c.late = 1;
    return r->after > TURNS_AFTER_EOF;
}

// 1: this client has seen what there is to see. Sets *moved if a byte went either way.
static int runner_step(runner* r, int* moved) {
    uint64_t now = now_ns(), patience = r->j->silence_ms * MILLISECOND;
    if (r->after) return runner_after(r);
    if (client_step(&r->c)) *moved = 1;
    if (r->c.eof) return runner_after(r);
    r->len_at_eof = r->c.len;
    if (patience && r->c.still >= STILL_TURNS && now - r->c.moved_ns >= patience) return 1;
    return now - r->start_ns >= LONGEST_MS * MILLISECOND + patience;
}

static void run_jobs(const job* jobs, size_t n) {
    static runner runners[PARALLEL];
    size_t next = 0, active = 0, i;
    memset(runners, 0, sizeof runners);
    while (next < n || active > 0) {
        int moved = 0;
        for (i = 0; i < PARALLEL; i++) {
            runner* r = &runners[i];
            if (!r->j && next < n) {
                runner_begin(r, &jobs[next++]);
                active++;
            }
            if (!r->j || !runner_step(r, &moved)) continue;
            r->j->done(r->j, &r->c, r->len_at_eof);
            client_close(&r->c);
            r->j = NULL;
            active--;
            moved = 1;
        }
        nkloop_wait(loop, moved ? 0 : 1);
    }
}

// ---- the cases --------------------------------------------------------------------------------
static http_input inputs[HTTP_CASES];
static int again[HTTP_CASES], num_again, last_try;

static const char* outcome_of(const answers* a, const client* c) {
    if (a->nonsense) return "9";
    if (a->finals) {
        if (a->first_status < 300 || a->first_status == 404) return "A";
        return c->eof ? "R" : "O";
    }
    if (a->interim) return a->interim == 100 ? "100" : "1";
    return c->eof ? "C" : "T";
}

// What is wrong with it, or NULL. *early: it may look better if we wait longer.
static const char* fault_of(const http_case* k, const answers* a, const client* c, int* early) {
    const char* got = outcome_of(a, c);
    *early = 0;
    if (c->late) return "bytes behind the end of the stream";
    if (a->accepted > k->most) return "a hidden request was executed";
    if (got[0] == 'A' && k->body
        && (a->first_body_len != strlen(k->body)
            || memcmp(a->first_body, k->body, a->first_body_len) != 0)) {
        return "wrong body";
    }
    if (got[0] == 'R' && !a->last_says_close) return "refused and closed without saying so";
    *early = !c->eof;
    if (!http_outcome_in(got, k->want)) return "wrong outcome";
    if (strcmp(got, "A") == 0 && strcmp(k->want, "A") == 0 && a->finals < k->least) {
        return "answers missing";
    }
    if (got[0] == 'A' && k->must_close && !c->eof) return "not closed";
    return NULL;
}

static void case_done(const job* j, const client* c, size_t len_at_eof) {
    const http_case* k = &http_cases[j->index];
    answers a = read_answers(c, memcmp(j->bytes, "HEAD ", 5) == 0);
    int early;
    const char* fault = fault_of(k, &a, c, &early);
    (void)len_at_eof;
    if (fault && early && !last_try) {
        again[num_again++] = j->index;
        return;
    }
    if (!CHECK(fault == NULL)) {
        printf("    %s (RFC %s; %s): %s: wanted %s, got %s\n", k->id, k->section, k->note, fault,
               k->want, outcome_of(&a, c));
        printf("    first status %d, %d accepted (most %d), %d answers\n", a.first_status,
               a.accepted, k->most, a.finals);
        nktest_show("heard", (const unsigned char*)c->in, c->len);
    }
}

static job case_job(int index, uint32_t silence_ms) {
    job j;
    memset(&j, 0, sizeof j);
    j.bytes = inputs[index].bytes;
    j.ends = inputs[index].ends;
    j.segments = inputs[index].segments;
    j.silence_ms = silence_ms;
    j.go_on = 1;
    j.done = case_done;
    j.index = index;
    return j;
}

static uint32_t silence(void) {
    const char* text = getenv("NKTEST_SILENCE_MS");
    int ms = text ? atoi(text) : 0;
    return ms > 0 ? (uint32_t)ms : 250;
}

static void all_cases(uint32_t workers) {
    static job jobs[HTTP_CASES];
    int i, retry;
    if (!server_start(workers)) return;
    for (i = 0; i < HTTP_CASES; i++) {
        http_input_make(&inputs[i], &http_cases[i]);
        jobs[i] = case_job(i, silence());
    }
    num_again = last_try = 0;
    run_jobs(jobs, HTTP_CASES);
    retry = num_again;
    last_try = 1;
    for (i = 0; i < retry; i++) jobs[i] = case_job(again[i], 10 * silence());
    run_jobs(jobs, (size_t)retry);
    server_stop();
    for (i = 0; i < HTTP_CASES; i++) http_input_free(&inputs[i]);
}

TEST(cases_in_the_loop) { all_cases(0); }
TEST(cases_with_workers) { all_cases(3); }

// ---- sequences on one connection --------------------------------------------------------------
static answers said_and_heard(client* c, const char* bytes, size_t n, int finals,
                              int first_is_head) {
    answers a;
    int i;
    client_say(c, bytes, &n, 1);
    for (i = 0; i < 5000; i++) { // to the wanted number of answers, or the end
        int moved = client_step(c);
        a = read_answers(c, first_is_head);
        if (c->said && (a.finals >= finals || c->eof) && (finals || a.interim)) break;
        nkloop_wait(loop, moved ? 0 : 1);
    }
    return a;
}
static void until_eof(client* c) {
    int i;
    for (i = 0; i < 5000 && !c->eof; i++) nkloop_wait(loop, client_step(c) ? 0 : 1);
}

typedef struct sequence { const char* first; size_t len; const char* body; } sequence;
#define SEQUENCE(text, body) { text, sizeof(text) - 1, body }

// Refused: the answer, the end of the stream, and a second request that nobody hears.
static const sequence refused[] = {
    SEQUENCE(HELLO TE "\r\n0\r\n\r\n", NULL),
    SEQUENCE(POST TE "Content-Length: 5\r\n\r\n0\r\n\r\n", NULL),
    SEQUENCE(POST TE "Content-Length: 0\r\n\r\n0\r\n\r\n", NULL),
    SEQUENCE("POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n" TE "\r\n0\r\n\r\n", NULL),
    SEQUENCE(POST "Content-Length: +5\r\n\r\nhello", NULL),
    SEQUENCE(POST "Content-Length: -1\r\n\r\n", NULL),
    SEQUENCE(POST "Content-Length: 5, 6\r\n\r\nhello", NULL),
    SEQUENCE(HELLO "Content-Length: 0\r\n\r\nhello", NULL),
    SEQUENCE(POST "Content-Length: \r\n\r\n", NULL),
    SEQUENCE(POST "Content-Length: 99999999999999999999\r\n\r\n", NULL),
    SEQUENCE("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", NULL),
    SEQUENCE("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tContent-Length: 5\r\n\r\n", NULL),
    SEQUENCE(POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", NULL),
    SEQUENCE(POST TE "\r\n+0\r\n\r\n", NULL),
    SEQUENCE(POST TE "\r\n-0\r\n\r\n", NULL),
    SEQUENCE(POST TE "\r\n0x0\r\n\r\n", NULL),
    SEQUENCE(POST TE "\r\n5\r\nhello\r\n+0\r\n\r\n", NULL),
    SEQUENCE(POST TE "\r\n5\r\nhello\rX0\r\n\r\n", NULL),
    SEQUENCE(POST TE "\r\n5\r\nhelloX\n0\r\n\r\n", NULL),
    SEQUENCE(POST TE "\r\n5\r\nhello\r\n0\r\n\rX", NULL),
    SEQUENCE(POST TE "\r\n5\r\nhello\r\n0\r\n\n", NULL),
    SEQUENCE(POST TE "\r\n5\r\nhello\r\n0\n\r\n", NULL),
};

static void refused_sequences(uint32_t workers) {
    size_t i;
    if (!server_start(workers)) return;
    for (i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        client c;
        answers a;
        int turn, good;
        ssize_t n = -1;
        char byte;
        client_open(&c);
        said_and_heard(&c, refused[i].first, refused[i].len, 1, 0);
        until_eof(&c);
        a = read_answers(&c, 0);
        good = a.finals == 1 && a.first_status >= 400 && a.last_says_close && !a.nonsense && c.eof
            && !c.broken;
        (void)!send(c.fd, AFTER, sizeof AFTER - 1, MSG_NOSIGNAL);
        for (turn = 0; turn < 10; turn++) nkloop_wait(loop, 1);
        n = recv(c.fd, &byte, 1, 0);
        if (!CHECK(good && n <= 0)) {
            printf("    %s    %d final, first %d, eof %d\n", refused[i].first, a.finals,
                   a.first_status, c.eof);
        }
        client_close(&c);
    }
    server_stop();
}
TEST(after_a_refusal_nobody_listens) { refused_sequences(0); }
TEST(after_a_refusal_nobody_listens_with_workers) { refused_sequences(3); }

// Accepted: the body has been read to its end, and a second request, sent later, is one.
static const sequence accepted[] = {
    SEQUENCE("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
    SEQUENCE("OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", NULL),
    SEQUENCE("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", ""),
    SEQUENCE("DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
    SEQUENCE(HELLO "\r\nhello", "hello"),
    SEQUENCE("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n" HIDDEN, HIDDEN),
    SEQUENCE("OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n" HIDDEN, NULL),
    SEQUENCE("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n" HIDDEN, ""),
    SEQUENCE(POST TE "\r\n21\r\n" HIDDEN "\r\n0\r\n\r\n", HIDDEN),
    SEQUENCE("HEAD / HTTP/1.1\r\nHost: a\r\n" TE "\r\n21\r\n" HIDDEN "\r\n0\r\n\r\n", ""),
    SEQUENCE(POST "Content-Length: 0\r\n\r\n", ""),
    SEQUENCE(POST "Content-Length: 0\r\n\r\n\r\n", ""),
    SEQUENCE("PUT / HTTP/1.0\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", "hello"),
    SEQUENCE(HELLO "Expect: 100-continue\r\n\r\nhello", "hello"),
    SEQUENCE("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", ""),
};

static void accepted_sequences(uint32_t workers) {
    size_t i;
    if (!server_start(workers)) return;
    for (i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        const sequence* s = &accepted[i];
        int head = memcmp(s->first, "HEAD ", 5) == 0, good, round;
        client c;
        answers a;
        client_open(&c);
        a = said_and_heard(&c, s->first, s->len, 1, head);
        good = a.finals == 1 && a.accepted == 1 && !c.eof;
        if (s->body) {
            good = good && a.first_body_len == strlen(s->body)
                && memcmp(a.first_body, s->body, a.first_body_len) == 0;
        }
        for (round = 2; round <= 3; round++) { // twice: the first may have been eaten as a body
            a = said_and_heard(&c, NEXT, sizeof NEXT - 1, round, head);
            good = good && a.finals == round && a.accepted == round && !a.nonsense && !c.eof;
        }
        if (!CHECK(good)) {
            printf("    %s    %d final, first %d, eof %d\n", s->first, a.finals, a.first_status,
                   c.eof);
            nktest_show("heard", (const unsigned char*)c.in, c.len);
        }
        client_close(&c);
    }
    server_stop();
}
TEST(after_a_body_comes_the_next_request) { accepted_sequences(0); }
TEST(after_a_body_comes_the_next_request_with_workers) { accepted_sequences(3); }

static void trailing_bytes(uint32_t workers) {
    static const char junk[] = POST "Content-Length: 0\r\n\r\n\001junk\r\n\r\n";
    static const char word[] = POST "Content-Length: 0\r\n\r\nhello";
    client c;
    answers a;
    if (!server_start(workers)) return;
    client_open(&c);
    said_and_heard(&c, junk, sizeof junk - 1, 2, 0);
    until_eof(&c);
    a = read_answers(&c, 0); // the good one has its answer, in order, before the bad one
    CHECK_INT(a.finals, 2);
    CHECK_INT(a.accepted, 1);
    CHECK_INT(a.first_status, 200);
    CHECK_INT(a.first_body_len, 0);
    CHECK(a.last_says_close && c.eof && !a.nonsense);
    client_close(&c);

    client_open(&c);
    a = said_and_heard(&c, word, sizeof word - 1, 1, 0);
    CHECK_INT(a.finals, 1);
    CHECK_INT(a.first_body_len, 0);
    a = said_and_heard(&c, NEXT, sizeof NEXT - 1, 2, 0); // method "helloGET", which is a token
    CHECK_INT(a.finals, 2);
    CHECK_INT(a.first_status, 200);
    client_close(&c);
    server_stop();
}
TEST(trailing_bytes_are_the_next_request) { trailing_bytes(0); }
TEST(trailing_bytes_are_the_next_request_with_workers) { trailing_bytes(3); }

static void expectations(uint32_t workers) {
    static const char both[] = HELLO "Expect: 100-continue\r\n\r\nhello" NEXT;
    static const char head[] = HELLO "Expect: 100-continue\r\n\r\n";
    client c;
    answers a;
    if (!server_start(workers)) return;
    client_open(&c);
    a = said_and_heard(&c, both, sizeof both - 1, 2, 0); // body and next request at once
    CHECK_INT(a.finals, 2);
    CHECK_INT(a.accepted, 2);
    CHECK_STR(a.first_body, a.first_body_len, "hello");
    client_close(&c);

    client_open(&c);
    a = said_and_heard(&c, head, sizeof head - 1, 0, 0);
    CHECK_INT(a.interim, 100);
    CHECK_INT(a.finals, 0);
    a = said_and_heard(&c, "hello" NEXT, sizeof "hello" NEXT - 1, 2, 0);
    CHECK_INT(a.finals, 2);
    CHECK_INT(a.accepted, 2);
    CHECK_STR(a.first_body, a.first_body_len, "hello");
    client_close(&c);
    server_stop();
}
TEST(expect_then_the_next_request) { expectations(0); }
TEST(expect_then_the_next_request_with_workers) { expectations(3); }

// ---- cut at every byte ------------------------------------------------------------------------
static const struct { const char* bytes; int finals; const char* body; } split[] = {
    { "GET /a/path?and=query HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\n\r\n", 1, "" },
    { "POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\n"
      "hello world", 1, "hello world" },
    { POST TE "\r\n5;name=\"a;b\\\"c\"\r\nhello\r\n"
      "00B; x = y\r\n, \r\nchunked\r\n0\r\nX-Checksum: 1\r\nX-Second: two\r\n\r\n", 1,
      "hello, \r\nchunked" },
    { "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" HELLO "\r\nhello\r\n"
      "PUT /3 HTTP/1.1\r\nHost: a\r\n" TE "\r\n3\r\nend\r\n0\r\n\r\n", 3, "" },
};
enum { SPLITS = (int)(sizeof split / sizeof split[0]), LONGEST_SPLIT = 256 };

static char* reference; // the answer to the whole
static size_t reference_len;

static void reference_done(const job* j, const client* c, size_t len_at_eof) {
    answers a = read_answers(c, 0);
    CHECK_INT(a.finals, split[j->index].finals);
    CHECK_INT(a.accepted, split[j->index].finals);
    CHECK_STR(a.first_body, a.first_body_len, split[j->index].body);
    CHECK(!c->eof && !a.nonsense);
    reference_len = len_at_eof;
    reference = (char*)malloc(c->len + 1);
    if (reference) memcpy(reference, c->in, c->len);
}
static void split_done(const job* j, const client* c, size_t len_at_eof) {
    int good = c->eof && !c->broken && !c->late && len_at_eof == reference_len
            && memcmp(c->in, reference, reference_len) == 0;
    if (!CHECK(good)) {
        printf("    request %d in %lu segments, the first of %lu bytes; eof %d\n", j->index,
               (unsigned long)j->segments, (unsigned long)j->ends[0], c->eof);
        nktest_show("whole", (const unsigned char*)reference, reference_len);
        nktest_show("parts", (const unsigned char*)c->in, c->len);
    }
}

static void cut_everywhere(int index) {
    static size_t ends[LONGEST_SPLIT][2], each[LONGEST_SPLIT];
    static job jobs[LONGEST_SPLIT];
    size_t len = strlen(split[index].bytes), cut;
    if (!CHECK(len < LONGEST_SPLIT)) return;
    memset(jobs, 0, sizeof jobs);
    for (cut = 0; cut < len; cut++) { // jobs[0] takes one byte after the other
        each[cut] = cut + 1;
        ends[cut][0] = cut;
        ends[cut][1] = len;
        jobs[cut].bytes = split[index].bytes;
        jobs[cut].ends = cut ? ends[cut] : each;
        jobs[cut].segments = cut ? 2 : len;
        jobs[cut].expected = reference_len;
        jobs[cut].done = split_done;
        jobs[cut].index = index;
    }
    run_jobs(jobs, len);
}
static void every_split(uint32_t workers) {
    int i;
    if (!server_start(workers)) return;
    for (i = 0; i < SPLITS; i++) {
        size_t len = strlen(split[i].bytes);
        job j;
        memset(&j, 0, sizeof j);
        j.bytes = split[i].bytes;
        j.ends = &len;
        j.segments = 1;
        j.silence_ms = 2 * silence();
        j.done = reference_done;
        j.index = i;
        run_jobs(&j, 1);
        if (reference) cut_everywhere(i);
        free(reference);
        reference = NULL;
    }
    server_stop();
}
TEST(every_split_in_the_loop) { every_split(0); }
TEST(every_split_with_workers) { every_split(3); }
