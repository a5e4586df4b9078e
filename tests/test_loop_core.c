// netkit_loop.h without sockets: the timing wheel, fixed memory, handles, addresses and send queues, each
// against a naive model with random operations. POSIX only.
#define _GNU_SOURCE 1
#include <sys/socket.h>
#include <errno.h>
#include <string.h>

// ---- what the loop "sends" ----
static unsigned char out_bytes[1 << 22];
static size_t out_len, out_room;      // out_room: how much the kernel would take
static long out_calls;
static long fake_send(int fd, const void* p, size_t n, int flags) {
    (void)fd; (void)flags;
    out_calls++;
    if (out_room == 0) { errno = EAGAIN; return -1; }
    if (n > out_room) n = out_room;
    memcpy(out_bytes + out_len, p, n);
    out_len += n;
    out_room -= n;
    return (long)n;
}
static long fake_sendmsg(int fd, const struct msghdr* m, int flags) {
    size_t i, sum = 0;
    out_calls++;
    if (out_room == 0) { errno = EAGAIN; return -1; }
    for (i = 0; i < m->msg_iovlen && out_room > 0; i++, out_calls--) {
        sum += (size_t)fake_send(fd, m->msg_iov[i].iov_base, m->msg_iov[i].iov_len, flags);
    }
    return (long)sum;
}
#define NETKIT_LOOP_SYS_SEND(fd, p, n, flags) fake_send(fd, p, n, flags)
#define NETKIT_LOOP_SYS_SENDMSG(fd, msg, flags) fake_sendmsg(fd, msg, flags)
#define NETKIT_IMPLEMENTATION
#include "netkit_loop.h"
#include "nktest.h"

static uint32_t seed = 12345;
static uint32_t rnd(void) { seed = seed * 1664525u + 1013904223u; return seed >> 8; }
static uint32_t below(uint32_t n) { return rnd() % n; }

static nkloop* make(void) {
    nkloop* L = NULL;
    nkloop_desc d;
    memset(&d, 0, sizeof d);
    d.backend = NKLOOP_BACKEND_POLL;
    CHECK_INT(nkloop_create(&L, &d), 0);
    return L;
}

