/* Weight matrices: packing on the device, and the embedding that reads single rows. */
#include "kernels/cuda/high.cuh"
#include <stdlib.h>
#include <string.h>

enum { RAW_BYTES = 32 << 20 };
enum { FLAG_NOT_FINITE = 1, FLAG_TWO_TERMS = 2, FLAG_THREE_TERMS = 4 };

static int round_up(int a, int b)
{
    return (a + b - 1) / b * b;
}

/* ---- packing ---- */

__device__ static float raw_value(const void *raw, enum dtype t, size_t i)
{
    return t == DTYPE_F32    ? ((const float *)raw)[i]
           : t == DTYPE_BF16 ? __bfloat162float(((const __nv_bfloat16 *)raw)[i])
                             : __half2float(((const __half *)raw)[i]);
}

__device__ static float random_value(const struct random_values &v, enum dtype t, size_t i)
{
    float x = random_normal(v.stream, v.first + i, v.std);
    return t == DTYPE_F32 ? x : t == DTYPE_BF16 ? __bfloat162float(__float2bfloat16_rn(x)) : __half2float(__float2half_rn(x));
}

struct pack_args {
    const void *raw; /* [n_rows, k] of type: rows row0.. of part `part`; NULL: those of `random` */
    enum dtype type;
    int n_rows, k, ld, row0, part;
    bool interleave;
    unsigned *flags;
    struct random_values random;
};

template <typename T> __global__ void pack_rows(struct pack_args a, T *dst)
{
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (size_t)a.n_rows * a.k)
        return;
    int row = a.row0 + (int)(i / a.k), col = (int)(i % a.k);
    int packed = a.interleave ? row / 8 * 16 + a.part * 8 + row % 8 : row;
    float v = a.raw ? raw_value(a.raw, a.type, i) : random_value(a.random, a.type, i);
    T t = from_f32<T>(v);
    dst[(size_t)packed * a.ld + col] = t;
    unsigned flags = fabsf(to_f32(t)) < INFINITY ? 0 : FLAG_NOT_FINITE;
    float rest = v - __bfloat162float(__float2bfloat16_rn(v));
    if (rest != 0)
        flags |= rest != __bfloat162float(__float2bfloat16_rn(rest)) ? FLAG_THREE_TERMS : FLAG_TWO_TERMS;
    if (flags & ~*a.flags)
        atomicOr(a.flags, flags);
}

/* Term t (0 the largest) goes to columns (n_terms-1-t) * term_ld. */
__global__ static void split_terms(const float *w, int rows, int k, int ld, __nv_bfloat16 *dst, int n_terms, int term_ld)
{
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (size_t)rows * k)
        return;
    size_t row = i / k, col = i % k;
    float rest = w[row * ld + col];
    for (int t = 0; t < n_terms; t++) {
        __nv_bfloat16 b = __float2bfloat16_rn(rest);
        dst[row * n_terms * term_ld + (size_t)(n_terms - 1 - t) * term_ld + col] = b;
        rest -= __bfloat162float(b);
    }
}

struct packer {
    struct cuda_ctx *c;
    struct kern_matrix *w;
    char *raw; /* device, [RAW_BYTES or one row], scratch of all matrices */
    size_t raw_bytes;
    unsigned *flags; /* device, behind it */
};

static int launch_pack(struct packer *p, const struct pack_args &a)
{
    unsigned blocks = (unsigned)(((size_t)a.n_rows * a.k + 255) / 256);
    return with_type(p->w->kind == MATRIX_ACCURATE ? DTYPE_F32 : p->c->k.act, [&](auto t) {
        pack_rows<<<blocks, 256, 0, p->c->stream>>>(a, (decltype(t) *)p->w->data);
        return launched(&p->c->k, "pack_rows");
    });
}

