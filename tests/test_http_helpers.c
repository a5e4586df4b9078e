// The helper rooms of netkit_http.h, without sockets: decoding, cookies, credentials, negotiation, router, multipart, proxies,
// hosts, ranges, preconditions, paths.
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"
#include "nktest.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static nkhttp_str S(const char* text) { return nkhttp_p_str(text, strlen(text)); }

// A copy on the heap without a byte to spare: reading past the end is a finding for ASan and valgrind.
static char* exact(const char* p, size_t n) {
    char* copy = (char*)malloc(n ? n : 1);
    if (n) memcpy(copy, p, n);
    return copy;
}

// ---- decode ----------------------------------------------------------------------------------

TEST(percent_decode) {
    static const struct { const char* in; int err; const char* out; size_t len; } cases[] = {
        { "", 0, "", 0 }, { "abc", 0, "abc", 3 }, { "a+b", 0, "a+b", 3 }, { "a%20b", 0, "a b", 3 },
        { "%41%4a%4A", 0, "AJJ", 3 }, { "%2F", 0, "/", 1 }, { "%00x", 0, "\0x", 2 }, { "%0d%0a", 0, "\r\n", 2 },
        { "%25%32%35", 0, "%25", 3 }, { "%ff", 0, "\xff", 1 },
        { "%", NKHTTP_ERR_ENCODING, "", 0 }, { "%4", NKHTTP_ERR_ENCODING, "", 0 }, { "a%zz", NKHTTP_ERR_ENCODING, "", 0 },
        { "%4g", NKHTTP_ERR_ENCODING, "", 0 }, { "%%41", NKHTTP_ERR_ENCODING, "", 0 }, { "% 1", NKHTTP_ERR_ENCODING, "", 0 },
        { "%+1", NKHTTP_ERR_ENCODING, "", 0 }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char out[32];
        size_t len = 99, n = strlen(cases[i].in);
        char* in = exact(cases[i].in, n);
        CHECK_INT(nkhttp_percent_decode(out, sizeof out, in, n, &len), cases[i].err);
        if (!cases[i].err) {
            CHECK_INT(len, cases[i].len);
            CHECK_MEM(out, cases[i].out, cases[i].len);
            if (len) CHECK_INT(nkhttp_percent_decode(out, cases[i].len - 1, in, n, &len), NKHTTP_ERR_NOSPACE);
            CHECK_INT(nkhttp_percent_decode(in, n, in, n, &len), 0); // in place
            CHECK_MEM(in, cases[i].out, cases[i].len);
        }
        free(in);
    }
}

TEST(form_decode_and_encode) {
    char out[64];
    size_t len = 0;
    CHECK_INT(nkhttp_form_decode(out, sizeof out, "a+b%2Bc", 7, &len), 0);
    CHECK_STR(out, len, "a b+c");
    CHECK_INT(nkhttp_percent_encode(out, sizeof out, "a b/\xc3\xa9?~._-", 11, &len), 0);
    CHECK_STR(out, len, "a%20b%2F%C3%A9%3F~._-");
    CHECK_INT(nkhttp_percent_encode(out, 2, " ", 1, &len), NKHTTP_ERR_NOSPACE);
    CHECK_INT(nkhttp_percent_encode(out, 3, " ", 1, &len), 0);
    CHECK_INT(nkhttp_percent_encode(out, 0, "", 0, &len), 0);
    CHECK_INT(len, 0);
}

TEST(utf8) {
    static const char* const good[] = {
        "", "plain", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
        "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "0123456789abcdef\xc3\xa9 0123456789"
    };
    static const char* const bad[] = {
        "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc0\xaf", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xfe", "\xc3", "\xe2\x82", "\xf0\x9f\x98",
        "\xc3(", "\xe2(\xa1", "\xe2\x82(", "01234567\x80", "0123456789abcde\xc3"
    };
    size_t i;
    for (i = 0; i < COUNT(good); i++) {
        char* p = exact(good[i], strlen(good[i]));
        CHECK(nkhttp_utf8_ok(p, strlen(good[i])));
        free(p);
    }
    for (i = 0; i < COUNT(bad); i++) {
        char* p = exact(bad[i], strlen(bad[i]));
        if (!CHECK(!nkhttp_utf8_ok(p, strlen(bad[i])))) printf("    case %lu\n", (unsigned long)i);
        free(p);
    }
}

TEST(query) {
    static const struct { const char* query; const char* name; int result; const char* out; } cases[] = {
        { "a=1&b=2", "a", 1, "1" }, { "a=1&b=2", "b", 1, "2" }, { "a=1&b=2", "c", NKHTTP_ERR_ABSENT, "" },
        { "a=1&a=2", "a", 1, "1" }, { "a", "a", 0, "" }, { "a=", "a", 0, "" }, { "=x", "", 1, "x" },
        { "&&a=1&&", "a", 1, "1" }, { "a=b=c", "a", 3, "b=c" }, { "x+y=1+2", "x y", 3, "1 2" },
        { "%61=%62", "a", 1, "b" }, { "a%3d=1", "a=", 1, "1" }, { "ab=1", "a", NKHTTP_ERR_ABSENT, "" },
        { "a=1", "ab", NKHTTP_ERR_ABSENT, "" }, { "a=%zz", "a", NKHTTP_ERR_ENCODING, "" },
        { "%zz=1&a=2", "a", 1, "2" }, { "", "a", NKHTTP_ERR_ABSENT, "" }, { "a=0123456789", "a", NKHTTP_ERR_NOSPACE, "" },
        { "a=01234567", "a", NKHTTP_ERR_NOSPACE, "" }, { "a=0123456", "a", 7, "0123456" }, { "a%00b=1", "a", NKHTTP_ERR_ABSENT, "" }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char out[8];
        char* q = exact(cases[i].query, strlen(cases[i].query));
        int n = nkhttp_query_get(nkhttp_p_str(q, strlen(cases[i].query)), cases[i].name, out, sizeof out);
        if (!CHECK_INT(n, cases[i].result)) printf("    %s\n", cases[i].query);
        if (n >= 0) CHECK_STR(out, strlen(out), cases[i].out);
        free(q);
    }
}

TEST(query_pairs) {
    nkhttp_str rest = S("a=1&&b&a=2&=&c=x=y"), key, value;
    static const char* const want[] = { "a", "1", "b", "", "a", "2", "", "", "c", "x=y" };
    size_t i = 0;
    while (nkhttp_query_next(&rest, &key, &value)) {
        if (!CHECK(i + 1 < COUNT(want))) break;
        CHECK_STR(key.ptr, key.len, want[i]);
        CHECK_STR(value.ptr, value.len, want[i + 1]);
        i += 2;
    }
    CHECK_INT(i, COUNT(want));
}

TEST(query_many_pairs) {
    enum { N = 20000 };
    char* text = (char*)malloc(N * 4);
    nkhttp_str rest, key, value;
    size_t i, n = 0;
    for (i = 0; i < N; i++) memcpy(text + i * 4, "k=v&", 4);
    rest = nkhttp_p_str(text, N * 4);
    while (nkhttp_query_next(&rest, &key, &value)) n++;
    CHECK_INT(n, N);
    free(text);
}

// ---- cookies ---------------------------------------------------------------------------------

TEST(cookies_in) {
    static const struct { const char* field; const char* name; int err; const char* out; } cases[] = {
        { "a=1; b=2", "b", 0, "2" }, { "a=1;b=2", "b", 0, "2" }, { "a=1; a=2", "a", 0, "1" }, { "a=\"x y\"", "a", 0, "x y" },
        { "a=\"", "a", 0, "\"" }, { "a=\"\"", "a", 0, "" }, { "a=b=c", "a", 0, "b=c" }, { "a=", "a", 0, "" },
        { "a", "a", NKHTTP_ERR_ABSENT, "" }, { "=a", "", NKHTTP_ERR_ABSENT, "" }, { "", "a", NKHTTP_ERR_ABSENT, "" },
        { ";;; ;a=1;", "a", 0, "1" }, { " a = 1 ", "a", 0, "1" }, { "A=1", "a", NKHTTP_ERR_ABSENT, "" },
        { "ab=1", "a", NKHTTP_ERR_ABSENT, "" }, { "x=%41", "x", 0, "%41" }, { "a=1,b=2", "a", 0, "1,b=2" }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        nkhttp_str value;
        char* f = exact(cases[i].field, strlen(cases[i].field));
        int err = nkhttp_cookie_get(nkhttp_p_str(f, strlen(cases[i].field)), cases[i].name, &value);
        if (!CHECK_INT(err, cases[i].err)) printf("    %s\n", cases[i].field);
        if (!err) CHECK_STR(value.ptr, value.len, cases[i].out);
        free(f);
    }
}

static nkhttp_cookie cookie(const char* name, const char* value) {
    nkhttp_cookie c;
    memset(&c, 0, sizeof c);
    c.name = name;
    c.value = value;
    return c;
}

TEST(cookies_out) {
    char out[256], small[8];
    nkhttp_cookie c = cookie("id", "42");
    int n = nkhttp_cookie_format(out, sizeof out, &c);
    CHECK_STR(out, (size_t)n, "id=42");
    CHECK_INT(out[n], 0);
    CHECK_INT(nkhttp_cookie_format(small, 5, &c), NKHTTP_ERR_NOSPACE);
    CHECK_INT(nkhttp_cookie_format(small, 6, &c), 5);
    CHECK_INT(nkhttp_cookie_format(small, 0, &c), NKHTTP_ERR_NOSPACE);
    c.path = "/app";
    c.domain = "example.com";
    c.max_age_s = 3600;
    c.expires_unix = 784111777;
    c.secure = c.http_only = c.partitioned = 1;
    c.same_site = NKHTTP_SAME_SITE_NONE;
    n = nkhttp_cookie_format(out, sizeof out, &c);
    CHECK_STR(out, (size_t)n, "id=42; Path=/app; Domain=example.com; Max-Age=3600; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Secure; "
                              "HttpOnly; SameSite=None; Partitioned");
    c = cookie("id", NULL);
    c.max_age_s = -1;
    c.same_site = NKHTTP_SAME_SITE_LAX;
    n = nkhttp_cookie_format(out, sizeof out, &c);
    CHECK_STR(out, (size_t)n, "id=; Max-Age=0; SameSite=Lax");
}

TEST(cookies_refused) {
    static const char* const names[] = { "", "a b", "a=b", "a;b", "a\r\n", "a\"", "a,b", "\xc3\xa9", "a\tb" };
    static const char* const values[] = { " ", "a b", "a;b", "a\r\nSet-Cookie: x=y", "a\"", "a,b", "a\\b", "\xc3\xa9", "\x7f", "\x01" };
    static const char* const paths[] = { "", "a", "/;", "/\r\n", "/\x7f", "/\xc3\xa9" };
    static const char* const domains[] = { "", "a;b", "a b", "a\r\n", "a/b" };
    char out[256];
    size_t i;
    nkhttp_cookie c;
    for (i = 0; i < COUNT(names); i++) {
        c = cookie(names[i], "1");
        CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    }
    c = cookie(NULL, "1");
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    for (i = 0; i < COUNT(values); i++) {
        c = cookie("a", values[i]);
        CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    }
    for (i = 0; i < COUNT(paths); i++) {
        c = cookie("a", "1");
        c.path = paths[i];
        CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    }
    for (i = 0; i < COUNT(domains); i++) {
        c = cookie("a", "1");
        c.domain = domains[i];
        CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    }
}

