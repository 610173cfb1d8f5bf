/* Ops of the CPU with the optional entries that devices have, made of the plain ones: of ops that may run at the same time (kernels.h: beside) the others run first, some
 * counts of rows are declined, and attention ends the program if it is told wrongly that its lists are those of the layer before. */
#pragma once

struct kern_ops;

enum { LATE_FEW_ROWS = 8 }; /* limits.few_rows that goes with them */

/* Of a context of its own, which must find them in its `ops`; freed by late_ops_free (NULL is valid). */
const struct kern_ops *late_ops_new(const struct kern_ops *cpu);
void late_ops_free(const struct kern_ops *ops);
