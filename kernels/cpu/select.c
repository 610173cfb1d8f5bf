/* Expert choice and lists of executed rows.
 *
 * select_top finds the smallest margin that is taken by radix: margins become integers of the same order, whose bytes are fixed one
 * after another, from the highest, by counting. Four passes, no memory, one task a run. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/route.h"
#include "kernels/expert_count.h"

struct selection {
    struct decisions to;
    const float *margin;
    int least;
    double capacity;
    const struct kern_run *runs;
};

/* What is still to be taken once the bits above `shift` are those of `prefix`. */
struct radix {
    uint32_t prefix, mask;
    int left;
};

static void fix_byte(const struct selection *a, const struct kern_run *run, int shift, struct radix *x)
{
    int count[256] = {0}, byte = 255;
    for (int r = run->row0; r < run->row0 + run->n; r++) {
        uint32_t key = margin_key(a->margin[r]);
        count[key >> shift & 255] += a->to.route[r] >= a->least && (key & x->mask) == x->prefix;
    }
    for (; byte > 0 && count[byte] < x->left; byte--)
        x->left -= count[byte];
    x->prefix |= (uint32_t)byte << shift;
    x->mask |= 255u << shift;
}

static void select_run(void *arg, int i, int thread)
{
    const struct selection *a = arg;
    const struct kern_run *run = &a->runs[i];
    int eligible = 0, end = run->row0 + run->n;
    for (int r = run->row0; r < end; r++)
        eligible += a->to.route[r] >= a->least;
    struct radix x = {.left = expert_count(a->capacity, eligible)};
    if (!run->select || !eligible)
        return;
    for (int shift = 24; shift >= 0; shift -= 8)
        fix_byte(a, run, shift, &x);
    for (int r = run->row0; r < end; r++) {
        if (a->to.route[r] < a->least)
            continue;
        uint32_t key = margin_key(a->margin[r]);
        bool above = key > x.prefix || (key == x.prefix && x.left-- > 0);
        a->to.route[r] = a->to.code[above];
        if (a->to.gate)
            a->to.gate[r] = portable_sigmoid(above ? a->margin[r] : -a->margin[r]);
    }
}

static int select_top_c(struct kern_ctx *k, const struct route_out *to, const struct dev_f32 *margin, int least, double capacity,
                        const struct kern_step *s)
{
    struct selection a = {decisions_of(to), f32_of(margin), least, capacity, runs_of(s->runs)};
    parallel_for(cpu_of(k)->pool, s->n_runs, select_run, &a);
    return 0;
}

static int list_rows_c(struct kern_ctx *k, struct dev_i32 *idx, struct dev_i32 *n_dev, const struct dev_u8 *route, int least,
                       struct rows all)
{
    int n = rows_count(all), m = 0;
    for (int r = 0; r < n; r++)
        if (u8_of(route)[r] >= least)
            i32_of(idx)[m++] = r;
    *i32_of(n_dev) = m;
    return 0;
}

void select_init(struct kern_ops *o)
{
    o->select_top = select_top_c;
    o->list_rows = list_rows_c;
}
