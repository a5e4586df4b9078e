/*  tls_openssl.h -- TLS for the streams of netkit_loop.h, by OpenSSL 1.1.1 or 3.x (-lssl -lcrypto).
    In one .c file, behind netkit's implementation: #define TLS_OPENSSL_IMPLEMENTATION and include this.
    Server: tls_openssl_accept in nkloop_listen_desc.on_accept, or in nkhttp_server_desc.on_stream.
    Client: dial.filter = &tls_openssl_filter; dial.filter_self = tls_openssl_connect(tls, "a.com");
    What the protocol writes before the handshake is over waits. A peer that is refused or breaks the
    rules ends the stream with NKLOOP_ERR_FILTER, after on_error has said why. A peer that ends in order
    (close_notify) is an on_eof; one that is cut off is on_close with NKLOOP_ERR_CLOSED and no on_eof.
    TLS 1.2 and 1.3, no renegotiation, compression or early data; tickets. An idle stream: 15 KB.  */
#ifndef TLS_OPENSSL_INCLUDED
#define TLS_OPENSSL_INCLUDED 1
#include "netkit_loop.h"
typedef struct tls_openssl tls_openssl;   // settings and certificates of many streams, any thread's
// PEM: the own certificate, then those between it and the root; its key without a password.
typedef struct tls_openssl_cert { const char *cert_file, *key_file; } tls_openssl_cert;
typedef struct tls_openssl_desc {         // nothing of it is kept but on_error and user
    const tls_openssl_cert* certs;        // server: the one with the name the client asks for, else the first;
    uint32_t    num_certs;                // client: at most one, for servers that want it
    const char* ca_file;                  // PEM: who vouches for the peer; client: default the system's
    int         client_certs;             // server: 0 not asked for, 1 checked if there is one, 2 required
    int         trust_anybody;            // client: 1: checks no certificate. For tests
    const char* const* alpn;              // "h2", "http/1.1": best first, then NULL; default no ALPN
    void      (*on_error)(void* user, const char* text); // also when create fails
    void*       user;
} tls_openssl_desc;
tls_openssl* tls_openssl_create(const tls_openssl_desc* desc, int server); // NULL: on_error was told why
void  tls_openssl_destroy(tls_openssl* t);                                 // after its streams
int   tls_openssl_accept(tls_openssl* t, nkloop* L, nkloop_stream s);      // server: 0 or < 0
// Client: name or IP address that the certificate must have, NULL any. NULL: out of memory.
void* tls_openssl_connect(tls_openssl* t, const char* host);
// What OpenSSL knows of s: SSL_get0_alpn_selected, SSL_get_servername ... NULL: s has no such filter.
struct ssl_st* tls_openssl_ssl(nkloop* L, nkloop_stream s);
extern const nkloop_filter tls_openssl_filter;
#endif // TLS_OPENSSL_INCLUDED

#ifdef TLS_OPENSSL_IMPLEMENTATION
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_openssl {
    SSL_CTX**   ctx;                      // one for each certificate, at least one
    uint32_t    num_ctx;
    BIO_METHOD* bio;
    unsigned    alpn_len;
    unsigned char alpn[256];              // each name behind its length
    void      (*on_error)(void* user, const char* text);
    void*       user;
};
typedef struct tls_openssl_p_stream {     // all that a stream has beside its SSL
    tls_openssl* t;
    SSL*         ssl;
    nkloop_wire* w;                       // during a call
    size_t       again;                   // OpenSSL wants at least as many bytes as last time
    int          ready;
} tls_openssl_p_stream;
static int tls_openssl_p_error(const tls_openssl* t, const char* what, const char* name, const char* why) {
    char text[512], reason[256];
    ERR_error_string_n(ERR_peek_error(), reason, sizeof reason); // "error:0A000086:SSL routines::certificate ..."
    snprintf(text, sizeof text, "%s%s%s: %s", what, *name ? " " : "", name, why ? why : strrchr(reason, ':') + 1);
    ERR_clear_error();
    if (t->on_error) t->on_error(t->user, text);
    return -1;
}
// A BIO over the wire's buffers: nothing is kept while nothing moves.
static int tls_openssl_p_bio_read(BIO* b, char* p, int n) {
    nkloop_buf* from = &((tls_openssl_p_stream*)BIO_get_data(b))->w->wire_rx;
    size_t k = (size_t)n < from->len ? (size_t)n : from->len;
    BIO_clear_retry_flags(b);
    if (k == 0) { BIO_set_retry_read(b); return -1; }
    memcpy(p, from->data, k);
    memmove(from->data, from->data + k, from->len -= k);
    return (int)k;
}
static int tls_openssl_p_bio_write(BIO* b, const char* p, int n) {
    nkloop_buf* to = &((tls_openssl_p_stream*)BIO_get_data(b))->w->wire_tx;
    size_t k = (size_t)n < to->cap - to->len ? (size_t)n : to->cap - to->len;
    BIO_clear_retry_flags(b);
    if (k == 0) { BIO_set_retry_write(b); return -1; }
    memcpy(to->data + to->len, p, k);
    to->len += k;
    return (int)k;
}
static long tls_openssl_p_bio_ctrl(BIO* b, int cmd, long n, void* p) {
    (void)b; (void)n; (void)p; return cmd == BIO_CTRL_FLUSH;
}

