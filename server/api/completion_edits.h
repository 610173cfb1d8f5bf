/* The fields of /v1/completions that change how a token is chosen: logit_bias, penalties, min_p, min_tokens. */
#pragma once
#include "server/api/completion.h"

/* Reads them into p->edits (arena), or leaves it NULL where none changes anything; p->min_tokens. Before lengths are known. */
int completion_parse_edits(struct call *c, struct completion *p, struct err *err);
