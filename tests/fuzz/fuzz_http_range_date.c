/*  fuzz_http_range_date.c -- any bytes as Range, entity-tags and dates; the first eight are the size of the file.
    Ranges lie inside the file and apart from each other; a date read is a date written.  */
#define NETKIT_HTTP_NO_LOOP
#define NETKIT_HTTP_IMPLEMENTATION
#include "netkit_http.h"

#define MUST(c) do { if (!(c)) __builtin_trap(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

static void ranges(nkhttp_str value, uint64_t size) {
    nkhttp_range r[8];
    uint64_t total = 0;
    int i, k, n = nkhttp_parse_range(value, size, r, 8);
    MUST(n == NKHTTP_ERR_RANGE || (n >= 0 && n <= 8));
    for (i = 0; i < n; i++) {
        MUST(r[i].first <= r[i].last && r[i].last < size);
        MUST(size - total > r[i].last - r[i].first); // together never more than the file
        total += r[i].last - r[i].first + 1;
        for (k = 0; k < i; k++) MUST(r[i].first > r[k].last + 1 || r[k].first > r[i].last + 1);
    }
}

static void dates(const char* p, size_t len) {
    int64_t t = 0, again = 0;
    char text[29];
    if (nkhttp_parse_date(p, len, &t) || t > 253402300799) return; // a leap second may end the year 9999
    nkhttp_format_date(text, t);
    MUST(nkhttp_parse_date(text, sizeof text, &again) == 0 && again == t);
}

static void conditions(nkhttp_str value) {
    static const char* const names[] = { "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range" };
    nkhttp_header h[2];
    nkhttp_head head;
    nkhttp_str etag = nkhttp_p_str("\"a\"", 3);
    size_t i;
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        int get, answer, if_range;
        memset(&head, 0, sizeof head);
        head.headers = h;
        head.num_headers = 1;
        h[0].name = nkhttp_p_str(names[i], strlen(names[i]));
        h[0].value = nkhttp_p_trim(value);
        for (get = 0; get < 2; get++) {
            answer = nkhttp_check_preconditions(&head, get, etag, 784111777, 1, 0);
            MUST(answer == 0 || answer == 412 || (answer == 304 && get));
            if (i == 0 || i == 3) MUST(answer != 304);
            if (i == 2) MUST(answer != 412);
            if (i == 4) MUST(answer == 0);
            if (i == 0) MUST(nkhttp_check_preconditions(&head, get, etag, 0, 0, 0) == 412); // nothing there, nothing matches
        }
        if_range = nkhttp_if_range_ok(&head, etag, 784111777);
        MUST(if_range == 0 || if_range == 1);
        if (i != 4) MUST(if_range == 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    uint64_t file = 0;
    char* p;
    size_t i;
    if (size < 8 || size > 4096) return 0;
    for (i = 0; i < 8; i++) file = file << 8 | bytes[i];
    size -= 8;
    p = (char*)malloc(size ? size : 1);
    MUST(p != NULL);
    if (size) memcpy(p, bytes + 8, size);
    ranges(nkhttp_p_str(p, size), file);
    ranges(nkhttp_p_str(p, size), 0);
    ranges(nkhttp_p_str(p, size), 100);
    dates(p, size);
    conditions(nkhttp_p_str(p, size));
    free(p);
    return 0;
}
