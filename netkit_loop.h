#if defined(NETKIT_IMPLEMENTATION) && !defined(NETKIT_LOOP_IMPLEMENTATION)
#define NETKIT_LOOP_IMPLEMENTATION
#endif
#if defined(NETKIT_LOOP_IMPLEMENTATION) && !defined(NETKIT_LOOP_IMPLEMENTED)
    #ifndef _GNU_SOURCE
        // the first system header settles what the others declare; harmless where it means nothing
        #define _GNU_SOURCE 1
    #endif
    #ifndef _FILE_OFFSET_BITS
        #define _FILE_OFFSET_BITS 64 // files over 2 GiB on 32-bit systems
    #endif
#endif
#ifndef NETKIT_LOOP_INCLUDED
#define NETKIT_LOOP_INCLUDED 1
/*  netkit_loop.h -- sockets, timers, wake-ups and workers in one event loop.  v0.1.0  MIT or public domain (see end)

DO THIS
    In one .c or .cpp file of its own, as its first line:
        #define NETKIT_LOOP_IMPLEMENTATION
        #include "netkit_loop.h"
    and everywhere else just #include "netkit_loop.h". NETKIT_IMPLEMENTATION switches on all netkit headers at once.

LINK WITH
    POSIX: -lpthread (nothing with NETKIT_LOOP_NO_THREADS). Windows: ws2_32.

DOES
    - TCP over IPv4 and IPv6, and Unix sockets: dial with a deadline, listen, adopt what others opened
    - epoll, kqueue, poll, WSAPoll behind one interface; many writes to a stream in one turn cost one system call
    - three ways to be driven: once per frame with a time budget, sleeping on its own thread, nested in another loop
    - protocols and filters (TLS) are slots of a stream: one can hand it to the next, unread bytes included
    - timers by the hundred thousand, watches for other people's descriptors, posts from other threads, a worker pool
    - files by sendfile, buffers by reference, backpressure both ways, lingering close
    - a fixed-memory mode that never asks the system for memory after nkloop_create
DOES NOT
    - UDP, pipes to children, files without blocking (a disk read for a file being sent may wait for the disk)
    - edge-triggered tricks, io_uring, more than one thread per loop: run one loop on each thread, with reuse_port
    - names in nkloop_listen; more than one address family per listener, but for [::], which takes IPv4 as well
    - poll and WSAPoll cost time proportional to all open streams: above a few hundred use a system with epoll or kqueue
    - kqueue has been compiled and exercised against a stub of its calls, never yet on a real kernel

EXAMPLE
    // example.c -- an echo server: build with `cc example.c -lpthread`, talk to it with `nc 127.0.0.1 7000`
    #define NETKIT_LOOP_IMPLEMENTATION
    #include "netkit_loop.h"

    static size_t on_data(void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n) {
        (void)self;
        if (nkloop_write(L, s, bytes, n) == NKLOOP_OK) return n;
        nkloop_pause(L, s, 1); // full: they are kept, TCP pushes back
        return 0;
    }
    static void on_drain(void* self, nkloop* L, nkloop_stream s) { (void)self; nkloop_pause(L, s, 0); }
    static void on_close(void* self, nkloop* L, nkloop_stream s, int why) {
        (void)self; (void)L; (void)s;
        printf("closed: %s\n", nkloop_strerror(why));
    }
    static const nkloop_proto echo = { "echo", on_data, on_drain, on_close, NULL, NULL, NULL };

    static void on_accept(void* user, nkloop* L, nkloop_stream s) { nkloop_set_proto(L, s, &echo, user); }

    int main(void) {
        nkloop* L;
        nkloop_listen_desc d = { 0 };
        int err;
        d.address = "127.0.0.1:7000";
        d.on_accept = on_accept;
        if ((err = nkloop_create(&L, NULL)) < 0 || (err = nkloop_listen(L, &d, NULL)) < 0) {
            printf("cannot listen on %s: %s\n", d.address, nkloop_strerror(err));
            return 1;
        }
        nkloop_run(L); // a game would call nkloop_pump(L, 1000) once per frame instead
        nkloop_destroy(L);
        return 0;
    }

IDEAS
    One loop belongs to one thread. Only nkloop_post, nkloop_post_job, nkloop_pool_submit, nkloop_on_thread
    and nkloop_stop may be called from others, and of these only nkloop_stop from a signal handler. There are
    no globals: any number of loops may live.
    A turn (one nkloop_pump or nkloop_wait) serves posts, timers and events, then sends what was written and
    ends what was closed.
    Callbacks run inside a turn only, on the loop's thread, never inside the call that caused them; they may
    call everything but nkloop_pump, nkloop_wait, nkloop_run and nkloop_destroy.
    Handles are numbers with a generation. One that is no longer alive is answered with NKLOOP_ERR_STALE, or
    ignored by the calls that return nothing. A closed stream is stale at once; its on_close follows, exactly
    once and last.
    Whoever holds a stream's protocol slot owns its bytes. on_data consumes what it can and is offered the
    rest again; nothing else buffers. Reading happens in one buffer of the loop, so an idle stream costs its
    slot alone: 96 bytes, timer included.
    Writing queues. What a turn wrote leaves in one call at its end. The queue of a stream is bounded by
    tx_bytes: a write that does not fit changes nothing and says NKLOOP_ERR_FULL, and on_drain says when to go
    on. nkloop_pause makes TCP push back.
    Errors are negative, success is 0 (or a length). Out of memory and out of files are ordinary errors.

TOUR
    nkloop_create destroy              nkloop_pump wait run stop flush              nkloop_poll_fd timeout_ms on_thread
    nkloop_listen dial adopt           nkloop_write write_ref write_file reserve commit
    nkloop_set_proto set_filter        nkloop_finish close pause                    nkloop_set_timeout set_alarm
    nkloop_timer_start stop            nkloop_watch_open change close               nkloop_post post_job
    nkloop_pool_create submit destroy
    nkloop_peer_address local_address  nkloop_unsent alive stream_fd                nkloop_get_stats strerror os_error

OPTIONS
    macro                      default          where
    NETKIT_LOOP_API            extern           everywhere; e.g. your dllexport
    NETKIT_LOOP_STATIC         off              everywhere; all functions static
    NETKIT_LOOP_ASSERT(c)      NETKIT_ASSERT, else assert   implementation only
    NETKIT_LOOP_NO_THREADS     off              implementation only; no pool, no name resolution
    NETKIT_LOOP_NO_RESOLVE     off              implementation only; dial takes numeric addresses only
    NETKIT_LOOP_NO_EPOLL       off              implementation only; poll on Linux
    NETKIT_LOOP_NO_KQUEUE      off              implementation only; poll on macOS and BSD
    NETKIT_LOOP_NO_PRAGMA_LIB  off              implementation only; no #pragma comment(lib) with MSVC
    NETKIT_LOOP_SYS_...        the system's     implementation only; each system call, for fault tests: see @config

LIMITS AND SAFETY
    Peers may send anything, close at any byte, read nothing: a stream holds at most rx_bytes unread and
    tx_bytes unsent (a reference or file may go beyond, being the caller's memory). When no file or slot is
    left, listeners rest and connections wait in the backlog. Times are limited to 24 days, streams to 2^30.
    SIGPIPE is never raised. Descriptors are closed on exec. alloc_fn and log_fn must be thread-safe if other
    threads post. nkloop_destroy waits for a name lookup that is under way. Tested with every system call
    failing in turn and every allocation failing in turn, under ASan, UBSan, TSan and valgrind.

CHANGES
    0.1.0  first version
*/
#include <stddef.h>
#include <stdint.h>
#define NETKIT_LOOP_VERSION 100 // 0.1.0 = major * 10000 + minor * 100 + patch
#ifndef NETKIT_LOOP_API
    #if defined(NETKIT_LOOP_STATIC)
        #if defined(__GNUC__)
            #define NETKIT_LOOP_API __attribute__((unused)) static
        #else
            #define NETKIT_LOOP_API static
        #endif
    #else
        #define NETKIT_LOOP_API extern
    #endif
#endif
#ifdef __cplusplus
extern "C" {
#endif

// ---- errors: 0 is success, negative is an error; nkloop_strerror names each -------------------
#define NKLOOP_ERRORS(X)                                                          \
    X(NOMEM,       -1,  "out of memory")                                          \
    X(INVAL,       -2,  "invalid argument")                                       \
    X(STALE,       -3,  "handle is no longer alive")                              \
    X(FULL,        -4,  "queue is full: wait for on_drain")                       \
    X(CLOSED,      -5,  "peer closed the connection")                             \
    X(RESET,       -6,  "connection reset by peer")                               \
    X(TIMEOUT,     -7,  "timed out")                                              \
    X(REFUSED,     -8,  "connection refused")                                     \
    X(ADDRESS,     -9,  "address is malformed or not one of this machine")         \
    X(RESOLVE,     -10, "host name cannot be resolved")                           \
    X(IN_USE,      -11, "address is in use")                                      \
    X(ACCESS,      -12, "permission denied")                                      \
    X(LIMIT,       -13, "no file descriptor or stream slot left")                 \
    X(SYSTEM,      -14, "system call failed: see nkloop_os_error")                \
    X(RX_FULL,     -15, "protocol left more bytes unread than rx_bytes allows")   \
    X(FILTER,      -16, "filter refused the bytes of the peer")                   \
    X(UNSUPPORTED, -17, "not supported on this platform or in this build")        \
    X(SHUTDOWN,    -18, "loop was destroyed")                                     \
    X(UNREACHABLE, -19, "network or host is unreachable")                         \
    X(FILE,        -20, "file could not be read while it was being sent")
enum {
    NKLOOP_OK = 0,
    #define NKLOOP_X(name, value, text) NKLOOP_ERR_##name = value,
    NKLOOP_ERRORS(NKLOOP_X)
    #undef NKLOOP_X
    NKLOOP_ERR_FORCE_SIGN = -99
};
NETKIT_LOOP_API const char* nkloop_strerror(int err);          // never NULL; text is static

// ---- types ------------------------------------------------------------------------------------
typedef struct nkloop nkloop;                                  // one loop = one thread = one owner
typedef uintptr_t     nkloop_fd;                               // SOCKET or int
#define NKLOOP_NO_FD ((nkloop_fd)-1)
// Handles: slot and generation. Zero is none; a stale one is answered with NKLOOP_ERR_STALE, never a crash.
typedef struct nkloop_stream   { uint64_t id; } nkloop_stream;
typedef struct nkloop_listener { uint64_t id; } nkloop_listener;
typedef struct nkloop_timer    { uint64_t id; } nkloop_timer;
typedef struct nkloop_watch    { uint64_t id; } nkloop_watch;

// new_size 0 frees, ptr NULL allocates, else reallocates; NULL means out of memory.
// Called from any thread that posts or uses a pool.
typedef void* (*nkloop_alloc_fn)(void* user, void* ptr, size_t old_size, size_t new_size);
// level: NKLOOP_LOG_...; the texts are valid during the call
typedef void  (*nkloop_log_fn)  (void* user, int level, const char* where, const char* text);
enum { NKLOOP_LOG_ERROR = 1, NKLOOP_LOG_WARN = 2, NKLOOP_LOG_INFO = 3, NKLOOP_LOG_DEBUG = 4 };
enum { NKLOOP_BACKEND_DEFAULT = 0, NKLOOP_BACKEND_EPOLL = 1, NKLOOP_BACKEND_KQUEUE = 2,
    NKLOOP_BACKEND_POLL = 3, NKLOOP_BACKEND_WSAPOLL = 4 };

typedef struct nkloop_desc {
    uint32_t max_streams;       // most open streams, listeners and watches together, default 65536
    uint32_t rx_bytes;          // most unread bytes kept per stream, default 64 KiB
    uint32_t tx_bytes;          // most unsent bytes per stream before a write says FULL, default 256 KiB
    uint32_t read_quantum;      // most bytes taken from one stream per turn, default 64 KiB
    uint32_t linger_ms;         // nkloop_finish: longest wait for the peer to close its side, default 2000
    int      backend;           // NKLOOP_BACKEND_..., default the best of this platform
    void*    memory;            // fixed-memory mode: everything lives in this block, kept until destroy; default NULL
    size_t   memory_bytes;      // its size
    nkloop_alloc_fn alloc_fn;   // default realloc and free; not used with memory
    void*           alloc_user;
    nkloop_log_fn   log_fn;     // default silent
    void*           log_user;
} nkloop_desc;

// Whoever holds a stream's protocol slot owns its bytes. All members but on_data and on_close may be NULL.
// Kept, not copied. All of it is called on the loop's thread.
typedef struct nkloop_proto {
    const char* name;           // for logs
    // Returns how many of the n bytes were consumed; the rest is offered again with more behind it,
    // or at once if something was consumed. The bytes may be changed in place, and are valid during
    // the call only.
    size_t (*on_data) (void* self, nkloop* L, nkloop_stream s, uint8_t* bytes, size_t n);
    // after a write said FULL, or most of the queue stayed unsent: at most a quarter of tx_bytes is left
    void   (*on_drain)(void* self, nkloop* L, nkloop_stream s);
    // exactly once, last, whoever closed; NKLOOP_OK if it was you
    void   (*on_close)(void* self, nkloop* L, nkloop_stream s, int why);
    // the peer will send no more but may still read; NULL: nkloop_finish
    void   (*on_eof)  (void* self, nkloop* L, nkloop_stream s);
    // a dialled stream is connected (a failed one gets on_close only)
    void   (*on_open) (void* self, nkloop* L, nkloop_stream s);
    // nkloop_set_alarm ran out; NULL: close with NKLOOP_ERR_TIMEOUT
    void   (*on_alarm)(void* self, nkloop* L, nkloop_stream s);
} nkloop_proto;

// A filter changes the bytes between the socket and the protocol: TLS, compression, a test double.
// It never sees the socket. Consume from the front with memmove and a smaller len; append behind
// len, at most up to cap, which is NKLOOP_WIRE_BYTES for every buffer. A full output buffer means:
// return, the loop carries it away and calls again.
enum { NKLOOP_WIRE_BYTES = 20 * 1024 - 64 };                   // one TLS record of 16 KiB and its overhead fit
typedef struct nkloop_buf  { uint8_t* data; size_t len, cap; } nkloop_buf;
typedef struct nkloop_wire { nkloop_buf wire_rx, plain_rx, plain_tx, wire_tx; } nkloop_wire;
// What start, in and out return; or anything < 0: the stream is closed after wire_tx is out.
enum { NKLOOP_FILTER_OK = 0, NKLOOP_FILTER_HANDSHAKING = 1, NKLOOP_FILTER_EOF = 2 };
typedef struct nkloop_filter {
    const char* name;
    int  (*start)(void* self, nkloop_wire* w);                 // once; a client may fill wire_tx
    // wire_rx -> plain_rx, may fill wire_tx; EOF: the peer ended its side cleanly
    int  (*in)   (void* self, nkloop_wire* w);
    int  (*out)  (void* self, nkloop_wire* w);                 // plain_tx -> wire_tx
    // last words into wire_tx (close_notify); releases self; w is NULL if the stream is already gone
    void (*stop) (void* self, nkloop_wire* w);
} nkloop_filter;

// ---- life and time ----------------------------------------------------------------------------
NETKIT_LOOP_API int      nkloop_create(nkloop** out, const nkloop_desc* desc);   // NULL desc: all defaults
// on_close(NKLOOP_ERR_SHUTDOWN) for everything open; runs what was posted; never inside a callback;
// NULL is harmless
NETKIT_LOOP_API void     nkloop_destroy(nkloop* L);
NETKIT_LOOP_API uint64_t nkloop_now_ns(const nkloop* L);             // monotonic, sampled at least once per turn
// errno or WSA code of the last system call that failed on the loop's thread
NETKIT_LOOP_API int      nkloop_os_error(const nkloop* L);
NETKIT_LOOP_API int      nkloop_backend(const nkloop* L);            // NKLOOP_BACKEND_... in use
// the loop's allocator, for protocols on it; any thread; arguments as nkloop_alloc_fn
NETKIT_LOOP_API void*    nkloop_alloc(nkloop* L, void* ptr, size_t old_size, size_t new_size);
NETKIT_LOOP_API void     nkloop_log(nkloop* L, int level, const char* where, const char* text); // the loop's log hook
// a ready-made log_fn
NETKIT_LOOP_API void     nkloop_log_stderr(void* user, int level, const char* where, const char* text);

// ---- three ways to drive it -------------------------------------------------------------------
typedef struct nkloop_turn {
    uint32_t events;            // how many were served
    uint32_t pending;           // how many are known but were left for the next call (budget spent)
    int      timeout_ms;        // until the next timer; -1 none; 0 if something is pending
} nkloop_turn;
// never sleeps; starts no new work once the budget is spent, but serves at least one event
NETKIT_LOOP_API nkloop_turn nkloop_pump(nkloop* L, uint32_t budget_us);
// sleeps until there is work, at most timeout_ms (-1: for ever)
NETKIT_LOOP_API nkloop_turn nkloop_wait(nkloop* L, int timeout_ms);
// nkloop_wait until nkloop_stop, which may have come before: NKLOOP_OK, or an error of the backend
NETKIT_LOOP_API int      nkloop_run(nkloop* L);
NETKIT_LOOP_API void     nkloop_stop(nkloop* L);                     // any thread, any signal handler
// sends what was written this turn now instead of at its end
NETKIT_LOOP_API void     nkloop_flush(nkloop* L);
// any thread: 1 if the caller is the thread that drives the loop
NETKIT_LOOP_API int      nkloop_on_thread(const nkloop* L);
// readable when there is work: nest it in a foreign loop; NKLOOP_NO_FD with poll
NETKIT_LOOP_API nkloop_fd nkloop_poll_fd(const nkloop* L);
NETKIT_LOOP_API int      nkloop_timeout_ms(const nkloop* L);         // how long a foreign loop may sleep; -1 for ever

// ---- other threads ----------------------------------------------------------------------------
// A job belongs to the caller until done() is called on the loop's thread, also when the loop is destroyed first.
typedef struct nkloop_job {
    void (*run) (void* user);   // on a worker of the pool; not used by nkloop_post_job
    void (*done)(void* user);   // on the loop's thread; may free the job
    void* user;
    struct nkloop_job* next;    // private
} nkloop_job;
// any thread: fn runs on the loop's thread, in order of posting; NOMEM is the one failure
NETKIT_LOOP_API int      nkloop_post(nkloop* L, void (*fn)(void* user), void* user);
// the same without allocation: job->done(job->user); cannot fail
NETKIT_LOOP_API void     nkloop_post_job(nkloop* L, nkloop_job* job);
typedef struct nkloop_pool nkloop_pool;
// loop's thread; 1 to 1024 threads
NETKIT_LOOP_API int      nkloop_pool_create(nkloop_pool** out, nkloop* L, uint32_t threads);
// any thread; job->run on a worker, then job->done on the loop
NETKIT_LOOP_API void     nkloop_pool_submit(nkloop_pool* pool, nkloop_job* job);
// loop's thread, before nkloop_destroy: queued jobs are run, then done() of each
NETKIT_LOOP_API void     nkloop_pool_destroy(nkloop_pool* pool);

// ---- streams ----------------------------------------------------------------------------------
// Addresses: "127.0.0.1:80", "[::1]:80", ":80" and "*:80" (any address, listen only),
// "localhost:80", "unix:/path", "unix:@abstract" (Linux); names only in dial.
typedef struct nkloop_dial_desc {
    const char* address;        // copied
    int      timeout_ms;        // for names, connecting and all addresses tried together; default 10000, -1 none
    int      disable_nodelay;   // 1: leave Nagle's algorithm on
    const nkloop_proto* proto;  // kept; on_open or on_close is called later, never inside nkloop_dial
    void*    self;              // handed to proto
    const nkloop_filter* filter;// started as soon as the connection is there; default none
    void*    filter_self;       // given to us: filter->stop is called in any case, unless nkloop_dial itself fails
} nkloop_dial_desc;
typedef struct nkloop_listen_desc {
    const char* address;        // copied; port 0: any, ask nkloop_listener_address
    uint32_t backlog;           // default 4096
    int      reuse_port;        // 1: several loops may listen on the same port, the kernel spreads connections
    int      disable_nodelay;   // 1: leave Nagle's algorithm on for accepted streams
    int      ipv6_only;         // 1: a listener on [::] does not take IPv4
    // 1: fd is a listening socket opened by someone else (socket activation); given to us on success
    int      adopt_fd;
    nkloop_fd fd;               // ignored unless adopt_fd
    uint32_t unix_mode;         // permission bits of a Unix socket's file, e.g. 0600; default as umask says
    // call nkloop_set_proto here, or the stream is closed
    void   (*on_accept)(void* user, nkloop* L, nkloop_stream s);
    void*    user;
} nkloop_listen_desc;
// Out parameters may be NULL. An error means that nothing was opened and no callback will come.
NETKIT_LOOP_API int      nkloop_dial  (nkloop* L, const nkloop_dial_desc* desc, nkloop_stream* out);
// accepts from the next turn on; ask nkloop_listener_address for the port
NETKIT_LOOP_API int      nkloop_listen(nkloop* L, const nkloop_listen_desc* desc, nkloop_listener* out);
// a connected socket; given to us, unless it fails
NETKIT_LOOP_API int      nkloop_adopt (nkloop* L, nkloop_fd fd, const nkloop_proto* proto,
                                       void* self, nkloop_stream* out);
NETKIT_LOOP_API void     nkloop_listener_close(nkloop* L, nkloop_listener l);   // harmless when stale
// 1: connections wait in the backlog; 0: go on
NETKIT_LOOP_API int      nkloop_listener_pause(nkloop* L, nkloop_listener l, int paused);
// "127.0.0.1:8080", terminated (128 bytes are enough); its length, or an error: INVAL if it does not fit
NETKIT_LOOP_API int      nkloop_listener_address(nkloop* L, nkloop_listener l, char* out, size_t cap);
// copied, all or nothing: FULL if more than tx_bytes would wait, INVAL if n alone is more than that
NETKIT_LOOP_API int      nkloop_write (nkloop* L, nkloop_stream s, const void* bytes, size_t n);
// Not copied: kept until release_fn(release_user) is called, exactly once, later. On error it is
// not called. Accepted while fewer than tx_bytes wait.
NETKIT_LOOP_API int      nkloop_write_ref(nkloop* L, nkloop_stream s, const void* bytes, size_t n,
                                          void (*release_fn)(void* user), void* release_user);
// n bytes of an open regular file (POSIX descriptor, Windows HANDLE) from offset, by sendfile where
// there is one. The file stays yours and open until release_fn; in all else as nkloop_write_ref.
NETKIT_LOOP_API int      nkloop_write_file(nkloop* L, nkloop_stream s, nkloop_fd file,
                                  uint64_t offset, uint64_t n, void (*release_fn)(void* user), void* release_user);
enum { NKLOOP_RESERVE_MAX = 3072 };                                  // bytes
// room for n bytes in the queue itself (n <= NKLOOP_RESERVE_MAX), until the next call on s
NETKIT_LOOP_API int      nkloop_reserve(nkloop* L, nkloop_stream s, size_t n, uint8_t** out);
// makes the first `used` of them written
NETKIT_LOOP_API int      nkloop_commit (nkloop* L, nkloop_stream s, size_t used);
// close when all is sent: half-close, discard what the peer still sends for linger_ms, close
NETKIT_LOOP_API int      nkloop_finish(nkloop* L, nkloop_stream s);
// close now; on_close follows before the turn ends; harmless when stale
NETKIT_LOOP_API void     nkloop_close (nkloop* L, nkloop_stream s);
// 1: no reading, no on_data, TCP pushes back; 0: go on
NETKIT_LOOP_API int      nkloop_pause (nkloop* L, nkloop_stream s, int paused);
// hand over, unread bytes included; the old one hears nothing more
NETKIT_LOOP_API int      nkloop_set_proto(nkloop* L, nkloop_stream s, const nkloop_proto* proto, void* self);
// self is given to us on success (filter->stop releases it); unread bytes go through it; what was
// written before does not: FULL while some of that is unsent
NETKIT_LOOP_API int      nkloop_set_filter(nkloop* L, nkloop_stream s, const nkloop_filter* filter, void* self);
// self if that filter is set, else NULL
NETKIT_LOOP_API void*    nkloop_filter_self(nkloop* L, nkloop_stream s, const nkloop_filter* filter);
// close with TIMEOUT after idle_ms without a byte in or out; 0 off; at most 24 days
NETKIT_LOOP_API int      nkloop_set_timeout(nkloop* L, nkloop_stream s, uint32_t idle_ms);
// on_alarm once, after_ms from now; replaces the last; 0 off; at most 24 days
NETKIT_LOOP_API int      nkloop_set_alarm(nkloop* L, nkloop_stream s, uint32_t after_ms);
NETKIT_LOOP_API size_t   nkloop_unsent(nkloop* L, nkloop_stream s);  // bytes written and not yet taken by the kernel
NETKIT_LOOP_API int      nkloop_alive(nkloop* L, nkloop_stream s);   // 1 unless stale or closing
// "127.0.0.1:1234", "[::1]:80", "unix:"; as nkloop_listener_address
NETKIT_LOOP_API int      nkloop_peer_address (nkloop* L, nkloop_stream s, char* out, size_t cap);
// the same for our end
NETKIT_LOOP_API int      nkloop_local_address(nkloop* L, nkloop_stream s, char* out, size_t cap);
// for socket options and credentials; stays ours
NETKIT_LOOP_API nkloop_fd nkloop_stream_fd(nkloop* L, nkloop_stream s);

// ---- timers and watches -----------------------------------------------------------------------
// Milliseconds, at most 24 days. every_ms 0: once. A timer may stop itself or others in fn; late
// ticks are not made up for. out may be NULL.
NETKIT_LOOP_API int      nkloop_timer_start(nkloop* L, uint32_t after_ms, uint32_t every_ms,
                                            void (*fn)(void* user), void* user, nkloop_timer* out);
NETKIT_LOOP_API void     nkloop_timer_stop (nkloop* L, nkloop_timer t); // harmless when stale
enum { NKLOOP_READ = 1, NKLOOP_WRITE = 2, NKLOOP_HANGUP = 4 };       // HANGUP is reported, never asked for
// fd stays yours; level-triggered; events: NKLOOP_READ, NKLOOP_WRITE or both; out may be NULL
NETKIT_LOOP_API int      nkloop_watch_open (nkloop* L, nkloop_fd fd, int events,
                                            void (*fn)(void* user, int events), void* user, nkloop_watch* out);
// events 0: nothing for now
NETKIT_LOOP_API int      nkloop_watch_change(nkloop* L, nkloop_watch w, int events);
NETKIT_LOOP_API void     nkloop_watch_close(nkloop* L, nkloop_watch w); // before you close fd; harmless when stale

// ---- counters ---------------------------------------------------------------------------------
typedef struct nkloop_stats {
    uint64_t turns, events, accepted, dialled, closed;
    uint64_t bytes_in, bytes_out, recv_calls, send_calls;
    uint64_t budget_hits;       // pumps that left work for the next
    uint64_t accept_pauses;     // listeners paused because no file or slot was left
    uint32_t streams;           // open now, listeners and watches not counted
    uint32_t timers;
} nkloop_stats;
NETKIT_LOOP_API void     nkloop_get_stats(const nkloop* L, nkloop_stats* out); // since nkloop_create
NETKIT_LOOP_API uint32_t nkloop_rx_bytes(const nkloop* L);           // the desc's: a protocol must not want more

#ifdef __cplusplus
} // extern "C"
#endif
#endif // NETKIT_LOOP_INCLUDED

