/* What the server says about itself: models, health, readiness, metrics, version, the OpenAPI document. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "server/api/api.h"
#include "server/api/openapi.h"
#include "server/commit.h"
#include "server/http/routes.h"
#include <string.h>

static int finish(struct writer *w, struct err *err)
{
    return w->code < 0 ? err_set(err, w->code, "no memory for the answer") : 0;
}

static void write_model(struct call *c, struct writer *w)
{
    writer_open(w, '{');
    writer_key_text(w, "id", c->server->model_name);
    writer_key_text(w, "object", "model");
    writer_key_int(w, "created", c->server->started);
    writer_key_text(w, "owned_by", "dtrnet");
    writer_key_int(w, "max_model_len", c->server->info->max_model_len);
    writer_close(w, '}');
}

int api_models(struct call *c, struct err *err)
{
    struct writer w = writer_on(&c->resp->body);
    writer_open(&w, '{');
    writer_key_text(&w, "object", "list");
    writer_key(&w, "data");
    writer_open(&w, '[');
    write_model(c, &w);
    writer_close(&w, ']');
    writer_close(&w, '}');
    return finish(&w, err);
}

int api_model(struct call *c, struct err *err)
{
    struct writer w = writer_on(&c->resp->body);
    const char *name = c->req->path + strlen("/v1/models/");
    if (strcmp(name, c->server->model_name))
        return err_field(err, ERR_NOT_FOUND, "model", "model: \"%.100s\" is not served here; this is \"%s\"", name, c->server->model_name);
    write_model(c, &w);
    return finish(&w, err);
}

static void write_devices(struct call *c, struct writer *w)
{
    struct server *s = c->server;
    writer_key(w, "devices");
    writer_open(w, '[');
    for (int i = 0; i < s->info->n_devices; i++) {
        struct err why = {0};
        bool lost = engine_device_health(s->engine, i, &why) < 0;
        writer_open(w, '{');
        writer_key_int(w, "device", s->info->device_index[i]);
        writer_key_text(w, "status", lost ? why.text : "ok");
        writer_close(w, '}');
    }
    writer_close(w, ']');
}

static int answer_status(struct call *c, int status, const char *text, bool devices, struct err *err)
{
    struct writer w = writer_on(&c->resp->body);
    c->resp->status = status;
    writer_open(&w, '{');
    writer_key_text(&w, "status", text);
    if (devices)
        write_devices(c, &w);
    writer_close(&w, '}');
    return finish(&w, err);
}

int api_health(struct call *c, struct err *err)
{
    struct err why = {0};
    if (!atomic_load(&c->server->loaded))
        return answer_status(c, 200, "loading", false, err);
    bool lost = engine_health(c->server->engine, &why) < 0;
    return answer_status(c, lost ? 503 : 200, lost ? why.text : "ok", c->server->info->n_devices > 1, err);
}

int api_ready(struct call *c, struct err *err)
{
    if (atomic_load(&c->server->stopping))
        return answer_status(c, 503, "stopping", false, err);
    if (!atomic_load(&c->server->loaded))
        return answer_status(c, 503, "loading", false, err);
    return api_health(c, err);
}

static void read_devices(const struct server *s, struct metrics_device *devices)
{
    for (int i = 0; i < s->info->n_devices; i++) {
        struct engine_stats stats;
        engine_device_stats(s->engine, i, &stats);
        metrics_device_read(&devices[i], s->info->device_index[i], engine_device_health(s->engine, i, NULL) >= 0, &stats);
    }
}

int api_metrics(struct call *c, struct err *err)
{
    const char *names[METRICS_ROUTES] = {[METRICS_ROUTES - 1] = "none"};
    struct metrics_device devices[ENGINE_DEVICES_MAX];
    struct engine_stats stats;
    int n;
    const struct route *table = routes_table(&n);
    for (int i = 0; i < n; i++)
        names[i] = table[i].path;
    read_devices(c->server, devices);
    engine_stats(c->server->engine, &stats);
    const char *hash = "";
    engine_model_hash(c->server->engine, false, &hash, NULL);
    struct metrics_names m = {names,
                              c->server->model_name,
                              hash,
                              difftime(time(NULL), c->server->started),
                              c->req ? http_in_flight_of(c->req) : 0,
                              log_dropped(c->server->log)};
    c->resp->content_type = "text/plain; version=0.0.4; charset=utf-8";
    int r = metrics_write(&c->server->metrics, &m, c->server->info, &stats, devices, &c->resp->body);
    return r < 0 ? err_set(err, r, "no memory for the answer") : 0;
}

static void write_rope(struct call *c, struct writer *w)
{
    const struct rope_config *r = &c->server->info->config->rope;
    writer_key(w, "rope");
    writer_open(w, '{');
    writer_key_text(w, "type", rope_type_name(r->type));
    writer_key(w, "theta");
    writer_double(w, r->theta);
    writer_key(w, "factor");
    writer_double(w, r->type == ROPE_DEFAULT ? 1 : r->factor);
    writer_key(w, "original_length");
    if (r->type == ROPE_LLAMA3 || r->type == ROPE_YARN)
        writer_double(w, r->original_length);
    else
        writer_null(w);
    writer_close(w, '}');
}

static void write_layers(struct call *c, struct writer *w)
{
    const struct engine_info *info = c->server->info;
    writer_key(w, "dense_layers");
    writer_open(w, '[');
    for (int l = 0; l < info->config->n_layers; l++)
        if (!layer_is_routed(&info->plan[l]))
            writer_int(w, l);
    writer_close(w, ']');
    writer_key(w, "forced_dense_layers");
    writer_open(w, '[');
    for (int l = 0; l < info->config->n_layers; l++)
        if (info->plan[l].forced_dense)
            writer_int(w, l);
    writer_close(w, ']');
}

/* How far selectors see, and how expert choice selects. */
static void write_selection(struct writer *w, const struct engine_info *info)
{
    static const char *const scopes[] = {[SCOPE_TOKEN] = "token", [SCOPE_PREFIX_STATE] = "prefix_state", [SCOPE_SEQUENCE] = "sequence"};
    enum select_scope scope = SCOPE_TOKEN;
    enum decide decide = DECIDE_HALF;
    for (int l = 0; l < info->config->n_layers; l++) {
        scope = info->plan[l].scope > scope ? info->plan[l].scope : scope;
        decide = info->plan[l].decide > decide ? info->plan[l].decide : decide;
    }
    writer_key_text(w, "select_scope", scopes[scope]);
    writer_key(w, "expert_choice");
    if (decide == DECIDE_TOP || decide == DECIDE_THRESHOLD)
        writer_text(w, decide == DECIDE_TOP ? "exact" : "threshold");
    else
        writer_null(w);
}

