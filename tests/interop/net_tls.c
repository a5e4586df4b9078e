// net_tls.c -- the loop dials itself over TLS, through both adapters as client and as server. Built and run by loop_tls.sh,
// which makes the certificates: TLS_DIR holds ca.pem, other_ca.pem, server.pem/.key (localhost, 127.0.0.1),
// second.pem/.key (second.test, *.wild.test), client.pem/.key, stranger.pem/.key (of the other CA) and long.pem (a chain
// of more than the wire's buffers hold). POSIX only.
#define _GNU_SOURCE 1
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
static ssize_t cut_recv(int fd, void* p, size_t n, int flags);
static ssize_t cut_sendmsg(int fd, struct msghdr* m, int flags);
#define NETKIT_LOOP_SYS_RECV(fd, p, n, flags)     cut_recv((fd), (p), (n), (flags))
#define NETKIT_LOOP_SYS_SENDMSG(fd, msg, flags)   cut_sendmsg((fd), (msg), (flags))
#define NETKIT_IMPLEMENTATION
#include "netkit_loop.h"
#define TLS_OPENSSL_IMPLEMENTATION
#include "examples/tls_openssl.h"
#define TLS_MBEDTLS_IMPLEMENTATION
#include "examples/tls_mbedtls.h"
#include "../nktest.h"

// ---- the network cuts where it likes ----
static uint32_t seed = 12345;
static int cutting;
static uint32_t rnd(uint32_t n) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}
static size_t cut(size_t n) {
    if (!cutting || n == 0) return n;
    return 1 + rnd((uint32_t)(rnd(4) == 0 ? (n < 40 ? n : 40) : n));
}
static ssize_t cut_recv(int fd, void* p, size_t n, int flags) { return recv(fd, p, cut(n), flags); }
static ssize_t cut_sendmsg(int fd, struct msghdr* m, int flags) {
    if (cutting) {
        m->msg_iovlen = 1;
        m->msg_iov[0].iov_len = cut(m->msg_iov[0].iov_len);
    }
    return sendmsg(fd, m, flags);
}

// ---- both libraries behind one face ----
typedef struct options {
    const char *cert, *key, *ca, *more_cert, *more_key;
    int client_certs, trust_anybody;
    const char** alpn;
} options;
typedef struct library {
    const char* name;
    const nkloop_filter* filter;
    void* (*create)(const options* o, int server);
    void  (*destroy)(void* t);
    int   (*accept_fn)(void* t, nkloop* L, nkloop_stream s);
    void* (*connect_fn)(void* t, const char* host);
    const char* (*alpn)(nkloop* L, nkloop_stream s);
    void  (*half_close)(nkloop* L, nkloop_stream s); // says close_notify, inside on_data, and goes on reading
} library;

static char last_error[512];
static void on_error(void* user, const char* text) {
    (void)user;
    snprintf(last_error, sizeof last_error, "%s", text);
    if (getenv("NKTEST_VERBOSE")) printf("   %s\n", text);
}

// Fills the desc of either library: their members have the same names.
#define FILL(desc, table) do { \
        memset(&(desc), 0, sizeof (desc)); \
        (table)[0].cert_file = o->cert; (table)[0].key_file = o->key; \
        (table)[1].cert_file = o->more_cert; (table)[1].key_file = o->more_key; \
        (desc).certs = (table); (desc).num_certs = o->more_cert ? 2 : o->cert ? 1 : 0; (desc).ca_file = o->ca; \
        (desc).client_certs = o->client_certs; (desc).trust_anybody = o->trust_anybody; (desc).alpn = o->alpn; \
        (desc).on_error = on_error; \
    } while (0)

