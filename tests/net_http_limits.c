// netkit_http.h against clients that want it to suffer: that trickle, never end a head, take every file, read nothing, leave
// at any byte. Memory stays within the numbers of the desc, and a well-behaved client is answered all the while. Then the
// mistakes that other small servers have made, one by one. POSIX only.
#define _GNU_SOURCE 1
#include "http_kit.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void on_hello(void* user, nkhttp_req* req) { (void)user; nkhttp_reply_text(req, 200, "hello\n"); }
static void on_echo(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, "text/plain", req->body, req->body_bytes); }
static char large[200000];
static void on_large(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, "text/plain", large, sizeof large); }
static nkhttp_handle held[4096];
static int num_held, num_gone;
static void gone(void* user, nkhttp_handle h, int why) { (void)user; (void)h; (void)why; num_gone++; }
static void on_hold(void* user, nkhttp_req* req) {
    (void)user;
    if (num_held == 4096) { nkhttp_reply_text(req, 503, "full\n"); return; }
    held[num_held] = nkhttp_defer(req);
    CHECK_INT(nkhttp_later_watch(req->server, held[num_held++], NULL, gone, NULL), 0);
}
static void routes(kit* k) {
    memset(large, 'l', sizeof large);
    CHECK_INT(nkhttp_route(k->srv, "GET", "/hello", on_hello, NULL), 0);
    CHECK_INT(nkhttp_route(k->srv, "POST", "/echo", on_echo, NULL), 0);
    CHECK_INT(nkhttp_route(k->srv, "GET", "/large", on_large, NULL), 0);
    CHECK_INT(nkhttp_route(k->srv, "GET", "/hold", on_hold, NULL), 0);
    num_held = num_gone = 0;
}
static void still_serves(kit* k) { CHECK_TALK(k, GET_("/hello", CLOSE_), "\r\n\r\nhello\n"); }

TEST(trickling_head) { // activity does not stop the clock
    nkhttp_server_desc d;
    kit k;
    client c;
    int i;
    const char* text = GET_("/hello", "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
    memset(&d, 0, sizeof d);
    d.head_timeout_ms = 150;
    kit_open(&k, NULL, &d);
    routes(&k);
    client_open(&k, &c);
    for (i = 0; text[i] && !c.ended && !client_has(&c, "408"); i++) {
        client_put(&k, &c, text + i, 1);
        client_read(&c);
        if (i % 10 == 0) still_serves(&k);
        usleep(5000);
    }
    CHECK(client_get(&k, &c, NULL) && client_has(&c, "HTTP/1.1 408 "));
    client_close(&c);
    kit_close(&k);
}
TEST(trickling_body) {
    nkhttp_server_desc d;
    kit k;
    client c;
    int i;
    memset(&d, 0, sizeof d);
    d.body_timeout_ms = 100;
    d.body_min_rate = 100000;
    kit_open(&k, NULL, &d);
    routes(&k);
    client_open(&k, &c);
    client_say(&k, &c, POST_("/echo", "Content-Length: 100000\r\n", ""));
    for (i = 0; i < 200 && !client_has(&c, "408"); i++) {
        client_put(&k, &c, "x", 1);
        client_read(&c);
        usleep(5000);
    }
    CHECK(client_get(&k, &c, NULL) && client_has(&c, "HTTP/1.1 408 "));
    client_close(&c);
    still_serves(&k);
    kit_close(&k);
}

// A head of ten gigabytes, in four shapes. Ends with the right status long before, and keeps no memory.
TEST(endless_heads) {
    static const struct { const char *start, *more; const char* status; } t[] = {
        { "GET /", "aaaaaaaaaaaaaaaa", "HTTP/1.1 414 " },
        { "GET / HTTP/1.1\r\nHost: a\r\nX: ", "aaaaaaaaaaaaaaaa", "HTTP/1.1 431 " },
        { "GET / HTTP/1.1\r\nHost: a\r\n", "A: b\r\n", "HTTP/1.1 431 " },
        { "", "\r\n\r\n\r\n\r\n", "HTTP/1.1 4" }
    };
    nkhttp_server_desc d;
    nkloop_desc ld;
    kit k;
    client c;
    size_t i, n, small;
    for (small = 0; small < 2; small++) for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        memset(&d, 0, sizeof d);
        memset(&ld, 0, sizeof ld);
        if (small) { ld.rx_bytes = 4096; d.max_line_bytes = 1000; } // the loop can hold less than a head may have
        kit_open(&k, &ld, &d);
        routes(&k);
        client_open(&k, &c);
        kit_turns(&k, 3);
        kit_memory_reset();
        client_say(&k, &c, t[i].start);
        for (n = 0; n < 200000 && !c.ended && !client_has(&c, "HTTP/1.1 "); n++) {
            if (send(c.fd, t[i].more, strlen(t[i].more), MSG_NOSIGNAL) < 0 && errno != EAGAIN) break;
            if (n % 64 == 0) { nkloop_wait(k.L, 0); client_read(&c); }
        }
        CHECK(n < 200000);
        client_get(&k, &c, NULL);
        if (!CHECK(client_has(&c, t[i].status))) printf("    small %d case %d: %s\n", (int)small, (int)i, c.text && c.len ? c.text : "nothing");
        CHECK(kit_peak - kit_live < 200000);
        client_close(&c);
        still_serves(&k);
        kit_close(&k);
    }
}

