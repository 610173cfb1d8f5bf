/* A class is a union of members, or an intersection of unions. Members that PCRE2 can write side by side share one pair of brackets;
 * classes within and negated sets become alternatives to it. */
#include "tokenizer/regex_class.h"
#include "common/utf8.h"
#include "tokenizer/regex_dialect.h"
#include "tokenizer/unicode_new.h"
#include <string.h>
#include <utf8proc.h>

/* What Oniguruma's \s and \w mean in UTF-8. A lone \w also has the superscripts and fractions of Latin-1. */
#define WORD_MEMBERS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

static const struct regex_set word = {.members = WORD_MEMBERS, .categories = {"L", "M", "Nd"}};
const struct regex_set regex_lone_word = {.members = WORD_MEMBERS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}", .categories = {"L", "M", "Nd"}};
static const struct regex_set space = {.members = "\\p{White_Space}", .caseless = true};
static const struct regex_set digit = {.members = "\\p{Nd}", .categories = {"Nd"}, .caseless = true};
static const struct regex_set han = {.members = "\\p{sc:Han}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"};

int regex_refuse_escape(const struct regex_walk *w)
{
    char c = w->len - w->at < 2 ? '0' : w->s[w->at + 1];
    char what[16] = {'e', 's', 'c', 'a', 'p', 'e', ' ', '\\', c, 0};
    return regex_refuse(w, what);
}

bool regex_is_plain_escape(char c)
{
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~') || c == ' ';
}

bool regex_is_caseless(uint32_t cp)
{
    const char *category = utf8proc_category_string((utf8proc_int32_t)cp);
    return cp >= 0x80 && (category[0] == 'P' || category[0] == 'Z' || strcmp(category, "Nd") == 0 || strcmp(category, "Lo") == 0 ||
                          (category[0] == 'S' && strcmp(category, "So") != 0));
}

/* ---- sets by escapes ---- */

