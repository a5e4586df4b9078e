// The filter slot of netkit_loop.h with a toy record protocol: handshake of three messages, data, pings that the filter
// answers itself, farewell, alert. Cut at every byte, over listen and dial, with pauses, ends and failures. POSIX only.
#include "loop_kit.h"

// A record: type, length (2 bytes), payload; payload of data is masked. A client says A, gets B, says C; then D data,
// P ping (answered by p), F farewell, X alert.
typedef struct toy { int client, done, said_bye, starts, stops, stops_late, fail_start, fail_out, step; } toy;
enum { TOY_MOST = 1000, TOY_MASK = 0x55 };
static int toy_put(nkloop_buf* b, int type, const uint8_t* p, size_t n) {
    size_t i;
    if (b->cap - b->len < n + 3) return 0;
    b->data[b->len] = (uint8_t)type;
    b->data[b->len + 1] = (uint8_t)(n >> 8);
    b->data[b->len + 2] = (uint8_t)n;
    for (i = 0; i < n; i++) b->data[b->len + 3 + i] = (uint8_t)(type == 'D' ? p[i] ^ TOY_MASK : p[i]);
    b->len += n + 3;
    return 1;
}
static int toy_start(void* self, nkloop_wire* w) {
    toy* t = (toy*)self;
    t->starts++;
    CHECK(w->wire_rx.len == 0 && w->plain_rx.len == 0 && w->plain_tx.len == 0 && w->wire_tx.len == 0);
    CHECK(w->wire_tx.cap == NKLOOP_WIRE_BYTES && w->plain_rx.cap == NKLOOP_WIRE_BYTES);
    if (t->fail_start) { toy_put(&w->wire_tx, 'X', (const uint8_t*)"start", 5); return -1; }
    if (t->client) toy_put(&w->wire_tx, 'A', (const uint8_t*)"hello", 5);
    return NKLOOP_FILTER_HANDSHAKING;
}
static int toy_alert(nkloop_wire* w) { toy_put(&w->wire_tx, 'X', (const uint8_t*)"alert", 5); return -1; }
// One record; 1 taken, 0 cannot be taken now, < 0 error, 2 farewell.
static int toy_record(toy* t, nkloop_wire* w, int type, const uint8_t* p, size_t n) {
    size_t i;
    switch (type) {
        case 'A': if (t->client || t->step++) return toy_alert(w); return toy_put(&w->wire_tx, 'B', (const uint8_t*)"welcome", 7);
        case 'B': if (!t->client || t->step++) return toy_alert(w); if (!toy_put(&w->wire_tx, 'C', NULL, 0)) return 0; t->done = 1; return 1;
        case 'C': if (t->client || t->step++ != 1) return toy_alert(w); t->done = 1; return 1;
        case 'D':
            if (!t->done) return toy_alert(w);
            if (w->plain_rx.cap - w->plain_rx.len < n) return 0;
            for (i = 0; i < n; i++) w->plain_rx.data[w->plain_rx.len + i] = (uint8_t)(p[i] ^ TOY_MASK);
            w->plain_rx.len += n;
            return 1;
        case 'P': return toy_put(&w->wire_tx, 'p', p, n);
        case 'p': return 1;
        case 'F': return 2;
        default:  return toy_alert(w);
    }
}
static int toy_in(void* self, nkloop_wire* w) {
    toy* t = (toy*)self;
    nkloop_buf* b = &w->wire_rx;
    size_t n;
    int r = 1;
    while (b->len >= 3 && r == 1) {
        n = (size_t)b->data[1] << 8 | b->data[2];
        if (n > TOY_MOST) return toy_alert(w);
        if (b->len < n + 3) break;
        r = toy_record(t, w, b->data[0], b->data + 3, n);
        if (r < 0) return r;
        if (r == 0) break;
        memmove(b->data, b->data + n + 3, b->len - n - 3);
        b->len -= n + 3;
    }
    if (r == 2) return NKLOOP_FILTER_EOF;
    return t->done ? NKLOOP_FILTER_OK : NKLOOP_FILTER_HANDSHAKING;
}
static int toy_out(void* self, nkloop_wire* w) {
    toy* t = (toy*)self;
    nkloop_buf* b = &w->plain_tx;
    if (!t->done) return NKLOOP_FILTER_HANDSHAKING;
    if (t->fail_out) return toy_alert(w);
    while (b->len > 0) {
        size_t n = b->len < TOY_MOST ? b->len : (size_t)TOY_MOST;
        if (!toy_put(&w->wire_tx, 'D', b->data, n)) break;
        memmove(b->data, b->data + n, b->len - n);
        b->len -= n;
    }
    return NKLOOP_FILTER_OK;
}
static void toy_stop(void* self, nkloop_wire* w) {
    toy* t = (toy*)self;
    t->stops++;
    if (!w) t->stops_late++;
    else CHECK(toy_put(&w->wire_tx, 'F', NULL, 0)); // there is always room for last words
}
static const nkloop_filter toy_filter = { "toy", toy_start, toy_in, toy_out, toy_stop };