#ifdef NETKIT_LOOP_IMPLEMENTATION
#ifndef NETKIT_LOOP_IMPLEMENTED // a live macro and a second include are normal life
#define NETKIT_LOOP_IMPLEMENTED 1
/*  ROOMS   @config @types @os @atomic @arena @slots @wheel @chunks @epoll @kqueue @poll @address
            @interest @closing @sending @filter @reading @listen @dial @stream @watch @post @pool @resolve @turn @life
    PLEASE KEEP THE STRUCTURE INTACT: new code goes into the right room or founds one.
    Each room uses only rooms above it. */

// ---- @config ---------------------------------------------------------------------------------
// What this platform offers, which parts are compiled, and the system calls, each behind a macro
// that a test may replace.
#ifdef _WIN32
    #if defined(_WINSOCKAPI_) && !defined(_WINSOCK2API_)
        #error "netkit_loop.h: winsock.h came before winsock2.h: define WIN32_LEAN_AND_MEAN or include this first"
    #endif
    #ifndef WIN32_LEAN_AND_MEAN
        #define WIN32_LEAN_AND_MEAN
    #endif
    #ifndef NOMINMAX
        #define NOMINMAX
    #endif
    #include <winsock2.h>
    #include <ws2tcpip.h>
    #include <windows.h>
    #if defined(_MSC_VER) && !defined(NETKIT_LOOP_NO_PRAGMA_LIB)
        #pragma comment(lib, "ws2_32")
    #endif
#else
    #include <sys/types.h>
    #if defined(__GLIBC__) && !defined(__USE_XOPEN2K)
        #error "netkit_loop.h: included too late: make this #include the first line of its file"
    #endif
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <sys/un.h>
    #include <sys/stat.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <arpa/inet.h>
    #include <poll.h>
    #include <fcntl.h>
    #include <unistd.h>
    #include <errno.h>
    #include <signal.h>
    #include <time.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#if defined(__linux__) && !defined(NETKIT_LOOP_NO_EPOLL)
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #define NKLOOP_P_EPOLL 1
#endif
#if defined(__linux__)
    #include <sys/sendfile.h>
    #define NKLOOP_P_ABSTRACT 1 // Unix sockets without a file
#endif
#ifndef _WIN32
    #define NKLOOP_P_POSIX 1
#endif
#if (defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) \
     || defined(__DragonFly__) || defined(NETKIT_LOOP_KQUEUE)) && !defined(NETKIT_LOOP_NO_KQUEUE)
    #ifndef EVFILT_READ // a test brings its own
        #include <sys/event.h>
    #endif
    #define NKLOOP_P_KQUEUE 1
#endif
#ifndef NETKIT_LOOP_NO_THREADS
    #ifndef _WIN32
        #include <pthread.h>
    #endif
    #ifndef NETKIT_LOOP_NO_RESOLVE
        #ifndef _WIN32
            #include <netdb.h>
        #endif
        #define NKLOOP_P_RESOLVE 1
    #endif
#endif
#ifndef NETKIT_LOOP_ASSERT
    #ifdef NETKIT_ASSERT
        #define NETKIT_LOOP_ASSERT(c) NETKIT_ASSERT(c)
    #else
        #include <assert.h>
        #define NETKIT_LOOP_ASSERT(c) assert(c)
    #endif
#endif
// Names in parentheses: a function-like macro of the same name in the including program does not reach them.
#ifndef NETKIT_LOOP_SYS_RECV
    #define NETKIT_LOOP_SYS_RECV(fd, p, n, flags) (recv)((fd), (p), (n), (flags))
#endif
#ifndef NETKIT_LOOP_SYS_SEND
    #define NETKIT_LOOP_SYS_SEND(fd, p, n, flags) (send)((fd), (p), (n), (flags))
#endif
#ifndef NETKIT_LOOP_SYS_SOCKET
    #define NETKIT_LOOP_SYS_SOCKET(family, type, protocol) (socket)((family), (type), (protocol))
#endif
#ifndef NETKIT_LOOP_SYS_CONNECT
    #define NETKIT_LOOP_SYS_CONNECT(fd, address, len) (connect)((fd), (address), (len))
#endif
#ifndef NETKIT_LOOP_SYS_BIND
    #define NETKIT_LOOP_SYS_BIND(fd, address, len) (bind)((fd), (address), (len))
#endif
#ifndef NETKIT_LOOP_SYS_LISTEN
    #define NETKIT_LOOP_SYS_LISTEN(fd, backlog) (listen)((fd), (backlog))
#endif
#ifndef NETKIT_LOOP_SYS_SHUTDOWN
    #define NETKIT_LOOP_SYS_SHUTDOWN(fd, how) (shutdown)((fd), (how))
#endif
#ifdef _WIN32
    #ifndef NETKIT_LOOP_SYS_ACCEPT
        #define NETKIT_LOOP_SYS_ACCEPT(fd) (accept)((fd), NULL, NULL)
    #endif
    #ifndef NETKIT_LOOP_SYS_CLOSE
        #define NETKIT_LOOP_SYS_CLOSE(fd) (closesocket)(fd)
    #endif
    #ifndef NETKIT_LOOP_SYS_POLL
        #define NETKIT_LOOP_SYS_POLL(fds, n, timeout_ms) WSAPoll((fds), (ULONG)(n), (timeout_ms))
    #endif
#else
    #ifndef NETKIT_LOOP_SYS_ACCEPT
        // not declared if _GNU_SOURCE came too late
        #if defined(__linux__) && (!defined(__GLIBC__) || defined(__USE_GNU))
            #define NKLOOP_P_ACCEPT4 1
            #define NETKIT_LOOP_SYS_ACCEPT(fd) (accept4)((fd), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        #else
            #define NETKIT_LOOP_SYS_ACCEPT(fd) (accept)((fd), NULL, NULL)
        #endif
    #endif
    #ifndef NETKIT_LOOP_SYS_SENDMSG
        #define NETKIT_LOOP_SYS_SENDMSG(fd, msg, flags) (sendmsg)((fd), (msg), (flags))
    #endif
    #ifndef NETKIT_LOOP_SYS_CLOSE
        #define NETKIT_LOOP_SYS_CLOSE(fd) (close)(fd)
    #endif
    #ifndef NETKIT_LOOP_SYS_POLL
        #define NETKIT_LOOP_SYS_POLL(fds, n, timeout_ms) (poll)((fds), (n), (timeout_ms))
    #endif
    #ifndef NETKIT_LOOP_SYS_PREAD
        #define NETKIT_LOOP_SYS_PREAD(fd, p, n, offset) (pread)((fd), (p), (n), (offset))
    #endif
    #ifndef NETKIT_LOOP_SYS_SENDFILE // Linux's signature
        #define NETKIT_LOOP_SYS_SENDFILE(out, in, offset, n) (sendfile)((out), (in), (offset), (n))
    #endif
    #ifndef NETKIT_LOOP_SYS_EPOLL_WAIT
        #define NETKIT_LOOP_SYS_EPOLL_WAIT(ep, events, most, timeout_ms) \
            (epoll_wait)((ep), (events), (most), (timeout_ms))
    #endif
    #ifndef NETKIT_LOOP_SYS_EPOLL_CTL
        #define NETKIT_LOOP_SYS_EPOLL_CTL(ep, op, fd, ev) (epoll_ctl)((ep), (op), (fd), (ev))
    #endif
    #ifndef NETKIT_LOOP_SYS_KEVENT
        #define NETKIT_LOOP_SYS_KEVENT(kq, ch, nch, ev, nev, ts) (kevent)((kq), (ch), (nch), (ev), (nev), (ts))
    #endif
#endif

// ---- @types ----------------------------------------------------------------------------------
// Every structure of the implementation, smallest first. The loop's own memory is this and nothing else.
enum { NKLOOP_P_FREE = 0, NKLOOP_P_STREAM = 1, NKLOOP_P_LISTENER = 2, NKLOOP_P_WATCH = 3 };
enum { // slot.flags
    NKLOOP_P_LISTED     = 0x0001, // in the attention list
    NKLOOP_P_DIRTY      = 0x0002, // written to since the last flush
    NKLOOP_P_DELIVER    = 0x0004, // unread bytes are to be offered again
    NKLOOP_P_CLOSING    = 0x0008, // stale for users; retired when no callback is on the stack
    NKLOOP_P_IN_CALL    = 0x0010, // a callback of this stream is on the stack
    NKLOOP_P_PAUSED     = 0x0020, // by the user
    NKLOOP_P_EOF_SEEN   = 0x0040, // the peer will send no more
    NKLOOP_P_EOF_TOLD   = 0x0080, // and the protocol knows
    NKLOOP_P_FINISH     = 0x0100, // close when the queue is empty
    NKLOOP_P_LINGER     = 0x0200, // our side is shut: discarding until the peer closes
    NKLOOP_P_CONNECTING = 0x0400, // dialled, not there yet; slot.in.dial is valid
    NKLOOP_P_DRAIN      = 0x0800, // on_drain is owed when the queue gets short
    NKLOOP_P_BLOCKED    = 0x1000, // the kernel took less than we had: wait for writability
    NKLOOP_P_UNWATCHED  = 0x2000, // not registered with the backend
    NKLOOP_P_STARVED    = 0x4000, // listener that waits for a free file or slot
    NKLOOP_P_OWNS_PATH  = 0x8000  // listener that made a Unix socket file
};
enum {
    NKLOOP_P_SLAB = 256, NKLOOP_P_SLAB_SHIFT = 8,      // slots of one slab
    NKLOOP_P_EVENTS = 256,                             // most events of one turn
    NKLOOP_P_ACCEPTS = 64,                             // most accepts of one event: other streams wait meanwhile
    NKLOOP_P_IOV = 16,                                 // most pieces of one sendmsg
    NKLOOP_P_FLUSH_BYTES = 1 << 20,                    // most bytes sent for one stream per turn
    NKLOOP_P_ACCEPT_PAUSE_MS = 100,                    // how long a listener rests when no file is left
    NKLOOP_P_LEVELS = 7, NKLOOP_P_BUCKETS = NKLOOP_P_LEVELS * 64,
    NKLOOP_P_AGAIN = -1000                             // internal result: try later
};
#define NKLOOP_P_NIL      0xffffffffu // ends a list of indices
#define NKLOOP_P_UNLINKED 0xfffffffeu // tnode.next of a timer that is not armed
#define NKLOOP_P_IS_TIMER 0x40000000u // index of a user timer, not of a slot
#define NKLOOP_P_MAX_MS   0x7fffffffu // 24 days: differences of 32-bit milliseconds keep their sign

// due: low 32 bits of the loop's milliseconds
typedef struct nkloop_p_tnode { uint32_t next, prev, due; } nkloop_p_tnode;

// A piece of a queue. DATA holds bytes behind itself, [at, end) of cap; REF and FILE point elsewhere (nkloop_p_ref).
typedef struct nkloop_p_chunk {
    struct nkloop_p_chunk* next;
    struct nkloop_p_chunk* last;   // valid in the first of a queue: the last
    uint64_t queued;               // valid in the first of a queue: unsent bytes of all
    uint32_t at, end, cap;
    uint8_t  kind, size_class;
} nkloop_p_chunk;
enum { NKLOOP_P_DATA = 0, NKLOOP_P_REF = 1, NKLOOP_P_FILE = 2 };

typedef struct nkloop_p_ref {
    nkloop_p_chunk c;
    const uint8_t* bytes;          // REF: what is left
    uint64_t       left, offset;   // offset: FILE
    nkloop_fd      file;
    void         (*release_fn)(void* user);
    void*          release_user;
} nkloop_p_ref;

typedef struct nkloop_p_filtered {
    const nkloop_filter* filter;
    void*           self;
    nkloop_wire     w;
    nkloop_p_chunk* lent[4];       // behind wire_rx, plain_rx, plain_tx, wire_tx; NULL while empty
    nkloop_p_chunk* raw;           // bytes read before the filter was set, still to go through it
    int             state;         // last result of the filter: handshaking or not
    int             got_eof;       // the peer ended its side cleanly
    int             stopped;       // stop() was called: self is gone
    int             raw_due;       // what the protocol leaves unread is raw
    int             held;          // on_data is looking into plain_rx
    int             was_full;      // wire_tx was: the filter may have more inside
} nkloop_p_filtered;

typedef struct nkloop_p_sockaddr { // memory for any address, aligned
    union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; struct sockaddr_storage room; } u;
    uint32_t len;
} nkloop_p_sockaddr;

typedef struct nkloop_p_listener {
    void (*on_accept)(void* user, nkloop* L, nkloop_stream s);
    void*        user;
    int          disable_nodelay, is_unix;
    char         path[112];        // of a Unix socket, to remove it at the end
} nkloop_p_listener;

typedef struct nkloop_p_dial {     // only while connecting
    nkloop_p_sockaddr* addresses;  // count of them, this block's tail or a block of its own
    uint32_t count, at;
    uint32_t deadline_ms;          // 0 none
    int      disable_nodelay;
    const nkloop_filter* filter;
    void*    filter_self;
    nkloop_p_sockaddr one;
} nkloop_p_dial;

typedef struct nkloop_p_slot {     // 96 bytes where pointers have 64 bits
    nkloop_fd fd;
    uint32_t  gen;                 // odd: alive
    uint16_t  flags;
    uint8_t   kind, interest;      // interest: what the backend was told
    union { const nkloop_proto* proto; nkloop_p_listener* listener; void (*watch_fn)(void* user, int events); } u;
    void*     self;
    union { nkloop_p_chunk* rx; nkloop_p_dial* dial; } in; // unread bytes, or how dialling goes on
    nkloop_p_chunk*    tx;         // queue of unsent bytes
    nkloop_p_filtered* filtered;
    nkloop_p_tnode     timer;      // one for idle time, alarm, dial and linger; re-armed lazily when it fires
    uint32_t  idle_ms, seen_ms;    // seen_ms: when bytes last moved
    uint32_t  alarm_ms;            // absolute; 0 none
    uint32_t  next;                // free list, or attention list
    uint32_t  at;                  // the poll backend's index
    int32_t   why;                 // for on_close
} nkloop_p_slot;

typedef struct nkloop_p_timer {
    nkloop_p_tnode node;
    uint32_t gen, every_ms, next;
    void   (*fn)(void* user);
    void*    user;
} nkloop_p_timer;

typedef struct nkloop_p_event { uint64_t id; int mask; } nkloop_p_event;

typedef struct nkloop_p_backend {  // the six functions
    int  id;
    int  (*open) (nkloop* L);
    void (*shut) (nkloop* L);
    int  (*add)  (nkloop* L, uint32_t index, nkloop_p_slot* slot, int want);
    int  (*mod)  (nkloop* L, uint32_t index, nkloop_p_slot* slot, int want);
    void (*del)  (nkloop* L, uint32_t index, nkloop_p_slot* slot);
    int  (*wait) (nkloop* L, int timeout_ms); // fills L->events; count or error
} nkloop_p_backend;

typedef struct nkloop_p_arena nkloop_p_arena;
typedef struct { volatile uint32_t v; } nkloop_p_a32;
typedef struct { void* volatile p; } nkloop_p_aptr;
typedef struct nkloop_p_posted { nkloop_job job; nkloop* L; void (*fn)(void* user); void* user; } nkloop_p_posted;

struct nkloop {
    nkloop_desc desc;
    const nkloop_p_backend* backend;
    nkloop_p_arena* arena;
    uint64_t start_ns, now_ns, now_ms;
    int      wait_error, os_error, in_turn, in_flush;
    nkloop_fd backend_fd;
    // slots
    nkloop_p_slot** slabs;
    uint32_t num_slabs, cap_slabs, free_slot, open_slots;
    uint32_t attention_first, attention_last;
    uint32_t starved;              // listeners that wait for a slot or a file
    // timers
    nkloop_p_timer** timer_slabs;
    uint32_t num_timer_slabs, cap_timer_slabs, free_timer;
    uint64_t elapsed_ms;           // the wheel's time: everything due until then has left it
    uint64_t wheel_bits[NKLOOP_P_LEVELS];
    // first and last of each list; the extra one: due now
    uint32_t wheel[NKLOOP_P_BUCKETS + 1], wheel_last[NKLOOP_P_BUCKETS + 1];
    // buffers
    uint8_t*        rx_buf;        // read_quantum bytes, used by one read at a time
    nkloop_p_chunk* cached[4];
    uint32_t        num_cached[4];
    // events of this turn that are still to be served
    nkloop_p_event  events[NKLOOP_P_EVENTS];
    uint32_t        event_at, num_events;
    // backend state
    struct pollfd*  poll_fds;
    uint32_t*       poll_index;
    uint32_t        num_poll, cap_poll, poll_from;
    // other threads
    nkloop_p_a32    wake_flag, stop_flag;
    nkloop_p_aptr   posted, owner;  // posted: a stack, newest first
    nkloop_job      *ready_first, *ready_last; // taken from it, oldest first
    int             dying;
    nkloop_fd       wake_read, wake_write;
    nkloop_pool*    resolver;
    nkloop_stats    stats;
};

#ifdef __cplusplus
extern "C" {
#endif
// ---- @os -------------------------------------------------------------------------------------
// Everything that differs between Windows and POSIX and is not a backend, each function written
// whole once per platform.
// Results: >= 0, NKLOOP_P_AGAIN, or an NKLOOP_ERR; the raw error number is kept for nkloop_os_error.
#ifdef _WIN32
typedef WSABUF nkloop_p_iov;
#define NKLOOP_P_SOCK(fd) ((SOCKET)(fd))

static void nkloop_p_iov_set(nkloop_p_iov* v, const void* p, size_t n) {
    v->buf = (CHAR*)(void*)(uintptr_t)p; v->len = (ULONG)n;
}

static int nkloop_p_os_code(int e) {
    switch (e) {
        case 0: return NKLOOP_OK;
        case WSAEWOULDBLOCK: case WSAEINPROGRESS: return NKLOOP_P_AGAIN;
        case WSAECONNRESET: case WSAECONNABORTED: case WSAESHUTDOWN: case WSAENETRESET: return NKLOOP_ERR_RESET;
        case WSAECONNREFUSED: return NKLOOP_ERR_REFUSED;
        case WSAETIMEDOUT: return NKLOOP_ERR_TIMEOUT;
        case WSAEADDRINUSE: return NKLOOP_ERR_IN_USE;
        case WSAEACCES: return NKLOOP_ERR_ACCESS;
        case WSAEADDRNOTAVAIL: return NKLOOP_ERR_ADDRESS;
        case WSAEMFILE: case WSAENOBUFS: return NKLOOP_ERR_LIMIT;
        case WSAENETUNREACH: case WSAEHOSTUNREACH: return NKLOOP_ERR_UNREACHABLE;
        default: return NKLOOP_ERR_SYSTEM;
    }
}

static int nkloop_p_os_fail(nkloop* L) {
    int e = WSAGetLastError();
    int code = nkloop_p_os_code(e);
    if (code != NKLOOP_P_AGAIN) L->os_error = e;
    return code;
}

static uint64_t nkloop_p_os_now_ns(void) {
    LARGE_INTEGER now, rate;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&rate);
    return (uint64_t)(now.QuadPart / rate.QuadPart) * 1000000000u
         + (uint64_t)(now.QuadPart % rate.QuadPart) * 1000000000u / (uint64_t)rate.QuadPart;
}

static int nkloop_p_os_start(void) {
    WSADATA data; return WSAStartup(MAKEWORD(2, 2), &data) == 0 ? NKLOOP_OK : NKLOOP_ERR_SYSTEM;
}
static void nkloop_p_os_stop(void) { WSACleanup(); }

static int nkloop_p_os_nonblocking(nkloop_fd fd) {
    u_long on = 1;
    SetHandleInformation((HANDLE)fd, HANDLE_FLAG_INHERIT, 0);
    return ioctlsocket(NKLOOP_P_SOCK(fd), (long)FIONBIO, &on);
}

static int nkloop_p_os_socket(nkloop* L, int family, nkloop_fd* out) {
    SOCKET s = NETKIT_LOOP_SYS_SOCKET(family, SOCK_STREAM, 0);
    if (s == INVALID_SOCKET) return nkloop_p_os_fail(L);
    *out = (nkloop_fd)s;
    nkloop_p_os_nonblocking(*out);
    return NKLOOP_OK;
}

static void nkloop_p_os_close(nkloop_fd fd) { NETKIT_LOOP_SYS_CLOSE(NKLOOP_P_SOCK(fd)); }

static int nkloop_p_os_accept(nkloop* L, nkloop_fd fd, nkloop_fd* out) {
    SOCKET s = NETKIT_LOOP_SYS_ACCEPT(NKLOOP_P_SOCK(fd));
    if (s == INVALID_SOCKET) return nkloop_p_os_fail(L);
    *out = (nkloop_fd)s;
    nkloop_p_os_nonblocking(*out);
    return NKLOOP_OK;
}

static int64_t nkloop_p_os_recv(nkloop* L, nkloop_fd fd, uint8_t* p, size_t n) {
    int r = NETKIT_LOOP_SYS_RECV(NKLOOP_P_SOCK(fd), (char*)p, (int)(n < 0x40000000 ? n : 0x40000000), 0);
    L->stats.recv_calls++;
    return r >= 0 ? r : nkloop_p_os_fail(L);
}

static int64_t nkloop_p_os_send(nkloop* L, nkloop_fd fd, nkloop_p_iov* iov, int count, int more) {
    DWORD sent = 0;
    (void)more;
    L->stats.send_calls++;
    if (WSASend(NKLOOP_P_SOCK(fd), iov, (DWORD)count, &sent, 0, NULL, NULL) != 0) return nkloop_p_os_fail(L);
    return (int64_t)sent;
}

static int64_t nkloop_p_os_pread(nkloop* L, nkloop_fd file, uint8_t* p, size_t n, uint64_t offset) {
    OVERLAPPED where;
    DWORD got = 0;
    memset(&where, 0, sizeof where);
    where.Offset = (DWORD)offset;
    where.OffsetHigh = (DWORD)(offset >> 32);
    if (!ReadFile((HANDLE)file, p, (DWORD)n, &got,
                  &where)) { L->os_error = (int)GetLastError(); return NKLOOP_ERR_FILE; }
    return got > 0 ? (int64_t)got : (int64_t)NKLOOP_ERR_FILE;
}

static int64_t nkloop_p_os_sendfile(nkloop* L, nkloop_fd fd, nkloop_fd file, uint64_t offset, uint64_t n) {
    (void)L; (void)fd; (void)file; (void)offset; (void)n;
    return NKLOOP_ERR_UNSUPPORTED; // the caller reads and sends instead
}

// A connected pair over loopback: Windows has no pipe that WSAPoll can watch.
static int nkloop_p_os_wake_open(nkloop* L) {
    struct sockaddr_in a;
    int len = (int)sizeof a, code = NKLOOP_OK;
    SOCKET listener = (socket)(AF_INET, SOCK_STREAM, 0), w = INVALID_SOCKET, r = INVALID_SOCKET;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener == INVALID_SOCKET || (bind)(listener, (struct sockaddr*)&a, len) != 0 || (listen)(listener, 1) != 0
        || getsockname(listener, (struct sockaddr*)&a, &len) != 0) code = nkloop_p_os_fail(L);
    if (code == NKLOOP_OK) {
        w = (socket)(AF_INET, SOCK_STREAM, 0);
        if (w == INVALID_SOCKET || (connect)(w, (struct sockaddr*)&a, len) != 0) code = nkloop_p_os_fail(L);
    }
    if (code == NKLOOP_OK && (r = (accept)(listener, NULL, NULL)) == INVALID_SOCKET) code = nkloop_p_os_fail(L);
    if (listener != INVALID_SOCKET) (closesocket)(listener);
    if (code != NKLOOP_OK) {
        if (w != INVALID_SOCKET) (closesocket)(w);
        return code == NKLOOP_P_AGAIN ? NKLOOP_ERR_SYSTEM : code;
    }
    L->wake_read = (nkloop_fd)r;
    L->wake_write = (nkloop_fd)w;
    nkloop_p_os_nonblocking(L->wake_read);
    nkloop_p_os_nonblocking(L->wake_write);
    return NKLOOP_OK;
}
static void nkloop_p_os_wake(nkloop* L) { (send)(NKLOOP_P_SOCK(L->wake_write), "w", 1, 0); }
static void nkloop_p_os_wake_drain(nkloop* L) {
    char sink[64];
    while ((recv)(NKLOOP_P_SOCK(L->wake_read), sink, (int)sizeof sink, 0) > 0) {}
}

static int nkloop_p_os_is_file(nkloop_fd file) { return GetFileType((HANDLE)file) == FILE_TYPE_DISK; }

#else // POSIX
typedef struct iovec nkloop_p_iov;
#define NKLOOP_P_SOCK(fd) ((int)(fd))
#ifdef MSG_NOSIGNAL
    #define NKLOOP_P_NOSIGNAL MSG_NOSIGNAL
#else
    #define NKLOOP_P_NOSIGNAL 0 // SO_NOSIGPIPE does it there
#endif

static void nkloop_p_iov_set(nkloop_p_iov* v, const void* p, size_t n) {
    v->iov_base = (void*)(uintptr_t)p; v->iov_len = n;
}

