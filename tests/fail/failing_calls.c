/* See failing_calls.h. */
#include "tests/fail/failing_calls.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS 4096

static atomic_long until_failure = -1;
static _Atomic(const char *) failed;
static _Thread_local bool exempted;
static atomic_bool is_eventfd[FDS];

void failing_calls_plan(long n)
{
    atomic_store(&failed, NULL);
    atomic_store(&until_failure, n);
}

const char *failing_calls_reached(void)
{
    atomic_store(&until_failure, -1);
    return atomic_load(&failed);
}

void failing_calls_exempt(bool exempt)
{
    exempted = exempt;
}

static bool refused(const char *name, int code)
{
    if (exempted || atomic_load(&until_failure) < 0 || atomic_fetch_sub(&until_failure, 1) != 0)
        return false;
    atomic_store(&failed, name);
    errno = code;
    return true;
}

/* WRAP(type, name, code, failure, (parameters), (arguments)) */
#define WRAP(type, name, code, failure, parameters, arguments)             \
    type __real_##name parameters;                                         \
    type __wrap_##name parameters;                                         \
    type __wrap_##name parameters                                          \
    {                                                                      \
        return refused(#name, code) ? (failure) : __real_##name arguments; \
    }

WRAP(int, accept4, EMFILE, -1, (int fd, struct sockaddr *addr, socklen_t *len, int flags), (fd, addr, len, flags))
WRAP(int, bind, EADDRINUSE, -1, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len))
WRAP(int, listen, EADDRINUSE, -1, (int fd, int backlog), (fd, backlog))
WRAP(int, socket, EMFILE, -1, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, getsockname, ENOBUFS, -1, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len))
WRAP(int, getaddrinfo, ENOMEM, EAI_MEMORY, (const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret),
     (host, port, hints, ret))
WRAP(int, epoll_create1, EMFILE, -1, (int flags), (flags))
WRAP(int, epoll_ctl, ENOMEM, -1, (int epoll, int op, int fd, struct epoll_event *e), (epoll, op, fd, e))
WRAP(int, fstat64, EIO, -1, (int fd, struct stat64 *ret), (fd, ret))
WRAP(int, stat64, EIO, -1, (const char *path, struct stat64 *ret), (path, ret))
WRAP(void *, mmap64, ENOMEM, MAP_FAILED, (void *at, size_t len, int prot, int flags, int fd, off64_t offset),
     (at, len, prot, flags, fd, offset))
WRAP(FILE *, fopen64, EMFILE, NULL, (const char *path, const char *mode), (path, mode))
WRAP(FILE *, fdopen, ENOMEM, NULL, (int fd, const char *mode), (fd, mode))
WRAP(ssize_t, send, ENOBUFS, -1, (int fd, const void *data, size_t len, int flags), (fd, data, len, flags))

/* These return their error. */
int __real_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *user);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *user);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *user)
{
    return refused("pthread_create", EAGAIN) ? EAGAIN : __real_pthread_create(ret, attr, run, user);
}

int __real_eventfd(unsigned value, int flags);
int __wrap_eventfd(unsigned value, int flags);
int __wrap_eventfd(unsigned value, int flags)
{
    int fd = refused("eventfd", EMFILE) ? -1 : __real_eventfd(value, flags);
    if (fd >= 0 && fd < FDS)
        atomic_store(&is_eventfd[fd], true);
    return fd;
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return refused("open64", EMFILE) ? -1 : __real_open64(path, flags, mode);
}

static bool spared(int fd)
{
    return fd >= 0 && fd < FDS && atomic_load(&is_eventfd[fd]);
}

ssize_t __real_read(int fd, void *to, size_t n);
ssize_t __wrap_read(int fd, void *to, size_t n);
ssize_t __wrap_read(int fd, void *to, size_t n)
{
    return !spared(fd) && refused("read", EIO) ? -1 : __real_read(fd, to, n);
}

ssize_t __real_write(int fd, const void *from, size_t n);
ssize_t __wrap_write(int fd, const void *from, size_t n);
ssize_t __wrap_write(int fd, const void *from, size_t n)
{
    return !spared(fd) && refused("write", ENOSPC) ? -1 : __real_write(fd, from, n);
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    if (fd >= 0 && fd < FDS)
        atomic_store(&is_eventfd[fd], false);
    return __real_close(fd);
}
