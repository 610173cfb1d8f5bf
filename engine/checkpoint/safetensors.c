/* Reads safetensors headers into one sorted list of tensors. The bytes are mapped, never copied; every range handed out was checked to
 * lie inside its file. */
#include "common/json.h"
#include "engine/checkpoint/model_hint.h"
#include "engine/checkpoint/safetensors_private.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    enum tensor_type type;
    int bytes;
} dtypes[] = {
    {"F32", TENSOR_F32, 4},    {"BF16", TENSOR_BF16, 2},     {"F16", TENSOR_F16, 2},       {"I32", TENSOR_I32, 4},
    {"U8", TENSOR_U8, 1},      {"F64", TENSOR_OTHER, 8},     {"I64", TENSOR_OTHER, 8},     {"U64", TENSOR_OTHER, 8},
    {"U32", TENSOR_OTHER, 4},  {"I16", TENSOR_OTHER, 2},     {"U16", TENSOR_OTHER, 2},     {"I8", TENSOR_OTHER, 1},
    {"BOOL", TENSOR_OTHER, 1}, {"F8_E4M3", TENSOR_OTHER, 1}, {"F8_E5M2", TENSOR_OTHER, 1},
};

int64_t tensor_elements(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

struct safetensors *safetensors_new(int n_files)
{
    struct safetensors *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    arena_init(&s->names, (size_t)1 << 30);
    s->files = calloc((size_t)n_files, sizeof(*s->files));
    if (!s->files) {
        safetensors_close(s);
        return NULL;
    }
    return s;
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n_files; i++)
        mapfile_close(&s->files[i].map);
    free(s->files);
    free(s->entries);
    free(s->tensors);
    arena_done(&s->names);
    free(s);
}

/* ---- one tensor of a header --------------------------------------------------------------------------- */

static int read_dtype(const struct file *f, const char *name, const json_t *desc, struct tensor *t, int *ret_bytes, struct err *err)
{
    const char *s = json_string_value(json_object_get(desc, "dtype"));
    if (!s)
        return err_set(err, ERR_CORRUPT, "%s: tensor %s has no dtype string", f->name, name);
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (!strcmp(s, dtypes[i].name)) {
            t->type = dtypes[i].type;
            t->dtype = dtypes[i].name;
            *ret_bytes = dtypes[i].bytes;
            return 0;
        }
    return err_set(err, ERR_CORRUPT, "%s: tensor %s has dtype '%s', which is not known", f->name, name, s);
}

/* Fills the shape and the bytes that it needs. */
static int read_shape(const struct file *f, const char *name, const json_t *desc, int elem_bytes, struct tensor *t, struct err *err)
{
    const json_t *a = json_object_get(desc, "shape");
    if (!json_is_array(a) || json_array_size(a) > SAFETENSORS_MAX_DIMS)
        return err_set(err, ERR_CORRUPT, "%s: tensor %s: shape must be a list of at most %d sizes", f->name, name, SAFETENSORS_MAX_DIMS);
    t->n_dims = (int)json_array_size(a);
    int64_t bytes = elem_bytes; /* the product without empty dimensions, so that no partial product of a tensor overflows either */
    bool empty = false;
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *v = json_array_get(a, (size_t)i);
        int64_t dim = json_is_integer(v) ? json_integer_value(v) : -1;
        if (dim < 0)
            return err_set(err, ERR_CORRUPT, "%s: tensor %s: shape[%d] must be an integer of at least 0", f->name, name, i);
        if (__builtin_mul_overflow(bytes, dim ? dim : 1, &bytes))
            return err_set(err, ERR_CORRUPT, "%s: tensor %s: shape[%d] = %lld makes the size overflow", f->name, name, i, (long long)dim);
        empty |= dim == 0;
        t->shape[i] = dim;
    }
    t->n_bytes = empty ? 0 : (size_t)bytes;
    return 0;
}

static int read_offsets(const struct file *f, const char *name, const json_t *desc, uint64_t data_len, struct entry *e, struct err *err)
{
    const json_t *a = json_object_get(desc, "data_offsets");
    const json_t *b0 = json_array_get(a, 0), *b1 = json_array_get(a, 1);
    if (json_array_size(a) != 2 || !json_is_integer(b0) || !json_is_integer(b1))
        return err_set(err, ERR_CORRUPT, "%s: tensor %s: data_offsets must be two integers", f->name, name);
    int64_t begin = json_integer_value(b0), end = json_integer_value(b1);
    if (begin < 0 || end < begin || (uint64_t)end > data_len)
        return err_set(err, ERR_CORRUPT,
                       "%s: tensor %s: data_offsets %lld..%lld lie outside the %llu bytes of data (is the file truncated?)", f->name, name,
                       (long long)begin, (long long)end, (unsigned long long)data_len);
    if ((uint64_t)(end - begin) != e->t.n_bytes)
        return err_set(err, ERR_CORRUPT, "%s: tensor %s: data_offsets span %lld bytes, dtype and shape need %zu", f->name, name,
                       (long long)(end - begin), e->t.n_bytes);
    e->begin = (uint64_t)begin;
    e->end = (uint64_t)end;
    return 0;
}

