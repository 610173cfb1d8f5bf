/* Shares of a step. */
#include "engine/schedule/policy.h"
#include "engine/schedule/ticket.h"

struct division {
    struct policy *p;
    int left; /* rows of the step */
};

/* ---- one flow ------------------------------------------------------------------------------------------------------ */
/* Rows that a sequence could use beyond what it was granted. */
static int wants(const struct policy *p, const struct sequence *s)
{
    int due = policy_due(p, s);
    return s->grant ? due - p->grants[s->grant - 1].n : due;
}

static enum due_kind kind_of(const struct policy *p, const struct sequence *s)
{
    int due = policy_due(p, s);
    if (s->n_new && due == 1)
        return DUE_TOKEN;
    return due > p->max_rows / 2 ? DUE_LONG : DUE_SHORT;
}

/* The next sequence of a kind that could use rows. */
static struct sequence *look(const struct policy *p, struct flow *f, enum due_kind kind)
{
    struct sequence *s = f->next[kind];
    while (s && (!wants(p, s) || kind_of(p, s) != kind))
        s = s->next;
    return f->next[kind] = s;
}

static void grant(struct division *d, struct sequence *s, int n)
{
    struct policy *p = d->p;
    if (!s->grant) {
        p->grants[p->n_grants] = (struct grant){.seq = s, .due = policy_due(p, s)};
        s->grant = ++p->n_grants;
    }
    p->grants[s->grant - 1].n += n;
    d->left -= n;
}

/* At most `rows` for sequences of a kind. Returns how many of them are left. */
static int serve_kind(struct division *d, struct flow *f, enum due_kind kind, int rows)
{
    struct sequence *s;
    while (rows > 0 && (s = look(d->p, f, kind))) {
        int n = wants(d->p, s) < rows ? wants(d->p, s) : rows;
        grant(d, s, n);
        rows -= n;
    }
    return rows;
}

/* A turn of at most `rows`. Returns how many were used. */
static int serve(struct division *d, struct flow *f, int rows)
{
    int left = rows < d->left ? rows : d->left, all = left;
    left = serve_kind(d, f, DUE_TOKEN, left);
    if (left && look(d->p, f, DUE_LONG)) {
        int longs = (left + f->longs_turn) / 2;
        f->longs_turn = !f->longs_turn;
        left = longs + serve_kind(d, f, DUE_SHORT, left - longs);
        left = serve_kind(d, f, DUE_LONG, left);
    }
    left = serve_kind(d, f, DUE_SHORT, left);
    return all - left;
}

/* ---- turns --------------------------------------------------------------------------------------------------------- */
/* A client's turn of at most `rows`: its flows are asked until they are used. */
static int serve_client(struct division *d, struct client *k, int rows)
{
    int used = 0;
    for (int i = 0; i < k->n_flows && used < rows; i++) {
        used += serve(d, (struct flow *)k->flows, rows - used);
        k->flows = k->flows->next;
    }
    return used;
}

static void begin(struct division *d)
{
    struct policy *p = d->p;
    p->n_grants = 0;
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f))
        for (int kind = 0; kind < DUE_KINDS; kind++)
            f->next[kind] = f->running.head;
}

/* Generating sequences that had to do without go first in the next step. */
static void end(struct division *d)
{
    struct policy *p = d->p;
    p->launches++;
    for (int i = 0; i < p->n_grants; i++) {
        struct sequence *s = p->grants[i].seq;
        struct flow *f = s->place->flow;
        if (kind_of(p, s) == DUE_TOKEN && f->next[DUE_TOKEN]) {
            seq_list_remove(&f->running, s);
            seq_list_push(&f->running, s);
        }
    }
    for (int i = 0; i < p->n_grants; i++)
        p->grants[i].seq->grant = 0;
}

int policy_divide(struct policy *p)
{
    struct division d = {p, p->max_rows};
    struct clients *c = &p->clients;
    int turn = p->max_rows / 4 > 0 ? p->max_rows / 4 : 1;
    begin(&d);
    serve(&d, &c->alone, (p->max_rows + 1) / 2);
    for (int idle = 0; d.left && idle < c->n;) {
        idle = serve_client(&d, (struct client *)c->ring, turn) ? 0 : idle + 1;
        c->ring = c->ring->next;
    }
    serve(&d, &c->alone, d.left);
    end(&d);
    return p->n_grants;
}

/* ---- whole prompts ------------------------------------------------------------------------------------------------- */
static void serve_whole(struct division *d, const struct flow *f, bool prompts)
{
    for (struct sequence *s = f->running.head; s && d->left; s = s->next) {
        int due = policy_due(d->p, s);
        if (!due || sequence_in_prompt(s) != prompts)
            continue;
        if (!prompts)
            grant(d, s, due < d->left ? due : d->left);
        else if (due <= d->left)
            grant(d, s, due);
    }
}

/* Gives whole prompts their rows, or generating sequences theirs. Returns how many grants. */
static int divide_whole(struct policy *p, bool prompts)
{
    struct division d = {p, p->max_rows};
    begin(&d);
    serve_whole(&d, &p->clients.alone, prompts);
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f))
        if (f->client)
            serve_whole(&d, f, prompts);
    for (int i = 0; i < p->n_grants; i++)
        p->grants[i].seq->grant = 0;
    return p->n_grants;
}

int policy_divide_whole(struct policy *p)
{
    struct clients *c = &p->clients;
    bool prompts = !p->prompts_last;
    if (!divide_whole(p, prompts))
        divide_whole(p, prompts = !prompts);
    p->prompts_last = prompts;
    p->launches++;
    if (c->ring) { /* the next client, and its next flow, come first in the next step */
        struct client *k = (struct client *)c->ring;
        k->flows = k->flows->next;
        c->ring = c->ring->next;
    }
    return p->n_grants;
}
