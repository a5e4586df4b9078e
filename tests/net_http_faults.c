// netkit_http.h when the system and the memory do not play along: calls that come up short, are interrupted, find nothing or
// fail, each in turn; and each allocation in turn. A client then gets what it would have got without the fault, the beginning of
// it, or an honest 500 or 503; the next client is served as if nothing had been; and everything is given back. POSIX only.
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include <sys/syscall.h>

enum { CALL_RECV = 1, CALL_SEND = 2, CALL_SHUTDOWN = 4, CALL_ACCEPT = 8, CALL_PREAD = 16, CALL_FILE = 32, CALL_WAIT = 64, CALL_CTL = 128,
    CALL_OPEN = 256, CALL_STAT = 512, CALL_READ_FILE = 1024, CALL_LISTEN = 2048 };
static int which, error_no, every;    // of these calls: the nth fails once, or every so many
static long nth, calls;
static size_t most = (size_t)-1;      // bytes that one call moves
static int fails(int call) {
    if (!(which & call)) return 0;
    calls++;
    if (every ? calls % every != 0 : calls != nth) return 0;
    errno = error_no;
    return 1;
}
static size_t cut(size_t n) { return n < most ? n : most; }
static ssize_t f_recv(int fd, void* p, size_t n, int flags) { return fails(CALL_RECV) ? -1 : recv(fd, p, cut(n), flags); }
static ssize_t f_send(int fd, const void* p, size_t n, int flags) { return fails(CALL_SEND) ? -1 : send(fd, p, cut(n), flags); }
static ssize_t f_sendmsg(int fd, const struct msghdr* m, int flags) {
    size_t i;
    if (fails(CALL_SEND)) return -1;
    if (most == (size_t)-1) return sendmsg(fd, m, flags);
    for (i = 0; i < m->msg_iovlen; i++) if (m->msg_iov[i].iov_len) return send(fd, m->msg_iov[i].iov_base, cut(m->msg_iov[i].iov_len), flags);
    return 0;
}
static int f_shutdown(int fd, int how) { return fails(CALL_SHUTDOWN) ? -1 : shutdown(fd, how); }
static int f_accept(int fd) { return fails(CALL_ACCEPT) ? -1 : accept(fd, NULL, NULL); }
static int f_listen(int fd, int n) { return fails(CALL_LISTEN) ? -1 : listen(fd, n); }
static ssize_t f_pread(int fd, void* p, size_t n, off_t at) { return fails(CALL_PREAD) ? -1 : pread(fd, p, cut(n), at); }
static ssize_t f_sendfile(int out, int in, off_t* at, size_t n) { return fails(CALL_FILE) ? -1 : sendfile(out, in, at, cut(n)); }
static int f_epoll_wait(int ep, struct epoll_event* e, int n, int ms) { return fails(CALL_WAIT) ? -1 : epoll_wait(ep, e, n, ms); }
static int f_epoll_ctl(int ep, int op, int fd, struct epoll_event* e) { return op != EPOLL_CTL_DEL && fails(CALL_CTL) ? -1 : epoll_ctl(ep, op, fd, e); }
static int f_poll(struct pollfd* p, nfds_t n, int ms) { return fails(CALL_WAIT) ? -1 : poll(p, n, ms); }
static int f_openat2(int dir, const char* path, void* how, size_t size) { return fails(CALL_OPEN) ? -1 : (int)syscall(437, dir, path, how, size); }
static int f_openat(int dir, const char* path, int flags) { return fails(CALL_OPEN) ? -1 : openat(dir, path, flags); }
static int f_fstat(int fd, struct stat* st) { return fails(CALL_STAT) ? -1 : fstat(fd, st); }
static ssize_t f_read_file(int fd, void* p, size_t n, off_t at) { return fails(CALL_READ_FILE) ? -1 : pread(fd, p, cut(n), at); }
#define NETKIT_LOOP_SYS_RECV(fd, p, n, flags) f_recv(fd, p, n, flags)
#define NETKIT_LOOP_SYS_SEND(fd, p, n, flags) f_send(fd, p, n, flags)
#define NETKIT_LOOP_SYS_SENDMSG(fd, m, flags) f_sendmsg(fd, m, flags)
#define NETKIT_LOOP_SYS_SHUTDOWN(fd, how) f_shutdown(fd, how)
#define NETKIT_LOOP_SYS_ACCEPT(fd) f_accept(fd)
#define NETKIT_LOOP_SYS_LISTEN(fd, n) f_listen(fd, n)
#define NETKIT_LOOP_SYS_PREAD(fd, p, n, at) f_pread(fd, p, n, at)
#define NETKIT_LOOP_SYS_SENDFILE(out, in, at, n) f_sendfile(out, in, at, n)
#define NETKIT_LOOP_SYS_EPOLL_WAIT(ep, e, n, ms) f_epoll_wait(ep, e, n, ms)
#define NETKIT_LOOP_SYS_EPOLL_CTL(ep, op, fd, e) f_epoll_ctl(ep, op, fd, e)
#define NETKIT_LOOP_SYS_POLL(p, n, ms) f_poll(p, n, ms)
#define NETKIT_HTTP_SYS_OPENAT2(dir, path, how, size) f_openat2(dir, path, how, size)
#define NETKIT_HTTP_SYS_OPENAT(dir, path, flags) f_openat(dir, path, flags)
#define NETKIT_HTTP_SYS_FSTAT(fd, st) f_fstat(fd, st)
#define NETKIT_HTTP_SYS_PREAD(fd, p, n, at) f_read_file(fd, p, n, at)
#include "http_kit.h"

