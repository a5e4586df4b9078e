/*  http_kit.h -- what the hostile tests of netkit_http.h share: an allocator that counts and fails on demand, a loop on the
    backend under test, a server, and clients that never block because server and clients share one thread. Include it after
    the NETKIT_..._SYS_ macros of the test. POSIX only.
*/
#ifndef HTTP_KIT_H
#define HTTP_KIT_H
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include "nktest.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// ---- memory ----
static long kit_live, kit_peak, kit_allocs;
static long kit_fail_at;    // this allocation fails, 0 none
static int  kit_fail_all;   // and all after it
static void* kit_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    long now, n;
    (void)user;
    if (new_size) {
        n = __atomic_add_fetch(&kit_allocs, 1, __ATOMIC_SEQ_CST);
        if (kit_fail_at && (n == kit_fail_at || (kit_fail_all && n > kit_fail_at))) return NULL;
    }
    now = __atomic_add_fetch(&kit_live, (long)new_size - (long)old_size, __ATOMIC_SEQ_CST);
    if (now > __atomic_load_n(&kit_peak, __ATOMIC_SEQ_CST)) __atomic_store_n(&kit_peak, now, __ATOMIC_SEQ_CST);
    if (new_size == 0) { free(ptr); return NULL; }
    return realloc(ptr, new_size);
}
static void kit_memory_reset(void) { kit_peak = kit_live; kit_allocs = kit_fail_at = 0; kit_fail_all = 0; }

static double kit_seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}
static int kit_slow(void) { // valgrind: the same tests with fewer steps
    const char* v = getenv("LD_PRELOAD");
    return v && strstr(v, "vgpreload") != NULL;
}

// ---- a loop and a server ----
typedef struct kit { nkloop* L; nkhttp_server* srv; int port; } kit;
static int kit_backend(void) {
    const char* v = getenv("NKTEST_BACKEND");
    return v && strcmp(v, "poll") == 0 ? NKLOOP_BACKEND_POLL : NKLOOP_BACKEND_DEFAULT;
}
static int kit_port(nkhttp_server* srv) {
    char text[64];
    return nkhttp_server_address(srv, text, sizeof text) < 0 ? 0 : atoi(strrchr(text, ':') + 1);
}
// 0, or the error of the first thing that could not be made; then nothing is left.
static int kit_try_open(kit* k, const nkloop_desc* loop_desc, const nkhttp_server_desc* desc) {
    nkloop_desc ld;
    nkhttp_server_desc d;
    int err;
    memset(&ld, 0, sizeof ld);
    memset(&d, 0, sizeof d);
    memset(k, 0, sizeof *k);
    if (loop_desc) ld = *loop_desc;
    if (desc) d = *desc;
    ld.backend = kit_backend();
    if (!ld.linger_ms) ld.linger_ms = 300;
    if (!ld.memory) ld.alloc_fn = kit_alloc;
    if (!d.address) d.address = "127.0.0.1:0";
    d.disable_date = 1;
    err = nkloop_create(&k->L, &ld);
    if (err < 0) return err;
    err = nkhttp_server_create(&k->srv, k->L, &d);
    if (err < 0) {
        nkloop_destroy(k->L);
        return err;
    }
    k->port = kit_port(k->srv);
    return 0;
}
static void kit_open(kit* k, const nkloop_desc* loop_desc, const nkhttp_server_desc* desc) {
    CHECK_INT(kit_try_open(k, loop_desc, desc), 0);
    if (!k->srv) exit(1);
}
static void kit_close(kit* k) {
    nkhttp_server_destroy(k->srv);
    nkloop_destroy(k->L);
    CHECK_INT(kit_live, 0);
}
static void kit_turns(kit* k, int n) { while (n-- > 0) nkloop_wait(k->L, 0); }

