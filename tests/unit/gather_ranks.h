/* Ranks that gather again and again, each in a thread, and check what they get: for tests of a backend's collectives. */
#pragma once
#include "kernels/backend.h"

enum { GATHER_RANKS_MAX = 16, GATHERS_IN_FLIGHT = 2 };

struct gather_shape {
    int rows, bytes; /* of a rank */
};

struct gather_plan {
    const struct backend *b;
    int n_ranks, rounds;
    const struct gather_shape *shapes; /* [n_shapes] taken in turn; the last is the largest */
    int n_shapes;
    int turn;     /* so many rounds are read at once, as many while the next is under way, and so on */
    int fails_in; /* the round in which rank 1 says that it has failed and leaves; below 0: none */
};

struct gather_rank {
    const struct gather_plan *plan;
    struct kern_ctx *k;
    int rank;
    int rounds, code; /* rounds that went well; 0 or the code that ended them */
    struct dev_bytes *part[GATHERS_IN_FLIGHT], *all[GATHERS_IN_FLIGHT], *own;
    unsigned char *host, *got;
};

/* ranks: [n_ranks]. A context that cannot be opened ends the program. */
void gather_ranks_open(const struct gather_plan *plan, struct gather_rank *ranks, struct kern_ctx **contexts);
/* Within a group that is open: until all ranks have ended. One whose call fails says so to the others. */
void gather_ranks_run(const struct gather_plan *plan, struct gather_rank *ranks);
void gather_ranks_close(const struct gather_plan *plan, struct gather_rank *ranks);
