/*  tls_mbedtls.h -- TLS for the streams of netkit_loop.h, by mbedTLS 2.28 or 3.x.

    In one .c file, behind netkit's implementation, and link with -lmbedtls -lmbedx509 -lmbedcrypto:
        #define TLS_MBEDTLS_IMPLEMENTATION
        #include "tls_mbedtls.h"
    Server: tls_mbedtls_accept in nkloop_listen_desc.on_accept, or in nkhttp_server_desc.on_stream.
    Client: dial.filter = &tls_mbedtls_filter; dial.filter_self = tls_mbedtls_connect(tls, "a.com");
    What the protocol writes before the handshake is over waits. A peer that is refused or breaks the
    rules ends the stream with NKLOOP_ERR_FILTER, after on_error has said why. A peer that ends in order
    (close_notify) is an on_eof; one that is cut off is on_close with NKLOOP_ERR_CLOSED and no on_eof.
    TLS 1.2, and 1.3 where mbedTLS has it; no renegotiation. Every stream keeps mbedTLS's two record
    buffers, some 35 KB: MBEDTLS_SSL_VARIABLE_BUFFER_LENGTH makes them shrink.  */
#ifndef TLS_MBEDTLS_INCLUDED
#define TLS_MBEDTLS_INCLUDED 1
#include "netkit_loop.h"

typedef struct tls_mbedtls tls_mbedtls;   // settings and certificates of the streams of one loop
typedef struct tls_mbedtls_cert { const char *cert_file, *key_file; } tls_mbedtls_cert;
typedef struct tls_mbedtls_desc {         // nothing of it is kept but alpn, on_error and user
    const char* cert_file;                // PEM: the own certificate, then those between it and the root
    const char* key_file;                 // PEM, no password. A server must have both, a client may
    const char* ca_file;                  // PEM: who vouches for the peer. A client must have it
    int         client_certs;             // server: 0 not asked for, 1 checked if there is one, 2 required
    int         trust_anybody;            // client: 1: checks no certificate. For tests
    const char** alpn;                    // "h2", "http/1.1": best first, then NULL; kept; default no ALPN
    const tls_mbedtls_cert* more;         // server: taken when a client asks for a name in one of them
    uint32_t    num_more;
    void      (*on_error)(void* user, const char* text); // also when create fails
    void*       user;
} tls_mbedtls_desc;

tls_mbedtls* tls_mbedtls_create(const tls_mbedtls_desc* desc, int server); // NULL: on_error was told why
void  tls_mbedtls_destroy(tls_mbedtls* t);                                 // after its streams
int   tls_mbedtls_accept(tls_mbedtls* t, nkloop* L, nkloop_stream s);      // server: 0 or < 0
// Client: name that the certificate must have (mbedTLS knows no addresses), NULL any. NULL: out of memory.
void* tls_mbedtls_connect(tls_mbedtls* t, const char* host);
// What mbedTLS knows of s: mbedtls_ssl_get_alpn_protocol ... NULL: s has no such filter.
struct mbedtls_ssl_context* tls_mbedtls_ssl(nkloop* L, nkloop_stream s);
extern const nkloop_filter tls_mbedtls_filter;
#endif // TLS_MBEDTLS_INCLUDED

#ifdef TLS_MBEDTLS_IMPLEMENTATION
#include <mbedtls/version.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/ssl.h>
#if MBEDTLS_VERSION_MAJOR >= 3
    #include <psa/crypto.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tls_mbedtls_p_own { mbedtls_x509_crt cert; mbedtls_pk_context key; } tls_mbedtls_p_own;
struct tls_mbedtls {
    mbedtls_ssl_config       config;
    mbedtls_entropy_context  entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_x509_crt         ca;
    tls_mbedtls_p_own*       own;         // the first is for every name that no other has
    uint32_t                 num_own;
    int                      optional;    // the peer's certificate
    void                   (*on_error)(void* user, const char* text);
    void*                    user;
};
typedef struct tls_mbedtls_p_stream {
    tls_mbedtls*        t;
    nkloop_wire*        w;                // during a call
    size_t              at;               // how much of wire_rx is used up
    int                 ready, failed;
    mbedtls_ssl_context ssl;
    char                name[64];         // for messages
} tls_mbedtls_p_stream;

