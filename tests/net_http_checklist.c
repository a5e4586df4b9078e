// What the RFCs and long experience ask of an HTTP server, one test per promise that no other test shows: docs/tested.md lists
// them all. POSIX only.
#include "http_kit.h"
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

// ---- talking ----
static const char* said(kit* k, client* c, const char* text) { // one connection to its end; the client holds what came
    client_talk(k, c, text);
    return c->text ? c->text : "";
}
#define CHECK_SAID(k, text, heard) do { \
    client c_; \
    const char* s_ = said(k, &c_, text); \
    CHECK_STR(s_, strlen(s_), heard); \
    client_close(&c_); \
} while (0)
static int client_got(kit* k, client* c, const char* text, int times) { // 1: the text has come so many times
    double end = kit_seconds() + 20;
    while (kit_seconds() < end && client_count(c, text) < times && !c->ended) {
        if (!client_read(c)) nkloop_wait(k->L, 1);
    }
    return client_count(c, text) == times;
}
static void kit_again(kit* k, const nkhttp_server_desc* desc) { // another server in place of this one, with a Date in its replies
    nkhttp_server_desc d = *desc;
    nkhttp_server_destroy(k->srv);
    if (!d.address) d.address = "127.0.0.1:0";
    CHECK_INT(nkhttp_server_create(&k->srv, k->L, &d), 0);
    k->port = kit_port(k->srv);
}
static uint32_t open_now(kit* k) {
    nkhttp_stats st;
    nkhttp_get_stats(k->srv, &st);
    return st.open_connections;
}

// ---- handlers ----
static void on_echo(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, "application/octet-stream", req->body, req->body_bytes);
}
static void on_path(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, NULL, req->head->path.ptr, req->head->path.len);
}
static void on_status(void* user, nkhttp_req* req) {
    nkhttp_set_header(req, "ETag", "\"1\"");
    nkhttp_set_header(req, "Cache-Control", "max-age=9");
    nkhttp_set_header(req, "Vary", "Accept");
    nkhttp_set_header(req, "Content-Location", "/here");
    nkhttp_set_header(req, "Expires", "Thu, 01 Jan 2099 00:00:00 GMT");
    nkhttp_reply(req, *(const int*)user, "text/plain", "content", 7);
}
static const int statuses[] = { 200, 204, 301, 304, 404, 405, 503 };

// ---- what every reply has, and what some may not have ----
TEST(dates_and_lengths) {
    kit k;
    nkhttp_server_desc d;
    size_t i;
    memset(&d, 0, sizeof d);
    kit_open(&k, NULL, NULL);
    kit_again(&k, &d);
    for (i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        char path[16], line[80];
        client c;
        int bodiless = statuses[i] == 204 || statuses[i] == 304;
        snprintf(path, sizeof path, "/%d", statuses[i]);
        CHECK_INT(nkhttp_route(k.srv, "GET", path, on_status, (void*)&statuses[i]), 0);
        snprintf(line, sizeof line, "GET %s HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n", path);
        said(&k, &c, line);
        snprintf(line, sizeof line, "HTTP/1.1 %d ", statuses[i]);
        CHECK(client_has(&c, line));
        CHECK_INT(client_count(&c, "\r\nDate: "), 1);                                // RFC 9110 6.6.1
        CHECK_INT(client_count(&c, "\r\nContent-Length: "), bodiless ? 0 : 1);       // RFC 9110 8.6
        CHECK_INT(client_count(&c, "Transfer-Encoding"), 0);
        CHECK_INT(client_has(&c, "content"), !bodiless);
        CHECK(client_has(&c, "\r\nETag: \"1\"\r\n") && client_has(&c, "\r\nCache-Control: max-age=9\r\n")); // RFC 9110 15.4.5
        CHECK(client_has(&c, "\r\nVary: Accept\r\n") && client_has(&c, "\r\nContent-Location: /here\r\n")
              && client_has(&c, "\r\nExpires: Thu, 01 Jan 2099 00:00:00 GMT\r\n"));
        client_close(&c);
    }
    CHECK_TALK(&k, GET_("/none", CLOSE_), "\r\nDate: ");
    CHECK_TALK(&k, "POST /200 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" CLOSE_ "\r\n", "\r\nAllow: ");
    CHECK_TALK(&k, "nonsense\r\n\r\n", "\r\nDate: ");
    kit_close(&k);
}

static void on_no_content(void* user, nkhttp_req* req) { // streams a body where none may be
    nkhttp_handle h = nkhttp_defer(req);
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    d.status = *(const int*)user;
    CHECK_INT(nkhttp_later_begin(req->server, h, &d, UINT64_MAX), 0);
    nkhttp_later_write(req->server, h, "unwanted", 8);
    nkhttp_later_end(req->server, h, NULL, 0);
}
TEST(streams_without_content) {
    kit k;
    kit_open(&k, NULL, NULL);
    nkhttp_route(k.srv, "GET", "/204", on_no_content, (void*)&statuses[1]);
    nkhttp_route(k.srv, "GET", "/304", on_no_content, (void*)&statuses[3]);
    CHECK_SAID(&k, GET_("/204", "") GET_("/304", CLOSE_), "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\n" CLOSE_ "\r\n");
    kit_close(&k);
}

