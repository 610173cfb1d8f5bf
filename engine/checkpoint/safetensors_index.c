/* Shards: where the index may point, and that index and shards do not tell different stories. */
#include "common/json.h"
#include "engine/checkpoint/safetensors_private.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_link(const char *path)
{
    struct stat st;
    return !lstat(path, &st) && S_ISLNK(st.st_mode);
}

/* Links are followed, since the Hugging Face cache is made of them; what counts is that the index itself names a file beside it. */
static int resolve_shard(const char *dir, const char *name, char path[PATH_MAX], struct err *err)
{
    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return err_set(err, ERR_CORRUPT, "model.safetensors.index.json: shard '%s' is not a file name beside the index", name);
    if (snprintf(path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
        return err_set(err, ERR_INVALID, "the path of shard %s is longer than %d bytes", name, PATH_MAX - 1);
    if (access(path, F_OK))
        return err_set(err, ERR_NOT_FOUND, "model.safetensors.index.json names %s, which is not there%s", name,
                       is_link(path) ? " (it is a link to a file that is gone)" : "");
    return 0;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of the index, sorted; borrowed from `map`. */
static int shard_names(const json_t *map, const char ***ret, int *ret_n, struct err *err)
{
    size_t n = json_object_size(map), i = 0;
    const char **names = calloc(n + 1, sizeof(*names));
    if (!names)
        return err_set(err, ERR_NOMEM, "model.safetensors.index.json: no memory for %zu names", n);
    const char *tensor;
    json_t *v;
    json_object_foreach ((json_t *)map, tensor, v) {
        if (!json_is_string(v)) {
            free(names);
            return err_set(err, ERR_CORRUPT, "model.safetensors.index.json: weight_map.%s is not a file name", tensor);
        }
        names[i++] = json_string_value(v);
    }
    qsort(names, n, sizeof(*names), compare_strings);
    int distinct = 0;
    for (i = 0; i < n; i++)
        if (!distinct || strcmp(names[distinct - 1], names[i])) {
            if (distinct == SAFETENSORS_MAX_FILES) {
                free(names);
                return err_set(err, ERR_TOO_LARGE, "model.safetensors.index.json names more than %d shards", SAFETENSORS_MAX_FILES);
            }
            names[distinct++] = names[i];
        }
    *ret = names;
    *ret_n = distinct;
    return 0;
}

/* A tensor that the index puts into another shard than it is in is a mix of two saves. What the index alone or a shard alone names is left to
 * tensor_match, which knows what the model needs: indexes of old saves name buffers that no shard has. */
static int check_index(const struct safetensors *s, const json_t *map, struct err *err)
{
    for (size_t i = 0; i < s->n_entries; i++) {
        const struct entry *e = &s->entries[i];
        const char *want = json_string_value(json_object_get(map, e->t.name));
        if (want && strcmp(want, s->files[e->file].name))
            return err_set(err, ERR_CORRUPT, "tensor %s is in %s, but the index says %s", e->t.name, s->files[e->file].name, want);
    }
    return 0;
}

static int open_shards(const char *dir, const json_t *map, struct safetensors **ret, struct err *err)
{
    const char **names = NULL;
    int n = 0;
    int r = shard_names(map, &names, &n, err);
    if (r < 0)
        return r;
    struct safetensors *s = safetensors_new(n + 1);
    if (!s)
        r = err_set(err, ERR_NOMEM, "%s: no memory", dir);
    for (int i = 0; i < n && r >= 0; i++) {
        char path[PATH_MAX];
        r = resolve_shard(dir, names[i], path, err);
        if (r >= 0)
            r = safetensors_add_file(s, names[i], path, err);
    }
    free(names);
    if (r >= 0)
        r = safetensors_finish(s, err);
    if (r >= 0)
        r = check_index(s, map, err);
    if (r < 0)
        safetensors_close(s);
    else
        *ret = s;
    return r;
}

int safetensors_open_index(const char *dir, const char *path, struct safetensors **ret, struct err *err)
{
    json_t *index = NULL;
    struct err cause = {0};
    int r = json_parse_file(path, SAFETENSORS_MAX_HEADER, &index, &cause);
    if (r < 0)
        return err_set(err, r == ERR_INVALID ? ERR_CORRUPT : r, "%s", cause.text);
    const json_t *map = json_object_get(index, "weight_map");
    if (json_is_object(map) && json_object_size(map))
        r = open_shards(dir, map, ret, err);
    else
        r = err_set(err, ERR_CORRUPT, "model.safetensors.index.json: weight_map must be an object with at least one tensor");
    json_decref(index);
    return r;
}