static void filter_hook(rec* r, int ev) { if (ev == ON_ACCEPT) CHECK_INT(nkloop_set_filter(r->L, r->s, &toy_filter, (toy*)r->user), 0); }
static void filter_dial(nkloop* L, const char* address, rec* r, toy* t) {
    nkloop_dial_desc d;
    memset(&d, 0, sizeof d);
    d.address = address;
    d.proto = &rec_proto;
    d.self = r;
    d.filter = &toy_filter;
    d.filter_self = t;
    CHECK_INT(nkloop_dial(L, &d, &r->s), 0);
    r->L = L;
}
static size_t wire_add(char* out, size_t at, int type, const char* p, size_t n) {
    nkloop_buf b;
    b.data = (uint8_t*)out;
    b.len = at;
    b.cap = 1u << 30;
    toy_put(&b, type, (const uint8_t*)p, n);
    return b.len;
}

// ---- a client of plain bytes, cut at every place ----
static void reply_hook(rec* r, int ev) {
    if (ev == ON_EOF) { CHECK_INT(nkloop_write(r->L, r->s, "good bye", 8), 0); CHECK_INT(nkloop_finish(r->L, r->s), 0); }
}
static void starttls_hook(rec* r, int ev) { // plain text first: what follows it belongs to the filter
    if (ev == ON_DATA && r->len == 9 && !nkloop_filter_self(r->L, r->s, &toy_filter)) {
        CHECK_INT(nkloop_write(r->L, r->s, "GO AHEAD\n", 9), 0); // still plain
        CHECK_INT(nkloop_set_filter(r->L, r->s, &toy_filter, r->user), 0);
        CHECK_INT(nkloop_set_filter(r->L, r->s, &toy_filter, r->user), NKLOOP_ERR_INVAL);
        r->most = 0;
    }
    if (ev == ON_DATA && r->len < 9) r->most = 9 - r->len;
    reply_hook(r, ev);
}
TEST(handshake_at_every_cut) {
    char wire[200], want[200], got[200];
    size_t n, w, cut, start, have;
    int mode; // 0 filter from the start, 1 after plain text, 2 both cut twice, 3 paused during the handshake
    for (mode = 0; mode < 4; mode++) {
        n = 0;
        if (mode == 1) { memcpy(wire, "STARTTLS\n", 9); n = 9; }
        start = n;
        n = wire_add(wire, n, 'A', "hello", 5);
        n = wire_add(wire, n, 'C', "", 0);
        n = wire_add(wire, n, 'D', "hello ", 6);
        n = wire_add(wire, n, 'P', "?", 1);
        n = wire_add(wire, n, 'D', "world", 5);
        n = wire_add(wire, n, 'F', "", 0);
        memcpy(want, "GO AHEAD\n", 9);
        w = wire_add(want, start, 'B', "welcome", 7);
        w = wire_add(want, w, 'p', "?", 1);
        w = wire_add(want, w, 'D', "good bye", 8);
        w = wire_add(want, w, 'F', "", 0);
        for (cut = 0; cut <= n; cut++) {
            nkloop* L = kit_make(NULL);
            rec r;
            toy t;
            int plain, fd;
            memset(&r, 0, sizeof r);
            memset(&t, 0, sizeof t);
            have = 0;
            r.keep = 1;
            r.user = &t;
            r.hook = mode == 1 ? starttls_hook : reply_hook;
            if (mode == 1) r.most = 9;
            kit_pair((int)(cut & 1), &plain, &fd);
            kit_adopt(L, fd, &r);
            if (mode != 1) CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
            if (mode == 3) nkloop_pause(L, r.s, 1);
            if (cut) CHECK(send(plain, wire, cut, 0) > 0);
            TURNS(L, 2);
            if (mode == 2 && cut + 1 < n) { CHECK(send(plain, wire + cut, 1, 0) > 0); TURNS(L, 2); CHECK(send(plain, wire + cut + 1, n - cut - 1, 0) > 0); }
            else if (cut < n) CHECK(send(plain, wire + cut, n - cut, 0) > 0);
            if (mode == 3) { TURNS(L, 3); CHECK_INT(r.datas + r.eofs, 0); nkloop_pause(L, r.s, 0); }
            UNTIL(L, (have += (size_t)plain_read(plain, got + have, (long)(sizeof got - have)), r.eofs == 1 && plain_at_end(plain)));
            CHECK_STR(r.bytes + start, r.len - start, "hello world");
            CHECK_INT(have, w);
            CHECK_MEM(got, want, w);
            close(plain);
            UNTIL(L, r.closes);
            CHECK_INT(r.why, NKLOOP_OK);
            CHECK_INT(r.late, 0);
            CHECK(t.starts == 1 && t.stops == 1 && t.stops_late == 0);
            rec_free(&r);
            kit_end(L);
        }
    }
}

