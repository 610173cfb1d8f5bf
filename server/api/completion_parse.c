/* Reads a completions request: every field has a type and a range, names that would change the output and are not implemented are
 * refused unless neutral, other unknown names are ignored. */
#include "common/monotonic.h"
#include "server/api/completion_edits.h"
#include <math.h>
#include <string.h>
#include <sys/random.h>

/* clang-format off */
static const char *const known[] = {
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "n", "best_of", "stream", "stream_options", "logprobs", "echo",
    "stop", "seed", "user", "ignore_eos", "return_tokens_as_token_ids", "add_bos", "skip_special_tokens", "stop_token_ids",
    "include_stop_str_in_output", "prompt_logprobs", "logit_bias", "presence_penalty", "frequency_penalty", "repetition_penalty", "min_p", "min_tokens", "spaces_between_special_tokens", NULL};
/* clang-format on */

enum neutral { NEUTRAL_NUMBER, NEUTRAL_FALSE, NEUTRAL_EMPTY, NEUTRAL_TEXT };

/* Known elsewhere, not implemented here: only the value that changes nothing is accepted. */
static const struct refused {
    const char *name;
    enum neutral kind;
    double value;
} refused[] = {
    {"repeat_penalty", NEUTRAL_NUMBER, 1},
    {"length_penalty", NEUTRAL_NUMBER, 1},
    {"typical_p", NEUTRAL_NUMBER, 1},
    {"tfs_z", NEUTRAL_NUMBER, 1},
    {"mirostat", NEUTRAL_NUMBER, 0},
    {"suffix", NEUTRAL_EMPTY},
    {"use_beam_search", NEUTRAL_FALSE},
    {"bad_words", NEUTRAL_EMPTY},
    {"allowed_token_ids", NEUTRAL_EMPTY},
    {"truncate_prompt_tokens", NEUTRAL_EMPTY},
    {"grammar", NEUTRAL_EMPTY},
    {"response_format", NEUTRAL_TEXT},
    {"structured_outputs", NEUTRAL_EMPTY},
    {"guided_json", NEUTRAL_EMPTY},
    {"guided_regex", NEUTRAL_EMPTY},
    {"guided_choice", NEUTRAL_EMPTY},
    {"guided_grammar", NEUTRAL_EMPTY},
    {"logits_processors", NEUTRAL_EMPTY},
    {"prompt_embeds", NEUTRAL_EMPTY},
    {"add_special_tokens", NEUTRAL_FALSE},
    {"n_predict", NEUTRAL_EMPTY},
    {"n_probs", NEUTRAL_NUMBER, 0},
    {"dry_multiplier", NEUTRAL_NUMBER, 0},
    {"dynatemp_range", NEUTRAL_NUMBER, 0},
    {"xtc_probability", NEUTRAL_NUMBER, 0},
    {"top_a", NEUTRAL_NUMBER, 0},
};

static bool is_empty(const json_t *v)
{
    return (json_is_string(v) && !json_string_length(v)) || (json_is_array(v) && !json_array_size(v)) ||
           (json_is_object(v) && !json_object_size(v));
}

/* {"type": "text"} */
static bool is_text_format(const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    return type && !strcmp(type, "text");
}

static bool is_neutral(const struct refused *f, const json_t *v)
{
    switch (f->kind) {
    case NEUTRAL_NUMBER: return json_is_number(v) && json_number_value(v) == f->value;
    case NEUTRAL_FALSE: return json_is_false(v);
    case NEUTRAL_EMPTY: return is_empty(v);
    case NEUTRAL_TEXT: return is_empty(v) || is_text_format(v);
    }
    return false;
}

static int check_refused(struct call *c, struct err *err)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const json_t *v = json_object_get(c->body, refused[i].name);
        if (v && !json_is_null(v) && !is_neutral(&refused[i], v))
            return err_field(err, ERR_UNSUPPORTED, refused[i].name, "%s is not implemented; leave it out or give its neutral value",
                             refused[i].name);
    }
    return 0;
}

static int get_int(struct call *c, const char *key, int64_t min, int64_t max, int *ret, struct err *err)
{
    int64_t v = *ret;
    int r = json_get_int(c->body, "", key, min, max, &v, err);
    *ret = (int)v;
    return r;
}

static int parse_seed(struct call *c, struct completion *p, struct err *err)
{
    int64_t seed = 0;
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
        seed = (int64_t)time(NULL);
    int r = json_get_int(c->body, "", "seed", INT64_MIN, INT64_MAX, &seed, err);
    p->seed = (uint64_t)seed;
    return r;
}

