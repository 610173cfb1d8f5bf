/* See self_test.h. */
#include "server/program/self_test.h"
#include "engine/checkpoint/model_config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENCES 4
#define LENGTH_MAX 96
#define N_NEW 4
#define TOP_K 2

static const char sentence[] = "The old man sat on the bench and looked at the river.";

struct sample {
    int32_t ids[LENGTH_MAX];
    int n;
    float logprobs[LENGTH_MAX];
};

/* ---- sequences ---- */

/* Beginnings are shared by pairs, so that the prefix tree has something to reuse. The constants are a plain linear congruential generator's. */
static void draw(struct sample *samples, int vocab, int length)
{
    for (int i = 0; i < SEQUENCES; i++) {
        uint64_t x = (uint64_t)(i / 2) + 1;
        samples[i].n = length;
        for (int j = 0; j < length; j++) {
            x = x * 6364136223846793005u + 1442695040888963407u + (j == length / 2 ? (uint64_t)i : 0);
            samples[i].ids[j] = (int32_t)((x >> 33) % (uint64_t)vocab);
        }
    }
}

static struct eval_request request_of(const struct sample *s)
{
    return (struct eval_request){.tokens = s->ids,
                                 .n_tokens = s->n,
                                 .score_begin = s->n > 1 ? 1 : s->n,
                                 .top_k = TOP_K,
                                 .max_new = s->n > N_NEW ? N_NEW : 0,
                                 .top_p = 1,
                                 .ignore_eos = true};
}

/* ---- what must hold ---- */

static int check_row(float logprob, const float *top, int at, struct err *err)
{
    if (!isfinite(logprob) || logprob > 0 || !isfinite(top[0]) || top[0] > 0)
        return err_set(err, ERR_NUMERIC, "the logprob of token %d is %g, its best alternative's %g", at, (double)logprob, (double)top[0]);
    if (top[0] < top[1] || top[0] < logprob || exp((double)top[0]) + exp((double)top[1]) > 1 + 1e-5)
        return err_set(err, ERR_NUMERIC, "at token %d the logprobs %g, %g and %g are of no distribution", at, (double)logprob,
                       (double)top[0], (double)top[1]);
    return 0;
}

static int check_result(const struct eval_result *r, struct err *err)
{
    int code = r->code;
    if (code < 0) {
        *err = r->err;
        return code;
    }
    for (int i = 0; i < r->n_scored && code >= 0; i++)
        code = check_row(r->logprobs[i], r->top_logprobs + (size_t)i * TOP_K, i + 1, err);
    for (int i = 0; i < r->n_new && code >= 0; i++) {
        code = check_row(r->new_logprobs[i], r->new_top_logprobs + (size_t)i * TOP_K, r->n_scored + 1 + i, err);
        if (code >= 0 && r->new_logprobs[i] < r->new_top_logprobs[(size_t)i * TOP_K])
            code = err_set(err, ERR_NUMERIC, "a greedy token is not the best one");
    }
    return code;
}

/* Runs n samples at once. `keep`: their logprobs are noted; else they must be those that were. */
static int run(struct engine *e, struct sample *samples, int n, bool keep, struct err *err)
{
    struct eval_request q[SEQUENCES];
    struct engine_ticket *t = NULL;
    for (int i = 0; i < n; i++)
        q[i] = request_of(&samples[i]);
    int r = engine_submit(e, q, n, &t, err);
    if (r >= 0)
        engine_wait(t, -1);
    for (int i = 0; i < n && r >= 0; i++) {
        const struct eval_result *got = engine_result(t, i);
        size_t bytes = (size_t)(got->code < 0 ? 0 : got->n_scored) * sizeof(float);
        r = check_result(got, err);
        if (r >= 0 && keep && bytes)
            memcpy(samples[i].logprobs, got->logprobs, bytes);
        else if (r >= 0 && bytes && memcmp(samples[i].logprobs, got->logprobs, bytes) != 0)
            r = err_set(err, ERR_NUMERIC, "a sequence scored together with others has other bits than alone");
    }
    engine_ticket_free(t);
    return r;
}

