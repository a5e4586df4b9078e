// net_seams.c -- the places where headers meet, each tried with a small protocol of its own: HTTP hands a stream over, a filter
// sits below HTTP, framed messages are sent from any thread, a stream server drops frames for a slow reader, a game pumps it all.
// POSIX only.
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include "nktest.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>

static nkloop* make_loop(uint32_t tx_bytes) {
    nkloop* L = NULL;
    nkloop_desc d;
    const char* b = getenv("NKTEST_BACKEND");
    memset(&d, 0, sizeof d);
    d.tx_bytes = tx_bytes;
    if (b && strcmp(b, "poll") == 0) d.backend = NKLOOP_BACKEND_POLL;
    if (b && strcmp(b, "epoll") == 0) d.backend = NKLOOP_BACKEND_EPOLL;
    CHECK_INT(nkloop_create(&L, &d), 0);
    return L;
}

static int dial_port(const char* address) {
    struct sockaddr_in a;
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_INT(connect(fd, (struct sockaddr*)&a, sizeof a), 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

// Turns the loop until `want` bytes have come, the peer closed, or nothing happened for long enough.
static size_t gather(nkloop* L, int fd, char* out, size_t cap, size_t want) {
    size_t n = 0;
    int idle;
    for (idle = 0; idle < 400 && n < want; idle++) {
        ssize_t r;
        nkloop_wait(L, 1);
        while (n < cap && (r = recv(fd, out + n, cap - n, 0)) > 0) { n += (size_t)r; idle = 0; }
    }
    return n;
}

static void put(int fd, const void* p, size_t n) { CHECK_INT(send(fd, p, n, MSG_NOSIGNAL), (long long)n); }

// ---- HTTP becomes another protocol on the same stream ----

static int upgrades, frames, frame_closes;
static size_t frame_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) { // one byte of length, then as many
    (void)self;
    if (n < 1u + bytes[0]) return 0;
    frames++;
    nkloop_write(L, s, bytes, 1u + bytes[0]);
    return 1u + bytes[0];
}
static void frame_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)self; (void)L; (void)s; (void)why; frame_closes++; }
static const nkloop_proto frame_proto = { "frames", frame_data, NULL, frame_close, NULL, NULL, NULL };

static void on_upgrade(void* user, nkhttp_req* req) {
    static const char reply[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: frames\r\n\r\n";
    nkloop_stream s;
    nkloop* L = req->loop;
    (void)user;
    if (!nkhttp_is(nkhttp_header_value(req, "Upgrade"), "frames")) return; // handled as any other request
    s = nkhttp_detach(req);
    CHECK(s.id != 0);
    upgrades++;
    nkloop_write(L, s, reply, sizeof reply - 1);
    nkloop_set_proto(L, s, &frame_proto, NULL);
}
static void on_plain(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, NULL, "plain", 5); }

static nkhttp_server* serve(nkloop* L, char address[128], int (*on_stream)(void*, nkloop*, nkloop_stream)) {
    nkhttp_server* srv = NULL;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.address = "127.0.0.1:0";
    d.disable_date = 1;
    d.on_request = on_plain;
    d.on_upgrade = on_upgrade;
    d.on_stream = on_stream;
    CHECK_INT(nkhttp_server_create(&srv, L, &d), 0);
    CHECK(nkhttp_server_address(srv, address, 128) > 0);
    return srv;
}