TEST(bombs_of_chunks) { // what costs more to carry than it holds is refused; so is a size that no number holds
    static const struct { const char *start, *more; const char* status; } t[] = {
        { "", "1\r\na\r\n", "HTTP/1.1 4" },
        { "1;", "xxxxxxxxxxxxxxxx", "HTTP/1.1 4" },
        { "0\r\n", "A: b\r\n", "HTTP/1.1 4" },
        { "0\r\nA: ", "aaaaaaaaaaaaaaaaaaaaaaaa", "HTTP/1.1 4" },
        { "fffffffffffffffff\r\n", "a", "HTTP/1.1 400 " },
        { "0000000000000000", "0000000000000000", "HTTP/1.1 400 " },
        { "7fffffffffffffff\r\n", "aaaaaaaaaaaaaaaa", "HTTP/1.1 413 " }
    };
    kit k;
    client c;
    size_t i, n;
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        kit_open(&k, NULL, NULL);
        routes(&k);
        client_open(&k, &c);
        client_say(&k, &c, POST_("/echo", "Transfer-Encoding: chunked\r\n", ""));
        client_say(&k, &c, t[i].start);
        for (n = 0; n < 2000000 && !c.ended && !client_has(&c, "HTTP/1.1 "); n++) {
            if (send(c.fd, t[i].more, strlen(t[i].more), MSG_NOSIGNAL) < 0 && errno != EAGAIN) break;
            if (n % 256 == 0) { nkloop_wait(k.L, 0); client_read(&c); }
        }
        client_get(&k, &c, NULL);
        if (!CHECK(client_has(&c, t[i].status))) printf("    case %d: %s\n", (int)i, c.text ? c.text : "");
        CHECK(kit_peak < 8 * 1024 * 1024);
        client_close(&c);
        still_serves(&k);
        kit_close(&k);
        kit_memory_reset();
    }
}

// ---- no file left ----
static void* few_files_server(void* user) { nkloop_run(((kit*)user)->L); return NULL; }
static int few_files(void) { // in a child: 0 all went well
    nkhttp_server_desc d;
    struct rlimit r;
    kit k;
    client c[20], last;
    pthread_t thread;
    int i, n = 0, ok = 0, turns;
    memset(&d, 0, sizeof d);
    d.on_request = on_hello;
    if (kit_try_open(&k, NULL, &d) < 0) return 1;
    for (i = 0; i < 20; i++) { c[i].fd = kit_dial_from(&k, 0); c[i].text = NULL; c[i].len = c[i].cap = 0; c[i].ended = 0; }
    r.rlim_cur = r.rlim_max = (rlim_t)(c[19].fd + 8); // room for a few of them at the server's end
    if (setrlimit(RLIMIT_NOFILE, &r) != 0) return 2;
    if (pthread_create(&thread, NULL, few_files_server, &k) != 0) return 3;
    for (i = 0; i < 20; i++) send(c[i].fd, GET_("/", ""), strlen(GET_("/", "")), MSG_NOSIGNAL);
    for (turns = 0; turns < 100; turns++) {
        for (i = n = 0; i < 20; i++) { client_read(&c[i]); n += client_has(&c[i], "hello"); }
        usleep(2000);
    }
    if (n == 0 || n == 20) return 4; // some are served, some wait
    for (turns = 0; turns < 5000 && ok < 20; turns++) { // each that leaves makes room for another
        for (i = ok = 0; i < 20; i++) {
            if (c[i].fd >= 0) client_read(&c[i]);
            if (c[i].fd >= 0 && client_has(&c[i], "hello")) { close(c[i].fd); c[i].fd = -1; free(c[i].text); c[i].text = NULL; }
            ok += c[i].fd < 0;
        }
        usleep(1000);
    }
    nkloop_stop(k.L);
    pthread_join(thread, NULL);
    if (ok != 20) return 5;
    memset(&last, 0, sizeof last);
    nkhttp_server_destroy(k.srv);
    nkloop_destroy(k.L);
    return kit_live != 0 ? 6 : 0;
}
TEST(no_file_left) {
    int status = -1;
    pid_t pid;
    if (kit_slow()) { // valgrind keeps files of its own, and setrlimit from us
        puts("SKIPPED: no_file_left: valgrind keeps the file limit to itself");
        return;
    }
    pid = fork();
    if (pid == 0) _exit(few_files());
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
}

// ---- clients that take nothing ----
TEST(reads_nothing) { // pipelines large replies; the server stops reading and cuts at last, and keeps little
    nkhttp_server_desc d;
    nkhttp_stats st;
    kit k;
    client c[8];
    int i, j, n = 0;
    const char* ask = GET_("/large", "");
    memset(&d, 0, sizeof d);
    d.write_timeout_ms = 200;
    d.max_buffered_bytes = 4 * 1024 * 1024;
    kit_open(&k, NULL, &d);
    routes(&k);
    kit_memory_reset();
    for (i = 0; i < 8; i++) {
        memset(&c[i], 0, sizeof c[i]);
        c[i].fd = kit_dial_from(&k, 4096);
        for (j = 0; j < 200; j++) n += send(c[i].fd, ask, strlen(ask), MSG_NOSIGNAL) > 0;
        kit_turns(&k, 10);
        still_serves(&k);
        nkhttp_get_stats(k.srv, &st);
        CHECK(st.buffered_bytes <= d.max_buffered_bytes + 8 * 1024);
    }
    CHECK(n > 100);
    // each: what the loop may queue and one reply beyond it, twice over for the pieces it is cut into; all: the budget
    CHECK(kit_peak < 8 * 2 * (256 * 1024 + (long)sizeof large) + 4 * 1024 * 1024 + 1024 * 1024);
    UNTIL(&k, (nkhttp_get_stats(k.srv, &st), st.open_connections == 0));
    CHECK(st.timeouts >= 8);
    CHECK_INT(st.buffered_bytes, 0);
    for (i = 0; i < 8; i++) client_close(&c[i]);
    still_serves(&k);
    kit_close(&k);
}

