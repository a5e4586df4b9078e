/*  load.c -- the benchmark's own HTTP client. It counts exactly, which load tools do not promise.

    load run HOST:PORT KIND [options]    loads a server; prints requests=N seconds=S cpu_ns=C
    load check HOST:PORT KIND            one careful exchange; says what is wrong and leaves with 1
    load cpu PID                         CPU time of a process in ns, ended threads included

    KIND: get        GET /, one request at a time on each connection; wants `Hello, World!`
          pipelined  the same, 16 at a time (--depth)
          post       POST / of 1024 bytes; wants them back

    --connections N   default 64
    --seconds S       default 2; no new request after that, but every reply still out is counted
    --requests N      exactly N requests instead
    --depth N         requests per send
    --pid PID         the server; cpu_ns is what it spent from the first request to the last reply
    --before CMD      for the shell, when all connections are warm, before the first request
    --after CMD       for the shell, after the last reply, with the connections still open
*/
#ifndef _GNU_SOURCE
    #define _GNU_SOURCE // memmem, clock_getcpuclockid, strncasecmp
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BODY_BYTES = 1024, RX_BYTES = 65536, MAX_DEPTH = 32, MAX_REQUEST = 2048, STALL_MS = 10000 };

typedef struct options {
    const char *target, *kind, *before, *after;
    long connections, requests, depth, pid;
    double seconds;
} options;

typedef struct conn {
    int fd;
    long awaited;  // replies still to come for the batch that was sent
    size_t have;   // bytes in rx
    char* rx;
} conn;

typedef struct load {
    options o;
    char batch[MAX_DEPTH * MAX_REQUEST];
    size_t request_bytes;
    size_t body_bytes;    // of every reply
    size_t head_bytes;    // of the last reply, a guess for the next
    char head[512];
    uint64_t replies;
    uint64_t to_send;     // requests not sent yet; counts only with --requests
    uint64_t deadline_ns;
    long busy;            // connections that await something
    int epoll_fd;
    conn* conns;
} load;

// ---- time ------------------------------------------------------------------------------------

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// To the nanosecond, unlike the ticks of /proc/PID/stat; with ended threads, unlike schedstat.
static uint64_t cpu_ns(long pid) {
    clockid_t clock;
    if (pid <= 0 || clock_getcpuclockid((pid_t)pid, &clock) != 0) return 0;
    return clock_ns(clock);
}

// ---- sockets ---------------------------------------------------------------------------------

static int parse_target(const char* text, struct sockaddr_in* a) {
    const char* colon = strrchr(text, ':');
    char host[64];
    memset(a, 0, sizeof(*a));
    if (!colon || (size_t)(colon - text) >= sizeof(host)) return -1;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    a->sin_family = AF_INET;
    a->sin_port = htons((uint16_t)atoi(colon + 1));
    return inet_pton(AF_INET, host, &a->sin_addr) == 1 ? 0 : -1;
}

static int dial(const char* target) {
    struct sockaddr_in a;
    int one = 1, fd;
    if (parse_target(target, &a) != 0) return -1;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (struct sockaddr*)&a, sizeof(a)) == 0) return fd;
    close(fd);
    return -1;
}

static int wait_for(int fd, short what) {
    struct pollfd p;
    p.fd = fd;
    p.events = what;
    p.revents = 0;
    return poll(&p, 1, STALL_MS) == 1 ? 0 : -1;
}

static int send_all(int fd, const char* p, size_t n) {
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0 && errno == EAGAIN && wait_for(fd, POLLOUT) == 0) continue;
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

// ---- requests and replies --------------------------------------------------------------------

static void fill_body(char* body) {
    size_t i;
    for (i = 0; i < BODY_BYTES; i++) body[i] = (char)('a' + i % 26);
}

static int is_kind(const load* l, const char* kind) { return strcmp(l->o.kind, kind) == 0; }