// ---- the server: a bit of everything ----
enum { STREAM_PIECES = 120, STREAM_BYTES = 3000 };
static char piece[STREAM_BYTES];
static char root[256];
static int begun, ended, gone, watched, releases, kept;

static void on_hello(void* user, nkhttp_req* req) {
    (void)user;
    if (nkhttp_set_header(req, "X-A", "1") < 0) nkhttp_reply_text(req, 503, "no memory\n");
    else nkhttp_reply_text(req, 200, "hello\n");
}
static void on_echo(void* user, nkhttp_req* req) {
    uint32_t n;
    const nkhttp_header* t = nkhttp_trailers(req, &n);
    (void)user;
    if (n && nkhttp_set_header(req, "X-Trailer", t[0].value.ptr[0] == '7' ? "7" : "?") < 0) nkhttp_reply_text(req, 503, "no memory\n");
    else nkhttp_reply(req, 200, "text/plain", req->body, req->body_bytes);
}
static void on_release(void* user) { (void)user; __atomic_add_fetch(&releases, 1, __ATOMIC_SEQ_CST); }
static void on_big(void* user, nkhttp_req* req) { // a body without a copy
    static char big[150000];
    nkhttp_reply_desc d;
    (void)user;
    if (!big[0]) memset(big, 'b', sizeof big);
    memset(&d, 0, sizeof d);
    d.body = big;
    d.body_bytes = sizeof big;
    d.release_fn = on_release;
    __atomic_add_fetch(&kept, 1, __ATOMIC_SEQ_CST);
    nkhttp_reply_with(req, &d);
}
// Handles are answered by the test's own loop, in between.
typedef struct held { nkhttp_handle h; nkhttp_server* srv; int kind, sent, used, watched; } held;
static held waiting[16];
static pthread_mutex_t waiting_lock = PTHREAD_MUTEX_INITIALIZER;
enum { LATER = 1, STREAM, EVENTS };
static void hold(nkhttp_req* req, nkhttp_handle h, int kind) {
    int i;
    pthread_mutex_lock(&waiting_lock);
    for (i = 0; i < 16 && waiting[i].used; i++) {}
    if (i < 16 && h.id) {
        waiting[i].h = h;
        waiting[i].srv = req->server;
        waiting[i].kind = kind;
        waiting[i].sent = waiting[i].watched = 0;
        waiting[i].used = 1;
    }
    pthread_mutex_unlock(&waiting_lock);
}
static void on_later(void* user, nkhttp_req* req) { (void)user; hold(req, nkhttp_defer(req), LATER); }
static void on_stream(void* user, nkhttp_req* req) { (void)user; hold(req, nkhttp_defer(req), STREAM); }
static void on_events(void* user, nkhttp_req* req) { (void)user; hold(req, nkhttp_sse_begin(req), EVENTS); }
static void on_gone(void* user, nkhttp_handle h, int why) { (void)user; (void)h; (void)why; gone++; }

