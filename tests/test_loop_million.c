// A million streams on one loop, over a kernel that is played here: what one costs in memory, and that the idle ones
// cost nothing else. Linux only (epoll). POSIX only.
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/epoll.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST = 1 << 22 };            // numbers of played descriptors: none of them is real
static uint32_t total, accepted, closed_fds, ctl_adds, ctl_mods, ctl_dels, waits, recvs;
static uint64_t* datas;              // what epoll would hand back for each
static uint64_t listener_data;
static int listener_fd = -1, wake_up;
static uint32_t ready_from, ready_count, ready_step;

static int m_accept(int fd) {
    (void)fd;
    if (accepted == total) { errno = EAGAIN; return -1; }
    return FIRST + (int)accepted++;
}
static int m_close(int fd) {
    if (fd < FIRST) return close(fd);
    closed_fds++;
    return 0;
}
static int m_ctl(int ep, int op, int fd, struct epoll_event* ev) {
    if (op == EPOLL_CTL_ADD) ctl_adds++;
    if (op == EPOLL_CTL_MOD) ctl_mods++;
    if (op == EPOLL_CTL_DEL) ctl_dels++;
    if (fd >= FIRST) { if (op != EPOLL_CTL_DEL) datas[fd - FIRST] = ev->data.u64; return 0; }
    if (fd == listener_fd) listener_data = ev->data.u64;
    return epoll_ctl(ep, op, fd, ev);
}
static int m_wait(int ep, struct epoll_event* ev, int most, int ms) {
    int n = 0;
    (void)ep; (void)ms;
    waits++;
    if (wake_up && accepted < total) { ev[n].events = EPOLLIN; ev[n++].data.u64 = listener_data; }
    for (; n < most && ready_count > 0; n++, ready_count--, ready_from += ready_step) {
        ev[n].events = EPOLLIN;
        ev[n].data.u64 = datas[ready_from];
    }
    return n;
}
static long m_recv(int fd, void* p, size_t n, int flags) {
    (void)fd; (void)flags; (void)n;
    recvs++;
    memcpy(p, "ping", 4);
    return 4;
}
#define NETKIT_LOOP_SYS_ACCEPT(fd) m_accept(fd)
#define NETKIT_LOOP_SYS_CLOSE(fd) m_close(fd)
#define NETKIT_LOOP_SYS_EPOLL_CTL(ep, op, fd, ev) m_ctl(ep, op, fd, ev)
#define NETKIT_LOOP_SYS_EPOLL_WAIT(ep, ev, most, ms) m_wait(ep, ev, most, ms)
#define NETKIT_LOOP_SYS_RECV(fd, p, n, flags) m_recv(fd, p, n, flags)
#define NETKIT_IMPLEMENTATION
#include "netkit_loop.h"
#include "nktest.h"

static long live, allocs, datas_seen, closes, timeouts, alarms;
static nkloop_stream* streams;
static uint32_t num_streams;
static void* count(void* user, void* ptr, size_t old_size, size_t new_size) {
    (void)user;
    live += (long)new_size - (long)old_size;
    allocs += new_size > 0;
    if (new_size == 0) { free(ptr); return NULL; }
    return realloc(ptr, new_size);
}
static size_t on_data(void* self, nkloop* L, nkloop_stream s, uint8_t* p, size_t n) {
    (void)self; (void)L; (void)s; (void)p;
    datas_seen++;
    return n;
}
static void on_close(void* self, nkloop* L, nkloop_stream s, int why) {
    (void)self; (void)L; (void)s;
    closes++;
    timeouts += why == NKLOOP_ERR_TIMEOUT;
}
static void on_alarm(void* self, nkloop* L, nkloop_stream s) { (void)self; (void)L; (void)s; alarms++; }
static const nkloop_proto quiet = { "quiet", on_data, NULL, on_close, NULL, NULL, on_alarm };
static void on_accept(void* user, nkloop* L, nkloop_stream s) {
    nkloop_set_proto(L, s, &quiet, user);
    nkloop_set_timeout(L, s, 3600 * 1000);
    streams[num_streams++] = s;
}
static void later(nkloop* L, uint32_t ms) { L->start_ns -= (uint64_t)ms * 1000000u; } // the loop believes that time passed

