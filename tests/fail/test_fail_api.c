/* Every allocation of every endpoint fails once, and every call of failing_own.h: the handler answers, or fails with a sentence, and nothing leaks. The engine is a double;
 * the tokenizer is the shipped one, opened before. The body is parsed before the failure: jansson 2.14 ignores some failures inside its
 * lexer and then stops at an assertion of its own. */
#include "server/api/api.h"
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/fail/failing_own.h"
#include "tests/unit/fake_engine.h"
#include <stdlib.h>

static struct server_settings settings = {.tokenizer_info = true};
static struct server server = FAKE_SERVER(&settings);

static const struct {
    const char *name;
    int (*handler)(struct call *c, struct err *err);
    const char *body;
} cases[] = {
    {"completions", api_completions, "{\"prompt\": [[5, 6], [7]], \"max_tokens\": 3, \"logprobs\": 2, \"echo\": true, \"n\": 2}"},
    {"stop", api_completions, "{\"prompt\": [5, 6], \"max_tokens\": 3, \"logprobs\": 0, \"stop\": [\"xyz\", \"b\"]}"},
    {"stream", api_completions,
     "{\"prompt\": [5, 6], \"max_tokens\": 3, \"stream\": true, \"logprobs\": 1, \"stream_options\": {\"include_usage\": true}}"},
    {"stream, whole", api_completions, "{\"prompt\": [5, 6], \"max_tokens\": 3, \"stream\": true, \"logprobs\": 1, \"echo\": true}"},
    {"text", api_completions, "{\"prompt\": \"<s></s>\", \"max_tokens\": 1, \"echo\": true}"},
    {"loglikelihood", api_loglikelihood,
     "{\"requests\": [{\"context\": [5, 6], \"continuations\": [[7], [8, 9]]}], \"routing\": true, \"tokens\": true}"},
    {"completion with edits", api_completions,
     "{\"prompt\": [5, 6], \"max_tokens\": 3, \"prompt_logprobs\": 1, \"stop_token_ids\": [9], \"logit_bias\": {\"5\": 2}, \"min_tokens\": "
     "2}"},
    {"loglikelihood of text", api_loglikelihood, "{\"requests\": [{\"context\": \"<s>\", \"continuations\": [\"</s>\"]}]}"},
    {"rolling", api_loglikelihood_rolling,
     "{\"texts\": [[5, 6, 7, 8], \"<s>\"], \"max_length\": 2, \"bucket_edges\": [0, 2], \"tokens\": true}"},
    {"rolling by bucket", api_loglikelihood_rolling, "{\"texts\": [[5, 6, 7, 8]], \"bucket_edges\": [0, 2], \"routing\": true}"},
    {"routing", api_routing, "{\"text\": [5, 6, 7], \"top_logprobs\": 2}"},
    {"routing of text", api_routing, "{\"text\": \"<s></s>\", \"probabilities\": false}"},
    {"tokenize", api_tokenize, "{\"prompt\": \"The old man walked to the river.\"}"},
    {"detokenize", api_detokenize, "{\"tokens\": [345, 885, 479]}"},
    {"tokenizer_info", api_tokenizer_info, "{}"},
    {"metrics", api_metrics, "{}"},
    {"version", api_version, "{}"},
};

static int drain(struct http_response *resp)
{
    struct buf out;
    int r;
    buf_init(&out, 1 << 20);
    while ((r = resp->stream.next(resp->stream.user, &out)) > 0)
        buf_clear(&out);
    resp->stream.done(resp->stream.user);
    buf_done(&out);
    return r;
}

static int answer(size_t i, void (*plan)(long n), long n, struct err *err)
{
    struct http_response resp = {.status = 200};
    struct call c = {.server = &server, .resp = &resp};
    buf_init(&resp.body, 1 << 20);
    arena_init(&c.arena, 1 << 24);
    int r = json_parse(cases[i].body, strlen(cases[i].body), "body", &c.body, err);
    plan(n);
    if (r >= 0)
        r = cases[i].handler(&c, err);
    if (r >= 0 && resp.stream.next && drain(&resp) < 0)
        r = err_set(err, ERR_NOMEM, "the stream broke off");
    json_decref(c.body);
    arena_done(&c.arena);
    buf_done(&resp.body);
    return r;
}

/* Fails the n-th of case i; false when there were not so many. */
static bool fail_at(size_t i, void (*plan)(long n), long n)
{
    struct err err = {0};
    long before = failing_live();
    int r = answer(i, plan, n, &err);
    const char *own = plan == failing_own_plan ? failing_own_reached() : NULL;
    bool reached = own || (plan == failing_plan && failing_reached());
    bool ok = CHECK(r == 0 || (r < 0 && err.text[0])) && CHECK_INT(failing_live(), before) && CHECK(reached || r == 0);
    if (!ok)
        fprintf(stderr, "  %s, %s %ld: %s (%s)\n", cases[i].name, own ? own : "allocation", n, err_name(r), err.text);
    return reached;
}

int main(void)
{
    struct err err = {0};
    long total = 0;
    failing_init();
    if (!CHECK_INT(tokenizer_open(MODEL_DIR, TOKENIZER_RULES_4, NULL, &server.tokenizer, &err), 0))
        return check_result();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err ignored = {0};
        if (!CHECK_INT(answer(i, failing_plan, -1, &ignored), 0))
            fprintf(stderr, "  %s without failures: %s\n", cases[i].name, ignored.text);
        for (int own = 0; own < 2; own++) {
            long n = 0;
            while (fail_at(i, own ? failing_own_plan : failing_plan, n) && n < 10000)
                n++;
            total += n;
        }
    }
    printf("%ld allocations and calls failed, one at a time\n", total);
    CHECK(total > 100);
    tokenizer_close(server.tokenizer);
    return check_result();
}
