/* See five.h. */
#include "tests/engine/five.h"
#include "tests/check.h"
#include <stdlib.h>
#include <string.h>

static int32_t tokens[FIVE][FIVE_LEN];
static struct eval_request reqs[FIVE];
struct engine_options five_options(const char *dir, const char *dtype)
{
    return (struct engine_options){.model_dir = dir,
                                   .dtype = dtype,
                                   .n_threads = 2,
                                   .max_model_len = 128,
                                   .max_batch_tokens = 48,
                                   .kv_cache_bytes = (size_t)16 << 20,
                                   .prefix_cache = true,
                                   .bos_id = -1,
                                   .eos_id = -1};
}

void five_requests(int vocab)
{
    uint32_t x = 1;
    for (int i = 0; i < FIVE; i++) {
        int n = i == 2 ? 3 : FIVE_LEN - 7 * i;
        for (int t = 0; t < n; t++) {
            x = x * 1664525u + 1013904223u;
            tokens[i][t] = i == 1 && t < 40 ? tokens[0][t] : (int32_t)(x >> 8) % vocab;
        }
        reqs[i] = (struct eval_request){.tokens = tokens[i],
                                        .n_tokens = n,
                                        .score_begin = 1,
                                        .top_k = FIVE_TOP,
                                        .max_new = i > 2 ? FIVE_NEW : 0,
                                        .temperature = i == 4 ? 0.8f : 0,
                                        .top_p = 1,
                                        .seed = 5,
                                        .ignore_eos = true,
                                        .want_routing = true,
                                        .want_probs = true};
    }
}

struct engine_ticket *five_run(struct engine *e)
{
    struct engine_ticket *t = NULL;
    struct err err;
    if (!CHECK_INT(engine_submit(e, reqs, FIVE, &t, &err), 0)) {
        fprintf(stderr, "  %s\n", err.text);
        exit(1);
    }
    engine_wait(t, -1);
    return t;
}

bool five_same(const struct eval_result *a, const struct eval_result *b, size_t layers)
{
    size_t n = (size_t)a->n_scored, rows = (size_t)a->n_rows, fresh = (size_t)a->n_new;
    return !a->code && !b->code && a->n_scored == b->n_scored && a->n_rows == b->n_rows && a->n_new == b->n_new &&
           !memcmp(a->logprobs, b->logprobs, n * 4) && !memcmp(a->top_ids, b->top_ids, n * FIVE_TOP * 4) &&
           !memcmp(a->top_logprobs, b->top_logprobs, n * FIVE_TOP * 4) && !memcmp(a->routing, b->routing, layers * (size_t)a->n_routing) &&
           !memcmp(a->probs, b->probs, rows * layers * 4) && !memcmp(a->skip_probs, b->skip_probs, rows * layers * 4) &&
           !memcmp(a->new_tokens, b->new_tokens, fresh * 4) && !memcmp(a->new_logprobs, b->new_logprobs, fresh * 4);
}
