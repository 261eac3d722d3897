/* What native code asks of the system, made to fail by files in the folder that FAULTS names.
 *
 * `index` says which call for an LMDB file fails and how, "sync 5" for instance, or with 0 that it kills: `write` is
 * any write of its pages, `meta` that of one of the two that make a commit count, `sync` a checkpoint's. `clock` says
 * by how many seconds the time of day is wrong.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int said(const char *file, char *text, size_t size)
{
    char path[4096];
    ssize_t got;
    int fd, before = errno;
    snprintf(path, sizeof path, "%s/%s", getenv("FAULTS"), file);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    got = fd < 0 ? 0 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    errno = before;
    return got > 0;
}

static int fails(int fd, const char *call)
{
    char text[64], wanted[16], link[64], path[4096] = "";
    int number;
    if (!said("index", text, sizeof text) || sscanf(text, "%15s %d", wanted, &number) != 2 || strcmp(wanted, call))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0 || !strstr(path, "/data.mdb"))
        return 0;
    if (number == 0)
        kill(getpid(), SIGKILL);
    errno = number;
    return 1;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    return fails(fd, at < 8192 ? "meta" : "write") ? -1 : real(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    return fails(fd, "write") ? -1 : real(fd, pieces, count);
}

int fdatasync(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return fails(fd, "sync") ? -1 : real(fd);
}

static time_t wrong_by(void)
{
    char text[64];
    return said("clock", text, sizeof text) ? atoll(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int got = real(clock, now);
    if (got == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += wrong_by();
    return got;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