static int pack_part(struct packer *p, const struct matrix_part *part, int index, int row0)
{
    struct kern_matrix *w = p->w;
    size_t row_bytes = (size_t)w->k * dtype_size(part->type);
    int step = part->data ? (int)(p->raw_bytes / row_bytes) : part->n, r = 0;
    bool gate_up = w->kind == MATRIX_GATE_UP;
    for (int i = 0; r >= 0 && i < part->n; i += step) {
        int n = part->n - i < step ? part->n - i : step;
        struct pack_args a = {part->data ? p->raw : NULL, part->type, n,       w->k,     w->ld,
                              gate_up ? i : row0 + i,     index,      gate_up, p->flags, part->random};
        if (part->data)
            r = p->c->k.backend->upload(&p->c->k, to_dev(p->raw), (const char *)part->data + i * row_bytes, n * row_bytes);
        if (r >= 0)
            r = launch_pack(p, a);
    }
    return r;
}

static int pack_bias(struct packer *p, const struct matrix_part *parts, int n_parts)
{
    struct kern_matrix *w = p->w;
    float *host = (float *)calloc(w->rows, sizeof(float));
    bool any = false;
    int row0 = 0, r = 0;
    for (int i = 0; host && i < n_parts; row0 += parts[i++].n) {
        any |= parts[i].bias != NULL;
        for (int j = 0; parts[i].bias && j < parts[i].n; j++) {
            int at = w->kind == MATRIX_GATE_UP ? j / 8 * 16 + i * 8 + j % 8 : row0 + j;
            dtype_to_f32(&host[at], (const char *)parts[i].bias + j * dtype_size(parts[i].bias_type), parts[i].bias_type, 1);
            if (!(host[at] - host[at] == 0))
                r = ERR_CORRUPT;
            host[at] += 0.0f; /* no -0, as on the CPU */
        }
    }
    if (!host)
        return ERR_NOMEM;
    if (r >= 0 && any) {
        w->bias = (float *)bytes_of(p->c->k.backend->alloc(&p->c->k, w->rows * sizeof(float)));
        r = w->bias ? p->c->k.backend->upload(&p->c->k, to_dev(w->bias), host, w->rows * sizeof(float)) : ERR_NOMEM;
        w->bytes += w->rows * sizeof(float);
    }
    free(host);
    return r;
}

/* The bf16 terms of an ACCURATE matrix. */
static int make_terms(struct packer *p, unsigned flags)
{
    struct kern_matrix *w = p->w;
    struct cuda_ctx *c = p->c;
    w->n_terms = flags & FLAG_THREE_TERMS ? 3 : flags & FLAG_TWO_TERMS ? 2 : 1;
    w->term_ld = round_up(w->k, 64);
    size_t bytes = (size_t)w->rows * w->n_terms * w->term_ld * 2;
    w->terms = bytes_of(c->k.backend->alloc(&c->k, bytes));
    if (!w->terms)
        return ERR_NOMEM;
    int r = CU(c, cudaMemsetAsync(w->terms, 0, bytes, c->stream));
    if (r < 0)
        return r;
    split_terms<<<(unsigned)(((size_t)w->rows * w->k + 255) / 256), 256, 0, c->stream>>>((const float *)w->data, w->rows, w->k, w->ld,
                                                                                         (__nv_bfloat16 *)w->terms, w->n_terms, w->term_ld);
    w->bytes += bytes;
    return launched(&c->k, "split_terms");
}

static int map_matrix(struct packer *p, unsigned flags)
{
    struct cuda_ctx *c = p->c;
    struct kern_matrix *w = p->w;
    if (c->level == CUDA_SIMT || (c->k.act == DTYPE_F32 && !c->high))
        return 0;
    bool accurate = w->kind == MATRIX_ACCURATE;
    int r = c->high ? high_weights(c, w) : !accurate ? 0 : c->level < CUDA_WGMMA ? make_terms(p, flags) : matrix_terms_f16(c, w);
    return r < 0 ? r : matrix_map(c, w);
}

int matrix_map(struct cuda_ctx *c, struct kern_matrix *w)
{
    if (c->level < CUDA_WGMMA || (c->k.act == DTYPE_F32 && !c->high))
        return 0;
    bool terms = w->terms != NULL;
    const void *data = terms ? w->terms : w->data;
    int cols = terms ? w->n_terms * w->term_ld : w->k;
    size_t ld = terms ? cols : w->ld;
    enum dtype type = terms ? DTYPE_F16 : c->k.act;
    const struct {
        CUtensorMap *map;
        int rows;
    } boxes[] = {{&w->box64, 64}, {&w->box48, 48}, {&w->box32, 32}, {&w->box24, 24}, {&w->box16, 16}, {&w->box8, 8}};
    int r = 0;
    for (int i = 0; i < 6 && r >= 0; i++)
        r = tensor_map(c, boxes[i].map, type, data, w->rows, cols, ld, boxes[i].rows);
    return r;
}

