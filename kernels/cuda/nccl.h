/* The few functions of NCCL that are used, found when the first group is opened: a machine without the library runs on single devices. */
#pragma once
#include "common/err.h"
#include <stddef.h>

struct nccl_comm; /* ncclComm */

struct nccl {
    int (*init_all)(struct nccl_comm **comms, int n, const int *devices);
    int (*destroy)(struct nccl_comm *comm);
    int (*abort)(struct nccl_comm *comm);
    int (*all_gather)(const void *send, void *recv, size_t count, int type, struct nccl_comm *comm, void *stream);
    int (*group_start)(void);
    int (*group_end)(void);
    const char *(*error_string)(int result);
};

enum { NCCL_BYTES = 0 /* ncclInt8 */ };

/* ERR_UNSUPPORTED: the library is not there, or of a version that is not known. The table lives as long as the process. */
int nccl_load(const struct nccl **ret, struct err *err);
