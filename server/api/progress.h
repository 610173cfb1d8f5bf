/* What the thread of a generating request sleeps on: woken by tokens, by the end of its sequences, and by its client's leaving.
 *
 * The engine's thread only sets a flag under a lock that is never held for longer than that; reading tokens, decoding them and writing JSON
 * need no lock (engine_tokens). */
#pragma once
#include "server/http/watcher.h"
#include <pthread.h>
#include <stdbool.h>

struct progress {
    pthread_mutex_t lock; /* innermost */
    pthread_cond_t changed;
    int n_open; /* sequences that are not done */
    bool news;  /* since progress_wait returned last */
    enum watch_state client;
    bool half_seen; /* progress_wait has told PROGRESS_HALF */
};

void progress_init(struct progress *p, int n_sequences);
void progress_done(struct progress *p);

/* eval_request.on_token, eval_request.on_done and watch.changed; `user` is the progress. */
void progress_token(void *user);
void progress_end(void *user);
void progress_client(void *user, enum watch_state state);

enum progress_event {
    PROGRESS_TOKENS,  /* there may be more tokens */
    PROGRESS_HALF,    /* once: the client sends no more; only writing tells whether it reads */
    PROGRESS_GONE,    /* the client left, or the server gives up (client says which) */
    PROGRESS_FINISHED /* every sequence is done: engine_wait returns at once or soon */
};

/* Blocks until one of them holds; the latter ones win. */
enum progress_event progress_wait(struct progress *p);
