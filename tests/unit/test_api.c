/* Handlers over a double of the engine, without HTTP and without a tokenizer: what goes in and comes out, and what happens when the
 * engine refuses or fails. */
#include "server/api/api.h"
#include "server/api/openapi.h"
#include "server/http/routes.h"
#include "tests/check.h"
#include "tests/unit/fake_engine.h"
#include "tests/unit/json_values.h"
#include <stdlib.h>

static struct server_settings settings;
static struct server server = {
    .settings = &settings, .loaded = true, .model_name = "double", .info = &fake_engine_info, .bos = FAKE_BOS, .eos = FAKE_EOS};

/* The handler's code; *ret is the parsed answer or NULL. */
static int call(route_handler handler, const char *body, json_t **ret, struct err *err)
{
    struct http_response resp = {.status = 200};
    struct call c = {.server = &server, .resp = &resp};
    *err = (struct err){0};
    *ret = NULL;
    buf_init(&resp.body, 1 << 22);
    arena_init(&c.arena, 1 << 24);
    c.body = body ? json_loads(body, 0, NULL) : NULL;
    int r = handler(&c, err);
    while (r >= 0 && resp.stream.next && resp.stream.next(resp.stream.user, &resp.body) > 0)
        ;
    if (r >= 0 && !resp.events)
        CHECK((*ret = json_loads(resp.body.data, 0, NULL)) != NULL);
    if (resp.stream.done)
        resp.stream.done(resp.stream.user);
    json_decref(c.body);
    arena_done(&c.arena);
    buf_done(&resp.body);
    return r;
}

static double at(const json_t *list, size_t i)
{
    return json_number_value(json_array_get(list, i));
}

static void test_completion(void)
{
    json_t *answer;
    struct err err;
    CHECK_INT(call(api_completions, "{\"prompt\": [5, 6, 9], \"max_tokens\": 2, \"logprobs\": 1, \"echo\": true, \"temperature\": 0}",
                   &answer, &err),
              0);
    json_t *choice = json_array_get(json_object_get(answer, "choices"), 0), *lp = json_object_get(choice, "logprobs");
    json_t *values = json_object_get(lp, "token_logprobs"), *top = json_object_get(lp, "top_logprobs");
    CHECK_INT(json_array_size(values), 5);
    CHECK(json_is_null(json_array_get(values, 0)) && json_is_null(json_array_get(top, 0)));
    CHECK(at(values, 1) == -0.25 && (float)at(values, 2) == fake_logprob(6, 9) && at(values, 3) == -0.25);
    CHECK_INT(json_object_size(json_array_get(top, 1)), 1);
    CHECK_INT(json_object_size(json_array_get(top, 2)), 2);
    CHECK(json_object_get(json_array_get(top, 2), "token_id:7") && json_object_get(json_array_get(top, 2), "token_id:9"));
    CHECK_STR(json_string_value(json_object_get(choice, "finish_reason")), "length");
    json_decref(answer);
    /* EOS ends the sequence and has its entry */
    CHECK_INT(call(api_completions, "{\"prompt\": [[0], [5]], \"max_tokens\": 9, \"logprobs\": 0}", &answer, &err), 0);
    choice = json_array_get(json_object_get(answer, "choices"), 0);
    CHECK_INT(json_array_size(json_object_get(json_object_get(choice, "logprobs"), "tokens")), 2);
    CHECK_STR(json_string_value(json_object_get(choice, "finish_reason")), "stop");
    json_decref(answer);
}

static void test_failures(void)
{
    static const char body[] = "{\"prompt\": [[5], [6]], \"max_tokens\": 1}";
    static const int codes[] = {ERR_BUSY, ERR_DRAINING, ERR_DEVICE, ERR_NUMERIC, ERR_NOMEM};
    static const char pair[] = "{\"requests\": [{\"context\": [5], \"continuations\": [[6], [7]]}]}", text[] = "{\"text\": [5, 6, 7]}";
    json_t *answer;
    struct err err;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        for (int k = 0; k < 2; k++) {
            fake_engine_plan = (struct fake_engine_plan){.submit_code = k ? 0 : codes[i], .request_code = k ? codes[i] : 0};
            CHECK_INT(call(api_completions, body, &answer, &err), codes[i]);
            CHECK(strstr(err.text, "as planned") != NULL);
            CHECK_INT(call(api_loglikelihood, pair, &answer, &err), codes[i]);
            CHECK_INT(call(api_loglikelihood_rolling, text, &answer, &err), codes[i]);
            CHECK_INT(call(api_routing, text, &answer, &err), codes[i]);
        }
    fake_engine_plan = (struct fake_engine_plan){.request_code = ERR_NUMERIC};
    call(api_completions, body, &answer, &err);
    CHECK(strstr(err.text, "prompt 1") != NULL);
    fake_engine_plan = (struct fake_engine_plan){0};
}

