/* Draws the tokens of many rows at once, on a few threads of its own. Which thread draws a row makes no difference. One caller at a time. */
#pragma once
#include "common/err.h"
#include "engine/model/step_rows.h"

#define DRAWER_THREADS_MAX 4
#define DRAWER_BYTES ((size_t)64 << 20) /* of logits at a time, unless one row has more */

struct drawer;

/* n_threads >= 1 counts the caller. ERR_NOMEM. */
int drawer_new(int vocab, int n_threads, struct drawer **ret, struct err *err);
void drawer_free(struct drawer *d); /* NULL is valid */

int drawer_capacity(const struct drawer *d); /* rows at a time */
/* Where the logits of row i < capacity belong: f32 [vocab]. drawer_run changes them. */
float *drawer_logits(const struct drawer *d, int i);
/* Draws rows 0 .. n-1, for which draws[i] says how. ret: [n] the tokens; -1 where a logit is not finite. */
void drawer_run(struct drawer *d, const struct draw *const *draws, int n, int32_t *ret);
