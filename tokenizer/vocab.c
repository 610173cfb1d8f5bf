/* Pieces by id (an array) and ids by piece (a map whose keys are the array's strings). */
#include "tokenizer/vocab.h"
#include <stdlib.h>
#include <string.h>

int vocab_init(struct vocab *v, size_t expected, struct err *err)
{
    *v = (struct vocab){0};
    arena_init(&v->text, VOCAB_TEXT_BYTES);
    if (strmap_init(&v->ids, expected) < 0)
        return err_set(err, ERR_NOMEM, "no memory for a vocabulary of %zu pieces", expected);
    return 0;
}

void vocab_done(struct vocab *v)
{
    free(v->pieces);
    strmap_done(&v->ids);
    arena_done(&v->text);
    *v = (struct vocab){0};
}

static int make_room(struct vocab *v, int32_t id)
{
    if (id < v->cap)
        return 0;
    int32_t cap = v->cap ? v->cap : 1024;
    while (cap <= id)
        cap *= 2;
    struct piece *pieces = realloc(v->pieces, (size_t)cap * sizeof(*pieces));
    if (!pieces)
        return ERR_NOMEM;
    memset(pieces + v->cap, 0, (size_t)(cap - v->cap) * sizeof(*pieces));
    v->pieces = pieces;
    v->cap = cap;
    return 0;
}

int vocab_add(struct vocab *v, const char *s, size_t len, int64_t id, struct err *err)
{
    if (id < 0 || id >= VOCAB_MAX_IDS)
        return err_set(err, ERR_CORRUPT, "vocabulary: id %lld of \"%.40s\" is not in [0, %d)", (long long)id, s, VOCAB_MAX_IDS);
    if (len > VOCAB_MAX_PIECE_BYTES)
        return err_set(err, ERR_CORRUPT, "vocabulary: piece %lld has %zu bytes; the limit is %d", (long long)id, len,
                       VOCAB_MAX_PIECE_BYTES);
    if (make_room(v, (int32_t)id) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the vocabulary");
    if (v->pieces[id].s)
        return err_set(err, ERR_CORRUPT, "vocabulary: id %lld is given twice, to \"%.40s\" and \"%.40s\"", (long long)id, v->pieces[id].s,
                       s);
    const char *copy = arena_strndup(&v->text, s, len);
    int r = copy ? strmap_put(&v->ids, copy, len, (int32_t)id) : ERR_NOMEM;
    if (r < 0)
        return err_set(err, ERR_NOMEM, "no memory for the vocabulary");
    if (r == 0)
        return err_set(err, ERR_CORRUPT, "vocabulary: piece \"%.40s\" is given twice", copy);
    v->pieces[id] = (struct piece){copy, (uint32_t)len};
    v->count++;
    if (id >= v->n)
        v->n = (int32_t)id + 1;
    return 0;
}

int32_t vocab_id(const struct vocab *v, const char *s, size_t len)
{
    return strmap_get(&v->ids, s, len);
}
