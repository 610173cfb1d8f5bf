/* Opens what every handler shares, and reconciles the ids of BOS and EOS. */
#include "server/api/server.h"
#include "common/memory.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/model_hint.h"
#include "server/api/tokenizer_hash.h"
#include "tokenizer/rules_compare.h"
#include <stdlib.h>
#include <string.h>

#define REQUEST_SHARE 4                  /* requests may hold this part of free memory */
#define REQUEST_LEAST ((size_t)64 << 20) /* where free memory is not told */

/* The last part of the directory's path. */
static int default_name(struct server *s, struct err *err)
{
    const char *dir = s->settings->engine.model_dir;
    size_t end = strlen(dir), begin;
    while (end > 1 && dir[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && dir[begin - 1] != '/'; begin--)
        ;
    s->model_name = end > begin ? arena_strndup(&s->arena, dir + begin, end - begin) : "model";
    return s->model_name ? 0 : err_set(err, ERR_NOMEM, "no memory for the model's name");
}

static int32_t choose_id(struct server *s, const char *name, int setting, int32_t tokenizer_id, int32_t config_id)
{
    if (setting >= 0)
        return setting;
    if (tokenizer_id < 0)
        return config_id;
    if (config_id >= 0 && config_id != tokenizer_id)
        log_warn(s->log, "%s: the checkpoint's config says %d, its tokenizer %d; %d is used (%s_id overrides)", name, config_id,
                 tokenizer_id, tokenizer_id, name);
    return tokenizer_id;
}

const char *server_tokenizer_dir(const struct server *s)
{
    return s->settings->tokenizer_dir ? s->settings->tokenizer_dir : s->settings->engine.model_dir;
}

/* A checkpoint may have no tokenizer; a directory that was named for it must. */
/* A tokenizer may name a token that the model does not have. */
static int32_t known_id(struct server *s, const char *name, int32_t id, int vocab)
{
    if (id < vocab)
        return id;
    log_warn(s->log, "%s: the tokenizer says %d, which is beyond the model's vocabulary of %d: it is not used", name, id, vocab);
    return -1;
}

static int open_tokenizer(struct server *s, struct err *err)
{
    struct err why = {0};
    const char *dir = server_tokenizer_dir(s);
    int r = tokenizer_open(dir, s->settings->tokenizer_rules, s->log, &s->tokenizer, &why);
    if (r == ERR_NOT_FOUND && !s->settings->tokenizer_dir) {
        log_warn(s->log,
                 "%s has neither tokenizer.model nor tokenizer.json: requests must be made of token ids (--tokenizer names another)", dir);
        return 0;
    }
    if (r < 0)
        *err = why;
    else
        rules_compare_log(s->tokenizer, dir, s->log);
    return r < 0 ? r : tokenizer_hash(dir, s->tokenizer_hash, err);
}

static int open_engine(struct server *s, struct err *err)
{
    struct engine_options e = s->settings->engine;
    /* The engine ends a generation at EOS, so it must hold the id that the tokenizer's files name. */
    struct model_config *config = calloc(1, sizeof(*config));
    const struct model_overrides overrides = {.rope_scaling = e.rope_scaling,
                                              .dense_layers = e.dense_layers,
                                              .bos_id = e.bos_id,
                                              .eos_id = e.eos_id,
                                              .expert_choice = e.expert_choice,
                                              .rope_factor = e.rope_factor,
                                              .accept_keys = e.accept_keys};
    int r = config ? model_config_load(e.model_dir, &overrides, NULL, config, err) : err_set(err, ERR_NOMEM, "no memory for the config");
    if (r >= 0) {
        int32_t bos = s->tokenizer ? tokenizer_bos(s->tokenizer) : -1, eos = s->tokenizer ? tokenizer_eos(s->tokenizer) : -1;
        s->bos = choose_id(s, "bos", e.bos_id, known_id(s, "bos", bos, config->vocab), config->bos_id);
        s->eos = choose_id(s, "eos", e.eos_id, known_id(s, "eos", eos, config->vocab), config->eos_id);
        e.bos_id = s->bos;
        e.eos_id = e.eos_id < 0 && model_config_is_eos(config, s->eos) ? -1 : s->eos; /* -1 keeps a list that has it */
        r = engine_open(&e, &s->engine, err);
    }
    free(config);
    return r;
}

int server_new(const struct server_settings *settings, struct server **ret, struct err *err)
{
    struct server *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory for the server");
    s->settings = settings;
    s->log = settings->engine.log;
    s->started = time(NULL);
    arena_init(&s->arena, 1 << 20);
    pthread_mutex_init(&s->noted_lock, NULL);
    s->model_name = settings->model_name;
    int r = s->model_name ? 0 : default_name(s, err);
    if (r < 0)
        server_close(s);
    else
        *ret = s;
    return r;
}

static void limit_requests(struct server *s)
{
    struct memory m = {0};
    size_t bytes = s->settings->request_memory;
    if (!s->settings->budget)
        return;
    if (!bytes && memory_read(&m) >= 0)
        bytes = m.free_bytes / REQUEST_SHARE;
    if (!bytes)
        bytes = REQUEST_LEAST;
    atomic_store(&s->settings->budget->limit, bytes);
    log_info(s->log, "requests may hold %zu MiB of memory (--request-memory)", bytes >> 20);
}

int server_load(struct server *s, struct err *err)
{
    const struct engine_options *e = &s->settings->engine;
    int r = e->random_weights ? 0 : model_hint_check(e->model_dir, err);
    if (r >= 0)
        r = open_tokenizer(s, err);
    if (r >= 0)
        r = open_engine(s, err);
    if (r < 0)
        return r;
    s->info = engine_info(s->engine);
    if (s->tokenizer && tokenizer_vocab_size(s->tokenizer) > s->info->config->vocab)
        log_warn(s->log, "the tokenizer has %d ids, the model %d: text with ids beyond the model's is refused",
                 tokenizer_vocab_size(s->tokenizer), s->info->config->vocab);
    r = spellings_init(&s->spellings, s->tokenizer, s->info->config->vocab, err);
    if (r < 0)
        return r;
    limit_requests(s);
    atomic_store(&s->loaded, true);
    return 0;
}

int server_open(const struct server_settings *settings, struct server **ret, struct err *err)
{
    struct server *s = NULL;
    int r = server_new(settings, &s, err);
    if (r >= 0)
        r = server_load(s, err);
    if (r < 0)
        server_close(s);
    else
        *ret = s;
    return r;
}

void server_close(struct server *s)
{
    if (!s)
        return;
    engine_close(s->engine);
    spellings_done(&s->spellings);
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