static int nkloop_p_os_code(int e) {
    switch (e) {
        case 0: return NKLOOP_OK;
        case EAGAIN: case EINPROGRESS: case EALREADY: return NKLOOP_P_AGAIN;
        #if EAGAIN != EWOULDBLOCK
        case EWOULDBLOCK: return NKLOOP_P_AGAIN;
        #endif
        case ECONNRESET: case EPIPE: case ECONNABORTED: case ENOTCONN: return NKLOOP_ERR_RESET;
        case ECONNREFUSED: case ENOENT: return NKLOOP_ERR_REFUSED; // ENOENT: the path of a Unix socket
        case ETIMEDOUT: return NKLOOP_ERR_TIMEOUT;
        case EADDRINUSE: return NKLOOP_ERR_IN_USE;
        case EACCES: case EPERM: return NKLOOP_ERR_ACCESS;
        case EADDRNOTAVAIL: return NKLOOP_ERR_ADDRESS;
        case ENOMEM: return NKLOOP_ERR_NOMEM;
        case EMFILE: case ENFILE: case ENOBUFS: case ENOSPC: return NKLOOP_ERR_LIMIT; // ENOSPC: epoll's watches
        case ENETUNREACH: case EHOSTUNREACH: case ENETDOWN: return NKLOOP_ERR_UNREACHABLE;
        case EAFNOSUPPORT: return NKLOOP_ERR_UNSUPPORTED;
        default: return NKLOOP_ERR_SYSTEM;
    }
}

static int nkloop_p_os_fail(nkloop* L) {
    int e = errno;
    int code = nkloop_p_os_code(e);
    if (code != NKLOOP_P_AGAIN) L->os_error = e;
    return code;
}

static uint64_t nkloop_p_os_now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int nkloop_p_os_start(void) { return NKLOOP_OK; }
static void nkloop_p_os_stop(void) {}

static int nkloop_p_os_nonblocking(nkloop_fd fd) {
    int flags = fcntl((int)fd, F_GETFL, 0);
    #ifdef SO_NOSIGPIPE
    int on = 1;
    setsockopt((int)fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    #endif
    if (flags < 0 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0) return -1;
    return (flags & O_NONBLOCK) ? 0 : fcntl((int)fd, F_SETFL, flags | O_NONBLOCK);
}

static int nkloop_p_os_socket(nkloop* L, int family, nkloop_fd* out) {
    #if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
    int fd = NETKIT_LOOP_SYS_SOCKET(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return nkloop_p_os_fail(L);
    #else
    int fd = NETKIT_LOOP_SYS_SOCKET(family, SOCK_STREAM, 0);
    if (fd < 0) return nkloop_p_os_fail(L);
    nkloop_p_os_nonblocking((nkloop_fd)fd);
    #endif
    *out = (nkloop_fd)fd;
    return NKLOOP_OK;
}

// not again on EINTR: the number may be somebody else's by now
static void nkloop_p_os_close(nkloop_fd fd) { NETKIT_LOOP_SYS_CLOSE((int)fd); }

static int nkloop_p_os_accept(nkloop* L, nkloop_fd fd, nkloop_fd* out) {
    int r;
    do r = NETKIT_LOOP_SYS_ACCEPT((int)fd); while (r < 0 && errno == EINTR);
    if (r < 0) return nkloop_p_os_fail(L);
    *out = (nkloop_fd)r;
    #ifndef NKLOOP_P_ACCEPT4 // it did so itself
    nkloop_p_os_nonblocking(*out);
    #endif
    return NKLOOP_OK;
}

static int64_t nkloop_p_os_recv(nkloop* L, nkloop_fd fd, uint8_t* p, size_t n) {
    int64_t r;
    do { r = NETKIT_LOOP_SYS_RECV((int)fd, p, n, 0); L->stats.recv_calls++; } while (r < 0 && errno == EINTR);
    return r >= 0 ? r : nkloop_p_os_fail(L);
}

// One piece by send, several by sendmsg. more: a file follows at once, so a partial packet may wait for it.
static int64_t nkloop_p_os_send(nkloop* L, nkloop_fd fd, nkloop_p_iov* iov, int count, int more) {
    int64_t r;
    int flags = NKLOOP_P_NOSIGNAL;
    struct msghdr msg;
    #ifdef MSG_MORE
    if (more) flags |= MSG_MORE;
    #else
    (void)more;
    #endif
    if (count > 1) {
        memset(&msg, 0, sizeof msg);
        msg.msg_iov = iov;
        msg.msg_iovlen = (unsigned)count;
    }
    do {
        L->stats.send_calls++;
        if (count == 1) r = NETKIT_LOOP_SYS_SEND((int)fd, iov->iov_base, iov->iov_len, flags);
        else r = NETKIT_LOOP_SYS_SENDMSG((int)fd, &msg, flags);
    } while (r < 0 && errno == EINTR);
    return r >= 0 ? r : nkloop_p_os_fail(L);
}

static int64_t nkloop_p_os_pread(nkloop* L, nkloop_fd file, uint8_t* p, size_t n, uint64_t offset) {
    int64_t r;
    do r = NETKIT_LOOP_SYS_PREAD((int)file, p, n, (off_t)offset); while (r < 0 && errno == EINTR);
    if (r < 0) L->os_error = errno;
    return r > 0 ? r : (int64_t)NKLOOP_ERR_FILE; // 0: the file became shorter
}

#ifdef __linux__
// sendfile(2) cannot be told MSG_NOSIGNAL: SIGPIPE is held back for this thread, and taken away if we caused it.
static int64_t nkloop_p_os_sendfile(nkloop* L, nkloop_fd fd, nkloop_fd file, uint64_t offset, uint64_t n) {
    sigset_t pipe_set, old, waiting;
    struct timespec zero = { 0, 0 };
    off_t at = (off_t)offset;
    int64_t r;
    int e;
    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    sigpending(&waiting);
    pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
    do { r = NETKIT_LOOP_SYS_SENDFILE((int)fd, (int)file, &at,
                                      (size_t)n); L->stats.send_calls++; } while (r < 0 && errno == EINTR);
    e = errno;
    // a connection that breaks half way raises the signal too, and still reports what went out before
    if ((r < 0 ? e == EPIPE : (uint64_t)r < n) && !sigismember(&waiting, SIGPIPE)) {
        while (sigtimedwait(&pipe_set, NULL, &zero) < 0 && errno == EINTR) {}
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = e;
    if (r > 0) return r;
    if (r == 0) return NKLOOP_ERR_FILE; // the file became shorter
    return e == EINVAL || e == ENOSYS ? NKLOOP_ERR_UNSUPPORTED : nkloop_p_os_fail(L);
}
#else
static int64_t nkloop_p_os_sendfile(nkloop* L, nkloop_fd fd, nkloop_fd file, uint64_t offset, uint64_t n) {
    (void)L; (void)fd; (void)file; (void)offset; (void)n;
    return NKLOOP_ERR_UNSUPPORTED; // the caller reads and sends instead
}
#endif

static int nkloop_p_os_wake_open(nkloop* L) {
    #ifdef NKLOOP_P_EPOLL
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) return nkloop_p_os_fail(L);
    L->wake_read = L->wake_write = (nkloop_fd)fd;
    #else
    int fds[2];
    if (pipe(fds) < 0) return nkloop_p_os_fail(L);
    L->wake_read = (nkloop_fd)fds[0];
    L->wake_write = (nkloop_fd)fds[1];
    nkloop_p_os_nonblocking(L->wake_read);
    nkloop_p_os_nonblocking(L->wake_write);
    #endif
    return NKLOOP_OK;
}

// Async-signal-safe, errno included. A full pipe is as good as a byte: the reader is awake.
static void nkloop_p_os_wake(nkloop* L) {
    uint64_t one = 1;
    int e = errno;
    while ((write)((int)L->wake_write, &one, sizeof one) < 0 && errno == EINTR) {}
    errno = e;
}

static void nkloop_p_os_wake_drain(nkloop* L) {
    uint64_t sink[32]; // an eventfd gives 8 bytes once; a pipe what it holds
    while ((read)((int)L->wake_read, sink, sizeof sink) == (int64_t)sizeof sink) {}
}

static int nkloop_p_os_is_file(nkloop_fd file) {
    struct stat st;
    return fstat((int)file, &st) == 0 && S_ISREG(st.st_mode);
}
#endif // _WIN32

// Threads: a mutex, a condition, a thread. With NETKIT_LOOP_NO_THREADS they cost nothing and do nothing.
#ifdef NETKIT_LOOP_NO_THREADS
typedef int nkloop_p_mutex;
static void nkloop_p_mutex_init(nkloop_p_mutex* m) { *m = 0; }
static void nkloop_p_mutex_drop(nkloop_p_mutex* m) { (void)m; }
static void nkloop_p_lock(nkloop_p_mutex* m) { (void)m; }
static void nkloop_p_unlock(nkloop_p_mutex* m) { (void)m; }
static void* nkloop_p_os_thread_self(void) { return NULL; }
#elif defined(_WIN32)
typedef CRITICAL_SECTION nkloop_p_mutex;
typedef CONDITION_VARIABLE nkloop_p_cond;
typedef HANDLE nkloop_p_thread;
static void nkloop_p_mutex_init(nkloop_p_mutex* m) { InitializeCriticalSection(m); }
static void nkloop_p_mutex_drop(nkloop_p_mutex* m) { DeleteCriticalSection(m); }
static void nkloop_p_lock(nkloop_p_mutex* m) { EnterCriticalSection(m); }
static void nkloop_p_unlock(nkloop_p_mutex* m) { LeaveCriticalSection(m); }
static void nkloop_p_cond_init(nkloop_p_cond* c) { InitializeConditionVariable(c); }
static void nkloop_p_cond_drop(nkloop_p_cond* c) { (void)c; }
static void nkloop_p_cond_wait(nkloop_p_cond* c, nkloop_p_mutex* m) { SleepConditionVariableCS(c, m, INFINITE); }
static void nkloop_p_cond_signal(nkloop_p_cond* c) { WakeConditionVariable(c); }
static void nkloop_p_cond_all(nkloop_p_cond* c) { WakeAllConditionVariable(c); }
static void* nkloop_p_os_thread_self(void) { return (void*)(uintptr_t)GetCurrentThreadId(); }
static DWORD WINAPI nkloop_p_thread_main(LPVOID pool);
static int nkloop_p_thread_start(nkloop_p_thread* t, void* pool) {
    *t = CreateThread(NULL, 0, nkloop_p_thread_main, pool, 0, NULL);
    return *t ? NKLOOP_OK : NKLOOP_ERR_LIMIT;
}
static void nkloop_p_thread_join(nkloop_p_thread t) { WaitForSingleObject(t, INFINITE); CloseHandle(t); }
#else
typedef pthread_mutex_t nkloop_p_mutex;
typedef pthread_cond_t nkloop_p_cond;
typedef pthread_t nkloop_p_thread;
static void nkloop_p_mutex_init(nkloop_p_mutex* m) { pthread_mutex_init(m, NULL); }
static void nkloop_p_mutex_drop(nkloop_p_mutex* m) { pthread_mutex_destroy(m); }
static void nkloop_p_lock(nkloop_p_mutex* m) { pthread_mutex_lock(m); }
static void nkloop_p_unlock(nkloop_p_mutex* m) { pthread_mutex_unlock(m); }
static void nkloop_p_cond_init(nkloop_p_cond* c) { pthread_cond_init(c, NULL); }
static void nkloop_p_cond_drop(nkloop_p_cond* c) { pthread_cond_destroy(c); }
static void nkloop_p_cond_wait(nkloop_p_cond* c, nkloop_p_mutex* m) { pthread_cond_wait(c, m); }
static void nkloop_p_cond_signal(nkloop_p_cond* c) { pthread_cond_signal(c); }
static void nkloop_p_cond_all(nkloop_p_cond* c) { pthread_cond_broadcast(c); }
static void* nkloop_p_os_thread_self(void) {
    void* p = NULL; // pthread_t is a number or a pointer, never larger than one where we run
    pthread_t self = pthread_self();
    memcpy(&p, &self, sizeof self < sizeof p ? sizeof self : sizeof p);
    return p;
}
static void* nkloop_p_thread_main(void* pool);
// Signals are for the program's own threads: a worker takes none.
static int nkloop_p_thread_start(nkloop_p_thread* t, void* pool) {
    sigset_t all, old;
    int r;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(t, NULL, nkloop_p_thread_main, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r == 0 ? NKLOOP_OK : NKLOOP_ERR_LIMIT;
}
static void nkloop_p_thread_join(nkloop_p_thread t) { pthread_join(t, NULL); }
#endif

// ---- @atomic ---------------------------------------------------------------------------------
// The few atomic operations between threads. GCC and Clang builtins are there in C99 and C++11 alike.
#if defined(__GNUC__) || defined(__clang__)
static uint32_t nkloop_p_a32_load(nkloop_p_a32* a) { return __atomic_load_n(&a->v, __ATOMIC_ACQUIRE); }
static void     nkloop_p_a32_store(nkloop_p_a32* a, uint32_t v) { __atomic_store_n(&a->v, v, __ATOMIC_RELEASE); }
static uint32_t nkloop_p_a32_exchange(nkloop_p_a32* a, uint32_t v) {
    return __atomic_exchange_n(&a->v, v, __ATOMIC_SEQ_CST);
}
static void*    nkloop_p_aptr_load(nkloop_p_aptr* a) { return __atomic_load_n(&a->p, __ATOMIC_ACQUIRE); }
static void     nkloop_p_aptr_store(nkloop_p_aptr* a, void* p) { __atomic_store_n(&a->p, p, __ATOMIC_RELEASE); }
static void*    nkloop_p_aptr_exchange(nkloop_p_aptr* a, void* p) {
    return __atomic_exchange_n(&a->p, p, __ATOMIC_SEQ_CST);
}
static int      nkloop_p_aptr_cas(nkloop_p_aptr* a, void* old, void* p) {
    return __atomic_compare_exchange_n(&a->p, &old, p, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}
#else
#include <intrin.h>
static uint32_t nkloop_p_a32_load(nkloop_p_a32* a) { return (uint32_t)_InterlockedOr((volatile long*)&a->v, 0); }
static void     nkloop_p_a32_store(nkloop_p_a32* a, uint32_t v) {
    _InterlockedExchange((volatile long*)&a->v, (long)v);
}
static uint32_t nkloop_p_a32_exchange(nkloop_p_a32* a, uint32_t v) {
    return (uint32_t)_InterlockedExchange((volatile long*)&a->v, (long)v);
}
static void*    nkloop_p_aptr_load(nkloop_p_aptr* a) { return _InterlockedCompareExchangePointer(&a->p, NULL, NULL); }
static void     nkloop_p_aptr_store(nkloop_p_aptr* a, void* p) { _InterlockedExchangePointer(&a->p, p); }
static void*    nkloop_p_aptr_exchange(nkloop_p_aptr* a, void* p) { return _InterlockedExchangePointer(&a->p, p); }
static int      nkloop_p_aptr_cas(nkloop_p_aptr* a, void* old, void* p) {
    return _InterlockedCompareExchangePointer(&a->p, p, old) == old;
}
#endif

// ---- @arena ----------------------------------------------------------------------------------
// Fixed-memory mode: an allocator over the caller's one block. Free lists by size, four to a power
// of two, found by bit maps; neighbours merge at once: constant time, and nothing is ever asked of
// the system. Locked, because other threads post.
enum { NKLOOP_P_ARENA_HEAD = 16, NKLOOP_P_ARENA_MIN = 32 };
typedef struct nkloop_p_block {
    struct nkloop_p_block* before;     // the neighbour below, NULL for the first
    size_t size;                       // of the payload, a multiple of 16; lowest bit: free
} nkloop_p_block;
// payload of a free block
typedef struct nkloop_p_links { nkloop_p_block* next; nkloop_p_block* prev; } nkloop_p_links;
struct nkloop_p_arena {
    nkloop_p_mutex  lock;
    uint64_t        powers;            // bit p: some list of power p is not empty
    uint8_t         quarters[64];
    nkloop_p_block* lists[64][4];
};

static size_t nkloop_p_block_size(const nkloop_p_block* b) { return b->size & ~(size_t)15; }
static int nkloop_p_block_free(const nkloop_p_block* b) { return (int)(b->size & 1); }
static nkloop_p_links* nkloop_p_block_links(nkloop_p_block* b) {
    return (nkloop_p_links*)(void*)((char*)b + NKLOOP_P_ARENA_HEAD);
}
static nkloop_p_block* nkloop_p_block_after(nkloop_p_block* b) {
    return (nkloop_p_block*)(void*)((char*)b + NKLOOP_P_ARENA_HEAD + nkloop_p_block_size(b));
}

static unsigned nkloop_p_log2(uint64_t v) { // floor; v > 0
    #if defined(__GNUC__) || defined(__clang__)
    return 63u - (unsigned)__builtin_clzll(v);
    #else
    unsigned n = 0;
    while (v >>= 1) n++;
    return n;
    #endif
}

static unsigned nkloop_p_low_bit(uint64_t v) { return nkloop_p_log2(v & (~v + 1)); }

static void nkloop_p_arena_put(nkloop_p_arena* a, nkloop_p_block* b) {
    size_t size = nkloop_p_block_size(b);
    unsigned p = nkloop_p_log2(size), q = (unsigned)(size >> (p - 2)) & 3u;
    nkloop_p_links* links = nkloop_p_block_links(b);
    b->size |= 1;
    links->prev = NULL;
    links->next = a->lists[p][q];
    if (links->next) nkloop_p_block_links(links->next)->prev = b;
    a->lists[p][q] = b;
    a->quarters[p] = (uint8_t)(a->quarters[p] | (1u << q));
    a->powers |= (uint64_t)1 << p;
}

static void nkloop_p_arena_take(nkloop_p_arena* a, nkloop_p_block* b) {
    size_t size = nkloop_p_block_size(b);
    unsigned p = nkloop_p_log2(size), q = (unsigned)(size >> (p - 2)) & 3u;
    nkloop_p_links* links = nkloop_p_block_links(b);
    b->size &= ~(size_t)1;
    if (links->next) nkloop_p_block_links(links->next)->prev = links->prev;
    if (links->prev) nkloop_p_block_links(links->prev)->next = links->next;
    else a->lists[p][q] = links->next;
    if (a->lists[p][q]) return;
    a->quarters[p] = (uint8_t)(a->quarters[p] & ~(1u << q));
    if (!a->quarters[p]) a->powers &= ~((uint64_t)1 << p);
}

// A free block of at least size bytes, or NULL. Looks one list further up, where every block is large enough.
static nkloop_p_block* nkloop_p_arena_find(nkloop_p_arena* a, size_t size) {
    size_t up = size + (((size_t)1 << (nkloop_p_log2(size) - 2)) - 1);
    unsigned p = nkloop_p_log2(up), q = (unsigned)(up >> (p - 2)) & 3u;
    unsigned some = a->quarters[p] & (0xfu << q);
    uint64_t above;
    if (!some) {
        above = p < 63 ? a->powers & ~(((uint64_t)2 << p) - 1) : 0;
        if (!above) return NULL;
        p = nkloop_p_low_bit(above);
        some = a->quarters[p];
    }
    return a->lists[p][nkloop_p_low_bit(some)];
}

static void* nkloop_p_arena_get(nkloop_p_arena* a, size_t n) {
    size_t size = n < NKLOOP_P_ARENA_MIN ? (size_t)NKLOOP_P_ARENA_MIN : (n + 15) & ~(size_t)15;
    nkloop_p_block *b, *rest;
    if (n > ((size_t)-1) / 4 || !(b = nkloop_p_arena_find(a, size))) return NULL;
    nkloop_p_arena_take(a, b);
    if (nkloop_p_block_size(b) >= size + NKLOOP_P_ARENA_HEAD + NKLOOP_P_ARENA_MIN) { // split
        rest = (nkloop_p_block*)(void*)((char*)b + NKLOOP_P_ARENA_HEAD + size);
        rest->before = b;
        rest->size = nkloop_p_block_size(b) - size - NKLOOP_P_ARENA_HEAD;
        nkloop_p_block_after(rest)->before = rest;
        b->size = size;
        nkloop_p_arena_put(a, rest);
    }
    return (char*)b + NKLOOP_P_ARENA_HEAD;
}

static void nkloop_p_arena_merge(nkloop_p_block* b, nkloop_p_block* next) {
    b->size = nkloop_p_block_size(b) + NKLOOP_P_ARENA_HEAD + nkloop_p_block_size(next);
    nkloop_p_block_after(b)->before = b;
}

static void nkloop_p_arena_drop(nkloop_p_arena* a, void* ptr) {
    nkloop_p_block* b = (nkloop_p_block*)(void*)((char*)ptr - NKLOOP_P_ARENA_HEAD);
    nkloop_p_block* next = nkloop_p_block_after(b);
    if (nkloop_p_block_free(next)) { nkloop_p_arena_take(a, next); nkloop_p_arena_merge(b, next); }
    if (b->before && nkloop_p_block_free(b->before)) {
        nkloop_p_arena_take(a, b->before);
        nkloop_p_arena_merge(b->before, b);
        b = b->before;
    }
    nkloop_p_arena_put(a, b);
}

static void* nkloop_p_arena_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    nkloop_p_arena* a = (nkloop_p_arena*)user;
    void* got = NULL;
    nkloop_p_lock(&a->lock);
    if (new_size > 0) got = nkloop_p_arena_get(a, new_size);
    if (ptr && got) memcpy(got, ptr, old_size < new_size ? old_size : new_size);
    if (ptr && (got || new_size == 0)) nkloop_p_arena_drop(a, ptr);
    nkloop_p_unlock(&a->lock);
    return got;
}

// Lays the arena out inside the block: itself, one free block, and a block of no size that ends it.
static nkloop_p_arena* nkloop_p_arena_open(void* memory, size_t bytes) {
    uintptr_t from = ((uintptr_t)memory + 15) & ~(uintptr_t)15, to = ((uintptr_t)memory + bytes) & ~(uintptr_t)15;
    size_t own = (sizeof(nkloop_p_arena) + 15) & ~(size_t)15;
    nkloop_p_arena* a = (nkloop_p_arena*)from;
    nkloop_p_block *b, *end;
    if (to < from || to - from < own + 2 * NKLOOP_P_ARENA_HEAD + NKLOOP_P_ARENA_MIN) return NULL;
    memset(a, 0, sizeof *a);
    nkloop_p_mutex_init(&a->lock);
    b = (nkloop_p_block*)(from + own);
    b->before = NULL;
    b->size = (size_t)(to - from) - own - 2 * NKLOOP_P_ARENA_HEAD;
    end = nkloop_p_block_after(b);
    end->before = b;
    end->size = 0;
    nkloop_p_arena_put(a, b);
    return a;
}

// ---- @slots ----------------------------------------------------------------------------------
// Slots live in slabs that never move, so a pointer to one stays good during callbacks.
// A handle is index and generation.
static void* nkloop_p_default_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    (void)user; (void)old_size;
    if (new_size == 0) { (free)(ptr); return NULL; }
    return (realloc)(ptr, new_size);
}

NETKIT_LOOP_API void* nkloop_alloc(nkloop* L, void* ptr, size_t old_size, size_t new_size) {
    return L->desc.alloc_fn(L->desc.alloc_user, ptr, old_size, new_size);
}
static void nkloop_p_drop(nkloop* L, void* ptr, size_t size) {
    if (ptr) L->desc.alloc_fn(L->desc.alloc_user, ptr, size, 0);
}

static nkloop_p_slot* nkloop_p_at(nkloop* L, uint32_t index) {
    return &L->slabs[index >> NKLOOP_P_SLAB_SHIFT][index & (NKLOOP_P_SLAB - 1)];
}
static uint64_t nkloop_p_id(const nkloop_p_slot* slot, uint32_t index) { return (uint64_t)slot->gen << 32 | index; }

// The slot of a handle, also while it is closing; NULL if it is stale.
static nkloop_p_slot* nkloop_p_find_any(nkloop* L, uint64_t id) {
    uint32_t index = (uint32_t)id, gen = (uint32_t)(id >> 32);
    nkloop_p_slot* slot;
    if (!(gen & 1u) || index >= L->num_slabs << NKLOOP_P_SLAB_SHIFT) return NULL;
    slot = nkloop_p_at(L, index);
    return slot->gen == gen ? slot : NULL;
}

static nkloop_p_slot* nkloop_p_find(nkloop* L, uint64_t id, int kind) {
    nkloop_p_slot* slot = nkloop_p_find_any(L, id);
    return slot && slot->kind == kind && !(slot->flags & NKLOOP_P_CLOSING) ? slot : NULL;
}

// Grows a table of pointers; entries keep their order.
static int nkloop_p_grow_table(nkloop* L, void*** table, uint32_t* cap) {
    uint32_t want = *cap ? *cap * 2 : 16;
    void** grown = (void**)nkloop_alloc(L, *table, *cap * sizeof(void*), want * sizeof(void*));
    if (!grown) return NKLOOP_ERR_NOMEM;
    *table = grown;
    *cap = want;
    return NKLOOP_OK;
}

static int nkloop_p_add_slab(nkloop* L) {
    nkloop_p_slot* slab;
    void** table = (void**)(void*)L->slabs;
    uint32_t i, base = L->num_slabs << NKLOOP_P_SLAB_SHIFT;
    if (L->num_slabs == L->cap_slabs) {
        if (nkloop_p_grow_table(L, &table, &L->cap_slabs) < 0) return NKLOOP_ERR_NOMEM;
        L->slabs = (nkloop_p_slot**)(void*)table;
    }
    slab = (nkloop_p_slot*)nkloop_alloc(L, NULL, 0, NKLOOP_P_SLAB * sizeof *slab);
    if (!slab) return NKLOOP_ERR_NOMEM;
    memset(slab, 0, NKLOOP_P_SLAB * sizeof *slab);
    for (i = 0; i < NKLOOP_P_SLAB; i++) slab[i].next = i + 1 < NKLOOP_P_SLAB ? base + i + 1 : L->free_slot;
    L->free_slot = base;
    L->slabs[L->num_slabs++] = slab;
    return NKLOOP_OK;
}

static int nkloop_p_slot_open(nkloop* L, int kind, nkloop_fd fd, uint32_t* out) {
    nkloop_p_slot* slot;
    uint32_t gen;
    if (L->open_slots >= L->desc.max_streams) return NKLOOP_ERR_LIMIT;
    if (L->free_slot == NKLOOP_P_NIL && nkloop_p_add_slab(L) < 0) return NKLOOP_ERR_NOMEM;
    *out = L->free_slot;
    slot = nkloop_p_at(L, *out);
    L->free_slot = slot->next;
    gen = slot->gen + 1;
    memset(slot, 0, sizeof *slot);
    slot->gen = gen;
    slot->kind = (uint8_t)kind;
    slot->fd = fd;
    slot->flags = NKLOOP_P_UNWATCHED;
    slot->timer.next = NKLOOP_P_UNLINKED;
    slot->seen_ms = (uint32_t)L->now_ms;
    slot->next = NKLOOP_P_NIL;
    L->open_slots++;
    if (kind == NKLOOP_P_STREAM) L->stats.streams++;
    return NKLOOP_OK;
}

static void nkloop_p_slot_release(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    if (slot->kind == NKLOOP_P_STREAM) L->stats.streams--;
    slot->gen++;
    slot->kind = NKLOOP_P_FREE;
    slot->flags = 0;
    slot->next = L->free_slot;
    L->free_slot = index;
    L->open_slots--;
}

// Around every callback of a stream; they nest when one of them flushes.
static unsigned nkloop_p_enter(nkloop_p_slot* slot) {
    unsigned outer = slot->flags & NKLOOP_P_IN_CALL;
    slot->flags |= NKLOOP_P_IN_CALL;
    return outer;
}
static void nkloop_p_leave(nkloop_p_slot* slot, unsigned outer) {
    slot->flags = (uint16_t)((slot->flags & ~(unsigned)NKLOOP_P_IN_CALL) | outer);
}

// The attention list: streams that want something before the turn ends. First come, first served.
static void nkloop_p_attend(nkloop* L, uint32_t index, unsigned why) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    slot->flags = (uint16_t)(slot->flags | why);
    if (slot->flags & NKLOOP_P_LISTED) return;
    slot->flags |= NKLOOP_P_LISTED;
    slot->next = NKLOOP_P_NIL;
    if (L->attention_last == NKLOOP_P_NIL) L->attention_first = index;
    else nkloop_p_at(L, L->attention_last)->next = index;
    L->attention_last = index;
}

// ---- @wheel ----------------------------------------------------------------------------------
// Hierarchical timing wheel: seven levels of 64 buckets (139 years), one millisecond at the bottom.
// A timer sits on the level of the highest bit in which its due time differs from the wheel's, so
// arming and stopping are constant time and each timer moves down at most six times. Streams' timers
// and users' timers are linked by index; nothing is allocated.
static nkloop_p_tnode* nkloop_p_tnode_at(nkloop* L, uint32_t index) {
    if (index & NKLOOP_P_IS_TIMER) {
        index &= ~NKLOOP_P_IS_TIMER;
        return &L->timer_slabs[index >> NKLOOP_P_SLAB_SHIFT][index & (NKLOOP_P_SLAB - 1)].node;
    }
    return &nkloop_p_at(L, index)->timer;
}

// The list a due time belongs to, which stays the same until the wheel reaches it. The last one
// holds what is due now.
static uint32_t nkloop_p_wheel_bucket(const nkloop* L, uint32_t due) {
    int32_t away = (int32_t)(due - (uint32_t)L->elapsed_ms);
    uint64_t at;
    unsigned level;
    if (away <= 0) return NKLOOP_P_BUCKETS;
    at = L->elapsed_ms + (uint64_t)away;
    level = nkloop_p_log2(at ^ L->elapsed_ms) / 6;
    return level * 64 + (uint32_t)((at >> (6 * level)) & 63);
}

// Appends: timers that are due in the same millisecond fire in the order they were started.
static void nkloop_p_wheel_push(nkloop* L, uint32_t bucket, uint32_t index) {
    nkloop_p_tnode* t = nkloop_p_tnode_at(L, index);
    t->next = NKLOOP_P_NIL;
    t->prev = L->wheel_last[bucket];
    if (t->prev == NKLOOP_P_NIL) L->wheel[bucket] = index;
    else nkloop_p_tnode_at(L, t->prev)->next = index;
    L->wheel_last[bucket] = index;
    if (bucket < NKLOOP_P_BUCKETS) L->wheel_bits[bucket >> 6] |= (uint64_t)1 << (bucket & 63);
}

static void nkloop_p_wheel_remove(nkloop* L, uint32_t index) {
    nkloop_p_tnode* t = nkloop_p_tnode_at(L, index);
    uint32_t bucket;
    if (t->next == NKLOOP_P_UNLINKED) return;
    bucket = nkloop_p_wheel_bucket(L, t->due);
    if (t->prev == NKLOOP_P_NIL) L->wheel[bucket] = t->next;
    else nkloop_p_tnode_at(L, t->prev)->next = t->next;
    if (t->next == NKLOOP_P_NIL) L->wheel_last[bucket] = t->prev;
    else nkloop_p_tnode_at(L, t->next)->prev = t->prev;
    if (L->wheel[bucket] == NKLOOP_P_NIL && bucket < NKLOOP_P_BUCKETS) {
        L->wheel_bits[bucket >> 6] &= ~((uint64_t)1 << (bucket & 63));
    }
    t->next = NKLOOP_P_UNLINKED;
}

// Start of the first bucket that is not empty. All buckets of a lower level come before those of a higher one.
static int nkloop_p_wheel_next(const nkloop* L, uint32_t* bucket, uint64_t* at) {
    unsigned level, i;
    for (level = 0; level < NKLOOP_P_LEVELS; level++) {
        if (!L->wheel_bits[level]) continue;
        i = nkloop_p_low_bit(L->wheel_bits[level]);
        *bucket = level * 64 + i;
        *at = ((L->elapsed_ms >> (6 * level + 6)) << (6 * level + 6)) + ((uint64_t)i << (6 * level));
        return 1;
    }
    return 0;
}

// Moves everything that is due at now_ms into the last list.
static void nkloop_p_wheel_advance(nkloop* L) {
    uint32_t bucket, index, next;
    uint64_t at;
    while (nkloop_p_wheel_next(L, &bucket, &at) && at <= L->now_ms) {
        L->elapsed_ms = at;
        index = L->wheel[bucket];
        L->wheel[bucket] = L->wheel_last[bucket] = NKLOOP_P_NIL;
        L->wheel_bits[bucket >> 6] &= ~((uint64_t)1 << (bucket & 63));
        for (; index != NKLOOP_P_NIL; index = next) {
            next = nkloop_p_tnode_at(L, index)->next;
            nkloop_p_wheel_push(L, nkloop_p_wheel_bucket(L, nkloop_p_tnode_at(L, index)->due), index);
        }
    }
    L->elapsed_ms = L->now_ms;
}

// due: low 32 bits of the absolute millisecond, less than 24 days away. What is due already waits
// for the next one, so that a timer which starts another without delay cannot keep a turn for ever.
static void nkloop_p_wheel_insert(nkloop* L, uint32_t index, uint32_t due) {
    // between turns the wheel lags behind: seen from there, the farthest would look like the past
    if ((int32_t)(due - (uint32_t)L->now_ms) > 0 && L->elapsed_ms < L->now_ms) nkloop_p_wheel_advance(L);
    if ((int32_t)(due - (uint32_t)L->elapsed_ms) <= 0) due = (uint32_t)L->elapsed_ms + 1;
    nkloop_p_tnode_at(L, index)->due = due;
    nkloop_p_wheel_push(L, nkloop_p_wheel_bucket(L, due), index);
}

static void nkloop_p_clock(nkloop* L) {
    uint64_t now = nkloop_p_os_now_ns();
    if (now > L->now_ns) L->now_ns = now;
    L->now_ms = (L->now_ns - L->start_ns) / 1000000u;
}

// For calls that measure from now: between turns the last sample may be old.
static uint32_t nkloop_p_now(nkloop* L) {
    if (!L->in_turn) nkloop_p_clock(L);
    return (uint32_t)L->now_ms;
}

// What a stream's one timer is for at the moment: the earliest of its deadlines. 0: none.
static int nkloop_p_stream_due(nkloop_p_slot* slot, uint32_t* due) {
    int any = 0, connecting = slot->flags & NKLOOP_P_CONNECTING ? 1 : 0;
    uint32_t best = 0, dial = connecting ? slot->in.dial->deadline_ms : 0;
    if (slot->idle_ms && !connecting) { best = slot->seen_ms + slot->idle_ms; any = 1; }
    if (slot->alarm_ms && (!any || (int32_t)(slot->alarm_ms - best) < 0)) { best = slot->alarm_ms; any = 1; }
    if (dial && (!any || (int32_t)(dial - best) < 0)) { best = dial; any = 1; }
    *due = best;
    return any;
}

// Re-arms only when the new deadline is earlier: a timer that fires too early looks again and goes back.
static void nkloop_p_stream_rearm(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    uint32_t due;
    if (!nkloop_p_stream_due(slot, &due)) return;
    if (slot->timer.next != NKLOOP_P_UNLINKED) {
        if ((int32_t)(slot->timer.due - due) <= 0) return;
        nkloop_p_wheel_remove(L, index);
    }
    nkloop_p_wheel_insert(L, index, due);
}

// ---- @chunks ---------------------------------------------------------------------------------
// Buffers are lent while they hold bytes, and cached by size when they come back: 128 bytes for references, 4 KiB for
// replies and tails, 20 KiB for more, and one size that holds rx_bytes.
enum { NKLOOP_P_SMALL = 0, NKLOOP_P_PAGE = 1, NKLOOP_P_LARGE = 2, NKLOOP_P_FULL_RX = 3 };

static size_t nkloop_p_class_bytes(const nkloop* L, int size_class) {
    switch (size_class) {
        case NKLOOP_P_SMALL: return 128;
        case NKLOOP_P_PAGE:  return 4096;
        case NKLOOP_P_LARGE: return 20 * 1024;
        default:             return (size_t)L->desc.rx_bytes + sizeof(nkloop_p_chunk);
    }
}

static uint8_t* nkloop_p_bytes(nkloop_p_chunk* c) { return (uint8_t*)(c + 1); }

static nkloop_p_chunk* nkloop_p_lend(nkloop* L, int size_class) {
    nkloop_p_chunk* c = L->cached[size_class];
    size_t bytes = nkloop_p_class_bytes(L, size_class);
    if (c) {
        L->cached[size_class] = c->next;
        L->num_cached[size_class]--;
    } else if (!(c = (nkloop_p_chunk*)nkloop_alloc(L, NULL, 0, bytes))) {
        return NULL;
    }
    c->next = c->last = NULL;
    c->queued = 0;
    c->at = c->end = 0;
    c->cap = (uint32_t)(bytes - sizeof *c);
    c->kind = NKLOOP_P_DATA;
    c->size_class = (uint8_t)size_class;
    return c;
}

static void nkloop_p_unlend(nkloop* L, nkloop_p_chunk* c) {
    static const uint32_t most[4] = { 256, 256, 16, 2 }; // at most 1.5 MiB kept
    int size_class = c->size_class;
    if (L->num_cached[size_class] >= most[size_class]) { nkloop_p_drop(L, c,
        nkloop_p_class_bytes(L, size_class)); return; }
    c->next = L->cached[size_class];
    L->cached[size_class] = c;
    L->num_cached[size_class]++;
}

// Ends a piece of a send queue, giving the caller's bytes back.
static void nkloop_p_chunk_end(nkloop* L, nkloop_p_chunk* c) {
    nkloop_p_ref* r = (nkloop_p_ref*)(void*)c;
    void (*fn)(void* user) = c->kind == NKLOOP_P_DATA ? NULL : r->release_fn;
    void* user = fn ? r->release_user : NULL;
    nkloop_p_unlend(L, c);
    if (fn) fn(user);
}

static void nkloop_p_queue_append(nkloop_p_slot* slot, nkloop_p_chunk* c) {
    if (slot->tx) {
        slot->tx->last->next = c;
        slot->tx->last = c;
    } else {
        slot->tx = c;
        c->last = c;
        c->queued = 0;
    }
}

// Takes the first piece off the queue; the caller ends it.
static nkloop_p_chunk* nkloop_p_queue_shift(nkloop_p_slot* slot) {
    nkloop_p_chunk *first = slot->tx, *second = first->next;
    if (second) {
        second->last = first->last;
        second->queued = first->queued;
    }
    slot->tx = second;
    first->next = NULL;
    return first;
}

static uint64_t nkloop_p_queued(const nkloop_p_slot* slot) {
    uint64_t n = slot->tx ? slot->tx->queued : 0;
    if (slot->filtered) n += slot->filtered->w.plain_tx.len + slot->filtered->w.wire_tx.len;
    return n;
}

// ---- @epoll ----------------------------------------------------------------------------------
// Linux. Level-triggered; the event carries the handle, so one that comes late for a reused slot is recognised.
#ifdef NKLOOP_P_EPOLL
static int nkloop_p_epoll_open(nkloop* L) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) return nkloop_p_os_fail(L);
    L->backend_fd = (nkloop_fd)fd;
    return NKLOOP_OK;
}
static void nkloop_p_epoll_shut(nkloop* L) { nkloop_p_os_close(L->backend_fd); }