static int pack(struct packer *p, const struct matrix_part *parts, int n_parts)
{
    struct cuda_ctx *c = p->c;
    struct kern_matrix *w = p->w;
    size_t size = w->kind == MATRIX_ACCURATE ? 4 : dtype_size(c->k.act), bytes = (size_t)w->rows * w->ld * size;
    unsigned flags = 0;
    w->data = bytes_of(c->k.backend->alloc(&c->k, bytes));
    p->raw_bytes = (size_t)w->k * 4 > RAW_BYTES ? (size_t)w->k * 4 : RAW_BYTES;
    p->raw = (char *)cuda_scratch(c, SCRATCH_LOAD, p->raw_bytes + sizeof(unsigned));
    p->flags = (unsigned *)(p->raw + p->raw_bytes);
    if (!w->data || !p->raw)
        return ERR_NOMEM;
    w->bytes = bytes;
    int r = CU(c, cudaMemsetAsync(w->data, 0, bytes, c->stream));
    if (r >= 0)
        r = CU(c, cudaMemsetAsync(p->flags, 0, sizeof(unsigned), c->stream));
    for (int i = 0, row0 = 0; r >= 0 && i < n_parts; row0 += parts[i++].n)
        r = pack_part(p, &parts[i], i, row0);
    if (r >= 0)
        r = pack_bias(p, parts, n_parts);
    if (r >= 0)
        r = c->k.backend->download(&c->k, &flags, to_dev(p->flags), sizeof(flags));
    if (r >= 0)
        r = c->k.backend->sync(&c->k, NULL);
    if (r >= 0 && flags & FLAG_NOT_FINITE)
        r = ERR_CORRUPT;
    return r < 0 ? r : map_matrix(p, flags);
}

static void matrix_free_cuda(struct kern_ctx *k, struct kern_matrix *w)
{
    if (!w)
        return;
    k->backend->free(k, to_dev(w->data));
    k->backend->free(k, to_dev(w->bias));
    k->backend->free(k, to_dev(w->terms));
    k->backend->free(k, to_dev(w->unscale));
    free(w);
}

static int fail(struct cuda_ctx *c, int r, struct err *err)
{
    if (r == ERR_CORRUPT)
        return err_set(err, r, "a weight is not a finite number, or overflows %s", dtype_name(c->k.act));
    if (r == ERR_NOMEM && !c->failed.code)
        return err_set(err, r, "not enough device memory for the weights");
    return err_set(err, r, "%s", c->failed.text);
}

static int matrix_new_cuda(struct kern_ctx *k, enum matrix_kind kind, const struct matrix_part *parts, int n_parts, int cols,
                           struct kern_matrix **ret, struct err *err)
{
    struct cuda_ctx *c = ctx_of(k);
    struct kern_matrix *w = (struct kern_matrix *)calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, ERR_NOMEM, "not enough memory for the weights");
    w->kind = kind;
    w->k = cols;
    w->ld = round_up(cols, 8);
    for (int i = 0; i < n_parts; i++)
        w->n += parts[i].n;
    w->rows = w->n;
    if (kind == MATRIX_GATE_UP) {
        w->n = parts[0].n;
        w->rows = 2 * round_up(w->n, 8);
    }
    struct packer p = {c, w};
    int r = pack(&p, parts, n_parts);
    if (r >= 0)
        r = c->k.backend->sync(&c->k, NULL);
    if (r < 0) {
        matrix_free_cuda(k, w);
        return fail(c, r, err);
    }
    *ret = w;
    return 0;
}

static size_t matrix_bytes_cuda(const struct kern_matrix *w)
{
    return w->bytes;
}

/* ---- tensor maps ---- */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                              const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                              CUtensorMapFloatOOBfill);

