/* See watcher.h. */
#include "server/http/watcher.h"
#include <linux/sockios.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64

struct watcher {
    int epoll, wake;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* all below; held while `changed` runs */
    bool stop, given_up;
    uint64_t next_id; /* an event names a watch by its id, since it may be gone by then; 0 is the wake-up */
    struct watch *first;
};

static void tell(struct watch *one, enum watch_state state)
{
    if (state <= one->state)
        return;
    one->state = state;
    one->changed(one->user, state);
}

/* Only where the socket holds nothing unsent, so that all bytes fit and nothing is torn. */
static void send_interim(const struct watch *one)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    int unsent = 1;
    if (one->fin == WATCH_FIN_ASK && !ioctl(one->fd, SIOCOUTQ, &unsent) && !unsent)
        (void)!send(one->fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* After the end of the client's sending only its reset is of interest: EPOLLERR and EPOLLHUP come unasked. */
static void take_event(struct watcher *w, const struct epoll_event *e)
{
    struct watch *one = w->first;
    while (one && one->id != e->data.u64)
        one = one->next;
    if (!one)
        return;
    if (one->fin == WATCH_FIN_GONE || (e->events & (EPOLLHUP | EPOLLERR))) {
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, one->fd, NULL);
        tell(one, WATCH_GONE);
        return;
    }
    struct epoll_event rest = {.data.u64 = one->id};
    epoll_ctl(w->epoll, EPOLL_CTL_MOD, one->fd, &rest);
    tell(one, WATCH_HALF);
    send_interim(one);
}

static void *watch_all(void *user)
{
    struct watcher *w = user;
    struct epoll_event events[EVENTS];
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        pthread_mutex_unlock(&w->lock);
        int n = epoll_wait(w->epoll, events, EVENTS, -1);
        pthread_mutex_lock(&w->lock);
        for (int i = 0; i < n; i++)
            take_event(w, &events[i]);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int watcher_open(struct watcher **ret, struct err *err)
{
    struct watcher *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, ERR_NOMEM, "no memory for the watcher of connections");
    struct epoll_event e = {.events = EPOLLIN};
    pthread_mutex_init(&w->lock, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->epoll >= 0 && w->wake >= 0 && !epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &e))
        w->running = !pthread_create(&w->thread, NULL, watch_all, w);
    if (!w->running) {
        watcher_close(w);
        return err_set(err, ERR_NOMEM, "cannot start the thread that watches connections");
    }
    *ret = w;
    return 0;
}

void watcher_close(struct watcher *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_mutex_unlock(&w->lock);
    if (w->running) {
        (void)!write(w->wake, &(uint64_t){1}, sizeof(uint64_t));
        pthread_join(w->thread, NULL);
    }
    if (w->epoll >= 0)
        close(w->epoll);
    if (w->wake >= 0)
        close(w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void watcher_add(struct watcher *w, struct watch *one)
{
    pthread_mutex_lock(&w->lock);
    one->id = ++w->next_id;
    one->state = WATCH_HERE;
    one->prev = NULL;
    one->next = w->first;
    if (w->first)
        w->first->prev = one;
    w->first = one;
    struct epoll_event e = {.events = EPOLLRDHUP, .data.u64 = one->id};
    epoll_ctl(w->epoll, EPOLL_CTL_ADD, one->fd, &e);
    if (w->given_up)
        tell(one, WATCH_GIVEN_UP);
    pthread_mutex_unlock(&w->lock);
}

enum watch_state watcher_remove(struct watcher *w, struct watch *one)
{
    pthread_mutex_lock(&w->lock);
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, one->fd, NULL); /* fails harmlessly for a client that is gone */
    if (one->prev)
        one->prev->next = one->next;
    else
        w->first = one->next;
    if (one->next)
        one->next->prev = one->prev;
    enum watch_state state = one->state;
    pthread_mutex_unlock(&w->lock);
    return state;
}

void watcher_give_up(struct watcher *w)
{
    pthread_mutex_lock(&w->lock);
    w->given_up = true;
    for (struct watch *one = w->first; one; one = one->next)
        tell(one, WATCH_GIVEN_UP);
    pthread_mutex_unlock(&w->lock);
}