static void* openssl_create(const options* o, int server) {
    tls_openssl_desc d;
    tls_openssl_cert c[2];
    FILL(d, c);
    return tls_openssl_create(&d, server);
}
static void openssl_destroy(void* t) { tls_openssl_destroy((tls_openssl*)t); }
static int openssl_accept(void* t, nkloop* L, nkloop_stream s) { return tls_openssl_accept((tls_openssl*)t, L, s); }
static void* openssl_connect(void* t, const char* host) { return tls_openssl_connect((tls_openssl*)t, host); }
static const char* openssl_alpn(nkloop* L, nkloop_stream s) {
    static char name[64];
    const unsigned char* p = NULL;
    unsigned n = 0;
    if (!tls_openssl_ssl(L, s)) return "?";
    SSL_get0_alpn_selected(tls_openssl_ssl(L, s), &p, &n);
    snprintf(name, sizeof name, "%.*s", (int)n, p ? (const char*)p : "");
    return name;
}
static void* mbedtls_create(const options* o, int server) {
    tls_mbedtls_desc d;
    tls_mbedtls_cert c[2];
    FILL(d, c);
    return tls_mbedtls_create(&d, server);
}
static void mbedtls_destroy(void* t) { tls_mbedtls_destroy((tls_mbedtls*)t); }
static int mbedtls_accept(void* t, nkloop* L, nkloop_stream s) { return tls_mbedtls_accept((tls_mbedtls*)t, L, s); }
static void* mbedtls_connect(void* t, const char* host) { return tls_mbedtls_connect((tls_mbedtls*)t, host); }
static const char* mbedtls_alpn(nkloop* L, nkloop_stream s) {
    const char* name = tls_mbedtls_ssl(L, s) ? mbedtls_ssl_get_alpn_protocol(tls_mbedtls_ssl(L, s)) : "?";
    return name ? name : "";
}
static void openssl_half_close(nkloop* L, nkloop_stream s) { SSL_shutdown(tls_openssl_ssl(L, s)); }
static void mbedtls_half_close(nkloop* L, nkloop_stream s) { mbedtls_ssl_close_notify(tls_mbedtls_ssl(L, s)); }
static const library libraries[2] = {
    { "openssl", &tls_openssl_filter, openssl_create, openssl_destroy, openssl_accept, openssl_connect, openssl_alpn,
        openssl_half_close },
    { "mbedtls", &tls_mbedtls_filter, mbedtls_create, mbedtls_destroy, mbedtls_accept, mbedtls_connect, mbedtls_alpn,
        mbedtls_half_close },
};

// ---- two ends and what happens to them ----
typedef struct end {
    struct pair* pair;
    nkloop_stream s;
    uint64_t total, sent, wanted, got, bad; // bytes of the pattern: to send, to get, wrong
    int opened, eofs, closes, why, paused;
    int hold;          // does not read
    int close_at_end;  // when all is sent and got: 1 nkloop_finish, 2 nkloop_close
    int half_close;    // 1: says so at the first byte it gets
    uint64_t after_eof;// sends so much more when the other has said so
    char alpn[64];
} end;
typedef struct pair {
    nkloop* L;
    const library *server_lib, *client_lib;
    void *server_tls, *client_tls;
    nkloop_listener listener;
    end server, client;
    int pausing;       // both ends pause now and then
    int starttls;      // 1: the server's filter is set after a plain line
} pair;

static uint8_t pattern(uint64_t i, int server) { return (uint8_t)((i * 2654435761u >> 13) ^ (server ? 0x5a : 0)); }