TEST(cookie_prefixes) {
    char out[256];
    nkhttp_cookie c = cookie("__Host-a", "1");
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    c.secure = 1;
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    c.path = "/";
    CHECK(nkhttp_cookie_format(out, sizeof out, &c) > 0);
    c.domain = "example.com";
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    c = cookie("__secure-a", "1");
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    c.secure = 1;
    CHECK(nkhttp_cookie_format(out, sizeof out, &c) > 0);
    c = cookie("a", "1");
    c.same_site = NKHTTP_SAME_SITE_NONE;
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    c.same_site = 4;
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
    c.same_site = 0;
    c.partitioned = 1;
    CHECK_INT(nkhttp_cookie_format(out, sizeof out, &c), NKHTTP_ERR_HEADER_VALUE);
}

// ---- auth ------------------------------------------------------------------------------------

TEST(base64) {
    static const struct { const char* raw; const char* text; } vectors[] = { // RFC 4648 10
        { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
        { "foobar", "Zm9vYmFy" }, { "\xfb\xff\xfe", "+//+" }
    };
    static const char* const bad[] = {
        "Z", "Zg", "Zg=", "Zg===", "=", "====", "Z===", "Zh==", "Zm9=", "Zg==Zg==", "Zm9v\n", " Zm9v", "Zm-_", "Zm9v Zg=", "=Zg=", "Zg=A"
    };
    size_t i, len = 0;
    char out[16];
    for (i = 0; i < COUNT(vectors); i++) {
        size_t n = strlen(vectors[i].raw), t = strlen(vectors[i].text);
        CHECK_INT(nkhttp_base64_encode(out, t, vectors[i].raw, n, &len), 0);
        CHECK_STR(out, len, vectors[i].text);
        if (t) CHECK_INT(nkhttp_base64_encode(out, t - 1, vectors[i].raw, n, &len), NKHTTP_ERR_NOSPACE);
        CHECK_INT(nkhttp_base64_decode(out, n, vectors[i].text, t, &len), 0);
        CHECK_STR(out, len, vectors[i].raw);
        if (n) CHECK_INT(nkhttp_base64_decode(out, n - 1, vectors[i].text, t, &len), NKHTTP_ERR_NOSPACE);
    }
    for (i = 0; i < COUNT(bad); i++) {
        char* p = exact(bad[i], strlen(bad[i]));
        if (!CHECK_INT(nkhttp_base64_decode(out, sizeof out, p, strlen(bad[i]), &len), NKHTTP_ERR_ENCODING)) printf("    %s\n", bad[i]);
        free(p);
    }
}

TEST(basic_auth) {
    static const struct { const char* field; int err; const char* user; const char* pass; } cases[] = {
        { "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", 0, "Aladdin", "open sesame" }, { "basic  QTpi", 0, "A", "b" },
        { "Basic Og==", 0, "", "" }, { "Basic YTpiOmM=", 0, "a", "b:c" }, { "Basic", NKHTTP_ERR_ABSENT, "", "" },
        { "", NKHTTP_ERR_ABSENT, "", "" }, { "Bearer QTpi", NKHTTP_ERR_ABSENT, "", "" }, { "Basic\tQTpi", NKHTTP_ERR_ABSENT, "", "" },
        { "Basic ", NKHTTP_ERR_ENCODING, "", "" }, { "Basic QUI=", NKHTTP_ERR_ENCODING, "", "" }, // no colon
        { "Basic QTpi, x", NKHTTP_ERR_ENCODING, "", "" }, { "Basic YToKYg==", NKHTTP_ERR_ENCODING, "", "" }, // LF
        { "Basic AGE6Yg==", NKHTTP_ERR_ENCODING, "", "" } // NUL
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char buf[32];
        nkhttp_str user, pass;
        char* f = exact(cases[i].field, strlen(cases[i].field));
        int err = nkhttp_basic_auth(nkhttp_p_str(f, strlen(cases[i].field)), buf, sizeof buf, &user, &pass);
        if (!CHECK_INT(err, cases[i].err)) printf("    %s\n", cases[i].field);
        if (!err) {
            CHECK_STR(user.ptr, user.len, cases[i].user);
            CHECK_STR(pass.ptr, pass.len, cases[i].pass);
        }
        free(f);
    }
    {
        char tiny[4];
        nkhttp_str user, pass;
        CHECK_INT(nkhttp_basic_auth(S("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), tiny, sizeof tiny, &user, &pass), NKHTTP_ERR_NOSPACE);
    }
}

TEST(equal_secret) {
    CHECK(nkhttp_equal_secret("abc", 3, "abc", 3));
    CHECK(nkhttp_equal_secret("", 0, "", 0));
    CHECK(!nkhttp_equal_secret("abc", 3, "abd", 3));
    CHECK(!nkhttp_equal_secret("abc", 3, "abcabc", 6));
    CHECK(!nkhttp_equal_secret("abcabc", 6, "abc", 3));
    CHECK(!nkhttp_equal_secret("a", 1, "", 0));
    CHECK(!nkhttp_equal_secret("\0", 1, "", 0));
    CHECK(!nkhttp_equal_secret("", 0, "a", 1));
}

// ---- negotiation -----------------------------------------------------------------------------

TEST(accept_encoding) {
    static const struct { const char* field; const char* coding; int q; } cases[] = {
        { "gzip", "gzip", 1000 }, { "GZip", "gzip", 1000 }, { "gzip, deflate, br", "br", 1000 }, { "gzip;q=0.5", "gzip", 500 },
        { "gzip; q=0.5", "gzip", 500 }, { "gzip ;Q=0.123", "gzip", 123 }, { "gzip;q=0", "gzip", 0 }, { "gzip;q=1.000", "gzip", 1000 },
        { "gzip;q=0.", "gzip", 0 }, { "gzip;q=1.001", "gzip", 0 }, { "gzip;q=0.1234", "gzip", 0 }, { "gzip;q=2", "gzip", 0 },
        { "gzip;q=", "gzip", 0 }, { "gzip;q=-1", "gzip", 0 }, { "*", "gzip", 1000 }, { "*;q=0.2", "gzip", 200 },
        { "*;q=0, gzip", "gzip", 1000 }, { "gzip;q=0, *", "gzip", 0 }, { "deflate", "gzip", 0 }, { "", "gzip", 0 },
        { "x-gzip", "gzip", 1000 }, { "x-br", "br", 0 }, { "xgzip", "gzip", 0 }, { "gzipx", "gzip", 0 },
        { "", "identity", 1000 }, { " , ,", "identity", 1000 }, { "gzip", "identity", 1 }, { "identity;q=0", "identity", 0 },
        { "*;q=0", "identity", 0 }, { "*;q=0, identity", "identity", 1000 }, { "*;q=0.7", "identity", 700 },
        { ",, gzip ,,", "gzip", 1000 }, { ";q=1", "gzip", 0 }, { "gzip;q=1.5, *;q=0.3", "gzip", 300 }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char* f = exact(cases[i].field, strlen(cases[i].field));
        int q = nkhttp_accepts_encoding(nkhttp_p_str(f, strlen(cases[i].field)), cases[i].coding);
        if (!CHECK_INT(q, cases[i].q)) printf("    %s for %s\n", cases[i].field, cases[i].coding);
        free(f);
    }
}

TEST(accept_type) {
    static const struct { const char* field; const char* type; int q; } cases[] = {
        { "", "text/html", 1000 }, { "text/html", "text/html", 1000 }, { "TEXT/HTML", "text/html", 1000 }, { "*/*", "text/html", 1000 },
        { "text/*;q=0.3", "text/html", 300 }, { "text/*", "textual/html", 0 }, { "text/*;q=0.3, text/html;q=0.7", "text/html", 700 },
        { "text/html;q=0, */*", "text/html", 0 }, { "text/html;level=1;q=0.4, text/html;q=0.7, */*;q=0.5", "text/html", 700 },
        { "application/json; charset=utf-8", "application/json", 1000 }, { "image/png, */*;q=0.1", "application/json", 100 },
        { "image/png", "text/html", 0 }, { "text", "text/html", 0 }, { "text/", "text/html", 0 }, { "text/html;q=x", "text/html", 0 },
        { "a/b;x=\"a,text/html\", c/d;q=0.2", "text/html", 0 }, { "a/b;x=\"a\\\",text/html\"", "text/html", 0 },
        { "a/b;x=\"unfinished, text/html", "text/html", 0 }, { ", ,", "text/html", 1000 }, { "*", "text/html", 0 }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char* f = exact(cases[i].field, strlen(cases[i].field));
        int q = nkhttp_accepts_type(nkhttp_p_str(f, strlen(cases[i].field)), cases[i].type);
        if (!CHECK_INT(q, cases[i].q)) printf("    %s for %s\n", cases[i].field, cases[i].type);
        free(f);
    }
}

// ---- router ----------------------------------------------------------------------------------

static int match(const nkhttp_router* r, const char* method, const char* path, nkhttp_match* m) {
    size_t plen = strlen(path);
    char* p = exact(path, plen);
    int err = nkhttp_router_match(r, method, strlen(method), p, plen, m);
    uint32_t i;
    for (i = 0; i < m->num_params; i++) { // the copy goes away: point into the caller's text instead
        m->params[i].value.ptr = path + (m->params[i].value.ptr - p);
    }
    free(p);
    return err;
}

// "value name=raw name=raw", or "404", "405 Allow-value", "400"
static const char* route(const nkhttp_router* r, const char* method, const char* path) {
    static char out[512];
    nkhttp_match m;
    uint32_t i;
    int err = match(r, method, path, &m), n;
    if (err == NKHTTP_ERR_NO_ROUTE) return "404";
    if (err == NKHTTP_ERR_ENCODING) return "400";
    if (err == NKHTTP_ERR_NO_METHOD) {
        strcpy(out, "405 ");
        CHECK(nkhttp_router_allow(r, m.allowed, out + 4, sizeof out - 4) > 0);
        return out;
    }
    n = snprintf(out, sizeof out, "%s", (const char*)m.value);
    for (i = 0; i < m.num_params; i++) {
        n += snprintf(out + n, sizeof out - (size_t)n, " %.*s=%.*s", (int)m.params[i].name.len, m.params[i].name.ptr,
                      (int)m.params[i].value.len, m.params[i].value.ptr);
    }
    return out;
}

#define CHECK_ROUTE(r, method, path, want) do { \
    const char* got_ = route((r), (method), (path)); CHECK_STR(got_, strlen(got_), (want)); } while (0)

static int add(nkhttp_router* r, const char* method, const char* pattern, const char* value) {
    char* p = exact(pattern, strlen(pattern) + 1); // the router keeps a copy
    int err = nkhttp_router_add(r, method, p, (void*)value);
    free(p);
    return err;
}

TEST(router_shapes) {
    nkhttp_router r;
    nkhttp_router_init(&r, NULL, NULL);
    CHECK_ROUTE(&r, "GET", "/", "404");
    CHECK_INT(add(&r, "GET", "/", "root"), 0);
    CHECK_INT(add(&r, "GET", "/users", "users"), 0);
    CHECK_INT(add(&r, "POST", "/users", "create"), 0);
    CHECK_INT(add(&r, "GET", "/users/{id}", "user"), 0);
    CHECK_INT(add(&r, "GET", "/users/me", "me"), 0);
    CHECK_INT(add(&r, "GET", "/users/{id}/files/{path*}", "file"), 0);
    CHECK_INT(add(&r, "", "/any/{x}", "any"), 0);
    CHECK_INT(add(&r, NULL, "/any/{x}/y", "any2"), 0);
    CHECK_INT(add(&r, "GET", "/slash/", "slash"), 0);
    CHECK_INT(add(&r, "GET", "/caf\xc3\xa9/a%2Fb/100%25", "escaped"), 0);
    CHECK_INT(add(&r, "GET", "/dots.*+()[]", "literal"), 0);
    CHECK_ROUTE(&r, "GET", "/", "root");
    CHECK_ROUTE(&r, "GET", "/users", "users");
    CHECK_ROUTE(&r, "POST", "/users", "create");
    CHECK_ROUTE(&r, "GET", "/users/", "404");
    CHECK_ROUTE(&r, "GET", "/users/7", "user id=7");
    CHECK_ROUTE(&r, "GET", "/users/me", "me");
    CHECK_ROUTE(&r, "GET", "/users/m%65", "me");
    CHECK_ROUTE(&r, "GET", "/users/a%2Fb", "user id=a%2Fb");
    CHECK_ROUTE(&r, "GET", "/users/7/", "404");
    CHECK_ROUTE(&r, "GET", "/users/7/files/", "file id=7 path=");
    CHECK_ROUTE(&r, "GET", "/users/7/files/a/b/c", "file id=7 path=a/b/c");
    CHECK_ROUTE(&r, "GET", "/users/me/files/a", "file id=me path=a");
    CHECK_ROUTE(&r, "GET", "/users/7/files", "404");
    CHECK_ROUTE(&r, "GET", "/users//files/a", "404"); // {id} is never empty
    CHECK_ROUTE(&r, "BREW", "/any/1", "any x=1");
    CHECK_ROUTE(&r, "HEAD", "/any/1/y", "any2 x=1");
    CHECK_ROUTE(&r, "GET", "/any/", "404");
    CHECK_ROUTE(&r, "GET", "/slash/", "slash");
    CHECK_ROUTE(&r, "GET", "/slash", "404");
    CHECK_ROUTE(&r, "GET", "/caf%C3%A9/a%2fb/100%25", "escaped");
    CHECK_ROUTE(&r, "GET", "/caf\xc3\xa9/a%2Fb/%3100%25", "escaped");
    CHECK_ROUTE(&r, "GET", "/caf%C3%A9/a/b/100%25", "404");
    CHECK_ROUTE(&r, "GET", "/dots.*+()[]", "literal"); // nothing in a literal is a pattern
    CHECK_ROUTE(&r, "GET", "/dotsx*+()[]", "404");
    CHECK_ROUTE(&r, "GET", "", "404");
    CHECK_ROUTE(&r, "GET", "*", "404");
    CHECK_ROUTE(&r, "GET", "users", "404");
    CHECK_ROUTE(&r, "GET", "//", "404");
    CHECK_ROUTE(&r, "GET", "/users/..", "user id=.."); // the router resolves nothing
    CHECK_ROUTE(&r, "GET", "/%", "400");
    CHECK_ROUTE(&r, "GET", "/nowhere/%4", "400");
    CHECK_ROUTE(&r, "GET", "/users/7/files/a/b/c/d/e/f/g/%zz", "400");
    nkhttp_router_free(&r);
    CHECK_ROUTE(&r, "GET", "/", "404");
    CHECK_INT(add(&r, "GET", "/", "again"), 0); // free leaves it ready
    CHECK_ROUTE(&r, "GET", "/", "again");
    nkhttp_router_free(&r);
}

TEST(router_backtracks) {
    nkhttp_router r;
    nkhttp_router_init(&r, NULL, NULL);
    CHECK_INT(add(&r, "GET", "/a/{x}/c", "xc"), 0);
    CHECK_INT(add(&r, "GET", "/a/b/d", "bd"), 0);
    CHECK_INT(add(&r, "GET", "/a/{rest*}", "rest"), 0);
    CHECK_INT(add(&r, "GET", "/{p}/{q}/{r}/e", "pqre"), 0);
    CHECK_INT(add(&r, "POST", "/m/lit", "post lit"), 0);
    CHECK_INT(add(&r, "GET", "/m/{x}", "get x"), 0);
    CHECK_INT(add(&r, "PUT", "/m/{rest*}", "put rest"), 0);
    CHECK_ROUTE(&r, "GET", "/a/b/c", "xc x=b");
    CHECK_ROUTE(&r, "GET", "/a/b/d", "bd");
    CHECK_ROUTE(&r, "GET", "/a/q/c", "xc x=q");
    CHECK_ROUTE(&r, "GET", "/a/b/x", "rest rest=b/x");
    CHECK_ROUTE(&r, "GET", "/a/b/c/e", "rest rest=b/c/e"); // literal "a" first, from the left
    CHECK_ROUTE(&r, "GET", "/z/b/c/e", "pqre p=z q=b r=c");
    CHECK_ROUTE(&r, "GET", "/a", "404");
    CHECK_ROUTE(&r, "GET", "/m/lit", "get x x=lit"); // the method takes part
    CHECK_ROUTE(&r, "POST", "/m/lit", "post lit");
    CHECK_ROUTE(&r, "PUT", "/m/lit", "put rest rest=lit");
    CHECK_ROUTE(&r, "DELETE", "/m/lit", "405 GET, HEAD, POST, PUT, OPTIONS");
    CHECK_ROUTE(&r, "DELETE", "/m/other", "405 GET, HEAD, PUT, OPTIONS");
    nkhttp_router_free(&r);
}

TEST(router_methods) {
    nkhttp_router r;
    nkhttp_match m;
    char out[8];
    nkhttp_router_init(&r, NULL, NULL);
    CHECK_INT(add(&r, "GET", "/g", "get"), 0);
    CHECK_INT(add(&r, "HEAD", "/h", "head"), 0);
    CHECK_INT(add(&r, "GET", "/h", "get"), 0);
    CHECK_INT(add(&r, "POST", "/p", "post"), 0);
    CHECK_INT(add(&r, "OPTIONS", "/o", "options"), 0);
    CHECK_INT(add(&r, "BREW", "/coffee", "brew"), 0);
    CHECK_INT(add(&r, "GET", "/mix", "get"), 0);
    CHECK_INT(add(&r, "", "/mix", "any"), 0);
    CHECK_ROUTE(&r, "HEAD", "/g", "get");
    CHECK_ROUTE(&r, "HEAD", "/h", "head");
    CHECK_ROUTE(&r, "HEAD", "/p", "405 POST, OPTIONS");
    CHECK_ROUTE(&r, "POST", "/g", "405 GET, HEAD, OPTIONS");
    CHECK_ROUTE(&r, "OPTIONS", "/g", "405 GET, HEAD, OPTIONS");
    CHECK_ROUTE(&r, "OPTIONS", "/o", "options");
    CHECK_ROUTE(&r, "GET", "/coffee", "405 OPTIONS, BREW");
    CHECK_ROUTE(&r, "BREW", "/coffee", "brew");
    CHECK_ROUTE(&r, "brew", "/coffee", "405 OPTIONS, BREW"); // methods are case-sensitive
    CHECK_ROUTE(&r, "HEAD", "/mix", "get");
    CHECK_ROUTE(&r, "PUT", "/mix", "any");
    CHECK_INT(match(&r, "POST", "/g", &m), NKHTTP_ERR_NO_METHOD);
    CHECK_INT(nkhttp_router_allow(&r, m.allowed, out, sizeof out), NKHTTP_ERR_NOSPACE);
    CHECK_INT(nkhttp_router_allow(&r, 0, out, 7), NKHTTP_ERR_NOSPACE);
    CHECK_INT(nkhttp_router_allow(&r, 0, out, 8), 7);
    nkhttp_router_free(&r);
}

TEST(router_duplicates) {
    nkhttp_router r;
    nkhttp_match m;
    nkhttp_str v;
    nkhttp_router_init(&r, NULL, NULL);
    CHECK_INT(add(&r, "GET", "/a/{x}", "one"), 0);
    CHECK_INT(add(&r, "GET", "/a/{y}", "two"), NKHTTP_ERR_DUPLICATE);
    CHECK_INT(add(&r, "GET", "/%61/{y}", "two"), NKHTTP_ERR_DUPLICATE);
    CHECK_INT(add(&r, "POST", "/a/{y}", "three"), 0);
    CHECK_INT(add(&r, "", "/a/{z}", "four"), 0);
    CHECK_INT(add(&r, "", "/a/{z}", "five"), NKHTTP_ERR_DUPLICATE);
    CHECK_INT(add(&r, "GET", "/a/{x*}", "six"), 0);
    CHECK_INT(add(&r, "GET", "/a/{y*}", "seven"), NKHTTP_ERR_DUPLICATE);
    CHECK_ROUTE(&r, "GET", "/a/1", "one x=1");
    CHECK_ROUTE(&r, "POST", "/a/1", "three y=1"); // each route has its own names
    CHECK_ROUTE(&r, "PUT", "/a/1", "four z=1");
    CHECK_INT(match(&r, "GET", "/a/1", &m), 0);
    v = nkhttp_match_param(&m, "x");
    CHECK_STR(v.ptr, v.len, "1");
    v = nkhttp_match_param(&m, "y");
    CHECK_INT(v.len, 0);
    nkhttp_router_free(&r);
}

TEST(router_bad_patterns) {
    static const char* const bad[] = {
        "", "a", "*", "//", "/a//b", "//a", "/{}", "/{*}", "/{x", "/x}", "/a{x}", "/{x}a", "/{x*}/a", "/{x*}/", "/{x y}", "/{x.y}",
        "/{x}/{x}", "/{x}/{x*}", "/a?b", "/a#b", "/a b", "/%", "/%zz", "/a\n", "/\x7f", "/{{x}}",
        "/{a0123456789012345678901234567890123456789012345678901234567890123456789}",
        "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3",
        "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}/{q}"
    };
    static const char* const methods[] = { "G T", "GET ", "G\r\n", "G/T", "\xc3\xa9" };
    nkhttp_router r;
    size_t i;
    char name[8];
    nkhttp_router_init(&r, NULL, NULL);
    for (i = 0; i < COUNT(bad); i++) {
        if (!CHECK_INT(add(&r, "GET", bad[i], "x"), NKHTTP_ERR_PATTERN)) printf("    %s\n", bad[i]);
    }
    for (i = 0; i < COUNT(methods); i++) CHECK_INT(add(&r, methods[i], "/", "x"), NKHTTP_ERR_PATTERN);
    CHECK_INT(add(&r, "GET", "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}", "16"), 0);
    CHECK_INT(add(&r, "GET", "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2", "32"), 0);
    CHECK_ROUTE(&r, "GET", "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2", "32");
    CHECK_ROUTE(&r, "GET", "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3", "404");
    CHECK_ROUTE(&r, "GET", "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6",
                "16 a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8 i=9 j=0 k=1 l=2 m=3 n=4 o=5 p=6");
    for (i = 0; i < 23; i++) { // 9 known methods and 23 others
        snprintf(name, sizeof name, "M%u", (unsigned)i);
        CHECK_INT(add(&r, name, "/", "m"), 0);
    }
    CHECK_INT(add(&r, "ONEMORE", "/", "m"), NKHTTP_ERR_PATTERN);
    CHECK_ROUTE(&r, "M22", "/", "m");
    nkhttp_router_free(&r);
}

TEST(router_ten_thousand) {
    enum { N = 10000 };
    static int values[N];
    nkhttp_router r;
    nkhttp_match m;
    char text[64], id[16];
    uint32_t i, wrong = 0;
    nkhttp_router_init(&r, NULL, NULL);
    for (i = 0; i < N; i++) {
        snprintf(text, sizeof text, i % 3 == 0 ? "/api/v1/thing%u" : i % 3 == 1 ? "/r%u/{id}" : "/deep/{a}/s%u/{b}/t", i);
        if (nkhttp_router_add(&r, "GET", text, &values[i])) wrong++;
    }
    CHECK_INT(wrong, 0);
    for (i = 0; i < N; i++) {
        int n;
        snprintf(id, sizeof id, "x%u", i);
        if (i % 3 == 0) n = snprintf(text, sizeof text, "/api/v1/thing%u", i);
        else if (i % 3 == 1) n = snprintf(text, sizeof text, "/r%u/%s", i, id);
        else n = snprintf(text, sizeof text, "/deep/%s/s%u/%s/t", id, i, id);
        if (nkhttp_router_match(&r, "GET", 3, text, (size_t)n, &m) || m.value != &values[i]) wrong++;
        if (m.num_params != i % 3) wrong++;
        if (m.num_params && (m.params[0].value.len != strlen(id) || memcmp(m.params[0].value.ptr, id, strlen(id)))) wrong++;
        text[n - 1] = '!';
        if (i % 3 == 0 && nkhttp_router_match(&r, "GET", 3, text, (size_t)n, &m) != NKHTTP_ERR_NO_ROUTE) wrong++;
    }
    CHECK_INT(wrong, 0);
    nkhttp_router_free(&r);
}

typedef struct heap { long blocks; size_t bytes; long left; int moves; } heap; // left: allocations until one fails

static void* heap_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    heap* h = (heap*)user;
    void* p;
    if (!new_size) {
        h->blocks--;
        h->bytes -= old_size;
        free(ptr);
        return NULL;
    }
    if (h->left >= 0 && h->left-- == 0) return NULL;
    p = malloc(new_size); // always somewhere else
    if (ptr) memcpy(p, ptr, old_size);
    else h->blocks++;
    free(ptr);
    h->bytes += new_size - old_size;
    return p;
}

TEST(router_out_of_memory) {
    enum { N = 120 };
    static int values[N];
    long fail;
    for (fail = 0; fail < 40; fail++) {
        heap h = { 0, 0, 0, 0 };
        nkhttp_router r;
        nkhttp_match m;
        uint32_t i, failed = 0, wrong = 0;
        char text[64];
        h.left = fail;
        nkhttp_router_init(&r, heap_alloc, &h);
        for (i = 0; i < N; i++) {
            int err;
            snprintf(text, sizeof text, "/group%u/{id}/item%u", i % 7, i);
            err = nkhttp_router_add(&r, i % 2 ? "GET" : "BREW", text, &values[i]);
            if (err == NKHTTP_ERR_MEMORY) {
                failed++;
                h.left = -1;
                if (i && nkhttp_router_match(&r, "BREW", 4, "/group0/1/item0", 15, &m)) wrong++;
                if (nkhttp_router_match(&r, "GET", 3, text, strlen(text), &m) == 0) wrong++;
                err = nkhttp_router_add(&r, i % 2 ? "GET" : "BREW", text, &values[i]);
            }
            if (err) wrong++;
        }
        for (i = 0; i < N; i++) {
            snprintf(text, sizeof text, "/group%u/x/item%u", i % 7, i);
            if (nkhttp_router_match(&r, i % 2 ? "GET" : "BREW", i % 2 ? 3 : 4, text, strlen(text), &m)) wrong++;
            else if (m.value != &values[i]) wrong++;
        }
        CHECK_INT(wrong, 0);
        nkhttp_router_free(&r);
        CHECK_INT(h.blocks, 0);
        CHECK_INT(h.bytes, 0);
        if (!failed) break; // every allocation has had its turn
    }
    CHECK(fail > 8 && fail < 40);
}

// ---- multipart -------------------------------------------------------------------------------

TEST(boundary) {
    static const struct { const char* type; int err; const char* out; } cases[] = {
        { "multipart/form-data; boundary=abc", 0, "abc" }, { "Multipart/Form-Data;BOUNDARY=\"a b:c\"", 0, "a b:c" },
        { "multipart/form-data; charset=utf-8; boundary=abc; x=y", 0, "abc" }, { "multipart/mixed; boundary=x", 0, "x" },
        { "multipart/form-data; boundary=----=_Part_1.2/3", 0, "----=_Part_1.2/3" }, { "multipart/form-data; boundary=a;", 0, "a" },
        { "multipart/form-data; boundary=0123456789012345678901234567890123456789012345678901234567890123456789", 0,
          "0123456789012345678901234567890123456789012345678901234567890123456789" },
        { "multipart/form-data; boundary=01234567890123456789012345678901234567890123456789012345678901234567890",
          NKHTTP_ERR_MULTIPART, "" },
        { "text/plain; boundary=abc", NKHTTP_ERR_ABSENT, "" }, { "", NKHTTP_ERR_ABSENT, "" }, { "multipart/", NKHTTP_ERR_ABSENT, "" },
        { "multipart/form-data", NKHTTP_ERR_MULTIPART, "" }, { "multipart/form-data; boundary=", NKHTTP_ERR_MULTIPART, "" },
        { "multipart/form-data; boundary=\"\"", NKHTTP_ERR_MULTIPART, "" }, { "multipart/form-data; boundary=\"a", NKHTTP_ERR_MULTIPART, "" },
        { "multipart/form-data; boundary=a; boundary=b", NKHTTP_ERR_MULTIPART, "" },
        { "multipart/form-data; boundary=\"a \"", NKHTTP_ERR_MULTIPART, "" }, { "multipart/form-data; boundary=a*b", NKHTTP_ERR_MULTIPART, "" },
        { "multipart/form-data; boundary=\"a\\\"b\"", NKHTTP_ERR_MULTIPART, "" }, { "multipart/form-data; boundary", NKHTTP_ERR_MULTIPART, "" },
        { "multipart/form-data; x=\"boundary=no\"; boundary=yes", 0, "yes" }, { "multipart/form-data; boundary=\"a\"b", NKHTTP_ERR_MULTIPART, "" }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        nkhttp_str b = S("");
        char* t = exact(cases[i].type, strlen(cases[i].type));
        int err = nkhttp_boundary(nkhttp_p_str(t, strlen(cases[i].type)), &b);
        if (!CHECK_INT(err, cases[i].err)) printf("    %s\n", cases[i].type);
        if (!err) CHECK_STR(b.ptr, b.len, cases[i].out);
        free(t);
    }
}

typedef struct sink { char text[4096]; size_t len; } sink;

static void put(sink* s, const char* p, size_t n) {
    if (s->len + n <= sizeof s->text) {
        memcpy(s->text + s->len, p, n);
        s->len += n;
    }
}
static void put_text(sink* s, const char* text) { put(s, text, strlen(text)); }

static void put_event(sink* s, int rc, const nkhttp_part_event* ev) {
    char number[24];
    if (rc == NKHTTP_PART_BEGIN) {
        put_text(s, "[");
        put(s, ev->name.ptr, ev->name.len);
        put_text(s, ev->is_file ? "|file " : "|");
        put(s, ev->filename.ptr, ev->filename.len);
        put_text(s, "|");
        put(s, ev->content_type.ptr, ev->content_type.len);
        put_text(s, "]");
    } else if (rc == NKHTTP_PART_DATA) {
        CHECK(ev->data.len > 0);
        put(s, ev->data.ptr, ev->data.len);
    } else if (rc == NKHTTP_PART_END) {
        put_text(s, "<end>");
    } else if (rc == NKHTTP_PART_DONE) {
        put_text(s, "<done>");
    } else if (rc < 0) {
        snprintf(number, sizeof number, "<%d>", rc);
        put_text(s, number);
    }
}

// Feeds one more piece behind what is pending, as a caller would. < 0 once it failed.
static int feed(nkhttp_multipart* m, char* pending, size_t* num_pending, const char* p, size_t n, sink* s) {
    size_t at = 0, total = *num_pending + n, used;
    nkhttp_part_event ev;
    char* buf;
    int rc;
    memcpy(pending + *num_pending, p, n);
    buf = exact(pending, total);
    do {
        rc = nkhttp_multipart_next(m, buf + at, total - at, &used, &ev);
        CHECK(used <= total - at);
        put_event(s, rc, &ev);
        at += used;
    } while (rc > 0);
    memmove(pending, pending + at, total - at);
    *num_pending = total - at;
    if (rc == 0) CHECK(*num_pending <= (m->state == NKHTTP_P_PART_HEAD ? 8192u : m->delim_len + 4u));
    free(buf);
    return rc;
}

static void run(const char* boundary, const char* body, size_t len, size_t first, size_t step, sink* s) {
    static char pending[60000];
    nkhttp_multipart m;
    size_t at = 0, num_pending = 0;
    int rc = nkhttp_multipart_init(&m, S(boundary));
    s->len = 0;
    CHECK_INT(rc, 0);
    while (rc >= 0 && at < len) {
        size_t n = at == 0 && first ? first : step;
        if (n > len - at) n = len - at;
        rc = feed(&m, pending, &num_pending, body + at, n, s);
        at += n;
    }
    if (rc >= 0) {
        rc = nkhttp_multipart_finish(&m);
        if (rc < 0) put_text(s, "<cut>");
    } else {
        size_t used;
        nkhttp_part_event ev;
        CHECK_INT(nkhttp_multipart_next(&m, "x", 1, &used, &ev), rc); // an error stays
        CHECK_INT(used, 0);
        CHECK_INT(nkhttp_multipart_finish(&m), rc);
    }
}

#define FD "Content-Disposition: form-data; name="

TEST(multipart) {
    static const struct { const char* boundary; const char* body; const char* want; } cases[] = {
        { "b", "--b\r\n" FD "\"a\"\r\n\r\n1\r\n--b--\r\n", "[a||]1<end><done>" },
        { "b", "--b\r\n" FD "a\r\n\r\n1\r\n--b--", "[a||]1<end><done>" },
        { "b", "--b\r\n" FD "\"f\"; filename=\"x.txt\"\r\nContent-Type: text/x\r\n\r\nhello\r\nworld\r\n\r\n--b\r\n" FD "\"a\"\r\n\r\n\r\n--b--\r\n",
          "[f|file x.txt|text/x]hello\r\nworld\r\n<end>[a||]<end><done>" },
        { "b", "preamble\r\nmore --b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\nepilogue\r\n--b\r\n", "[||]x<end><done>" },
        { "b", "\r\n--b\r\n\r\nx\r\n--b--", "[||]x<end><done>" },
        { "b", "--b \t \r\n\r\nx\r\n--b\t\r\n\r\ny\r\n--b-- \r\n", "[||]x<end>[||]y<end><done>" },
        { "b", "--b\r\n\r\n\r\n--b\r\n\r\n--b--", "[||]<end>[||]<end><done>" }, // empty content with and without its own CRLF
        { "b", "--b--", "<done>" }, { "b", "--b--\r\n", "<done>" }, { "b", "", "<cut>" }, { "b", "--b", "<cut>" }, { "b", "--b-", "<cut>" },
        { "b", "nothing of the kind\r\n", "<cut>" },
        { "b", "--b\r\n\r\nx\r\n--b", "[||]x<cut>" }, { "b", "--b\r\n\r\nx\r\n", "[||]x<cut>" }, { "b", "--b\r\n\r\nx", "[||]x<cut>" },
        { "b", "--b\r\n\r\nx\r\n--b\r\n", "[||]x<end><cut>" },
        { "bound", "--bound\r\n\r\n\r\n--boun\r\n-bound\r\n--bounD\r\n--boundX\r\r\n\r\r\n--\r\n--bound--",
          "[||]\r\n--boun\r\n-bound\r\n--bounD\r\n--boundX\r\r\n\r\r\n--<end><done>" },
        { "b", "--b\r\n\r\n--bX\r\n--b-X\r\n--b\rX\r\n--b--", "[||]--bX\r\n--b-X\r\n--b\rX<end><done>" },
        { "b", "--b\r\n\r\n\n--b\r\n--b--", "[||]\n--b<end><done>" }, // a bare LF makes no line
        { "--", "----\r\n\r\n--\r\n--\r\n------", "[||]--\r\n--<end><done>" },
        { "b", "--b\n\nx\n--b--\n", "<-113>" }, { "b", "--b\r\n\nx\r\n--b--", "<-113>" },
        { "b", "--b\r\n" FD "a\n\r\nx\r\n--b--", "<-113>" }, { "b", "--b\r\n\r\nx\r\n--b\n\r\n\r\n--b--", "[||]x<-113>" },
        { "b", "pre\r\n--b\nx", "<-113>" }, { "b", "--b x\r\n\r\nx", "<-113>" }, { "b", "--b \rx", "<-113>" },
        { "b", "--b\r\nno colon\r\n\r\nx\r\n--b--", "<-113>" }, { "b", "--b\r\n: x\r\n\r\n\r\n--b--", "<-113>" },
        { "b", "--b\r\nA : x\r\n\r\n\r\n--b--", "<-113>" }, { "b", "--b\r\nA: x\r\n folded\r\n\r\n\r\n--b--", "<-113>" },
        { "b", "--b\r\nA: x\ry\r\n\r\n\r\n--b--", "<-113>" }, { "b", "--b\r\nA: \x01\r\n\r\n\r\n--b--", "<-113>" },
        { "b", "--b\r\nX-Any: \xff\xfe\r\n\r\n1\r\n--b--", "[||]1<end><done>" },
        { "b", "--b\r\n" FD "a\r\n" FD "b\r\n\r\n\r\n--b--", "<-113>" }, { "b", "--b\r\n" FD "a; name=b\r\n\r\n\r\n--b--", "<-113>" },
        { "b", "--b\r\n" FD "a; filename=x; filename=y\r\n\r\n\r\n--b--", "<-113>" },
        { "b", "--b\r\n" FD "\"a\r\n\r\n\r\n--b--", "<-113>" }, { "b", "--b\r\n" FD "\"a\"x\r\n\r\n\r\n--b--", "<-113>" },
        { "b", "--b\r\n" FD "\"a\\\"b\"; filename=\"../../etc/\\\\x\"\r\n\r\n1\r\n--b--", "[a\\\"b|file ../../etc/\\\\x|]1<end><done>" },
        { "b", "--b\r\n" FD "a; filename=\"\"\r\n\r\n\r\n--b--", "[a|file |]<end><done>" },
        { "b", "--b\r\n" FD "a; filename*=UTF-8''x\r\n\r\n\r\n--b--", "[a|file |]<end><done>" },
        { "b", "--b\r\ncontent-disposition: FORM-DATA ; NAME = \"a;b\" ; other=\"x;name=no\" ;\r\n\r\n1\r\n--b--", "[a;b||]1<end><done>" },
        { "0123456789012345678901234567890123456789012345678901234567890123456789",
          "--0123456789012345678901234567890123456789012345678901234567890123456789\r\n\r\nx\r\n"
          "--012345678901234567890123456789012345678901234567890123456789012345678\r\n"
          "--0123456789012345678901234567890123456789012345678901234567890123456789--",
          "[||]x\r\n--012345678901234567890123456789012345678901234567890123456789012345678<end><done>" }
    };
    static sink whole, cut;
    size_t i, at, step;
    for (i = 0; i < COUNT(cases); i++) {
        const char* body = cases[i].body;
        size_t len = strlen(body);
        run(cases[i].boundary, body, len, len, len, &whole);
        if (!CHECK_STR(whole.text, whole.len, cases[i].want)) printf("    case %lu\n", (unsigned long)i);
        for (at = 1; at < len; at++) {
            run(cases[i].boundary, body, len, at, len, &cut);
            if (cut.len != whole.len || memcmp(cut.text, whole.text, cut.len)) {
                CHECK_STR(cut.text, cut.len, cases[i].want);
                printf("    case %lu cut at %lu\n", (unsigned long)i, (unsigned long)at);
                break;
            }
        }
        for (step = 1; step < 8; step++) {
            run(cases[i].boundary, body, len, 0, step, &cut);
            CHECK_STR(cut.text, cut.len, cases[i].want);
        }
    }
}

TEST(multipart_limits) {
    static char body[40000];
    static sink out;
    size_t i, n = 0;
    nkhttp_multipart m;
    nkhttp_part_event ev;
    size_t used, at = 0;
    int rc, parts = 0;
    for (i = 0; i < 5000; i++, n += 5) memcpy(body + n, "--b\r\n", 5); // one part whose header block never ends
    run("b", body, n, n, n, &out);
    CHECK_STR(out.text, out.len, "<-158>");
    memcpy(body, "--b\r\nA: ", 8);
    memset(body + 8, 'x', 8192);
    memcpy(body + 8 + 8192, "\r\n\r\n\r\n--b--", 11);
    for (i = 1; i <= 9000; i += 2999) {
        run("b", body, 8 + 8192 + 11, i, i, &out);
        CHECK_STR(out.text, out.len, "<-158>");
    }
    memcpy(body + 5 + 8188, "\r\n\r\n\r\n--b--", 11); // 8192 bytes are allowed
    for (i = 1; i <= 9000; i += 2999) {
        run("b", body, 5 + 8188 + 11, i, i, &out);
        CHECK_STR(out.text, out.len, "[||]<end><done>");
    }
    for (n = 0, i = 0; i < 10000 / 3; i++, n += 9) memcpy(body + n, "--b\r\n\r\n\r\n", 9);
    CHECK_INT(nkhttp_multipart_init(&m, S("b")), 0);
    do {
        rc = nkhttp_multipart_next(&m, body + at, n - at, &used, &ev);
        at += used;
        if (rc == NKHTTP_PART_BEGIN) parts++;
    } while (rc > 0);
    CHECK_INT(rc, NKHTTP_ERR_PART_COUNT);
    CHECK_INT(parts, 1000);
    CHECK_INT(nkhttp_multipart_init(&m, S("b")), 0);
    m.max_parts = UINT32_MAX;
    at = 0;
    parts = 0;
    do {
        rc = nkhttp_multipart_next(&m, body + at, n - at, &used, &ev);
        at += used;
        if (rc == NKHTTP_PART_BEGIN) parts++;
    } while (rc > 0);
    CHECK_INT(rc, 0);
    CHECK_INT(parts, 10000 / 3);
    CHECK_INT(nkhttp_multipart_init(&m, S("")), NKHTTP_ERR_MULTIPART);
    CHECK_INT(nkhttp_multipart_next(&m, "x", 1, &used, &ev), NKHTTP_ERR_MULTIPART);
    CHECK_INT(nkhttp_multipart_init(&m, S("a\r")), NKHTTP_ERR_MULTIPART);
}

TEST(multipart_filenames) {
    static const struct { const char* params; int len; const char* out; } cases[] = {
        { "; filename=\"a.txt\"", 5, "a.txt" }, { "; filename=a.txt", 5, "a.txt" }, { "", NKHTTP_ERR_ABSENT, "" },
        { "; filename=\"\"", 0, "" }, { "; filename=\"../../etc/passwd\"", 6, "passwd" }, { "; filename=\"C:\\dir\\f.txt\"", 5, "f.txt" },
        { "; filename=\"..\"", 0, "" }, { "; filename=\"a/..\"", 0, "" }, { "; filename=\"...\"", 3, "..." },
        { "; filename=\"a\\\"b\"", 3, "a\"b" }, { "; filename=\"\xe2\x82\xac.txt\"", 7, "\xe2\x82\xac.txt" },
        { "; filename=\"\xff\"", NKHTTP_ERR_ENCODING, "" }, { "; filename=\"a\tb\"", NKHTTP_ERR_ENCODING, "" },
        { "; filename=\"EURO.txt\"; filename*=UTF-8''%e2%82%ac.txt", 7, "\xe2\x82\xac.txt" },
        { "; filename*=utf-8'en'%E2%82%AC%20rates; filename=\"x\"", 9, "\xe2\x82\xac rates" },
        { "; filename=\"x\"; filename*=UTF-8''..%2f..%2fetc%2fpasswd", 6, "passwd" },
        { "; filename=\"x\"; filename*=UTF-8''%c0%af", 1, "x" }, { "; filename=\"x\"; filename*=UTF-8''a%00b", 1, "x" },
        { "; filename=\"x\"; filename*=UTF-8''%zz", 1, "x" }, { "; filename=\"x\"; filename*=ISO-8859-1''%e9", 1, "x" },
        { "; filename=\"x\"; filename*=UTF-8'", 1, "x" }, { "; filename*=UTF-8''", 0, "" },
        { "; filename=\"01234567890123456789\"", NKHTTP_ERR_NOSPACE, "" }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char body[256], out[20];
        nkhttp_multipart m;
        nkhttp_part_event ev;
        size_t used;
        int rc, n = snprintf(body, sizeof body, "--b\r\n" FD "f%s\r\n\r\n", cases[i].params);
        CHECK_INT(nkhttp_multipart_init(&m, S("b")), 0);
        rc = nkhttp_multipart_next(&m, body, (size_t)n, &used, &ev);
        if (!CHECK_INT(rc, NKHTTP_PART_BEGIN)) printf("    %s\n", cases[i].params);
        rc = nkhttp_part_filename(&ev, out, sizeof out);
        if (!CHECK_INT(rc, cases[i].len)) printf("    %s\n", cases[i].params);
        if (rc >= 0) CHECK_MEM(out, cases[i].out, (size_t)rc + 1);
    }
}

// ---- proxies and hosts -----------------------------------------------------------------------

static void check_proxy(const char* bytes, size_t len, int want, const char* src, int port, int unknown) {
    size_t cut;
    nkhttp_proxy p;
    char* all = exact(bytes, len);
    int rc = nkhttp_parse_proxy(all, len, &p), early = 0;
    if (!CHECK_INT(rc, want)) printf("    %.*s\n", (int)len, bytes);
    if (rc > 0) {
        CHECK_STR(p.src_addr, strlen(p.src_addr), src);
        CHECK_INT(p.src_port, port);
        CHECK_INT(p.is_unknown, unknown);
    }
    free(all);
    for (cut = 0; cut < len && (want <= 0 || cut < (size_t)want); cut++) { // an error may come early, a result may not
        char* part = exact(bytes, cut);
        rc = nkhttp_parse_proxy(part, cut, &p);
        if (rc > 0 || (rc < 0 && want >= 0) || (early && rc != early)) {
            CHECK_INT(rc, want);
            printf("    cut at %lu of %.*s\n", (unsigned long)cut, (int)len, bytes);
        }
        early = rc;
        free(part);
    }
}

TEST(proxy_v1) {
    static const struct { const char* text; int rc; const char* src; int port; int unknown; } cases[] = {
        { "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", 47, "192.168.0.1", 56324, 0 },
        { "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", 56, "255.255.255.255", 65535, 0 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 0 1\r\nGET / HTTP/1.1\r\n", 32, "1.2.3.4", 0, 0 },
        { "PROXY TCP6 2001:0DB8:0::1 ::1 1 2\r\n", 35, "2001:db8::1", 1, 0 },
        { "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", 104,
          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535, 0 },
        { "PROXY TCP6 ::ffff:1.2.3.4 :: 1 2\r\n", 34, "::ffff:1.2.3.4", 1, 0 },
        { "PROXY TCP6 1:0:0:2:0:0:0:3 1:: 1 2\r\n", 36, "1:0:0:2::3", 1, 0 },
        { "PROXY TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1 2\r\n", 48, "1:2:3:4:5:6:7:0", 1, 0 },
        { "PROXY UNKNOWN\r\n", 15, "", 0, 1 }, { "PROXY UNKNOWN ffff::1 what ever\r\n", 33, "", 0, 1 },
        { "PROXY UNKNOWNS\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY  TCP4 1.2.3.4 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 0 1\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP4 1.2.3.4 5.6.7.8 0 1 \r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 0\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP4 1.2.3 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP4 01.2.3.4 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP4 1.2.3.256 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP4 1.2.3.4.5 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP4 1.2.3.4 5.6.7.8 65536 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 +1 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP4 1.2.3.4 5.6.7.8 01 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP4 ::1 ::1 1 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP6 1.2.3.4 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP6 1::2::3 ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP6 1:2:3:4:5:6:7:8:: ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP6 ::12345 ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP6 1: ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP6 ::: ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY TCP6 :1::2 ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP6 1:2:3:4:5:6:7:1.2.3.4 ::1 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY UDP4 1.2.3.4 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY tcp4 1.2.3.4 5.6.7.8 0 1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "PROXY UNKNOWN\r\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY UNKNOWN \x01\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "GET / HTTP/1.1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "POST / HTTP/1.1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 },
        { "\r\nGET / HTTP/1.1\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }, { "PROXY TCP4 1.2.3.4 5.6.7.8 0 1\r", 0, "", 0, 0 }, { "", 0, "", 0, 0 },
        // 107 bytes pass, 108 do not
        { "PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\r\n", 107, "", 0, 1 },
        { "PROXY UNKNOWN 01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901\r\n", NKHTTP_ERR_PROXY, "", 0, 0 }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        check_proxy(cases[i].text, strlen(cases[i].text), cases[i].rc, cases[i].src, cases[i].port, cases[i].unknown);
    }
}

static size_t proxy2(char* out, int command, int family, size_t size, size_t sent) {
    size_t i;
    memcpy(out, "\r\n\r\n\0\r\nQUIT\n", 12);
    out[12] = (char)command;
    out[13] = (char)family;
    out[14] = (char)(size >> 8);
    out[15] = (char)size;
    for (i = 0; i < sent; i++) out[16 + i] = (char)(i + 1);
    return 16 + sent;
}

TEST(proxy_v2) {
    static char b[1024];
    nkhttp_proxy p;
    check_proxy(b, proxy2(b, 0x21, 0x11, 12, 12), 28, "1.2.3.4", 0x090a, 0);
    check_proxy(b, proxy2(b, 0x21, 0x11, 12, 40), 28, "1.2.3.4", 0x090a, 0); // bytes behind it are not ours
    check_proxy(b, proxy2(b, 0x21, 0x21, 36, 36), 52, "102:304:506:708:90a:b0c:d0e:f10", 0x2122, 0);
    check_proxy(b, proxy2(b, 0x21, 0x31, 216, 216), 232, "", 0, 1);
    check_proxy(b, proxy2(b, 0x20, 0x00, 0, 0), 16, "", 0, 1);
    check_proxy(b, proxy2(b, 0x20, 0x11, 12, 12), 28, "", 0, 1);
    check_proxy(b, proxy2(b, 0x20, 0x7f, 5, 5), 21, "", 0, 1);
    check_proxy(b, proxy2(b, 0x21, 0x00, 7, 7), 23, "", 0, 1);
    check_proxy(b, proxy2(b, 0x21, 0x11, 11, 11), NKHTTP_ERR_PROXY, "", 0, 0);
    check_proxy(b, proxy2(b, 0x21, 0x12, 12, 12), NKHTTP_ERR_PROXY, "", 0, 0);
    check_proxy(b, proxy2(b, 0x21, 0x10, 12, 12), NKHTTP_ERR_PROXY, "", 0, 0);
    check_proxy(b, proxy2(b, 0x21, 0x41, 12, 12), NKHTTP_ERR_PROXY, "", 0, 0);
    check_proxy(b, proxy2(b, 0x11, 0x11, 12, 12), NKHTTP_ERR_PROXY, "", 0, 0);
    check_proxy(b, proxy2(b, 0x22, 0x11, 12, 12), NKHTTP_ERR_PROXY, "", 0, 0);
    check_proxy(b, proxy2(b, 0x21, 0x11, 521, 521), NKHTTP_ERR_PROXY, "", 0, 0);
    proxy2(b, 0x21, 0x11, 520, 520);
    b[28] = 4; // one TLV that fills the rest
    b[29] = (char)(505 >> 8);
    b[30] = (char)(505 & 255);
    check_proxy(b, 536, 536, "1.2.3.4", 0x090a, 0);
    b[30] = (char)(506 & 255);
    check_proxy(b, 536, NKHTTP_ERR_PROXY, "", 0, 0);
    check_proxy(b, proxy2(b, 0x21, 0x11, 14, 14), NKHTTP_ERR_PROXY, "", 0, 0); // half a TLV
    proxy2(b, 0x21, 0x11, 65535, 0);
    CHECK_INT(nkhttp_parse_proxy(b, 16, &p), NKHTTP_ERR_PROXY);
    CHECK_INT(nkhttp_parse_proxy(b, proxy2(b, 0x21, 0x11, 12, 12), &p), 28);
    CHECK_INT(p.version, 2);
    CHECK_STR(p.dst_addr, strlen(p.dst_addr), "5.6.7.8");
    CHECK_INT(p.dst_port, 0x0b0c);
}

static int trusted_10(void* user, nkhttp_str addr) {
    (void)user;
    return addr.len > 3 && !memcmp(addr.ptr, "10.", 3);
}

TEST(forwarded_for) {
    static const struct { const char* one; const char* two; uint32_t hops; int err; const char* out; } cases[] = { // hops 0: callback
        { "1.1.1.1", NULL, 0, 0, "1.1.1.1" }, { "6.6.6.6, 1.1.1.1, 10.0.0.2", NULL, 0, 0, "1.1.1.1" },
        { "6.6.6.6", "1.1.1.1 , 10.0.0.1", 0, 0, "1.1.1.1" }, { "1.1.1.1", "10.0.0.1,10.0.0.2", 0, 0, "1.1.1.1" },
        { "10.0.0.3, 10.0.0.2", NULL, 0, 0, "10.0.0.3" }, { "", NULL, 0, NKHTTP_ERR_ABSENT, "" }, { ", ,", NULL, 0, NKHTTP_ERR_ABSENT, "" },
        { "unknown", NULL, 0, NKHTTP_ERR_SYNTAX, "" }, { "1.1.1.1, evil, 10.0.0.1", NULL, 0, NKHTTP_ERR_SYNTAX, "" },
        { "evil, 1.1.1.1", NULL, 0, 0, "1.1.1.1" }, { "1.1.1.1:80", NULL, 0, 0, "1.1.1.1" }, { "[2001:db8::1]:80", NULL, 0, 0, "2001:db8::1" },
        { "[2001:db8::1]", NULL, 0, 0, "2001:db8::1" }, { "2001:db8::1", NULL, 0, 0, "2001:db8::1" }, { "1.1.1.1:", NULL, 0, NKHTTP_ERR_SYNTAX, "" },
        { "1.1.1.1:x", NULL, 0, NKHTTP_ERR_SYNTAX, "" }, { "[::1", NULL, 0, NKHTTP_ERR_SYNTAX, "" }, { "[1.1.1.1]", NULL, 0, NKHTTP_ERR_SYNTAX, "" },
        { "1.1.1", NULL, 0, NKHTTP_ERR_SYNTAX, "" }, { "1.1.1.1, 2.2.2.2, 3.3.3.3", NULL, 1, 0, "3.3.3.3" },
        { "1.1.1.1, 2.2.2.2, 3.3.3.3", NULL, 2, 0, "2.2.2.2" }, { "1.1.1.1, 2.2.2.2", "3.3.3.3", 3, 0, "1.1.1.1" },
        { "1.1.1.1", NULL, 5, 0, "1.1.1.1" }, { "x, 2.2.2.2", NULL, 2, NKHTTP_ERR_SYNTAX, "" }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        nkhttp_header headers[4];
        nkhttp_head head;
        nkhttp_str out = S("");
        int err;
        memset(&head, 0, sizeof head);
        head.headers = headers;
        headers[0].name = S("X-Forwarded-For");
        headers[0].value = S(cases[i].one);
        headers[1].name = S("Host");
        headers[1].value = S("9.9.9.9");
        headers[2].name = S("x-forwarded-for");
        headers[2].value = S(cases[i].two ? cases[i].two : "");
        head.num_headers = cases[i].two ? 3 : 2;
        err = nkhttp_forwarded_for(&head, cases[i].hops ? NULL : trusted_10, NULL, cases[i].hops, &out);
        if (!CHECK_INT(err, cases[i].err)) printf("    %s\n", cases[i].one);
        if (!err) CHECK_STR(out.ptr, out.len, cases[i].out);
    }
}

TEST(hosts) {
    static const char* const loopback[] = { NKHTTP_HOSTS_LOOPBACK, NULL };
    static const char* const list[] = { "example.com", "*.example.org 10.0.0.1", "[2001:db8::1]", NULL };
    static const char* const none[] = { NULL };
    static const struct { const char* host; int loop; int listed; } cases[] = {
        { "localhost", 1, 0 }, { "LocalHost:8080", 1, 0 }, { "localhost.", 1, 0 }, { "localhost:", 1, 0 }, { "127.0.0.1", 1, 0 },
        { "127.0.0.1:80", 1, 0 }, { "[::1]", 1, 0 }, { "[::1]:80", 1, 0 }, { "[0:0:0:0:0:0:0:1]:80", 1, 0 }, { "::1", 0, 0 },
        { "[::ffff:127.0.0.1]", 1, 0 }, { "localhost.evil.com", 0, 0 }, { "evil.com", 0, 0 }, { "", 0, 0 }, { ":80", 0, 0 },
        { "localhost:x", 0, 0 }, { "localhost:80:80", 0, 0 }, { "[::1", 0, 0 }, { "[::1]x", 0, 0 }, { "127.0.0.1.evil.com", 0, 0 },
        { "example.com", 0, 1 }, { "EXAMPLE.com.:443", 0, 1 }, { "www.example.com", 0, 0 }, { "example.org", 0, 0 },
        { "a.example.org", 0, 1 }, { "a.b.EXAMPLE.org:1", 0, 1 }, { "badexample.org", 0, 0 }, { ".example.org", 0, 0 },
        { "10.0.0.1:9", 0, 1 }, { "10.0.0.2", 0, 0 }, { "[2001:DB8:0::1]", 0, 1 }, { ".", 0, 0 }, { "localhost..", 0, 0 }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char* h = exact(cases[i].host, strlen(cases[i].host));
        nkhttp_str host = nkhttp_p_str(h, strlen(cases[i].host));
        if (!CHECK_INT(nkhttp_host_ok(host, loopback), cases[i].loop)) printf("    %s\n", cases[i].host);
        if (!CHECK_INT(nkhttp_host_ok(host, list), cases[i].listed)) printf("    %s\n", cases[i].host);
        CHECK_INT(nkhttp_host_ok(host, none), 0);
        free(h);
    }
    CHECK(nkhttp_same_address(S("1.2.3.4"), S("::ffff:1.2.3.4")));
    CHECK(nkhttp_same_address(S("::"), S("0:0:0:0:0:0:0:0")));
    CHECK(!nkhttp_same_address(S("x"), S("x")));
    CHECK(!nkhttp_same_address(S(""), S("")));
}

// ---- ranges and preconditions ----------------------------------------------------------------

TEST(ranges) {
    static const struct { const char* value; uint64_t size; int rc; nkhttp_range r[3]; } cases[] = {
        { "bytes=0-0", 100, 1, { { 0, 0 } } }, { "bytes=0-", 100, 1, { { 0, 99 } } }, { "bytes=-5", 100, 1, { { 95, 99 } } },
        { "bytes=5-4", 100, 0, { { 0, 0 } } }, { "bytes=999999-", 100, NKHTTP_ERR_RANGE, { { 0, 0 } } },
        { "bytes=0-0,2-2", 100, 2, { { 0, 0 }, { 2, 2 } } }, { "lines=1-2", 100, 0, { { 0, 0 } } }, { "bytes=-0", 100, NKHTTP_ERR_RANGE, { { 0, 0 } } },
        { "BYTES=1-2", 100, 1, { { 1, 2 } } }, { "bytes=", 100, 0, { { 0, 0 } } }, { "bytes=,", 100, 0, { { 0, 0 } } }, { "bytes", 100, 0, { { 0, 0 } } },
        { "bytes=-", 100, 0, { { 0, 0 } } }, { "bytes=1", 100, 0, { { 0, 0 } } }, { "bytes=a-b", 100, 0, { { 0, 0 } } }, { "bytes=1 -2", 100, 0, { { 0, 0 } } },
        { "bytes= 1-2 , 5-6", 100, 2, { { 1, 2 }, { 5, 6 } } }, { "bytes=,,1-2,", 100, 1, { { 1, 2 } } }, { "bytes=1-2,x", 100, 0, { { 0, 0 } } },
        { "bytes=1-2-3", 100, 0, { { 0, 0 } } }, { "bytes=--5", 100, 0, { { 0, 0 } } }, { "bytes =1-2", 100, 0, { { 0, 0 } } }, { "bytes=+1-2", 100, 0, { { 0, 0 } } },
        { "bytes=90-200", 100, 1, { { 90, 99 } } }, { "bytes=-200", 100, 1, { { 0, 99 } } }, { "bytes=100-", 100, NKHTTP_ERR_RANGE, { { 0, 0 } } },
        { "bytes=99-", 100, 1, { { 99, 99 } } }, { "bytes=200-,5-6", 100, 1, { { 5, 6 } } },
        { "bytes=0-18446744073709551615", 100, 1, { { 0, 99 } } }, { "bytes=18446744073709551615-", 100, NKHTTP_ERR_RANGE, { { 0, 0 } } },
        { "bytes=99999999999999999999999-99999999999999999999999", 100, NKHTTP_ERR_RANGE, { { 0, 0 } } },
        { "bytes=1-99999999999999999999999", 100, 1, { { 1, 99 } } }, { "bytes=-99999999999999999999999", 100, 1, { { 0, 99 } } },
        { "bytes=18446744073709551613-", UINT64_MAX, 1, { { UINT64_MAX - 2, UINT64_MAX - 1 } } },
        { "bytes=0-,-1", UINT64_MAX, 0, { { 0, 0 } } }, { "bytes=-18446744073709551615", UINT64_MAX, 1, { { 0, UINT64_MAX - 1 } } },
        { "bytes=0-0", 0, NKHTTP_ERR_RANGE, { { 0, 0 } } }, { "bytes=-5", 0, 0, { { 0, 0 } } },
        { "bytes=0-9,10-19", 100, 1, { { 0, 19 } } }, { "bytes=10-19,0-9", 100, 1, { { 0, 19 } } }, { "bytes=0-9,5-14", 100, 1, { { 0, 14 } } },
        { "bytes=0-9,20-29,5-24", 100, 1, { { 0, 29 } } }, { "bytes=50-59,0-9,55-64,90-99", 100, 3, { { 50, 64 }, { 0, 9 }, { 90, 99 } } },
        { "bytes=0-99,-50", 100, 0, { { 0, 0 } } }, { "bytes=0-,0-", 100, 0, { { 0, 0 } } },
        { "bytes=0-5,1-6,2-7,3-8", 1000, 0, { { 0, 0 } } }, { "bytes=1-1,3-3,5-5,7-7,9-9", 100, 0, { { 0, 0 } } }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        nkhttp_range out[4];
        char* v = exact(cases[i].value, strlen(cases[i].value));
        int k, rc = nkhttp_parse_range(nkhttp_p_str(v, strlen(cases[i].value)), cases[i].size, out, 4);
        if (!CHECK_INT(rc, cases[i].rc)) printf("    %s\n", cases[i].value);
        for (k = 0; k < rc && k < 3; k++) {
            CHECK(out[k].first == cases[i].r[k].first && out[k].last == cases[i].r[k].last);
        }
        free(v);
    }
    {
        static char many[8000];
        nkhttp_range out[16];
        int n = snprintf(many, sizeof many, "bytes=0-");
        for (i = 0; i < 1000; i++) n += snprintf(many + n, sizeof many - (size_t)n, ",0-");
        CHECK_INT(nkhttp_parse_range(S(many), 1000000, out, 16), 0);
        CHECK_INT(nkhttp_parse_range(S("bytes=0-0"), 10, out, 0), 0);
    }
}

static int precondition(const char* fields, int get, const char* etag, int64_t mtime, int exists, int if_range) {
    char text[1024];
    nkhttp_header headers[8];
    nkhttp_head head;
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", fields);
    memset(&head, 0, sizeof head);
    head.headers = headers;
    head.max_headers = 8;
    CHECK_INT(nkhttp_parse_request(text, (size_t)n, &head), n);
    if (if_range) return nkhttp_if_range_ok(&head, S(etag), mtime);
    return nkhttp_check_preconditions(&head, get, S(etag), mtime, exists, 900000000);
}

#define D_OLD   "Sun, 06 Nov 1994 08:49:36 GMT"
#define D_MTIME "Sun, 06 Nov 1994 08:49:37 GMT" // 784111777
#define D_NEW   "Sun, 06 Nov 1994 08:49:38 GMT"

TEST(preconditions) {
    static const struct { const char* fields; int get; const char* etag; int64_t mtime; int exists; int want; } cases[] = {
        { "", 1, "\"a\"", 784111777, 1, 0 },
        { "If-None-Match: \"a\"\r\n", 1, "\"a\"", 0, 1, 304 }, { "If-None-Match: \"a\"\r\n", 0, "\"a\"", 0, 1, 412 },
        { "If-None-Match: \"b\"\r\n", 1, "\"a\"", 0, 1, 0 }, { "If-None-Match: \"b\", \"a\"\r\n", 1, "\"a\"", 0, 1, 304 },
        { "If-None-Match: \"b\",,\"c\" ,\"a\"\r\n", 1, "\"a\"", 0, 1, 304 }, { "If-None-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", 1, "\"a\"", 0, 1, 304 },
        { "If-None-Match: *\r\n", 1, "\"a\"", 0, 1, 304 }, { "If-None-Match: *\r\n", 1, "", 0, 1, 304 }, { "If-None-Match: *\r\n", 0, "", 0, 0, 0 },
        { "If-None-Match: *\r\n", 0, "\"a\"", 0, 1, 412 }, { "If-None-Match: W/\"a\"\r\n", 1, "\"a\"", 0, 1, 304 },
        { "If-None-Match: \"a\"\r\n", 1, "W/\"a\"", 0, 1, 304 }, { "If-None-Match: W/\"a\"\r\n", 1, "W/\"a\"", 0, 1, 304 },
        { "If-None-Match: a\r\n", 1, "\"a\"", 0, 1, 0 }, { "If-None-Match: a, \"a\"\r\n", 1, "\"a\"", 0, 1, 304 },
        { "If-None-Match: \"a\r\n", 1, "\"a\"", 0, 1, 0 }, { "If-None-Match: w/\"a\"\r\n", 1, "\"a\"", 0, 1, 0 },
        { "If-None-Match: \"x,\"a\"\r\n", 1, "\"a\"", 0, 1, 0 }, { "If-None-Match: \"x,y\", \"a\"\r\n", 1, "\"a\"", 0, 1, 304 },
        { "If-None-Match: \"x, *\"\r\n", 1, "\"a\"", 0, 1, 0 }, { "If-None-Match: \"x,y\"\r\n", 1, "\"x,y\"", 0, 1, 304 },
        { "If-None-Match: \"a\"\r\n", 1, "", 0, 1, 0 }, { "If-None-Match: \"\"\r\n", 1, "\"\"", 0, 1, 304 }, { "If-None-Match: \r\n", 1, "\"a\"", 0, 1, 0 },
        { "If-None-Match: \"b\"\r\nIf-Modified-Since: " D_NEW "\r\n", 1, "\"a\"", 784111777, 1, 0 }, // the tag wins
        { "If-None-Match: \"a\"\r\nIf-Modified-Since: " D_OLD "\r\n", 1, "\"a\"", 784111777, 1, 304 },
        { "If-Modified-Since: " D_MTIME "\r\n", 1, "\"a\"", 784111777, 1, 304 }, { "If-Modified-Since: " D_OLD "\r\n", 1, "\"a\"", 784111777, 1, 0 },
        { "If-Modified-Since: " D_NEW "\r\n", 1, "\"a\"", 784111777, 1, 304 }, { "If-Modified-Since: " D_MTIME "\r\n", 0, "\"a\"", 784111777, 1, 0 },
        { "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", 1, "", 784111777, 1, 304 },
        { "If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", 1, "", 784111777, 1, 304 },
        { "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\n", 1, "", 784111777, 1, 0 }, // in the future
        { "If-Modified-Since: yesterday\r\n", 1, "", 784111777, 1, 0 }, { "If-Modified-Since: " D_MTIME "\r\n", 1, "", 0, 1, 0 },
        { "If-Modified-Since: " D_MTIME "\r\nIf-Modified-Since: " D_OLD "\r\n", 1, "", 784111777, 1, 0 },
        { "If-Match: \"a\"\r\n", 1, "\"a\"", 0, 1, 0 }, { "If-Match: \"b\"\r\n", 1, "\"a\"", 0, 1, 412 }, { "If-Match: \"b\", \"a\"\r\n", 0, "\"a\"", 0, 1, 0 },
        { "If-Match: W/\"a\"\r\n", 0, "\"a\"", 0, 1, 412 }, { "If-Match: \"a\"\r\n", 0, "W/\"a\"", 0, 1, 412 }, { "If-Match: *\r\n", 0, "", 0, 1, 0 },
        { "If-Match: *\r\n", 0, "", 0, 0, 412 }, { "If-Match: a\r\n", 0, "\"a\"", 0, 1, 412 }, { "If-Match: \"a\"\r\n", 0, "", 0, 0, 412 },
        { "If-Match: \"a\"\r\nIf-None-Match: \"a\"\r\n", 1, "\"a\"", 0, 1, 304 },
        { "If-Unmodified-Since: " D_OLD "\r\n", 1, "", 784111777, 1, 412 }, { "If-Unmodified-Since: " D_MTIME "\r\n", 0, "", 784111777, 1, 0 },
        { "If-Unmodified-Since: never\r\n", 0, "", 784111777, 1, 0 }, { "If-Unmodified-Since: " D_OLD "\r\n", 0, "", 0, 1, 0 },
        { "If-Match: \"a\"\r\nIf-Unmodified-Since: " D_OLD "\r\n", 0, "\"a\"", 784111777, 1, 0 } // If-Match wins
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        int got = precondition(cases[i].fields, cases[i].get, cases[i].etag, cases[i].mtime, cases[i].exists, 0);
        if (!CHECK_INT(got, cases[i].want)) printf("    %s", cases[i].fields);
    }
}

TEST(if_range) {
    static const struct { const char* fields; const char* etag; int64_t mtime; int want; } cases[] = {
        { "", "\"a\"", 784111777, 1 }, { "If-Range: \"a\"\r\n", "\"a\"", 0, 1 }, { "If-Range: \"b\"\r\n", "\"a\"", 0, 0 },
        { "If-Range: W/\"a\"\r\n", "\"a\"", 0, 0 }, { "If-Range: \"a\"\r\n", "W/\"a\"", 0, 0 }, { "If-Range: W/\"a\"\r\n", "W/\"a\"", 0, 0 },
        { "If-Range: \"a\", \"b\"\r\n", "\"a\"", 0, 0 }, { "If-Range: \"a\"\r\n", "", 0, 0 }, { "If-Range: a\r\n", "\"a\"", 0, 0 }, { "If-Range: *\r\n", "\"a\"", 0, 0 },
        { "If-Range: " D_MTIME "\r\n", "", 784111777, 1 }, { "If-Range: " D_NEW "\r\n", "", 784111777, 0 }, { "If-Range: " D_OLD "\r\n", "", 784111777, 0 },
        { "If-Range: " D_MTIME "\r\n", "", 0, 0 }, { "If-Range: \r\n", "\"a\"", 784111777, 0 }, { "If-Range: \"a\"\r\nIf-Range: \"a\"\r\n", "\"a\"", 0, 0 }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        int got = precondition(cases[i].fields, 1, cases[i].etag, cases[i].mtime, 1, 1);
        if (!CHECK_INT(got, cases[i].want)) printf("    %s", cases[i].fields);
    }
}

// ---- paths -----------------------------------------------------------------------------------

TEST(path_clean) {
    static const struct { const char* raw; int rc; const char* out; } cases[] = {
        { "/", 0, "" }, { "", 0, "" }, { "/a", 1, "a" }, { "a/b", 3, "a/b" }, { "/a/b/c.txt", 9, "a/b/c.txt" }, { "/a//b/", 3, "a/b" },
        { "//etc/passwd", 10, "etc/passwd" }, { "/./a/./b/.", 3, "a/b" }, { "/%2e/a", 1, "a" }, { "/a%20b", 3, "a b" }, { "/a+b", 3, "a+b" },
        { "/caf%C3%A9", 5, "caf\xc3\xa9" }, { "/%2541", 3, "%41" }, // decoded once
        { "/..", NKHTTP_ERR_PATH, "" }, { "/../etc/passwd", NKHTTP_ERR_PATH, "" }, { "/a/../b", NKHTTP_ERR_PATH, "" }, { "/%2e%2e/", NKHTTP_ERR_PATH, "" },
        { "/.%2e/x", NKHTTP_ERR_PATH, "" }, { "/..%2f..%2f", NKHTTP_ERR_PATH, "" }, { "/a/..%5c..", NKHTTP_ERR_PATH, "" }, { "/a%2fb", NKHTTP_ERR_PATH, "" },
        { "/a\\b", NKHTTP_ERR_PATH, "" }, { "/a%5Cb", NKHTTP_ERR_PATH, "" }, { "/..\\x", NKHTTP_ERR_PATH, "" }, { "/%00", NKHTTP_ERR_PATH, "" },
        { "/file%00.txt", NKHTTP_ERR_PATH, "" }, { "/a%0d%0ab", NKHTTP_ERR_PATH, "" }, { "/%7f", NKHTTP_ERR_PATH, "" }, { "/%1f", NKHTTP_ERR_PATH, "" },
        { "/C:/x", NKHTTP_ERR_PATH, "" }, { "/c%3a", NKHTTP_ERR_PATH, "" }, { "/file.txt::$DATA", NKHTTP_ERR_PATH, "" }, { "/con", NKHTTP_ERR_PATH, "" },
        { "/CON", NKHTTP_ERR_PATH, "" }, { "/con.txt", NKHTTP_ERR_PATH, "" }, { "/con.tar.gz", NKHTTP_ERR_PATH, "" }, { "/a/Nul", NKHTTP_ERR_PATH, "" },
        { "/aux/b", NKHTTP_ERR_PATH, "" }, { "/prn.", NKHTTP_ERR_PATH, "" }, { "/con%20.txt", NKHTTP_ERR_PATH, "" }, { "/com1", NKHTTP_ERR_PATH, "" },
        { "/LPT9.x", NKHTTP_ERR_PATH, "" }, { "/com%C2%B9", NKHTTP_ERR_PATH, "" }, { "/lpt\xc2\xb3.txt", NKHTTP_ERR_PATH, "" }, { "/conin$", NKHTTP_ERR_PATH, "" },
        { "/CONOUT$.x", NKHTTP_ERR_PATH, "" }, { "/com0", 4, "com0" }, { "/com10", 5, "com10" }, { "/console", 7, "console" }, { "/nulls.txt", 9, "nulls.txt" },
        { "/file.", NKHTTP_ERR_PATH, "" }, { "/file%20", NKHTTP_ERR_PATH, "" }, { "/a./b", NKHTTP_ERR_PATH, "" }, { "/...", NKHTTP_ERR_PATH, "" },
        { "/%20/x", NKHTTP_ERR_PATH, "" }, { "/.git/config", NKHTTP_ERR_PATH, "" }, { "/%2egit", NKHTTP_ERR_PATH, "" }, { "/a/.htaccess", NKHTTP_ERR_PATH, "" },
        { "/GIT~1/config", NKHTTP_ERR_PATH, "" }, { "/progra~12.txt", 13, "progra~12.txt" }, { "/prog~12.txt", NKHTTP_ERR_PATH, "" }, { "/a~b", 3, "a~b" },
        { "/~1", 2, "~1" }, { "/~user", 5, "~user" }, { "/a~1.html", 8, "a~1.html" }, { "/a~1.htm", NKHTTP_ERR_PATH, "" },
        { "/%c0%af", NKHTTP_ERR_ENCODING, "" }, { "/%c0%ae%c0%ae/x", NKHTTP_ERR_ENCODING, "" }, { "/%ff", NKHTTP_ERR_ENCODING, "" }, { "/%", NKHTTP_ERR_ENCODING, "" },
        { "/%zz", NKHTTP_ERR_ENCODING, "" }, { "/%ed%a0%80", NKHTTP_ERR_ENCODING, "" }, { "/a/%2", NKHTTP_ERR_ENCODING, "" }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        size_t n = strlen(cases[i].raw);
        char* raw = exact(cases[i].raw, n);
        char* out = (char*)malloc(n + 1); // this is always enough
        int rc = nkhttp_path_clean(out, n + 1, nkhttp_p_str(raw, n), 0);
        if (!CHECK_INT(rc, cases[i].rc)) printf("    %s\n", cases[i].raw);
        if (rc >= 0) {
            CHECK_STR(out, strlen(out), cases[i].out);
            CHECK_INT(nkhttp_path_clean(out, (size_t)rc, nkhttp_p_str(raw, n), 0), NKHTTP_ERR_NOSPACE);
        }
        free(out);
        free(raw);
    }
    {
        char out[32];
        CHECK_INT(nkhttp_path_clean(out, sizeof out, S("/.git/config"), NKHTTP_PATH_DOTFILES), 11);
        CHECK_STR(out, strlen(out), ".git/config");
        CHECK_INT(nkhttp_path_clean(out, sizeof out, S("/.."), NKHTTP_PATH_DOTFILES), NKHTTP_ERR_PATH);
        CHECK_INT(nkhttp_path_clean(out, sizeof out, S("/a/.%2E/b"), NKHTTP_PATH_DOTFILES), NKHTTP_ERR_PATH);
        CHECK_INT(nkhttp_path_clean(out, sizeof out, S("/..."), NKHTTP_PATH_DOTFILES), NKHTTP_ERR_PATH);
        CHECK_INT(nkhttp_path_clean(out, 0, S("/"), 0), NKHTTP_ERR_NOSPACE);
    }
}

TEST(mime) {
    static const struct { const char* path; const char* type; } cases[] = {
        { "index.html", "text/html; charset=utf-8" }, { "a/b.c/INDEX.HTM", "text/html; charset=utf-8" }, { "x.js", "text/javascript; charset=utf-8" },
        { "x.json", "application/json" }, { "x.png", "image/png" }, { "x.svg", "image/svg+xml" }, { "x.wasm", "application/wasm" },
        { "x.woff2", "font/woff2" }, { "x.7z", "application/x-7z-compressed" }, { "x.zst", "application/zstd" }, { "a.tar.gz", "application/gzip" },
        { "x", "application/octet-stream" }, { "", "application/octet-stream" }, { "x.", "application/octet-stream" }, { ".png", "application/octet-stream" },
        { "a/.png", "application/octet-stream" }, { "a.png/x", "application/octet-stream" }, { "x.unknown", "application/octet-stream" },
        { "x.htmlx", "application/octet-stream" }, { "x.ht", "application/octet-stream" }, { "x.\xff\xff", "application/octet-stream" }
    };
    size_t i;
    for (i = 0; i < COUNT(cases); i++) {
        char* p = exact(cases[i].path, strlen(cases[i].path));
        const char* type = nkhttp_mime(p, strlen(cases[i].path));
        CHECK_STR(type, strlen(type), cases[i].type);
        free(p);
    }
    CHECK_STR(nkhttp_mime("x.gz\0gz", 7), 24, "application/octet-stream");
    for (i = 0; i < COUNT(nkhttp_p_mimes); i++) { // sorted, and each can be found
        char name[32];
        int n = snprintf(name, sizeof name, "x.%s", nkhttp_p_mimes[i].ext);
        CHECK(nkhttp_mime(name, (size_t)n) == nkhttp_p_mimes[i].type);
        CHECK(i == 0 || strcmp(nkhttp_p_mimes[i - 1].ext, nkhttp_p_mimes[i].ext) < 0);
    }
}
