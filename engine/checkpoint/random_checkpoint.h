/* A checkpoint without files: the tensors that a config describes, with random values (random_tensor.h) that are made where they are needed. They are those
 * that `synth` writes for the same config and seed, before it calibrates routers. */
#pragma once
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/safetensors.h"

/* Closed as a checkpoint of files is. The layout is the published one of the config's family. */
int random_checkpoint_open(const struct model_config *c, uint64_t seed, struct safetensors **ret, struct err *err);
