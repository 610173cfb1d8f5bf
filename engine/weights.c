/* Binds tensors to the fields of struct weights. Each tensor that is asked for is checked and marked as used; what is not marked at the
 * end would be silently ignored weights, and is refused. */
#include "engine/weights.h"
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DLLM_ROUTER_DIM 512
#define MAX_PARTS 3

struct binder {
    struct kern_ctx *k;
    const struct model_config *c;
    const struct safetensors *s;
    bool *used;                  /* [safetensors_count] */
    struct weights *w;
    char prefix[64];             /* "model.layers.3." or with "expert1." */
    void *copies[2 * MAX_PARTS]; /* aligned copies of misaligned tensors, while one matrix is packed */
    int n_copies;
    struct err *err;
};

/* ---- one tensor -------------------------------------------------------------------------------------------- */

static int dtype_of(const struct tensor *t, enum dtype *ret, struct err *err)
{
    switch (t->type) {
    case TENSOR_F32: *ret = DTYPE_F32; return 0;
    case TENSOR_BF16: *ret = DTYPE_BF16; return 0;
    case TENSOR_F16: *ret = DTYPE_F16; return 0;
    default: return err_set(err, ERR_UNSUPPORTED, "tensor %s has dtype %s; F32, BF16 and F16 are implemented", t->name, t->dtype);
    }
}

static void shape_text(char *out, size_t size, const int64_t *shape, int n)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%lld", i ? "," : "", (long long)shape[i]);
    if (at < size)
        snprintf(out + at, size - at, "]");
}

static int check_shape(const struct tensor *t, const int64_t *want, int n, struct err *err)
{
    if (t->n_dims == n && !memcmp(t->shape, want, (size_t)n * sizeof(*want)))
        return 0;
    char is[192], expected[64];
    shape_text(is, sizeof(is), t->shape, t->n_dims);
    shape_text(expected, sizeof(expected), want, n);
    return err_set(err, ERR_CORRUPT, "tensor %s has shape %s; the config asks for %s", t->name, is, expected);
}

/* Finds, checks and marks `name` of shape [rows, cols], or [rows] if cols is 0. */
static int take(struct binder *b, const char *name, int64_t rows, int64_t cols, const struct tensor **ret, enum dtype *ret_type)
{
    const struct tensor *t = safetensors_find(b->s, name);
    if (!t)
        return err_set(b->err, ERR_CORRUPT, "tensor %s is missing", name);
    int64_t want[2] = { rows, cols };
    int r = check_shape(t, want, cols ? 2 : 1, b->err);
    if (r >= 0)
        r = dtype_of(t, ret_type, b->err);
    if (r < 0)
        return r;
    b->used[t - safetensors_at(b->s, 0)] = true;
    *ret = t;
    return 0;
}

/* The tensor's values where the compiler may assume aligned loads. */
static int aligned_data(struct binder *b, const struct tensor *t, enum dtype type, const void **ret)
{
    *ret = t->data;
    if ((uintptr_t)t->data % dtype_size(type) == 0)
        return 0;
    void *copy = malloc(t->n_bytes);
    if (!copy)
        return err_set(b->err, ERR_NOMEM, "tensor %s: no memory for an aligned copy", t->name);
    memcpy(copy, t->data, t->n_bytes);
    b->copies[b->n_copies++] = copy;
    *ret = copy;
    return 0;
}

static void drop_copies(struct binder *b)
{
    while (b->n_copies)
        free(b->copies[--b->n_copies]);
}

/* ---- vectors ----------------------------------------------------------------------------------------------- */

/* Converts tensor `name` of n values to f32. */
static int read_f32(struct binder *b, const char *name, int64_t rows, int64_t cols, float *dst)
{
    const struct tensor *t = NULL;
    enum dtype type = DTYPE_F32;
    const void *data = NULL;
    int r = take(b, name, rows, cols, &t, &type);
    if (r >= 0)
        r = aligned_data(b, t, type, &data);
    if (r < 0)
        return r;
    size_t n = (size_t)(rows * (cols ? cols : 1));
    dtype_to_f32(dst, data, type, n);
    drop_copies(b);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(dst[i]))
            return err_set(b->err, ERR_CORRUPT, "tensor %s: value %zu is not finite", name, i);
    return 0;
}

static int upload(struct binder *b, const float *values, size_t n, float **ret)
{
    const struct backend *be = b->k->backend;
    float *p = be->alloc(b->k, n * sizeof(*p));
    if (!p)
        return err_set(b->err, ERR_NOMEM, "no %s memory for weights", be->name);
    *ret = p;   /* owned by the weights from here on, also when the upload fails */
    b->w->bytes += n * sizeof(*p);
    int r = be->upload(b->k, p, values, n * sizeof(*p));
    return r < 0 ? err_set(b->err, r, "upload of weights to %s failed", be->name) : 0;
}