static void write_requests(load* l) {
    char one[MAX_REQUEST];
    long i;
    int n;
    if (is_kind(l, "post")) {
        n = snprintf(one, sizeof(one),
            "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", l->o.target, BODY_BYTES);
        fill_body(one + n);
        n += BODY_BYTES;
        l->body_bytes = BODY_BYTES;
    } else {
        n = snprintf(one, sizeof(one), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", l->o.target);
        l->body_bytes = 13;
    }
    l->request_bytes = (size_t)n;
    for (i = 0; i < l->o.depth; i++)
        memcpy(l->batch + (size_t)i * l->request_bytes, one, l->request_bytes);
}

// Value of Content-Length in a head that ends with a blank line, -1 if there is none.
static long content_length(const char* p, size_t n) {
    const char* end = p + n;
    while (p < end) {
        const char* eol = (const char*)memchr(p, '\n', (size_t)(end - p));
        if (!eol) break;
        if (eol - p > 15 && strncasecmp(p, "content-length:", 15) == 0) return atol(p + 15);
        p = eol + 1;
    }
    return -1;
}

// Bytes of the whole reply at p, 0 if more are needed, -1 if it is not the 200 that was wanted.
static long reply_bytes(load* l, const char* p, size_t n) {
    size_t total = l->head_bytes + l->body_bytes;
    const char* end;
    if (l->head_bytes && n >= l->head_bytes && memcmp(p, l->head, l->head_bytes) == 0)
        return n >= total ? (long)total : 0; // only the Date differs between replies
    end = (const char*)memmem(p, n, "\r\n\r\n", 4);
    if (!end) return n > 16384 ? -1 : 0;
    l->head_bytes = (size_t)(end - p) + 4;
    if (strncmp(p, "HTTP/1.1 200", 12) != 0) return -1;
    if (content_length(p, l->head_bytes) != (long)l->body_bytes) return -1;
    total = l->head_bytes + l->body_bytes;
    if (l->head_bytes <= sizeof(l->head)) memcpy(l->head, p, l->head_bytes);
    else l->head_bytes = 0;
    return n >= total ? (long)total : 0;
}

static int complain(const char* what, const char* p, size_t n) {
    fprintf(stderr, "load: %s: \"%.*s\"\n", what, n < 300 ? (int)n : 300, p);
    return -1;
}

// ---- run -------------------------------------------------------------------------------------

// Sends the next batch, or nothing if the run is over.
static int send_batch(load* l, conn* c) {
    uint64_t n = (uint64_t)l->o.depth;
    if (l->o.requests > 0) {
        if (n > l->to_send) n = l->to_send;
        l->to_send -= n;
    } else if (clock_ns(CLOCK_MONOTONIC) >= l->deadline_ns) {
        n = 0;
    }
    if (n == 0) return 0;
    c->awaited = (long)n;
    l->busy++;
    return send_all(c->fd, l->batch, (size_t)n * l->request_bytes);
}

// Takes the whole replies out of rx. -1 if one of them is wrong.
static int take_replies(load* l, conn* c) {
    size_t at = 0;
    while (at < c->have) {
        long n = reply_bytes(l, c->rx + at, c->have - at);
        if (n < 0) return complain("wrong reply", c->rx + at, c->have - at);
        if (n == 0) break;
        if (c->awaited == 0) return complain("reply to nothing", c->rx + at, c->have - at);
        at += (size_t)n;
        c->awaited--;
        l->replies++;
    }
    c->have -= at;
    if (c->have && at) memmove(c->rx, c->rx + at, c->have);
    return 0;
}

static int serve(load* l, conn* c) {
    ssize_t n = recv(c->fd, c->rx + c->have, RX_BYTES - c->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) return complain("server hung up", "", 0);
    c->have += (size_t)n;
    if (c->awaited == 0) return complain("reply to nothing", c->rx, c->have);
    if (take_replies(l, c) != 0) return -1;
    if (c->awaited > 0) return 0;
    l->busy--;
    return send_batch(l, c);
}

static int spin(load* l) {
    static struct epoll_event evs[256];
    while (l->busy > 0) {
        int i, n = epoll_wait(l->epoll_fd, evs, 256, STALL_MS);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return complain("no reply for 10 seconds", "", 0);
        for (i = 0; i < n; i++)
            if (serve(l, (conn*)evs[i].data.ptr) != 0) return -1;
    }
    return 0;
}

static int open_all(load* l) {
    long i;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->conns = (conn*)calloc((size_t)l->o.connections, sizeof(conn));
    if (l->epoll_fd < 0 || !l->conns) return -1;
    for (i = 0; i < l->o.connections; i++) {
        struct epoll_event ev;
        conn* c = &l->conns[i];
        c->fd = dial(l->o.target);
        c->rx = (char*)malloc(RX_BYTES);
        if (c->fd < 0 || !c->rx) return complain("cannot connect", "", 0);
        memset(&ev, 0, sizeof(ev));
        ev.events = EPOLLIN;
        ev.data.ptr = c;
        if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) return -1;
    }
    return 0;
}

// One batch on every connection, so that the costs of accept and first use stay outside.
static int warm_up(load* l) {
    size_t bytes = (size_t)l->o.depth * l->request_bytes;
    long i;
    for (i = 0; i < l->o.connections; i++) {
        l->conns[i].awaited = l->o.depth;
        l->busy++;
        if (send_all(l->conns[i].fd, l->batch, bytes) != 0) return -1;
    }
    l->deadline_ns = 0; // long over: no second batch
    l->to_send = 0;
    if (spin(l) != 0) return -1;
    l->replies = 0;
    return 0;
}

