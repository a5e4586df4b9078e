/*  host.c -- what bench/run.sh needs from the machine and a shell cannot do.

    host cpus                 numbers of the CPUs this process may run on, on one line
    host pin CPU CMD ARG...   becomes CMD, on that CPU only
    host port                 a free TCP port of 127.0.0.1, for servers that cannot listen on port 0
*/
#ifndef _GNU_SOURCE
    #define _GNU_SOURCE // sched_setaffinity
#endif
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int print_cpus(void) {
    cpu_set_t set;
    int seen = 0;
    size_t i;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    for (i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set)) printf(seen++ ? " %lu" : "%lu", (unsigned long)i);
    printf("\n");
    return 0;
}

static int pin(size_t cpu, char** command) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) perror("host: cannot pin"); // run unpinned
    execvp(command[0], command);
    perror(command[0]);
    return 127;
}

// Another process may take the port before the server does; that server then fails to start.
static int print_port(void) {
    struct sockaddr_in a;
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&a, 0, sizeof(a));
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr*)&a, len) != 0) return 1;
    if (getsockname(fd, (struct sockaddr*)&a, &len) != 0) return 1;
    printf("%d\n", ntohs(a.sin_port));
    close(fd);
    return 0;
}

int main(int argc, char** argv) {
    if (argc == 2 && strcmp(argv[1], "cpus") == 0) return print_cpus();
    if (argc == 2 && strcmp(argv[1], "port") == 0) return print_port();
    if (argc >= 4 && strcmp(argv[1], "pin") == 0) return pin((size_t)atoi(argv[2]), argv + 3);
    fprintf(stderr, "usage: host cpus | host port | host pin CPU CMD ARG...\n");
    return 2;
}
