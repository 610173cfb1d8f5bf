/* Shortest round-trip digits.
 *
 * A decimal of at most FLT_DIG (DBL_DIG) digits survives the way into a normal float (double) and back, so if such a
 * short spelling exists, rounding to that many digits finds it, with zeros behind; else one to three digits more are
 * tried. Floats of everyday size take a way without the C library: the float and the two halfway points next to it are
 * scaled to nine digits before the decimal point, in double, which is off by less than SCALED_ERROR. Where that could
 * decide anything, the general way is taken. */
#include "common/float_text.h"
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double pow10_table[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                     1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}; /* all exact */

static void drop_zeros(struct float_text *t)
{
    while (t->n_digits > 1 && t->digits % 10 == 0) {
        t->digits /= 10;
        t->n_digits--;
    }
}

/* The slow, general way for one precision: digits and exponent from printf; `text` receives its spelling. */
static void round_to(struct float_text *t, double v, int n_digits, char text[40])
{
    snprintf(text, 40, "%.*e", n_digits - 1, v);
    char *e = strchr(text, 'e');
    t->digits = 0;
    t->n_digits = n_digits;
    t->exponent = atoi(e + 1);
    for (const char *s = text; s < e; s++)
        if (*s >= '0' && *s <= '9')
            t->digits = t->digits * 10 + (uint64_t)(*s - '0');
    drop_zeros(t);
}

