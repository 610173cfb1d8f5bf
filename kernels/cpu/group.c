/* Ranks meet twice a gather: when what each has to give is there, and when all have read it. */
#include "kernels/cpu/group.h"
#include "kernels/cpu/cpu.h"
#include <pthread.h>
#include <stdlib.h>

struct cpu_group {
    pthread_mutex_t lock;
    pthread_cond_t met;
    int n, n_arrived;
    unsigned long meetings; /* so far */
    bool failed;
    const char *src[]; /* [n] what the ranks give */
};

int cpu_group_open(struct kern_ctx *const *ranks, int n, struct err *err)
{
    struct cpu_group *g = calloc(1, sizeof(*g) + (size_t)n * sizeof(*g->src));
    if (!g)
        return err_set(err, ERR_NOMEM, "no memory for a group of %d ranks", n);
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

int cpu_all_gather(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows)
{
    struct cpu *c = cpu_of(k);
    struct cpu_group *g = c->group;
    char *to = bytes_of(dst);
    g->src[c->rank] = bytes_of(src);
    int r = meet(g);
    for (int i = 0; r >= 0 && i < rows; i++)
        for (int rank = 0; rank < g->n; rank++, to += bytes)
            memcpy(to, g->src[rank] + (size_t)i * bytes, bytes);
    return r < 0 ? r : meet(g);
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
