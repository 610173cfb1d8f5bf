#include "engine/checkpoint/random_tensor.h"
#include <math.h>

/* Standard deviation of a tensor's values; 0 for those that are not random. */
static double spread(const struct model_config *c, const struct tensor_spec *t)
{
    double residual = 0.02 / sqrt(2.0 * c->n_layers);
    switch (t->role) {
    case ROLE_EMBEDDING: return 2 / sqrt((double)t->shape[1]);
    case ROLE_BIAS: return 0.02;
    case ROLE_LINEAR: return t->row == SCHEMA_O ? residual / 8 : t->row == SCHEMA_DOWN ? residual : 0.02;
    case ROLE_ROUTER_LINEAR: return 1 / sqrt((double)t->shape[t->n_dims - 1]);
    default: return 0;
    }
}

struct random_values random_tensor_values(const struct model_config *c, const struct tensor_spec *t, uint64_t seed, uint64_t index)
{
    return (struct random_values){.stream = random_hash(seed, index), .std = spread(c, t)};
}

/* Of Mamba routers, as their authors begin: decay rates 1, 2, ..., step sizes from 0.001 to 0.1. */
float random_tensor_constant(const struct tensor_spec *t, uint64_t i)
{
    switch (t->role) {
    case ROLE_NORM:
    case ROLE_ROUTER_NORM:
    case ROLE_ROUTER_D: return 1;
    case ROLE_ROUTER_A_LOG: return (float)log((double)(i % (uint64_t)t->shape[1]) + 1);
    case ROLE_ROUTER_DT_BIAS: {
        double step = 0.001 * pow(100, t->shape[0] > 1 ? (double)i / (double)(t->shape[0] - 1) : 0.5);
        return (float)log(expm1(step)); /* softplus of it is the step */
    }
    default: return 0;
    }
}

enum dtype random_tensor_dtype(const struct model_config *c, const struct tensor_spec *t)
{
    return t->wide ? DTYPE_F32 : c->save_dtype;
}
