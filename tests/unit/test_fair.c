/* What the policy promises (engine/schedule/policy.h), counted in steps: whatever other clients do, a client's only small request begins within two steps
 * and one for each half of a step that such requests need before it; the others go on with the rest of every step. With the loads that held
 * everybody up once, in small: one request of many long generations, many sequences of generation, a call of very many continuations, long
 * prompts, and all of them. */
#include "engine/schedule/ticket.h"
#include "engine/schedule/worker.h"
#include "tests/check.h"
#include "tests/unit/fake_executor.h"
#include <stdlib.h>

enum {
    ROWS = 32,       /* of a step */
    LONGEST = 320,   /* positions of a sequence */
    POOL = 12 * 320, /* positions that the KV pool holds */
    SMALL = 200,     /* small requests that one case makes at most */
    TICKETS = 64,
    TURNS = 60 /* between which small requests come */
};

struct rig {
    struct fake_executor *x;
    struct queue queue;
    struct worker worker;
    struct {
        struct engine_ticket *ticket;
        struct eval_request *reqs;
        int32_t *tokens;
    } calls[TICKETS];
    int n_calls;
};

static bool open_rig(struct rig *r, int max_steps, int n_state_slots)
{
    struct executor_limits limits = {.max_rows = ROWS,
                                     .max_steps = max_steps,
                                     .n_kv_slots = POOL * FAKE_LAYERS,
                                     .n_table_entries = POOL * FAKE_LAYERS,
                                     .n_state_slots = n_state_slots,
                                     .branches = !n_state_slots,
                                     .max_positions = LONGEST};
    struct worker_options o = {.prefix_cache = true, .tree_bytes = 1 << 24};
    struct err err;
    *r = (struct rig){.x = fake_executor_open(&limits)};
    queue_init(&r->queue, 1, 1 << 20);
    if (r->x)
        r->x->holds_draws = true;
    return CHECK(r->x) && CHECK_INT(worker_init(&r->worker, &r->x->face, &r->queue, &o, &err), 0);
}

static void close_rig(struct rig *r)
{
    worker_close(&r->worker); /* what is under way is cancelled */
    for (int i = 0; i < r->n_calls; i++) {
        ticket_free(r->calls[i].ticket);
        free(r->calls[i].reqs);
        free(r->calls[i].tokens);
    }
    CHECK_INT(r->x->n_breaches, 0);
    queue_done(&r->queue);
    fake_executor_close(r->x);
}

static void turn(struct rig *r)
{
    struct worker *w = &r->worker;
    if (w->waits && !queue_calls(&r->queue, 0)) /* no sooner than it must be */
        while (fake_executor_draw(r->x))
            ;
    if (policy_idle(&w->policy) && !r->queue.dev[0].inbox.n)
        r->queue.dev[0].sweep = true; /* it would deliver and then sleep */
    CHECK(worker_turn(w));
}

/* ---- loads ---------------------------------------------------------------------------------------------------------- */
/* n sequences of `len` tokens, of which the first `shared` are the same, and `max_new` to come; one ticket. */
struct call {
    int n, len, shared, max_new;
    bool drawn;
};

static void submit(struct rig *r, uint64_t client, struct call c)
{
    struct err err;
    int32_t *t = malloc((size_t)c.n * (size_t)c.len * sizeof(*t));
    struct eval_request *q = calloc((size_t)c.n, sizeof(*q));
    if (!CHECK(t && q && r->n_calls < TICKETS))
        exit(1);
    for (int i = 0; i < c.n; i++) {
        for (int k = 0; k < c.len; k++)
            t[i * c.len + k] = (k < c.shared ? (int)client * 7 + k * k + r->n_calls : (i >> (k % 16)) + k * 3) % FAKE_GOOD;
        q[i] = (struct eval_request){.client = client,
                                     .tokens = t + i * c.len,
                                     .n_tokens = c.len,
                                     .score_begin = c.max_new ? c.len : c.len - 1,
                                     .max_new = c.max_new,
                                     .temperature = c.drawn,
                                     .top_p = 1,
                                     .ignore_eos = true};
    }
    r->calls[r->n_calls].reqs = q;
    r->calls[r->n_calls].tokens = t;
    CHECK_INT(ticket_new(&r->queue, q, c.n, FAKE_LAYERS, false, &r->calls[r->n_calls].ticket), 0);
    CHECK_INT(queue_submit(&r->queue, r->calls[r->n_calls++].ticket, &err), 0);
}

