/* What fake_model.h answers a request, from its tokens alone, compared with what an engine answered. */
#pragma once
#include "engine/request.h"
#include "tests/unit/fake_model.h"

struct sequence;

/* `user` of a request: what it was told, and when it stops its generation. */
struct expect_watch {
    int stop;             /* the token after which it does; -1: none */
    bool stopped;         /* before the first token: that one is the last */
    struct sequence *seq; /* set once it is prepared */
    int n_tokens, n_done; /* calls of on_token and on_done */
    int n_preempted;      /* left to the test */
};

void expect_on_token(void *user);
void expect_on_done(void *user);

/* 0, or ERR_NUMERIC where the request needs what is not finite. */
int expect_code(const struct eval_request *q, struct fake_kind kind);
/* Compares the whole result of a request that did not fail; prints the first difference. eos: -1: none. */
bool expect_result(const struct eval_request *q, const struct eval_result *r, int eos, struct fake_kind kind);
