/* The table is printed from the JSON report, so the two cannot disagree. */
#include "engine/tools/inspect.h"
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/model_hint.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/tensor_match.h"
#include "engine/checkpoint/tensor_schema.h"
#include "engine/checkpoint/tied_head.h"
#include "engine/checkpoint/ultradeep_config.h"
#include "engine/tools/flops.h"
#include "engine/tools/inspect_plan.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct subject {
    struct model_config config;
    struct layer_plan plan[MODEL_MAX_LAYERS];
    struct layer_plan stored[MODEL_MAX_LAYERS]; /* before dense_layers: what the files hold */
    struct safetensors *tensors;                /* NULL: a config alone */
};

struct counts {
    int64_t tensors, total, router, embedding;
};

/* ---- reading ------------------------------------------------------------------------------------------------- */

static bool has_file(const char *dir, const char *name)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path) && !access(path, F_OK);
}

static bool is_config(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && !strcmp(path + n - 5, ".json");
}

static int plan_without_tensors(const struct inspect_options *o, struct subject *s, struct err *err)
{
    enum family family = layer_plan_default_family(&s->config);
    if (o->family && layer_plan_find_family(o->family, &family) < 0)
        return err_field(err, ERR_INVALID, "family", "family must be dense, dtrnet, mod or dllm, but is '%.40s'", o->family);
    int r = layer_plan_derive(&s->config, family, s->plan, err);
    if (r >= 0)
        memcpy(s->stored, s->plan, sizeof(s->plan));
    if (r >= 0 && o->dense_layers)
        r = layer_plan_force_dense(&s->config, o->dense_layers, s->plan, err);
    return r;
}

static int load(const struct inspect_options *o, struct subject *s, struct err *err)
{
    const struct model_overrides overrides = {.rope_scaling = o->rope_scaling,
                                              .bos_id = -1,
                                              .eos_id = -1,
                                              .expert_choice = o->expert_choice,
                                              .rope_factor = o->rope_factor,
                                              .accept_keys = o->accept_keys};
    struct stat st;
    if (stat(o->model, &st) < 0 || (!S_ISDIR(st.st_mode) && !is_config(o->model)))
        return model_hint_no_config(o->model, err);
    if (!S_ISDIR(st.st_mode)) {
        int r = model_config_load_file(o->model, &overrides, o->log, &s->config, err);
        return r >= 0 ? plan_without_tensors(o, s, err) : r;
    }
    int r = model_config_load(o->model, &overrides, o->log, &s->config, err);
    if (r < 0)
        return r;
    if (!has_file(o->model, "model.safetensors") && !has_file(o->model, "model.safetensors.index.json"))
        return plan_without_tensors(o, s, err);
    r = safetensors_open_dir(o->model, &s->tensors, err);
    if (r >= 0) {
        tied_head_check(&s->config, s->tensors, o->log);
        r = layer_plan_fill(&s->config, s->tensors, NULL, s->stored, err);
    }
    return r >= 0 ? layer_plan_fill(&s->config, s->tensors, o->dense_layers, s->plan, err) : r;
}

/* ---- counting ------------------------------------------------------------------------------------------------ */

static int count_one(void *user, const struct tensor_spec *t)
{
    struct counts *n = user;
    int64_t elements = tensor_spec_elements(t);
    n->tensors++;
    n->total += elements;
    n->router += t->role >= ROLE_ROUTER_NORM ? elements : 0;
    n->embedding += t->role == ROLE_EMBEDDING ? elements : 0;
    return 0;
}

static int count(const struct subject *s, struct counts *ret, struct err *err)
{
    int r = s->tensors ? tensor_match(&s->config, s->stored, s->tensors, NULL, err) : 0;
    return r >= 0 ? schema_walk(&s->config, s->stored, count_one, ret) : r;
}

/* ---- the report ------------------------------------------------------------------------------------------------ */

static const char *stored_dtype(const struct subject *s)
{
    const struct tensor *t = s->tensors ? safetensors_find(s->tensors, "model.embed_tokens.weight") : NULL;
    if (!t)
        return dtype_name(s->config.save_dtype);
    return t->type == TENSOR_BF16 ? dtype_name(DTYPE_BF16) : t->type == TENSOR_F16 ? dtype_name(DTYPE_F16) : dtype_name(DTYPE_F32);
}

static json_t *config_json(const struct model_config *c)
{
    return json_pack("{ss si si si si si si si sf sb sb sb sb si si ss ss ss}", "model_type", model_type_info(c->type)->name, "hidden_size",
                     c->hidden, "intermediate_size", c->ffn, "num_hidden_layers", c->n_layers, "num_attention_heads", c->n_heads,
                     "num_key_value_heads", c->n_kv_heads, "head_dim", c->head_dim, "vocab_size", c->vocab, "rms_norm_eps",
                     (double)c->rms_eps, "tie_word_embeddings", c->tied, "attention_bias", c->qkv_bias, "output_bias", c->o_bias,
                     "mlp_bias", c->mlp_bias, "max_position_embeddings", c->max_position_embeddings, "window", c->window, "norm_method",
                     norm_method_name(c->norm_method), "routing", c->expert_choice ? "expert_choice" : "token_choice",
                     "expert_choice_inference", expert_inference_name(c));
}

