/* The face: which files are read, and the calls over the pipeline and the tables of spellings. */
#include "tokenizer/tokenizer.h"
#include "common/utf8.h"
#include "tokenizer/hf_json.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/token_text.h"
#include "tokenizer/unicode.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct tokenizer {
    struct pipeline pipeline;
    struct token_text text;
    struct settings settings;
    int32_t bos, eos, pad, unk;
};

/* ---- opening ---- */

static bool path_of(char path[PATH_MAX], const char *dir, const char *name)
{
    struct stat st;
    return snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX && stat(path, &st) == 0;
}

static int32_t role_id(const struct tokenizer *t, int role, int32_t otherwise)
{
    const struct added_token *token = &t->settings.roles[role].token;
    if (!token->content)
        return otherwise;
    const struct added_token *added = added_tokens_find(&t->pipeline.added, token->content, token->len);
    return added ? added->id : vocab_id(&t->pipeline.vocab, token->content, token->len);
}

/* LlamaTokenizerFast.update_post_processor: BOS in front unless told otherwise, EOS behind only when told so. */
static int set_llama_template(struct tokenizer *t, struct err *err)
{
    struct template_ids *around = &t->pipeline.template;
    *around = (struct template_ids){0};
    if (t->settings.add_bos != NO)
        around->before[around->n_before++] = t->bos;
    if (t->settings.add_eos == YES)
        around->after[around->n_after++] = t->eos;
    if ((around->n_before && t->bos < 0) || (around->n_after && t->eos < 0))
        return err_set(err, ERR_CORRUPT, "tokenizer_config.json asks for a BOS or EOS token that the tokenizer does not have");
    return 0;
}

static int load(struct tokenizer *t, const char *path, bool spm, struct log *log, struct err *err)
{
    int r = pipeline_init(&t->pipeline, err);
    if (r >= 0)
        r = spm ? llama_spm_load(&t->pipeline, path, &t->settings, err) : hf_json_load(&t->pipeline, path, &t->settings, log, err);
    if (r >= 0)
        r = settings_add_tokens(&t->settings, &t->pipeline.added, &t->pipeline.vocab, err);
    if (r >= 0)
        r = pipeline_finish(&t->pipeline, err);
    if (r < 0)
        return r;
    t->bos = role_id(t, ROLE_BOS, t->settings.generation_bos);
    t->eos = role_id(t, ROLE_EOS, t->settings.generation_eos);
    t->pad = role_id(t, ROLE_PAD, t->settings.generation_pad);
    t->unk = role_id(t, ROLE_UNK, -1);
    if (t->settings.class == TOKENIZER_LLAMA)
        r = set_llama_template(t, err);
    return r < 0 ? r : token_text_init(&t->text, &t->pipeline, err);
}

/* tokenizer.json wins, but LlamaTokenizerFast goes back to tokenizer.model when add_prefix_space is configured. */
static bool takes_spm(const struct settings *s, bool has_json, bool has_spm)
{
    return has_spm && (!has_json || (s->class == TOKENIZER_LLAMA && s->add_prefix_space != UNSET));
}

int tokenizer_open(const char *dir, struct log *log, struct tokenizer **ret, struct err *err)
{
    char json_path[PATH_MAX], spm_path[PATH_MAX];
    bool has_json = path_of(json_path, dir, "tokenizer.json"), has_spm = path_of(spm_path, dir, "tokenizer.model");
    if (!has_json && !has_spm)
        return err_set(err, ERR_NOT_FOUND, "%s holds no tokenizer.json and no tokenizer.model", dir);
    struct tokenizer *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(err, ERR_NOMEM, "no memory for a tokenizer");
    int r = settings_read(&t->settings, dir, !has_json, err);
    bool spm = r >= 0 && takes_spm(&t->settings, has_json, has_spm);
    if (r >= 0)
        r = load(t, spm ? spm_path : json_path, spm, log, err);
    if (r < 0) {
        tokenizer_close(t);
        return r;
    }
    log_info(log, "tokenizer: %s, %d ids, bos %d, eos %d", spm ? spm_path : json_path, (int)t->text.n, (int)t->bos, (int)t->eos);
    *ret = t;
    return 0;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    token_text_done(&t->text);
    pipeline_done(&t->pipeline);
    settings_done(&t->settings);
    free(t);
}

/* ---- facts ---- */

int tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->text.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

int32_t tokenizer_unk(const struct tokenizer *t)
{
    return t->unk;
}

const char *tokenizer_chat_template(const struct tokenizer *t)
{
    return t->settings.chat_template;
}

static bool has_id(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->text.n;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return has_id(t, id) && t->text.special[id];
}

static const char *entry(const struct tokenizer *t, const struct piece *table, int32_t id, size_t *ret_len)
{
    static const struct piece none = {"", 0};
    const struct piece *p = has_id(t, id) ? &table[id] : &none;
    if (ret_len)
        *ret_len = p->len;
    return p->s;
}