// ---- wheel ----
enum { TIMERS = 600 };
typedef struct wt { uint64_t due, order; nkloop_timer handle; int on; } wt;
static wt wts[TIMERS];
static nkloop* wheel_loop;
static uint64_t wheel_now, last_due, last_order, orders;
static long fired, wrong;
static uint32_t wheel_span(void) {
    switch (below(8)) {
        case 0: return below(3);
        case 1: return below(64);
        case 2: return below(5000);
        case 3: return below(300000);
        case 4: return 64u << below(20);
        case 5: return (below(0x7fff) << 16) | below(0xffff);
        case 6: return 0x7fffffffu;
        default: return below(200);
    }
}
static void wheel_fn(void* user);
static void wheel_start(wt* t) {
    uint32_t after = wheel_span();
    t->due = wheel_now + after;
    if (t->due <= wheel_loop->elapsed_ms) t->due = wheel_loop->elapsed_ms + 1;
    t->order = ++orders;
    t->on = 1;
    if (nkloop_timer_start(wheel_loop, after, 0, wheel_fn, t, &t->handle) < 0) wrong++;
}
static void wheel_fn(void* user) {
    wt *t = (wt*)user, *o = &wts[below(TIMERS)];
    fired++;
    if (!t->on || t->due > wheel_now) wrong++;
    if (t->due < last_due || (t->due == last_due && t->order < last_order)) wrong++;
    last_due = t->due;
    last_order = t->order;
    t->on = 0;
    nkloop_timer_stop(wheel_loop, t->handle); // stale by now: harmless
    if (below(4) == 0 && o->on) { nkloop_timer_stop(wheel_loop, o->handle); o->on = 0; }
    if (below(4) == 0) wheel_start(t);
}
static void wheel_run(uint64_t from, int steps) {
    int i, k;
    nkloop* L = wheel_loop = make();
    memset(wts, 0, sizeof wts);
    L->in_turn = 1; // the clock is ours
    L->now_ms = L->elapsed_ms = wheel_now = from;
    for (i = 0; i < steps; i++) {
        uint64_t first = UINT64_MAX;
        int due;
        for (k = (int)below(8); k > 0; k--) {
            wt* t = &wts[below(TIMERS)];
            if (t->on && below(3) == 0) { nkloop_timer_stop(L, t->handle); t->on = 0; }
            else if (!t->on) wheel_start(t);
        }
        for (k = 0; k < TIMERS; k++) if (wts[k].on && wts[k].due < first) first = wts[k].due;
        due = nkloop_p_timeout(L, wheel_now);
        if (first == UINT64_MAX) { if (due != -1) wrong++; }
        else if (due < 0 || wheel_now + (uint64_t)due > first) wrong++; // may wake early, never late
        if (below(3) == 0 && first != UINT64_MAX) wheel_now = first;
        else wheel_now += wheel_span() / (1u + below(50));
        L->now_ms = wheel_now;
        last_due = last_order = 0;
        nkloop_p_wheel_advance(L);
        while (L->wheel[NKLOOP_P_LEVELS * 64] != 0xffffffffu) nkloop_p_fire(L);
        for (k = 0; k < TIMERS; k++) if (wts[k].on && wts[k].due <= wheel_now) wrong++; // one was forgotten
    }
    for (k = 0; k < TIMERS; k++) if (wts[k].on) nkloop_timer_stop(L, wts[k].handle);
    CHECK_INT(L->stats.timers, 0);
    for (k = 0; k < NKLOOP_P_LEVELS; k++) CHECK_INT(L->wheel_bits[k], 0);
    L->in_turn = 0;
    nkloop_destroy(L);
}
TEST(wheel_against_model) {
    wrong = fired = 0;
    wheel_run(0, 3000);
    CHECK_INT(wrong, 0);
    wheel_run(0xffffffffu - 100000, 1500);               // low 32 bits wrap
    CHECK_INT(wrong, 0);
    wheel_run(((uint64_t)1 << 36) - 0x90000000u, 1500);  // two years of uptime
    CHECK_INT(wrong, 0);
    wheel_run(((uint64_t)1 << 41) - 0x90000000u, 1500);  // seventy
    CHECK_INT(wrong, 0);
    CHECK(fired > 2000);
}

static int ticks;
static nkloop_timer ticker;
static void tick(void* user) {
    nkloop* L = (nkloop*)user;
    if (++ticks == 5) nkloop_timer_stop(L, ticker);
}
TEST(wheel_periodic) {
    nkloop* L = make();
    int i;
    L->in_turn = 1;
    ticks = 0;
    CHECK_INT(nkloop_timer_start(L, 10, 10, tick, L, &ticker), 0);
    CHECK_INT(nkloop_timer_start(L, 0x80000000u, 0, tick, L, NULL), NKLOOP_ERR_INVAL);
    CHECK_INT(nkloop_timer_start(L, 1, 0x80000000u, tick, L, NULL), NKLOOP_ERR_INVAL);
    CHECK_INT(nkloop_timer_start(L, 1, 0, NULL, L, NULL), NKLOOP_ERR_INVAL);
    for (i = 0; i < 35; i++) { // 35 ms, one at a time
        L->now_ms++;
        nkloop_p_wheel_advance(L);
        while (L->wheel[NKLOOP_P_LEVELS * 64] != 0xffffffffu) nkloop_p_fire(L);
    }
    CHECK_INT(ticks, 3);
    L->now_ms += 1000; // late ticks are not made up for
    nkloop_p_wheel_advance(L);
    while (L->wheel[NKLOOP_P_LEVELS * 64] != 0xffffffffu) nkloop_p_fire(L);
    CHECK_INT(ticks, 4);
    L->now_ms += 10;
    nkloop_p_wheel_advance(L);
    while (L->wheel[NKLOOP_P_LEVELS * 64] != 0xffffffffu) nkloop_p_fire(L);
    CHECK_INT(ticks, 5);
    CHECK_INT(L->stats.timers, 0); // stopped itself
    L->in_turn = 0;
    nkloop_destroy(L);
}

