/*  fuzz_http_query.c -- any bytes as query, cookies, credentials, Accept fields, UTF-8, Host, and PROXY header.
    What comes out lies inside what went in, or survives the way back.  */
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"

#define MUST(c) do { if (!(c)) __builtin_trap(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

static int within(nkhttp_str s, const char* p, size_t size) { return s.ptr >= p && s.ptr + s.len <= p + size; }

static void decoding(const char* p, size_t size, char* a, char* b) {
    size_t n = 0, m = 0, k = 0;
    if (nkhttp_percent_decode(a, size, p, size, &n) == 0) {
        MUST(n <= size);
        memcpy(b, p, size);
        MUST(nkhttp_percent_decode(b, size, b, size, &m) == 0 && m == n && !memcmp(a, b, n)); // in place
    }
    MUST(nkhttp_form_decode(a, size, p, size, &n) == 0 || n <= size);
    MUST(nkhttp_percent_encode(a, size * 3, p, size, &n) == 0 && n <= size * 3);
    MUST(nkhttp_percent_decode(b, size, a, n, &m) == 0 && m == size && !memcmp(b, p, size));
    MUST(nkhttp_form_decode(b, size, a, n, &k) == 0 && k == size && !memcmp(b, p, size));
    MUST(nkhttp_base64_encode(a, (size + 2) / 3 * 4, p, size, &n) == 0 && n == (size + 2) / 3 * 4);
    MUST(nkhttp_base64_decode(b, size, a, n, &m) == 0 && m == size && !memcmp(b, p, size));
    if (nkhttp_base64_decode(a, size, p, size, &n) == 0) { // one spelling only
        MUST(nkhttp_base64_encode(b, size, a, n, &m) == 0 && m == size && !memcmp(b, p, size));
    }
}

static void pairs(const char* p, size_t size, char* out) {
    nkhttp_str rest = nkhttp_p_str(p, size), key, value;
    size_t left = size;
    while (nkhttp_query_next(&rest, &key, &value)) {
        MUST(within(key, p, size) && within(value, p, size) && rest.len < left);
        left = rest.len;
    }
    MUST(nkhttp_query_get(nkhttp_p_str(p, size), "a", out, size + 1) <= (int)size);
    rest = nkhttp_p_str(p, size);
    while (nkhttp_cookie_next(&rest, &key, &value)) {
        nkhttp_str first;
        MUST(within(key, p, size) && within(value, p, size) && key.len > 0);
        memcpy(out, key.ptr, key.len);
        out[key.len] = 0;
        if (strlen(out) == key.len) MUST(nkhttp_cookie_get(nkhttp_p_str(p, size), out, &first) == 0);
    }
}

// Code points by arithmetic, one after the other: slow and plain.
static int utf8_plain(const unsigned char* p, size_t n) {
    size_t i = 0, k;
    while (i < n) {
        uint32_t c = p[i], least;
        size_t more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : 9;
        if (more == 9 || n - i <= more) return 0;
        c &= more == 0 ? 0x7fu : more == 1 ? 0x1fu : more == 2 ? 0x0fu : 7u;
        for (k = 1; k <= more; k++) {
            if (p[i + k] >> 6 != 2) return 0;
            c = c << 6 | (p[i + k] & 63u);
        }
        least = more == 0 ? 0 : more == 1 ? 0x80u : more == 2 ? 0x800u : 0x10000u;
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0;
        i += more + 1;
    }
    return 1;
}

static void cookie_out(const char* text) {
    char out[256], *q;
    nkhttp_cookie c;
    int n;
    memset(&c, 0, sizeof c);
    c.name = "n";
    c.value = c.path = c.domain = text;
    n = nkhttp_cookie_format(out, sizeof out, &c);
    c.name = text;
    c.value = NULL;
    if (n < 0) {
        c.path = c.domain = NULL;
        n = nkhttp_cookie_format(out, sizeof out, &c);
    }
    if (n < 0) return;
    MUST(out[n] == 0 && strlen(out) == (size_t)n);
    for (q = out; *q; q++) MUST(*q >= ' ' && *q <= '~');
}

