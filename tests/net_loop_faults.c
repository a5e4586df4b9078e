// netkit_loop.h when the system does not play along: calls that come up short, are interrupted, find nothing or fail, each
// in turn; and each allocation in turn. Whatever happens, every stream ends once and everything is given back. POSIX only.
#define KIT_OWN_CALLS 1
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/sendfile.h>
#include <sys/epoll.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum { CALL_RECV = 1, CALL_SEND = 2, CALL_SOCKET = 4, CALL_CONNECT = 8, CALL_BIND = 16, CALL_LISTEN = 32, CALL_SHUTDOWN = 64,
    CALL_ACCEPT = 128, CALL_PREAD = 256, CALL_FILE = 512, CALL_WAIT = 1024, CALL_CTL = 2048, CALL_ALL = 4095, CALL_IO = 1 | 2 | 128 | 256 | 512 };
static int which, error_no, every;    // of these calls: the nth fails once, or every second
static long nth, calls, accepts, sends, open_sockets;
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
static ssize_t f_send(int fd, const void* p, size_t n, int flags) { sends++; return fails(CALL_SEND) ? -1 : send(fd, p, cut(n), flags); }
static ssize_t f_sendmsg(int fd, const struct msghdr* m, int flags) {
    size_t i;
    sends++;
    if (fails(CALL_SEND)) return -1;
    if (most == (size_t)-1) return sendmsg(fd, m, flags);
    for (i = 0; i < m->msg_iovlen; i++) if (m->msg_iov[i].iov_len) return send(fd, m->msg_iov[i].iov_base, cut(m->msg_iov[i].iov_len), flags);
    return 0;
}
static int f_socket(int a, int b, int c) { int r = fails(CALL_SOCKET) ? -1 : socket(a, b, c); if (r >= 0) open_sockets++; return r; }
static int f_connect(int fd, const struct sockaddr* a, socklen_t n) { return fails(CALL_CONNECT) ? -1 : connect(fd, a, n); }
static int f_bind(int fd, const struct sockaddr* a, socklen_t n) { return fails(CALL_BIND) ? -1 : bind(fd, a, n); }
static int f_listen(int fd, int n) { return fails(CALL_LISTEN) ? -1 : listen(fd, n); }
static int f_shutdown(int fd, int how) { return fails(CALL_SHUTDOWN) ? -1 : shutdown(fd, how); }
static int f_accept(int fd) { int r; accepts++; r = fails(CALL_ACCEPT) ? -1 : accept(fd, NULL, NULL); if (r >= 0) open_sockets++; return r; }
static int f_close(int fd) { open_sockets--; return close(fd); }
static ssize_t f_pread(int fd, void* p, size_t n, off_t at) { return fails(CALL_PREAD) ? -1 : pread(fd, p, cut(n), at); }
static ssize_t f_sendfile(int out, int in, off_t* at, size_t n) { return fails(CALL_FILE) ? -1 : sendfile(out, in, at, cut(n)); }
static int f_epoll_wait(int ep, struct epoll_event* e, int n, int ms) { return fails(CALL_WAIT) ? -1 : epoll_wait(ep, e, n, ms); }
static int f_epoll_ctl(int ep, int op, int fd, struct epoll_event* e) { return op != EPOLL_CTL_DEL && fails(CALL_CTL) ? -1 : epoll_ctl(ep, op, fd, e); }
static int f_poll(struct pollfd* p, nfds_t n, int ms) { return fails(CALL_WAIT) ? -1 : poll(p, n, ms); }
#define NETKIT_LOOP_SYS_RECV(fd, p, n, flags) f_recv(fd, p, n, flags)
#define NETKIT_LOOP_SYS_SEND(fd, p, n, flags) f_send(fd, p, n, flags)
#define NETKIT_LOOP_SYS_SENDMSG(fd, m, flags) f_sendmsg(fd, m, flags)
#define NETKIT_LOOP_SYS_SOCKET(a, b, c) f_socket(a, b, c)
#define NETKIT_LOOP_SYS_CONNECT(fd, a, n) f_connect(fd, a, n)
#define NETKIT_LOOP_SYS_BIND(fd, a, n) f_bind(fd, a, n)
#define NETKIT_LOOP_SYS_LISTEN(fd, n) f_listen(fd, n)
#define NETKIT_LOOP_SYS_SHUTDOWN(fd, how) f_shutdown(fd, how)
#define NETKIT_LOOP_SYS_ACCEPT(fd) f_accept(fd)
#define NETKIT_LOOP_SYS_CLOSE(fd) f_close(fd)
#define NETKIT_LOOP_SYS_PREAD(fd, p, n, at) f_pread(fd, p, n, at)
#define NETKIT_LOOP_SYS_SENDFILE(out, in, at, n) f_sendfile(out, in, at, n)
#define NETKIT_LOOP_SYS_EPOLL_WAIT(ep, e, n, ms) f_epoll_wait(ep, e, n, ms)
#define NETKIT_LOOP_SYS_EPOLL_CTL(ep, op, fd, e) f_epoll_ctl(ep, op, fd, e)
#define NETKIT_LOOP_SYS_POLL(p, n, ms) f_poll(p, n, ms)
#include "loop_kit.h"

