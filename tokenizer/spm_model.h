/* A SentencePiece model (tokenizer.model) as a pipeline, three ways: as version 4's LlamaConverter reads it, as version 5's classes
 * take vocabulary and merges out of it, and as version 5's TokenizersBackend rebuilds SentencePiece's own conventions
 * (transformers, convert_slow_tokenizer.py). */
#pragma once
#include "common/err.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/settings.h"

/* Fills an initialised pipeline by the rules and the class of *s, into which it puts the control pieces and roles that the model
 * itself names, where the files leave room for them. ERR_UNSUPPORTED for the model types word and char, and for classes that read no
 * tokenizer.model. */
int spm_model_load(struct pipeline *p, const char *path, struct settings *s, struct err *err);
/* The same from the file's bytes. */
int spm_model_fill(struct pipeline *p, const unsigned char *data, size_t len, struct settings *s, struct err *err);