// Started between turns, when the wheel has not moved for a while: the farthest timer is still far away.
TEST(wheel_that_lags) {
    nkloop* L = make();
    nkloop_timer far_one, near_one;
    uint32_t lag;
    for (lag = 0; lag < 5000; lag = lag * 3 + 1) {
        L->in_turn = 1;
        L->now_ms = L->elapsed_ms + lag;
        ticks = 0;
        CHECK_INT(nkloop_timer_start(L, 0x7fffffffu, 0, tick, L, &far_one), 0);
        CHECK_INT(nkloop_timer_start(L, 10, 0, tick, L, &near_one), 0);
        CHECK(nkloop_p_timeout(L, L->now_ms) > 0);
        L->now_ms += 10;
        nkloop_p_wheel_advance(L);
        while (L->wheel[NKLOOP_P_LEVELS * 64] != 0xffffffffu) nkloop_p_fire(L);
        CHECK_INT(ticks, 1);
        CHECK(nkloop_p_timeout(L, L->now_ms) > 1000000);
        nkloop_timer_stop(L, far_one);
    }
    L->in_turn = 0;
    nkloop_destroy(L);
}

// ---- fixed memory ----
enum { BLOCKS = 400 };
static struct { unsigned char* p; size_t n; unsigned char mark; } held[BLOCKS];
static int arena_good(int i) {
    size_t k;
    for (k = 0; k < held[i].n; k++) if (held[i].p[k] != held[i].mark) return 0;
    return 1;
}
static size_t arena_size(void) { return below(20) == 0 ? below(60000) : below(4) == 0 ? 4096 : below(300); }
TEST(arena_against_model) {
    static unsigned char room[1000003];
    nkloop_p_arena* a = nkloop_p_arena_open(room + 3, sizeof room - 3); // not aligned
    nkloop_p_block* whole;
    size_t whole_size;
    int i, step, refused = 0, bad = 0;
    CHECK(a != NULL);
    if (!a) return;
    whole = a->lists[nkloop_p_low_bit(a->powers)][nkloop_p_low_bit(a->quarters[nkloop_p_low_bit(a->powers)])];
    whole_size = nkloop_p_block_size(whole);
    for (step = 0; step < 60000; step++) {
        size_t n = arena_size();
        void* got;
        i = (int)below(BLOCKS);
        if (held[i].p && !arena_good(i)) bad++;
        if (held[i].p && below(3)) { // grow or shrink
            got = nkloop_p_arena_alloc(a, held[i].p, held[i].n, n + 1);
            if (!got) { refused++; continue; } // the old one is untouched
            held[i].p = (unsigned char*)got;
            if (held[i].n > n + 1) held[i].n = n + 1;
            if (!arena_good(i)) bad++;
            held[i].n = n + 1;
        } else if (held[i].p) {
            if (nkloop_p_arena_alloc(a, held[i].p, held[i].n, 0)) bad++;
            held[i].p = NULL;
            continue;
        } else {
            if (!(got = nkloop_p_arena_alloc(a, NULL, 0, n + 1))) { refused++; continue; }
            held[i].p = (unsigned char*)got;
            held[i].n = n + 1;
        }
        if ((uintptr_t)held[i].p & 15) bad++;
        held[i].mark = (unsigned char)rnd();
        memset(held[i].p, held[i].mark, held[i].n);
        if (held[i].p < room || held[i].p + held[i].n > room + sizeof room) bad++;
    }
    CHECK_INT(bad, 0);
    CHECK(refused > 0); // it was exhausted now and then
    for (i = 0; i < BLOCKS; i++) {
        if (!held[i].p) continue;
        if (!arena_good(i)) bad++;
        nkloop_p_arena_alloc(a, held[i].p, held[i].n, 0);
        held[i].p = NULL;
    }
    CHECK_INT(bad, 0);
    CHECK_INT(nkloop_p_block_size(whole), whole_size); // one block again
    CHECK(nkloop_p_block_free(whole));
    CHECK(nkloop_p_arena_alloc(a, NULL, 0, (size_t)-1) == NULL);
    CHECK(nkloop_p_arena_alloc(a, NULL, 0, (size_t)-1 / 4) == NULL);
    CHECK(nkloop_p_arena_alloc(a, NULL, 0, sizeof room) == NULL);
    CHECK(nkloop_p_arena_open(room, 64) == NULL);
    CHECK(nkloop_p_arena_open(room, 0) == NULL);
    nkloop_p_mutex_drop(&a->lock);
}
TEST(fixed_memory_too_small) {
    static unsigned char room[300000];
    size_t n;
    nkloop_desc d;
    memset(&d, 0, sizeof d);
    d.memory = room;
    for (n = 0; n <= sizeof room; n += 997) { // every size is either enough or refused
        nkloop* L = NULL;
        int r;
        d.memory_bytes = n;
        r = nkloop_create(&L, &d);
        if (r != NKLOOP_ERR_NOMEM) CHECK_INT(r, 0);
        if ((r == 0) != (L != NULL)) CHECK(!"result and pointer disagree");
        nkloop_destroy(L);
    }
    CHECK(n > sizeof room);
}

