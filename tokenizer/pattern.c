/* Literals by memmem, classes by walking characters, regular expressions by PCRE2 with its JIT. A compiled expression is
 * read-only; each thread keeps match data of its own, because that is what matching writes to. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pattern.h"
#include "common/utf8.h"
#include "tokenizer/regex_dialect.h"
#include <pcre2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MATCH_LIMIT 10000000 /* backtracking steps of one search */
#define HEAP_LIMIT_KIB 65536

enum pattern_kind { PATTERN_LITERAL, PATTERN_CLASS, PATTERN_RUNS, PATTERN_REGEX };

struct pattern {
    enum pattern_kind kind;
    char *literal;
    size_t literal_len;
    bool (*is_member)(uint32_t cp);
    int (*kind_of)(uint32_t cp);
    pcre2_code *code;
    pcre2_match_context *limits;
};

/* ---- per-thread match data ---- */

static pthread_key_t match_key;
static pthread_once_t match_once = PTHREAD_ONCE_INIT;

static void free_match(void *m)
{
    pcre2_match_data_free(m);
}

static void make_key(void)
{
    pthread_key_create(&match_key, free_match);
}

static pcre2_match_data *match_data(void)
{
    pthread_once(&match_once, make_key);
    pcre2_match_data *m = pthread_getspecific(match_key);
    if (!m) {
        m = pcre2_match_data_create(1, NULL); /* the whole match is all we read */
        pthread_setspecific(match_key, m);
    }
    return m;
}

/* ---- life ---- */

static struct pattern *new_pattern(enum pattern_kind kind, struct err *err)
{
    struct pattern *p = calloc(1, sizeof(*p));
    if (p)
        p->kind = kind;
    else
        err_set(err, ERR_NOMEM, "no memory for a pattern");
    return p;
}

int pattern_literal(const char *s, size_t len, struct pattern **ret, struct err *err)
{
    if (len == 0) /* matches between any two characters */
        return pattern_regex("", 0, ret, err);
    struct pattern *p = new_pattern(PATTERN_LITERAL, err);
    if (!p)
        return ERR_NOMEM;
    p->literal = malloc(len + 1);
    if (!p->literal) {
        pattern_free(p);
        return err_set(err, ERR_NOMEM, "no memory for a pattern");
    }
    memcpy(p->literal, s, len);
    p->literal[len] = 0;
    p->literal_len = len;
    *ret = p;
    return 0;
}

int pattern_class(bool (*is_member)(uint32_t cp), struct pattern **ret, struct err *err)
{
    struct pattern *p = new_pattern(PATTERN_CLASS, err);
    if (!p)
        return ERR_NOMEM;
    p->is_member = is_member;
    *ret = p;
    return 0;
}

int pattern_runs(int (*kind_of)(uint32_t cp), struct pattern **ret, struct err *err)
{
    struct pattern *p = new_pattern(PATTERN_RUNS, err);
    if (!p)
        return ERR_NOMEM;
    p->kind_of = kind_of;
    *ret = p;
    return 0;
}

bool pattern_may_be_empty(const struct pattern *p)
{
    uint32_t empty = 0;
    return p->kind == PATTERN_REGEX && pcre2_pattern_info(p->code, PCRE2_INFO_MATCHEMPTY, &empty) == 0 && empty;
}

static int compile(struct pattern *p, const struct buf *regex, struct err *err)
{
    int code = 0;
    PCRE2_SIZE offset = 0;
    uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    p->code = pcre2_compile((PCRE2_SPTR)regex->data, regex->len, flags, &code, &offset, NULL);
    if (!p->code) {
        char text[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof(text));
        bool known = code == PCRE2_ERROR_LOOKBEHIND_NOT_FIXED_LENGTH || code == PCRE2_ERROR_LOOKBEHIND_TOO_COMPLICATED ||
                     code == PCRE2_ERROR_PATTERN_TOO_LARGE || code == PCRE2_ERROR_PARENTHESES_NEST_TOO_DEEP;
        return err_set(err, known ? ERR_UNSUPPORTED : ERR_CORRUPT, "regular expression \"%.200s\": %s at byte %zu", regex->data, text,
                       (size_t)offset);
    }
    p->limits = pcre2_match_context_create(NULL);
    if (!p->limits)
        return err_set(err, ERR_NOMEM, "no memory for a regular expression");
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(p->limits, HEAP_LIMIT_KIB);
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* where there is no JIT, the interpreter runs */
    return 0;
}

