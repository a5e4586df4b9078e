// netkit_loop.h and other threads: posts, jobs, the pool, stopping. Runs once per backend; meant for TSan. POSIX only.
#include "loop_kit.h"

enum { THREADS = 4 };
typedef struct sender { nkloop* L; pthread_t t; int id, count, last, wrong; } sender;
typedef struct letter { sender* from; int number; nkloop_job job; } letter;
static int received, stop_at;
static void letter_done(void* user) {
    letter* l = (letter*)user;
    sender* s = l->from;
    if (l->number != s->last + 1) s->wrong++;
    if (!nkloop_on_thread(s->L)) s->wrong++;
    s->last = l->number;
    if (++received == stop_at) nkloop_stop(s->L);
    free(l);
}
static void* sender_main(void* user) {
    sender* s = (sender*)user;
    int i;
    for (i = 1; i <= s->count; i++) {
        letter* l = (letter*)malloc(sizeof *l);
        memset(l, 0, sizeof *l);
        l->from = s;
        l->number = i;
        l->job.done = letter_done;
        l->job.user = l;
        if (nkloop_on_thread(s->L)) s->wrong++;
        if (i & 1) nkloop_post_job(s->L, &l->job);
        else if (nkloop_post(s->L, letter_done, l) < 0) s->wrong++;
        if (i % 64 == 0) usleep(100);
    }
    return NULL;
}
TEST(posts_from_four_threads_keep_their_order) {
    nkloop* L = kit_make(NULL);
    static sender s[THREADS];
    int i, wrong = 0;
    received = 0;
    stop_at = THREADS * 5000;
    for (i = 0; i < THREADS; i++) {
        memset(&s[i], 0, sizeof s[i]);
        s[i].L = L;
        s[i].count = 5000;
        pthread_create(&s[i].t, NULL, sender_main, &s[i]);
    }
    CHECK_INT(nkloop_run(L), 0);
    for (i = 0; i < THREADS; i++) { pthread_join(s[i].t, NULL); wrong += s[i].wrong; }
    CHECK_INT(received, stop_at);
    CHECK_INT(wrong, 0);
    // what was posted and not yet run is run by destroy
    received = 0;
    stop_at = 0;
    s[0].last = s[0].wrong = 0;
    s[0].count = 100;
    pthread_create(&s[0].t, NULL, sender_main, &s[0]);
    pthread_join(s[0].t, NULL);
    kit_end(L);
    CHECK_INT(received, 100);
}

// Each post must wake the loop, whatever it is doing at the moment.
static int pings, asleep;
static void ping_done(void* user) { __atomic_fetch_add((int*)user, 1, __ATOMIC_SEQ_CST); }
static void* ping_main(void* user) {
    nkloop* L = (nkloop*)user;
    int i, spin;
    for (i = 0; i < 20000; i++) {
        nkloop_post(L, ping_done, &pings);
        if (i % 3) for (spin = 0; __atomic_load_n(&pings, __ATOMIC_SEQ_CST) <= i - 1 && spin < 100000; spin++) {}
        if (i % 50 == 0) usleep(50);
    }
    return NULL;
}
TEST(no_wake_up_is_lost) {
    nkloop* L = kit_make(NULL);
    pthread_t t;
    int i;
    pings = asleep = 0;
    pthread_create(&t, NULL, ping_main, L);
    while (__atomic_load_n(&pings, __ATOMIC_SEQ_CST) < 20000 && asleep < 3) {
        if (nkloop_wait(L, 10000).events == 0 && __atomic_load_n(&pings, __ATOMIC_SEQ_CST) < 20000) asleep++; // slept in vain
    }
    pthread_join(t, NULL);
    CHECK_INT(asleep, 0);
    for (i = 0; i < 3; i++) nkloop_pump(L, 1000000);
    CHECK_INT(pings, 20000);
    kit_end(L);
}
// The same race played by hand: a post between taking the posts and serving the wake-up event.
TEST(post_between_take_and_wake) {
    nkloop* L = kit_make(NULL);
    nkloop_turn t;
    pings = 0;
    CHECK_INT(nkloop_post(L, ping_done, &pings), 0);
    nkloop_p_take_posted(L);              // the turn has taken the first,
    CHECK_INT(nkloop_post(L, ping_done, &pings), 0); // another comes, the flag is still up,
    nkloop_p_woken(L, NKLOOP_READ);       // and only now is the wake-up served
    CHECK_INT(nkloop_timeout_ms(L), 0);
    t = nkloop_pump(L, 1000000);
    CHECK_INT(pings, 2);
    (void)t;
    kit_end(L);
}

