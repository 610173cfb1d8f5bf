/* The face: which files are read, and the calls over the pipeline and the tables of spellings. */
#include "tokenizer/tokenizer.h"
#include "common/utf8.h"
#include "tokenizer/files.h"
#include "tokenizer/hf_json.h"
#include "tokenizer/infill.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/settings.h"
#include "tokenizer/spm_model.h"
#include "tokenizer/token_text.h"
#include "tokenizer/unicode.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tokenizer {
    struct pipeline pipeline;
    struct token_text text;
    struct settings settings;
    struct infill infill;
    int32_t bos, eos, pad, unk;
};

/* ---- opening ---- */

static int32_t role_id(const struct tokenizer *t, int role, int32_t otherwise)
{
    const struct token_spec *token = &t->settings.roles[role];
    if (!token->content)
        return otherwise;
    const struct added_token *added = added_tokens_find(&t->pipeline.added, token->content, token->len);
    return added ? added->id : vocab_id(&t->pipeline.vocab, token->content, token->len);
}

/* What version 4's classes do to the add_prefix_space of a pre-tokenizer; version 5's leave files as they are. */
static struct hf_overrides overrides_of(const struct settings *s)
{
    const struct class_rules *rules = class_rules_of(s->class, s->rules);
    struct hf_overrides o = {.lone_prefix = HF_PREFIX_AS_FILED};
    if (s->rules == TOKENIZER_RULES_5)
        return o;
    o.prefix_for_all = rules->prefix_for_all && knob_is_true(s->add_prefix_space, false);
    if (s->add_prefix_space == KNOB_TRUE)
        o.lone_prefix = HF_PREFIX_YES;
    else if (s->add_prefix_space == KNOB_FALSE || (s->add_prefix_space == KNOB_ABSENT && !rules->prefix_is_null))
        o.lone_prefix = HF_PREFIX_NO;
    return o;
}

static int load_json(struct tokenizer *t, const struct tokenizer_files *f, struct log *log, struct err *err)
{
    const struct settings *s = &t->settings;
    const struct class_rules *rules = class_rules_of(s->class, s->rules);
    struct hf_overrides overrides = overrides_of(s);
    if (!rules->frame)
        return hf_json_fill(&t->pipeline, f->json, &overrides, log, err);
    json_t *frame = rules->frame(s), *reframed = NULL;
    int r = hf_reframe(f->json, frame, &reframed, err);
    if (r >= 0)
        r = hf_json_fill(&t->pipeline, reframed, &overrides, log, err);
    json_decref(frame);
    json_decref(reframed);
    return r;
}

/* ---- BOS and EOS ---- */

/* update_post_processor: BOS in front and EOS behind, where asked for. Version 5 does without a token that there is none of. */
static int set_template(struct tokenizer *t, bool bos, bool eos, struct err *err)
{
    struct template_ids *around = &t->pipeline.template;
    const struct token_spec *roles = t->settings.roles;
    *around = (struct template_ids){0};
    if (t->settings.rules == TOKENIZER_RULES_5) {
        bos &= roles[ROLE_BOS].content != NULL;
        eos &= roles[ROLE_EOS].content != NULL;
    }
    if ((bos && role_id(t, ROLE_BOS, -1) < 0) || (eos && role_id(t, ROLE_EOS, -1) < 0))
        return err_set(err, ERR_CORRUPT, "tokenizer_config.json asks for a BOS or EOS token that the tokenizer does not have");
    if (bos)
        around->before[around->n_before++] = role_id(t, ROLE_BOS, -1);
    if (eos)
        around->after[around->n_after++] = role_id(t, ROLE_EOS, -1);
    t->infill.bos = bos;
    t->infill.eos = eos;
    return 0;
}

/* After the last added token. */
static int check_template(const struct tokenizer *t, struct err *err)
{
    const struct template_ids *around = &t->pipeline.template;
    for (int i = 0; i < around->n_before + around->n_after; i++) {
        int32_t id = i < around->n_before ? around->before[i] : around->after[i - around->n_before];
        if (id >= t->text.n)
            return err_set(err, ERR_CORRUPT, "tokenizer.json: post_processor names the id %d, of %d", (int)id, (int)t->text.n);
    }
    return 0;
}

static int choose_template(struct tokenizer *t, struct err *err)
{
    const struct settings *s = &t->settings;
    const struct class_rules *rules = class_rules_of(s->class, s->rules);
    bool bos = knob_is_true(s->add_bos, rules->add_bos), eos = knob_is_true(s->add_eos, false), own = rules->template == TEMPLATE_OWN;
    if (rules->template == TEMPLATE_NO_BOS && bos)
        return err_set(err, ERR_UNSUPPORTED, "tokenizer_config.json: %s cannot add a BOS token", s->class->name);
    if (s->rules == TOKENIZER_RULES_5)
        own |= !t->pipeline.template.from_file || s->add_bos != KNOB_ABSENT || s->add_eos != KNOB_ABSENT;
    return own ? set_template(t, bos, eos, err) : 0;
}