struct entry *safetensors_new_entry(struct safetensors *s)
{
    if (s->n_entries == s->cap_entries) {
        size_t cap = s->cap_entries ? 2 * s->cap_entries : 256;
        struct entry *p = realloc(s->entries, cap * sizeof(*p));
        if (!p)
            return NULL;
        s->entries = p;
        s->cap_entries = cap;
    }
    struct entry *e = &s->entries[s->n_entries];
    memset(e, 0, sizeof(*e));
    return e;
}

static int read_tensor(struct safetensors *s, int file, const char *name, const json_t *desc, const unsigned char *data, uint64_t data_len,
                       struct err *err)
{
    const struct file *f = &s->files[file];
    struct entry *e = safetensors_new_entry(s);
    char *copy = e ? arena_strndup(&s->names, name, strlen(name)) : NULL;
    if (!copy)
        return err_set(err, ERR_NOMEM, "%s: no memory for the list of tensors", f->name);
    if (!json_is_object(desc))
        return err_set(err, ERR_CORRUPT, "%s: tensor %s is not described by an object", f->name, name);
    int elem_bytes = 0;
    int r = read_dtype(f, name, desc, &e->t, &elem_bytes, err);
    if (r >= 0)
        r = read_shape(f, name, desc, elem_bytes, &e->t, err);
    if (r >= 0)
        r = read_offsets(f, name, desc, data_len, e, err);
    if (r < 0)
        return r;
    e->t.name = copy;
    e->t.data = data + e->begin;
    e->file = file;
    s->n_entries++;
    return 0;
}

/* ---- one file ----------------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The tensors first..n_entries-1 must tile the data: no overlap, no hole, nothing after the last. */
static int check_tiling(struct safetensors *s, const struct file *f, size_t first, uint64_t data_len, struct err *err)
{
    if (s->n_entries > first)
        qsort(s->entries + first, s->n_entries - first, sizeof(*s->entries), by_offset);
    uint64_t at = 0;
    for (size_t i = first; i < s->n_entries; i++) {
        const struct entry *e = &s->entries[i];
        if (e->begin != at)
            return err_set(err, ERR_CORRUPT, "%s: tensor %s begins at byte %llu of the data, the one before it ends at %llu (%s)", f->name,
                           e->t.name, (unsigned long long)e->begin, (unsigned long long)at, e->begin < at ? "they overlap" : "a hole");
        at = e->end;
    }
    if (at != data_len)
        return err_set(err, ERR_CORRUPT, "%s: %llu bytes follow the last tensor", f->name, (unsigned long long)(data_len - at));
    return 0;
}

static int read_entries(struct safetensors *s, int file, json_t *header, size_t header_len, struct err *err)
{
    const struct file *f = &s->files[file];
    const unsigned char *data = f->bytes + 8 + header_len;
    uint64_t data_len = f->len - 8 - header_len;
    size_t first = s->n_entries;
    if (!json_is_object(header))
        return err_set(err, ERR_CORRUPT, "%s: the header is not a JSON object", f->name);
    const char *name;
    json_t *desc;
    json_object_foreach (header, name, desc) {
        if (!strcmp(name, "__metadata__"))
            continue;
        int r = read_tensor(s, file, name, desc, data, data_len, err);
        if (r < 0)
            return r;
    }
    return check_tiling(s, f, first, data_len, err);
}

static int read_header(struct safetensors *s, int file, struct err *err)
{
    const struct file *f = &s->files[file];
    if (f->len < 8)
        return err_set(err, ERR_CORRUPT, "%s: %zu bytes are too few for a safetensors file", f->name, f->len);
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | f->bytes[i];
    if (len > SAFETENSORS_MAX_HEADER)
        return err_set(err, ERR_CORRUPT, "%s: header length %llu is above the limit of %d", f->name, (unsigned long long)len,
                       SAFETENSORS_MAX_HEADER);
    if (len > f->len - 8)
        return err_set(err, ERR_CORRUPT, "%s: header length %llu exceeds the file's %zu bytes (is it truncated?)", f->name,
                       (unsigned long long)len, f->len);
    char what[PATH_MAX + 16];
    snprintf(what, sizeof(what), "header of %s", f->name);
    json_t *header = NULL;
    struct err cause = {0};
    int r = json_parse((const char *)f->bytes + 8, (size_t)len, what, &header, &cause);
    if (r < 0)
        return err_set(err, r == ERR_INVALID ? ERR_CORRUPT : r, "%s", cause.text);
    r = read_entries(s, file, header, (size_t)len, err);
    json_decref(header);
    return r;
}

