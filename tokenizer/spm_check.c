/* A reader for the few protobuf fields of sentencepiece_model.proto that matter, and a writer for the rebuilt message. */
#include "tokenizer/spm_check.h"
#include "common/utf8.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- protobuf ---- */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct reader {
    const unsigned char *p, *end;
    bool bad;
};

struct field {
    uint64_t number;
    enum wire wire;
    uint64_t value;             /* VARINT, 32, 64 */
    const unsigned char *bytes; /* BYTES */
    size_t len;
};

static uint64_t read_varint(struct reader *r)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end)
            break;
        unsigned char b = *r->p++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return v;
    }
    r->bad = true;
    return 0;
}

static uint64_t read_fixed(struct reader *r, size_t n)
{
    uint64_t v = 0;
    if ((size_t)(r->end - r->p) < n) {
        r->bad = true;
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)r->p[i] << (8 * i);
    r->p += n;
    return v;
}

/* The next field; false at the end or when r->bad. */
static bool next_field(struct reader *r, struct field *f)
{
    if (r->bad || r->p == r->end)
        return false;
    uint64_t tag = read_varint(r);
    *f = (struct field){.number = tag >> 3, .wire = (enum wire)(tag & 7)};
    switch (f->wire) {
    case WIRE_VARINT: f->value = read_varint(r); break;
    case WIRE_64: f->value = read_fixed(r, 8); break;
    case WIRE_32: f->value = read_fixed(r, 4); break;
    case WIRE_BYTES:
        f->value = read_varint(r);
        f->len = (size_t)f->value;
        f->bytes = r->p;
        if (f->value > (uint64_t)(r->end - r->p))
            r->bad = true;
        else
            r->p += f->len;
        break;
    default: r->bad = true;
    }
    if (f->number == 0 || f->number > 536870911)
        r->bad = true;
    return !r->bad;
}

static struct reader reader_of(const unsigned char *p, size_t len)
{
    return (struct reader){.p = p, .end = p + len};
}