static void fill(end* e) {
    uint8_t block[6000];
    while (e->sent < e->total) {
        uint64_t left = e->total - e->sent;
        size_t i, n = 1 + rnd(sizeof block - 1);
        if (n > left) n = (size_t)left;
        for (i = 0; i < n; i++) block[i] = pattern(e->sent + i, e == &e->pair->server);
        if (nkloop_write(e->pair->L, e->s, block, n) != NKLOOP_OK) return;
        e->sent += n;
    }
}
static void maybe_end(end* e) {
    if (e->sent < e->total || e->got < e->wanted) return;
    if (e->alpn[0] == 0) {
        const library* lib = e == &e->pair->server ? e->pair->server_lib : e->pair->client_lib;
        snprintf(e->alpn, sizeof e->alpn, "%s", lib->alpn(e->pair->L, e->s));
    }
    if (e->close_at_end == 1) nkloop_finish(e->pair->L, e->s);
    if (e->close_at_end == 2) nkloop_close(e->pair->L, e->s);
}
static size_t on_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
    end* e = (end*)self;
    size_t i, take = n;
    if (e->pair->starttls == 1 && e == &e->pair->server) { // "STARTTLS\n", and perhaps what comes behind it
        if (n < 9) return 0;
        CHECK_STR(bytes, 9, "STARTTLS\n");
        e->pair->starttls = 2;
        CHECK_INT(e->pair->server_lib->accept_fn(e->pair->server_tls, L, s), 0);
        fill(e);
        return 9;
    }
    if (e->pair->pausing && n > 1 && rnd(3) == 0) take = 1 + rnd((uint32_t)n - 1);
    if (e->pair->pausing && rnd(6) == 0) { e->paused = 1; nkloop_pause(L, s, 1); }
    for (i = 0; i < take; i++) e->bad += bytes[i] != pattern(e->got + i, e != &e->pair->server);
    memset(bytes, 0xee, take); // they may be changed in place
    if (e->half_close && e->got == 0) e->pair->client_lib->half_close(L, s);
    e->got += take;
    maybe_end(e);
    return take;
}
static void on_drain(void* self, nkloop* L, nkloop_stream s) { (void)L; (void)s; fill((end*)self); maybe_end((end*)self); }
static void on_eof(void* self, nkloop* L, nkloop_stream s) {
    end* e = (end*)self;
    e->eofs++;
    if (!e->after_eof) { nkloop_finish(L, s); return; }
    e->total += e->after_eof;
    fill(e);
}
static void on_close(void* self, nkloop* L, nkloop_stream s, int why) {
    (void)L; (void)s;
    ((end*)self)->closes++;
    ((end*)self)->why = why;
}
static void on_open(void* self, nkloop* L, nkloop_stream s) {
    end* e = (end*)self;
    e->opened = 1;
    e->s = s;
    if (e->pair->starttls) {
        CHECK_INT(nkloop_write(L, s, "STARTTLS\n", 9), 0);
        nkloop_flush(L);
        CHECK_INT(nkloop_set_filter(L, s, e->pair->client_lib->filter, e->pair->client_lib->connect_fn(e->pair->client_tls, "localhost")), 0);
    }
    fill(e);
}
static const nkloop_proto proto = { "pattern", on_data, on_drain, on_close, on_eof, on_open, NULL };

static void on_accept(void* user, nkloop* L, nkloop_stream s) {
    pair* p = (pair*)user;
    p->server.s = s;
    nkloop_set_proto(L, s, &proto, &p->server);
    if (p->starttls) return;
    CHECK_INT(p->server_lib->accept_fn(p->server_tls, L, s), 0);
    if (p->server.hold) nkloop_pause(L, s, 1);
    p->server.opened = 1;
    fill(&p->server); // before the handshake: it waits
}

static const char* in_dir(const char* name) {
    static char text[8][512];
    static int at;
    at = (at + 1) % 8;
    snprintf(text[at], sizeof text[at], "%s/%s", getenv("TLS_DIR") ? getenv("TLS_DIR") : ".", name);
    return text[at];
}
static options server_options(void) {
    options o;
    memset(&o, 0, sizeof o);
    o.cert = in_dir("server.pem");
    o.key = in_dir("server.key");
    return o;
}
static options client_options(void) {
    options o;
    memset(&o, 0, sizeof o);
    o.ca = in_dir("ca.pem");
    return o;
}