/* One f32 array in backend memory from `n_names` tensors of [rows, cols] each, one after the other. */
static int bind_stacked(struct binder *b, const char *const *names, int n_names, int64_t rows, int64_t cols, float **ret)
{
    size_t each = (size_t)(rows * (cols ? cols : 1));
    float *values = malloc(each * (size_t)n_names * sizeof(*values));
    int r = values ? 0 : err_set(b->err, ERR_NOMEM, "tensor %s: no memory", names[0]);
    for (int i = 0; i < n_names && r >= 0; i++)
        r = read_f32(b, names[i], rows, cols, values + (size_t)i * each);
    if (r >= 0)
        r = upload(b, values, each * (size_t)n_names, ret);
    free(values);
    return r;
}

static int bind_vector(struct binder *b, const char *name, int64_t n, float **ret)
{
    return bind_stacked(b, &name, 1, n, 0, ret);
}

/* ---- matrices ------------------------------------------------------------------------------------------------ */

/* One part of a matrix: tensors `name`.weight [n, cols] and, if asked for, `name`.bias [n]. */
struct part_spec {
    const char *name;
    int64_t n;
    bool bias;
};

static int fill_part(struct binder *b, const struct part_spec *p, int64_t cols, struct matrix_part *ret)
{
    char name[192];
    const struct tensor *t = NULL;
    ret->n = (int)p->n;
    snprintf(name, sizeof(name), "%s%s.weight", b->prefix, p->name);
    int r = take(b, name, p->n, cols, &t, &ret->type);
    if (r >= 0)
        r = aligned_data(b, t, ret->type, &ret->data);
    if (r < 0 || !p->bias)
        return r;
    snprintf(name, sizeof(name), "%s%s.bias", b->prefix, p->name);
    r = take(b, name, p->n, 0, &t, &ret->bias_type);
    return r >= 0 ? aligned_data(b, t, ret->bias_type, &ret->bias) : r;
}

static bool all_finite(const void *data, enum dtype type, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v;
        dtype_to_f32(&v, (const char *)data + i * dtype_size(type), type, 1);
        if (!isfinite(v))
            return false;
    }
    return true;
}

/* The backend refused a matrix: says which tensor it was, where one of several holds a value that is not finite. */
static int blame(struct binder *b, int code, const struct part_spec *specs, const struct matrix_part *parts, int n_parts, int64_t cols,
                 const struct err *cause)
{
    for (int i = 0; i < n_parts && code == ERR_CORRUPT; i++) {
        if (!all_finite(parts[i].data, parts[i].type, (size_t)(specs[i].n * cols)))
            return err_set(b->err, code, "tensor %s%s.weight holds a value that is not finite", b->prefix, specs[i].name);
        if (parts[i].bias && !all_finite(parts[i].bias, parts[i].bias_type, (size_t)specs[i].n))
            return err_set(b->err, code, "tensor %s%s.bias holds a value that is not finite", b->prefix, specs[i].name);
    }
    return err_set(b->err, code, "%s%s.weight%s: %s", b->prefix, specs[0].name, n_parts > 1 ? " and its neighbours" : "", cause->text);
}

static int bind_matrix(struct binder *b, enum matrix_kind kind, const struct part_spec *specs, int n_parts, int64_t cols,
                       struct kern_matrix **ret)
{
    struct matrix_part parts[MAX_PARTS] = { 0 };
    struct err cause = { 0 };
    int r = 0;
    for (int i = 0; i < n_parts && r >= 0; i++)
        r = fill_part(b, &specs[i], cols, &parts[i]);
    if (r >= 0) {
        r = b->k->ops->matrix_new(b->k, kind, parts, n_parts, (int)cols, ret, &cause);
        if (r >= 0)
            b->w->bytes += b->k->ops->matrix_bytes(*ret);
        else
            r = blame(b, r, specs, parts, n_parts, cols, &cause);
    }
    drop_copies(b);
    return r;
}

/* ---- a layer -------------------------------------------------------------------------------------------------- */

static int bind_projection(struct binder *b, struct layer_weights *lw, const struct part_spec *parts, int n_parts, int col, enum row_set rows)
{
    struct projection *p = &lw->proj[lw->n_proj];
    *p = (struct projection){ .col = col, .rows = rows };
    lw->n_proj++;
    return bind_matrix(b, MATRIX_LINEAR, parts, n_parts, b->c->hidden, &p->w);
}

