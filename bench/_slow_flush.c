/* Makes every flush of a process take longer, as on a slower disk: FLUSH_US microseconds after each real one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

static void slow_down(void)
{
    int kept = errno;
    const char *text = getenv("FLUSH_US");
    long us = text ? atol(text) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
    errno = kept;
}

#define SLOWED(name, parameters, arguments)         \
    int name parameters                             \
    {                                               \
        int (*real) parameters = dlsym(RTLD_NEXT, #name); \
        int result = real arguments;                \
        slow_down();                                \
        return result;                              \
    }

SLOWED(fsync, (int fd), (fd))
SLOWED(fdatasync, (int fd), (fd))
SLOWED(syncfs, (int fd), (fd))
SLOWED(msync, (void *start, size_t size, int flags), (start, size, flags))
SLOWED(sync_file_range, (int fd, off64_t offset, off64_t size, unsigned flags), (fd, offset, size, flags))
