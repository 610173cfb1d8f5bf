/* A checkpoint whose config ties the head to the embedding, and which stores a head all the same. */
#pragma once
#include "common/log.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/safetensors.h"

/* Warns where the stored head is not the embedding: transformers 4 uses the embedding, as this program does, and transformers 5 what is stored. Says
 * whether it warned. */
bool tied_head_check(const struct model_config *c, const struct safetensors *s, struct log *log);
