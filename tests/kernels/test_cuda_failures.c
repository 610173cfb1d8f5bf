/* Every CUDA call and launch of a small workload fails once, from the first to the last: each time the backend says ERR_DEVICE (or that
 * memory is short), with a sentence, goes on saying so, and closes cleanly. Skipped without a device. */
#include "kernels/backend.h"
#include "tests/kernels/failing_cuda.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 64, N = 40, HEADS = 2, HD = 32 };

struct work {
    const struct backend *b;
    struct kern_ctx *k;
    struct kern_matrix *w, *accurate;
    struct kern_mamba *mamba;
    struct kern_matrix *w_copy, *accurate_copy; /* as another device gets them; here it is the same */
    struct kern_mamba *mamba_copy;
    struct dev_bytes *mem[12];
    int n_mem;
    float *fetched;
};

static struct dev_bytes *room(struct work *w, size_t bytes)
{
    return w->mem[w->n_mem++] = w->b->alloc(w->k, bytes);
}

static int make_matrix(struct work *w, enum matrix_kind kind, struct kern_matrix **ret, struct err *err)
{
    float *values = calloc(D * D, sizeof(float));
    struct matrix_part part = {values, DTYPE_F32, D, NULL, DTYPE_F32};
    int r = w->k->ops->matrix_new(w->k, kind, &part, 1, D, ret, err);
    free(values);
    return r;
}

/* A Mamba router of zeros. */
static int make_mamba(struct work *w, struct err *err)
{
    static const float zeros[2 * D * D];
    const struct kern_tensor t = {zeros, DTYPE_F32};
    const struct mamba_parts p = {.d = D,
                                  .r = 16,
                                  .e = 32,
                                  .n_state = 8,
                                  .n_conv = 4,
                                  .n_dt = 1,
                                  .eps = 1e-5f,
                                  .in_proj = t,
                                  .in_proj_bias = t,
                                  .norm = t,
                                  .mixer_in_proj = t,
                                  .conv1d = t,
                                  .conv1d_bias = t,
                                  .x_proj = t,
                                  .dt_proj = t,
                                  .dt_proj_bias = t,
                                  .a_log = t,
                                  .skip = t,
                                  .mixer_out_proj = t,
                                  .out_proj = t,
                                  .out_proj_bias = t};
    return w->k->ops->mamba_new(w->k, &p, &w->mamba, err);
}

static int copy_weights(struct work *w)
{
    const struct kern_ops *o = w->k->ops;
    int r = o->matrix_copy(w->k, w->k, w->w, &w->w_copy);
    if (r >= 0)
        r = o->matrix_copy(w->k, w->k, w->accurate, &w->accurate_copy);
    return r < 0 ? r : o->mamba_copy(w->k, w->k, w->mamba, &w->mamba_copy);
}

/* UltraDeep's ops: N rows as one run, then as runs of a row each. */
static int run_ultradeep(struct work *w, const struct route_out *to, struct dev_f32 *x, struct dev_act *act, struct err *err)
{
    const struct kern_ops *o = w->k->ops;
    struct kern_run runs[N + 1] = {{.n = N, .state_in = -1, .state_out = 0, .select = 1}};
    int run_of[2 * N] = {0}, r = make_mamba(w, err);
    if (r >= 0 && (r = copy_weights(w)) == ERR_NOMEM)
        err_set(err, r, "no device memory");
    struct dev_bytes *dev_runs = room(w, sizeof(runs)), *dev_run_of = room(w, sizeof(run_of));
    size_t floats = mamba_state_floats(32, 8, 4);
    struct dev_f32 *states = dev_f32_in(room(w, N * floats * sizeof(float)), 0);
    if (r < 0 || !dev_runs || !dev_run_of || !states)
        return r < 0 ? r : err_set(err, ERR_NOMEM, "no device memory");
    for (int i = 0; i < N; i++) {
        runs[i + 1] = (struct kern_run){.row0 = i, .n = 1, .state_in = -1, .state_out = i};
        run_of[N + i] = i;
    }
    struct kern_step step = {.all = {.n_max = N},
                             .run_of = dev_i32_in(dev_run_of, 0),
                             .runs = dev_runs_in(dev_runs, 0),
                             .n_runs = 1,
                             .states = states,
                             .n_routers = 1,
                             .state_floats = (int)floats},
                     single = step;
    single.runs = dev_runs_in(dev_runs, sizeof(*runs));
    single.run_of = dev_i32_in(dev_run_of, N * sizeof(int));
    single.n_runs = N;
    struct dev_i32 *idx = dev_i32_in(dev_run_of, 0); /* read no more by then */
    struct kern_heads hs = {.h = 1, .hk = 1, .hd = 16};
    if ((r = w->b->upload(w->k, dev_runs, runs, sizeof(runs))) < 0 || (r = w->b->upload(w->k, dev_run_of, run_of, sizeof(run_of))) < 0 ||
        (r = o->route_mamba(w->k, to, NULL, w->mamba, x, &step, 0, step.all)) < 0 ||
        (r = o->route_mamba(w->k, to, NULL, w->mamba, x, &single, 0, step.all)) < 0 ||
        (r = o->select_top(w->k, to, to->prob, 0, 0.5, &step)) < 0 ||
        (r = o->list_rows(w->k, idx, dev_i32_at(idx, N), to->route, 1, step.all)) < 0 ||
        (r = o->cast_rows(w->k, act, x, step.all, D)) < 0 || (r = o->head_norm(w->k, act, 0, D, 2, 16, 16, x, step.all, 1e-5f)) < 0)
        return r;
    return o->spread_values(w->k, &hs, dev_act_in(DEV_BYTES(x), 0), act, step.all);
}

