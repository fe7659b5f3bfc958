/* Faults in calls of the C library, for processes started with LD_PRELOAD.
 *
 * CHIMERA_FAULTS names a file that is mapped by all of them and written by the test (see `calls.py`):
 * which calls on which files fail with which errno, and how far the wall clock is off.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct faults {
    volatile int32_t write_errno;
    volatile int32_t sync_errno;
    volatile int64_t clock_offset_s;
    volatile int64_t failed;
    char path[256];
};

static struct faults *faults;

__attribute__((constructor)) static void attach(void) {
    const char *name = getenv("CHIMERA_FAULTS");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, sizeof(struct faults), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED) faults = at;
}

static int hit(int fd, int32_t number) {
    char link[64], path[4096];
    if (!number) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, faults->path)) return 0;
    __sync_fetch_and_add(&faults->failed, 1);
    errno = number;
    return 1;
}

#define WRITES(fd) (faults && hit(fd, faults->write_errno))
#define SYNCS(fd) (faults && hit(fd, faults->sync_errno))
#define REAL(name, ...) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
    return real(__VA_ARGS__)

ssize_t write(int fd, const void *data, size_t size) { if (WRITES(fd)) return -1; REAL(write, fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { if (WRITES(fd)) return -1; REAL(pwrite, fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { if (WRITES(fd)) return -1; REAL(pwrite64, fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { if (WRITES(fd)) return -1; REAL(writev, fd, parts, count); }
int ftruncate(int fd, off_t size) { if (WRITES(fd)) return -1; REAL(ftruncate, fd, size); }
int ftruncate64(int fd, off64_t size) { if (WRITES(fd)) return -1; REAL(ftruncate64, fd, size); }
int fsync(int fd) { if (SYNCS(fd)) return -1; REAL(fsync, fd); }
int fdatasync(int fd) { if (SYNCS(fd)) return -1; REAL(fdatasync, fd); }

int clock_gettime(clockid_t clock, struct timespec *at) {
    static __typeof__(clock_gettime) *real;
    if (!real) real = (__typeof__(clock_gettime) *)dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(clock, at);
    if (!done && faults && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += faults->clock_offset_s;
    return done;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int done = real(at, zone);
    if (!done && faults) at->tv_sec += faults->clock_offset_s;
    return done;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