static int put_varint(struct buf *b, uint64_t v)
{
    unsigned char out[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        out[n++] = (unsigned char)(v | 0x80);
    out[n++] = (unsigned char)v;
    return buf_append(b, out, n);
}

static int put_bytes(struct buf *b, unsigned number, const void *bytes, size_t len)
{
    int r = put_varint(b, (uint64_t)number << 3 | WIRE_BYTES);
    if (r >= 0)
        r = put_varint(b, len);
    return r < 0 ? r : buf_append(b, bytes, len);
}

static int put_number(struct buf *b, unsigned number, uint64_t v)
{
    int r = put_varint(b, (uint64_t)number << 3 | WIRE_VARINT);
    return r < 0 ? r : put_varint(b, v);
}

/* ---- pieces ---- */

enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum {
    TRAINER_MODEL_TYPE = 3,
    TRAINER_BYTE_FALLBACK = 35,
    TRAINER_UNK_ID = 40,
    TRAINER_BOS_ID,
    TRAINER_EOS_ID,
    TRAINER_UNK_PIECE = 45,
    TRAINER_BOS_PIECE,
    TRAINER_EOS_PIECE
};
enum { NORMALIZER_NAME = 1, NORMALIZER_CHARSMAP = 2, NORMALIZER_DUMMY_PREFIX = 3, NORMALIZER_EXTRA_SPACES = 4, NORMALIZER_ESCAPE = 5 };

struct checker {
    struct buf *out;
    struct spm_facts facts;
    size_t cap_types;
    bool seen_byte[256];
    size_t n_unknown, n_bytes;
    const unsigned char *unk_text;
    size_t unk_len;
    struct err *err;
};

struct piece_fields {
    const unsigned char *text;
    size_t len;
    float score;
    uint64_t type;
};

static int corrupt_piece(const struct checker *c, const char *what)
{
    return err_set(c->err, ERR_CORRUPT, "tokenizer.model: piece %zu %s", c->facts.n_pieces, what);
}

static int read_piece(const struct checker *c, const struct field *f, struct piece_fields *ret)
{
    struct reader r = reader_of(f->bytes, f->len);
    struct field in;
    *ret = (struct piece_fields){.type = SPM_NORMAL};
    while (next_field(&r, &in)) {
        uint32_t bits = (uint32_t)in.value;
        if (in.number == PIECE_TEXT && in.wire == WIRE_BYTES) {
            ret->text = in.bytes;
            ret->len = in.len;
        } else if (in.number == PIECE_SCORE && in.wire == WIRE_32) {
            memcpy(&ret->score, &bits, sizeof(bits));
        } else if (in.number == PIECE_TYPE && in.wire == WIRE_VARINT) {
            ret->type = in.value;
        } else if (in.number <= PIECE_TYPE) {
            return corrupt_piece(c, "has a field of the wrong wire type");
        }
    }
    return r.bad ? corrupt_piece(c, "is malformed") : 0;
}

static int hex_digit(unsigned char d)
{
    return d >= '0' && d <= '9' ? d - '0' : d >= 'A' && d <= 'F' ? d - 'A' + 10 : -1;
}

/* "<0xNN>" with upper-case digits, or -1. */
static int byte_value(const struct piece_fields *p)
{
    if (p->len != 6 || memcmp(p->text, "<0x", 3) != 0 || p->text[5] != '>' || hex_digit(p->text[3]) < 0 || hex_digit(p->text[4]) < 0)
        return -1;
    return hex_digit(p->text[3]) * 16 + hex_digit(p->text[4]);
}

static int check_piece(struct checker *c, const struct piece_fields *p)
{
    const char *text = (const char *)p->text;
    if (p->len == 0)
        return corrupt_piece(c, "is empty");
    if (p->len > SPM_MAX_PIECE_BYTES)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model: piece %zu has %zu bytes; the limit is %d", c->facts.n_pieces, p->len,
                       SPM_MAX_PIECE_BYTES);
    if (memchr(text, 0, p->len))
        return corrupt_piece(c, "holds a NUL byte");
    if (utf8_valid_prefix(text, p->len) != p->len)
        return corrupt_piece(c, "is not valid UTF-8");
    if (!isfinite(p->score))
        return corrupt_piece(c, "has a score that is not finite");
    if (p->type < SPM_NORMAL || p->type > SPM_BYTE)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model: piece %zu has type %llu, which is not in [1, 6]", c->facts.n_pieces,
                       (unsigned long long)p->type);
    if (p->type == SPM_BYTE) {
        int value = byte_value(p);
        if (value < 0 || c->seen_byte[value])
            return corrupt_piece(c, "is a byte piece, but not spelled <0xNN>, or given twice");
        c->seen_byte[value] = true;
        c->n_bytes++;
    }
    if (p->type == SPM_UNKNOWN) {
        c->n_unknown++;
        c->facts.unk_id = (int)c->facts.n_pieces;
        c->unk_text = p->text;
        c->unk_len = p->len;
    }
    return 0;
}

static int put_piece(struct checker *c, const struct piece_fields *p)
{
    struct buf one;
    uint32_t bits;
    memcpy(&bits, &p->score, sizeof(bits));
    buf_init(&one, SPM_MAX_PIECE_BYTES + 64);
    int r = put_bytes(&one, PIECE_TEXT, p->text, p->len);
    if (r >= 0)
        r = put_varint(&one, PIECE_SCORE << 3 | WIRE_32);
    if (r >= 0)
        r = buf_append(
            &one,
            (unsigned char[]){(unsigned char)bits, (unsigned char)(bits >> 8), (unsigned char)(bits >> 16), (unsigned char)(bits >> 24)},
            4);
    if (r >= 0)
        r = put_number(&one, PIECE_TYPE, p->type);
    if (r >= 0)
        r = put_bytes(c->out, MODEL_PIECES, one.data, one.len);
    buf_done(&one);
    return r < 0 ? err_set(c->err, ERR_NOMEM, "no memory for tokenizer.model") : 0;
}

static int keep_type(struct checker *c, const struct piece_fields *p)
{
    if (c->facts.n_pieces == c->cap_types) {
        size_t cap = c->cap_types ? c->cap_types * 2 : 4096;
        unsigned char *types = realloc(c->facts.types, cap);
        if (!types)
            return err_set(c->err, ERR_NOMEM, "no memory for tokenizer.model");
        c->facts.types = types;
        c->cap_types = cap;
    }
    c->facts.types[c->facts.n_pieces] = (unsigned char)p->type;
    return 0;
}

