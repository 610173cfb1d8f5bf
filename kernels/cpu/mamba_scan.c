/* The Mamba router's recurrence: S = 2^(D rate) S + D c B, y = sum_i S C, row by row. A task takes MAMBA_GROUP channels of one run's rows in the
 * block, and all of their states or one of MAMBA_PARTS parts, as vectors over channels: a part's sum over i is one chain in ascending order. */
#include "kernels/cpu/mamba.h"
#include "kernels/cpu/ops.h"

typedef int32_t native_int __attribute__((vector_size(VECTOR_BYTES)));
enum { WIDTH = VECTOR_BYTES / 4 };

struct scan {
    const struct mamba_block *b;
    const struct kern_run *run;
    int e0, lanes;                             /* channels e0 .. e0+lanes-1 */
    int part, i0, i1;                          /* states i0 .. i1-1 */
    float state[MAMBA_STATE_MAX][MAMBA_GROUP]; /* beyond `lanes` zeros */
};

/* portable_decay (portable.h) of each, with its bits. Written in vectors: of a loop over it clang makes scalar code at AVX-512. */
static inline native_vector decay(native_vector x)
{
    const float shift = 0x1.8p23f; /* adding it rounds to an integer, kept in the low bits of the significand */
    for (int i = 0; i < WIDTH; i++)
        x[i] = x[i] > -126.0f ? x[i] : -126.0f;
    native_vector t = x + shift, f = x - (t - shift), p = f * 0x1.41d334p-13f + 0x1.5f456ap-10f;
    p = p * f + 0x1.3b2dbcp-7f;
    p = p * f + 0x1.c6aed4p-5f;
    p = p * f + 0x1.ebfbdap-3f;
    p = p * f + 0x1.62e430p-1f;
    p = p * f + 1.0f;
    return (native_vector)((native_int)p + ((native_int)t << 23));
}

/* Rows begin .. end-1 of the block, for the channels of one native vector at `lane` of the group. */
static inline void scan_vector(struct scan *a, int lane, int begin, int end)
{
    const struct mamba_block *b = a->b;
    int ep = b->w->ep, n_state = b->w->v.n_state, x_cols = b->w->v.x_cols;
    const float *rate = b->w->rate + a->e0 + lane;
    for (int t = begin; t < end; t++) {
        const float *of_b = b->x + (size_t)t * x_cols + b->w->v.n_dt, *of_c = of_b + n_state;
        native_vector delta, input, y = {0};
        memcpy(&delta, b->delta + (size_t)t * ep + a->e0 + lane, VECTOR_BYTES);
        memcpy(&input, b->input + (size_t)t * ep + a->e0 + lane, VECTOR_BYTES);
        for (int i = a->i0; i < a->i1; i++) {
            native_vector s, r;
            memcpy(&s, &a->state[i][lane], VECTOR_BYTES);
            memcpy(&r, rate + (size_t)i * ep, VECTOR_BYTES);
            s = decay(delta * r) * s + input * of_b[i];
            y += s * of_c[i];
            memcpy(&a->state[i][lane], &s, VECTOR_BYTES);
        }
        memcpy(b->y[a->part] + (size_t)t * ep + a->e0 + lane, &y, VECTOR_BYTES);
    }
}

/* from: [e, n_state], or NULL for zeros. */
static void load_state(struct scan *a, const float *from)
{
    int n_state = a->b->w->v.n_state;
    memset(a->state, 0, sizeof(*a->state) * n_state);
    for (int l = 0; from && l < a->lanes; l++)
        for (int i = a->i0; i < a->i1; i++)
            a->state[i][l] = from[(size_t)(a->e0 + l) * n_state + i];
}

static void store_state(const struct scan *a, float *to)
{
    int n_state = a->b->w->v.n_state;
    for (int l = 0; l < a->lanes; l++)
        for (int i = a->i0; i < a->i1; i++)
            to[(size_t)(a->e0 + l) * n_state + i] = a->state[i][l];
}

/* Row i of the block is the last that the slot's state knows. The slot may be the one that the run began with: entries are read before they are
 * written, as they move to the front. */
static void store_slot(const struct scan *a, int slot, int i)
{
    const struct mamba_block *b = a->b;
    const float *tail = mamba_state(b, a->run->state_in);
    float *to = mamba_state(b, slot);
    int e = b->w->v.e, last = b->w->v.n_conv - 2, pos = b->row0 + i - a->run->row0;
    for (int j = 0; j <= last && a->part == 0; j++)
        memcpy(to + (size_t)j * e + a->e0, mamba_a(b, tail, i, pos, last - j) + a->e0, sizeof(float) * a->lanes);
    store_state(a, to + (size_t)(last + 1) * e);
}

/* Rows begin .. end-1 of the block, with the copies that are saved on the way. */
static void scan_rows(struct scan *a, int begin, int end)
{
    const struct mamba_block *b = a->b;
    const struct kern_save *save = b->saves + a->run->save0, *last = save + a->run->n_save;
    while (save < last && save->row < b->row0 + begin)
        save++;
    while (begin < end) {
        bool stop = save < last && save->row < b->row0 + end;
        int until = stop ? save->row - b->row0 + 1 : end;
        for (int lane = 0; lane < a->lanes; lane += WIDTH)
            scan_vector(a, lane, begin, until);
        begin = until;
        for (; stop && save < last && save->row == b->row0 + begin - 1; save++)
            store_slot(a, save->slot, begin - 1);
    }
}

static void run_part(struct scan *a, int part)
{
    const struct mamba_block *b = a->b;
    int begin = a->run->row0 - b->row0, end = begin + a->run->n, n_state = b->w->v.n_state;
    const float *slot = mamba_state(b, a->run->state_in);
    a->part = part;
    a->i0 = part * n_state / MAMBA_PARTS;
    a->i1 = (part + 1) * n_state / MAMBA_PARTS;
    load_state(a, begin < 0 ? b->carry : slot ? slot + (size_t)(b->w->v.n_conv - 1) * b->w->v.e : NULL);
    scan_rows(a, begin < 0 ? 0 : begin, min_int(end, b->n));
    if (end > b->n)
        store_state(a, b->carry);
    else if (a->run->state_out >= 0)
        store_slot(a, a->run->state_out, end - 1);
}

static void run_task(void *arg, int task, int thread)
{
    const struct mamba_block *b = arg;
    int parts = MAMBA_PARTS / b->parts_a_task, group = task / parts, groups = b->w->ep / MAMBA_GROUP, e0 = group % groups * MAMBA_GROUP;
    struct scan a = {.b = b, .run = &b->runs[b->run0 + group / groups], .e0 = e0, .lanes = min_int(MAMBA_GROUP, b->w->v.e - e0)};
    for (int i = 0; i < b->parts_a_task; i++)
        run_part(&a, task % parts * b->parts_a_task + i);
}

/* Parts are tasks of their own where threads would go without, and rows are enough to be worth it. */
void CPU_NAME(mamba_scan)(struct mamba_block *b)
{
    int runs = b->run_of[b->row0 + b->n - 1] - b->run0 + 1, tasks = runs * (b->w->ep / MAMBA_GROUP);
    bool divide = b->n / runs >= 16 && tasks < 4 * cpu_of(b->k)->n_threads;
    b->parts_a_task = divide ? 1 : MAMBA_PARTS;
    parallel_for(cpu_of(b->k)->pool, divide ? tasks * MAMBA_PARTS : tasks, run_task, b);
}