// ---- both ends in one loop ----
typedef struct pusher { const unsigned char* data; size_t chunk; uint64_t left; uint32_t sum; toy* t; int pauses; } pusher;
static void push_hook(rec* r, int ev) {
    pusher* p = (pusher*)r->user;
    if (ev == ON_ACCEPT) CHECK_INT(nkloop_set_filter(r->L, r->s, &toy_filter, p->t), 0);
    if (ev == ON_DATA && p->pauses && r->datas % p->pauses == 0) { nkloop_pause(r->L, r->s, 1); nkloop_set_alarm(r->L, r->s, 1); }
    if (ev == ON_ALARM) nkloop_pause(r->L, r->s, 0);
    if (ev != ON_OPEN && ev != ON_DRAIN && ev != ON_ACCEPT) return;
    while (p->left > 0) {
        size_t n = p->left < p->chunk ? (size_t)p->left : p->chunk;
        if (nkloop_write(r->L, r->s, p->data, n) < 0) return;
        p->sum = kit_sum(p->sum, p->data, n);
        p->left -= n;
    }
    if (ev == ON_DRAIN && p->chunk == 33333) nkloop_finish(r->L, r->s);
}
TEST(both_ways_over_listen_and_dial) {
    int pauses;
    unsigned char* noise = kit_noise(70000);
    uint64_t total = kit_slow() ? 500000 : 5000000;
    for (pauses = 0; pauses < 30; pauses += 7) {
        nkloop* L = kit_make(NULL);
        rec server, client;
        pusher ps, pc;
        toy ts, tc;
        door d;
        memset(&server, 0, sizeof server);
        memset(&client, 0, sizeof client);
        memset(&ts, 0, sizeof ts);
        memset(&tc, 0, sizeof tc);
        memset(&ps, 0, sizeof ps);
        tc.client = 1;
        ps.data = noise;
        ps.chunk = 70000;
        ps.left = total;
        ps.pauses = pauses;
        pc = ps;
        pc.chunk = 30011;
        ps.t = &ts;
        server.user = &ps;
        client.user = &pc;
        server.hook = client.hook = push_hook;
        server.most = pauses ? 777 : 0;
        door_open(L, &d, &server, 1, NULL);
        filter_dial(L, d.address, &client, &tc);
        UNTIL(L, server.total == total && client.total == total);
        CHECK_INT(server.sum, pc.sum);
        CHECK_INT(client.sum, ps.sum);
        CHECK(nkloop_filter_self(L, server.s, &toy_filter) == &ts);
        nkloop_finish(L, client.s);
        UNTIL(L, server.eofs == 1); // the farewell
        nkloop_finish(L, server.s);
        UNTIL(L, server.closes && client.closes);
        CHECK(server.why == NKLOOP_OK && client.why == NKLOOP_OK);
        CHECK(ts.stops == 1 && tc.stops == 1 && ts.stops_late == 0 && tc.stops_late == 0);
        kit_end(L);
    }
    free(noise);
}

