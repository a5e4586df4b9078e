/*  loop_kit.h -- what the tests of netkit_loop.h on real sockets share: a loop on the backend under test, a protocol that
    records everything, and plain sockets to be the other side. Counts the loop's recv and send calls. POSIX only.
*/
#ifndef LOOP_KIT_H
#define LOOP_KIT_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static long kit_recvs, kit_sends;
static ssize_t kit_recv(int fd, void* p, size_t n, int flags) { __atomic_fetch_add(&kit_recvs, 1, __ATOMIC_RELAXED); return recv(fd, p, n, flags); }
static ssize_t kit_send(int fd, const void* p, size_t n, int flags) { __atomic_fetch_add(&kit_sends, 1, __ATOMIC_RELAXED); return send(fd, p, n, flags); }
static ssize_t kit_sendmsg(int fd, const struct msghdr* m, int flags) { __atomic_fetch_add(&kit_sends, 1, __ATOMIC_RELAXED); return sendmsg(fd, m, flags); }
static int kit_getaddrinfo(const char* host, const char* port, const struct addrinfo* hints, struct addrinfo** out);
#ifndef KIT_OWN_CALLS
#define NETKIT_LOOP_SYS_RECV(fd, p, n, flags) kit_recv(fd, p, n, flags)
#define NETKIT_LOOP_SYS_SEND(fd, p, n, flags) kit_send(fd, p, n, flags)
#define NETKIT_LOOP_SYS_SENDMSG(fd, msg, flags) kit_sendmsg(fd, msg, flags)
#endif
#define getaddrinfo kit_getaddrinfo
#define NETKIT_IMPLEMENTATION
#include "netkit_loop.h"
#undef getaddrinfo
#include "nktest.h"

// ---- loops ----
static int kit_backend(void) {
    const char* v = getenv("NKTEST_BACKEND");
    if (v && strcmp(v, "poll") == 0) return NKLOOP_BACKEND_POLL;
    if (v && strcmp(v, "kqueue") == 0) return NKLOOP_BACKEND_KQUEUE;
    return NKLOOP_BACKEND_DEFAULT;
}
static int kit_slow(void) { // valgrind: the same tests with fewer bytes
    const char* v = getenv("LD_PRELOAD");
    return v && strstr(v, "vgpreload") != NULL;
}
static void* kit_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    __atomic_fetch_add((long*)user, (long)new_size - (long)old_size, __ATOMIC_SEQ_CST);
    if (new_size == 0) { free(ptr); return NULL; }
    return realloc(ptr, new_size);
}
static long kit_live;
static nkloop* kit_make(const nkloop_desc* desc) {
    nkloop* L = NULL;
    nkloop_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    d.backend = kit_backend();
    if (!d.memory) { d.alloc_fn = kit_alloc; d.alloc_user = &kit_live; }
    CHECK_INT(nkloop_create(&L, &d), 0);
    if (!L) exit(1);
    return L;
}
static int kit_fds(void) { // how many descriptors are open
    struct rlimit r;
    int fd, n = 0, top;
    getrlimit(RLIMIT_NOFILE, &r);
    top = r.rlim_cur < 1100 ? (int)r.rlim_cur : 1100;
    for (fd = 0; fd < top; fd++) if (fcntl(fd, F_GETFD) >= 0) n++;
    return n;
}
static void kit_end(nkloop* L) { // nothing may be left
    nkloop_destroy(L);
    CHECK_INT(kit_live, 0);
}
// Turns until the condition holds; gives up when long nothing happened, or far too much.
#define UNTIL(L, c) do { \
    long idle_ = 0, turns_ = 0; \
    while (!(c) && idle_ < 500 && turns_++ < 100000) if (nkloop_wait(L, 10).events == 0) idle_++; \
    CHECK(c); \
} while (0)
#define TURNS(L, n) do { int turns_; for (turns_ = 0; turns_ < (n); turns_++) nkloop_pump(L, 1000000); } while (0)

