// netkit_http.h in fixed memory: loop and server live in one block of the program's, and once they are made nobody calls malloc.
// Hundreds of requests of every kind; then more than the block can hold, which is answered or cut, and forgotten. POSIX only.
#define _GNU_SOURCE 1
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
static int forbidden; // 1: malloc and its kin end the program
static long asked;
static void asking(void) { if (__atomic_load_n(&forbidden, __ATOMIC_RELAXED)) asked++; }
// Everything the headers could call by name; the C library's own use is not theirs.
static void* fixed_malloc(size_t n) { asking(); return (malloc)(n); }
__attribute__((unused)) static void* fixed_calloc(size_t n, size_t m) { asking(); return (calloc)(n, m); }
static void* fixed_realloc(void* p, size_t n) { asking(); return (realloc)(p, n); }
static void fixed_free(void* p) { asking(); (free)(p); }
#if defined(__linux__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// And what the whole process calls, where the C library lets itself be asked.
extern void* __libc_malloc(size_t n);
extern void* __libc_calloc(size_t n, size_t m);
extern void* __libc_realloc(void* p, size_t n);
extern void __libc_free(void* p);
void* malloc(size_t n) { asking(); return __libc_malloc(n); }
void* calloc(size_t n, size_t m) { asking(); return __libc_calloc(n, m); }
void* realloc(void* p, size_t n) { asking(); return __libc_realloc(p, n); }
void free(void* p) { __libc_free(p); }
#endif
#define malloc fixed_malloc
#define calloc fixed_calloc
#define realloc fixed_realloc
#define free fixed_free
#include "http_kit.h"

static char block[3 * 1024 * 1024];
static char body[100 * 1024];
static char heard[400 * 1024];
static size_t heard_len;

static void on_hello(void* user, nkhttp_req* req) { (void)user; nkhttp_reply_text(req, 200, "hello\n"); }
static void on_echo(void* user, nkhttp_req* req) { (void)user; nkhttp_reply(req, 200, NULL, req->body, req->body_bytes); }
static void on_static(void* user, nkhttp_req* req) {
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    d.body = body;
    d.body_bytes = sizeof body;
    d.release_fn = (void (*)(void*))user;
    nkhttp_reply_with(req, &d);
}
static int released;
static void on_release(void* user) { (void)user; released++; }
static nkhttp_handle held[512];
static int num_held;
static void on_hold(void* user, nkhttp_req* req) { (void)user; held[num_held++ % 512] = nkhttp_defer(req); }

static void open_fixed(kit* k, size_t bytes) {
    nkloop_desc ld;
    nkhttp_server_desc d;
    nkhttp_embedded file = { "a.txt", "embedded\n", 9, NULL, 0 };
    static nkhttp_embedded kept;
    nkhttp_files_desc fd;
    kept = file;
    memset(&ld, 0, sizeof ld);
    memset(&d, 0, sizeof d);
    memset(&fd, 0, sizeof fd);
    ld.memory = block;
    ld.memory_bytes = bytes;
    d.max_body_bytes = 128 * 1024;
    fd.table = &kept;
    fd.num_embedded = 1;
    kit_open(k, &ld, &d);
    CHECK_INT(nkhttp_route(k->srv, "GET", "/hello", on_hello, NULL), 0);
    CHECK_INT(nkhttp_route(k->srv, "POST", "/echo", on_echo, NULL), 0);
    CHECK_INT(nkhttp_route(k->srv, "GET", "/static", on_static, (void*)on_release), 0);
    CHECK_INT(nkhttp_route(k->srv, "GET", "/hold", on_hold, NULL), 0);
    CHECK_INT(nkhttp_serve_files(k->srv, "/files/", &fd), 0);
}
// As client_talk, without a heap: what came is in heard. 1: the connection ended in time.
static int talk(kit* k, const char* said, const void* more, size_t n) {
    double end = kit_seconds() + 20;
    size_t at = 0, first = strlen(said);
    int fd = kit_dial_from(k, 0);
    ssize_t r;
    heard_len = 0;
    while (kit_seconds() < end) {
        const char* p = at < first ? said + at : (const char*)more + (at - first);
        size_t left = at < first ? first - at : first + n - at;
        r = left ? send(fd, p, left, MSG_NOSIGNAL) : 0;
        if (r > 0) at += (size_t)r;
        r = recv(fd, heard + heard_len, sizeof heard - 1 - heard_len, 0);
        if (r > 0) heard_len += (size_t)r;
        if (r == 0 || (r < 0 && errno != EAGAIN)) { close(fd); heard[heard_len] = 0; kit_turns(k, 2); return 1; }
        nkloop_wait(k->L, r > 0 ? 0 : 1);
    }
    close(fd);
    return 0;
}
static int says(const char* text) { return strstr(heard, text) != NULL; }
#define P GET_("/hello", "")

