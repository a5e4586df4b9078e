/*  sys/event.h -- kqueue played with poll(2), so that the kqueue room of netkit_loop.h can be compiled and exercised on
    systems that have none. As much of kevent(2) as the loop uses: EVFILT_READ and EVFILT_WRITE, EV_ADD, EV_DELETE, EV_EOF,
    level-triggered. Strict where the real one is: deleting what is not there is ENOENT, a closed descriptor forgets its
    filters. One thread per queue.
*/
#ifndef KQUEUE_STUB_H
#define KQUEUE_STUB_H
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct kevent { uintptr_t ident; short filter; unsigned short flags; unsigned fflags; intptr_t data; void* udata; };
#define EVFILT_READ  (-1)
#define EVFILT_WRITE (-2)
#define EV_ADD    0x0001
#define EV_DELETE 0x0002
#define EV_EOF    0x8000
#define EV_ERROR  0x4000
#define EV_SET(k, a, b, c, d, e, f) do { \
    (k)->ident = (uintptr_t)(a); (k)->filter = (short)(b); (k)->flags = (unsigned short)(c); \
    (k)->fflags = (d); (k)->data = (e); (k)->udata = (f); \
} while (0)

// What each queue watches. A queue is known by a descriptor of /dev/null, whose number the process gives nobody else.
enum { KQUEUE_STUB_MOST = 64 };
static struct kqueue_stub { int fd; struct kevent* list; int num, cap, from; } kqueue_stubs[KQUEUE_STUB_MOST];

static struct kqueue_stub* kqueue_stub_of(int fd) {
    int i;
    for (i = 0; i < KQUEUE_STUB_MOST; i++) if (kqueue_stubs[i].list && kqueue_stubs[i].fd == fd) return &kqueue_stubs[i];
    return NULL;
}
static int kqueue(void) {
    int i, fd = open("/dev/null", O_RDONLY);
    struct kqueue_stub* q = kqueue_stub_of(fd);
    if (fd < 0) return -1;
    for (i = 0; !q && i < KQUEUE_STUB_MOST; i++) if (!kqueue_stubs[i].list) q = &kqueue_stubs[i];
    if (!q) { close(fd); errno = EMFILE; return -1; }
    if (!q->list) { q->cap = 64; q->list = (struct kevent*)malloc(64 * sizeof *q->list); }
    q->fd = fd;
    q->num = q->from = 0; // the number of a queue that was closed is used again
    return fd;
}
static void kqueue_stub_close(int fd) { // instead of close(2)
    struct kqueue_stub* q = kqueue_stub_of(fd);
    int i, k;
    if (q) { free(q->list); memset(q, 0, sizeof *q); }
    for (k = 0; k < KQUEUE_STUB_MOST; k++) {
        q = &kqueue_stubs[k];
        for (i = 0; q->list && i < q->num; i++) if (q->list[i].ident == (uintptr_t)fd) q->list[i--] = q->list[--q->num];
    }
    close(fd);
}
static int kqueue_stub_change(struct kqueue_stub* q, const struct kevent* c) {
    int i;
    for (i = 0; i < q->num && !(q->list[i].ident == c->ident && q->list[i].filter == c->filter); i++) {}
    if (c->flags & EV_DELETE) {
        if (i == q->num) { errno = ENOENT; return -1; }
        memmove(q->list + i, q->list + i + 1, (size_t)(q->num - i - 1) * sizeof *q->list);
        q->num--;
        return 0;
    }
    if (fcntl((int)c->ident, F_GETFD) < 0) { errno = EBADF; return -1; }
    if (i == q->num) {
        if (q->num == q->cap) q->list = (struct kevent*)realloc(q->list, (size_t)(q->cap *= 2) * sizeof *q->list);
        q->num++;
    }
    q->list[i] = *c;
    return 0;
}
static int kevent(int kq, const struct kevent* changes, int num_changes, struct kevent* out, int most, const struct timespec* ts) {
    struct kqueue_stub* q = kqueue_stub_of(kq);
    struct pollfd* p;
    int i, k, n = 0, r;
    if (!q) { errno = EBADF; return -1; }
    for (i = 0; i < num_changes; i++) if (kqueue_stub_change(q, &changes[i]) < 0) return -1;
    if (most == 0) return 0;
    p = (struct pollfd*)malloc(((size_t)q->num + 1) * sizeof *p);
    for (i = 0; i < q->num; i++) {
        p[i].fd = (int)q->list[i].ident;
        p[i].events = q->list[i].filter == EVFILT_READ ? POLLIN | POLLRDHUP : POLLOUT;
        p[i].revents = 0;
    }
    r = poll(p, (nfds_t)q->num, ts ? (int)(ts->tv_sec * 1000 + ts->tv_nsec / 1000000) : -1);
    if (q->from >= q->num) q->from = 0;
    for (k = 0, i = q->from; r > 0 && k < q->num && n < most; k++) {
        if (p[i].revents) {
            out[n] = q->list[i];
            out[n].flags = (unsigned short)(p[i].revents & (POLLHUP | POLLERR | POLLRDHUP) ? EV_EOF : 0);
            n++;
        }
        i = i + 1 == q->num ? 0 : i + 1;
    }
    q->from = i;
    free(p);
    return r < 0 ? -1 : n;
}
#endif // KQUEUE_STUB_H