static int test_ids(struct server *s, struct buf *out, struct err *err)
{
    struct sample *samples = calloc(SEQUENCES, sizeof(*samples));
    int length = s->info->max_model_len < LENGTH_MAX ? s->info->max_model_len : LENGTH_MAX, r = 0;
    length -= length > N_NEW ? N_NEW : 0;
    if (!samples)
        return err_set(err, ERR_NOMEM, "no memory for the self-test");
    draw(samples, s->info->config->vocab, length);
    for (int i = 0; i < SEQUENCES && r >= 0; i++) {
        engine_cache_clear(s->engine);
        r = run(s->engine, &samples[i], 1, true, err);
    }
    if (r >= 0)
        r = run(s->engine, samples, SEQUENCES, false, err); /* some of it cached */
    engine_cache_clear(s->engine);
    if (r >= 0)
        r = run(s->engine, samples, SEQUENCES, false, err); /* nothing cached */
    free(samples);
    return r < 0 ? r
                 : buf_printf(out, "ok  %d sequences of %d ids: finite, of a distribution, the same bits alone, together and cached\n",
                              SEQUENCES, length);
}

/* ---- text ---- */

/* Some tokenizers lower the case or drop what they do not know; that is told and no fault. */
static int tell_text(struct server *s, const struct token_ids *ids, struct buf *out, struct err *err)
{
    char *back = NULL;
    size_t len = 0;
    int r = tokenizer_decode(s->tokenizer, ids->ids, ids->n, false, &back, &len, err);
    if (r < 0)
        return r;
    bool same = len == sizeof(sentence) - 1 && !memcmp(back, sentence, len);
    r = same ? buf_printf(out, "ok  \"%s\" comes back from its %zu ids\n", sentence, ids->n)
             : buf_printf(out, "!!  \"%s\" comes back from its %zu ids as \"%.200s\"\n", sentence, ids->n, back);
    free(back);
    return r;
}

static int take_ids(struct server *s, const struct token_ids *ids, struct sample *ret, struct err *err)
{
    int32_t first = s->bos >= 0 ? s->bos : s->eos;
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] >= s->info->config->vocab)
            return err_set(err, ERR_CORRUPT, "the tokenizer has the id %d, the model's vocabulary %d", ids->ids[i], s->info->config->vocab);
        ret->ids[i + 1] = ids->ids[i];
    }
    ret->ids[0] = first >= 0 ? first : ret->ids[1];
    ret->n = (int)ids->n + 1;
    return 0;
}

static int tell_score(struct server *s, struct sample *text, struct buf *out, struct err *err)
{
    double sum = 0, uniform = -log((double)s->info->config->vocab);
    int r = run(s->engine, text, 1, true, err);
    if (r < 0)
        return r;
    for (int i = 0; i + 1 < text->n; i++)
        sum += (double)text->logprobs[i];
    double mean = sum / (text->n - 1);
    const char *verdict = mean > uniform ? "" : ", worse than chance: is the model trained, and the tokenizer its own?";
    return buf_printf(out, "%s  it scores %.3f a token (drawing at random: %.3f)%s\n", *verdict ? "!!" : "ok", mean, uniform, verdict);
}

static int test_text(struct server *s, struct buf *out, struct err *err)
{
    struct sample text = {.n = 0};
    struct token_ids ids = {0};
    if (!s->tokenizer)
        return buf_printf(out, "--  no tokenizer: requests must be made of ids\n");
    int r = tokenizer_encode(s->tokenizer, sentence, sizeof(sentence) - 1, false, LENGTH_MAX - 1, &ids, err);
    if (r >= 0)
        r = tell_text(s, &ids, out, err);
    if (r >= 0)
        r = take_ids(s, &ids, &text, err);
    if (r >= 0 && text.n > 1 && text.n + N_NEW <= s->info->max_model_len)
        r = tell_score(s, &text, out, err);
    token_ids_done(&ids);
    return r;
}

int self_test_run(struct server *s, struct buf *out, struct err *err)
{
    int r = test_ids(s, out, err);
    return r < 0 ? r : test_text(s, out, err);
}