// ---- handles ----
TEST(handles) {
    nkloop* L = make();
    uint64_t ids[600];
    uint32_t index[600];
    int i, step, bad = 0;
    nkloop_stream s;
    char text[64];
    memset(ids, 0, sizeof ids);
    for (step = 0; step < 20000; step++) {
        i = (int)below(600);
        if (ids[i]) {
            if (!nkloop_p_find(L, ids[i], NKLOOP_P_STREAM)) bad++;
            nkloop_p_slot_release(L, index[i]);
            if (nkloop_p_find_any(L, ids[i])) bad++;
            ids[i] = 0;
        } else {
            if (nkloop_p_slot_open(L, NKLOOP_P_STREAM, NKLOOP_NO_FD, &index[i]) < 0) bad++;
            ids[i] = nkloop_p_id(nkloop_p_at(L, index[i]), index[i]);
        }
        if (nkloop_p_find_any(L, ((uint64_t)rnd() << 40) | ((uint64_t)rnd() << 20) | rnd())) {} // any number is safe
    }
    CHECK_INT(bad, 0);
    for (i = 0; i < 600; i++) if (ids[i]) nkloop_p_slot_release(L, index[i]);
    CHECK_INT(L->stats.streams, 0);
    CHECK_INT(L->open_slots, 1); // the wake-up
    for (i = 0; i < 2; i++) {
        nkloop_listener l;
        nkloop_timer t;
        nkloop_watch w;
        uint8_t* p;
        s.id = l.id = t.id = w.id = i ? UINT64_MAX : 0;
        CHECK_INT(nkloop_write(L, s, "x", 1), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_write_ref(L, s, "x", 1, NULL, NULL), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_reserve(L, s, 1, &p), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_commit(L, s, 1), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_finish(L, s), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_pause(L, s, 1), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_set_proto(L, s, NULL, NULL), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_set_filter(L, s, NULL, NULL), NKLOOP_ERR_STALE);
        CHECK(nkloop_filter_self(L, s, NULL) == NULL);
        CHECK_INT(nkloop_set_timeout(L, s, 1), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_set_alarm(L, s, 1), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_unsent(L, s), 0);
        CHECK_INT(nkloop_alive(L, s), 0);
        CHECK_INT(nkloop_peer_address(L, s, text, sizeof text), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_local_address(L, s, text, sizeof text), NKLOOP_ERR_STALE);
        CHECK(nkloop_stream_fd(L, s) == NKLOOP_NO_FD);
        nkloop_close(L, s);
        nkloop_listener_close(L, l);
        CHECK_INT(nkloop_listener_pause(L, l, 1), NKLOOP_ERR_STALE);
        CHECK_INT(nkloop_listener_address(L, l, text, sizeof text), NKLOOP_ERR_STALE);
        nkloop_timer_stop(L, t);
        CHECK_INT(nkloop_watch_change(L, w, NKLOOP_READ), NKLOOP_ERR_STALE);
        nkloop_watch_close(L, w);
    }
    nkloop_destroy(L);
    nkloop_destroy(NULL);
}

