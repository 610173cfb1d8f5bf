/* Memory of packed weights. Matrices lie one behind the other in large blocks of huge pages: a step reads them all, once, and with small
 * pages every 4 KiB would cost a walk through page tables and a new start of what the CPU fetches ahead. */
#pragma once
#include <stddef.h>

struct weight_block;

/* 64-byte aligned memory, not cleared, or NULL. *current is the block that is being filled (NULL at first), which this may change.
 * *ret_block is what to drop instead of freeing; it outlives *current. One thread at a time for a *current. */
void *weight_memory_take(struct weight_block **current, size_t bytes, struct weight_block **ret_block);
/* Gives up one matrix, or a `current` that is done with; the last one frees the block. NULL: nothing. Any thread. */
void weight_memory_drop(struct weight_block *b);