// ---- ends ----
static int ended(void (*act)(nkloop* L, rec* r, toy* t, int plain), int* why, char* got, size_t* n) {
    nkloop_desc d;
    nkloop* L;
    rec r;
    toy t;
    int plain, fd;
    char wire[64];
    size_t k = wire_add(wire, 0, 'A', "hello", 5);
    memset(&d, 0, sizeof d);
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    d.linger_ms = 20;
    L = kit_make(&d);
    kit_pair(1, &plain, &fd);
    kit_adopt(L, fd, &r);
    CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
    k = wire_add(wire, k, 'C', "", 0);
    CHECK(send(plain, wire, k, 0) > 0);
    UNTIL(L, t.done);
    act(L, &r, &t, plain);
    TURNS(L, 4);
    *n = fcntl(plain, F_GETFD) >= 0 ? (size_t)plain_read(plain, got, 1000) : 0;
    UNTIL(L, r.closes || r.eofs);
    if (!r.closes) { nkloop_close(L, r.s); UNTIL(L, r.closes); }
    CHECK_INT(r.late, 0);
    CHECK_INT(t.stops, 1);
    *why = r.why;
    if (fcntl(plain, F_GETFD) >= 0) close(plain);
    kit_end(L);
    return r.eofs;
}
static void cut_off(nkloop* L, rec* r, toy* t, int plain) { (void)L; (void)r; (void)t; shutdown(plain, SHUT_WR); }
static void cut_record(nkloop* L, rec* r, toy* t, int plain) { (void)L; (void)r; (void)t; plain_send(plain, "D"); shutdown(plain, SHUT_WR); }
static void farewell(nkloop* L, rec* r, toy* t, int plain) { (void)L; (void)r; (void)t; CHECK_INT(send(plain, "F\0\0", 3, 0), 3); }
static void farewell_end(nkloop* L, rec* r, toy* t, int plain) { farewell(L, r, t, plain); shutdown(plain, SHUT_WR); }
static void farewell_more(nkloop* L, rec* r, toy* t, int plain) { (void)L; (void)r; (void)t; CHECK_INT(send(plain, "F\0\0D\0\1x", 7, 0), 7); }
static void garbage(nkloop* L, rec* r, toy* t, int plain) { (void)L; (void)r; (void)t; plain_send(plain, "?\7\7?? and much more that nobody reads"); }
static void out_fails(nkloop* L, rec* r, toy* t, int plain) { (void)plain; t->fail_out = 1; nkloop_write(L, r->s, "x", 1); }
static void we_close(nkloop* L, rec* r, toy* t, int plain) { (void)plain; (void)t; nkloop_write(L, r->s, "x", 1); nkloop_close(L, r->s); }
static void we_finish(nkloop* L, rec* r, toy* t, int plain) { (void)plain; (void)t; nkloop_write(L, r->s, "x", 1); nkloop_finish(L, r->s); }
TEST(ends) {
    char got[1000], want[64];
    size_t n, w;
    int why;
    CHECK_INT(ended(cut_off, &why, got, &n), 0); // anybody can send a FIN
    CHECK_INT(why, NKLOOP_ERR_CLOSED);
    CHECK_INT(ended(cut_record, &why, got, &n), 0);
    CHECK_INT(why, NKLOOP_ERR_CLOSED);
    CHECK_INT(ended(farewell, &why, got, &n), 1);
    CHECK_INT(why, NKLOOP_OK);
    CHECK_INT(ended(farewell_end, &why, got, &n), 1);
    CHECK_INT(ended(farewell_more, &why, got, &n), 1);
    ended(garbage, &why, got, &n);
    CHECK_INT(why, NKLOOP_ERR_FILTER);
    w = wire_add(want, 0, 'B', "welcome", 7);
    w = wire_add(want, w, 'X', "alert", 5);
    CHECK_INT(n, w);
    CHECK_MEM(got, want, w); // the alert arrives although the rest was not read
    ended(out_fails, &why, got, &n);
    CHECK_INT(why, NKLOOP_ERR_FILTER);
    CHECK_INT(n, w);
    ended(we_close, &why, got, &n);
    CHECK_INT(why, NKLOOP_OK);
    ended(we_finish, &why, got, &n);
    CHECK_INT(why, NKLOOP_OK);
    w = wire_add(want, 10, 'D', "x", 1);
    w = wire_add(want, w, 'F', "", 0);
    CHECK_INT(n, w);
    CHECK_MEM(got, want, w);
}
TEST(start_fails_and_dial_fails) {
    nkloop* L = kit_make(NULL);
    rec r, server, client;
    toy t, tc;
    door d;
    nkloop_dial_desc desc;
    nkloop_stream s;
    int plain, fd;
    char got[64];
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    t.fail_start = 1;
    kit_pair(1, &plain, &fd);
    kit_adopt(L, fd, &r);
    CHECK_INT(nkloop_set_filter(L, r.s, NULL, &t), NKLOOP_ERR_INVAL);
    CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
    TURNS(L, 3);
    CHECK_STR(got + 3, (size_t)plain_read(plain, got, sizeof got) - 3, "start");
    close(plain);
    UNTIL(L, r.closes);
    CHECK_INT(r.why, NKLOOP_ERR_FILTER);
    CHECK(t.starts == 1 && t.stops == 1);
    // over dial
    memset(&server, 0, sizeof server);
    memset(&client, 0, sizeof client);
    memset(&tc, 0, sizeof tc);
    tc.fail_start = tc.client = 1;
    door_open(L, &d, &server, 1, NULL);
    filter_dial(L, d.address, &client, &tc);
    UNTIL(L, server.eofs);
    nkloop_close(L, server.s);
    UNTIL(L, client.closes);
    CHECK_INT(client.why, NKLOOP_ERR_FILTER);
    CHECK(tc.starts == 1 && tc.stops == 1);
    // never connected
    nkloop_listener_close(L, d.l);
    TURNS(L, 2);
    memset(&client, 0, sizeof client);
    memset(&tc, 0, sizeof tc);
    filter_dial(L, d.address, &client, &tc);
    UNTIL(L, client.closes);
    CHECK(tc.starts == 0 && tc.stops == 1 && tc.stops_late == 1);
    // not even tried: stays the caller's
    memset(&desc, 0, sizeof desc);
    desc.address = "nonsense";
    desc.proto = &rec_proto;
    desc.filter = &toy_filter;
    desc.filter_self = &tc;
    CHECK_INT(nkloop_dial(L, &desc, &s), NKLOOP_ERR_ADDRESS);
    CHECK_INT(tc.stops, 1);
    // destroyed in the middle of a handshake, and while dialling
    memset(&tc, 0, sizeof tc);
    memset(&t, 0, sizeof t);
    memset(&r, 0, sizeof r);
    memset(&client, 0, sizeof client);
    kit_pair(0, &plain, &fd);
    kit_adopt(L, fd, &r);
    CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
    plain_send(plain, "A");
    TURNS(L, 2);
    filter_dial(L, d.address, &client, &tc);
    kit_end(L);
    CHECK(t.stops == 1 && t.stops_late == 1 && tc.stops == 1);
    CHECK(r.closes == 1 && client.closes == 1);
    close(plain);
}