// ---- settings --------------------------------------------------------------------------------
static int tls_openssl_p_on_name(SSL* ssl, int* alert, void* arg) {
    tls_openssl* t = (tls_openssl*)arg;
    const char* name = SSL_is_server(ssl) ? SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) : NULL;
    uint32_t i = 0;
    (void)alert;
    while (name && i < t->num_ctx && X509_check_host(SSL_CTX_get0_certificate(t->ctx[i]), name, 0, 0, NULL) != 1) i++;
    if (name && i < t->num_ctx) SSL_set_SSL_CTX(ssl, t->ctx[i]);
    return SSL_TLSEXT_ERR_OK;
}
static int tls_openssl_p_on_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_len,
                                 const unsigned char* theirs, unsigned num, void* arg) {
    tls_openssl* t = (tls_openssl*)arg;
    int r = SSL_select_next_proto((unsigned char**)(uintptr_t)out, out_len, t->alpn, t->alpn_len, theirs, num);
    (void)ssl;
    return r == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL; // RFC 7301 3.2
}
static int tls_openssl_p_load(tls_openssl* t, const tls_openssl_desc* d, int server, const tls_openssl_cert* c) {
    SSL_CTX* ctx = t->ctx[t->num_ctx] = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    t->num_ctx += ctx != NULL;
    if (!ctx) return tls_openssl_p_error(t, "tls", "", NULL);
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                        | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); // tickets need none, and it only grows
    SSL_CTX_set_session_id_context(ctx, (const unsigned char*)"netkit", 6);
    SSL_CTX_set_default_passwd_cb_userdata(ctx, (void*)(uintptr_t)""); // or it would ask the terminal
    SSL_CTX_set_tlsext_servername_callback(ctx, tls_openssl_p_on_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, t);
    if (server && t->alpn_len) SSL_CTX_set_alpn_select_cb(ctx, tls_openssl_p_on_alpn, t);
    if (!server && t->alpn_len) SSL_CTX_set_alpn_protos(ctx, t->alpn, t->alpn_len);
    if (server ? d->client_certs > 0 : !d->trust_anybody)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (d->client_certs > 1 ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    if (!server && !d->ca_file) SSL_CTX_set_default_verify_paths(ctx);
    if (server && d->ca_file) SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(d->ca_file));
    if (d->ca_file && !SSL_CTX_load_verify_locations(ctx, d->ca_file, NULL))
        return tls_openssl_p_error(t, "ca_file", d->ca_file, NULL);
    if (!c) return server ? tls_openssl_p_error(t, "certs", "", "a server needs one") : 0;
    if (SSL_CTX_use_certificate_chain_file(ctx, c->cert_file) != 1)
        return tls_openssl_p_error(t, "cert_file", c->cert_file, NULL);
    return SSL_CTX_use_PrivateKey_file(ctx, c->key_file, SSL_FILETYPE_PEM) == 1 ? 0
        : tls_openssl_p_error(t, "key_file", c->key_file, NULL); // also when it is another certificate's
}

tls_openssl* tls_openssl_create(const tls_openssl_desc* d, int server) {
    tls_openssl* t = (tls_openssl*)calloc(1, sizeof *t);
    uint32_t i;
    int r = 0;
    if (!t) return NULL;
    t->on_error = d->on_error; t->user = d->user;
    for (i = 0; d->alpn && d->alpn[i]; i++) {
        int n = snprintf((char*)t->alpn + t->alpn_len + 1, sizeof t->alpn - t->alpn_len - 1, "%s", d->alpn[i]);
        t->alpn[t->alpn_len] = (unsigned char)n;
        if (n > 0 && t->alpn_len + (unsigned)n + 2 < sizeof t->alpn) t->alpn_len += (unsigned)n + 1;
    }
    t->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "nkloop_wire");
    t->ctx = (SSL_CTX**)calloc(d->num_certs + (size_t)1, sizeof *t->ctx);
    for (i = 0; r == 0 && (i == 0 || i < d->num_certs); i++)
        r = t->ctx && t->bio ? tls_openssl_p_load(t, d, server, i < d->num_certs ? &d->certs[i] : NULL) : -1;
    if (r < 0) { tls_openssl_destroy(t); return NULL; }
    BIO_meth_set_read(t->bio, tls_openssl_p_bio_read);
    BIO_meth_set_write(t->bio, tls_openssl_p_bio_write);
    BIO_meth_set_ctrl(t->bio, tls_openssl_p_bio_ctrl);
    return t;
}
void tls_openssl_destroy(tls_openssl* t) {
    if (!t) return;
    while (t->num_ctx > 0) SSL_CTX_free(t->ctx[--t->num_ctx]);
    BIO_meth_free(t->bio);
    free(t->ctx); free(t);
}