static int setup(pair* p, int server_lib, int client_lib, const options* so, const options* co) {
    nkloop_desc d;
    nkloop_listen_desc ld;
    const char* backend = getenv("NKTEST_BACKEND");
    memset(p, 0, sizeof *p);
    p->server.pair = p->client.pair = p;
    p->server_lib = &libraries[server_lib];
    p->client_lib = &libraries[client_lib];
    last_error[0] = 0;
    memset(&d, 0, sizeof d);
    if (backend && strcmp(backend, "poll") == 0) d.backend = NKLOOP_BACKEND_POLL;
    d.linger_ms = 10000; // a slow machine must not make it matter
    if (!CHECK_INT(nkloop_create(&p->L, &d), 0)) return 0;
    p->server_tls = p->server_lib->create(so, 1);
    p->client_tls = p->client_lib->create(co, 0);
    if (!CHECK(p->server_tls) || !CHECK(p->client_tls)) { printf("%s\n", last_error); return 0; }
    memset(&ld, 0, sizeof ld);
    ld.address = "127.0.0.1:0";
    ld.on_accept = on_accept;
    ld.user = p;
    return CHECK_INT(nkloop_listen(p->L, &ld, &p->listener), 0);
}
static void dial(pair* p, const char* host) {
    nkloop_dial_desc d;
    char address[64];
    memset(&d, 0, sizeof d);
    CHECK(nkloop_listener_address(p->L, p->listener, address, sizeof address) > 0);
    d.address = address;
    d.proto = &proto;
    d.self = &p->client;
    d.filter = p->client_lib->filter;
    d.filter_self = p->client_lib->connect_fn(p->client_tls, host);
    CHECK_INT(nkloop_dial(p->L, &d, &p->client.s), 0);
}
static void resume(end* e) {
    if (!e->paused || e->closes || rnd(2)) return;
    e->paused = 0;
    nkloop_pause(e->pair->L, e->s, 0);
}
// Turns until both ends are closed, or nothing has moved for a long time.
static int settled(pair* p) {
    uint64_t seen = 0;
    int idle = 0;
    while (idle < 400) {
        nkloop_stats st;
        if (p->server.closes + p->client.closes == 2) return 1;
        nkloop_wait(p->L, p->server.paused || p->client.paused ? 1 : 50);
        resume(&p->server);
        resume(&p->client);
        nkloop_get_stats(p->L, &st);
        if (st.bytes_in + st.bytes_out + st.closed != seen) idle = 0; else idle++;
        seen = st.bytes_in + st.bytes_out + st.closed;
    }
    printf("%s server, %s client: stuck; server sent %llu got %llu eof %d closed %d, client sent %llu got %llu eof %d closed %d; %s\n",
        p->server_lib->name, p->client_lib->name, (unsigned long long)p->server.sent, (unsigned long long)p->server.got,
        p->server.eofs, p->server.closes, (unsigned long long)p->client.sent, (unsigned long long)p->client.got,
        p->client.eofs, p->client.closes, last_error);
    return 0;
}
static void teardown(pair* p) {
    nkloop_destroy(p->L);
    if (p->server_tls) p->server_lib->destroy(p->server_tls);
    if (p->client_tls) p->client_lib->destroy(p->client_tls);
    cutting = 0;
}
static void transfer(pair* p, uint64_t up, uint64_t down) {
    p->client.total = p->server.wanted = up;
    p->server.total = p->client.wanted = down;
}
static void check_transfer(pair* p) {
    CHECK_INT(p->server.got, p->server.wanted);
    CHECK_INT(p->client.got, p->client.wanted);
    CHECK_INT(p->server.bad + p->client.bad, 0);
    CHECK_INT(p->server.closes, 1);
    CHECK_INT(p->client.closes, 1);
}
#define EACH(s, c) for (s = 0; s < 2; s++) for (c = 0; c < 2; c++)

// ---- what must work ----
TEST(small_and_orderly) {
    const char* server_alpn[] = { "http/1.1", "other", NULL };
    const char* client_alpn[] = { "h2", "other", "http/1.1", NULL };
    int s, c, round;
    EACH(s, c) for (round = 0; round < 3; round++) {
        options so = server_options(), co = client_options();
        pair p;
        so.alpn = round == 1 ? server_alpn : NULL;
        co.alpn = round == 1 ? client_alpn : NULL;
        if (!setup(&p, s, c, &so, &co)) continue;
        cutting = round == 2;
        transfer(&p, 100, 200);
        p.client.close_at_end = 1;
        dial(&p, "localhost");
        CHECK(settled(&p));
        check_transfer(&p);
        CHECK_INT(p.server.eofs, 1); // the client's close_notify
        CHECK_INT(p.server.why, NKLOOP_OK);
        CHECK_INT(p.client.why, NKLOOP_OK);
        CHECK_STR(p.client.alpn, strlen(p.client.alpn), round == 1 ? "http/1.1" : "");
        CHECK_STR(last_error, strlen(last_error), "");
        teardown(&p);
    }
}