static int tls_mbedtls_p_error(const tls_mbedtls* t, const char* what, const char* name, int e, const char* why) {
    char text[512], reason[160];
    mbedtls_strerror(e, reason, sizeof reason);
    snprintf(text, sizeof text, "%s%s%s: %s", what, *name ? " " : "", name, why ? why : reason);
    if (t->on_error) t->on_error(t->user, text);
    return -1;
}

static int tls_mbedtls_p_recv(void* self, unsigned char* p, size_t n) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    if (n > s->w->wire_rx.len - s->at) n = s->w->wire_rx.len - s->at;
    if (n == 0) return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(p, s->w->wire_rx.data + s->at, n);
    s->at += n;
    return (int)n;
}
static int tls_mbedtls_p_send(void* self, const unsigned char* p, size_t n) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    nkloop_buf* to = &s->w->wire_tx;
    // Later, mbedTLS would take the next write for the rest of this: better no alert than a hole in the bytes.
    if (s->ready && n > to->cap - to->len) return MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL;
    if (n > to->cap - to->len) n = to->cap - to->len;
    if (n == 0) return MBEDTLS_ERR_SSL_WANT_WRITE;
    memcpy(to->data + to->len, p, n);
    to->len += n;
    return (int)n;
}

// ---- settings --------------------------------------------------------------------------------
static int tls_mbedtls_p_on_name(void* arg, mbedtls_ssl_context* ssl, const unsigned char* name, size_t n) {
    tls_mbedtls* t = (tls_mbedtls*)arg;
    char host[256];
    uint32_t i;
    if (n >= sizeof host) return 0;
    memcpy(host, name, n);
    host[n] = 0;
    for (i = 0; i < t->num_own; i++) { // trusting nobody: all that is asked is whether the name is in it
        uint32_t flags = 0;
        mbedtls_x509_crt_verify(&t->own[i].cert, NULL, NULL, host, &flags, NULL, NULL);
        if (!(flags & MBEDTLS_X509_BADCERT_CN_MISMATCH)) return mbedtls_ssl_set_hs_own_cert(ssl, &t->own[i].cert, &t->own[i].key);
    }
    return 0;
}

static int tls_mbedtls_p_load(tls_mbedtls* t, const char* cert, const char* key) {
    tls_mbedtls_p_own* o = &t->own[t->num_own];
    int r;
    mbedtls_x509_crt_init(&o->cert);
    mbedtls_pk_init(&o->key);
    t->num_own++;
    if ((r = mbedtls_x509_crt_parse_file(&o->cert, cert)) != 0)
        return tls_mbedtls_p_error(t, "cert_file", cert, r, r > 0 ? "some of its certificates cannot be read" : NULL);
    #if MBEDTLS_VERSION_MAJOR >= 3
    r = mbedtls_pk_parse_keyfile(&o->key, key, NULL, mbedtls_ctr_drbg_random, &t->random);
    if (r == 0 && mbedtls_pk_check_pair(&o->cert.pk, &o->key, mbedtls_ctr_drbg_random, &t->random) != 0) r = 1;
    #else
    r = mbedtls_pk_parse_keyfile(&o->key, key, NULL);
    if (r == 0 && mbedtls_pk_check_pair(&o->cert.pk, &o->key) != 0) r = 1;
    #endif
    return r ? tls_mbedtls_p_error(t, "key_file", key, r, r > 0 ? "is not the certificate's" : NULL) : 0;
}

