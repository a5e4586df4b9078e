// http_app.c -- a small web application: router, JSON, cookies, forms, uploads, events, late and streamed replies.
//   cc -O2 -I. examples/http_app.c -o build/http_app -lpthread && build/http_app 127.0.0.1:8080
//   then open http://127.0.0.1:8080/ or try the curl lines that page shows
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include <signal.h>

static nkloop* app_loop;
static nkhttp_server* app_server;
static void on_signal(int sig) { (void)sig; nkloop_stop(app_loop); }

// ---- JSON: just enough to write ----

typedef struct json { char text[16384]; size_t len; } json; // what does not fit is cut at a whole value, see json_room

static int json_room(json* j, size_t n) { return sizeof j->text - j->len > n + 64; } // 64: to close what is open
static void json_raw(json* j, const char* text) {
    size_t n = strlen(text);
    memcpy(j->text + j->len, text, n);
    j->len += n;
}
static void json_string(json* j, const char* p, size_t n) {
    size_t i;
    json_raw(j, "\"");
    for (i = 0; i < n && json_room(j, 6); i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\') j->text[j->len++] = '\\';
        if (c >= 32) j->text[j->len++] = (char)c;
        else j->len += (size_t)snprintf(j->text + j->len, 8, "\\u%04x", c);
    }
    json_raw(j, "\"");
}
static void json_number(json* j, uint64_t v) { j->len += (size_t)snprintf(j->text + j->len, 24, "%llu", (unsigned long long)v); }
static void json_key(json* j, const char* key) {
    if (j->text[j->len - 1] != '{') json_raw(j, ",");
    json_string(j, key, strlen(key));
    json_raw(j, ":");
}
static void json_begin(json* j) { j->len = 0; json_raw(j, "{"); }
static void json_reply(nkhttp_req* req, json* j) {
    json_raw(j, "}\n");
    nkhttp_reply(req, 200, "application/json", j->text, j->len);
}

// ---- pages ----

static const char index_page[] =
    "<!doctype html><meta charset=utf-8><title>http_app</title><style>body{font:16px/1.5 sans-serif;max-width:46em;margin:2em auto}"
    "pre{background:#eee;padding:.6em;overflow:auto}</style><h1>http_app</h1>"
    "<ul><li><a href=/api/hello/world>/api/hello/{name}</a> JSON<li><a href=/api/stats>/api/stats</a> counters"
    "<li><a href=/visits>/visits</a> a cookie<li><a href='/later?ms=500'>/later?ms=500</a> answered later"
    "<li><a href=/stream>/stream</a> streamed, as fast as you read<li><a href=/private>/private</a> user <b>demo</b>, password <b>demo</b></ul>"
    "<form method=post action=/form>form: <input name=text value='a &amp; b'> <button>send</button></form>"
    "<form method=post action=/upload enctype=multipart/form-data>upload: <input type=file name=file> <button>send</button></form>"
    "<p>events: <span id=e>waiting</span><script>new EventSource('/events').onmessage=e=>"
    "document.getElementById('e').textContent=e.data</script><pre>"
    "curl -i http://HOST/api/hello/world\ncurl -d 'text=a+b' http://HOST/form\ncurl -F file=@README.md http://HOST/upload\n"
    "curl -N http://HOST/events\ncurl -u demo:demo http://HOST/private</pre>";

static void on_index(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, "text/html; charset=utf-8", index_page, sizeof index_page - 1);
}

static void on_hello(void* user, nkhttp_req* req) {
    nkhttp_str name = nkhttp_param(req, "name");
    json j;
    (void)user;
    json_begin(&j);
    json_key(&j, "hello");
    json_string(&j, name.ptr ? name.ptr : "", name.len);
    json_reply(req, &j);
}

static void on_stats(void* user, nkhttp_req* req) {
    nkhttp_stats s;
    json j;
    (void)user;
    nkhttp_get_stats(app_server, &s);
    json_begin(&j);
    json_key(&j, "requests");    json_number(&j, s.requests);
    json_key(&j, "connections"); json_number(&j, s.connections);
    json_key(&j, "open");        json_number(&j, s.open_connections);
    json_key(&j, "bytes_in");    json_number(&j, s.bytes_in);
    json_key(&j, "bytes_out");   json_number(&j, s.bytes_out);
    json_reply(req, &j);
}

static void on_visits(void* user, nkhttp_req* req) {
    nkhttp_str old;
    nkhttp_cookie cookie;
    char count[16], field[128];
    unsigned n = 0;
    size_t i;
    (void)user;
    if (nkhttp_cookie_get(nkhttp_header_value(req, "Cookie"), "visits", &old) == 0) {
        for (i = 0; i < old.len && i < 6 && old.ptr[i] >= '0' && old.ptr[i] <= '9'; i++) n = n * 10 + (unsigned)(old.ptr[i] - '0');
    }
    snprintf(count, sizeof count, "%u", n + 1);
    memset(&cookie, 0, sizeof cookie);
    cookie.name = "visits", cookie.value = count, cookie.path = "/";
    cookie.max_age_s = 86400;
    cookie.same_site = NKHTTP_SAME_SITE_LAX;
    cookie.http_only = 1;
    if (nkhttp_cookie_format(field, sizeof field, &cookie) > 0) nkhttp_set_header(req, "Set-Cookie", field);
    nkhttp_reply_text(req, 200, count);
}