// One step of a handle. 0: it is over.
static int step(held* w) {
    static const nkhttp_header trailer = { { "X-Sum", 5 }, { "12", 2 } };
    nkhttp_reply_desc d;
    int r = 0;
    memset(&d, 0, sizeof d);
    d.content_type = "text/plain";
    if (w->kind == LATER) return nkhttp_later_text(w->srv, w->h, 200, "later\n") == NKLOOP_ERR_NOMEM;
    if (w->kind == EVENTS) {
        for (; w->sent < 20; w->sent++) {
            r = nkhttp_sse_send(w->srv, w->h, "tick", "1", "a\nb");
            if (r == NKHTTP_ERR_FULL || r == NKLOOP_ERR_NOMEM) return 1;
            if (r < 0) return 0;
        }
        return nkhttp_later_end(w->srv, w->h, NULL, 0) == NKLOOP_ERR_NOMEM;
    }
    if (w->sent == 0) {
        if (!w->watched && nkhttp_later_watch(w->srv, w->h, NULL, on_gone, NULL) == 0) { w->watched = 1; watched++; }
        r = nkhttp_later_begin(w->srv, w->h, &d, UINT64_MAX);
        if (r == NKLOOP_ERR_NOMEM) return 1;
        if (r < 0) return 0;
        w->sent = 1;
    }
    for (; w->sent <= STREAM_PIECES; w->sent++) {
        r = nkhttp_later_write(w->srv, w->h, piece, sizeof piece);
        if (r == NKHTTP_ERR_FULL || r == NKLOOP_ERR_NOMEM) return 1;
        if (r < 0) return 0;
    }
    return nkhttp_later_end(w->srv, w->h, &trailer, 1) == NKLOOP_ERR_NOMEM;
}
static void answer_waiting(void) {
    int i;
    held w;
    for (i = 0; i < 16; i++) {
        pthread_mutex_lock(&waiting_lock);
        w = waiting[i];
        pthread_mutex_unlock(&waiting_lock);
        if (!w.used) continue;
        w.used = step(&w);
        pthread_mutex_lock(&waiting_lock);
        waiting[i] = w;
        pthread_mutex_unlock(&waiting_lock);
    }
}

static void up_begin(void* user, nkhttp_req* req) { (void)user; (void)req; begun++; }
static int up_body(void* user, nkhttp_req* req, const uint8_t* p, size_t n) {
    (void)user; (void)p;
    req->request_user = (void*)((char*)req->request_user + n);
    return 0;
}
static void up_request(void* user, nkhttp_req* req) {
    char text[32];
    (void)user;
    snprintf(text, sizeof text, "took %ld\n", (long)((char*)req->request_user - (char*)0));
    nkhttp_reply_text(req, 200, text);
}
static void up_end(void* user, nkhttp_req* req, int why) { (void)user; (void)req; (void)why; ended++; }

static size_t line_data(void* self, nkloop* L, nkloop_stream s, uint8_t* p, size_t n) {
    (void)self;
    if (nkloop_write(L, s, p, n) < 0) nkloop_close(L, s);
    nkloop_finish(L, s);
    return n;
}
static void line_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)self; (void)L; (void)s; (void)why; }
static const nkloop_proto line_proto = { "line", line_data, NULL, line_close, NULL, NULL, NULL };
static void on_upgrade(void* user, nkhttp_req* req) {
    nkloop* L = req->loop;
    nkloop_stream s = nkhttp_detach(req);
    (void)user;
    if (!s.id) return;
    nkloop_set_proto(L, s, &line_proto, NULL);
    if (nkloop_write(L, s, "HTTP/1.1 101 Switching Protocols\r\n\r\n", 36) < 0) nkloop_close(L, s);
}
static void on_log(void* user, const nkhttp_log_entry* e) { // looks at every byte, for the sanitizers
    size_t i;
    int sum = 0;
    for (i = 0; i < e->target.len; i++) sum += e->target.ptr[i];
    for (i = 0; i < e->host.len; i++) sum += e->host.ptr[i];
    *(int*)user += sum >= 0;
    CHECK(!e->target.len || e->target.ptr[0] == '/');
}

