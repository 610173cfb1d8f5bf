#include "engine/checkpoint/random_checkpoint.h"
#include "engine/checkpoint/random_tensor.h"
#include "engine/checkpoint/safetensors_private.h"
#include <stdlib.h>
#include <string.h>

struct maker {
    const struct model_config *c;
    struct safetensors *s;
    uint64_t seed, index; /* index: of the next tensor */
};

/* Tensors that are not random are small. */
static const void *make_constants(struct maker *m, const struct tensor_spec *spec, enum dtype type, size_t n)
{
    char *values = arena_alloc(&m->s->names, n, dtype_size(type));
    for (size_t i = 0; values && i < n; i++) {
        float x = random_tensor_constant(spec, i);
        dtype_from_f32(values + i * dtype_size(type), type, &x, 1);
    }
    return values;
}

static int add_tensor(void *user, const struct tensor_spec *spec)
{
    static const struct {
        const char *name;
        enum tensor_type type;
    } stored[] = {[DTYPE_F32] = {"F32", TENSOR_F32}, [DTYPE_BF16] = {"BF16", TENSOR_BF16}, [DTYPE_F16] = {"F16", TENSOR_F16}};
    struct maker *m = user;
    enum dtype type = random_tensor_dtype(m->c, spec);
    size_t n = (size_t)tensor_spec_elements(spec);
    struct entry *e = safetensors_new_entry(m->s);
    char *name = e ? arena_strndup(&m->s->names, spec->name, strlen(spec->name)) : NULL;
    if (!name)
        return ERR_NOMEM;
    e->t = (struct tensor){.name = name,
                           .dtype = stored[type].name,
                           .type = stored[type].type,
                           .n_dims = spec->n_dims,
                           .n_bytes = n * dtype_size(type),
                           .random = random_tensor_values(m->c, spec, m->seed, m->index++)};
    memcpy(e->t.shape, spec->shape, (size_t)spec->n_dims * sizeof(spec->shape[0]));
    e->t.data = e->t.random.std > 0 ? NULL : make_constants(m, spec, type, n);
    m->s->n_entries++;
    return e->t.data || e->t.random.std > 0 ? 0 : ERR_NOMEM;
}

int random_checkpoint_open(const struct model_config *c, uint64_t seed, struct safetensors **ret, struct err *err)
{
    struct layer_plan *plan = calloc((size_t)c->n_layers, sizeof(*plan));
    struct maker m = {.c = c, .s = safetensors_new(1), .seed = seed};
    int r = plan && m.s ? layer_plan_derive(c, layer_plan_default_family(c), plan, err)
                        : err_set(err, ERR_NOMEM, "no memory for a model's tensors");
    if (r >= 0 && (r = schema_walk(c, plan, add_tensor, &m)) < 0)
        err_set(err, r, "no memory for a model's tensors");
    if (r >= 0)
        r = safetensors_finish(m.s, err);
    if (r < 0)
        safetensors_close(m.s);
    else
        *ret = m.s;
    free(plan);
    return r;
}
