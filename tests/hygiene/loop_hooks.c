// Every hook of netkit_loop.h, counted.
#define _GNU_SOURCE 1
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sendfile.h>
#include <sys/epoll.h>
#include <poll.h>
#include <unistd.h>

static long live, logs, calls, asserts, opened;
static void* count(void* user, void* ptr, size_t old_size, size_t new_size) {
    (void)user;
    live += (long)new_size - (long)old_size;
    if (new_size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, new_size);
}
static int close_one(int fd) { opened--; return close(fd); }
static int open_one(int fd) { calls++; if (fd >= 0) opened++; return fd; }

#define NETKIT_LOOP_ASSERT(c) (asserts += !(c))
#define NETKIT_LOOP_SYS_RECV(fd, p, n, flags) (calls++, recv(fd, p, n, flags))
#define NETKIT_LOOP_SYS_SEND(fd, p, n, flags) (calls++, send(fd, p, n, flags))
#define NETKIT_LOOP_SYS_SENDMSG(fd, m, flags) (calls++, sendmsg(fd, m, flags))
#define NETKIT_LOOP_SYS_SOCKET(a, b, c) open_one(socket(a, b, c))
#define NETKIT_LOOP_SYS_CONNECT(fd, a, n) (calls++, connect(fd, a, n))
#define NETKIT_LOOP_SYS_BIND(fd, a, n) (calls++, bind(fd, a, n))
#define NETKIT_LOOP_SYS_LISTEN(fd, n) (calls++, listen(fd, n))
#define NETKIT_LOOP_SYS_SHUTDOWN(fd, how) (calls++, shutdown(fd, how))
#define NETKIT_LOOP_SYS_ACCEPT(fd) open_one(accept(fd, NULL, NULL))
#define NETKIT_LOOP_SYS_CLOSE(fd) close_one(fd)
#define NETKIT_LOOP_SYS_PREAD(fd, p, n, at) (calls++, pread(fd, p, n, at))
#define NETKIT_LOOP_SYS_SENDFILE(out, in, at, n) (calls++, sendfile(out, in, at, n))
#define NETKIT_LOOP_SYS_EPOLL_WAIT(ep, e, n, ms) (calls++, epoll_wait(ep, e, n, ms))
#define NETKIT_LOOP_SYS_EPOLL_CTL(ep, op, fd, e) (calls++, epoll_ctl(ep, op, fd, e))
#define NETKIT_LOOP_SYS_POLL(p, n, ms) (calls++, poll(p, n, ms))
#define NETKIT_LOOP_IMPLEMENTATION
#include "netkit_loop.h"

static void log_one(void* user, int level, const char* where, const char* text) {
    (void)user; (void)level; (void)where; (void)text;
    logs++;
}
static int closed;
static size_t on_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    (void)self;
    nkloop_write(L, s, bytes, n);
    nkloop_finish(L, s);
    return n;
}
static void on_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)self; (void)L; (void)s; (void)why; closed++; }
static const nkloop_proto proto = { "hooks", on_data, NULL, on_close, NULL, NULL, NULL };
static void on_accept(void* user, nkloop* L, nkloop_stream s) { nkloop_set_proto(L, s, &proto, user); }

static int run(int backend) {
    nkloop* L;
    nkloop_desc d;
    nkloop_listen_desc ld;
    nkloop_dial_desc dd;
    nkloop_listener l;
    nkloop_stream s;
    char address[64];
    int i;
    memset(&d, 0, sizeof d);
    memset(&ld, 0, sizeof ld);
    memset(&dd, 0, sizeof dd);
    d.backend = backend;
    d.alloc_fn = count;
    d.log_fn = log_one;
    if (nkloop_create(&L, &d) != 0) return 1;
    ld.address = "127.0.0.1:0";
    ld.on_accept = on_accept;
    if (nkloop_listen(L, &ld, &l) != 0 || nkloop_listener_address(L, l, address, sizeof address) < 0) return 2;
    dd.address = address;
    dd.proto = &proto;
    if (nkloop_dial(L, &dd, &s) != 0 || nkloop_write(L, s, "hello", 5) != 0) return 3;
    for (closed = i = 0; i < 1000 && closed < 2; i++) nkloop_wait(L, 10);
    nkloop_log(L, NKLOOP_LOG_INFO, "hooks", "done");
    nkloop_destroy(L);
    return closed == 2 ? 0 : 4;
}

int main(void) {
    int a = run(NKLOOP_BACKEND_EPOLL), b;
    opened++; // epoll's own descriptor is not opened by a macro
    b = run(NKLOOP_BACKEND_POLL);
    if (a || b || logs != 2 || calls < 20 || asserts || opened) {
        printf("run %d %d logs %ld calls %ld asserts %ld open %ld\n", a, b, logs, calls, asserts, opened);
        return 1;
    }
    puts(live == 0 ? "balanced" : "not balanced");
    return live != 0;
}