static int add_routes(nkhttp_server* srv) {
    nkhttp_route_desc up;
    nkhttp_files_desc files;
    int err = 0;
    memset(&up, 0, sizeof up);
    up.method = "PUT";
    up.pattern = "/up";
    up.on_begin = up_begin;
    up.on_body = up_body;
    up.on_request = up_request;
    up.on_end = up_end;
    memset(&files, 0, sizeof files);
    files.root = root;
    err |= nkhttp_route(srv, "GET", "/hello", on_hello, NULL);
    err |= nkhttp_route(srv, "POST", "/echo/{what}", on_echo, NULL);
    err |= nkhttp_route(srv, "GET", "/big", on_big, NULL);
    err |= nkhttp_route(srv, "GET", "/later", on_later, NULL);
    err |= nkhttp_route(srv, "GET", "/stream", on_stream, NULL);
    err |= nkhttp_route(srv, "GET", "/events", on_events, NULL);
    err |= nkhttp_route_add(srv, &up);
    err |= nkhttp_serve_files(srv, "/files/", &files);
    return err;
}

// ---- the clients ----
#define X100 "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
#define X1000 X100 X100 X100 X100 X100 X100 X100 X100 X100 X100
#define CHUNKS "3e8\r\n" X1000 "\r\n3e8;x=y\r\n" X1000 "\r\n0\r\nX-T: 7\r\n\r\n"
static const char* const scripts[] = { // \1: wait for "100 Continue", \2: for "101 "
    GET_("/hello", CLOSE_),
    POST_("/echo/a", "Content-Length: 3000\r\n" CLOSE_, X1000 X1000 X1000),
    POST_("/echo/%20", "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n" CLOSE_, CHUNKS),
    GET_("/hello", "") GET_("/later", "") POST_("/echo/b", "Content-Length: 5\r\n", "abcde") GET_("/nothing", "") "OPTIONS /hello HTTP/1.1\r\nHost: a\r\n\r\n"
        GET_("/hello", "") GET_("/files/small.txt", "") GET_("/big", "") GET_("/hello", CLOSE_),
    GET_("/later", "") GET_("/later", CLOSE_),
    GET_("/stream", CLOSE_),
    GET_("/events", CLOSE_),
    GET_("/files/big.bin", "") GET_("/files/small.txt", CLOSE_),
    "PUT /up HTTP/1.1\r\nHost: a\r\n" CLOSE_ "Content-Length: 2000\r\n\r\n" X1000 X1000,
    "PUT /up HTTP/1.1\r\nHost: a\r\n" CLOSE_ "Transfer-Encoding: chunked\r\n\r\n" CHUNKS,
    POST_("/echo/c", "Expect: 100-continue\r\nContent-Length: 5\r\n" CLOSE_, "\1" "abcde"),
    GET_("/hello", "") GET_("/ws", "Connection: upgrade\r\nUpgrade: line\r\n") "\2" "ping",
    "GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
    "HEAD /stream HTTP/1.0\r\n\r\n"
};
enum { SCRIPTS = sizeof scripts / sizeof scripts[0] };
static client golden[SCRIPTS];

typedef struct actor { client c; const char* at; } actor;
// Goes on with its script. 1: something moved.
static int act(actor* a) {
    int moved = client_read(&a->c);
    size_t n;
    ssize_t sent;
    if (a->c.ended) return 0;
    if (*a->at == '\1' && client_has(&a->c, "100 Continue")) a->at++;
    if (*a->at == '\2' && client_has(&a->c, "101 ")) a->at++;
    if (*a->at && *a->at < 3 && client_has(&a->c, "HTTP/1.1 50")) { // it will not come
        a->at = "";
        shutdown(a->c.fd, SHUT_WR);
    }
    n = strcspn(a->at, "\1\2");
    sent = n ? send(a->c.fd, a->at, n, MSG_NOSIGNAL) : 0;
    if (sent > 0) a->at += sent;
    return moved || sent > 0;
}

// What came must be what was to come, its beginning, or from some reply on an error of the server's own.
static void compare(const client* got, const client* want, const char* script) {
    size_t i = 0, n = got->len < want->len ? got->len : want->len;
    while (i < n && got->text[i] == want->text[i]) i++;
    if (i == got->len) { CHECK(1); return; }
    while (i > 0 && memcmp(got->text + i, "HTTP/1.1 ", got->len - i < 9 ? got->len - i : 9) != 0) i--;
    if (got->len - i > 12 && (memcmp(got->text + i, "HTTP/1.1 500", 12) == 0 || memcmp(got->text + i, "HTTP/1.1 503", 12) == 0)) { CHECK(1); return; }
    CHECK(!"an answer that nobody gave");
    printf("    to %.60s\n    came %.200s\n", script, got->text + i);
}

