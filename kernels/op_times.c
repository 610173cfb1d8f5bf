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

/* Around an op of a sampled step. Meanwhile the table is the backend's own, as an op may call others. */
static int before(struct kern_ctx *k, enum op_kind kind)
{
    struct op_times *t = k->times;
    k->ops = t->ops;
    if (!has_stamps(t))
        return 0;
    t->kind[t->n_stamps / 2] = kind;
    return stamp(t);
}

static int after(struct kern_ctx *k, int r)
{
    struct op_times *t = k->times;
    k->ops = &t->timed;
    return r < 0 || t->n_stamps % 2 ? r : stamp(t); /* an odd number: before() had none left */
}

/* The ops of a kind that is told apart, with stamps around; what is OTHER stays as it is. */
#define TIMED(name, kind, args, ...)                           \
    static int name##_timed(__VA_ARGS__)                       \
    {                                                          \
        int r = before(k, kind);                               \
        return after(k, r < 0 ? r : k->times->ops->name args); \
    }
#define TIMED_MATMUL(name, args, ...) TIMED(name, OP_MATMUL, args, __VA_ARGS__)
#define TIMED_ATTENTION(name, args, ...) TIMED(name, OP_ATTENTION, args, __VA_ARGS__)
#define TIMED_OTHER(name, args, ...)
#define OP(name, kind, bits, args, ...) TIMED_##kind(name, args, __VA_ARGS__)
#include "kernels/op_list.h"

static void fill_timed(struct kern_ops *o)
{
#define SET_MATMUL(name) o->name = name##_timed;
#define SET_ATTENTION(name) o->name = name##_timed;
#define SET_OTHER(name)
#define OP(name, kind, bits, args, ...) SET_##kind(name)
#include "kernels/op_list.h"
    o->replay = NULL;
    o->beside = NULL;         /* what runs at the same time has no time of its own */
    o->rope_attention = NULL; /* what is timed are the ops */
    o->route_mlp_place = NULL;
    o->matmul_normed = NULL;
    o->matmul_f32_normed = NULL;
    o->matmul_swiglu_normed = NULL;
    o->matmul_with_bypass = NULL;
    o->matmul_with_bypass_normed = NULL;
    o->matmul_rope_store = NULL;
}

void op_times_init(struct op_times *t, struct kern_ctx *k)
{
    memset(t, 0, sizeof(*t));
    t->k = k;
    t->ops = k->ops;
    t->timed = *k->ops;
    fill_timed(&t->timed);
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
