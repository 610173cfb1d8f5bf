/* A golden model layer by layer: each layer's input, the routers' decisions, probabilities and gates, the states that they leave, and every
 * logit of the stored positions, all in float32; then the continuation with its prompt as one sequence.
 *
 *   test_layers MODEL_DIR [exact|threshold]       device: DTRNET_TEST_DEVICE, else cpu; expert choice by rank or by thresholds */
#include "engine/tools/trace.h"
#include "tests/check.h"
#include "tests/golden/expected.h"
#include <math.h>
#include <stdlib.h>

#define MAX_TOKENS 512
#define LOGIT_TOLERANCE 2e-4
#define HIDDEN_TOLERANCE 5e-5 /* two correct implementations differ by up to 7e-6, */
#define PROB_TOLERANCE 2e-5   /* and by up to 3e-6 here */
#define STATE_TOLERANCE 1e-4  /* absolute, and as much relative */

static struct {
    double logit, hidden, prob, state;
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

/* Decisions of layer l at rows from .. from+n-1 of the step. route, exec: of these rows; exec NULL: all are executed. */
static void check_decisions(struct trace *t, int l, int from, int n, const uint8_t *route, const uint8_t *exec)
{
    const struct model *m = t->m;
    unsigned char *got = malloc((size_t)n);
    int wrong = 0;
    bool can_skip = layer_can_skip(&m->plan[l]);
    m->k->backend->download(m->k, got, DEV_BYTES(dev_u8_at(t->w.route, (size_t)l * (size_t)t->b.n_rows + (size_t)from)), (size_t)n);
    m->k->backend->sync(m->k, NULL);
    for (int i = 0; i < n; i++) {
        bool executed = exec ? exec[i] : route[i] || !can_skip;
        wrong += got[i] != (route[i] ? DECISION_ATTEND : executed ? DECISION_LINEAR : DECISION_SKIP);
    }
    if (!CHECK_INT(wrong, 0))
        fprintf(stderr, "  decisions of layer %d, rows from %d on of %d\n", l, from, t->b.n_rows);
    free(got);
}

/* Probabilities where they are compared; elsewhere the buffer holds anything. */
static void check_probabilities(struct trace *t, const struct expected *x, int l, int routed, int nested)
{
    size_t n = (size_t)x->n_tokens;
    float *got = fetch(t->m, DEV_BYTES(dev_f32_at(t->w.prob, (size_t)l * n)), n);
    bool is_nested = t->m->plan[l].skip_router != ROUTER_NONE;
    for (size_t i = 0; i < n && is_nested; i++)
        if (!x->exec[(size_t)nested * n + i])
            got[i] = 0;
    compare("probability", l, got, x->prob + (size_t)routed * n, n, PROB_TOLERANCE, &worst.prob);
    if (is_nested)
        check_device(t->m, "probability of execution", l, DEV_BYTES(dev_f32_at(t->w.skip_prob, (size_t)l * n)),
                     x->exec_prob + (size_t)nested * n, n, PROB_TOLERANCE, &worst.prob);
    if (x->gate)
        check_device(t->m, "gate", l, DEV_BYTES(t->w.gate), x->gate + (size_t)routed * n, n, PROB_TOLERANCE, &worst.prob);
    free(got);
}

static void check_kv_len(struct trace *t, const struct expected *x, int l)
{
    int n = x->n_tokens;
    if (t->m->plan[l].kv == KV_ATTENDING) {
        t->m->k->backend->download(t->m->k, &n, DEV_BYTES(t->w.place.sel_n), sizeof(n));
        t->m->k->backend->sync(t->m->k, NULL);
    }
    if (!CHECK_INT(n, x->kv_len[l]))
        fprintf(stderr, "  rows of K and V in layer %d\n", l);
}

static void check_layer(struct trace *t, const struct expected *x, int l, int routed, int nested)
{
    const struct model *m = t->m;
    size_t T = (size_t)x->n_tokens;
    if (x->hidden)
        check_device(m, "input", l, DEV_BYTES(t->w.x), x->hidden + (size_t)l * T * m->config.hidden, T * m->config.hidden, HIDDEN_TOLERANCE,
                     &worst.hidden);
    CHECK_INT(forward_layer(m, &t->w, &t->b, &t->kv, l), 0);
    check_kv_len(t, x, l);
    if (!layer_is_routed(&m->plan[l]))
        return;
    bool is_nested = m->plan[l].skip_router != ROUTER_NONE;
    check_decisions(t, l, 0, x->n_tokens, x->route + (size_t)routed * T, is_nested ? x->exec + (size_t)nested * T : NULL);
    check_probabilities(t, x, l, routed, nested);
}

static void check_states(struct trace *t, const struct expected *x)
{
    size_t conv = (size_t)x->conv_floats, each = conv + (size_t)x->ssm_floats, n = (size_t)x->n_states * each;
    CHECK_INT(x->n_states, t->m->weights.n_states);
    CHECK_INT(each, model_config_state_floats(&t->m->config));
    float *got = fetch(t->m, DEV_BYTES(t->kv.states), n);
    for (size_t i = 0; i < n; i++) {
        size_t router = i / each, at = i % each;
        double want = at < conv ? x->conv_state[router * conv + at] : x->ssm_state[router * (each - conv) + at - conv];
        double d = fabs(got[i] - want) - STATE_TOLERANCE * fabs(want);
        if (!CHECK(d <= STATE_TOLERANCE))
            fprintf(stderr, "  state of router %zu, value %zu: %g, not %g\n", router, at, (double)got[i], want);
        worst.state = fmax(worst.state, d);
    }
    free(got);
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
    int routed = 0, nested = 0;
    CHECK_INT(trace_load(t, x->tokens, 1, x->n_tokens, x->n_tokens), 0);
    CHECK_INT(forward_embed(t->m, &t->w, &t->b), 0);
    for (int l = 0; l < x->n_layers; l++) {
        check_layer(t, x, l, routed, nested);
        routed += layer_is_routed(&t->m->plan[l]);
        nested += t->m->plan[l].skip_router != ROUTER_NONE;
    }
    check_logits(t, x);
    if (x->conv_state)
        check_states(t, x);
}

/* Prompt and continuation in one pass give what feeding the tokens one by one gives, unless the pass itself decides. */
static void check_continuation(struct trace *t, const struct expected *x)
{
    const struct model *m = t->m;
    int32_t ids[MAX_TOKENS];
    int T = x->n_tokens, n = x->n_gen - 1, routed = 0, nested = 0;
    memcpy(ids, x->tokens, (size_t)T * sizeof(*ids));
    memcpy(ids + T, x->gen_tokens, (size_t)n * sizeof(*ids));
    CHECK_INT(trace_load(t, ids, 1, T + n, n + 1), 0);
    CHECK_INT(forward_layers(m, &t->w, &t->b, &t->kv), 0);
    CHECK_INT(forward_head(m, &t->w, &t->b, 0, n + 1, 1), 0);
    for (int l = 0; l < x->n_layers; l++) {
        bool is_nested = m->plan[l].skip_router != ROUTER_NONE;
        if (layer_is_routed(&m->plan[l]))
            check_decisions(t, l, T, n, x->gen_route + routed++ * n, is_nested ? x->gen_exec + nested++ * n : NULL);
    }
    check_device(m, "logits of the continuation", x->n_layers, DEV_BYTES(t->w.logits), x->gen_logits, (size_t)(n + 1) * x->vocab,
                 LOGIT_TOLERANCE, &worst.logit);
}

static bool by_rank(const struct model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        if (m->plan[l].decide == DECIDE_TOP)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: test_layers MODEL_DIR [exact|threshold]\n");
        return 2;
    }
    const char *device = getenv("DTRNET_TEST_DEVICE"), *expert_choice = argc > 2 ? argv[2] : NULL;
    const char *mode = expert_choice && !strcmp(expert_choice, "threshold") ? "thr_" : "";
    const struct model_options o = {.dir = argv[1],
                                    .dtype = "f32",
                                    .n_threads = 2,
                                    .max_model_len = MAX_TOKENS,
                                    .overrides = {.bos_id = -1, .eos_id = -1, .expert_choice = expert_choice}};
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
    if (device && (r == ERR_UNSUPPORTED || r == ERR_DEVICE))
        return CHECK_SKIP;
    if (!CHECK_INT(r, 0) || !CHECK_INT(trace_open(&t, &m, MAX_TOKENS, &err), 0) || !CHECK_INT(safetensors_open_file(path, &s, &err), 0)) {
        fprintf(stderr, "  %s\n", err.text);
        return check_result();
    }
    for (int i = 0; expected_read(s, i, mode, &x); i++) {
        check_prompt(&t, &x);
        if (!by_rank(&m))
            check_continuation(&t, &x);
    }
    printf("%s: worst difference of logits %.3g, layer inputs %.3g, probabilities %.3g, states %.3g\n", argv[1], worst.logit, worst.hidden,
           worst.prob, worst.state);
    trace_close(&t);
    model_close(&m);
    safetensors_close(s);
    return check_result();
}