TEST(a_million_streams) {
    nkloop* L;
    nkloop_desc d;
    nkloop_listen_desc ld;
    nkloop_listener l;
    nkloop_stats st;
    const char* slow = getenv("LD_PRELOAD");
    uint32_t i, calls, gone, kept;
    long base, before;
    total = slow && strstr(slow, "vgpreload") ? 100000 : 1000000;
    datas = (uint64_t*)calloc(total, sizeof *datas);
    streams = (nkloop_stream*)calloc(total, sizeof *streams);
    memset(&d, 0, sizeof d);
    memset(&ld, 0, sizeof ld);
    d.max_streams = total + 2;
    d.alloc_fn = count;
    d.backend = NKLOOP_BACKEND_EPOLL;
    CHECK_INT(nkloop_create(&L, &d), 0);
    ld.address = "127.0.0.1:0";
    ld.on_accept = on_accept;
    CHECK_INT(nkloop_listen(L, &ld, &l), 0);
    listener_fd = (int)nkloop_p_at(L, (uint32_t)l.id)->fd;
    listener_data = l.id;
    base = live;
    wake_up = 1;
    for (i = 0; accepted < total && i < 1000000; i++) nkloop_pump(L, 1000000000);
    CHECK_INT(num_streams, total);
    nkloop_get_stats(L, &st);
    CHECK_INT(st.streams, total);
    CHECK_INT(st.accept_pauses, 0);
    printf("%u streams with an armed timeout: %ld bytes of live memory each\n", total, (live - base) / (long)total);
    CHECK((live - base) / (long)total <= 128);

    // idle turns touch nothing: no callback, no call, no allocation, nothing in the timers
    calls = ctl_adds + ctl_mods + ctl_dels;
    before = allocs;
    waits = 0;
    for (i = 0; i < 1000; i++) { nkloop_pump(L, 1000000000); later(L, 100); }
    CHECK_INT(waits, 1000);
    CHECK_INT(ctl_adds + ctl_mods + ctl_dels, calls);
    CHECK_INT(recvs + (uint32_t)datas_seen + (uint32_t)closes, 0);
    CHECK_INT(allocs, before);

    // traffic: one recv each and nothing else; the timer is not touched
    ready_step = total / 1000;
    for (i = 0; i < 10; i++) {
        nkloop_p_tnode node = nkloop_p_at(L, (uint32_t)streams[5 * ready_step].id)->timer;
        ready_from = 0;
        ready_count = 1000;
        while (ready_count) nkloop_pump(L, 1000000000);
        CHECK(memcmp(&node, &nkloop_p_at(L, (uint32_t)streams[5 * ready_step].id)->timer, sizeof node) == 0);
        later(L, 1000);
    }
    nkloop_pump(L, 1000000000);
    CHECK_INT(recvs, 10000);
    CHECK_INT(datas_seen, 10000);
    CHECK_INT(ctl_adds + ctl_mods + ctl_dels, calls);
    CHECK_INT(allocs, before);

    // an hour after the last byte: all end but those that spoke meanwhile
    later(L, 3600 * 1000 - 110 * 1000 - 5000);
    ready_from = 0;
    ready_count = 1000;
    while (ready_count) nkloop_pump(L, 1000000000);
    CHECK_INT(closes, 0);
    later(L, 200 * 1000);
    for (i = 0; i < 20; i++) nkloop_pump(L, 1000000000);
    CHECK_INT(closes, (long)total - 1000);
    CHECK_INT(timeouts, (long)total - 1000);
    CHECK_INT(closed_fds, total - 1000);
    CHECK_INT(ctl_dels, total - 1000);
    for (i = 0, gone = kept = 0; i < total; i++) {
        if (nkloop_alive(L, streams[i])) kept++;
        else gone += nkloop_write(L, streams[i], "x", 1) == NKLOOP_ERR_STALE;
    }
    CHECK_INT(kept, 1000);
    CHECK_INT(gone, total - 1000);

    // and the slots are used again, without more memory
    before = live;
    i = total - 1000;
    accepted = num_streams = 0;
    total = i;
    for (i = 0; accepted < total && i < 1000000; i++) nkloop_pump(L, 1000000000);
    CHECK_INT(num_streams, total);
    CHECK_INT(live, before);
    closes = 0;
    wake_up = 0;
    nkloop_destroy(L);
    CHECK_INT(closes, (long)total + 1000);
    CHECK_INT(live, 0);
    free(datas);
    free(streams);
}