// ---- a protocol that records ----
enum { ON_ACCEPT, ON_OPEN, ON_DATA, ON_EOF, ON_DRAIN, ON_ALARM, ON_CLOSE };
typedef struct rec {
    nkloop*       L;
    nkloop_stream s;
    unsigned char* bytes;        // all that came, if keep
    size_t        len, cap, most; // most: eats at most so many bytes per call, 0 all
    int           keep, refuse;  // refuse: eats nothing
    uint64_t      total;
    uint32_t      sum;
    int           opens, datas, eofs, drains, alarms, closes, why, late, deep, nested;
    void        (*hook)(struct rec* r, int ev);
    void*         user;
    struct rec*   other;
} rec;
static uint32_t kit_sum(uint32_t sum, const unsigned char* p, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) sum = (sum << 5 | sum >> 27) ^ p[i];
    return sum;
}
static void rec_event(rec* r, nkloop* L, nkloop_stream s, int ev) {
    r->L = L;
    if (r->closes || (r->s.id && r->s.id != s.id)) r->late++;
    if (r->deep) r->nested++;
    r->s = s;
    r->deep++;
    if (r->hook) r->hook(r, ev);
    r->deep--;
}
static size_t rec_data(void* self, nkloop* L, nkloop_stream s, uint8_t* p, size_t n) {
    rec* r = (rec*)self;
    size_t eat = r->refuse ? 0 : r->most && n > r->most ? r->most : n;
    r->datas++;
    if (r->keep && eat) {
        if (r->len + eat > r->cap) r->bytes = (unsigned char*)realloc(r->bytes, r->cap = (r->len + eat) * 2);
        memcpy(r->bytes + r->len, p, eat);
        r->len += eat;
    }
    r->total += eat;
    r->sum = kit_sum(r->sum, p, eat);
    rec_event(r, L, s, ON_DATA);
    return eat;
}
static void rec_drain(void* self, nkloop* L, nkloop_stream s) { ((rec*)self)->drains++; rec_event((rec*)self, L, s, ON_DRAIN); }
static void rec_eof(void* self, nkloop* L, nkloop_stream s) { ((rec*)self)->eofs++; rec_event((rec*)self, L, s, ON_EOF); }
static void rec_open(void* self, nkloop* L, nkloop_stream s) { ((rec*)self)->opens++; rec_event((rec*)self, L, s, ON_OPEN); }
static void rec_alarm(void* self, nkloop* L, nkloop_stream s) { ((rec*)self)->alarms++; rec_event((rec*)self, L, s, ON_ALARM); }
static void rec_close(void* self, nkloop* L, nkloop_stream s, int why) {
    rec* r = (rec*)self;
    rec_event(r, L, s, ON_CLOSE);
    r->closes++;
    r->why = why;
    if (nkloop_alive(L, s) || nkloop_write(L, s, "x", 1) != NKLOOP_ERR_STALE) r->late++;
}
static const nkloop_proto rec_proto = { "rec", rec_data, rec_drain, rec_close, rec_eof, rec_open, rec_alarm };
static const nkloop_proto bare_proto = { "bare", rec_data, NULL, rec_close, NULL, NULL, NULL };
static void rec_free(rec* r) { free(r->bytes); r->bytes = NULL; r->len = r->cap = 0; }

// A listener that gives every stream the next of an array of recs.
typedef struct door { rec* recs; int num, max; nkloop_listener l; char address[128]; const nkloop_proto* proto; } door;
static void door_accept(void* user, nkloop* L, nkloop_stream s) {
    door* d = (door*)user;
    rec* r = &d->recs[d->num < d->max ? d->num++ : d->max - 1];
    r->L = L;
    r->s = s;
    if (nkloop_set_proto(L, s, d->proto ? d->proto : &rec_proto, r) < 0) r->late++; // no CHECK: other threads run loops too
    if (r->hook) r->hook(r, ON_ACCEPT);
}
static void door_open(nkloop* L, door* d, rec* recs, int max, const char* address) {
    nkloop_listen_desc desc;
    memset(&desc, 0, sizeof desc);
    memset(d, 0, sizeof *d);
    d->recs = recs;
    d->max = max;
    desc.address = address ? address : "127.0.0.1:0";
    desc.on_accept = door_accept;
    desc.user = d;
    CHECK_INT(nkloop_listen(L, &desc, &d->l), 0);
    CHECK(nkloop_listener_address(L, d->l, d->address, sizeof d->address) > 0);
}
static void kit_dial(nkloop* L, const char* address, rec* r) {
    nkloop_dial_desc d;
    memset(&d, 0, sizeof d);
    d.address = address;
    d.proto = &rec_proto;
    d.self = r;
    CHECK_INT(nkloop_dial(L, &d, &r->s), 0);
    r->L = L;
}