static void on_chunks(void* user, nkhttp_req* req) {
    nkhttp_handle h = nkhttp_defer(req);
    nkhttp_reply_desc d;
    (void)user;
    memset(&d, 0, sizeof d);
    d.content_type = "text/plain";
    nkhttp_later_begin(req->server, h, &d, req->head->path.len > 5 ? 6 : UINT64_MAX);
    nkhttp_later_write(req->server, h, "abc", 3);
    nkhttp_later_write(req->server, h, "def", 3);
    nkhttp_later_end(req->server, h, NULL, 0);
}
static void on_redirect(void* user, nkhttp_req* req) { (void)user; nkhttp_redirect(req, 307, "/else"); }
TEST(head_says_what_get_says) { // RFC 9110 9.3.2
    static const char* const paths[] = { "/200", "/304", "/404", "/open", "/length", "/redirect", "/none" };
    kit k;
    size_t i;
    kit_open(&k, NULL, NULL);
    nkhttp_route(k.srv, "GET", "/200", on_status, (void*)&statuses[0]);
    nkhttp_route(k.srv, "GET", "/304", on_status, (void*)&statuses[3]);
    nkhttp_route(k.srv, "GET", "/404", on_status, (void*)&statuses[4]);
    nkhttp_route(k.srv, "GET", "/open", on_chunks, NULL);
    nkhttp_route(k.srv, "GET", "/length", on_chunks, NULL);
    nkhttp_route(k.srv, "GET", "/redirect", on_redirect, NULL);
    for (i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char get[80], head[80];
        client a, b;
        const char* end;
        snprintf(get, sizeof get, "GET %s HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n", paths[i]);
        snprintf(head, sizeof head, "HEAD %s HTTP/1.1\r\nHost: a\r\n" CLOSE_ "\r\n", paths[i]);
        said(&k, &a, get);
        said(&k, &b, head);
        end = strstr(a.text, "\r\n\r\n");
        if (!CHECK(end && b.len == (size_t)(end + 4 - a.text) && memcmp(a.text, b.text, b.len) == 0)) {
            printf("    GET %s\n%s    HEAD\n%s", paths[i], a.text, b.text);
        }
        client_close(&a);
        client_close(&b);
    }
    kit_close(&k);
}

TEST(old_clients) { // RFC 9112 6.1, RFC 9110 15.2: an HTTP/1.0 client gets no chunks, no interim reply, and no surprise
    kit k;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    kit_open(&k, NULL, &d);
    nkhttp_route(k.srv, "GET", "/open", on_chunks, NULL);
    CHECK_SAID(&k, "GET /open HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" CLOSE_ "\r\nabcdef");
    CHECK_SAID(&k, "POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
               "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 2\r\n" CLOSE_ "\r\nhi");
    kit_close(&k);
}

TEST(every_reply_ends) { // on a connection that is kept, the client must know where: also for what the server answers itself
    kit k;
    client c;
    kit_open(&k, NULL, NULL);
    nkhttp_route(k.srv, "GET", "/200", on_status, (void*)&statuses[0]);
    client_open(&k, &c);
    client_say(&k, &c, GET_("/none", "") "PUT /200 HTTP/1.1\r\nHost: a\r\n\r\n" "OPTIONS /200 HTTP/1.1\r\nHost: a\r\n\r\n" GET_("/200", ""));
    CHECK(client_get(&k, &c, "content"));
    CHECK_INT(client_count(&c, "HTTP/1.1 "), 4);
    CHECK_INT(client_count(&c, "\r\nContent-Length: "), 3); // and 204 has none
    CHECK(!client_has(&c, "Connection: close"));
    client_close(&c);
    kit_close(&k);
}

// ---- lengths that are not kept ----
static void on_wrong_length(void* user, nkhttp_req* req) {
    nkhttp_handle h = nkhttp_defer(req);
    nkhttp_reply_desc d;
    memset(&d, 0, sizeof d);
    CHECK_INT(nkhttp_later_begin(req->server, h, &d, 5), 0);
    CHECK_INT(nkhttp_later_write(req->server, h, "abc", 3), 0);
    if (user) CHECK_INT(nkhttp_later_write(req->server, h, "defghi", 6), NKHTTP_ERR_LENGTH);
    CHECK(nkhttp_later_end(req->server, h, NULL, 0) < 0);
}
TEST(a_wrong_length_closes) { // RFC 9112 8: the client must see that it is not whole
    static int longer;
    kit k;
    client c;
    int i;
    kit_open(&k, NULL, NULL);
    nkhttp_route(k.srv, "GET", "/short", on_wrong_length, NULL);
    nkhttp_route(k.srv, "GET", "/long", on_wrong_length, &longer);
    for (i = 0; i < 2; i++) {
        said(&k, &c, i ? GET_("/long", "") GET_("/none", "") : GET_("/short", "") GET_("/none", ""));
        CHECK_INT(client_count(&c, "HTTP/1.1 "), c.len ? 1 : 0); // nothing behind it that could be taken for its body
        CHECK(!client_has(&c, "def") && !client_has(&c, "404"));
        client_close(&c);
    }
    kit_close(&k);
}