static int parse_stream_options(struct call *c, struct completion *p, struct err *err)
{
    const json_t *o = json_object_get(c->body, "stream_options");
    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return err_field(err, ERR_INVALID, "stream_options", "stream_options must be an object");
    if (!p->stream)
        return err_field(err, ERR_INVALID, "stream_options", "stream_options needs stream: true");
    return json_get_bool(o, "stream_options.", "include_usage", &p->include_usage, err);
}

static int parse_scalars(struct call *c, struct completion *p, struct err *err)
{
    int best_of = 0, r;
    *p = (struct completion){
        .call = c, .n = 1, .max_tokens = -1, .logprobs = -1, .prompt_logprobs = -1, .temperature = 1, .top_p = 1, .created = time(NULL)};
    if ((r = get_int(c, "max_tokens", 0, 1 << 24, &p->max_tokens, err)) < 0 ||
        (r = get_int(c, "logprobs", 0, ENGINE_TOP_K_MAX, &p->logprobs, err)) < 0 ||
        (r = get_int(c, "n", 1, COMPLETION_MAX_N, &p->n, err)) < 0 || (r = get_int(c, "best_of", 1, COMPLETION_MAX_N, &best_of, err)) < 0 ||
        (r = get_int(c, "top_k", -1, INT32_MAX, &p->top_k, err)) < 0 ||
        (r = json_get_double(c->body, "", "temperature", 0, 2, &p->temperature, err)) < 0 ||
        (r = json_get_double(c->body, "", "top_p", 0, 1, &p->top_p, err)) < 0 ||
        (r = json_get_bool(c->body, "", "echo", &p->echo, err)) < 0 || (r = json_get_bool(c->body, "", "stream", &p->stream, err)) < 0 ||
        (r = json_get_bool(c->body, "", "ignore_eos", &p->ignore_eos, err)) < 0 ||
        (r = json_get_bool(c->body, "", "return_tokens_as_token_ids", &p->token_ids, err)) < 0 ||
        (r = json_get_bool(c->body, "", "skip_special_tokens", &p->skip_special, err)) < 0 || (r = parse_seed(c, p, err)) < 0)
        return r;
    if (p->top_p == 0)
        return err_field(err, ERR_INVALID, "top_p", "top_p must be greater than 0 and at most 1, but is 0");
    if (best_of && best_of != p->n)
        return err_field(err, ERR_UNSUPPORTED, "best_of", "best_of must equal n (%d), but is %d", p->n, best_of);
    return parse_stream_options(c, p, err);
}

/* vLLM's: the prompt's own scores beside the choice. */
static int parse_prompt_logprobs(struct call *c, struct completion *p, struct err *err)
{
    int r = get_int(c, "prompt_logprobs", 0, ENGINE_TOP_K_MAX, &p->prompt_logprobs, err);
    if (r >= 0 && p->prompt_logprobs >= 0 && p->stream)
        return err_field(err, ERR_UNSUPPORTED, "prompt_logprobs",
                         "prompt_logprobs cannot be streamed; leave stream out, or use echo and logprobs");
    p->n_top = p->logprobs > p->prompt_logprobs ? p->logprobs : p->prompt_logprobs;
    p->n_top = p->n_top > 0 ? p->n_top : 0;
    return r;
}

/* ---- stop ---- */

static int add_stop(const json_t *v, struct stop_set *set, struct err *err)
{
    size_t i = set->n, len = json_string_length(v);
    if (!json_is_string(v))
        return err_field(err, ERR_INVALID, "stop", "stop[%zu] must be a string", i);
    if (len < 1 || len > STOP_MAX_BYTES)
        return err_field(err, ERR_INVALID, "stop", "stop[%zu] has %zu bytes; 1 to %d are allowed", i, len, STOP_MAX_BYTES);
    stop_set_add(set, json_string_value(v), len);
    return 0;
}

static int parse_stop(struct call *c, struct completion *p, struct err *err)
{
    const json_t *v = json_object_get(c->body, "stop");
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_string(v) && !json_is_array(v))
        return err_field(err, ERR_INVALID, "stop", "stop must be a string or a list of strings");
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > STOP_MAX_STRINGS)
        return err_field(err, ERR_INVALID, "stop", "stop has %zu strings; the limit is %d", n, STOP_MAX_STRINGS);
    const char **strings = arena_alloc(&c->arena, n + 1, sizeof(*strings));
    size_t *lens = arena_alloc(&c->arena, n + 1, sizeof(*lens));
    if (!strings || !lens)
        return err_field(err, ERR_NOMEM, "stop", "no memory for %zu stop strings", n);
    p->stop = (struct stop_set){.strings = strings, .lens = lens};
    int r = n ? api_need_tokenizer(c, "stop", err) : 0;
    for (size_t i = 0; i < n && r >= 0; i++)
        r = add_stop(json_is_array(v) ? json_array_get(v, i) : v, &p->stop, err);
    return r;
}