// ---- the pool ----
typedef struct work { nkloop* L; nkloop_job job; int number, ran, done; nkloop_pool* pool; } work;
static int works_done, works_wrong;
static void work_run(void* user) {
    work* w = (work*)user;
    if (nkloop_on_thread(w->L)) works_wrong++;
    if (w->number % 10 == 0) usleep(200);
    w->ran++;
}
static void work_done(void* user) {
    work* w = (work*)user;
    if (!nkloop_on_thread(w->L) || w->ran != 1) works_wrong++;
    w->done++;
    works_done++;
}
static void works_init(nkloop* L, work* w, int n) {
    int i;
    memset(w, 0, (size_t)n * sizeof *w);
    works_done = works_wrong = 0;
    for (i = 0; i < n; i++) {
        w[i].L = L;
        w[i].number = i;
        w[i].job.run = work_run;
        w[i].job.done = work_done;
        w[i].job.user = &w[i];
    }
}
static void destroys_pool(void* user) { nkloop_pool_destroy((nkloop_pool*)user); }
TEST(pool) {
    nkloop* L = kit_make(NULL);
    nkloop_pool* pool = NULL;
    static work w[400];
    int i, bad = 0;
    CHECK_INT(nkloop_pool_create(&pool, L, 0), NKLOOP_ERR_INVAL);
    CHECK_INT(nkloop_pool_create(&pool, L, 5000), NKLOOP_ERR_INVAL);
    CHECK_INT(nkloop_pool_create(&pool, L, 4), 0);
    works_init(L, w, 400);
    for (i = 0; i < 200; i++) nkloop_pool_submit(pool, &w[i].job);
    UNTIL(L, works_done == 200);
    for (i = 200; i < 400; i++) nkloop_pool_submit(pool, &w[i].job);
    nkloop_pool_destroy(pool); // with jobs in its queue: all are run, all are told
    CHECK_INT(works_done, 400);
    for (i = 0; i < 400; i++) bad += w[i].ran != 1 || w[i].done != 1;
    CHECK_INT(bad, 0);
    CHECK_INT(works_wrong, 0);
    // destroyed inside a posted function, with others posted behind it
    CHECK_INT(nkloop_pool_create(&pool, L, 2), 0);
    works_init(L, w, 50);
    pings = 0;
    for (i = 0; i < 50; i++) nkloop_pool_submit(pool, &w[i].job);
    nkloop_post(L, destroys_pool, pool);
    for (i = 0; i < 5; i++) nkloop_post(L, ping_done, &pings);
    UNTIL(L, works_done == 50 && pings == 5);
    nkloop_pool_destroy(NULL);
    kit_end(L);
}
TEST(pool_alone_with_one_thread_is_in_order) {
    nkloop* L = kit_make(NULL);
    nkloop_pool* pool;
    static work w[100];
    int i;
    CHECK_INT(nkloop_pool_create(&pool, L, 1), 0);
    works_init(L, w, 100);
    for (i = 0; i < 100; i++) nkloop_pool_submit(pool, &w[i].job);
    nkloop_pool_destroy(pool);
    CHECK_INT(works_done, 100);
    kit_end(L);
}

// ---- stopping ----
static nkloop* volatile stop_loop;
static void stop_handler(int sig) { int e = errno; (void)sig; nkloop_stop(stop_loop); if (errno != e) abort(); }
static void* stop_main(void* user) { usleep(2000); nkloop_stop((nkloop*)user); return NULL; }
TEST(stop) {
    nkloop* L = kit_make(NULL);
    struct sigaction sa, old;
    struct itimerval tv;
    pthread_t t;
    int i;
    nkloop_stop(L); // before run
    CHECK_INT(nkloop_run(L), 0);
    for (i = 0; i < 5; i++) {
        pthread_create(&t, NULL, stop_main, L);
        CHECK_INT(nkloop_run(L), 0);
        pthread_join(t, NULL);
    }
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = stop_handler;
    sigaction(SIGALRM, &sa, &old);
    stop_loop = L;
    for (i = 0; i < 5; i++) {
        memset(&tv, 0, sizeof tv);
        tv.it_value.tv_usec = 1000 + i * 700;
        setitimer(ITIMER_REAL, &tv, NULL);
        CHECK_INT(nkloop_run(L), 0);
    }
    sigaction(SIGALRM, &old, NULL);
    kit_end(L);
}

// ---- loops on their own threads ----
typedef struct runner { nkloop* L; pthread_t t; rec recs[32]; door d; } runner;
static void* runner_main(void* user) { nkloop_run(((runner*)user)->L); return NULL; }
static void echo_hook(rec* r, int ev) {
    if (ev == ON_DATA && r->len) { nkloop_write(r->L, r->s, r->bytes, r->len); r->len = 0; }
    if (ev == ON_EOF) nkloop_finish(r->L, r->s);
}
TEST(one_loop_per_thread) {
    static runner run[2];
    char text[64];
    int i, k, fd;
    for (i = 0; i < 2; i++) {
        memset(&run[i], 0, sizeof run[i]);
        run[i].L = kit_make(NULL);
        for (k = 0; k < 32; k++) { run[i].recs[k].keep = 1; run[i].recs[k].hook = echo_hook; }
        door_open(run[i].L, &run[i].d, run[i].recs, 32, NULL);
        pthread_create(&run[i].t, NULL, runner_main, &run[i]);
    }
    for (k = 0; k < 40; k++) {
        fd = plain_connect(run[k & 1].d.address);
        plain_wait(fd);
        plain_send(fd, "hello");
        CHECK_INT(recv(fd, text, 5, MSG_WAITALL), 5);
        close(fd);
    }
    for (i = 0; i < 2; i++) {
        nkloop_stop(run[i].L);
        pthread_join(run[i].t, NULL);
        nkloop_destroy(run[i].L); // by another thread than the one that ran it
        for (k = 0; k < 32; k++) rec_free(&run[i].recs[k]);
    }
    CHECK_INT(kit_live, 0);
}
