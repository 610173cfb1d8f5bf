/* Tensors of a checkpoint bound to backend memory: each one's name, dtype and shape is checked, values that are not finite are refused,
 * and what was asked for is marked as used. */
#pragma once
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/safetensors.h"
#include "kernels/backend.h"

#define BINDER_MAX_PARTS 3

struct binder {
    struct kern_ctx *k;
    const struct model_config *c;
    const struct safetensors *s;
    bool *used;                         /* [safetensors_count] */
    size_t bytes;                       /* in backend memory so far */
    char prefix[64];                    /* of the names of a matrix's parts: "model.layers.3." or with "expert1." */
    void *copies[2 * BINDER_MAX_PARTS]; /* aligned copies of misaligned tensors, while one matrix is packed */
    int n_copies;
    struct err *err;
};

/* One part of a matrix: tensors `name`.weight [n, cols] and, if asked for, `name`.bias [n]. */
struct part_spec {
    const char *name;
    int64_t n;
    bool bias;
};

/* A matrix of n_parts (at most BINDER_MAX_PARTS) side by side, of `cols` columns, packed by the backend. */
int binder_matrix(struct binder *b, enum matrix_kind kind, const struct part_spec *specs, int n_parts, int64_t cols,
                  struct kern_matrix **ret);
/* f32 [n] in backend memory. On an error too, what is in *ret is owned by the caller. */
int binder_vector(struct binder *b, const char *name, int64_t n, struct dev_f32 **ret);
/* One f32 array from n_names tensors of [rows, cols] each ([rows] if cols is 0), one after the other. */
int binder_stacked(struct binder *b, const char *const *names, int n_names, int64_t rows, int64_t cols, struct dev_f32 **ret);
/* Other dtypes than F32, BF16 and F16 are an error. */
int binder_dtype(const struct tensor *t, enum dtype *ret, struct err *err);
