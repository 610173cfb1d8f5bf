/* See token_times.h. */
#include "server/api/token_times.h"
#include "common/monotonic.h"

void token_times_init(struct token_times *t, struct metrics *m, double begin_s)
{
    *t = (struct token_times){m, begin_s, false};
}

void token_times_add(struct token_times *t)
{
    double now = monotonic_seconds();
    histogram_add(t->any ? &t->metrics->between_tokens : &t->metrics->first_token, now - t->last_s);
    t->last_s = now;
    t->any = true;
}
