/* The pieces as a vocabulary, and those among them that are looked for in the text. */
#include "tokenizer/spm_parts.h"
#include "tokenizer/strmap.h"

/* The token that added_tokens_decoder has for an id; they are sorted. */
static const struct token_spec *configured(const struct settings *s, int32_t id)
{
    size_t low = 0, high = s->added.n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->added.t[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->added.n && s->added.t[low].id == id ? &s->added.t[low] : NULL;
}

static int index_pieces(const struct spm_source *m, struct strmap *ret)
{
    int n = (int)m->facts.n_pieces, r = strmap_init(ret, (size_t)n);
    for (int id = 0; id < n && r >= 0; id++) {
        size_t len;
        const char *piece = spm_piece(m->spm, id, &len);
        r = strmap_put(ret, piece, len, id);
    }
    return r < 0 ? r : 0;
}

static const struct token_spec *new_name(const struct settings *s, enum spm_rename rename, const struct strmap *pieces, int32_t id)
{
    const struct token_spec *name =
        rename == SPM_RENAME_ALL || (rename == SPM_RENAME_FIRST_THREE && id < SPM_N_NAMED) ? configured(s, id) : NULL;
    int32_t owner = name && rename == SPM_RENAME_ALL ? strmap_get(pieces, name->content, name->len) : -1;
    return owner >= 0 && !configured(s, owner) ? NULL : name;
}

int spm_load_pieces(struct pipeline *p, const struct spm_source *m, const struct settings *s, enum spm_rename rename, struct err *err)
{
    struct strmap pieces = {0};
    int n = (int)m->facts.n_pieces;
    int r = spm_size(m->spm) == n ? 0 : err_set(err, ERR_CORRUPT, "tokenizer.model: pieces were lost");
    if (r >= 0 && rename == SPM_RENAME_ALL && index_pieces(m, &pieces) < 0)
        r = err_set(err, ERR_NOMEM, "no memory for tokenizer.model");
    for (int id = 0; id < n && r >= 0; id++) {
        size_t len;
        const char *piece = spm_piece(m->spm, id, &len);
        const struct token_spec *name = new_name(s, rename, &pieces, id);
        r = vocab_add(&p->vocab, name ? name->content : piece, name ? name->len : len, id, err);
    }
    strmap_done(&pieces);
    return r;
}

int spm_add_symbols(struct pipeline *p, const struct spm_source *m, struct err *err)
{
    int r = 0;
    added_tokens_begin(&p->added, &p->vocab);
    for (int id = 0; id < (int)m->facts.n_pieces && r >= 0; id++) {
        struct added_token t = {.special = m->facts.types[id] == SPM_CONTROL};
        size_t len;
        t.content = spm_piece(m->spm, id, &len);
        t.len = len;
        if (t.special || m->facts.types[id] == SPM_USER_DEFINED)
            r = added_tokens_add(&p->added, &t, &p->vocab, err);
    }
    return r;
}

int spm_extra_symbols(const struct spm_source *m, struct settings *s, bool user_defined, struct err *err)
{
    size_t n = m->facts.n_pieces;
    if (s->extra_given)
        return 0;
    s->extra = (struct token_list){.t = arena_alloc(&s->memory, n + 1, sizeof(*s->extra.t))};
    for (int id = 0; id < (int)n && s->extra.t; id++) {
        struct token_spec t = {.id = -1, .is_object = true, .special = m->facts.types[id] == SPM_CONTROL, .normalized = NOT_NORMALIZED};
        const char *piece = spm_piece(m->spm, id, &t.len);
        if (!t.special && !(user_defined && m->facts.types[id] == SPM_USER_DEFINED))
            continue;
        t.content = arena_strndup(&s->memory, piece, t.len);
        s->extra.t[s->extra.n++] = t;
        if (!t.content)
            s->extra.t = NULL;
    }
    return s->extra.t ? 0 : err_set(err, ERR_NOMEM, "no memory for special tokens");
}

int32_t spm_piece_id(const struct pipeline *p, const struct spm_name *name)
{
    int32_t id = vocab_id(&p->vocab, name->s, name->len);
    return id < 0 ? BPE_UNK_MISSING : id;
}
