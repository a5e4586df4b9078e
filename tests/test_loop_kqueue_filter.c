// The filter slot on the kqueue backend of netkit_loop.h, over a stub of its calls. POSIX only.
#define NETKIT_LOOP_KQUEUE 1
#define NETKIT_LOOP_NO_EPOLL 1
#define _GNU_SOURCE 1
#include "kqueue_stub/sys/event.h"
#define NETKIT_LOOP_SYS_CLOSE(fd) kqueue_stub_close(fd)
#include "net_loop_filter.c"
