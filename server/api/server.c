/* Opens what every handler shares, and reconciles the ids of BOS and EOS. */
#include "server/api/server.h"
#include "engine/checkpoint/model_config.h"
#include "tokenizer/rules_compare.h"
#include <stdlib.h>
#include <string.h>

int server_log(const struct options *o, struct log **ret, struct err *err)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    enum log_level level = LOG_INFO;
    for (int i = 0; i < 4; i++)
        if (!strcmp(o->log_level, levels[i]))
            level = (enum log_level)i;
    if (log_new(stderr, strcmp(o->log_format, "json") ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON, level, ret) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the log");
    return 0;
}

/* The last part of the directory's path. */
static int default_name(struct server *s, struct err *err)
{
    size_t end = strlen(s->model_dir), begin;
    while (end > 1 && s->model_dir[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && s->model_dir[begin - 1] != '/'; begin--)
        ;
    s->model_name = end > begin ? arena_strndup(&s->arena, s->model_dir + begin, end - begin) : "model";
    return s->model_name ? 0 : err_set(err, ERR_NOMEM, "no memory for the model's name");
}

static int32_t choose_id(struct server *s, const char *name, int flag, int32_t tokenizer_id, int32_t config_id)
{
    if (flag >= 0)
        return flag;
    if (tokenizer_id < 0)
        return config_id;
    if (config_id >= 0 && config_id != tokenizer_id)
        log_warn(s->log, "%s: the checkpoint's config says %d, its tokenizer %d; %d is used (--%s-id overrides)", name, config_id,
                 tokenizer_id, tokenizer_id, name);
    return tokenizer_id;
}

static int open_tokenizer(struct server *s, struct err *err)
{
    struct err why = {0};
    const char *name = s->options->tokenizer_rules;
    enum tokenizer_rules rules = name && strcmp(name, "5") == 0 ? TOKENIZER_RULES_5 : TOKENIZER_RULES_4;
    int r = tokenizer_open(s->model_dir, rules, s->log, &s->tokenizer, &why);
    if (r == ERR_NOT_FOUND) {
        log_warn(s->log, "%s has no tokenizer.model: requests must be made of token ids", s->model_dir);
        return 0;
    }
    if (r < 0)
        *err = why;
    else
        rules_compare_log(s->tokenizer, s->model_dir, s->log);
    return r;
}

static int open_engine(struct server *s, struct err *err)
{
    const struct options *o = s->options;
    struct engine_options e = {
        .model_dir = s->model_dir,
        .device = o->device,
        .dtype = o->dtype,
        .n_threads = o->threads,
        .cpu_level = o->cpu_level,
        .cuda_level = o->cuda_level,
        .max_model_len = o->max_model_len,
        .max_batch_tokens = o->max_batch_tokens,
        .kv_cache_bytes = o->kv_cache_memory,
        .prefix_cache = o->prefix_cache,
        .rope_scaling = o->rope_scaling,
        .dense_layers = o->dense_layers,
        .bos_id = o->bos_id,
        .eos_id = o->eos_id,
        .max_queue = o->max_queue,
        .log = s->log,
    };
    /* The engine ends a generation at EOS, so it must hold the id that the tokenizer's files name. */
    struct model_config *config = calloc(1, sizeof(*config));
    struct model_overrides overrides = {o->rope_scaling, o->dense_layers, o->bos_id, o->eos_id};
    int r = config ? model_config_load(s->model_dir, &overrides, NULL, config, err) : err_set(err, ERR_NOMEM, "no memory for the config");
    if (r >= 0) {
        s->bos = choose_id(s, "bos", o->bos_id, s->tokenizer ? tokenizer_bos(s->tokenizer) : -1, config->bos_id);
        s->eos = choose_id(s, "eos", o->eos_id, s->tokenizer ? tokenizer_eos(s->tokenizer) : -1, config->eos_id);
        e.bos_id = s->bos;
        e.eos_id = o->eos_id < 0 && model_config_is_eos(config, s->eos) ? -1 : s->eos; /* -1 keeps a list that has it */
        r = engine_open(&e, &s->engine, err);
    }
    free(config);
    return r;
}

int server_open(const struct options *o, struct log *log, struct server **ret, struct err *err)
{
    struct server *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory for the server");
    s->options = o;
    s->log = log;
    s->started = time(NULL);
    arena_init(&s->arena, 1 << 20);
    pthread_mutex_init(&s->noted_lock, NULL);
    s->model_dir = o->model;
    int r = s->model_dir ? 0 : options_shipped_model(&s->arena, &s->model_dir, err);
    if (r >= 0) {
        s->model_name = o->served_model_name;
        r = s->model_name ? 0 : default_name(s, err);
    }
    if (r >= 0)
        r = open_tokenizer(s, err);
    if (r >= 0)
        r = open_engine(s, err);
    if (r < 0) {
        server_close(s);
        return r;
    }
    s->info = engine_info(s->engine);
    if (s->tokenizer && tokenizer_vocab_size(s->tokenizer) > s->info->config->vocab)
        log_warn(log, "the tokenizer has %d ids, the model %d: text with ids beyond the model's is refused",
                 tokenizer_vocab_size(s->tokenizer), s->info->config->vocab);
    *ret = s;
    return 0;
}

void server_close(struct server *s)
{
    if (!s)
        return;
    engine_close(s->engine);
    tokenizer_close(s->tokenizer);
    pthread_mutex_destroy(&s->noted_lock);
    arena_done(&s->arena);
    free(s);
}

void server_note_unknown(struct server *s, const char *request_id, const char *field)
{
    bool known = false;
    pthread_mutex_lock(&s->noted_lock);
    for (int i = 0; i < s->n_noted && !known; i++)
        known = !strcmp(s->noted[i], field);
    const char *copy =
        known || s->n_noted == SERVER_NOTED_NAMES || strlen(field) > 64 ? NULL : arena_strndup(&s->arena, field, strlen(field));
    if (copy)
        s->noted[s->n_noted++] = copy;
    pthread_mutex_unlock(&s->noted_lock);
    if (copy)
        log_write(s->log, LOG_WARN, request_id, "the request field \"%s\" is unknown and ignored (said once)", field);
}
