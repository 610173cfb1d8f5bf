/* POST /v1/completions, and the pointer to it from /v1/chat/completions. */
#include "server/api/completion.h"

/* On the engine's thread: the text so far decides whether the sequence goes on. */
static bool on_token(void *user, const struct eval_token *t)
{
    struct completion_choice *choice = user;
    size_t len;
    const char *text = completion_token_text(choice->of, t->id, &len);
    int r = stop_text_add(&choice->text, text, len);
    if (r < 0)
        choice->code = r;
    return r != 0;
}

/* Without stop strings the text is only put together at the end. */
static int finish_texts(struct completion *p, const struct engine_ticket *t, struct err *err)
{
    for (int i = 0; i < p->n_choices; i++) {
        struct completion_choice *choice = &p->choices[i];
        const struct eval_result *r = engine_result(t, i);
        for (int k = 0; !p->stop.n && k < r->n_new && choice->code >= 0; k++) {
            size_t len;
            const char *text = completion_token_text(p, r->new_tokens[k], &len);
            choice->code = stop_text_add(&choice->text, text, len);
        }
        if (choice->code < 0)
            return err_set(err, choice->code, "no memory for the text of choice %d", i);
    }
    return 0;
}

static int write_answer(struct completion *p, const struct engine_ticket *t, struct err *err)
{
    struct writer w = writer_on(&p->call->resp->body);
    writer_open(&w, '{');
    completion_write_head(p, &w);
    writer_key(&w, "choices");
    writer_open(&w, '[');
    for (int i = 0; i < p->n_choices; i++)
        completion_write_choice(p, &w, i, engine_result(t, i));
    writer_close(&w, ']');
    completion_write_usage(p, &w, t);
    writer_close(&w, '}');
    return w.code < 0 ? err_set(err, w.code, "the answer is too large") : 0;
}

static int run(struct completion *p, struct err *err)
{
    struct engine_ticket *t = NULL;
    for (int i = 0; i < p->n_choices && p->stop.n; i++) {
        p->reqs[i].on_token = on_token;
        p->reqs[i].user = &p->choices[i];
    }
    int r = api_run(p->call, p->reqs, p->n_choices, "prompt", &t, err);
    if (r >= 0)
        r = finish_texts(p, t, err);
    if (r >= 0)
        r = write_answer(p, t, err);
    engine_ticket_free(t);
    return r;
}

int api_completions(struct call *c, struct err *err)
{
    struct completion *p = arena_alloc(&c->arena, 1, sizeof(*p));
    int r = p ? completion_parse(c, p, err) : err_set(err, ERR_NOMEM, "no memory for the request");
    if (r >= 0 && p->stream)
        return completion_stream(c, p, err);
    if (r >= 0)
        r = run(p, err);
    if (p)
        completion_done(p);
    return r;
}

int api_chat_completions(struct call *c, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "chat is not served; these are base models: send a prompt to /v1/completions");
}