// ---- clients ----
typedef struct client { int fd, ended; char* text; size_t len, cap; } client;
static int kit_dial_from(kit* k, int rcvbuf) {
    struct sockaddr_in a;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)k->port);
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (rcvbuf) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    if (connect(fd, (struct sockaddr*)&a, sizeof a) != 0) { close(fd); return -1; }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}
static void client_open(kit* k, client* c) {
    memset(c, 0, sizeof *c);
    c->fd = kit_dial_from(k, 0);
    CHECK(c->fd >= 0);
}
static void client_close(client* c) {
    if (c->fd >= 0) close(c->fd);
    free(c->text);
    memset(c, 0, sizeof *c);
    c->fd = -1;
}
static void client_reset(client* c) { // RST instead of FIN
    struct linger l;
    l.l_onoff = 1;
    l.l_linger = 0;
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    client_close(c);
}
// Takes what is there. 1: something came.
static int client_read(client* c) {
    ssize_t n;
    if (c->ended || c->fd < 0) return 0;
    if (c->cap - c->len < 65536) {
        c->cap = c->cap * 2 + 65536 * 2;
        c->text = (char*)realloc(c->text, c->cap);
    }
    n = recv(c->fd, c->text + c->len, c->cap - c->len - 1, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) c->ended = 1;
    if (n > 0) c->len += (size_t)n;
    c->text[c->len] = 0;
    return n > 0;
}
static int client_has(client* c, const char* text) { return c->text && strstr(c->text, text) != NULL; }
static int client_count(client* c, const char* text) {
    const char* at = c->text;
    int n = 0;
    while (at && (at = strstr(at, text)) != NULL) { n++; at++; }
    return n;
}
// Sends all, turning the loop. 0, or -1: the server has gone.
static int client_put(kit* k, client* c, const void* bytes, size_t n) {
    const char* p = (const char*)bytes;
    double end = kit_seconds() + 20;
    while (n && kit_seconds() < end) {
        ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return -1;
        if (sent > 0) { p += sent; n -= (size_t)sent; }
        nkloop_wait(k->L, sent > 0 ? 0 : 1);
    }
    return n ? -1 : 0;
}
static int client_say(kit* k, client* c, const char* text) { return client_put(k, c, text, strlen(text)); }
// Reads until the text has come; NULL: until the server closes. 1: so it was.
static int client_get(kit* k, client* c, const char* until) {
    double end = kit_seconds() + 20;
    while (kit_seconds() < end) {
        int some = client_read(c);
        if (until && client_has(c, until)) return 1;
        if (c->ended) return until == NULL;
        nkloop_wait(k->L, some ? 0 : 1);
    }
    return 0;
}
// A whole connection: says it, reads to the end.
static void client_talk(kit* k, client* c, const char* text) {
    client_open(k, c);
    client_say(k, c, text);
    CHECK(client_get(k, c, NULL));
}
#define CHECK_TALK(k, said, heard) do { \
    client c_; \
    client_talk(k, &c_, said); \
    if (!CHECK(client_has(&c_, heard))) printf("    wanted %s, got %.300s\n", heard, c_.text ? c_.text : ""); \
    client_close(&c_); \
} while (0)
#define UNTIL(k, c) do { \
    double end_ = kit_seconds() + 20; \
    while (!(c) && kit_seconds() < end_) nkloop_wait((k)->L, 1); \
    CHECK(c); \
} while (0)
#define CLOSE_ "Connection: close\r\n"
#define GET_(path, fields) "GET " path " HTTP/1.1\r\nHost: a\r\n" fields "\r\n"
#define POST_(path, fields, body) "POST " path " HTTP/1.1\r\nHost: a\r\n" fields "\r\n" body

__attribute__((unused)) static void kit_unused(void) { // not every test needs all of it
    (void)kit_memory_reset; (void)kit_slow; (void)kit_open; (void)kit_close; (void)kit_turns; (void)client_reset; (void)client_count; (void)client_talk;
}
#endif // HTTP_KIT_H