// All clients at once. exact: the faults must not be seen at all.
static void scene(kit* k, int exact) {
    actor a[SCRIPTS];
    int i, left = SCRIPTS;
    double end = kit_seconds() + 20;
    for (i = 0; i < SCRIPTS; i++) {
        client_open(k, &a[i].c);
        a[i].at = scripts[i];
    }
    while (left && kit_seconds() < end) {
        int moved = 0;
        for (i = left = 0; i < SCRIPTS; i++) {
            moved |= act(&a[i]);
            left += !a[i].c.ended;
        }
        answer_waiting();
        if (kit_fail_all && kit_seconds() > end - 19.9) kit_fail_at = kit_fail_all = 0; // memory is back
        nkloop_wait(k->L, moved ? 0 : 1);
    }
    CHECK_INT(left, 0);
    for (i = 0; i < SCRIPTS; i++) {
        if (left && !a[i].c.ended) printf("    hangs: %.60s, got %.300s\n", scripts[i], a[i].c.text ? a[i].c.text : "");
        if (!golden[i].text) { golden[i] = a[i].c; close(golden[i].fd); golden[i].fd = -1; continue; }
        if (exact && CHECK_INT(a[i].c.len, golden[i].len)) CHECK(memcmp(a[i].c.text, golden[i].text, golden[i].len) == 0);
        else compare(&a[i].c, &golden[i], scripts[i]);
        client_close(&a[i].c);
    }
}

static void quiet(void) { which = every = 0; nth = calls = 0; most = (size_t)-1; kit_memory_reset(); }

// Server, faults, clients, no faults, one more client, end. 0: the server could not be made.
static int run(uint32_t workers, int exact) {
    nkhttp_server_desc d;
    kit k;
    int seen = 0, made, was_begun = begun;
    client c;
    memset(&d, 0, sizeof d);
    memset(waiting, 0, sizeof waiting);
    d.workers = workers;
    d.on_upgrade = on_upgrade;
    d.on_log = on_log;
    d.user = &seen;
    d.server_name = "faulty";
    gone = watched = releases = kept = ended = 0;
    made = kit_try_open(&k, NULL, &d) == 0;
    if (made && add_routes(k.srv) == 0) {
        scene(&k, exact);
        which = 0;
        kit_fail_at = 0;
        client_talk(&k, &c, scripts[0]);
        CHECK(c.len == golden[0].len && memcmp(c.text, golden[0].text, c.len) == 0);
        client_close(&c);
        CHECK(seen > 0);
    }
    if (made) {
        nkhttp_stats st;
        nkhttp_server_shutdown(k.srv, 50);
        kit_turns(&k, 3);
        nkhttp_get_stats(k.srv, &st);
        kit_close(&k);
        CHECK_INT(watched, gone);
        CHECK_INT(releases, kept);
        CHECK_INT(begun - was_begun, ended);
    }
    CHECK_INT(kit_live, 0);
    memset(waiting, 0, sizeof waiting);
    return made;
}

static void make_root(void) {
    char path[300];
    const char* dir = getenv("TMPDIR");
    int fd;
    size_t i;
    snprintf(root, sizeof root, "%s/nkfaults.XXXXXX", dir && strlen(dir) < 200 ? dir : "/tmp");
    CHECK(mkdtemp(root) != NULL);
    snprintf(path, sizeof path, "%s/big.bin", root);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    memset(piece, 'p', sizeof piece);
    for (i = 0; i < 60; i++) CHECK(write(fd, piece, sizeof piece) == (ssize_t)sizeof piece);
    close(fd);
    snprintf(path, sizeof path, "%s/small.txt", root);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    CHECK(write(fd, "small\n", 6) == 6);
    close(fd);
}

