/* Any bytes as the weights of a tiny DTRNet: plan and binding either accept them whole or refuse them. */
#include "engine/model/weights.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

static struct kern_ctx *backend(void)
{
    static struct kern_ctx *k;
    const struct backend *cpu = NULL;
    const struct backend_config config = {.dtype = DTYPE_F32, .n_threads = 1};
    if (!k && (backend_find("cpu", &cpu, NULL) < 0 || cpu->open(&config, &k, NULL) < 0))
        abort();
    return k;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct model_config c = {.hidden = 8,
                                   .ffn = 8,
                                   .n_layers = 2,
                                   .n_heads = 1,
                                   .n_kv_heads = 1,
                                   .head_dim = 8,
                                   .vocab = 8,
                                   .rms_eps = 1e-5f,
                                   .tied = true,
                                   .has_dense_layers = true,
                                   .layout = "TD"};
    struct layer_plan plan[2];
    struct weights w = {0};
    struct safetensors *s = NULL;
    struct err e;
    if (safetensors_open_memory("input", data, len, &s, &e) < 0)
        return 0;
    if (layer_plan_fill(&c, s, NULL, plan, &e) >= 0 && weights_load(backend(), &c, plan, s, &(struct share){0}, NULL, &w, &e) >= 0)
        weights_free(backend(), &w);
    safetensors_close(s);
    return 0;
}
