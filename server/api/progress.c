/* See progress.h. */
#include "server/api/progress.h"

void progress_init(struct progress *p, int n_sequences)
{
    *p = (struct progress){.n_open = n_sequences};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
}

void progress_done(struct progress *p)
{
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
}

void progress_token(void *user)
{
    struct progress *p = user;
    pthread_mutex_lock(&p->lock);
    bool first = !p->news;
    p->news = true;
    pthread_mutex_unlock(&p->lock);
    if (first) /* outside, so that who wakes need not wait again for the lock */
        pthread_cond_signal(&p->changed);
}

void progress_end(void *user)
{
    struct progress *p = user;
    pthread_mutex_lock(&p->lock);
    bool last = !--p->n_open;
    pthread_mutex_unlock(&p->lock);
    if (last)
        pthread_cond_signal(&p->changed);
}

void progress_client(void *user, enum watch_state state)
{
    struct progress *p = user;
    pthread_mutex_lock(&p->lock);
    p->client = state;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

enum progress_event progress_wait(struct progress *p)
{
    enum progress_event event = PROGRESS_TOKENS;
    pthread_mutex_lock(&p->lock);
    while (p->n_open && p->client < WATCH_GONE && !p->news && (p->client != WATCH_HALF || p->half_seen))
        pthread_cond_wait(&p->changed, &p->lock);
    if (!p->n_open) {
        event = PROGRESS_FINISHED;
    } else if (p->client >= WATCH_GONE) {
        event = PROGRESS_GONE;
    } else if (p->client == WATCH_HALF && !p->half_seen) {
        p->half_seen = true;
        event = PROGRESS_HALF;
    } else {
        p->news = false;
    }
    pthread_mutex_unlock(&p->lock);
    return event;
}