/* Ops that are issued, recorded and replayed, of which some run beside others. */
struct recorded {
    struct work *w;
    struct dev_f32 *x, *y, *norm;
    struct dev_act *act;
    struct rows all;
};

static int product(void *arg)
{
    const struct recorded *a = arg;
    return a->w->k->ops->matmul_accurate(a->w->k, a->y, a->x, a->w->accurate, a->all);
}

static int norm_rows(void *arg)
{
    const struct recorded *a = arg;
    return a->w->k->ops->rmsnorm(a->w->k, a->act, NULL, a->x, a->norm, a->all, D, 1e-5f);
}

static int issue(void *arg)
{
    const struct recorded *a = arg;
    struct kern_ctx *k = a->w->k;
    int r = k->ops->beside(k, product, norm_rows, arg);
    return r < 0 ? r : k->ops->matmul_residual(k, a->x, a->act, D, a->w->w, NULL, a->all);
}

static int replay(struct recorded *a)
{
    int r = 0;
    for (int i = 0; i < 3 && r >= 0; i++)
        r = a->w->k->ops->replay(a->w->k, "beside", 6, issue, a);
    return r;
}

/* Weights, uploads, every kind of launch, a fetch and a download. */
static int run(struct work *w, struct err *err)
{
    const struct rows all = {.n_max = N};
    float host[N * D] = {0}, back[N * D];
    int r = make_matrix(w, MATRIX_EMBED, &w->w, err);
    if (r >= 0)
        r = make_matrix(w, MATRIX_ACCURATE, &w->accurate, err);
    struct dev_f32 *x = dev_f32_in(room(w, sizeof(host)), 0), *norm = dev_f32_in(room(w, sizeof(host)), 0),
                   *y = dev_f32_in(room(w, sizeof(host)), 0);
    struct dev_i32 *ids = dev_i32_in(room(w, N * sizeof(int)), 0);
    struct dev_act *act = dev_act_in(room(w, sizeof(host)), 0);
    struct dev_u8 *decisions = dev_u8_in(DEV_BYTES(act), 0);
    w->fetched = w->b->alloc_host(w->k, sizeof(host));
    if (r < 0 || !x || !norm || !y || !ids || !act || !w->fetched)
        return r < 0 ? r : err_set(err, ERR_NOMEM, "no device memory");
    const struct kern_ops *o = w->k->ops;
    const struct route_out to = {decisions, y, dev_f32_at(y, N), DECISION_LINEAR, DECISION_ATTEND};
    const struct route_mlp mlp = {w->accurate, norm, norm, D, y};
    struct recorded recorded = {w, x, y, norm, act, all};
    if ((r = w->b->upload(w->k, DEV_BYTES(norm), host, sizeof(host))) < 0 ||
        (r = w->b->upload(w->k, DEV_BYTES(ids), host, N * sizeof(int))) < 0 || (r = o->embed(w->k, x, w->w, ids, NULL, all)) < 0 ||
        (r = o->rmsnorm(w->k, act, NULL, x, norm, all, D, 1e-5f)) < 0 || (r = o->matmul_f32(w->k, y, act, w->w, all)) < 0 ||
        (r = o->matmul_residual(w->k, x, act, D, w->w, NULL, all)) < 0 || (r = o->matmul_accurate(w->k, y, x, w->accurate, all)) < 0 ||
        (r = o->route_mlp(w->k, &to, &mlp, x, all)) < 0 || (r = o->gather_rows(w->k, y, x, D, all)) < 0 || (r = replay(&recorded)) < 0 ||
        (r = run_ultradeep(w, &to, x, act, err)) < 0 || (r = w->b->fetch(w->k, w->fetched, DEV_BYTES(y), sizeof(host))) < 0 ||
        (r = w->b->mark(w->k, 1)) < 0 || (r = w->b->wait(w->k, 1, err)) < 0 ||
        (r = w->b->download(w->k, back, DEV_BYTES(y), sizeof(back))) < 0)
        return w->b->sync(w->k, err) < 0 ? r : err_set(err, ERR_INTERNAL, "an op failed, but sync did not");
    return w->b->sync(w->k, err);
}

