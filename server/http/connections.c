/* See connections.h. */
#include "server/http/connections.h"
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#define TICK_MS 1000    /* how often bodies and answers under way are looked at */
#define COMING_MS 10000 /* who was accepted and has not been added so long after the latest was dropped by the library */
#define STALLED_MS 1000 /* a body of which nothing came for so long gives way, if nobody else does */

struct connection {
    struct connection *prev, *next;
    int fd;
    enum connection_phase phase;
    _Atomic bool spare;
    _Atomic bool last;
    bool closing;
    long long since_ms;    /* of the phase */
    long long progress_ms; /* when bytes moved last */
    long long rate_ms;     /* begin of the period whose bytes are counted; an answer's: -1 until looked at */
    unsigned long long rate_bytes, bytes;
    void *exchange; /* connections_exchange */
};

struct connections {
    struct connections_limits o;
    pthread_mutex_t lock; /* all below; taken inside no other lock */
    pthread_cond_t sooner, place;
    pthread_t thread;
    bool running, stop, starved, no_waiting;
    struct connection *first;
    int n, n_closing;
    int n_most;   /* of n, since connections_number */
    int n_coming; /* accepted, and not yet added */
    long long coming_ms;
    int n_placed, n_waiting; /* of those that are not closing: with a place; spare ones that wait for one */
    long long next_ms;       /* when the thread looks next; -1: it sleeps until told */
};

long long connections_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- closing ---- */

/* Wakes the connection's thread, which finds the end of the stream. */
static void tell_to_close(struct connections *c, struct connection *one, const char *why)
{
    log_debug(c->o.log, "http: connection %d closed: %s", one->fd, why);
    one->closing = true;
    c->n_closing++;
    c->n_placed -= !one->spare;
    pthread_cond_broadcast(&c->place);
    shutdown(one->fd, SHUT_RDWR);
}

enum rank { RANK_NONE, RANK_IDLE, RANK_OPENING, RANK_STALLED }; /* the smaller gives way first; RANK_NONE does not */

static bool unread(const struct connection *one)
{
    int n = 0;
    return !ioctl(one->fd, FIONREAD, &n) && n > 0;
}

/* Bytes that are not yet read may be a request that has just come. */
static enum rank rank(const struct connection *one, long long now)
{
    switch (one->phase) {
    case CONNECTION_IDLE: return unread(one) ? RANK_NONE : RANK_IDLE;
    case CONNECTION_OPENING:
    case CONNECTION_HEADERS: return unread(one) ? RANK_NONE : RANK_OPENING;
    case CONNECTION_REFUSED: return RANK_OPENING;
    case CONNECTION_BODY: return now - one->progress_ms >= STALLED_MS ? RANK_STALLED : RANK_NONE;
    case CONNECTION_WORK:
    case CONNECTION_ANSWER: break;
    }
    return RANK_NONE;
}

/* The one of the best rank, `last` at most, that has been so for longest. placed: it must leave a place. */
static bool make_room(struct connections *c, enum rank last, bool placed)
{
    struct connection *best = NULL;
    enum rank best_rank = RANK_NONE;
    long long now = connections_clock();
    for (struct connection *one = c->first; one; one = one->next) {
        enum rank r = one->closing || (placed && one->spare) ? RANK_NONE : rank(one, now);
        if (r && r <= last && (!best || r < best_rank || (r == best_rank && one->since_ms < best->since_ms))) {
            best = one;
            best_rank = r;
        }
    }
    if (best)
        tell_to_close(c, best, "it waited for nothing, and another one came");
    return best != NULL;
}

bool connections_room(struct connections *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->n_coming && connections_clock() - c->coming_ms >= COMING_MS)
        c->n_coming = 0;
    int all = c->n + c->n_coming, live = all - c->n_closing;
    bool room = all < c->o.max + CONNECTIONS_SPARE + CONNECTIONS_CLOSING &&
                (c->n_placed + c->n_coming < c->o.max || make_room(c, RANK_IDLE, true) || live < c->o.max + CONNECTIONS_SPARE ||
                 make_room(c, RANK_STALLED, false));
    c->starved = !room;
    pthread_mutex_unlock(&c->lock);
    return room;
}

bool connections_give_way(struct connections *c)
{
    pthread_mutex_lock(&c->lock);
    bool done = make_room(c, RANK_STALLED, false);
    c->starved |= !done;
    pthread_mutex_unlock(&c->lock);
    return done;
}

/* The lock is held: somebody waits for room or for a place and may find some. */
static void offer_room(struct connections *c)
{
    if (c->n_waiting)
        pthread_cond_broadcast(&c->place);
    if (!c->starved)
        return;
    c->starved = false;
    if (c->o.on_room)
        c->o.on_room(c->o.user);
}

/* ---- deadlines ---- */

/* Has a period ended in which too little moved? */
static bool too_slow(const struct connections *c, struct connection *one, long long now)
{
    if (now - one->rate_ms < 1000ll * c->o.period_s)
        return false;
    bool slow = (double)(one->bytes - one->rate_bytes) < (double)c->o.min_rate * c->o.period_s;
    one->rate_ms = now;
    one->rate_bytes = one->bytes;
    return slow;
}

