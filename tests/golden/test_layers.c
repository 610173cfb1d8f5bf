/* A golden model layer by layer: each layer's input, the router's probabilities and gates, and every logit of the stored positions, all in
 * float32 against the published modules.
 *
 *   test_layers MODEL_DIR       device: DTRNET_TEST_DEVICE, else cpu */
#include "engine/tools/trace.h"
#include "tests/check.h"
#include "tests/golden/expected.h"
#include <math.h>
#include <stdlib.h>

#define MAX_TOKENS 512
#define LOGIT_TOLERANCE 2e-4
#define HIDDEN_TOLERANCE 5e-5 /* two correct implementations differ by up to 7e-6, */
#define PROB_TOLERANCE 2e-5   /* and by up to 3e-6 here */

static struct {
    double logit, hidden, prob;
} worst;

static float *fetch(const struct model *m, const struct dev_bytes *device, size_t n)
{
    float *host = malloc(n * sizeof(*host));
    m->k->backend->download(m->k, host, device, n * sizeof(*host));
    m->k->backend->sync(m->k, NULL);
    return host;
}

static void compare(const char *what, int layer, const float *got, const float *want, size_t n, double tolerance, double *ret_worst)
{
    double d = 0;
    for (size_t i = 0; i < n; i++)
        d = fmax(d, fabs((double)got[i] - want[i]));
    if (!CHECK(d <= tolerance))
        fprintf(stderr, "  %s of layer %d: %g\n", what, layer, d);
    *ret_worst = fmax(*ret_worst, d);
}

static void check_device(const struct model *m, const char *what, int layer, const struct dev_bytes *device, const float *want, size_t n,
                         double tolerance, double *ret_worst)
{
    float *got = fetch(m, device, n);
    compare(what, layer, got, want, n, tolerance, ret_worst);
    free(got);
}

static void check_layer(struct trace *t, const struct expected *x, int l, int routed)
{
    const struct model *m = t->m;
    size_t T = (size_t)x->n_tokens, at = (size_t)routed * T;
    if (x->hidden)
        check_device(m, "input", l, DEV_BYTES(t->w.x), x->hidden + (size_t)l * T * m->config.hidden, T * m->config.hidden, HIDDEN_TOLERANCE,
                     &worst.hidden);
    CHECK_INT(forward_layer(m, &t->w, &t->b, &t->kv, l), 0);
    if (!layer_is_routed(&m->plan[l]))
        return;
    check_device(m, "probability", l, DEV_BYTES(dev_f32_at(t->w.prob, (size_t)l * T)), x->prob + at, T, PROB_TOLERANCE, &worst.prob);
    if (x->gate)
        check_device(m, "gate", l, DEV_BYTES(t->w.gate), x->gate + at, T, PROB_TOLERANCE, &worst.prob);
}

static void check_logits(struct trace *t, const struct expected *x)
{
    const struct model *m = t->m;
    size_t v = (size_t)x->vocab, h = (size_t)m->config.hidden;
    for (int first = 0, at = 0; first < x->n_tokens; first += t->w.head_rows) {
        int n = x->n_tokens - first < t->w.head_rows ? x->n_tokens - first : t->w.head_rows;
        CHECK_INT(forward_head(m, &t->w, &t->b, first, n, 1), 0);
        if (x->hidden)
            check_device(m, "final norm", x->n_layers, DEV_BYTES(t->w.want_xn), x->hidden + ((size_t)x->n_layers * x->n_tokens + first) * h,
                         n * h, HIDDEN_TOLERANCE, &worst.hidden);
        float *got = fetch(m, DEV_BYTES(t->w.logits), (size_t)n * v);
        for (; at < x->n_pos && x->pos[at] < first + n; at++)
            compare("logits", x->n_layers, got + (size_t)(x->pos[at] - first) * v, x->logits + (size_t)at * v, v, LOGIT_TOLERANCE,
                    &worst.logit);
        free(got);
    }
}

static void check_prompt(struct trace *t, const struct expected *x)
{
    int routed = 0;
    CHECK_INT(trace_load(t, x->tokens, 1, x->n_tokens, x->n_tokens), 0);
    CHECK_INT(forward_embed(t->m, &t->w, &t->b), 0);
    for (int l = 0; l < x->n_layers; l++) {
        check_layer(t, x, l, routed);
        routed += layer_is_routed(&t->m->plan[l]);
    }
    check_logits(t, x);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: test_layers MODEL_DIR\n");
        return 2;
    }
    const char *device = getenv("DTRNET_TEST_DEVICE");
    const struct model_options o = {
        .dir = argv[1], .dtype = "f32", .n_threads = 2, .max_model_len = MAX_TOKENS, .overrides = {.bos_id = -1, .eos_id = -1}};
    const struct backend *backend;
    char path[512];
    struct model m;
    struct trace t = {0};
    struct safetensors *s = NULL;
    struct err err = {0};
    struct expected x;
    snprintf(path, sizeof(path), "%s/expected.safetensors", argv[1]);
    int r = backend_find(device ? device : "cpu", &backend, &err);
    if (r >= 0)
        r = model_open(&o, backend, &m, &err);
    if (r == ERR_UNSUPPORTED || r == ERR_DEVICE)
        return CHECK_SKIP;
    if (!CHECK_INT(r, 0) || !CHECK_INT(trace_open(&t, &m, MAX_TOKENS, &err), 0) || !CHECK_INT(safetensors_open_file(path, &s, &err), 0)) {
        fprintf(stderr, "  %s\n", err.text);
        return check_result();
    }
    for (int i = 0; expected_read(s, i, &x); i++)
        check_prompt(&t, &x);
    printf("%s: worst difference of logits %.3g, layer inputs %.3g, probabilities %.3g\n", argv[1], worst.logit, worst.hidden, worst.prob);
    trace_close(&t);
    model_close(&m);
    safetensors_close(s);
    return check_result();
}
