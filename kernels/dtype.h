/* Element types and conversions between them. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_COUNT };

size_t dtype_size(enum dtype t);      /* bytes of one element */
const char *dtype_name(enum dtype t); /* "f32", "bf16", "f16" */

static inline float bf16_to_f32(uint16_t v)
{
    uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest even; NaN stays NaN (quiet). */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float f16_to_f32(uint16_t v); /* exact, subnormals included */
uint16_t f32_to_f16(float f); /* round to nearest even; overflow gives infinity */

/* n elements of type `src_type` to float32, and back. */
void dtype_to_f32(float *dst, const void *src, enum dtype src_type, size_t n);
void dtype_from_f32(void *dst, enum dtype dst_type, const float *src, size_t n);
