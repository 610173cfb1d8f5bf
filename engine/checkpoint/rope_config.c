/* Reads rope_theta with rope_scaling (transformers 4), rope_parameters (transformers 5) or the command line's object. */
#include "engine/checkpoint/rope_config.h"
#include "kernels/portable.h"
#include <math.h>
#include <string.h>

#define MAX_FACTOR 1e6
#define MAX_LENGTH 1e9

static const char *const type_names[] = {"default", "linear", "llama3", "yarn"};

const char *rope_type_name(enum rope_type t)
{
    return type_names[t];
}

/* One object of settings and how to read it. */
struct source {
    const json_t *obj;
    const char *where; /* for errors: "config.json: rope_scaling." */
    bool is_override;  /* the command line's: original lengths may be absent */
    bool is_new;       /* rope_parameters: these too, and without a type they may give theta alone */
    bool ratio, asked; /* as in rope_rules, for this source */
};

static bool has(const struct source *s, const char *key)
{
    const json_t *v = json_object_get(s->obj, key);
    return v && !json_is_null(v);
}

static int need(const struct source *s, const char *key, struct err *err)
{
    return has(s, key) ? 0 : err_field(err, ERR_INVALID, key, "%s%s is missing", s->where, key);
}

/* transformers 5 takes a rope_parameters without a type for the default one. More in it than theta would then be passed over. */
static bool is_theta_alone(const struct source *s)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)s->obj, key, v)
        if (!json_is_null(v) && strcmp(key, "rope_theta") && strcmp(key, "partial_rotary_factor"))
            return false;
    return s->is_new;
}

static int check_keys(const struct source *s, struct err *err)
{
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "factor",
                                        "original_max_position_embeddings",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "attention_factor",
                                        "mscale",
                                        "mscale_all_dim",
                                        "finetuned"};
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)s->obj, key, v) {
        bool ok = json_is_null(v) || (!strcmp(key, "truncate") && json_is_true(v)) ||
                  (!strcmp(key, "partial_rotary_factor") && json_is_number(v) && json_number_value(v) == 1);
        for (size_t i = 0; !ok && i < sizeof(known) / sizeof(known[0]); i++)
            ok = !strcmp(key, known[i]);
        if (!ok)
            return err_field(err, ERR_UNSUPPORTED, key, "%s%s is not implemented", s->where, key);
    }
    return 0;
}

static int read_type(const struct source *s, enum rope_type *ret, struct err *err)
{
    const char *name = NULL, *old = NULL;
    int r = json_get_string(s->obj, s->where, "rope_type", &name, NULL, err);
    if (r >= 0)
        r = json_get_string(s->obj, s->where, "type", &old, NULL, err);
    if (r < 0)
        return r;
    if (name && old && strcmp(name, old))
        return err_field(err, ERR_INVALID, "rope_type", "%srope_type is '%s' but %stype is '%s'", s->where, name, s->where, old);
    name = name ? name : old;
    if (!name && is_theta_alone(s))
        name = type_names[ROPE_DEFAULT];
    if (!name)
        return err_field(err, ERR_INVALID, "rope_type", "%srope_type is missing", s->where);
    for (int t = 0; t < (int)(sizeof(type_names) / sizeof(type_names[0])); t++)
        if (!strcmp(name, type_names[t])) {
            *ret = (enum rope_type)t;
            return 0;
        }
    return err_field(err, ERR_UNSUPPORTED, "rope_type", "%srope_type '%s' is not implemented; default, linear, llama3 and yarn are",
                     s->where, name);
}

static int read_llama3(const struct source *s, int max_pos, struct rope_config *c, struct err *err)
{
    c->original_length = max_pos;
    int r = s->is_override || s->is_new ? 0 : need(s, "original_max_position_embeddings", err);
    if (r >= 0)
        r = need(s, "low_freq_factor", err);
    if (r >= 0)
        r = need(s, "high_freq_factor", err);
    if (r >= 0)
        r = json_get_double(s->obj, s->where, "original_max_position_embeddings", 1, MAX_LENGTH, &c->original_length, err);
    if (r >= 0)
        r = json_get_double(s->obj, s->where, "low_freq_factor", 1e-3, MAX_FACTOR, &c->low_freq_factor, err);
    if (r >= 0)
        r = json_get_double(s->obj, s->where, "high_freq_factor", 1e-3, MAX_FACTOR, &c->high_freq_factor, err);
    if (r >= 0 && c->high_freq_factor <= c->low_freq_factor)
        r = err_field(err, ERR_INVALID, "high_freq_factor", "%shigh_freq_factor %g must be above low_freq_factor %g", s->where,
                      c->high_freq_factor, c->low_freq_factor);
    return r;
}

static double yarn_mscale(double factor, double z)
{
    return factor <= 1 ? 1.0 : 0.1 * z * portable_log_double(factor) + 1.0;
}

static int read_yarn_attention(const struct source *s, struct rope_config *c, struct err *err)
{
    double mscale = 0, mscale_all = 0;
    int r = json_get_double(s->obj, s->where, "mscale", 0, 1e3, &mscale, err);
    if (r >= 0)
        r = json_get_double(s->obj, s->where, "mscale_all_dim", 0, 1e3, &mscale_all, err);
    if (r >= 0)
        r = json_get_double(s->obj, s->where, "beta_fast", 0, MAX_FACTOR, &c->beta_fast, err);
    if (r >= 0)
        r = json_get_double(s->obj, s->where, "beta_slow", 0, MAX_FACTOR, &c->beta_slow, err);
    if (r < 0)
        return r;
    c->beta_fast = c->beta_fast > 0 ? c->beta_fast : 32; /* 0 means the default, as null does */
    c->beta_slow = c->beta_slow > 0 ? c->beta_slow : 1;
    if (mscale != 0 && mscale_all != 0)
        c->attention_factor = yarn_mscale(c->factor, mscale) / yarn_mscale(c->factor, mscale_all);
    else
        c->attention_factor = yarn_mscale(c->factor, 1);
    return json_get_double(s->obj, s->where, "attention_factor", 1e-6, MAX_FACTOR, &c->attention_factor, err);
}