static int nkloop_p_epoll_set(nkloop* L, int op, uint32_t index, nkloop_p_slot* slot, int want) {
    struct epoll_event ev;
    memset(&ev, 0, sizeof ev);
    ev.events = (want & NKLOOP_READ ? (uint32_t)EPOLLIN : 0u) | (want & NKLOOP_WRITE ? (uint32_t)EPOLLOUT : 0u);
    ev.data.u64 = nkloop_p_id(slot, index);
    return NETKIT_LOOP_SYS_EPOLL_CTL((int)L->backend_fd, op, (int)slot->fd, &ev) == 0
        ? NKLOOP_OK : nkloop_p_os_fail(L);
}
static int nkloop_p_epoll_add(nkloop* L, uint32_t index, nkloop_p_slot* slot, int want) {
    return nkloop_p_epoll_set(L, EPOLL_CTL_ADD, index, slot, want);
}
static int nkloop_p_epoll_mod(nkloop* L, uint32_t index, nkloop_p_slot* slot, int want) {
    return nkloop_p_epoll_set(L, EPOLL_CTL_MOD, index, slot, want);
}
static void nkloop_p_epoll_del(nkloop* L, uint32_t index, nkloop_p_slot* slot) {
    nkloop_p_epoll_set(L, EPOLL_CTL_DEL, index, slot, 0);
}

static int nkloop_p_epoll_wait(nkloop* L, int timeout_ms) {
    struct epoll_event got[NKLOOP_P_EVENTS];
    int i, n = NETKIT_LOOP_SYS_EPOLL_WAIT((int)L->backend_fd, got, NKLOOP_P_EVENTS, timeout_ms);
    if (n < 0) return errno == EINTR ? 0 : nkloop_p_os_fail(L);
    for (i = 0; i < n; i++) {
        uint32_t e = got[i].events;
        L->events[i].id = got[i].data.u64;
        L->events[i].mask = (e & (uint32_t)EPOLLIN ? NKLOOP_READ : 0) | (e & (uint32_t)EPOLLOUT ? NKLOOP_WRITE : 0)
                          | (e & (uint32_t)(EPOLLHUP | EPOLLERR) ? NKLOOP_HANGUP : 0);
    }
    return n;
}
static const nkloop_p_backend nkloop_p_epoll = {
    NKLOOP_BACKEND_EPOLL, nkloop_p_epoll_open, nkloop_p_epoll_shut, nkloop_p_epoll_add,
        nkloop_p_epoll_mod, nkloop_p_epoll_del, nkloop_p_epoll_wait
};
#endif

// ---- @kqueue ---------------------------------------------------------------------------------
// macOS and the BSDs. Two filters to a file; udata holds slot index and the low bits of the
// generation where it is wide enough.
#ifdef NKLOOP_P_KQUEUE
static int nkloop_p_kqueue_open(nkloop* L) {
    int fd = kqueue();
    if (fd < 0) return nkloop_p_os_fail(L);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    L->backend_fd = (nkloop_fd)fd;
    return NKLOOP_OK;
}
static void nkloop_p_kqueue_shut(nkloop* L) { nkloop_p_os_close(L->backend_fd); }

// Adds what is wanted and deletes what is not any more; `had` says what is registered.
static int nkloop_p_kqueue_set(nkloop* L, uint32_t index, nkloop_p_slot* slot, int had, int want) {
    struct kevent change[2];
    struct timespec zero = { 0, 0 };
    int n = 0;
    void* tag = (void*)(uintptr_t)nkloop_p_id(slot, index);
    if ((had ^ want) & NKLOOP_READ) { EV_SET(&change[n], slot->fd, EVFILT_READ,
                                             want & NKLOOP_READ ? EV_ADD : EV_DELETE, 0, 0, tag); n++; }
    if ((had ^ want) & NKLOOP_WRITE) { EV_SET(&change[n], slot->fd, EVFILT_WRITE,
                                              want & NKLOOP_WRITE ? EV_ADD : EV_DELETE, 0, 0, tag); n++; }
    if (n == 0) return NKLOOP_OK;
    return NETKIT_LOOP_SYS_KEVENT((int)L->backend_fd, change, n, NULL, 0, &zero) >= 0
        ? NKLOOP_OK : nkloop_p_os_fail(L);
}
static int nkloop_p_kqueue_add(nkloop* L, uint32_t index, nkloop_p_slot* slot, int want) {
    return nkloop_p_kqueue_set(L, index, slot, 0, want);
}
static int nkloop_p_kqueue_mod(nkloop* L, uint32_t index, nkloop_p_slot* slot, int want) {
    return nkloop_p_kqueue_set(L, index, slot, slot->interest, want);
}
static void nkloop_p_kqueue_del(nkloop* L, uint32_t index, nkloop_p_slot* slot) {
    nkloop_p_kqueue_set(L, index, slot, slot->interest, 0);
}

static int nkloop_p_kqueue_wait(nkloop* L, int timeout_ms) {
    struct kevent got[NKLOOP_P_EVENTS];
    struct timespec ts;
    int i, n;
    ts.tv_sec = timeout_ms / 1000;
    ts.tv_nsec = (long)(timeout_ms % 1000) * 1000000;
    n = NETKIT_LOOP_SYS_KEVENT((int)L->backend_fd, NULL, 0, got, NKLOOP_P_EVENTS, timeout_ms < 0 ? NULL : &ts);
    if (n < 0) return errno == EINTR ? 0 : nkloop_p_os_fail(L);
    for (i = 0; i < n; i++) {
        uint64_t id = (uint64_t)(uintptr_t)got[i].udata;
        // no room for the generation there
        if (sizeof(void*) < 8 && (uint32_t)id < L->num_slabs << NKLOOP_P_SLAB_SHIFT) {
            id = nkloop_p_id(nkloop_p_at(L, (uint32_t)id), (uint32_t)id);
        }
        L->events[i].id = id;
        L->events[i].mask = (got[i].filter == EVFILT_READ ? NKLOOP_READ : NKLOOP_WRITE)
                          | (got[i].flags & EV_EOF && got[i].filter == EVFILT_WRITE ? NKLOOP_HANGUP : 0);
    }
    return n;
}
static const nkloop_p_backend nkloop_p_kqueue = {
    NKLOOP_BACKEND_KQUEUE, nkloop_p_kqueue_open, nkloop_p_kqueue_shut, nkloop_p_kqueue_add,
        nkloop_p_kqueue_mod, nkloop_p_kqueue_del, nkloop_p_kqueue_wait
};
#endif

// ---- @poll -----------------------------------------------------------------------------------
// poll(2) everywhere else, WSAPoll on Windows. One array; costs time proportional to all streams:
// fine up to a few hundred.
static int nkloop_p_poll_open(nkloop* L) { L->backend_fd = NKLOOP_NO_FD; return NKLOOP_OK; }

static void nkloop_p_poll_shut(nkloop* L) {
    nkloop_p_drop(L, L->poll_fds, L->cap_poll * sizeof *L->poll_fds);
    nkloop_p_drop(L, L->poll_index, L->cap_poll * sizeof *L->poll_index);
}

static short nkloop_p_poll_bits(int want) {
    return (short)((want & NKLOOP_READ ? POLLIN : 0) | (want & NKLOOP_WRITE ? POLLOUT : 0));
}

static int nkloop_p_poll_grow(nkloop* L) {
    uint32_t want = L->cap_poll + L->cap_poll / 4 + 64;
    struct pollfd* fds = (struct pollfd*)nkloop_alloc(L, NULL, 0, want * sizeof *fds);
    uint32_t* index = (uint32_t*)nkloop_alloc(L, NULL, 0, want * sizeof *index);
    if (!fds || !index) {
        nkloop_p_drop(L, fds, want * sizeof *fds);
        nkloop_p_drop(L, index, want * sizeof *index);
        return NKLOOP_ERR_NOMEM;
    }
    if (L->num_poll) {
        memcpy(fds, L->poll_fds, L->num_poll * sizeof *fds);
        memcpy(index, L->poll_index, L->num_poll * sizeof *index);
    }
    nkloop_p_poll_shut(L);
    L->poll_fds = fds;
    L->poll_index = index;
    L->cap_poll = want;
    return NKLOOP_OK;
}

static int nkloop_p_poll_add(nkloop* L, uint32_t index, nkloop_p_slot* slot, int want) {
    if (L->num_poll == L->cap_poll && nkloop_p_poll_grow(L) < 0) return NKLOOP_ERR_NOMEM;
    slot->at = L->num_poll;
    #ifdef _WIN32
    L->poll_fds[slot->at].fd = (SOCKET)slot->fd;
    #else
    L->poll_fds[slot->at].fd = (int)slot->fd;
    #endif
    L->poll_fds[slot->at].events = nkloop_p_poll_bits(want);
    L->poll_fds[slot->at].revents = 0;
    L->poll_index[slot->at] = index;
    L->num_poll++;
    return NKLOOP_OK;
}

static int nkloop_p_poll_mod(nkloop* L, uint32_t index, nkloop_p_slot* slot, int want) {
    (void)index;
    L->poll_fds[slot->at].events = nkloop_p_poll_bits(want);
    return NKLOOP_OK;
}

static void nkloop_p_poll_del(nkloop* L, uint32_t index, nkloop_p_slot* slot) { // the last takes its place
    (void)index;
    L->num_poll--;
    L->poll_fds[slot->at] = L->poll_fds[L->num_poll];
    L->poll_index[slot->at] = L->poll_index[L->num_poll];
    nkloop_p_at(L, L->poll_index[slot->at])->at = slot->at;
}

// Starts where the last batch ended, so that a full batch starves nobody.
static int nkloop_p_poll_wait(nkloop* L, int timeout_ms) {
    uint32_t i, k;
    int n = NETKIT_LOOP_SYS_POLL(L->poll_fds, L->num_poll, timeout_ms), found = 0;
    #ifdef _WIN32
    if (n < 0) return nkloop_p_os_fail(L);
    #else
    if (n < 0) return errno == EINTR ? 0 : nkloop_p_os_fail(L);
    #endif
    if (L->poll_from >= L->num_poll) L->poll_from = 0;
    for (k = 0, i = L->poll_from; k < L->num_poll && found < n && found < NKLOOP_P_EVENTS; k++) {
        int e = L->poll_fds[i].revents;
        if (e) {
            L->events[found].id = nkloop_p_id(nkloop_p_at(L, L->poll_index[i]), L->poll_index[i]);
            L->events[found].mask = (e & POLLIN ? NKLOOP_READ : 0) | (e & POLLOUT ? NKLOOP_WRITE : 0)
                                  | (e & (POLLHUP | POLLERR | POLLNVAL) ? NKLOOP_HANGUP : 0);
            found++;
        }
        if (++i == L->num_poll) i = 0;
    }
    L->poll_from = i;
    return found;
}
static const nkloop_p_backend nkloop_p_poll = {
    #ifdef _WIN32
    NKLOOP_BACKEND_WSAPOLL,
    #else
    NKLOOP_BACKEND_POLL,
    #endif
    nkloop_p_poll_open, nkloop_p_poll_shut, nkloop_p_poll_add, nkloop_p_poll_mod,
        nkloop_p_poll_del, nkloop_p_poll_wait
};

// ---- @address --------------------------------------------------------------------------------
// Text to socket address and back. Pure, but for the byte order functions.

// "80" -> 80; the whole of n bytes, no sign, no blank.
static int nkloop_p_port(const char* p, size_t n, uint16_t* out) {
    uint32_t v = 0;
    size_t i;
    if (n == 0 || n > 5) return NKLOOP_ERR_ADDRESS;
    for (i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return NKLOOP_ERR_ADDRESS;
        v = v * 10 + (uint32_t)(p[i] - '0');
    }
    if (v > 65535) return NKLOOP_ERR_ADDRESS;
    *out = (uint16_t)v;
    return NKLOOP_OK;
}

#ifdef NKLOOP_P_POSIX
static int nkloop_p_address_unix(const char* path, nkloop_p_sockaddr* out) {
    struct sockaddr_un un;
    size_t n = strlen(path);
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    if (n == 0 || n >= sizeof un.sun_path) return NKLOOP_ERR_ADDRESS;
    memcpy(un.sun_path, path, n);
    out->len = (uint32_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    #ifdef NKLOOP_P_ABSTRACT
    if (path[0] == '@') { un.sun_path[0] = 0; out->len--; } // abstract: length counts, no terminator
    #else
    if (path[0] == '@') return NKLOOP_ERR_UNSUPPORTED;
    #endif
    memcpy(&out->u, &un, sizeof un);
    return NKLOOP_OK;
}
#endif

// host is empty or "*" (any), an IPv4 address, an IPv6 address without brackets, or "localhost".
// ERR_RESOLVE: it is another name.
static int nkloop_p_address_host(const char* host, uint16_t port, nkloop_p_sockaddr* out) {
    memset(out, 0, sizeof *out);
    out->u.v4.sin_family = AF_INET;
    out->u.v4.sin_port = htons(port);
    out->len = (uint32_t)sizeof out->u.v4;
    if (host[0] == 0 || strcmp(host, "*") == 0) { out->u.v4.sin_addr.s_addr = htonl(INADDR_ANY); return NKLOOP_OK; }
    if (strcmp(host, "localhost") == 0) { out->u.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK); return NKLOOP_OK; }
    if (inet_pton(AF_INET, host, &out->u.v4.sin_addr) == 1) return NKLOOP_OK;
    memset(out, 0, sizeof *out);
    out->u.v6.sin6_family = AF_INET6;
    out->u.v6.sin6_port = htons(port);
    out->len = (uint32_t)sizeof out->u.v6;
    if (inet_pton(AF_INET6, host, &out->u.v6.sin6_addr) == 1) return NKLOOP_OK;
    return strchr(host, ':') ? NKLOOP_ERR_ADDRESS : NKLOOP_ERR_RESOLVE;
}

// Splits "host:port" or "[v6]:port"; host must have room for 256 bytes.
static int nkloop_p_address_split(const char* text, char* host, uint16_t* port) {
    const char* colon = strrchr(text, ':');
    size_t n;
    if (!colon) return NKLOOP_ERR_ADDRESS;
    n = (size_t)(colon - text);
    if (text[0] == '[') {
        if (n < 2 || text[n - 1] != ']' || !memchr(text, ':', n)) return NKLOOP_ERR_ADDRESS;
        text++;
        n -= 2;
    } else if (memchr(text, ':', n)) {
        return NKLOOP_ERR_ADDRESS; // an IPv6 address needs its brackets
    }
    if (n > 255) return NKLOOP_ERR_ADDRESS;
    memcpy(host, text, n);
    host[n] = 0;
    return nkloop_p_port(colon + 1, strlen(colon + 1), port);
}

