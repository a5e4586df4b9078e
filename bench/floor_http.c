/*  floor_http.c -- the least any HTTP server can do for the same bytes: the measure of netkit.

    cc -O2 bench/floor_http.c -o build/bench/floor_http
    floor_http [127.0.0.1:0] [--post-echo]

    One thread, epoll, one recv and one send per batch of requests. It parses nothing: a blank line
    is a request, each is answered with the same constant bytes (Date included). With --post-echo it
    looks for Content-Length, spelled like that, and sends the body back. It is no server: it checks
    nothing and must never leave loopback.
*/
#ifndef _GNU_SOURCE
    #define _GNU_SOURCE // accept4, memmem
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

// The header fields of examples/http_hello.c in its order: both send the same number of bytes.
static const char answer[] =
    "HTTP/1.1 200 OK\r\n"
    "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    "Content-Type: text/plain\r\n"
    "Content-Length: 13\r\n"
    "\r\n"
    "Hello, World!";
static const char echo_head[] =
    "HTTP/1.1 200 OK\r\n"
    "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    "Content-Type: text/plain\r\n"
    "Content-Length: ";

enum { RX_BYTES = 65536, TX_BYTES = 262144, MAX_HELD = 16384, ANSWERS = 1024 };

typedef struct peer {
    unsigned char matched; // bytes of "\r\n\r\n" seen at the end of the last read
    unsigned held_bytes;   // --post-echo: the beginning of a request that has not arrived whole
    char* held;
} peer;

static peer* peers; // by descriptor
static size_t peer_count;
static int epoll_fd;
static char rx[RX_BYTES + MAX_HELD];
static char tx[TX_BYTES];
static char* answers; // ANSWERS copies of the answer, so that a batch is one send

static void leave(int sig) {
    (void)sig;
    _exit(0);
}

static int fail(const char* what) {
    perror(what);
    return 1;
}

static void hang_up(int fd) {
    close(fd);
    free(peers[fd].held);
    memset(&peers[fd], 0, sizeof(peer));
}

// Sends everything or gives up. Waiting blocks all others; a benchmark's clients always read.
static int send_all(int fd, const char* p, size_t n) {
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EAGAIN) {
            struct pollfd wait_for;
            wait_for.fd = fd;
            wait_for.events = POLLOUT;
            wait_for.revents = 0;
            poll(&wait_for, 1, 1000);
            continue;
        }
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

// ---- GET: a blank line is a request ----------------------------------------------------------

// Blank lines in p. The match carries over to the next read in *matched.
static size_t count_requests(const char* p, size_t n, unsigned char* matched) {
    const char* end = p + n;
    size_t found = 0;
    unsigned m = *matched;
    for (; m != 0 && p < end; p++) { // the tail of a split blank line
        m = *p == ((m & 1u) ? '\n' : '\r') ? m + 1 : (*p == '\r' ? 1u : 0u);
        if (m == 4) { found++; m = 0; }
    }
    while (p < end) {
        p = (const char*)memchr(p, '\r', (size_t)(end - p));
        if (!p) break;
        if (end - p >= 4) {
            if (memcmp(p, "\r\n\r\n", 4) == 0) { found++; p += 4; }
            else p += 2; // what follows a CR is a LF
            continue;
        }
        for (m = 0; p < end; p++) m = *p == ((m & 1u) ? '\n' : '\r') ? m + 1 : 0;
    }
    *matched = (unsigned char)m;
    return found;
}

static int serve_get(int fd) {
    ssize_t n = recv(fd, rx, RX_BYTES, 0);
    size_t count;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) return -1;
    count = count_requests(rx, (size_t)n, &peers[fd].matched);
    while (count > 0) {
        size_t k = count < ANSWERS ? count : ANSWERS;
        if (send_all(fd, answers, k * (sizeof(answer) - 1)) != 0) return -1;
        count -= k;
    }
    return 0;
}

// ---- POST: the body goes back ----------------------------------------------------------------

// Bytes of one whole request in p, 0 if more are needed; the body is its last *body_bytes.
static size_t whole_request(const char* p, size_t n, size_t* body_bytes) {
    static const char name[] = "Content-Length:";
    const char* end = (const char*)memmem(p, n, "\r\n\r\n", 4);
    const char* length;
    size_t head;
    if (!end) return 0;
    head = (size_t)(end - p) + 4;
    length = (const char*)memmem(p, head, name, sizeof(name) - 1);
    *body_bytes = length ? (size_t)strtoul(length + sizeof(name) - 1, NULL, 10) : 0;
    return n - head >= *body_bytes ? head + *body_bytes : 0;
}