static const struct load {
    const char *name;
    struct call calls[4]; /* of clients 1, 2 ... */
} loads[] = {
    {"one request of many long generations", {{128, 3, 3, 200}}},
    {"many sequences of generation", {{640, 3, 2, 40}}},
    {"one request of many long generations, drawn", {{128, 3, 3, 200, true}}},
    {"many sequences of generation, drawn", {{640, 3, 2, 40, true}}},
    {"very many continuations", {{4096, 8, 4, 0}}},
    {"long prompts", {{20, 300, 0, 0}, {20, 300, 4, 0}}},
    {"all at once", {{128, 3, 3, 200}, {640, 3, 2, 40}, {4096, 8, 4, 0}, {20, 300, 0, 0}}},
    {"many large calls of one client", {{100, 30, 2, 10}}},
    {"nothing", {{0}}},
};

static void submit_load(struct rig *r, const struct load *l)
{
    for (int i = 0; i < 4 && l->calls[i].n; i++)
        submit(r, 1 + (uint64_t)i, l->calls[i]);
}

/* ---- small requests ---------------------------------------------------------------------------------------------------- */
struct small {
    struct engine_ticket *ticket;
    struct eval_request req;
    int32_t tokens[ROWS / 4 + 1];
    uint64_t launched; /* when it was submitted */
    int bound;         /* steps within which it must begin */
};

/* like: begins as the first call does, so that its rows may be under way; else with tokens of its own. */
static void submit_small(struct rig *r, struct small *s, uint64_t client, int rows, int salt, bool like)
{
    struct err err;
    for (int i = 0; i <= rows; i++)
        s->tokens[i] = like && r->n_calls && i < rows ? r->calls[0].tokens[i] : (salt * 5 + i * (salt + 3)) % FAKE_GOOD;
    s->req = (struct eval_request){.client = client, .tokens = s->tokens, .n_tokens = rows + 1, .score_begin = rows, .top_p = 1};
    s->launched = r->worker.n_launched;
    CHECK_INT(ticket_new(&r->queue, &s->req, 1, FAKE_LAYERS, false, &s->ticket), 0);
    CHECK_INT(queue_submit(&r->queue, s->ticket, &err), 0);
}

/* Has it its answer? Then when it began is compared with the bound. */
static bool take_small(struct rig *r, struct small *s, const char *load)
{
    if (!queue_wait(&r->queue, s->ticket, 0))
        return false;
    int steps =
        s->ticket->places[0].began_at ? (int)(s->ticket->places[0].began_at - s->launched) : 0; /* the cache may have had all of it */
    if (!CHECK(steps <= s->bound))
        fprintf(stderr, "  beside %s: %d steps, not %d\n", load, steps, s->bound);
    CHECK_INT(s->ticket->seqs[0].result.code, 0);
    CHECK_INT(s->ticket->places[0].lane, LANE_ALONE);
    ticket_free(s->ticket);
    s->ticket = NULL;
    return true;
}

/* `clients` that each hold one small request at a time and come at once, or one after another, again and again. */
static void run_small(struct rig *r, const struct load *l, int clients, int rows, bool at_once, bool like)
{
    static struct small small[SMALL];
    int bound = 2 + (clients * rows + ROWS / 2 - 1) / (ROWS / 2), n_done = 0, salt = 0;
    for (int t = 0; t < TURNS || n_done < clients; t++) {
        if (!CHECK(t < 100 * TURNS))
            return;
        for (int c = 0; c < clients; c++) {
            if (small[c].ticket)
                n_done += take_small(r, &small[c], l->name);
            else if (t < TURNS && (at_once || t % clients == c)) {
                small[c].bound = bound;
                submit_small(r, &small[c], 1000 + (uint64_t)c, rows, salt++, like);
            }
        }
        turn(r);
    }
    for (int c = 0; c < clients; c++)
        for (int t = 0; small[c].ticket && CHECK(t < 100 * TURNS); t++) {
            turn(r);
            take_small(r, &small[c], l->name);
        }
}