static void write_tokenizer(const struct server *s, struct writer *w)
{
    writer_key_int(w, "tokenizer_rules", tokenizer_rules(s->tokenizer));
    writer_key_text(w, "tokenizer_path", server_tokenizer_dir(s));
    writer_key_text(w, "tokenizer_hash", s->tokenizer_hash);
}

int api_version(struct call *c, struct err *err)
{
    const struct engine_info *info = c->server->info;
    const char *hash = NULL;
    int r = engine_model_hash(c->server->engine, true, &hash, err);
    if (r < 0)
        return r;
    struct writer w = writer_on(&c->resp->body);
    writer_open(&w, '{');
    writer_key_text(&w, "version", DTRNET_VERSION);
    writer_key_text(&w, "commit", DTRNET_COMMIT);
    writer_key_text(&w, "build", DTRNET_BUILD);
    writer_key_text(&w, "model", c->server->model_name);
    writer_key_text(&w, "model_path", c->server->settings->engine.model_dir);
    writer_key_text(&w, "model_hash", hash);
    writer_key_text(&w, "family", layer_plan_family(info->plan, info->config->n_layers));
    writer_key_text(&w, "device", info->device);
    write_devices(c, &w);
    writer_key_int(&w, "tensor_parallel", info->n_ranks);
    writer_key_text(&w, "dtype", info->dtype);
    writer_key_text(&w, "numerics_class", info->numerics_class);
    writer_key_text(&w, "level", info->level);
    writer_key_int(&w, "threads", info->n_threads);
    writer_key_int(&w, "layers", info->config->n_layers);
    write_layers(c, &w);
    write_selection(&w, info);
    write_rope(c, &w);
    writer_key_int(&w, "vocab_size", info->config->vocab);
    writer_key_int(&w, "max_model_len", info->max_model_len);
    writer_key_int(&w, "max_batch_tokens", info->max_batch_tokens);
    writer_key(&w, "prefix_cache");
    writer_bool(&w, c->server->settings->engine.prefix_cache);
    writer_key_int(&w, "bos_token_id", c->server->bos);
    writer_key_int(&w, "eos_token_id", c->server->eos);
    writer_key(&w, "tokenizer");
    writer_bool(&w, c->server->tokenizer != NULL);
    if (c->server->tokenizer)
        write_tokenizer(c->server, &w);
    writer_key_int(&w, "kv_rows_total", (int64_t)info->kv_rows_total);
    writer_key_int(&w, "kv_row_bytes", (int64_t)info->kv_row_bytes);
    writer_key_int(&w, "weight_bytes", (int64_t)info->weight_bytes);
    writer_close(&w, '}');
    return finish(&w, err);
}

int api_openapi(struct call *c, struct err *err)
{
    int r = buf_append(&c->resp->body, openapi_json, openapi_json_len);
    return r < 0 ? err_set(err, r, "no memory for the answer") : 0;
}
