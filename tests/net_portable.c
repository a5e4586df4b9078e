// net_portable.c -- loop and server through their own interface alone: nothing of POSIX, so that it also runs on Windows.
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include "nktest.h"

static nkloop* make_loop(void) {
    nkloop* L = NULL;
    nkloop_desc d;
    const char* b = getenv("NKTEST_BACKEND");
    memset(&d, 0, sizeof d);
    if (b && strcmp(b, "poll") == 0) d.backend = NKLOOP_BACKEND_POLL;
    if (b && strcmp(b, "epoll") == 0) d.backend = NKLOOP_BACKEND_EPOLL;
    CHECK_INT(nkloop_create(&L, &d), 0);
    return L;
}

// ---- echo: what is sent comes back, 4 MB of it, against backpressure ----

enum { TOTAL = 4 * 1000 * 1000 };
typedef struct talk { size_t sent, got; int opened, closed, why, wrong; } talk;

static size_t echo_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    if (nkloop_write(L, s, bytes, n) == NKLOOP_OK) return n;
    nkloop_pause(L, s, 1);
    (void)self;
    return 0;
}
static void echo_drain(void* self, nkloop* L, nkloop_stream s) { (void)self; nkloop_pause(L, s, 0); }
static void echo_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)L; (void)s; (void)why; ++*(int*)self; }
static const nkloop_proto echo = { "echo", echo_data, echo_drain, echo_close, NULL, NULL, NULL };
static void echo_accept(void* user, nkloop* L, nkloop_stream s) { CHECK_INT(nkloop_set_proto(L, s, &echo, user), 0); }

static uint8_t pattern(size_t i) { return (uint8_t)(i * 31 + i / 251); }
static void talk_more(void* self, nkloop* L, nkloop_stream s) {
    talk* t = (talk*)self;
    uint8_t piece[10000];
    size_t i, n;
    while (t->sent < TOTAL) {
        n = TOTAL - t->sent < sizeof piece ? TOTAL - t->sent : sizeof piece;
        for (i = 0; i < n; i++) piece[i] = pattern(t->sent + i);
        if (nkloop_write(L, s, piece, n) < 0) return;
        t->sent += n;
    }
}
static void talk_open(void* self, nkloop* L, nkloop_stream s) { ((talk*)self)->opened++; talk_more(self, L, s); }
static size_t talk_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    talk* t = (talk*)self;
    size_t i;
    for (i = 0; i < n; i++) t->wrong += bytes[i] != pattern(t->got + i);
    t->got += n;
    if (t->got == TOTAL) nkloop_finish(L, s);
    return n;
}
static void talk_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)L; (void)s; ((talk*)self)->closed++; ((talk*)self)->why = why; }
static const nkloop_proto talker = { "talker", talk_data, talk_more, talk_close, NULL, talk_open, NULL };

static void echo_over(const char* where) {
    nkloop* L = make_loop();
    nkloop_listen_desc ld;
    nkloop_dial_desc dd;
    nkloop_listener l;
    talk t;
    char address[128];
    int closes = 0, turns;
    memset(&ld, 0, sizeof ld);
    memset(&dd, 0, sizeof dd);
    memset(&t, 0, sizeof t);
    ld.address = where;
    ld.on_accept = echo_accept;
    ld.user = &closes;
    CHECK_INT(nkloop_listen(L, &ld, &l), 0);
    CHECK(nkloop_listener_address(L, l, address, sizeof address) > 0);
    dd.address = address;
    dd.proto = &talker;
    dd.self = &t;
    CHECK_INT(nkloop_dial(L, &dd, NULL), 0);
    for (turns = 0; turns < 100000 && (t.closed == 0 || closes == 0); turns++) nkloop_wait(L, 100);
    CHECK_INT(t.opened, 1);
    CHECK_INT(t.got, TOTAL);
    CHECK_INT(t.wrong, 0);
    CHECK_INT(t.closed, 1);
    CHECK_INT(closes, 1);
    nkloop_destroy(L);
}
TEST(echo_ipv4) { echo_over("127.0.0.1:0"); }

