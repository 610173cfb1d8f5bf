/* POST /v1/loglikelihood_rolling: the likelihood of whole texts, in windows that score each token exactly once. */
#pragma once
#include "server/api/api.h"

#define ROLLING_MAX_DOCUMENTS 4096
#define ROLLING_MAX_EDGES 1024

int rolling_run(struct call *c, struct err *err);
