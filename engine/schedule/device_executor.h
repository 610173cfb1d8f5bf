/* The executor of one device: a model on a backend, with its activations, its KV memory and the steps in flight. */
#pragma once
#include "engine/model/model.h"
#include "engine/schedule/executor.h"

struct device_executor;

struct device_executor_options {
    struct model_options model;
    const struct device_executor
        *first;            /* whose model this one has as well, on another device; it must outlive this one. NULL: it is read from files */
    int max_rows;          /* of a step; 0: the backend's default */
    int max_steps;         /* in flight; 0: the backend's default */
    int draw_rows;         /* whose logits are kept to draw tokens from; 0: drawer_capacity */
    size_t kv_cache_bytes; /* 0: a share of free memory */
    int state_slots;       /* 0: by what the KV rows take */
};

/* Loads the checkpoint. *ret is closed through its face. Errors name the field. */
int device_executor_open(const struct device_executor_options *o, const struct backend *backend, struct device_executor **ret,
                         struct err *err);
/* Then allocates everything that steps need, once other models that the same memory must hold are loaded. kv_slots 0: by o's kv_cache_bytes; of ranks but the
 * first: as many as that one has. */
int device_executor_open_memory(struct device_executor *x, const struct device_executor_options *o, int kv_slots, struct err *err);
struct executor *device_executor_face(struct device_executor *x);
const struct model *device_executor_model(const struct device_executor *x);
size_t device_executor_workspace_bytes(const struct device_executor *x);