// ---- nothing breaks out of a header ----
static void on_inject(void* user, nkhttp_req* req) {
    nkhttp_header nul = { { "X-A", 3 }, { "a\0b", 3 } }, name = { { "X\0A", 3 }, { "a", 1 } }, trailer = { { "X-T", 3 }, { "a\r\nb", 4 } };
    nkhttp_reply_desc d;
    nkhttp_str id = nkhttp_param(req, "id"); // "a\r\nX-Evil: 1", decoded
    char text[40];
    (void)user;
    CHECK_STR(id.ptr, id.len, "a\r\nX-Evil: 1");
    snprintf(text, sizeof text, "%.*s", (int)id.len, id.ptr);
    CHECK_INT(nkhttp_set_header(req, "X-Id", text), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_set_header(req, text, "x"), NKHTTP_ERR_HEADER_VALUE);
    CHECK_INT(nkhttp_redirect(req, 302, text), NKHTTP_ERR_HEADER_VALUE);
    memset(&d, 0, sizeof d);
    d.num_headers = 1;
    d.headers = &nul;
    CHECK_INT(nkhttp_reply_with(req, &d), NKHTTP_ERR_HEADER_VALUE);
    d.headers = &name;
    CHECK_INT(nkhttp_reply_with(req, &d), NKHTTP_ERR_HEADER_VALUE);
    d.headers = NULL;
    d.num_headers = 0;
    {
        nkhttp_handle h = nkhttp_defer(req);
        CHECK_INT(nkhttp_later_begin(req->server, h, &d, UINT64_MAX), 0);
        CHECK_INT(nkhttp_later_end(req->server, h, &trailer, 1), NKHTTP_ERR_HEADER_VALUE);
        nkhttp_later_end(req->server, h, NULL, 0);
    }
}
TEST(nothing_breaks_out_of_a_header) {
    kit k;
    client c;
    kit_open(&k, NULL, NULL);
    nkhttp_route(k.srv, "GET", "/p/{id}", on_inject, NULL);
    said(&k, &c, GET_("/p/a%0d%0aX-Evil:%201", CLOSE_));
    CHECK(client_has(&c, "HTTP/1.1 200 OK\r\n") && !client_has(&c, "Evil") && !client_has(&c, "X-"));
    client_close(&c);
    kit_close(&k);
}

