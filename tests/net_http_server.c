// The HTTP server over real sockets: the loop is pumped by the test, clients are plain sockets. POSIX only.
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include "nktest.h"
#include <pthread.h>
#include <time.h>

// -- a server, a client ------------------------------------------------------------------------
typedef struct fixture { nkloop* L; nkhttp_server* srv; int port; } fixture;
static char out[8 * 1024 * 1024]; // what the client got
static size_t out_len;

static double seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static nkloop* loop_open(void) {
    nkloop_desc d;
    nkloop* L = NULL;
    const char* backend = getenv("NKTEST_BACKEND");
    memset(&d, 0, sizeof d);
    d.linger_ms = 300;
    if (backend && strcmp(backend, "poll") == 0) d.backend = NKLOOP_BACKEND_POLL;
    if (backend && strcmp(backend, "epoll") == 0) d.backend = NKLOOP_BACKEND_EPOLL;
    CHECK_INT(nkloop_create(&L, &d), 0);
    return L;
}

static int server_port(nkhttp_server* srv) {
    char text[64];
    if (nkhttp_server_address(srv, text, sizeof text) < 0) return 0;
    return atoi(strrchr(text, ':') + 1);
}

static void fx_open(fixture* f, const nkhttp_server_desc* desc) {
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    d.address = "127.0.0.1:0";
    d.disable_date = 1;
    f->L = loop_open();
    CHECK_INT(nkhttp_server_create(&f->srv, f->L, &d), 0);
    f->port = server_port(f->srv);
    out_len = 0;
}

static void fx_close(fixture* f) {
    nkhttp_server_destroy(f->srv);
    nkloop_destroy(f->L);
}

static void pump(fixture* f, int turns) { while (turns-- > 0) nkloop_wait(f->L, 0); }

static int dial(fixture* f) {
    struct sockaddr_in a;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)f->port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); // what a test sends arrives at once
    CHECK_INT(connect(fd, (struct sockaddr*)&a, sizeof a), 0);
    pump(f, 2);
    return fd;
}

// Sends everything, pumping whenever the socket is full. 0, or -1 when the server has gone.
static int put(fixture* f, int fd, const void* bytes, size_t n) {
    const char* p = (const char*)bytes;
    double end = seconds() + 20;
    while (n > 0 && seconds() < end) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return -1;
        if (k > 0) { p += k; n -= (size_t)k; }
        nkloop_wait(f->L, k > 0 ? 0 : 1);
    }
    return n == 0 ? 0 : -1;
}

static int has(const char* text) {
    out[out_len] = 0;
    return strstr(out, text) != NULL;
}

// Receives until the text has come (NULL: until the server closes). 1: it has; 0: closed before, or too late.
static int get(fixture* f, int fd, const char* until) {
    double end = seconds() + 20;
    while (seconds() < end) {
        ssize_t k = recv(fd, out + out_len, sizeof out - 1 - out_len, MSG_DONTWAIT);
        if (k > 0) out_len += (size_t)k;
        if (until && has(until)) return 1;
        if (k == 0 || (k < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) return until == NULL;
        if (k < 0) nkloop_wait(f->L, 1);
    }
    return 0;
}

// One connection: sends, receives until the server closes, leaves the text in out.
static const char* talk(fixture* f, const char* request) {
    int fd = dial(f);
    out_len = 0;
    put(f, fd, request, strlen(request));
    CHECK(get(f, fd, NULL));
    close(fd);
    pump(f, 2);
    out[out_len] = 0;
    return out;
}

#define CLOSE_ "Connection: close\r\n"
#define GET_(path, fields) "GET " path " HTTP/1.1\r\nHost: a\r\n" fields "\r\n"
#define CHECK_TEXT(got, want) CHECK_STR(got, strlen(got), want)

// -- handlers ----------------------------------------------------------------------------------
static void on_echo(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, "text/plain", req->body, req->body_bytes);
}

static void on_path(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, NULL, req->head->path.ptr, req->head->path.len);
}

static nkhttp_handle held[64];
static int num_held;
static void on_hold(void* user, nkhttp_req* req) {
    (void)user;
    held[num_held++] = nkhttp_defer(req);
}

static void on_status(void* user, nkhttp_req* req) { nkhttp_reply(req, *(int*)user, "text/plain", "body", 4); }

// -- basics ------------------------------------------------------------------------------------
TEST(connection_is_small) { CHECK(sizeof(nkhttp_p_conn) <= 128); }