/* The driver's encoder, looked up so that the program starts on machines without a driver. */
static int find_encoder(struct cuda_ctx *c, encode_fn *ret)
{
    if (!c->encode_tensor_map) {
        cudaDriverEntryPointQueryResult q;
        void *fn = NULL;
        int r = CU(c, cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000, cudaEnableDefault, &q));
        if (r < 0)
            return r;
        if (q != cudaDriverEntryPointSuccess)
            return cuda_failed(c, cudaErrorNotSupported, "cuTensorMapEncodeTiled");
        c->encode_tensor_map = fn;
    }
    *ret = (encode_fn)c->encode_tensor_map;
    return 0;
}

/* Strides in elements, the first dimension's left out. */
static int encode_map(struct cuda_ctx *c, CUtensorMap *ret, enum dtype type, const void *p, int n, const cuuint64_t *dims,
                      const cuuint64_t *strides, const cuuint32_t *box)
{
    encode_fn encode;
    int r = find_encoder(c, &encode);
    if (r < 0)
        return r;
    cuuint64_t bytes[2];
    for (int i = 0; i < n - 1; i++)
        bytes[i] = strides[i] * dtype_size(type);
    cuuint32_t one[3] = {1, 1, 1};
    CUtensorMapDataType t = type == DTYPE_F32    ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                            : type == DTYPE_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    CUresult e = encode(ret, t, (cuuint32_t)n, (void *)p, dims, bytes, box, one, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return e == CUDA_SUCCESS ? 0 : cuda_failed(c, cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
}

int tensor_map(struct cuda_ctx *c, CUtensorMap *ret, enum dtype type, const void *p, int rows, int cols, size_t ld, int box_rows)
{
    cuuint64_t dims[2] = {(cuuint64_t)cols, (cuuint64_t)rows}, stride = ld;
    cuuint32_t box[2] = {(cuuint32_t)(128 / dtype_size(type)), (cuuint32_t)box_rows};
    return encode_map(c, ret, type, p, 2, dims, &stride, box);
}

int tensor_map_heads(struct cuda_ctx *c, CUtensorMap *ret, enum dtype type, const void *p, int rows, int heads, int hd, int box_rows,
                     int box_heads)
{
    cuuint64_t dims[3] = {(cuuint64_t)hd, (cuuint64_t)heads, (cuuint64_t)rows},
               strides[2] = {(cuuint64_t)hd, (cuuint64_t)heads * (cuuint64_t)hd};
    cuuint32_t box[3] = {(cuuint32_t)(128 / dtype_size(type)), (cuuint32_t)box_heads, (cuuint32_t)box_rows};
    return encode_map(c, ret, type, p, 3, dims, strides, box);
}

bool tensor_map_fits(const void *p, size_t ld_bytes)
{
    return (uintptr_t)p % 16 == 0 && ld_bytes % 16 == 0;
}

/* ---- embed ---- */

/* table: [v,d] */
template <typename T>
__global__ void embed_row(float *x, const T *table, int v, int d, int ld, const int *ids, const int *latest, struct rows n)
{
    chain_enter();
    if (blockIdx.x >= rows_count(n))
        return;
    size_t r = row_at(n, blockIdx.x);
    int id = ids[r];
    if (id < 0) {
        id = latest[-1 - id];
        id = id < 0 || id >= v ? 0 : id;
    }
    const T *row = table + (size_t)id * ld;
    for (int j = threadIdx.x; j < d; j += 128)
        x[r * d + j] = to_f32(row[j]);
}

static int embed_cuda(struct kern_ctx *k, struct dev_f32 *x, const struct kern_matrix *table, const struct dev_i32 *ids,
                      const struct dev_i32 *latest, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    return with_type(k->act, [&](auto t) {
        chain_launch(ctx_of(k), embed_row<decltype(t)>, n.n_max, 128, 0, f32_of(x), (const decltype(t) *)table->data, table->n, table->k,
                     table->ld, i32_of(ids), i32_of(latest), n);
        return launched(k, "embed");
    });
}

void matrix_cuda_init(struct kern_ops *o)
{
    o->matrix_new = matrix_new_cuda;
    o->matrix_free = matrix_free_cuda;
    o->matrix_bytes = matrix_bytes_cuda;
    o->embed = embed_cuda;
}
