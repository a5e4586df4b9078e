// The kqueue backend of netkit_loop.h, over a stub of its calls: the same tests as on the real backends. POSIX only.
#define NETKIT_LOOP_KQUEUE 1
#define NETKIT_LOOP_NO_EPOLL 1
#define _GNU_SOURCE 1
#include "kqueue_stub/sys/event.h"
#define NETKIT_LOOP_SYS_CLOSE(fd) kqueue_stub_close(fd)
#include "net_loop.c"

TEST(it_was_kqueue) {
    nkloop* L = kit_make(NULL);
    CHECK_INT(nkloop_backend(L), NKLOOP_BACKEND_KQUEUE);
    kit_end(L);
}