// ---- callbacks ----
static char stable_want[TOY_MOST];
static void stable_hook(rec* r, int ev) { (void)r; (void)ev; }
static size_t stable_data(void* self, nkloop* L, nkloop_stream s, uint8_t* p, size_t n) {
    static char junk[30000];
    rec* r = (rec*)self;
    r->datas++;
    CHECK_INT(nkloop_write(L, s, junk, sizeof junk), 0);
    nkloop_flush(L); // must not take the buffer away that we are reading
    CHECK_INT(nkloop_write(L, s, junk, sizeof junk), 0);
    CHECK_INT(nkloop_write(L, r->other->s, junk, sizeof junk), 0);
    nkloop_flush(L);
    CHECK_MEM(p, stable_want, n);
    r->total += n;
    return n;
}
static const nkloop_proto stable_proto = { "stable", stable_data, NULL, rec_close, NULL, NULL, NULL };
TEST(bytes_stay_put_while_callbacks_flush) {
    nkloop* L = kit_make(NULL);
    rec r, o;
    toy t;
    int plain, fd, plain2;
    char wire[2000];
    size_t n;
    memset(&r, 0, sizeof r);
    memset(&o, 0, sizeof o);
    memset(&t, 0, sizeof t);
    memset(stable_want, 'q', sizeof stable_want);
    r.hook = stable_hook;
    r.other = &o;
    kit_pair(0, &plain2, &fd);
    kit_adopt(L, fd, &o);
    kit_pair(0, &plain, &fd);
    CHECK_INT(nkloop_adopt(L, (nkloop_fd)fd, &stable_proto, &r, &r.s), 0);
    CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
    n = wire_add(wire, 0, 'A', "hello", 5);
    n = wire_add(wire, n, 'C', "", 0);
    n = wire_add(wire, n, 'D', stable_want, TOY_MOST);
    CHECK(send(plain, wire, n, 0) > 0);
    UNTIL(L, r.total == TOY_MOST);
    close(plain);
    close(plain2);
    kit_end(L);
}
static void finish_flush_hook(rec* r, int ev) { if (ev == ON_DATA) { nkloop_finish(r->L, r->s); nkloop_flush(r->L); } }
TEST(finish_and_flush_while_unread_bytes_are_offered) {
    int filtered;
    for (filtered = 0; filtered < 2; filtered++) {
        nkloop_desc d;
        nkloop* L;
        rec r;
        toy t;
        int plain, fd;
        char wire[2000];
        size_t n;
        memset(&d, 0, sizeof d);
        memset(&r, 0, sizeof r);
        memset(&t, 0, sizeof t);
        d.linger_ms = 5;
        L = kit_make(&d);
        r.refuse = 1;
        kit_pair(0, &plain, &fd);
        kit_adopt(L, fd, &r);
        if (filtered) CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
        n = wire_add(wire, 0, 'A', "hello", 5);
        n = wire_add(wire, n, 'C', "", 0);
        n = wire_add(wire, n, 'D', "some", 4);
        CHECK(send(plain, wire, n, 0) > 0);
        UNTIL(L, r.datas > 0);
        r.hook = finish_flush_hook;
        n = wire_add(wire, 0, 'D', "more", 4);
        CHECK(send(plain, wire, n, 0) > 0);
        UNTIL(L, r.closes);
        CHECK_INT(r.why, NKLOOP_OK);
        close(plain);
        kit_end(L);
    }
}
TEST(large_unread_messages_fit_up_to_rx_bytes) {
    nkloop_desc d;
    nkloop* L;
    rec r;
    toy t;
    int plain, fd, i;
    char wire[TOY_MOST + 16], junk[TOY_MOST];
    size_t n;
    memset(&d, 0, sizeof d);
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    memset(junk, 'j', sizeof junk);
    d.rx_bytes = 50000;
    L = kit_make(&d);
    r.refuse = 1;
    kit_pair(1, &plain, &fd);
    plain_wait(plain);
    kit_adopt(L, fd, &r);
    CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
    n = wire_add(wire, 0, 'A', "hello", 5);
    n = wire_add(wire, n, 'C', "", 0);
    CHECK(send(plain, wire, n, 0) > 0);
    n = wire_add(wire, 0, 'D', junk, sizeof junk);
    for (i = 0; i < 49; i++) CHECK(send(plain, wire, n, 0) > 0);
    TURNS(L, 30);
    CHECK_INT(r.closes, 0);
    nkloop_pause(L, r.s, 1); // with 49,000 bytes unread; more comes and waits
    for (i = 0; i < 30; i++) CHECK(send(plain, wire, n, 0) > 0);
    TURNS(L, 10);
    CHECK_INT(r.closes, 0);
    r.refuse = 0;
    r.most = 777;
    nkloop_pause(L, r.s, 0);
    UNTIL(L, r.total == 79000);
    r.refuse = 1;
    for (i = 0; i < 50; i++) CHECK(send(plain, wire, n, 0) > 0);
    UNTIL(L, r.closes);
    CHECK_INT(r.why, NKLOOP_ERR_RX_FULL);
    close(plain);
    kit_end(L);
}

