/*  bench_parser.c -- how fast netkit_http.h reads heads.
    cc -std=c99 -O2 -I. bench/bench_parser.c -o build/bench_parser && build/bench_parser [seconds per case]
    One line per case: name, bytes, ns per head, GB/s; the best of several short runs.  */
#if !defined(_POSIX_C_SOURCE)
    #define _POSIX_C_SOURCE 199309L // clock_gettime
#endif
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"
#include <stdio.h>
#include <time.h>

static const char tiny[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
static const char wrk[] = "GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: keep-alive\r\n\r\n";
static const char curl_post[] =
    "POST /api/v1/things?id=42&sort=up HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
    "Content-Type: application/json\r\nContent-Length: 1234\r\n\r\n";
static const char browser[] =
    "GET /shop/articles/view.html?category=garden&item=20931&from=search HTTP/1.1\r\n"
    "Host: www.example.com\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Referer: https://www.example.com/shop/search?words=wheelbarrow\r\n"
    "Connection: keep-alive\r\n"
    "Cookie: session=6e2f1b0c9d8a4756; basket=20931x1,18822x3; theme=dark; seen=2026-11-20\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Cache-Control: max-age=0\r\n\r\n";

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void head_case(const char* name, const char* text, size_t len, double seconds) {
    static char copy[4096]; // not the literal: the compiler must not know the bytes
    nkhttp_header headers[64];
    nkhttp_head head;
    double best = 1e9, end = now() + seconds;
    long sum = 0;
    memcpy(copy, text, len);
    memset(&head, 0, sizeof head);
    head.headers = headers;
    head.max_headers = 64;
    while (now() < end) {
        double t = now();
        int i;
        for (i = 0; i < 10000; i++) {
            *(volatile char*)copy = text[0];
            sum += nkhttp_parse_request(copy, len, &head);
        }
        t = (now() - t) / 10000;
        if (t < best) best = t;
    }
    if (sum % (long)len) printf("%s does not parse\n", name);
    printf("parse_request/%-8s bytes=%-4lu ns=%-7.1f GB/s=%.2f\n", name, (unsigned long)len, best * 1e9,
           (double)len / best * 1e-9);
}

static void chunked_case(double seconds) {
    static char body[66000];
    double best = 1e9, end = now() + seconds;
    size_t len = 0, i;
    for (i = 0; i < 64; i++) {
        len += nkhttp_chunk_head(body + len, 1000);
        memset(body + len, 'z', 1000);
        memcpy(body + len + 1000, "\r\n", 2);
        len += 1002;
    }
    memcpy(body + len, "0\r\n\r\n", 5);
    len += 5;
    while (now() < end) {
        double t = now();
        nkhttp_chunked c;
        nkhttp_str data;
        size_t at = 0, used;
        int r;
        memset(&c, 0, sizeof c);
        do {
            r = nkhttp_chunked_next(&c, body + at, len - at, &used, &data);
            at += used;
        } while (r == NKHTTP_CHUNK_DATA);
        if (r != NKHTTP_CHUNK_DONE) printf("chunked body does not decode\n");
        t = (now() - t) / 64;
        if (t < best) best = t;
    }
    printf("chunked_next/1000     ns_per_chunk=%.1f\n", best * 1e9);
}

int main(int argc, char** argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 0.3;
#if defined(__clang__)
    printf("compiler=clang-%d.%d", __clang_major__, __clang_minor__);
#elif defined(__GNUC__)
    printf("compiler=gcc-%d.%d", __GNUC__, __GNUC_MINOR__);
#else
    printf("compiler=other");
#endif
#ifdef NETKIT_HTTP_NO_SIMD
    printf(" vectors=off\n");
#else
    printf(" vectors=on\n");
#endif
    head_case("tiny", tiny, sizeof tiny - 1, seconds);
    head_case("wrk", wrk, sizeof wrk - 1, seconds);
    head_case("post", curl_post, sizeof curl_post - 1, seconds);
    head_case("browser", browser, sizeof browser - 1, seconds);
    chunked_case(seconds);
    return 0;
}