static long alloc_nth, allocs, live_bytes, live_blocks;
static int alloc_after; // and every one after the nth
static void* fault_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    void* got;
    (void)user;
    if (new_size > 0) {
        allocs++;
        if (alloc_nth && (allocs == alloc_nth || (alloc_after && allocs > alloc_nth))) return NULL;
    }
    if (new_size == 0) {
        if (ptr) { live_bytes -= (long)old_size; live_blocks--; }
        free(ptr);
        return NULL;
    }
    got = realloc(ptr, new_size);
    if (!ptr) live_blocks++;
    live_bytes += (long)new_size - (long)old_size;
    return got;
}

// A filter that turns every byte around, so that a farewell is one special byte.
static int xor_run(nkloop_buf* from, nkloop_buf* to) {
    size_t i, n = from->len < to->cap - to->len ? from->len : to->cap - to->len;
    for (i = 0; i < n; i++) to->data[to->len + i] = (uint8_t)(from->data[i] ^ 0xaa);
    to->len += n;
    memmove(from->data, from->data + n, from->len - n);
    from->len -= n;
    return NKLOOP_FILTER_OK;
}
static int stops;
static int xor_start(void* self, nkloop_wire* w) { (void)self; (void)w; return NKLOOP_FILTER_OK; }
static int xor_in(void* self, nkloop_wire* w) { (void)self; return xor_run(&w->wire_rx, &w->plain_rx); }
static int xor_out(void* self, nkloop_wire* w) { (void)self; return xor_run(&w->plain_tx, &w->wire_tx); }
static void xor_stop(void* self, nkloop_wire* w) { (void)w; ++*(int*)self; }
static const nkloop_filter xor_filter = { "xor", xor_start, xor_in, xor_out, xor_stop };