static void on_private(void* user, nkhttp_req* req) {
    (void)user;
    if (nkhttp_require_basic_auth(req, "http_app", "demo", "demo")) nkhttp_reply_text(req, 200, "welcome\n");
}

// application/x-www-form-urlencoded: the decoded pairs come back as JSON.
static void on_form(void* user, nkhttp_req* req) {
    nkhttp_str rest, key, value;
    char k[256], v[4096];
    size_t kn, vn;
    json j;
    (void)user;
    rest.ptr = req->body ? (const char*)req->body : "";
    rest.len = req->body_bytes;
    json_begin(&j);
    while (nkhttp_query_next(&rest, &key, &value)) {
        if (nkhttp_form_decode(k, sizeof k - 1, key.ptr, key.len, &kn) < 0
            || nkhttp_form_decode(v, sizeof v, value.ptr, value.len, &vn) < 0) { nkhttp_reply_text(req, 400, "bad or too long field\n"); return; }
        if (!json_room(&j, 6 * (kn + vn))) { nkhttp_reply_text(req, 413, "form too large\n"); return; }
        k[kn] = 0;
        json_key(&j, k);
        json_string(&j, v, vn);
    }
    json_reply(req, &j);
}

// ---- uploads: multipart/form-data of any size, counted as it streams by; memory stays at one small buffer ----

typedef struct upload { nkhttp_multipart parser; char held[16384]; size_t num_held; uint64_t part_bytes; int failed; json result; } upload;

static void upload_begin(void* user, nkhttp_req* req) {
    nkhttp_str boundary;
    upload* u;
    (void)user;
    if (nkhttp_boundary(nkhttp_header_value(req, "Content-Type"), &boundary) < 0) { nkhttp_reply_text(req, 400, "not multipart\n"); return; }
    if (!(u = (upload*)calloc(1, sizeof *u))) { nkhttp_reply_text(req, 503, "out of memory\n"); return; }
    if (nkhttp_multipart_init(&u->parser, boundary) < 0) u->failed = 1;
    json_begin(&u->result);
    req->request_user = u;
}

static void upload_event(upload* u, int event, const nkhttp_part_event* e) {
    if (event == NKHTTP_PART_BEGIN) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(e->name.len < 60 ? e->name.len : 60), e->name.ptr);
        u->part_bytes = 0;
        if (json_room(&u->result, 512)) json_key(&u->result, name);
        else u->failed = 1;
    } else if (event == NKHTTP_PART_DATA) {
        u->part_bytes += e->data.len;
    } else if (event == NKHTTP_PART_END) {
        json_number(&u->result, u->part_bytes);
    }
}

// Appends to what the parser left over last time; it never leaves more than 8 KiB.
static int upload_body(void* user, nkhttp_req* req, const uint8_t* bytes, size_t n) {
    upload* u = (upload*)req->request_user;
    (void)user;
    while (u && n > 0 && !u->failed) {
        size_t take = sizeof u->held - u->num_held < n ? sizeof u->held - u->num_held : n, at = 0, used;
        nkhttp_part_event e;
        int event;
        memcpy(u->held + u->num_held, bytes, take);
        u->num_held += take;
        bytes += take;
        n -= take;
        while ((event = nkhttp_multipart_next(&u->parser, u->held + at, u->num_held - at, &used, &e)) > 0) {
            upload_event(u, event, &e);
            at += used;
            if (event == NKHTTP_PART_DONE) break;
        }
        if (event < 0) u->failed = 1;
        else if (event == NKHTTP_PART_MORE) at += used;
        memmove(u->held, u->held + at, u->num_held - at);
        u->num_held -= at;
        if (event == NKHTTP_PART_DONE) u->num_held = 0;
    }
    return 0;
}

static void upload_done(void* user, nkhttp_req* req) {
    upload* u = (upload*)req->request_user;
    (void)user;
    if (u->failed || nkhttp_multipart_finish(&u->parser) < 0) nkhttp_reply_text(req, 400, "malformed multipart body\n");
    else json_reply(req, &u->result);
}

static void upload_end(void* user, nkhttp_req* req, int why) { (void)user; (void)why; free(req->request_user); }

// ---- replies that come later ----

static void on_later_timer(void* user) {
    nkhttp_handle h;
    h.id = *(uint64_t*)user;
    nkhttp_later_text(app_server, h, 200, "better late than never\n"); // harmless if the client has left
    free(user);
}