// NKLOOP_ERR_RESOLVE with host and port set: a name that somebody has to look up.
static int nkloop_p_address_parse(const char* text, nkloop_p_sockaddr* out, char* host, uint16_t* port) {
    int code;
    memset(out, 0, sizeof *out);
    if (strncmp(text, "unix:", 5) == 0) {
        #ifndef NKLOOP_P_POSIX
        return NKLOOP_ERR_UNSUPPORTED;
        #else
        return nkloop_p_address_unix(text + 5, out);
        #endif
    }
    if ((code = nkloop_p_address_split(text, host, port)) < 0) return code;
    return nkloop_p_address_host(host, *port, out);
}

static int nkloop_p_address_text(const nkloop_p_sockaddr* a, char* out, size_t cap) {
    char host[64], text[128];
    int n = 0;
    if (a->u.any.sa_family == AF_INET) {
        if (!inet_ntop(AF_INET, (void*)(uintptr_t)&a->u.v4.sin_addr, host, sizeof host)) return NKLOOP_ERR_SYSTEM;
        n = snprintf(text, sizeof text, "%s:%u", host, (unsigned)ntohs(a->u.v4.sin_port));
    } else if (a->u.any.sa_family == AF_INET6) {
        if (!inet_ntop(AF_INET6, (void*)(uintptr_t)&a->u.v6.sin6_addr, host, sizeof host)) return NKLOOP_ERR_SYSTEM;
        n = snprintf(text, sizeof text, "[%s]:%u", host, (unsigned)ntohs(a->u.v6.sin6_port));
    } else {
        #ifdef NKLOOP_P_POSIX
        struct sockaddr_un un;
        size_t off = offsetof(struct sockaddr_un, sun_path), len = a->len > off ? a->len - off : 0;
        memcpy(&un, &a->u, sizeof un);
        if (len > 0 && un.sun_path[0] == 0) un.sun_path[0] = '@';
        else len = len > 0 ? strlen(un.sun_path) : 0;
        n = snprintf(text, sizeof text, "unix:%.*s", (int)(len < 110 ? len : 110), un.sun_path);
        #else
        return NKLOOP_ERR_UNSUPPORTED;
        #endif
    }
    if (n < 0 || (size_t)n >= cap) return NKLOOP_ERR_INVAL;
    memcpy(out, text, (size_t)n + 1);
    return n;
}

// ---- @interest -------------------------------------------------------------------------------
// Keeps what the backend watches in step with what a stream wants. Nothing else calls the backend's add, mod and del.
static void nkloop_p_close_slot(nkloop* L, uint32_t index, int why);

static int nkloop_p_want(const nkloop_p_slot* slot) {
    int want = 0, handshaking = slot->filtered && slot->filtered->state == NKLOOP_FILTER_HANDSHAKING;
    if (slot->flags & NKLOOP_P_CONNECTING) return slot->fd == NKLOOP_NO_FD ? 0 : NKLOOP_WRITE;
    if (!(slot->flags & NKLOOP_P_EOF_SEEN)) {
        // discarded, or not the user's to pause
        if (slot->flags & (NKLOOP_P_FINISH | NKLOOP_P_LINGER) || handshaking) want = NKLOOP_READ;
        else if (slot->u.proto && !(slot->flags & NKLOOP_P_PAUSED)) want = NKLOOP_READ;
    }
    if (slot->flags & NKLOOP_P_BLOCKED) {
        // a filter that waits for room to answer in cannot take more either
        if (slot->filtered && slot->filtered->w.wire_rx.len == NKLOOP_WIRE_BYTES) want = 0;
        want |= NKLOOP_WRITE;
    }
    return want;
}

static int nkloop_p_watch_set(nkloop* L, uint32_t index, nkloop_p_slot* slot, int want) {
    int r;
    if (slot->flags & NKLOOP_P_UNWATCHED) {
        if (want == 0) return NKLOOP_OK;
        r = L->backend->add(L, index, slot, want);
        if (r == NKLOOP_OK) slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_UNWATCHED);
    } else {
        if (want == slot->interest) return NKLOOP_OK;
        r = L->backend->mod(L, index, slot, want);
    }
    if (r == NKLOOP_OK) slot->interest = (uint8_t)want;
    return r;
}

static void nkloop_p_unwatch(nkloop* L, uint32_t index, nkloop_p_slot* slot) {
    if (slot->flags & NKLOOP_P_UNWATCHED) return;
    L->backend->del(L, index, slot);
    slot->flags |= NKLOOP_P_UNWATCHED;
    slot->interest = 0;
}

static void nkloop_p_interest(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    int r;
    if (slot->flags & NKLOOP_P_CLOSING) return;
    r = nkloop_p_watch_set(L, index, slot, nkloop_p_want(slot));
    if (r < 0) nkloop_p_close_slot(L, index, r);
}

// ---- @closing --------------------------------------------------------------------------------
// A closed slot is stale for its users at once, and retired when no callback is on the stack any more.
static void nkloop_p_close_slot(nkloop* L, uint32_t index, int why) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    if (slot->flags & NKLOOP_P_CLOSING) return;
    if (slot->why == NKLOOP_OK) slot->why = why;
    nkloop_p_attend(L, index, NKLOOP_P_CLOSING);
}

static void nkloop_p_dial_drop(nkloop* L, nkloop_p_dial* d) {
    if (d->filter) d->filter->stop(d->filter_self, NULL);
    if (d->addresses != &d->one) nkloop_p_drop(L, d->addresses, d->count * sizeof *d->addresses);
    nkloop_p_drop(L, d, sizeof *d);
}

static void nkloop_p_filter_drop(nkloop* L, nkloop_p_filtered* f) {
    int i;
    if (!f->stopped) f->filter->stop(f->self, NULL);
    for (i = 0; i < 4; i++) if (f->lent[i]) nkloop_p_unlend(L, f->lent[i]);
    if (f->raw) nkloop_p_unlend(L, f->raw);
    nkloop_p_drop(L, f, sizeof *f);
}

static void nkloop_p_listener_drop(nkloop* L, nkloop_p_slot* slot) {
    nkloop_p_listener* l = slot->u.listener;
    #ifdef NKLOOP_P_POSIX
    if (slot->flags & NKLOOP_P_OWNS_PATH) unlink(l->path);
    #endif
    if (slot->flags & NKLOOP_P_STARVED) L->starved--;
    nkloop_p_drop(L, l, sizeof *l);
}

static void nkloop_p_listener_rest(nkloop* L, uint32_t index, int code);

// A resting listener goes on, or rests again.
static void nkloop_p_listener_wake(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    int r;
    if (!(slot->flags & NKLOOP_P_STARVED)) return;
    slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_STARVED);
    slot->alarm_ms = 0;
    L->starved--;
    if (slot->flags & (NKLOOP_P_PAUSED | NKLOOP_P_CLOSING)) return;
    r = nkloop_p_watch_set(L, index, slot, NKLOOP_READ);
    if (r < 0) nkloop_p_listener_rest(L, index, r);
}

// A file or a slot has become free: listeners that wait for one may go on.
static void nkloop_p_feed_starved(nkloop* L) {
    uint32_t i, n = L->num_slabs << NKLOOP_P_SLAB_SHIFT;
    for (i = 0; i < n && L->starved > 0; i++) {
        if (nkloop_p_at(L, i)->kind == NKLOOP_P_LISTENER) nkloop_p_listener_wake(L, i);
    }
}

static void nkloop_p_retire(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_stream s;
    const nkloop_proto* proto = slot->kind == NKLOOP_P_STREAM ? slot->u.proto : NULL;
    void* self = slot->self;
    int why = slot->why;
    s.id = nkloop_p_id(slot, index);
    nkloop_p_unwatch(L, index, slot);
    nkloop_p_wheel_remove(L, index);
    if (slot->kind == NKLOOP_P_LISTENER) nkloop_p_listener_drop(L, slot);
    if (slot->kind != NKLOOP_P_WATCH && slot->fd != NKLOOP_NO_FD) nkloop_p_os_close(slot->fd);
    if (slot->kind == NKLOOP_P_STREAM) {
        if (slot->flags & NKLOOP_P_CONNECTING) nkloop_p_dial_drop(L, slot->in.dial);
        else if (slot->in.rx) nkloop_p_unlend(L, slot->in.rx);
        while (slot->tx) nkloop_p_chunk_end(L, nkloop_p_queue_shift(slot));
        if (slot->filtered) nkloop_p_filter_drop(L, slot->filtered);
        L->stats.closed++;
    }
    nkloop_p_slot_release(L, index);
    if (proto && proto->on_close) proto->on_close(self, L, s, why);
    if (L->starved) nkloop_p_feed_starved(L);
}

// ---- @sending --------------------------------------------------------------------------------
// The send queue: what is written in a turn is gathered and leaves in one system call at the turn's end.
static void nkloop_p_linger(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    if (slot->flags & NKLOOP_P_EOF_SEEN) { nkloop_p_close_slot(L, index, NKLOOP_OK); return; } // both sides are done
    slot->flags |= NKLOOP_P_LINGER;
    // 1: SHUT_WR, SD_SEND
    if (NETKIT_LOOP_SYS_SHUTDOWN(NKLOOP_P_SOCK(slot->fd), 1) != 0) { nkloop_p_close_slot(L, index,
        NKLOOP_OK); return; }
    if (slot->in.rx && !(slot->flags & NKLOOP_P_IN_CALL)) { // else on_data may be looking at it
        nkloop_p_unlend(L, slot->in.rx);
        slot->in.rx = NULL;
    }
    slot->idle_ms = 0;
    slot->alarm_ms = ((uint32_t)L->now_ms + L->desc.linger_ms) | 1u; // never 0, which means none
    nkloop_p_stream_rearm(L, index);
    nkloop_p_interest(L, index);
}

// After bytes have left: tells the protocol when there is room again, and finishes when all is out.
static void nkloop_p_sent(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_stream s;
    unsigned outer;
    uint64_t left = nkloop_p_queued(slot);
    if (slot->flags & NKLOOP_P_CLOSING) return;
    if (left == 0 && slot->flags & NKLOOP_P_FINISH) {
        if (!(slot->flags & NKLOOP_P_LINGER)) nkloop_p_linger(L, index);
        return;
    }
    if (!(slot->flags & NKLOOP_P_DRAIN) || left > L->desc.tx_bytes / 4) return;
    // flushed by the user, perhaps inside a callback: on_drain comes before the turn ends
    if (L->in_flush || slot->flags & NKLOOP_P_IN_CALL) { nkloop_p_attend(L, index, NKLOOP_P_DIRTY); return; }
    slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_DRAIN);
    if (!slot->u.proto || !slot->u.proto->on_drain) return;
    s.id = nkloop_p_id(slot, index);
    outer = nkloop_p_enter(slot);
    slot->u.proto->on_drain(slot->self, L, s);
    nkloop_p_leave(slot, outer);
}

static void nkloop_p_blocked(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    slot->flags |= NKLOOP_P_BLOCKED;
    if (nkloop_p_queued(slot) > L->desc.tx_bytes / 4) slot->flags |= NKLOOP_P_DRAIN;
    nkloop_p_interest(L, index);
}

// Hands the pieces up to the next file to the kernel, at most NKLOOP_P_IOV of them. *want: how much was offered.
static int64_t nkloop_p_send_pieces(nkloop* L, nkloop_p_slot* slot, uint64_t* want) {
    nkloop_p_iov iov[NKLOOP_P_IOV];
    nkloop_p_chunk* c;
    int count = 0, more;
    size_t n;
    for (c = slot->tx, *want = 0; c && c->kind != NKLOOP_P_FILE && count < NKLOOP_P_IOV; c = c->next) {
        const uint8_t* p;
        if (c->kind == NKLOOP_P_DATA) {
            p = nkloop_p_bytes(c) + c->at;
            n = c->end - c->at;
        } else {
            nkloop_p_ref* r = (nkloop_p_ref*)(void*)c;
            p = r->bytes;
            n = r->left > NKLOOP_P_FLUSH_BYTES ? (size_t)NKLOOP_P_FLUSH_BYTES : (size_t)r->left;
        }
        if (n == 0) continue; // reserved and not used, or an empty reference
        nkloop_p_iov_set(&iov[count++], p, n);
        *want += n;
        if (*want >= NKLOOP_P_FLUSH_BYTES) break;
    }
    // a file of which nothing is left will not push out what waits for it
    more = c && c->kind == NKLOOP_P_FILE && ((nkloop_p_ref*)(void*)c)->left > 0;
    return count ? nkloop_p_os_send(L, slot->fd, iov, count, more) : 0;
}

// The first n bytes have left. Pieces end when all is accounted for: who gives bytes back may write and flush.
static void nkloop_p_consume_sent(nkloop* L, nkloop_p_slot* slot, uint64_t n) {
    nkloop_p_chunk *c, *ended = NULL, **link = &ended;
    slot->tx->queued -= n;
    L->stats.bytes_out += n;
    while ((c = slot->tx) != NULL) {
        nkloop_p_ref* r = (nkloop_p_ref*)(void*)c;
        uint64_t have = c->kind == NKLOOP_P_DATA ? c->end - c->at : r->left;
        if (n < have) {
            if (c->kind == NKLOOP_P_DATA) c->at += (uint32_t)n;
            else if (c->kind == NKLOOP_P_FILE) r->offset += n;
            else r->bytes += n;
            if (c->kind != NKLOOP_P_DATA) r->left -= n;
            break;
        }
        n -= have;
        *link = nkloop_p_queue_shift(slot);
        link = &(*link)->next;
    }
    while (ended) {
        c = ended;
        ended = c->next;
        nkloop_p_chunk_end(L, c);
    }
}

// A file goes by sendfile; where there is none, or the file system has none, a piece of it is read
// into the queue before it.
static int64_t nkloop_p_send_file(nkloop* L, nkloop_p_slot* slot, uint64_t* want) {
    nkloop_p_ref* r = (nkloop_p_ref*)(void*)slot->tx;
    nkloop_p_chunk* c;
    int64_t n;
    *want = r->left < NKLOOP_P_FLUSH_BYTES ? r->left : (uint64_t)NKLOOP_P_FLUSH_BYTES;
    n = nkloop_p_os_sendfile(L, slot->fd, r->file, r->offset, *want);
    if (n != NKLOOP_ERR_UNSUPPORTED) return n;
    if (!(c = nkloop_p_lend(L, NKLOOP_P_LARGE))) return NKLOOP_ERR_NOMEM;
    n = nkloop_p_os_pread(L, r->file, nkloop_p_bytes(c), r->left < c->cap ? (size_t)r->left : c->cap, r->offset);
    if (n < 0) { nkloop_p_unlend(L, c); return n; }
    c->end = (uint32_t)n;
    c->next = slot->tx;
    c->last = slot->tx->last;
    c->queued = slot->tx->queued;
    slot->tx = c;
    r->left -= (uint64_t)n;
    r->offset += (uint64_t)n;
    return nkloop_p_send_pieces(L, slot, want);
}

static void nkloop_p_flush_plain(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    uint64_t total = 0, want = 0;
    while (slot->tx && total < NKLOOP_P_FLUSH_BYTES && !(slot->flags & (NKLOOP_P_CLOSING | NKLOOP_P_BLOCKED))) {
        int is_file = slot->tx->kind == NKLOOP_P_FILE && ((nkloop_p_ref*)(void*)slot->tx)->left > 0;
        int64_t n = is_file ? nkloop_p_send_file(L, slot, &want) : nkloop_p_send_pieces(L, slot, &want);
        if (n == NKLOOP_P_AGAIN) { nkloop_p_blocked(L, index); break; }
        if (n < 0) { nkloop_p_close_slot(L, index, (int)n); return; }
        slot->seen_ms = (uint32_t)L->now_ms;
        nkloop_p_consume_sent(L, slot, (uint64_t)n);
        total += (uint64_t)n;
        // the kernel is full: asking again would cost a call
        if ((uint64_t)n < want) { nkloop_p_blocked(L, index); break; }
    }
    if (slot->tx && !(slot->flags & NKLOOP_P_BLOCKED)) nkloop_p_attend(L, index, NKLOOP_P_DIRTY); // others first
    if (total > 0 || slot->flags & (NKLOOP_P_FINISH | NKLOOP_P_DRAIN)) nkloop_p_sent(L, index);
}

static void nkloop_p_filter_out(nkloop* L, uint32_t index);

static void nkloop_p_flush(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_DIRTY);
    if (slot->flags & (NKLOOP_P_CLOSING | NKLOOP_P_CONNECTING | NKLOOP_P_BLOCKED)) return;
    if (slot->filtered) nkloop_p_filter_out(L, index);
    else nkloop_p_flush_plain(L, index);
}

// The stream for a write of n more bytes, or an error. Sets *index.
static nkloop_p_slot* nkloop_p_writable(nkloop* L, nkloop_stream s, uint64_t n, int* err) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    *err = NKLOOP_OK;
    if (!slot) { *err = NKLOOP_ERR_STALE; return NULL; }
    if (slot->flags & NKLOOP_P_FINISH) { *err = NKLOOP_ERR_CLOSED; return NULL; }
    if (n > L->desc.tx_bytes) { // no amount of waiting would help
        *err = NKLOOP_ERR_INVAL;
        return NULL;
    }
    if (nkloop_p_queued(slot) > L->desc.tx_bytes - n) {
        slot->flags |= NKLOOP_P_DRAIN;
        *err = NKLOOP_ERR_FULL;
        return NULL;
    }
    return slot;
}

NETKIT_LOOP_API int nkloop_write(nkloop* L, nkloop_stream s, const void* bytes, size_t n) {
    const uint8_t* p = (const uint8_t*)bytes;
    nkloop_p_chunk *tail, *fresh = NULL, *fresh_last = NULL, *c;
    size_t first = 0, at, k;
    int err;
    nkloop_p_slot* slot = nkloop_p_writable(L, s, n, &err);
    if (!slot) return err;
    if (n == 0) return NKLOOP_OK;
    tail = slot->tx ? slot->tx->last : NULL;
    if (tail && tail->kind == NKLOOP_P_DATA) first = tail->cap - tail->end;
    if (first > n) first = n;
    for (at = first; at < n; at += k) { // what does not fit goes into new pieces: all of them, or nothing is written
        c = nkloop_p_lend(L, n - at > 4096 - sizeof *c ? NKLOOP_P_LARGE : NKLOOP_P_PAGE);
        if (!c) {
            while (fresh) { c = fresh->next; nkloop_p_unlend(L, fresh); fresh = c; }
            return NKLOOP_ERR_NOMEM;
        }
        k = n - at < c->cap ? n - at : c->cap;
        memcpy(nkloop_p_bytes(c), p + at, k);
        c->end = (uint32_t)k;
        if (fresh) fresh_last->next = c; else fresh = c;
        fresh_last = c;
    }
    if (first) {
        memcpy(nkloop_p_bytes(tail) + tail->end, p, first);
        tail->end += (uint32_t)first;
    }
    for (; fresh; fresh = c) {
        c = fresh->next;
        fresh->next = NULL;
        nkloop_p_queue_append(slot, fresh);
    }
    slot->tx->queued += n;
    nkloop_p_attend(L, (uint32_t)s.id, NKLOOP_P_DIRTY);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_reserve(nkloop* L, nkloop_stream s, size_t n, uint8_t** out) {
    nkloop_p_chunk* tail;
    int err;
    nkloop_p_slot* slot = nkloop_p_writable(L, s, n, &err);
    if (!slot) return err;
    if (n > NKLOOP_RESERVE_MAX) return NKLOOP_ERR_INVAL;
    tail = slot->tx ? slot->tx->last : NULL;
    if (!tail || tail->kind != NKLOOP_P_DATA || tail->cap - tail->end < n) {
        if (!(tail = nkloop_p_lend(L, NKLOOP_P_PAGE))) return NKLOOP_ERR_NOMEM;
        nkloop_p_queue_append(slot, tail);
    }
    *out = nkloop_p_bytes(tail) + tail->end;
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_commit(nkloop* L, nkloop_stream s, size_t used) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    nkloop_p_chunk* tail = slot && slot->tx ? slot->tx->last : NULL;
    if (!slot) return NKLOOP_ERR_STALE;
    NETKIT_LOOP_ASSERT(tail && tail->kind == NKLOOP_P_DATA && used <= tail->cap - tail->end);
    if (!tail) return NKLOOP_ERR_INVAL;
    tail->end += (uint32_t)used;
    slot->tx->queued += used;
    nkloop_p_attend(L, (uint32_t)s.id, NKLOOP_P_DIRTY);
    return NKLOOP_OK;
}

static int nkloop_p_write_ref(nkloop* L, nkloop_stream s, const nkloop_p_ref* what, uint8_t kind) {
    int err;
    nkloop_p_slot* slot = nkloop_p_writable(L, s, 1, &err);
    nkloop_p_ref* r;
    nkloop_p_chunk head;
    if (!slot) return err;
    r = (nkloop_p_ref*)(void*)nkloop_p_lend(L, NKLOOP_P_SMALL);
    if (!r) return NKLOOP_ERR_NOMEM;
    head = r->c;
    *r = *what;
    r->c = head;
    r->c.kind = kind;
    nkloop_p_queue_append(slot, &r->c);
    slot->tx->queued += what->left;
    nkloop_p_attend(L, (uint32_t)s.id, NKLOOP_P_DIRTY);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_write_ref(nkloop* L, nkloop_stream s, const void* bytes, size_t n,
                                     void (*release_fn)(void* user), void* release_user) {
    nkloop_p_ref what;
    memset(&what, 0, sizeof what);
    what.bytes = (const uint8_t*)bytes;
    what.left = n;
    what.release_fn = release_fn;
    what.release_user = release_user;
    return nkloop_p_write_ref(L, s, &what, NKLOOP_P_REF);
}

NETKIT_LOOP_API int nkloop_write_file(nkloop* L, nkloop_stream s, nkloop_fd file, uint64_t offset,
                                      uint64_t n, void (*release_fn)(void* user), void* release_user) {
    nkloop_p_ref what;
    if (!nkloop_p_os_is_file(file)) return NKLOOP_ERR_INVAL;
    if (offset > (uint64_t)INT64_MAX || n > (uint64_t)INT64_MAX - offset) return NKLOOP_ERR_INVAL;
    memset(&what, 0, sizeof what);
    what.file = file;
    what.offset = offset;
    what.left = n;
    what.release_fn = release_fn;
    what.release_user = release_user;
    return nkloop_p_write_ref(L, s, &what, NKLOOP_P_FILE);
}

// ---- @filter ---------------------------------------------------------------------------------
// Between socket and protocol, when there is a filter: four buffers, lent while they hold bytes.
// The filter changes bytes, this room carries them.
static size_t nkloop_p_offer(nkloop* L, uint32_t index, uint8_t* p, size_t n);
static void nkloop_p_tell_eof(nkloop* L, uint32_t index);

static nkloop_buf* nkloop_p_wire_buf(nkloop_p_filtered* f, int i) {
    switch (i) {
        case 0:  return &f->w.wire_rx;
        case 1:  return &f->w.plain_rx;
        case 2:  return &f->w.plain_tx;
        default: return &f->w.wire_tx;
    }
}

static int nkloop_p_wire_lend(nkloop* L, nkloop_p_filtered* f) {
    int i;
    for (i = 0; i < 4; i++) {
        nkloop_buf* b = nkloop_p_wire_buf(f, i);
        if (f->lent[i]) continue;
        if (!(f->lent[i] = nkloop_p_lend(L, NKLOOP_P_LARGE))) return NKLOOP_ERR_NOMEM;
        b->data = nkloop_p_bytes(f->lent[i]);
        b->len = 0;
        b->cap = NKLOOP_WIRE_BYTES;
    }
    return NKLOOP_OK;
}

static void nkloop_p_wire_return(nkloop* L, nkloop_p_filtered* f) {
    int i;
    for (i = 0; i < 4; i++) {
        nkloop_buf* b = nkloop_p_wire_buf(f, i);
        if (!f->lent[i] || b->len > 0 || (f->held && b == &f->w.plain_rx)) continue;
        nkloop_p_unlend(L, f->lent[i]);
        f->lent[i] = NULL;
        b->data = NULL;
        b->cap = 0;
    }
}

// Takes note of a filter's result; < 0: the filter has given up.
static int nkloop_p_filter_result(nkloop_p_filtered* f, int r) {
    if (r < 0) return r;
    if (r == NKLOOP_FILTER_EOF) f->got_eof = 1;
    else f->state = r;
    return NKLOOP_OK;
}

// Sends wire_tx. > 0 something went, 0 nothing to do or blocked, < 0 the stream is being closed.
static int nkloop_p_wire_send(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_buf* b = &slot->filtered->w.wire_tx;
    nkloop_p_iov iov;
    int64_t n;
    if (b->len == 0 || slot->flags & NKLOOP_P_BLOCKED) return 0;
    nkloop_p_iov_set(&iov, b->data, b->len);
    n = nkloop_p_os_send(L, slot->fd, &iov, 1, 0);
    if (n == NKLOOP_P_AGAIN) { nkloop_p_blocked(L, index); return 0; }
    if (n < 0) { nkloop_p_close_slot(L, index, (int)n); return -1; }
    slot->seen_ms = (uint32_t)L->now_ms;
    L->stats.bytes_out += (uint64_t)n;
    memmove(b->data, b->data + n, b->len - (size_t)n);
    b->len -= (size_t)n;
    if (b->len > 0) nkloop_p_blocked(L, index);
    return n > 0;
}

// Moves queued bytes into plain_tx. < 0: a file could not be read.
static int nkloop_p_plain_fill(nkloop* L, nkloop_p_slot* slot) {
    nkloop_buf* b = &slot->filtered->w.plain_tx;
    while (slot->tx && b->len < b->cap) {
        nkloop_p_chunk* c = slot->tx;
        nkloop_p_ref* r = (nkloop_p_ref*)(void*)c;
        uint64_t have = c->kind == NKLOOP_P_DATA ? c->end - c->at : r->left;
        size_t n = have < b->cap - b->len ? (size_t)have : b->cap - b->len;
        if (c->kind == NKLOOP_P_FILE && n > 0) {
            int64_t got = nkloop_p_os_pread(L, r->file, b->data + b->len, n, r->offset);
            if (got < 0) return (int)got;
            n = (size_t)got;
        } else if (n > 0) {
            memcpy(b->data + b->len, c->kind == NKLOOP_P_DATA ? nkloop_p_bytes(c) + c->at : r->bytes, n);
        }
        b->len += n;
        L->stats.bytes_out -= n; // counted again, as wire bytes
        nkloop_p_consume_sent(L, slot, n);
    }
    return NKLOOP_OK;
}

// The filter refused to go on: what it has to say to the peer (an alert) still goes out, as after nkloop_finish.
static void nkloop_p_filter_failed(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_filtered* f = slot->filtered;
    if (slot->why == NKLOOP_OK) slot->why = NKLOOP_ERR_FILTER;
    slot->flags = (uint16_t)((slot->flags | NKLOOP_P_FINISH) & ~NKLOOP_P_PAUSED);
    f->w.wire_rx.len = f->w.plain_rx.len = f->w.plain_tx.len = 0;
    if (!f->stopped) { f->stopped = 1; f->filter->stop(f->self, NULL); }
    while (slot->tx) nkloop_p_chunk_end(L, nkloop_p_queue_shift(slot));
    nkloop_p_attend(L, index, NKLOOP_P_DIRTY);
    nkloop_p_interest(L, index);
}

// One call each of out and, at the end, of stop. < 0: the filter has given up.
static int nkloop_p_filter_push(nkloop_p_slot* slot) {
    nkloop_p_filtered* f = slot->filtered;
    int r = NKLOOP_OK;
    if (f->stopped) return r;
    if (f->w.plain_tx.len > 0 || f->was_full) r = nkloop_p_filter_result(f, f->filter->out(f->self, &f->w));
    if (r < 0) return r;
    // its last words need room
    if (slot->flags & NKLOOP_P_FINISH && f->w.plain_tx.len == 0 && !slot->tx
        && f->w.wire_tx.len <= f->w.wire_tx.cap / 2) {
        f->stopped = 1;
        f->filter->stop(f->self, &f->w);
    }
    return r;
}

static void nkloop_p_filter_out(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_filtered* f = slot->filtered;
    int moved, r, sent = 0, rounds = 0;
    if (nkloop_p_wire_lend(L, f) < 0) { nkloop_p_close_slot(L, index, NKLOOP_ERR_NOMEM); return; }
    do {
        size_t had_plain, had_wire;
        if (rounds++ == (int)NKLOOP_P_FLUSH_BYTES / (int)NKLOOP_WIRE_BYTES) { // a peer that reads as fast as we write
            nkloop_p_attend(L, index, NKLOOP_P_DIRTY); // others first
            break;
        }
        if ((r = nkloop_p_plain_fill(L, slot)) < 0) { nkloop_p_close_slot(L, index, r); return; }
        had_plain = f->w.plain_tx.len;
        had_wire = f->w.wire_tx.len;
        if (nkloop_p_filter_push(slot) < 0) { nkloop_p_filter_failed(L, index); return; }
        moved = f->w.plain_tx.len != had_plain || f->w.wire_tx.len != had_wire;
        f->was_full = f->w.wire_tx.len == f->w.wire_tx.cap;
        if ((r = nkloop_p_wire_send(L, index)) < 0) return;
        sent |= r > 0;
    } while ((moved || r > 0) && !(slot->flags & (NKLOOP_P_BLOCKED | NKLOOP_P_CLOSING)));
    // it may have stopped reading because it had no room to answer
    if (sent && f->w.wire_rx.len > 0 && !f->stopped) nkloop_p_attend(L, index, NKLOOP_P_DELIVER);
    nkloop_p_wire_return(L, f);
    nkloop_p_sent(L, index);
}

// Runs wire_rx through the filter and offers what comes out, until neither moves. What a paused
// protocol has no room for waits in plain_rx.
static void nkloop_p_filter_in(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_filtered* f = slot->filtered;
    nkloop_buf* plain = &f->w.plain_rx;
    size_t had_wire, got, taken;
    do {
        if (slot->flags & NKLOOP_P_CLOSING || f->stopped || (f->got_eof && plain->len == 0)) break;
        if (slot->flags & NKLOOP_P_PAUSED && f->state != NKLOOP_FILTER_HANDSHAKING) break;
        if (nkloop_p_wire_lend(L, f) < 0) { nkloop_p_close_slot(L, index, NKLOOP_ERR_NOMEM); return; }
        had_wire = f->w.wire_rx.len;
        if (plain->len == 0 && nkloop_p_filter_result(f, f->filter->in(f->self, &f->w)) < 0) {
            nkloop_p_filter_failed(L, index);
            return;
        }
        if ((got = plain->len) == 0) continue;
        plain->len = 0;
        f->held = 1;
        taken = nkloop_p_offer(L, index, plain->data, got);
        f->held = 0;
        if (taken == got) continue;
        memmove(plain->data, plain->data + taken, got - taken);
        plain->len = got - taken;
        break;
    } while (got > 0 || f->w.wire_rx.len != had_wire);
    if (slot->flags & NKLOOP_P_CLOSING) return;
    nkloop_p_filter_out(L, index); // handshake answers, and early data that waited for it
    if (f->got_eof && !(slot->flags & (NKLOOP_P_EOF_SEEN | NKLOOP_P_CLOSING))) {
        slot->flags |= NKLOOP_P_EOF_SEEN;
        nkloop_p_tell_eof(L, index);
    }
    nkloop_p_interest(L, index);
}

// Raw bytes that were read before the filter was set go first.
static void nkloop_p_filter_raw(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_filtered* f = slot->filtered;
    nkloop_buf* wire = &f->w.wire_rx;
    if (f->raw_due) {
        f->raw_due = 0;
        f->raw = slot->in.rx;
        slot->in.rx = NULL;
    }
    while (f->raw && !(slot->flags & NKLOOP_P_CLOSING)) {
        nkloop_p_chunk* c = f->raw;
        size_t n;
        if (nkloop_p_wire_lend(L, f) < 0) { nkloop_p_close_slot(L, index, NKLOOP_ERR_NOMEM); return; }
        n = wire->cap - wire->len < c->end - c->at ? wire->cap - wire->len : c->end - c->at;
        if (n == 0) return; // paused: the rest waits
        memcpy(wire->data + wire->len, nkloop_p_bytes(c) + c->at, n);
        wire->len += n;
        c->at += (uint32_t)n;
        if (c->at == c->end) { f->raw = NULL; nkloop_p_unlend(L, c); }
        nkloop_p_filter_in(L, index);
    }
}

static int nkloop_p_filter_attach(nkloop* L, uint32_t index, const nkloop_filter* filter, void* self) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_filtered* f = (nkloop_p_filtered*)nkloop_alloc(L, NULL, 0, sizeof *f);
    if (!f) return NKLOOP_ERR_NOMEM;
    memset(f, 0, sizeof *f);
    f->filter = filter;
    f->self = self;
    f->state = NKLOOP_FILTER_HANDSHAKING;
    if (nkloop_p_wire_lend(L, f) < 0) { f->stopped = 1; nkloop_p_filter_drop(L, f); return NKLOOP_ERR_NOMEM; }
    slot->filtered = f;
    if (nkloop_p_filter_result(f, filter->start(self, &f->w)) < 0) { nkloop_p_filter_failed(L,
        index); return NKLOOP_OK; }
    nkloop_p_wire_return(L, f);
    nkloop_p_attend(L, index, NKLOOP_P_DIRTY);
    nkloop_p_interest(L, index);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_set_filter(nkloop* L, nkloop_stream s, const nkloop_filter* filter, void* self) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    int r;
    if (!slot) return NKLOOP_ERR_STALE;
    if (!filter || slot->filtered || slot->flags & (NKLOOP_P_CONNECTING | NKLOOP_P_FINISH)) return NKLOOP_ERR_INVAL;
    if (slot->tx) nkloop_p_flush_plain(L, (uint32_t)s.id); // what was written before goes out as it is
    if (slot->flags & NKLOOP_P_CLOSING) return NKLOOP_ERR_STALE;
    if (slot->tx) return NKLOOP_ERR_FULL;
    if ((r = nkloop_p_filter_attach(L, (uint32_t)s.id, filter, self)) < 0) return r;
    slot->filtered->raw_due = 1;
    nkloop_p_attend(L, (uint32_t)s.id, NKLOOP_P_DELIVER);
    return NKLOOP_OK;
}

NETKIT_LOOP_API void* nkloop_filter_self(nkloop* L, nkloop_stream s, const nkloop_filter* filter) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    return slot && slot->filtered && slot->filtered->filter == filter && !slot->filtered->stopped
        ? slot->filtered->self : NULL;
}