/* Which projections go together follows from which rows need them. */
static int bind_qkv(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    const struct model_config *c = b->c;
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const struct part_spec parts[3] = {
        { "self_attn.q_proj", q, c->attention_bias }, { "self_attn.k_proj", kv, c->attention_bias }, { "self_attn.v_proj", kv, c->attention_bias },
    };
    int n_first = p->unselected == UNSELECTED_BYPASS ? 2 : p->kv_all ? 1 : 3;
    int r = bind_projection(b, lw, parts, n_first, 0, ROWS_SELECTED);
    if (r >= 0 && n_first < 3)
        r = bind_projection(b, lw, parts + n_first, 3 - n_first, n_first == 1 ? q : q + kv, ROWS_ALL);
    return r;
}

static int bind_block(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    const struct model_config *c = b->c;
    char name[128];
    snprintf(name, sizeof(name), "%sinput_layernorm.weight", b->prefix);
    int r = bind_vector(b, name, c->hidden, &lw->attn_norm);
    snprintf(name, sizeof(name), "%spost_attention_layernorm.weight", b->prefix);
    if (r >= 0)
        r = bind_vector(b, name, c->hidden, &lw->mlp_norm);
    if (r >= 0)
        r = bind_qkv(b, p, lw);
    if (r >= 0)
        r = bind_matrix(b, MATRIX_LINEAR, &(struct part_spec){ "self_attn.o_proj", c->hidden, c->attention_bias }, 1,
                        (int64_t)c->n_heads * c->head_dim, &lw->o);
    const struct part_spec gate_up[2] = { { "mlp.gate_proj", c->ffn, c->mlp_bias }, { "mlp.up_proj", c->ffn, c->mlp_bias } };
    if (r >= 0)
        r = bind_matrix(b, MATRIX_GATE_UP, gate_up, 2, c->hidden, &lw->gate_up);
    if (r >= 0)
        r = bind_matrix(b, MATRIX_LINEAR, &(struct part_spec){ "mlp.down_proj", c->hidden, c->mlp_bias }, 1, c->ffn, &lw->down);
    return r;
}

/* The two output rows of a router and their biases: stems[i] + ".weight" [rows, cols] and ".bias" [rows]. */
static int bind_router_out(struct binder *b, const char *const *stems, int n, int64_t rows, int64_t cols, struct layer_weights *lw)
{
    char weight[2][128], bias[2][128];
    const char *weights[2] = { weight[0], weight[1] }, *biases[2] = { bias[0], bias[1] };
    for (int i = 0; i < n; i++) {
        snprintf(weight[i], sizeof(weight[i]), "%s%s.weight", b->prefix, stems[i]);
        snprintf(bias[i], sizeof(bias[i]), "%s%s.bias", b->prefix, stems[i]);
    }
    lw->router_dim = (int)cols;
    int r = bind_stacked(b, weights, n, rows, cols, &lw->router_out);
    return r >= 0 ? bind_stacked(b, biases, n, rows, 0, &lw->router_out_bias) : r;
}

static int bind_dtrnet_router(struct binder *b, struct layer_weights *lw)
{
    static const char *const out[] = { "router.weight_predictor.2" };
    int64_t m = b->c->hidden / 2;
    int r = bind_matrix(b, MATRIX_ACCURATE, &(struct part_spec){ "router.weight_predictor.0", m, true }, 1, b->c->hidden, &lw->router_in);
    return r >= 0 ? bind_router_out(b, out, 1, 2, m, lw) : r;
}

static int bind_mod_router(struct binder *b, struct layer_weights *lw)
{
    static const char *const out[] = { "aux_router.predictor", "router.weight_predictor" };
    return bind_router_out(b, out, 2, 1, b->c->hidden, lw);
}

static int bind_dllm_router(struct binder *b, struct layer_weights *lw)
{
    static const char *const out[] = { "router.linear_2" };
    char name[128];
    snprintf(name, sizeof(name), "%srouter.norm.weight", b->prefix);
    int r = bind_vector(b, name, DLLM_ROUTER_DIM, &lw->router_norm);
    if (r >= 0)
        r = bind_matrix(b, MATRIX_ACCURATE, &(struct part_spec){ "router.linear_1", DLLM_ROUTER_DIM, true }, 1, b->c->hidden, &lw->router_in);
    return r >= 0 ? bind_router_out(b, out, 1, 2, DLLM_ROUTER_DIM, lw) : r;
}

static int bind_router(struct binder *b, enum layer_kind kind, struct layer_weights *lw)
{
    switch (kind) {
    case LAYER_DTRNET: return bind_dtrnet_router(b, lw);
    case LAYER_MOD: return bind_mod_router(b, lw);
    case LAYER_DLLM: return bind_dllm_router(b, lw);
    default: return 0;
    }
}

/* MoD keeps the block of a routed layer, also of one forced dense, under "expert1.". */
static bool has_expert(struct binder *b, int l)
{
    char name[128];
    snprintf(name, sizeof(name), "model.layers.%d.expert1.input_layernorm.weight", l);
    return safetensors_find(b->s, name) != NULL;
}