TEST(nothing_fails) {
    make_root();
    quiet();
    run(0, 1);
    run(0, 1); // now against what the first run got
    run(2, 1);
    CHECK(client_has(&golden[3], "405") == 0 && client_has(&golden[3], "204 No Content"));
    CHECK(client_has(&golden[5], "X-Sum: 12") && client_has(&golden[11], "ping"));
    CHECK_INT(client_count(&golden[3], "HTTP/1.1 "), 9);
}
TEST(one_byte_at_a_time) { quiet(); most = kit_slow() ? 97 : 5; run(0, 1); }
TEST(a_byte_in_a_byte_out) { // the same with single bytes, and less of it
    nkhttp_server_desc d;
    kit k;
    client c;
    memset(&d, 0, sizeof d);
    quiet();
    kit_open(&k, NULL, &d);
    CHECK_INT(add_routes(k.srv), 0);
    most = 1;
    client_talk(&k, &c, GET_("/hello", "") POST_("/echo/x", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2;e=f\r\nde\r\n0\r\nX-T: 7\r\n\r\n")
        POST_("/echo/x", "Content-Length: 6\r\n", "fghijk") GET_("/files/small.txt", CLOSE_));
    CHECK_INT(client_count(&c, "HTTP/1.1 200 OK"), 4);
    CHECK(client_has(&c, "X-Trailer: 7") && client_has(&c, "abcde") && client_has(&c, "fghijk") && client_has(&c, "small\n"));
    client_close(&c);
    quiet();
    kit_close(&k);
}
TEST(interrupted_every_second_time) { quiet(); which = CALL_RECV | CALL_SEND | CALL_ACCEPT | CALL_PREAD | CALL_FILE | CALL_WAIT | CALL_OPEN | CALL_READ_FILE; error_no = EINTR; every = 2; run(0, 1); run(2, 1); }
TEST(nothing_there_every_second_time) { quiet(); which = CALL_RECV | CALL_SEND | CALL_ACCEPT | CALL_FILE; error_no = EAGAIN; every = 2; run(0, 1); run(2, 1); }

static void each_call(int call, int code, uint32_t workers) {
    long n, step_by = kit_slow() ? 17 : 1, total;
    quiet();
    which = call;
    error_no = code;
    nth = -1;
    run(workers, 1); // only counts
    total = calls;
    CHECK(total > 0 || call == CALL_CTL);
    if (total > 40 && step_by < total / 25) step_by = total / 25; // a sample is enough of those that come by hundreds
    for (n = 1; n <= total; n += step_by) {
        quiet();
        which = call;
        error_no = code;
        nth = n;
        run(workers, 0);
    }
    quiet();
}
TEST(every_recv_fails)     { each_call(CALL_RECV, ECONNRESET, 0); each_call(CALL_RECV, ENOMEM, 2); }
TEST(every_send_fails)     { each_call(CALL_SEND, EPIPE, 0); each_call(CALL_SEND, ENOBUFS, 2); }
TEST(every_accept_fails)   { each_call(CALL_ACCEPT, EMFILE, 0); each_call(CALL_ACCEPT, ECONNABORTED, 0); }
TEST(every_shutdown_fails) { each_call(CALL_SHUTDOWN, ENOTCONN, 0); }
TEST(every_watching_fails) { if (kit_backend() != NKLOOP_BACKEND_POLL) each_call(CALL_CTL, ENOMEM, 0); }
TEST(every_file_call_fails) {
    each_call(CALL_FILE, EIO, 0);
    each_call(CALL_OPEN, EMFILE, 0);
    each_call(CALL_STAT, EIO, 0);
    each_call(CALL_READ_FILE, EIO, 0);
}
TEST(every_allocation_fails) {
    uint32_t workers;
    long n;
    for (workers = 0; workers <= 2; workers += 2) {
        int made = 0, clean = 0;
        for (n = 1; n < 400 && clean < 2; n += kit_slow() ? 19 : 1) { // until the last allocation was passed
            quiet();
            kit_fail_at = n;
            made += run(workers, 0);
            clean = kit_allocs < n ? clean + 1 : 0;
        }
        CHECK(made > 0);
        quiet();
    }
}
TEST(all_memory_gone_for_a_while) { // from some allocation on there is none at all, until the faults end
    long n;
    for (n = 5; n < 150; n += kit_slow() ? 40 : 9) {
        quiet();
        kit_fail_at = n;
        kit_fail_all = 1;
        run(n & 1 ? 2 : 0, 0);
    }
    quiet();
}
TEST(clean_up) {
    char path[300];
    int i;
    snprintf(path, sizeof path, "%s/big.bin", root);
    unlink(path);
    snprintf(path, sizeof path, "%s/small.txt", root);
    unlink(path);
    CHECK_INT(rmdir(root), 0);
    for (i = 0; i < SCRIPTS; i++) free(golden[i].text);
}
