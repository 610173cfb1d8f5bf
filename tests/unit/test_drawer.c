/* Rows drawn at once are drawn as each alone, by any number of threads and by the owner, in steps that begin one by one, with few places; what is not
 * finite is not drawn; draws that are dropped leave nothing behind, nor does a drawer without memory. */
#include "engine/model/drawer.h"
#include "tests/check.h"
#include "tests/fail/failing.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { V = 300, N = 70, STEPS = 3, BAD_ROW = 7, BIASED = 11 };

static const struct sampler_params kinds[] = {{0.7f, 0, 1, 1}, {1, 5, 1, 2}, {1.5f, 0, 0.8f, 3}};
static float memory[N * V];

/* What is drawn, and the wake-ups that the drawer gives. */
struct bench {
    struct drawer *d;
    struct draw draws[N];
    float lse[N];
    pthread_mutex_t lock;
    pthread_cond_t woken;
    int n_wakes;
};

static void fill(float *logits, int row)
{
    for (int i = 0; i < V; i++)
        logits[i] = (float)((i * (row + 3)) % 97) * 0.1f;
    if (row == BAD_ROW)
        logits[row * 9] = NAN;
}

static void wake(void *arg)
{
    struct bench *b = arg;
    pthread_mutex_lock(&b->lock);
    b->n_wakes++;
    pthread_cond_signal(&b->woken);
    pthread_mutex_unlock(&b->lock);
}

static bool open_bench(struct bench *b, int capacity, int threads)
{
    struct err err;
    memset(b, 0, sizeof(*b));
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->woken, NULL);
    if (!CHECK_INT(drawer_new(V, capacity, threads, memory, &b->d, &err), 0))
        return false;
    drawer_notify(b->d, wake, b);
    return true;
}

static void close_bench(struct bench *b)
{
    drawer_free(b->d);
    pthread_cond_destroy(&b->woken);
    pthread_mutex_destroy(&b->lock);
}

/* The row's token is drawn in step `step`. Returns whether room had to be made. */
static bool ask(struct bench *b, int i, uint64_t step)
{
    static const struct logit_bias bias = {5, 100};
    static const struct logit_edits biased = {.bias = &bias, .n_bias = 1, .repetition_penalty = 1};
    struct draw *w = &b->draws[i];
    bool full = false;
    *w = (struct draw){.params = &kinds[i % 3], .index = (uint64_t)i, .edits = i == BIASED ? &biased : NULL, .token = -2};
    for (; !drawer_take(b->d, w, step, &b->lse[i]); full = true)
        drawer_make_room(b->d);
    fill(drawer_logits(b->d, w), i);
    b->lse[i] = 0.25f * (float)i;
    return full;
}

/* All that are over by now. Returns how many. */
static int take_over(struct bench *b, uint64_t step, bool *seen)
{
    int n = 0;
    for (struct draw *w = drawer_over(b->d); w; w = w->next, n++) {
        CHECK(w->step <= step && !seen[w - b->draws]);
        seen[w - b->draws] = true;
    }
    return n;
}

/* Sleeps until `most` are told, of which `told` were before. Returns how many are. */
static int take_until(struct bench *b, uint64_t step, int told, int most, bool *seen)
{
    for (;;) {
        pthread_mutex_lock(&b->lock);
        int before = b->n_wakes;
        pthread_mutex_unlock(&b->lock);
        told += take_over(b, step, seen);
        if (told >= most)
            return told;
        pthread_mutex_lock(&b->lock);
        while (b->n_wakes == before)
            pthread_cond_wait(&b->woken, &b->lock);
        pthread_mutex_unlock(&b->lock);
    }
}

static void check_token(struct sampler *sampler, const struct draw *w, int i)
{
    float alone[V];
    fill(alone, i);
    int want = i == BAD_ROW ? -1 : i == BIASED ? 5 : sampler_pick(sampler, alone, w->params, w->index);
    CHECK_INT(w->token, want);
    CHECK(want < 0 || w->logprob == alone[want] - 0.25f * (float)i);
}

/* Steps of N / STEPS rows, asked for two ahead of the one that begins. */
static void draw_all(struct bench *b, bool helps, bool *seen)
{
    int told = 0, asked = 0;
    for (int step = 1; step <= STEPS + 1; step++) {
        for (; asked < N && asked < N * step / STEPS; asked++)
            ask(b, asked, (uint64_t)step);
        if (step == 1)
            continue;
        drawer_begin(b->d, (uint64_t)step - 1);
        if (!helps)
            drawer_share(b->d);
        while (helps && drawer_help(b->d))
            ;
        told = take_until(b, (uint64_t)step - 1, told, N * (step - 1) / STEPS, seen);
        CHECK_INT(told, N * (step - 1) / STEPS);
    }
    CHECK(!drawer_over(b->d));
}

static void test_rows(void)
{
    static const int capacities[] = {N, N / STEPS, 3, 1};
    struct sampler *sampler;
    CHECK_INT(sampler_new(V, &sampler), 0);
    for (int c = 0; c < 4; c++)
        for (int threads = 1; threads <= 5; threads += 2)
            for (int helps = 0; helps < 2; helps++) {
                struct bench b;
                bool seen[N] = {false};
                if (!open_bench(&b, capacities[c], threads))
                    return;
                draw_all(&b, helps, seen);
                for (int i = 0; i < N; i++) {
                    CHECK(seen[i]);
                    check_token(sampler, &b.draws[i], i);
                }
                close_bench(&b);
            }
    sampler_free(sampler);
}