TEST(hundreds_of_requests_without_malloc) {
    kit k;
    int i, rounds = kit_slow() ? 10 : 60;
    memset(body, 'b', sizeof body);
    open_fixed(&k, sizeof block);
    asked = 0;
    released = 0;
    forbidden = 1;
    for (i = 0; i < rounds; i++) {
        int ok = talk(&k, P P P P P P P P P P P P P P P GET_("/hello", CLOSE_), "", 0) && says("hello\n");
        ok = ok && talk(&k, POST_("/echo", "Content-Length: 102400\r\n" CLOSE_, ""), body, sizeof body) && heard_len > sizeof body;
        ok = ok && talk(&k, GET_("/static", CLOSE_), "", 0) && heard_len > sizeof body;
        ok = ok && talk(&k, GET_("/files/a.txt", CLOSE_), "", 0) && says("\r\n\r\nembedded\n");
        ok = ok && talk(&k, POST_("/echo", "Transfer-Encoding: chunked\r\n" CLOSE_, "5\r\nabcde\r\n0\r\n\r\n"), "", 0) && says("\r\n\r\nabcde");
        if (!ok) { CHECK(ok); break; }
    }
    forbidden = 0;
    CHECK_INT(asked, 0);
    CHECK_INT(i, rounds);
    CHECK_INT(released, rounds);
    nkhttp_server_destroy(k.srv);
    nkloop_destroy(k.L);
}

static void answer_held(kit* k) {
    int i;
    for (i = 0; i < num_held && i < 512; i++) nkhttp_later_text(k->srv, held[i], 200, "held\n");
}
TEST(more_than_the_block_holds) { // is answered 503 or cut; afterwards all is as before
    enum { CLIENTS = 80 };
    kit k;
    int fd[CLIENTS], i, round, said_503 = 0, cut_off = 0, waiting;
    nkhttp_stats st;
    open_fixed(&k, 600 * 1024);
    asked = 0;
    forbidden = 1;
    for (round = 0; round < 3; round++) {
        num_held = waiting = 0;
        for (i = 0; i < CLIENTS; i++) {
            char head[512];
            int n = snprintf(head, sizeof head, GET_("/hold", "") POST_("/echo", "Content-Length: 100000\r\n", ""));
            fd[i] = kit_dial_from(&k, 0);
            CHECK(fd[i] >= 0 && send(fd[i], head, (size_t)n, MSG_NOSIGNAL) == n);
            kit_turns(&k, 2);
            if (send(fd[i], body, 60000, MSG_NOSIGNAL) < 0) CHECK(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
            kit_turns(&k, 2);
        }
        answer_held(&k);
        kit_turns(&k, 10);
        for (i = 0; i < CLIENTS; i++) {
            ssize_t n = recv(fd[i], heard, sizeof heard - 1, 0);
            heard[n > 0 ? n : 0] = 0;
            if (n > 0 && says("HTTP/1.1 503 ")) said_503++;
            else if (n == 0 || (n < 0 && errno != EAGAIN)) cut_off++;
            else waiting++;
            close(fd[i]);
        }
        CHECK(said_503 + cut_off > 0);
        UNTIL(&k, (answer_held(&k), nkhttp_get_stats(k.srv, &st), st.open_connections == 0));
        CHECK_INT(st.buffered_bytes, 0);
        CHECK(talk(&k, GET_("/hello", CLOSE_), "", 0) && says("\r\n\r\nhello\n"));
        CHECK(talk(&k, POST_("/echo", "Content-Length: 10000\r\n" CLOSE_, ""), body, 10000) && heard_len > 10000);
    }
    forbidden = 0;
    CHECK_INT(asked, 0);
    nkhttp_server_destroy(k.srv);
    nkloop_destroy(k.L);
}

TEST(blocks_too_small) { // fail cleanly, whatever their size
    size_t bytes;
    int made = 0, refused = 0;
    for (bytes = 0; bytes < 400 * 1024; bytes += 1 + bytes / 13) {
        nkloop_desc ld;
        kit k;
        memset(&ld, 0, sizeof ld);
        ld.memory = block;
        ld.memory_bytes = bytes;
        if (kit_try_open(&k, &ld, NULL) < 0) { refused++; continue; }
        made++;
        talk(&k, GET_("/", CLOSE_), "", 0); // answered or cut, never a crash
        nkhttp_server_destroy(k.srv);
        nkloop_destroy(k.L);
    }
    CHECK(made > 0 && refused > 0);
}