static void try_body(const json_t *body, const char *where, void *user)
{
    char *text = json_dumps(body, JSON_COMPACT);
    json_t *answer;
    struct err err;
    int r = call(*(const route_handler *)user, text, &answer, &err);
    if (!CHECK(r >= 0 || (err.text[0] && err_http_status(r) < 500)))
        fprintf(stderr, "  %s: %s %s\n", where, err_name(r), err.text);
    json_decref(answer);
    free(text);
}

/* Every value of a body becomes another: an answer, or an error of the client's. */
static void test_values(void)
{
    static const struct {
        route_handler handler;
        const char *body;
    } cases[] = {
        {api_completions,
         "{\"model\":\"m\",\"prompt\":[[5,6],[7]],\"max_tokens\":2,\"n\":1,\"best_of\":1,\"logprobs\":1,\"echo\":true,\"temperature\":0,"
         "\"top_p\":1,\"top_k\":0,\"seed\":1,\"stop\":[],\"stop_token_ids\":[9],\"stream\":false,\"stream_options\":null,\"user\":\"u\","
         "\"ignore_eos\":false,\"add_bos\":false,\"min_tokens\":1,\"logit_bias\":{\"5\":1},\"presence_penalty\":0,\"min_p\":0}"},
        {api_completions,
         "{\"prompt\":[5],\"max_tokens\":1,\"length_penalty\":1,\"mirostat\":0,\"suffix\":\"\",\"use_beam_search\":false,\"bad_words\":[],"
         "\"response_format\":{\"type\":\"text\"},\"grammar\":{},\"add_special_tokens\":false,\"n_predict\":null,\"prompt_logprobs\":0}"},
        {api_loglikelihood, "{\"requests\":[{\"context\":[5],\"continuations\":[[6],[7]]}],\"add_bos\":true,\"max_length\":8,\"truncate\":"
                            "true,\"routing\":true,"
                            "\"tokens\":true}"},
        {api_loglikelihood_rolling, "{\"texts\":[[5,6,7],[8]],\"max_length\":4,\"stride\":2,\"bucket_edges\":[0,2],\"routing\":true,"
                                    "\"tokens\":true,\"add_bos\":true}"},
        {api_routing, "{\"text\":[5,6],\"top_logprobs\":1,\"probabilities\":true,\"add_bos\":true}"},
        {api_tokenize, "{\"prompt\":\"x\",\"add_special_tokens\":true,\"return_token_strs\":true}"},
        {api_detokenize, "{\"tokens\":[5,6]}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *body = json_loads(cases[i].body, 0, NULL);
        if (CHECK(body))
            json_values_each(body, try_body, (void *)(uintptr_t)&cases[i].handler);
        json_decref(body);
    }
}

static void test_lengths(void)
{
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{\"prompt\": [5], \"max_tokens\": 33}", "max_tokens"},
        {"{\"prompt\": [64]}", "prompt"},
        {"{\"prompt\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34]}", "prompt"},
        {"{\"prompt\": \"text\"}", "prompt"},
        {"{\"prompt\": [5], \"stop\": \"x\"}", "stop"},
    };
    json_t *answer;
    struct err err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK_INT(call(api_completions, cases[i].body, &answer, &err), ERR_INVALID);
        CHECK_STR(err.param, cases[i].param);
    }
    CHECK_INT(call(api_completions, "{\"prompt\": [5], \"max_tokens\": 32, \"ignore_eos\": true}", &answer, &err), 0);
    json_decref(answer);
}

static void test_rolling_windows(void)
{
    json_t *answer;
    struct err err;
    CHECK_INT(call(api_loglikelihood_rolling, "{\"text\": [2, 3, 5, 6, 9, 10, 11], \"max_length\": 3, \"tokens\": true}", &answer, &err),
              0);
    json_t *one = json_array_get(json_object_get(answer, "results"), 0), *values = json_object_get(one, "token_logprobs");
    static const int32_t row[] = {FAKE_BOS, 2, 3, 5, 6, 9, 10, 11};
    CHECK_INT(json_array_size(values), 7);
    CHECK_INT(json_integer_value(json_object_get(one, "num_windows")), 3);
    for (size_t i = 0; i < 7; i++)
        CHECK((float)at(values, i) == fake_logprob(row[i], row[i + 1]));
    json_decref(answer);
}