// ---- addresses ----
TEST(addresses) {
    static const struct { const char* text; int want; const char* back; } t[] = {
        { "127.0.0.1:80", 0, "127.0.0.1:80" },
        { "127.0.0.1:0", 0, "127.0.0.1:0" },
        { "127.0.0.1:65535", 0, "127.0.0.1:65535" },
        { "[::1]:80", 0, "[::1]:80" },
        { "[::]:1", 0, "[::]:1" },
        { "[2001:db8::0001]:443", 0, "[2001:db8::1]:443" },
        { "[::ffff:1.2.3.4]:5", 0, "[::ffff:1.2.3.4]:5" },
        { ":80", 0, "0.0.0.0:80" },
        { "*:80", 0, "0.0.0.0:80" },
        { "localhost:8080", 0, "127.0.0.1:8080" },
        { "unix:/tmp/x", 0, "unix:/tmp/x" },
        { "unix:rel", 0, "unix:rel" },
        { "unix:@abstract", 0, "unix:@abstract" },
        { "unix:", NKLOOP_ERR_ADDRESS, NULL },
        { "", NKLOOP_ERR_ADDRESS, NULL },
        { ":", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:65536", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:99999", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:100000", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:-1", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:+1", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1: 80", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:80 ", NKLOOP_ERR_ADDRESS, NULL },
        { "127.0.0.1:0x50", NKLOOP_ERR_ADDRESS, NULL },
        { "::1:80", NKLOOP_ERR_ADDRESS, NULL },
        { "[::1]", NKLOOP_ERR_ADDRESS, NULL },
        { "[::1]80", NKLOOP_ERR_ADDRESS, NULL },
        { "[::1:80", NKLOOP_ERR_ADDRESS, NULL },
        { "::1]:80", NKLOOP_ERR_ADDRESS, NULL },
        { "[]:80", NKLOOP_ERR_ADDRESS, NULL },
        { "[127.0.0.1]:80", NKLOOP_ERR_ADDRESS, NULL },
        { "[*]:80", NKLOOP_ERR_ADDRESS, NULL },
        { "[localhost]:80", NKLOOP_ERR_ADDRESS, NULL },
        { "[::g]:80", NKLOOP_ERR_ADDRESS, NULL },
        { "example.com:80", NKLOOP_ERR_RESOLVE, NULL },
        { "256.1.1.1:80", NKLOOP_ERR_RESOLVE, NULL },
        { " 127.0.0.1:80", NKLOOP_ERR_RESOLVE, NULL },
    };
    size_t i;
    char host[256], text[128], big[600];
    uint16_t port;
    nkloop_p_sockaddr a;
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        int r = nkloop_p_address_parse(t[i].text, &a, host, &port);
        if (r != t[i].want) { printf("%s\n", t[i].text); CHECK_INT(r, t[i].want); }
        if (r == 0) {
            r = nkloop_p_address_text(&a, text, sizeof text);
            CHECK_STR(text, (size_t)(r < 0 ? 0 : r), t[i].back);
            CHECK_INT(nkloop_p_address_text(&a, text, (size_t)strlen(t[i].back)), NKLOOP_ERR_INVAL); // no room for the 0
        }
    }
    for (i = 1; i < 500; i++) { // long names and paths: refused, never cut
        memset(big, 'a', sizeof big);
        memcpy(big + i, ":80", 4);
        CHECK_INT(nkloop_p_address_parse(big, &a, host, &port), i <= 255 ? NKLOOP_ERR_RESOLVE : NKLOOP_ERR_ADDRESS);
        memcpy(big, "unix:", 5);
        memset(big + 5, 'a', i);
        big[5 + i] = 0;
        CHECK_INT(nkloop_p_address_parse(big, &a, host, &port), i < 108 ? 0 : NKLOOP_ERR_ADDRESS);
        if (i < 108) CHECK_INT(nkloop_p_address_text(&a, text, sizeof text), (int)i + 5);
    }
}

