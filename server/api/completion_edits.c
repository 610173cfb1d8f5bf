/* See completion_edits.h. */
#include "server/api/completion_edits.h"
#include "engine/checkpoint/model_config.h"
#include <stdlib.h>
#include <string.h>

#define BIAS_MAX_IDS 4096
#define BIAS_LIMIT 100.0

/* The key of a bias: an id as JSON writes integers. */
static int read_id(const struct call *c, const char *key, int32_t *ret, struct err *err)
{
    char again[16];
    char *end;
    long id = strtol(key, &end, 10);
    int vocab = c->server->info->config->vocab;
    snprintf(again, sizeof(again), "%ld", id);
    if (*end || strcmp(again, key))
        return err_field(err, ERR_INVALID, "logit_bias", "logit_bias: \"%.40s\" is no token id", key);
    if (id < 0 || id >= vocab)
        return err_field(err, ERR_INVALID, "logit_bias", "logit_bias: token id %ld is outside 0 to %d", id, vocab - 1);
    *ret = (int32_t)id;
    return 0;
}

static int parse_bias(struct call *c, struct logit_edits *e, struct err *err)
{
    json_t *o = json_object_get(c->body, "logit_bias"), *v;
    const char *key;
    size_t n = json_object_size(o);
    int r = 0;
    if (!o || json_is_null(o) || (json_is_array(o) && !json_array_size(o)) || (json_is_string(o) && !json_string_length(o)))
        return 0;
    if (!json_is_object(o))
        return err_field(err, ERR_INVALID, "logit_bias", "logit_bias must be an object of token ids and numbers");
    if (n > BIAS_MAX_IDS)
        return err_field(err, ERR_INVALID, "logit_bias", "logit_bias has %zu ids; the limit is %d", n, BIAS_MAX_IDS);
    struct logit_bias *bias = arena_alloc(&c->arena, n + 1, sizeof(*bias));
    if (!bias)
        return err_field(err, ERR_NOMEM, "logit_bias", "no memory for %zu biases", n);
    e->bias = bias;
    json_object_foreach (o, key, v) {
        double value = 0;
        if (r >= 0)
            r = read_id(c, key, &bias[e->n_bias].id, err);
        if (r >= 0)
            r = json_get_double(o, "logit_bias.", key, -BIAS_LIMIT, BIAS_LIMIT, &value, err);
        bias[e->n_bias++].value = (float)value;
    }
    return r;
}

/* What ends a generation, and so waits for min_tokens. */
static int list_held(struct call *c, const struct completion *p, struct logit_edits *e, struct err *err)
{
    const struct model_config *config = c->server->info->config;
    size_t n_eos = p->ignore_eos ? 0 : (size_t)config->n_eos;
    int32_t *ids = arena_alloc(&c->arena, p->n_stop_ids + n_eos + 1, sizeof(*ids));
    if (!ids)
        return err_field(err, ERR_NOMEM, "min_tokens", "no memory for the ids that end a generation");
    if (p->n_stop_ids)
        memcpy(ids, p->stop_ids, p->n_stop_ids * sizeof(*ids));
    for (size_t i = 0; i < n_eos; i++)
        ids[p->n_stop_ids + i] = config->eos_ids[i];
    e->held_ids = ids;
    e->n_held = (int)(p->n_stop_ids + n_eos);
    e->min_tokens = p->min_tokens;
    return 0;
}

static int parse_numbers(struct call *c, struct logit_edits *e, struct err *err)
{
    const struct {
        const char *name;
        double min, max;
        float *to;
    } rows[] = {
        {"presence_penalty", -2, 2, &e->presence_penalty},
        {"frequency_penalty", -2, 2, &e->frequency_penalty},
        {"repetition_penalty", 0.01, 100, &e->repetition_penalty},
        {"min_p", 0, 1, &e->min_p},
    };
    int r = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && r >= 0; i++) {
        double v = (double)*rows[i].to;
        r = json_get_double(c->body, "", rows[i].name, rows[i].min, rows[i].max, &v, err);
        *rows[i].to = (float)v;
    }
    return r;
}

static bool changes_something(const struct logit_edits *e)
{
    return e->n_bias || e->presence_penalty != 0 || e->frequency_penalty != 0 || e->repetition_penalty != 1 || e->min_p > 0 ||
           (e->min_tokens > 0 && e->n_held);
}

int completion_parse_edits(struct call *c, struct completion *p, struct err *err)
{
    struct logit_edits *e = arena_alloc(&c->arena, 1, sizeof(*e));
    int64_t min_tokens = 0;
    if (!e)
        return err_set(err, ERR_NOMEM, "no memory for the request");
    *e = (struct logit_edits){.repetition_penalty = 1};
    int r = parse_numbers(c, e, err);
    if (r >= 0)
        r = json_get_int(c->body, "", "min_tokens", 0, 1 << 24, &min_tokens, err);
    p->min_tokens = (int)min_tokens;
    if (r >= 0)
        r = parse_bias(c, e, err);
    if (r >= 0 && min_tokens)
        r = list_held(c, p, e, err);
    p->edits = r >= 0 && changes_something(e) ? e : NULL;
    return r;
}
