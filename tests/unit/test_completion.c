/* Streams and stop strings over a double of the engine whose tokens come when the test says so: what a reader is woken by, and that an
 * answer does not depend on how far the engine ran ahead. The tokenizer is the shipped one; ids below 64 are bytes there. */
#include "server/api/api.h"
#include "tests/check.h"
#include "tests/unit/fake_engine.h"
#include "tests/unit/no_timed_waits.h"
#include <semaphore.h>
#include <stdlib.h>

static struct server_settings settings;
static struct server server = FAKE_SERVER(&settings);

/* A request on a thread of its own, as a connection has one. */
struct asked {
    const char *body;
    struct buf out;
    sem_t piece; /* one for each piece of a stream */
    int code, pieces;
    struct err err;
    pthread_t thread;
};

static void read_stream(struct asked *a, struct http_stream *s)
{
    struct buf piece;
    int r;
    buf_init(&piece, 1 << 20);
    do {
        r = s->next(s->user, &piece);
        buf_append(&a->out, piece.data, piece.len);
        buf_clear(&piece);
        a->pieces++;
        sem_post(&a->piece);
    } while (r > 0);
    s->done(s->user);
    buf_done(&piece);
    a->code = r;
}

static void *ask(void *user)
{
    struct asked *a = user;
    struct http_response resp = {.status = 200};
    struct call c = {.server = &server, .resp = &resp, .body = json_loads(a->body, 0, NULL)};
    buf_init(&resp.body, 1 << 20);
    arena_init(&c.arena, 1 << 24);
    a->code = api_completions(&c, &a->err);
    if (a->code >= 0)
        read_stream(a, &resp.stream);
    json_decref(c.body);
    arena_done(&c.arena);
    buf_done(&resp.body);
    return NULL;
}

