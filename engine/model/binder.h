/* Tensors of a checkpoint, found by their row of the schema and given to a backend, heads padded to the size that kernels take. Names, shapes
 * and dtypes must have been checked (tensor_match.h); values that are not finite are refused here, where they are read. */
#pragma once
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/tensor_schema.h"
#include "engine/model/share.h"
#include "kernels/backend.h"

#define BINDER_MAX_PARTS 3
#define BINDER_MAX_COPIES 14 /* a Mamba router has as many tensors */

struct binder {
    struct kern_ctx *k;
    const struct model_config *c;
    struct share share; /* which part of the model is bound */
    const struct safetensors *s;
    struct schema_of of;             /* whose tensors are bound */
    size_t bytes;                    /* in backend memory so far */
    void *copies[BINDER_MAX_COPIES]; /* aligned or padded copies of tensors, while one matrix or router is packed */
    int n_copies;
    struct err *err;
};

/* The matrices of n rows of the schema (at most BINDER_MAX_PARTS) side by side, each with its bias if it has one, packed by the backend. */
int binder_matrix(struct binder *b, enum matrix_kind kind, const enum schema_row *rows, int n, struct kern_matrix **ret);
/* The values of n tensors times `scale`, one after the other, as f32 in backend memory. On an error too, what is in *ret is owned by the
 * caller. A row that this layer does not have leaves *ret alone. */
int binder_vector(struct binder *b, const enum schema_row *rows, int n, float scale, struct dev_f32 **ret);
/* A tensor whole and as it is stored, all values finite; borrowed until the next binder_matrix, binder_vector or binder_mamba. */
int binder_tensor(struct binder *b, enum schema_row row, struct kern_tensor *ret);
/* A Mamba router of tensors that binder_tensor gave. */
int binder_mamba(struct binder *b, const struct mamba_parts *parts, struct kern_mamba **ret);
/* Frees the copies that tensors were given: at the end, since a router whose tensors failed half-way has some. */
void binder_drop_copies(struct binder *b);
