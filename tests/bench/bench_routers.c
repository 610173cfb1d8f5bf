/* What a Mamba router costs beside the MLP router, on the same rows of x, in one run.
 *
 *   bench_routers [BACKEND [DTYPE [THREADS [LEVEL]]]]     cpu or cuda; f32, bf16 or f16; threads of the CPU; highest level, default: the machine's
 *
 * One line a case: width, rows, runs, microseconds of both (the best of several turns, which alternate), and the ratio. Decoding: runs of one row. */
#include "common/thread.h"
#include "kernels/backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { R = 64, E = 128, N_STATE = 16, N_CONV = 4, N_DT = 4, ROUNDS = 5 };

static struct kern_ctx *k;
static const struct backend *b;

static void must(int code, const char *what)
{
    struct err err = {0};
    if (code >= 0 && b->sync(k, &err) >= 0)
        return;
    fprintf(stderr, "%s failed: %s\n", what, code < 0 ? err_name(code) : err.text);
    exit(1);
}

static struct dev_bytes *upload(const void *host, size_t bytes)
{
    struct dev_bytes *p = b->alloc(k, bytes);
    must(p ? 0 : ERR_NOMEM, "alloc");
    must(b->upload(k, p, host, bytes), "upload");
    return p;
}

/* Even in [-size, size], stored as bf16. */
static struct kern_tensor tensor(size_t n, double size)
{
    uint16_t *v = malloc(n * sizeof(*v));
    for (size_t i = 0; i < n; i++)
        v[i] = f32_to_bf16((float)(size * (rand() % 2001 - 1000) / 1000));
    return (struct kern_tensor){v, DTYPE_BF16};
}

static struct dev_f32 *floats(size_t n, double size)
{
    float *host = malloc(n * sizeof(*host));
    for (size_t i = 0; i < n; i++)
        host[i] = (float)(size * (rand() % 2001 - 1000) / 1000);
    struct dev_f32 *dev = dev_f32_in(upload(host, n * sizeof(*host)), 0);
    free(host);
    return dev;
}

struct routers {
    int d;
    struct kern_matrix *w1;
    struct dev_f32 *w2, *b2;
    struct kern_mamba *mamba;
};

static void make_routers(struct routers *r, int d)
{
    struct err err = {0};
    struct kern_tensor w1 = tensor((size_t)d / 2 * (size_t)d, 0.05), b1 = tensor((size_t)d / 2, 0.1);
    struct matrix_part part = {w1.data, w1.type, d / 2, b1.data, b1.type};
    struct mamba_parts m = {.d = d, .r = R, .e = E, .n_state = N_STATE, .n_conv = N_CONV, .n_dt = N_DT, .eps = 1e-5f};
    m.in_proj = tensor((size_t)R * (size_t)d, 0.05);
    m.in_proj_bias = m.norm = m.out_proj_bias = tensor(R, 1);
    m.mixer_in_proj = m.mixer_out_proj = m.out_proj = tensor(2 * E * R, 0.1);
    m.conv1d = m.conv1d_bias = tensor(E * N_CONV, 0.5);
    m.x_proj = tensor((N_DT + 2 * N_STATE) * E, 0.1);
    m.dt_proj = m.dt_proj_bias = m.skip = tensor(E * N_DT, 1);
    m.a_log = tensor(E * N_STATE, 2);
    r->d = d;
    must(k->ops->matrix_new(k, MATRIX_ACCURATE, &part, 1, d, &r->w1, &err), "matrix_new");
    must(k->ops->mamba_new(k, &m, &r->mamba, &err), "mamba_new");
    r->w2 = floats((size_t)d, 0.1);
    r->b2 = floats(2, 0.1);
    const struct kern_tensor *all[] = {&w1, &b1, &m.in_proj, &m.norm, &m.mixer_in_proj, &m.conv1d, &m.x_proj, &m.dt_proj, &m.a_log};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free((void *)all[i]->data);
}

struct job {
    const struct routers *w;
    int n, n_runs;
    struct dev_f32 *x, *hid;
    struct route_out out;
    struct kern_step step;
    bool mamba;
};

/* n rows in runs of `length`; the states of run i are in slot i, and go on. */
static void make_step(struct job *j, int length)
{
    size_t n = (size_t)j->n, floats_a_state = mamba_state_floats(E, N_STATE, N_CONV);
    int *pos = malloc(n * sizeof(*pos)), *run_of = malloc(n * sizeof(*run_of));
    j->n_runs = (j->n + length - 1) / length;
    struct kern_run *runs = calloc((size_t)j->n_runs, sizeof(*runs));
    for (int i = 0; i < j->n; i++) {
        pos[i] = i % length;
        run_of[i] = i / length;
    }
    for (int i = 0; i < j->n_runs; i++)
        runs[i] = (struct kern_run){
            .row0 = i * length, .n = j->n - i * length < length ? j->n - i * length : length, .append = 1, .state_in = i, .state_out = i};
    j->step = (struct kern_step){.all = {.n_max = j->n},
                                 .pos = dev_i32_in(upload(pos, n * sizeof(*pos)), 0),
                                 .run_of = dev_i32_in(upload(run_of, n * sizeof(*run_of)), 0),
                                 .runs = dev_runs_in(upload(runs, (size_t)j->n_runs * sizeof(*runs)), 0),
                                 .n_runs = j->n_runs,
                                 .states = floats((size_t)j->n_runs * floats_a_state, 1),
                                 .n_routers = 1,
                                 .state_floats = (int)floats_a_state};
    free(pos);
    free(run_of);
    free(runs);
}