static int take_piece(struct checker *c, const struct field *f)
{
    struct piece_fields p;
    if (c->facts.n_pieces == SPM_MAX_PIECES)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model: more than %d pieces", SPM_MAX_PIECES);
    int r = read_piece(c, f, &p);
    if (r >= 0)
        r = check_piece(c, &p);
    if (r >= 0)
        r = keep_type(c, &p);
    if (r >= 0)
        r = put_piece(c, &p);
    c->facts.n_pieces++;
    return r;
}

/* ---- the other parts ---- */

static int64_t signed_of(uint64_t v)
{
    return (int32_t)(uint32_t)v;
}

static int read_name(const struct checker *c, const struct field *f, struct spm_name *ret)
{
    if (f->len > SPM_MAX_PIECE_BYTES || memchr(f->bytes, 0, f->len) || utf8_valid_prefix((const char *)f->bytes, f->len) != f->len)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model: trainer_spec names a piece that has more than %d bytes, or is no text",
                       SPM_MAX_PIECE_BYTES);
    memcpy(ret->s, f->bytes, f->len);
    ret->s[f->len] = 0;
    ret->len = f->len;
    return 0;
}

/* The ids and pieces that trainer_spec names. */
static int read_named(struct checker *c, const struct field *f)
{
    int64_t *ids[] = {&c->facts.named_unk, &c->facts.named_bos, &c->facts.named_eos};
    struct spm_name *names[] = {&c->facts.unk_piece, &c->facts.bos_piece, &c->facts.eos_piece};
    if (f->number >= TRAINER_UNK_ID && f->number <= TRAINER_EOS_ID && f->wire == WIRE_VARINT)
        *ids[f->number - TRAINER_UNK_ID] = signed_of(f->value);
    if (f->number >= TRAINER_UNK_PIECE && f->number <= TRAINER_EOS_PIECE && f->wire == WIRE_BYTES)
        return read_name(c, f, names[f->number - TRAINER_UNK_PIECE]);
    return 0;
}

static int read_trainer(struct checker *c, const struct field *f)
{
    struct reader r = reader_of(f->bytes, f->len);
    struct field in;
    while (next_field(&r, &in)) {
        if (in.number == TRAINER_MODEL_TYPE && in.wire == WIRE_VARINT) {
            if (in.value < SPM_UNIGRAM || in.value > SPM_CHAR)
                return err_set(c->err, ERR_CORRUPT, "tokenizer.model: trainer_spec.model_type %llu is not in [1, 4]",
                               (unsigned long long)in.value);
            c->facts.model_type = (enum spm_model_type)in.value;
        } else if (in.number == TRAINER_BYTE_FALLBACK && in.wire == WIRE_VARINT) {
            c->facts.byte_fallback = in.value != 0;
        } else {
            int e = read_named(c, &in);
            if (e < 0)
                return e;
        }
    }
    return r.bad ? err_set(c->err, ERR_CORRUPT, "tokenizer.model: trainer_spec is malformed") : 0;
}

/* precompiled_charsmap: a 32-bit size, a double-array trie of so many bytes, and NUL-terminated strings it points into. */
static int check_charsmap(struct checker *c, const struct field *f)
{
    free(c->facts.charsmap);
    c->facts.charsmap = NULL;
    c->facts.charsmap_len = f->len;
    if (f->len == 0)
        return 0;
    struct reader r = reader_of(f->bytes, f->len);
    uint64_t trie = read_fixed(&r, 4);
    if (r.bad || trie < 1024 || trie % 4 != 0 || trie >= f->len - 4 || f->bytes[f->len - 1] != 0)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model: precompiled_charsmap of %zu bytes holds a trie of %llu", f->len,
                       (unsigned long long)trie);
    c->facts.charsmap = malloc(f->len);
    if (!c->facts.charsmap)
        return err_set(c->err, ERR_NOMEM, "no memory for tokenizer.model");
    memcpy(c->facts.charsmap, f->bytes, f->len);
    return 0;
}

static int check_normalizer(struct checker *c, const struct field *f)
{
    struct reader r = reader_of(f->bytes, f->len);
    struct field in;
    int e = 0;
    while (e >= 0 && next_field(&r, &in)) {
        bool *flags[] = {&c->facts.dummy_prefix, &c->facts.remove_extra_spaces, &c->facts.escape_spaces};
        if (in.number == NORMALIZER_CHARSMAP && in.wire == WIRE_BYTES)
            e = check_charsmap(c, &in);
        if (in.number >= NORMALIZER_DUMMY_PREFIX && in.number <= NORMALIZER_ESCAPE && in.wire == WIRE_VARINT)
            *flags[in.number - NORMALIZER_DUMMY_PREFIX] = in.value != 0;
    }
    return r.bad ? err_set(c->err, ERR_CORRUPT, "tokenizer.model: normalizer_spec is malformed") : e;
}

