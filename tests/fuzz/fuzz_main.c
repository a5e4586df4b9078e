/*  fuzz_main.c -- runs a fuzz target over stored inputs with any C compiler.

    usage: fuzz_X FILE-OR-DIRECTORY...

    Every input lies at the end of a page whose successor cannot be touched, so reading one byte too far is a crash with no
    sanitizer at all (with a sanitizer it lies in a block of its exact size). A crash names the input it happened with. Last line: `N passed, N failed`;
    an empty corpus is a failure.
*/
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/types.h>
#include <sys/stat.h>
#ifndef _WIN32
#include <sys/mman.h>
#include <unistd.h>
#endif

#ifdef __cplusplus
extern "C"
#endif
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static const char* fuzz_current = "(none)";
static long fuzz_passed, fuzz_failed;

static void fuzz_on_crash(int number) {
    static const char text[] = "\ncrashed with input ";
    fwrite(text, 1, sizeof text - 1, stdout); // not async-signal-safe, but the process is lost either way
    fwrite(fuzz_current, 1, strlen(fuzz_current), stdout);
    fwrite("\n", 1, 1, stdout);
    fflush(stdout);
    signal(number, SIG_DFL);
    raise(number);
}

// A sanitizer that has taken a signal already keeps it: its report says more than ours.
static void fuzz_watch(int number) {
    void (*before)(int) = signal(number, fuzz_on_crash);
    if (before != SIG_DFL && before != SIG_ERR) signal(number, before);
}

#if defined(_WIN32) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FUZZ_PLAIN_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FUZZ_PLAIN_MEMORY 1
#endif
#endif

#ifdef FUZZ_PLAIN_MEMORY
static int fuzz_call(const uint8_t* bytes, size_t size) {
    uint8_t* copy = (uint8_t*)malloc(size ? size : 1);
    if (!copy) return 0;
    memcpy(copy, bytes, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    return 1;
}
#else
static int fuzz_call(const uint8_t* bytes, size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (size / page + 1) * page;
    uint8_t* at = (uint8_t*)mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == (uint8_t*)MAP_FAILED) return 0;
    if (mprotect(at + room, page, PROT_NONE) != 0) return 0;
    memcpy(at + room - size, bytes, size);
    LLVMFuzzerTestOneInput(at + room - size, size);
    munmap(at, room + page);
    return 1;
}
#endif

static void fuzz_fail(const char* path, const char* what) {
    printf("%s: %s\n", path, what);
    fuzz_failed++;
}

static void fuzz_file(const char* path) {
    FILE* f = fopen(path, "rb");
    uint8_t* bytes = NULL;
    long size;
    if (!f) { fuzz_fail(path, "cannot open"); return; }
    fuzz_current = path;
    if (fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0) {
        fuzz_fail(path, "cannot read");
    } else if (!(bytes = (uint8_t*)malloc((size_t)size + 1)) || fread(bytes, 1, (size_t)size, f) != (size_t)size) {
        fuzz_fail(path, "cannot read");
    } else if (!fuzz_call(bytes, (size_t)size)) {
        fuzz_fail(path, "no memory");
    } else {
        fuzz_passed++;
    }
    free(bytes);
    fclose(f);
}

static void fuzz_path(const char* path) {
    struct stat st;
    DIR* dir;
    struct dirent* e;
    if (stat(path, &st) != 0) { fuzz_fail(path, "does not exist"); return; }
    if (!S_ISDIR(st.st_mode)) { fuzz_file(path); return; }
    dir = opendir(path);
    if (!dir) { fuzz_fail(path, "cannot list"); return; }
    while ((e = readdir(dir)) != NULL) {
        char below[1024];
        int n;
        if (e->d_name[0] == '.') continue;
        n = snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        if (n > 0 && (size_t)n < sizeof below) fuzz_path(below);
        else fuzz_fail(path, "name too long");
    }
    closedir(dir);
}

int main(int argc, char** argv) {
    static const int signals[] = { SIGSEGV, SIGABRT, SIGFPE, SIGILL };
    size_t s;
    int i;
    for (s = 0; s < sizeof signals / sizeof signals[0]; s++) fuzz_watch(signals[s]);
#ifdef SIGBUS
    fuzz_watch(SIGBUS);
#endif
    for (i = 1; i < argc; i++) fuzz_path(argv[i]);
    if (fuzz_passed + fuzz_failed == 0) fuzz_fail(argc > 1 ? argv[1] : "(no argument)", "the corpus is empty");
    printf("%ld passed, %ld failed\n", fuzz_passed, fuzz_failed);
    return fuzz_failed != 0;
}
