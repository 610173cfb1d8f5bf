/* One walk down the expression. Only what is known to mean the same is let through: a new construct is a question, not a guess. */
#include "tokenizer/regex_dialect.h"
#include "common/utf8.h"
#include "tokenizer/regex_class.h"
#include <stdbool.h>
#include <string.h>

int regex_refuse(const struct regex_walk *w, const char *what)
{
    return err_set(w->err, ERR_UNSUPPORTED, "regular expression: %s at byte %zu of \"%.200s\" is not supported", what, w->at, w->s);
}

bool regex_next_is(const struct regex_walk *w, const char *text)
{
    size_t n = strlen(text);
    return w->len - w->at >= n && memcmp(w->s + w->at, text, n) == 0;
}

static int copy(struct regex_walk *w, size_t n)
{
    int r = buf_append(w->out, w->s + w->at, n);
    w->at += n;
    return r;
}

/* ---- escapes ---- */

/* Outside of a class Oniguruma takes no other case of a set, so that PCRE2 must not either. */
static int put_set(struct regex_walk *w, const struct regex_set *set)
{
    int r = buf_puts(w->out, w->ignore_case ? "(?-i:" : "");
    if (r >= 0)
        r = regex_set_put_class(set, w->out);
    return r < 0 ? r : buf_puts(w->out, w->ignore_case ? ")" : "");
}

/* \b and \B: between a character of \w and one that is none. */
static int put_border(struct regex_walk *w, bool negated)
{
    const struct regex_set *word = &regex_lone_word;
    static const char *const parts[2][4] = {{"(?:(?<=", ")(?!", ")|(?<!", ")(?="}, {"(?:(?<=", ")(?=", ")|(?<!", ")(?!"}};
    int r = 0;
    for (int i = 0; i < 4 && r >= 0; i++) {
        r = buf_puts(w->out, parts[negated][i]);
        if (r >= 0)
            r = regex_set_put_class(word, w->out);
    }
    return r < 0 ? r : buf_puts(w->out, "))");
}

static int escape(struct regex_walk *w)
{
    char c = w->len - w->at < 2 ? 0 : w->s[w->at + 1];
    struct regex_set set;
    int r = regex_set_read(w, false, &set);
    if (r < 0)
        return r;
    if (r > 0)
        return put_set(w, &set);
    switch (c) {
    case 'b':
    case 'B': w->at += 2; return put_border(w, c == 'B');
    case 'A':
    case 'z':
    case 'r':
    case 'n':
    case 't':
    case 'f': return copy(w, 2);
    }
    if (regex_is_plain_escape(c))
        return copy(w, 2);
    return regex_refuse_escape(w);
}

/* ---- groups ---- */

static int alternatives(struct regex_walk *w, int depth);

/* "(?imx-imx" in front of ":" or ")": what becomes of the options. m is PCRE2's s. */
static int read_options(struct regex_walk *w, char ret[16], bool *ret_ignore_case, bool *ret_isolated)
{
    size_t i = w->at + 2, n = 0;
    bool off = false;
    *ret_ignore_case = w->ignore_case;
    for (; i < w->len && n < 14 && strchr("im-", w->s[i]); i++) {
        if (w->s[i] == '-' && off)
            break;
        off |= w->s[i] == '-';
        if (w->s[i] == 'i')
            *ret_ignore_case = !off;
        ret[n++] = w->s[i] == 'm' ? 's' : w->s[i];
    }
    ret[n] = 0;
    if (n == 0 || i == w->len || (w->s[i] != ':' && w->s[i] != ')') || ret[n - 1] == '-')
        return regex_refuse(w, "a group of this kind");
    *ret_isolated = w->s[i] == ')';
    w->at = i + 1;
    return 0;
}

/* The rest of the group, up to its ")" or the end. */
static int rest_with_options(struct regex_walk *w, int depth, const char *options, bool ignore_case)
{
    bool before = w->ignore_case;
    w->ignore_case = ignore_case;
    int r = buf_printf(w->out, "(?%s:", options);
    if (r >= 0)
        r = alternatives(w, depth + 1);
    w->ignore_case = before;
    return r < 0 ? r : buf_puts(w->out, ")");
}

