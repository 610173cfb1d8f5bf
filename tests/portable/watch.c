/* See watch.h. Wrappers around all ops come from the list of ops, as those that time them do. */
#include "tests/portable/watch.h"
#include "engine/tools/trace.h"
#include <stdlib.h>

enum { BUFFERS = 18 };

/* One array of a step. */
struct buffer {
    const char *name;
    struct dev_bytes *device; /* NULL: the model has none */
    size_t bytes;
    int columns; /* elements of a row; 0: not floats */
};

/* What one op left: a hash a buffer. */
struct entry {
    const char *op;
    int layer;
    uint64_t hash[BUFFERS];
};

struct watch {
    struct model m;
    struct trace t;
    const struct kern_ops *ops; /* the backend's own */
    struct kern_ops watched;
    struct buffer buffers[BUFFERS];
    unsigned char *host; /* [largest buffer] */
    int layer;           /* -1: the embedding; n_layers: the head */
    struct entry *entries;
    int n, cap;
    int stop, stop_buffer; /* entry after which a buffer is kept; -1: none */
    unsigned char *kept;
};

static struct watch *watching; /* the wrappers have no other way to it */

static uint64_t hash_bytes(const unsigned char *p, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3;
    return hash;
}

static int read_buffer(struct watch *w, int i, unsigned char *to)
{
    struct kern_ctx *k = w->m.k;
    int r = k->backend->download(k, to, w->buffers[i].device, w->buffers[i].bytes);
    return r < 0 ? r : k->backend->sync(k, NULL);
}

/* Notes what every buffer holds after an op. */
static int note(struct watch *w, const char *op)
{
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 256;
        w->entries = realloc(w->entries, (size_t)w->cap * sizeof(*w->entries));
    }
    struct entry *e = &w->entries[w->n];
    *e = (struct entry){.op = op, .layer = w->layer};
    for (int i = 0; i < BUFFERS; i++) {
        if (!w->buffers[i].device)
            continue;
        int r = read_buffer(w, i, w->host);
        if (r < 0)
            return r;
        e->hash[i] = hash_bytes(w->host, w->buffers[i].bytes);
        if (w->n == w->stop && i == w->stop_buffer)
            memcpy(w->kept, w->host, w->buffers[i].bytes);
    }
    w->n++;
    return 0;
}