static void make_job(struct job *j, const struct routers *w, int n, int length)
{
    *j = (struct job){.w = w, .n = n};
    make_step(j, length);
    j->x = floats((size_t)n * (size_t)w->d, 2);
    j->hid = floats((size_t)n * (size_t)w->d / 2, 0);
    j->out = (struct route_out){.route = dev_u8_in(b->alloc(k, (size_t)n), 0),
                                .gate = floats((size_t)n, 0),
                                .prob = floats((size_t)n, 0),
                                .below = DECISION_LINEAR,
                                .above = DECISION_ATTEND};
    must(j->out.route ? 0 : ERR_NOMEM, "alloc");
}

static void free_job(struct job *j)
{
    struct dev_bytes *all[] = {DEV_BYTES(j->step.pos),    DEV_BYTES(j->step.run_of), DEV_BYTES(j->step.runs),
                               DEV_BYTES(j->step.states), DEV_BYTES(j->x),           DEV_BYTES(j->hid),
                               DEV_BYTES(j->out.route),   DEV_BYTES(j->out.gate),    DEV_BYTES(j->out.prob)};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        b->free(k, all[i]);
}

static int issue(void *arg)
{
    const struct job *j = arg;
    const struct route_mlp mlp = {j->w->w1, j->w->w2, j->w->b2, j->w->d / 2, j->hid};
    if (j->mamba)
        return k->ops->route_mamba(k, &j->out, NULL, j->w->mamba, j->x, &j->step, 0, j->step.all);
    return k->ops->route_mlp(k, &j->out, &mlp, j->x, j->step.all);
}

/* As an engine issues a step: those of some layers in one recording, where the backend has recordings. */
static int layers_of(const struct job *j)
{
    return j->n > 256 ? 2 : 16;
}
static int issue_step(void *arg)
{
    int r = 0;
    for (int i = 0; i < layers_of(arg) && r >= 0; i++)
        r = issue(arg);
    return r;
}

static double seconds(struct job *j, bool mamba)
{
    static int key;
    struct timespec from, to;
    int steps = 1 + 2048 / (j->n + 64);
    j->mamba = mamba;
    key++;
    for (int i = -2; i < steps; i++) {
        if (i == 0) {
            must(0, "sync");
            clock_gettime(CLOCK_MONOTONIC, &from);
        }
        must(k->ops->replay ? k->ops->replay(k, &key, sizeof(key), issue_step, j) : issue_step(j), "route");
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return ((double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec)) / steps / layers_of(j);
}

static void bench(const struct routers *w, int n, int length)
{
    struct job j;
    double best[2] = {1e9, 1e9};
    make_job(&j, w, n, length);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        double s = seconds(&j, i % 2);
        best[i % 2] = s < best[i % 2] ? s : best[i % 2];
    }
    printf("width %5d  %6d rows in %4d runs  mlp %9.1f us  mamba %9.1f us  ratio %.2f\n", w->d, n, j.n_runs, best[0] * 1e6, best[1] * 1e6,
           best[1] / best[0]);
    fflush(stdout);
    free_job(&j);
}

static int open_backend(int argc, char **argv)
{
    static const char *const names[] = {"f32", "bf16", "f16"};
    struct backend_config c = {.dtype = DTYPE_F32, .n_threads = argc > 3 ? atoi(argv[3]) : thread_usable_count()};
    struct err err;
    for (int i = 0; argc > 2 && i < 3; i++)
        if (!strcmp(argv[2], names[i]))
            c.dtype = (enum dtype)i;
    c.cpu_level = c.cuda_level = argc > 4 ? argv[4] : NULL;
    if (backend_find(argc > 1 ? argv[1] : "cpu", &b, &err) < 0 || b->open(&c, &k, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 77;
    }
    printf("%s, %d threads\n", b->numerics_class(k), c.n_threads);
    return 0;
}

int main(int argc, char **argv)
{
    static const int widths[] = {960, 2048};
    bool cuda = argc > 1 && !strcmp(argv[1], "cuda");
    int r = open_backend(argc, argv);
    for (size_t i = 0; r == 0 && i < sizeof(widths) / sizeof(*widths); i++) {
        struct routers w;
        make_routers(&w, widths[i]);
        for (int n = 1; n <= 64; n *= 8)
            bench(&w, n, 1);
        bench(&w, 512, 512);
        bench(&w, 2048, 2048);
        bench(&w, 2048, 256);
        if (cuda) {
            bench(&w, 16384, 2048);
            bench(&w, 16384, 256);
            bench(&w, 16384, 16384);
        }
        k->ops->matrix_free(k, w.w1);
        k->ops->mamba_free(k, w.mamba);
        b->free(k, DEV_BYTES(w.w2));
        b->free(k, DEV_BYTES(w.b2));
    }
    if (r == 0)
        b->close(k);
    return r;
}
