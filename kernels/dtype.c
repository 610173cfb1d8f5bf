/* Element types: sizes, names, half precision, and conversion of whole arrays. */
#include "kernels/dtype.h"
#include <assert.h>

size_t dtype_size(enum dtype t)
{
    return t == DTYPE_F32 ? 4 : 2;
}

const char *dtype_name(enum dtype t)
{
    static const char *const names[DTYPE_COUNT] = {"f32", "bf16", "f16"};
    assert(t >= 0 && t < DTYPE_COUNT);
    return names[t];
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

float f16_to_f32(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000) << 16, exponent = (v >> 10) & 31, mantissa = v & 0x3ff;
    if (exponent == 31)
        return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent)
        return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float f = (float)mantissa * 0x1p-24f; /* subnormal or zero: exact */
    return sign ? -f : f;
}

/* `value` / 2^shift, rounded to nearest, ties to even. */
static uint32_t round_shift(uint32_t value, int shift)
{
    uint32_t kept = value >> shift, dropped = value & ((1u << shift) - 1), half = 1u << (shift - 1);
    return kept + (dropped > half || (dropped == half && (kept & 1)));
}

uint16_t f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = (u >> 16) & 0x8000;
    int exponent = (int)(u >> 23 & 255) - 127;
    uint32_t mantissa = u & 0x7fffff;
    if (exponent == 128)
        return sign | 0x7c00 | (mantissa ? 0x200 | mantissa >> 13 : 0);
    if (exponent > 15)
        return sign | 0x7c00;
    if (exponent >= -14) /* a carry out of the mantissa raises the exponent, up to infinity: as it should be */
        return sign | (uint16_t)(((uint32_t)(exponent + 15) << 10) + round_shift(mantissa, 13));
    if (exponent < -25)
        return sign;
    return sign | (uint16_t)round_shift(mantissa | 0x800000, -exponent - 1);
}

void dtype_to_f32(float *dst, const void *src, enum dtype src_type, size_t n)
{
    const uint16_t *half = src;
    if (src_type == DTYPE_F32)
        memcpy(dst, src, n * 4);
    else if (src_type == DTYPE_BF16)
        for (size_t i = 0; i < n; i++)
            dst[i] = bf16_to_f32(half[i]);
    else
        for (size_t i = 0; i < n; i++)
            dst[i] = f16_to_f32(half[i]);
}

void dtype_from_f32(void *dst, enum dtype dst_type, const float *src, size_t n)
{
    uint16_t *half = dst;
    if (dst_type == DTYPE_F32)
        memcpy(dst, src, n * 4);
    else if (dst_type == DTYPE_BF16)
        for (size_t i = 0; i < n; i++)
            half[i] = f32_to_bf16(src[i]);
    else
        for (size_t i = 0; i < n; i++)
            half[i] = f32_to_f16(src[i]);
}