static int endless(const struct regex_walk *w)
{
    return err_set(w->err, ERR_CORRUPT, "regular expression \"%.200s\": missing ) at byte %zu", w->s, w->at);
}

static int close_group(struct regex_walk *w)
{
    return regex_next_is(w, ")") ? copy(w, 1) : endless(w);
}

static int group(struct regex_walk *w, int depth)
{
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    char options[16];
    bool ignore_case = false, isolated = false;
    int r;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (regex_next_is(w, known[i])) {
            r = copy(w, strlen(known[i]));
            if (r >= 0)
                r = alternatives(w, depth + 1);
            return r < 0 ? r : close_group(w);
        }
    if (regex_next_is(w, "(*"))
        return regex_refuse(w, "(*");
    if (!regex_next_is(w, "(?")) {
        r = copy(w, 1);
        if (r >= 0)
            r = alternatives(w, depth + 1);
        return r < 0 ? r : close_group(w);
    }
    r = read_options(w, options, &ignore_case, &isolated);
    if (r < 0)
        return r;
    r = rest_with_options(w, depth, options, ignore_case);
    if (r >= 0 && !isolated)
        r = regex_next_is(w, ")") ? 0 : endless(w);
    w->at += r >= 0 && !isolated;
    return r;
}

/* ---- characters ---- */

/* Two letters that one character equals without regard to case. */
static bool are_one(char a, char b)
{
    static const char *const pairs[] = {"ss", "ff", "fi", "fl", "st"};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if ((a | 32) == pairs[i][0] && (b | 32) == pairs[i][1])
            return true;
    return false;
}

static int character(struct regex_walk *w)
{
    uint32_t cp;
    size_t n = utf8_decode(w->s + w->at, w->len - w->at, &cp);
    char c = w->s[w->at];
    bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
    if (n == 0)
        return regex_refuse(w, "a byte that is no UTF-8");
    if (w->ignore_case && cp >= 0x80 && !regex_is_caseless(cp))
        return regex_refuse(w, "a letter beyond ASCII without regard to case");
    if (w->ignore_case && letter && are_one(w->last_letter, c))
        return regex_refuse(w, "two letters that one character equals without regard to case");
    if (strchr("|*+?{.^$", c) || letter || cp >= 0x80)
        w->last_letter = letter ? c : 0;
    return copy(w, n);
}

static int element(struct regex_walk *w, int depth)
{
    char c = w->s[w->at];
    if (c == '(')
        return group(w, depth);
    if (c == '\\' || c == '[')
        w->last_letter = 0;
    if (c == '\\')
        return escape(w);
    if (c == '[')
        return regex_class(w, depth);
    if (regex_next_is(w, "}+"))
        return regex_refuse(w, "a plus behind {n,m}");
    return character(w);
}

static int alternatives(struct regex_walk *w, int depth)
{
    int r = depth <= REGEX_MAX_DEPTH ? 0 : regex_refuse(w, "nesting this deep");
    while (r >= 0 && w->at < w->len && w->s[w->at] != ')')
        r = element(w, depth);
    return r;
}

int regex_from_onig(const char *regex, size_t len, struct buf *out, struct err *err)
{
    struct regex_walk w = {.s = regex, .len = len, .out = out, .err = err};
    if (len > REGEX_MAX_BYTES)
        return err_set(err, ERR_UNSUPPORTED, "regular expression of %zu bytes; the limit is %zu", len, REGEX_MAX_BYTES);
    int r = alternatives(&w, 0);
    if (r >= 0 && w.at < len)
        r = err_set(err, ERR_CORRUPT, "regular expression \"%.200s\": unmatched ) at byte %zu", regex, w.at);
    return r < 0 && r != ERR_UNSUPPORTED && r != ERR_CORRUPT ? err_set(err, r, "no memory for a regular expression") : r;
}
