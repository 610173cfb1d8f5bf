/* The connections of a server: what each is doing and since when. One thread closes those that take too long for it, and when all places are
 * taken, one that waits for nothing gives way to a new one.
 *
 * A place is one of `max`. Beyond them there are CONNECTIONS_SPARE more, so that probes get through while all places work. A spare one whose
 * request is no probe waits for a place, if not too many wait already. */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include <stdbool.h>
#include <stddef.h>

#define CONNECTIONS_SPARE 32
#define CONNECTIONS_WAITING 16  /* of them, those that wait for a place at most */
#define CONNECTIONS_CLOSING 224 /* told to close and not yet gone, at most, beyond places and spare ones */

struct connections;
struct connection;

enum connection_phase {
    CONNECTION_OPENING, /* the headers of its first request are awaited */
    CONNECTION_IDLE,    /* kept: a next request is awaited */
    CONNECTION_HEADERS, /* the first line of a further request has come */
    CONNECTION_REFUSED, /* its request is refused; a small body is read and dropped, so that the client sees the answer */
    CONNECTION_BODY,
    CONNECTION_WORK, /* the handler runs */
    CONNECTION_ANSWER
};

struct connections_limits {
    int max;
    int header_s;    /* opening and headers, in all */
    int idle_s;      /* idle; an answer of which nothing is taken */
    int period_s;    /* in every such period of a body or an answer under way */
    size_t min_rate; /* so many bytes a second must move, on average */
    struct log *log;
    void (*on_room)(void *user); /* there is room again after connections_room said no; any thread */
    void *user;
};

int connections_open(const struct connections_limits *limits, struct connections **ret, struct err *err);
void connections_close(struct connections *c); /* none may be left; NULL is valid */

/* One thread asks: may the connection that waits be accepted? May make another give way. */
bool connections_room(struct connections *c);
/* Makes one give way although there is room, because descriptors are short. */
bool connections_give_way(struct connections *c);
/* Those that are open end after their answer, or at once if they wait for nothing. */
void connections_retire(struct connections *c);
/* How many there are; *ret_most: the most at a time since this was asked last. */
int connections_number(struct connections *c, int *ret_most);
/* Nobody waits for a place any more. */
void connections_stop(struct connections *c);
/* One has been accepted and will be added by another thread: it counts from now on. */
void connections_coming(struct connections *c);
void connections_not_coming(struct connections *c); /* it will not */
/* NULL: no memory; such a connection is served and not limited. The descriptor stays open until connections_remove. */
struct connection *connections_add(struct connections *c, int fd);
/* What follows takes NULL. */
void connections_remove(struct connections *c, struct connection *one);

/* On the connection's thread. False: it has been told to close. */
bool connections_enter(struct connections *c, struct connection *one, enum connection_phase phase);
/* The first line of a request has come; the headers of its first request are awaited since it was opened. */
void connections_headers(struct connections *c, struct connection *one);
/* n more bytes of the body have come. */
void connections_received(struct connections *c, struct connection *one, size_t n);
/* Where its owner keeps the exchange under way; used on the connection's thread. NULL of NULL. */
void **connections_exchange(struct connection *one);
/* Beyond `max`: serve probes only. */
bool connections_spare(const struct connection *one);
/* The answer under way is its last: it is spare, or connections_retire found it. */
bool connections_last(const struct connection *one);
/* On the connection's thread: waits until a spare one has a place. False: too many wait, or it has been told to close. */
bool connections_take_place(struct connections *c, struct connection *one);

/* For tests: looks at every connection as the thread does, `now_ms` on its clock. Returns how many were told to close. */
int connections_sweep(struct connections *c, long long now_ms);
long long connections_clock(void);
int connections_waiting(struct connections *c); /* in connections_take_place */
