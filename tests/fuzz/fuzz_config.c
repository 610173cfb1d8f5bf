/* Any bytes as config.json; after a NUL, as generation_config.json; after another, as --rope-scaling. What is accepted keeps its ranges. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/model/rope.h"
#include "tests/fuzz/fuzz.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text, size_t len)
{
    json_t *v = NULL;
    return text && json_parse(text, len, "input", &v, NULL) >= 0 ? v : NULL;
}

static void check(const struct model_config *c)
{
    float f[MODEL_MAX_HEAD_DIM / 2];
    struct layer_plan plan[MODEL_MAX_LAYERS];
    rope_frequencies(&c->rope, c->head_dim, f);
    for (int j = 0; j < c->head_dim / 2; j++)
        if (!isfinite(f[j]))
            abort();
    if (c->n_layers < 1 || c->n_layers > MODEL_MAX_LAYERS || c->n_heads % c->n_kv_heads || c->head_dim % 2 ||
        c->default_max_model_len < 1 || c->eos_id >= c->vocab || c->bos_id >= c->vocab || !(c->rope.attention_factor > 0))
        abort();
    if (c->mamba.inner < c->mamba.dim || c->mamba.d_conv < 2 || c->mamba.dt_rank < 1 || !(c->exec_capacity <= 1) ||
        !(c->attn_capacity <= 1))
        abort();
    for (int l = 0; l < c->n_layers; l++)
        if (!c->layout[l] || !strchr("TDS", c->layout[l]))
            abort();
    if (layer_plan_derive(c, layer_plan_default_family(c), plan, NULL) < 0)
        abort();
    (void)layer_plan_derive(c, FAMILY_DLLM, plan, NULL);
}

/* The next piece of the input, NUL-terminated by nature or by the copy; NULL when there is none. */
static const char *next_piece(const char **at, const char *end, size_t *ret_len)
{
    const char *p = *at;
    if (!p || p > end)
        return NULL;
    *ret_len = strlen(p);
    *at = p + *ret_len + 1;
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1);
    if (!text)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    const char *at = text, *end = text + len;
    size_t n1 = 0, n2 = 0, n3 = 0;
    const char *a = next_piece(&at, end, &n1), *b = next_piece(&at, end, &n2), *c = next_piece(&at, end, &n3);
    json_t *config = parse(a, n1), *generation = parse(b, n2);
    const struct model_overrides o = {.rope_scaling = c, .bos_id = -1, .eos_id = -1};
    struct model_config m;
    struct err e;
    if (config && model_config_from_json(config, generation, &o, NULL, &m, &e) >= 0)
        check(&m);
    json_decref(config);
    json_decref(generation);
    free(text);
    return 0;
}
