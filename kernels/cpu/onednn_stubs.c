/* oneDNN's place in a build without it: declines every matrix. */
#include "kernels/cpu/matrix.h"

static int plan(struct cpu *c, struct kern_matrix *w) { return ERR_UNSUPPORTED; }

const struct cpu_matrix_ops matrix_ops_onednn = {.name = "onednn", .plan = plan};

void matmul_onednn_free(struct cpu *c) {}
const char *matmul_onednn_version(void) { return ""; }
