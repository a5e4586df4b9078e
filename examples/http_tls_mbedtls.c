/*  http_tls_mbedtls.c -- http_hello over https, by mbedTLS (<mbedtls/ssl.h>).

    cc -O2 -I. examples/http_tls_mbedtls.c -o build/http_tls_mbedtls -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
    build/http_tls_mbedtls 127.0.0.1:8443 cert.pem key.pem [CERT2 KEY2]...
    curl --cacert cert.pem https://localhost:8443/

    GET /zeros answers with 16 MiB, POST /echo with its body, anything else with the greeting. Of several
    certificates a client gets the one with the name it asks for. POSIX only, for its way to leave on Ctrl-C.
*/
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#define TLS_MBEDTLS_IMPLEMENTATION
#include "tls_mbedtls.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static nkloop* loop;
static void on_signal(int number) { (void)number; nkloop_stop(loop); }
static void on_tls_error(void* user, const char* text) {
    (void)user;
    fprintf(stderr, "http_tls_mbedtls: %s\n", text);
}

static int on_stream(void* user, nkloop* L, nkloop_stream s) {
    return tls_mbedtls_accept((tls_mbedtls*)user, L, s);
}

static void on_get(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, "text/plain", "Hello, World!", 13);
}

static void on_echo(void* user, nkhttp_req* req) {
    (void)user;
    nkhttp_reply(req, 200, "application/octet-stream", req->body, req->body_bytes);
}

static char zeros[16 << 20];
static void on_sent(void* user) { (void)user; }
static void on_zeros(void* user, nkhttp_req* req) {
    nkhttp_reply_desc reply;
    (void)user;
    memset(&reply, 0, sizeof reply);
    reply.body = zeros;
    reply.body_bytes = sizeof zeros;
    reply.release_fn = on_sent; // not copied
    nkhttp_reply_with(req, &reply);
}

int main(int argc, char** argv) {
    static const char* alpn[] = { "http/1.1", "http/1.0", NULL };
    tls_mbedtls_cert certs[16];
    tls_mbedtls_desc tls_desc;
    tls_mbedtls* tls;
    nkhttp_server_desc desc;
    nkhttp_server* server = NULL;
    char address[128];
    int err, i;

    if (argc < 4 || argc % 2 != 0 || argc > 2 + 2 * 16) {
        fprintf(stderr, "usage: http_tls_mbedtls ADDR CERT KEY [CERT2 KEY2]...\n");
        return 2;
    }
    memset(&tls_desc, 0, sizeof tls_desc);
    for (i = 2; i < argc; i += 2, tls_desc.num_certs++) {
        certs[tls_desc.num_certs].cert_file = argv[i];
        certs[tls_desc.num_certs].key_file = argv[i + 1];
    }
    tls_desc.certs = certs;
    tls_desc.alpn = alpn;
    tls_desc.on_error = on_tls_error;
    if (!(tls = tls_mbedtls_create(&tls_desc, 1))) return 1;

    memset(&desc, 0, sizeof desc);
    desc.address = argv[1];
    desc.on_stream = on_stream;
    desc.on_request = on_get;
    desc.user = tls;
    err = nkloop_create(&loop, NULL);
    if (err == 0) err = nkhttp_server_create(&server, loop, &desc);
    if (err == 0) err = nkhttp_route(server, "POST", "/echo", on_echo, NULL);
    if (err == 0) err = nkhttp_route(server, "GET", "/zeros", on_zeros, NULL);
    if (err < 0) {
        fprintf(stderr, "http_tls_mbedtls: %s: %s\n", argv[1], nkhttp_strerror(err));
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
    tls_mbedtls_destroy(tls);
    return 0;
}