// ---- @reading --------------------------------------------------------------------------------
// From the socket to the protocol. One buffer serves all streams; only a tail that nobody wanted
// yet is kept, in a lent chunk.

// Calls on_data until it stops eating, hands over, pauses or closes. Returns the bytes consumed.
static size_t nkloop_p_call_data(nkloop* L, uint32_t index, uint8_t* p, size_t n) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_filtered* filtered = slot->filtered;
    nkloop_stream s;
    size_t eaten = 0, used;
    unsigned outer;
    s.id = nkloop_p_id(slot, index);
    while (eaten < n && !(slot->flags & (NKLOOP_P_CLOSING | NKLOOP_P_PAUSED)) && slot->filtered == filtered) {
        const nkloop_proto* proto = slot->u.proto;
        void* self = slot->self;
        if (slot->flags & NKLOOP_P_FINISH) return n; // nobody listens any more
        if (!proto) break;
        outer = nkloop_p_enter(slot);
        used = proto->on_data(self, L, s, p + eaten, n - eaten);
        nkloop_p_leave(slot, outer);
        NETKIT_LOOP_ASSERT(used <= n - eaten);
        eaten += used;
        if (used == 0 && slot->u.proto == proto && slot->self == self) break;
    }
    return eaten;
}

// Makes room behind the tail's bytes: moves them down, or into a larger chunk. At most rx_bytes are ever kept.
static nkloop_p_chunk* nkloop_p_tail_room(nkloop* L, nkloop_p_slot* slot, size_t more) {
    nkloop_p_chunk *c = slot->in.rx, *grown;
    size_t have = c ? c->end - c->at : 0;
    int size_class;
    if (have + more > L->desc.rx_bytes) return NULL;
    if (c && c->cap >= have + more) {
        if (c->cap - c->end < more) {
            memmove(nkloop_p_bytes(c), nkloop_p_bytes(c) + c->at, have);
            c->at = 0;
            c->end = (uint32_t)have;
        }
        return c;
    }
    for (size_class = NKLOOP_P_PAGE; size_class < NKLOOP_P_FULL_RX; size_class++) {
        if (nkloop_p_class_bytes(L, size_class) >= have + more + sizeof *c) break;
    }
    if (!(grown = nkloop_p_lend(L, size_class))) return NULL;
    if (have) memcpy(nkloop_p_bytes(grown), nkloop_p_bytes(c) + c->at, have);
    grown->end = (uint32_t)have;
    if (c) nkloop_p_unlend(L, c);
    slot->in.rx = grown;
    return grown;
}

// Nobody wants what is kept, and more does not fit. Raw bytes have not been offered to their filter yet.
static int nkloop_p_is_rx_full(nkloop* L, const nkloop_p_slot* slot) {
    const nkloop_p_chunk* c = slot->in.rx;
    if (!c || c->end - c->at < L->desc.rx_bytes || !slot->u.proto) return 0;
    return !(slot->flags & (NKLOOP_P_PAUSED | NKLOOP_P_FINISH)) && !(slot->filtered && slot->filtered->raw_due);
}

// Offers what is kept. The chunk goes back when it is empty.
static void nkloop_p_deliver(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_chunk* c = slot->in.rx;
    if (!c || slot->flags & NKLOOP_P_CONNECTING) return;
    c->at += (uint32_t)nkloop_p_call_data(L, index, nkloop_p_bytes(c) + c->at, c->end - c->at);
    if (c->at == c->end) {
        slot->in.rx = NULL;
        nkloop_p_unlend(L, c);
    } else if (nkloop_p_is_rx_full(L, slot)) {
        nkloop_p_close_slot(L, index, NKLOOP_ERR_RX_FULL);
    }
}

// New bytes in somebody's buffer: straight to the protocol, keeping what it leaves; or behind what
// was left before. Returns how many found a place: less than n only if the stream is paused or closing.
static size_t nkloop_p_offer(nkloop* L, uint32_t index, uint8_t* p, size_t n) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_chunk* c = slot->in.rx;
    size_t at = 0, had, k;
    if (!c) at = nkloop_p_call_data(L, index, p, n);
    for (; at < n && !(slot->flags & NKLOOP_P_CLOSING); at += k) {
        if (nkloop_p_is_rx_full(L, slot)) { nkloop_p_close_slot(L, index, NKLOOP_ERR_RX_FULL); break; }
        had = slot->in.rx ? slot->in.rx->end - slot->in.rx->at : 0;
        k = n - at < L->desc.rx_bytes - had ? n - at : L->desc.rx_bytes - had;
        if (k == 0) break;
        if (!(c = nkloop_p_tail_room(L, slot, k))) { nkloop_p_close_slot(L, index, NKLOOP_ERR_NOMEM); break; }
        memcpy(nkloop_p_bytes(c) + c->end, p + at, k);
        c->end += (uint32_t)k;
        if (had) nkloop_p_deliver(L, index); // else it has just refused them
    }
    if (nkloop_p_is_rx_full(L, slot)) nkloop_p_close_slot(L, index, NKLOOP_ERR_RX_FULL);
    return at;
}

static void nkloop_p_tell_eof(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_stream s;
    unsigned outer;
    if (slot->flags & (NKLOOP_P_CLOSING | NKLOOP_P_EOF_TOLD)) return;
    if (slot->flags & NKLOOP_P_LINGER) { nkloop_p_close_slot(L, index, NKLOOP_OK); return; }
    if (slot->flags & NKLOOP_P_FINISH) return; // nobody listens any more; the rest of the queue goes out first
    if (slot->flags & NKLOOP_P_PAUSED && (slot->in.rx || slot->filtered)) return; // after the bytes before it
    if (!slot->u.proto) return; // told when there is one
    slot->flags |= NKLOOP_P_EOF_TOLD;
    s.id = nkloop_p_id(slot, index);
    if (slot->u.proto->on_eof) {
        outer = nkloop_p_enter(slot);
        slot->u.proto->on_eof(slot->self, L, s);
        nkloop_p_leave(slot, outer);
    } else {
        nkloop_finish(L, s);
        if (slot->why == NKLOOP_OK) slot->why = NKLOOP_ERR_CLOSED;
    }
}

// End of the peer's bytes, or an error instead of bytes.
static void nkloop_p_read_end(nkloop* L, uint32_t index, int64_t n) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    if (n == NKLOOP_P_AGAIN) return;
    if (n < 0) { nkloop_p_close_slot(L, index, (int)n); return; }
    slot->flags |= NKLOOP_P_EOF_SEEN;
    // Without the filter's own farewell the bytes may have been cut off by anybody.
    if (slot->filtered && !slot->filtered->got_eof && !slot->filtered->stopped) {
        nkloop_p_close_slot(L, index, NKLOOP_ERR_CLOSED);
    }
    nkloop_p_tell_eof(L, index);
    nkloop_p_interest(L, index);
}

static void nkloop_p_read_filtered(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_filtered* f = slot->filtered;
    nkloop_buf* b = &f->w.wire_rx;
    int64_t n;
    if (f->raw_due || f->raw) nkloop_p_filter_raw(L, index);
    if (slot->flags & NKLOOP_P_CLOSING || f->stopped) return;
    if (nkloop_p_wire_lend(L, f) < 0) { nkloop_p_close_slot(L, index, NKLOOP_ERR_NOMEM); return; }
    // the filter can do nothing with a full buffer
    if (b->len == b->cap) { nkloop_p_close_slot(L, index, NKLOOP_ERR_RX_FULL); return; }
    n = nkloop_p_os_recv(L, slot->fd, b->data + b->len, b->cap - b->len);
    if (n > 0) {
        slot->seen_ms = (uint32_t)L->now_ms;
        L->stats.bytes_in += (uint64_t)n;
        b->len += (size_t)n;
        nkloop_p_filter_in(L, index);
    } else {
        nkloop_p_wire_return(L, f);
        nkloop_p_read_end(L, index, n);
    }
}

// One recv: a short one says that the socket is empty, a full one that the backend will call again after the others.
static void nkloop_p_read(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_chunk* c = slot->in.rx;
    uint8_t* to = L->rx_buf;
    size_t room = L->desc.read_quantum;
    int64_t n;
    if (slot->filtered && !slot->filtered->stopped) { nkloop_p_read_filtered(L, index); return; }
    if (c && !(slot->flags & NKLOOP_P_FINISH)) {
        if (c->end - c->at >= L->desc.rx_bytes) { nkloop_p_close_slot(L, index, NKLOOP_ERR_RX_FULL); return; }
        if (!(c = nkloop_p_tail_room(L, slot, 1))) { nkloop_p_close_slot(L, index, NKLOOP_ERR_NOMEM); return; }
        to = nkloop_p_bytes(c) + c->end;
        room = c->cap - c->end;
        if (room > L->desc.rx_bytes - (c->end - c->at)) room = L->desc.rx_bytes - (c->end - c->at);
    }
    n = nkloop_p_os_recv(L, slot->fd, to, room);
    if (n <= 0) { nkloop_p_read_end(L, index, n); return; }
    L->stats.bytes_in += (uint64_t)n;
    if (slot->flags & NKLOOP_P_FINISH) return;
    slot->seen_ms = (uint32_t)L->now_ms;
    if (to == L->rx_buf) {
        nkloop_p_offer(L, index, to, (size_t)n);
    } else {
        c->end += (uint32_t)n;
        nkloop_p_deliver(L, index);
    }
}

// Nothing more can come and nothing is asked for, or an error is waiting.
static void nkloop_p_hangup(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    int e = 0;
    socklen_t len = (socklen_t)sizeof e;
    if (slot->flags & NKLOOP_P_BLOCKED) slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_BLOCKED);
    if (getsockopt(NKLOOP_P_SOCK(slot->fd), SOL_SOCKET, SO_ERROR, (char*)&e, &len) == 0 && e != 0) {
        int code = nkloop_p_os_code(e);
        L->os_error = e;
        nkloop_p_close_slot(L, index, code < 0 && code != NKLOOP_P_AGAIN ? code : NKLOOP_ERR_RESET);
    } else if (slot->tx || slot->filtered) {
        nkloop_p_flush(L, index); // learns the error by sending
        if (!(slot->flags & NKLOOP_P_CLOSING)) nkloop_p_unwatch(L, index, slot);
    } else {
        nkloop_p_unwatch(L, index, slot); // a level-triggered hang-up would wake us for ever
    }
}

// After a pause, or for a new owner of the slot: what was kept, then the end if it had come.
static void nkloop_p_redeliver(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    if (slot->flags & NKLOOP_P_CONNECTING) return;
    if (slot->filtered) nkloop_p_filter_raw(L, index);
    nkloop_p_deliver(L, index);
    // it may hold bytes back
    if (slot->filtered && !(slot->flags & (NKLOOP_P_CLOSING | NKLOOP_P_FINISH))) nkloop_p_filter_in(L, index);
    if (slot->flags & NKLOOP_P_EOF_SEEN) nkloop_p_tell_eof(L, index);
}

// ---- @listen ---------------------------------------------------------------------------------
// Listening sockets. When no file or slot is left the listener rests: connections wait in the
// backlog and nothing spins.
static int nkloop_p_accepted(nkloop* L, nkloop_p_listener* l, nkloop_fd fd) {
    nkloop_stream s;
    nkloop_p_slot* slot;
    uint32_t index;
    int on = 1, r = nkloop_p_slot_open(L, NKLOOP_P_STREAM, fd, &index);
    if (r < 0) return r;
    slot = nkloop_p_at(L, index);
    s.id = nkloop_p_id(slot, index);
    if (!l->is_unix && !l->disable_nodelay) setsockopt(NKLOOP_P_SOCK(fd), IPPROTO_TCP, TCP_NODELAY,
                                                       (const char*)&on, sizeof on);
    L->stats.accepted++;
    l->on_accept(l->user, L, s);
    if (slot->flags & NKLOOP_P_CLOSING) return NKLOOP_OK;
    if (!slot->u.proto) nkloop_close(L, s);
    else nkloop_p_interest(L, index);
    return NKLOOP_OK;
}

// code: why accepting failed. Slots come back with the next close; files may also be closed by
// others: look again soon. Allocates nothing: the slot's own timer does it.
static void nkloop_p_listener_rest(nkloop* L, uint32_t index, int code) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    if (slot->flags & (NKLOOP_P_STARVED | NKLOOP_P_CLOSING)) return;
    slot->flags |= NKLOOP_P_STARVED;
    L->starved++;
    L->stats.accept_pauses++;
    nkloop_p_unwatch(L, index, slot);
    slot->alarm_ms = ((uint32_t)L->now_ms + NKLOOP_P_ACCEPT_PAUSE_MS) | 1u; // never 0, which means none
    nkloop_p_stream_rearm(L, index);
    nkloop_log(L, NKLOOP_LOG_WARN, "accept", nkloop_strerror(code));
}

static void nkloop_p_accept(nkloop* L, uint32_t index) {
    int i, died = 0;
    for (i = 0; i < NKLOOP_P_ACCEPTS; i++) {
        nkloop_p_slot* slot = nkloop_p_at(L, index);
        nkloop_fd fd = NKLOOP_NO_FD;
        int r;
        if (slot->flags & (NKLOOP_P_CLOSING | NKLOOP_P_PAUSED | NKLOOP_P_STARVED)) return;
        if (L->open_slots >= L->desc.max_streams) { nkloop_p_listener_rest(L, index, NKLOOP_ERR_LIMIT); return; }
        r = nkloop_p_os_accept(L, slot->fd, &fd);
        if (r == NKLOOP_P_AGAIN) return;
        if (r == NKLOOP_ERR_LIMIT || r == NKLOOP_ERR_NOMEM) { nkloop_p_listener_rest(L, index, r); return; }
        if (r < 0) { died++; continue; } // that connection died in the queue
        r = nkloop_p_accepted(L, slot->u.listener, fd);
        if (r < 0) { nkloop_p_os_close(fd); nkloop_p_listener_rest(L, index, r); return; }
    }
    // not one: the listening socket itself is broken, and would call us again at once
    if (died == NKLOOP_P_ACCEPTS) nkloop_p_listener_rest(L, index, NKLOOP_ERR_SYSTEM);
}

// Binds; a Unix socket's file that nobody listens on any more is removed first.
static int nkloop_p_bind(nkloop* L, nkloop_fd fd, const nkloop_p_sockaddr* a, const nkloop_listen_desc* d) {
    int r = NETKIT_LOOP_SYS_BIND(NKLOOP_P_SOCK(fd), &a->u.any, (socklen_t)a->len) == 0
        ? NKLOOP_OK : nkloop_p_os_fail(L);
    if (r == NKLOOP_ERR_REFUSED) r = NKLOOP_ERR_ADDRESS; // ENOENT: no such directory
    #ifdef NKLOOP_P_POSIX
    if (a->u.any.sa_family == AF_UNIX && d->address[5] != '@') {
        nkloop_fd probe = NKLOOP_NO_FD;
        struct stat st;
        int dead = 0;
        if (r == NKLOOP_ERR_IN_USE && nkloop_p_os_socket(L, AF_UNIX, &probe) == NKLOOP_OK) {
            // connecting to an ordinary file is refused as well, and that is not ours to remove
            dead = NETKIT_LOOP_SYS_CONNECT((int)probe, &a->u.any, (socklen_t)a->len) != 0 && errno == ECONNREFUSED
                && lstat(d->address + 5, &st) == 0 && S_ISSOCK(st.st_mode);
            nkloop_p_os_close(probe);
        }
        if (dead && unlink(d->address + 5) == 0) {
            r = NETKIT_LOOP_SYS_BIND((int)fd, &a->u.any, (socklen_t)a->len) == 0 ? NKLOOP_OK : nkloop_p_os_fail(L);
        }
        if (r == NKLOOP_OK && d->unix_mode && chmod(d->address + 5, (mode_t)d->unix_mode) != 0) {
            r = nkloop_p_os_fail(L);
            unlink(d->address + 5);
        }
    }
    #else
    (void)d;
    #endif
    return r;
}

static void nkloop_p_listen_options(nkloop_fd fd, int family, const nkloop_listen_desc* d) {
    int on = 1, off = 0;
    #ifndef NKLOOP_P_POSIX // there SO_REUSEADDR would let anybody steal the port
    if (!d->reuse_port) setsockopt(NKLOOP_P_SOCK(fd), SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (const char*)&on, sizeof on);
    else setsockopt(NKLOOP_P_SOCK(fd), SOL_SOCKET, SO_REUSEADDR, (const char*)&on, sizeof on);
    #else
    setsockopt(NKLOOP_P_SOCK(fd), SOL_SOCKET, SO_REUSEADDR, (const char*)&on, sizeof on);
    #ifdef SO_REUSEPORT
    if (d->reuse_port) setsockopt(NKLOOP_P_SOCK(fd), SOL_SOCKET, SO_REUSEPORT, (const char*)&on, sizeof on);
    #endif
    #endif
    if (family == AF_INET6) setsockopt(NKLOOP_P_SOCK(fd), IPPROTO_IPV6, IPV6_V6ONLY,
                                       (const char*)(d->ipv6_only ? &on : &off), sizeof on);
}

// Takes back what nkloop_p_bind did.
static void nkloop_p_unbind(const nkloop_listen_desc* d, const nkloop_p_sockaddr* a, nkloop_fd fd) {
    #ifdef NKLOOP_P_POSIX
    if (a->u.any.sa_family == AF_UNIX && d->address[5] != '@') unlink(d->address + 5);
    #else
    (void)d; (void)a;
    #endif
    nkloop_p_os_close(fd);
}

static int nkloop_p_listen_socket(nkloop* L, const nkloop_listen_desc* d, nkloop_p_sockaddr* a, nkloop_fd* out) {
    char host[256];
    uint16_t port;
    int r = nkloop_p_address_parse(d->address, a, host, &port);
    if (r == NKLOOP_ERR_RESOLVE) return NKLOOP_ERR_ADDRESS; // a server says by number where it listens
    if (r < 0 || (r = nkloop_p_os_socket(L, a->u.any.sa_family, out)) < 0) return r;
    nkloop_p_listen_options(*out, a->u.any.sa_family, d);
    if ((r = nkloop_p_bind(L, *out, a, d)) < 0) { nkloop_p_os_close(*out); return r; }
    if (NETKIT_LOOP_SYS_LISTEN(NKLOOP_P_SOCK(*out), (int)(d->backlog ? d->backlog : 4096)) != 0) {
        r = nkloop_p_os_fail(L);
        nkloop_p_unbind(d, a, *out);
    }
    return r;
}

