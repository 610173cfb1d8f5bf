/* route_dtrnet, route_mod, route_dllm. A decision may differ only where the reference's probability is within MARGIN of 0.5. */
#include <math.h>
#include "tests/check/harness.h"

#define MARGIN 2e-6

enum family { DTRNET, MOD, DLLM, FAMILIES };
static const char *const names[FAMILIES] = {"dtrnet", "mod", "dllm"};
enum { FORCED = 2 };

struct arg {
    enum family family;
    int m;
    float *w, *b, *norm;              /* host */
    void *dev_w, *dev_b, *dev_norm;
};

enum { X, POS, ROUTE, GATE, PROB, ARRAYS };

static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    const struct kern_ops *o = c->k->ops;
    if (a->family == DTRNET)
        return o->route_dtrnet(c->k, dev[ROUTE], dev[GATE], dev[PROB], dev[X], a->dev_w, a->dev_b, a->m, rows);
    if (a->family == MOD)
        return o->route_mod(c->k, dev[ROUTE], dev[GATE], dev[PROB], dev[X], a->dev_w, a->dev_b, a->m, rows);
    return o->route_dllm(c->k, dev[ROUTE], dev[PROB], dev[X], a->dev_norm, 1e-5f, a->dev_w, a->dev_b, a->m, dev[POS], FORCED, rows);
}

static double sigmoid(double z) { return 1 / (1 + exp(-z)); }

static void logits(const struct arg *a, const float *x, double z[2])
{
    double square = 0;
    for (int i = 0; i < a->m; i++)
        square += (double)x[i] * x[i];
    for (int j = 0; j < 2; j++) {
        z[j] = a->b[j];
        for (int i = 0; i < a->m; i++) {
            double h = a->family == DLLM ? x[i] / sqrt(square / a->m + 1e-5) * a->norm[i] : x[i];
            z[j] += a->w[j * a->m + i] * (a->family == MOD ? h : h * sigmoid(h));
        }
    }
}

static void want(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    double z[2];
    logits(a, in[X], z);
    double p0 = sigmoid(a->family == MOD ? z[0] : z[0] - z[1]), p = a->family == DLLM ? 1 - p0 : p0;
    bool forced = a->family == DLLM && *(const int *)in[POS] < FORCED, near = fabs(p - 0.5) < MARGIN && !forced;
    bool route = p > 0.5 || forced;
    out[PROB][0] = p;
    out[ROUTE][0] = near ? NAN : route;
    if (a->family == DLLM)
        return;
    out[GATE][0] = a->family == MOD ? sigmoid(z[1]) : near ? NAN : route ? p0 : 1 - p0;
}

static void one(struct check *c, enum family f, int n, int m)
{
    struct arg a = {f, m, check_floats(c, 2 * (size_t)m, -0.3, 0.3), check_floats(c, 2, -0.2, 0.2), check_floats(c, m, 0.5, 1.5)};
    char what[64];
    snprintf(what, sizeof(what), "%s m %d", names[f], m);
    a.dev_w = check_up(c, a.w, sizeof(float) * 2 * m);
    a.dev_b = check_up(c, a.b, sizeof(float) * 2);
    a.dev_norm = check_up(c, a.norm, sizeof(float) * m);
    double tolerance = 1e-6 + 1e-8 * m;
    struct check_array arrays[ARRAYS] = {
        [X] = {.name = "x", .use = CHECK_IN, .type = CHECK_F32, .cols = m, .host = check_floats(c, (size_t)n * m, -4, 4)},
        [POS] = {.name = "pos", .use = CHECK_IN, .type = CHECK_I32, .cols = 1, .host = check_fill(c, CHECK_I32, n, 0, 6)},
        [ROUTE] = {.name = "route", .use = CHECK_OUT, .type = CHECK_U8, .cols = 1, .host = check_fill(c, CHECK_U8, n, 2, 9)},
        [GATE] = {.name = "gate", .use = f == DLLM ? CHECK_IN : CHECK_OUT, .type = CHECK_F32, .cols = 1, .abs = tolerance,
                  .host = check_floats(c, n, 2, 3)},
        [PROB] = {.name = "prob", .use = CHECK_OUT, .type = CHECK_F32, .cols = 1, .abs = tolerance, .host = check_floats(c, n, 2, 3)},
    };
    check_rows(c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = ARRAYS, .n = n, .run = run, .want = want, .arg = &a});
    check_arrays_done(arrays, ARRAYS);
    void *dev[] = {a.dev_w, a.dev_b, a.dev_norm};
    for (int i = 0; i < 3; i++)
        check_drop(c, dev[i]);
    free(a.w);
    free(a.b);
    free(a.norm);
}

void check_route(struct check *c)
{
    static const int widths[] = {1, 7, 8, 32, 48, 192, 255, 257, 480, 512};
    for (int f = 0; f < FAMILIES; f++) {
        if (c->bench) {
            one(c, f, 512, f == MOD ? 960 : 480);
            continue;
        }
        for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
            for (int n = 0; n <= 50; n = n * 4 + 1)
                one(c, f, n, widths[i]);
    }
}
