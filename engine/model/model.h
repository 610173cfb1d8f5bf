/* A loaded checkpoint on a device: config, plan, weights and rotary tables, bound to one opened backend. */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "engine/model/weights.h"

struct hash_job;

struct model_options {
    const char *dir;                    /* required */
    const char *dtype;                  /* "auto", "f32", "bf16", "f16"; NULL: auto */
    const char *matmul_precision;       /* "highest", "high"; NULL: highest */
    int device_index;                   /* which of the backend's devices */
    struct share share;                 /* the part of the model that it holds */
    int n_threads;                      /* 0: all that the process may use */
    const char *cpu_level, *cuda_level; /* NULL: the machine's, the device's */
    int max_model_len;                  /* 0: the model's default */
    struct model_overrides overrides;   /* of config.json */
    bool random_weights;                /* instead of those of files: dir may be a config's file, and needs no other */
    uint64_t seed;                      /* of random weights */
    struct log *log;                    /* borrowed; NULL: silent */
};

struct model {
    struct kern_ctx *k;
    bool borrows; /* weights and tables are another model's */
    struct share share;
    struct model_config config;
    struct layer_plan *plan; /* [config.n_layers] */
    struct weights weights;
    int max_model_len;                     /* positions that may be computed */
    struct dev_f32 *rope_cos, *rope_sin;   /* [max_model_len, padded head_dim/2] */
    struct dev_f32 *still_cos, *still_sin; /* [1, padded head_dim/2] 1 and 0: the rotation of layers without positions; NULL without such */
    struct hash_job *hash;                 /* of the files; NULL in ranks but the first, and in replicas */
    enum matmul_precision precision;
    int n_threads;
};

/* Opens the checkpoint on a device of `backend`. On error *ret is empty. A window of attention is refused unless max_model_len is so short that it
 * changes nothing. */
int model_open(const struct model_options *o, const struct backend *backend, struct model *ret, struct err *err);
/* The same model on another device of the backend, without reading the files again: `first` was opened with the same options but for device_index. Where
 * the devices have one memory the weights stay `first`'s, which must outlive *ret; else they are copied from device to device. ERR_INVALID: the
 * devices compute different bits. */
int model_open_replica(const struct model_options *o, const struct model *first, struct model *ret, struct err *err);
void model_close(struct model *m); /* copes with half-opened */

/* Bytes of one KV row slot: K and V of one token in one layer, of the KV heads that the model holds. */
size_t model_kv_row_bytes(const struct model *m);
/* Bytes of one state slot: the states of all recurrent routers after one prefix; 0: there are none. */
size_t model_state_bytes(const struct model *m);