static int attempt(const struct backend *b, const char *level, struct err *err)
{
    struct backend_config c = {.dtype = DTYPE_BF16, .n_threads = 1, .cuda_level = level};
    struct work w = {.b = b};
    int r = b->open(&c, &w.k, err);
    if (r < 0)
        return r;
    r = run(&w, err);
    struct err again = {0};
    if (r == ERR_DEVICE && b->sync(w.k, &again) != ERR_DEVICE)
        r = err_set(err, ERR_INTERNAL, "a failed device works again");
    failing_cuda_at(0);
    w.k->ops->matrix_free(w.k, w.w);
    w.k->ops->matrix_free(w.k, w.accurate);
    w.k->ops->mamba_free(w.k, w.mamba);
    w.k->ops->matrix_free(w.k, w.w_copy);
    w.k->ops->matrix_free(w.k, w.accurate_copy);
    w.k->ops->mamba_free(w.k, w.mamba_copy);
    for (int i = 0; i < w.n_mem; i++)
        b->free(w.k, w.mem[i]);
    b->free_host(w.k, w.fetched);
    b->close(w.k);
    return r;
}

/* Returns what went badly. */
static int fail_each_call(const struct backend *b, const char *level)
{
    struct err err = {0};
    failing_cuda_at(0);
    int r = attempt(b, level, &err), calls = 0, failures = 0;
    if (r < 0)
        return fprintf(stderr, "without a failure: %s\n", err.text), 1;
    for (int n = 1; r != 0 || n == 1; n++) {
        err = (struct err){0};
        failing_cuda_at(n);
        r = attempt(b, level, &err);
        if (r == 0)
            break;
        calls = n;
        if ((r != ERR_DEVICE && r != ERR_NOMEM) || !err.text[0]) {
            fprintf(stderr, "call %d failed: %s \"%s\"\n", n, err_name(r), err.text);
            failures++;
        }
    }
    failing_cuda_at(0);
    printf("%s: %d calls failed one by one, %d badly\n", level ? level : "highest level", calls, failures);
    return failures + (calls < 20);
}

/* A device that is too old is told apart, and `auto` passes it over. */
static int check_old_device(void)
{
    const struct backend *b = NULL;
    struct err err = {0};
    failing_cuda_capability(75);
    int r = backend_find("cuda", &b, &err), failures = 0;
    if (r != ERR_DEVICE || !strstr(err.text, "capability 7.5")) {
        fprintf(stderr, "an old device: %s \"%s\"\n", err_name(r), err.text);
        failures++;
    }
    if (backend_find("auto", &b, &err) < 0 || strcmp(b->name, "cpu")) {
        fprintf(stderr, "auto does not pass over an old device\n");
        failures++;
    }
    failing_cuda_capability(0);
    return failures;
}

int main(void)
{
    const struct backend *b;
    struct err err = {0};
    if (backend_find("cuda", &b, &err) < 0) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    return (fail_each_call(b, NULL) + fail_each_call(b, "mma") + fail_each_call(b, "simt") + check_old_device()) != 0;
}