TEST(thousands_of_tiny_requests) { // by one who reads slowly: all answered, in order, in little memory
    enum { TINY = 5000 };
    kit k;
    client c;
    char *all, *at;
    size_t n, sent = 0;
    int i, w;
    uint32_t workers;
    nkhttp_server_desc d;
    for (workers = 0; workers <= 2; workers += 2) {
        memset(&d, 0, sizeof d);
        d.workers = workers;
        kit_open(&k, NULL, &d);
        routes(&k);
        kit_memory_reset();
        memset(&c, 0, sizeof c);
        c.fd = kit_dial_from(&k, 4096);
        all = at = (char*)malloc(TINY * 80);
        for (i = 0; i < TINY; i++) at += sprintf(at, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n%06d", i);
        n = (size_t)(at - all);
        for (sent = 0; sent < n; ) {
            ssize_t k2 = send(c.fd, all + sent, n - sent < 5000 ? n - sent : 5000, MSG_NOSIGNAL);
            if (k2 > 0) sent += (size_t)k2;
            else client_read(&c);
            nkloop_wait(k.L, 0);
            if (c.ended) break;
        }
        client_get(&k, &c, "004999");
        for (i = 0, at = c.text; i < TINY && at; i++) {
            at = strstr(at, "\r\n\r\n");
            w = at ? atoi(at + 4) : -1;
            if (w != i) break;
            at += 4;
        }
        CHECK_INT(i, TINY);
        CHECK(kit_peak < 2 * 1024 * 1024);
        free(all);
        client_close(&c);
        kit_close(&k);
    }
}

// A large reply fills the queue; the body of the next request waits for a word that does not fit just then.
TEST(continue_behind_a_large_reply) {
    kit k;
    client c;
    kit_open(&k, NULL, NULL);
    routes(&k);
    memset(&c, 0, sizeof c);
    c.fd = kit_dial_from(&k, 4096);
    client_say(&k, &c, GET_("/hold", "") POST_("/echo", "Expect: 100-continue\r\nContent-Length: 3\r\n" CLOSE_, ""));
    UNTIL(&k, num_held == 1);
    {
        static char huge[8 * 1024 * 1024];
        size_t big = kit_slow() ? sizeof huge / 8 : sizeof huge;
        nkhttp_reply_desc r;
        memset(huge, 'h', sizeof huge);
        memset(&r, 0, sizeof r);
        r.body = huge;
        r.body_bytes = big;
        CHECK_INT(nkhttp_later_reply(k.srv, held[0], &r), 0);
    }
    kit_turns(&k, 5);
    CHECK(client_get(&k, &c, "100 Continue\r\n\r\n"));
    client_say(&k, &c, "xyz");
    CHECK(client_get(&k, &c, "\r\n\r\nxyz"));
    CHECK(c.len > 1024 * 1024);
    client_close(&c);
    kit_close(&k);
}

// ---- leaving ----
static void leave_at(kit* k, const char* script, size_t n, int reset, size_t read_first) {
    client c;
    size_t got = 0;
    int turns;
    client_open(k, &c);
    if (send(c.fd, script, n, MSG_NOSIGNAL) < 0) CHECK(0);
    for (turns = 0; turns < 6 && got < read_first; turns++) {
        char b[64];
        ssize_t r;
        nkloop_wait(k->L, 0);
        r = recv(c.fd, b, read_first - got < sizeof b ? read_first - got : sizeof b, 0);
        if (r > 0) got += (size_t)r;
    }
    if (reset) client_reset(&c);
    else client_close(&c);
    kit_turns(k, 2);
}
// One who only closes its side may still be reading: such a request stays until it is answered.
static void answer_held(kit* k) {
    int i;
    for (i = 0; i < num_held; i++) nkhttp_later_text(k->srv, held[i], 200, "held\n");
}
TEST(leaving_at_every_byte) { // with deferred requests outstanding: every handle learns of it once, and is stale
    static const char script[] = GET_("/hold", "") POST_("/echo", "Content-Length: 4\r\n", "abcd") GET_("/hold", "")
        POST_("/echo", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n") GET_("/hello", "");
    nkhttp_server_desc d;
    nkhttp_stats st;
    kit k;
    size_t n, skip = kit_slow() ? 23 : 1;
    uint32_t workers;
    int i;
    for (workers = 0; workers <= 2; workers += 2) {
        memset(&d, 0, sizeof d);
        d.workers = workers;
        kit_open(&k, NULL, &d);
        num_held = num_gone = 0;
        routes(&k);
        {
            nkhttp_route_desc r; // deferring stays in the loop, so that the array needs no lock
            memset(&r, 0, sizeof r);
            r.method = "GET";
            r.pattern = "/wait";
            r.on_request = on_hold;
            r.in_loop = 1;
            CHECK_INT(nkhttp_route_add(k.srv, &r), 0);
        }
        for (n = 1; n < sizeof script; n += skip) {
            char text[sizeof script];
            char* p;
            memcpy(text, script, sizeof script);
            while ((p = strstr(text, "/hold")) != NULL) memcpy(p, "/wait", 5);
            leave_at(&k, text, n, n % 2 == 0, 0);
            if (n % 40 == 0) still_serves(&k);
        }
        CHECK(num_held > 0);
        UNTIL(&k, (answer_held(&k), nkhttp_get_stats(k.srv, &st), st.open_connections == 0 && st.open_requests == 0));
        CHECK_INT(num_gone, num_held);
        for (i = 0; i < num_held; i++) if (nkhttp_later_text(k.srv, held[i], 200, "late") != NKHTTP_ERR_STALE) { CHECK(0); break; }
        num_held = num_gone = 0;
        for (n = 1; n < 400; n += 7 * skip) { // and at bytes of the reply
            leave_at(&k, GET_("/large", "") GET_("/wait", "") GET_("/hello", ""), strlen(GET_("/large", "") GET_("/wait", "") GET_("/hello", "")), n & 1, n);
        }
        UNTIL(&k, (answer_held(&k), nkhttp_get_stats(k.srv, &st), st.open_connections == 0 && st.open_requests == 0));
        CHECK_INT(num_gone, num_held);
        CHECK_INT(st.buffered_bytes, 0);
        still_serves(&k);
        kit_close(&k);
    }
}

typedef struct shooter { kit* k; nkhttp_handle* h; int num; volatile int ready, done; } shooter;
static void* shoot(void* user) {
    shooter* s = (shooter*)user;
    nkhttp_reply_desc d;
    int i, r;
    memset(&d, 0, sizeof d);
    while (!__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE)) usleep(100);
    for (i = 0; i < s->num; i++) {
        r = i % 3;
        if (r == 0) nkhttp_later_text(s->k->srv, s->h[i], 200, "shot\n");
        if (r == 1) {
            nkhttp_later_begin(s->k->srv, s->h[i], &d, UINT64_MAX);
            nkhttp_later_write(s->k->srv, s->h[i], "piece", 5);
            nkhttp_later_end(s->k->srv, s->h[i], NULL, 0);
        }
        if (r == 2) {
            nkhttp_later_begin(s->k->srv, s->h[i], &d, 5);
            nkhttp_later_write(s->k->srv, s->h[i], "too much", 8); // cuts that connection
        }
    }
    __atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
    return NULL;
}
TEST(answers_from_threads_while_clients_vanish) {
    enum { CLIENTS = 60 };
    kit k;
    client c[CLIENTS];
    pthread_t t[2];
    shooter s[2];
    int i;
    nkhttp_stats st;
    kit_open(&k, NULL, NULL);
    routes(&k);
    for (i = 0; i < CLIENTS; i++) { client_open(&k, &c[i]); client_say(&k, &c[i], GET_("/hold", "") GET_("/hold", "")); }
    UNTIL(&k, num_held == 2 * CLIENTS);
    memset(s, 0, sizeof s);
    for (i = 0; i < 2; i++) { // both shoot at all of them
        s[i].k = &k;
        s[i].h = held;
        s[i].num = num_held;
        CHECK_INT(pthread_create(&t[i], NULL, shoot, &s[i]), 0);
    }
    for (i = 0; i < 2; i++) __atomic_store_n(&s[i].ready, 1, __ATOMIC_RELEASE);
    for (i = 0; i < CLIENTS; i++) {
        if (i % 2) client_reset(&c[i]);
        nkloop_wait(k.L, 0);
    }
    UNTIL(&k, __atomic_load_n(&s[0].done, __ATOMIC_ACQUIRE) && __atomic_load_n(&s[1].done, __ATOMIC_ACQUIRE));
    for (i = 0; i < 2; i++) pthread_join(t[i], NULL);
    for (i = 0; i < CLIENTS; i += 2) client_close(&c[i]);
    UNTIL(&k, (nkhttp_get_stats(k.srv, &st), st.open_connections == 0));
    CHECK_INT(num_gone, num_held);
    still_serves(&k);
    kit_close(&k);
}

// ---- stopping ----
static void* stopper(void* user) {
    int i;
    for (i = 0; i < 50; i++) nkhttp_server_shutdown(((kit*)user)->srv, (uint32_t)(i + 1));
    return NULL;
}
TEST(stopped_by_several_threads) {
    kit k;
    client c;
    pthread_t t[3];
    int i;
    kit_open(&k, NULL, NULL);
    routes(&k);
    client_open(&k, &c);
    client_say(&k, &c, GET_("/hold", ""));
    UNTIL(&k, num_held == 1);
    for (i = 0; i < 3; i++) pthread_create(&t[i], NULL, stopper, &k);
    for (i = 0; i < 20; i++) nkloop_wait(k.L, 1);
    for (i = 0; i < 3; i++) pthread_join(t[i], NULL);
    CHECK(client_get(&k, &c, NULL)); // when the last grace is over
    CHECK_INT(num_gone, 1);
    client_close(&c);
    kit_close(&k);
}
static int stopped;
static void on_stopped(void* user) { (void)user; stopped++; }
static void slow_handler(void* user, nkhttp_req* req) { (void)user; usleep(20000); nkhttp_reply_text(req, 200, "slow\n"); }
TEST(destroyed_while_stopping_with_workers) { // on_stopped is not called for a server that is being destroyed
    nkhttp_server_desc d;
    kit k;
    client c;
    int i;
    for (i = 0; i < 6; i++) {
        memset(&d, 0, sizeof d);
        d.workers = 2;
        d.on_request = slow_handler;
        d.on_stopped = on_stopped;
        stopped = 0;
        kit_open(&k, NULL, &d);
        client_open(&k, &c);
        client_say(&k, &c, GET_("/", "") GET_("/", CLOSE_));
        kit_turns(&k, i);
        nkhttp_server_shutdown(k.srv, 1000);
        kit_turns(&k, i / 2);
        if (i & 1) client_reset(&c);
        kit_close(&k);
        CHECK_INT(stopped, 0);
        if (!(i & 1)) client_close(&c);
    }
}
// The first reply ends the connection; another worker comes with a reply nobody will read. The first must arrive whole.
static void closing_handler(void* user, nkhttp_req* req) {
    (void)user;
    if (req->head->path.len == 2) { usleep(30000); nkhttp_reply_text(req, 200, "late\n"); return; }
    nkhttp_set_header(req, "Connection", "close");
    nkhttp_reply(req, 200, "text/plain", large, sizeof large);
}
TEST(late_worker_behind_the_last_reply) {
    nkhttp_server_desc d;
    kit k;
    client c;
    double end;
    memset(large, 'l', sizeof large);
    memset(&d, 0, sizeof d);
    d.workers = 2;
    d.on_request = closing_handler;
    kit_open(&k, NULL, &d);
    memset(&c, 0, sizeof c);
    c.fd = kit_dial_from(&k, 4096);
    client_say(&k, &c, GET_("/", "") GET_("/x", ""));
    for (end = kit_seconds() + 0.1; kit_seconds() < end; ) nkloop_wait(k.L, 5); // reads nothing meanwhile
    CHECK(client_get(&k, &c, NULL));
    CHECK(c.len > sizeof large);
    client_close(&c);
    kit_close(&k);
}
TEST(aged_server) { // clocks of 32 bits have gone round: connections live as long as they should
    nkhttp_server_desc d;
    nkhttp_stats st;
    kit k;
    client c;
    memset(&d, 0, sizeof d);
    d.connection_ttl_ms = 60000;
    kit_open(&k, NULL, &d);
    routes(&k);
    k.srv->start_ns -= (uint64_t)55 * 24 * 3600 * 1000000000u;
    client_open(&k, &c);
    client_say(&k, &c, GET_("/hello", ""));
    CHECK(client_get(&k, &c, "hello\n"));
    CHECK(!client_has(&c, "close"));
    client_say(&k, &c, GET_("/hello", CLOSE_));
    CHECK(client_get(&k, &c, NULL));
    nkhttp_get_stats(k.srv, &st);
    CHECK_INT(st.requests, 2);
    client_close(&c);
    kit_close(&k);
}
static size_t no_data(void* self, nkloop* L, nkloop_stream s, uint8_t* p, size_t n) { (void)self; (void)L; (void)s; (void)p; return n; }
static const nkloop_proto no_proto = { "none", no_data, NULL, NULL, NULL, NULL, NULL };
TEST(attached_streams_leave_no_memory) { // with no listener of its own there is no accept to clean up in
    nkhttp_server_desc d;
    kit k;
    int i, v[2];
    long before = 0;
    nkloop_stream s;
    char b[256];
    memset(&d, 0, sizeof d);
    d.address = "none";
    d.on_request = on_hello;
    kit_open(&k, NULL, &d);
    for (i = 0; i < 200; i++) {
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, v), 0);
        fcntl(v[1], F_SETFL, O_NONBLOCK);
        CHECK_INT(nkloop_adopt(k.L, (nkloop_fd)v[1], &no_proto, NULL, &s), 0);
        CHECK_INT(nkhttp_server_attach(k.srv, s), 0);
        CHECK(send(v[0], GET_("/", CLOSE_), strlen(GET_("/", CLOSE_)), MSG_NOSIGNAL) > 0);
        kit_turns(&k, 2);
        CHECK(recv(v[0], b, sizeof b, MSG_DONTWAIT) > 0);
        close(v[0]);
        kit_turns(&k, 2);
        if (i == 40) before = kit_live;
    }
    CHECK_INT(kit_live, before);
    kit_close(&k);
}

