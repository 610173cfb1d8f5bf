/* Tickets: which requests are two sequences, what each half asks for, how their results become one; and no memory. */
#include "engine/schedule/ticket.h"
#include "tests/check.h"
#include "tests/fail/failing.h"

static const int32_t tokens[] = {1, 2, 3, 4, 5};

static void told(void *user) {}

/* A score alone; a score and a generation; a generation alone; both again. */
static const struct eval_request reqs[] = {
    {.tokens = tokens, .n_tokens = 5, .score_begin = 2, .top_k = 3, .want_routing = true, .on_done = told},
    {.tokens = tokens, .n_tokens = 4, .score_begin = 1, .top_k = 2, .max_new = 3, .want_routing = true, .on_token = told, .on_done = told},
    {.tokens = tokens, .n_tokens = 5, .score_begin = 5, .max_new = 2},
    {.tokens = tokens, .n_tokens = 3, .score_begin = 2, .max_new = 1},
};
enum { N = 4 };

static void test_one_pass(void)
{
    struct engine_ticket *t;
    struct queue *const queue = (struct queue *)&reqs; /* only kept */
    if (!CHECK_INT(ticket_new(queue, reqs, N, 2, false, &t), 0))
        return;
    CHECK(t->queue == queue && t->n == N && t->n_seqs == N && t->remaining == N && !t->part && !atomic_load(&t->cancelled));
    for (int i = 0; i < N; i++)
        CHECK(t->seqs[i].req == &reqs[i] && t->seqs[i].ticket == t);
    ticket_complete(t);
    CHECK_INT(t->seqs[1].result.code, 0);
    ticket_free(t);
}

static void check_halves(const struct engine_ticket *t, int i, int extra)
{
    const struct eval_request *whole = &reqs[i], *goes_on = t->seqs[i].req, *scores = t->seqs[extra].req;
    CHECK(goes_on->score_begin == whole->n_tokens && goes_on->max_new == whole->max_new && goes_on->want_routing == whole->want_routing);
    CHECK(goes_on->on_token == whole->on_token && goes_on->on_done == whole->on_done);
    CHECK(scores->score_begin == whole->score_begin && !scores->max_new && !scores->want_routing && scores->top_k == whole->top_k);
    CHECK(!scores->on_token && !scores->on_done && scores->tokens == tokens && scores->n_tokens == whole->n_tokens);
    CHECK(t->seqs[extra].n_prompt_rows == whole->n_tokens - 1 && t->seqs[i].n_prompt_rows == whole->n_tokens);
}

static void test_two_passes(void)
{
    struct engine_ticket *t;
    if (!CHECK_INT(ticket_new(NULL, reqs, N, 2, true, &t), 0))
        return;
    CHECK(t->n == N && t->n_seqs == N + 2 && t->remaining == N + 2);
    CHECK(t->seqs[0].req->score_begin == 2 && t->seqs[2].req->max_new == 2); /* need no second */
    check_halves(t, 1, N);
    check_halves(t, 3, N + 1);
    float lp[] = {-1, -2, -3};
    struct eval_result *r = &t->seqs[1].result, *scores = &t->seqs[N].result;
    *scores = (struct eval_result){.n_scored = 3, .logprobs = lp, .rows_computed = 3};
    r->n_new = 3;
    r->rows_computed = 6;
    err_set(&t->seqs[N + 1].result.err, ERR_NUMERIC, "not finite");
    t->seqs[N + 1].result.code = ERR_NUMERIC;
    ticket_complete(t);
    CHECK(r->code == 0 && r->n_scored == 3 && r->logprobs == lp && r->n_new == 3 && r->rows_computed == 9);
    CHECK_INT(t->seqs[3].result.code, ERR_NUMERIC); /* a half that failed */
    CHECK_STR(t->seqs[3].result.err.text, "not finite");
    ticket_free(t);
}

static void test_no_memory(void)
{
    bool reached = true;
    for (int n = 0; reached; n++) {
        struct engine_ticket *t = NULL;
        long live = failing_live();
        failing_plan(n);
        int r = ticket_new(NULL, reqs, N, 2, true, &t);
        reached = failing_reached();
        CHECK_INT(r, reached ? ERR_NOMEM : 0);
        if (t)
            ticket_free(t);
        CHECK_INT(failing_live(), live);
    }
}

int main(void)
{
    failing_init();
    test_one_pass();
    test_two_passes();
    test_no_memory();
    return check_result();
}
