/* The executor of the devices that compute one model together: one, or the ranks of a group, of which each holds a part (engine/model/share.h).
 *
 * Every rank has an executor of its own and a thread to issue its steps; all get the same rows, slots and tables, decide alike, and give one another what
 * they computed through the backend's collectives. The first rank, whose thread is the caller's, scores and tells the results. */
#pragma once
#include "engine/schedule/device_executor.h"

#define GROUP_RANKS_MAX 16

struct group_executor;

/* o: of each rank; its device_index, share, first and kv_slots are not read. index: [n] the ranks' devices. first: another group that has the model; as for
 * device_executor_open. On success *ret is closed by group_executor_close, not through its face. */
int group_executor_open(const struct device_executor_options *o, const struct backend *backend, const int *index, int n,
                        const struct group_executor *first, struct group_executor **ret, struct err *err);
void group_executor_close(struct group_executor *g); /* NULL is valid; copes with half-opened */

struct executor *group_executor_face(struct group_executor *g);
int group_executor_size(const struct group_executor *g);
const struct device_executor *group_executor_rank(const struct group_executor *g, int i);
