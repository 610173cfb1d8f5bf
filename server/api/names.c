/* See names.h. Only names that no sentence has as an ordinary word are in the table: all have an underscore.
 * rope_scaling is a member of config.json and expert_choice a value in it, so the engine calls their overrides by other names. */
#include "server/api/names.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const struct name {
    const char *field, *flag, *http; /* NULL: the field's own name */
} names[] = {
    {"accept_config_key", "--accept-config-key", NULL},
    {"bos_id", "--bos-id", NULL},
    {"dense_layers", "--dense-layers", NULL},
    {"device_list", "--devices", NULL},
    {"eos_id", "--eos-id", NULL},
    {"execute_rate", "--execute-rate", NULL},
    {"expert_choice_override", "--expert-choice", NULL},
    {"kv_cache_bytes", "--kv-cache-memory", NULL},
    {"max_batch_tokens", "--max-batch-tokens", NULL},
    {"max_model_len", "--max-model-len", NULL},
    {"max_new", NULL, "max_tokens"},
    {"max_queue", "--max-queue", NULL},
    {"model_dir", "--model", NULL},
    {"n_threads", "--threads", NULL},
    {"n_tokens", "--tokens", NULL},
    {"rope_factor_override", "--rope-factor", NULL},
    {"rope_scaling_override", "--rope-scaling", NULL},
    {"route_rate", "--route-rate", NULL},
    {"sample_top_k", NULL, "top_k"},
    {"tensor_parallel", "--tensor-parallel", NULL},
    {"top_k", NULL, "logprobs"},
};

static const char *flag_of(const struct name *n)
{
    return n->flag;
}

static const char *http_of(const struct name *n)
{
    return n->http;
}

static const char *outside(const char *word, size_t len, const char *(*side)(const struct name *n))
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strlen(names[i].field) == len && !memcmp(names[i].field, word, len))
            return side(&names[i]);
    return NULL;
}

static size_t word_length(const char *s)
{
    size_t n = 0;
    while (isalnum((unsigned char)s[n]) || s[n] == '_')
        n++;
    return n;
}

/* A text that grows beyond its room is cut, as err_set would. */
static void rewrite(char *text, size_t room, const char *(*side)(const struct name *n))
{
    char old[sizeof(((struct err *)0)->text)];
    size_t at = 0;
    snprintf(old, sizeof(old), "%s", text);
    for (const char *s = old; *s && at + 1 < room;) {
        size_t len = word_length(s), n = len ? len : 1;
        const char *name = len ? outside(s, len, side) : NULL;
        at += (size_t)snprintf(text + at, room - at, "%.*s", name ? (int)strlen(name) : (int)n, name ? name : s);
        s += n;
    }
}

static void rename_fields(struct err *err, const char *(*side)(const struct name *n))
{
    if (!err || !err->code)
        return;
    rewrite(err->text, sizeof(err->text), side);
    rewrite(err->param, sizeof(err->param), side);
}

void names_as_flags(struct err *err)
{
    rename_fields(err, flag_of);
}

void names_as_request_fields(struct err *err)
{
    rename_fields(err, http_of);
}
