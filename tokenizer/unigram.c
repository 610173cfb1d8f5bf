/* The best path is kept for the end of every beginning of the word; sums are formed in the library's order, so that ties and
 * rounding fall alike. */
#include "tokenizer/unigram.h"
#include "common/utf8.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNK_PENALTY 10.0
#define STACK_STEPS 128

struct best { /* the best path that ends at a byte of the word */
    double score;
    uint32_t len; /* of its last piece; 0: no path yet */
    int32_t id;   /* of its last piece */
};

int unigram_init(struct unigram *u, const struct vocab *vocab, double *scores, int32_t unk, bool byte_fallback, struct err *err)
{
    double lowest = INFINITY;
    size_t bytes = 0;
    *u = (struct unigram){.vocab = vocab, .scores = scores, .unk = unk, .byte_fallback = byte_fallback};
    trie_init(&u->pieces);
    for (int32_t id = 0; id < vocab->n; id++) {
        const struct piece *p = &vocab->pieces[id];
        bytes += p->len;
        lowest = scores[id] < lowest ? scores[id] : lowest;
        if (bytes > UNIGRAM_MAX_TEXT_BYTES)
            return err_set(err, ERR_CORRUPT, "unigram model: the pieces have more than %zu bytes", UNIGRAM_MAX_TEXT_BYTES);
        if (p->s && trie_add(&u->pieces, p->s, p->len, id, NULL) < 0)
            return err_set(err, ERR_NOMEM, "no memory for a unigram model");
    }
    if (vocab->n == 0)
        return err_set(err, ERR_CORRUPT, "unigram model: there are no pieces");
    u->unk_score = lowest - UNK_PENALTY;
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)i);
        u->byte_ids[i] = vocab_id(vocab, name, 6);
    }
    return 0;
}

void unigram_done(struct unigram *u)
{
    free(u->scores);
    if (u->vocab)
        trie_done(&u->pieces);
    *u = (struct unigram){0};
}

static void offer(struct best *to, double score, size_t len, int32_t id)
{
    if (to->len == 0 || score > to->score)
        *to = (struct best){score, (uint32_t)len, id};
}

static int find_path(const struct unigram *u, const char *word, size_t len, struct best *best)
{
    for (size_t at = 0, step; at < len; at += step) {
        struct trie_walk walk = {at, TRIE_START};
        bool single = false;
        step = utf8_decode(word + at, len - at, NULL);
        step = step ? step : 1; /* not reached: callers pass valid UTF-8 */
        for (int32_t id; (id = trie_next(&u->pieces, word, len, &walk)) >= 0;) {
            offer(&best[walk.at], u->scores[id] + best[at].score, walk.at - at, id);
            single |= walk.at - at == step;
        }
        if (single)
            continue;
        if (u->unk < 0)
            return ERR_UNSUPPORTED;
        offer(&best[at + step], u->unk_score + best[at].score, step, u->unk);
    }
    return 0;
}

/* What unknown characters side by side become. Together they may spell a piece that scored too low. */
static int push_unknown(const struct unigram *u, const char *s, size_t len, struct id_sink *out)
{
    int32_t id = vocab_id(u->vocab, s, len);
    bool bytes = id < 0 && u->byte_fallback;
    int r = 0;
    for (size_t i = 0; i < len && bytes; i++)
        bytes = u->byte_ids[(unsigned char)s[i]] >= 0;
    if (!bytes)
        return ids_push(out, id >= 0 ? id : u->unk);
    for (size_t i = 0; i < len && r >= 0; i++)
        r = ids_push(out, u->byte_ids[(unsigned char)s[i]]);
    return r;
}

/* Turns the links round: best[at].len becomes the length of the piece that begins at `at`, best[at].id its id. */
static void turn_round(struct best *best, size_t len)
{
    struct best piece = best[len];
    for (size_t end = len; end > 0;) {
        size_t start = end - piece.len;
        struct best before = best[start];
        best[start] = piece;
        piece = before;
        end = start;
    }
}

static int push_path(const struct unigram *u, const char *word, size_t len, const struct best *best, struct id_sink *out)
{
    int r = 0;
    for (size_t at = 0, next; at < len && r >= 0; at = next) {
        next = at + best[at].len;
        if (best[at].id != u->unk) {
            r = ids_push(out, best[at].id);
            continue;
        }
        while (next < len && best[next].id == u->unk)
            next += best[next].len;
        r = push_unknown(u, word + at, next - at, out);
    }
    return r;
}

int unigram_encode(const struct unigram *u, const char *word, size_t len, struct id_sink *out)
{
    struct best stack[STACK_STEPS + 1], *best = stack;
    if (len > STACK_STEPS) {
        best = malloc((len + 1) * sizeof(*best));
        if (!best)
            return ERR_NOMEM;
    }
    memset(best, 0, (len + 1) * sizeof(*best));
    int r = find_path(u, word, len, best);
    if (r >= 0) {
        turn_round(best, len);
        r = push_path(u, word, len, best, out);
    }
    if (best != stack)
        free(best);
    return r;
}
