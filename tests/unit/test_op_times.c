/* Division of busy time by sampled steps: which steps are sampled, that shares add up, and that the ops are the backend's own again. Time is counted, not taken: a
 * product takes ten seconds, and one passes before each stamp. */
#include "kernels/op_times.h"
#include "tests/check.h"
#include <math.h>
#include <stdlib.h>

enum { N = 64, K = 512 };

static struct kern_ctx *k;
static struct kern_matrix *w;

/* The CPU with a clock that is counted. */
static const struct kern_ops *real_ops;
static double now, stamps[BACKEND_STAMPS];

static int stamp_counted(struct kern_ctx *ctx, int i)
{
    stamps[i] = now += 1;
    return 0;
}

static double seconds_counted(struct kern_ctx *ctx, int a, int b)
{
    return stamps[b] - stamps[a];
}

static int matmul_counted(struct kern_ctx *ctx, struct dev_f32 *y, const struct dev_act *x, const struct kern_matrix *m, struct rows n)
{
    now += 10;
    return real_ops->matmul_f32(ctx, y, x, m, n);
}

static void run_matmuls(int n)
{
    struct dev_bytes *x = k->backend->alloc(k, sizeof(float) * 8 * K), *y = k->backend->alloc(k, sizeof(float) * 8 * N);
    static const float zeros[8 * K];
    CHECK_INT(k->backend->upload(k, x, zeros, sizeof(zeros)), 0);
    for (int i = 0; i < n; i++)
        CHECK_INT(k->ops->matmul_f32(k, dev_f32_in(y, 0), dev_act_in(x, 0), w, (struct rows){.n_max = 8}), 0);
    k->backend->free(k, x);
    k->backend->free(k, y);
}

/* A step of n matmuls at a time; true: it was sampled. */
static bool step(struct op_times *t, double now_s, int n)
{
    bool sampled;
    CHECK_INT(op_times_begin(t, now_s, &sampled), 0);
    CHECK(sampled == (k->ops == &t->timed));
    run_matmuls(n);
    CHECK_INT(op_times_end(t), 0);
    CHECK(k->ops == t->ops);
    return sampled;
}

static double sum(const struct op_times *t)
{
    return t->seconds[OP_MATMUL] + t->seconds[OP_ATTENTION] + t->seconds[OP_OTHER];
}

static void test_samples(void)
{
    struct op_times *t = malloc(sizeof(*t));
    op_times_init(t, k);
    op_times_busy(t, 0.25);
    CHECK(sum(t) == 0); /* nothing is known yet */
    CHECK(step(t, 10, 50));
    CHECK(!step(t, 10.2, 1)); /* its results were not asked for */
    op_times_busy(t, 0.5);
    CHECK(fabs(sum(t) - 0.75) < 1e-9);
    CHECK(t->seconds[OP_MATMUL] > t->seconds[OP_OTHER]); /* there was nothing else */
    CHECK(t->seconds[OP_ATTENTION] == 0);
    CHECK(!step(t, 10.9, 1));
    CHECK(step(t, 11.1, 1));
    op_times_busy(t, 1);
    CHECK(fabs(sum(t) - 1.75) < 1e-9);
    free(t);
}

/* More ops than there are stamps. */
static void test_many_ops(void)
{
    struct op_times *t = malloc(sizeof(*t));
    op_times_init(t, k);
    CHECK(step(t, 0, BACKEND_STAMPS));
    CHECK(t->n_stamps <= BACKEND_STAMPS);
    op_times_busy(t, 2);
    CHECK(fabs(sum(t) - 2) < 1e-9);
    CHECK(t->seconds[OP_MATMUL] > 0 && t->seconds[OP_OTHER] > 0);
    free(t);
}

/* An op that calls others must reach them without stamps: the time between its own two is all its own. */
static const struct kern_ops *seen;

static int note_table(struct kern_ctx *ctx, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv, const struct dev_act *xn,
                      const struct kern_matrix *m, int d, struct rows n)
{
    seen = ctx->ops;
    return 0;
}

static void test_table_in_op(void)
{
    const struct kern_ops *real = k->ops;
    struct kern_ops noting = *real;
    struct op_times *t = malloc(sizeof(*t));
    bool sampled;
    noting.matmul_bypass = note_table;
    k->ops = &noting;
    op_times_init(t, k);
    CHECK_INT(op_times_begin(t, 0, &sampled), 0);
    CHECK_INT(k->ops->matmul_bypass(k, NULL, NULL, NULL, NULL, w, K, (struct rows){.n_max = 1}), 0);
    CHECK(seen == &noting);
    CHECK(k->ops == &t->timed);
    CHECK_INT(t->n_stamps, 3);
    CHECK_INT(op_times_end(t), 0);
    k->ops = real;
    free(t);
}

int main(void)
{
    const struct backend *b;
    struct err err = {0};
    float weights[N * K] = {0};
    struct matrix_part part = {weights, DTYPE_F32, N, NULL, DTYPE_F32};
    CHECK_INT(backend_find("cpu", &b, &err), 0);
    CHECK_INT(b->open(&(struct backend_config){.dtype = DTYPE_F32, .n_threads = 1}, &k, &err), 0);
    CHECK_INT(k->ops->matrix_new(k, MATRIX_LINEAR, &part, 1, K, &w, &err), 0);
    struct backend counted = *b;
    struct kern_ops ops = *(real_ops = k->ops);
    counted.stamp = stamp_counted;
    counted.stamp_seconds = seconds_counted;
    ops.matmul_f32 = matmul_counted;
    k->backend = &counted;
    k->ops = &ops;
    test_samples();
    test_many_ops();
    test_table_in_op();
    k->backend = b;
    k->ops = real_ops;
    k->ops->matrix_free(k, w);
    b->close(k);
    return check_result();
}
