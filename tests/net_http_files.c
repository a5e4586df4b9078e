// net_http_files.c -- static files over real sockets: what may be reached, what is sent, and what happens when the file system
// or the client misbehaves. Server and client share one thread: the client never blocks, it turns the loop while it waits.
// POSIX only.
#define _GNU_SOURCE 1
#include <stddef.h>
#include <sys/types.h>
struct stat;

// System calls of the files' @os room, with a wish list of failures.
static struct { int openat2, openat, fstat, pread, times; size_t pread_max; } fault; // errno to fail with, `times` times; 0: none
static int fault_openat2(int dir, const char* path, void* how, size_t size);
static int fault_openat(int dir, const char* path, int flags);
static int fault_fstat(int fd, struct stat* st);
static ssize_t fault_pread(int fd, void* out, size_t n, off_t offset);
#define NETKIT_HTTP_SYS_OPENAT2(dir, path, how, size)   fault_openat2(dir, path, how, size)
#define NETKIT_HTTP_SYS_OPENAT(dir, path, flags)        fault_openat(dir, path, flags)
#define NETKIT_HTTP_SYS_FSTAT(fd, st)                   fault_fstat(fd, st)
#define NETKIT_HTTP_SYS_PREAD(fd, out, n, offset)       fault_pread(fd, out, n, offset)
#define NETKIT_IMPLEMENTATION
#include "netkit_http.h"
#include "nktest.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

static int fault_hits(int* code) {
    if (!*code || !fault.times) return 0;
    if (fault.times > 0) fault.times--;
    errno = *code;
    return 1;
}
static int fault_openat2(int dir, const char* path, void* how, size_t size) {
    if (fault_hits(&fault.openat2)) return -1;
#ifdef __linux__
    return (int)syscall(437, dir, path, how, size);
#else
    (void)dir; (void)path; (void)how; (void)size;
    errno = ENOSYS;
    return -1;
#endif
}
static int fault_openat(int dir, const char* path, int flags) {
    return fault_hits(&fault.openat) ? -1 : openat(dir, path, flags);
}
static int fault_fstat(int fd, struct stat* st) { return fault_hits(&fault.fstat) ? -1 : fstat(fd, st); }
static ssize_t fault_pread(int fd, void* out, size_t n, off_t offset) {
    if (fault_hits(&fault.pread)) return -1;
    if (fault.pread_max && n > fault.pread_max) n = fault.pread_max;
    return pread(fd, out, n, offset);
}
static int have_openat2(void) { // not on old kernels, not under valgrind
#ifdef __linux__
    uint64_t how[3] = { O_RDONLY, 0, 8 };
    long fd = syscall(437, AT_FDCWD, ".", how, sizeof how);
    if (fd >= 0) close((int)fd);
    return fd >= 0;
#else
    return 0;
#endif
}
static void fault_clear(void) { memset(&fault, 0, sizeof fault); }

// ---- the directory ----------------------------------------------------------------------------
static char base[512], root[600];

