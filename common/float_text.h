/* The shortest decimal digits that read back to the same float or double. */
#pragma once
#include <stdint.h>

/* v = sign * digits * 10^(exponent - n_digits + 1): "d.ddd x 10^exponent". */
struct float_text {
    uint64_t digits;
    int n_digits; /* 1..17; no trailing zeros, but 0 has one digit */
    int exponent;
};

/* v is finite; the sign is ignored. */
void float_text_from_float(struct float_text *t, float v);
void float_text_from_double(struct float_text *t, double v);

/* Writes it as a JSON number (at most 25 bytes and a NUL); returns the length. */
int float_text_write(char *out, const struct float_text *t, int negative);
