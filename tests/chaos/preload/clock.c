/* Preloaded into a host by the fault suite: its realtime clock is another one's. The shift in seconds, eight bytes in the file that
   CLOCK_SHIFT names, is read at every look, so that the clock jumps when the file is written. As when an administrator sets a clock, the
   monotonic clock is untouched and what waits for a time of the realtime clock waits for the shifted one, through its jumps. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

__attribute__((constructor)) static void find_shift(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) abort();
    void *at = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) abort();
    close(file);
    shift = at;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) && shift) now->tv_sec += *shift;
    return (int)failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

typedef int (*timed_wait)(void *condition, void *mutex, const struct timespec *until);

/* Waits until a time of the shifted clock, in pieces, since a jump moves that time. */
static int wait_until(timed_wait real, void *condition, void *mutex, const struct timespec *until, int timed_out) {
    const int64_t second = 1000000000, piece = second / 20;
    for (;;) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t seconds = until->tv_sec - now.tv_sec;
        int64_t left = seconds > 1000000 ? piece : seconds * second + until->tv_nsec - now.tv_nsec;
        if (left <= 0) return timed_out;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
        now.tv_nsec += left < piece ? left : piece;
        if (now.tv_nsec >= second) {
            now.tv_nsec -= second;
            now.tv_sec += 1;
        }
        int result = real(condition, mutex, &now);
        if (result != timed_out) return result;
    }
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    static timed_wait real;
    if (!real) real = (timed_wait)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return wait_until(real, condition, mutex, until, ETIMEDOUT);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static timed_wait real;
    if (!real) real = (timed_wait)dlsym(RTLD_NEXT, "cnd_timedwait");
    return wait_until(real, condition, mutex, until, thrd_timedout);
}
