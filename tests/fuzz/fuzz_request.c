/* A request body for one of the endpoints: the first byte, from '2' on, picks it, the rest is the body. The engine is a double that aborts when it is
 * given what engine.h forbids. Whatever comes, the answer is JSON or the error has a sentence. */
#include "server/api/api.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_engine.h"
#include <stdlib.h>
#include <string.h>

static struct server_settings settings;
static struct server server = FAKE_SERVER(&settings);

static int (*const handlers[])(struct call *c, struct err *err) = {api_completions, api_loglikelihood, api_loglikelihood_rolling,
                                                                   api_tokenize,    api_detokenize,    api_routing};

/* Takes an answer to its end, as the connection's thread would. */
static void drain(struct http_response *resp)
{
    while (resp->stream.next(resp->stream.user, &resp->body) > 0)
        if (resp->events)
            buf_clear(&resp->body);
    resp->stream.done(resp->stream.user);
}

static void answer(json_t *body, unsigned which)
{
    struct http_response resp = {.status = 200};
    struct call c = {.server = &server, .resp = &resp, .body = body};
    struct err err = {0};
    buf_init(&resp.body, 1 << 26);
    arena_init(&c.arena, 1 << 26);
    int r = handlers[(which - '2') % (sizeof(handlers) / sizeof(handlers[0]))](&c, &err);
    json_t *value = NULL;
    if (r >= 0 && resp.stream.next)
        drain(&resp);
    if (r >= 0 && !resp.events && json_parse(resp.body.data, resp.body.len, "answer", &value, NULL) < 0)
        abort();
    else if (r < 0 && !*err.text)
        abort();
    json_decref(value);
    json_decref(c.body);
    arena_done(&c.arena);
    buf_done(&resp.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    json_t *body = NULL;
    if (len < 1 || json_parse((const char *)data + 1, len - 1, "body", &body, NULL) < 0)
        return 0;
    if (json_is_object(body))
        answer(body, data[0]);
    else
        json_decref(body);
    return 0;
}
