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

/* Owns the body; returns the handler's code. */
static int answer(json_t *body, const struct json_ids *ids, unsigned which)
{
    struct http_response resp = {.status = 200};
    struct call c = {.server = &server, .resp = &resp, .body = body, .ids = *ids};
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
    return r < 0 ? r : 0;
}

#define NO_OBJECT 1 /* in place of a handler's code */

/* The same body without its lists of ids, as a server reads it, has the same answer or is refused alike. */
static void answer_without_ids(const char *text, size_t len, unsigned which, int code)
{
    static const char *const names[] = {"prompt", "context", "continuations", "text", "texts", NULL};
    struct json_ids taken;
    struct buf rest;
    json_t *body = NULL;
    buf_init(&rest, 1 << 26);
    if (json_ids_take(text, len, names, &rest, &taken) >= 0 && taken.n_lists) {
        json_parse(rest.data, rest.len, "body", &body, NULL);
        if ((json_is_object(body) ? answer(json_incref(body), &taken, which) : NO_OBJECT) != code)
            abort();
    }
    json_decref(body);
    json_ids_done(&taken);
    buf_done(&rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct json_ids none = {0};
    const char *text = (const char *)data + 1;
    json_t *body = NULL;
    int code = NO_OBJECT;
    if (len < 1)
        return 0;
    if (json_parse(text, len - 1, "body", &body, NULL) >= 0 && json_is_object(body))
        code = answer(json_incref(body), &none, data[0]);
    json_decref(body);
    answer_without_ids(text, len - 1, data[0], code);
    return 0;
}