TEST(ten_megabytes_both_ways) {
    int s, c;
    EACH(s, c) {
        options so = server_options(), co = client_options();
        pair p;
        if (!setup(&p, s, c, &so, &co)) continue;
        cutting = 1;
        p.pausing = 1;
        transfer(&p, 10u << 20, 10u << 20);
        p.client.close_at_end = 1;
        dial(&p, "localhost");
        CHECK(settled(&p));
        check_transfer(&p);
        CHECK_INT(p.server.eofs, 1);
        CHECK_INT(p.client.why, NKLOOP_OK);
        teardown(&p);
    }
}

// The last bytes and close_notify arrive also when the queue is long at nkloop_finish.
TEST(finish_with_a_full_queue) {
    int s, c;
    EACH(s, c) {
        options so = server_options(), co = client_options();
        pair p;
        if (!setup(&p, s, c, &so, &co)) continue;
        cutting = 1;
        transfer(&p, 0, 200 * 1024);
        p.server.close_at_end = 1;
        dial(&p, "localhost");
        while (!p.server.opened) nkloop_wait(p.L, 50);
        maybe_end(&p.server); // everything is queued, nothing is sent: the handshake has not even begun
        CHECK(settled(&p));
        check_transfer(&p);
        CHECK_INT(p.client.eofs, 1);
        teardown(&p);
    }
}

TEST(reader_that_pauses_stops_the_writer) {
    int s, c;
    EACH(s, c) {
        options so = server_options(), co = client_options();
        uint64_t stuck_at = 0;
        int still = 0;
        pair p;
        if (!setup(&p, s, c, &so, &co)) continue;
        transfer(&p, 64u << 20, 0);
        p.client.close_at_end = 1;
        p.server.hold = 1;
        dial(&p, "localhost");
        while (still < 5) {
            nkloop_wait(p.L, 20);
            still = p.client.opened && p.client.sent == stuck_at ? still + 1 : 0;
            stuck_at = p.client.sent;
        }
        CHECK(stuck_at > 0 && stuck_at < 32u << 20); // what the sockets and the queues hold
        CHECK_INT(p.server.got, 0);
        CHECK(nkloop_unsent(p.L, p.client.s) <= 256 * 1024);
        p.client.total = p.server.wanted = stuck_at + (1 << 20);
        nkloop_pause(p.L, p.server.s, 0);
        CHECK(settled(&p));
        check_transfer(&p);
        teardown(&p);
    }
}

TEST(names_and_certificates) {
    static const char* const hosts[] = { "localhost", "second.test", "a.wild.test", "127.0.0.1" };
    int s, c, i;
    EACH(s, c) for (i = 0; i < 4; i++) {
        options so = server_options(), co = client_options();
        pair p;
        if (c == 1 && i == 3) continue; // mbedTLS does not compare addresses
        so.more_cert = in_dir("second.pem");
        so.more_key = in_dir("second.key");
        if (!setup(&p, s, c, &so, &co)) continue;
        transfer(&p, 10, 10);
        p.client.close_at_end = 1;
        dial(&p, hosts[i]);
        CHECK(settled(&p));
        check_transfer(&p);
        CHECK_INT(p.client.why, NKLOOP_OK);
        teardown(&p);
    }
}

TEST(client_certificates) {
    int s, c, ask;
    EACH(s, c) for (ask = 0; ask < 3; ask++) {
        options so = server_options(), co = client_options();
        pair p;
        so.client_certs = ask;
        so.ca = in_dir("ca.pem");
        co.cert = in_dir("client.pem");
        co.key = in_dir("client.key");
        if (!setup(&p, s, c, &so, &co)) continue;
        transfer(&p, 1000, 1000);
        p.client.close_at_end = 1;
        dial(&p, "localhost");
        CHECK(settled(&p));
        check_transfer(&p);
        teardown(&p);
    }
}

// A flight that is longer than the wire's buffers. mbedTLS takes no such chain.
TEST(long_chain) {
    int round;
    for (round = 0; round < 2; round++) {
        options so = server_options(), co = client_options();
        pair p;
        so.cert = in_dir("long.pem");
        if (!setup(&p, 0, 0, &so, &co)) continue;
        cutting = round;
        transfer(&p, 1000, 1000);
        p.client.close_at_end = 1;
        dial(&p, "localhost");
        CHECK(settled(&p));
        check_transfer(&p);
        CHECK_INT(p.client.why, NKLOOP_OK);
        teardown(&p);
    }
}