// ---- what goes in comes out ----
static void on_mirror(void* user, nkhttp_req* req) {
    char text[64];
    nkhttp_str v = nkhttp_header_value(req, "x-VALUE");
    (void)user;
    snprintf(text, sizeof text, "%.*s", (int)v.len, v.ptr);
    nkhttp_set_header(req, "X-Value", text);
    nkhttp_set_header(req, "Set-Cookie", "A=Q");
    nkhttp_set_header(req, "Set-Cookie", "b=R");
    nkhttp_reply(req, 200, NULL, req->head->method.ptr, req->head->method.len);
}
TEST(values_and_bodies_are_left_alone) {
    char bytes[256 + 100];
    size_t n;
    int i;
    kit k;
    client c;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = on_mirror;
    kit_open(&k, NULL, &d);
    nkhttp_route(k.srv, "POST", "/echo", on_echo, NULL);
    CHECK_SAID(&k, "BREW-it / HTTP/1.1\r\nHost: a\r\nX-vALUE: MiXeD \xe9\xff\r\n" CLOSE_ "\r\n",
               "HTTP/1.1 200 OK\r\nX-Value: MiXeD \xe9\xff\r\nSet-Cookie: A=Q\r\nSet-Cookie: b=R\r\nContent-Length: 7\r\n" CLOSE_ "\r\nBREW-it");
    n = (size_t)sprintf(bytes, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 256\r\n" CLOSE_ "\r\n");
    for (i = 0; i < 256; i++) bytes[n + (size_t)i] = (char)i;
    client_open(&k, &c);
    client_put(&k, &c, bytes, n + 256);
    CHECK(client_get(&k, &c, NULL));
    if (CHECK(c.len > 256)) CHECK_MEM(c.text + c.len - 256, bytes + n, 256);
    client_close(&c);
    kit_close(&k);
}

TEST(routes_are_literal) {
    kit k;
    kit_open(&k, NULL, NULL);
    nkhttp_route(k.srv, "GET", "/", on_path, NULL);
    nkhttp_route(k.srv, "GET", "/a.b+c", on_path, NULL);
    CHECK_TALK(&k, GET_("/", CLOSE_), "200 OK");
    CHECK_TALK(&k, GET_("/?q=1", CLOSE_), "200 OK");
    CHECK_TALK(&k, GET_("/a.b+c?q", CLOSE_), "200 OK");
    CHECK_TALK(&k, GET_("/%61.b+c", CLOSE_), "200 OK");
    CHECK_TALK(&k, GET_("/axb+c", CLOSE_), "404 Not Found");
    CHECK_TALK(&k, GET_("/a.bb+c", CLOSE_), "404 Not Found");
    kit_close(&k);
}

// ---- 304 and Range as files give them ----
TEST(file_304_and_416) { // RFC 9110 15.4.5, 15.5.17, 14.4
    static const nkhttp_embedded table[] = { { "a.css", "0123456789", 10, "\"v\"", 784111777 }, { "a.css.gz", "gz", 2, "\"z\"", 784111777 },
                                              { "later.txt", "x", 1, NULL, 32503680000 } }; // the year 3000
    nkhttp_files_desc f;
    nkhttp_server_desc d;
    kit k;
    client c;
    memset(&d, 0, sizeof d);
    memset(&f, 0, sizeof f);
    f.table = table;
    f.num_embedded = 3;
    f.cache_control = "max-age=60";
    kit_open(&k, NULL, NULL);
    kit_again(&k, &d);
    CHECK_INT(nkhttp_serve_files(k.srv, "/", &f), 0);
    said(&k, &c, GET_("/a.css", CLOSE_ "If-None-Match: \"v\"\r\n"));
    CHECK(client_has(&c, "HTTP/1.1 304 Not Modified\r\nDate: ") && client_has(&c, "\r\nETag: \"v\"\r\n"));
    CHECK(client_has(&c, "\r\nCache-Control: max-age=60\r\n") && client_has(&c, "\r\nVary: Accept-Encoding\r\n"));
    CHECK(!client_has(&c, "Content-Length") && !client_has(&c, "0123"));
    client_close(&c);
    said(&k, &c, GET_("/a.css", CLOSE_ "Range: bytes=2-4\r\n"));
    CHECK(client_has(&c, "206 Partial Content") && client_has(&c, "\r\nContent-Range: bytes 2-4/10\r\n") && client_has(&c, "\r\n\r\n234"));
    CHECK(client_has(&c, "\r\nContent-Length: 3\r\n") && client_has(&c, "\r\nETag: \"v\"\r\n") && client_has(&c, "\r\nDate: "));
    client_close(&c);
    said(&k, &c, GET_("/a.css", CLOSE_ "Range: bytes=10-\r\n"));
    CHECK(client_has(&c, "416 Range Not Satisfiable") && client_has(&c, "\r\nContent-Range: bytes */10\r\n"));
    client_close(&c);
    said(&k, &c, GET_("/later.txt", CLOSE_)); // RFC 9110 8.8.2.1
    CHECK(client_has(&c, "200 OK") && client_has(&c, "\r\nLast-Modified: ") && !client_has(&c, " 3000 "));
    client_close(&c);
    kit_close(&k);
}

// ---- an answer before the body is here ----
enum { UPLOAD = 10 * 1024 * 1024 };
static char block[65536];
static void refuse_at_once(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_set_header(req, "WWW-Authenticate", "Bearer");
    nkhttp_reply_text(req, 401, "who are you");
}
static int drop_body(void* user, nkhttp_req* req, const uint8_t* bytes, size_t n) { (void)user; (void)req; (void)bytes; (void)n; return 0; }
static void upload(kit* k, const char* head, const char* want) { // all of it first, and only then a look at what the server said
    char text[300];
    int chunked = strstr(head, "chunked") != NULL;
    size_t n = (size_t)snprintf(text, sizeof text, "%s\r\n", head), left;
    client c;
    client_open(k, &c);
    CHECK_INT(client_put(k, &c, text, n), 0);
    for (left = UPLOAD; left; left -= sizeof block) {
        if (chunked && client_say(k, &c, "10000\r\n") < 0) break;
        if (client_put(k, &c, block, sizeof block) < 0) break;
        if (chunked && client_say(k, &c, "\r\n") < 0) break;
    }
    CHECK_INT(left, 0); // no reset while it was sending
    CHECK(client_get(k, &c, NULL));
    if (!CHECK(client_has(&c, want))) printf("    %s: %.200s\n", head, c.text);
    if (!chunked) CHECK(client_has(&c, "\r\nConnection: close\r\n")); // a chunked body might have been short
    CHECK_INT(client_count(&c, "HTTP/1.1 "), 1);
    client_close(&c);
}
TEST(early_answers_reach_uploaders) { // RFC 9112 9.6
    nkloop_desc ld;
    nkhttp_route_desc r;
    nkhttp_server_desc d;
    kit k;
    memset(&ld, 0, sizeof ld);
    ld.linger_ms = 20000; // the test is over when the client closes
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    kit_open(&k, &ld, &d);
    memset(&r, 0, sizeof r);
    r.method = "POST";
    r.pattern = "/private";
    r.on_begin = refuse_at_once;
    r.on_body = drop_body;
    r.on_request = on_echo;
    r.max_body_bytes = UINT64_MAX;
    CHECK_INT(nkhttp_route_add(k.srv, &r), 0);
    upload(&k, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n", "HTTP/1.1 413 ");
    upload(&k, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", "HTTP/1.1 413 ");
    upload(&k, "POST /private HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n", "HTTP/1.1 401 ");
    upload(&k, "POST /private HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", "HTTP/1.1 401 ");
    upload(&k, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n", "HTTP/1.1 400 ");
    upload(&k, "POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 10485760\r\n", "HTTP/1.1 417 ");
    kit_close(&k);
}

TEST(chunk_overhead_is_bounded) { // one byte in a hundred and more
    char text[200];
    kit k;
    client c;
    nkhttp_server_desc d;
    int i, gone = 0;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    kit_open(&k, NULL, &d);
    client_open(&k, &c);
    client_say(&k, &c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    memset(text, 'e', sizeof text);
    memcpy(text, "1;", 2);
    memcpy(text + 120, "\r\nx\r\n", 6);
    for (i = 0; i < 20000 && !gone; i++) gone = client_say(&k, &c, text) < 0 || (i % 100 == 0 && client_read(&c));
    CHECK(i < 20000);
    CHECK(client_get(&k, &c, "HTTP/1.1 4"));
    client_close(&c);
    kit_close(&k);
}

TEST(memory_of_all_bodies_is_bounded) {
    char text[100];
    kit k;
    client a, b;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    d.max_buffered_bytes = 150000;
    kit_open(&k, NULL, &d);
    snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    client_open(&k, &a);
    client_say(&k, &a, text);
    client_put(&k, &a, block, 60000);
    client_open(&k, &b);
    client_say(&k, &b, text);
    client_put(&k, &b, block, 60000);
    kit_turns(&k, 5);
    client_put(&k, &b, block, 40000);
    CHECK(client_get(&k, &b, "HTTP/1.1 503 "));
    client_put(&k, &a, block, 40000);
    CHECK(client_get(&k, &a, "HTTP/1.1 200 OK")); // who was here first is served
    client_close(&a);
    client_close(&b);
    kit_close(&k);
}

// ---- clients that are slow on purpose ----
static void dribble(kit* k, const char* begin, const char* want) { // a byte now and then, for ever
    double end = kit_seconds() + 20;
    client c;
    client_open(k, &c);
    client_say(k, &c, begin);
    while (!c.len && !c.ended && kit_seconds() < end) {
        struct timespec nap = { 0, 3000000 };
        if (send(c.fd, "a", 1, MSG_NOSIGNAL) < 0 && errno != EAGAIN) break;
        nanosleep(&nap, NULL);
        nkloop_wait(k->L, 0);
        client_read(&c);
    }
    CHECK(client_get(k, &c, NULL));
    if (!CHECK(client_has(&c, want) && client_has(&c, "\r\nConnection: close\r\n"))) printf("    got %.200s\n", c.text);
    client_close(&c);
}
TEST(a_byte_now_and_then) { // RFC 9110 15.5.9: activity does not prolong the deadlines
    kit k;
    nkhttp_stats st;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    d.head_timeout_ms = 80;
    d.body_timeout_ms = 80;
    d.body_min_rate = 100000;
    kit_open(&k, NULL, &d);
    dribble(&k, "GET /", "HTTP/1.1 408 ");
    dribble(&k, "GET / HTTP/1.1\r\nHost: a\r\nX: ", "HTTP/1.1 408 ");
    dribble(&k, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n", "HTTP/1.1 408 ");
    dribble(&k, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n", "HTTP/1.1 408 ");
    nkhttp_get_stats(k.srv, &st);
    CHECK(st.timeouts >= 4);
    kit_close(&k);
}

enum { HUGE_BODY = 100 * 1024 * 1024 };
static char* huge;
static int huge_gone, huge_why;
static void huge_free(void* user) { free(user); huge = NULL; }
static void on_huge(void* user, nkhttp_req* req) {
    nkhttp_reply_desc d;
    (void)user;
    memset(&d, 0, sizeof d);
    d.body = huge = (char*)calloc(1, HUGE_BODY);
    d.body_bytes = HUGE_BODY;
    d.release_fn = huge_free;
    d.release_user = huge;
    CHECK_INT(nkhttp_reply_with(req, &d), 0);
}
static nkhttp_server* huge_srv;
static void huge_pour(void* user, nkhttp_handle h) {
    (void)user;
    while (nkhttp_later_write(huge_srv, h, block, sizeof block) == 0) {}
}
static void huge_end(void* user, nkhttp_handle h, int why) { (void)user; (void)h; huge_gone++; huge_why = why; }
static void on_huge_stream(void* user, nkhttp_req* req) {
    nkhttp_reply_desc d;
    nkhttp_handle h = nkhttp_defer(req);
    (void)user;
    memset(&d, 0, sizeof d);
    huge_srv = req->server;
    nkhttp_later_watch(huge_srv, h, huge_pour, huge_end, NULL);
    nkhttp_later_begin(huge_srv, h, &d, HUGE_BODY);
    huge_pour(NULL, h);
}
TEST(a_client_that_never_reads_100_mb) {
    kit k;
    client c;
    nkhttp_server_desc d;
    int i;
    memset(&d, 0, sizeof d);
    d.write_timeout_ms = 80;
    kit_open(&k, NULL, &d);
    nkhttp_route(k.srv, "GET", "/body", on_huge, NULL);
    nkhttp_route(k.srv, "GET", "/stream", on_huge_stream, NULL);
    for (i = 0; i < 2; i++) {
        nkhttp_stats st;
        client_open(&k, &c);
        client_say(&k, &c, i ? GET_("/stream", "") : GET_("/body", ""));
        UNTIL(&k, open_now(&k) == 0);
        nkhttp_get_stats(k.srv, &st);
        CHECK_INT(st.timeouts, i + 1);
        CHECK_INT(st.buffered_bytes, 0);
        client_close(&c);
    }
    CHECK(huge == NULL);
    CHECK(huge_gone == 1 && huge_why < 0);
    CHECK(kit_peak < 4 * 1024 * 1024); // nobody had to hold the 100 MB
    kit_close(&k);
}

TEST(connections_end_politely) {
    kit k;
    client c;
    nkhttp_server_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = on_path;
    d.idle_timeout_ms = 60;
    d.max_requests_per_connection = 3;
    kit_open(&k, NULL, &d);
    CHECK_SAID(&k, GET_("/a", ""), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/a"); // idle: closed without a word
    said(&k, &c, GET_("/a", "") GET_("/b", "") GET_("/c", "") GET_("/d", ""));
    CHECK_STR(c.text, c.len, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/a" "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/b"
              "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" CLOSE_ "\r\n/c"); // the last one says that it is
    client_close(&c);
    kit_close(&k);
}

static nkhttp_handle held[4];
static int num_held;
static void on_hold(void* user, nkhttp_req* req) {
    (void)user;
    if (num_held < 4) held[num_held++] = nkhttp_defer(req);
}
TEST(nothing_behind_close_is_run) { // RFC 9112 9.6: not even while the last reply is awaited
    static const char* const last[] = { GET_("/a", CLOSE_), "GET /a HTTP/1.0\r\n\r\n", POST_("/a", CLOSE_ "Content-Length: 2\r\n", "hi"),
                                        GET_("/a", "Connection: x, Close\r\n") };
    nkhttp_server_desc d;
    kit k;
    size_t i;
    memset(&d, 0, sizeof d);
    d.on_request = on_hold;
    kit_open(&k, NULL, &d);
    for (i = 0; i < sizeof last / sizeof last[0]; i++) {
        client c;
        num_held = 0;
        client_open(&k, &c);
        client_say(&k, &c, last[i]);
        client_say(&k, &c, GET_("/b", ""));
        kit_turns(&k, 10);
        CHECK_INT(num_held, 1);
        CHECK_INT(nkhttp_later_text(k.srv, held[0], 200, "last words"), 0);
        CHECK(client_get(&k, &c, NULL));
        CHECK(client_has(&c, "\r\nConnection: close\r\n") && client_has(&c, "last words"));
        CHECK_INT(client_count(&c, "HTTP/1.1 "), 1);
        client_close(&c);
    }
    kit_close(&k);
}

TEST(ten_thousand_idle_connections) {
    enum { BATCH = 50 };
    struct rlimit files;
    nkhttp_server_desc d;
    nkloop_stats turns, later;
    kit k;
    client extra;
    long before, each;
    int n = kit_slow() ? 300 : 10000, i, got, *fds;
    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max != RLIM_INFINITY && files.rlim_cur < files.rlim_max) files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur != RLIM_INFINITY && files.rlim_cur < (rlim_t)n * 2 + 100) n = ((int)files.rlim_cur - 100) / 2;
    n -= n % BATCH;
    fds = (int*)malloc((size_t)n * sizeof *fds);
    memset(&d, 0, sizeof d);
    d.on_request = on_path;
    d.max_connections = (uint32_t)n;
    kit_open(&k, NULL, &d);
    before = kit_live;
    for (i = 0; i < n; i++) {
        fds[i] = kit_dial_from(&k, 0);
        if (!CHECK(fds[i] >= 0)) break;
        CHECK(send(fds[i], GET_("/", ""), sizeof GET_("/", "") - 1, MSG_NOSIGNAL) > 0);
        if ((i + 1) % BATCH) continue;
        for (got = 0; got < BATCH;) { // each has had a reply before it idles
            char text[200];
            ssize_t r = recv(fds[i - BATCH + 1 + got], text, sizeof text, 0);
            if (r > 0) got++;
            else if (r == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) break;
            else nkloop_wait(k.L, 1);
        }
        if (!CHECK_INT(got, BATCH)) { i++; break; }
    }
    n = i;
    CHECK_INT(open_now(&k), n);
    each = (kit_live - before) / (n ? n : 1);
    printf("%d idle connections, %ld bytes each\n", n, each);
    if (n >= 5000) CHECK(each <= (kit_backend() == NKLOOP_BACKEND_POLL ? 288 : 256)); // few would pay for tables made for many
    client_open(&k, &extra); // one too many: it waits, and the server sleeps
    CHECK(send(extra.fd, GET_("/x", ""), sizeof GET_("/x", "") - 1, MSG_NOSIGNAL) > 0);
    kit_turns(&k, 5);
    nkloop_get_stats(k.L, &turns);
    for (i = 0; i < 10; i++) nkloop_wait(k.L, 1);
    nkloop_get_stats(k.L, &later);
    CHECK_INT(later.events, turns.events);
    CHECK_INT(open_now(&k), n);
    CHECK(!client_read(&extra));
    for (i = 0; i < n; i++) {
        struct linger hard = { 1, 0 };
        setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard); // leaves no port in TIME_WAIT
        close(fds[i]);
        if (i == 0) CHECK(client_get(&k, &extra, "200 OK"));
    }
    UNTIL(&k, open_now(&k) == 1);
    client_reset(&extra);
    UNTIL(&k, open_now(&k) == 0);
    free(fds);
    kit_close(&k);
}

// ---- Upgrade ----
static int upgrades;
static char line_got[100];
static size_t line_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    (void)self;
    strncat(line_got, (const char*)bytes, n < 50 ? n : 50);
    nkloop_write(L, s, bytes, n);
    return n;
}
static void line_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)self; (void)L; (void)s; (void)why; }
static const nkloop_proto line_proto = { "lines", line_data, NULL, line_close, NULL, NULL, NULL };
static void on_upgrade(void* user, nkhttp_req* req) {
    static const char reply[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n";
    nkloop* L = req->loop;
    nkloop_stream s;
    (void)user;
    upgrades++;
    if (!nkhttp_is(nkhttp_header_value(req, "Upgrade"), "lines")) return;
    if (req->head->content_length) CHECK_STR((const char*)req->body, req->body_bytes, "body!");
    s = nkhttp_detach(req);
    CHECK(s.id != 0);
    nkloop_write(L, s, reply, sizeof reply - 1);
    nkloop_set_proto(L, s, &line_proto, NULL);
}
TEST(upgrades) { // RFC 9110 7.8
    static const char with_body[] = "POST /l HTTP/1.1\r\nHost: a\r\nUpgrade: lines\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nbody!tail";
    nkhttp_server_desc d;
    kit k;
    size_t cut;
    memset(&d, 0, sizeof d);
    d.on_request = on_echo;
    d.on_upgrade = on_upgrade;
    kit_open(&k, NULL, &d);
    for (cut = 1; cut < sizeof with_body; cut++) { // the body belongs to the request, what follows to the new protocol
        client c;
        line_got[0] = 0;
        client_open(&k, &c);
        client_put(&k, &c, with_body, cut);
        kit_turns(&k, 2);
        client_put(&k, &c, with_body + cut, sizeof with_body - 1 - cut);
        CHECK(client_get(&k, &c, "tail"));
        CHECK(c.len && strncmp(c.text, "HTTP/1.1 101 Switching Protocols\r\n", 34) == 0);
        CHECK_STR(line_got, strlen(line_got), "tail");
        client_close(&c);
    }
    upgrades = 0;
    CHECK_TALK(&k, "GET / HTTP/1.0\r\nUpgrade: lines\r\nConnection: Upgrade\r\n\r\n", "200 OK");
    CHECK_TALK(&k, GET_("/", CLOSE_ "Upgrade: lines\r\n"), "200 OK"); // not named in Connection
    CHECK_TALK(&k, GET_("/", "Connection: upgrade, close\r\n"), "200 OK"); // nothing to upgrade to
    CHECK_INT(upgrades, 0);
    CHECK_TALK(&k, GET_("/", "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"), "200 OK");
    CHECK_INT(upgrades, 1);
    kit_close(&k);
}

// ---- behind a proxy ----
static void on_who(void* user, nkhttp_req* req) { (void)user; nkhttp_reply_text(req, 200, nkhttp_peer(req)); }
TEST(proxy_protocol_2) {
    static const char* const trusted[] = { "127.0.0.1", NULL };
    static const char v4[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x09\x08\x07\x06\x7f\0\0\x01\x15\xb3\0\x50";
    static const char v6[] = "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
                             "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x15\xb3\0\x50";
    static const char local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    static const char bad[] = "\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c\x09\x08\x07\x06\x7f\0\0\x01\x15\xb3\0\x50";
    static const struct { const char* bytes; size_t n; const char* peer; } t[] = {
        { v4, sizeof v4 - 1, "\r\n\r\n9.8.7.6:5555" }, { v6, sizeof v6 - 1, "\r\n\r\n[2001:db8::1]:5555" },
        { local, sizeof local - 1, "\r\n\r\n127.0.0.1:" }, { bad, sizeof bad - 1, NULL }
    };
    nkhttp_server_desc d;
    kit k;
    size_t i;
    memset(&d, 0, sizeof d);
    d.on_request = on_who;
    d.trusted_proxies = trusted;
    d.proxy_protocol = 1;
    kit_open(&k, NULL, &d);
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        int bytewise;
        for (bytewise = 0; bytewise < 2; bytewise++) {
            client c;
            size_t at;
            client_open(&k, &c);
            for (at = 0; bytewise && at < t[i].n; at++) client_put(&k, &c, t[i].bytes + at, 1);
            if (!bytewise) client_put(&k, &c, t[i].bytes, t[i].n);
            client_say(&k, &c, GET_("/", CLOSE_));
            CHECK(client_get(&k, &c, NULL));
            if (t[i].peer) CHECK(client_has(&c, t[i].peer));
            else CHECK_INT(c.len, 0);
            client_close(&c);
        }
    }
    kit_close(&k);
}

static int dial_unix(const char* path) {
    struct sockaddr_un a;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    memcpy(a.sun_path, path, strlen(path) + 1);
    CHECK_INT(connect(fd, (struct sockaddr*)&a, sizeof a), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}
TEST(a_proxy_on_a_unix_socket) {
    static const char* const trusted[] = { "unix:", NULL };
    const char* tmp = getenv("TMPDIR");
    char address[200];
    nkhttp_server_desc d;
    kit k;
    int pass;
    snprintf(address, sizeof address, "unix:%s/nkcheck.%ld", tmp && *tmp ? tmp : "/tmp", (long)getpid());
    if (strlen(address + 5) > 100) snprintf(address, sizeof address, "unix:/tmp/nkcheck.%ld", (long)getpid());
    for (pass = 0; pass < 3; pass++) {
        client c;
        memset(&d, 0, sizeof d);
        d.on_request = on_who;
        d.address = address;
        d.trusted_proxies = pass ? trusted : NULL;
        d.proxy_protocol = pass == 2;
        kit_open(&k, NULL, &d);
        memset(&c, 0, sizeof c);
        c.fd = dial_unix(address + 5);
        if (pass == 2) client_say(&k, &c, "PROXY TCP4 9.8.7.6 1.1.1.1 5555 80\r\n");
        client_say(&k, &c, GET_("/", CLOSE_ "X-Forwarded-For: 5.5.5.5, 1.2.3.4\r\n"));
        CHECK(client_get(&k, &c, NULL));
        CHECK(client_has(&c, pass == 0 ? "\r\n\r\nunix:" : pass == 1 ? "\r\n\r\n1.2.3.4" : "\r\n\r\n9.8.7.6:5555"));
        client_close(&c);
        kit_close(&k);
    }
    unlink(address + 5);
}

// ---- threads ----
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_open = PTHREAD_COND_INITIALIZER;
static int gate_is_open, num_counted;
static void on_gate(void* user, nkhttp_req* req) {
    (void)user;
    pthread_mutex_lock(&gate);
    while (!gate_is_open) pthread_cond_wait(&gate_open, &gate);
    pthread_mutex_unlock(&gate);
    nkhttp_reply_text(req, 200, "through the gate");
}
static void on_count(void* user, nkhttp_req* req) {
    (void)user;
    __atomic_add_fetch(&num_counted, 1, __ATOMIC_SEQ_CST);
    nkhttp_reply(req, 200, NULL, req->body, req->body_bytes);
}
TEST(a_slow_handler_holds_up_nobody) {
    nkhttp_server_desc d;
    kit k;
    client slow, quick;
    int i;
    memset(&d, 0, sizeof d);
    d.on_request = on_path;
    d.workers = 2;
    kit_open(&k, NULL, &d);
    nkhttp_route(k.srv, "GET", "/gate", on_gate, NULL);
    client_open(&k, &slow);
    client_say(&k, &slow, GET_("/gate", ""));
    for (i = 0; i < 5; i++) {
        client_open(&k, &quick);
        client_say(&k, &quick, GET_("/quick", CLOSE_));
        CHECK(client_get(&k, &quick, NULL));
        CHECK(client_has(&quick, "/quick"));
        client_close(&quick);
    }
    CHECK(!client_read(&slow));
    pthread_mutex_lock(&gate);
    gate_is_open = 1;
    pthread_cond_broadcast(&gate_open);
    pthread_mutex_unlock(&gate);
    CHECK(client_get(&k, &slow, "through the gate"));
    client_close(&slow);
    kit_close(&k);
}
TEST(twenty_clients_at_once) {
    enum { CLIENTS = 20, ROUNDS = 20 };
    uint32_t workers;
    for (workers = 0; workers <= 3; workers += 3) {
        client c[CLIENTS];
        nkhttp_server_desc d;
        kit k;
        int i, round;
        memset(&d, 0, sizeof d);
        d.on_request = on_count;
        d.workers = workers;
        kit_open(&k, NULL, &d);
        num_counted = 0;
        for (i = 0; i < CLIENTS; i++) client_open(&k, &c[i]);
        for (round = 1; round <= ROUNDS; round++) {
            for (i = 0; i < CLIENTS; i++) client_say(&k, &c[i], POST_("/", "Content-Length: 4\r\n", "POST"));
            for (i = 0; i < CLIENTS; i++) CHECK(client_got(&k, &c[i], "\r\n\r\nPOST", round));
        }
        CHECK_INT(__atomic_load_n(&num_counted, __ATOMIC_SEQ_CST), CLIENTS * ROUNDS);
        for (i = 0; i < CLIENTS; i++) client_close(&c[i]);
        kit_close(&k);
    }
}
TEST(started_and_stopped_many_times) { // nothing stays: memory is checked by kit_close, files here
    int i, first = -1, fd;
    for (i = 0; i < 30; i++) {
        nkhttp_server_desc d;
        kit k;
        client c;
        memset(&d, 0, sizeof d);
        d.on_request = on_path;
        d.workers = i % 3 ? 2 : 0;
        kit_open(&k, NULL, &d);
        client_open(&k, &c); // open when the server goes
        client_say(&k, &c, GET_("/x", ""));
        CHECK(client_get(&k, &c, "/x"));
        kit_close(&k);
        client_close(&c);
        fd = dup(0);
        close(fd);
        if (first < 0) first = fd;
        CHECK_INT(fd, first);
    }
}