/* \p{...} and \P{...}: general categories, and the script Han. */
static int read_property(struct regex_walk *w, struct regex_set *ret)
{
    static const char *const known[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P",  "Pc", "Pd",
                                        "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "Cc", "Cf"};
    const char *name = w->s + w->at + 3;
    size_t room = w->len - w->at, n = 0;
    while (n + 3 < room && name[n] != '}')
        n++;
    bool braced = room >= 5 && w->s[w->at + 2] == '{' && n + 3 < room, found = braced && n == 3 && memcmp(name, "Han", 3) == 0;
    *ret = han;
    for (size_t i = 0; braced && i < sizeof(known) / sizeof(known[0]); i++)
        if (strlen(known[i]) == n && memcmp(known[i], name, n) == 0) {
            *ret = (struct regex_set){.members = "\\p{", .categories = {known[i]}};
            strcat(ret->members, known[i]);
            strcat(ret->members, "}");
            found = true;
        }
    if (!found)
        return regex_refuse(w, "a property other than a general category or Han");
    ret->negated = w->s[w->at + 1] == 'P';
    w->at += n + 4;
    return 1;
}

int regex_set_read(struct regex_walk *w, bool in_class, struct regex_set *ret)
{
    char c = w->len - w->at < 2 ? 0 : w->s[w->at + 1];
    switch (c) {
    case 'p':
    case 'P': return read_property(w, ret);
    case 's':
    case 'S': *ret = space; break;
    case 'd':
    case 'D': *ret = digit; break;
    case 'w':
    case 'W': *ret = in_class ? word : regex_lone_word; break;
    default: return 0;
    }
    ret->negated = c == 'S' || c == 'D' || c == 'W';
    w->at += 2;
    return 1;
}

/* Members, and the ranges of the characters that are newer than PCRE2's tables, of the categories that begin so. */
static int put_members(const struct regex_set *set, struct buf *out)
{
    int r = buf_puts(out, set->members);
    for (const char *const *category = set->categories; *category && r >= 0; category++)
        for (size_t i = 0; i < unicode_new_count && r >= 0; i++)
            if (strncmp(unicode_new[i].category, *category, strlen(*category)) == 0)
                r = buf_printf(out, "\\x{%x}-\\x{%x}", (unsigned)unicode_new[i].low, (unsigned)unicode_new[i].high);
    return r;
}

int regex_set_put_class(const struct regex_set *set, struct buf *out)
{
    int r = buf_puts(out, set->negated ? "[^" : "[");
    if (r >= 0)
        r = put_members(set, out);
    return r < 0 ? r : buf_puts(out, "]");
}

/* ---- classes ---- */

struct union_of {
    struct buf members; /* as they stand in brackets */
    struct buf others;  /* "|" and an expression, for each that cannot */
};

static void union_init(struct union_of *u)
{
    buf_init(&u->members, REGEX_MAX_BYTES * 64);
    buf_init(&u->others, REGEX_MAX_BYTES * 64);
}

static void union_done(struct union_of *u)
{
    buf_done(&u->members);
    buf_done(&u->others);
}

static int put_union(const struct union_of *u, struct buf *out)
{
    int r;
    if (u->others.len == 0)
        return buf_printf(out, "[%s]", u->members.data);
    r = u->members.len ? buf_printf(out, "(?:[%s]%s)", u->members.data, u->others.data) : buf_printf(out, "(?:%s)", u->others.data + 1);
    return r;
}

static int put_negated(const struct union_of *u, struct buf *out)
{
    if (u->others.len == 0)
        return buf_printf(out, "[^%s]", u->members.data);
    int r = buf_puts(out, "(?:(?!");
    if (r >= 0)
        r = put_union(u, out);
    return r < 0 ? r : buf_puts(out, ")(?s:.))");
}

/* A class within: an alternative of its own. */
static int add_class(struct regex_walk *w, struct union_of *u, int depth)
{
    struct buf *out = w->out;
    if (regex_next_is(w, "[:"))
        return regex_refuse(w, "a POSIX bracket");
    if (w->at > 0 && w->s[w->at - 1] == '-')
        return regex_refuse(w, "a class behind a hyphen");
    int r = buf_puts(&u->others, "|");
    w->out = &u->others;
    if (r >= 0)
        r = regex_class(w, depth + 1);
    w->out = out;
    return r;
}

static int add_escape(struct regex_walk *w, struct union_of *u)
{
    char c = w->len - w->at < 2 ? 0 : w->s[w->at + 1];
    struct regex_set set;
    int r = regex_set_read(w, true, &set);
    if (r < 0)
        return r;
    if (r == 0) {
        if (!regex_is_plain_escape(c) && !(c && strchr("rntf", c)))
            return c && strchr("AzbB", c) ? regex_refuse(w, "an anchor inside a class") : regex_refuse_escape(w);
        w->at += 2;
        return buf_append(&u->members, (char[]){'\\', c}, 2);
    }
    if (w->ignore_case && !set.caseless)
        return regex_refuse(w, "a set inside a class without regard to case");
    if (!set.negated)
        return put_members(&set, &u->members);
    r = buf_puts(&u->others, "|");
    return r < 0 ? r : regex_set_put_class(&set, &u->others);
}

static int add_character(struct regex_walk *w, struct union_of *u)
{
    uint32_t cp;
    size_t n = utf8_decode(w->s + w->at, w->len - w->at, &cp);
    if (n == 0)
        return regex_refuse(w, "a byte that is no UTF-8");
    bool in_range = (w->at > 0 && w->s[w->at - 1] == '-') || (w->at + n < w->len && w->s[w->at + n] == '-');
    if (w->ignore_case && cp >= 0x80 && (in_range || !regex_is_caseless(cp)))
        return regex_refuse(w, "a letter beyond ASCII without regard to case");
    int r = cp == '^' && u->members.len == 0 ? buf_puts(&u->members, "\\") : 0;
    if (r >= 0)
        r = buf_append(&u->members, w->s + w->at, n);
    w->at += n;
    return r;
}

/* Up to "&&" or "]". */
static int read_union(struct regex_walk *w, struct union_of *u, int depth)
{
    int r = 0;
    size_t start = w->at;
    while (r >= 0 && w->at < w->len && w->s[w->at] != ']' && !regex_next_is(w, "&&")) {
        if (w->s[w->at] == '[')
            r = add_class(w, u, depth);
        else if (w->s[w->at] == '\\')
            r = add_escape(w, u);
        else
            r = add_character(w, u);
    }
    if (r >= 0 && w->at == w->len)
        return err_set(w->err, ERR_CORRUPT, "regular expression \"%.200s\": a class without its end at byte %zu", w->s, w->at);
    return r >= 0 && w->at == start ? regex_refuse(w, "an empty class") : r;
}

/* All unions but the last become lookaheads.. */
static int read_class(struct regex_walk *w, bool negated, int depth)
{
    struct union_of u, whole = {0};
    struct buf ahead;
    union_init(&u);
    union_init(&whole);
    buf_init(&ahead, REGEX_MAX_BYTES * 64);
    int r = read_union(w, &u, depth);
    while (r >= 0 && regex_next_is(w, "&&")) {
        w->at += 2;
        r = buf_puts(&ahead, "(?=");
        if (r >= 0)
            r = put_union(&u, &ahead);
        if (r >= 0)
            r = buf_puts(&ahead, ")");
        union_done(&u);
        union_init(&u);
        if (r >= 0)
            r = read_union(w, &u, depth);
    }
    if (r >= 0 && ahead.len) { /* the intersection is the one member of the class */
        r = buf_printf(&whole.others, "|(?:%s", ahead.data);
        if (r >= 0)
            r = put_union(&u, &whole.others);
        if (r >= 0)
            r = buf_puts(&whole.others, ")");
    }
    const struct union_of *all = ahead.len ? &whole : &u;
    if (r >= 0)
        r = negated ? put_negated(all, w->out) : put_union(all, w->out);
    union_done(&u);
    union_done(&whole);
    buf_done(&ahead);
    return r;
}

int regex_class(struct regex_walk *w, int depth)
{
    bool negated = regex_next_is(w, "[^");
    if (depth > REGEX_MAX_DEPTH)
        return regex_refuse(w, "nesting this deep");
    w->at += negated ? 2 : 1;
    if (regex_next_is(w, "]"))
        return regex_refuse(w, "a class that begins with ]");
    int r = read_class(w, negated, depth);
    w->at += r >= 0;
    return r;
}