TEST(upgrade_at_every_split) {
    static const char head[] = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: frames\r\n\r\n";
    static const char plain[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain";
    static const char switched[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: frames\r\n\r\n";
    char all[256], want[512], got[512], address[128];
    size_t n = sizeof head - 1, want_n, cut;
    nkloop* L = make_loop(0);
    nkhttp_server* srv = serve(L, address, NULL);
    memcpy(all, head, n);
    memcpy(all + n, "\005hello\000\003bye", 11); // glued to the handshake
    n += 11;
    want_n = (size_t)snprintf(want, sizeof want, "%s%s", plain, switched);
    memcpy(want + want_n, "\005hello\000\003bye", 11);
    want_n += 11;
    for (cut = 1; cut < n; cut++) {
        int fd = dial_port(address);
        size_t got_n;
        upgrades = frames = frame_closes = 0;
        put(fd, all, cut);
        nkloop_wait(L, 1);
        nkloop_wait(L, 0);
        put(fd, all + cut, n - cut);
        got_n = gather(L, fd, got, sizeof got, want_n);
        CHECK_MEM(got, want, want_n < got_n ? want_n : got_n);
        CHECK_INT(got_n, want_n);
        CHECK_INT(upgrades, 1);
        CHECK_INT(frames, 3);
        close(fd);
        while (frame_closes == 0) nkloop_wait(L, 10);
        CHECK_INT(frame_closes, 1);
    }
    nkhttp_server_destroy(srv);
    nkloop_destroy(L);
}

// ---- a filter below HTTP: every byte is xored, and the handlers cannot tell ----

static int xor_move(nkloop_buf* from, nkloop_buf* to) {
    size_t i, n = from->len < to->cap - to->len ? from->len : to->cap - to->len;
    for (i = 0; i < n; i++) to->data[to->len++] = (uint8_t)(from->data[i] ^ 0x5a);
    memmove(from->data, from->data + n, from->len - n);
    from->len -= n;
    return NKLOOP_FILTER_OK;
}
static int xor_start(void* self, nkloop_wire* w) { (void)self; (void)w; return NKLOOP_FILTER_OK; }
static int xor_in(void* self, nkloop_wire* w) { (void)self; return xor_move(&w->wire_rx, &w->plain_rx); }
static int xor_out(void* self, nkloop_wire* w) { (void)self; return xor_move(&w->plain_tx, &w->wire_tx); }
static void xor_stop(void* self, nkloop_wire* w) { (void)w; ++*(int*)self; }
static const nkloop_filter xor_filter = { "xor", xor_start, xor_in, xor_out, xor_stop };
static int xor_stopped;
static int xor_stream(void* user, nkloop* L, nkloop_stream s) { (void)user; return nkloop_set_filter(L, s, &xor_filter, &xor_stopped); }

TEST(filter_below_http) {
    static const char ask[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    char wire[256], got[512], address[128];
    size_t n = sizeof ask - 1, i, got_n;
    nkloop* L = make_loop(0);
    nkhttp_server* srv = serve(L, address, xor_stream);
    int fd = dial_port(address);
    xor_stopped = 0;
    for (i = 0; i < n; i++) wire[i] = (char)(ask[i] ^ 0x5a);
    put(fd, wire, n);
    got_n = gather(L, fd, got, sizeof got, sizeof got);
    for (i = 0; i < got_n; i++) got[i] = (char)(got[i] ^ 0x5a);
    CHECK_STR(got, got_n, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplainHTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain");
    close(fd);
    for (i = 0; i < 100 && !xor_stopped; i++) nkloop_wait(L, 10);
    CHECK_INT(xor_stopped, 1);
    nkhttp_server_destroy(srv);
    nkloop_destroy(L);
}

// ---- messages: u16 length and payload, sent from several threads at once ----

typedef struct hub { nkloop* L; nkloop_stream s; int open, closed; } hub;
typedef struct message { hub* to; uint16_t len; uint8_t bytes[40]; } message;

static size_t hub_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) { (void)self; (void)L; (void)s; (void)bytes; return n; }
static void hub_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)L; (void)s; (void)why; ((hub*)self)->closed = 1; }
static const nkloop_proto hub_proto = { "messages", hub_data, NULL, hub_close, NULL, NULL, NULL };
static void hub_accept(void* user, nkloop* L, nkloop_stream s) {
    hub* h = (hub*)user;
    h->s = s;
    h->open = 1;
    nkloop_set_proto(L, s, &hub_proto, h);
}
static void message_send(void* user) {
    message* m = (message*)user;
    uint8_t head[2];
    head[0] = (uint8_t)(m->len >> 8);
    head[1] = (uint8_t)m->len;
    CHECK_INT(nkloop_write(m->to->L, m->to->s, head, 2), 0);
    CHECK_INT(nkloop_write(m->to->L, m->to->s, m->bytes, m->len), 0);
    free(m);
}
enum { SENDERS = 4, EACH = 500 };
typedef struct sender { hub* to; uint8_t number; pthread_t thread; } sender;
static void* sender_main(void* user) {
    sender* me = (sender*)user;
    unsigned i;
    for (i = 0; i < EACH; i++) {
        message* m = (message*)malloc(sizeof *m);
        m->to = me->to;
        m->len = (uint16_t)(3 + i % 30);
        memset(m->bytes, 0xaa, sizeof m->bytes);
        m->bytes[0] = me->number;
        m->bytes[1] = (uint8_t)(i >> 8);
        m->bytes[2] = (uint8_t)i;
        if (nkloop_post(me->to->L, message_send, m) < 0) free(m);
    }
    return NULL;
}

TEST(messages_from_many_threads) {
    nkloop* L = make_loop(0);
    nkloop_listen_desc d;
    nkloop_listener l;
    hub h;
    sender senders[SENDERS];
    unsigned next[SENDERS] = { 0 }, total = 0;
    char address[128];
    static char got[SENDERS * EACH * 42];
    size_t n, at = 0, i;
    int fd;
    memset(&h, 0, sizeof h);
    memset(&d, 0, sizeof d);
    h.L = L;
    d.address = "127.0.0.1:0";
    d.on_accept = hub_accept;
    d.user = &h;
    CHECK_INT(nkloop_listen(L, &d, &l), 0);
    nkloop_listener_address(L, l, address, sizeof address);
    fd = dial_port(address);
    while (!h.open) nkloop_wait(L, 10);
    for (i = 0; i < SENDERS; i++) {
        senders[i].to = &h;
        senders[i].number = (uint8_t)i;
        pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]);
    }
    n = gather(L, fd, got, sizeof got, sizeof got);
    for (i = 0; i < SENDERS; i++) pthread_join(senders[i].thread, NULL);
    while (at + 2 <= n) { // complete, and in each sender's order
        size_t len = (size_t)((uint8_t)got[at] << 8 | (uint8_t)got[at + 1]);
        unsigned who = (uint8_t)got[at + 2], number = (unsigned)((uint8_t)got[at + 3] << 8 | (uint8_t)got[at + 4]);
        if (who >= SENDERS || number != next[who]) break;
        next[who]++;
        total++;
        at += 2 + len;
    }
    CHECK_INT(total, SENDERS * EACH);
    CHECK_INT(at, n);
    close(fd);
    while (!h.closed) nkloop_wait(L, 10);
    nkloop_destroy(L);
}