static float float_of(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

/* What is off in a product of two doubles, one of them exact, that is below 1e9: half a unit in the last place, 6e-8, at most. */
#define SCALED_ERROR 1e-6

struct scaled {
    double v, below, above; /* the float and its halfway points, times 10^(8 - exponent) */
    int exponent;           /* of the float: v is in [1e8, 1e9) */
};

/* a in [1e-10, 1e6) */
static struct scaled scale(float a)
{
    uint32_t bits;
    memcpy(&bits, &a, sizeof(bits));
    double v = a, below = (v + (double)float_of(bits - 1)) / 2, above = (v + (double)float_of(bits + 1)) / 2;
    int binary = (int)(bits >> 23) - 127,
        e = (binary * 1233) >> 12; /* 1233 / 4096 is a little less than log10(2) below 2^20, a little more above 2^-34 */
    if (v * pow10_table[8 - e] >= 1e9)
        e++;
    double p = pow10_table[8 - e];
    return (struct scaled){v * p, below * p, above * p, e};
}

/* A decimal next to the float. */
struct candidate {
    uint32_t n; /* times its unit */
    bool inside, unclear;
};

/* The multiple of `unit` nearest to the float; `inside`: it reads back. */
static inline __attribute__((always_inline)) struct candidate nearest(const struct scaled *s, uint32_t unit)
{
    uint32_t whole = (uint32_t)s->v, n = whole / unit;
    double rest = (whole - n * unit) + (s->v - whole), half = unit / 2.0;
    n += rest > half;
    double r = (double)n * unit;
    bool inside = (r > s->below + SCALED_ERROR) & (r < s->above - SCALED_ERROR);
    bool outside = (r < s->below - SCALED_ERROR) | (r > s->above + SCALED_ERROR);
    return (struct candidate){n, inside, (inside == outside) | (fabs(rest - half) < SCALED_ERROR)};
}

/* The halfway points are at least `unit` apart and less than ten: so between them is at most one multiple of ten units, which is the shortest if
 * it is there. `n_digits`: of a multiple of `unit`. */
static inline __attribute__((always_inline)) bool choose(const struct scaled *s, uint32_t unit, int n_digits, struct float_text *t)
{
    struct candidate ten = nearest(s, 10 * unit), one = nearest(s, unit);
    t->digits = ten.inside ? ten.n : one.n;
    t->n_digits = n_digits - ten.inside;
    t->exponent = s->exponent;
    return !(ten.unclear | one.unclear | !(ten.inside | one.inside));
}

/* a in [1e-10, 1e6): true when digits were found. */
static bool float_fast(struct float_text *t, float a)
{
    struct scaled s = scale(a);
    double apart = s.above - s.below;
    bool found = apart >= 100 ? choose(&s, 100, 7, t) : apart >= 10 ? choose(&s, 10, 8, t) : choose(&s, 1, 9, t);
    if (!found)
        return false;
    if ((double)t->digits >= pow10_table[t->n_digits]) { /* 9.9999996 became 10.0000 */
        t->digits /= 10;
        t->exponent++;
    }
    drop_zeros(t);
    return true;
}

void float_text_from_float(struct float_text *t, float v)
{
    float a = fabsf(v);
    char text[40];
    *t = (struct float_text){.n_digits = 1};
    if (a == 0 || (a >= 1e-10f && a < 1e6f && float_fast(t, a)))
        return;
    for (int n = a < FLT_MIN ? 1 : FLT_DIG; n <= FLT_DECIMAL_DIG; n++) {
        round_to(t, a, n, text);
        if (strtof(text, NULL) == a)
            return;
    }
}

void float_text_from_double(struct float_text *t, double v)
{
    double a = fabs(v);
    char text[40];
    *t = (struct float_text){.n_digits = 1};
    if (a == 0)
        return;
    for (int n = a < DBL_MIN ? 1 : DBL_DIG; n <= DBL_DECIMAL_DIG; n++) {
        round_to(t, a, n, text);
        if (strtod(text, NULL) == a)
            return;
    }
}

/* ---- writing ---- */

#define SHORT_DIGITS 9
#define COPY 16 /* bytes that are copied at once, whatever of them counts */

/* n_digits of t, at most SHORT_DIGITS; behind them as many zeros as a copy reads. Returns the first. */
static const char *short_digits(char buffer[SHORT_DIGITS + 2 * COPY], const struct float_text *t)
{
    uint32_t d = (uint32_t)t->digits;
    memset(buffer + SHORT_DIGITS, '0', 2 * COPY);
    for (int i = SHORT_DIGITS - 1; i >= 0; i--, d /= 10)
        buffer[i] = (char)('0' + d % 10);
    return buffer + SHORT_DIGITS - t->n_digits;
}

/* Plain notation of few digits: copies of one size, which cost less than the right one. `out` has room for 32 bytes. */
static char *write_short(char *out, const struct float_text *t)
{
    char buffer[SHORT_DIGITS + 2 * COPY];
    const char *digits = short_digits(buffer, t);
    int point = t->exponent + 1; /* digits before the decimal point */
    if (point <= 0) {
        memcpy(out, "0.00000", 7);
        memcpy(out + 2 - point, digits, COPY);
        return out + 2 - point + t->n_digits;
    }
    memcpy(out, digits, COPY);
    if (point >= t->n_digits)
        return out + point;
    out[point] = '.';
    memcpy(out + point + 1, digits + point, COPY);
    return out + 1 + t->n_digits;
}

static char *write_long(char *out, const struct float_text *t)
{
    char digits[24], *o = out;
    uint64_t d = t->digits;
    for (int i = t->n_digits - 1; i >= 0; i--, d /= 10)
        digits[i] = (char)('0' + d % 10);
    bool plain = t->exponent >= -5 && t->exponent < 16;
    int point = plain ? t->exponent + 1 : 1;
    if (point <= 0) {
        *o++ = '0';
        *o++ = '.';
        for (; point < 0; point++)
            *o++ = '0';
        point = -1;
    }
    for (int i = 0; i < t->n_digits || i < point; i++) {
        if (i == point)
            *o++ = '.';
        *o++ = i < t->n_digits ? digits[i] : '0';
    }
    return plain ? o : o + sprintf(o, "e%+03d", t->exponent);
}

/* Plain notation while the exponent is in [-5, 16), else d.ddde-07. */
int float_text_write(char *out, const struct float_text *t, int negative)
{
    bool is_short = t->n_digits <= SHORT_DIGITS && t->exponent >= -5 && t->exponent < SHORT_DIGITS;
    char *o = out;
    *o = '-';
    o += negative != 0;
    o = is_short ? write_short(o, t) : write_long(o, t);
    *o = 0;
    return (int)(o - out);
}
