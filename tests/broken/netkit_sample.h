#if defined(NETKIT_IMPLEMENTATION) && !defined(NETKIT_SAMPLE_IMPLEMENTATION)
#define NETKIT_SAMPLE_IMPLEMENTATION
#endif
#if defined(NETKIT_SAMPLE_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 // before <stdint.h>: the first system header settles what the others declare
#endif
#ifndef NETKIT_SAMPLE_INCLUDED
#define NETKIT_SAMPLE_INCLUDED 1
/*  netkit_sample.h -- the smallest header that keeps every rule.  v0.1.2  MIT or public domain (end of file)

    `tests/hygiene.sh --self-test` breaks one rule at a time with the .sed files beside it and expects exactly the check
    named by the file to notice.

DO THIS
    #define NETKIT_SAMPLE_IMPLEMENTATION
    #include "netkit_sample.h"
LINK WITH
    nothing
DOES
    counts.
DOES NOT
    anything else.
EXAMPLE
    // example.c
    #define NETKIT_SAMPLE_IMPLEMENTATION
    #include "netkit_sample.h"
    int main(void) {
        return nksample_add(2, -2);
    }
IDEAS
    none.
TOUR
    create, destroy, add
OPTIONS
    NETKIT_SAMPLE_STATIC | off | everywhere
LIMITS AND SAFETY
    none.
CHANGES
    0.1.2  first
*/
#include <stddef.h>
#include <stdint.h>
#define NETKIT_SAMPLE_VERSION 102 // 0.1.2
#ifndef NETKIT_SAMPLE_API
    #if defined(NETKIT_SAMPLE_STATIC)
        #if defined(__GNUC__)
            #define NETKIT_SAMPLE_API __attribute__((unused)) static
        #else
            #define NETKIT_SAMPLE_API static
        #endif
    #else
        #define NETKIT_SAMPLE_API extern
    #endif
#endif
#ifdef __cplusplus
extern "C" {
#endif
#define NKSAMPLE_MOST 100 // largest sum
typedef struct nksample nksample;
typedef void* (*nksample_alloc_fn)(void* user, void* ptr, size_t old_size, size_t new_size);

NETKIT_SAMPLE_API int nksample_create(nksample** out, nksample_alloc_fn alloc_fn); // 0, or -1 without memory
NETKIT_SAMPLE_API void nksample_destroy(nksample* s);                              // may be NULL
// The sum of both, at most NKSAMPLE_MOST.
NETKIT_SAMPLE_API int nksample_add(int a, int b);
#ifndef NETKIT_SAMPLE_NO_CLOCK
NETKIT_SAMPLE_API uint64_t nksample_now_ns(void); // monotonic, or 0 where there is no clock
#endif // NETKIT_SAMPLE_NO_CLOCK
#ifdef __cplusplus
} // extern "C"
#endif
#endif // NETKIT_SAMPLE_INCLUDED

#ifdef NETKIT_SAMPLE_IMPLEMENTATION
#ifndef NETKIT_SAMPLE_IMPLEMENTED // live macro and second include is normal life
#define NETKIT_SAMPLE_IMPLEMENTED 1
/*  ROOMS   @config @types @util @os
            @api  */

// ---- @config ---------------------------------------------------------------------------------
// What may be set from outside, and the system headers.
#include <stdlib.h>
#if defined(__GLIBC__) && !defined(__USE_XOPEN2K)
#error "netkit_sample.h: included too late: make this #include the first line of its file"
#endif
#include <assert.h>
#include <time.h>
#ifndef NETKIT_SAMPLE_ASSERT
#define NETKIT_SAMPLE_ASSERT(c) assert(c)
#endif
#define NKSAMPLE_P_CLAMP(x, top) ((x) < (top) ? (x) : (top))
#ifdef __cplusplus
extern "C" {
#endif

// ---- @types ----------------------------------------------------------------------------------
// Everything is visible here.
struct nksample {
    int total;
    nksample_alloc_fn alloc_fn;
};

// ---- @util -----------------------------------------------------------------------------------
// Small helpers without a room of their own.
// [shared put16]
static void nksample_p_put16(uint8_t* p, uint32_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
// [/shared]

static void* nksample_p_default_alloc(void* user, void* ptr, size_t old_size, size_t new_size) {
    (void)user;
    (void)old_size;
    if (new_size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, new_size);
}

// ---- @os -------------------------------------------------------------------------------------
// The system, and nothing else.
#ifndef NETKIT_SAMPLE_NO_CLOCK
static uint64_t nksample_p_os_now_ns(void) {
#if defined(_WIN32)
    return 0;
#else
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
}
#endif // NETKIT_SAMPLE_NO_CLOCK

// ---- @api ------------------------------------------------------------------------------------
// The public functions.
NETKIT_SAMPLE_API int nksample_create(nksample** out, nksample_alloc_fn alloc_fn) {
    nksample* s;
    NETKIT_SAMPLE_ASSERT(out != NULL);
    if (!alloc_fn) alloc_fn = nksample_p_default_alloc;
    s = (nksample*)alloc_fn(NULL, NULL, 0, sizeof *s);
    if (!s) return -1;
    s->total = 0;
    s->alloc_fn = alloc_fn;
    *out = s;
    return 0;
}

NETKIT_SAMPLE_API void nksample_destroy(nksample* s) {
    if (s) s->alloc_fn(NULL, s, sizeof *s, 0);
}

NETKIT_SAMPLE_API int nksample_add(int a, int b) {
    uint8_t wire[2];
    int sum = NKSAMPLE_P_CLAMP(a + b, NKSAMPLE_MOST);
    nksample_p_put16(wire, (uint32_t)sum);
    return wire[0] * 256 + wire[1];
}

#ifndef NETKIT_SAMPLE_NO_CLOCK
NETKIT_SAMPLE_API uint64_t nksample_now_ns(void) {
    return nksample_p_os_now_ns();
}
#endif // NETKIT_SAMPLE_NO_CLOCK

#undef NKSAMPLE_P_CLAMP
#ifdef __cplusplus
} // extern "C"
#endif
#endif // NETKIT_SAMPLE_IMPLEMENTED
#endif // NETKIT_SAMPLE_IMPLEMENTATION
/*  LICENCE: MIT or public domain, as you like.  */
