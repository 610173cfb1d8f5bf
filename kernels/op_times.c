/* See op_times.h. */
#include "kernels/op_times.h"
#include <string.h>

static int stamp(struct op_times *t)
{
    return t->k->backend->stamp(t->k, t->n_stamps++);
}

/* Stamps before and after an op; the last two numbers are kept for what ends the step. An op beyond them counts as other. */
static bool has_stamps(const struct op_times *t)
{
    return t->n_stamps + 2 < BACKEND_STAMPS;
}

static int before(struct op_times *t, enum op_kind kind)
{
    if (!has_stamps(t))
        return 0;
    t->kind[t->n_stamps / 2] = kind;
    return stamp(t);
}

static int after(struct op_times *t, int r)
{
    return r < 0 || t->n_stamps % 2 ? r : stamp(t); /* an odd number: before() had none left */
}

static int matmul_timed(struct kern_ctx *k, struct dev_act *y, int col, int ldy, const struct dev_act *x, int ldx,
                        const struct kern_matrix *w, struct rows n)
{
    int r = before(k->times, OP_MATMUL);
    return r < 0 ? r : after(k->times, k->times->ops->matmul(k, y, col, ldy, x, ldx, w, n));
}

static int matmul_f32_timed(struct kern_ctx *k, struct dev_f32 *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n)
{
    int r = before(k->times, OP_MATMUL);
    return r < 0 ? r : after(k->times, k->times->ops->matmul_f32(k, y, x, w, n));
}

static int matmul_residual_timed(struct kern_ctx *k, struct dev_f32 *x, const struct dev_act *a, int lda, const struct kern_matrix *w,
                                 const struct dev_f32 *gate, struct rows n)
{
    int r = before(k->times, OP_MATMUL);
    return r < 0 ? r : after(k->times, k->times->ops->matmul_residual(k, x, a, lda, w, gate, n));
}

static int matmul_swiglu_timed(struct kern_ctx *k, struct dev_act *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n)
{
    int r = before(k->times, OP_MATMUL);
    return r < 0 ? r : after(k->times, k->times->ops->matmul_swiglu(k, y, x, w, n));
}

static int matmul_accurate_timed(struct kern_ctx *k, struct dev_f32 *y, const struct dev_f32 *x, const struct kern_matrix *w, struct rows n)
{
    int r = before(k->times, OP_MATMUL);
    return r < 0 ? r : after(k->times, k->times->ops->matmul_accurate(k, y, x, w, n));
}

static int matmul_bypass_timed(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                               const struct dev_act *xn, const struct kern_matrix *w, int d, struct rows n)
{
    int r = before(k->times, OP_MATMUL);
    return r < 0 ? r : after(k->times, k->times->ops->matmul_bypass(k, hs, out, qkv, xn, w, d, n));
}

/* Almost all of it is its matmul, which it may reach through the table. */
static int route_mlp_timed(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x,
                           struct rows n)
{
    struct op_times *t = k->times;
    int r = before(t, OP_MATMUL);
    if (r < 0)
        return r;
    k->ops = t->ops;
    r = k->ops->route_mlp(k, to, p, x, n);
    k->ops = &t->timed;
    return after(t, r);
}

static int attention_timed(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                           const struct kern_step *s, int layer, const struct kern_place *p, float scale)
{
    int r = before(k->times, OP_ATTENTION);
    return r < 0 ? r : after(k->times, k->times->ops->attention(k, hs, out, qkv, s, layer, p, scale));
}

void op_times_init(struct op_times *t, struct kern_ctx *k)
{
    memset(t, 0, sizeof(*t));
    t->k = k;
    t->ops = k->ops;
    t->timed = *k->ops;
    t->timed.matmul = matmul_timed;
    t->timed.matmul_f32 = matmul_f32_timed;
    t->timed.matmul_residual = matmul_residual_timed;
    t->timed.matmul_swiglu = matmul_swiglu_timed;
    t->timed.matmul_accurate = matmul_accurate_timed;
    t->timed.matmul_bypass = matmul_bypass_timed;
    t->timed.route_mlp = route_mlp_timed;
    t->timed.attention = attention_timed;
    t->timed.replay = NULL;
}

int op_times_begin(struct op_times *t, double now_s, bool *ret_sampled)
{
    *ret_sampled = t->state == OP_TIMES_IDLE && (!t->any || now_s - t->sampled_s >= OP_TIMES_INTERVAL_S);
    if (!*ret_sampled)
        return 0;
    t->any = true;
    t->sampled_s = now_s;
    t->state = OP_TIMES_SAMPLING;
    t->n_stamps = 0;
    t->k->ops = &t->timed;
    t->k->times = t;
    return stamp(t);
}

int op_times_end(struct op_times *t)
{
    if (t->state != OP_TIMES_SAMPLING)
        return 0;
    t->state = OP_TIMES_PENDING;
    t->k->ops = t->ops;
    return stamp(t);
}

/* Takes in the sample once its last stamp has come. */
static void collect(struct op_times *t)
{
    const struct backend *b = t->k->backend;
    double all = b->stamp_seconds(t->k, 0, t->n_stamps - 1), sum[OP_KINDS] = {0};
    if (all < 0)
        return;
    t->state = OP_TIMES_IDLE;
    if (all == 0)
        return;
    sum[OP_OTHER] = all;
    for (int i = 1; i + 1 < t->n_stamps - 1; i += 2) {
        double s = b->stamp_seconds(t->k, i, i + 1);
        sum[t->kind[i / 2]] += s;
        sum[OP_OTHER] -= s;
    }
    for (int i = 0; i < OP_KINDS; i++)
        t->share[i] = sum[i] > 0 ? sum[i] / all : 0;
}

void op_times_busy(struct op_times *t, double busy_s)
{
    if (t->state == OP_TIMES_PENDING)
        collect(t);
    t->undivided_s += busy_s;
    double shares = t->share[OP_MATMUL] + t->share[OP_ATTENTION] + t->share[OP_OTHER];
    if (shares <= 0)
        return;
    for (int i = 0; i < OP_KINDS; i++)
        t->seconds[i] += t->undivided_s * t->share[i] / shares;
    t->undivided_s = 0;
}