// ---- send queues ----
typedef struct ref_state { int released; } ref_state;
static ref_state refs[4000];
static unsigned char model[1 << 22];
static void released(void* user) { ((ref_state*)user)->released++; }
static size_t no_data(void* self, nkloop* L, nkloop_stream s, uint8_t* p, size_t n) {
    (void)self; (void)L; (void)s; (void)p;
    return n;
}
static int closes;
static void count_close(void* self, nkloop* L, nkloop_stream s, int why) { (void)self; (void)L; (void)s; (void)why; closes++; }
static const nkloop_proto quiet = { "quiet", no_data, NULL, count_close, NULL, NULL, NULL };

TEST(queue_against_model) {
    nkloop* L = make();
    uint32_t index;
    nkloop_stream s;
    nkloop_p_slot* slot;
    size_t sent_model = 0, queued = 0, limit = L->desc.tx_bytes;
    static unsigned char source[300000];
    int step, bad = 0, full = 0, num_refs = 0, i;
    for (i = 0; i < (int)sizeof source; i++) source[i] = (unsigned char)rnd();
    L->in_turn = 1;
    out_len = 0;
    CHECK_INT(nkloop_p_slot_open(L, NKLOOP_P_STREAM, NKLOOP_NO_FD, &index), 0);
    slot = nkloop_p_at(L, index);
    slot->u.proto = &quiet;
    s.id = nkloop_p_id(slot, index);
    for (step = 0; step < 20000 && sent_model < sizeof model - 700000 && num_refs < 3990; step++) {
        size_t n = below(12) == 0 ? below(200000) : below(3) ? below(100) : below(9000), from = below(90000);
        int r = 0, kind = (int)below(10);
        uint8_t* room = NULL;
        if (kind < 5) {
            r = nkloop_write(L, s, source + from, n);
        } else if (kind < 7) {
            n = below(NKLOOP_RESERVE_MAX + 1);
            r = nkloop_reserve(L, s, n, &room);
            if (r == 0) {
                n = below((uint32_t)n + 1); // used
                memcpy(room, source + from, n);
                if (nkloop_commit(L, s, n) < 0) bad++;
            }
        } else if (kind < 8) {
            if (below(20) == 0) n = 0;
            r = nkloop_write_ref(L, s, source + from, n, released, &refs[num_refs]);
            if (r == 0) num_refs++;
        } else {
            size_t before = out_len;
            out_room = below(3) == 0 ? below(50) : below(2) ? 1u << 20 : below(60000);
            slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_BLOCKED);
            nkloop_p_flush(L, index);
            queued -= out_len - before;
            if (out_room > 0 && nkloop_unsent(L, s) > 0 && !(slot->flags & NKLOOP_P_DIRTY)) bad++;
            n = 0;
        }
        if (r == NKLOOP_ERR_FULL) { full++; if (kind < 7 && queued + n <= limit) bad++; }
        else if (r < 0) bad++;
        else { memcpy(model + sent_model, source + from, n); sent_model += n; queued += n; }
        if (nkloop_unsent(L, s) != queued) bad++;
    }
    CHECK_INT(nkloop_reserve(L, s, NKLOOP_RESERVE_MAX + 1, NULL) < 0, 1);
    CHECK_INT(bad, 0);
    CHECK(full > 0);
    while (slot->tx) {
        out_room = sizeof out_bytes;
        slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_BLOCKED);
        nkloop_p_flush(L, index);
    }
    CHECK_INT(out_len, sent_model);
    CHECK_MEM(out_bytes, model, sent_model);
    for (i = 0, bad = 0; i < num_refs; i++) if (refs[i].released != 1) bad++;
    CHECK_INT(bad, 0);
    CHECK_INT(refs[num_refs].released, 0); // the refused one was not
    out_room = 0;
    CHECK_INT(nkloop_write_ref(L, s, source, 10, released, &refs[num_refs]), 0);
    closes = 0;
    L->in_turn = 0;
    nkloop_destroy(L);
    CHECK_INT(refs[num_refs].released, 1);
    CHECK_INT(closes, 1);
}