static int shell(const char* command) {
    if (!command || system(command) == 0) return 0;
    return complain("command failed", command, strlen(command));
}

static int run(load* l) {
    uint64_t t0, t1, cpu0, cpu1;
    long i;
    if (open_all(l) != 0 || warm_up(l) != 0 || shell(l->o.before) != 0) return 1;
    cpu0 = cpu_ns(l->o.pid);
    t0 = clock_ns(CLOCK_MONOTONIC);
    l->deadline_ns = t0 + (uint64_t)(l->o.seconds * 1e9);
    l->to_send = (uint64_t)l->o.requests;
    for (i = 0; i < l->o.connections; i++)
        if (send_batch(l, &l->conns[i]) != 0) return 1;
    if (spin(l) != 0) return 1;
    t1 = clock_ns(CLOCK_MONOTONIC);
    cpu1 = cpu_ns(l->o.pid);
    if (shell(l->o.after) != 0) return 1;
    printf("requests=%llu seconds=%.3f cpu_ns=%llu\n", (unsigned long long)l->replies,
        (double)(t1 - t0) / 1e9, (unsigned long long)(cpu1 - cpu0));
    return 0;
}

// ---- check -----------------------------------------------------------------------------------

// Compares every byte of every body; the measuring run looks at heads only.
static int check(load* l) {
    static char rx[RX_BYTES];
    char body[BODY_BYTES];
    const char* want = is_kind(l, "post") ? body : "Hello, World!";
    size_t have = 0, at = 0;
    long i;
    int fd = dial(l->o.target);
    fill_body(body);
    if (fd < 0) return 1;
    if (send_all(fd, l->batch, (size_t)l->o.depth * l->request_bytes) != 0) return 1;
    for (i = 0; i < l->o.depth; i++) {
        long n;
        while ((n = reply_bytes(l, rx + at, have - at)) == 0) {
            ssize_t k = have < RX_BYTES && wait_for(fd, POLLIN) == 0
                ? recv(fd, rx + have, RX_BYTES - have, 0) : -1;
            if (k <= 0) { complain("no whole reply", rx + at, have - at); return 1; }
            have += (size_t)k;
        }
        if (n < 0 || memcmp(rx + at + (size_t)n - l->body_bytes, want, l->body_bytes) != 0) {
            complain("wrong reply", rx + at, have - at);
            return 1;
        }
        at += (size_t)n;
    }
    if (have != at) { complain("bytes after the last reply", rx + at, have - at); return 1; }
    printf("reply_bytes=%lu\n", (unsigned long)(at / (size_t)l->o.depth));
    close(fd);
    return 0;
}

// ---- main ------------------------------------------------------------------------------------

static int usage(void) {
    fprintf(stderr, "usage: load run|check HOST:PORT get|pipelined|post [options]\n"
        "       load cpu PID\nbench/load.c explains the options.\n");
    return 2;
}

static int parse_options(load* l, int argc, char** argv) {
    options* o = &l->o;
    int i;
    o->target = argv[2];
    o->kind = argv[3];
    o->connections = 64;
    o->seconds = 2;
    o->depth = is_kind(l, "pipelined") ? 16 : 1;
    if (!is_kind(l, "get") && !is_kind(l, "pipelined") && !is_kind(l, "post")) return -1;
    for (i = 4; i + 1 < argc; i += 2) {
        const char* value = argv[i + 1];
        if (strcmp(argv[i], "--connections") == 0) o->connections = atol(value);
        else if (strcmp(argv[i], "--seconds") == 0) o->seconds = atof(value);
        else if (strcmp(argv[i], "--requests") == 0) o->requests = atol(value);
        else if (strcmp(argv[i], "--depth") == 0) o->depth = atol(value);
        else if (strcmp(argv[i], "--pid") == 0) o->pid = atol(value);
        else if (strcmp(argv[i], "--before") == 0) o->before = value;
        else if (strcmp(argv[i], "--after") == 0) o->after = value;
        else return -1;
    }
    return i == argc && o->connections > 0 && o->depth > 0 && o->depth <= MAX_DEPTH ? 0 : -1;
}

int main(int argc, char** argv) {
    static load l;
    if (argc == 3 && strcmp(argv[1], "cpu") == 0) {
        uint64_t ns = cpu_ns(atol(argv[2]));
        printf("%llu\n", (unsigned long long)ns);
        return ns == 0;
    }
    if (argc < 4 || parse_options(&l, argc, argv) != 0) return usage();
    write_requests(&l);
    if (strcmp(argv[1], "run") == 0) return run(&l);
    if (strcmp(argv[1], "check") == 0) return check(&l);
    return usage();
}
