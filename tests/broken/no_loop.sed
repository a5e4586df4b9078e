# The core still asks for the loop.
s/^#include <stdint.h>/&\
#ifndef NETKIT_SAMPLE_NO_LOOP\
    #define NKSAMPLE_LOOP_KIND int\
#endif/
s/^    int total;/    NKSAMPLE_LOOP_KIND total;/