static int tls_mbedtls_p_setup(tls_mbedtls* t, const tls_mbedtls_desc* d, int server) {
    static const int modes[3] = { MBEDTLS_SSL_VERIFY_NONE, MBEDTLS_SSL_VERIFY_OPTIONAL, MBEDTLS_SSL_VERIFY_REQUIRED };
    int mode = server ? modes[d->client_certs > 1 ? 2 : d->client_certs > 0] : modes[d->trust_anybody ? 0 : 2], r;
    uint32_t i;
    #if MBEDTLS_VERSION_MAJOR >= 3
    psa_crypto_init();
    #endif
    r = mbedtls_ctr_drbg_seed(&t->random, mbedtls_entropy_func, &t->entropy, NULL, 0);
    if (r == 0) r = mbedtls_ssl_config_defaults(&t->config, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                                MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (r == 0 && d->alpn) r = mbedtls_ssl_conf_alpn_protocols(&t->config, d->alpn);
    if (r != 0) return tls_mbedtls_p_error(t, "tls", "", r, NULL);
    t->optional = mode == MBEDTLS_SSL_VERIFY_OPTIONAL;
    mbedtls_ssl_conf_min_version(&t->config, 3, 3); // TLS 1.2
    mbedtls_ssl_conf_rng(&t->config, mbedtls_ctr_drbg_random, &t->random);
    mbedtls_ssl_conf_authmode(&t->config, mode);
    if (mode != MBEDTLS_SSL_VERIFY_NONE) {
        if (!d->ca_file) return tls_mbedtls_p_error(t, "ca_file", "", 0, "needed");
        if ((r = mbedtls_x509_crt_parse_file(&t->ca, d->ca_file)) < 0) return tls_mbedtls_p_error(t, "ca_file", d->ca_file, r, NULL);
        mbedtls_ssl_conf_ca_chain(&t->config, &t->ca, NULL);
    }
    if (!d->cert_file != !d->key_file || (server && !d->cert_file))
        return tls_mbedtls_p_error(t, "cert_file, key_file", "", 0, "both are needed");
    if (d->cert_file && tls_mbedtls_p_load(t, d->cert_file, d->key_file) < 0) return -1;
    for (i = 0; server && i < d->num_more; i++)
        if (tls_mbedtls_p_load(t, d->more[i].cert_file, d->more[i].key_file) < 0) return -1;
    if (server) mbedtls_ssl_conf_sni(&t->config, tls_mbedtls_p_on_name, t);
    r = t->num_own ? mbedtls_ssl_conf_own_cert(&t->config, &t->own[0].cert, &t->own[0].key) : 0;
    return r == 0 ? 0 : tls_mbedtls_p_error(t, "cert_file", d->cert_file, r, NULL);
}

tls_mbedtls* tls_mbedtls_create(const tls_mbedtls_desc* d, int server) {
    tls_mbedtls* t = (tls_mbedtls*)calloc(1, sizeof *t);
    if (!t) return NULL;
    t->on_error = d->on_error;
    t->user = d->user;
    mbedtls_ssl_config_init(&t->config);
    mbedtls_entropy_init(&t->entropy);
    mbedtls_ctr_drbg_init(&t->random);
    mbedtls_x509_crt_init(&t->ca);
    t->own = (tls_mbedtls_p_own*)calloc(d->num_more + (size_t)1, sizeof *t->own);
    if (t->own && tls_mbedtls_p_setup(t, d, server) == 0) return t;
    tls_mbedtls_destroy(t);
    return NULL;
}

void tls_mbedtls_destroy(tls_mbedtls* t) {
    if (!t) return;
    while (t->num_own > 0) {
        mbedtls_x509_crt_free(&t->own[--t->num_own].cert);
        mbedtls_pk_free(&t->own[t->num_own].key);
    }
    mbedtls_x509_crt_free(&t->ca);
    mbedtls_ssl_config_free(&t->config);
    mbedtls_ctr_drbg_free(&t->random);
    mbedtls_entropy_free(&t->entropy);
    free(t->own);
    free(t);
}

// ---- a stream --------------------------------------------------------------------------------
// What mbedTLS means when it did not do what it was asked.
static int tls_mbedtls_p_why(tls_mbedtls_p_stream* s, int r) {
    char text[256] = "";
    uint32_t flags = mbedtls_ssl_get_verify_result(&s->ssl);
    if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE)
        return s->ready ? NKLOOP_FILTER_OK : NKLOOP_FILTER_HANDSHAKING;
    if ((r == 0 || r == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) && s->ready) return NKLOOP_FILTER_EOF;
    s->failed = 1;
    if (r == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) mbedtls_x509_crt_verify_info(text, sizeof text, "", flags);
    text[strcspn(text, "\n")] = 0; // the first of its reasons
    return tls_mbedtls_p_error(s->t, s->ready ? "tls" : "tls handshake", s->name, r, text[0] ? text : NULL);
}

static int tls_mbedtls_p_handshake(tls_mbedtls_p_stream* s) {
    int r = s->ready ? 0 : mbedtls_ssl_handshake(&s->ssl);
    // A certificate that is not required may be missing, but not be bad.
    if (r == 0 && !s->ready && s->t->optional && mbedtls_ssl_get_verify_result(&s->ssl)
            & ~(uint32_t)(MBEDTLS_X509_BADCERT_MISSING | MBEDTLS_X509_BADCERT_SKIP_VERIFY)) {
        mbedtls_ssl_send_alert_message(&s->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL, MBEDTLS_SSL_ALERT_MSG_BAD_CERT);
        r = MBEDTLS_ERR_X509_CERT_VERIFY_FAILED;
    }
    if (r == 0) s->ready = 1;
    return r == 0 ? 1 : r;
}

