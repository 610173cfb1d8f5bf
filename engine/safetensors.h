/* A checkpoint's tensors by name: one model.safetensors, or shards with model.safetensors.index.json. Nothing in the files is trusted:
 * header length, JSON, dtype, shape, offsets, overlaps, holes, and that shards stay inside the directory. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

enum tensor_type { TENSOR_F32, TENSOR_BF16, TENSOR_F16, TENSOR_I32, TENSOR_U8, TENSOR_OTHER };

struct tensor {
    const char *name;
    enum tensor_type type;
    int n_dims;             /* 0..8 */
    int64_t shape[8];
    const void *data;       /* in the mapping; aligned as the file has it; may be unaligned */
    size_t n_bytes;
};

struct safetensors;

/* All tensors of a checkpoint directory. */
int safetensors_open_dir(const char *dir, struct safetensors **ret, struct err *err);
/* One file. */
int safetensors_open_file(const char *path, struct safetensors **ret, struct err *err);
void safetensors_close(struct safetensors *s);        /* unmaps; NULL is valid */

const struct tensor *safetensors_find(const struct safetensors *s, const char *name);   /* NULL: none */
size_t safetensors_count(const struct safetensors *s);
const struct tensor *safetensors_at(const struct safetensors *s, size_t i);
int safetensors_file_count(const struct safetensors *s);
const unsigned char *safetensors_file_bytes(const struct safetensors *s, int i, size_t *ret_len);   /* for the model's hash */
