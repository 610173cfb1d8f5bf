/* What the routers share: how a row's margin becomes its decision. */
#pragma once
#include "kernels/cpu/cpu_math.h"
#include "kernels/router.h"

static inline float route_sigmoid(double z)
{
    return (float)(1.0 / (1.0 + exp(-z)));
}

/* z: the margin r0 - r1 of row r. One that is not a number, or infinite, gives `below` and NaN. */
static inline void route_decide(const struct route_out *o, const struct route_rule *rule, int r, double z)
{
    float margin = z - z == 0 ? (float)z : NAN, prob = z - z == 0 ? route_sigmoid(z) : NAN;
    int above = rule->threshold ? margin > *rule->threshold : prob > 0.5f;
    o->route[r] = above ? rule->above : rule->below;
    o->prob[r] = prob;
    if (o->gate)
        o->gate[r] = above || prob != prob ? prob : route_sigmoid(-z);
    if (o->margin)
        o->margin[r] = margin;
}
