/* One walk over the expression. Only escapes known to mean the same are let through: a new one is a question, not a guess. */
#include "tokenizer/regex_dialect.h"
#include <stdbool.h>
#include <string.h>

#include "tokenizer/unicode_new.h"

/* What Oniguruma's \s and \w mean in UTF-8, as members of a class. A lone \w also has the superscripts and fractions of Latin-1. */
#define SPACE_MEMBERS "\\p{White_Space}"
#define WORD_MEMBERS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LONE_WORD_MEMBERS WORD_MEMBERS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

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

/* Ranges of the characters that are newer than PCRE2's tables, of the categories that begin so. */
static int put_new(struct walk *w, const char *category)
{
    int r = 0;
    for (size_t i = 0; i < unicode_new_count && r >= 0; i++)
        if (strncmp(unicode_new[i].category, category, strlen(category)) == 0)
            r = buf_printf(w->out, "\\x{%x}-\\x{%x}", (unsigned)unicode_new[i].low, (unsigned)unicode_new[i].high);
    return r;
}

/* A set of characters: members as they stand in a class, and the new characters of some categories (NULL at the end). Outside
 * a class it becomes one; negated it can only stand outside. */
static int put_set(struct walk *w, const char *members, const char *const *categories, bool negated, size_t consumed)
{
    if (negated && w->in_class)
        return refuse(w, "a negated set inside a class");
    int r = w->in_class ? 0 : buf_puts(w->out, negated ? "[^" : "[");
    if (r >= 0)
        r = put(w, members, consumed);
    for (; *categories && r >= 0; categories++)
        r = put_new(w, *categories);
    return r < 0 || w->in_class ? r : buf_puts(w->out, "]");
}

/* \p{...} and \P{...}: general categories, and the script Han. */
static int property(struct walk *w)
{
    static const char *const known[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P",  "Pc", "Pd",
                                        "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "Cc", "Cf"};
    const char *name = w->s + w->at + 3;
    size_t room = w->len - w->at, n = 0;
    while (n + 3 < room && name[n] != '}')
        n++;
    bool negated = room > 1 && w->s[w->at + 1] == 'P';
    if (room >= 6 && w->s[w->at + 2] == '{' && n == 3 && memcmp(name, "Han", 3) == 0)
        return put_set(w, "\\p{sc:Han}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}", (const char *const[]){NULL}, negated, n + 4);
    for (size_t i = 0; room >= 5 && w->s[w->at + 2] == '{' && i < sizeof(known) / sizeof(known[0]); i++)
        if (strlen(known[i]) == n && memcmp(known[i], name, n) == 0) {
            char members[] = "\\p{??}";
            strcpy(members + 3, known[i]);
            strcat(members, "}");
            return put_set(w, members, (const char *const[]){known[i], NULL}, negated, n + 4);
        }
    return refuse(w, "a property other than a general category or Han");
}

static int escape(struct walk *w)
{
    static const char *const word[] = {"L", "M", "Nd", NULL}, *const digit[] = {"Nd", NULL}, *const none[] = {NULL};
    char c = w->len - w->at < 2 ? 0 : w->s[w->at + 1];
    switch (c) {
    case 'p':
    case 'P': return property(w);
    case 's': return put_set(w, SPACE_MEMBERS, none, false, 2);
    case 'w': return put_set(w, w->in_class ? WORD_MEMBERS : LONE_WORD_MEMBERS, word, false, 2);
    case 'd': return put_set(w, "\\p{Nd}", digit, false, 2);
    case 'W': return put_set(w, LONE_WORD_MEMBERS, word, true, 2);
    case 'D': return put_set(w, "\\p{Nd}", digit, true, 2);
    case 'S': return put(w, "\\P{White_Space}", 2);
    case 'r':
    case 'n':
    case 't':
    case 'f': return copy(w, 2);
    case 'A':
    case 'z': return w->in_class ? refuse(w, "an anchor inside a class") : copy(w, 2);
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
    int r =
        len <= REGEX_MAX_BYTES ? 0 : err_set(err, ERR_TOO_LARGE, "regular expression of %zu bytes; the limit is %zu", len, REGEX_MAX_BYTES);
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
