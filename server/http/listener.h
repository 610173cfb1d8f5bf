/* A listening TCP socket and the thread that accepts on it. Connections beyond the limit wait in the kernel's queue until another one
 * ends; they are not refused, since a client would count that as an error. */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include <stdbool.h>
#include <sys/socket.h>

struct listener;

/* Binds and listens; port 0 takes a free one. */
int listener_open(const char *host, int port, int max_connections, struct log *log, struct listener **ret, struct err *err);
int listener_port(const struct listener *l);
/* `on_accept` takes the connection over and returns true, or closes fd and returns false. */
int listener_start(struct listener *l, bool (*on_accept)(void *user, int fd, const struct sockaddr *addr, socklen_t len), void *user,
                   struct err *err);
/* One accepted connection has ended. Any thread. */
void listener_slot_free(struct listener *l);
/* Accepts nothing more and closes the socket; a second call does nothing. NULL is valid. */
void listener_stop(struct listener *l);
void listener_close(struct listener *l); /* NULL is valid */
