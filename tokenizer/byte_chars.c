/* The table of byte characters, computed: the bytes that are not printable are 0..32, 127..160 and 173. */
#include "tokenizer/byte_chars.h"

uint32_t byte_char(unsigned char b)
{
    if (b <= 32)
        return 256u + b;
    if (b >= 127 && b <= 160)
        return 256u + 33 + (b - 127u);
    return b == 173 ? 256u + 67 : b;
}

int byte_of_char(uint32_t cp)
{
    if (cp >= 256 && cp < 256 + 68) {
        uint32_t k = cp - 256;
        return (int)(k <= 32 ? k : k < 67 ? k - 33 + 127 : 173);
    }
    return cp < 256 && byte_char((unsigned char)cp) == cp ? (int)cp : -1;
}

size_t byte_chars_spell(const char *text, size_t len, char *out)
{
    char *o = out;
    for (size_t i = 0; i < len; i++) {
        uint32_t c = byte_char((unsigned char)text[i]);
        if (c < 0x80) {
            *o++ = (char)c;
        } else {
            *o++ = (char)(0xc0 | c >> 6);
            *o++ = (char)(0x80 | (c & 0x3f));
        }
    }
    return (size_t)(o - out);
}
