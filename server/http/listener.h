/* A listening TCP socket and the thread that accepts on it. Connections for which there is no room wait in the kernel's queue; they are not
 * refused, since a client would count that as an error. */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include <stdbool.h>
#include <sys/socket.h>

struct listener;

/* Binds and listens; port 0 takes a free one. */
int listener_open(const char *host, int port, struct log *log, struct listener **ret, struct err *err);
int listener_port(const struct listener *l);

/* All on the listener's thread. */
struct listener_events {
    bool (*room)(void *user);                 /* may the connection that waits be accepted? If not, listener_wake will tell */
    bool (*short_of_descriptors)(void *user); /* can another connection be made to end? */
    void (*accept)(void *user, int fd, const struct sockaddr *addr, socklen_t len); /* takes fd over */
};
int listener_start(struct listener *l, const struct listener_events *events, void *user, struct err *err);
/* There is room again. Any thread. */
void listener_wake(struct listener *l);
/* Accepts nothing more and closes the socket; a second call does nothing. NULL is valid. */
void listener_stop(struct listener *l);
void listener_close(struct listener *l); /* NULL is valid */