/* Bytes that the client has acknowledged count as taken. While the client's window takes all that there is, it owes nothing. */
static const char *look_at_answer(const struct connections *c, struct connection *one, long long now)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    int unsent = 0;
    if (getsockopt(one->fd, IPPROTO_TCP, TCP_INFO, &info, &len) || ioctl(one->fd, SIOCOUTQNSD, &unsent))
        return NULL;
    if (one->rate_ms < 0 || unsent == 0) {
        one->rate_ms = one->progress_ms = now;
        one->rate_bytes = one->bytes = info.tcpi_bytes_acked;
    }
    if (info.tcpi_bytes_acked != one->bytes)
        one->progress_ms = now;
    one->bytes = info.tcpi_bytes_acked;
    if (now - one->progress_ms >= 1000ll * c->o.idle_s)
        return "nothing of the answer was taken within --idle-timeout";
    return too_slow(c, one, now) ? "the answer was taken slower than --min-rate" : NULL;
}

static const char *look_at_body(const struct connections *c, struct connection *one, long long now)
{
    if (now - one->progress_ms >= 1000ll * c->o.idle_s)
        return "nothing of the body came within --idle-timeout";
    return too_slow(c, one, now) ? "the body came slower than --min-rate" : NULL;
}

/* Of a body or an answer: at the end of its period, or a tick from now. */
static long long next_look(const struct connections *c, const struct connection *one, long long now)
{
    long long period = one->rate_ms + 1000ll * c->o.period_s;
    return one->rate_ms >= 0 && period > now && period < now + TICK_MS ? period : now + TICK_MS;
}

static long long deadline(const struct connections *c, const struct connection *one)
{
    return one->since_ms + 1000ll * (one->phase == CONNECTION_IDLE ? c->o.idle_s : c->o.header_s);
}

/* Why it must close, or NULL; *ret_next is when to look again, if ever. */
static const char *look_at(const struct connections *c, struct connection *one, long long now, long long *ret_next)
{
    const char *why;
    switch (one->phase) {
    case CONNECTION_OPENING:
    case CONNECTION_HEADERS:
    case CONNECTION_REFUSED:
    case CONNECTION_IDLE:
        *ret_next = deadline(c, one);
        if (*ret_next > now)
            return NULL;
        return one->phase == CONNECTION_IDLE ? "it was idle for --idle-timeout" : "its request did not come within --header-timeout";
    case CONNECTION_BODY:
        why = look_at_body(c, one, now);
        *ret_next = next_look(c, one, now);
        return why;
    case CONNECTION_ANSWER:
        why = look_at_answer(c, one, now);
        *ret_next = next_look(c, one, now);
        return why;
    case CONNECTION_WORK: break;
    }
    *ret_next = -1;
    return NULL;
}

static long long sooner(long long a, long long b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* The lock is held. */
static int sweep(struct connections *c, long long now)
{
    int closed = 0;
    c->next_ms = -1;
    for (struct connection *one = c->first; one; one = one->next) {
        long long next;
        const char *why = one->closing ? NULL : look_at(c, one, now, &next);
        if (why) {
            tell_to_close(c, one, why);
            closed++;
        } else if (!one->closing) {
            c->next_ms = sooner(c->next_ms, next);
            if ((c->starved || c->n_waiting) && rank(one, now))
                offer_room(c);
        }
    }
    return closed;
}

int connections_sweep(struct connections *c, long long now_ms)
{
    pthread_mutex_lock(&c->lock);
    int n = sweep(c, now_ms);
    pthread_mutex_unlock(&c->lock);
    return n;
}

static void *keep_deadlines(void *user)
{
    struct connections *c = user;
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        long long now = connections_clock();
        if (c->next_ms >= 0 && c->next_ms <= now) {
            sweep(c, now);
            continue;
        }
        struct timespec until = {c->next_ms / 1000, c->next_ms % 1000 * 1000000};
        if (c->next_ms < 0)
            pthread_cond_wait(&c->sooner, &c->lock);
        else
            pthread_cond_timedwait(&c->sooner, &c->lock, &until);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- life ---- */

int connections_open(const struct connections_limits *limits, struct connections **ret, struct err *err)
{
    struct connections *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory for the table of connections");
    c->o = *limits;
    c->next_ms = -1;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->sooner, &attr);
    pthread_cond_init(&c->place, NULL);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&c->lock, NULL);
    c->running = !pthread_create(&c->thread, NULL, keep_deadlines, c);
    if (!c->running) {
        connections_close(c);
        return err_set(err, ERR_NOMEM, "cannot start the thread that keeps the deadlines of connections");
    }
    *ret = c;
    return 0;
}

void connections_close(struct connections *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->sooner);
    pthread_mutex_unlock(&c->lock);
    if (c->running)
        pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->sooner);
    pthread_cond_destroy(&c->place);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- one connection ---- */

