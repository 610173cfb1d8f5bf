/* The double array's units: see spm_precompiled's lib.rs, which took them from Darts. */
#include "tokenizer/charsmap.h"
#include "common/utf8.h"
#include "tokenizer/unicode.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)16 << 20)
#define WHOLE_GRAPHEME_BYTES 5

struct charsmap {
    uint32_t *units; /* [n_units] */
    size_t n_units;
    char *strings; /* [strings_len], each ends at a NUL or at the end */
    size_t strings_len;
};

static uint32_t unit_at(const unsigned char *bytes, size_t i)
{
    const unsigned char *b = bytes + 4 * i;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

int charsmap_new(const unsigned char *bytes, size_t len, struct charsmap **ret, struct err *err)
{
    size_t trie = len >= 4 ? unit_at(bytes, 0) : 0;
    if (len > MAX_BYTES || trie < 4 || trie % 4 != 0 || trie > len - 4 ||
        utf8_valid_prefix((const char *)bytes + 4 + trie, len - 4 - trie) != len - 4 - trie)
        return err_set(err, ERR_CORRUPT, "precompiled_charsmap of %zu bytes holds a trie of %zu, or strings that are not UTF-8", len, trie);
    struct charsmap *m = calloc(1, sizeof(*m));
    if (m) {
        m->n_units = trie / 4;
        m->units = malloc(trie);
        m->strings_len = len - 4 - trie;
        m->strings = malloc(m->strings_len + 1);
    }
    if (!m || !m->units || !m->strings) {
        charsmap_free(m);
        return err_set(err, ERR_NOMEM, "no memory for a precompiled_charsmap");
    }
    for (size_t i = 0; i < m->n_units; i++)
        m->units[i] = unit_at(bytes + 4, i);
    if (m->strings_len)
        memcpy(m->strings, bytes + 4 + trie, m->strings_len);
    *ret = m;
    return 0;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int charsmap_from_base64(const char *text, size_t len, struct charsmap **ret, struct err *err)
{
    unsigned char *bytes = malloc(len / 4 * 3 + 3);
    size_t n = 0, given = len;
    int r = 0;
    if (!bytes)
        return err_set(err, ERR_NOMEM, "no memory for a precompiled_charsmap");
    while (given > 0 && len - given < 2 && text[given - 1] == '=')
        given--;
    for (size_t i = 0; i < given && r >= 0; i++) {
        static const int shift[] = {2, 4, 6, 0};
        int v = base64_value(text[i]);
        if (v < 0 || len % 4 != 0) {
            r = err_set(err, ERR_CORRUPT, "precompiled_charsmap is not base64");
        } else if (i % 4 == 0) {
            bytes[n] = (unsigned char)(v << 2);
        } else {
            bytes[n] |= (unsigned char)(v >> (6 - shift[i % 4 - 1]));
            n++;
            if (i % 4 < 3)
                bytes[n] = (unsigned char)(v << shift[i % 4]);
        }
    }
    if (r >= 0)
        r = charsmap_new(bytes, n, ret, err);
    free(bytes);
    return r;
}

void charsmap_free(struct charsmap *m)
{
    if (!m)
        return;
    free(m->units);
    free(m->strings);
    free(m);
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* The string for the shortest beginning of s[0..len) that the map has; NULL if it has none. */
static const char *look_up(const struct charsmap *m, const char *s, size_t len, size_t *ret_len)
{
    size_t at = offset_of(m->units[0]);
    for (size_t i = 0; i < len && s[i] != 0; i++) {
        unsigned char c = (unsigned char)s[i];
        at ^= c;
        if (at >= m->n_units || (m->units[at] & (1u << 31 | 0xff)) != c)
            return NULL;
        uint32_t unit = m->units[at];
        at ^= offset_of(unit);
        if (unit >> 8 & 1) {
            size_t string = at < m->n_units ? m->units[at] & 0x7fffffffu : SIZE_MAX;
            if (string >= m->strings_len)
                return NULL;
            *ret_len = strnlen(m->strings + string, m->strings_len - string);
            return m->strings + string;
        }
    }
    return NULL;
}

static int put_chars(const struct charsmap *m, const char *text, size_t len, struct buf *out)
{
    int r = 0;
    for (size_t i = 0, n; i < len && r >= 0; i += n) {
        size_t mapped_len;
        n = utf8_decode(text + i, len - i, NULL);
        n = n ? n : 1;
        const char *mapped = look_up(m, text + i, n, &mapped_len);
        r = mapped ? buf_append(out, mapped, mapped_len) : buf_append(out, text + i, n);
    }
    return r;
}

int charsmap_run(const struct charsmap *m, const char *text, size_t len, size_t origin, struct buf *out, size_t *ret_origin)
{
    int r = 0;
    *ret_origin = 0;
    for (size_t i = 0, n; i < len && r >= 0; i += n) {
        size_t mapped_len;
        n = unicode_grapheme(text + i, len - i);
        const char *mapped = n <= WHOLE_GRAPHEME_BYTES ? look_up(m, text + i, n, &mapped_len) : NULL;
        r = mapped ? buf_append(out, mapped, mapped_len) : put_chars(m, text + i, n, out);
        if (i < origin)
            *ret_origin = out->len;
    }
    return r;
}