static void proxy(const char* p, size_t size) {
    nkhttp_proxy whole, part;
    size_t cut;
    int rc = nkhttp_parse_proxy(p, size, &whole);
    MUST(rc <= (int)size && rc <= 536);
    MUST(rc == 0 || rc == NKHTTP_ERR_PROXY || rc >= 15);
    if (rc > 0 && !whole.is_unknown) {
        nkhttp_str a = nkhttp_p_str(whole.src_addr, strlen(whole.src_addr));
        MUST(nkhttp_same_address(a, a));
    }
    for (cut = 0; cut < size && cut < 600; cut++) {
        char* copy = (char*)malloc(cut ? cut : 1);
        int early;
        memcpy(copy, p, cut);
        early = nkhttp_parse_proxy(copy, cut, &part);
        MUST(early == 0 || early == rc);
        if (early > 0) MUST(!memcmp(&whole, &part, sizeof part));
        free(copy);
    }
}

static int trust(void* user, nkhttp_str addr) { MUST(addr.len > 1 && within(addr, (const char*)user, 1 << 20)); return addr.len & 1; }

static void addresses(char* p, size_t size) {
    static const char* const hosts[] = { NKHTTP_HOSTS_LOOPBACK " *.example.com", NULL };
    nkhttp_str text = nkhttp_p_str(p, size), addr;
    nkhttp_header h;
    nkhttp_head head;
    uint8_t ip[16], again[16];
    char shown[46];
    nkhttp_host_ok(text, hosts);
    if (nkhttp_p_ip6(p, size, ip)) { // text of an address is the address
        nkhttp_p_ip6_text(shown, ip);
        MUST(nkhttp_p_ip6(shown, strlen(shown), again) && !memcmp(ip, again, 16));
        MUST(nkhttp_p_ipv6_ok(p, size));
    } else {
        MUST(!nkhttp_p_ipv6_ok(p, size)); // two rooms, one opinion
    }
    MUST(nkhttp_p_ip4(p, size, ip) == nkhttp_p_ipv4_ok(p, size));
    memset(&head, 0, sizeof head);
    h.name = nkhttp_p_str("X-Forwarded-For", 15);
    h.value = text;
    head.headers = &h;
    head.num_headers = 1;
    if (nkhttp_forwarded_for(&head, trust, p, 0, &addr) == 0) MUST(within(addr, p, size));
    if (nkhttp_forwarded_for(&head, NULL, NULL, 2, &addr) == 0) MUST(within(addr, p, size));
}

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    char *p, *a, *b;
    nkhttp_str text, user, pass;
    int q;
    if (size > 4096) return 0;
    p = (char*)malloc(size ? size : 1); // exact size: no byte behind it
    a = (char*)malloc(size * 3 + 4);
    b = (char*)malloc(size * 3 + 4);
    MUST(p && a && b);
    if (size) memcpy(p, bytes, size);
    text = nkhttp_p_str(p, size);
    decoding(p, size, a, b);
    pairs(p, size, a);
    MUST(nkhttp_utf8_ok(p, size) == utf8_plain((const unsigned char*)p, size));
    if (nkhttp_basic_auth(text, a, size, &user, &pass) == 0) MUST(user.len + pass.len < size);
    q = nkhttp_accepts_encoding(text, "gzip");
    MUST(q >= 0 && q <= 1000);
    q = nkhttp_accepts_type(text, "text/html");
    MUST(q >= 0 && q <= 1000);
    memcpy(a, p, size);
    a[size] = 0;
    cookie_out(a);
    proxy(p, size);
    addresses(p, size);
    MUST(nkhttp_equal_secret(p, size, bytes, size) == 1);
    free(p);
    free(a);
    free(b);
    return 0;
}
