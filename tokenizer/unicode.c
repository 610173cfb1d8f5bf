/* Character classes over libutf8proc's table of general categories. */
#include "tokenizer/unicode.h"
#include "common/utf8.h"
#include "tokenizer/unicode_new.h"
#include <stddef.h>
#include <string.h>
#include <utf8proc.h>

bool unicode_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

bool unicode_is_python_space(uint32_t cp)
{
    return (cp >= 0x1c && cp <= 0x1f) || unicode_is_space(cp);
}

/* Letters by category So: the property Other_Alphabetic holds for circled and squared Latin letters. */
static bool is_letter_symbol(uint32_t cp)
{
    return (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
           (cp >= 0x1f170 && cp <= 0x1f189);
}

/* The category's first letter, for characters newer than the library's table. */
static char new_category(uint32_t cp, bool *ret_decimal)
{
    for (size_t i = 0; i < unicode_new_count && unicode_new[i].low <= cp; i++)
        if (cp <= unicode_new[i].high) {
            *ret_decimal = strcmp(unicode_new[i].category, "Nd") == 0;
            return unicode_new[i].category[0];
        }
    *ret_decimal = false;
    return 0;
}

bool unicode_is_word(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC: return true;
    case UTF8PROC_CATEGORY_CN: {
        bool decimal;
        char c = new_category(cp, &decimal);
        return c == 'L' || c == 'M' || decimal;
    }
    default: return cp == 0x200c || cp == 0x200d || is_letter_symbol(cp);
    }
}

bool unicode_is_numeric(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    bool decimal;
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO ||
           (c == UTF8PROC_CATEGORY_CN && new_category(cp, &decimal) == 'N');
}

/* A mark that the library does not know yet lengthens a grapheme as its older ones do. */
static bool is_new_mark(uint32_t cp)
{
    bool decimal;
    return cp >= 0x300 && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_CN && new_category(cp, &decimal) == 'M';
}

size_t unicode_grapheme(const char *s, size_t len)
{
    utf8proc_int32_t state = 0;
    uint32_t before = 0, cp = 0;
    size_t at = utf8_decode(s, len, &before), n;
    at = at ? at : 1;
    while (at < len && (n = utf8_decode(s + at, len - at, &cp)) > 0) {
        bool newer = is_new_mark(cp);
        if (newer ? before < 0x20 : utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)cp, &state))
            break;
        at += n;
        before = newer ? before : cp;
    }
    return at;
}

/* Capital letters that are newer than the library's table, and how far their small letters lie away. */
static const struct {
    uint32_t low, high;
    int32_t distance;
} new_capitals[] = {
    {0x1c89, 0x1c89, 1},      {0xa7cb, 0xa7cb, 0x264 - 0xa7cb},
    {0xa7cc, 0xa7cc, 1},      {0xa7ce, 0xa7ce, 1},
    {0xa7d2, 0xa7d2, 1},      {0xa7d4, 0xa7d4, 1},
    {0xa7da, 0xa7da, 1},      {0xa7dc, 0xa7dc, 0x19b - 0xa7dc},
    {0x10d50, 0x10d65, 0x20}, {0x16ea0, 0x16eb8, 0x1b},
};

int unicode_lower(uint32_t cp, uint32_t ret[2])
{
    ret[0] = cp;
    if (cp < 0x80) {
        ret[0] = cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
        return 1;
    }
    if (cp == 0x130) { /* the one capital whose small letter is two characters */
        ret[0] = 'i';
        ret[1] = 0x307;
        return 2;
    }
    for (size_t i = 0; cp >= 0x1c89 && i < sizeof(new_capitals) / sizeof(new_capitals[0]); i++)
        if (cp >= new_capitals[i].low && cp <= new_capitals[i].high) {
            ret[0] = (uint32_t)((int32_t)cp + new_capitals[i].distance);
            return 1;
        }
    ret[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    return 1;
}

/* Characters with a combining class or a decomposition that Unicode 9 did not have yet. */
static const uint32_t inert[][2] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},     {0xd3b, 0xd3c},
    {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},
    {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27},
    {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193d, 0x1193e},
    {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42},
    {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

bool unicode_is_inert(uint32_t cp)
{
    size_t low = 0, high = sizeof(inert) / sizeof(inert[0]);
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (cp > inert[mid][1])
            low = mid + 1;
        else if (cp < inert[mid][0])
            high = mid;
        else
            return true;
    }
    return false;
}

bool unicode_is_nfc_plain(uint32_t cp)
{
    return cp < 0x300 || (cp >= 0x400 && cp <= 0x482) || (cp >= 0x3041 && cp <= 0x3096) || (cp >= 0x4e00 && cp <= 0x9fff) ||
           (cp >= 0xac00 && cp <= 0xd7a3);
}
