/* See body.h. */
#include "server/api/body.h"
#include <string.h>

static int parse_text(struct call *c, const char *text, size_t len, struct err *err)
{
    struct charge *charge = &c->req->charge;
    size_t most = json_estimate(text, len);
    if (!charge_take(charge, most))
        return charge_error(charge, err);
    int r = json_parse_with_nul(text, len, "body", &c->body, err);
    charge_change(charge, most, r < 0 ? 0 : json_parsed_bytes());
    return r;
}

/* The lists live as long as the call, and the text that they were taken from is not needed for them. */
static int keep_ids(struct call *c, const struct json_ids *taken, struct err *err)
{
    size_t n = taken->n_lists ? taken->ends[taken->n_lists - 1] : 0;
    int32_t *ids = arena_alloc(&c->arena, n, sizeof(*ids));
    size_t *ends = arena_alloc(&c->arena, taken->n_lists, sizeof(*ends));
    if (!ids || !ends)
        return err_set(err, ERR_NOMEM, "no memory for %zu ids", n);
    memcpy(ids, taken->ids, n * sizeof(*ids));
    memcpy(ends, taken->ends, taken->n_lists * sizeof(*ends));
    c->ids = (struct json_ids){ids, ends, taken->n_lists};
    return 0;
}

/* 1: the body was parsed without its lists; 0: it has none, there is no memory to take them, or it is no JSON, which is told of the whole text. */
static int parse_without_ids(struct call *c, const char *const *ids, struct err *err)
{
    struct charge *charge = &c->req->charge;
    const char *text = c->req->body;
    struct json_ids taken = {0};
    struct buf rest;
    size_t most = json_ids_estimate(text, c->req->body_len);
    int r = 0;
    buf_init(&rest, SIZE_MAX / 4);
    if (!charge_take(charge, most))
        return 0;
    if (json_ids_take(text, c->req->body_len, ids, &rest, &taken) >= 0 && taken.n_lists)
        r = parse_text(c, rest.data, rest.len, err);
    if (c->body)
        r = keep_ids(c, &taken, err);
    json_ids_done(&taken);
    buf_done(&rest);
    charge_give(charge, most);
    return r < 0 && r != ERR_INVALID ? r : c->body != NULL;
}

int body_parse(struct call *c, const char *const *ids, struct err *err)
{
    int r = ids ? parse_without_ids(c, ids, err) : 0;
    if (r == 0)
        r = parse_text(c, c->req->body, c->req->body_len, err);
    http_drop_body(c->req);
    if (r >= 0 && !json_is_object(c->body))
        r = err_field(err, ERR_INVALID, "body", "the body must be a JSON object");
    return r;
}