static const char* at(const char* name) { // path of a name below the root; four at a time
    static char out[4][1200];
    static unsigned turn;
    char* p = out[turn++ % 4];
    snprintf(p, sizeof out[0], "%s/%s", root, name);
    return p;
}
static void put(const char* name, const void* bytes, size_t n) {
    FILE* f = fopen(at(name), "wb");
    if (!CHECK(f != NULL)) return;
    CHECK_INT(fwrite(bytes, 1, n, f), n);
    fclose(f);
}
static void put_text(const char* name, const char* text) { put(name, text, strlen(text)); }
static void set_mtime(const char* name, long seconds) {
    struct timespec t[2];
    t[0].tv_sec = t[1].tv_sec = seconds;
    t[0].tv_nsec = t[1].tv_nsec = 0;
    CHECK_INT(utimensat(AT_FDCWD, at(name), t, 0), 0);
}
static unsigned char pattern(uint64_t i) { return (unsigned char)((i * 31 + (i >> 8) * 7 + (i >> 16)) & 255); }
static void put_pattern(const char* name, size_t n) {
    unsigned char* p = (unsigned char*)malloc(n);
    size_t i;
    for (i = 0; i < n; i++) p[i] = pattern(i);
    put(name, p, n);
    free(p);
}
static int remove_one(const char* path, const struct stat* st, int flag, struct FTW* ftw) {
    (void)st; (void)flag; (void)ftw;
    return remove(path);
}
static void remove_all(void) { if (base[0]) nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

#define MTIME 784111777 // Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples
static void make_root(void) {
    struct sockaddr_un un;
    const char* tmp = getenv("TMPDIR");
    int s;
    if (base[0]) return;
    snprintf(base, sizeof base, "%s/nkfiles.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!CHECK(mkdtemp(base) != NULL)) exit(1);
    atexit(remove_all);
    snprintf(root, sizeof root, "%s/root", base);
    CHECK_INT(mkdir(root, 0755), 0);
    CHECK_INT(mkdir(at("../outside"), 0755), 0);
    put_text("../outside/secret.txt", "secret\n");
    put_text("../secret.txt", "secret\n");
    put_text("index.html", "<p>root index\n");
    put_text("hello.txt", "hello world\n");
    put_text("empty.txt", "");
    put_text("data.bin", "0123456789");
    set_mtime("data.bin", MTIME);
    put_text("unknown.xyzzy", "?");
    put_text("noext", "?");
    put_text("a b.txt", "space\n");
    put_text("\xc3\xa9.txt", "utf8\n");
    put_text(".hidden", "hidden\n");
    CHECK_INT(mkdir(at(".git"), 0755), 0);
    put_text(".git/config", "hidden\n");
    CHECK_INT(mkdir(at("sub"), 0755), 0);
    put_text("sub/index.html", "<p>sub index\n");
    put_text("sub/x.txt", "x\n");
    CHECK_INT(mkdir(at("empty"), 0755), 0);
    CHECK_INT(mkdir(at("dirindex"), 0755), 0);
    CHECK_INT(mkdir(at("dirindex/index.html"), 0755), 0);
    put_pattern("big.bin", 300000);
    put_text("page.css", "plain css plain css\n");
    put_text("page.css.gz", "GZIPPED");
    put_text("only.css.gz", "ONLYGZ");
    CHECK_INT(symlink("hello.txt", at("link_in")), 0);
    CHECK_INT(symlink("sub", at("dir_in")), 0);
    CHECK_INT(symlink("../outside/secret.txt", at("link_out")), 0);
    CHECK_INT(symlink("../outside", at("dir_out")), 0);
    CHECK_INT(symlink("/etc/passwd", at("link_etc")), 0);
    CHECK_INT(symlink(at("hello.txt"), at("link_abs")), 0);
    CHECK_INT(symlink("link_loop", at("link_loop")), 0);
    CHECK_INT(symlink("nowhere", at("link_dead")), 0);
    CHECK_INT(symlink("../root/hello.txt", at("link_around")), 0);
    CHECK_INT(mkfifo(at("fifo"), 0644), 0);
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    snprintf(un.sun_path, sizeof un.sun_path, "%s", at("sock"));
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(s, (struct sockaddr*)&un, sizeof un); // a long TMPDIR does not fit: then there is no such file, which is refused as well
    close(s);
}

// ---- the server -------------------------------------------------------------------------------
static nkloop* loop;
static nkhttp_server* server;
static unsigned short port;
static long live_bytes, alloc_countdown = -1; // alloc_countdown: so many allocations succeed, then all fail; -1 never

static void* counting_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    void* p;
    (void)user;
    if (!new_size) {
        __atomic_sub_fetch(&live_bytes, (long)old_size, __ATOMIC_RELAXED); // workers allocate too
        free(ptr);
        return NULL;
    }
    if (alloc_countdown == 0) return NULL;
    if (alloc_countdown > 0) alloc_countdown--;
    p = realloc(ptr, new_size);
    if (p) __atomic_add_fetch(&live_bytes, (long)new_size - (long)old_size, __ATOMIC_RELAXED);
    return p;
}

static struct { uint32_t tx_bytes, write_timeout_ms, workers; const nkhttp_codec* codec; } option; // of the next server

static int start_server(void) {
    nkloop_desc ld;
    nkhttp_server_desc sd;
    const char* b = getenv("NKTEST_BACKEND");
    char address[64];
    memset(&ld, 0, sizeof ld);
    memset(&sd, 0, sizeof sd);
    if (b && strcmp(b, "epoll") == 0) ld.backend = NKLOOP_BACKEND_EPOLL;
    if (b && strcmp(b, "poll") == 0) ld.backend = NKLOOP_BACKEND_POLL;
    ld.alloc_fn = counting_alloc;
    ld.tx_bytes = option.tx_bytes;
    sd.write_timeout_ms = option.write_timeout_ms;
    sd.codec = option.codec;
    sd.workers = option.workers;
    live_bytes = 0;
    sd.address = "127.0.0.1:0";
    if (!CHECK_INT(nkloop_create(&loop, &ld), NKLOOP_OK)) return 0;
    if (!CHECK_INT(nkhttp_server_create(&server, loop, &sd), NKHTTP_OK)) return 0;
    if (!CHECK(nkhttp_server_address(server, address, sizeof address) > 0)) return 0;
    port = (unsigned short)atoi(strrchr(address, ':') + 1);
    return 1;
}
static void stop_server(void) {
    int i;
    for (i = 0; i < 20; i++) nkloop_wait(loop, 0);
    nkhttp_server_destroy(server);
    nkloop_destroy(loop);
    CHECK_INT(live_bytes, 0);
    memset(&option, 0, sizeof option);
}
static int start_files(const nkhttp_files_desc* d) {
    make_root();
    return start_server() && CHECK_INT(nkhttp_serve_files(server, "/", d), NKHTTP_OK);
}
static int start_root(void) {
    nkhttp_files_desc d;
    memset(&d, 0, sizeof d);
    make_root();
    d.root = root;
    return start_files(&d);
}

// ---- the client -------------------------------------------------------------------------------
typedef struct reply {
    int           status; // 0: no reply at all, -1: cannot be parsed
    nkhttp_head   head;
    nkhttp_header headers[64];
    char*         raw;
    size_t        len, cap;
    const char*   body;
    size_t        body_len;
    int           eof, failed; // failed: ended by a reset
} reply;
static reply re;

static int dial(int rcvbuf) {
    struct sockaddr_in a;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (rcvbuf) setsockopt(s, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    CHECK_INT(connect(s, (struct sockaddr*)&a, sizeof a), 0);
    fcntl(s, F_SETFL, fcntl(s, F_GETFL) | O_NONBLOCK);
    return s;
}
static void turn(int s) { // until there is something to read on s, or the loop has had its say
    struct pollfd p;
    p.fd = s;
    p.events = POLLIN;
    nkloop_wait(loop, poll(&p, 1, 0) > 0 ? 0 : 2);
}
static void push(int s, const char* bytes, size_t n) {
    while (n) {
        ssize_t w = send(s, bytes, n, MSG_NOSIGNAL);
        if (w > 0) {
            bytes += w;
            n -= (size_t)w;
        } else if (w < 0 && errno != EAGAIN && errno != EINTR) {
            return;
        }
        nkloop_wait(loop, 0);
    }
}
// Up to most bytes; 0 at the end, -1 after a reset or when nothing has come for a long time.
static long pull(int s, void* out, size_t most) {
    int i;
    for (i = 0; i < 10000; i++) {
        ssize_t n = recv(s, out, most, 0);
        if (n >= 0) return (long)n;
        if (errno != EAGAIN && errno != EINTR) return -1;
        turn(s);
    }
    CHECK_INT(i, 0); // waited too long
    return -1;
}
static void parse_reply(reply* r) {
    int n;
    memset(&r->head, 0, sizeof r->head);
    r->head.headers = r->headers;
    r->head.max_headers = 64;
    r->status = 0;
    r->body = "";
    r->body_len = 0;
    if (!r->len) return;
    n = nkhttp_parse_response(r->raw, r->len, &r->head);
    r->status = n > 0 ? r->head.status : -1;
    if (n <= 0) return;
    r->body = r->raw + n;
    r->body_len = r->len - (size_t)n;
}
static void read_reply(int s, reply* r) { // to the end of the connection
    r->len = 0;
    r->eof = r->failed = 0;
    for (;;) {
        long n;
        if (r->cap - r->len < 65536) {
            r->cap = r->cap * 2 + 131072;
            r->raw = (char*)realloc(r->raw, r->cap);
        }
        n = pull(s, r->raw + r->len, r->cap - r->len);
        if (n <= 0) {
            r->eof = n == 0;
            r->failed = n < 0;
            break;
        }
        r->len += (size_t)n;
    }
    parse_reply(r);
}
static int fetch(const char* method, const char* path, const char* fields) {
    static char request[70000];
    int n = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", method, path, fields);
    int s = dial(0);
    push(s, request, (size_t)n);
    read_reply(s, &re);
    close(s);
    if (re.status > 0 && (re.head.flags & NKHTTP_HAS_LENGTH) && strcmp(method, "HEAD") != 0 && re.status != 304) {
        CHECK_INT(re.body_len, re.head.content_length);
    }
    return re.status;
}
static int get(const char* path) { return fetch("GET", path, ""); }
static int get_with(const char* path, const char* name, const char* value) {
    static char field[65000];
    snprintf(field, sizeof field, "%s: %s\r\n", name, value);
    return fetch("GET", path, field);
}
// Value of a field of the last reply; "" if there is none. Two at a time.
static const char* field(const char* name) {
    static char out[2][1024];
    static unsigned which;
    nkhttp_str v = nkhttp_value(&re.head, name);
    char* p = out[which++ % 2];
    snprintf(p, sizeof out[0], "%.*s", (int)v.len, v.len ? v.ptr : "");
    return p;
}
static int has(const char* text) { // in the body of the last reply
    return re.body_len && memmem(re.body, re.body_len, text, strlen(text)) != NULL;
}
static int is_pattern(const char* p, size_t n, uint64_t from) {
    size_t i;
    for (i = 0; i < n; i++) if ((unsigned char)p[i] != pattern(from + i)) return 0;
    return 1;
}
#define CHECK_BODY(text) CHECK_STR(re.body, re.body_len, text)
#define CHECK_FIELD(name, text) CHECK_STR(field(name), strlen(field(name)), text)

// ---- what is sent -----------------------------------------------------------------------------
TEST(plain) {
    if (!start_root()) return;
    CHECK_INT(get("/hello.txt"), 200);
    CHECK_BODY("hello world\n");
    CHECK_FIELD("Content-Type", "text/plain; charset=utf-8");
    CHECK_FIELD("X-Content-Type-Options", "nosniff");
    CHECK_FIELD("Accept-Ranges", "bytes");
    CHECK_FIELD("Cache-Control", "");
    CHECK_FIELD("Vary", "");
    CHECK(field("ETag")[0] == '"');
    CHECK_INT(strlen(field("Last-Modified")), 29);
    CHECK(field("Date")[0] != 0);
    CHECK_INT(get("/empty.txt"), 200);
    CHECK_FIELD("Content-Length", "0");
    CHECK_INT(get("/unknown.xyzzy"), 200);
    CHECK_FIELD("Content-Type", "application/octet-stream");
    CHECK_INT(get("/noext"), 200);
    CHECK_FIELD("Content-Type", "application/octet-stream");
    CHECK_INT(get("/a%20b.txt"), 200);
    CHECK_BODY("space\n");
    CHECK_INT(get("/%C3%A9.txt"), 200);
    CHECK_BODY("utf8\n");
    CHECK_INT(get("/hello.txt?query=1"), 200);
    CHECK_INT(get("/./sub//x.txt"), 200);
    CHECK_INT(get("/data.bin"), 200);
    CHECK_FIELD("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    CHECK_INT(get("/big.bin"), 200);
    CHECK_INT(re.body_len, 300000);
    CHECK(is_pattern(re.body, re.body_len, 0));
    CHECK_INT(get("/"), 200);
    CHECK_BODY("<p>root index\n");
    CHECK_FIELD("Content-Type", "text/html; charset=utf-8");
    CHECK_INT(get("/sub/"), 200);
    CHECK_BODY("<p>sub index\n");
    CHECK_INT(get("/sub/."), 200);
    CHECK_INT(get("/missing"), 404);
    CHECK_INT(get("/hello.txt/"), 404);
    CHECK_INT(get("/hello.txt/x"), 404);
    CHECK_INT(get("/empty/"), 404);
    CHECK_INT(get("/dirindex/"), 404);
    stop_server();
}

TEST(head_and_methods) {
    char length[32], etag[80];
    const char* names[] = { "/hello.txt", "/big.bin", "/empty.txt", "/", "/missing" };
    size_t i;
    if (!start_root()) return;
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        int status = get(names[i]);
        snprintf(length, sizeof length, "%s", field("Content-Length"));
        snprintf(etag, sizeof etag, "%s", field("ETag"));
        CHECK_INT(fetch("HEAD", names[i], ""), status);
        CHECK_INT(re.body_len, 0);
        CHECK_FIELD("Content-Length", length);
        CHECK_FIELD("ETag", etag);
    }
    CHECK_INT(fetch("HEAD", "/big.bin", "Range: bytes=0-0\r\n"), 200); // RFC 9110 14.2: GET only
    CHECK_FIELD("Content-Length", "300000");
    CHECK_INT(fetch("POST", "/hello.txt", "Content-Length: 0\r\n"), 405);
    CHECK(strstr(field("Allow"), "GET") != NULL && strstr(field("Allow"), "HEAD") != NULL);
    CHECK_INT(fetch("DELETE", "/hello.txt", ""), 405);
    CHECK(fetch("OPTIONS", "/hello.txt", "") / 100 == 2);
    CHECK(strstr(field("Allow"), "GET") != NULL);
    stop_server();
}

// ---- what may be reached ----------------------------------------------------------------------
static void check_traversal(void) {
    static const char* const bad[] = {
        "/../secret.txt", "/..", "/../", "/sub/../../secret.txt", "/sub/../hello.txt", "/..%2fsecret.txt", "/..%2Fsecret.txt",
        "/%2e%2e/secret.txt", "/%2E%2E/secret.txt", "/.%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/sub/..%5c..%5csecret.txt",
        "/%5c..%5csecret.txt", "/..%5csecret.txt", "/%252e%252e/secret.txt", "/..%252fsecret.txt", "/..%c0%afsecret.txt",
        "/%c0%ae%c0%ae/secret.txt", "/%e0%80%ae%e0%80%ae/secret.txt", "/..%u2216secret.txt", "/...//secret.txt",
        "/..;/secret.txt", "//etc/passwd", "//../secret.txt", "/%2fetc/passwd", "/%2f%2fetc%2fpasswd", "/%00", "/hello.txt%00",
        "/hello.txt%00.html", "/%0d%0aX:%20y", "/hello%0a.txt", "/C:/x", "/c:%5cx", "/C:hello.txt", "/con", "/CON.txt", "/sub/nul",
        "/aux.c", "/com1", "/LPT9.txt", "/hello.txt::$DATA", "/hello.txt.", "/hello.txt%20", "/hello.txt%20.", "/HELLO~1.TXT",
        "/sub./x.txt", "/.hidden", "/%2ehidden", "/.git/config", "/sub/.hidden", "/%", "/%zz", "/%e9.txt", "/hello.txt%ff",
        "/fifo", "/sock", "/sub/fifo", "/link_out", "/dir_out/secret.txt", "/dir_out/", "/dir_out", "/link_etc", "/link_loop",
        "/link_loop/x", "/link_dead", "/index.html/../../secret.txt", "/root/hello.txt", "/~/hello.txt", "/%7eroot",
        "http://x/../secret.txt", "http://x/%2e%2e/secret.txt",
    };
    char path[6000];
    size_t i;
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int status = get(bad[i]);
        if (!CHECK(status == 404 || status == 400)) printf("    %s: %d\n", bad[i], status);
        CHECK(!has("secret") && !has("root:") && !has("hidden"));
    }
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[300] = 0; // longer than a name may be
    CHECK_INT(get(path), 404);
    path[300] = 'a';
    path[5000] = 0; // longer than a path may be
    CHECK_INT(get(path), 404);
    for (i = 1; i < 4998; i += 2) path[i] = 'd', path[i + 1] = '/';
    CHECK_INT(get(path), 404);
    CHECK_INT(get("/hello.txt"), 200);
    CHECK_INT(get("/sub/x.txt"), 200);
    CHECK_INT(get("/sub/"), 200);
}

static void check_links(int follow) {
    int want = follow ? 200 : 404;
    CHECK_INT(get("/link_in"), want);
    if (follow) CHECK_BODY("hello world\n");
    CHECK_INT(get("/dir_in/x.txt"), want);
    CHECK_INT(get("/dir_in/"), want);
    CHECK_INT(get("/link_abs"), want); // absolute, but it ends inside
    CHECK_INT(get("/link_around"), want); // goes out and comes back: refused or not, by what it names in the end
}

TEST(traversal) {
    if (!start_root()) return;
    check_traversal();
    check_links(0);
    stop_server();
}
TEST(traversal_without_openat2) {
    if (!start_root()) return;
    fault.openat2 = ENOSYS;
    fault.times = -1;
    check_traversal();
    check_links(0);
    stop_server();
    if (!start_root()) return;
    fault.openat2 = EPERM; // what sandboxes say
    check_traversal();
    fault_clear();
    stop_server();
}
TEST(traversal_with_links) {
    nkhttp_files_desc d;
    int pass;
    for (pass = 0; pass < 2; pass++) {
        make_root();
        memset(&d, 0, sizeof d);
        d.root = root;
        d.follow_symlinks = 1;
        if (!start_files(&d)) return;
        if (pass) {
            fault.openat2 = ENOSYS;
            fault.times = -1;
        }
        check_traversal();
        check_links(1);
        fault_clear();
        stop_server();
    }
}

TEST(dotfiles_by_choice) {
    nkhttp_files_desc d;
    make_root();
    memset(&d, 0, sizeof d);
    d.root = root;
    d.allow_dotfiles = 1;
    if (!start_files(&d)) return;
    CHECK_INT(get("/.hidden"), 200);
    CHECK_INT(get("/.git/config"), 200);
    CHECK(get("/..") != 200);
    CHECK(get("/../secret.txt") != 200);
    CHECK(get("/%2e%2e/secret.txt") != 200);
    stop_server();
}

TEST(redirect_of_directories) {
    if (!start_root()) return;
    CHECK_INT(get("/sub"), 301);
    CHECK_FIELD("Location", "./sub/");
    CHECK_INT(get("//sub"), 301);
    CHECK_FIELD("Location", "./sub/");
    CHECK_INT(get("/sub?a=b&c"), 301);
    CHECK_FIELD("Location", "./sub/?a=b&c");
    CHECK_INT(get("/s%75b"), 301);
    CHECK_FIELD("Location", "./sub/");
    CHECK(get("//evil.example/%2e%2e") != 301);
    CHECK(get("//evil.example/..") != 301);
    CHECK(get("/%2fevil.example") != 301);
    CHECK(get("/sub%0d%0aSet-Cookie:x") != 301);
    CHECK_INT(mkdir(at("d x\xc3\xa9&"), 0755), 0);
    CHECK_INT(get("/d%20x%C3%A9&"), 301);
    CHECK_FIELD("Location", "./d%20x%C3%A9%26/");
    rmdir(at("d x\xc3\xa9&"));
    stop_server();
}

TEST(prefixes) {
    nkhttp_files_desc d;
    memset(&d, 0, sizeof d);
    make_root();
    if (!start_server()) return;
    d.root = root;
    CHECK_INT(nkhttp_serve_files(server, "/static/", &d), NKHTTP_OK);
    CHECK_INT(nkhttp_serve_files(server, "/other/deep", &d), NKHTTP_OK);
    CHECK_INT(nkhttp_serve_files(server, "/static/", &d), NKHTTP_ERR_DUPLICATE);
    CHECK_INT(nkhttp_serve_files(server, "static/", &d), NKLOOP_ERR_INVAL);
    CHECK_INT(nkhttp_serve_files(server, "", &d), NKLOOP_ERR_INVAL);
    d.table = (const nkhttp_embedded*)"";
    d.num_embedded = 1;
    CHECK_INT(nkhttp_serve_files(server, "/x/", &d), NKLOOP_ERR_INVAL); // two sources
    memset(&d, 0, sizeof d);
    CHECK_INT(nkhttp_serve_files(server, "/x/", &d), NKLOOP_ERR_INVAL); // none
    d.root = at("missing");
    CHECK_INT(nkhttp_serve_files(server, "/x/", &d), NKHTTP_ERR_NOT_FOUND);
    d.root = at("hello.txt");
    CHECK_INT(nkhttp_serve_files(server, "/x/", &d), NKHTTP_ERR_NOT_FOUND);
    d.root = root;
    d.cache_control = "no-cache\r\nX: y";
    CHECK_INT(nkhttp_serve_files(server, "/x/", &d), NKLOOP_ERR_INVAL);
    CHECK_INT(get("/static/hello.txt"), 200);
    CHECK_INT(get("/static/"), 200);
    CHECK_INT(get("/static"), 301);
    CHECK_FIELD("Location", "./static/");
    CHECK_INT(get("/%73tatic/hello.txt"), 200);
    CHECK_INT(get("/static/sub"), 301);
    CHECK_FIELD("Location", "./sub/");
    CHECK_INT(get("/other/deep/sub/x.txt"), 200);
    CHECK_INT(get("/other/deep/"), 200);
    CHECK_INT(get("/other/hello.txt"), 404);
    CHECK_INT(get("/hello.txt"), 404);
    CHECK_INT(get("/staticx/hello.txt"), 404);
    CHECK(get("/static/../hello.txt") != 200);
    CHECK(get("/static/%2e%2e/secret.txt") != 200);
    stop_server();
}

// ---- ranges -----------------------------------------------------------------------------------
TEST(ranges) {
    static const struct { const char* range; int status; const char* content_range; const char* body; } t[] = { // data.bin
        { "bytes=0-0", 206, "bytes 0-0/10", "0" },
        { "bytes=0-", 206, "bytes 0-9/10", "0123456789" },
        { "bytes=3-5", 206, "bytes 3-5/10", "345" },
        { "bytes=9-", 206, "bytes 9-9/10", "9" },
        { "bytes=5-99", 206, "bytes 5-9/10", "56789" },
        { "bytes=-5", 206, "bytes 5-9/10", "56789" },
        { "bytes=-99", 206, "bytes 0-9/10", "0123456789" },
        { "BYTES=1-2", 206, "bytes 1-2/10", "12" },
        { "bytes=5-4", 200, "", "0123456789" },
        { "bytes=10-", 416, "bytes */10", NULL },
        { "bytes=999999-", 416, "bytes */10", NULL },
        { "bytes=-0", 416, "bytes */10", NULL },
        { "bytes=18446744073709551615-", 416, "bytes */10", NULL },
        { "bytes=18446744073709551616-", 416, "bytes */10", NULL },
        { "bytes=99999999999999999999999999-", 416, "bytes */10", NULL },
        { "bytes=0-18446744073709551616", 206, "bytes 0-9/10", "0123456789" },
        { "bytes=-18446744073709551616", 206, "bytes 0-9/10", "0123456789" },
        { "lines=1-2", 200, "", "0123456789" },
        { "bytes", 200, "", "0123456789" },
        { "bytes=", 200, "", "0123456789" },
        { "bytes=a-b", 200, "", "0123456789" },
        { "bytes=1", 200, "", "0123456789" },
        { "bytes=-", 200, "", "0123456789" },
        { "bytes=0x1-2", 200, "", "0123456789" },
        { "bytes=0-1,50-60", 206, "bytes 0-1/10", "01" },
        { "bytes=0-2,3-5", 206, "bytes 0-5/10", "012345" },
    };
    size_t i;
    if (!start_root()) return;
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        int status = get_with("/data.bin", "Range", t[i].range);
        if (t[i].status == 416 && status == 200) continue; // numbers beyond 2^64 may be a syntax error as well
        if (!CHECK_INT(status, t[i].status)) printf("    %s\n", t[i].range);
        CHECK_FIELD("Content-Range", t[i].content_range);
        if (t[i].body) CHECK_BODY(t[i].body);
    }
    CHECK_INT(get_with("/big.bin", "Range", "bytes=100000-299999"), 206); // by sendfile
    CHECK_INT(re.body_len, 200000);
    CHECK(is_pattern(re.body, re.body_len, 100000));
    CHECK_INT(get_with("/big.bin", "Range", "bytes=-10"), 206);
    CHECK(re.body_len == 10 && is_pattern(re.body, 10, 299990));
    CHECK_INT(get_with("/empty.txt", "Range", "bytes=0-"), 416);
    CHECK_FIELD("Content-Range", "bytes */0");
    CHECK_INT(fetch("GET", "/data.bin", "Range: bytes=0-1\r\nRange: bytes=2-3\r\n"), 200);
    stop_server();
}

