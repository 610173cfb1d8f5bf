/* The slots of the plain C ops, in one build of them (ops.h). */
#include "kernels/cpu/ops.h"

void CPU_NAME(portable_init)(struct kern_ops *o)
{
    CPU_NAME(rmsnorm_init)(o);
    CPU_NAME(route_init)(o);
    CPU_NAME(rope_init)(o);
    CPU_NAME(attention_init)(o);
    CPU_NAME(gates_init)(o);
    CPU_NAME(logprob_init)(o);
    CPU_NAME(mamba_init)(o);
}
