/* POST /v1/loglikelihood and /v1/loglikelihood_rolling over HTTP; score.c and rolling.c do the work. */
#include "server/api/api.h"
#include "server/api/rolling.h"
#include "server/api/score.h"

int api_loglikelihood(struct call *c, struct err *err)
{
    struct score_job job;
    int r = score_start(c, &job, err);
    return r < 0 ? r : score_finish(&job, err);
}

int api_loglikelihood_rolling(struct call *c, struct err *err)
{
    return rolling_run(c, err);
}