static json_t *rope_json(const struct rope_config *r)
{
    return json_pack("{ss sf sf sf sf}", "type", rope_type_name(r->type), "theta", r->theta, "effective_factor", r->factor,
                     "original_length", r->original_length, "attention_factor", r->attention_factor);
}

static json_t *ratio_json(double model, double dense)
{
    return json_pack("{sf sf sf}", "model", model, "dense", dense, "ratio", model / dense);
}

/* Of a sequence of `context` tokens, a token's share. */
static json_t *flops_json(const struct inspect_options *o, const struct model_config *c, int context, const struct sequence_cost *model,
                          const struct sequence_cost *dense)
{
    const struct flops *f = &model->flops, *d = &dense->flops;
    double n = context;
    return json_pack("{sf sf si sf s{sf sf sf sf} so so}", "route_rate", o->route_rate, "execute_rate", o->execute_rate, "context", context,
                     "head", flops_head(c), "parts", "values_and_outputs", f->vo / n, "queries_and_keys", f->qk / n, "mlp", f->mlp / n,
                     "routers", f->router / n, "causal", ratio_json(flops_causal(f) / n, flops_causal(d) / n), "full",
                     ratio_json(flops_full(f) / n, flops_full(d) / n));
}

static json_t *kv_json(const struct inspect_options *o, const struct subject *s, int context, const struct sequence_cost *model,
                       const struct sequence_cost *dense)
{
    const char *name = o->kv_dtype >= 0 ? dtype_name((enum dtype)o->kv_dtype) : stored_dtype(s);
    double row = 2.0 * s->config.n_kv_heads * s->config.head_dim * (strcmp(name, "f32") ? 2 : 4);
    return json_pack("{ss sf sf sf sf sf}", "dtype", name, "row", row, "rows", model->kv_rows / context, "model",
                     row * model->kv_rows / context, "dense", row * dense->kv_rows / context, "ratio", model->kv_rows / dense->kv_rows);
}

static json_t *eos_json(const struct model_config *c)
{
    json_t *list = json_array();
    for (int i = 0; list && i < c->n_eos; i++)
        json_array_append_new(list, json_integer(c->eos_ids[i]));
    return list;
}

static json_t *make_report(const struct inspect_options *o, const struct subject *s, const struct counts *n)
{
    const struct model_config *c = &s->config;
    int context = o->context ? o->context : c->max_position_embeddings;
    struct sequence_cost model, dense;
    sequence_cost(c, s->plan, (struct rates){o->route_rate, o->execute_rate}, context, &model);
    sequence_cost_dense(c, context, &dense);
    return json_pack("{ss ss sb ss so so si si so so sI s{sI sI sI} so so sf}", "model", o->model, "family",
                     layer_plan_family(s->stored, c->n_layers), "has_weights", s->tensors != NULL, "stored_dtype", stored_dtype(s),
                     "config", config_json(c), "rope", rope_json(&c->rope), "default_max_model_len", c->default_max_model_len,
                     "bos_token_id", c->bos_id, "eos_token_ids", eos_json(c), "plan", inspect_plan_json(s->plan, c->n_layers), "tensors",
                     (json_int_t)n->tensors, "parameters", "total", (json_int_t)n->total, "router", (json_int_t)n->router, "embedding",
                     (json_int_t)n->embedding, "flops_per_token", flops_json(o, c, context, &model, &dense), "kv_bytes_per_token",
                     kv_json(o, s, context, &model, &dense), "router_state_bytes", model.state_bytes);
}

static int check_rate(const char *flag, double rate, struct err *err)
{
    return rate >= 0 && rate <= 1 ? 0 : err_field(err, ERR_INVALID, flag, "%s must be from 0 to 1, but is %g", flag, rate);
}

int inspect_report(const struct inspect_options *o, json_t **ret, struct err *err)
{
    int r = check_rate("route_rate", o->route_rate, err);
    if (r >= 0)
        r = check_rate("execute_rate", o->execute_rate, err);
    if (r < 0)
        return r;
    if (o->context < 0)
        return err_field(err, ERR_INVALID, "context", "context must be at least 1, but is %d", o->context);
    struct subject *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory to inspect %s", o->model);
    struct counts n = {0};
    json_t *report = NULL;
    r = load(o, s, err);
    if (r >= 0)
        r = count(s, &n, err);
    if (r >= 0 && !(report = make_report(o, s, &n)))
        r = err_set(err, ERR_NOMEM, "no memory for the report on %s (its name must be valid UTF-8)", o->model);
    safetensors_close(s->tensors);
    free(s);
    if (r >= 0)
        *ret = report;
    return r;
}
