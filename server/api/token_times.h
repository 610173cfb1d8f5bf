/* When the tokens of one sequence came, for the histograms of /metrics: from the request's body to the first, and between any two. */
#pragma once
#include "server/api/metrics.h"

struct token_times {
    struct metrics *metrics;
    double last_s; /* monotonic; the request's begin, then the latest token */
    bool any;
};

/* begin_s: common/monotonic.h's clock when the request's body was there. */
void token_times_init(struct token_times *t, struct metrics *m, double begin_s);
/* A token has come. One thread at a time; the engine's worker calls it, so it waits for nothing. */
void token_times_add(struct token_times *t);
