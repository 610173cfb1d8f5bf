/* See no_timed_waits.h. A limit of none at all (-1 of poll) is no time limit. */
#include "tests/unit/no_timed_waits.h"
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

int timed_waits;

#define COUNTED(call) (__atomic_add_fetch(&timed_waits, 1, __ATOMIC_SEQ_CST), call)
#define WRAPPED(type, name, params) \
    type __real_##name params;      \
    type __wrap_##name params;      \
    type __wrap_##name params

WRAPPED(int, poll, (struct pollfd * p, nfds_t n, int ms))
{
    return ms < 0 ? __real_poll(p, n, ms) : COUNTED(__real_poll(p, n, ms));
}
WRAPPED(int, epoll_wait, (int fd, struct epoll_event *e, int n, int ms))
{
    return ms < 0 ? __real_epoll_wait(fd, e, n, ms) : COUNTED(__real_epoll_wait(fd, e, n, ms));
}
WRAPPED(int, pthread_cond_timedwait, (pthread_cond_t * c, pthread_mutex_t *m, const struct timespec *t))
{
    return COUNTED(__real_pthread_cond_timedwait(c, m, t));
}
WRAPPED(int, sem_timedwait, (sem_t * s, const struct timespec *t))
{
    return COUNTED(__real_sem_timedwait(s, t));
}
WRAPPED(int, nanosleep, (const struct timespec *t, struct timespec *rest))
{
    return COUNTED(__real_nanosleep(t, rest));
}
WRAPPED(int, clock_nanosleep, (clockid_t c, int flags, const struct timespec *t, struct timespec *rest))
{
    return COUNTED(__real_clock_nanosleep(c, flags, t, rest));
}
WRAPPED(int, usleep, (useconds_t us))
{
    return COUNTED(__real_usleep(us));
}
