/*  idle.c -- opens many keep-alive connections to an HTTP server, one request each, and holds them.

    idle HOST:PORT COUNT      prints `open N` once all are there; at a line or the end of its input
                              prints `closed N` (how many the server hung up on) and leaves

    Connections come from 127.0.0.2, 127.0.0.3, ... in lots of 20,000, so that ports do not run out.
    One process holds as many as its RLIMIT_NOFILE allows, less a few; N says how many that were.
*/
#ifndef _GNU_SOURCE
    #define _GNU_SOURCE // strcasestr
#endif
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
    #define IP_BIND_ADDRESS_NO_PORT 24 // Linux 4.2; older kernels refuse it, which costs only speed
#endif

enum { PER_SOURCE = 20000 };

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

static int dial(const struct sockaddr_in* to, long number) {
    struct sockaddr_in from;
    struct timeval patience;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    memset(&from, 0, sizeof(from));
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(number / PER_SOURCE));
    patience.tv_sec = 10;
    patience.tv_usec = 0;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (bind(fd, (struct sockaddr*)&from, sizeof(from)) == 0 &&
        connect(fd, (const struct sockaddr*)to, sizeof(*to)) == 0) return fd;
    close(fd);
    return -1;
}

// One request and its whole reply, so that the connection is idle the way a browser leaves it.
static int exchange(int fd, const char* target) {
    char buf[4096];
    size_t have = 0;
    int n = snprintf(buf, sizeof(buf), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", target);
    if (send(fd, buf, (size_t)n, MSG_NOSIGNAL) != n) return -1;
    for (;;) {
        const char *end, *length;
        ssize_t k = recv(fd, buf + have, sizeof(buf) - 1 - have, 0);
        if (k <= 0) return -1;
        have += (size_t)k;
        buf[have] = 0;
        end = strstr(buf, "\r\n\r\n");
        length = strcasestr(buf, "content-length:");
        if (!end) continue;
        if (strncmp(buf, "HTTP/1.1 200", 12) != 0 || !length || length > end) return -1;
        if (have >= (size_t)(end - buf) + 4 + (size_t)atol(length + 15)) return 0;
    }
}

static long count_closed(const int* fds, long n) {
    long i, closed = 0;
    char byte;
    for (i = 0; i < n; i++)
        if (recv(fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0) closed++;
    return closed;
}

int main(int argc, char** argv) {
    struct sockaddr_in to;
    struct rlimit files;
    long want, n;
    int* fds;
    if (argc != 3 || parse_target(argv[1], &to) != 0) {
        fprintf(stderr, "usage: idle HOST:PORT COUNT\n");
        return 2;
    }
    want = atol(argv[2]);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < (rlim_t)want + 100)
        want = files.rlim_cur > 100 ? (long)files.rlim_cur - 100 : 0;
    fds = (int*)calloc((size_t)want + 1, sizeof(int));
    if (!fds) return 1;
    for (n = 0; n < want; n++) {
        fds[n] = dial(&to, n);
        if (fds[n] < 0 || exchange(fds[n], argv[1]) != 0) {
            perror("idle: connection refused, lost or answered wrongly");
            return 1;
        }
    }
    printf("open %ld\n", n);
    fflush(stdout);
    (void)getchar();
    printf("closed %ld\n", count_closed(fds, n));
    free(fds);
    return 0;
}
