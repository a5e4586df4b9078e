/*  http_echo.c -- any method on any path: 200 with the body of the request, however it was framed.

    cc -O2 -I. examples/http_echo.c -o build/http_echo -lpthread
    build/http_echo 127.0.0.1:8080 --workers 3
    curl -d hello http://127.0.0.1:8080/

    With --workers the handler runs on a pool of threads; replies keep the order of the requests all the same.
*/
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nkloop* loop;

static void on_signal(int number) {
    (void)number;
    nkloop_stop(loop); // the one call that a signal handler may make
}

static void on_request(void* user, nkhttp_req* req) {
    nkhttp_str type = nkhttp_header_value(req, "Content-Type");
    char text[128] = "application/octet-stream";
    (void)user;
    if (type.len > 0 && type.len < sizeof text) {
        memcpy(text, type.ptr, type.len);
        text[type.len] = 0;
    }
    nkhttp_reply(req, 200, text, req->body, req->body_bytes);
}

int main(int argc, char** argv) {
    nkhttp_server_desc desc;
    nkhttp_server* server = NULL;
    char address[128];
    int err;

    memset(&desc, 0, sizeof desc);
    desc.address = argc > 1 ? argv[1] : "127.0.0.1:0";
    desc.on_request = on_request;
    desc.max_body_bytes = 64u * 1024 * 1024;
    desc.max_buffered_bytes = 512u * 1024 * 1024; // of all clients together
    if (argc > 3 && strcmp(argv[2], "--workers") == 0) desc.workers = (uint32_t)atoi(argv[3]);

    err = nkloop_create(&loop, NULL);
    if (err == 0) err = nkhttp_server_create(&server, loop, &desc);
    if (err < 0) {
        fprintf(stderr, "http_echo: %s: %s\n", desc.address, nkhttp_strerror(err));
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