/* The lock is held. Tells the thread if it would look too late. */
static void begin_phase(struct connections *c, struct connection *one, enum connection_phase phase)
{
    long long now = connections_clock(), next = one->closing ? -1 : now + TICK_MS;
    one->phase = phase;
    one->since_ms = one->progress_ms = one->rate_ms = now;
    one->rate_bytes = one->bytes = 0;
    if (phase == CONNECTION_ANSWER)
        one->rate_ms = -1;
    else if (phase == CONNECTION_WORK)
        next = -1;
    else if (phase != CONNECTION_BODY && !one->closing)
        next = deadline(c, one);
    if (next >= 0 && (c->next_ms < 0 || next < c->next_ms)) {
        c->next_ms = next;
        pthread_cond_signal(&c->sooner);
    }
}

void connections_coming(struct connections *c)
{
    pthread_mutex_lock(&c->lock);
    c->n_coming++;
    c->coming_ms = connections_clock();
    pthread_mutex_unlock(&c->lock);
}

void connections_not_coming(struct connections *c)
{
    pthread_mutex_lock(&c->lock);
    c->n_coming -= c->n_coming > 0;
    offer_room(c);
    pthread_mutex_unlock(&c->lock);
}

struct connection *connections_add(struct connections *c, int fd)
{
    struct connection *one = calloc(1, sizeof(*one));
    pthread_mutex_lock(&c->lock);
    c->n_coming -= c->n_coming > 0;
    if (!one) {
        pthread_mutex_unlock(&c->lock);
        return NULL;
    }
    one->fd = fd;
    one->spare = c->n_placed >= c->o.max;
    c->n_placed += !one->spare;
    one->next = c->first;
    if (c->first)
        c->first->prev = one;
    c->first = one;
    c->n++;
    c->n_most = c->n > c->n_most ? c->n : c->n_most;
    begin_phase(c, one, CONNECTION_OPENING);
    pthread_mutex_unlock(&c->lock);
    return one;
}

void connections_remove(struct connections *c, struct connection *one)
{
    if (!one)
        return;
    pthread_mutex_lock(&c->lock);
    if (one->prev)
        one->prev->next = one->next;
    else
        c->first = one->next;
    if (one->next)
        one->next->prev = one->prev;
    c->n--;
    c->n_closing -= one->closing;
    c->n_placed -= !one->closing && !one->spare;
    offer_room(c);
    pthread_mutex_unlock(&c->lock);
    free(one);
}

bool connections_enter(struct connections *c, struct connection *one, enum connection_phase phase)
{
    if (!one)
        return true;
    pthread_mutex_lock(&c->lock);
    begin_phase(c, one, phase);
    bool open = !one->closing;
    if (phase == CONNECTION_IDLE)
        offer_room(c);
    pthread_mutex_unlock(&c->lock);
    return open;
}

void connections_headers(struct connections *c, struct connection *one)
{
    if (one && one->phase == CONNECTION_IDLE) /* only its own thread changes it */
        connections_enter(c, one, CONNECTION_HEADERS);
}

void connections_received(struct connections *c, struct connection *one, size_t n)
{
    if (!one)
        return;
    pthread_mutex_lock(&c->lock);
    one->bytes += n;
    one->progress_ms = connections_clock();
    pthread_mutex_unlock(&c->lock);
}

void **connections_exchange(struct connection *one)
{
    return one ? &one->exchange : NULL;
}

bool connections_spare(const struct connection *one)
{
    return one && one->spare;
}

bool connections_last(const struct connection *one)
{
    return one && (one->spare || one->last);
}

void connections_retire(struct connections *c)
{
    long long now = connections_clock();
    pthread_mutex_lock(&c->lock);
    for (struct connection *one = c->first; one; one = one->next) {
        one->last = true;
        if (!one->closing && one->phase == CONNECTION_IDLE && rank(one, now))
            tell_to_close(c, one, "it belongs to an older certificate");
    }
    pthread_mutex_unlock(&c->lock);
}

int connections_number(struct connections *c, int *ret_most)
{
    pthread_mutex_lock(&c->lock);
    int n = c->n;
    *ret_most = c->n_most;
    c->n_most = n;
    pthread_mutex_unlock(&c->lock);
    return n;
}

void connections_stop(struct connections *c)
{
    pthread_mutex_lock(&c->lock);
    c->no_waiting = true;
    pthread_cond_broadcast(&c->place);
    pthread_mutex_unlock(&c->lock);
}

int connections_waiting(struct connections *c)
{
    pthread_mutex_lock(&c->lock);
    int n = c->n_waiting;
    pthread_mutex_unlock(&c->lock);
    return n;
}

bool connections_take_place(struct connections *c, struct connection *one)
{
    if (!one)
        return true;
    pthread_mutex_lock(&c->lock);
    bool let = !one->spare || c->n_waiting < CONNECTIONS_WAITING;
    begin_phase(c, one, CONNECTION_WORK);
    c->n_waiting++;
    while (let && one->spare && !one->closing && !c->no_waiting) {
        if (c->n_placed < c->o.max || make_room(c, RANK_STALLED, true)) {
            one->spare = false;
            c->n_placed++;
        } else {
            pthread_cond_wait(&c->place, &c->lock);
        }
    }
    c->n_waiting--;
    let &= !one->spare && !one->closing;
    pthread_mutex_unlock(&c->lock);
    return let;
}