static int nkloop_p_sockname(nkloop* L, nkloop_fd fd, int peer, nkloop_p_sockaddr* a) {
    socklen_t len = (socklen_t)sizeof a->u;
    memset(a, 0, sizeof *a);
    if ((peer ? getpeername(NKLOOP_P_SOCK(fd), &a->u.any, &len)
              : getsockname(NKLOOP_P_SOCK(fd), &a->u.any, &len)) != 0) return nkloop_p_os_fail(L);
    a->len = (uint32_t)len;
    return NKLOOP_OK;
}

static nkloop_p_listener* nkloop_p_listener_new(nkloop* L, const nkloop_listen_desc* d) {
    nkloop_p_listener* l = (nkloop_p_listener*)nkloop_alloc(L, NULL, 0, sizeof *l);
    if (!l) return NULL;
    memset(l, 0, sizeof *l);
    l->on_accept = d->on_accept;
    l->user = d->user;
    l->disable_nodelay = d->disable_nodelay;
    return l;
}

NETKIT_LOOP_API int nkloop_listen(nkloop* L, const nkloop_listen_desc* desc, nkloop_listener* out) {
    nkloop_p_sockaddr a;
    nkloop_p_listener* l;
    nkloop_p_slot* slot;
    nkloop_fd fd = desc->fd;
    uint32_t index;
    int r;
    if (!desc->on_accept || (!desc->address && !desc->adopt_fd)) return NKLOOP_ERR_INVAL;
    if (L->dying) return NKLOOP_ERR_SHUTDOWN;
    if (!(l = nkloop_p_listener_new(L, desc))) return NKLOOP_ERR_NOMEM;
    if (desc->adopt_fd) r = nkloop_p_os_nonblocking(fd) == 0 ? nkloop_p_sockname(L, fd, 0, &a) : NKLOOP_ERR_INVAL;
    else r = nkloop_p_listen_socket(L, desc, &a, &fd);
    if (r == NKLOOP_OK) {
        r = nkloop_p_slot_open(L, NKLOOP_P_LISTENER, fd, &index);
        if (r < 0 && !desc->adopt_fd) nkloop_p_unbind(desc, &a, fd);
    }
    if (r < 0) { nkloop_p_drop(L, l, sizeof *l); return r; }
    slot = nkloop_p_at(L, index);
    slot->u.listener = l;
    #ifdef NKLOOP_P_POSIX
    l->is_unix = a.u.any.sa_family == AF_UNIX;
    if (l->is_unix && !desc->adopt_fd && desc->address[5] != '@') {
        memcpy(l->path, desc->address + 5, strlen(desc->address + 5) + 1); // parsed: it fits
        slot->flags |= NKLOOP_P_OWNS_PATH;
    }
    #endif
    if ((r = nkloop_p_watch_set(L, index, slot, NKLOOP_READ)) < 0) {
        if (desc->adopt_fd) slot->fd = NKLOOP_NO_FD; // stays the caller's
        nkloop_p_close_slot(L, index, r);
        return r;
    }
    if (out) out->id = nkloop_p_id(slot, index);
    return NKLOOP_OK;
}

NETKIT_LOOP_API void nkloop_listener_close(nkloop* L, nkloop_listener l) {
    nkloop_p_slot* slot = nkloop_p_find(L, l.id, NKLOOP_P_LISTENER);
    if (!slot) return;
    nkloop_p_unwatch(L, (uint32_t)l.id, slot);
    nkloop_p_close_slot(L, (uint32_t)l.id, NKLOOP_OK);
}

NETKIT_LOOP_API int nkloop_listener_pause(nkloop* L, nkloop_listener l, int paused) {
    nkloop_p_slot* slot = nkloop_p_find(L, l.id, NKLOOP_P_LISTENER);
    if (!slot) return NKLOOP_ERR_STALE;
    if (paused) slot->flags |= NKLOOP_P_PAUSED;
    else slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_PAUSED);
    if (slot->flags & NKLOOP_P_STARVED) return NKLOOP_OK;
    if (paused) nkloop_p_unwatch(L, (uint32_t)l.id, slot);
    return paused ? NKLOOP_OK : nkloop_p_watch_set(L, (uint32_t)l.id, slot, NKLOOP_READ);
}

NETKIT_LOOP_API int nkloop_listener_address(nkloop* L, nkloop_listener l, char* out, size_t cap) {
    nkloop_p_slot* slot = nkloop_p_find(L, l.id, NKLOOP_P_LISTENER);
    nkloop_p_sockaddr a;
    int r = slot ? nkloop_p_sockname(L, slot->fd, 0, &a) : NKLOOP_ERR_STALE;
    return r < 0 ? r : nkloop_p_address_text(&a, out, cap);
}

// ---- @dial -----------------------------------------------------------------------------------
// Outgoing connections: each address of a name in turn until one answers, within one deadline.
static void nkloop_p_dial_next(nkloop* L, uint32_t index, int last_error) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_dial* d = slot->in.dial;
    while (d->at < d->count) {
        nkloop_p_sockaddr* a = &d->addresses[d->at++];
        last_error = nkloop_p_os_socket(L, a->u.any.sa_family, &slot->fd);
        if (last_error < 0) { slot->fd = NKLOOP_NO_FD; continue; }
        last_error = NETKIT_LOOP_SYS_CONNECT(NKLOOP_P_SOCK(slot->fd), &a->u.any, (socklen_t)a->len) == 0
            ? NKLOOP_OK : nkloop_p_os_fail(L);
        #ifdef NKLOOP_P_POSIX
        if (last_error < 0 && errno == EINTR) last_error = NKLOOP_P_AGAIN; // goes on by itself
        // a Unix socket's backlog is full, or no local port is left: nothing is in progress
        else if (last_error == NKLOOP_P_AGAIN && errno != EINPROGRESS) {
            last_error = a->u.any.sa_family == AF_UNIX ? NKLOOP_ERR_REFUSED : NKLOOP_ERR_LIMIT;
        }
        #endif
        if (last_error == NKLOOP_OK || last_error == NKLOOP_P_AGAIN) { nkloop_p_interest(L, index); return; }
        nkloop_p_os_close(slot->fd);
        slot->fd = NKLOOP_NO_FD;
    }
    nkloop_p_close_slot(L, index, last_error);
}

static void nkloop_p_dialled(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    nkloop_p_dial* d = slot->in.dial;
    const nkloop_filter* filter = d->filter;
    nkloop_stream s;
    unsigned outer;
    int on = 1, r;
    if (!d->disable_nodelay && d->addresses[d->at - 1].u.any.sa_family != AF_UNIX) {
        setsockopt(NKLOOP_P_SOCK(slot->fd), IPPROTO_TCP, TCP_NODELAY, (const char*)&on, sizeof on);
    }
    slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_CONNECTING);
    slot->in.rx = NULL;
    slot->seen_ms = (uint32_t)L->now_ms;
    L->stats.dialled++;
    if (filter && (r = nkloop_p_filter_attach(L, index, filter, d->filter_self)) < 0) {
        nkloop_p_close_slot(L, index, r);
    } else {
        d->filter = NULL; // the stream has it now
    }
    nkloop_p_dial_drop(L, d);
    nkloop_p_stream_rearm(L, index);
    if (slot->tx) nkloop_p_attend(L, index, NKLOOP_P_DIRTY);
    if (slot->flags & NKLOOP_P_CLOSING) return;
    s.id = nkloop_p_id(slot, index);
    if (slot->u.proto && slot->u.proto->on_open && !(slot->flags & NKLOOP_P_FINISH)) {
        outer = nkloop_p_enter(slot);
        slot->u.proto->on_open(slot->self, L, s);
        nkloop_p_leave(slot, outer);
    }
    nkloop_p_interest(L, index);
}

static void nkloop_p_dial_event(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    int e = 0, code;
    socklen_t len = (socklen_t)sizeof e;
    if (getsockopt(NKLOOP_P_SOCK(slot->fd), SOL_SOCKET, SO_ERROR, (char*)&e, &len) != 0) e = -1;
    if (e == 0) { nkloop_p_dialled(L, index); return; }
    L->os_error = e;
    code = nkloop_p_os_code(e);
    nkloop_p_unwatch(L, index, slot);
    nkloop_p_os_close(slot->fd);
    slot->fd = NKLOOP_NO_FD;
    nkloop_p_dial_next(L, index, code < 0 && code != NKLOOP_P_AGAIN ? code : NKLOOP_ERR_SYSTEM);
}

static int nkloop_p_resolve(nkloop* L, nkloop_stream s, const char* host, uint16_t port);

NETKIT_LOOP_API int nkloop_dial(nkloop* L, const nkloop_dial_desc* desc, nkloop_stream* out) {
    nkloop_p_dial* d;
    nkloop_p_slot* slot;
    nkloop_stream s;
    char host[256];
    uint16_t port = 0;
    uint32_t index, timeout = desc->timeout_ms == 0 ? 10000u : desc->timeout_ms < 0 ? 0u : (uint32_t)desc->timeout_ms;
    int r, is_name;
    if (!desc->address || !desc->proto || !desc->proto->on_data) return NKLOOP_ERR_INVAL;
    if (L->dying) return NKLOOP_ERR_SHUTDOWN;
    if (!(d = (nkloop_p_dial*)nkloop_alloc(L, NULL, 0, sizeof *d))) return NKLOOP_ERR_NOMEM;
    memset(d, 0, sizeof *d);
    r = nkloop_p_address_parse(desc->address, &d->one, host, &port);
    if (desc->address[0] == ':' || desc->address[0] == '*') r = NKLOOP_ERR_ADDRESS; // "any" is nowhere to go
    is_name = r == NKLOOP_ERR_RESOLVE;
    if (is_name || r == NKLOOP_OK) r = nkloop_p_slot_open(L, NKLOOP_P_STREAM, NKLOOP_NO_FD, &index);
    if (r < 0) { nkloop_p_drop(L, d, sizeof *d); return r; }
    d->addresses = &d->one;
    d->count = is_name ? 0 : 1;
    if (timeout == NKLOOP_P_MAX_MS) timeout--; // the bit set below must not turn it into the past
    d->deadline_ms = timeout ? (nkloop_p_now(L) + timeout) | 1u : 0;
    d->disable_nodelay = desc->disable_nodelay;
    slot = nkloop_p_at(L, index);
    slot->flags |= NKLOOP_P_CONNECTING;
    slot->in.dial = d;
    s.id = nkloop_p_id(slot, index);
    if (is_name && (r = nkloop_p_resolve(L, s, host, port)) < 0) { // never announced: ends without on_close
        nkloop_p_close_slot(L, index, r);
        return r;
    }
    slot->u.proto = desc->proto;
    slot->self = desc->self;
    d->filter = desc->filter;
    d->filter_self = desc->filter_self;
    nkloop_p_stream_rearm(L, index);
    if (out) *out = s;
    if (!is_name) nkloop_p_dial_next(L, index, NKLOOP_ERR_ADDRESS);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_adopt(nkloop* L, nkloop_fd fd, const nkloop_proto* proto, void* self, nkloop_stream* out) {
    nkloop_p_slot* slot;
    uint32_t index;
    int r;
    if (!proto || !proto->on_data) return NKLOOP_ERR_INVAL;
    if (L->dying) return NKLOOP_ERR_SHUTDOWN;
    if (nkloop_p_os_nonblocking(fd) != 0) return nkloop_p_os_fail(L);
    if ((r = nkloop_p_slot_open(L, NKLOOP_P_STREAM, fd, &index)) < 0) return r;
    slot = nkloop_p_at(L, index);
    slot->u.proto = proto;
    slot->self = self;
    r = nkloop_p_watch_set(L, index, slot, NKLOOP_READ);
    if (r < 0) { nkloop_p_slot_release(L, index); return r; }
    if (out) out->id = nkloop_p_id(slot, index);
    return NKLOOP_OK;
}

// ---- @stream ---------------------------------------------------------------------------------
// The calls on one stream that are neither reading nor writing.
NETKIT_LOOP_API int nkloop_finish(nkloop* L, nkloop_stream s) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    if (!slot) return NKLOOP_ERR_STALE;
    // with something to send it is still dialled
    if (slot->flags & NKLOOP_P_CONNECTING && !slot->tx) { nkloop_close(L, s); return NKLOOP_OK; }
    slot->flags = (uint16_t)((slot->flags | NKLOOP_P_FINISH) & ~NKLOOP_P_PAUSED);
    nkloop_p_attend(L, (uint32_t)s.id, NKLOOP_P_DIRTY);
    nkloop_p_interest(L, (uint32_t)s.id);
    return NKLOOP_OK;
}

NETKIT_LOOP_API void nkloop_close(nkloop* L, nkloop_stream s) {
    if (nkloop_p_find(L, s.id, NKLOOP_P_STREAM)) nkloop_p_close_slot(L, (uint32_t)s.id, NKLOOP_OK);
}

NETKIT_LOOP_API int nkloop_pause(nkloop* L, nkloop_stream s, int paused) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    if (!slot) return NKLOOP_ERR_STALE;
    if (slot->flags & NKLOOP_P_FINISH || !paused == !(slot->flags & NKLOOP_P_PAUSED)) return NKLOOP_OK;
    slot->flags ^= NKLOOP_P_PAUSED;
    if (!paused) nkloop_p_attend(L, (uint32_t)s.id, NKLOOP_P_DELIVER);
    nkloop_p_interest(L, (uint32_t)s.id);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_set_proto(nkloop* L, nkloop_stream s, const nkloop_proto* proto, void* self) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    if (!slot) return NKLOOP_ERR_STALE;
    slot->u.proto = proto;
    slot->self = self;
    slot->flags = (uint16_t)(slot->flags & ~(NKLOOP_P_DRAIN | NKLOOP_P_EOF_TOLD));
    if (slot->in.rx || slot->flags & NKLOOP_P_EOF_SEEN) nkloop_p_attend(L, (uint32_t)s.id, NKLOOP_P_DELIVER);
    // a fresh one is registered after on_accept
    if (!(slot->flags & NKLOOP_P_UNWATCHED)) nkloop_p_interest(L, (uint32_t)s.id);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_set_timeout(nkloop* L, nkloop_stream s, uint32_t idle_ms) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    if (!slot) return NKLOOP_ERR_STALE;
    if (idle_ms > NKLOOP_P_MAX_MS) return NKLOOP_ERR_INVAL;
    slot->idle_ms = idle_ms;
    slot->seen_ms = nkloop_p_now(L);
    nkloop_p_stream_rearm(L, (uint32_t)s.id);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_set_alarm(nkloop* L, nkloop_stream s, uint32_t after_ms) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    if (!slot) return NKLOOP_ERR_STALE;
    if (after_ms > NKLOOP_P_MAX_MS) return NKLOOP_ERR_INVAL;
    if (slot->flags & NKLOOP_P_LINGER) return NKLOOP_OK; // the time that counts now is linger_ms
    slot->alarm_ms = after_ms ? nkloop_p_now(L) + after_ms : 0;
    if (after_ms && slot->alarm_ms == 0) slot->alarm_ms = 1;
    nkloop_p_stream_rearm(L, (uint32_t)s.id);
    return NKLOOP_OK;
}

NETKIT_LOOP_API size_t nkloop_unsent(nkloop* L, nkloop_stream s) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    uint64_t n = slot ? nkloop_p_queued(slot) : 0;
    return n > (size_t)-1 ? (size_t)-1 : (size_t)n;
}

NETKIT_LOOP_API int nkloop_alive(nkloop* L, nkloop_stream s) {
    return nkloop_p_find(L, s.id, NKLOOP_P_STREAM) != NULL;
}

static int nkloop_p_stream_address(nkloop* L, nkloop_stream s, int peer, char* out, size_t cap) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    nkloop_p_sockaddr a;
    int r = slot ? (slot->fd == NKLOOP_NO_FD ? NKLOOP_ERR_INVAL : nkloop_p_sockname(L, slot->fd,
        peer, &a)) : NKLOOP_ERR_STALE;
    return r < 0 ? r : nkloop_p_address_text(&a, out, cap);
}
NETKIT_LOOP_API int nkloop_peer_address(nkloop* L, nkloop_stream s, char* out, size_t cap) {
    return nkloop_p_stream_address(L, s, 1, out, cap);
}
NETKIT_LOOP_API int nkloop_local_address(nkloop* L, nkloop_stream s, char* out, size_t cap) {
    return nkloop_p_stream_address(L, s, 0, out, cap);
}

NETKIT_LOOP_API nkloop_fd nkloop_stream_fd(nkloop* L, nkloop_stream s) {
    nkloop_p_slot* slot = nkloop_p_find(L, s.id, NKLOOP_P_STREAM);
    return slot ? slot->fd : NKLOOP_NO_FD;
}

// ---- @watch ----------------------------------------------------------------------------------
// Other people's descriptors, and timers.
NETKIT_LOOP_API int nkloop_watch_open(nkloop* L, nkloop_fd fd, int events,
                                      void (*fn)(void* user, int events), void* user, nkloop_watch* out) {
    nkloop_p_slot* slot;
    uint32_t index;
    int r;
    if (!fn || (events & ~(NKLOOP_READ | NKLOOP_WRITE))) return NKLOOP_ERR_INVAL;
    if (L->dying) return NKLOOP_ERR_SHUTDOWN;
    if ((r = nkloop_p_slot_open(L, NKLOOP_P_WATCH, fd, &index)) < 0) return r;
    slot = nkloop_p_at(L, index);
    slot->u.watch_fn = fn;
    slot->self = user;
    r = nkloop_p_watch_set(L, index, slot, events);
    if (r < 0) { nkloop_p_slot_release(L, index); return r; }
    if (out) out->id = nkloop_p_id(slot, index);
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_watch_change(nkloop* L, nkloop_watch w, int events) {
    nkloop_p_slot* slot = nkloop_p_find(L, w.id, NKLOOP_P_WATCH);
    if (!slot) return NKLOOP_ERR_STALE;
    if (events & ~(NKLOOP_READ | NKLOOP_WRITE)) return NKLOOP_ERR_INVAL;
    if (events == 0) { nkloop_p_unwatch(L, (uint32_t)w.id, slot); return NKLOOP_OK; }
    return nkloop_p_watch_set(L, (uint32_t)w.id, slot, events);
}

NETKIT_LOOP_API void nkloop_watch_close(nkloop* L, nkloop_watch w) {
    nkloop_p_slot* slot = nkloop_p_find(L, w.id, NKLOOP_P_WATCH);
    if (!slot) return;
    nkloop_p_unwatch(L, (uint32_t)w.id, slot); // now: the caller is about to close the descriptor
    nkloop_p_close_slot(L, (uint32_t)w.id, NKLOOP_OK);
}

static nkloop_p_timer* nkloop_p_timer_at(nkloop* L, uint32_t i) {
    return &L->timer_slabs[i >> NKLOOP_P_SLAB_SHIFT][i & (NKLOOP_P_SLAB - 1)];
}

static int nkloop_p_add_timer_slab(nkloop* L) {
    nkloop_p_timer* slab;
    void** table = (void**)(void*)L->timer_slabs;
    uint32_t i, base = L->num_timer_slabs << NKLOOP_P_SLAB_SHIFT;
    if (L->num_timer_slabs == L->cap_timer_slabs) {
        if (nkloop_p_grow_table(L, &table, &L->cap_timer_slabs) < 0) return NKLOOP_ERR_NOMEM;
        L->timer_slabs = (nkloop_p_timer**)(void*)table;
    }
    if (!(slab = (nkloop_p_timer*)nkloop_alloc(L, NULL, 0, NKLOOP_P_SLAB * sizeof *slab))) return NKLOOP_ERR_NOMEM;
    memset(slab, 0, NKLOOP_P_SLAB * sizeof *slab);
    for (i = 0; i < NKLOOP_P_SLAB; i++) {
        slab[i].next = i + 1 < NKLOOP_P_SLAB ? base + i + 1 : L->free_timer;
        slab[i].node.next = NKLOOP_P_UNLINKED;
    }
    L->free_timer = base;
    L->timer_slabs[L->num_timer_slabs++] = slab;
    return NKLOOP_OK;
}

NETKIT_LOOP_API int nkloop_timer_start(nkloop* L, uint32_t after_ms, uint32_t every_ms,
                                       void (*fn)(void* user), void* user, nkloop_timer* out) {
    nkloop_p_timer* t;
    uint32_t i;
    if (!fn || after_ms > NKLOOP_P_MAX_MS || every_ms > NKLOOP_P_MAX_MS) return NKLOOP_ERR_INVAL;
    if (L->free_timer == NKLOOP_P_NIL && nkloop_p_add_timer_slab(L) < 0) return NKLOOP_ERR_NOMEM;
    i = L->free_timer;
    t = nkloop_p_timer_at(L, i);
    L->free_timer = t->next;
    t->gen++;
    t->fn = fn;
    t->user = user;
    t->every_ms = every_ms;
    nkloop_p_wheel_insert(L, i | NKLOOP_P_IS_TIMER, nkloop_p_now(L) + after_ms);
    L->stats.timers++;
    if (out) out->id = (uint64_t)t->gen << 32 | i;
    return NKLOOP_OK;
}

static nkloop_p_timer* nkloop_p_timer_find(nkloop* L, uint64_t id) {
    uint32_t i = (uint32_t)id, gen = (uint32_t)(id >> 32);
    nkloop_p_timer* t;
    if (!(gen & 1u) || i >= L->num_timer_slabs << NKLOOP_P_SLAB_SHIFT) return NULL;
    t = nkloop_p_timer_at(L, i);
    return t->gen == gen ? t : NULL;
}

NETKIT_LOOP_API void nkloop_timer_stop(nkloop* L, nkloop_timer timer) {
    nkloop_p_timer* t = nkloop_p_timer_find(L, timer.id);
    if (!t) return;
    nkloop_p_wheel_remove(L, (uint32_t)timer.id | NKLOOP_P_IS_TIMER);
    t->gen++;
    t->next = L->free_timer;
    L->free_timer = (uint32_t)timer.id;
    L->stats.timers--;
}

// ---- @post -----------------------------------------------------------------------------------
// The one door for other threads: a stack that anyone may push on without a lock and the loop takes whole.
static void nkloop_p_wake(nkloop* L) {
    if (nkloop_p_a32_exchange(&L->wake_flag, 1) == 0) nkloop_p_os_wake(L); // one system call per sleep, not per post
}

// Appends what was posted to the list of ready jobs, oldest first.
static void nkloop_p_take_posted(nkloop* L) {
    nkloop_job *job, *next, *oldest = NULL, *newest;
    if (!nkloop_p_aptr_load(&L->posted)) return;
    newest = job = (nkloop_job*)nkloop_p_aptr_exchange(&L->posted, NULL);
    for (; job; job = next) {
        next = job->next;
        job->next = oldest;
        oldest = job;
    }
    if (L->ready_first) L->ready_last->next = oldest;
    else L->ready_first = oldest;
    L->ready_last = newest;
}

// The flag is cleared before the stack is taken: a post in between wakes once too often, never too seldom.
static void nkloop_p_woken(void* user, int events) {
    nkloop* L = (nkloop*)user;
    (void)events;
    nkloop_p_os_wake_drain(L);
    nkloop_p_a32_exchange(&L->wake_flag, 0);
    nkloop_p_take_posted(L); // of what came before that line nobody will tell us again
}

NETKIT_LOOP_API void nkloop_post_job(nkloop* L, nkloop_job* job) {
    void* head;
    do {
        head = nkloop_p_aptr_load(&L->posted);
        job->next = (nkloop_job*)head;
    } while (!nkloop_p_aptr_cas(&L->posted, head, job));
    nkloop_p_wake(L);
}

static void nkloop_p_posted_done(void* user) {
    nkloop_p_posted* p = (nkloop_p_posted*)user;
    void (*fn)(void* user) = p->fn;
    void* fn_user = p->user;
    nkloop_p_drop(p->L, p, sizeof *p);
    fn(fn_user);
}

NETKIT_LOOP_API int nkloop_post(nkloop* L, void (*fn)(void* user), void* user) {
    nkloop_p_posted* p = (nkloop_p_posted*)nkloop_alloc(L, NULL, 0, sizeof *p);
    if (!p) return NKLOOP_ERR_NOMEM;
    memset(p, 0, sizeof *p);
    p->L = L;
    p->fn = fn;
    p->user = user;
    p->job.done = nkloop_p_posted_done;
    p->job.user = p;
    nkloop_post_job(L, &p->job);
    return NKLOOP_OK;
}

static void nkloop_p_run_ready(nkloop* L) {
    nkloop_job* job = L->ready_first;
    L->ready_first = job->next;
    job->done(job->user); // may free the job
}

// ---- @pool -----------------------------------------------------------------------------------
// Worker threads: jobs are taken in order from one queue, and come back to the loop as posts.
#ifndef NETKIT_LOOP_NO_THREADS
struct nkloop_pool {
    nkloop*          L;
    nkloop_p_mutex   lock;
    nkloop_p_cond    some;
    nkloop_job      *first, *last;
    int              stop;
    uint32_t         num_threads, cap_threads;
    nkloop_p_thread* threads;
};

static void nkloop_p_pool_work(nkloop_pool* pool) {
    nkloop_p_lock(&pool->lock);
    for (;;) {
        nkloop_job* job = pool->first;
        if (job) {
            pool->first = job->next;
            nkloop_p_unlock(&pool->lock);
            job->run(job->user);
            nkloop_post_job(pool->L, job);
            nkloop_p_lock(&pool->lock);
        } else if (pool->stop) {
            break;
        } else {
            nkloop_p_cond_wait(&pool->some, &pool->lock);
        }
    }
    nkloop_p_unlock(&pool->lock);
}
#ifndef NKLOOP_P_POSIX
static DWORD WINAPI nkloop_p_thread_main(LPVOID pool) { nkloop_p_pool_work((nkloop_pool*)pool); return 0; }
#else
static void* nkloop_p_thread_main(void* pool) { nkloop_p_pool_work((nkloop_pool*)pool); return NULL; }
#endif

NETKIT_LOOP_API int nkloop_pool_create(nkloop_pool** out, nkloop* L, uint32_t threads) {
    nkloop_pool* pool;
    int r = NKLOOP_OK;
    if (threads == 0 || threads > 1024) return NKLOOP_ERR_INVAL;
    if (!(pool = (nkloop_pool*)nkloop_alloc(L, NULL, 0, sizeof *pool))) return NKLOOP_ERR_NOMEM;
    memset(pool, 0, sizeof *pool);
    pool->L = L;
    pool->cap_threads = threads;
    pool->threads = (nkloop_p_thread*)nkloop_alloc(L, NULL, 0, threads * sizeof *pool->threads);
    if (!pool->threads) { nkloop_p_drop(L, pool, sizeof *pool); return NKLOOP_ERR_NOMEM; }
    nkloop_p_mutex_init(&pool->lock);
    nkloop_p_cond_init(&pool->some);
    while (r == NKLOOP_OK && pool->num_threads < threads) {
        r = nkloop_p_thread_start(&pool->threads[pool->num_threads], pool);
        if (r == NKLOOP_OK) pool->num_threads++;
    }
    if (r < 0) { nkloop_pool_destroy(pool); return r; }
    *out = pool;
    return NKLOOP_OK;
}

NETKIT_LOOP_API void nkloop_pool_submit(nkloop_pool* pool, nkloop_job* job) {
    job->next = NULL;
    nkloop_p_lock(&pool->lock);
    if (pool->first) pool->last->next = job;
    else pool->first = job;
    pool->last = job;
    nkloop_p_cond_signal(&pool->some);
    nkloop_p_unlock(&pool->lock);
}

NETKIT_LOOP_API void nkloop_pool_destroy(nkloop_pool* pool) {
    nkloop* L;
    uint32_t i;
    if (!pool) return;
    L = pool->L;
    nkloop_p_lock(&pool->lock);
    pool->stop = 1;
    nkloop_p_cond_all(&pool->some);
    nkloop_p_unlock(&pool->lock);
    for (i = 0; i < pool->num_threads; i++) nkloop_p_thread_join(pool->threads[i]);
    nkloop_p_cond_drop(&pool->some);
    nkloop_p_mutex_drop(&pool->lock);
    nkloop_p_drop(L, pool->threads, pool->cap_threads * sizeof *pool->threads);
    nkloop_p_drop(L, pool, sizeof *pool);
    nkloop_p_take_posted(L);
    while (L->ready_first) nkloop_p_run_ready(L);
}
#else
NETKIT_LOOP_API int nkloop_pool_create(nkloop_pool** out, nkloop* L, uint32_t threads) {
    (void)out; (void)L; (void)threads;
    return NKLOOP_ERR_UNSUPPORTED;
}
NETKIT_LOOP_API void nkloop_pool_submit(nkloop_pool* pool, nkloop_job* job) { (void)pool; (void)job; }
NETKIT_LOOP_API void nkloop_pool_destroy(nkloop_pool* pool) { (void)pool; }
#endif // NETKIT_LOOP_NO_THREADS

// ---- @resolve --------------------------------------------------------------------------------
// Names are looked up on a thread of their own, started with the first one: getaddrinfo may take seconds.
#ifdef NKLOOP_P_RESOLVE
enum { NKLOOP_P_MAX_FOUND = 16 };
typedef struct nkloop_p_lookup {
    nkloop_job    job;
    nkloop*       L;
    nkloop_stream s;
    char          host[256];
    uint16_t      port;
    uint32_t      count;
    nkloop_p_sockaddr found[NKLOOP_P_MAX_FOUND];
} nkloop_p_lookup;

static void nkloop_p_lookup_run(void* user) {
    nkloop_p_lookup* q = (nkloop_p_lookup*)user;
    struct addrinfo hints, *list = NULL, *a;
    char port[8];
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    snprintf(port, sizeof port, "%u", (unsigned)q->port);
    if (getaddrinfo(q->host, port, &hints, &list) != 0) return;
    for (a = list; a && q->count < NKLOOP_P_MAX_FOUND; a = a->ai_next) { // in the order of RFC 6724
        if ((size_t)a->ai_addrlen > sizeof q->found[0].u) continue;
        memcpy(&q->found[q->count].u, a->ai_addr, (size_t)a->ai_addrlen);
        q->found[q->count++].len = (uint32_t)a->ai_addrlen;
    }
    freeaddrinfo(list);
}

static void nkloop_p_lookup_done(void* user) {
    nkloop_p_lookup* q = (nkloop_p_lookup*)user;
    nkloop* L = q->L;
    nkloop_p_slot* slot = nkloop_p_find(L, q->s.id, NKLOOP_P_STREAM); // may have timed out or been closed meanwhile
    nkloop_p_sockaddr* copy = NULL;
    size_t bytes = q->count * sizeof *copy;
    if (slot && q->count > 0) copy = (nkloop_p_sockaddr*)nkloop_alloc(L, NULL, 0, bytes);
    if (slot && copy) {
        memcpy(copy, q->found, bytes);
        slot->in.dial->addresses = copy;
        slot->in.dial->count = q->count;
        nkloop_p_dial_next(L, (uint32_t)q->s.id, NKLOOP_ERR_RESOLVE);
    } else if (slot) {
        nkloop_p_close_slot(L, (uint32_t)q->s.id, q->count > 0 ? NKLOOP_ERR_NOMEM : NKLOOP_ERR_RESOLVE);
    }
    nkloop_p_drop(L, q, sizeof *q);
}

static int nkloop_p_resolve(nkloop* L, nkloop_stream s, const char* host, uint16_t port) {
    nkloop_p_lookup* q;
    int r;
    if (!L->resolver && (r = nkloop_pool_create(&L->resolver, L, 1)) < 0) return r;
    if (!(q = (nkloop_p_lookup*)nkloop_alloc(L, NULL, 0, sizeof *q))) return NKLOOP_ERR_NOMEM;
    memset(q, 0, sizeof *q);
    q->job.run = nkloop_p_lookup_run;
    q->job.done = nkloop_p_lookup_done;
    q->job.user = q;
    q->L = L;
    q->s = s;
    q->port = port;
    memcpy(q->host, host, strlen(host) + 1);
    nkloop_pool_submit(L->resolver, &q->job);
    return NKLOOP_OK;
}
#else
static int nkloop_p_resolve(nkloop* L, nkloop_stream s, const char* host, uint16_t port) {
    (void)L; (void)s; (void)host; (void)port;
    return NKLOOP_ERR_UNSUPPORTED;
}
#endif

// ---- @turn -----------------------------------------------------------------------------------
// One turn: wait, then posts, timers and events, then everything that was written goes out and
// everything that closed ends.

// Gives each listed stream what it asked for. Streams listed meanwhile come in the next round; a
// few rounds, then the next turn.
static void nkloop_p_settle(nkloop* L) {
    int round;
    for (round = 0; round < 4 && L->attention_first != NKLOOP_P_NIL; round++) {
        uint32_t index = L->attention_first, next;
        L->attention_first = L->attention_last = NKLOOP_P_NIL;
        for (; index != NKLOOP_P_NIL; index = next) {
            nkloop_p_slot* slot = nkloop_p_at(L, index);
            next = slot->next;
            slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_LISTED);
            if (slot->flags & NKLOOP_P_DELIVER && !(slot->flags & NKLOOP_P_CLOSING)) {
                slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_DELIVER);
                nkloop_p_redeliver(L, index);
            }
            if (slot->flags & NKLOOP_P_DIRTY) nkloop_p_flush(L, index);
            if (slot->flags & NKLOOP_P_CLOSING && !(slot->flags & NKLOOP_P_LISTED)) nkloop_p_retire(L, index);
        }
    }
}