// Appends one answer at tx + used; the caller has checked that it fits.
static size_t put_echo(size_t used, const char* body, size_t n) {
    char digits[24];
    size_t i = sizeof(digits);
    size_t left = n;
    do { digits[--i] = (char)('0' + left % 10); left /= 10; } while (left > 0);
    memcpy(tx + used, echo_head, sizeof(echo_head) - 1);
    used += sizeof(echo_head) - 1;
    memcpy(tx + used, digits + i, sizeof(digits) - i);
    used += sizeof(digits) - i;
    memcpy(tx + used, "\r\n\r\n", 4);
    memcpy(tx + used + 4, body, n);
    return used + 4 + n;
}

static int hold(peer* c, const char* p, size_t n) {
    if (n > MAX_HELD) return -1;
    if (!c->held) c->held = (char*)malloc(MAX_HELD);
    if (!c->held) return -1;
    memcpy(c->held, p, n);
    c->held_bytes = (unsigned)n;
    return 0;
}

static int serve_echo(int fd) {
    peer* c = &peers[fd];
    size_t have = c->held_bytes, at = 0, used = 0, body = 0, whole;
    ssize_t n;
    if (have) memcpy(rx, c->held, have);
    n = recv(fd, rx + have, RX_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) return -1;
    have += (size_t)n;
    c->held_bytes = 0;
    while (at < have && (whole = whole_request(rx + at, have - at, &body)) > 0) {
        at += whole;
        if (used + body + 512 > TX_BYTES) {
            if (send_all(fd, tx, used) != 0) return -1;
            used = 0;
        }
        used = put_echo(used, rx + at - body, body);
    }
    if (at < have && hold(c, rx + at, have - at) != 0) return -1;
    return used ? send_all(fd, tx, used) : 0;
}

// ---- the loop --------------------------------------------------------------------------------

static void accept_all(int listener) {
    for (;;) {
        struct epoll_event ev;
        int one = 1;
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if ((size_t)fd >= peer_count) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        memset(&ev, 0, sizeof(ev));
        ev.events = EPOLLIN;
        ev.data.fd = fd;
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) close(fd);
    }
}

static void run(int listener, int echo) {
    static struct epoll_event evs[256];
    for (;;) {
        int i, n = epoll_wait(epoll_fd, evs, 256, -1);
        for (i = 0; i < n; i++) {
            int fd = evs[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if ((echo ? serve_echo(fd) : serve_get(fd)) != 0) hang_up(fd);
        }
    }
}

static int listen_on(const char* text, int* port) {
    struct sockaddr_in a;
    socklen_t len = sizeof(a);
    const char* colon = strrchr(text, ':');
    char host[64];
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    memset(&a, 0, sizeof(a));
    a.sin_family = AF_INET;
    if (fd < 0 || !colon || (size_t)(colon - text) >= sizeof(host)) return -1;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    a.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr*)&a, sizeof(a)) != 0 || listen(fd, 4096) != 0) return -1;
    if (getsockname(fd, (struct sockaddr*)&a, &len) != 0) return -1;
    *port = ntohs(a.sin_port);
    printf("listening on %s:%d\n", host, *port);
    fflush(stdout);
    return fd;
}

static int prepare(void) {
    struct rlimit files;
    size_t i;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return -1;
    peer_count = files.rlim_cur < 1000000 ? (size_t)files.rlim_cur : 1000000;
    peers = (peer*)calloc(peer_count, sizeof(peer));
    answers = (char*)malloc(ANSWERS * (sizeof(answer) - 1));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!peers || !answers || epoll_fd < 0) return -1;
    for (i = 0; i < ANSWERS; i++)
        memcpy(answers + i * (sizeof(answer) - 1), answer, sizeof(answer) - 1);
    return 0;
}

int main(int argc, char** argv) {
    struct epoll_event ev;
    const char* address = "127.0.0.1:0";
    int i, listener, port = 0, echo = 0;
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--post-echo") == 0) echo = 1;
        else address = argv[i];
    }
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    if (prepare() != 0) return fail("floor_http");
    listener = listen_on(address, &port);
    if (listener < 0) return fail(address);
    memset(&ev, 0, sizeof(ev));
    ev.events = EPOLLIN;
    ev.data.fd = listener;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev) != 0) return fail("epoll_ctl");
    run(listener, echo);
    return 0;
}