// Takes a multipart/byteranges body of the last reply apart and checks each part against the pattern file's size.
static int check_parts(const char* type, uint64_t size, uint64_t want[][2], int num) {
    char boundary[128], line[400];
    const char* p = re.body;
    const char* end = re.body + re.body_len;
    const char* b = strstr(field("Content-Type"), "boundary=");
    int i, n;
    if (!CHECK(b != NULL) || !CHECK(strncmp(field("Content-Type"), "multipart/byteranges", 20) == 0)) return 0;
    snprintf(boundary, sizeof boundary, "%s", b + 9);
    for (i = 0; i < num; i++) {
        size_t body = (size_t)(want[i][1] - want[i][0] + 1);
        n = snprintf(line, sizeof line, "%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n", i ? "\r\n" : "",
                     boundary, type, (unsigned long long)want[i][0], (unsigned long long)want[i][1], (unsigned long long)size);
        if (!CHECK((size_t)(end - p) >= (size_t)n + body) || !CHECK_MEM(p, line, (size_t)n)) return 0;
        p += n;
        if (!CHECK(is_pattern(p, body, want[i][0]))) return 0;
        p += body;
    }
    n = snprintf(line, sizeof line, "\r\n--%s--\r\n", boundary);
    return CHECK_STR(p, (size_t)(end - p), line);
}