TEST(filter_waits_until_plain_bytes_are_out) {
    nkloop* L = kit_make(NULL);
    rec r;
    toy t;
    int plain, fd, i;
    static char junk[200000], sink[1 << 20];
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    kit_pair(0, &plain, &fd);
    kit_adopt(L, fd, &r);
    for (i = 0; i < 50 && nkloop_unsent(L, r.s) == 0; i++) { CHECK_INT(nkloop_write(L, r.s, junk, sizeof junk), 0); TURNS(L, 1); }
    CHECK(nkloop_unsent(L, r.s) > 0);
    CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), NKLOOP_ERR_FULL);
    CHECK_INT(t.starts + t.stops, 0);
    UNTIL(L, (plain_read(plain, sink, sizeof sink), nkloop_unsent(L, r.s) == 0));
    CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
    close(plain);
    kit_end(L);
    CHECK_INT(t.stops, 1);
}

// ---- a peer that talks and does not listen ----
typedef struct talker { int fd, mode; long sent, data, pongs, bye; } talker;
static void* talk_main(void* user) {
    talker* t = (talker*)user;
    static char junk[TOY_MOST];
    char one[TOY_MOST + 3], *in = (char*)malloc(8 << 20);
    size_t n = wire_add(one, 0, t->mode ? 'P' : 'D', junk, sizeof junk), have = 0, at = 0;
    long k;
    int i;
    plain_wait(t->fd);
    for (i = 0; i < 3000; i++) { // 3 MB; it reads only when it cannot send
        size_t off = 0;
        while (off < n) {
            struct pollfd p;
            p.fd = t->fd;
            p.events = POLLOUT;
            if (poll(&p, 1, 20) == 0) {
                p.events = POLLIN | POLLOUT;
                if (poll(&p, 1, 20000) == 0) goto reading;
            }
            if (p.revents & POLLOUT) k = (long)send(t->fd, one + off, n - off, MSG_NOSIGNAL | MSG_DONTWAIT);
            else if ((k = (long)recv(t->fd, in + have, 1 << 16, 0)) > 0) { have += (size_t)k; continue; }
            if (k <= 0 && errno != EAGAIN) goto reading;
            if (k > 0) off += (size_t)k;
        }
        t->sent++;
    }
reading:
    if (t->mode) { // all pongs must come
        while (have < 3000u * (TOY_MOST + 3) && (k = (long)recv(t->fd, in + have, 1 << 16, 0)) > 0) have += (size_t)k;
    } else {
        while (have < 7u << 20 && (k = (long)recv(t->fd, in + have, 1 << 16, 0)) > 0) have += (size_t)k;
    }
    while (at + 3 <= have) {
        size_t len = (size_t)(unsigned char)in[at + 1] << 8 | (unsigned char)in[at + 2];
        if (in[at] == 'D') t->data += (long)len;
        if (in[at] == 'p') t->pongs++;
        if (in[at] == 'F') t->bye++;
        at += len + 3;
    }
    close(t->fd);
    free(in);
    return NULL;
}
TEST(talkers_are_answered_in_full) {
    int mode;
    for (mode = 0; mode < 2; mode++) {
        nkloop* L = kit_make(NULL);
        rec r;
        toy t;
        talker k;
        pthread_t thread;
        int fd, size = 20000;
        char wire[64];
        static char junk[200000];
        size_t n;
        memset(&r, 0, sizeof r);
        memset(&t, 0, sizeof t);
        memset(&k, 0, sizeof k);
        k.mode = mode;
        kit_pair(1, &k.fd, &fd);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        kit_adopt(L, fd, &r);
        CHECK_INT(nkloop_set_filter(L, r.s, &toy_filter, &t), 0);
        n = wire_add(wire, 0, 'A', "hello", 5);
        n = wire_add(wire, n, 'C', "", 0);
        CHECK(send(k.fd, wire, n, 0) > 0);
        UNTIL(L, t.done);
        if (mode == 0) { // finished, but the peer goes on talking before it reads the answer
            CHECK_INT(nkloop_write(L, r.s, junk, sizeof junk), 0);
            CHECK_INT(nkloop_finish(L, r.s), 0);
        }
        pthread_create(&thread, NULL, talk_main, &k);
        UNTIL(L, r.closes || r.eofs);
        if (mode == 1) { CHECK_INT(r.why, NKLOOP_ERR_CLOSED); } // it left without a farewell
        else CHECK_INT(r.why, NKLOOP_OK);
        pthread_join(thread, NULL);
        if (mode == 0) { CHECK_INT(k.data, 200000); CHECK_INT(k.bye, 1); }
        else { CHECK_INT(k.sent, 3000); CHECK_INT(k.pongs, 3000); }
        kit_end(L);
    }
}
static void on_release(void* user) { ++*(int*)user; }
TEST(pieces_stay_in_order) {
    nkloop* L = kit_make(NULL);
    unsigned char* noise = kit_noise(300000);
    const char* path = kit_path(".filter");
    int file = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600), released = 0, queued = 0, i;
    size_t at = 0, all = 300000;
    rec server, client;
    toy ts, tc;
    door d;
    unlink(path);
    CHECK_INT(write(file, noise, all), (int)all);
    memset(&server, 0, sizeof server);
    memset(&client, 0, sizeof client);
    memset(&ts, 0, sizeof ts);
    memset(&tc, 0, sizeof tc);
    tc.client = 1;
    server.keep = 1;
    server.user = &ts;
    server.hook = filter_hook;
    door_open(L, &d, &server, 1, NULL);
    filter_dial(L, d.address, &client, &tc);
    for (i = 0; at < all; i++) {
        size_t k = (size_t)(i * 7919) % 9000;
        int e;
        if (k > all - at) k = all - at;
        if (i % 3 == 0) e = nkloop_write(L, client.s, noise + at, k);
        else if (i % 3 == 1) e = nkloop_write_ref(L, client.s, noise + at, k, on_release, &released);
        else e = nkloop_write_file(L, client.s, (nkloop_fd)file, at, k, on_release, &released);
        if (e == 0) { at += k; queued += i % 3 != 0; }
        else { CHECK_INT(e, NKLOOP_ERR_FULL); nkloop_wait(L, 10); }
    }
    UNTIL(L, server.len == all);
    CHECK_MEM(server.bytes, noise, all);
    CHECK_INT(released, queued);
    CHECK_INT(ftruncate(file, 5), 0);
    CHECK_INT(nkloop_write_file(L, client.s, (nkloop_fd)file, 0, 100, on_release, &released), 0);
    UNTIL(L, client.closes);
    CHECK_INT(client.why, NKLOOP_ERR_FILE);
    CHECK_INT(released, queued + 1);
    close(file);
    free(noise);
    rec_free(&server);
    kit_end(L);
}
TEST(filter_in_fixed_memory_runs_out) {
    static unsigned char room[400000];
    nkloop_desc d;
    nkloop* L;
    rec server[8], client[8];
    toy ts[8], tc[8];
    door dd;
    int i, opened = 0;
    memset(&d, 0, sizeof d);
    memset(server, 0, sizeof server);
    memset(client, 0, sizeof client);
    memset(ts, 0, sizeof ts);
    memset(tc, 0, sizeof tc);
    d.memory = room;
    d.memory_bytes = sizeof room;
    L = kit_make(&d);
    for (i = 0; i < 8; i++) { server[i].user = &ts[i]; tc[i].client = 1; }
    door_open(L, &dd, server, 8, NULL);
    for (i = 0; i < 8; i++) { filter_dial(L, dd.address, &client[i], &tc[i]); nkloop_write(L, client[i].s, "hello", 5); }
    TURNS(L, 20);
    for (i = 0; i < 8; i++) opened += client[i].opens;
    nkloop_destroy(L);
    CHECK(opened > 0);
    for (i = 0; i < 8; i++) CHECK_INT(tc[i].stops, 1);
    for (i = 0; i < 8; i++) CHECK_INT(client[i].closes, 1);
}
