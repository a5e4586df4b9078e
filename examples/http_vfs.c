// http_vfs.c -- files that are not on disk: a table compiled into the program, and a file system of callbacks.
//
//   cc -O2 -I. examples/http_vfs.c -o build/http_vfs -lpthread
//   build/http_vfs 127.0.0.1:8080
//   curl -i http://127.0.0.1:8080/                          from the table
//   curl -r -27 http://127.0.0.1:8080/made/alphabet.txt     the end of a file of a gigabyte that is nowhere
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

// -- a table: paths without a leading slash, any order
static const char page[] =
    "<!DOCTYPE html><link rel=stylesheet href=css/site.css>"
    "<p>This page is part of the program. <a href=made/>These files</a> are made up as they are read.\n";
static const char style[] = "body { font: 1.2em sans-serif }\n";
static const nkhttp_embedded table[] = {
    { "index.html",   page,  sizeof page - 1,  NULL, 0 }, // no ETag given: one is made of the content
    { "css/site.css", style, sizeof style - 1, NULL, 0 },
};

// -- callbacks: one file of any size, its bytes computed
static int made_open(void* user, const char* path, nkhttp_file* out) {
    (void)user;
    if (strcmp(path, "") == 0) {
        out->is_directory = 1;
        return 0;
    }
    if (strcmp(path, "alphabet.txt") != 0) return NKHTTP_ERR_NOT_FOUND;
    out->size = 1u << 30;
    out->mtime = 1700000000; // with size, enough to make an ETag
    return 0;
}

// Called as fast as the client reads, never faster.
static int made_read(void* user, nkhttp_file* f, uint64_t offset, void* out, size_t n) {
    char* p = (char*)out;
    size_t i;
    (void)user; (void)f;
    for (i = 0; i < n; i++) p[i] = "abcdefghijklmnopqrstuvwxyz\n"[(offset + i) % 27];
    return (int)n;
}

static int made_list(void* user, const char* path, void (*entry)(void*, const char*, int, uint64_t, int64_t), void* sink) {
    (void)user; (void)path;
    entry(sink, "alphabet.txt", 0, 1u << 30, 1700000000);
    return 0;
}

static nkloop* loop;
static void on_signal(int sig) { (void)sig; nkloop_stop(loop); }

int main(int argc, char** argv) {
    nkhttp_vfs vfs = { made_open, made_read, NULL, made_list }; // nothing to close
    nkhttp_server* server = NULL;
    nkhttp_server_desc desc = {0};
    nkhttp_files_desc embedded = {0}, made = {0};
    char address[128];
    int err;

    desc.address = argc > 1 ? argv[1] : "127.0.0.1:0";
    embedded.table = table;
    embedded.num_embedded = sizeof table / sizeof table[0];
    made.vfs = &vfs;
    made.list_directories = 1;

    err = nkloop_create(&loop, NULL);
    if (!err) err = nkhttp_server_create(&server, loop, &desc);
    if (!err) err = nkhttp_serve_files(server, "/", &embedded);
    if (!err) err = nkhttp_serve_files(server, "/made/", &made); // longer prefixes win
    if (err) {
        fprintf(stderr, "http_vfs: %s\n", nkhttp_strerror(err));
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