// ---- a bit of everything ----
typedef struct scene {
    nkloop* L;
    rec server[6], client[3];
    door d;
    int released, queued, dialled, filters, ticks, posts, watches;
    long turns;
} scene;
static int scene_file = -1;
static void on_release(void* user) { ((scene*)user)->released++; }
static void on_tick(void* user) { ((scene*)user)->ticks++; }
static void on_post(void* user) { ((scene*)user)->posts++; }
static void on_watch(void* user, int events) { (void)events; ((scene*)user)->watches++; }
static void scene_hook(rec* r, int ev) {
    scene* s = (scene*)r->user;
    static char text[6000];
    if (ev == ON_ACCEPT && s->d.num == 2 && nkloop_set_filter(r->L, r->s, &xor_filter, &stops) == 0) s->filters++;
    if (ev == ON_OPEN || (ev == ON_DATA && r->datas == 1)) {
        nkloop_write(r->L, r->s, text, sizeof text);
        if (nkloop_write_ref(r->L, r->s, text, 500, on_release, s) == 0) s->queued++;
        nkloop_write(r->L, r->s, "between", 7);
        if (nkloop_write_file(r->L, r->s, (nkloop_fd)scene_file, 0, 3000, on_release, s) == 0) s->queued++;
        nkloop_set_timeout(r->L, r->s, 1000);
    }
    if (ev == ON_DATA && r->datas == 2) { nkloop_pause(r->L, r->s, 1); nkloop_set_alarm(r->L, r->s, 1); }
    if (ev == ON_ALARM) nkloop_pause(r->L, r->s, 0);
    if (ev == ON_DATA && r->total > 9000) nkloop_finish(r->L, r->s);
    if (ev == ON_EOF) nkloop_finish(r->L, r->s);
}
static void scene_run(int turns) {
    scene s;
    nkloop_desc desc;
    nkloop_listen_desc ld;
    nkloop_dial_desc dd;
    nkloop_watch w;
    int i, pfd[2], ends = 0, opens = 0;
    long sockets = open_sockets;
    memset(&s, 0, sizeof s);
    memset(&desc, 0, sizeof desc);
    memset(&ld, 0, sizeof ld);
    desc.backend = kit_backend();
    desc.alloc_fn = fault_alloc;
    desc.linger_ms = 2;
    stops = 0;
    if (nkloop_create(&s.L, &desc) < 0) { CHECK(s.L == NULL); CHECK_INT(live_bytes, 0); return; }
    s.d.recs = s.server;
    s.d.max = 6;
    for (i = 0; i < 6; i++) { s.server[i].hook = scene_hook; s.server[i].user = &s; s.server[i].most = i == 2 ? 100 : 0; }
    ld.address = "127.0.0.1:0";
    ld.on_accept = door_accept;
    ld.user = &s.d;
    CHECK_INT(pipe(pfd), 0);
    nkloop_watch_open(s.L, (nkloop_fd)pfd[0], NKLOOP_READ, on_watch, &s, &w);
    CHECK_INT(write(pfd[1], "x", 1), 1);
    nkloop_timer_start(s.L, 0, 1, on_tick, &s, NULL);
    nkloop_post(s.L, on_post, &s);
    if (nkloop_listen(s.L, &ld, &s.d.l) == 0 && nkloop_listener_address(s.L, s.d.l, s.d.address, sizeof s.d.address) > 0) {
        memset(&dd, 0, sizeof dd);
        dd.address = s.d.address;
        dd.proto = &rec_proto;
        for (i = 0; i < 3; i++) {
            s.client[i].hook = scene_hook;
            s.client[i].user = &s;
            dd.self = &s.client[i];
            if (i == 1) { dd.filter = &xor_filter; dd.filter_self = &stops; } else dd.filter = NULL;
            if (nkloop_dial(s.L, &dd, &s.client[i].s) < 0) { memset(&s.client[i], 0, sizeof(rec)); continue; }
            s.dialled++;
            s.filters += i == 1;
            nkloop_pump(s.L, 1000000);
        }
    }
    for (i = 0; i < turns; i++) nkloop_pump(s.L, 1000000);
    nkloop_destroy(s.L);
    close(pfd[0]);
    close(pfd[1]);
    for (i = 0; i < 6; i++) { ends += s.server[i].closes; opens += s.server[i].s.id != 0; if (s.server[i].late) CHECK_INT(s.server[i].late, 0); }
    if (ends != opens) CHECK_INT(ends, opens);
    for (i = 0, ends = 0; i < 3; i++) { ends += s.client[i].closes; if (s.client[i].late) CHECK_INT(s.client[i].late, 0); }
    if (ends != s.dialled) CHECK_INT(ends, s.dialled);
    if (s.released != s.queued) CHECK_INT(s.released, s.queued);
    if (stops != s.filters) CHECK_INT(stops, s.filters);
    if (live_bytes || live_blocks) CHECK_INT(live_bytes + live_blocks, 0);
    // one of the loop's own: epoll's, which is closed through the macro but not opened through it
    if (open_sockets + (nkloop_p_backend_for(kit_backend())->id != NKLOOP_BACKEND_POLL) != sockets) CHECK_INT(open_sockets, sockets);
    open_sockets = sockets;
    nktest_passed++;
}
static void scene_reset(void) {
    if (scene_file < 0) {
        const char* path = kit_path(".scene");
        scene_file = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
        unlink(path);
        CHECK_INT(ftruncate(scene_file, 4000), 0);
    }
    which = every = error_no = 0;
    nth = calls = alloc_nth = allocs = alloc_after = 0;
    most = (size_t)-1;
}
TEST(nothing_fails) {
    scene_reset();
    scene_run(100);
}
TEST(every_call_in_turn_fails) {
    static const int errors[] = { EIO, EMFILE, ENOBUFS, ECONNRESET, EINTR, ENOMEM };
    size_t e;
    long n, reached = 1;
    for (e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        reached = 1;
        for (n = 1; reached; n++) {
            scene_reset();
            which = CALL_ALL;
            error_no = errors[e];
            nth = n;
            scene_run(25);
            reached = calls >= n && n < 400;
        }
        CHECK(n > 40); // the scene does make calls
    }
}
TEST(every_data_call_in_turn_would_block) {
    long n, reached = 1;
    for (n = 1; reached; n++) {
        scene_reset();
        which = CALL_IO;
        error_no = EAGAIN;
        nth = n;
        scene_run(25);
        reached = calls >= n && n < 400;
    }
    CHECK(n > 20);
}
TEST(every_allocation_in_turn_fails) {
    long n;
    int after, reached;
    for (after = 0; after < 2; after++) {
        reached = 1;
        for (n = 1; reached; n++) {
            scene_reset();
            alloc_nth = n;
            alloc_after = after;
            scene_run(25);
            reached = allocs >= n && n < 400;
        }
        CHECK(n > 15);
    }
}