TEST(several_ranges) {
    uint64_t two[2][2] = { { 0, 0 }, { 2, 2 } }, three[3][2] = { { 0, 99999 }, { 150000, 150000 }, { 200000, 299999 } };
    uint64_t turned[2][2] = { { 299990, 299999 }, { 5, 6 } };
    static char many[64000];
    size_t n, i;
    if (!start_root()) return;
    CHECK_INT(get_with("/big.bin", "Range", "bytes=0-0,2-2"), 206);
    CHECK_FIELD("Content-Range", "");
    check_parts("application/octet-stream", 300000, two, 2);
    CHECK_INT(get_with("/big.bin", "Range", "bytes=0-99999, 150000-150000 ,200000-"), 206);
    check_parts("application/octet-stream", 300000, three, 3);
    CHECK_INT(get_with("/big.bin", "Range", "bytes=-10,5-6"), 206);
    check_parts("application/octet-stream", 300000, turned, 2);
    n = (size_t)snprintf(many, sizeof many, "bytes=0-");
    for (i = 0; i < 1000; i++) n += (size_t)snprintf(many + n, sizeof many - n, ",%u-", (unsigned)i);
    CHECK_INT(get_with("/big.bin", "Range", many), 200);
    CHECK_INT(re.body_len, 300000);
    n = (size_t)snprintf(many, sizeof many, "bytes=0-0");
    for (i = 1; i < 1000; i++) n += (size_t)snprintf(many + n, sizeof many - n, ",%u-%u", (unsigned)i * 2, (unsigned)i * 2);
    CHECK_INT(get_with("/big.bin", "Range", many), 200);
    stop_server();
}

TEST(if_range) {
    char etag[80], weak[90];
    if (!start_root()) return;
    get("/data.bin");
    snprintf(etag, sizeof etag, "%s", field("ETag"));
    snprintf(weak, sizeof weak, "W/%s", etag);
#define IF_RANGE(value) fetch("GET", "/data.bin", "Range: bytes=1-2\r\nIf-Range: " value "\r\n")
    {
        char f[200];
        snprintf(f, sizeof f, "Range: bytes=1-2\r\nIf-Range: %s\r\n", etag);
        CHECK_INT(fetch("GET", "/data.bin", f), 206);
        CHECK_BODY("12");
        snprintf(f, sizeof f, "Range: bytes=1-2\r\nIf-Range: %s\r\n", weak);
        CHECK_INT(fetch("GET", "/data.bin", f), 200); // RFC 9110 13.1.5: strong comparison only
    }
    CHECK_INT(IF_RANGE("\"other\""), 200);
    CHECK_INT(IF_RANGE("garbage"), 200);
    CHECK_INT(IF_RANGE("Sun, 06 Nov 1994 08:49:37 GMT"), 206);
    CHECK_INT(IF_RANGE("Sun, 06 Nov 1994 08:49:38 GMT"), 200); // exact match, not "not newer"
    CHECK_INT(IF_RANGE("Sun, 06 Nov 1994 08:49:36 GMT"), 200);
    CHECK_INT(fetch("GET", "/data.bin", "Range: bytes=99-\r\nIf-Range: \"other\"\r\n"), 200);
    stop_server();
}

