/* Config in, checkpoint out; then the engine itself says how many rows its routers select. */
#include "engine/tools/synth.h"
#include "common/mapfile.h"
#include "engine/checkpoint/tensor_schema.h"
#include "engine/engine.h"
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int check_options(const struct synth_options *o, struct err *err)
{
    if (!(o->route_rate >= 0 && o->route_rate <= 1))
        return err_field(err, ERR_INVALID, "route_rate", "route_rate must be from 0 to 1, but is %g", o->route_rate);
    if (o->n_tokens < 0)
        return err_field(err, ERR_INVALID, "n_tokens", "n_tokens must be at least 1, but is %d", o->n_tokens);
    if (strlen(o->out) > PATH_MAX - 32)
        return err_field(err, ERR_INVALID, "out", "out is longer than %d bytes", PATH_MAX - 32);
    return 0;
}

static int describe(const struct synth_options *o, struct model_config *c, struct layer_plan *plan, struct err *err)
{
    int r = model_config_load_file(o->config, NULL, o->log, c, err);
    if (r < 0)
        return r;
    enum family family = layer_plan_default_family(c);
    if (o->family && layer_plan_find_family(o->family, &family) < 0)
        return err_field(err, ERR_INVALID, "family", "family must be dense, dtrnet, mod or dllm, but is '%.40s'", o->family);
    if (family == FAMILY_DENSE && layer_plan_default_family(c) != family)
        return err_field(err, ERR_INVALID, "family", "family dense does not go with the routed layers of %s", o->config);
    return layer_plan_derive(c, family, plan, err);
}

static int copy_config(const struct synth_options *o, struct err *err)
{
    char path[PATH_MAX];
    struct mapfile m = {0};
    if (mkdir(o->out, 0777) < 0 && errno != EEXIST)
        return err_field(err, ERR_IO, "out", "%s cannot be made: %s", o->out, strerror(errno));
    snprintf(path, sizeof(path), "%s/config.json", o->out);
    int r = mapfile_open(&m, o->config, err);
    if (r < 0)
        return r;
    FILE *f = fopen(path, "wbx");
    bool ok = f && fwrite(m.data, 1, m.len, f) == m.len;
    if (f && fclose(f))
        ok = false;
    mapfile_close(&m);
    return ok ? 0 : err_field(err, ERR_IO, "out", "%s cannot be written: %s", path, strerror(errno));
}

static int count_params(void *user, const struct tensor_spec *t)
{
    *(int64_t *)user += tensor_spec_elements(t);
    return 0;
}

/* ---- measuring ------------------------------------------------------------------------------------------------ */

/* Adds up the rows that each layer selects over `n` random sequences of `len` tokens. */
static int count_selected(struct engine *e, const struct synth_options *o, int n, int len, double *selected, struct err *err)
{
    const struct model_config *c = engine_info(e)->config;
    int32_t *ids = malloc((size_t)(len + 1) * sizeof(*ids));
    int r = ids ? 0 : err_set(err, ERR_NOMEM, "no memory to measure the routing");
    for (int i = 0; i < n && r >= 0; i++) {
        struct engine_ticket *t = NULL;
        for (int j = 0; j <= len; j++)
            ids[j] = (int32_t)(synth_hash(o->seed ^ 0x6d65, (uint64_t)i * (uint64_t)(len + 1) + j) % (uint64_t)c->vocab);
        const struct eval_request q = {.tokens = ids, .n_tokens = len + 1, .score_begin = len, .top_p = 1};
        r = engine_submit(e, &q, 1, &t, err);
        if (r < 0)
            break;
        engine_wait(t, -1);
        const struct eval_result *res = engine_result(t, 0);
        r = res->code < 0 ? err_set(err, res->code, "measuring the routing: %s", res->err.text) : 0;
        for (int l = 0; l < c->n_layers && r >= 0; l++)
            selected[l] += res->rows_routed[l];
        engine_ticket_free(t);
    }
    free(ids);
    return r;
}

int synth_measure(const struct synth_options *o, struct synth_report *ret, struct err *err)
{
    const struct engine_options eo = {
        .model_dir = o->out, .n_threads = o->n_threads, .max_model_len = SYNTH_SEQUENCE, .bos_id = -1, .eos_id = -1};
    struct engine *e = NULL;
    double *selected = calloc(MODEL_MAX_LAYERS, sizeof(*selected));
    int r = selected ? engine_open(&eo, &e, err) : err_set(err, ERR_NOMEM, "no memory to measure the routing");
    if (r >= 0) {
        const struct model_config *c = engine_info(e)->config;
        int len = c->default_max_model_len < SYNTH_SEQUENCE ? c->default_max_model_len : SYNTH_SEQUENCE;
        int n = ((o->n_tokens ? o->n_tokens : 32768) + len - 1) / len;
        r = count_selected(e, o, n, len, selected, err);
        ret->n_layers = c->n_layers;
        ret->worst = 0;
        for (int l = 0; l < c->n_layers && r >= 0; l++) {
            ret->plan[l] = engine_info(e)->plan[l];
            ret->rate[l] = selected[l] / ((double)n * len);
            if (layer_is_routed(&ret->plan[l]))
                ret->worst = fmax(ret->worst, fabs(ret->rate[l] - o->route_rate));
        }
    }
    engine_close(e);
    free(selected);
    return r;
}

int synth_run(const struct synth_options *o, struct synth_report *ret, struct err *err)
{
    struct model_config *c = calloc(1, sizeof(*c));
    struct layer_plan *plan = calloc(MODEL_MAX_LAYERS, sizeof(*plan));
    char path[PATH_MAX];
    int64_t n_params = 0;
    int r = c && plan ? check_options(o, err) : err_set(err, ERR_NOMEM, "no memory for a config");
    if (r >= 0)
        r = describe(o, c, plan, err);
    if (r >= 0)
        r = copy_config(o, err);
    if (r >= 0) {
        snprintf(path, sizeof(path), "%s/model.safetensors", o->out);
        schema_walk(c, plan, count_params, &n_params);
        log_info(o->log, "writing %lld parameters to %s", (long long)n_params, path);
        r = synth_write(path, c, plan, o->seed, err);
    }
    if (r >= 0 && strcmp(layer_plan_family(plan, c->n_layers), "dense"))
        r = synth_calibrate(o, err);
    if (r >= 0)
        r = synth_measure(o, ret, err);
    if (r >= 0)
        ret->n_params = n_params;
    free(c);
    free(plan);
    return r;
}
