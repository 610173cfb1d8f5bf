/* Config in, checkpoint out: written, calibrated, measured. */
#include "engine/tools/synth.h"
#include "common/mapfile.h"
#include "engine/checkpoint/tensor_schema.h"
#include "engine/model/model.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int check_options(const struct synth_options *o, struct err *err)
{
    if (!(o->route_rate >= 0 && o->route_rate <= 1))
        return err_field(err, ERR_INVALID, "route_rate", "route_rate must be from 0 to 1, but is %g", o->route_rate);
    if (!(o->execute_rate >= 0 && o->execute_rate <= 1))
        return err_field(err, ERR_INVALID, "execute_rate", "execute_rate must be from 0 to 1, but is %g", o->execute_rate);
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

static bool any_routed(const struct layer_plan *plan, int n_layers)
{
    for (int l = 0; l < n_layers; l++)
        if (layer_is_routed(&plan[l]))
            return true;
    return false;
}

/* Nothing is there to measure. */
static void report_dense(const struct model_config *c, const struct layer_plan *plan, struct synth_report *ret)
{
    ret->n_layers = c->n_layers;
    ret->worst = 0;
    for (int l = 0; l < c->n_layers; l++) {
        ret->plan[l] = plan[l];
        ret->rate[l] = ret->executed[l] = 1;
    }
}

static int count_params(void *user, const struct tensor_spec *t)
{
    *(int64_t *)user += tensor_spec_elements(t);
    return 0;
}

int synth_open(const struct synth_options *o, struct model *ret, int *ret_len, struct err *err)
{
    const struct model_options mo = {
        .dir = o->out, .n_threads = o->n_threads, .max_model_len = SYNTH_SEQUENCE, .overrides = {.bos_id = -1, .eos_id = -1}};
    const struct backend *backend;
    int r = backend_find("auto", &backend, err);
    if (r >= 0)
        r = model_open(&mo, backend, ret, err);
    if (r >= 0)
        *ret_len = ret->config.default_max_model_len < SYNTH_SEQUENCE ? ret->config.default_max_model_len : SYNTH_SEQUENCE;
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
    bool routed = any_routed(plan, c->n_layers);
    if (r >= 0 && routed)
        r = synth_calibrate(o, err);
    if (r >= 0 && routed)
        r = synth_measure(o, ret, err);
    else if (r >= 0)
        report_dense(c, plan, ret);
    if (r >= 0)
        ret->n_params = n_params;
    free(c);
    free(plan);
    return r;
}