// Who gets bytes back may write and flush at once, and everything still leaves once and in order.
typedef struct again { nkloop* L; nkloop_stream s; int left; } again;
static void released_again(void* user) {
    again* a = (again*)user;
    if (a->left-- <= 0) return;
    if (nkloop_write(a->L, a->s, "w", 1) < 0 || nkloop_write_ref(a->L, a->s, "rr", 2, released_again, a) < 0) wrong++;
    nkloop_flush(a->L);
}
TEST(queue_flush_in_release) {
    nkloop* L = make();
    uint32_t index;
    again a;
    int i;
    L->in_turn = 1;
    out_len = 0;
    out_room = 1000;
    wrong = 0;
    CHECK_INT(nkloop_p_slot_open(L, NKLOOP_P_STREAM, NKLOOP_NO_FD, &index), 0);
    nkloop_p_at(L, index)->u.proto = &quiet;
    a.L = L;
    a.s.id = nkloop_p_id(nkloop_p_at(L, index), index);
    a.left = 3;
    CHECK_INT(nkloop_write(L, a.s, "abc", 3), 0);
    CHECK_INT(nkloop_write_ref(L, a.s, "REF", 3, released_again, &a), 0);
    CHECK_INT(nkloop_write(L, a.s, "tail", 4), 0);
    for (i = 0; i < 10; i++) nkloop_p_settle(L);
    CHECK_STR(out_bytes, out_len, "abcREFtailwrrwrrwrr");
    CHECK_INT(wrong, 0);
    CHECK_INT(nkloop_unsent(L, a.s), 0);
    L->in_turn = 0;
    nkloop_destroy(L);
}

// ---- small things ----
TEST(errors_have_names) {
    int e;
    for (e = 0; e >= -20; e--) {
        CHECK(nkloop_strerror(e)[0] != 0);
        if (e < 0) CHECK(strcmp(nkloop_strerror(e), nkloop_strerror(e + 1)) != 0);
    }
    CHECK(strcmp(nkloop_strerror(-12345), "unknown netkit_loop error") == 0);
    CHECK(strcmp(nkloop_strerror(1), "unknown netkit_loop error") == 0);
}
TEST(sizes) {
    CHECK(sizeof(void*) > 8 || sizeof(nkloop_p_slot) <= 96);
    CHECK(sizeof(nkloop_p_ref) <= 128);
    CHECK_INT(NKLOOP_WIRE_BYTES <= 20 * 1024 - (int)sizeof(nkloop_p_chunk), 1);
    CHECK_INT(NKLOOP_RESERVE_MAX <= 4096 - (int)sizeof(nkloop_p_chunk), 1);
}
TEST(bad_descs) {
    nkloop* L = (nkloop*)(void*)&seed;
    nkloop_desc d;
    memset(&d, 0, sizeof d);
    d.backend = NKLOOP_BACKEND_WSAPOLL;
    CHECK_INT(nkloop_create(&L, &d), NKLOOP_ERR_UNSUPPORTED);
    CHECK(L == NULL);
    d.backend = 77;
    CHECK_INT(nkloop_create(&L, &d), NKLOOP_ERR_UNSUPPORTED);
    CHECK_INT(nkloop_create(&L, NULL), 0);
    CHECK(nkloop_backend(L) != NKLOOP_BACKEND_DEFAULT);
    CHECK_INT(nkloop_dial(L, (memset(&d, 0, sizeof d), (const nkloop_dial_desc*)(const void*)&d), NULL), NKLOOP_ERR_INVAL);
    nkloop_destroy(L);
}