// ---- conditionals -----------------------------------------------------------------------------
TEST(conditionals) {
    char etag[80], f[400];
    nkhttp_files_desc d;
    static const struct { const char* fields; int status; } t[] = { // data.bin, last modified Sun, 06 Nov 1994 08:49:37 GMT
        { "If-None-Match: *\r\n", 304 },
        { "If-None-Match: \"other\"\r\n", 200 },
        { "If-None-Match: other\r\n", 200 },
        { "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 304 },
        { "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", 304 },
        { "If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", 304 },
        { "If-Modified-Since: Mon, 07 Nov 1994 08:49:37 GMT\r\n", 304 },
        { "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 200 },
        { "If-Modified-Since: Tue, 01 Jan 2999 00:00:00 GMT\r\n", 200 }, // RFC 9110 13.1.3: a date in the future is invalid
        { "If-Modified-Since: yesterday\r\n", 200 },
        { "If-Modified-Since: 784111777\r\n", 200 },
        { "If-None-Match: \"other\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200 }, // the tag decides
        { "If-None-Match: *\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 304 },
        { "If-Match: *\r\n", 200 },
        { "If-Match: \"other\"\r\n", 412 },
        { "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200 },
        { "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 412 },
        { "If-Unmodified-Since: never\r\n", 200 },
        { "If-Match: *\r\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 200 },
        { "If-Match: \"other\"\r\nIf-None-Match: *\r\n", 412 },
        { "Range: bytes=0-1\r\nIf-None-Match: *\r\n", 304 },
        { "Range: bytes=99-\r\nIf-Match: \"other\"\r\n", 412 },
    };
    static const char* const tagged[] = { "If-None-Match: %s\r\n", "If-None-Match: W/%s\r\n", "If-None-Match: \"a\", %s , \"b\"\r\n",
                                          "If-None-Match: \"a\"\r\nIf-None-Match: %s\r\n" };
    size_t i;
    make_root();
    memset(&d, 0, sizeof d);
    d.root = root;
    d.cache_control = "max-age=60";
    if (!start_files(&d)) return;
    CHECK_INT(get("/data.bin"), 200);
    CHECK_FIELD("Cache-Control", "max-age=60");
    snprintf(etag, sizeof etag, "%s", field("ETag"));
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        if (!CHECK_INT(fetch("GET", "/data.bin", t[i].fields), t[i].status)) printf("    %s\n", t[i].fields);
        CHECK_FIELD("ETag", etag);
        if (re.status == 304) CHECK_INT(re.body_len, 0);
        if (re.status == 304) CHECK_FIELD("Cache-Control", "max-age=60");
        CHECK_INT(fetch("HEAD", "/data.bin", t[i].fields), t[i].status);
        CHECK_INT(re.body_len, 0);
    }
    for (i = 0; i < sizeof tagged / sizeof tagged[0]; i++) {
        snprintf(f, sizeof f, tagged[i], etag);
        CHECK_INT(fetch("GET", "/data.bin", f), 304);
        CHECK_FIELD("ETag", etag);
    }
    snprintf(f, sizeof f, "If-Match: W/%s\r\n", etag);
    CHECK_INT(fetch("GET", "/data.bin", f), 412); // RFC 9110 13.1.1: strong comparison
    snprintf(f, sizeof f, "If-Match: %s\r\n", etag);
    CHECK_INT(fetch("GET", "/data.bin", f), 200);
    CHECK_INT(fetch("GET", "/missing", "If-None-Match: *\r\n"), 404);
    put_text("data.bin", "0123456780"); // same size, other time
    CHECK_INT(get("/data.bin"), 200);
    CHECK(strcmp(field("ETag"), etag) != 0);
    put_text("data.bin", "0123456789");
    set_mtime("data.bin", MTIME);
    put_text("future.txt", "x");
    set_mtime("future.txt", 32503680000L); // year 3000
    CHECK_INT(get("/future.txt"), 200);
    CHECK(strstr(field("Last-Modified"), "3000") == NULL); // RFC 9110 8.8.2.1
    stop_server();
}

// ---- precompressed ----------------------------------------------------------------------------
TEST(precompressed) {
    static const struct { const char* accept; int gzip; } t[] = {
        { "Accept-Encoding: gzip\r\n", 1 }, { "Accept-Encoding: br, gzip;q=0.8, deflate\r\n", 1 }, { "Accept-Encoding: GZIP\r\n", 1 },
        { "Accept-Encoding: *\r\n", 1 }, { "Accept-Encoding: x-gzip\r\n", -1 }, { "", 0 }, { "Accept-Encoding: br\r\n", 0 },
        { "Accept-Encoding: gzip;q=0\r\n", 0 }, { "Accept-Encoding: gzip;q=0.000\r\n", 0 }, { "Accept-Encoding: identity\r\n", 0 },
        { "Accept-Encoding: identity, gzip;q=0.5\r\n", 0 }, { "Accept-Encoding:\r\n", 0 }, { "Accept-Encoding: *;q=0\r\n", 0 },
    };
    char plain[80], f[200];
    nkhttp_files_desc d;
    size_t i;
    if (!start_root()) return;
    get("/page.css");
    snprintf(plain, sizeof plain, "%s", field("ETag"));
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        CHECK_INT(fetch("GET", "/page.css", t[i].accept), 200);
        CHECK_FIELD("Vary", "Accept-Encoding");
        CHECK_FIELD("Content-Type", "text/css; charset=utf-8");
        if (t[i].gzip < 0) continue;
        if (!CHECK_INT(strcmp(field("Content-Encoding"), "gzip") == 0, t[i].gzip)) printf("    %s\n", t[i].accept);
        CHECK_BODY(t[i].gzip ? "GZIPPED" : "plain css plain css\n");
        CHECK_INT(strcmp(field("ETag"), plain) == 0, !t[i].gzip);
    }
    fetch("GET", "/page.css", "Accept-Encoding: gzip\r\n");
    snprintf(f, sizeof f, "Accept-Encoding: gzip\r\nIf-None-Match: %s\r\n", field("ETag"));
    CHECK_INT(fetch("GET", "/page.css", f), 304);
    CHECK_FIELD("Vary", "Accept-Encoding");
    snprintf(f, sizeof f, "Accept-Encoding: gzip\r\nIf-None-Match: %s\r\n", plain);
    CHECK_INT(fetch("GET", "/page.css", f), 200);
    CHECK_INT(fetch("HEAD", "/page.css", "Accept-Encoding: gzip\r\n"), 200);
    CHECK_FIELD("Content-Length", "7");
    CHECK_INT(fetch("GET", "/page.css", "Accept-Encoding: gzip\r\nRange: bytes=0-4\r\n"), 206);
    CHECK_BODY("plain");
    CHECK_FIELD("Content-Encoding", "");
    CHECK_INT(fetch("GET", "/page.css.gz", "Accept-Encoding: gzip\r\n"), 200);
    CHECK_FIELD("Content-Encoding", "");
    CHECK_FIELD("Content-Type", "application/gzip");
    CHECK_INT(fetch("GET", "/only.css", "Accept-Encoding: gzip\r\n"), 404);
    CHECK_INT(fetch("GET", "/hello.txt", "Accept-Encoding: gzip\r\n"), 200);
    CHECK_FIELD("Vary", "");
    stop_server();
    memset(&d, 0, sizeof d);
    d.root = root;
    d.disable_precompressed = 1;
    d.disable_nosniff = 1;
    if (!start_files(&d)) return;
    CHECK_INT(fetch("GET", "/page.css", "Accept-Encoding: gzip\r\n"), 200);
    CHECK_BODY("plain css plain css\n");
    CHECK_FIELD("Vary", "");
    CHECK_FIELD("X-Content-Type-Options", "");
    stop_server();
}

// ---- listings ---------------------------------------------------------------------------------
TEST(listing) {
    nkhttp_files_desc d;
    static const char* const names[] = { "list/<script>alert(1)<", "list/a&b.txt", "list/it's \"quoted\".txt", "list/sp ace.txt", "list/\xc3\xbc.txt",
                                         "list/ctl\x01\n.txt", "list/bad\xff.txt", "list/.dot", "list/zz.txt", "list/aa.txt", "list/100%.txt", "list/a#b?c",
                                         "list/javascript:alert(1)", "list/back\\slash" };
    const char* p[8];
    size_t i;
    make_root();
    mkdir(at("list"), 0755);
    mkdir(at("list/mm dir"), 0755);
    for (i = 0; i < sizeof names / sizeof names[0]; i++) put_text(names[i], "x");
    put_text("list/zz.txt", "12345");
    set_mtime("list/zz.txt", MTIME);
    CHECK_INT(symlink("../hello.txt", at("list/zlink")), 0);
    CHECK_INT(symlink("../../outside/secret.txt", at("list/zout")), 0);
    CHECK_INT(mkfifo(at("list/zfifo"), 0644), 0);
    memset(&d, 0, sizeof d);
    d.root = root;
    if (!start_files(&d)) return;
    CHECK_INT(get("/list/"), 404); // not without being asked to
    stop_server();
    d.list_directories = 1;
    if (!start_files(&d)) return;
    CHECK_INT(get("/list/"), 200);
    CHECK_FIELD("Content-Type", "text/html; charset=utf-8");
    CHECK_FIELD("X-Content-Type-Options", "nosniff");
    CHECK(strstr(field("Content-Security-Policy"), "default-src 'none'") != NULL);
    CHECK(!has("<script") && !has("\"quoted\""));
    CHECK(has(">&lt;script&gt;alert(1)&lt;</a>"));
    CHECK(has("href=\"./%3Cscript%3Ealert"));
    CHECK(has(">a&amp;b.txt</a>") && has("href=\"./a%26b.txt\""));
    CHECK(has("it&#39;s &quot;quoted&quot;.txt"));
    CHECK(has("href=\"./sp%20ace.txt\">sp ace.txt</a>"));
    CHECK(has("href=\"./%C3%BC.txt\">\xc3\xbc.txt</a>"));
    CHECK(has("href=\"./100%25.txt\""));
    CHECK(has("href=\"./a%23b%3Fc\""));
    CHECK(has("href=\"./mm%20dir/\">mm dir/</a>"));
    CHECK(has("href=\"../\""));
    CHECK(has("<h1>/list/</h1>") || has("<h1>/list</h1>"));
    CHECK(has("<td>5</td><td>Sun, 06 Nov 1994 08:49:37 GMT</td>"));
    CHECK(!has("ctl") && !has("bad\xff") && !has(".dot") && !has("javascript") && !has("back") && !has("zfifo"));
    CHECK(!has("zlink") && !has("zout")); // would not be served either
    p[0] = (const char*)memmem(re.body, re.body_len, ">mm dir/", 8);
    p[1] = (const char*)memmem(re.body, re.body_len, ">&lt;script", 11);
    p[2] = (const char*)memmem(re.body, re.body_len, ">aa.txt", 7);
    p[3] = (const char*)memmem(re.body, re.body_len, ">zz.txt", 7);
    CHECK(p[0] && p[0] < p[1] && p[1] < p[2] && p[2] < p[3]);
    CHECK_INT(fetch("HEAD", "/list/", ""), 200);
    CHECK_INT(re.body_len, 0);
    CHECK_INT(get("/sub/"), 200);
    CHECK_BODY("<p>sub index\n"); // the index still wins
    CHECK_INT(get("/empty/"), 200);
    CHECK_INT(get("/list"), 301);
    stop_server();
    d.follow_symlinks = 1;
    d.allow_dotfiles = 1;
    d.index = "";
    if (!start_files(&d)) return;
    CHECK_INT(get("/list/"), 200);
    CHECK(has("zlink") && has(">.dot<") && !has("zout") && !has("zfifo"));
    CHECK_INT(get("/"), 200);
    CHECK(has(">sub/<") && has(">link_in<") && !has("link_out") && !has("href=\"../\"") && has(">index.html<"));
    stop_server();
}

// ---- the file system misbehaves ---------------------------------------------------------------
TEST(failing_calls) {
    static const struct { int code, status; } t[] = { { EMFILE, 503 }, { ENFILE, 503 }, { ENOMEM, 503 }, { EACCES, 403 }, { ENOENT, 404 },
                                                      { ENOTDIR, 404 }, { ENAMETOOLONG, 404 }, { ELOOP, 404 }, { EXDEV, 404 }, { ENXIO, 404 }, { EIO, 500 } };
    size_t i;
    if (!start_root()) return;
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        fault.openat2 = t[i].code;
        fault.times = -1;
        CHECK_INT(get("/hello.txt"), t[i].status);
    }
    fault_clear();
    fault.openat2 = EINTR;
    fault.times = 1;
    CHECK_INT(get("/hello.txt"), 200);
    fault.openat2 = EAGAIN; // a rename got in the way
    fault.times = 3;
    CHECK_INT(get("/hello.txt"), 200);
    fault.times = -1;
    CHECK_INT(get("/hello.txt"), have_openat2() ? 503 : 200);
    fault_clear();
    fault.fstat = EIO;
    fault.times = -1;
    CHECK_INT(get("/hello.txt"), 500);
    fault_clear();
    fault.pread = EIO;
    fault.times = -1;
    CHECK_INT(get("/hello.txt"), 500);
    fault_clear();
    fault.pread = EINTR;
    fault.times = 2;
    fault.pread_max = 5; // short reads
    CHECK_INT(get("/hello.txt"), 200);
    CHECK_BODY("hello world\n");
    fault_clear();
    stop_server();
    if (!start_root()) return;
    fault.openat2 = ENOSYS;
    fault.times = 1;
    get("/hello.txt"); // from now on without openat2
    fault_clear();
    for (i = 0; i < sizeof t / sizeof t[0]; i++) {
        fault.openat = t[i].code;
        fault.times = -1;
        CHECK_INT(get("/hello.txt"), t[i].status);
        CHECK_INT(get("/sub/x.txt"), t[i].status);
    }
    fault_clear();
    fault.openat = EINTR;
    fault.times = 2;
    CHECK_INT(get("/sub/x.txt"), 200);
    fault_clear();
    stop_server();
}

TEST(failing_allocations) {
    nkhttp_files_desc d;
    long n;
    make_root();
    memset(&d, 0, sizeof d);
    d.root = root;
    d.list_directories = 1;
    if (!start_files(&d)) return;
    for (n = 0; n < 24; n++) {
        static const char* const paths[] = { "/hello.txt", "/big.bin", "/empty/", "/sub" };
        size_t i;
        for (i = 0; i < 4; i++) {
            alloc_countdown = n;
            get(paths[i]);
            CHECK(re.status == 0 || re.status == 200 || re.status == 301 || re.status == 500 || re.status == 503);
            alloc_countdown = -1;
        }
    }
    CHECK_INT(get("/hello.txt"), 200);
    stop_server();
}

// ---- large files ------------------------------------------------------------------------------
typedef struct sum { uint64_t h, total; } sum;
static void sum_add(sum* c, const unsigned char* p, size_t n) { // the position counts: blocks may come in any size
    size_t i;
    for (i = 0; i < n; i++) if (p[i]) c->h = c->h * 31 + p[i] + (c->total + i);
    c->total += n;
}

#define SPARSE (100u * 1024 * 1024)
TEST(sparse_100_mb_slow_reader) {
    static unsigned char buf[65536];
    const char* request = "GET /sparse.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    sum want = { 0, 0 }, got = { 0, 0 };
    nkhttp_head head;
    nkhttp_header headers[32];
    int fd, s, i, first = 1;
    long n;
    if (!start_root()) return;
    fd = open(at("sparse.bin"), O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_INT(ftruncate(fd, SPARSE), 0);
    for (i = 0; i < 64; i++) CHECK_INT(pwrite(fd, "mark of sparse", 14, (off_t)i * 1637000 + i), 14);
    for (i = 0; (uint64_t)i * sizeof buf < SPARSE; i++) {
        n = (long)pread(fd, buf, sizeof buf, (off_t)i * (off_t)sizeof buf);
        sum_add(&want, buf, (size_t)n);
    }
    close(fd);
    s = dial(128 * 1024);
    push(s, request, strlen(request));
    for (i = 0; (n = pull(s, buf, i % 7 ? sizeof buf : 1000)) > 0; i++) {
        size_t skip = 0;
        if (first) {
            memset(&head, 0, sizeof head);
            head.headers = headers;
            head.max_headers = 32;
            skip = (size_t)nkhttp_parse_response((const char*)buf, (size_t)n, &head);
            if (!CHECK_INT(head.status, 200)) break;
            CHECK_INT(head.content_length, SPARSE);
            first = 0;
        }
        sum_add(&got, buf + skip, (size_t)n - skip);
        if (i % 64 == 0) nkloop_wait(loop, 1); // slower than the server
    }
    close(s);
    CHECK_INT(got.total, want.total);
    CHECK_INT(got.h, want.h);
    unlink(at("sparse.bin"));
    stop_server();
}

// Reads the head and a little, lets `change` happen to the file, then reads on. Returns body bytes received.
static uint64_t interrupted(const char* path, void (*change)(void), uint64_t* announced) {
    static char buf[65536];
    char request[200];
    nkhttp_head head;
    nkhttp_header headers[32];
    uint64_t total = 0;
    int s = dial(32 * 1024), first = 1;
    long n;
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); // kept alive: only a cut shows an early end
    push(s, request, strlen(request));
    *announced = 0;
    while ((n = pull(s, buf, sizeof buf)) > 0) {
        size_t skip = 0;
        if (first) {
            memset(&head, 0, sizeof head);
            head.headers = headers;
            head.max_headers = 32;
            skip = (size_t)nkhttp_parse_response(buf, (size_t)n, &head);
            CHECK_INT(head.status, 200);
            *announced = head.content_length;
            first = 0;
            if (change) change();
        }
        total += (uint64_t)n - skip;
        if (total >= *announced) break;
    }
    close(s);
    return total;
}
static void shrink(void) { CHECK_INT(truncate(at("moving.bin"), 100000), 0); }
static void grow(void) {
    FILE* f = fopen(at("moving.bin"), "ab");
    int i;
    for (i = 0; f && i < 1000; i++) fputs("some more bytes that nobody announced", f);
    if (f) fclose(f);
}
#define MOVING (24u * 1024 * 1024)
TEST(file_changes_while_sent) {
    uint64_t announced, n;
    int fd;
    if (!start_root()) return;
    fd = open(at("moving.bin"), O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK_INT(ftruncate(fd, MOVING), 0);
    n = interrupted("/moving.bin", grow, &announced);
    CHECK_INT(announced, MOVING);
    CHECK_INT(n, MOVING);
    CHECK_INT(ftruncate(fd, MOVING), 0);
    n = interrupted("/moving.bin", shrink, &announced);
    CHECK_INT(announced, MOVING);
    CHECK(n < MOVING); // cut, and not padded
    close(fd);
    unlink(at("moving.bin"));
    CHECK_INT(get("/hello.txt"), 200);
    stop_server();
}

static int open_files(void) {
    int n = 0, fd;
    for (fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}
TEST(client_leaves_and_pipelining) {
    static const char requests[] =
        "GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n" "HEAD /big.bin HTTP/1.1\r\nHost: x\r\n\r\n"
        "GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n" "GET /big.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=1-100000,200000-299999\r\n\r\n"
        "GET /missing HTTP/1.1\r\nHost: x\r\n\r\n" "GET /data.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    static const struct { int status; uint64_t body; int is_head; } want[] = {
        { 200, 300000, 0 }, { 200, 300000, 1 }, { 200, 12, 0 }, { 206, 0, 0 }, { 404, 0, 0 }, { 200, 10, 0 } };
    int i, s, before;
    char* p;
    size_t left;
    if (!start_root()) return;
    s = dial(0);
    push(s, requests, sizeof requests - 1);
    read_reply(s, &re);
    close(s);
    p = re.raw;
    left = re.len;
    for (i = 0; i < 6; i++) {
        int n;
        re.head.headers = re.headers;
        re.head.max_headers = 64;
        n = nkhttp_parse_response(p, left, &re.head);
        if (!CHECK(n > 0)) break;
        CHECK_INT(re.head.status, want[i].status);
        if (want[i].body) CHECK_INT(re.head.content_length, want[i].body);
        p += n;
        left -= (size_t)n;
        if (want[i].is_head) continue;
        if (!CHECK(left >= re.head.content_length)) break;
        if (i == 0) CHECK(is_pattern(p, 300000, 0));
        p += re.head.content_length;
        left -= (size_t)re.head.content_length;
    }
    CHECK_INT(left, 0);
    for (i = 0; i < 50; i++) nkloop_wait(loop, 1); // the first client is gone for good
    before = open_files();
    for (i = 0; i < 20; i++) { // gone at once, after the head, in the middle
        int k;
        s = dial(16 * 1024);
        push(s, requests, sizeof requests - 1);
        for (k = 0; k < i; k++) {
            char buf[4096];
            if (recv(s, buf, sizeof buf, 0) < 0) turn(s);
        }
        close(s);
    }
    for (i = 0; i < 200; i++) nkloop_wait(loop, 1);
    CHECK_INT(open_files(), before);
    CHECK_INT(get("/hello.txt"), 200);
    stop_server();
}

// ---- callbacks --------------------------------------------------------------------------------
typedef struct fake { int open, opened; uint64_t read, lie_at; } fake; // lie_at: read_fn fails from that offset on
static const char fake_mem[] = "from memory";

static int fake_open(void* user, const char* path, nkhttp_file* out) {
    fake* f = (fake*)user;
    CHECK(out->os_file == NKLOOP_NO_FD && !out->bytes && !out->size);
    if (strcmp(path, "forbidden") == 0) return NKHTTP_ERR_FORBIDDEN;
    if (strcmp(path, "busy") == 0) return NKHTTP_ERR_UNAVAILABLE;
    if (strcmp(path, "broken") == 0) return -12345;
    if (strcmp(path, "") == 0 || strcmp(path, "dir") == 0) {
        out->is_directory = 1;
    } else if (strcmp(path, "mem.txt") == 0) {
        out->size = sizeof fake_mem - 1;
        out->bytes = fake_mem;
        out->mtime = MTIME;
    } else if (strcmp(path, "gen.bin") == 0 || strcmp(path, "gen.bin.gz") == 0) {
        out->size = strlen(path) > 7 ? 3 : 1000000;
        snprintf(out->etag, sizeof out->etag, "\"gen%d\"", (int)strlen(path));
    } else if (strcmp(path, "huge.bin") == 0) {
        out->size = 64u << 20;
    } else if (strcmp(path, "os.bin") == 0) {
        out->size = 300000;
        out->os_file = (nkloop_fd)open(at("big.bin"), O_RDONLY);
    } else {
        return NKHTTP_ERR_NOT_FOUND;
    }
    f->open++;
    f->opened++;
    out->file_user = f;
    return 0;
}
static int fake_read(void* user, nkhttp_file* file, uint64_t offset, void* out, size_t n) {
    fake* f = (fake*)user;
    size_t i;
    CHECK(file->file_user == f && offset + n <= file->size && n > 0);
    if (file->os_file != NKLOOP_NO_FD) return (int)pread((int)file->os_file, out, n, (off_t)offset);
    if (f->lie_at && offset >= f->lie_at) return f->lie_at % 2 ? -1 : 0;
    if (n > 50000) n = 50000;
    for (i = 0; i < n; i++) ((unsigned char*)out)[i] = pattern(offset + i);
    f->read += n;
    return (int)n;
}
static void fake_close(void* user, nkhttp_file* file) {
    ((fake*)user)->open--;
    if (file->os_file != NKLOOP_NO_FD) close((int)file->os_file);
}
static int fake_list(void* user, const char* path, void (*entry)(void* sink, const char* name, int is_directory, uint64_t size, int64_t mtime), void* sink) {
    (void)user;
    if (strcmp(path, "dir") != 0) return NKHTTP_ERR_FORBIDDEN;
    entry(sink, "zz", 0, 1, MTIME);
    entry(sink, "dd", 1, 0, 0);
    entry(sink, "<b>", 0, 18446744073709551615u, 0);
    entry(sink, "..", 1, 0, 0);
    entry(sink, "../../x", 1, 0, 0);
    entry(sink, "", 1, 0, 0);
    return 0;
}
static const nkhttp_vfs fake_vfs = { fake_open, fake_read, fake_close, fake_list };

TEST(callbacks) {
    uint64_t two[2][2] = { { 0, 99999 }, { 900000, 999999 } }, announced;
    const char* huge = "GET /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n";
    nkhttp_files_desc d;
    fake f;
    int s, i;
    make_root();
    memset(&f, 0, sizeof f);
    memset(&d, 0, sizeof d);
    d.vfs = &fake_vfs;
    d.vfs_user = &f;
    d.list_directories = 1;
    if (!start_files(&d)) return;
    CHECK_INT(get("/mem.txt"), 200);
    CHECK_BODY(fake_mem);
    CHECK_FIELD("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    CHECK(field("ETag")[0] == '"');
    CHECK_INT(get_with("/mem.txt", "Range", "bytes=5-7"), 206);
    CHECK_BODY("mem");
    CHECK_INT(get("/gen.bin"), 200);
    CHECK_FIELD("ETag", "\"gen7\"");
    CHECK_FIELD("Last-Modified", "");
    CHECK(re.body_len == 1000000 && is_pattern(re.body, re.body_len, 0));
    CHECK_INT(get_with("/gen.bin", "Accept-Encoding", "gzip"), 200);
    CHECK_FIELD("ETag", "\"gen10\"");
    CHECK_INT(re.body_len, 3);
    CHECK_INT(get_with("/gen.bin", "If-None-Match", "\"gen7\""), 304);
    CHECK_INT(get_with("/gen.bin", "Range", "bytes=0-99999,900000-"), 206);
    check_parts("application/octet-stream", 1000000, two, 2);
    CHECK_INT(get_with("/gen.bin", "Range", "bytes=60000-129999"), 206);
    CHECK(re.body_len == 70000 && is_pattern(re.body, re.body_len, 60000));
    CHECK_INT(get("/os.bin"), 200);
    CHECK(re.body_len == 300000 && is_pattern(re.body, re.body_len, 0));
    CHECK_FIELD("ETag", ""); // nothing to make one of
    CHECK_INT(get_with("/os.bin", "Range", "bytes=7-9"), 206);
    CHECK(re.body_len == 3 && is_pattern(re.body, re.body_len, 7));
    f.read = 0;
    CHECK_INT(fetch("HEAD", "/gen.bin", ""), 200);
    CHECK_FIELD("Content-Length", "1000000");
    CHECK_INT(f.read, 0);
    CHECK_INT(get("/missing"), 404);
    CHECK_INT(get("/forbidden"), 403);
    CHECK_INT(get("/busy"), 503);
    CHECK_INT(get("/broken"), 500);
    CHECK_INT(get("/dir"), 301);
    CHECK_INT(get("/mem.txt/"), 404);
    CHECK_INT(get("/../mem.txt") == 200, 0);
    CHECK_INT(get("/"), 403);
    CHECK_INT(get("/dir/"), 200);
    CHECK(has(">dd/<") && has(">zz<") && has("&lt;b&gt;") && has("18446744073709551615") && !has("../../x") && !has("./%2E"));
    f.lie_at = 700000;
    CHECK_INT(get_with("/gen.bin", "Range", "bytes=700000-700010"), 500);
    CHECK(interrupted("/gen.bin", NULL, &announced) < announced);
    f.lie_at = 700001;
    CHECK(interrupted("/gen.bin", NULL, &announced) < announced);
    f.lie_at = 0;
    f.read = 0; // a client that does not read: only so much is asked for
    s = dial(32 * 1024);
    push(s, huge, strlen(huge));
    for (i = 0; i < 300; i++) nkloop_wait(loop, 1);
    CHECK(f.read > 0 && f.read < (24u << 20));
    CHECK_INT(f.open, 1);
    close(s);
    for (i = 0; i < 200 && f.open; i++) nkloop_wait(loop, 1);
    CHECK_INT(f.open, 0);
    CHECK(f.opened > 20);
    s = dial(32 * 1024); // and one that is still there when the server goes
    push(s, huge, strlen(huge));
    push(s, huge, strlen(huge));
    for (i = 0; i < 20; i++) nkloop_wait(loop, 1);
    stop_server();
    CHECK_INT(f.open, 0);
    close(s);
}

TEST(small_send_queue) {
    uint64_t two[2][2] = { { 0, 99999 }, { 900000, 999999 } };
    nkhttp_files_desc d;
    fake f;
    memset(&f, 0, sizeof f);
    memset(&d, 0, sizeof d);
    d.vfs = &fake_vfs;
    d.vfs_user = &f;
    option.tx_bytes = 4096;
    if (!start_files(&d)) return;
    CHECK_INT(get("/gen.bin"), 200);
    CHECK(re.body_len == 1000000 && is_pattern(re.body, re.body_len, 0));
    CHECK_INT(get_with("/gen.bin", "Range", "bytes=0-99999,900000-"), 206);
    check_parts("application/octet-stream", 1000000, two, 2);
    CHECK_INT(get("/os.bin"), 200);
    CHECK(re.body_len == 300000 && is_pattern(re.body, re.body_len, 0));
    CHECK_INT(get_with("/os.bin", "Range", "bytes=0-59999"), 206); // read at once
    CHECK(re.body_len == 60000 && is_pattern(re.body, re.body_len, 0));
    stop_server();
    CHECK_INT(f.open, 0);
}

TEST(client_that_stops_reading) { // is cut after write_timeout_ms, however large the piece that the loop holds
    static const char* const paths[] = { "/huge.bin", "/moving.bin" };
    char request[100];
    nkhttp_files_desc d;
    fake f;
    int fd, s, i, k, before;
    memset(&f, 0, sizeof f);
    for (k = 0; k < 2; k++) {
        make_root();
        memset(&d, 0, sizeof d);
        if (k == 0) { d.vfs = &fake_vfs; d.vfs_user = &f; }
        else d.root = root;
        fd = open(at("moving.bin"), O_RDWR | O_CREAT | O_TRUNC, 0644);
        CHECK_INT(ftruncate(fd, MOVING), 0);
        close(fd);
        option.write_timeout_ms = 50;
        if (!start_files(&d)) return;
        before = open_files();
        s = dial(32 * 1024);
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[k]);
        push(s, request, strlen(request));
        for (i = 0; i < 50; i++) nkloop_wait(loop, 1);
        for (i = 0; i < 5000 && open_files() > before + 1; i++) nkloop_wait(loop, 2);
        CHECK_INT(open_files(), before + 1); // ours; the server's socket and file are closed
        close(s);
        unlink(at("moving.bin"));
        stop_server();
    }
    CHECK_INT(f.open, 0);
}

// ---- other parts of the server ----------------------------------------------------------------
static void on_text(void* user, nkhttp_req* req) { nkhttp_reply_text(req, 200, (const char*)user); }

TEST(beside_routes) {
    static char root_text[] = "app root", api[] = "api";
    nkhttp_files_desc d;
    memset(&d, 0, sizeof d);
    make_root();
    d.root = root;
    if (!start_server()) return;
    CHECK_INT(nkhttp_route(server, "GET", "/", on_text, root_text), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "POST", "/api/{what}", on_text, api), NKHTTP_OK);
    CHECK_INT(nkhttp_serve_files(server, "/", &d), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "GET", "/hello.txt", on_text, api), NKHTTP_OK);
    CHECK_INT(get("/"), 200);
    CHECK_BODY("app root");
    CHECK_INT(fetch("POST", "/api/x", "Content-Length: 0\r\n"), 200);
    CHECK_BODY("api");
    CHECK_INT(get("/hello.txt"), 200);
    CHECK_BODY("api");
    CHECK_INT(get("/sub/x.txt"), 200);
    CHECK_BODY("x\n");
    CHECK_INT(get("/api/x"), 404); // no such file
    CHECK_INT(fetch("POST", "/sub/x.txt", "Content-Length: 0\r\n"), 405);
    stop_server();
}

static void* upper_begin(void* user) { return user; }
static int upper_run(void* state, const uint8_t* in, size_t* in_bytes, uint8_t* out, size_t* out_bytes, int flush) {
    size_t n = *in_bytes < *out_bytes ? *in_bytes : *out_bytes, i;
    int all = n == *in_bytes;
    (void)state;
    for (i = 0; i < n; i++) out[i] = (uint8_t)(in[i] ^ 0x20);
    *in_bytes = *out_bytes = n;
    return flush && all;
}
static void upper_end(void* state) { (void)state; }

TEST(beside_a_codec) { // whatever the codec does: a range, a .gz and a strong ETag name the bytes of the file
    nkhttp_codec codec;
    char etag[80];
    memset(&codec, 0, sizeof codec);
    codec.coding = "gzip";
    codec.user = &codec;
    codec.begin = upper_begin;
    codec.run = upper_run;
    codec.end = upper_end;
    make_root();
    put_pattern("pattern.txt", 50000);
    put_pattern("pattern.css", 3000);
    put_pattern("pattern.css.gz", 2000);
    option.codec = &codec;
    if (!start_root()) return;
    CHECK_INT(get("/pattern.txt"), 200);
    CHECK(re.body_len == 50000 && is_pattern(re.body, re.body_len, 0));
    snprintf(etag, sizeof etag, "%s", field("ETag"));
    CHECK_INT(get_with("/pattern.txt", "Accept-Encoding", "gzip"), 200);
    if (field("Content-Encoding")[0]) CHECK(strcmp(field("ETag"), etag) != 0);
    else CHECK(is_pattern(re.body, re.body_len, 0));
    CHECK_INT(fetch("GET", "/pattern.txt", "Accept-Encoding: gzip\r\nRange: bytes=100-20099\r\n"), 206);
    CHECK_FIELD("Content-Encoding", "");
    CHECK(re.body_len == 20000 && is_pattern(re.body, re.body_len, 100));
    CHECK_INT(get_with("/pattern.css", "Accept-Encoding", "gzip"), 200);
    CHECK_FIELD("Content-Encoding", "gzip");
    CHECK(re.body_len == 2000 && is_pattern(re.body, re.body_len, 0));
    CHECK_INT(get_with("/big.bin", "Accept-Encoding", "gzip"), 200);
    CHECK(re.body_len == 300000 && is_pattern(re.body, re.body_len, 0));
    stop_server();
}

// ---- a table in the program -------------------------------------------------------------------
TEST(embedded) {
    static unsigned char large[300000];
    nkhttp_embedded t[] = {
        { "js/app.js", "app()", 5, NULL, MTIME }, { "index.html", "<p>embedded", 11, NULL, 0 }, { "js/app.js.gz", "GZ", 2, NULL, 0 },
        { "js-old/a.js", "old", 3, "\"v1\"", 0 }, { "js.txt", "txt", 3, NULL, 0 }, { "large.bin", NULL, sizeof large, NULL, 0 },
        { "js/lib/x.js", "x", 1, NULL, 0 }, { "js/lib/y.js", "y", 1, NULL, 0 }, { "js/zero", NULL, 0, NULL, 0 }, { ".dot", "d", 1, NULL, 0 },
    };
    uint64_t two[2][2] = { { 10, 20 }, { 100000, 299999 } };
    char etag[80];
    nkhttp_files_desc d;
    size_t i;
    for (i = 0; i < sizeof large; i++) large[i] = pattern(i);
    t[5].bytes = large;
    memset(&d, 0, sizeof d);
    d.table = t;
    d.num_embedded = sizeof t / sizeof t[0];
    d.list_directories = 1;
    if (!start_files(&d)) return;
    CHECK_INT(get("/"), 200);
    CHECK_BODY("<p>embedded");
    CHECK_FIELD("Last-Modified", "");
    snprintf(etag, sizeof etag, "%s", field("ETag"));
    CHECK(etag[0] == '"');
    CHECK_INT(get_with("/index.html", "If-None-Match", etag), 304);
    CHECK_INT(get("/js/app.js"), 200);
    CHECK_BODY("app()");
    CHECK_FIELD("Vary", "Accept-Encoding");
    CHECK_FIELD("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    CHECK_INT(get_with("/js/app.js", "Accept-Encoding", "gzip"), 200);
    CHECK_BODY("GZ");
    CHECK_INT(get("/js-old/a.js"), 200);
    CHECK_FIELD("ETag", "\"v1\"");
    CHECK_INT(get("/js/zero"), 200);
    CHECK_FIELD("Content-Length", "0");
    CHECK_INT(get("/large.bin"), 200);
    CHECK(re.body_len == sizeof large && is_pattern(re.body, re.body_len, 0));
    CHECK_INT(get_with("/large.bin", "Range", "bytes=10-20,100000-"), 206);
    check_parts("application/octet-stream", sizeof large, two, 2);
    CHECK_INT(get_with("/large.bin", "Range", "bytes=-3"), 206);
    CHECK(re.body_len == 3 && is_pattern(re.body, 3, 299997));
    CHECK_INT(get("/js"), 301);
    CHECK_INT(get("/js-old"), 301);
    CHECK_INT(get("/js/"), 200);
    CHECK(has(">lib/<") && has(">app.js<") && !has("x.js") && !has("js-old") && has("<td>5</td>"));
    CHECK_INT(get("/js/lib/"), 200);
    CHECK(has(">x.js<") && has(">y.js<"));
    CHECK_INT(get("/j"), 404);
    CHECK_INT(get("/j/"), 404);
    CHECK_INT(get("/js/lib/z.js"), 404);
    CHECK_INT(get("/JS/app.js"), 404);
    CHECK_INT(get("/.dot"), 404);
    CHECK_INT(get("/zzz"), 404);
    CHECK_INT(get("/js/app.js/"), 404);
    CHECK(get("/js/../index.html") != 200);
    stop_server();
}

// ---- one file ---------------------------------------------------------------------------------
static void on_download(void* user, nkhttp_req* req) {
    nkhttp_set_header(req, "Content-Disposition", "attachment");
    CHECK_INT(nkhttp_reply_file(req, at((const char*)user), NULL), NKHTTP_OK);
    CHECK_INT(nkhttp_reply_file(req, at((const char*)user), NULL), NKHTTP_ERR_REPLIED);
}
static void on_typed(void* user, nkhttp_req* req) { nkhttp_reply_file(req, at((const char*)user), "application/x-netkit"); }

TEST(reply_file) {
    static char name[] = "big.bin", small_name[] = "hello.txt", missing[] = "missing", fifo[] = "fifo", dir[] = "sub", link_name[] = "link_in";
    make_root();
    if (!start_server()) return;
    CHECK_INT(nkhttp_route(server, "GET", "/big", on_download, name), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "GET", "/small", on_typed, small_name), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "GET", "/missing", on_typed, missing), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "GET", "/fifo", on_typed, fifo), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "GET", "/dir", on_typed, dir), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "GET", "/link", on_typed, link_name), NKHTTP_OK);
    CHECK_INT(get("/big"), 200);
    CHECK(re.body_len == 300000 && is_pattern(re.body, re.body_len, 0));
    CHECK_FIELD("Content-Disposition", "attachment");
    CHECK_FIELD("Content-Type", "application/octet-stream");
    CHECK_INT(get_with("/big", "Range", "bytes=100-"), 206);
    CHECK_INT(re.body_len, 299900);
    CHECK_INT(get("/small"), 200);
    CHECK_FIELD("Content-Type", "application/x-netkit");
    CHECK_INT(get_with("/small", "If-None-Match", "*"), 304);
    CHECK_INT(get("/link"), 200);
    CHECK_INT(get("/missing"), 404);
    CHECK_INT(get("/fifo"), 404);
    CHECK_INT(get("/dir"), 404);
    fault.openat = EMFILE;
    fault.times = -1;
    CHECK_INT(get("/small"), 503);
    fault.openat = EACCES;
    CHECK_INT(get("/small"), 403);
    fault_clear();
    stop_server();
}

static void on_worker(void* user, nkhttp_req* req) {
    char text[32];
    (void)user;
    snprintf(text, sizeof text, "%d", nkhttp_reply_file(req, root, NULL));
    nkhttp_reply_text(req, 200, text);
}

TEST(with_workers) { // files come from the loop all the same
    nkhttp_files_desc d;
    char want[32];
    memset(&d, 0, sizeof d);
    make_root();
    d.root = root;
    option.workers = 2;
    if (!start_server()) return;
    CHECK_INT(nkhttp_serve_files(server, "/", &d), NKHTTP_OK);
    CHECK_INT(nkhttp_route(server, "GET", "/worker", on_worker, NULL), NKHTTP_OK);
    CHECK_INT(get("/big.bin"), 200);
    CHECK(re.body_len == 300000 && is_pattern(re.body, re.body_len, 0));
    CHECK_INT(get("/hello.txt"), 200);
    CHECK_INT(get("/worker"), 200);
    snprintf(want, sizeof want, "%d", NKLOOP_ERR_INVAL);
    CHECK_BODY(want);
    stop_server();
}

TEST(last_free) { // keeps leak checkers quiet
    free(re.raw);
    memset(&re, 0, sizeof re);
}