static int read_yarn(const struct source *s, int max_pos, struct log *log, struct rope_config *c, struct err *err)
{
    c->original_length = max_pos;
    int r = json_get_double(s->obj, s->where, "original_max_position_embeddings", 1, MAX_LENGTH, &c->original_length, err);
    if (r < 0)
        return r;
    double named = c->factor, ratio = max_pos / c->original_length;
    bool both = !s->is_override && has(s, "original_max_position_embeddings");
    if (both && s->ratio)
        c->factor = ratio;
    if (both && ratio != named && !s->asked && !s->is_new)
        log_warn(log,
                 "%sfactor is %g, but max_position_embeddings / original_max_position_embeddings = %d / %g: the effective factor is %g "
                 "(rope_factor %s takes the other)",
                 s->where, named, max_pos, c->original_length, c->factor, s->ratio ? "config" : "ratio");
    if (!(c->theta > 1))
        return err_field(err, ERR_INVALID, "rope_theta", "rope_theta %g must be above 1 for yarn", c->theta);
    return read_yarn_attention(s, c, err);
}

static int read_scaling(const struct source *s, int max_pos, struct log *log, struct rope_config *c, struct err *err)
{
    int r = check_keys(s, err);
    if (r >= 0)
        r = read_type(s, &c->type, err);
    if (r < 0 || c->type == ROPE_DEFAULT)
        return r;
    r = need(s, "factor", err);
    if (r >= 0)
        r = json_get_double(s->obj, s->where, "factor", 1, MAX_FACTOR, &c->factor, err);
    if (r >= 0 && c->type == ROPE_LLAMA3)
        r = read_llama3(s, max_pos, c, err);
    if (r >= 0 && c->type == ROPE_YARN)
        r = read_yarn(s, max_pos, log, c, err);
    return r;
}

/* The theta of an object counts over the top-level one; in config.json the two must agree. */
static int read_theta(const json_t *config, const struct source *s, struct rope_config *c, struct err *err)
{
    double top = c->theta;
    int r = json_get_double(config, "config.json: ", "rope_theta", 1e-3, 1e15, &top, err);
    c->theta = top;
    if (r >= 0 && s->obj)
        r = json_get_double(s->obj, s->where, "rope_theta", 1e-3, 1e15, &c->theta, err);
    const json_t *v = json_object_get(config, "rope_theta");
    if (r >= 0 && !s->is_override && v && !json_is_null(v) && c->theta != top)
        r = err_field(err, ERR_INVALID, "rope_theta", "config.json: rope_theta is %g, but %srope_theta is %g", top, s->where, c->theta);
    return r;
}

/* An empty object says nothing. */
static bool says(const json_t *v)
{
    return v && !json_is_null(v) && !(json_is_object(v) && !json_object_size(v));
}

static int pick_source(const json_t *config, const json_t *override, const struct rope_rules *rules, struct source *ret, struct err *err)
{
    const json_t *old = json_object_get(config, "rope_scaling"), *new = json_object_get(config, "rope_parameters");
    if (says(old) && says(new) && !json_equal(old, new))
        return err_field(err, ERR_INVALID, "rope_parameters", "config.json: rope_scaling and rope_parameters are both given and differ");
    if (override)
        *ret = (struct source){.obj = override, .where = "rope_scaling_override: ", .is_override = true};
    else if (says(new))
        *ret = (struct source){.obj = new,
                               .where = "config.json: rope_parameters.",
                               .is_new = true,
                               .ratio = rules->asked && rules->ratio,
                               .asked = rules->asked};
    else if (says(old))
        *ret = (struct source){.obj = old, .where = "config.json: rope_scaling.", .ratio = rules->ratio, .asked = rules->asked};
    else
        *ret = (struct source){.where = ""};
    if (ret->obj && !json_is_object(ret->obj))
        return err_field(err, ERR_INVALID, "rope_scaling", "%s must be a JSON object with a rope_type", ret->where);
    return 0;
}

int rope_config_read(const json_t *config, const json_t *override, const struct rope_rules *rules, struct log *log, struct rope_config *ret,
                     struct err *err)
{
    struct rope_config c = {.type = ROPE_DEFAULT, .theta = rules->theta, .factor = 1, .attention_factor = 1};
    struct source s = {0};
    int r = pick_source(config, override, rules, &s, err);
    if (r >= 0)
        r = read_theta(config, &s, &c, err);
    if (r >= 0 && s.obj)
        r = read_scaling(&s, rules->max_positions, log, &c, err);
    if (r >= 0)
        *ret = c;
    return r;
}

int rope_config_length(const struct rope_config *c, int max_position_embeddings)
{
    double n = max_position_embeddings;
    if (c->type == ROPE_LINEAR)
        n *= c->factor;
    else if (c->type == ROPE_YARN)
        n = floor(c->factor * c->original_length + 0.5);
    return n < 1 ? 1 : n > 1e9 ? 1000000000 : (int)n;
}