const char *tokenizer_token_bytes(const struct tokenizer *t, int32_t id, bool first, size_t *ret_len)
{
    return entry(t, first ? t->text.first : t->text.bytes, id, ret_len);
}

const char *tokenizer_token_string(const struct tokenizer *t, int32_t id, bool first, size_t *ret_len)
{
    return entry(t, first ? t->text.first_strings : t->text.strings, id, ret_len);
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    return entry(t, t->text.pieces, id, NULL);
}

/* ---- encoding ---- */

static int push_all(const int32_t *ids, int n, struct id_sink *out)
{
    int r = 0;
    for (int i = 0; i < n && r >= 0; i++)
        r = ids_push(out, ids[i]);
    return r;
}

static int encode(const struct tokenizer *t, const char *text, size_t len, bool add_special, struct id_sink *out, struct err *err)
{
    size_t valid = utf8_valid_prefix(text, len), before = out->ids->n;
    const struct template_ids *around = &t->pipeline.template;
    if (valid < len)
        return err_set(err, ERR_INVALID, "the text is not valid UTF-8 at byte %zu", valid);
    int r = add_special ? push_all(around->before, around->n_before, out) : 0;
    if (r >= 0)
        r = pipeline_encode(&t->pipeline, text, len, out);
    if (r >= 0 && add_special)
        r = push_all(around->after, around->n_after, out);
    if (r >= 0)
        return 0;
    out->ids->n = before;
    return r == ERR_TOO_LARGE     ? err_set(err, r, "the text has more than %zu tokens", out->max_ids)
           : r == ERR_NOMEM       ? err_set(err, r, "no memory to tokenize %zu bytes", len)
           : r == ERR_UNSUPPORTED ? err_set(err, ERR_INVALID, "the text holds a character that the tokenizer has no token for")
                                  : err_set(err, r, "the text of %zu bytes cannot be tokenized: its regular expression gave up", len);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool add_special, size_t max_ids, struct token_ids *ret,
                     struct err *err)
{
    return encode(t, text, len, add_special, &(struct id_sink){ret, max_ids}, err);
}

/* Bytes of text without the white space at its end, as Python's str.rstrip() sees it. */
static size_t stripped_length(const char *text, size_t len)
{
    size_t kept = 0;
    uint32_t cp;
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_decode(text + i, len - i, &cp);
        if (n == 0)
            return len; /* not UTF-8: encoding will say so */
        if (!unicode_is_python_space(cp))
            kept = i + n;
    }
    return kept;
}

int tokenizer_encode_pair(const struct tokenizer *t, const char *context, size_t context_len, const char *continuation,
                          size_t continuation_len, size_t max_ids, struct token_ids *ret_whole, size_t *ret_n_context, struct err *err)
{
    struct token_ids border = {0};
    size_t start = ret_whole->n;
    char *whole = malloc(context_len + continuation_len + 1);
    if (!whole)
        return err_set(err, ERR_NOMEM, "no memory for a text of %zu bytes", context_len + continuation_len);
    memcpy(whole, context, context_len);
    memcpy(whole + context_len, continuation, continuation_len);
    int r = encode(t, whole, context_len + continuation_len, false, &(struct id_sink){ret_whole, max_ids}, err);
    if (r >= 0) {
        size_t stripped = stripped_length(context, context_len);
        r = encode(t, context, stripped, false, &(struct id_sink){&border, SIZE_MAX}, err);
        if (r < 0)
            ret_whole->n = start;
    }
    if (r >= 0) {
        size_t n = ret_whole->n - start;
        *ret_n_context = border.n < n ? border.n : n;
    }
    token_ids_done(&border);
    free(whole);
    return r;
}

/* ---- decoding ---- */

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, char **ret, size_t *ret_len,
                     struct err *err)
{
    struct string_list tokens;
    struct buf text;
    int r = 0;
    string_list_init(&tokens);
    buf_init(&text, SIZE_MAX / 4);
    for (size_t i = 0; i < n && r >= 0; i++) {
        if (!has_id(t, ids[i]))
            r = err_set(err, ERR_INVALID, "token id %d is not in [0, %d)", (int)ids[i], (int)t->text.n);
        else if (t->text.pieces[ids[i]].len > 0 && !(skip_special && t->text.special[ids[i]]))
            r = string_list_add(&tokens, t->text.pieces[ids[i]].s, t->text.pieces[ids[i]].len);
    }
    if (r >= 0)
        r = decoder_run(&t->pipeline.decoder, &tokens, &text);
    if (r >= 0) {
        *ret = buf_take(&text, ret_len);
        r = *ret ? 0 : ERR_NOMEM;
    }
    string_list_done(&tokens);
    buf_done(&text);
    return r < 0 && r != ERR_INVALID ? err_set(err, r, "no memory to decode %zu tokens", n) : r;
}