// ---- short, interrupted, nothing there: and yet everything arrives ----
static void exchange(size_t bytes) {
    nkloop* L = kit_make(NULL);
    unsigned char* noise = kit_noise(bytes);
    const char* path = kit_path(".short");
    int file = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600), released = 0;
    rec server, client;
    scene s;
    door d;
    (void)released;
    unlink(path);
    CHECK_INT(write(file, noise, bytes), (int)bytes);
    memset(&s, 0, sizeof s);
    memset(&server, 0, sizeof server);
    memset(&client, 0, sizeof client);
    server.keep = client.keep = 1;
    door_open(L, &d, &server, 1, NULL);
    kit_dial(L, d.address, &client);
    UNTIL(L, client.opens && server.s.id);
    CHECK_INT(nkloop_write(L, client.s, noise, bytes / 3), 0);
    CHECK_INT(nkloop_write_ref(L, client.s, noise + bytes / 3, bytes / 3, on_release, &s), 0);
    CHECK_INT(nkloop_write_file(L, client.s, (nkloop_fd)file, bytes / 3 * 2, bytes - bytes / 3 * 2, on_release, &s), 0);
    CHECK_INT(nkloop_finish(L, client.s), 0);
    CHECK_INT(nkloop_write(L, server.s, noise, bytes), 0);
    UNTIL(L, server.eofs);
    CHECK_MEM(server.bytes, noise, server.len == bytes ? bytes : 0);
    CHECK_INT(server.len, bytes);
    CHECK_INT(s.released, 2);
    nkloop_finish(L, server.s);
    UNTIL(L, server.closes && client.closes);
    CHECK(server.why == NKLOOP_OK && client.why == NKLOOP_OK);
    close(file);
    free(noise);
    rec_free(&server);
    rec_free(&client);
    nkloop_destroy(L);
}
TEST(one_byte_at_a_time) { scene_reset(); most = 1; exchange(5000); }
TEST(a_few_bytes_at_a_time) { scene_reset(); most = 7; exchange(30000); }
TEST(interrupted_every_second_time) { scene_reset(); which = CALL_IO | CALL_WAIT; error_no = EINTR; every = 2; exchange(60000); }
TEST(nothing_there_every_second_time) { scene_reset(); which = CALL_IO & ~CALL_PREAD; error_no = EAGAIN; every = 2; exchange(60000); }
TEST(no_sendfile) { // read and sent instead
    scene_reset();
    which = CALL_FILE;
    error_no = EINVAL;
    every = 1;
    exchange(150000);
    scene_reset();
    which = CALL_FILE;
    error_no = ENOSYS;
    every = 1;
    most = 1000;
    exchange(20000);
}
TEST(connect_interrupted_goes_on) { scene_reset(); which = CALL_CONNECT; error_no = EINTR; every = 1; scene_run(20); }