/* More pairs than one wave takes: every result is in its place, whatever submission found the queue full. */
static void test_waves(void)
{
    enum { REQUESTS = 3, PAIRS = 3000 };
    for (int busy_at = 0; busy_at <= 5; busy_at++) {
        struct buf body;
        json_t *answer;
        struct err err;
        buf_init(&body, 1 << 22);
        buf_puts(&body, "{\"requests\": [");
        for (int i = 0; i < REQUESTS; i++) {
            buf_printf(&body, "%s{\"context\": [5, %d], \"continuations\": [", i ? "," : "", 7 + i);
            for (int k = 0; k < PAIRS; k++)
                buf_printf(&body, "%s[%d]", k ? "," : "", (i + k) % 60 + 3);
            buf_puts(&body, "]}");
        }
        buf_puts(&body, "], \"tokens\": true}");
        fake_engine_plan.busy_at = busy_at;
        int r = call(api_loglikelihood, body.data, &answer, &err);
        CHECK_INT(r, busy_at == 1 ? ERR_BUSY : 0); /* the first has nothing to wait for */
        for (int i = 0; r >= 0 && i < REQUESTS; i++) {
            json_t *list = json_object_get(json_array_get(json_object_get(answer, "results"), (size_t)i), "continuations");
            CHECK_INT(json_array_size(list), PAIRS);
            for (int k = 0; k < PAIRS; k += 997) {
                float want = fake_logprob(7 + i, (i + k) % 60 + 3);
                json_t *one = json_array_get(list, (size_t)k);
                CHECK((float)json_number_value(json_object_get(one, "logprob")) == want);
                CHECK((float)at(json_object_get(one, "token_logprobs"), 0) == want);
            }
        }
        if (r >= 0)
            CHECK_INT(json_integer_value(json_object_get(json_object_get(answer, "usage"), "scored_tokens")), REQUESTS * PAIRS);
        json_decref(answer);
        buf_done(&body);
    }
    fake_engine_plan = (struct fake_engine_plan){0};
}

static void test_health(void)
{
    json_t *answer;
    struct err err;
    CHECK_INT(call(api_health, NULL, &answer, &err), 0);
    CHECK_STR(json_string_value(json_object_get(answer, "status")), "ok");
    json_decref(answer);
    fake_engine_plan.health_code = ERR_DEVICE;
    CHECK_INT(call(api_ready, NULL, &answer, &err), 0);
    CHECK_STR(json_string_value(json_object_get(answer, "status")), "lost as planned");
    json_decref(answer);
    fake_engine_plan.health_code = 0;
}

/* A model without BOS, and without EOS. */
static void test_no_bos(void)
{
    static const struct {
        route_handler handler;
        const char *body, *param;
    } cases[] = {
        {api_completions, "{\"prompt\": [5], \"add_bos\": true}", "add_bos"},
        {api_loglikelihood, "{\"requests\": [{\"context\": [5], \"continuations\": [[6]]}], \"add_bos\": true}", "add_bos"},
        {api_loglikelihood, "{\"requests\": [{\"context\": [], \"continuations\": [[6]]}]}", "requests[0].continuations[0]"},
    };
    json_t *answer;
    struct err err;
    server.bos = server.eos = -1;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK_INT(call(cases[i].handler, cases[i].body, &answer, &err), ERR_INVALID);
        CHECK_STR(err.param, cases[i].param);
    }
    server.bos = FAKE_BOS;
    server.eos = FAKE_EOS;
}

static void test_names(void)
{
    static const char *const dirs[][2] = {{"models/x", "x"}, {"models/x//", "x"}, {"x", "x"}, {"/", "model"}, {"/y", "y"}};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        struct server_settings of = {.engine.model_dir = dirs[i][0]};
        struct server *s = NULL;
        struct err err;
        if (CHECK_INT(server_new(&of, &s, &err), 0))
            CHECK_STR(s->model_name, dirs[i][1]);
        server_close(s);
    }
}

/* Unknown fields are told once each, and of a few. */
static void test_noted(void)
{
    struct server_settings of = {.engine.model_dir = "x"};
    struct server *s = NULL;
    struct err err;
    char name[80];
    if (!CHECK_INT(server_new(&of, &s, &err), 0))
        return;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    server_note_unknown(s, "id", name);
    CHECK_INT(s->n_noted, 0);
    for (int i = 0; i < 2 * (SERVER_NOTED_NAMES + 5); i++) {
        snprintf(name, sizeof(name), "field%d", i / 2);
        server_note_unknown(s, "id", name);
    }
    CHECK_INT(s->n_noted, SERVER_NOTED_NAMES);
    CHECK_STR(s->noted[SERVER_NOTED_NAMES - 1], "field63");
    server_close(s);
}

/* Every route is in the OpenAPI document, and every path of the document is a route. */
static void test_document(void)
{
    int n;
    const struct route *table = routes_table(&n);
    json_t *doc = json_loadb(openapi_json, openapi_json_len, 0, NULL), *paths = json_object_get(doc, "paths");
    CHECK_INT(json_object_size(paths), (size_t)n);
    for (int i = 0; i < n; i++) {
        char path[128];
        size_t len = strlen(table[i].path);
        snprintf(path, sizeof(path), "%s%s", table[i].path, len > 1 && table[i].path[len - 1] == '/' ? "{model}" : "");
        json_t *item = json_object_get(paths, path);
        if (!CHECK(json_object_get(item, strcmp(table[i].method, "GET") ? "post" : "get") != NULL))
            fprintf(stderr, "  %s %s\n", table[i].method, path);
    }
    json_decref(doc);
}

int main(void)
{
    test_completion();
    test_failures();
    test_lengths();
    test_values();
    test_rolling_windows();
    test_waves();
    test_health();
    test_no_bos();
    test_names();
    test_noted();
    test_document();
    return check_result();
}
