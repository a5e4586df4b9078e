/*  peer_mhd.c -- libmicrohttpd answering what http_hello and http_echo answer, for comparison.

    cc -O2 bench/peer_mhd.c -o build/bench/peer_mhd -lmicrohttpd
    peer_mhd [hello|echo]       on 127.0.0.1, any port

    One internal epoll thread, as its documentation recommends for speed.
*/
#ifndef _GNU_SOURCE
    #define _GNU_SOURCE // sigwait
#endif
#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


enum { MAX_BODY = 65536 };

typedef struct upload {
    size_t n;
    char bytes[MAX_BODY];
} upload;

static struct MHD_Response* hello;

static enum MHD_Result on_hello(void* user, struct MHD_Connection* c, const char* url,
                                const char* method, const char* version,
                                const char* data, size_t* n, void** state) {
    (void)user; (void)url; (void)method; (void)version; (void)data; (void)n;
    if (!*state) { *state = &hello; return MHD_YES; } // first call: head only
    return MHD_queue_response(c, MHD_HTTP_OK, hello);
}

static enum MHD_Result on_echo(void* user, struct MHD_Connection* c, const char* url,
                               const char* method, const char* version,
                               const char* data, size_t* n, void** state) {
    upload* u = (upload*)*state;
    struct MHD_Response* r;
    enum MHD_Result ok;
    (void)user; (void)url; (void)method; (void)version;
    if (!u) {
        u = (upload*)malloc(sizeof(upload));
        if (!u) return MHD_NO;
        u->n = 0;
        *state = u;
        return MHD_YES;
    }
    if (*n > 0) {
        if (*n > MAX_BODY - u->n) return MHD_NO;
        memcpy(u->bytes + u->n, data, *n);
        u->n += *n;
        *n = 0;
        return MHD_YES;
    }
    *state = NULL;
    r = MHD_create_response_from_buffer(u->n, u->bytes, MHD_RESPMEM_MUST_COPY);
    free(u);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Content-Type", "text/plain");
    ok = MHD_queue_response(c, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return ok;
}

static void on_done(void* user, struct MHD_Connection* c, void** state,
                    enum MHD_RequestTerminationCode why) {
    (void)c; (void)why;
    if (user && *state) free(*state);
    *state = NULL;
}

int main(int argc, char** argv) {
    static char body[] = "Hello, World!";
    int echo = argc > 1 && strcmp(argv[1], "echo") == 0;
    const union MHD_DaemonInfo* info;
    struct MHD_Daemon* d;
    struct sockaddr_in a;
    sigset_t stop;
    int sig;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL); // the daemon's thread inherits it; for sigwait below
    memset(&a, 0, sizeof(a));
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    hello = MHD_create_response_from_buffer(13, body, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(hello, "Content-Type", "text/plain");
    d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL,
        echo ? on_echo : on_hello, NULL,
        MHD_OPTION_SOCK_ADDR, (struct sockaddr*)&a, MHD_OPTION_CONNECTION_LIMIT, 19500u,
        MHD_OPTION_NOTIFY_COMPLETED, on_done, echo ? (void*)body : NULL, MHD_OPTION_END);
    info = d ? MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!info) {
        fprintf(stderr, "peer_mhd: cannot start\n");
        return 1;
    }
    printf("listening on 127.0.0.1:%d\n", (int)info->port);
    fflush(stdout);
    sigwait(&stop, &sig);
    MHD_stop_daemon(d);
    return 0;
}