// ---- listeners ----
static void resting(int error, long burst) { // burst: most calls of accept before it rests
    nkloop* L;
    rec server[4];
    door d;
    nkloop_stats st;
    uint64_t began;
    int plain, i;
    scene_reset();
    L = kit_make(NULL);
    memset(server, 0, sizeof server);
    door_open(L, &d, server, 4, NULL);
    which = CALL_ACCEPT;
    error_no = error;
    every = 1;
    accepts = 0;
    plain = plain_connect(d.address);
    nkloop_pump(L, 1000);
    began = nkloop_now_ns(L);
    for (i = 0; i < 40; i++) nkloop_wait(L, 5);
    CHECK_INT(d.num, 0);
    CHECK(accepts >= 1);
    CHECK(accepts <= burst * (long)(2 + (nkloop_now_ns(L) - began) / 100000000)); // once in 100 ms: it does not spin
    nkloop_get_stats(L, &st);
    CHECK(st.accept_pauses >= 1);
    which = 0;
    UNTIL(L, d.num == 1); // and recovers without another connection
    close(plain);
    kit_end(L);
}
TEST(listener_rests_when_no_file_is_left) {
    resting(EMFILE, 1);
    resting(ENFILE, 1);
    resting(ENOBUFS, 1);
    resting(ENOMEM, 1);
}
TEST(listener_rests_when_its_socket_is_broken) { resting(EINVAL, 64); }
TEST(listener_survives_connections_that_died_in_the_queue) {
    nkloop* L;
    rec server[4];
    door d;
    nkloop_stats st;
    int plain;
    scene_reset();
    L = kit_make(NULL);
    memset(server, 0, sizeof server);
    door_open(L, &d, server, 4, NULL);
    which = CALL_ACCEPT;
    error_no = ECONNABORTED;
    every = 2;
    plain = plain_connect(d.address);
    UNTIL(L, d.num == 1);
    nkloop_get_stats(L, &st);
    CHECK_INT(st.accept_pauses, 0);
    close(plain);
    kit_end(L);
}
TEST(listener_wakes_although_watching_fails_at_first) {
    nkloop* L;
    rec server[4];
    door d;
    int plain, i;
    scene_reset();
    L = kit_make(NULL);
    memset(server, 0, sizeof server);
    door_open(L, &d, server, 4, NULL);
    which = CALL_ACCEPT | CALL_CTL;
    error_no = EMFILE;
    every = 1;
    plain = plain_connect(d.address);
    for (i = 0; i < 50; i++) nkloop_wait(L, 5);
    CHECK_INT(d.num, 0);
    which = 0;
    UNTIL(L, d.num == 1);
    close(plain);
    kit_end(L);
}
TEST(closing_a_stream_wakes_a_resting_listener) {
    nkloop* L;
    rec server[4];
    door d;
    int a, b, i;
    scene_reset();
    L = kit_make(NULL);
    memset(server, 0, sizeof server);
    door_open(L, &d, server, 4, NULL);
    a = plain_connect(d.address);
    UNTIL(L, d.num == 1);
    which = CALL_ACCEPT;
    error_no = EMFILE;
    every = 1;
    b = plain_connect(d.address);
    for (i = 0; i < 3; i++) nkloop_pump(L, 1000);
    which = 0;
    accepts = 0;
    nkloop_close(L, server[0].s);
    for (i = 0; i < 3; i++) nkloop_pump(L, 1000); // at once, not after the rest
    CHECK_INT(d.num, 2);
    nkloop_listener_pause(L, d.l, 1);
    CHECK(accepts >= 1);
    close(a);
    close(b);
    kit_end(L);
}
TEST(a_failing_send_closes_with_its_reason) {
    static const struct { int error, why; } t[] = { { ECONNRESET, NKLOOP_ERR_RESET }, { EPIPE, NKLOOP_ERR_RESET },
        { ENOBUFS, NKLOOP_ERR_LIMIT }, { ETIMEDOUT, NKLOOP_ERR_TIMEOUT }, { EIO, NKLOOP_ERR_SYSTEM }, { EHOSTUNREACH, NKLOOP_ERR_UNREACHABLE } };
    size_t i;
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        nkloop* L;
        rec r;
        int plain, fd;
        scene_reset();
        L = kit_make(NULL);
        memset(&r, 0, sizeof r);
        kit_pair(0, &plain, &fd);
        kit_adopt(L, fd, &r);
        which = CALL_SEND;
        every = 1;
        error_no = t[i].error;
        CHECK_INT(nkloop_write(L, r.s, "x", 1), 0);
        nkloop_pump(L, 1000);
        CHECK_INT(r.closes, 1);
        CHECK_INT(r.why, t[i].why);
        CHECK_INT(nkloop_os_error(L), t[i].error);
        close(plain);
        kit_end(L);
    }
}