static int tls_mbedtls_p_in(void* self, nkloop_wire* w) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    int n;
    s->w = w;
    s->at = 0;
    n = tls_mbedtls_p_handshake(s);
    while (n > 0 && w->plain_rx.len < w->plain_rx.cap) {
        n = mbedtls_ssl_read(&s->ssl, w->plain_rx.data + w->plain_rx.len, w->plain_rx.cap - w->plain_rx.len);
        if (n > 0) w->plain_rx.len += (size_t)n;
        #ifdef MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET
        if (n == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) n = 1;
        #endif
    }
    memmove(w->wire_rx.data, w->wire_rx.data + s->at, w->wire_rx.len -= s->at);
    return n > 0 ? NKLOOP_FILTER_OK : tls_mbedtls_p_why(s, n);
}

static int tls_mbedtls_p_out(void* self, nkloop_wire* w) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    nkloop_buf *from = &w->plain_tx, *to = &w->wire_tx;
    size_t done = 0;
    int got, most = mbedtls_ssl_get_max_out_record_payload(&s->ssl);
    s->w = w;
    s->at = 0;
    got = tls_mbedtls_p_handshake(s); // a long flight goes on
    while (got > 0 && done < from->len && to->cap - to->len >= 1024) { // whole records only, see send
        size_t n = to->cap - to->len - 512; // for the record's frame
        if (n > from->len - done) n = from->len - done;
        if (most > 0 && n > (size_t)most) n = (size_t)most;
        got = mbedtls_ssl_write(&s->ssl, from->data + done, n);
        if (got > 0) done += (size_t)got;
    }
    memmove(w->wire_rx.data, w->wire_rx.data + s->at, w->wire_rx.len -= s->at);
    memmove(from->data, from->data + done, from->len -= done);
    return got > 0 ? NKLOOP_FILTER_OK : tls_mbedtls_p_why(s, got);
}

static void tls_mbedtls_p_stop(void* self, nkloop_wire* w) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    s->w = w;
    if (w && s->ready && !s->failed) mbedtls_ssl_close_notify(&s->ssl);
    mbedtls_ssl_free(&s->ssl);
    free(s);
}
const nkloop_filter tls_mbedtls_filter =
    { "mbedtls", tls_mbedtls_p_in, tls_mbedtls_p_in, tls_mbedtls_p_out, tls_mbedtls_p_stop };

static tls_mbedtls_p_stream* tls_mbedtls_p_open(tls_mbedtls* t, const char* host) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)calloc(1, sizeof *s);
    if (!s) return NULL;
    s->t = t;
    mbedtls_ssl_init(&s->ssl);
    mbedtls_ssl_set_bio(&s->ssl, s, tls_mbedtls_p_send, tls_mbedtls_p_recv, NULL);
    snprintf(s->name, sizeof s->name, "%s", host ? host : "");
    if (mbedtls_ssl_setup(&s->ssl, &t->config) == 0 && mbedtls_ssl_set_hostname(&s->ssl, host) == 0) return s;
    tls_mbedtls_p_stop(s, NULL);
    return NULL;
}

int tls_mbedtls_accept(tls_mbedtls* t, nkloop* L, nkloop_stream stream) {
    tls_mbedtls_p_stream* s = tls_mbedtls_p_open(t, NULL);
    int r = s ? nkloop_set_filter(L, stream, &tls_mbedtls_filter, s) : NKLOOP_ERR_NOMEM;
    if (s && r < 0) tls_mbedtls_p_stop(s, NULL);
    return r;
}

void* tls_mbedtls_connect(tls_mbedtls* t, const char* host) { return tls_mbedtls_p_open(t, host); }

struct mbedtls_ssl_context* tls_mbedtls_ssl(nkloop* L, nkloop_stream stream) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)nkloop_filter_self(L, stream, &tls_mbedtls_filter);
    return s ? &s->ssl : NULL;
}
#endif // TLS_MBEDTLS_IMPLEMENTATION
