/* A random checkpoint of any shape whose routers select a chosen share of tokens: for measurements where no trained model exists.
 *
 * Weights are those of engine/checkpoint/random_tensor.h, made so that the share holds in texts of any length. The routers' biases are then set by running random ids through the written model, layer by
 * layer in depth order (a layer's input depends on the biases before it): each bias is moved so that the wanted share of rows is selected. */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include "engine/checkpoint/layer_plan.h"
#include <stdbool.h>
#include <stdint.h>

struct synth_options {
    const char *config;  /* config.json to follow; copied to the checkpoint */
    const char *out;     /* directory; made if absent; must not hold a model.safetensors or config.json */
    const char *family;  /* "dense", "dtrnet", "mod", "dllm"; NULL: dtrnet if the config has dtrnet_layers, else dense */
    double route_rate;   /* 0..1: in routed layers, of the executed tokens */
    double execute_rate; /* 0..1: in nested layers */
    uint64_t seed;       /* the same seed, config and rate give the same weights */
    int n_tokens;        /* random ids to calibrate on, and as many others to measure on; 0: 32768. Takes n_tokens x hidden_size floats */
    int n_threads;       /* 0: all that the process may use */
    struct log *log;
};

#define SYNTH_SEQUENCE 512 /* tokens of one sequence, or the model's length if that is less */

struct synth_report {
    int n_layers;
    struct layer_plan plan[MODEL_MAX_LAYERS];
    double rate
        [MODEL_MAX_LAYERS]; /* share of the executed rows that attend (MoD, D-LLM: of all, that are selected), on ids that calibration has not seen */
    double executed[MODEL_MAX_LAYERS]; /* share of rows that a nested layer executes; 1 in others */
    double worst;                      /* largest distance from what was asked for; 0 without routed layers */
    int64_t n_params;
};

int synth_run(const struct synth_options *o, struct synth_report *ret, struct err *err);

/* The steps of synth_run. */
int synth_write(const char *path, const struct model_config *c, const struct layer_plan *plan, uint64_t seed, struct err *err);
int synth_calibrate(const struct synth_options *o, struct err *err);
int synth_measure(const struct synth_options *o, struct synth_report *ret, struct err *err);

struct model;
/* Opens the written checkpoint. ret_len: tokens of the sequences that it is run on. */
int synth_open(const struct synth_options *o, struct model *ret, int *ret_len, struct err *err);