// ---- a stream server: a slow reader loses frames, never the connection ----

TEST(slow_reader_loses_frames) {
    nkloop* L = make_loop(64 * 1024);
    nkloop_listen_desc d;
    nkloop_listener l;
    hub h;
    char address[128];
    static uint8_t frame[20000], got[20000];
    unsigned sent = 0, dropped = 0, received = 0, i, last = 0;
    size_t n = 0;
    int fd, room = 65536, ordered = 1, quiet;
    memset(&h, 0, sizeof h);
    memset(&d, 0, sizeof d);
    h.L = L;
    d.address = "127.0.0.1:0";
    d.on_accept = hub_accept;
    d.user = &h;
    CHECK_INT(nkloop_listen(L, &d, &l), 0);
    nkloop_listener_address(L, l, address, sizeof address);
    fd = dial_port(address);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    while (!h.open) nkloop_wait(L, 10);
    for (i = 1; i <= 2000; i++) { // nobody reads: the queue fills up and stays bounded
        frame[0] = (uint8_t)(i >> 8);
        frame[1] = (uint8_t)i;
        if (nkloop_write(L, h.s, frame, sizeof frame) == NKLOOP_OK) sent++;
        else dropped++;
        nkloop_wait(L, 0);
        CHECK(nkloop_unsent(L, h.s) <= 64 * 1024);
    }
    CHECK(sent > 0);
    CHECK(dropped > 0);
    CHECK_INT(nkloop_alive(L, h.s), 1);
    for (quiet = 0; quiet < 1000; quiet++) {
        ssize_t r = recv(fd, got + n, sizeof got - n, 0);
        nkloop_wait(L, 1);
        if (r <= 0) continue;
        quiet = 0;
        n += (size_t)r;
        if (n < sizeof got) continue;
        i = (unsigned)(got[0] << 8 | got[1]);
        ordered &= i > last;
        last = i;
        received++;
        n = 0;
    }
    CHECK_INT(received, sent); // what was accepted arrives whole and in order
    CHECK_INT(n, 0);
    CHECK(ordered);
    close(fd);
    nkloop_destroy(L);
    CHECK_INT(h.closed, 1);
}

// ---- a game: one pump a frame serves HTTP, a watch and a timer, and leaves when the budget is spent ----

static int watched, ticks, slow_served;
static void on_watch(void* user, int events) {
    char c;
    if (events & NKLOOP_READ) watched += (int)read(*(int*)user, &c, 1);
}
static void on_tick(void* user) { (void)user; ticks++; }
static void on_slow(void* user, nkhttp_req* req) { // takes more than the whole budget
    uint64_t from = nkloop_p_os_now_ns();
    (void)user;
    while (nkloop_p_os_now_ns() - from < 300000) {}
    slow_served++;
    nkhttp_reply(req, 200, NULL, "slow", 4);
}

