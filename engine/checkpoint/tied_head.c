#include "engine/checkpoint/tied_head.h"
#include <string.h>

bool tied_head_check(const struct model_config *c, const struct safetensors *s, struct log *log)
{
    const struct tensor *head = safetensors_find(s, "lm_head.weight"), *embed = safetensors_find(s, "model.embed_tokens.weight");
    if (!c->tied || !head || !embed)
        return false;
    if (head->type == embed->type && head->n_bytes == embed->n_bytes && !memcmp(head->data, embed->data, head->n_bytes))
        return false;
    log_warn(log, "config.json ties lm_head to the embedding (tie_word_embeddings), but the checkpoint stores another lm_head.weight: the "
                  "embedding is "
                  "used, as transformers 4 does; transformers 5 takes the stored one (tie_word_embeddings false gives it here)");
    return true;
}