static int parse_stop_ids(struct call *c, struct completion *p, struct err *err)
{
    const json_t *v = json_object_get(c->body, "stop_token_ids");
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_array(v))
        return err_field(err, ERR_INVALID, "stop_token_ids", "stop_token_ids must be a list of token ids");
    if (json_array_size(v) > STOP_MAX_STRINGS)
        return err_field(err, ERR_INVALID, "stop_token_ids", "stop_token_ids has %zu ids; the limit is %d", json_array_size(v),
                         STOP_MAX_STRINGS);
    return api_ids(c, v, "stop_token_ids", 0, &p->stop_ids, &p->n_stop_ids, err);
}

static int parse_stops(struct call *c, struct completion *p, struct err *err)
{
    bool keep = false;
    int r = parse_stop(c, p, err);
    if (r >= 0)
        r = parse_stop_ids(c, p, err);
    if (r >= 0)
        r = json_get_bool(c->body, "", "include_stop_str_in_output", &keep, err);
    p->stop.keep = keep;
    return r;
}

/* ---- prompts ---- */

static int parse_one(struct call *c, const json_t *v, const char *name, bool add_bos, struct completion_prompt *p, struct err *err)
{
    int r;
    int32_t *ids = NULL;
    if (json_is_string(v)) {
        p->text = json_string_value(v);
        p->text_len = json_string_length(v);
        r = api_encode(c, p->text, p->text_len, name, 1, &ids, &p->n, err);
    } else if (json_is_array(v)) {
        r = api_ids(c, v, name, 1, &ids, &p->n, err);
    } else {
        return err_field(err, ERR_INVALID, "prompt", "%s must be a string or a list of token ids; chat messages are not taken", name);
    }
    if (r >= 0 && (add_bos || p->n == 0)) {
        if (add_bos && c->server->bos < 0)
            return err_field(err, ERR_INVALID, "add_bos", "add_bos: this model has no BOS");
        r = api_prefix_id(c, name, &ids[0], err);
        p->hidden = 1;
    }
    if (r >= 0) {
        p->ids = ids + 1 - p->hidden;
        p->n += p->hidden;
    }
    return r;
}

/* string, [string...], [id...], [[id...]...]; the first element tells which. */
static int parse_prompts(struct call *c, struct completion *p, struct err *err)
{
    const json_t *v = json_object_get(c->body, "prompt");
    bool add_bos = false;
    int r = json_get_bool(c->body, "", "add_bos", &add_bos, err);
    if (r < 0)
        return r;
    if (!v || json_is_null(v))
        return err_field(err, ERR_INVALID, "prompt", "prompt is missing");
    if (json_is_array(v) && json_array_size(v) == 0)
        return err_field(err, ERR_INVALID, "prompt", "prompt is an empty list");
    bool many = json_is_array(v) && !json_is_number(json_array_get(v, 0));
    p->n_prompts = many ? json_array_size(v) : 1;
    if (p->n_prompts * (size_t)p->n > API_MAX_SEQUENCES)
        return err_field(err, ERR_INVALID, "prompt", "prompt: %zu prompts x n = %d are more than %d sequences", p->n_prompts, p->n,
                         API_MAX_SEQUENCES);
    p->prompts = arena_alloc(&c->arena, p->n_prompts, sizeof(*p->prompts));
    if (!p->prompts)
        return err_field(err, ERR_NOMEM, "prompt", "no memory for %zu prompts", p->n_prompts);
    for (size_t i = 0; i < p->n_prompts && r >= 0; i++) {
        char name[32] = "prompt";
        if (many)
            snprintf(name, sizeof(name), "prompt[%zu]", i);
        r = parse_one(c, many ? json_array_get(v, i) : v, name, add_bos, &p->prompts[i], err);
    }
    return r;
}

/* Scoring n tokens and generating m computes n + m - 1 positions. */
static int check_lengths(struct call *c, struct completion *p, struct err *err)
{
    size_t limit = (size_t)c->server->info->max_model_len, longest = 0;
    for (size_t i = 0; i < p->n_prompts; i++)
        longest = p->prompts[i].n > longest ? p->prompts[i].n : longest;
    if (longest > limit + 1)
        return err_field(err, ERR_INVALID, "prompt", "prompt has %zu tokens; max_model_len %zu allows %zu", longest, limit, limit + 1);
    size_t room = limit + 1 - longest;
    if (p->max_tokens < 0)
        p->max_tokens = room < COMPLETION_DEFAULT_TOKENS ? (int)room : COMPLETION_DEFAULT_TOKENS;
    if ((size_t)p->max_tokens > room)
        return err_field(err, ERR_INVALID, "max_tokens", "max_tokens is %d; a prompt of %zu tokens leaves %zu in max_model_len %zu",
                         p->max_tokens, longest, room, limit);
    if (p->min_tokens > p->max_tokens)
        return err_field(err, ERR_INVALID, "min_tokens", "min_tokens is %d; at most max_tokens, %d, may be asked for", p->min_tokens,
                         p->max_tokens);
    return 0;
}