/* Room is made only where all places are taken, and of rows whose step has not begun nothing is told. */
static void test_room(void)
{
    struct bench b;
    if (!open_bench(&b, 4, 2))
        return;
    for (int i = 0; i < 4; i++)
        CHECK(!ask(&b, i, 1));
    CHECK(ask(&b, 4, 1));
    CHECK(!drawer_over(b.d));
    drawer_drop(b.d);
    for (int i = 0; i < 4; i++)
        CHECK(!ask(&b, i, 2));
    drawer_drop(b.d);
    close_bench(&b);
}

/* The owner is woken when the last is drawn, and sleeps until then. */
static void test_wake(void)
{
    struct bench b;
    bool seen[N] = {false};
    if (!open_bench(&b, N, 3))
        return;
    for (int i = 0; i < N; i++)
        ask(&b, i, 1);
    CHECK_INT(b.n_wakes, 0);
    drawer_begin(b.d, 1);
    drawer_share(b.d);
    CHECK_INT(take_until(&b, 1, 0, N, seen), N);
    CHECK_INT(b.n_wakes, 1);
    CHECK(!drawer_help(b.d));
    close_bench(&b);
}

/* What is dropped, taken, begun, under way or over, may be freed: the draws are another round's at once. */
static void test_drop(void)
{
    struct bench b;
    bool seen[N] = {false};
    if (!open_bench(&b, N, 4))
        return;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < N; i++)
            ask(&b, i, (uint64_t)(2 * round + (i >= N / 2)));
        drawer_begin(b.d, (uint64_t)(2 * round));
        drawer_share(b.d);
        for (int i = 0; i < round; i++)
            drawer_help(b.d);
        drawer_drop(b.d);
        CHECK(!drawer_over(b.d) && !drawer_help(b.d));
        memset(b.draws, 0xff, sizeof(b.draws));
    }
    for (int i = 0; i < N; i++)
        CHECK(!ask(&b, i, 100)); /* all places are free again */
    drawer_begin(b.d, 100);
    drawer_share(b.d);
    take_until(&b, 100, 0, N, seen);
    close_bench(&b);
}

/* Few at a time need few places; those of a burst are named once when it is over, but for what is kept. */
static void test_unused(void)
{
    enum { WIDE = 1 << 18, KEPT = (int)(DRAWER_KEPT_BYTES / (WIDE * sizeof(float))), PLACES = 2 * KEPT };
    static struct draw draws[PLACES];
    static const struct sampler_params first = {0, 0, 1, 1};
    float *logits = calloc(PLACES, WIDE * sizeof(float)), *unused;
    struct drawer *d;
    struct err err;
    float lse = 0;
    size_t bytes;
    if (!CHECK(logits) || !CHECK_INT(drawer_new(WIDE, PLACES, 1, logits, &d, &err), 0))
        return;
    static const int bursts[] = {1, KEPT, KEPT + 1, PLACES, 2, PLACES - 1};
    for (size_t b = 0; b < sizeof(bursts) / sizeof(bursts[0]); b++) {
        for (int i = 0; i < bursts[b]; i++) {
            draws[i] = (struct draw){.params = &first};
            CHECK(drawer_take(d, &draws[i], b + 1, &lse));
            CHECK(drawer_logits(d, &draws[i]) == logits + (size_t)i * WIDE);
        }
        drawer_begin(d, b + 1);
        for (int told = 0; told < bursts[b];)
            for (struct draw *w = drawer_help(d) ? NULL : drawer_over(d); w; w = w->next)
                told++;
        int over = bursts[b] > KEPT ? bursts[b] - KEPT : 0;
        drawer_unused(d, &unused, &bytes);
        CHECK_INT(bytes, (size_t)over * WIDE * sizeof(float));
        CHECK(!over || unused == logits + (size_t)KEPT * WIDE);
        drawer_unused(d, &unused, &bytes);
        CHECK_INT(bytes, 0);
    }
    drawer_free(d);
    free(logits);
}

static void test_no_memory(void)
{
    bool reached = true;
    for (int n = 0; reached; n++) {
        struct drawer *d = NULL;
        struct err err = {0};
        long live = failing_live();
        failing_plan(n);
        int r = drawer_new(V, 4, 1, memory, &d, &err);
        reached = failing_reached();
        CHECK_INT(r, reached ? ERR_NOMEM : 0);
        CHECK(!reached || err.text[0]);
        drawer_free(d);
        CHECK_INT(failing_live(), live);
    }
}

int main(void)
{
    failing_init();
    CHECK_INT(drawer_capacity(1), DRAWER_ROWS_MAX);
    CHECK_INT(drawer_capacity(1 << 20), 32);
    CHECK_INT(drawer_capacity(INT32_MAX), 1);
    test_rows();
    test_room();
    test_wake();
    test_drop();
    test_unused();
    test_no_memory();
    return check_result();
}
