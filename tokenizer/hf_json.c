/* The frame of tokenizer.json: its members, the model, and the added tokens. */
#include "tokenizer/hf_json.h"
#include "common/json.h"
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)
#define MAX_MERGES 8000000

int hf_only_keys(const json_t *o, const char *where, const char *const *keys, struct err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)o, key, v) {
        const char *const *k = keys;
        while (*k && strcmp(*k, key) != 0)
            k++;
        if (!*k)
            return err_set(err, ERR_UNSUPPORTED, "tokenizer.json: %s has a member \"%.60s\", which is not supported", where, key);
    }
    return 0;
}

const char *hf_type(const json_t *o)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    return type ? type : "";
}

static int corrupt(struct err *err, const char *what)
{
    return err_set(err, ERR_CORRUPT, "tokenizer.json: %s", what);
}

/* ---- the model ---- */

static int load_vocab(struct vocab *v, json_t *o, struct err *err)
{
    const char *key;
    json_t *id;
    if (!json_is_object(o))
        return corrupt(err, "model.vocab must be an object");
    json_object_foreach (o, key, id) {
        if (!json_is_integer(id))
            return err_set(err, ERR_CORRUPT, "tokenizer.json: the id of \"%.40s\" is not an integer", key);
        int r = vocab_add(v, key, strlen(key), json_integer_value(id), err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* "left right", or ["left", "right"]. */
static int load_merge(struct bpe *b, const json_t *m, struct err *err)
{
    const char *s = json_string_value(m);
    const json_t *left = json_array_get(m, 0), *right = json_array_get(m, 1);
    if (json_array_size(m) == 2 && json_is_string(left) && json_is_string(right))
        return bpe_add_merge(b, json_string_value(left), json_string_length(left), json_string_value(right), json_string_length(right),
                             err);
    if (s && strncmp(s, "#version", 8) == 0)
        return 0;
    const char *space = s ? strchr(s, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return err_set(err, ERR_CORRUPT, "tokenizer.json: merge %zu is not a pair", b->n_merges);
    return bpe_add_merge(b, s, (size_t)(space - s), space + 1, strlen(space + 1), err);
}

static int load_merges(struct bpe *b, const json_t *merges, struct err *err)
{
    size_t i;
    json_t *m;
    json_array_foreach (merges, i, m) {
        int r = load_merge(b, m, err);
        if (r < 0)
            return r;
    }
    return bpe_finish(b, err);
}

static bool is_empty(const json_t *v)
{
    return !v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) || (json_is_number(v) && json_number_value(v) == 0);
}

int hf_bpe_options(const struct vocab *v, const json_t *model, struct bpe_options *ret, struct err *err)
{
    static const char *const neutral[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const char *unk = NULL;
    size_t len = 0;
    *ret = (struct bpe_options){.unk = -1};
    for (size_t i = 0; i < sizeof(neutral) / sizeof(neutral[0]); i++)
        if (!is_empty(json_object_get(model, neutral[i])))
            return err_set(err, ERR_UNSUPPORTED, "tokenizer.json: model.%s is not supported", neutral[i]);
    int r = json_get_bool(model, "model.", "fuse_unk", &ret->fuse_unk, err);
    if (r >= 0)
        r = json_get_bool(model, "model.", "byte_fallback", &ret->byte_fallback, err);
    if (r >= 0)
        r = json_get_bool(model, "model.", "ignore_merges", &ret->ignore_merges, err);
    if (r >= 0)
        r = json_get_string(model, "model.", "unk_token", &unk, &len, err);
    if (r < 0)
        return ERR_CORRUPT;
    if (unk && (ret->unk = vocab_id(v, unk, len)) < 0)
        ret->unk = BPE_UNK_MISSING;
    return 0;
}

static int load_bpe(struct pipeline *p, const json_t *model, struct err *err)
{
    static const char *const keys[] = {
        "type",  "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges",
        "vocab", "merges",  NULL};
    const json_t *merges = json_object_get(model, "merges");
    struct bpe_options options;
    if (!json_is_array(merges) || json_array_size(merges) > MAX_MERGES)
        return err_set(err, ERR_CORRUPT, "tokenizer.json: model.merges must be an array of at most %d", MAX_MERGES);
    int r = hf_only_keys(model, "model", keys, err);
    if (r >= 0)
        r = load_vocab(&p->vocab, json_object_get(model, "vocab"), err);
    if (r >= 0)
        r = hf_bpe_options(&p->vocab, model, &options, err);
    if (r >= 0)
        r = bpe_init(&p->bpe, &p->vocab, &options, json_array_size(merges), err);
    return r < 0 ? r : load_merges(&p->bpe, merges, err);
}

/* [["piece", score], ...]: ids are places. */
static int load_scored(struct vocab *v, const json_t *list, double *scores, struct err *err)
{
    size_t i;
    json_t *entry;
    json_array_foreach (list, i, entry) {
        const json_t *piece = json_array_get(entry, 0), *score = json_array_get(entry, 1);
        if (json_array_size(entry) != 2 || !json_is_string(piece) || !json_is_number(score))
            return err_set(err, ERR_CORRUPT, "tokenizer.json: model.vocab[%zu] is not a piece and its score", i);
        int r = vocab_add(v, json_string_value(piece), json_string_length(piece), (int64_t)i, err);
        if (r < 0)
            return r;
        scores[i] = json_number_value(score);
    }
    return 0;
}

static int load_unigram(struct pipeline *p, const json_t *model, struct err *err)
{
    static const char *const keys[] = {"type", "unk_id", "vocab", "byte_fallback", NULL};
    const json_t *list = json_object_get(model, "vocab");
    size_t n = json_array_size(list);
    int64_t unk = -1;
    bool byte_fallback = false;
    double *scores = NULL;
    int r = hf_only_keys(model, "model", keys, err);
    if (r >= 0 && (!json_is_array(list) || n == 0 || n > VOCAB_MAX_IDS))
        r = err_set(err, ERR_CORRUPT, "tokenizer.json: model.vocab must be an array of 1 to %d pieces", VOCAB_MAX_IDS);
    if (r >= 0 && (json_get_bool(model, "model.", "byte_fallback", &byte_fallback, err) < 0 ||
                   json_get_int(model, "model.", "unk_id", 0, (int64_t)n - 1, &unk, err) < 0))
        r = ERR_CORRUPT;
    if (r >= 0 && !(scores = calloc(n, sizeof(*scores))))
        r = err_set(err, ERR_NOMEM, "no memory for %zu pieces", n);
    if (r >= 0)
        r = load_scored(&p->vocab, list, scores, err);
    if (r < 0) {
        free(scores);
        return r;
    }
    p->is_unigram = true;
    return unigram_init(&p->unigram, &p->vocab, scores, (int32_t)unk, byte_fallback, err);
}

static int load_model(struct pipeline *p, const json_t *model, struct err *err)
{
    if (!json_is_object(model))
        return corrupt(err, "model must be an object");
    if (strcmp(hf_type(model), "Unigram") == 0)
        return load_unigram(p, model, err);
    if (json_object_get(model, "type") && strcmp(hf_type(model), "BPE") != 0)
        return err_set(err, ERR_UNSUPPORTED, "tokenizer.json: the model type \"%.40s\" is not supported", hf_type(model));
    return load_bpe(p, model, err);
}

/* ---- added tokens ---- */

static int load_added_token(struct pipeline *p, const json_t *o, struct log *log, struct err *err)
{
    static const char *const keys[] = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL};
    static const char where[] = "added_tokens[].";
    struct added_token t = {.id = -1, .normalized = true};
    int64_t id = -1;
    if (!json_is_object(o))
        return corrupt(err, "added_tokens must hold objects");
    int r = hf_only_keys(o, "an added token", keys, err);
    if (r < 0)
        return r;
    r = json_get_string(o, where, "content", &t.content, &t.len, err);
    if (r >= 0)
        r = json_get_int(o, where, "id", 0, VOCAB_MAX_IDS - 1, &id, err);
    if (r >= 0)
        r = json_get_bool(o, where, "single_word", &t.single_word, err);
    if (r >= 0)
        r = json_get_bool(o, where, "lstrip", &t.lstrip, err);
    if (r >= 0)
        r = json_get_bool(o, where, "rstrip", &t.rstrip, err);
    if (r >= 0)
        r = json_get_bool(o, where, "normalized", &t.normalized, err);
    if (r >= 0)
        r = json_get_bool(o, where, "special", &t.special, err);
    if (r < 0 || !t.content)
        return r < 0 ? ERR_CORRUPT : corrupt(err, "an added token has no content");
    r = added_tokens_add(&p->added, &t, &p->vocab, err);
    const struct added_token *got = r < 0 ? NULL : added_tokens_find(&p->added, t.content, t.len);
    if (got && got->id != id)
        log_warn(log, "tokenizer.json: added token \"%s\" says id %lld, but gets %d", t.content, (long long)id, (int)got->id);
    return r;
}

static int load_added(struct pipeline *p, const json_t *tokens, struct log *log, struct err *err)
{
    size_t i;
    json_t *t;
    if (tokens && !json_is_null(tokens) && !json_is_array(tokens))
        return corrupt(err, "added_tokens must be an array");
    added_tokens_begin(&p->added, &p->vocab);
    json_array_foreach (tokens, i, t) {
        int r = load_added_token(p, t, log, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the file ---- */

int hf_components_fill(struct pipeline *p, const json_t *root, const struct hf_overrides *o, struct err *err)
{
    int r = hf_normalizer(&p->normalizer, json_object_get(root, "normalizer"), err);
    if (r >= 0)
        r = hf_pretokenizer(&p->pretokenizer, json_object_get(root, "pre_tokenizer"), o, err);
    return r < 0 ? r : hf_decoder(&p->decoder, json_object_get(root, "decoder"), err);
}

/* "truncation" and "padding" belong to batches, and transformers switches them off. */
int hf_json_fill(struct pipeline *p, const json_t *root, const struct hf_overrides *o, struct log *log, struct err *err)
{
    static const char *const keys[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                       "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    int r = json_is_object(root) ? hf_only_keys(root, "the file", keys, err) : corrupt(err, "it is not an object");
    if (r >= 0)
        r = load_model(p, json_object_get(root, "model"), err);
    if (r >= 0)
        r = load_added(p, json_object_get(root, "added_tokens"), log, err);
    if (r >= 0)
        r = hf_components_fill(p, root, o, err);
    const json_t *post = json_object_get(root, "post_processor");
    p->template.from_file = post && !json_is_null(post);
    return r < 0 ? r : hf_post_processor(&p->template, post, err);
}

int hf_json_read(const char *path, json_t **ret, struct err *err)
{
    struct err why;
    int r = json_parse_file(path, MAX_FILE_BYTES, ret, &why);
    return r < 0 ? err_set(err, r == ERR_INVALID || r == ERR_TOO_LARGE ? ERR_CORRUPT : r, "%s", why.text) : 0;
}

const char *hf_pad_token(const json_t *root)
{
    return json_string_value(json_object_get(json_object_get(root, "padding"), "pad_token"));
}

/* ---- another frame ---- */

/* A unigram model's list becomes a vocabulary by its order; of a piece given twice the later place counts. */
static json_t *vocab_object(const json_t *vocab)
{
    if (!json_is_array(vocab))
        return json_incref((json_t *)vocab);
    json_t *o = json_object();
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const char *piece = json_string_value(json_array_get(json_array_get(vocab, i), 0));
        if (!piece || json_object_set_new(o, piece, json_integer((json_int_t)i)) < 0) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

int hf_reframe(const json_t *root, const json_t *frame, json_t **ret, struct err *err)
{
    const json_t *model = json_object_get(root, "model"), *merges = json_object_get(model, "merges");
    const json_t *vocab = json_object_get(model, "vocab");
    if (!frame)
        return err_set(err, ERR_NOMEM, "no memory for a tokenizer");
    if (!json_is_object(vocab) && !json_is_array(vocab))
        return corrupt(err, "model.vocab must be an object");
    json_t *out = json_copy((json_t *)frame), *own = json_copy(json_object_get(frame, "model"));
    bool ok = json_object_set_new(own, "vocab", vocab_object(vocab)) >= 0 && json_object_set_new(own, "type", json_string("BPE")) >= 0 &&
              json_object_set_new(own, "merges", merges ? json_incref((json_t *)merges) : json_array()) >= 0;
    ok = json_object_set_new(out, "model", own) >= 0 && ok;
    if (ok && json_object_get(root, "post_processor"))
        ok = json_object_set(out, "post_processor", json_object_get(root, "post_processor")) >= 0;
    if (ok) {
        *ret = out;
        return 0;
    }
    json_decref(out);
    return corrupt(err, "model.vocab holds something that is no piece");
}