static void test_bound(void)
{
    static const struct {
        int clients, rows;
        bool at_once, like;
    } smalls[] = {{1, 1, true},   {1, 8, true},  {5, 8, true},       {5, 3, false},       {40, 8, true},
                  {200, 2, true}, {7, 8, false}, {1, 8, true, true}, {30, 7, true, true}, {5, 3, false, true}};
    for (int steps = 1; steps <= 2; steps++)
        for (int states = 0; states <= 640; states += 640)
            for (size_t l = 0; l < sizeof(loads) / sizeof(loads[0]); l++)
                for (size_t s = 0; s < sizeof(smalls) / sizeof(smalls[0]); s++) {
                    struct rig r;
                    if (!open_rig(&r, steps, states))
                        return;
                    submit_load(&r, &loads[l]);
                    for (int i = 0; i < 20; i++)
                        turn(&r);
                    int before = check_failures;
                    run_small(&r, &loads[l], smalls[s].clients, smalls[s].rows, smalls[s].at_once, smalls[s].like);
                    if (check_failures > before)
                        fprintf(stderr, "  with %d clients and %d rows beside %s, %d steps in flight%s\n", smalls[s].clients,
                                smalls[s].rows, loads[l].name, steps, states ? ", router states" : "");
                    close_rig(&r);
                }
}

/* ---- what the others get ------------------------------------------------------------------------------------------------ */
static uint64_t rows_of(const struct rig *r, int call)
{
    uint64_t n = 0;
    for (int i = 0; i < r->calls[call].ticket->n; i++)
        n += (uint64_t)r->calls[call].ticket->seqs[i].rows_run;
    return n;
}

/* However many clients ask small things, half of every step is a large call's. */
static void test_half_is_for_others(void)
{
    struct rig r;
    if (!open_rig(&r, 2, 0))
        return;
    submit(&r, 1, (struct call){40, 300, 0, 0});
    turn(&r);
    uint64_t rows = rows_of(&r, 0), steps = r.worker.n_launched;
    run_small(&r, &loads[0], 60, 8, true, false);
    steps = r.worker.n_launched - steps;
    rows = rows_of(&r, 0) - rows;
    CHECK(steps > 25);
    CHECK(rows >= (steps - 2) * (ROWS / 2));
    close_rig(&r);
}

/* A client with many calls gets as many rows as one with one; and a client's calls as many as each other, whatever they are. */
static void test_turns(void)
{
    static const struct call call = {300, 40, 0, 0}, generation = {200, 3, 3, 100};
    struct rig r;
    if (!open_rig(&r, 1, 0))
        return;
    for (int i = 0; i < 5; i++)
        submit(&r, 1, call);
    submit(&r, 2, call);
    submit(&r, 3, generation);
    while (r.worker.n_launched < 240)
        turn(&r);
    uint64_t rows[7], one = 0;
    for (int i = 0; i < 7; i++)
        rows[i] = rows_of(&r, i);
    for (int i = 0; i < 5; i++) {
        one += rows[i];
        CHECK(rows[i] * 5 > rows[5] / 2 && rows[i] * 5 < 2 * rows[5]);
    }
    CHECK(one > rows[5] * 9 / 10 && one < rows[5] * 11 / 10);
    CHECK(rows[6] > 1000 && one + rows[5] + rows[6] > 239 * ROWS * 9 / 10);
    close_rig(&r);
}

/* Tickets of one call take turns as one: the first is done before the second begins, as far as it goes. */
static void test_tickets_of_a_call(void)
{
    struct rig r;
    if (!open_rig(&r, 1, 0))
        return;
    for (int i = 0; i < 2; i++) {
        submit(&r, 1, (struct call){100, 40, 0, 0});
        r.calls[i].ticket->call = 77;
    }
    while (!queue_wait(&r.queue, r.calls[0].ticket, 0))
        turn(&r);
    CHECK(rows_of(&r, 1) <= 4 * ROWS);
    CHECK(r.calls[0].ticket->places[0].flow == r.calls[1].ticket->places[0].flow);
    close_rig(&r);
}

/* 65,536 continuations are not looked at again and again. */
static void test_cost(void)
{
    struct rig r;
    int n = 0;
    if (!open_rig(&r, 2, 0))
        return;
    for (int i = 0; i < 16; i++)
        submit(&r, 1, (struct call){4096, 5, 4, 0});
    for (int t = 0; n < 16 && CHECK(t < 65536); t++) {
        turn(&r);
        n += queue_wait(&r.queue, r.calls[n].ticket, 0);
    }
    CHECK(r.worker.policy.n_looks < 8 * 65536);
    close_rig(&r);
}

int main(void)
{
    test_bound();
    test_half_is_for_others();
    test_turns();
    test_tickets_of_a_call();
    test_cost();
    return check_result();
}
