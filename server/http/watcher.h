/* Notices clients that leave while their requests wait: one thread sleeps in epoll over the sockets of those requests and tells them.
 *
 * The end of a client's sending (FIN) alone does not say that it left: it may have closed one half and still read. Only bytes sent to it
 * tell, since a socket that is closed answers them with a reset. */
#pragma once
#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>

struct watcher;

/* What the watcher makes of a FIN. */
enum watch_fin {
    WATCH_FIN_HALF, /* the client sends no more; the caller may write something */
    WATCH_FIN_ASK,  /* the same, and sends an interim answer (100 Continue), which every HTTP/1.1 client must skip; only where nothing of
                     * the answer is on its way */
    WATCH_FIN_GONE  /* the client left */
};

enum watch_state {
    WATCH_HERE,
    WATCH_HALF,    /* the client sends no more; whether it reads is not known */
    WATCH_GONE,    /* the client has closed or reset the connection */
    WATCH_GIVEN_UP /* watcher_give_up */
};

/* The caller's storage, from watcher_add to watcher_remove. */
struct watch {
    int fd;
    enum watch_fin fin;
    /* Called on the watcher's thread (WATCH_GIVEN_UP: on the caller's, also inside watcher_add) for each new state. It must be short and
     * call nothing of this file. */
    void (*changed)(void *user, enum watch_state state);
    void *user;
    /* the watcher's own */
    enum watch_state state;
    uint64_t id;
    struct watch *prev, *next;
};

int watcher_open(struct watcher **ret, struct err *err);
void watcher_close(struct watcher *w); /* nothing may be watched; NULL is valid */

void watcher_add(struct watcher *w, struct watch *one);
/* `changed` is not running and will not be called again. Returns the last state. */
enum watch_state watcher_remove(struct watcher *w, struct watch *one);
/* Every watched request, now and to come, is told WATCH_GIVEN_UP. */
void watcher_give_up(struct watcher *w);