static bool scores_prompts(const struct completion *p)
{
    return p->prompt_logprobs >= 0 || (p->echo && p->logprobs >= 0);
}

/* What the answer may hold: entries of the lists, each with its alternatives. */
static int check_size(struct completion *p, struct err *err)
{
    double entries = 0, each = 1 + (p->n_top > 0 ? p->n_top : 1);
    for (size_t i = 0; i < p->n_prompts; i++)
        entries += p->n * (p->max_tokens + (scores_prompts(p) ? (double)p->prompts[i].n : 0));
    if (entries * each <= COMPLETION_MAX_ENTRIES)
        return 0;
    return err_field(err, ERR_INVALID, "max_tokens", "max_tokens: the answer could hold %.0f logprobs; the limit of a request is %d",
                     entries * each, COMPLETION_MAX_ENTRIES);
}

/* ---- sequences ---- */

/* On the engine's thread. */
static void note_token(void *user)
{
    struct completion_choice *choice = user;
    token_times_add(&choice->times);
    if (choice->progress)
        progress_token(choice->progress);
}

static void note_end(void *user)
{
    progress_end(((struct completion_choice *)user)->progress);
}

void completion_follow(struct completion *p, struct progress *progress)
{
    for (int i = 0; i < p->n_choices; i++) {
        p->choices[i].progress = progress;
        p->reqs[i].on_done = note_end;
    }
}

static int fill_requests(struct call *c, struct completion *p, double begin_s, struct err *err)
{
    p->n_choices = (int)p->n_prompts * p->n;
    p->reqs = arena_alloc(&c->arena, (size_t)p->n_choices, sizeof(*p->reqs));
    p->choices = arena_alloc(&c->arena, (size_t)p->n_choices, sizeof(*p->choices));
    p->floats = arena_alloc(&c->arena, 1, sizeof(*p->floats));
    if (!p->reqs || !p->choices || !p->floats)
        return err_field(err, ERR_NOMEM, "prompt", "no memory for %d sequences", p->n_choices);
    for (int i = 0; i < p->n_choices; i++) {
        const struct completion_prompt *prompt = &p->prompts[i / p->n];
        p->choices[i].prompt = prompt;
        token_times_init(&p->choices[i].times, &c->server->metrics, begin_s);
        stop_text_init(&p->choices[i].text, &p->stop, (size_t)1 << 30);
        p->reqs[i] = (struct eval_request){
            .tokens = prompt->ids,
            .n_tokens = (int)prompt->n,
            .score_begin = scores_prompts(p) ? 1 : (int)prompt->n,
            .top_k = p->n_top,
            .max_new = p->max_tokens,
            .temperature = (float)p->temperature,
            .sample_top_k = p->top_k > 0 ? p->top_k : 0,
            .top_p = (float)p->top_p,
            .ignore_eos = p->ignore_eos,
            .edits = p->edits,
            .on_token = note_token,
            .user = &p->choices[i],
            .seed = p->seed + (uint64_t)(i % p->n) * 0x9e3779b97f4a7c15u,
        };
    }
    return 0;
}

/* Is it in either list? */
static bool is_known(const char *key)
{
    bool found = false;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        found |= !strcmp(refused[i].name, key);
    for (size_t i = 0; known[i]; i++)
        found |= !strcmp(known[i], key);
    return found;
}

static void note_unknown(struct call *c)
{
    const char *key;
    json_t *v;
    json_object_foreach (c->body, key, v)
        if (!is_known(key))
            server_note_unknown(c->server, api_request_id(c), key);
}

int completion_parse(struct call *c, struct completion *p, struct err *err)
{
    double begin_s = monotonic_seconds();
    int r;
    if ((r = api_check_model(c, err)) < 0 || (r = check_refused(c, err)) < 0 || (r = parse_scalars(c, p, err)) < 0 ||
        (r = parse_prompt_logprobs(c, p, err)) < 0 || (r = parse_stops(c, p, err)) < 0 || (r = completion_parse_edits(c, p, err)) < 0 ||
        (r = parse_prompts(c, p, err)) < 0 || (r = check_lengths(c, p, err)) < 0 || (r = check_size(p, err)) < 0)
        return r;
    note_unknown(c);
    return fill_requests(c, p, begin_s, err);
}

void completion_done(struct completion *p)
{
    for (int i = 0; i < p->n_choices && p->choices; i++)
        stop_text_done(&p->choices[i].text);
}