TEST(dial_nobody) {
    nkloop* L = make_loop();
    nkloop_listen_desc ld;
    nkloop_dial_desc dd;
    nkloop_listener l;
    talk t;
    char address[128];
    int unused = 0, turns;
    memset(&ld, 0, sizeof ld);
    memset(&dd, 0, sizeof dd);
    memset(&t, 0, sizeof t);
    ld.address = "127.0.0.1:0";
    ld.on_accept = echo_accept;
    ld.user = &unused;
    CHECK_INT(nkloop_listen(L, &ld, &l), 0);
    nkloop_listener_address(L, l, address, sizeof address);
    nkloop_listener_close(L, l);
    nkloop_wait(L, 0);
    dd.address = address;
    dd.proto = &talker;
    dd.self = &t;
    dd.timeout_ms = 3000; // WSAPoll of old Windows versions does not report a refused connection
    CHECK_INT(nkloop_dial(L, &dd, NULL), 0);
    for (turns = 0; turns < 1000 && !t.closed; turns++) nkloop_wait(L, 100);
    CHECK_INT(t.closed, 1);
    CHECK(t.why == NKLOOP_ERR_REFUSED || t.why == NKLOOP_ERR_TIMEOUT);
    nkloop_destroy(L);
}

// ---- timers, posts, pool ----

static int order[4], num_order;
static void note(void* user) { if (num_order < 4) order[num_order++] = (int)(intptr_t)user; }
TEST(timers_in_order) {
    nkloop* L = make_loop();
    int turns;
    num_order = 0;
    CHECK_INT(nkloop_timer_start(L, 30, 0, note, (void*)3, NULL), 0);
    CHECK_INT(nkloop_timer_start(L, 10, 0, note, (void*)1, NULL), 0);
    CHECK_INT(nkloop_timer_start(L, 20, 0, note, (void*)2, NULL), 0);
    CHECK_INT(nkloop_post(L, note, (void*)9), 0);
    for (turns = 0; turns < 1000 && num_order < 4; turns++) nkloop_wait(L, 100);
    CHECK_INT(order[0], 9);
    CHECK_INT(order[1], 1);
    CHECK_INT(order[2], 2);
    CHECK_INT(order[3], 3);
    nkloop_destroy(L);
}

typedef struct work { nkloop_job job; int ran; int* done; } work;
static void work_run(void* user) { ((work*)user)->ran = 1; }
static void work_done(void* user) { *((work*)user)->done += ((work*)user)->ran; }
TEST(pool_runs_everything) {
    nkloop* L = make_loop();
    nkloop_pool* pool = NULL;
    static work jobs[200];
    int done = 0, i;
    CHECK_INT(nkloop_pool_create(&pool, L, 3), 0);
    for (i = 0; i < 200; i++) {
        memset(&jobs[i], 0, sizeof jobs[i]);
        jobs[i].job.run = work_run;
        jobs[i].job.done = work_done;
        jobs[i].job.user = &jobs[i];
        jobs[i].done = &done;
        nkloop_pool_submit(pool, &jobs[i].job);
    }
    for (i = 0; i < 1000 && done < 100; i++) nkloop_wait(L, 100);
    nkloop_pool_destroy(pool); // the rest is done here
    CHECK_INT(done, 200);
    nkloop_destroy(L);
}

// ---- HTTP, asked by a stream of the same loop, with and without workers ----

static void on_get(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, "text/plain", "hello", 5); }
static void on_post(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, NULL, req->body, req->body_bytes); }

typedef struct client { char got[4096]; size_t n; int closed; } client;
static size_t client_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    client* c = (client*)self;
    size_t k = n < sizeof c->got - c->n ? n : sizeof c->got - c->n;
    (void)L; (void)s;
    memcpy(c->got + c->n, bytes, k);
    c->n += k;
    return n;
}
static void client_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)L; (void)s; (void)why; ((client*)self)->closed = 1; }
static const nkloop_proto client_proto = { "client", client_data, NULL, client_close, NULL, NULL, NULL };

