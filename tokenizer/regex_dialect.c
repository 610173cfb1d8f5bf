/* One walk over the expression. Only escapes known to mean the same are let through: a new one is a question, not a guess. */
#include "tokenizer/regex_dialect.h"
#include <stdbool.h>
#include <string.h>

/* What Oniguruma's \s and \w mean in UTF-8, as members of a class. */
#define SPACE_MEMBERS "\\p{White_Space}"
#define WORD_MEMBERS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

struct walk {
    const char *s;
    size_t len, at;
    bool in_class;
    struct buf *out;
    struct err *err;
};

static int refuse(const struct walk *w, const char *what)
{
    return err_set(w->err, ERR_UNSUPPORTED, "regular expression: %s at byte %zu of \"%.200s\" is not supported", what, w->at, w->s);
}

static bool next_is(const struct walk *w, const char *text)
{
    size_t n = strlen(text);
    return w->len - w->at >= n && memcmp(w->s + w->at, text, n) == 0;
}

static int copy(struct walk *w, size_t n)
{
    int r = buf_append(w->out, w->s + w->at, n);
    w->at += n;
    return r;
}

static int put(struct walk *w, const char *text, size_t consumed)
{
    w->at += consumed;
    return buf_puts(w->out, text);
}

/* \p{...} and \P{...} whole. */
static int property(struct walk *w)
{
    const char *close = memchr(w->s + w->at, '}', w->len - w->at);
    if (w->len - w->at < 4 || w->s[w->at + 2] != '{' || !close)
        return refuse(w, "a property without braces");
    return copy(w, (size_t)(close - (w->s + w->at)) + 1);
}

static int escape(struct walk *w)
{
    char c = w->len - w->at < 2 ? 0 : w->s[w->at + 1];
    switch (c) {
    case 'p': case 'P':
        return property(w);
    case 's':
        return put(w, w->in_class ? SPACE_MEMBERS : "\\p{White_Space}", 2);
    case 'S':
        return put(w, "\\P{White_Space}", 2);
    case 'w':
        return put(w, w->in_class ? WORD_MEMBERS : "[" WORD_MEMBERS "]", 2);
    case 'W':
        return w->in_class ? refuse(w, "\\W in a class") : put(w, "[^" WORD_MEMBERS "]", 2);
    case 'd': case 'D': case 'r': case 'n': case 't': case 'f': case 'A': case 'z':
        return copy(w, 2);
    }
    if ((c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~') || c == ' ')
        return copy(w, 2);
    char what[16] = {'e', 's', 'c', 'a', 'p', 'e', ' ', '\\', c ? c : '0', 0};
    return refuse(w, what);
}

/* The "(" of a group and the "?" construct behind it. */
static int group(struct walk *w)
{
    static const char *const known[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (!next_is(w, "(?"))
        return next_is(w, "(*") ? refuse(w, "(*") : copy(w, 1);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (next_is(w, known[i]))
            return copy(w, strlen(known[i]));
    return refuse(w, "a group of this kind");
}

static int class_member(struct walk *w)
{
    if (next_is(w, "[") || next_is(w, "&&"))
        return refuse(w, "a class inside a class");
    if (next_is(w, "]"))
        w->in_class = false;
    return copy(w, 1);
}

static int open_class(struct walk *w)
{
    w->in_class = true;
    int r = copy(w, next_is(w, "[^") ? 2 : 1);
    return r >= 0 && next_is(w, "]") ? refuse(w, "a class that begins with ]") : r;
}

int regex_from_onig(const char *regex, size_t len, struct buf *out, struct err *err)
{
    struct walk w = {.s = regex, .len = len, .out = out, .err = err};
    int r = len <= REGEX_MAX_BYTES ? 0 : err_set(err, ERR_TOO_LARGE, "regular expression of %zu bytes; the limit is %zu", len, REGEX_MAX_BYTES);
    while (r >= 0 && w.at < len) {
        char c = regex[w.at];
        if (c == '\\')
            r = escape(&w);
        else if (w.in_class)
            r = class_member(&w);
        else if (c == '[')
            r = open_class(&w);
        else if (c == '(')
            r = group(&w);
        else if (next_is(&w, "}+"))
            r = refuse(&w, "a plus behind {n,m}");
        else
            r = copy(&w, 1);
    }
    return r < 0 && r != ERR_UNSUPPORTED && r != ERR_TOO_LARGE ? err_set(err, r, "no memory for a regular expression") : r;
}
