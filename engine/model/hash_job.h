/* The hash of a checkpoint, taken in a thread of its own: it reads every byte of the files on one core, so loading and the first requests do not wait for it. The
 * thread is of low priority, and gives way to those that load. */
#pragma once
#include "common/log.h"
#include "engine/checkpoint/safetensors.h"
#include <stdbool.h>

struct hash_job;

/* Hashes what model_hash.h says. `dir` and `more` are copied. On success the job has the files: they are closed once it has read them and hash_job_release was
 * called. Where no thread can be started it hashes at once. */
int hash_job_start(const char *dir, struct safetensors *files, const char *more, struct log *log, struct hash_job **ret, struct err *err);
/* The caller reads the files no more. */
void hash_job_release(struct hash_job *j);
/* 1: *ret_hex is the hash, which lives as long as the job; 0: it is not known yet (never with `wait`); ERR_IO: the files changed meanwhile. Any thread may ask. */
int hash_job_result(struct hash_job *j, bool wait, const char **ret_hex, struct err *err);
/* Ends it, whether it is done or not; nobody may be asking. NULL is valid. */
void hash_job_free(struct hash_job *j);
