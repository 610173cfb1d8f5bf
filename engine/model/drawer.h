/* Draws tokens on threads of its own while its owner goes on. It holds copies of logits, which bounds how many rows are drawn at a time; the owner takes a
 * row's place before it copies the logits, and says when they have come. Which thread draws a row, and in which order, makes no difference.
 *
 * All but what the drawer's own threads do is called from one thread, the owner's. */
#pragma once
#include "common/err.h"
#include "engine/model/step_rows.h"

#define DRAWER_THREADS_MAX 4
#define DRAWER_BYTES ((size_t)128 << 20) /* of logits at a time, unless one row has more */
#define DRAWER_ROWS_MAX 1024
#define DRAWER_KEPT_BYTES ((size_t)8 << 20) /* of logits, whose pages stay when nothing is drawn */

struct drawer;

/* Rows whose logits it should hold at a time. */
int drawer_capacity(int vocab);
/* n_threads >= 1 counts the owner, who helps; one thread of its own there is at least. logits: f32 [capacity, vocab],
 * borrowed. ERR_NOMEM. */
int drawer_new(int vocab, int capacity, int n_threads, float *logits, struct drawer **ret, struct err *err);
/* Before, nothing may be left to draw. NULL is valid. */
void drawer_free(struct drawer *d);
/* wake(arg) is called, by whatever thread, when all that was begun is drawn. It must not call the drawer. */
void drawer_notify(struct drawer *d, void (*wake)(void *arg), void *arg);

/* A place for the logits of a row of step number `step`, which is not less than that of the one before; lse: where the log of the sum of their exponentials
 * will be. False: all places are taken. */
bool drawer_take(struct drawer *d, struct draw *draw, uint64_t step, const float *lse);
/* Where the draw's logits belong, f32 [vocab], until it has begun. */
float *drawer_logits(const struct drawer *d, const struct draw *draw);
/* The logits of all rows of steps up to this one are there: they are drawn from now on, by the owner (drawer_help) or once others are told of them
 * (drawer_share); and then told. */
void drawer_begin(struct drawer *d, uint64_t step);
/* The owner turns to something else. */
void drawer_share(struct drawer *d);
/* The owner draws one; if there are more, others draw beside it. False: none waits. */
bool drawer_help(struct drawer *d);
/* The logits of all rows are there, and all places are taken: returns when one is free. */
void drawer_make_room(struct drawer *d);
/* What is drawn of the steps that have begun, linked by `next`. */
struct draw *drawer_over(struct drawer *d);
/* Nothing is being drawn: *ret_bytes of logits, from *ret on, were used and are more than it keeps. They count as unused from now on. */
void drawer_unused(struct drawer *d, float **ret, size_t *ret_bytes);
/* Forgets all draws; returns when none is under way. */
void drawer_drop(struct drawer *d);
