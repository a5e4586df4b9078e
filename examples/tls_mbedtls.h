/*  tls_mbedtls.h -- TLS for the streams of netkit_loop.h, by mbedTLS 2.28 or 3.x (-lmbedtls -lmbedx509 -lmbedcrypto).
    In one .c file, behind netkit's implementation: #define TLS_MBEDTLS_IMPLEMENTATION and include this.
    Server: tls_mbedtls_accept in nkloop_listen_desc.on_accept, or in nkhttp_server_desc.on_stream.
    Client: dial.filter = &tls_mbedtls_filter; dial.filter_self = tls_mbedtls_connect(tls, "a.com");
    What the protocol writes before the handshake is over waits. A peer that is refused or breaks the
    rules ends the stream with NKLOOP_ERR_FILTER, after on_error has said why. A peer that ends in order
    (close_notify) is an on_eof; one that is cut off is on_close with NKLOOP_ERR_CLOSED and no on_eof.
    TLS 1.2, 1.3 where mbedTLS has it; no renegotiation, no tickets. A stream keeps two buffers of 17 KB
    if mbedTLS was built without MBEDTLS_SSL_VARIABLE_BUFFER_LENGTH.  */
#ifndef TLS_MBEDTLS_INCLUDED
#define TLS_MBEDTLS_INCLUDED 1
#include "netkit_loop.h"
typedef struct tls_mbedtls tls_mbedtls;   // settings and certificates of the streams of one loop
// PEM: the own certificate, then those between it and the root; its key without a password.
typedef struct tls_mbedtls_cert { const char *cert_file, *key_file; } tls_mbedtls_cert;
typedef struct tls_mbedtls_desc {         // nothing of it is kept but alpn, on_error and user
    const tls_mbedtls_cert* certs;        // server: the one with the name the client asks for, else the first;
    uint32_t    num_certs;                // client: at most one, for servers that want it
    const char* ca_file;                  // PEM: who vouches for the peer. A client must have it
    int         client_certs;             // server: 0 not asked for, 1 checked if there is one, 2 required
    int         trust_anybody;            // client: 1: checks no certificate (mbedTLS may still do in TLS 1.3)
    const char** alpn;                    // "h2", "http/1.1": best first, then NULL; kept; default no ALPN
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
    #define TLS_MBEDTLS_P_RANDOM(t) , mbedtls_ctr_drbg_random, &(t)->random
#else
    #define TLS_MBEDTLS_P_RANDOM(t)
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
    tls_mbedtls_p_own*       own;         // as in the desc
    uint32_t                 num_own;
    int                      optional;    // the peer's certificate
    void                   (*on_error)(void* user, const char* text);
    void*                    user;
};
typedef struct tls_mbedtls_p_stream {
    tls_mbedtls*        t;
    nkloop_wire*        w;                // during a call
    int                 ready;
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
    nkloop_buf* from = &((tls_mbedtls_p_stream*)self)->w->wire_rx;
    if (n > from->len) n = from->len;
    if (n == 0) return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(p, from->data, n);
    memmove(from->data, from->data + n, from->len -= n);
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
    uint32_t i, flags = MBEDTLS_X509_BADCERT_CN_MISMATCH;
    snprintf(host, sizeof host, "%.*s", (int)n, (const char*)name);
    for (i = 0; i < t->num_own && flags & MBEDTLS_X509_BADCERT_CN_MISMATCH; i++) // asks for the name only
        mbedtls_x509_crt_verify(&t->own[i].cert, NULL, NULL, host, &flags, NULL, NULL);
    if (flags & MBEDTLS_X509_BADCERT_CN_MISMATCH) i = 1; // nobody's name
    return mbedtls_ssl_set_hs_own_cert(ssl, &t->own[i - 1].cert, &t->own[i - 1].key);
}
static int tls_mbedtls_p_load(tls_mbedtls* t, const tls_mbedtls_cert* c) {
    tls_mbedtls_p_own* o = &t->own[t->num_own++];
    int r;
    mbedtls_x509_crt_init(&o->cert);
    mbedtls_pk_init(&o->key);
    if ((r = mbedtls_x509_crt_parse_file(&o->cert, c->cert_file)) != 0)
        return tls_mbedtls_p_error(t, "cert_file", c->cert_file, r, r > 0 ? "not all of it can be read" : NULL);
    r = mbedtls_pk_parse_keyfile(&o->key, c->key_file, NULL TLS_MBEDTLS_P_RANDOM(t));
    if (r == 0 && mbedtls_pk_check_pair(&o->cert.pk, &o->key TLS_MBEDTLS_P_RANDOM(t)) != 0) r = 1;
    return r ? tls_mbedtls_p_error(t, "key_file", c->key_file, r, r > 0 ? "is not the certificate's" : NULL) : 0;
}
static int tls_mbedtls_p_setup(tls_mbedtls* t, const tls_mbedtls_desc* d, int server) {
    int ask = server ? d->client_certs : d->trust_anybody ? 0 : 2, r; // 0 nothing, 1 if there is one, 2 always
    uint32_t i;
    #if MBEDTLS_VERSION_MAJOR >= 3
    psa_crypto_init();
    #endif
    r = mbedtls_ctr_drbg_seed(&t->random, mbedtls_entropy_func, &t->entropy, NULL, 0);
    if (r == 0) r = mbedtls_ssl_config_defaults(&t->config, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                                MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (r == 0 && d->alpn) r = mbedtls_ssl_conf_alpn_protocols(&t->config, d->alpn);
    if (r != 0) return tls_mbedtls_p_error(t, "tls", "", r, NULL);
    mbedtls_ssl_conf_min_version(&t->config, 3, 3); // TLS 1.2
    mbedtls_ssl_conf_rng(&t->config, mbedtls_ctr_drbg_random, &t->random);
    mbedtls_ssl_conf_authmode(&t->config, ask > 1 ? MBEDTLS_SSL_VERIFY_REQUIRED
                                        : ask ? MBEDTLS_SSL_VERIFY_OPTIONAL : MBEDTLS_SSL_VERIFY_NONE);
    t->optional = ask == 1;
    if (ask && !d->ca_file) return tls_mbedtls_p_error(t, "ca_file", "", 0, "is needed");
    if (ask && (r = mbedtls_x509_crt_parse_file(&t->ca, d->ca_file)) < 0)
        return tls_mbedtls_p_error(t, "ca_file", d->ca_file, r, NULL);
    mbedtls_ssl_conf_ca_chain(&t->config, &t->ca, NULL);
    for (i = 0; i < d->num_certs; i++) if (tls_mbedtls_p_load(t, &d->certs[i]) < 0) return -1;
    if (server) mbedtls_ssl_conf_sni(&t->config, tls_mbedtls_p_on_name, t);
    if (!t->num_own) return server ? tls_mbedtls_p_error(t, "certs", "", 0, "a server needs one") : 0;
    return mbedtls_ssl_conf_own_cert(&t->config, &t->own[0].cert, &t->own[0].key); // fails without memory only
}

tls_mbedtls* tls_mbedtls_create(const tls_mbedtls_desc* d, int server) {
    tls_mbedtls* t = (tls_mbedtls*)calloc(1, sizeof *t);
    if (!t) return NULL;
    t->on_error = d->on_error; t->user = d->user;
    mbedtls_ssl_config_init(&t->config); mbedtls_x509_crt_init(&t->ca);
    mbedtls_entropy_init(&t->entropy); mbedtls_ctr_drbg_init(&t->random);
    t->own = (tls_mbedtls_p_own*)calloc(d->num_certs + (size_t)1, sizeof *t->own);
    if (t->own && tls_mbedtls_p_setup(t, d, server) == 0) return t;
    tls_mbedtls_destroy(t);
    return NULL;
}
void tls_mbedtls_destroy(tls_mbedtls* t) {
    uint32_t i;
    for (i = 0; t && i < t->num_own; i++) { mbedtls_x509_crt_free(&t->own[i].cert); mbedtls_pk_free(&t->own[i].key); }
    if (!t) return;
    mbedtls_ssl_config_free(&t->config); mbedtls_x509_crt_free(&t->ca);
    mbedtls_ctr_drbg_free(&t->random); mbedtls_entropy_free(&t->entropy);
    free(t->own); free(t);
}
// ---- a stream --------------------------------------------------------------------------------
// What mbedTLS means when it did not do what it was asked.
static int tls_mbedtls_p_why(tls_mbedtls_p_stream* s, int r) {
    char text[256] = "";
    if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE) return !s->ready; // OK or HANDSHAKING
    if ((r == 0 || r == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) && s->ready) return NKLOOP_FILTER_EOF;
    if (r == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED)
        mbedtls_x509_crt_verify_info(text, sizeof text, "", mbedtls_ssl_get_verify_result(&s->ssl));
    text[strcspn(text, "\n")] = 0; // the first of its reasons
    s->ready = 0; // nothing more is said
    return tls_mbedtls_p_error(s->t, "tls", s->name, r, text[0] ? text : NULL);
}
static int tls_mbedtls_p_begin(tls_mbedtls_p_stream* s, nkloop_wire* w) {
    int r;
    s->w = w;
    r = s->ready ? 0 : mbedtls_ssl_handshake(&s->ssl);
    // A certificate that is not required may be missing, but not be bad.
    if (r == 0 && !s->ready && s->t->optional && mbedtls_ssl_get_verify_result(&s->ssl)
            & ~(uint32_t)(MBEDTLS_X509_BADCERT_MISSING | MBEDTLS_X509_BADCERT_SKIP_VERIFY)) {
        mbedtls_ssl_send_alert_message(&s->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL, MBEDTLS_SSL_ALERT_MSG_BAD_CERT);
        r = MBEDTLS_ERR_X509_CERT_VERIFY_FAILED;
    }
    s->ready = r == 0;
    return r == 0 ? 1 : r;
}
static int tls_mbedtls_p_in(void* self, nkloop_wire* w) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    nkloop_buf* to = &w->plain_rx;
    int n = tls_mbedtls_p_begin(s, w);
    while (n > 0 && to->len < to->cap) {
        n = mbedtls_ssl_read(&s->ssl, to->data + to->len, to->cap - to->len);
        if (n > 0) to->len += (size_t)n;
        #ifdef MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET
        if (n == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) n = 1;
        #endif
    }
    return n > 0 ? NKLOOP_FILTER_OK : tls_mbedtls_p_why(s, n);
}
static int tls_mbedtls_p_out(void* self, nkloop_wire* w) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    nkloop_buf *from = &w->plain_tx, *to = &w->wire_tx;
    size_t done = 0;
    int got = tls_mbedtls_p_begin(s, w), most = mbedtls_ssl_get_max_out_record_payload(&s->ssl);
    while (got > 0 && done < from->len && to->cap - to->len >= 1024) { // whole records only, see send
        size_t n = to->cap - to->len - 512; // for the record's frame
        if (n > from->len - done) n = from->len - done;
        if (most > 0 && n > (size_t)most) n = (size_t)most;
        got = mbedtls_ssl_write(&s->ssl, from->data + done, n);
        if (got > 0) done += (size_t)got;
    }
    memmove(from->data, from->data + done, from->len -= done);
    return got > 0 ? NKLOOP_FILTER_OK : tls_mbedtls_p_why(s, got);
}
static void tls_mbedtls_p_stop(void* self, nkloop_wire* w) {
    tls_mbedtls_p_stream* s = (tls_mbedtls_p_stream*)self;
    s->w = w;
    if (w && s->ready) mbedtls_ssl_close_notify(&s->ssl);
    mbedtls_ssl_free(&s->ssl); free(s);
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
#undef TLS_MBEDTLS_P_RANDOM
#endif // TLS_MBEDTLS_IMPLEMENTATION
