#include "kernels/dtype.h"
#include "tests/check.h"
#include <math.h>

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Every half: its value from the format's definition, and the way back. */
static void halves(void)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
        double want = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        float got = f16_to_f32((uint16_t)h);
        if (exponent == 31 && mantissa) {
            CHECK(isnan(got) && (f32_to_f16(got) & 0x7fff) > 0x7c00);
            continue;
        }
        if (exponent == 31)
            want = INFINITY;
        if (!CHECK(got == (float)(h & 0x8000 ? -want : want) && !signbit(got) == !(h >> 15)) || !CHECK_INT(f32_to_f16(got), h))
            return;
    }
}

/* Between neighbouring halves: below the middle goes down, above it up, the middle itself to the even one. */
static void half_rounding(void)
{
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double low = f16_to_f32((uint16_t)h), high = h == 0x7bff ? 65536.0 : f16_to_f32((uint16_t)(h + 1));
        float middle = (float)((low + high) / 2);
        if (!CHECK_INT(f32_to_f16(middle), h & 1 ? h + 1 : h) || !CHECK_INT(f32_to_f16(nextafterf(middle, 0)), h))
            return;
        CHECK_INT(f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        CHECK_INT(f32_to_f16(-middle), (h & 1 ? h + 1 : h) | 0x8000);
    }
    CHECK_INT(f32_to_f16(1e30f), 0x7c00);
    CHECK_INT(f32_to_f16(-INFINITY), 0xfc00);
    CHECK_INT(f32_to_f16(1e-30f), 0);
}

static void bfloats(void)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = bf16_to_f32((uint16_t)h);
        if (isnan(f)) {
            CHECK(isnan(bf16_to_f32(f32_to_bf16(f))));
            continue;
        }
        if (!CHECK_INT(f32_to_bf16(f), h))
            return;
        if (isinf(f))
            continue;
        CHECK_INT(f32_to_bf16(from_bits(h << 16 | 0x8000)), h + (h & 1));
        CHECK_INT(f32_to_bf16(from_bits(h << 16 | 0x7fff)), h);
        CHECK_INT(f32_to_bf16(from_bits(h << 16 | 0x8001)), h + 1);
    }
    CHECK(isnan(bf16_to_f32(f32_to_bf16(from_bits(0x7f800001)))));
}

static void arrays(void)
{
    static const float values[] = {0, -1.5f, 3.25f, 100, -0.0625f};
    for (int t = 0; t < DTYPE_COUNT; t++) {
        char stored[5 * 4];
        float back[5];
        dtype_from_f32(stored, t, values, 5);
        dtype_to_f32(back, stored, t, 5);
        CHECK(!memcmp(values, back, sizeof(back)));
    }
    CHECK_INT(dtype_size(DTYPE_F32), 4);
    CHECK_INT(dtype_size(DTYPE_BF16), 2);
    CHECK_INT(dtype_size(DTYPE_F16), 2);
    CHECK_STR(dtype_name(DTYPE_BF16), "bf16");
}

int main(void)
{
    halves();
    half_rounding();
    bfloats();
    arrays();
    return check_result();
}
