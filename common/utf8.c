/* UTF-8 by the table of well-formed byte sequences (Unicode, chapter 3, table 3-7). */
#include "common/utf8.h"
#include <string.h>

/* How many bytes a lead byte announces (0: not a lead byte), and the range of its second byte. */
static size_t lead(unsigned char b, unsigned char *ret_lo, unsigned char *ret_hi)
{
    *ret_lo = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    *ret_hi = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    return b < 0x80 ? 1 : b < 0xc2 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf5 ? 4 : 0;
}

/* Bytes at s that could begin one character, up to its whole length *ret_want. */
static size_t matched(const char *s, size_t len, size_t *ret_want)
{
    unsigned char lo, hi;
    size_t want = lead((unsigned char)s[0], &lo, &hi), i = 1;
    *ret_want = want;
    if (want == 0)
        return 0;
    for (; i < want && i < len; i++) {
        unsigned char b = (unsigned char)s[i];
        if (b < lo || b > hi)
            break;
        lo = 0x80;
        hi = 0xbf;
    }
    return i;
}

size_t utf8_decode(const char *s, size_t len, uint32_t *ret_cp)
{
    size_t want;
    if (len == 0 || matched(s, len, &want) != want || want == 0)
        return 0;
    const unsigned char *u = (const unsigned char *)s;
    uint32_t cp = want == 1 ? u[0] : u[0] & (0x7fu >> want);
    for (size_t i = 1; i < want; i++)
        cp = cp << 6 | (u[i] & 0x3fu);
    if (ret_cp)
        *ret_cp = cp;
    return want;
}

size_t utf8_encode(char out[4], uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(0xf00u >> n | cp);
    return n;
}

size_t utf8_valid_prefix(const char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (len - i >= 8 && (memcpy(&word, s + i, 8), (word & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        size_t n = utf8_decode(s + i, len - i, NULL);
        if (n == 0)
            break;
        i += n;
    }
    return i;
}

size_t utf8_bad_length(const char *s, size_t len, bool *ret_cut)
{
    size_t want, n = matched(s, len, &want);
    if (ret_cut)
        *ret_cut = n == len && n < want;
    return n ? n : 1;
}