#define OP(name, kind, bits, args, ...)           \
    static int name##_watched(__VA_ARGS__)        \
    {                                             \
        int r = watching->ops->name args;         \
        return r < 0 ? r : note(watching, #name); \
    }
#include "kernels/op_list.h"

static void fill_watched(struct watch *w)
{
    w->ops = w->m.k->ops;
    w->watched = *w->ops;
#define OP(name, kind, bits, args, ...) w->watched.name = name##_watched;
#include "kernels/op_list.h"
    w->watched.replay = NULL;
    w->watched.beside = NULL;
}

/* What no op has written yet must not differ either. */
static int clear_buffers(struct watch *w)
{
    size_t most = 0;
    for (int i = 0; i < BUFFERS; i++)
        most = w->buffers[i].bytes > most ? w->buffers[i].bytes : most;
    w->host = calloc(1, most);
    w->kept = calloc(1, most);
    int r = w->host && w->kept ? 0 : ERR_NOMEM;
    for (int i = 0; i < BUFFERS && r >= 0; i++)
        if (w->buffers[i].device)
            r = w->m.k->backend->upload(w->m.k, w->buffers[i].device, w->host, w->buffers[i].bytes);
    return r;
}

static void list_buffers(struct watch *w, int rows)
{
    const struct model_config *c = &w->m.config;
    const struct workspace *s = &w->t.w;
    size_t n = (size_t)rows, layers = (size_t)c->n_layers, head = (size_t)s->head_rows;
    int hd = model_config_padded_head_dim(c), d = c->hidden, q = c->n_heads * hd, kv = c->n_kv_heads * hd,
        floats = model_config_state_floats(c);
    const struct buffer all[BUFFERS] = {
        {"router states", DEV_BYTES(w->t.kv.states), model_state_bytes(&w->m), floats},
        {"xn", DEV_BYTES(s->xn), n * d * 4, d},
        {"qkv", DEV_BYTES(s->qkv), n * (q + 2 * kv) * 4, q + 2 * kv},
        {"K and V", DEV_BYTES(w->t.kv.kv), n * model_kv_row_bytes(&w->m), 2 * kv},
        {"attn", DEV_BYTES(s->attn), n * q * 4, q},
        {"ffn", DEV_BYTES(s->ffn), n * c->ffn * 4, c->ffn},
        {"margin", DEV_BYTES(s->margin), n * 4, 1},
        {"prob", DEV_BYTES(s->prob), layers * n * 4, rows},
        {"gate", DEV_BYTES(s->gate), n * 4, 1},
        {"skip_gate", DEV_BYTES(s->skip_gate), n * 4, 1},
        {"skip_prob", DEV_BYTES(s->skip_prob), layers * n * 4, rows},
        {"route", DEV_BYTES(s->route), layers * n, 0},
        {"x", DEV_BYTES(s->x), n * d * 4, d},
        {"want_xn", DEV_BYTES(s->want_xn), head * d * 4, d},
        {"logits", DEV_BYTES(s->logits), head * c->vocab * 4, c->vocab},
        {"target_lp", DEV_BYTES(s->target_lp), n * 4, 1},
        {"top_lp", DEV_BYTES(s->top_lp), n * KERN_TOP_K_MAX * 4, 1},
        {"top_id", DEV_BYTES(s->top_id), n * KERN_TOP_K_MAX * 4, 0},
    };
    memcpy(w->buffers, all, sizeof(all));
}

static int run(struct watch *w, const int32_t *ids, int n)
{
    struct trace *t = &w->t;
    int r = trace_load(t, ids, 1, n, n);
    w->n = 0;
    w->layer = -1;
    watching = w;
    w->m.k->ops = &w->watched;
    if (r >= 0)
        r = forward_embed(&w->m, &t->w, &t->b);
    for (w->layer = 0; w->layer < w->m.config.n_layers && r >= 0; w->layer++)
        r = forward_layer(&w->m, &t->w, &t->b, &t->kv, w->layer);
    for (int first = 0; first < n && r >= 0; first += t->w.head_rows)
        r = forward_head(&w->m, &t->w, &t->b, first, n - first < t->w.head_rows ? n - first : t->w.head_rows, 5);
    w->m.k->ops = w->ops;
    return r;
}

static int open_watch(struct watch *w, const char *dir, const struct place *p, int n, struct err *err)
{
    const struct backend *backend;
    *w = (struct watch){.stop = -1};
    struct model_options o = {
        .dir = dir, .dtype = "f32", .n_threads = p->n_threads, .max_model_len = n, .overrides = {.bos_id = -1, .eos_id = -1}};
    o.cpu_level = strcmp(p->device, "cpu") ? NULL : p->level;
    o.cuda_level = strcmp(p->device, "cuda") ? NULL : p->level;
    int r = backend_find(p->device, &backend, err);
    if (r >= 0)
        r = model_open(&o, backend, &w->m, err);
    if (r >= 0)
        r = trace_open(&w->t, &w->m, n, err);
    if (r < 0)
        return r;
    list_buffers(w, n);
    fill_watched(w);
    return clear_buffers(w);
}

static void close_watch(struct watch *w)
{
    trace_close(&w->t);
    model_close(&w->m);
    free(w->entries);
    free(w->host);
    free(w->kept);
}

/* The first entry of both that differs, and in which buffer. */
static bool find(const struct watch *a, const struct watch *b, int *ret_entry, int *ret_buffer)
{
    for (int i = 0; i < a->n && i < b->n; i++)
        for (int j = 0; j < BUFFERS; j++)
            if (a->entries[i].hash[j] != b->entries[i].hash[j]) {
                *ret_entry = i;
                *ret_buffer = j;
                return true;
            }
    return false;
}

static void print_element(const struct watch *a, const struct watch *b, const struct place *pa, const struct place *pb)
{
    const struct entry *e = &a->entries[a->stop];
    const struct buffer *of = &a->buffers[a->stop_buffer];
    size_t size = of->columns ? 4 : 1, i = 0;
    while (i < of->bytes / size && !memcmp(a->kept + i * size, b->kept + i * size, size))
        i++;
    fprintf(stderr, "  %s %s and %s %s differ first after op %d, %s, layer %d, in %s", pa->device, pa->level ? pa->level : "", pb->device,
            pb->level ? pb->level : "", a->stop, e->op, e->layer, of->name);
    if (!of->columns) {
        fprintf(stderr, ", byte %zu: %d and %d\n", i, a->kept[i], b->kept[i]);
        return;
    }
    float x, y;
    memcpy(&x, a->kept + i * 4, 4);
    memcpy(&y, b->kept + i * 4, 4);
    fprintf(stderr, ", row %zu, column %zu: %a and %a\n", i / (size_t)of->columns, i % (size_t)of->columns, (double)x, (double)y);
}

/* Both once more, up to where they differ, from cleared buffers. */
static int keep(struct watch *w, const int32_t *ids, int n, int entry, int buffer)
{
    free(w->host);
    free(w->kept);
    int r = clear_buffers(w);
    w->stop = entry;
    w->stop_buffer = buffer;
    return r < 0 ? r : run(w, ids, n);
}

int watch_difference(const char *model_dir, const struct place *a, const struct place *b, const int32_t *ids, int n)
{
    static struct watch wa, wb;
    struct err err = {0};
    int entry, buffer, r = open_watch(&wa, model_dir, a, n, &err);
    if (r >= 0)
        r = open_watch(&wb, model_dir, b, n, &err);
    if (r >= 0)
        r = run(&wa, ids, n);
    if (r >= 0)
        r = run(&wb, ids, n);
    bool found = r >= 0 && find(&wa, &wb, &entry, &buffer);
    if (found)
        r = keep(&wa, ids, n, entry, buffer);
    if (found && r >= 0)
        r = keep(&wb, ids, n, entry, buffer);
    if (found && r >= 0)
        print_element(&wa, &wb, a, b);
    if (r < 0)
        fprintf(stderr, "  no trace: %s\n", err.text);
    close_watch(&wa);
    close_watch(&wb);
    return r < 0 ? r : found;
}
