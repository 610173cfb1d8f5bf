/* Ranks meet twice a gather: when what each has to give is there, and when all have read it. They do so as late as they may, in await_gathers: so
 * a caller that reads or writes too early gets wrong bits here, and tests tell. */
#include "kernels/cpu/group.h"
#include "kernels/cpu/cpu.h"
#include <pthread.h>
#include <stdlib.h>

struct pending_gather {
    char *dst;
    const char *src;
    size_t bytes;
    int rows;
};

/* What a rank has asked for and not done, oldest first. */
struct cpu_gathers {
    int n;
    struct pending_gather list[2];
};

struct cpu_group {
    pthread_mutex_t lock;
    pthread_cond_t met;
    int n, n_arrived;
    unsigned long meetings; /* so far */
    bool failed;
    struct cpu_gathers *pending; /* [n] */
    const char *src[];           /* [n] what the ranks give */
};

int cpu_group_open(struct kern_ctx *const *ranks, int n, struct err *err)
{
    struct cpu_group *g = calloc(1, sizeof(*g) + (size_t)n * sizeof(*g->src));
    if (g)
        g->pending = calloc((size_t)n, sizeof(*g->pending));
    if (!g || !g->pending) {
        free(g);
        return err_set(err, ERR_NOMEM, "no memory for a group of %d ranks", n);
    }
    g->n = n;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->met, NULL);
    for (int i = 0; i < n; i++) {
        cpu_of(ranks[i])->group = g;
        cpu_of(ranks[i])->rank = i;
    }
    return 0;
}

void cpu_group_close(struct kern_ctx *const *ranks, int n)
{
    struct cpu_group *g = n && ranks[0] ? cpu_of(ranks[0])->group : NULL;
    if (!g)
        return;
    for (int i = 0; i < n; i++)
        cpu_of(ranks[i])->group = NULL;
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->met);
    free(g->pending);
    free(g);
}

void cpu_group_fail(struct kern_ctx *k)
{
    struct cpu_group *g = cpu_of(k)->group;
    pthread_mutex_lock(&g->lock);
    g->failed = true;
    pthread_cond_broadcast(&g->met);
    pthread_mutex_unlock(&g->lock);
}

/* Returns when all ranks have come, or one has failed. */
static int meet(struct cpu_group *g)
{
    pthread_mutex_lock(&g->lock);
    unsigned long now = g->meetings;
    if (++g->n_arrived == g->n) {
        g->n_arrived = 0;
        g->meetings++;
        pthread_cond_broadcast(&g->met);
    }
    while (g->meetings == now && !g->failed)
        pthread_cond_wait(&g->met, &g->lock);
    int r = g->failed ? ERR_DEVICE : 0;
    pthread_mutex_unlock(&g->lock);
    return r;
}

static int gather_oldest(struct cpu *c)
{
    struct cpu_group *g = c->group;
    struct cpu_gathers *mine = &g->pending[c->rank];
    struct pending_gather p = mine->list[0];
    mine->list[0] = mine->list[1];
    mine->n--;
    g->src[c->rank] = p.src;
    int r = meet(g);
    for (int i = 0; r >= 0 && i < p.rows; i++)
        for (int rank = 0; rank < g->n; rank++, p.dst += p.bytes)
            memcpy(p.dst, g->src[rank] + (size_t)i * p.bytes, p.bytes);
    return r < 0 ? r : meet(g);
}

int cpu_await_gathers(struct kern_ctx *k, int but)
{
    struct cpu *c = cpu_of(k);
    int r = 0;
    while (r >= 0 && c->group->pending[c->rank].n > but)
        r = gather_oldest(c);
    return r;
}

int cpu_all_gather(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows)
{
    struct cpu *c = cpu_of(k);
    struct cpu_gathers *mine = &c->group->pending[c->rank];
    int r = cpu_await_gathers(k, 1);
    if (r >= 0)
        mine->list[mine->n++] = (struct pending_gather){bytes_of(dst), bytes_of(src), bytes, rows};
    return r;
}

int cpu_take_columns(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t first, size_t bytes, size_t ld,
                     int rows)
{
    char *to = bytes_of(dst);
    const char *from = bytes_of(src);
    for (int i = 0; i < rows; i++)
        memcpy(to + (size_t)i * bytes, from + (size_t)i * ld + first, bytes);
    return 0;
}