// ---- what goes into headers ----
static int injected, tried;
static void on_inject(void* user, nkhttp_req* req) {
    static const char* const bad[] = { "a\r\nEvil: 1", "a\nEvil: 1", "a\rEvil: 1", "a\r\n\r\nEvil: 1" };
    char text[64];
    nkhttp_reply_desc d;
    nkhttp_header h;
    nkhttp_cookie cookie;
    size_t i;
    (void)user;
    for (i = 0; i < 4; i++) {
        tried++;
        injected += nkhttp_set_header(req, "X", bad[i]) == NKHTTP_OK;
        injected += nkhttp_set_header(req, bad[i], "x") == NKHTTP_OK;
        injected += nkhttp_redirect(req, 302, bad[i]) == NKHTTP_OK;
        injected += nkhttp_reply(req, 200, bad[i], "x", 1) == NKHTTP_OK;
        memset(&d, 0, sizeof d);
        d.headers = &h;
        d.num_headers = 1;
        h.name.ptr = "X";
        h.name.len = 1;
        h.value.ptr = bad[i];
        h.value.len = strlen(bad[i]);
        injected += nkhttp_reply_with(req, &d) == NKHTTP_OK;
        h.value.ptr = "a\0b";
        h.value.len = 3;
        injected += nkhttp_reply_with(req, &d) == NKHTTP_OK;
        h.name.ptr = bad[i];
        h.name.len = strlen(bad[i]);
        injected += nkhttp_reply_with(req, &d) == NKHTTP_OK;
        memset(&cookie, 0, sizeof cookie);
        cookie.name = "n";
        cookie.value = bad[i];
        injected += nkhttp_cookie_format(text, sizeof text, &cookie) > 0;
        cookie.value = "v";
        cookie.path = bad[i];
        injected += nkhttp_cookie_format(text, sizeof text, &cookie) > 0;
        cookie.path = NULL;
        cookie.domain = bad[i];
        injected += nkhttp_cookie_format(text, sizeof text, &cookie) > 0;
        cookie.domain = NULL;
        cookie.name = bad[i];
        injected += nkhttp_cookie_format(text, sizeof text, &cookie) > 0;
    }
    injected += nkhttp_set_header(req, "Content-Length", "5") == NKHTTP_OK;
    injected += nkhttp_set_header(req, "Transfer-Encoding", "chunked") == NKHTTP_OK;
    injected += nkhttp_set_header(req, "Connection", "keep-alive") == NKHTTP_OK;
    injected += nkhttp_set_header(req, "", "x") == NKHTTP_OK;
    injected += nkhttp_set_header(req, "X:", "x") == NKHTTP_OK;
    injected += nkhttp_set_header(req, NULL, "x") == NKHTTP_OK;
    injected += nkhttp_set_header(req, "X", NULL) == NKHTTP_OK;
    nkhttp_reply_text(req, 200, NULL);
}
static void on_realm(void* user, nkhttp_req* req) { (void)user; nkhttp_require_basic_auth(req, "a\r\nEvil: 1", "u", "p"); }
static void on_no_realm(void* user, nkhttp_req* req) { (void)user; nkhttp_require_basic_auth(req, NULL, "u", "p"); }
static void on_trailers(void* user, nkhttp_req* req) {
    static const nkhttp_header bad[] = { { { "X", 1 }, { "a\r\nEvil: 1", 10 } }, { { "Content-Length", 14 }, { "1", 1 } } };
    nkhttp_handle h = nkhttp_defer(req);
    nkhttp_reply_desc d;
    (void)user;
    memset(&d, 0, sizeof d);
    CHECK_INT(nkhttp_later_begin(req->server, h, &d, UINT64_MAX), 0);
    CHECK_INT(nkhttp_later_end(req->server, h, bad, 1), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_later_end(req->server, h, bad + 1, 1), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_later_write(req->server, h, "body", 4), 0);
    CHECK_INT(nkhttp_later_end(req->server, h, NULL, 0), 0);
}
static void on_events(void* user, nkhttp_req* req) {
    nkhttp_handle h = nkhttp_sse_begin(req);
    (void)user;
    CHECK_INT(nkhttp_sse_send(req->server, h, "a\nEvil: 1", NULL, "x"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_sse_send(req->server, h, NULL, "a\rEvil: 1", "x"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_sse_send(req->server, h, "e", "1", "a\r\rb\nEvil: 1\r\n"), 0);
    CHECK_INT(nkhttp_sse_send(req->server, h, NULL, NULL, NULL), 0);
    nkhttp_later_end(req->server, h, NULL, 0);
}
TEST(nothing_breaks_out_of_its_header) {
    static const char* const origins[] = { "http://a", NULL };
    nkhttp_server_desc d;
    nkhttp_codec codec;
    nkhttp_server* srv = NULL;
    char name[300];
    kit k;
    client c;
    memset(&d, 0, sizeof d);
    d.cors_origins = origins;
    d.cors_headers = "X-A\r\nEvil: 1";
    kit_open(&k, NULL, &d);
    nkhttp_route(k.srv, "GET", "/inject", on_inject, NULL);
    nkhttp_route(k.srv, "GET", "/realm", on_realm, NULL);
    nkhttp_route(k.srv, "GET", "/no-realm", on_no_realm, NULL);
    nkhttp_route(k.srv, "GET", "/trailers", on_trailers, NULL);
    nkhttp_route(k.srv, "GET", "/events", on_events, NULL);
    injected = tried = 0;
    client_talk(&k, &c, GET_("/inject", "") GET_("/realm", "") GET_("/no-realm", "") GET_("/trailers", "")
        "OPTIONS /inject HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nAccess-Control-Request-Method: GET\r\n\r\n" GET_("/events", CLOSE_));
    CHECK_INT(tried, 4);
    CHECK_INT(injected, 0);
    CHECK(!client_has(&c, "\nEvil") && !client_has(&c, "\rEvil"));
    CHECK_INT(client_count(&c, "WWW-Authenticate: Basic realm=\"\""), 2);
    CHECK(client_has(&c, "data: Evil: 1\n") && client_has(&c, "4\r\nbody\r\n0\r\n\r\n"));
    client_close(&c);
    d.cors_headers = NULL;
    d.address = "127.0.0.1:0";
    d.server_name = "a\r\nEvil: 1";
    CHECK_INT(nkhttp_server_create(&srv, k.L, &d), NKHTTP_ERR_HEADER_VALUE);
    memset(name, 'n', sizeof name);
    name[299] = 0;
    d.server_name = NULL;
    memset(&codec, 0, sizeof codec);
    d.codec = &codec;
    codec.coding = name; // no head has room for that
    CHECK_INT(nkhttp_server_create(&srv, k.L, &d), NKHTTP_ERR_HEADER_VALUE);
    codec.coding = "gzip\r\nEvil: 1";
    CHECK_INT(nkhttp_server_create(&srv, k.L, &d), NKHTTP_ERR_HEADER_VALUE);
    kit_close(&k);
}

// ---- absurd numbers ----
TEST(largest_numbers_everywhere) {
    nkhttp_server_desc d;
    nkloop_desc ld;
    kit k;
    int i;
    for (i = 0; i < 2; i++) {
        memset(&d, 0, sizeof d);
        memset(&ld, 0, sizeof ld);
        d.max_connections = d.max_connections_per_address = d.max_requests_per_connection = d.max_pipeline = d.max_line_bytes = d.max_head_bytes
            = d.max_headers = d.drain_bytes = d.head_timeout_ms = d.body_timeout_ms = d.body_min_rate = d.idle_timeout_ms = d.write_timeout_ms
            = d.handler_timeout_ms = d.connection_ttl_ms = d.cors_max_age_s = d.codec_min_bytes = i ? UINT32_MAX : UINT32_MAX - 1;
        d.max_body_bytes = d.max_buffered_bytes = i ? UINT64_MAX : UINT64_MAX - 1;
        ld.max_streams = i ? UINT32_MAX : 2;
        if (i) ld.tx_bytes = UINT32_MAX;
        kit_open(&k, &ld, &d);
        routes(&k);
        still_serves(&k);
        CHECK_TALK(&k, POST_("/echo", "Content-Length: 4\r\n" CLOSE_, "abcd"), "\r\n\r\nabcd");
        CHECK_TALK(&k, POST_("/echo", "Transfer-Encoding: chunked\r\n" CLOSE_, "4\r\nabcd\r\n0\r\nA: b\r\n\r\n"), "\r\n\r\nabcd");
        {
            client c; // promises what nobody has room for
            nkhttp_stats st;
            client_open(&k, &c);
            client_say(&k, &c, POST_("/echo", "Content-Length: 9223372036854775807\r\n", "abcd"));
            kit_turns(&k, 3);
            nkhttp_get_stats(k.srv, &st);
            CHECK_INT(st.buffered_bytes, 4);
            client_close(&c);
        }
        CHECK_TALK(&k, POST_("/echo", "Content-Length: 9223372036854775808\r\n", "abcd"), "HTTP/1.1 4");
        CHECK_TALK(&k, POST_("/echo", "Content-Length: 18446744073709551615\r\n", "abcd"), "HTTP/1.1 4");
        kit_close(&k);
    }
    memset(&d, 0, sizeof d);
    d.workers = UINT32_MAX;
    CHECK(kit_try_open(&k, NULL, &d) < 0);
    CHECK_INT(kit_live, 0);
    d.workers = 0;
    d.max_pipeline = d.max_headers = d.max_requests_per_connection = d.max_head_bytes = d.max_line_bytes = 1;
    d.max_body_bytes = d.max_buffered_bytes = 1;
    kit_open(&k, NULL, &d);
    routes(&k);
    CHECK_TALK(&k, GET_("/hello", ""), "HTTP/1.1 4");
    kit_close(&k);
}

// ---- mistakes of others ----
static void on_binary(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, "application/octet-stream", "\0\xff\xfe\0\x80", 5); }
static void on_empty(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, NULL, NULL, 0); }
static void on_cookies(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_set_header(req, "Set-Cookie", "a=MiXeD");
    nkhttp_set_header(req, "Set-Cookie", "b=2");
    nkhttp_reply(req, 200, NULL, nkhttp_header_value(req, "x-CASE").ptr, nkhttp_header_value(req, "x-CASE").len);
}
static void lessons(uint32_t workers) {
    nkhttp_server_desc d;
    kit k;
    client c;
    char* text;
    int i;
    memset(&d, 0, sizeof d);
    d.workers = workers;
    kit_open(&k, NULL, &d);
    routes(&k);
    nkhttp_route(k.srv, "GET", "/binary", on_binary, NULL);
    nkhttp_route(k.srv, "GET", "/empty", on_empty, NULL);
    nkhttp_route(k.srv, "GET", "/cookies", on_cookies, NULL);
    nkhttp_route(k.srv, "GET", "/", on_hello, NULL);
    nkhttp_route(k.srv, "GET", "/a.b/{x}", on_hello, NULL);
    for (i = 0; i < 20; i++) { // unknown methods and bytes that are no UTF-8 end no worker
        CHECK_TALK(&k, "BREW /hello HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n", "HTTP/1.1 405 ");
        CHECK_TALK(&k, GET_("/hello", "X: \xff\xfe\x80\r\n" CLOSE_), "\r\n\r\nhello\n");
    }
    // values keep their case, and a name may come twice
    CHECK_TALK(&k, GET_("/cookies", "X-Case: AbCdEf\r\n" CLOSE_), "Set-Cookie: a=MiXeD\r\nSet-Cookie: b=2\r\n");
    CHECK_TALK(&k, GET_("/cookies", "X-Case: AbCdEf\r\n" CLOSE_), "\r\n\r\nAbCdEf");
    client_talk(&k, &c, GET_("/binary", CLOSE_)); // a body is bytes
    CHECK(client_has(&c, "Content-Length: 5\r\n") && c.len > 5 && memcmp(c.text + c.len - 5, "\0\xff\xfe\0\x80", 5) == 0);
    client_close(&c);
    CHECK_TALK(&k, GET_("/empty", "") GET_("/none", "") GET_("/hello", CLOSE_), "hello\n"); // no body says so: the next reply is found
    CHECK_TALK(&k, GET_("/empty", CLOSE_), "Content-Length: 0\r\n");
    CHECK_TALK(&k, GET_("/none", CLOSE_), "Content-Length: ");
    client_open(&k, &c); // more than one read's worth arrives at once and is all used
    text = (char*)malloc(60000 + 200);
    i = sprintf(text, "POST /echo HTTP/1.1\r\nHost: a\r\n" CLOSE_ "Content-Length: 60000\r\n\r\n");
    memset(text + i, 'e', 60000);
    client_put(&k, &c, text, (size_t)i + 60000);
    CHECK(client_get(&k, &c, NULL) && c.len > 60000);
    client_close(&c);
    free(text);
    CHECK_TALK(&k, GET_("/hello", "Connection: te, close\r\nTE: trailers\r\n") GET_("/empty", ""), "Connection: close\r\n"); // close in a list
    CHECK_TALK(&k, POST_("/echo", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "HTTP/1.1 400 ");
    CHECK_TALK(&k, POST_("/echo", "Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), "HTTP/1.1 400 ");
    CHECK_TALK(&k, "GET /hello HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "); // no Host
    CHECK_TALK(&k, GET_("/hello?a=b&c", CLOSE_), "\r\n\r\nhello\n"); // a query is no part of the path
    CHECK_TALK(&k, GET_("/?q", CLOSE_), "\r\n\r\nhello\n");
    CHECK_TALK(&k, GET_("/aXb/1", CLOSE_), "HTTP/1.1 404 "); // literals are no patterns
    CHECK_TALK(&k, GET_("/a%2Eb/1", CLOSE_), "\r\n\r\nhello\n");
    kit_close(&k);
}
TEST(mistakes_of_others) { lessons(0); lessons(2); }
TEST(servers_that_come_and_go) { // leave no thread, no file, no memory
    nkhttp_server_desc d;
    kit k;
    int i, fd, first;
    memset(&d, 0, sizeof d);
    d.workers = 3;
    d.on_request = on_hello;
    first = dup(0);
    close(first);
    for (i = 0; i < 20; i++) {
        kit_open(&k, NULL, &d);
        still_serves(&k);
        kit_close(&k);
    }
    fd = dup(0);
    CHECK_INT(fd, first);
    close(fd);
}
static void on_signal(int number) { (void)number; }
TEST(signals_do_not_end_it) { // a signal in the middle of waiting is no error
    struct sigaction sa;
    kit k;
    int i;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_signal;
    sigaction(SIGALRM, &sa, NULL);
    kit_open(&k, NULL, NULL);
    routes(&k);
    for (i = 0; i < 20; i++) {
        ualarm(1000, 0);
        nkloop_wait(k.L, 20);
        if (i % 5 == 0) still_serves(&k);
    }
    ualarm(0, 0);
    kit_close(&k);
}

// ---- PROXY lines, cut anywhere ----
TEST(proxy_lines_cut_anywhere) {
    static const char* const trusted[] = { "127.0.0.1", NULL };
    static const char v1[] = "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" GET_("/hello", CLOSE_);
    static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02" GET_("/hello", CLOSE_);
    const struct { const char* p; size_t n; } t[] = { { v1, sizeof v1 - 1 }, { v2, sizeof v2 - 1 } };
    nkhttp_server_desc d;
    nkhttp_stats st;
    kit k;
    client c;
    size_t i, cut_at, skip = kit_slow() ? 9 : 1;
    memset(&d, 0, sizeof d);
    d.proxy_protocol = 1;
    d.trusted_proxies = trusted;
    d.max_connections_per_address = 2;
    kit_open(&k, NULL, &d);
    routes(&k);
    for (i = 0; i < 2; i++) for (cut_at = 1; cut_at < t[i].n; cut_at += skip) {
        client_open(&k, &c);
        client_put(&k, &c, t[i].p, cut_at);
        kit_turns(&k, 1);
        if (cut_at % 3 == 0) { client_close(&c); kit_turns(&k, 2); continue; } // leaves there
        client_put(&k, &c, t[i].p + cut_at, t[i].n - cut_at);
        CHECK(client_get(&k, &c, NULL) && client_has(&c, "\r\n\r\nhello\n"));
        client_close(&c);
    }
    client_open(&k, &c);
    client_say(&k, &c, GET_("/hello", CLOSE_));
    CHECK(client_get(&k, &c, NULL) && c.len == 0);
    client_close(&c);
    UNTIL(&k, (nkhttp_get_stats(k.srv, &st), st.open_connections == 0));
    kit_close(&k);
}