/* ---- the whole ---- */

static int load(struct tokenizer *t, const struct tokenizer_files *f, struct log *log, struct err *err)
{
    struct pipeline *p = &t->pipeline;
    struct settings *s = &t->settings;
    int r = pipeline_init(p, s->rules, err);
    if (r >= 0)
        r = f->spm ? spm_model_load(p, f->spm_path, s, err) : load_json(t, f, log, err);
    if (r >= 0)
        r = settings_add_tokens(s, f->spm ? NULL : hf_pad_token(f->json), &p->added, &p->vocab, err);
    p->added.skip_special = s->split_special == KNOB_TRUE;
    if (r >= 0)
        r = pipeline_finish(p, err);
    if (r >= 0)
        r = infill_init(&t->infill, s, p, err);
    if (r >= 0)
        r = choose_template(t, err);
    if (r >= 0)
        r = token_text_init(&t->text, p, err);
    return r < 0 ? r : check_template(t, err);
}

static int open_files(struct tokenizer *t, struct tokenizer_files *f, const char *dir, enum tokenizer_rules rules, struct log *log,
                      struct err *err)
{
    int r = tokenizer_files_find(f, dir, err);
    if (r >= 0)
        r = settings_read(&t->settings, dir, rules, f->json, log, err);
    if (r >= 0)
        r = tokenizer_files_choose(f, dir, &t->settings, log, err);
    if (r >= 0)
        r = load(t, f, log, err);
    if (r < 0)
        return r;
    t->bos = role_id(t, ROLE_BOS, t->settings.generation_bos);
    t->eos = role_id(t, ROLE_EOS, t->settings.generation_eos);
    t->pad = role_id(t, ROLE_PAD, t->settings.generation_pad);
    t->unk = role_id(t, ROLE_UNK, -1);
    log_info(log, "tokenizer: %s by the rules of transformers %d, %d ids, bos %d, eos %d", f->spm ? f->spm_path : f->json_path, (int)rules,
             (int)t->text.n, (int)t->bos, (int)t->eos);
    return 0;
}

int tokenizer_open(const char *dir, enum tokenizer_rules rules, struct log *log, struct tokenizer **ret, struct err *err)
{
    struct tokenizer_files *f = calloc(1, sizeof(*f));
    struct tokenizer *t = calloc(1, sizeof(*t));
    int r = f && t ? open_files(t, f, dir, rules, log, err) : err_set(err, ERR_NOMEM, "no memory for a tokenizer");
    if (f)
        tokenizer_files_done(f);
    free(f);
    if (r < 0)
        tokenizer_close(t);
    else
        *ret = t;
    return r;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    token_text_done(&t->text);
    infill_done(&t->infill);
    pipeline_done(&t->pipeline);
    settings_done(&t->settings);
    free(t);
}

/* ---- facts ---- */

enum tokenizer_rules tokenizer_rules(const struct tokenizer *t)
{
    return t->settings.rules;
}

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

static int encode_plain(const struct tokenizer *t, const char *text, size_t len, bool add_special, struct id_sink *out)
{
    const struct template_ids *around = &t->pipeline.template;
    int r = add_special ? push_all(around->before, around->n_before, out) : 0;
    if (r >= 0)
        r = pipeline_encode(&t->pipeline, text, len, out);
    return r >= 0 && add_special ? push_all(around->after, around->n_after, out) : r;
}

/* Without text behind the gap, the gap is only cut off. */
static int encode_gap(const struct tokenizer *t, const char *text, size_t len, size_t at, bool add_special, struct id_sink *out)
{
    const struct infill *f = &t->infill;
    if (at + f->mark_len == len)
        return encode_plain(t, text, at, add_special, out);
    return infill_encode(f, &t->pipeline, text, len, at, add_special && f->bos ? role_id(t, ROLE_BOS, -1) : -1,
                         add_special && f->eos ? role_id(t, ROLE_EOS, -1) : -1, out);
}

static int encode(const struct tokenizer *t, const char *text, size_t len, bool add_special, struct id_sink *out, struct err *err)
{
    size_t valid = utf8_valid_prefix(text, len), before = out->ids->n, gap = 0;
    if (valid < len)
        return err_set(err, ERR_INVALID, "the text is not valid UTF-8 at byte %zu", valid);
    int r = infill_find(&t->infill, text, len, &gap, err);
    if (r < 0)
        return r;
    r = r ? encode_gap(t, text, len, gap, add_special, out) : encode_plain(t, text, len, add_special, out);
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
            r = string_list_add(&tokens, t->text.decoded[ids[i]].s, t->text.decoded[ids[i]].len);
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
