// Every hook of netkit_http.h, counted: memory, log, assertions, file calls.
#define _GNU_SOURCE 1
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
static int open_one(int fd) { calls++; if (fd >= 0) opened++; return fd; }
static int close_one(int fd) { opened--; return close(fd); }

#define NETKIT_HTTP_ASSERT(c) (asserts += !(c))
#define NETKIT_HTTP_SYS_OPENAT2(dir, path, how, size) open_one((int)syscall(437, dir, path, how, size))
#define NETKIT_HTTP_SYS_OPENAT(dir, path, flags) open_one(openat(dir, path, flags))
#define NETKIT_HTTP_SYS_FSTAT(fd, st) (calls++, fstat(fd, st))
#define NETKIT_HTTP_SYS_PREAD(fd, out, n, at) (calls++, pread(fd, out, n, at))
#define NETKIT_HTTP_SYS_CLOSE(fd) close_one(fd)
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"

static void log_one(void* user, int level, const char* where, const char* text) {
    (void)user; (void)level; (void)where; (void)text;
    logs++;
}
static void on_silent(void* user, nkhttp_req* req) { (void)user; (void)req; } // answers nothing, which is logged

static int serve(const char* root, const char* ask, const char* want) {
    nkloop* L;
    nkhttp_server* srv;
    nkloop_desc ld;
    nkhttp_server_desc d;
    nkhttp_files_desc files;
    struct sockaddr_in a;
    char text[4096];
    size_t n = 0;
    ssize_t r = -1;
    int fd, i;
    memset(&ld, 0, sizeof ld);
    memset(&d, 0, sizeof d);
    memset(&files, 0, sizeof files);
    memset(&a, 0, sizeof a);
    ld.alloc_fn = count;
    ld.log_fn = log_one;
    d.address = "127.0.0.1:0";
    d.on_request = on_silent;
    files.root = root;
    if (nkloop_create(&L, &ld) != 0 || nkhttp_server_create(&srv, L, &d) != 0 || nkhttp_serve_files(srv, "/files/", &files) != 0) return 1;
    if (nkhttp_server_address(srv, text, sizeof text) < 0) return 2;
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)atoi(strrchr(text, ':') + 1));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr*)&a, sizeof a) != 0 || write(fd, ask, strlen(ask)) < 0) return 3;
    for (i = 0; i < 1000 && r != 0; i++) {
        nkloop_wait(L, 10);
        r = recv(fd, text + n, sizeof text - 1 - n, MSG_DONTWAIT);
        if (r > 0) n += (size_t)r;
    }
    text[n] = 0;
    close(fd);
    nkhttp_server_destroy(srv);
    nkloop_destroy(L);
    return strstr(text, want) ? 0 : 4;
}

int main(void) {
    char root[] = "/tmp/nkhooksXXXXXX", path[64];
    int fd, a, b;
    if (!mkdtemp(root)) return 1;
    snprintf(path, sizeof path, "%s/a.txt", root);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    if (fd < 0 || write(fd, "file\n", 5) != 5) return 1;
    close(fd);
    a = serve(root, "GET /files/a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "\r\n\r\nfile\n");
    b = serve(root, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 500 ");
    unlink(path);
    rmdir(root);
    if (a || b || logs < 1 || calls < 3 || asserts) {
        printf("serve %d %d logs %ld calls %ld asserts %ld open %ld\n", a, b, logs, calls, asserts, opened);
        return 1;
    }
    puts(live == 0 ? "balanced" : "not balanced");
    return live != 0;
}