// ---- a stream --------------------------------------------------------------------------------
// What OpenSSL means when it did not do what it was asked.
static int tls_openssl_p_why(tls_openssl_p_stream* s, int r) {
    const char* name = SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name);
    int e = SSL_get_error(s->ssl, r), refused = ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED;
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) return !s->ready; // OK or HANDSHAKING
    if (e == SSL_ERROR_ZERO_RETURN && s->ready) return NKLOOP_FILTER_EOF;
    s->ready = 0; // nothing more is said
    return tls_openssl_p_error(s->t, "tls", name ? name : "", refused ?
        X509_verify_cert_error_string(SSL_get_verify_result(s->ssl)) : ERR_peek_error() ? NULL : "broken off");
}
static int tls_openssl_p_begin(tls_openssl_p_stream* s, nkloop_wire* w) {
    int r = 1;
    s->w = w;
    ERR_clear_error();
    if (!s->ready) s->ready = (r = SSL_do_handshake(s->ssl)) == 1;
    return r;
}
static int tls_openssl_p_in(void* self, nkloop_wire* w) {
    tls_openssl_p_stream* s = (tls_openssl_p_stream*)self;
    nkloop_buf* to = &w->plain_rx;
    int n = tls_openssl_p_begin(s, w);
    while (n > 0 && to->len < to->cap) {
        ERR_clear_error();
        n = SSL_read(s->ssl, to->data + to->len, (int)(to->cap - to->len));
        if (n > 0) to->len += (size_t)n;
    }
    return n > 0 ? NKLOOP_FILTER_OK : tls_openssl_p_why(s, n);
}
static int tls_openssl_p_out(void* self, nkloop_wire* w) {
    tls_openssl_p_stream* s = (tls_openssl_p_stream*)self;
    nkloop_buf *from = &w->plain_tx, *to = &w->wire_tx;
    size_t done = 0;
    int got = tls_openssl_p_begin(s, w); // a long flight goes on
    while (got > 0 && done < from->len && to->cap - to->len >= 1024) { // whole records, no part is kept
        size_t n = to->cap - to->len - 512 < 16384 ? to->cap - to->len - 512 : 16384; // 512: its frame
        if (n < s->again) n = s->again;
        if (n > from->len - done) n = from->len - done;
        ERR_clear_error();
        got = SSL_write(s->ssl, from->data + done, (int)n);
        s->again = got > 0 ? 0 : n;
        if (got > 0) done += (size_t)got;
    }
    memmove(from->data, from->data + done, from->len -= done);
    return got > 0 ? NKLOOP_FILTER_OK : tls_openssl_p_why(s, got);
}
static void tls_openssl_p_stop(void* self, nkloop_wire* w) {
    tls_openssl_p_stream* s = (tls_openssl_p_stream*)self;
    s->w = w;
    if (w && s->ready) SSL_shutdown(s->ssl); // writes close_notify and does not wait
    SSL_free(s->ssl);
    free(s);
    ERR_clear_error();
}
const nkloop_filter tls_openssl_filter =
    { "openssl", tls_openssl_p_in, tls_openssl_p_in, tls_openssl_p_out, tls_openssl_p_stop };
static tls_openssl_p_stream* tls_openssl_p_open(tls_openssl* t) {
    tls_openssl_p_stream* s = (tls_openssl_p_stream*)calloc(1, sizeof *s);
    BIO* b = BIO_new(t->bio);
    if (s && b) s->ssl = SSL_new(t->ctx[0]);
    if (!s || !s->ssl) { BIO_free(b); free(s); ERR_clear_error(); return NULL; }
    s->t = t;
    BIO_set_data(b, s);
    BIO_set_init(b, 1);
    SSL_set_bio(s->ssl, b, b); // given to it
    if (SSL_is_server(s->ssl)) SSL_set_accept_state(s->ssl); else SSL_set_connect_state(s->ssl);
    return s;
}
int tls_openssl_accept(tls_openssl* t, nkloop* L, nkloop_stream stream) {
    tls_openssl_p_stream* s = tls_openssl_p_open(t);
    int r = s ? nkloop_set_filter(L, stream, &tls_openssl_filter, s) : NKLOOP_ERR_NOMEM;
    if (s && r < 0) tls_openssl_p_stop(s, NULL);
    return r;
}
void* tls_openssl_connect(tls_openssl* t, const char* host) {
    tls_openssl_p_stream* s = tls_openssl_p_open(t);
    if (!s || !host) return s;
    SSL_set_hostflags(s->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s->ssl), host)) return s; // RFC 6066 3: not sent as a name
    if (SSL_set1_host(s->ssl, host) && SSL_set_tlsext_host_name(s->ssl, host)) return s;
    tls_openssl_p_stop(s, NULL);
    return NULL;
}
struct ssl_st* tls_openssl_ssl(nkloop* L, nkloop_stream stream) {
    tls_openssl_p_stream* s = (tls_openssl_p_stream*)nkloop_filter_self(L, stream, &tls_openssl_filter);
    return s ? s->ssl : NULL;
}
#endif // TLS_OPENSSL_IMPLEMENTATION
