// Every hook of the sample header, counted.
#define NETKIT_SAMPLE_IMPLEMENTATION
#include "netkit_sample.h"
#include <stdio.h>

static long live;

static void* count(void* user, void* ptr, size_t old_size, size_t new_size) {
    (void)user;
    live += (long)new_size - (long)old_size;
    if (new_size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, new_size);
}

int main(void) {
    nksample* s;
    if (nksample_create(&s, count) != 0) return 1;
    nksample_destroy(s);
    puts(live == 0 ? "balanced" : "not balanced");
    return 0;
}
