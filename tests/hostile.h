/*  hostile.h -- what <windows.h>, X11, <resolv.h>, <curses.h>, lwIP, leak checkers and careless users have defined by the time a
    header is included; here so that it can be tried on any machine. Included before a netkit header, which must still
    compile without a warning.

    System headers come first: a real program has them too, and only our own text is on trial. Wrappers of C library
    functions forward to the real ones, so implementations are compiled under them as well: a member named `send`, called
    as `x->send(a, b, c, d)`, becomes `x->hostile_send(...)` and does not compile.
*/
#ifndef HOSTILE_H
#define HOSTILE_H
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#endif

// ---- a socket library that renames the calls of the C library ----
#define HOSTILE_FN static inline
HOSTILE_FN int hostile_accept(int s, struct sockaddr* a, socklen_t* n) { return accept(s, a, n); }
HOSTILE_FN int hostile_bind(int s, const struct sockaddr* a, socklen_t n) { return bind(s, a, n); }
HOSTILE_FN int hostile_connect(int s, const struct sockaddr* a, socklen_t n) { return connect(s, a, n); }
HOSTILE_FN int hostile_listen(int s, int n) { return listen(s, n); }
HOSTILE_FN int hostile_shutdown(int s, int how) { return shutdown(s, how); }
HOSTILE_FN int hostile_close(int s) { return close(s); }
HOSTILE_FN ssize_t hostile_send(int s, const void* p, size_t n, int f) { return send(s, p, n, f); }
HOSTILE_FN ssize_t hostile_recv(int s, void* p, size_t n, int f) { return recv(s, p, n, f); }
HOSTILE_FN ssize_t hostile_read(int s, void* p, size_t n) { return read(s, p, n); }
HOSTILE_FN ssize_t hostile_write(int s, const void* p, size_t n) { return write(s, p, n); }
#define accept(s, a, n)  hostile_accept(s, a, n)
#define bind(s, a, n)    hostile_bind(s, a, n)
#define connect(s, a, n) hostile_connect(s, a, n)
#define listen(s, n)     hostile_listen(s, n)
#define shutdown(s, how) hostile_shutdown(s, how)
#define close(s)         hostile_close(s)
#define send(s, p, n, f) hostile_send(s, p, n, f)
#define recv(s, p, n, f) hostile_recv(s, p, n, f)
#define read(s, p, n)    hostile_read(s, p, n)
#define write(s, p, n)   hostile_write(s, p, n)
#endif

// ---- a leak checker ----
static inline void* hostile_malloc(size_t n, const char* f, int l) { (void)f; (void)l; return malloc(n); }
static inline void* hostile_calloc(size_t a, size_t b, const char* f, int l) { (void)f; (void)l; return calloc(a, b); }
static inline void* hostile_realloc(void* p, size_t n, const char* f, int l) { (void)f; (void)l; return realloc(p, n); }
static inline void  hostile_free(void* p, const char* f, int l) { (void)f; (void)l; free(p); }
#undef malloc
#undef calloc
#undef realloc
#undef free
#define malloc(n)     hostile_malloc(n, __FILE__, __LINE__)
#define calloc(a, b)  hostile_calloc(a, b, __FILE__, __LINE__)
#define realloc(p, n) hostile_realloc(p, n, __FILE__, __LINE__)
#define free(p)       hostile_free(p, __FILE__, __LINE__)

// ---- windows.h and what it pulls in ----
#undef min
#undef max
#undef near
#undef far
#undef small
#undef interface
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define near
#define far
#define small char
#define hyper int64_t
#define interface struct
#define cdecl
#define pascal
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define VOID void
#define PURE = 0
#define STRICT 1
#define DELETE (0x00010000L)
#define ERROR 0
#define NO_ERROR 0L
#define TRUE 1
#define FALSE 0
#define THIS_ void* self,
#define GetMessage GetMessageA
#define SendMessage SendMessageA
#define CreateEvent CreateEventA
#define CreateFile CreateFileA
#define DeleteFile DeleteFileA
#define GetObject GetObjectA
#define GetUserName GetUserNameA
#define ReportEvent ReportEventA
#define Yield()
#define HTTP_STATUS_OK 200
#define HTTP_STATUS_CONTINUE 100
#define HTTP_STATUS_NOT_FOUND 404
#define HTTP_VERSION "HTTP/1.0"

// ---- X11 ----
#define None 0L
#define Bool int
#define Status int
#define True 1
#define False 0
#define Success 0
#define Always 2
#define Above 0
#define Below 1
#define Unsorted 0
#define KeyPress 2
#define GrayScale 1
#define FontChange 255

// ---- resolv.h, syslog.h, curses.h, the kernel, and GNU C without -std=c99 ----
#define NOERROR 0
#define QUERY 0
#define STATUS 2
#define BADSIG 16
#define LOG_ERR 3
#define LOG_INFO 6
#define LOG_DEBUG 7
#define clear() hostile_clear(stdscr)
#define erase() hostile_erase(stdscr)
#define move(y, x) hostile_move(stdscr, y, x)
#define timeout(n) hostile_timeout(stdscr, n)
#define NETKIT_PASS 0
#define NETKIT_DROP 2
#undef unix
#undef linux
#undef major
#undef minor
#define unix 1
#define linux 1
#define major(x) (x)
#define minor(x) (x)
#define DEBUG 1
#define DEFAULT 1
#define ASSERT(x) do { } while (0)
#define CHECK(x) do { } while (0)
#define LIKELY(x) (x)
#define UNUSED(x) (x)
#define STR(x) #x
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#endif // HOSTILE_H
