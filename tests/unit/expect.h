/* What fake_model.h answers a request, from its tokens alone, compared with what an engine answered. */
#pragma once
#include "engine/request.h"
#include "tests/unit/fake_model.h"

/* `user` of a request whose generation may be stopped. */
struct expect_stop {
    int token; /* after which the generation stops */
    int n_seen;
};

/* on_token of such a request. */
bool expect_on_token(void *user, const struct eval_token *t);

/* 0, or ERR_NUMERIC where the request wants the logits of a FAKE_BAD_TOKEN. */
int expect_code(const struct eval_request *q);
/* Compares the whole result of a request that did not fail; prints the first difference. eos: -1: none. */
bool expect_result(const struct eval_request *q, const struct eval_result *r, int eos);