int pattern_regex(const char *regex, size_t len, struct pattern **ret, struct err *err)
{
    struct buf text;
    struct pattern *p = new_pattern(PATTERN_REGEX, err);
    buf_init(&text, REGEX_MAX_BYTES * 64);
    int r = p ? regex_from_onig(regex, len, &text, err) : ERR_NOMEM;
    if (r >= 0)
        r = compile(p, &text, err);
    buf_done(&text);
    if (r < 0)
        pattern_free(p);
    else
        *ret = p;
    return r;
}

void pattern_free(struct pattern *p)
{
    if (!p)
        return;
    free(p->literal);
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    free(p);
}

/* ---- searching ---- */

static int next_literal(const struct pattern *p, const char *text, size_t len, size_t at, size_t *ret_start, size_t *ret_end)
{
    const char *found = p->literal_len ? memmem(text + at, len - at, p->literal, p->literal_len) : NULL;
    if (!found)
        return 0;
    *ret_start = (size_t)(found - text);
    *ret_end = *ret_start + p->literal_len;
    return 1;
}

static int next_member(const struct pattern *p, const char *text, size_t len, size_t at, size_t *ret_start, size_t *ret_end)
{
    uint32_t cp;
    for (size_t n; at < len && (n = utf8_decode(text + at, len - at, &cp)) > 0; at += n)
        if (p->is_member(cp)) {
            *ret_start = at;
            *ret_end = at + n;
            return 1;
        }
    return 0;
}

static int next_run(const struct pattern *p, const char *text, size_t len, size_t at, size_t *ret_start, size_t *ret_end)
{
    uint32_t cp;
    int kind = 0;
    for (size_t n; at < len && (n = utf8_decode(text + at, len - at, &cp)) > 0; at += n) {
        int here = p->kind_of(cp);
        if (kind && here != kind)
            break;
        if (!kind && here)
            *ret_start = at;
        kind = here;
    }
    *ret_end = at;
    return kind != 0;
}

static int next_regex(const struct pattern *p, const char *text, size_t len, size_t at, size_t *ret_start, size_t *ret_end)
{
    pcre2_match_data *m = match_data();
    if (!m)
        return ERR_NOMEM;
    int n = pcre2_match(p->code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, m, p->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        n = pcre2_match(p->code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m, p->limits);
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    if (n < 0)
        return n == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_INVALID;
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(m);
    *ret_start = span[0];
    *ret_end = span[1];
    return 1;
}

static int search(const struct pattern *p, const char *text, size_t len, size_t at, size_t *ret_start, size_t *ret_end)
{
    switch (p->kind) {
    case PATTERN_LITERAL: return next_literal(p, text, len, at, ret_start, ret_end);
    case PATTERN_CLASS: return next_member(p, text, len, at, ret_start, ret_end);
    case PATTERN_RUNS: return next_run(p, text, len, at, ret_start, ret_end);
    case PATTERN_REGEX: return next_regex(p, text, len, at, ret_start, ret_end);
    }
    return 0;
}

int pattern_next(const struct pattern *p, const char *text, size_t len, struct pattern_scan *scan, size_t *ret_start, size_t *ret_end)
{
    while (scan->at <= len) {
        int r = search(p, text, len, scan->at, ret_start, ret_end);
        if (r <= 0)
            return r;
        if (*ret_start == *ret_end && scan->any && scan->last_end == *ret_end) { /* empty, right behind a match */
            size_t n = utf8_decode(text + scan->at, len - scan->at, NULL);
            scan->at += n ? n : 1;
            continue;
        }
        scan->at = scan->last_end = *ret_end;
        scan->any = true;
        return 1;
    }
    return 0;
}