TEST(plain_replies) {
    static int s204 = 204, s304 = 304, s404 = 404;
    fixture f;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = on_path;
    d.server_name = "netkit";
    fx_open(&f, &d);
    nkhttp_route(f.srv, "GET", "/204", on_status, &s204);
    nkhttp_route(f.srv, "GET", "/304", on_status, &s304);
    nkhttp_route(f.srv, "GET", "/404", on_status, &s404);
    CHECK_TEXT(talk(&f, GET_("/x", CLOSE_)), "HTTP/1.1 200 OK\r\nServer: netkit\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/x");
    CHECK_TEXT(talk(&f, "HEAD /x HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n"),
               "HTTP/1.1 200 OK\r\nServer: netkit\r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
    CHECK_TEXT(talk(&f, GET_("/204", CLOSE_)), "HTTP/1.1 204 No Content\r\nServer: netkit\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
    CHECK_TEXT(talk(&f, GET_("/304", CLOSE_)), "HTTP/1.1 304 Not Modified\r\nServer: netkit\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
    CHECK_TEXT(talk(&f, GET_("/404", CLOSE_)),
               "HTTP/1.1 404 Not Found\r\nServer: netkit\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody");
    CHECK_TEXT(talk(&f, "GET /x HTTP/1.0\r\n\r\n"), "HTTP/1.1 200 OK\r\nServer: netkit\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/x");
    CHECK_TEXT(talk(&f, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /y HTTP/1.0\r\n\r\n"),
               "HTTP/1.1 200 OK\r\nServer: netkit\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n/x"
               "HTTP/1.1 200 OK\r\nServer: netkit\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/y");
    talk(&f, "GET /x\r\n\r\n" GET_("/y", ""));
    CHECK(has("HTTP/1.1 400 Bad Request\r\n") && has("Connection: close\r\n") && !has("/y"));
    fx_close(&f);
}

TEST(date_field) {
    nkhttp_server_desc d;
    fixture f;
    memset(&d, 0, sizeof d);
    d.address = "127.0.0.1:0";
    d.on_request = on_path;
    f.L = loop_open();
    CHECK_INT(nkhttp_server_create(&f.srv, f.L, &d), 0);
    f.port = server_port(f.srv);
    talk(&f, GET_("/", CLOSE_));
    CHECK(strncmp(out, "HTTP/1.1 200 OK\r\nDate: ", 23) == 0 && strncmp(out + 48, " GMT\r\n", 6) == 0);
    talk(&f, "BAD\r\n\r\n");
    CHECK(has("\r\nDate: ") && has("HTTP/1.1 400"));
    fx_close(&f);
}

TEST(every_split) {
    static const char* const input[] = {
        GET_("/one", CLOSE_),
        "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n" CLOSE_ "\r\nhello world",
        "POST /three HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" CLOSE_ "\r\n5;a=\"b\"\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
        GET_("/1", "") "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET_("/3", CLOSE_)
    };
    static char whole[1000];
    fixture f;
    nkhttp_server_desc d;
    size_t i, cut;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    fx_open(&f, &d);
    for (i = 0; i < 4; i++) {
        size_t n = strlen(input[i]);
        int same = 1, fd;
        strcpy(whole, talk(&f, input[i]));
        CHECK(strstr(whole, i == 3 ? "abc" : i == 0 ? "Content-Length: 0" : "hello world") != NULL);
        for (cut = 1; cut < n; cut++) {
            fd = dial(&f);
            out_len = 0;
            put(&f, fd, input[i], cut);
            pump(&f, 2);
            put(&f, fd, input[i] + cut, n - cut);
            get(&f, fd, NULL);
            close(fd);
            if (out_len != strlen(whole) || memcmp(out, whole, out_len) != 0) same = 0;
        }
        CHECK(same);
        fd = dial(&f);
        out_len = 0;
        for (cut = 0; cut < n; cut++) put(&f, fd, input[i] + cut, 1);
        get(&f, fd, NULL);
        close(fd);
        CHECK_MEM(out, whole, strlen(whole));
    }
    fx_close(&f);
}

static uint32_t seen_trailers;
static char seen_trailer[32];
static void on_trailers(void* user, nkhttp_req* req) {
    const nkhttp_header* t = nkhttp_trailers(req, &seen_trailers);
    (void)user;
    seen_trailer[0] = 0;
    if (seen_trailers > 0 && t[0].value.len < 30) { memcpy(seen_trailer, t[0].value.ptr, t[0].value.len); seen_trailer[t[0].value.len] = 0; }
    nkhttp_reply(req, 200, NULL, req->body, req->body_bytes);
}
TEST(trailers) {
    static const char half[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" CLOSE_ "\r\n3\r\nabc\r\n0\r\nX-Sum: 4";
    fixture f;
    nkhttp_server_desc d;
    int fd;
    memset(&d, 0, sizeof d);
    d.on_request = on_trailers;
    fx_open(&f, &d);
    talk(&f, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" CLOSE_ "\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\nHost: evil\r\nX-B: 2\r\n\r\n");
    CHECK_INT(seen_trailers, 2);
    CHECK_TEXT(seen_trailer, "42");
    fd = dial(&f);
    put(&f, fd, half, sizeof half - 1);
    pump(&f, 3);
    put(&f, fd, "3\r\n\r\n", 5);
    CHECK(get(&f, fd, "abc"));
    CHECK_TEXT(seen_trailer, "43");
    close(fd);
    fx_close(&f);
}

TEST(router_and_methods) {
    static int s200 = 200;
    fixture f;
    fx_open(&f, NULL);
    nkhttp_route(f.srv, "GET", "/users/{id}", on_status, &s200);
    nkhttp_route(f.srv, "POST", "/users/{id}", on_status, &s200);
    CHECK_INT(nkhttp_route(f.srv, "POST", "/users/{id}", on_status, &s200), NKHTTP_ERR_DUPLICATE);
    CHECK(strstr(talk(&f, GET_("/nope", CLOSE_)), "404 Not Found") != NULL);
    talk(&f, "PUT /users/1 HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n");
    CHECK(has("405 Method Not Allowed") && has("Allow: ") && has("HEAD") && has("POST"));
    talk(&f, "OPTIONS /users/1 HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n");
    CHECK(has("204 No Content") && has("Allow: ") && !has("Content-Length"));
    talk(&f, "OPTIONS * HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n");
    CHECK(has("204 No Content") && has("Allow: "));
    talk(&f, "HEAD /users/1 HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n");
    CHECK(has("200 OK") && has("Content-Length: 4") && !has("body"));
    talk(&f, "TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n" CLOSE_ "\r\n");
    CHECK(has("405 Method") && !has("secret"));
    talk(&f, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    CHECK(has("405 Method"));
    fx_close(&f);
}

static void on_param(void* user, nkhttp_req* req) {
    nkhttp_str id = nkhttp_param(req, "id"), none = nkhttp_param(req, "none");
    (void)user;
    CHECK(none.ptr == NULL);
    if (!id.ptr) nkhttp_reply_text(req, 400, "bad");
    else nkhttp_reply(req, 200, NULL, id.ptr, id.len);
}
TEST(parameters) {
    fixture f;
    fx_open(&f, NULL);
    nkhttp_route(f.srv, "GET", "/p/{id}", on_param, NULL);
    CHECK(strstr(talk(&f, GET_("/p/a%2Fb%20c+d", CLOSE_)), "\r\n\r\na/b c+d") != NULL);
    CHECK(strstr(talk(&f, GET_("/p/plain", CLOSE_)), "\r\n\r\nplain") != NULL);
    fx_close(&f);
}

// -- answering ---------------------------------------------------------------------------------
static void on_forget(void* user, nkhttp_req* req) { (void)user; (void)req; }
static void on_twice(void* user, nkhttp_req* req) {
    (void)user;
    CHECK_INT(nkhttp_reply_text(req, 200, "first"), 0);
    CHECK_INT(nkhttp_reply_text(req, 200, "second"), NKHTTP_ERR_REPLIED);
    CHECK_INT(nkhttp_set_header(req, "X", "y"), NKHTTP_ERR_REPLIED);
    CHECK_INT((int)nkhttp_defer(req).id, 0);
}
static void on_inject(void* user, nkhttp_req* req) {
    nkhttp_header bad = { { "X-A", 3 }, { "a\r\nB: c", 7 } };
    nkhttp_reply_desc d;
    (void)user;
    CHECK_INT(nkhttp_set_header(req, "X-A", "a\r\nSet-Cookie: b"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_set_header(req, "X-A", "a\nb"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_set_header(req, "X A", "a"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_set_header(req, "Content-Length", "7"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_set_header(req, "Transfer-Encoding", "chunked"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_set_header(req, "Connection", "keep-alive"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_redirect(req, 302, "/a\r\nX: y"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_reply(req, 200, "text/plain\r\nX: y", "", 0), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_reply(req, 100, NULL, "", 0), NKLOOP_ERR_INVAL);
    memset(&d, 0, sizeof d);
    d.headers = &bad;
    d.num_headers = 1;
    CHECK_INT(nkhttp_reply_with(req, &d), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_set_header(req, "Set-Cookie", "a=1"), 0);
    CHECK_INT(nkhttp_set_header(req, "Set-Cookie", "b=2"), 0);
    CHECK_INT(nkhttp_set_header(req, "Connection", "close"), 0);
    CHECK_INT(nkhttp_set_header(req, "Date", "never"), 0);
    CHECK_INT(nkhttp_reply_text(req, 200, "ok"), 0);
}
static void on_auth(void* user, nkhttp_req* req) {
    (void)user;
    if (nkhttp_require_basic_auth(req, "here", "me", "secret")) nkhttp_redirect(req, 303, "/in");
}
TEST(handlers_that_err) {
    fixture f;
    fx_open(&f, NULL);
    nkhttp_route(f.srv, "GET", "/forget", on_forget, NULL);
    nkhttp_route(f.srv, "GET", "/twice", on_twice, NULL);
    nkhttp_route(f.srv, "GET", "/inject", on_inject, NULL);
    nkhttp_route(f.srv, "GET", "/auth", on_auth, NULL);
    CHECK(strstr(talk(&f, GET_("/forget", CLOSE_)), "500 Internal Server Error") != NULL);
    talk(&f, GET_("/twice", CLOSE_));
    CHECK(has("first") && !has("second"));
    CHECK_TEXT(talk(&f, GET_("/inject", "")), "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nSet-Cookie: a=1\r\n"
               "Set-Cookie: b=2\r\nDate: never\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    talk(&f, GET_("/auth", CLOSE_));
    CHECK(has("401 Unauthorized") && has("WWW-Authenticate: Basic realm=\"here\""));
    talk(&f, GET_("/auth", CLOSE_ "Authorization: Basic bWU6c2VjcmV0\r\n"));
    CHECK(has("303 See Other") && has("Location: /in\r\n"));
    talk(&f, GET_("/auth", CLOSE_ "Authorization: Basic bWU6c2VjcmVz\r\n"));
    CHECK(has("401 Unauthorized"));
    fx_close(&f);
}

static int num_released;
static void on_release(void* user) { (void)user; num_released++; }
static char big[3 * 1024 * 1024];
static void on_big(void* user, nkhttp_req* req) {
    nkhttp_reply_desc d;
    (void)user;
    memset(&d, 0, sizeof d);
    d.body = big;
    d.body_bytes = req->head->path.len > 4 ? 10 : sizeof big;
    d.release_fn = on_release;
    nkhttp_reply_with(req, &d);
}
TEST(bodies_without_a_copy) {
    fixture f;
    nkhttp_server_desc d;
    nkhttp_reply_desc r;
    nkhttp_handle none = { 77 };
    memset(&d, 0, sizeof d);
    d.on_request = on_big;
    fx_open(&f, &d);
    memset(big, 'b', sizeof big);
    num_released = 0;
    talk(&f, GET_("/big", "") GET_("/big", "") "HEAD /big HTTP/1.1\r\nHost: a\r\n\r\n" GET_("/small", CLOSE_));
    CHECK(out_len > 2 * sizeof big && out_len < 2 * sizeof big + 1000);
    CHECK_MEM(out + out_len - 10, "bbbbbbbbbb", 10);
    CHECK_INT(num_released, 4);
    memset(&r, 0, sizeof r);
    r.release_fn = on_release;
    CHECK_INT(nkhttp_later_reply(f.srv, none, &r), NKHTTP_ERR_STALE);
    CHECK_INT(num_released, 5);
    fx_close(&f);
}

// -- later -------------------------------------------------------------------------------------
TEST(deferred_out_of_order) {
    fixture f;
    nkhttp_server_desc d;
    int fd, i;
    char text[16];
    memset(&d, 0, sizeof d);
    d.on_request = on_hold;
    fx_open(&f, &d);
    nkhttp_route(f.srv, "GET", "/now", on_path, NULL);
    num_held = 0;
    fd = dial(&f);
    put(&f, fd, GET_("/a", "") GET_("/b", "") GET_("/now", "") GET_("/c", CLOSE_), strlen(GET_("/a", "") GET_("/b", "") GET_("/now", "") GET_("/c", CLOSE_)));
    pump(&f, 5);
    CHECK_INT(num_held, 3);
    for (i = 2; i >= 0; i--) {
        snprintf(text, sizeof text, "<%d>", i % 10);
        CHECK_INT(nkhttp_later_text(f.srv, held[i], 200, text), 0);
        CHECK_INT(nkhttp_later_text(f.srv, held[i], 200, text), i == 0 ? NKHTTP_ERR_STALE : NKHTTP_ERR_REPLIED);
        pump(&f, 2);
    }
    CHECK(get(&f, fd, NULL));
    CHECK(has("<0>") && strstr(out, "<0>") < strstr(out, "<1>") && strstr(out, "<1>") < strstr(out, "/now") && strstr(out, "/now") < strstr(out, "<2>"));
    close(fd);
    for (i = 0; i < 3; i++) CHECK_INT(nkhttp_later_text(f.srv, held[i], 200, "x"), NKHTTP_ERR_STALE);
    fx_close(&f);
}

TEST(client_vanishes) {
    static const char request[] = GET_("/a", "") "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    fixture f;
    nkhttp_server_desc d;
    size_t cut;
    int i;
    nkhttp_stats st;
    memset(&d, 0, sizeof d);
    d.on_request = on_hold;
    fx_open(&f, &d);
    for (cut = 1; cut <= sizeof request - 1; cut++) {
        struct linger hard = { 1, 0 };
        int fd = dial(&f);
        num_held = 0;
        put(&f, fd, request, cut);
        pump(&f, 2);
        if (cut % 2) setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        else shutdown(fd, SHUT_RDWR);
        close(fd);
        pump(&f, 4);
        for (i = 0; i < num_held; i++) {
            int r = nkhttp_later_text(f.srv, held[i], 200, "too late");
            if (r != NKHTTP_ERR_STALE && r != 0) CHECK_INT(r, 0);
            CHECK_INT(nkhttp_later_text(f.srv, held[i], 200, "x") < 0, 1);
        }
        pump(&f, 4);
    }
    for (i = 0; i < 400; i++) { nkloop_wait(f.L, 1); nkhttp_get_stats(f.srv, &st); if (!st.open_connections) break; }
    CHECK_INT(st.open_connections, 0);
    CHECK_INT(st.open_requests, 0);
    CHECK_INT(st.buffered_bytes, 0);
    fx_close(&f);
}

typedef struct answer { nkhttp_server* srv; nkhttp_handle h; int n; } answer;
static void* answer_thread(void* user) {
    answer* a = (answer*)user;
    nkhttp_reply_desc d;
    nkhttp_header field = { { "X-From", 6 }, { "thread", 6 } };
    char text[16];
    int i;
    memset(&d, 0, sizeof d);
    d.headers = &field;
    d.num_headers = 1;
    d.content_type = "text/plain";
    CHECK(nkhttp_later_begin(a->srv, a->h, &d, UINT64_MAX) == 0);
    for (i = 0; i < a->n; i++) {
        snprintf(text, sizeof text, "line %d\n", i % 1000);
        nkhttp_later_write(a->srv, a->h, text, strlen(text));
    }
    nkhttp_later_end(a->srv, a->h, NULL, 0);
    nkhttp_later_text(a->srv, a->h, 200, "late"); // stale by then: harmless
    return NULL;
}
TEST(answers_from_another_thread) {
    fixture f;
    nkhttp_server_desc d;
    pthread_t t;
    answer a;
    int fd;
    memset(&d, 0, sizeof d);
    d.on_request = on_hold;
    fx_open(&f, &d);
    num_held = 0;
    fd = dial(&f);
    put(&f, fd, GET_("/", CLOSE_), strlen(GET_("/", CLOSE_)));
    pump(&f, 3);
    a.srv = f.srv;
    a.h = held[0];
    a.n = 50;
    pthread_create(&t, NULL, answer_thread, &a);
    CHECK(get(&f, fd, NULL));
    pthread_join(t, NULL);
    CHECK(has("X-From: thread\r\n") && has("7\r\nline 0\n\r\n") && has("8\r\nline 49\n\r\n0\r\n\r\n"));
    close(fd);
    fx_close(&f);
}

static void on_stream_reply(void* user, nkhttp_req* req) {
    nkhttp_server* srv = req->server;
    nkhttp_handle h = nkhttp_defer(req);
    nkhttp_header sum = { { "X-Sum", 5 }, { "9", 1 } };
    nkhttp_reply_desc d;
    uint64_t length = *(uint64_t*)user;
    memset(&d, 0, sizeof d);
    d.content_type = "text/x";
    d.body = "<";
    d.body_bytes = 1;
    CHECK_INT(nkhttp_later_begin(srv, h, &d, length), 0);
    CHECK_INT(nkhttp_later_begin(srv, h, &d, length), NKHTTP_ERR_REPLIED);
    CHECK_INT(nkhttp_later_write(srv, h, "abc", 3), 0);
    CHECK_INT(nkhttp_later_write(srv, h, "", 0), 0);
    if (length == 4 || length == UINT64_MAX) CHECK_INT(nkhttp_later_end(srv, h, &sum, 1), 0);
    else CHECK_INT(nkhttp_later_end(srv, h, NULL, 0), NKHTTP_ERR_LENGTH);
}
TEST(streamed_replies) {
    static uint64_t open_end = UINT64_MAX, four = 4, nine = 9;
    fixture f;
    fx_open(&f, NULL);
    nkhttp_route(f.srv, "GET", "/open", on_stream_reply, &open_end);
    nkhttp_route(f.srv, "GET", "/four", on_stream_reply, &four);
    nkhttp_route(f.srv, "GET", "/nine", on_stream_reply, &nine);
    CHECK_TEXT(talk(&f, GET_("/open", CLOSE_)), "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
               "1\r\n<\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n");
    CHECK_TEXT(talk(&f, "GET /open HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nConnection: close\r\n\r\n<abc");
    CHECK_TEXT(talk(&f, GET_("/four", CLOSE_)), "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<abc");
    CHECK_TEXT(talk(&f, "HEAD /open HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n"),
               "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    talk(&f, GET_("/nine", "")); // the length was not kept: the connection ends
    CHECK(!has("0\r\n\r\n"));
    fx_close(&f);
}

typedef struct faucet { nkhttp_server* srv; size_t left; int full, gone, why; } faucet;
static void faucet_run(void* user, nkhttp_handle h) {
    static char block[10000];
    faucet* t = (faucet*)user;
    while (t->left > 0) {
        int r = nkhttp_later_write(t->srv, h, block, sizeof block);
        if (r == NKHTTP_ERR_FULL) { t->full++; return; }
        if (r < 0) return;
        t->left--;
    }
    nkhttp_later_end(t->srv, h, NULL, 0);
}
static void faucet_gone(void* user, nkhttp_handle h, int why) {
    faucet* t = (faucet*)user;
    CHECK_INT(nkhttp_later_write(t->srv, h, "x", 1), NKHTTP_ERR_STALE);
    t->gone++;
    t->why = why;
}
static void on_faucet(void* user, nkhttp_req* req) {
    faucet* t = (faucet*)user;
    nkhttp_handle h = nkhttp_defer(req);
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    t->srv = req->server;
    nkhttp_later_watch(req->server, h, faucet_run, faucet_gone, t);
    nkhttp_later_begin(req->server, h, &d, (uint64_t)t->left * 10000);
    faucet_run(t, h);
}
TEST(backpressure) {
    fixture f;
    faucet t = { NULL, 500, 0, 0, 0 };
    int fd;
    fx_open(&f, NULL);
    nkhttp_route(f.srv, "GET", "/", on_faucet, &t);
    fd = dial(&f);
    put(&f, fd, GET_("/", CLOSE_), strlen(GET_("/", CLOSE_)));
    pump(&f, 50);
    CHECK(t.full > 0 && t.left > 0); // nobody read: it had to stop
    CHECK(get(&f, fd, NULL));
    CHECK(out_len > 5000000 && out_len < 5000200);
    CHECK_INT(t.gone, 1);
    CHECK_INT(t.why, 0);
    close(fd);
    t.left = 500;
    fd = dial(&f);
    put(&f, fd, GET_("/", ""), strlen(GET_("/", "")));
    pump(&f, 10);
    close(fd); // in the middle
    while (t.gone < 2) nkloop_wait(f.L, 1);
    CHECK(t.why < 0);
    fx_close(&f);
}

static void on_sse(void* user, nkhttp_req* req) {
    nkhttp_handle h = nkhttp_sse_begin(req);
    (void)user;
    CHECK_INT(nkhttp_sse_send(req->server, h, "tick", "7", "one\ntwo\r\nthree"), 0);
    CHECK_INT(nkhttp_sse_send(req->server, h, "a\nb", NULL, "x"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_sse_send(req->server, h, NULL, NULL, "plain"), 0);
    held[num_held++] = h;
}
TEST(server_sent_events) {
    fixture f;
    int fd;
    fx_open(&f, NULL);
    nkhttp_route(f.srv, "GET", "/events", on_sse, NULL);
    num_held = 0;
    fd = dial(&f);
    put(&f, fd, GET_("/events", ""), strlen(GET_("/events", "")));
    CHECK(get(&f, fd, "data: plain\n\n"));
    CHECK(has("Content-Type: text/event-stream\r\n") && has("Cache-Control: no-cache\r\n"));
    CHECK(has("event: tick\nid: 7\ndata: one\ndata: two\ndata: three\n\n"));
    CHECK_INT(nkhttp_sse_send(f.srv, held[0], NULL, NULL, "later"), 0);
    CHECK(get(&f, fd, "data: later\n\n"));
    CHECK_INT(nkhttp_later_end(f.srv, held[0], NULL, 0), 0);
    CHECK(get(&f, fd, "0\r\n\r\n"));
    close(fd);
    fx_close(&f);
}

TEST(pipeline_limit) {
    static const char request[] = GET_("/x", "");
    fixture f;
    nkhttp_server_desc d;
    int fd, i;
    memset(&d, 0, sizeof d);
    d.on_request = on_hold;
    d.max_pipeline = 4;
    fx_open(&f, &d);
    num_held = 0;
    fd = dial(&f);
    for (i = 0; i < 40; i++) put(&f, fd, request, sizeof request - 1);
    pump(&f, 5);
    CHECK_INT(num_held, 4);
    for (i = 0; i < 40; i++) {
        CHECK_INT(nkhttp_later_text(f.srv, held[i], 200, "ok"), 0);
        pump(&f, 3);
        CHECK(num_held <= i + 5);
    }
    CHECK_INT(num_held, 40);
    close(fd);
    fx_close(&f);
}

// -- bodies ------------------------------------------------------------------------------------
typedef struct sink { uint64_t bytes; int begun, ended, done, why, refuse, pause_at, fail; nkhttp_handle h; nkhttp_server* srv; } sink;
static void sink_begin(void* user, nkhttp_req* req) {
    sink* s = (sink*)user;
    s->begun++;
    s->srv = req->server;
    s->h = nkhttp_handle_of(req);
    req->request_user = s;
    if (s->refuse) nkhttp_reply_text(req, s->refuse, "refused");
}
static int sink_body(void* user, nkhttp_req* req, const uint8_t* bytes, size_t n) {
    sink* s = (sink*)user;
    (void)bytes;
    CHECK(req->request_user == s);
    s->bytes += n;
    if (s->fail) return -1;
    if (s->pause_at && s->bytes >= (uint64_t)s->pause_at) { s->pause_at = 0; nkhttp_pause_body(s->srv, s->h, 1); }
    return 0;
}
static void sink_request(void* user, nkhttp_req* req) {
    sink* s = (sink*)user;
    char text[40];
    snprintf(text, sizeof text, "got %lu", (unsigned long)s->bytes);
    s->done++;
    nkhttp_reply_text(req, 200, text);
}
static void sink_end(void* user, nkhttp_req* req, int why) {
    sink* s = (sink*)user;
    CHECK(req->head == NULL && req->request_user == s);
    s->ended++;
    s->why = why;
}
static void sink_route(fixture* f, sink* s) {
    nkhttp_route_desc r;
    memset(&r, 0, sizeof r);
    memset(s, 0, sizeof *s);
    r.method = "POST";
    r.pattern = "/sink";
    r.on_begin = sink_begin;
    r.on_body = sink_body;
    r.on_request = sink_request;
    r.on_end = sink_end;
    r.user = s;
    r.max_body_bytes = UINT64_MAX;
    CHECK_INT(nkhttp_route_add(f->srv, &r), 0);
}
TEST(streamed_upload) {
    static const char head[] = "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n";
    fixture f;
    sink s;
    int fd, i;
    fx_open(&f, NULL);
    sink_route(&f, &s);
    s.pause_at = 1000;
    fd = dial(&f);
    put(&f, fd, head, sizeof head - 1);
    for (i = 0; i < 200 && s.pause_at == 0; i++) {}
    send(fd, big, 200000, MSG_NOSIGNAL | MSG_DONTWAIT);
    pump(&f, 30);
    CHECK(s.bytes >= 1000 && s.bytes <= 200000);
    {
        uint64_t stopped = s.bytes;
        pump(&f, 30);
        CHECK_INT(s.bytes, stopped); // paused: nothing comes
    }
    CHECK_INT(nkhttp_pause_body(f.srv, s.h, 0), 0);
    for (i = 0; i < 1000 && s.bytes < 100; i++) nkloop_wait(f.L, 1);
    pump(&f, 20);
    put(&f, fd, big, (size_t)(3000000 - 200000));
    put(&f, fd, GET_("/none", CLOSE_), strlen(GET_("/none", CLOSE_)));
    CHECK(get(&f, fd, NULL));
    CHECK(has("got 3000000") && has("404 Not Found"));
    CHECK(s.begun == 1 && s.done == 1 && s.ended == 1 && s.why == 0);
    close(fd);
    talk(&f, "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" CLOSE_ "\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n");
    CHECK(has("got 3000010") && s.ended == 2);
    s.fail = 1;
    talk(&f, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" GET_("/none", ""));
    CHECK(has("500 Internal") && !has("404") && s.ended == 3);
    s.fail = 0;
    fd = dial(&f);
    put(&f, fd, head, sizeof head - 1);
    put(&f, fd, "abc", 3);
    close(fd); // in the middle of the body
    while (s.ended < 4) nkloop_wait(f.L, 1);
    CHECK(s.why < 0 && s.done == 2);
    fx_close(&f);
}

typedef struct uploader { int port; size_t bytes; char reply[2000]; size_t got; } uploader;
static void* upload_thread(void* user) {
    uploader* u = (uploader*)user;
    struct sockaddr_in a;
    struct timeval limit = { 5, 0 };
    char head[200];
    size_t sent = 0;
    ssize_t k;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)u->port);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr*)&a, sizeof a) != 0) return NULL;
    snprintf(head, sizeof head, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: %lu\r\n\r\n", (unsigned long)u->bytes);
    k = send(fd, head, strlen(head), MSG_NOSIGNAL);
    while (k > 0 && sent < u->bytes) {
        k = send(fd, big, u->bytes - sent < 65536 ? u->bytes - sent : 65536, MSG_NOSIGNAL);
        if (k > 0) sent += (size_t)k;
    }
    while (u->got < sizeof u->reply - 1 && (k = recv(fd, u->reply + u->got, sizeof u->reply - 1 - u->got, 0)) > 0) u->got += (size_t)k;
    close(fd);
    return NULL;
}
TEST(early_answer_reaches_the_uploader) {
    fixture f;
    sink s;
    uploader u;
    pthread_t t;
    nkhttp_stats st;
    fx_open(&f, NULL);
    sink_route(&f, &s);
    s.refuse = 401;
    memset(&u, 0, sizeof u);
    u.port = f.port;
    u.bytes = 10 * 1024 * 1024;
    pthread_create(&t, NULL, upload_thread, &u);
    do { nkloop_wait(f.L, 10); nkhttp_get_stats(f.srv, &st); } while (st.connections == 0 || st.open_connections > 0);
    pthread_join(t, NULL);
    CHECK(strstr(u.reply, "401 Unauthorized") != NULL && strstr(u.reply, "Connection: close\r\n") != NULL && strstr(u.reply, "refused") != NULL);
    CHECK_INT(s.bytes, 0);
    CHECK_INT(s.ended, 1);
    // A small one is drained, and the connection goes on.
    talk(&f, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" GET_("/none", CLOSE_));
    CHECK(has("401 Unauthorized") && has("404 Not Found"));
    fx_close(&f);
}

TEST(expect_continue) {
    static const char head[] = "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n" CLOSE_ "\r\n";
    static const char echo_head[] = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n" CLOSE_ "\r\n";
    fixture f;
    nkhttp_server_desc d;
    sink s;
    int fd;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    fx_open(&f, &d);
    sink_route(&f, &s);
    nkhttp_route(f.srv, "GET", "/hold", on_hold, NULL);
    fd = dial(&f);
    put(&f, fd, echo_head, sizeof echo_head - 1);
    CHECK(get(&f, fd, "HTTP/1.1 100 Continue\r\n\r\n"));
    put(&f, fd, "hello", 5);
    CHECK(get(&f, fd, NULL));
    CHECK(has("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") && has("hello"));
    close(fd);
    s.refuse = 403; // refused before the body: no 100, and nobody knows whether the body comes
    talk(&f, head);
    CHECK(!has("100 Continue") && has("403 Forbidden") && has("Connection: close"));
    num_held = 0; // behind another request it has to wait for its turn
    fd = dial(&f);
    out_len = 0;
    put(&f, fd, GET_("/hold", ""), strlen(GET_("/hold", "")));
    put(&f, fd, echo_head, sizeof echo_head - 1);
    pump(&f, 5);
    CHECK_INT(recv(fd, out, 10, MSG_DONTWAIT), -1);
    nkhttp_later_text(f.srv, held[0], 200, "held");
    CHECK(get(&f, fd, "100 Continue\r\n\r\n"));
    CHECK(strstr(out, "held") < strstr(out, "100 Continue"));
    put(&f, fd, "world", 5);
    CHECK(get(&f, fd, "world"));
    close(fd);
    talk(&f, GET_("/", "Expect: something\r\n"));
    CHECK(has("417 Expectation Failed"));
    fx_close(&f);
}

TEST(limits) {
    fixture f;
    nkhttp_server_desc d;
    char* text = (char*)malloc(70000);
    int i;
    size_t n;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    d.max_body_bytes = 1000;
    d.drain_bytes = 500;
    d.max_headers = 10;
    d.require_length = 1;
    d.max_requests_per_connection = 2;
    fx_open(&f, &d);
    talk(&f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    CHECK(has("413 Content Too Large") || has("413 "));
    CHECK(has("Connection: close"));
    n = (size_t)sprintf(text, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (i = 0; i < 5; i++) n += (size_t)sprintf(text + n, "ff\r\n%0255d\r\n", 7);
    talk(&f, text);
    CHECK(has("413 ") && has("Connection: close"));
    talk(&f, "POST / HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n");
    CHECK(has("411 Length Required"));
    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (i = 0; i < 10; i++) n += (size_t)sprintf(text + n, "X-%d: 1\r\n", i);
    strcpy(text + n, "\r\n");
    talk(&f, text);
    CHECK(has("431 "));
    memset(text, 'a', 40000);
    memcpy(text, "GET /", 5);
    strcpy(text + 40000, " HTTP/1.1\r\nHost: a\r\n\r\n");
    talk(&f, text);
    CHECK(has("414 "));
    strcpy(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    n = strlen(text);
    memset(text + n, 'x', 40000);
    strcpy(text + n + 40000, "\r\n\r\n");
    talk(&f, text);
    CHECK(has("431 "));
    talk(&f, GET_("/", "") GET_("/", "") GET_("/", ""));
    CHECK(strstr(strstr(out, "200 OK") + 1, "200 OK") != NULL && !strstr(strstr(strstr(out, "200 OK") + 1, "200 OK") + 1, "200 OK"));
    free(text);
    fx_close(&f);
}

// -- deadlines ---------------------------------------------------------------------------------
TEST(deadlines) {
    fixture f;
    nkhttp_server_desc d;
    int fd;
    double end;
    memset(&d, 0, sizeof d);
    d.on_request = on_hold;
    d.head_timeout_ms = 60;
    d.body_timeout_ms = 60;
    d.body_min_rate = 1000000;
    d.idle_timeout_ms = 80;
    d.handler_timeout_ms = 50;
    fx_open(&f, &d);
    CHECK_TEXT(talk(&f, ""), ""); // T1: connects and says nothing
    fd = dial(&f); // T2: a byte now and then does not help
    out_len = 0;
    for (end = seconds() + 10; seconds() < end && out_len == 0;) {
        ssize_t k;
        send(fd, out_len ? "" : "G", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        nkloop_wait(f.L, 5);
        k = recv(fd, out, 1000, MSG_DONTWAIT);
        if (k > 0) out_len = (size_t)k;
    }
    CHECK(has("408 Request Timeout") || has("501 "));
    close(fd);
    talk(&f, "GET / HTTP/1.1\r\nHost: a\r\n"); // half a head
    CHECK(has("408 Request Timeout") && has("Connection: close"));
    talk(&f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"); // T3: a body that does not come
    CHECK(has("408 Request Timeout") && has("Connection: close"));
    num_held = 0;
    talk(&f, GET_("/", "")); // nobody answers; then T5: idle
    CHECK(has("503 Service Unavailable"));
    CHECK_INT(nkhttp_later_text(f.srv, held[0], 200, "late"), NKHTTP_ERR_STALE);
    fx_close(&f);
}

TEST(write_stall_and_ttl) {
    fixture f;
    nkhttp_server_desc d;
    nkhttp_stats st;
    int fd, small = 4096;
    double end = seconds() + 15;
    memset(&d, 0, sizeof d);
    d.on_request = on_big;
    d.write_timeout_ms = 60;
    d.connection_ttl_ms = 10000;
    fx_open(&f, &d);
    num_released = 0;
    fd = dial(&f);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    put(&f, fd, GET_("/big", "") GET_("/big", "") GET_("/big", ""), 3 * strlen(GET_("/big", "")));
    do { nkloop_wait(f.L, 10); nkhttp_get_stats(f.srv, &st); } while (st.open_connections > 0 && seconds() < end);
    CHECK_INT(st.open_connections, 0); // T4: the client never read
    CHECK(st.timeouts >= 1);
    CHECK(num_released >= 1);
    close(fd);
    fx_close(&f);
    d.connection_ttl_ms = 50;
    d.on_request = on_path;
    fx_open(&f, &d);
    fd = dial(&f);
    out_len = 0;
    put(&f, fd, GET_("/a", ""), strlen(GET_("/a", "")));
    CHECK(get(&f, fd, NULL)); // closed although it is idle for less than idle_timeout_ms
    CHECK(has("200 OK"));
    close(fd);
    fx_close(&f);
}

// -- policy ------------------------------------------------------------------------------------
TEST(cors_and_hosts) {
    static const char* const origins[] = { "https://good.example", "http://also.example:81", NULL };
    static const char* const hosts[] = { "a", "*.example.com", NULL };
    fixture f;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.cors_origins = origins;
    d.allowed_hosts = hosts;
    fx_open(&f, &d);
    nkhttp_route(f.srv, "GET", "/x", on_path, NULL);
    nkhttp_route(f.srv, "PUT", "/x", on_path, NULL);
    talk(&f, GET_("/x", CLOSE_ "Origin: https://good.example\r\n"));
    CHECK(has("200 OK") && has("Access-Control-Allow-Origin: https://good.example\r\n") && has("Vary: Origin\r\n"));
    talk(&f, GET_("/x", CLOSE_ "Origin: https://evil.example\r\n"));
    CHECK(has("200 OK") && !has("Access-Control-Allow-Origin"));
    talk(&f, "OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: http://also.example:81\r\nAccess-Control-Request-Method: PUT\r\n"
             "Access-Control-Request-Headers: X-One\r\n" CLOSE_ "\r\n");
    CHECK(has("204 No Content") && has("Access-Control-Allow-Methods: ") && has("PUT") && has("Access-Control-Allow-Headers: X-One\r\n")
          && has("Access-Control-Max-Age: 600\r\n"));
    CHECK(strstr(talk(&f, "GET /x HTTP/1.1\r\nHost: evil.com\r\n" CLOSE_ "\r\n"), "421 Misdirected Request") != NULL);
    CHECK(strstr(talk(&f, "GET /x HTTP/1.1\r\nHost: w.example.com:80\r\n" CLOSE_ "\r\n"), "200 OK") != NULL);
    CHECK(strstr(talk(&f, "GET /x HTTP/1.0\r\n\r\n"), "421 ") != NULL);
    fx_close(&f);
}

static void on_who(void* user, nkhttp_req* req) { (void)user; nkhttp_reply_text(req, 200, nkhttp_peer(req)); }
TEST(proxies) {
    static const char* const trusted[] = { "127.0.0.1", "10.0.0.9", NULL };
    fixture f;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = on_who;
    fx_open(&f, &d);
    talk(&f, GET_("/", CLOSE_ "X-Forwarded-For: 1.2.3.4\r\n"));
    CHECK(has("\r\n\r\n127.0.0.1:")); // nobody is trusted
    fx_close(&f);
    d.trusted_proxies = trusted;
    fx_open(&f, &d);
    talk(&f, GET_("/", CLOSE_ "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.9\r\n"));
    CHECK(has("\r\n\r\n1.2.3.4"));
    fx_close(&f);
    d.proxy_protocol = 1;
    fx_open(&f, &d);
    talk(&f, "PROXY TCP4 9.8.7.6 127.0.0.1 5555 80\r\n" GET_("/", CLOSE_));
    CHECK(has("\r\n\r\n9.8.7.6:5555"));
    CHECK_TEXT(talk(&f, GET_("/", CLOSE_)), "");
    fx_close(&f);
    d.trusted_proxies = NULL;
    fx_open(&f, &d);
    CHECK_TEXT(talk(&f, "PROXY TCP4 9.8.7.6 127.0.0.1 5555 80\r\n" GET_("/", CLOSE_)), "");
    fx_close(&f);
}

TEST(connection_limits) {
    fixture f;
    nkhttp_server_desc d;
    nkhttp_stats st;
    int a, b, c;
    memset(&d, 0, sizeof d);
    d.on_request = on_path;
    d.max_connections_per_address = 2;
    fx_open(&f, &d);
    a = dial(&f);
    b = dial(&f);
    CHECK(strstr(talk(&f, ""), "503 Service Unavailable") != NULL);
    close(a);
    pump(&f, 5);
    CHECK(strstr(talk(&f, GET_("/", CLOSE_)), "200 OK") != NULL);
    nkhttp_get_stats(f.srv, &st);
    CHECK_INT(st.refused, 1);
    close(b);
    fx_close(&f);
    memset(&d, 0, sizeof d);
    d.on_request = on_path;
    d.max_connections = 1;
    fx_open(&f, &d);
    a = dial(&f);
    c = dial(&f); // waits in the backlog
    out_len = 0;
    put(&f, c, GET_("/", CLOSE_), strlen(GET_("/", CLOSE_)));
    pump(&f, 5);
    nkhttp_get_stats(f.srv, &st);
    CHECK_INT(st.open_connections, 1);
    close(a);
    CHECK(get(&f, c, "200 OK"));
    close(c);
    fx_close(&f);
}

// A codec that keeps every second byte: enough to see where it was and was not used.
static int num_codecs;
static void* toy_begin(void* user) { (void)user; num_codecs++; return calloc(1, 4); }
static int toy_run(void* state, const uint8_t* in, size_t* in_bytes, uint8_t* o, size_t* out_bytes, int flush) {
    int* odd = (int*)state;
    size_t i, n = 0;
    for (i = 0; i < *in_bytes && n < *out_bytes; i++) { if (!*odd) o[n++] = in[i]; *odd = !*odd; }
    {
        int all = i == *in_bytes;
        *in_bytes = i;
        *out_bytes = n;
        return all && flush ? 1 : 0;
    }
}
static void toy_end(void* state) { num_codecs--; free(state); }
static void on_text(void* user, nkhttp_req* req) {
    char text[3001];
    (void)user;
    memset(text, 't', sizeof text);
    nkhttp_set_header(req, "ETag", "\"v1\"");
    nkhttp_reply(req, 200, req->head->path.len == 1 ? "text/html; charset=utf-8" : "image/png", text, 3000);
}
TEST(codec) {
    static const nkhttp_codec toy = { "toy", NULL, toy_begin, toy_run, toy_end };
    static uint64_t open_end = UINT64_MAX;
    fixture f;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.codec = &toy;
    d.on_request = on_text;
    fx_open(&f, &d);
    nkhttp_route(f.srv, "GET", "/stream", on_stream_reply, &open_end);
    talk(&f, GET_("/", CLOSE_ "Accept-Encoding: gzip, toy;q=0.5\r\n"));
    CHECK(has("Content-Encoding: toy\r\n") && has("Vary: Accept-Encoding\r\n") && has("Content-Length: 1500\r\n") && has("ETag: W/\"v1\"\r\n"));
    talk(&f, "HEAD / HTTP/1.1\r\nHost: a\r\n" CLOSE_ "Accept-Encoding: toy\r\n\r\n");
    CHECK(has("Content-Encoding: toy\r\n") && has("Content-Length: 1500\r\n") && !has("ttt"));
    talk(&f, GET_("/", CLOSE_ "Accept-Encoding: toy;q=0\r\n"));
    CHECK(!has("Content-Encoding") && has("Vary: Accept-Encoding\r\n") && has("Content-Length: 3000\r\n") && has("ETag: \"v1\"\r\n"));
    talk(&f, GET_("/png", CLOSE_ "Accept-Encoding: toy\r\n"));
    CHECK(!has("Content-Encoding") && !has("Vary"));
    talk(&f, GET_("/stream", CLOSE_ "Accept-Encoding: toy\r\n"));
    CHECK(has("Content-Encoding: toy\r\n") && has("\r\n\r\n1\r\n<\r\n1\r\nb\r\n0\r\n"));
    CHECK_INT(num_codecs, 0);
    fx_close(&f);
}

// -- log, upgrade, workers, stopping -----------------------------------------------------------
static char log_text[1000];
static void on_log(void* user, const nkhttp_log_entry* e) {
    size_t n = strlen(log_text);
    (void)user;
    CHECK(strncmp(e->peer, "127.0.0.1:", 10) == 0);
    snprintf(log_text + n, sizeof log_text - n, "%.*s %.*s %d %d %s in %lu;", (int)e->method.len, e->method.ptr, (int)e->target.len, e->target.ptr,
             e->status, e->minor_version, e->error ? nkhttp_strerror(e->error) : "-", (unsigned long)e->bytes_in);
}
TEST(access_log) {
    fixture f;
    nkhttp_server_desc d;
    int fd;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    d.on_log = on_log;
    fx_open(&f, &d);
    nkhttp_route(f.srv, "GET", "/hold", on_hold, NULL);
    log_text[0] = 0;
    talk(&f, "POST /p?q HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" "\r\nabc" "BAD\r\n\r\n");
    CHECK(strstr(log_text, "POST /p?q 200 1 - in 3;") == log_text);
    CHECK(strstr(log_text, "; 0") == NULL && strstr(log_text, " 400 0 malformed message in 0;") != NULL);
    log_text[0] = 0;
    num_held = 0;
    fd = dial(&f);
    put(&f, fd, GET_("/hold", "") GET_("/x", ""), strlen(GET_("/hold", "") GET_("/x", "")));
    pump(&f, 4);
    put(&f, fd, "GET /overwriting/the/receive", 28);
    pump(&f, 4);
    nkhttp_later_text(f.srv, held[0], 202, "x");
    CHECK_TEXT(log_text, "GET /hold 202 1 - in 0;GET /x 200 1 - in 0;");
    close(fd);
    fx_close(&f);
}

static char raw_got[200];
static size_t raw_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    (void)self;
    strncat(raw_got, (char*)bytes, n < 100 ? n : 100);
    nkloop_write(L, s, "raw:", 4);
    nkloop_write(L, s, bytes, n);
    return n;
}
static const nkloop_proto raw_proto = { "raw", raw_data, NULL, NULL, NULL, NULL, NULL };
static void on_upgrade(void* user, nkhttp_req* req) {
    nkloop* L = req->loop;
    nkloop_stream s;
    (void)user;
    if (!nkhttp_is(nkhttp_value(req->head, "Upgrade"), "raw")) return; // as any other request
    s = nkhttp_detach(req);
    CHECK(s.id != 0);
    CHECK_INT(nkhttp_reply_text(req, 200, "x"), NKHTTP_ERR_DETACHED);
    nkloop_write(L, s, "HTTP/1.1 101 Switching Protocols\r\n\r\n", 36);
    nkloop_set_proto(L, s, &raw_proto, NULL);
}
TEST(upgrade) {
    static const char request[] = GET_("/raw", "Upgrade: raw\r\nConnection: Upgrade\r\n") "hello";
    static const char h2c[] = GET_("/h2c", "Upgrade: h2c\r\nConnection: Upgrade\r\n");
    fixture f;
    nkhttp_server_desc d;
    nkhttp_stats st;
    size_t cut;
    int fd;
    memset(&d, 0, sizeof d);
    d.on_request = on_path;
    d.on_upgrade = on_upgrade;
    fx_open(&f, &d);
    nkhttp_route(f.srv, "GET", "/hold", on_hold, NULL);
    for (cut = 1; cut < sizeof request - 1; cut++) {
        raw_got[0] = 0;
        out_len = 0;
        fd = dial(&f);
        put(&f, fd, request, cut);
        pump(&f, 2);
        put(&f, fd, request + cut, sizeof request - 1 - cut);
        get(&f, fd, "o");
        if (strcmp(raw_got, "hello") != 0) CHECK_TEXT(raw_got, "hello");
        close(fd);
    }
    num_held = 0; // behind a deferred reply it waits
    raw_got[0] = 0;
    out_len = 0;
    fd = dial(&f);
    put(&f, fd, h2c, sizeof h2c - 1);
    put(&f, fd, GET_("/hold", ""), strlen(GET_("/hold", "")));
    put(&f, fd, request, sizeof request - 1);
    pump(&f, 5);
    CHECK_TEXT(raw_got, "");
    nkhttp_later_text(f.srv, held[0], 200, "held");
    CHECK(get(&f, fd, "raw:hello"));
    CHECK(strstr(out, "/h2c") < strstr(out, "held") && strstr(out, "held") < strstr(out, "101 Switching"));
    close(fd);
    pump(&f, 5);
    nkhttp_get_stats(f.srv, &st);
    CHECK_INT(st.open_connections, 0);
    CHECK_INT(st.open_requests, 0);
    fx_close(&f);
}

static void on_work(void* user, nkhttp_req* req) {
    struct timespec ts = { 0, 0 };
    nkhttp_str path = req->head->path;
    char text[100];
    (void)user;
    if (path.ptr[1] == 's') { ts.tv_nsec = 20000000; nanosleep(&ts, NULL); }
    if (path.ptr[1] == 'f') return; // forgets
    if (path.ptr[1] == 'd') {
        nkhttp_handle h = nkhttp_defer(req);
        nkhttp_later_text(req->server, h, 200, "deferred"); // before this handler has returned
        return;
    }
    snprintf(text, sizeof text, "%.*s/%.*s", (int)path.len, path.ptr, (int)req->body_bytes, req->body ? (const char*)req->body : "");
    nkhttp_set_header(req, "X-Peer", nkhttp_peer(req));
    nkhttp_reply_text(req, 200, text);
    nkhttp_reply_text(req, 200, "twice");
}
TEST(workers) {
    fixture f;
    nkhttp_server_desc d;
    nkhttp_stats st;
    int fd, i;
    memset(&d, 0, sizeof d);
    d.on_request = on_work;
    d.workers = 3;
    fx_open(&f, &d);
    talk(&f, GET_("/slow", "") "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET_("/defer", "") GET_("/forget", "") GET_("/z", CLOSE_));
    CHECK(has("/slow/") && has("/a/abc") && has("deferred") && has("500 Internal") && has("/z/") && has("X-Peer: 127.0.0.1:") && !has("twice"));
    CHECK(strstr(out, "/slow/") < strstr(out, "/a/abc") && strstr(out, "/a/abc") < strstr(out, "deferred"));
    CHECK(strstr(out, "deferred") < strstr(out, "500 Int") && strstr(out, "500 Int") < strstr(out, "/z/"));
    for (i = 0; i < 10; i++) { // the client goes away while they work
        fd = dial(&f);
        put(&f, fd, GET_("/slow", "") GET_("/slow", ""), 2 * strlen(GET_("/slow", "")));
        pump(&f, i);
        close(fd);
        pump(&f, 2);
    }
    do { nkloop_wait(f.L, 5); nkhttp_get_stats(f.srv, &st); } while (st.open_requests > 0);
    CHECK_INT(st.open_connections, 0);
    fd = dial(&f);
    put(&f, fd, GET_("/slow", ""), strlen(GET_("/slow", "")));
    pump(&f, 2);
    close(fd);
    fx_close(&f); // with work under way
    d.handler_timeout_ms = 5;
    fx_open(&f, &d);
    talk(&f, GET_("/slow", CLOSE_));
    CHECK(has("503 Service Unavailable"));
    fx_close(&f);
}

static int num_stopped;
static void on_stopped(void* user) { (void)user; num_stopped++; }
static void* stop_thread(void* user) { nkhttp_server_shutdown((nkhttp_server*)user, 5000); return NULL; }
TEST(shutdown_variants) {
    fixture f;
    nkhttp_server_desc d;
    nkhttp_stats st;
    pthread_t t;
    int idle, busy;
    double end;
    memset(&d, 0, sizeof d);
    d.on_request = on_hold;
    d.on_stopped = on_stopped;
    num_stopped = 0;
    fx_open(&f, &d); // before the loop runs
    nkhttp_server_shutdown(f.srv, 0);
    nkhttp_server_shutdown(f.srv, 0);
    pump(&f, 5);
    CHECK_INT(num_stopped, 1);
    fx_close(&f);
    fx_open(&f, &d); // with an idle and a busy connection, from another thread
    num_held = 0;
    idle = dial(&f);
    busy = dial(&f);
    put(&f, busy, GET_("/", ""), strlen(GET_("/", "")));
    pump(&f, 3);
    pthread_create(&t, NULL, stop_thread, f.srv);
    pthread_join(t, NULL);
    CHECK(get(&f, idle, NULL)); // closed
    close(idle);
    CHECK_INT(num_stopped, 1);
    nkhttp_later_text(f.srv, held[0], 200, "done");
    out_len = 0;
    CHECK(get(&f, busy, NULL));
    CHECK(has("Connection: close\r\n") && has("done"));
    close(busy);
    for (end = seconds() + 10; num_stopped < 2 && seconds() < end;) nkloop_wait(f.L, 5);
    CHECK_INT(num_stopped, 2);
    fx_close(&f);
    fx_open(&f, &d); // one that never answers is cut
    num_held = 0;
    busy = dial(&f);
    put(&f, busy, GET_("/", ""), strlen(GET_("/", "")));
    pump(&f, 3);
    nkhttp_server_shutdown(f.srv, 30);
    for (end = seconds() + 10; num_stopped < 3 && seconds() < end;) nkloop_wait(f.L, 5);
    CHECK_INT(num_stopped, 3);
    CHECK_INT(nkhttp_later_text(f.srv, held[0], 200, "x"), NKHTTP_ERR_STALE);
    nkhttp_get_stats(f.srv, &st);
    CHECK_INT(st.open_connections, 0);
    close(busy);
    fx_close(&f);
    fx_open(&f, &d); // destroyed with everything open, and a posted answer on its way
    busy = dial(&f);
    num_held = 0;
    put(&f, busy, GET_("/", ""), strlen(GET_("/", "")));
    pump(&f, 3);
    {
        answer a;
        a.srv = f.srv;
        a.h = held[0];
        a.n = 3;
        pthread_create(&t, NULL, answer_thread, &a);
        pthread_join(t, NULL);
    }
    fx_close(&f);
    close(busy);
}

static void run_ready(void* user, nkloop* L, nkhttp_server* srv) {
    (void)L;
    *(int*)user = server_port(srv);
    nkhttp_server_shutdown(srv, 0);
}
TEST(run) {
    nkhttp_server_desc d;
    int port = 0;
    memset(&d, 0, sizeof d);
    d.address = "127.0.0.1:0";
    d.user = &port;
    CHECK_INT(nkhttp_run(&d, run_ready), 0);
    CHECK(port > 0);
    d.address = "no such address";
    CHECK(nkhttp_run(&d, run_ready) < 0);
}