static void ask(uint32_t workers) {
    static const char questions[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n0\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    static const char* const parts[] = { "HTTP/1.1 200 OK\r\n", "Content-Length: 5\r\n\r\nhello", "Content-Length: 3\r\n\r\nabc", "HTTP/1.1 404 Not Found\r\n", "Connection: close\r\n" };
    nkloop* L = make_loop();
    nkhttp_server* srv = NULL;
    nkhttp_server_desc d;
    nkloop_dial_desc dd;
    nkloop_stream s;
    static client c;
    char address[128];
    const char* at = c.got;
    size_t i;
    int turns;
    memset(&d, 0, sizeof d);
    memset(&dd, 0, sizeof dd);
    memset(&c, 0, sizeof c);
    d.address = "127.0.0.1:0";
    d.workers = workers;
    CHECK_INT(nkhttp_server_create(&srv, L, &d), 0);
    CHECK_INT(nkhttp_route(srv, "GET", "/hello", on_get, NULL), 0);
    CHECK_INT(nkhttp_route(srv, "POST", "/echo", on_post, NULL), 0);
    CHECK(nkhttp_server_address(srv, address, sizeof address) > 0);
    dd.address = address;
    dd.proto = &client_proto;
    dd.self = &c;
    CHECK_INT(nkloop_dial(L, &dd, &s), 0);
    CHECK_INT(nkloop_write(L, s, questions, sizeof questions - 1), 0);
    for (turns = 0; turns < 1000 && !c.closed; turns++) nkloop_wait(L, 100);
    CHECK_INT(c.closed, 1);
    c.got[c.n < sizeof c.got ? c.n : sizeof c.got - 1] = 0;
    for (i = 0; i < sizeof parts / sizeof parts[0]; i++) { // in this order
        const char* found = strstr(at, parts[i]);
        if (!CHECK(found != NULL)) { printf("missing: %s\n", parts[i]); break; }
        at = found + strlen(parts[i]);
    }
    nkhttp_server_destroy(srv);
    nkloop_destroy(L);
}
TEST(http_in_the_loop) { ask(0); }
TEST(http_on_workers) { ask(2); }

TEST(head_longer_than_the_loop_keeps) { // max_head_bytes is 32 KiB, but the loop keeps only 2 KiB unread: still an answer
    nkloop* L = NULL;
    nkloop_desc ld;
    nkhttp_server* srv = NULL;
    nkhttp_server_desc d;
    nkloop_dial_desc dd;
    nkloop_stream s;
    static client c;
    char address[128], piece[100];
    int turns, i;
    memset(&ld, 0, sizeof ld);
    memset(&d, 0, sizeof d);
    memset(&dd, 0, sizeof dd);
    memset(&c, 0, sizeof c);
    ld.rx_bytes = 2048;
    CHECK_INT(nkloop_create(&L, &ld), 0);
    d.address = "127.0.0.1:0";
    CHECK_INT(nkhttp_server_create(&srv, L, &d), 0);
    CHECK(nkhttp_server_address(srv, address, sizeof address) > 0);
    dd.address = address;
    dd.proto = &client_proto;
    dd.self = &c;
    CHECK_INT(nkloop_dial(L, &dd, &s), 0);
    memset(piece, 'a', sizeof piece);
    nkloop_write(L, s, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
    for (i = 0; i < 40; i++) nkloop_write(L, s, piece, sizeof piece);
    for (turns = 0; turns < 1000 && !c.closed; turns++) nkloop_wait(L, 100);
    CHECK_STR(c.got, c.n < 12 ? c.n : 12, "HTTP/1.1 431");
    nkhttp_server_destroy(srv);
    nkloop_destroy(L);
}
