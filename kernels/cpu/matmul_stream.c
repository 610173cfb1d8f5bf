/* Products of few rows, which take as long as their weights take to come from memory.
 *
 * Each thread has a share of the panels, neighbours in memory, and goes through them in order while the kernel fetches ahead: panels lie
 * one behind the other, so what is fetched beyond a panel is the next one's beginning. A thread that has done its share takes panels from
 * the end of the largest one left, so that one which is held up holds up nobody. Who computes a panel changes nothing (panel.h). */
#include "kernels/cpu/panel.h"
#include <stdatomic.h>

struct stream {
    struct cpu *c;
    const struct matmul_job *job;
    const struct panel_kernel *kernel;
    int rows, ids[ROWS];
};

/* What is left of a share: panels first .. end-1. */
static uint64_t range_of(uint32_t first, uint32_t end)
{
    return (uint64_t)end << 32 | first;
}
static int range_first(uint64_t r)
{
    return (int)(uint32_t)r;
}
static int range_left(uint64_t r)
{
    return (int)(uint32_t)(r >> 32) - range_first(r);
}

/* A panel of a share, its first or its last one; -1: none is left. */
static int take(struct matmul_share *s, bool last)
{
    uint64_t r = atomic_load_explicit(&s->range, memory_order_relaxed);
    while (range_left(r) > 0) {
        int first = range_first(r), end = first + range_left(r);
        uint64_t rest = last ? range_of(first, end - 1) : range_of(first + 1, end);
        if (atomic_compare_exchange_weak_explicit(&s->range, &r, rest, memory_order_relaxed, memory_order_relaxed))
            return last ? end - 1 : first;
    }
    return -1;
}

/* A panel of the share that has most left; -1: all are taken. */
static int take_from_others(const struct stream *a)
{
    for (;;) {
        struct matmul_share *from = NULL;
        int most = 0;
        for (int i = 0; i < a->c->n_threads; i++) {
            struct matmul_share *s = &a->c->matmul->shares[i];
            int left = range_left(atomic_load_explicit(&s->range, memory_order_relaxed));
            if (left > most) {
                most = left;
                from = s;
            }
        }
        if (!from)
            return -1;
        int p = take(from, true);
        if (p >= 0)
            return p;
    }
}

static void multiply_panel(const struct stream *a, int p, int thread)
{
    const struct kern_matrix *w = a->job->w;
    float *acc = a->c->matmul->out[thread];
    a->kernel->stream(acc, a->c->matmul->x, panel_at(w, 0, p), panel_steps(w), a->rows);
    a->kernel->finish(a->job, acc, p, a->ids, a->rows);
}

static void run_share(void *arg, int i, int thread)
{
    const struct stream *a = arg;
    int p;
    while ((p = take(&a->c->matmul->shares[i], false)) >= 0)
        multiply_panel(a, p, thread);
    while ((p = take_from_others(a)) >= 0)
        multiply_panel(a, p, thread);
}

void matmul_stream(struct cpu *c, const struct matmul_job *job, int rows)
{
    struct stream a = {.c = c, .job = job, .kernel = panel_kernel_of(job->w), .rows = rows};
    const struct kern_matrix *w = job->w;
    for (int i = 0; i < rows; i++) {
        a.ids[i] = rows_at(&job->rows, i);
        a.kernel->pack_row(c->matmul->x, 0, rows, i, act_at(job->x, job->x_type, (size_t)a.ids[i] * job->ldx), job->x_type, w->k);
    }
    for (int i = 0; i < c->n_threads; i++)
        atomic_store_explicit(
            &c->matmul->shares[i].range,
            range_of((uint32_t)((int64_t)w->n_panels * i / c->n_threads), (uint32_t)((int64_t)w->n_panels * (i + 1) / c->n_threads)),
            memory_order_relaxed);
    parallel_for(c->pool, c->n_threads, run_share, &a);
}