static int put_specs(struct checker *c)
{
    struct buf trainer, normalizer;
    buf_init(&trainer, SPM_MAX_PIECE_BYTES + 64);
    buf_init(&normalizer, 64);
    int r = put_number(&trainer, TRAINER_MODEL_TYPE, c->facts.model_type);
    if (r >= 0)
        r = put_number(&trainer, TRAINER_BYTE_FALLBACK, c->facts.byte_fallback);
    if (r >= 0)
        r = put_number(&trainer, TRAINER_UNK_ID, (uint64_t)c->facts.unk_id);
    if (r >= 0)
        r = put_bytes(&trainer, TRAINER_UNK_PIECE, c->unk_text, c->unk_len);
    if (r >= 0)
        r = put_bytes(&normalizer, NORMALIZER_NAME, "identity", 8);
    if (r >= 0)
        r = put_number(&normalizer, NORMALIZER_DUMMY_PREFIX, 0);
    if (r >= 0)
        r = put_number(&normalizer, NORMALIZER_EXTRA_SPACES, 0);
    if (r >= 0)
        r = put_number(&normalizer, NORMALIZER_ESCAPE, 1);
    if (r >= 0)
        r = put_bytes(c->out, MODEL_TRAINER, trainer.data, trainer.len);
    if (r >= 0)
        r = put_bytes(c->out, MODEL_NORMALIZER, normalizer.data, normalizer.len);
    buf_done(&trainer);
    buf_done(&normalizer);
    return r < 0 ? err_set(c->err, ERR_NOMEM, "no memory for tokenizer.model") : 0;
}

static int check_whole(const struct checker *c)
{
    if (c->facts.n_pieces == 0)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model has no pieces");
    if (c->n_unknown != 1)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model has %zu pieces of type UNKNOWN; it needs one", c->n_unknown);
    if (c->facts.byte_fallback && c->n_bytes != 256)
        return err_set(c->err, ERR_CORRUPT, "tokenizer.model says byte_fallback, but has %zu byte pieces of 256", c->n_bytes);
    return 0;
}

void spm_facts_done(struct spm_facts *f)
{
    free(f->types);
    free(f->charsmap);
    f->types = NULL;
    f->charsmap = NULL;
}

int spm_check(const unsigned char *data, size_t len, struct buf *ret_model, struct spm_facts *ret_facts, struct err *err)
{
    struct checker c = {.out = ret_model,
                        .err = err,
                        .facts = {.model_type = SPM_UNIGRAM,
                                  .named_bos = 1,
                                  .named_eos = 2,
                                  .unk_piece = {"<unk>", 5},
                                  .bos_piece = {"<s>", 3},
                                  .eos_piece = {"</s>", 4},
                                  .dummy_prefix = true,
                                  .remove_extra_spaces = true,
                                  .escape_spaces = true}};
    struct reader r = reader_of(data, len);
    struct field f;
    int e = len <= SPM_MAX_FILE_BYTES
                ? 0
                : err_set(err, ERR_CORRUPT, "tokenizer.model has %zu bytes; the limit is %zu", len, SPM_MAX_FILE_BYTES);
    while (e >= 0 && next_field(&r, &f)) {
        if (f.number <= MODEL_NORMALIZER && f.wire != WIRE_BYTES)
            e = err_set(err, ERR_CORRUPT, "tokenizer.model: field %d has wire type %d", (int)f.number, (int)f.wire);
        else if (f.number == MODEL_PIECES)
            e = take_piece(&c, &f);
        else if (f.number == MODEL_TRAINER)
            e = read_trainer(&c, &f);
        else if (f.number == MODEL_NORMALIZER)
            e = check_normalizer(&c, &f);
    }
    if (e >= 0 && r.bad)
        e = err_set(err, ERR_CORRUPT, "tokenizer.model is malformed or truncated at byte %zu of %zu", (size_t)(r.p - data), len);
    if (e >= 0)
        e = check_whole(&c);
    if (e >= 0)
        e = put_specs(&c);
    if (e >= 0)
        *ret_facts = c.facts;
    else
        spm_facts_done(&c.facts);
    return e;
}
