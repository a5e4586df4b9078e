/*  http_hello.c -- the smallest server: any GET is answered "Hello, World!".

    cc -O2 -I. examples/http_hello.c -o build/http_hello -lpthread
    build/http_hello 127.0.0.1:8080        then open http://127.0.0.1:8080/

*/
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static nkloop* loop;

static void on_signal(int number) {
    (void)number;
    nkloop_stop(loop); // the one call that a signal handler may make
}

static void on_get(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, "text/plain", "Hello, World!", 13);
}

int main(int argc, char** argv) {
    nkhttp_server_desc desc;
    nkhttp_server* server = NULL;
    char address[128];
    int err;

    memset(&desc, 0, sizeof desc);
    desc.address = argc > 1 ? argv[1] : "127.0.0.1:0";

    err = nkloop_create(&loop, NULL);
    if (err == 0) err = nkhttp_server_create(&server, loop, &desc);
    if (err == 0) err = nkhttp_route(server, "GET", "/", on_get, NULL);
    if (err == 0) err = nkhttp_route(server, "GET", "/{path*}", on_get, NULL);
    if (err < 0) {
        fprintf(stderr, "http_hello: %s: %s\n", desc.address, nkhttp_strerror(err));
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    nkhttp_server_address(server, address, sizeof address);
    printf("listening on %s\n", address);
    fflush(stdout);

    nkloop_run(loop);
    nkhttp_server_destroy(server);
    nkloop_destroy(loop);
    return 0;
}