TEST(filter_set_in_the_middle) {
    int s, c;
    EACH(s, c) {
        options so = server_options(), co = client_options();
        nkloop_dial_desc d;
        char address[64];
        pair p;
        if (!setup(&p, s, c, &so, &co)) continue;
        p.starttls = 1;
        transfer(&p, 50000, 50000);
        p.client.close_at_end = 1;
        memset(&d, 0, sizeof d);
        nkloop_listener_address(p.L, p.listener, address, sizeof address);
        d.address = address;
        d.proto = &proto;
        d.self = &p.client;
        CHECK_INT(nkloop_dial(p.L, &d, &p.client.s), 0);
        CHECK(settled(&p));
        check_transfer(&p);
        CHECK_INT(p.server.eofs, 1);
        teardown(&p);
    }
}

TEST(half_close) {
    int s, c;
    EACH(s, c) {
        options so = server_options(), co = client_options();
        pair p;
        if (!setup(&p, s, c, &so, &co)) continue;
        cutting = 1;
        transfer(&p, 0, 1);
        p.client.half_close = 1;
        p.client.wanted = 1 + (1 << 20);
        p.server.close_at_end = 1;
        p.server.after_eof = 1 << 20;
        dial(&p, "localhost");
        CHECK(settled(&p));
        check_transfer(&p);
        CHECK_INT(p.server.eofs, 1);
        CHECK_INT(p.client.eofs, 1);
        CHECK_INT(p.client.why, NKLOOP_OK);
        teardown(&p);
    }
}

// ---- what must be noticed ----
TEST(cut_off_is_not_the_end) {
    int s, c, who;
    EACH(s, c) for (who = 0; who < 2; who++) {
        options so = server_options(), co = client_options();
        pair p;
        if (!setup(&p, s, c, &so, &co)) continue;
        transfer(&p, 1000, 1000);
        (who ? &p.server : &p.client)->close_at_end = 2; // no close_notify
        dial(&p, "localhost");
        CHECK(settled(&p));
        CHECK_INT((who ? &p.server : &p.client)->why, NKLOOP_OK);
        CHECK_INT((who ? &p.client : &p.server)->why, NKLOOP_ERR_CLOSED);
        CHECK_INT((who ? &p.client : &p.server)->eofs, 0);
        CHECK_INT(p.server.bad + p.client.bad, 0);
        teardown(&p);
    }
}

// Changes one of the options and expects this end to refuse the other, with a text that holds `says`.
static void refused(int s, int c, const options* so, const options* co, const char* host, int by_server, const char* says) {
    pair p;
    if (!setup(&p, s, c, so, co)) return;
    transfer(&p, 1000, 1000);
    dial(&p, host);
    CHECK(settled(&p));
    CHECK_INT((by_server ? &p.server : &p.client)->why, NKLOOP_ERR_FILTER);
    CHECK((by_server ? &p.client : &p.server)->why < 0);
    CHECK_INT((by_server ? &p.server : &p.client)->got, 0);
    CHECK_INT(p.server.closes, 1);
    CHECK_INT(p.client.closes, 1);
    if (!CHECK(says == NULL || strstr(last_error, says) != NULL)) printf("    said: %s\n", last_error);
    teardown(&p);
}

TEST(wrong_peers_are_refused) {
    const char* our_alpn[] = { "http/1.1", NULL };
    const char* their_alpn[] = { "h2", NULL };
    int s, c;
    EACH(s, c) {
        options so = server_options(), co = client_options();
        co.ca = in_dir("other_ca.pem");
        refused(s, c, &so, &co, "localhost", 0, NULL);
        co = client_options();
        refused(s, c, &so, &co, "elsewhere.test", 0, NULL);
        refused(s, c, &so, &co, "second.test", 0, NULL); // the server has no such certificate
        so.client_certs = 2;
        so.ca = in_dir("ca.pem");
        refused(s, c, &so, &co, "localhost", 1, NULL);
        co.cert = in_dir("stranger.pem");
        co.key = in_dir("stranger.key");
        refused(s, c, &so, &co, "localhost", 1, NULL);
        so.client_certs = 1; // need not have one, but not a bad one
        refused(s, c, &so, &co, "localhost", 1, NULL);
        so = server_options();
        co = client_options();
        so.alpn = our_alpn;
        co.alpn = their_alpn;
        refused(s, c, &so, &co, "localhost", 1, NULL);
    }
}

