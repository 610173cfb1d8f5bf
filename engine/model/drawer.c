/* Draws go from list to list, under one lock: taken, begun, over. */
#include "engine/model/drawer.h"
#include "engine/model/logit_edits.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct draws {
    struct draw *head, *tail;
    int n;
};

struct helper {
    struct drawer *d;
    int i;
    pthread_t thread;
    bool started;
};

struct drawer {
    int v, capacity;
    float *logits; /* [capacity, v] */
    struct {
        struct sampler *sampler;
        int32_t *counts; /* [v] zeros: scratch of logit_edits_apply */
        float *edited;   /* [v] */
    } threads[DRAWER_THREADS_MAX];
    int n_helpers;
    struct helper helpers[DRAWER_THREADS_MAX]; /* [0] is the owner */
    void (*wake)(void *arg);
    void *wake_arg;
    pthread_mutex_t lock;
    pthread_cond_t work, ended; /* helpers: there may be something to draw; the owner: one has been drawn */
    /* under the lock */
    int *places, n_places; /* [capacity] free rows of logits */
    int n_used;            /* rows 0 .. n_used-1 have been taken since their memory was given back */
    struct draws taken, begun, over;
    int n_busy;           /* draws under way */
    uint64_t latest_step; /* that has begun as a whole */
    bool stop;
};

static void push(struct draws *l, struct draw *w)
{
    w->next = NULL;
    *(l->head ? &l->tail->next : &l->head) = w;
    l->tail = w;
    l->n++;
}

static struct draw *pop(struct draws *l)
{
    struct draw *w = l->head;
    l->head = w->next;
    l->n--;
    return w;
}

/* ---- one draw ------------------------------------------------------------------------------------------------------ */
static bool finite_row(const float *logits, int v)
{
    for (int i = 0; i < v; i++)
        if (!(logits[i] - logits[i] == 0))
            return false;
    return true;
}