static void nkloop_p_serve(nkloop* L, const nkloop_p_event* e) {
    uint32_t index = (uint32_t)e->id;
    nkloop_p_slot* slot = nkloop_p_find_any(L, e->id);
    L->stats.events++;
    // closed or paused since the event was fetched
    if (!slot || slot->flags & (NKLOOP_P_CLOSING | NKLOOP_P_UNWATCHED)) return;
    if (slot->kind == NKLOOP_P_LISTENER) { nkloop_p_accept(L, index); return; }
    if (slot->kind == NKLOOP_P_WATCH) { slot->u.watch_fn(slot->self, e->mask); return; }
    if (slot->flags & NKLOOP_P_CONNECTING) { nkloop_p_dial_event(L, index); return; }
    if (e->mask & NKLOOP_WRITE && slot->flags & NKLOOP_P_BLOCKED) {
        slot->flags = (uint16_t)(slot->flags & ~NKLOOP_P_BLOCKED);
        nkloop_p_flush(L, index);
        nkloop_p_interest(L, index);
    }
    if (slot->flags & NKLOOP_P_CLOSING) return;
    if (e->mask & (NKLOOP_READ | NKLOOP_HANGUP) && nkloop_p_want(slot) & NKLOOP_READ) nkloop_p_read(L, index);
    else if (e->mask & NKLOOP_HANGUP) nkloop_p_hangup(L, index);
}

static void nkloop_p_stream_timer(nkloop* L, uint32_t index) {
    nkloop_p_slot* slot = nkloop_p_at(L, index);
    int connecting = slot->flags & NKLOOP_P_CONNECTING ? 1 : 0;
    nkloop_stream s;
    unsigned outer;
    uint32_t now = (uint32_t)L->now_ms, dial = connecting ? slot->in.dial->deadline_ms : 0;
    if (slot->flags & NKLOOP_P_CLOSING) return;
    if (dial && (int32_t)(now - dial) >= 0) {
        nkloop_p_close_slot(L, index, NKLOOP_ERR_TIMEOUT);
    } else if (!connecting && slot->idle_ms && now - slot->seen_ms >= slot->idle_ms) {
        nkloop_p_close_slot(L, index, NKLOOP_ERR_TIMEOUT);
    } else if (slot->alarm_ms && (int32_t)(now - slot->alarm_ms) >= 0) {
        slot->alarm_ms = 0;
        if (slot->kind == NKLOOP_P_LISTENER) {
            nkloop_p_listener_wake(L, index);
        } else if (slot->flags & NKLOOP_P_LINGER) {
            nkloop_p_close_slot(L, index, NKLOOP_OK);
        } else if (slot->u.proto && slot->u.proto->on_alarm) {
            s.id = nkloop_p_id(slot, index);
            outer = nkloop_p_enter(slot);
            slot->u.proto->on_alarm(slot->self, L, s);
            nkloop_p_leave(slot, outer);
        } else {
            nkloop_p_close_slot(L, index, NKLOOP_ERR_TIMEOUT);
        }
    }
    if (!(slot->flags & NKLOOP_P_CLOSING)) nkloop_p_stream_rearm(L, index);
}

// Fires the oldest timer that is due.
static void nkloop_p_fire(nkloop* L) {
    uint32_t index = L->wheel[NKLOOP_P_BUCKETS];
    nkloop_p_timer* t;
    nkloop_timer handle;
    nkloop_p_wheel_remove(L, index);
    if (!(index & NKLOOP_P_IS_TIMER)) { nkloop_p_stream_timer(L, index); return; }
    t = nkloop_p_timer_at(L, index & ~NKLOOP_P_IS_TIMER);
    handle.id = (uint64_t)t->gen << 32 | (index & ~NKLOOP_P_IS_TIMER);
    if (t->every_ms) {
        uint32_t due = t->node.due + t->every_ms; // keeps the beat, but ticks that were missed are not made up for
        if ((int32_t)(due - (uint32_t)L->now_ms) <= 0) due = (uint32_t)L->now_ms + t->every_ms;
        nkloop_p_wheel_insert(L, index, due);
        t->fn(t->user);
    } else {
        void (*fn)(void* user) = t->fn;
        void* user = t->user;
        nkloop_timer_stop(L, handle); // its handle is stale inside fn already
        fn(user);
    }
}

static int nkloop_p_timeout(const nkloop* L, uint64_t now_ms) {
    uint32_t bucket;
    uint64_t at;
    if (L->attention_first != NKLOOP_P_NIL || L->event_at < L->num_events || L->ready_first) return 0;
    if (L->wheel[NKLOOP_P_BUCKETS] != NKLOOP_P_NIL
        || nkloop_p_a32_load((nkloop_p_a32*)(uintptr_t)&L->stop_flag)) return 0;
    if (!nkloop_p_wheel_next(L, &bucket, &at)) return -1;
    if (at <= now_ms) return 0;
    return at - now_ms > (uint64_t)NKLOOP_P_MAX_MS ? (int)NKLOOP_P_MAX_MS : (int)(at - now_ms);
}

// Asked between turns, when the last sample of the clock may be old.
NETKIT_LOOP_API int nkloop_timeout_ms(const nkloop* L) {
    return nkloop_p_timeout(L, (nkloop_p_os_now_ns() - L->start_ns) / 1000000u);
}

static int nkloop_p_spent(nkloop* L, uint64_t deadline) {
    if (deadline == UINT64_MAX) return 0;
    nkloop_p_clock(L);
    return L->now_ns >= deadline;
}

// Serves one of each kind at least, then goes on while the budget lasts: no kind can starve another.
static uint32_t nkloop_p_work(nkloop* L, uint64_t deadline) {
    nkloop_job* last;
    uint32_t served = 0;
    nkloop_p_take_posted(L);
    last = L->ready_first ? L->ready_last : NULL; // jobs posted from now on come in the next turn
    while (last && L->ready_first) { // nkloop_pool_destroy inside a job runs the others
        nkloop_job* job = L->ready_first;
        nkloop_p_run_ready(L);
        served++;
        if (job == last || nkloop_p_spent(L, deadline)) break;
    }
    nkloop_p_wheel_advance(L);
    while (L->wheel[NKLOOP_P_BUCKETS] != NKLOOP_P_NIL) {
        nkloop_p_fire(L);
        served++;
        if (nkloop_p_spent(L, deadline)) break;
    }
    while (L->event_at < L->num_events) {
        nkloop_p_event e = L->events[L->event_at++];
        nkloop_p_serve(L, &e);
        served++;
        if (nkloop_p_spent(L, deadline)) break;
    }
    return served;
}

static void nkloop_p_own(nkloop* L) {
    void* self = nkloop_p_os_thread_self();
    if (nkloop_p_aptr_load(&L->owner) != self) nkloop_p_aptr_store(&L->owner, self);
}

// deadline: budget in ns, UINT64_MAX none.
static nkloop_turn nkloop_p_turn(nkloop* L, int timeout_ms, uint64_t budget_ns) {
    nkloop_turn t;
    uint64_t deadline = UINT64_MAX;
    int due, n;
    NETKIT_LOOP_ASSERT(!L->in_turn); // a callback must not drive the loop that called it
    memset(&t, 0, sizeof t);
    if (L->in_turn) return t;
    nkloop_p_own(L);
    L->in_turn = 1;
    L->stats.turns++;
    nkloop_p_clock(L);
    if (budget_ns != UINT64_MAX) deadline = L->now_ns + budget_ns;
    if (L->attention_first != NKLOOP_P_NIL) nkloop_p_settle(L); // written between turns
    if (L->event_at == L->num_events) {
        due = nkloop_p_timeout(L, L->now_ms);
        if (due >= 0 && (timeout_ms < 0 || due < timeout_ms)) timeout_ms = due;
        L->event_at = L->num_events = 0;
        n = L->backend->wait(L, timeout_ms);
        L->wait_error = n < 0 ? n : NKLOOP_OK; // somebody closed the backend's descriptor: nkloop_run must not spin
        if (n < 0) nkloop_log(L, NKLOOP_LOG_ERROR, "wait", nkloop_strerror(n));
        L->num_events = n > 0 ? (uint32_t)n : 0;
        if (timeout_ms != 0) nkloop_p_clock(L);
    }
    t.events = nkloop_p_work(L, deadline);
    nkloop_p_settle(L);
    L->in_turn = 0;
    t.pending = L->num_events - L->event_at + (L->ready_first != NULL) + (L->wheel[NKLOOP_P_BUCKETS] != NKLOOP_P_NIL);
    if (t.pending) L->stats.budget_hits++;
    t.timeout_ms = nkloop_p_timeout(L, L->now_ms);
    return t;
}

NETKIT_LOOP_API nkloop_turn nkloop_pump(nkloop* L, uint32_t budget_us) {
    return nkloop_p_turn(L, 0, (uint64_t)budget_us * 1000u);
}
NETKIT_LOOP_API nkloop_turn nkloop_wait(nkloop* L, int timeout_ms) {
    return nkloop_p_turn(L, timeout_ms, UINT64_MAX);
}

NETKIT_LOOP_API int nkloop_run(nkloop* L) {
    while (!nkloop_p_a32_load(&L->stop_flag) && L->wait_error == NKLOOP_OK) nkloop_wait(L, -1);
    nkloop_p_a32_store(&L->stop_flag, 0);
    nkloop_flush(L);
    return L->wait_error;
}

NETKIT_LOOP_API void nkloop_stop(nkloop* L) {
    nkloop_p_a32_exchange(&L->stop_flag, 1);
    nkloop_p_wake(L);
}

NETKIT_LOOP_API void nkloop_flush(nkloop* L) {
    uint32_t index = L->attention_first;
    L->in_flush++;
    while (index != NKLOOP_P_NIL) { // stays listed: flushing again finds nothing to do
        uint32_t next = nkloop_p_at(L, index)->next;
        if (nkloop_p_at(L, index)->flags & NKLOOP_P_DIRTY) nkloop_p_flush(L, index);
        index = next;
    }
    L->in_flush--;
}

NETKIT_LOOP_API nkloop_fd nkloop_poll_fd(const nkloop* L) { return L->backend_fd; }
NETKIT_LOOP_API int nkloop_on_thread(const nkloop* L) {
    return nkloop_p_aptr_load((nkloop_p_aptr*)(uintptr_t)&L->owner) == nkloop_p_os_thread_self();
}

// ---- @life -----------------------------------------------------------------------------------
// Creating and destroying, and the small questions one asks a loop.
NETKIT_LOOP_API const char* nkloop_strerror(int err) {
    switch (err) {
        #define NKLOOP_X(name, value, text) case value: return text;
        NKLOOP_ERRORS(NKLOOP_X)
        #undef NKLOOP_X
        case NKLOOP_OK: return "ok";
        default: return "unknown netkit_loop error";
    }
}

NETKIT_LOOP_API void nkloop_log(nkloop* L, int level, const char* where, const char* text) {
    if (L->desc.log_fn) L->desc.log_fn(L->desc.log_user, level, where, text);
}

NETKIT_LOOP_API void nkloop_log_stderr(void* user, int level, const char* where, const char* text) {
    static const char* const names[] = { "", "error", "warning", "info", "debug" };
    (void)user;
    fprintf(stderr, "netkit %s: %s: %s\n", level >= 1 && level <= 4 ? names[level] : "log", where, text);
}

static void nkloop_p_desc_defaults(nkloop_desc* d) {
    if (d->max_streams == 0) d->max_streams = 65536;
    if (d->max_streams > 0x3fffff00u) d->max_streams = 0x3fffff00u; // an index and its tag share 32 bits
    if (d->rx_bytes == 0) d->rx_bytes = 64 * 1024;
    if (d->rx_bytes > 0x40000000u) d->rx_bytes = 0x40000000u;
    if (d->rx_bytes < 64) d->rx_bytes = 64;
    if (d->tx_bytes == 0) d->tx_bytes = 256 * 1024;
    if (d->read_quantum == 0) d->read_quantum = 64 * 1024;
    // what one read brings must fit if nobody wants it
    if (d->read_quantum > d->rx_bytes) d->read_quantum = d->rx_bytes;
    if (d->linger_ms == 0) d->linger_ms = 2000;
    if (d->linger_ms >= NKLOOP_P_MAX_MS) d->linger_ms = NKLOOP_P_MAX_MS - 1;
    if (!d->alloc_fn) d->alloc_fn = nkloop_p_default_alloc;
}

static const nkloop_p_backend* nkloop_p_backend_for(int id) {
    #ifdef NKLOOP_P_EPOLL
    if (id == NKLOOP_BACKEND_DEFAULT || id == NKLOOP_BACKEND_EPOLL) return &nkloop_p_epoll;
    #endif
    #ifdef NKLOOP_P_KQUEUE
    if (id == NKLOOP_BACKEND_DEFAULT || id == NKLOOP_BACKEND_KQUEUE) return &nkloop_p_kqueue;
    #endif
    if (id == NKLOOP_BACKEND_DEFAULT || id == nkloop_p_poll.id) return &nkloop_p_poll;
    return NULL;
}

// The wake-up is an ordinary watch, which max_streams does not count.
static int nkloop_p_open(nkloop* L) {
    int r = nkloop_p_os_wake_open(L);
    if (r < 0) return r;
    L->desc.max_streams++;
    return nkloop_watch_open(L, L->wake_read, NKLOOP_READ, nkloop_p_woken, L, NULL);
}

static void nkloop_p_free(nkloop* L) {
    uint32_t i;
    int k;
    nkloop_alloc_fn alloc_fn = L->desc.alloc_fn;
    void* user = L->desc.alloc_user;
    if (L->wake_read != NKLOOP_NO_FD) {
        #ifndef NKLOOP_P_POSIX
        nkloop_p_os_close(L->wake_read);
        nkloop_p_os_close(L->wake_write);
        #else
        (close)((int)L->wake_read);
        if (L->wake_write != L->wake_read) (close)((int)L->wake_write);
        #endif
    }
    if (L->backend) L->backend->shut(L);
    for (k = 0; k < 4; k++) {
        while (L->cached[k]) {
            nkloop_p_chunk* c = L->cached[k];
            L->cached[k] = c->next;
            nkloop_p_drop(L, c, nkloop_p_class_bytes(L, k));
        }
    }
    for (i = 0; i < L->num_slabs; i++) nkloop_p_drop(L, L->slabs[i], NKLOOP_P_SLAB * sizeof **L->slabs);
    nkloop_p_drop(L, L->slabs, L->cap_slabs * sizeof *L->slabs);
    for (i = 0; i < L->num_timer_slabs; i++) nkloop_p_drop(L, L->timer_slabs[i],
                                                           NKLOOP_P_SLAB * sizeof **L->timer_slabs);
    nkloop_p_drop(L, L->timer_slabs, L->cap_timer_slabs * sizeof *L->timer_slabs);
    nkloop_p_drop(L, L->rx_buf, L->desc.read_quantum);
    nkloop_p_os_stop();
    if (L->arena) { nkloop_p_mutex_drop(&L->arena->lock); return; } // the block is the caller's again
    alloc_fn(user, L, sizeof *L, 0);
}

NETKIT_LOOP_API int nkloop_create(nkloop** out, const nkloop_desc* desc) {
    nkloop_desc d;
    nkloop_p_arena* arena = NULL;
    nkloop* L;
    uint32_t i;
    int r;
    *out = NULL;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (d.memory) {
        if (!(arena = nkloop_p_arena_open(d.memory, d.memory_bytes))) return NKLOOP_ERR_NOMEM;
        d.alloc_fn = nkloop_p_arena_alloc;
        d.alloc_user = arena;
    }
    nkloop_p_desc_defaults(&d);
    if (nkloop_p_os_start() < 0) return NKLOOP_ERR_SYSTEM;
    L = (nkloop*)d.alloc_fn(d.alloc_user, NULL, 0, sizeof *L);
    if (!L) { nkloop_p_os_stop(); return NKLOOP_ERR_NOMEM; }
    memset(L, 0, sizeof *L);
    L->desc = d;
    L->arena = arena;
    L->free_slot = L->free_timer = L->attention_first = L->attention_last = NKLOOP_P_NIL;
    L->wake_read = L->wake_write = L->backend_fd = NKLOOP_NO_FD;
    for (i = 0; i <= NKLOOP_P_BUCKETS; i++) L->wheel[i] = L->wheel_last[i] = NKLOOP_P_NIL;
    L->start_ns = L->now_ns = nkloop_p_os_now_ns();
    nkloop_p_own(L);
    L->rx_buf = (uint8_t*)nkloop_alloc(L, NULL, 0, L->desc.read_quantum);
    L->backend = nkloop_p_backend_for(d.backend);
    r = !L->backend ? NKLOOP_ERR_UNSUPPORTED : !L->rx_buf ? NKLOOP_ERR_NOMEM : L->backend->open(L);
    if (r < 0) L->backend = NULL; // nothing of it to shut
    if (r == NKLOOP_OK) r = nkloop_p_open(L);
    if (r < 0) { nkloop_p_free(L); return r; }
    *out = L;
    return NKLOOP_OK;
}

NETKIT_LOOP_API void nkloop_destroy(nkloop* L) {
    uint32_t i;
    if (!L) return;
    NETKIT_LOOP_ASSERT(!L->in_turn);
    L->dying = 1;
    L->in_turn = 1;
    nkloop_flush(L);
    #ifdef NKLOOP_P_RESOLVE
    nkloop_pool_destroy(L->resolver); // waits for a lookup that is under way
    #endif
    for (i = 0; i < L->num_slabs << NKLOOP_P_SLAB_SHIFT; i++) {
        if (nkloop_p_at(L, i)->kind != NKLOOP_P_FREE) nkloop_p_close_slot(L, i, NKLOOP_ERR_SHUTDOWN);
    }
    while (L->attention_first != NKLOOP_P_NIL) nkloop_p_settle(L);
    nkloop_p_take_posted(L);
    while (L->ready_first) { nkloop_p_run_ready(L); nkloop_p_take_posted(L); }
    while (L->attention_first != NKLOOP_P_NIL) nkloop_p_settle(L);
    nkloop_p_free(L);
}

NETKIT_LOOP_API uint64_t nkloop_now_ns(const nkloop* L) { return L->now_ns; }
NETKIT_LOOP_API int nkloop_os_error(const nkloop* L) { return L->os_error; }
NETKIT_LOOP_API int nkloop_backend(const nkloop* L) { return L->backend->id; }
NETKIT_LOOP_API void nkloop_get_stats(const nkloop* L, nkloop_stats* out) { *out = L->stats; }
NETKIT_LOOP_API uint32_t nkloop_rx_bytes(const nkloop* L) { return L->desc.rx_bytes; }

#undef NKLOOP_P_POSIX
#undef NKLOOP_P_ABSTRACT
#undef NKLOOP_P_NOSIGNAL
#undef NKLOOP_P_EPOLL
#undef NKLOOP_P_KQUEUE
#undef NKLOOP_P_RESOLVE
#undef NKLOOP_P_ACCEPT4
#undef NKLOOP_P_NIL
#undef NKLOOP_P_UNLINKED
#undef NKLOOP_P_IS_TIMER
#undef NKLOOP_P_MAX_MS
#undef NKLOOP_P_SOCK

#ifdef __cplusplus
} // extern "C"
#endif
#endif // NETKIT_LOOP_IMPLEMENTED
#endif // NETKIT_LOOP_IMPLEMENTATION

/*  LICENCE: MIT or public domain, as you prefer.

    MIT: Copyright (c) 2026 the netkit authors. Permission is hereby granted, free of charge, to any person obtaining a
    copy of this software and associated documentation files (the "Software"), to deal in the Software without
    restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
    and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
    following conditions: The above copyright notice and this permission notice shall be included in all copies or
    substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
    IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
    NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
    LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
    SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

    Public domain (unlicense.org): This is free and unencumbered software released into the public domain. Anyone is
    free to copy, modify, publish, use, compile, sell, or distribute this software, either in source code form or as a
    compiled binary, for any purpose, commercial or non-commercial, and by any means. */
