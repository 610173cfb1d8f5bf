/* Does a loaded model compute what it should? Scores sequences of fixed ids and a fixed sentence, without knowing what they ought to score: what
 * must hold for every model is checked. */
#pragma once
#include "common/buf.h"
#include "server/api/server.h"

/* Appends a line to `out` for each thing that was seen to hold. The first that does not is the error: ERR_NUMERIC, or what the engine said. */
int self_test_run(struct server *s, struct buf *out, struct err *err);