TEST(anybody_is_trusted_on_request) {
    int s, c;
    EACH(s, c) {
        options so = server_options(), co = client_options();
        pair p;
        co.ca = NULL;
        co.trust_anybody = 1;
        if (!setup(&p, s, c, &so, &co)) continue;
        transfer(&p, 10, 10);
        p.client.close_at_end = 1;
        dial(&p, "whoever.test");
        CHECK(settled(&p));
        check_transfer(&p);
        teardown(&p);
    }
}

// A client without TLS: the server refuses, in words.
TEST(not_tls_at_all) {
    int s;
    for (s = 0; s < 2; s++) {
        options so = server_options(), co = client_options();
        nkloop_dial_desc d;
        char address[64];
        pair p;
        if (!setup(&p, s, 0, &so, &co)) continue;
        transfer(&p, 5000, 1000);
        memset(&d, 0, sizeof d);
        nkloop_listener_address(p.L, p.listener, address, sizeof address);
        d.address = address;
        d.proto = &proto;
        d.self = &p.client;
        CHECK_INT(nkloop_dial(p.L, &d, &p.client.s), 0);
        CHECK(settled(&p));
        CHECK_INT(p.server.why, NKLOOP_ERR_FILTER);
        CHECK_INT(p.server.got, 0);
        CHECK(last_error[0] != 0);
        teardown(&p);
    }
}

TEST(bad_settings) {
    static const char* const cases[][4] = { // certificate, key, client's CA, what is said
        { NULL, NULL, NULL, "a server needs one" },
        { "none.pem", "server.key", NULL, "none.pem" },
        { "server.pem", "server.pem", NULL, "server.pem" }, // no key in it
        { "server.pem", "second.key", NULL, "second.key" },
        { "server.pem", "locked.key", NULL, "locked.key" }, // has a password: nobody is asked
        { "server.pem", "server.key", "none.pem", "none.pem" },
    };
    int lib, i;
    for (lib = 0; lib < 2; lib++) for (i = 0; i < 6; i++) {
        options o;
        memset(&o, 0, sizeof o);
        if (cases[i][0]) o.cert = in_dir(cases[i][0]);
        if (cases[i][1]) o.key = in_dir(cases[i][1]);
        if (cases[i][2]) { o.ca = in_dir(cases[i][2]); o.client_certs = 2; }
        last_error[0] = 0;
        CHECK(libraries[lib].create(&o, 1) == NULL);
        if (!CHECK(strstr(last_error, cases[i][3]) != NULL)) printf("    %s said: %s\n", libraries[lib].name, last_error);
    }
}

// The loop may be destroyed, a stream closed, at any moment of the handshake.
TEST(ends_at_any_moment) {
    int s, c, turns;
    EACH(s, c) for (turns = 0; turns < 12; turns++) {
        options so = server_options(), co = client_options();
        pair p;
        int i;
        if (!setup(&p, s, c, &so, &co)) continue;
        cutting = turns % 2;
        transfer(&p, 10000, 10000);
        dial(&p, "localhost");
        for (i = 0; i < turns; i++) nkloop_pump(p.L, 1000);
        if (turns % 3 == 0) nkloop_close(p.L, p.client.s);
        if (turns % 3 == 1 && p.server.opened) { nkloop_finish(p.L, p.server.s); CHECK(settled(&p)); }
        nkloop_destroy(p.L);
        CHECK_INT(p.client.closes, 1);
        CHECK_INT(p.server.closes, p.server.opened);
        p.server_lib->destroy(p.server_tls);
        p.client_lib->destroy(p.client_tls);
        cutting = 0;
    }
}
