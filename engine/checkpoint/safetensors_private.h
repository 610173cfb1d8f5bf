/* What safetensors.c (one file, the list) and safetensors_index.c (shards) share. */
#pragma once
#include "common/arena.h"
#include "common/mapfile.h"
#include "engine/checkpoint/safetensors.h"
#include <stdbool.h>

struct file {
    const char *name; /* for errors, and as the index spells it */
    struct mapfile map;
    const unsigned char *bytes; /* map.data, or the caller's memory */
    size_t len;
};

struct entry {
    struct tensor t;
    int file;
    uint64_t begin, end; /* in the file's data part */
};

struct safetensors {
    struct file *files;
    int n_files;
    struct entry *entries; /* while reading */
    size_t n_entries, cap_entries;
    struct tensor *tensors; /* [n_entries] sorted by name */
    struct arena names;
};

/* Room for n_files; NULL: no memory. */
struct safetensors *safetensors_new(int n_files);
/* The next entry, zeroed; it counts once its owner adds one to n_entries. NULL: no memory. */
struct entry *safetensors_new_entry(struct safetensors *s);
/* Maps the next file and reads its header into the entries. `name` is for errors, and as the index spells it. */
int safetensors_add_file(struct safetensors *s, const char *name, const char *path, struct err *err);
/* Sorts by name, refuses a name that two files hold, and makes the list that callers see. */
int safetensors_finish(struct safetensors *s, struct err *err);
/* The shards that dir/model.safetensors.index.json (`path`) names. */
int safetensors_open_index(const char *dir, const char *path, struct safetensors **ret, struct err *err);