static void begin(struct asked *a, const char *body)
{
    *a = (struct asked){.body = body};
    buf_init(&a->out, 1 << 20);
    sem_init(&a->piece, 0, 0);
    CHECK_INT(pthread_create(&a->thread, NULL, ask, a), 0);
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

/* Each token wakes the reader: were one missed, this would hang. */
static void test_a_token_a_piece(void)
{
    struct asked a;
    fake_engine_plan.held = true;
    begin(&a, "{\"prompt\": [39], \"max_tokens\": 8, \"temperature\": 0, \"stream\": true, \"logprobs\": 0}");
    struct engine_ticket *t = fake_engine_next();
    for (bool more = true; more;) {
        more = fake_engine_step(t);
        sem_wait(&a.piece);
    }
    pthread_join(a.thread, NULL);
    CHECK_INT(a.code, 0);
    int events = count(a.out.data, "data: {");
    CHECK_INT(events, 8);
    CHECK_INT(count(a.out.data, "\"finish_reason\":\"length\""), 1);
    CHECK_INT(count(a.out.data, "data: [DONE]"), 1);
    CHECK(a.pieces == 8 || a.pieces == 9); /* the end of the ticket may be told after its last token */
    CHECK_INT(timed_waits, 0);
    sem_destroy(&a.piece);
    buf_done(&a.out);
    fake_engine_plan.held = false;
}

/* choices and usage of an answer, or the text of an error. */
static char *answer(const char *body, bool held, int *ret_steps)
{
    struct asked a;
    fake_engine_plan.held = held;
    begin(&a, body);
    *ret_steps = 0;
    for (struct engine_ticket *t = held ? fake_engine_next() : NULL; t;) {
        ++*ret_steps;
        if (!fake_engine_step(t))
            break;
        fake_engine_seen(t); /* the reader keeps up, so the engine runs ahead by two tokens at most */
    }
    pthread_join(a.thread, NULL);
    fake_engine_plan.held = false;
    json_t *whole = json_loads(a.out.data, 0, NULL),
           *part = json_pack("{s:O?, s:O?}", "choices", json_object_get(whole, "choices"), "usage", json_object_get(whole, "usage"));
    char *text = a.code < 0 ? strdup(a.err.text) : json_dumps(part, JSON_SORT_KEYS);
    json_decref(part);
    json_decref(whole);
    sem_destroy(&a.piece);
    buf_done(&a.out);
    return text;
}

/* The engine runs ahead to its end, or stops soon: text, lists, finish_reason and usage are the same. */
static void test_stops_do_not_depend_on_time(void)
{
    static const struct {
        const char *body, *text;
        int tokens;
    } cases[] = {
        /* the prompt ends with '/': 0123... follow */
        {"{\"prompt\": [50], \"max_tokens\": 12, \"temperature\": 0, \"stop\": \"34\", \"logprobs\": 1}", "012", 5},
        {"{\"prompt\": [50], \"max_tokens\": 12, \"temperature\": 0, \"stop\": [\"9\", \"45\", \"3456\"], \"logprobs\": 0}", "0123", 6},
        {"{\"prompt\": [50], \"max_tokens\": 5, \"temperature\": 0, \"stop\": \"4\", \"echo\": true, \"logprobs\": 0}", "/0123", 5},
        {"{\"prompt\": [50], \"max_tokens\": 5, \"temperature\": 0, \"stop\": \"5\"}", "01234", 5},
        {"{\"prompt\": [50], \"max_tokens\": 12, \"temperature\": 0, \"stop\": \"34\", \"include_stop_str_in_output\": true}", "01234", 5},
        {"{\"prompt\": [50], \"max_tokens\": 12, \"temperature\": 0, \"stop_token_ids\": [60, 54]}", "012", 4},
        {"{\"prompt\": [50], \"max_tokens\": 12, \"temperature\": 0, \"stop_token_ids\": [54], \"include_stop_str_in_output\": true}",
         "0123", 4},
        /* ids 0 to 2 are special, 2 is EOS */
        {"{\"prompt\": [0], \"max_tokens\": 5, \"temperature\": 0, \"stop\": \"x\"}", "<s>", 2},
        {"{\"prompt\": [0], \"max_tokens\": 5, \"temperature\": 0, \"include_stop_str_in_output\": true, \"stop\": \"x\"}", "<s></s>", 2},
        {"{\"prompt\": [0], \"max_tokens\": 5, \"temperature\": 0, \"skip_special_tokens\": true, \"stop\": \"x\"}", "", 2},
        {"{\"prompt\": [0], \"max_tokens\": 2, \"temperature\": 0, \"ignore_eos\": true, \"stop\": \"x\"}", "<s></s>", 2},
        {"{\"prompt\": [0], \"max_tokens\": 2, \"temperature\": 0, \"ignore_eos\": true, \"skip_special_tokens\": true, \"stop\": \"x\"}",
         "", 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int steps;
        char *ahead = answer(cases[i].body, false, &steps), *stopped = answer(cases[i].body, true, &steps);
        json_t *v = json_loads(ahead, 0, NULL), *choice = json_array_get(json_object_get(v, "choices"), 0);
        CHECK_STR(stopped, ahead);
        CHECK_STR(json_string_value(json_object_get(choice, "text")), cases[i].text);
        CHECK_INT(json_integer_value(json_object_get(json_object_get(v, "usage"), "completion_tokens")), cases[i].tokens);
        CHECK(steps <= cases[i].tokens + 2);
        json_decref(v);
        free(ahead);
        free(stopped);
    }
}

/* What fails behind the stop string is no failure of the answer. */
static void test_failure_behind_the_stop(void)
{
    int steps;
    fake_engine_plan.request_code = ERR_NUMERIC;
    char *got = answer("{\"prompt\": [50], \"max_tokens\": 5, \"temperature\": 0, \"stop\": \"3\"}", false, &steps);
    CHECK(strstr(got, "\"text\": \"012\"") != NULL);
    free(got);
    got = answer("{\"prompt\": [50], \"max_tokens\": 5, \"temperature\": 0, \"stop\": \"8\"}", false, &steps);
    CHECK(strstr(got, "as planned") != NULL);
    free(got);
    fake_engine_plan.request_code = 0;
}

/* The texts of a stream's events, one after the other. */
static void join_texts(const char *events, struct buf *ret)
{
    for (const char *at = events; (at = strstr(at, "data: {")); at++) {
        json_t *event = json_loads(at + 6, JSON_DISABLE_EOF_CHECK, NULL), *choices = json_object_get(event, "choices");
        const char *text = json_string_value(json_object_get(json_array_get(choices, 0), "text"));
        buf_puts(ret, text ? text : "");
        json_decref(event);
    }
}

/* The same in a stream. */
static void test_streamed_stop(void)
{
    struct asked a;
    struct buf text;
    buf_init(&text, 1 << 10);
    begin(&a, "{\"prompt\": [50], \"max_tokens\": 12, \"temperature\": 0, \"stop\": \"34\", \"stream\": true,"
              " \"stream_options\": {\"include_usage\": true}}");
    pthread_join(a.thread, NULL);
    join_texts(a.out.data, &text);
    CHECK_STR(text.data, "012");
    buf_done(&text);
    CHECK(strstr(a.out.data, "\"completion_tokens\":5,") != NULL);
    sem_destroy(&a.piece);
    buf_done(&a.out);
}

/* Every id's spelling is what the writer makes of it; offsets count the characters that begin in its bytes. */
static void test_spellings(void)
{
    struct spellings s;
    struct buf b;
    int n = tokenizer_vocab_size(server.tokenizer);
    CHECK_INT(spellings_init(&s, server.tokenizer, n + 5, NULL), 0);
    CHECK_INT(s.n, n);
    CHECK(spellings_get(&s, n, true) == NULL && spellings_get(&s, n, false) == NULL);
    buf_init(&b, 1 << 16);
    for (int32_t id = 0; id < n; id++)
        for (int first = 0; first < 2; first++) {
            const struct spelling *one = spellings_get(&s, id, first);
            size_t len, chars = 0;
            const char *text = tokenizer_token_string(server.tokenizer, id, first, &len);
            buf_clear(&b);
            json_put_string(&b, text, len);
            if (one->len != b.len || memcmp(spellings_bytes(&s, one), b.data, b.len))
                CHECK_STR(spellings_bytes(&s, one), b.data);
            text = tokenizer_token_bytes(server.tokenizer, id, first, &len);
            for (size_t i = 0; i < len; i++)
                chars += ((unsigned char)text[i] & 0xc0) != 0x80;
            if (one->chars != chars || one->inside != (len && ((unsigned char)text[0] & 0xc0) == 0x80))
                CHECK_INT(id, -1);
        }
    buf_done(&b);
    spellings_done(&s);
    CHECK_INT(spellings_init(&s, NULL, 100, NULL), 0);
    CHECK(spellings_get(&s, 0, true) == NULL);
    spellings_done(&s);
}

int main(void)
{
    struct err err = {0};
    if (!CHECK_INT(tokenizer_open(MODEL_DIR, TOKENIZER_RULES_4, NULL, &server.tokenizer, &err), 0))
        return check_result();
    CHECK_INT(spellings_init(&server.spellings, server.tokenizer, FAKE_VOCAB, &err), 0);
    test_spellings();
    test_a_token_a_piece();
    test_stops_do_not_depend_on_time();
    test_failure_behind_the_stop();
    test_streamed_stop();
    spellings_done(&server.spellings);
    tokenizer_close(server.tokenizer);
    return check_result();
}