static int32_t greedy(const float *logits, int v)
{
    int32_t best = 0;
    for (int i = 1; i < v; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static const float *edit(struct drawer *d, const struct draw *w, const float *logits, int thread)
{
    float *edited = d->threads[thread].edited;
    memcpy(edited, logits, (size_t)d->v * sizeof(float));
    logit_edits_apply(edited, d->v, w->edits, w->params->temperature, &w->history, d->threads[thread].counts);
    return edited;
}

static void draw_row(struct drawer *d, struct draw *w, int thread)
{
    const float *logits = drawer_logits(d, w), *from = logits;
    w->token = -1;
    w->logprob = 0;
    if (!finite_row(logits, d->v))
        return;
    if (w->edits)
        from = edit(d, w, logits, thread);
    w->token = w->params->temperature > 0 ? sampler_pick(d->threads[thread].sampler, from, w->params, w->index) : greedy(from, d->v);
    w->logprob = logits[w->token] - w->lse; /* the formula of kernels/op_list.h, logprobs */
}

/* The oldest that waits. Under the lock, which is released meanwhile. */
static void draw_next(struct drawer *d, int thread)
{
    struct draw *w = pop(&d->begun);
    d->n_busy++;
    pthread_mutex_unlock(&d->lock);
    draw_row(d, w, thread);
    pthread_mutex_lock(&d->lock);
    d->n_busy--;
    d->places[d->n_places++] = w->row;
    push(&d->over, w);
    pthread_cond_signal(&d->ended);
    if (!d->n_busy && !d->begun.n && d->wake)
        d->wake(d->wake_arg);
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    struct drawer *d = h->d;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (!d->begun.n && !d->stop)
            pthread_cond_wait(&d->work, &d->lock);
        if (d->stop)
            break;
        draw_next(d, h->i);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- open and close ------------------------------------------------------------------------------------------------ */
int drawer_capacity(int vocab)
{
    size_t rows = DRAWER_BYTES / ((size_t)vocab * sizeof(float));
    return rows < 1 ? 1 : rows > DRAWER_ROWS_MAX ? DRAWER_ROWS_MAX : (int)rows;
}

/* In such an order that few rows need few pages. */
static void free_places(struct drawer *d)
{
    for (d->n_places = 0; d->n_places < d->capacity; d->n_places++)
        d->places[d->n_places] = d->capacity - 1 - d->n_places;
}

static int allocate(struct drawer *d)
{
    size_t v = (size_t)d->v;
    d->places = malloc((size_t)d->capacity * sizeof(int));
    int r = d->places ? 0 : ERR_NOMEM;
    if (r >= 0)
        free_places(d);
    for (int i = 0; r >= 0 && i <= d->n_helpers; i++) {
        d->threads[i].counts = calloc(v, sizeof(int32_t));
        d->threads[i].edited = malloc(v * sizeof(float));
        r = d->threads[i].counts && d->threads[i].edited ? sampler_new(d->v, &d->threads[i].sampler) : ERR_NOMEM;
    }
    return r;
}

static int start_helpers(struct drawer *d)
{
    for (int i = 1; i <= d->n_helpers; i++) {
        d->helpers[i] = (struct helper){.d = d, .i = i};
        d->helpers[i].started = !pthread_create(&d->helpers[i].thread, NULL, helper_main, &d->helpers[i]);
        if (!d->helpers[i].started)
            return ERR_NOMEM;
    }
    return 0;
}

int drawer_new(int vocab, int capacity, int n_threads, float *logits, struct drawer **ret, struct err *err)
{
    struct drawer *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(err, ERR_NOMEM, "no memory to draw tokens");
    n_threads = n_threads < DRAWER_THREADS_MAX ? n_threads : DRAWER_THREADS_MAX;
    d->v = vocab;
    d->capacity = capacity;
    d->logits = logits;
    d->n_helpers = n_threads > 1 ? n_threads - 1 : 1;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    pthread_cond_init(&d->ended, NULL);
    int r = allocate(d);
    if (r >= 0)
        r = start_helpers(d);
    if (r < 0) {
        drawer_free(d);
        return err_set(err, r, "no memory to draw tokens");
    }
    *ret = d;
    return 0;
}

static void stop_helpers(struct drawer *d)
{
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (int i = 1; i <= d->n_helpers; i++)
        if (d->helpers[i].started)
            pthread_join(d->helpers[i].thread, NULL);
}

void drawer_free(struct drawer *d)
{
    if (!d)
        return;
    stop_helpers(d);
    for (int i = 0; i < DRAWER_THREADS_MAX; i++) {
        sampler_free(d->threads[i].sampler);
        free(d->threads[i].counts);
        free(d->threads[i].edited);
    }
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->work);
    pthread_cond_destroy(&d->ended);
    free(d->places);
    free(d);
}

void drawer_notify(struct drawer *d, void (*wake)(void *arg), void *arg)
{
    pthread_mutex_lock(&d->lock);
    d->wake = wake;
    d->wake_arg = arg;
    pthread_mutex_unlock(&d->lock);
}

/* ---- the owner's calls --------------------------------------------------------------------------------------------- */
bool drawer_take(struct drawer *d, struct draw *draw, uint64_t step, const float *lse)
{
    pthread_mutex_lock(&d->lock);
    bool room = d->n_places;
    if (room) {
        draw->row = d->places[--d->n_places];
        d->n_used = draw->row < d->n_used ? d->n_used : draw->row + 1;
        draw->step = step;
        draw->lse_from = lse;
        push(&d->taken, draw);
    }
    pthread_mutex_unlock(&d->lock);
    return room;
}

float *drawer_logits(const struct drawer *d, const struct draw *draw)
{
    return d->logits + (size_t)draw->row * (size_t)d->v;
}

/* Under the lock. */
static void begin(struct drawer *d, uint64_t step)
{
    while (d->taken.n && d->taken.head->step <= step) {
        struct draw *w = pop(&d->taken);
        w->lse = *w->lse_from;
        push(&d->begun, w);
    }
}

void drawer_begin(struct drawer *d, uint64_t step)
{
    pthread_mutex_lock(&d->lock);
    begin(d, step);
    d->latest_step = step;
    pthread_mutex_unlock(&d->lock);
}

void drawer_share(struct drawer *d)
{
    pthread_mutex_lock(&d->lock);
    if (d->begun.n)
        pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
}

bool drawer_help(struct drawer *d)
{
    pthread_mutex_lock(&d->lock);
    bool any = d->begun.n;
    if (d->begun.n > 1)
        pthread_cond_broadcast(&d->work);
    if (any)
        draw_next(d, 0);
    pthread_mutex_unlock(&d->lock);
    return any;
}

void drawer_make_room(struct drawer *d)
{
    pthread_mutex_lock(&d->lock);
    begin(d, UINT64_MAX);
    pthread_cond_broadcast(&d->work);
    while (!d->n_places)
        if (d->begun.n)
            draw_next(d, 0);
        else
            pthread_cond_wait(&d->ended, &d->lock);
    pthread_mutex_unlock(&d->lock);
}

struct draw *drawer_over(struct drawer *d)
{
    struct draws all, told = {0};
    pthread_mutex_lock(&d->lock);
    all = d->over;
    d->over = (struct draws){0};
    while (all.n) {
        struct draw *w = pop(&all);
        push(w->step <= d->latest_step ? &told : &d->over, w);
    }
    pthread_mutex_unlock(&d->lock);
    return told.head;
}

void drawer_unused(struct drawer *d, float **ret, size_t *ret_bytes)
{
    size_t row = (size_t)d->v * sizeof(float);
    int kept = (int)(DRAWER_KEPT_BYTES / row);
    pthread_mutex_lock(&d->lock);
    assert(d->n_places == d->capacity);
    int n = d->n_used > kept ? d->n_used - kept : 0;
    *ret = d->logits + (size_t)(d->n_used - n) * (size_t)d->v;
    *ret_bytes = (size_t)n * row;
    d->n_used -= n;
    free_places(d); /* the lowest are taken first again */
    pthread_mutex_unlock(&d->lock);
}

void drawer_drop(struct drawer *d)
{
    pthread_mutex_lock(&d->lock);
    d->taken = d->begun = (struct draws){0};
    while (d->n_busy)
        pthread_cond_wait(&d->ended, &d->lock);
    d->over = (struct draws){0};
    free_places(d);
    pthread_mutex_unlock(&d->lock);
}