static void on_later(void* user, nkhttp_req* req) {
    char ms[16] = "100";
    uint64_t* id = (uint64_t*)malloc(sizeof *id);
    unsigned long wait;
    (void)user;
    if (!id) { nkhttp_reply_text(req, 503, "out of memory\n"); return; }
    nkhttp_query_get(req->head->query, "ms", ms, sizeof ms);
    wait = strtoul(ms, NULL, 10);
    *id = nkhttp_defer(req).id;
    if (nkloop_timer_start(app_loop, wait < 10000 ? (uint32_t)wait : 10000, 0, on_later_timer, id, NULL) < 0) on_later_timer(id);
}

// 10 MB, one line at a time, never more in memory than the send queue takes.
typedef struct stream { uint32_t line; } stream;
static void stream_more(void* user, nkhttp_handle h) {
    stream* s = (stream*)user;
    char line[64];
    for (; s->line < 200000; s->line++) {
        int n = snprintf(line, sizeof line, "line %08u of a reply that is made while it is sent\n", (unsigned)s->line);
        if (nkhttp_later_write(app_server, h, line, (size_t)n) < 0) return; // full: called again when there is room
    }
    nkhttp_later_end(app_server, h, NULL, 0);
}
static void stream_gone(void* user, nkhttp_handle h, int why) { (void)h; (void)why; free(user); }

static void on_stream(void* user, nkhttp_req* req) {
    nkhttp_reply_desc d;
    nkhttp_handle h;
    stream* s = (stream*)calloc(1, sizeof *s);
    (void)user;
    if (!s) { nkhttp_reply_text(req, 503, "out of memory\n"); return; }
    memset(&d, 0, sizeof d);
    d.content_type = "text/plain";
    h = nkhttp_defer(req);
    if (nkhttp_later_begin(app_server, h, &d, UINT64_MAX) < 0 || nkhttp_later_watch(app_server, h, stream_more, stream_gone, s) < 0) { free(s); return; }
    stream_more(s, h);
}

// ---- Server-Sent Events: everybody who listens gets the second ----

static nkhttp_handle listeners[256];
static size_t num_listeners;

static void on_events(void* user, nkhttp_req* req) {
    nkhttp_handle h;
    (void)user;
    if (num_listeners == sizeof listeners / sizeof listeners[0]) { nkhttp_reply_text(req, 503, "too many listeners\n"); return; }
    h = nkhttp_sse_begin(req);
    if (h.id) listeners[num_listeners++] = h;
}

static void on_second(void* user) {
    static unsigned second;
    char text[32];
    size_t i, kept = 0;
    (void)user;
    snprintf(text, sizeof text, "second %u", ++second);
    for (i = 0; i < num_listeners; i++) { // whoever is gone drops out; whoever is slow misses this one
        if (nkhttp_sse_send(app_server, listeners[i], NULL, NULL, text) != NKHTTP_ERR_STALE) listeners[kept++] = listeners[i];
    }
    num_listeners = kept;
}

static const struct { const char *method, *pattern; nkhttp_handler fn; } routes[] = {
    { "GET", "/", on_index }, { "GET", "/api/hello/{name}", on_hello }, { "GET", "/api/stats", on_stats },
    { "GET", "/visits", on_visits }, { "GET", "/private", on_private }, { "POST", "/form", on_form },
    { "GET", "/later", on_later }, { "GET", "/stream", on_stream }, { "GET", "/events", on_events },
};

int main(int argc, char** argv) {
    nkhttp_server_desc d = { 0 };
    nkhttp_route_desc up = { 0 };
    char address[128];
    size_t i;
    int err;
    d.address = argc > 1 ? argv[1] : "127.0.0.1:0";
    if ((err = nkloop_create(&app_loop, NULL)) < 0 || (err = nkhttp_server_create(&app_server, app_loop, &d)) < 0) {
        fprintf(stderr, "http_app: cannot listen on %s: %s\n", d.address, nkhttp_strerror(err));
        return 1;
    }
    up.method = "POST", up.pattern = "/upload";
    up.max_body_bytes = UINT64_MAX;
    up.on_begin = upload_begin, up.on_body = upload_body, up.on_request = upload_done, up.on_end = upload_end;
    for (i = 0; i < sizeof routes / sizeof routes[0] && err >= 0; i++) err = nkhttp_route(app_server, routes[i].method, routes[i].pattern, routes[i].fn, NULL);
    if (err < 0 || nkhttp_route_add(app_server, &up) < 0 || nkloop_timer_start(app_loop, 1000, 1000, on_second, NULL, NULL) < 0) return 1;
    signal(SIGINT, on_signal), signal(SIGTERM, on_signal);
    nkhttp_server_address(app_server, address, sizeof address);
    printf("listening on %s\n", address);
    fflush(stdout);
    nkloop_run(app_loop);
    nkhttp_server_destroy(app_server), nkloop_destroy(app_loop);
    return 0;
}
