/* Shortest round-trip digits.
 *
 * A decimal of at most FLT_DIG (DBL_DIG) digits survives the way into a normal float (double) and back, so if such a
 * short spelling exists, rounding to that many digits finds it, with zeros behind; else one to three digits more are
 * tried. Floats of everyday size take a way without the C library: D / 10^k in double is correctly rounded, therefore
 * lies strictly between the two halfway points next to v (exact in double) only if the decimal itself does. */
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

/* a in [1e-10, 1e6): true when digits were found. */
static bool float_fast(struct float_text *t, float a)
{
    double v = a, below = (v + nextafterf(a, 0)) / 2, above = (v + nextafterf(a, INFINITY)) / 2;
    int e = -10;
    while (e < 0 ? v * pow10_table[-e - 1] >= 1 : v >= pow10_table[e + 1])
        e++;
    for (int n = FLT_DIG; n <= FLT_DECIMAL_DIG; n++) {
        int k = n - 1 - e;
        double d = nearbyint(v * pow10_table[k]), back = d / pow10_table[k];
        if (back <= below || back >= above)
            continue;
        if (d < pow10_table[n - 1])
            return false;                   /* e is one too high: v * 10^k was rounded up to a power of ten */
        bool carried = d >= pow10_table[n]; /* 9.9999996 became 10.0000 */
        t->digits = (uint64_t)(carried ? d / 10 : d);
        t->n_digits = n;
        t->exponent = e + carried;
        drop_zeros(t);
        return true;
    }
    return false;
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

/* Plain notation while the exponent is in [-5, 16), else d.ddde-07. */
int float_text_write(char *out, const struct float_text *t, int negative)
{
    char digits[24], *o = out;
    uint64_t d = t->digits;
    for (int i = t->n_digits - 1; i >= 0; i--, d /= 10)
        digits[i] = (char)('0' + d % 10);
    bool plain = t->exponent >= -5 && t->exponent < 16;
    int point = plain ? t->exponent + 1 : 1; /* digits before the decimal point */
    if (negative)
        *o++ = '-';
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
    if (!plain)
        o += sprintf(o, "e%+03d", t->exponent);
    *o = 0;
    return (int)(o - out);
}
