/* See listener.h. */
#include "server/http/listener.h"
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BACKLOG 4096
#define RETRY_MS 1000 /* how long accepting rests when descriptors or memory are short, unless it is woken before */

struct listener {
    int fd, port;
    struct log *log;
    int wake; /* eventfd: listener_wake, or the listener stops */
    pthread_t thread;
    bool running;
    atomic_bool stopping;
    struct listener_events events;
    void *user;
};

union address {
    struct sockaddr any;
    struct sockaddr_storage storage;
};

static int bind_one(const struct addrinfo *a)
{
    int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, BACKLOG))
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static int bind_host(struct listener *l, const char *host, int port, struct err *err)
{
    char text[16] = "0";
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list = NULL;
    snprintf(text, sizeof(text), "%d", port);
    int r = getaddrinfo(host, text, &hints, &list);
    if (r == EAI_MEMORY)
        return err_set(err, ERR_NOMEM, "no memory to look up --host %s", host);
    if (r)
        return err_field(err, ERR_INVALID, "host", "--host: \"%s\" is not an address of this machine (%s)", host, gai_strerror(r));
    for (struct addrinfo *a = list; a && l->fd < 0; a = a->ai_next)
        l->fd = bind_one(a);
    int saved = errno;
    freeaddrinfo(list);
    if (l->fd < 0)
        return err_field(err, ERR_IO, "port", "cannot listen on %s port %d: %s", host, port, strerror(saved));
    union address addr;
    socklen_t len = sizeof(addr);
    if (getsockname(l->fd, &addr.any, &len) || getnameinfo(&addr.any, len, NULL, 0, text, sizeof(text), NI_NUMERICSERV))
        return err_set(err, ERR_IO, "the port that %s listens on is not told", host);
    l->port = atoi(text);
    return 0;
}

int listener_open(const char *host, int port, struct log *log, struct listener **ret, struct err *err)
{
    struct listener *l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(err, ERR_NOMEM, "no memory for the listener");
    l->fd = l->wake = -1;
    l->log = log;
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = l->wake < 0 ? err_set(err, ERR_IO, "cannot make an eventfd: %s", strerror(errno)) : bind_host(l, host, port, err);
    if (r < 0) {
        listener_close(l);
        return r;
    }
    *ret = l;
    return 0;
}

int listener_port(const struct listener *l)
{
    return l->port;
}

void listener_wake(struct listener *l)
{
    (void)!write(l->wake, &(uint64_t){1}, sizeof(uint64_t));
}

/* Sleeps until a connection waits (if that is of interest), somebody wakes the listener, or the time is over. True: a connection waits. */
static bool rest(struct listener *l, bool for_connections, int timeout_ms)
{
    struct pollfd p[] = {{.fd = l->wake, .events = POLLIN}, {.fd = for_connections ? l->fd : -1, .events = POLLIN}};
    uint64_t ignored;
    if (poll(p, 2, timeout_ms) <= 0)
        return false;
    if (p[0].revents)
        (void)!read(l->wake, &ignored, sizeof(ignored));
    return p[1].revents != 0;
}

/* A function of its own for tests/tsan.supp. */
static __attribute__((noinline)) int listener_take(int fd, struct sockaddr *addr, socklen_t *len)
{
    return accept4(fd, addr, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static void accept_one(struct listener *l)
{
    union address addr = {0};
    socklen_t len = sizeof(addr);
    int fd = listener_take(l->fd, &addr.any, &len);
    if (fd >= 0) {
        l->events.accept(l->user, fd, &addr.any, len);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        log_warn(l->log, "cannot accept a connection: %s", strerror(errno));
        l->events.short_of_descriptors(l->user);
        rest(l, false, RETRY_MS);
    }
}

static void *accept_all(void *user)
{
    struct listener *l = user;
    bool room = true;
    while (!atomic_load(&l->stopping)) {
        bool waits = rest(l, room, -1);
        if (atomic_load(&l->stopping))
            break;
        room = !waits || l->events.room(l->user);
        if (waits && room)
            accept_one(l);
    }
    return NULL;
}

int listener_start(struct listener *l, const struct listener_events *events, void *user, struct err *err)
{
    l->events = *events;
    l->user = user;
    l->running = !pthread_create(&l->thread, NULL, accept_all, l);
    return l->running ? 0 : err_set(err, ERR_NOMEM, "cannot start the thread that accepts connections");
}

void listener_stop(struct listener *l)
{
    if (!l)
        return;
    atomic_store(&l->stopping, true);
    listener_wake(l);
    if (l->running)
        pthread_join(l->thread, NULL);
    l->running = false;
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
}

void listener_close(struct listener *l)
{
    if (!l)
        return;
    listener_stop(l);
    if (l->wake >= 0)
        close(l->wake);
    free(l);
}
