/* The keys that let clients in, and the client's name that goes with each. Reading is open to any thread; reloading replaces all. */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include <stdbool.h>

#define KEYS_NAME_MAX 64
#define KEYS_MAX 65536

struct keys;

/* `single`: a key of its own, whose client is called "default"; `path`: a file with a line "NAME KEY" for each, '#' begins a comment.
 * Either may be NULL; without both everybody is let in. Borrowed. Errors name the file's line and never its key. */
int keys_open(const char *single, const char *path, struct log *log, struct keys **ret, struct err *err);
void keys_close(struct keys *k); /* NULL is valid */
/* Reads the file again; on an error the old keys stay. */
int keys_reload(struct keys *k, struct err *err);
bool keys_needed(const struct keys *k); /* false for NULL */
/* True with the client's name in ret_name if `given` is a key. Takes a time that tells nothing about keys but how many there are. */
bool keys_find(struct keys *k, const char *given, char ret_name[KEYS_NAME_MAX + 1]);
