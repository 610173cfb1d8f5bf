/* Normal random numbers of which each can be had alone: value i of a stream depends on the two only, so arrays are filled in any order, by any device, in
 * any number of parts, with the same bits.
 *
 * The generator is splitmix64 with a counter (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014); Box and Muller's transform makes
 * two normal values of one of its numbers, by the functions of portable.h. */
#pragma once
#include "kernels/portable.h"
#include <math.h>
#include <stddef.h>

/* An array of them: element i is value first + i, normal with mean 0. */
struct random_values {
    uint64_t stream, first;
    double std; /* standard deviation */
};

/* Number i of stream `seed`, every bit random. */
PORTABLE uint64_t random_hash(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Values 2 * pair and 2 * pair + 1. */
PORTABLE void random_pair(uint64_t stream, uint64_t pair, double std, float *ret_even, float *ret_odd)
{
    uint64_t h = random_hash(stream, pair);
    double u = ((double)(h >> 32) + 1) * 0x1p-32, sine, cosine; /* 0 < u <= 1 */
    portable_sin_cos(0x1.921fb54442d18p2 * ((double)(h & 0xffffffffu) * 0x1p-32), &sine, &cosine);
    double radius = std * sqrt(-2 * portable_log_double(u));
    *ret_even = (float)(radius * cosine);
    *ret_odd = (float)(radius * sine);
}

/* Value i. */
PORTABLE float random_normal(uint64_t stream, uint64_t i, double std)
{
    float even, odd;
    random_pair(stream, i / 2, std, &even, &odd);
    return i % 2 ? odd : even;
}

/* x[n] = elements at.. of the array. */
static inline void random_fill(const struct random_values *v, uint64_t at, float *x, size_t n)
{
    uint64_t i = v->first + at;
    size_t j = 0;
    if (i % 2 && n)
        x[j++] = random_normal(v->stream, i++, v->std);
    for (; j + 2 <= n; j += 2, i += 2)
        random_pair(v->stream, i / 2, v->std, &x[j], &x[j + 1]);
    if (j < n)
        x[j] = random_normal(v->stream, i, v->std);
}
