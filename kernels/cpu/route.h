/* What the routers share: where decisions go, and how a margin becomes one. */
#pragma once
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_math.h"

/* struct route_out as pointers. */
struct decisions {
    unsigned char *route, code[2]; /* code[decided above] */
    float *gate, *prob, *margin;
    const float *threshold;
};

static inline struct decisions decisions_of(const struct route_out *to)
{
    return (struct decisions){u8_of(to->route), {to->below, to->above}, f32_of(to->gate),
                              f32_of(to->prob), f32_of(to->margin),     f32_of(to->threshold)};
}

/* z: the margin of row r. One that is not a finite number is decided below, with NaN for all the rest. */
static inline void route_decide(const struct decisions *to, int r, double z)
{
    bool finite = z - z == 0;
    float margin = finite ? (float)z : portable_nan(), prob = finite ? portable_sigmoid(z) : portable_nan();
    bool above = to->threshold ? margin > *to->threshold : prob > 0.5f;
    to->route[r] = to->code[above];
    to->prob[r] = prob;
    if (to->gate)
        to->gate[r] = above || !finite ? prob : portable_sigmoid(-z);
    if (to->margin)
        to->margin[r] = margin;
}
