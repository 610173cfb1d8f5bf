/* A checkpoint's tensors by name: one model.safetensors, or shards with model.safetensors.index.json. Nothing in the files is trusted:
 * header length, JSON, dtype, shape, offsets, overlaps, holes, and that the index names files beside it.
 *
 * A file is 8 bytes little-endian header length, the JSON header, the data; every byte of the data belongs to exactly one tensor. A shard
 * is a plain file name beside the index; it may be a symbolic link to a regular file anywhere, as in the Hugging Face cache. */
#pragma once
#include "common/err.h"
#include "kernels/random_values.h"
#include <stddef.h>
#include <stdint.h>

enum tensor_type { TENSOR_F32, TENSOR_BF16, TENSOR_F16, TENSOR_I32, TENSOR_U8, TENSOR_OTHER };

#define SAFETENSORS_MAX_HEADER 100000000 /* bytes of one file's JSON header */
#define SAFETENSORS_MAX_DIMS 8
#define SAFETENSORS_MAX_FILES 4096

struct tensor {
    const char *name;
    const char *dtype; /* as the file spells it: "BF16" */
    enum tensor_type type;
    int n_dims; /* 0..8 */
    int64_t shape[SAFETENSORS_MAX_DIMS];
    const void *data; /* in the mapping; aligned as the file has it; may be unaligned. NULL: it has random values */
    size_t n_bytes;
    struct random_values random; /* where data is NULL */
};

struct safetensors;

/* All tensors of a checkpoint directory. A model.safetensors is preferred to an index, as transformers does. */
int safetensors_open_dir(const char *dir, struct safetensors **ret, struct err *err);
/* One file. */
int safetensors_open_file(const char *path, struct safetensors **ret, struct err *err);
/* One file that is in memory already; `bytes` is borrowed until close. `name` is for errors. */
int safetensors_open_memory(const char *name, const void *bytes, size_t len, struct safetensors **ret, struct err *err);
void safetensors_close(struct safetensors *s); /* unmaps; NULL is valid */

const struct tensor *safetensors_find(const struct safetensors *s, const char *name); /* NULL: none */
size_t safetensors_count(const struct safetensors *s);
const struct tensor *safetensors_at(const struct safetensors *s, size_t i); /* by ascending name; consecutive in memory */
/* ERR_IO if a file was cut, written or replaced since it was opened; what was read of it is then not to be used. */
int safetensors_check(const struct safetensors *s, struct err *err);
int safetensors_file_count(const struct safetensors *s);
size_t safetensors_bytes(const struct safetensors *s);                                            /* of all files together */
const unsigned char *safetensors_file_bytes(const struct safetensors *s, int i, size_t *ret_len); /* for the model's hash; by name */

int64_t tensor_elements(const struct tensor *t); /* product of the shape; 1 for a scalar */
