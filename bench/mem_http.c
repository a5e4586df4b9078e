/*  mem_http.c -- http_hello with a counting allocator: user memory of an idle connection.

    cc -O2 -I. bench/mem_http.c -o build/bench/mem_http -lpthread
    mem_http [127.0.0.1:0]      on SIGUSR1 prints `live N`: bytes allocated and not freed

    Everything netkit allocates goes through the loop's alloc_fn, so N is all of it.
*/
#define NETKIT_IMPLEMENTATION
#include "netkit_loop.h"
#include "netkit_http.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nkloop* loop;
static volatile size_t live_bytes;

static void* count(void* user, void* ptr, size_t old_size, size_t new_size) {
    void* p = NULL;
    (void)user;
    if (new_size == 0) {
        free(ptr);
    } else {
        p = realloc(ptr, new_size);
        if (!p) return NULL; // what was there stays
    }
    live_bytes = live_bytes - old_size + new_size;
    return p;
}

// write() and no printf(): this is a signal handler.
static void print_live(int sig) {
    char text[40];
    size_t i = sizeof(text), n = live_bytes;
    (void)sig;
    text[--i] = '\n';
    do { text[--i] = (char)('0' + n % 10); n /= 10; } while (n > 0);
    i -= 5;
    memcpy(text + i, "live ", 5);
    if (write(1, text + i, sizeof(text) - i) < 0) _exit(1);
}

static void stop(int sig) {
    (void)sig;
    nkloop_stop(loop);
}

static void on_request(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, "text/plain", "Hello, World!", 13);
}

int main(int argc, char** argv) {
    nkloop_desc ld;
    nkhttp_server_desc sd;
    nkhttp_server* srv;
    char address[80];
    int err;
    memset(&ld, 0, sizeof(ld));
    memset(&sd, 0, sizeof(sd));
    ld.alloc_fn = count;
    sd.address = argc > 1 ? argv[1] : "127.0.0.1:0";
    sd.on_request = on_request;
    sd.idle_timeout_ms = UINT32_MAX; // opening very many connections takes a while
    err = nkloop_create(&loop, &ld);
    if (err == NKLOOP_OK) err = nkhttp_server_create(&srv, loop, &sd);
    if (err == NKLOOP_OK) err = nkhttp_server_address(srv, address, sizeof(address));
    if (err < 0) {
        fprintf(stderr, "mem_http: %s\n", nkhttp_strerror(err));
        return 1;
    }
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    signal(SIGUSR1, print_live);
    printf("listening on %s\n", address);
    fflush(stdout);
    nkloop_run(loop);
    nkhttp_server_destroy(srv);
    nkloop_destroy(loop);
    if (live_bytes != 0) fprintf(stderr, "mem_http: %lu bytes left\n", (unsigned long)live_bytes);
    return live_bytes != 0;
}
