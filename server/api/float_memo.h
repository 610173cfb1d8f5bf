/* Floats that were written lately. An answer has most of its logprobs several times: beside their token and among the alternatives, and again
 * for every prompt that begins alike. */
#pragma once
#include "common/json.h"
#include <string.h>

#define FLOAT_MEMO_BITS 10
#define FLOAT_MEMO_TEXT 18 /* bytes of the longest that is kept */

struct float_memo { /* zeroed: nothing was written */
    struct {
        uint32_t bits;
        unsigned char len; /* 0: none */
        char text[FLOAT_MEMO_TEXT + 1];
    } slots[1 << FLOAT_MEMO_BITS];
};

/* As json_format_float, of a finite v; `out` has room for 32 bytes. Returns the length. */
static inline size_t float_memo_write(struct float_memo *m, char *out, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    unsigned at = (bits * 0x9e3779b1u) >> (32 - FLOAT_MEMO_BITS);
    if (m->slots[at].bits != bits || !m->slots[at].len) {
        int len = json_format_float(out, v);
        if (len > FLOAT_MEMO_TEXT)
            return (size_t)len;
        m->slots[at].bits = bits;
        m->slots[at].len = (unsigned char)len;
        memcpy(m->slots[at].text, out, FLOAT_MEMO_TEXT);
        return (size_t)len;
    }
    memcpy(out, m->slots[at].text, FLOAT_MEMO_TEXT);
    return m->slots[at].len;
}
