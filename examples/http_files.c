// http_files.c -- a directory on the web: index pages, listings, ranges, conditional requests, FILE.gz in place of FILE.
//
//   cc -O2 -I. examples/http_files.c -o build/http_files -lpthread
//   build/http_files 127.0.0.1:8080 /some/directory
//   curl -i http://127.0.0.1:8080/            a listing, or index.html
//   curl -r 0-99 http://127.0.0.1:8080/FILE   the first hundred bytes
//
// Nothing outside the directory can be reached; names that begin with a dot and symbolic links are not served.
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include <signal.h>
#include <stdio.h>

static nkloop* loop;
static void on_signal(int sig) { (void)sig; nkloop_stop(loop); }

int main(int argc, char** argv) {
    nkhttp_server* server = NULL;
    nkhttp_server_desc desc = {0};
    nkhttp_files_desc files = {0};
    char address[128];
    int err;

    if (argc != 3) {
        fprintf(stderr, "usage: http_files ADDR ROOT\n");
        return 2;
    }
    desc.address = argv[1];
    files.root = argv[2];
    files.list_directories = 1;

    err = nkloop_create(&loop, NULL);
    if (!err) err = nkhttp_server_create(&server, loop, &desc);
    if (!err) err = nkhttp_serve_files(server, "/", &files);
    if (err) {
        fprintf(stderr, "http_files: %s\n", nkhttp_strerror(err));
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