static int map_file(struct safetensors *s, const char *name, const char *path, struct err *err)
{
    struct file *f = &s->files[s->n_files];
    f->name = arena_strndup(&s->names, name, strlen(name));
    if (!f->name)
        return err_set(err, ERR_NOMEM, "%s: no memory", name);
    int r = mapfile_open(&f->map, path, err);
    if (r < 0)
        return r;
    f->bytes = f->map.data;
    f->len = f->map.len;
    s->n_files++;
    return 0;
}

int safetensors_check(const struct safetensors *s, struct err *err)
{
    int r = 0;
    for (int i = 0; i < s->n_files && r >= 0; i++)
        r = s->files[i].map.path ? mapfile_check(&s->files[i].map, err) : 0;
    return r;
}

/* ---- the list ------------------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->t.name, ((const struct entry *)b)->t.name);
}

int safetensors_finish(struct safetensors *s, struct err *err)
{
    if (s->n_entries)
        qsort(s->entries, s->n_entries, sizeof(*s->entries), by_name);
    s->tensors = malloc((s->n_entries + 1) * sizeof(*s->tensors));
    if (!s->tensors)
        return err_set(err, ERR_NOMEM, "no memory for the list of tensors");
    for (size_t i = 0; i < s->n_entries; i++) {
        const struct entry *e = &s->entries[i];
        if (i && !strcmp(e[-1].t.name, e->t.name))
            return err_set(err, ERR_CORRUPT, "tensor %s is in %s and in %s", e->t.name, s->files[e[-1].file].name, s->files[e->file].name);
        s->tensors[i] = e->t;
    }
    return 0;
}

int safetensors_add_file(struct safetensors *s, const char *name, const char *path, struct err *err)
{
    int r = map_file(s, name, path, err);
    return r >= 0 ? read_header(s, s->n_files - 1, err) : r;
}

/* Finishes what was opened with code `r`; on any error closes it. s may be NULL. */
static int keep(struct safetensors *s, int r, struct safetensors **ret, struct err *err)
{
    if (r >= 0)
        r = safetensors_finish(s, err);
    if (r < 0)
        safetensors_close(s);
    else
        *ret = s;
    return r;
}

int safetensors_open_file(const char *path, struct safetensors **ret, struct err *err)
{
    struct safetensors *s = safetensors_new(1);
    return keep(s, s ? safetensors_add_file(s, path, path, err) : err_set(err, ERR_NOMEM, "%s: no memory", path), ret, err);
}

int safetensors_open_memory(const char *name, const void *bytes, size_t len, struct safetensors **ret, struct err *err)
{
    struct safetensors *s = safetensors_new(1);
    if (!s)
        return err_set(err, ERR_NOMEM, "%s: no memory", name);
    s->files[0] = (struct file){.name = name, .bytes = bytes, .len = len};
    s->n_files = 1;
    return keep(s, read_header(s, 0, err), ret, err);
}

int safetensors_open_dir(const char *dir, struct safetensors **ret, struct err *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/model.safetensors.index.json", dir) >= (int)sizeof(path))
        return err_set(err, ERR_INVALID, "the model's path is longer than %d bytes", PATH_MAX - 32);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    if (!access(path, F_OK))
        return safetensors_open_file(path, ret, err);
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", dir);
    if (!access(path, F_OK))
        return safetensors_open_index(dir, path, ret, err);
    return model_hint_no_weights(dir, err);
}

/* ---- what callers read --------------------------------------------------------------------------------- */

static int name_against(const void *key, const void *t)
{
    return strcmp(key, ((const struct tensor *)t)->name);
}

const struct tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    return bsearch(name, s->tensors, s->n_entries, sizeof(*s->tensors), name_against);
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->n_entries;
}

const struct tensor *safetensors_at(const struct safetensors *s, size_t i)
{
    return &s->tensors[i];
}

int safetensors_file_count(const struct safetensors *s)
{
    return s->n_files;
}

size_t safetensors_bytes(const struct safetensors *s)
{
    size_t sum = 0;
    for (int i = 0; i < s->n_files; i++)
        sum += s->files[i].len;
    return sum;
}

const unsigned char *safetensors_file_bytes(const struct safetensors *s, int i, size_t *ret_len)
{
    *ret_len = s->files[i].len;
    return s->files[i].bytes;
}