TEST(a_frame_of_a_game) {
    nkloop* L = make_loop(0);
    char address[128], got[256];
    nkhttp_server* srv = serve(L, address, NULL);
    int fds[8], p[2], i, frame_count, most = 0, answered = 0;
    nkloop_watch w;
    CHECK_INT(nkhttp_route(srv, "GET", "/slow", on_slow, NULL), 0);
    CHECK_INT(pipe(p), 0);
    watched = ticks = slow_served = 0;
    CHECK_INT(nkloop_watch_open(L, (nkloop_fd)p[0], NKLOOP_READ, on_watch, &p[0], &w), 0);
    CHECK_INT(nkloop_timer_start(L, 1, 1, on_tick, NULL, NULL), 0);
    for (i = 0; i < 8; i++) fds[i] = dial_port(address);
    for (i = 0; i < 20; i++) nkloop_pump(L, 1000);
    for (i = 0; i < 8; i++) put(fds[i], "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", 31);
    CHECK_INT(write(p[1], "x", 1), 1);
    for (frame_count = 0; frame_count < 1000 && (slow_served < 8 || watched == 0 || ticks < 3); frame_count++) {
        int before = slow_served;
        struct timespec nap = { 0, 500000 };
        nkloop_pump(L, 100);
        if (slow_served - before > most) most = slow_served - before;
        nanosleep(&nap, NULL);
    }
    CHECK_INT(slow_served, 8);
    CHECK_INT(most, 1); // the first one spent the budget: the others waited for later frames
    CHECK_INT(watched, 1);
    CHECK(ticks >= 3);
    for (i = 0; i < 8; i++) {
        answered += gather(L, fds[i], got, sizeof got, 42) == 42;
        close(fds[i]);
    }
    CHECK_INT(answered, 8);
    nkloop_watch_close(L, w);
    nkhttp_server_destroy(srv);
    nkloop_destroy(L);
    close(p[0]);
    close(p[1]);
}

// ---- a streamed reply that cannot go on: the client must not take it for a whole one ----

static nkhttp_handle broken;
static int broken_gone;
static void on_broken_gone(void* user, nkhttp_handle h, int why) { (void)user; (void)h; broken_gone += why != 0; }
static void on_broken(void* user, nkhttp_req* req) {
    nkhttp_reply_desc d;
    (void)user;
    memset(&d, 0, sizeof d);
    d.body = "some";
    d.body_bytes = 4;
    broken = nkhttp_defer(req);
    CHECK_INT(nkhttp_later_begin(req->server, broken, &d, UINT64_MAX), 0);
    CHECK_INT(nkhttp_later_watch(req->server, broken, NULL, on_broken_gone, NULL), 0);
}
static int abort_result;
static void* abort_main(void* srv) { abort_result = nkhttp_later_abort((nkhttp_server*)srv, broken); return NULL; }

TEST(abort_a_streamed_reply) {
    nkloop* L = make_loop(0);
    char address[128], got[512];
    nkhttp_server* srv = serve(L, address, NULL);
    pthread_t other;
    int round;
    CHECK_INT(nkhttp_route(srv, "GET", "/broken", on_broken, NULL), 0);
    for (round = 0; round < 2; round++) { // by the loop's thread, and by another
        static const char begun[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n";
        int fd = dial_port(address), i;
        ssize_t r = -1;
        broken_gone = 0;
        put(fd, "GET /broken HTTP/1.1\r\nHost: a\r\n\r\n", 33);
        CHECK_STR(got, gather(L, fd, got, sizeof got, sizeof begun - 1), begun);
        if (round == 0) CHECK_INT(nkhttp_later_abort(srv, broken), 0);
        else CHECK_INT(pthread_create(&other, NULL, abort_main, srv), 0);
        for (i = 0; i < 400 && r < 0; i++) {
            nkloop_wait(L, 5);
            r = recv(fd, got, sizeof got, 0);
            if (r < 0 && errno != EAGAIN) r = 0;
        }
        CHECK_INT(r, 0); // the end of the stream, without the last chunk
        for (i = 0; i < 400 && !broken_gone; i++) nkloop_wait(L, 5);
        CHECK_INT(broken_gone, 1);
        if (round == 1) pthread_join(other, NULL);
        if (round == 1) CHECK_INT(abort_result, 0);
        CHECK_INT(nkhttp_later_abort(srv, broken), NKHTTP_ERR_STALE);
        close(fd);
    }
    nkhttp_server_destroy(srv);
    nkloop_destroy(L);
}