static int bind_layer(struct binder *b, int l, const struct layer_plan *p, struct layer_weights *lw)
{
    bool expert = p->kind == LAYER_MOD || (p->forced_dense && has_expert(b, l));
    snprintf(b->prefix, sizeof(b->prefix), "model.layers.%d.", l);
    int r = bind_router(b, p->kind, lw);
    snprintf(b->prefix, sizeof(b->prefix), "model.layers.%d.%s", l, expert ? "expert1." : "");
    return r >= 0 ? bind_block(b, p, lw) : r;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int bind_ends(struct binder *b)
{
    const struct model_config *c = b->c;
    b->prefix[0] = '\0';
    int r = bind_matrix(b, MATRIX_EMBED, &(struct part_spec){ "model.embed_tokens", c->vocab, false }, 1, c->hidden, &b->w->embed);
    if (r >= 0 && c->tied)
        b->w->head = b->w->embed;
    else if (r >= 0)
        r = bind_matrix(b, MATRIX_LINEAR, &(struct part_spec){ "lm_head", c->vocab, false }, 1, c->hidden, &b->w->head);
    return r >= 0 ? bind_vector(b, "model.norm.weight", c->hidden, &b->w->final_norm) : r;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* The router of a layer that runs dense by --dense-layers. */
static bool is_dropped_router(const struct model_config *c, const struct layer_plan *plan, const char *name)
{
    int l = -1, at = 0;
    if (sscanf(name, "model.layers.%d.%n", &l, &at) != 1 || !at || l < 0 || l >= c->n_layers || !plan[l].forced_dense)
        return false;
    return !strncmp(name + at, "router.", 7) || !strncmp(name + at, "aux_router.", 11);
}

/* Counts what is stored and refuses what nothing uses. */
static int check_unused(struct binder *b, const struct layer_plan *plan)
{
    for (size_t i = 0; i < safetensors_count(b->s); i++) {
        const struct tensor *t = safetensors_at(b->s, i);
        if (!b->used[i] && (ends_with(t->name, ".rotary_emb.inv_freq") || (b->c->tied && !strcmp(t->name, "lm_head.weight"))))
            continue;
        if (!b->used[i] && !is_dropped_router(b->c, plan, t->name))
            return err_set(b->err, ERR_CORRUPT, "tensor %s belongs to nothing that this model's config describes", t->name);
        b->w->n_params += tensor_elements(t);
    }
    return 0;
}

static int bind_all(struct binder *b, const struct layer_plan *plan)
{
    struct weights *w = b->w;
    w->n_layers = b->c->n_layers;
    w->layers = calloc((size_t)w->n_layers, sizeof(*w->layers));
    b->used = calloc(safetensors_count(b->s) + 1, sizeof(*b->used));
    if (!w->layers || !b->used)
        return err_set(b->err, ERR_NOMEM, "no memory for the list of weights");
    int r = bind_ends(b);
    for (int l = 0; l < w->n_layers && r >= 0; l++)
        r = bind_layer(b, l, &plan[l], &w->layers[l]);
    return r >= 0 ? check_unused(b, plan) : r;
}

int weights_load(struct kern_ctx *k, const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s,
                 struct weights *ret, struct err *err)
{
    struct weights w = { 0 };
    struct binder b = { .k = k, .c = c, .s = s, .w = &w, .err = err };
    int r = bind_all(&b, plan);
    drop_copies(&b);
    free(b.used);
    if (r < 0)
        weights_free(k, &w);
    else
        *ret = w;
    return r;
}

static void free_layer(struct kern_ctx *k, struct layer_weights *lw)
{
    const struct kern_ops *o = k->ops;
    float *const vectors[] = { lw->attn_norm, lw->mlp_norm, lw->router_norm, lw->router_out, lw->router_out_bias };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        k->backend->free(k, vectors[i]);
    for (int i = 0; i < lw->n_proj; i++)
        o->matrix_free(k, lw->proj[i].w);
    o->matrix_free(k, lw->o);
    o->matrix_free(k, lw->gate_up);
    o->matrix_free(k, lw->down);
    o->matrix_free(k, lw->router_in);
}

void weights_free(struct kern_ctx *k, struct weights *w)
{
    if (w->head != w->embed)
        k->ops->matrix_free(k, w->head);
    k->ops->matrix_free(k, w->embed);
    k->backend->free(k, w->final_norm);
    for (int l = 0; w->layers && l < w->n_layers; l++)
        free_layer(k, &w->layers[l]);
    free(w->layers);
    *w = (struct weights){ 0 };
}

enum dtype weights_stored_dtype(const struct safetensors *s)
{
    enum dtype t = DTYPE_F32;
    const struct tensor *embed = safetensors_find(s, "model.embed_tokens.weight");
    if (embed)
        (void)dtype_of(embed, &t, NULL);
    return t;
}
