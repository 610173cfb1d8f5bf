/* Steps are chained: what one step cuts goes at once into the next, and out of the last to the caller, so no list of words
 * is ever built. A step that changes its text does so in memory of its own level. */
#include "tokenizer/pretokenizer.h"
#include "common/buf.h"
#include "tokenizer/byte_chars.h"
#include <stdlib.h>
#include <string.h>

#define STACK_BYTES 512

struct run {
    const struct pretokenizer *p;
    pretokenizer_emit emit;
    void *arg;
};

static int run_from(const struct run *r, int step, const struct stretch *t);

/* ---- cutting ---- */

/* A pending piece waits for what the behaviour does with the next one. */
struct cutter {
    const struct run *run;
    int next_step;
    const struct stretch *text;
    enum split_behavior behavior;
    size_t start, end; /* pending; empty: none */
    bool pending_match;
    bool previous_match;
};

static int give(struct cutter *c)
{
    size_t start = c->start, end = c->end;
    c->start = c->end = 0;
    if (start == end)
        return 0;
    struct stretch piece = stretch_cut(c->text, start, end);
    return run_from(c->run, c->next_step, &piece);
}

/* Does the part [.., is_match) lengthen the pending piece? */
static bool joins(const struct cutter *c, bool is_match)
{
    switch (c->behavior) {
    case SPLIT_CONTIGUOUS: return is_match == c->previous_match;
    case SPLIT_MERGED_WITH_PREVIOUS: return is_match && !c->previous_match;
    case SPLIT_MERGED_WITH_NEXT: return !is_match && c->pending_match;
    default: return false;
    }
}

static int part(struct cutter *c, size_t start, size_t end, bool is_match)
{
    int r = 0;
    if (c->end > c->start && joins(c, is_match)) {
        c->end = end;
        c->pending_match = false;
    } else {
        r = give(c);
        c->start = start;
        c->end = is_match && c->behavior == SPLIT_REMOVED ? start : end;
        c->pending_match = is_match;
    }
    c->previous_match = is_match;
    return r;
}

static int cut(const struct run *run, int next_step, const struct stretch *t, const struct pattern *p, enum split_behavior behavior,
               bool invert)
{
    struct cutter c = {.run = run, .next_step = next_step, .text = t, .behavior = behavior};
    struct pattern_scan scan = {0};
    size_t start, end, done = 0;
    int r;
    while ((r = pattern_next(p, t->s, t->len, &scan, &start, &end)) > 0) {
        if (start > done)
            r = part(&c, done, start, invert);
        if (r >= 0)
            r = part(&c, start, end, !invert); /* may be empty: then it only separates */
        if (r < 0)
            return r;
        done = end;
    }
    if (r >= 0 && done < t->len)
        r = part(&c, done, t->len, invert);
    return r < 0 ? r : give(&c);
}

/* ---- steps that change the text ---- */

static int metaspace(const struct run *run, int step, const struct stretch *t)
{
    const struct pretokenizer_step *s = &run->p->steps[step];
    size_t mark_len = strlen(s->mark), origin = t->origin;
    struct buf b;
    buf_init(&b, SIZE_MAX / 4);
    bool marked = t->len > 0 && (t->s[0] == ' ' || (t->len >= mark_len && memcmp(t->s, s->mark, mark_len) == 0));
    bool prepend = !marked && (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && t->origin > 0));
    int r = prepend ? buf_append(&b, s->mark, mark_len) : 0;
    for (size_t i = 0; i < t->len && r >= 0;) {
        const char *space = memchr(t->s + i, ' ', t->len - i);
        size_t n = space ? (size_t)(space - (t->s + i)) : t->len - i;
        r = buf_append(&b, t->s + i, n);
        if (r >= 0 && space)
            r = buf_append(&b, s->mark, mark_len);
        if (space && i + n < t->origin)
            origin += mark_len - 1;
        i += n + (space != NULL);
    }
    struct stretch marked_text = {b.data, b.len, t->first, origin && prepend ? origin + mark_len : origin};
    if (r >= 0)
        r = s->pattern ? cut(run, step + 1, &marked_text, s->pattern, SPLIT_MERGED_WITH_NEXT, false)
                       : run_from(run, step + 1, &marked_text);
    buf_done(&b);
    return r;
}

static int prefix_space(const struct run *run, int next_step, const struct stretch *t)
{
    struct buf b;
    if (t->s[0] == ' ')
        return run_from(run, next_step, t);
    buf_init(&b, SIZE_MAX / 4);
    int r = buf_append(&b, " ", 1);
    if (r >= 0)
        r = buf_append(&b, t->s, t->len);
    struct stretch prefixed = {b.data, b.len, t->first, t->origin ? t->origin + 1 : 0};
    if (r >= 0)
        r = run_from(run, next_step, &prefixed);
    buf_done(&b);
    return r;
}

static int spell_bytes(const struct run *run, int next_step, const struct stretch *t)
{
    char stack[STACK_BYTES], *out = stack;
    if (t->len > STACK_BYTES / 2) {
        out = malloc(t->len * 2);
        if (!out)
            return ERR_NOMEM;
    }
    struct stretch spelled = {out, 0, t->first, byte_chars_spell(t->s, t->origin, out)};
    spelled.len = byte_chars_spell(t->s, t->len, out);
    int r = run_from(run, next_step, &spelled);
    if (out != stack)
        free(out);
    return r;
}

/* ---- the chain ---- */

static int run_from(const struct run *run, int step, const struct stretch *t)
{
    if (t->len == 0)
        return 0;
    if (step == run->p->n)
        return run->emit(run->arg, t->s, t->len);
    const struct pretokenizer_step *s = &run->p->steps[step];
    switch (s->kind) {
    case PRETOKENIZER_SPLIT: return cut(run, step + 1, t, s->pattern, s->behavior, s->invert);
    case PRETOKENIZER_METASPACE: return metaspace(run, step, t);
    case PRETOKENIZER_PREFIX_SPACE: return prefix_space(run, step + 1, t);
    case PRETOKENIZER_SPELL_BYTES: return spell_bytes(run, step + 1, t);
    }
    return ERR_INTERNAL;
}

int pretokenizer_run(const struct pretokenizer *p, const struct stretch *text, pretokenizer_emit emit, void *arg)
{
    struct run run = {p, emit, arg};
    return run_from(&run, 0, text);
}

bool pretokenizer_asks_origin(const struct pretokenizer *p)
{
    for (int i = 1; i < p->n; i++)
        if (p->steps[i].kind == PRETOKENIZER_METASPACE && p->steps[i].prepend == PREPEND_FIRST)
            return true;
    return false;
}

bool pretokenizer_changes_pieces(const struct pretokenizer *p)
{
    bool cuts = false;
    for (int i = 0; i < p->n; i++) {
        if (cuts && p->steps[i].kind != PRETOKENIZER_SPLIT)
            return true;
        cuts |= p->steps[i].pattern != NULL;
    }
    return false;
}

/* ---- life ---- */

void pretokenizer_done(struct pretokenizer *p)
{
    for (int i = 0; i < p->n; i++)
        pattern_free(p->steps[i].pattern);
    *p = (struct pretokenizer){0};
}

int pretokenizer_add(struct pretokenizer *p, const struct pretokenizer_step *step, struct err *err)
{
    if (p->n == PRETOKENIZER_MAX_STEPS) {
        pattern_free(step->pattern);
        return err_set(err, ERR_UNSUPPORTED, "pre_tokenizer: more than %d steps", PRETOKENIZER_MAX_STEPS);
    }
    p->steps[p->n++] = *step;
    return 0;
}