// ---- plain sockets: the other side ----
static int plain_connect(const char* address) { // "127.0.0.1:port"
    struct sockaddr_in a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr*)&a, sizeof a) != 0) { close(fd); return -1; }
    return fd;
}
static void plain_wait(int fd) { // never hangs for ever
    struct timeval tv;
    tv.tv_sec = 20;
    tv.tv_usec = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}
static void plain_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_NONBLOCK); }
static long plain_read(int fd, char* p, long cap) { // what is there, up to the end or until it would block
    long n, sum = 0;
    plain_nonblocking(fd);
    while (sum < cap && (n = (long)recv(fd, p + sum, (size_t)(cap - sum), 0)) > 0) sum += n;
    return sum;
}
static int plain_at_end(int fd) { char c; plain_nonblocking(fd); return recv(fd, &c, 1, MSG_PEEK) == 0; }
static void plain_send(int fd, const char* text) { CHECK_INT(send(fd, text, strlen(text), MSG_NOSIGNAL), (int)strlen(text)); }
static void plain_reset(int fd) { // RST instead of FIN
    struct linger l;
    l.l_onoff = 1;
    l.l_linger = 0;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(fd);
}
// A connected pair: *plain is ours, *fd is for nkloop_adopt. tcp 0: Unix sockets.
static void kit_pair(int tcp, int* plain, int* fd) {
    int v[2] = { -1, -1 }, l;
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    if (!tcp) {
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, v), 0);
    } else {
        memset(&a, 0, sizeof a);
        a.sin_family = AF_INET;
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        l = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(bind(l, (struct sockaddr*)&a, sizeof a) == 0 && listen(l, 1) == 0);
        getsockname(l, (struct sockaddr*)&a, &n);
        v[0] = socket(AF_INET, SOCK_STREAM, 0);
        CHECK_INT(connect(v[0], (struct sockaddr*)&a, sizeof a), 0);
        v[1] = accept(l, NULL, NULL);
        close(l);
    }
    *plain = v[0];
    *fd = v[1];
}
static void kit_adopt(nkloop* L, int fd, rec* r) {
    r->L = L;
    CHECK_INT(nkloop_adopt(L, (nkloop_fd)fd, &rec_proto, r, &r->s), 0);
}
static unsigned char* kit_noise(size_t n) {
    unsigned char* p = (unsigned char*)malloc(n);
    uint32_t x = 99;
    size_t i;
    for (i = 0; i < n; i++) { x = x * 1664525u + 1013904223u; p[i] = (unsigned char)(x >> 24); }
    return p;
}
static const char* kit_path(const char* name) { // in the runner's own directory
    static char path[4][104];
    static int turn;
    const char* dir = getenv("TMPDIR");
    turn = (turn + 1) & 3;
    snprintf(path[turn], sizeof path[turn], "%s/nk%d%s", dir && strlen(dir) < 70 ? dir : "/tmp", (int)getpid(), name);
    return path[turn];
}
// Names: "gate.test" waits until kit_gate is open; "many.test" has a dead address first; all else is unknown.
static int kit_gate = 1;
static int kit_getaddrinfo(const char* host, const char* port, const struct addrinfo* hints, struct addrinfo** out) {
    struct addrinfo *a = NULL, *b = NULL;
    if (strcmp(host, "gate.test") == 0) while (!__atomic_load_n(&kit_gate, __ATOMIC_ACQUIRE)) usleep(1000);
    else if (strcmp(host, "many.test") != 0) return EAI_NONAME;
    if ((getaddrinfo)("127.0.0.2", port, hints, &a) != 0 || (getaddrinfo)("127.0.0.1", port, hints, &b) != 0) return EAI_NONAME;
    a->ai_next = b;
    *out = a;
    return 0;
}
__attribute__((unused)) static void kit_unused(void) { // not every test needs all of it
    (void)plain_connect; (void)plain_reset; (void)plain_wait; (void)plain_at_end; (void)plain_send; (void)kit_dial; (void)kit_fds;
    (void)kit_pair; (void)kit_adopt; (void)kit_noise; (void)kit_path; (void)kit_sum; (void)kit_slow; (void)kit_end; (void)rec_free;
    (void)door_open; (void)bare_proto; (void)kit_recv; (void)kit_send; (void)kit_sendmsg; (void)plain_read; (void)kit_unused;
}
#endif // LOOP_KIT_H
