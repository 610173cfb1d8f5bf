/* The table of operations that a backend fills: arithmetic on arrays, with shapes and dtypes but no
 * layers, no config and no requests.
 *
 * Conventions
 *   - Pointers to a `struct dev_...` (dev.h) are memory of the backend that owns `k` (backend.h: alloc); pointers to any other
 *     struct are host memory, which is read before the call returns.
 *   - "act" is k->act, the compute dtype: f32, bf16 or f16. Everything named f32 is float32 in every mode.
 *   - Dimensions: n rows, d model, f ffn, h query heads, hk KV heads, hd head size, v vocab.
 *   - Buffers are addressed by *step row* r in 0..n-1, never compacted: an op on a row set reads and writes
 *     row r of each buffer for each r in the set. Rows outside the set are neither read nor written.
 *   - An op on an empty row set does nothing and returns 0.
 *   - Ops are issued in order; results are visible to later ops. Return: 0 or a negative code of err.h.
 *
 * Batch invariance: the order in which an output element is summed depends on the op's static shape (k, d, hd,
 * v) and on the element's own inputs alone - never on n, on other rows, on the row's place in the set, or on the
 * thread count. */
#pragma once
#include "common/err.h"
#include "kernels/decision.h"
#include "kernels/dev.h"
#include "kernels/dtype.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A set of step rows. How many there are may be known only on the device:
 * idx[0 .. *n_dev - 1], ascending; idx NULL: rows 0, 1, ...; n_dev NULL: exactly n_max rows. 0 <= *n_dev <= n_max. */
struct rows {
    const struct dev_i32 *idx;   /* [n_max] */
    const struct dev_i32 *n_dev; /* [1] */
    int n_max;
};

/* A weight matrix [n,k] (y = x W^T + b, as Hugging Face stores linear layers), packed for the backend. */
struct kern_matrix;

enum matrix_kind {
    MATRIX_LINEAR,   /* x is act; weights rounded to the compute dtype */
    MATRIX_GATE_UP,  /* two parts of equal n (gate, up) for matmul_swiglu; otherwise as LINEAR */
    MATRIX_EMBED,    /* as LINEAR, and embed() can read single rows of it */
    MATRIX_ACCURATE, /* x is f32, weights keep the values they were stored with, result float32-accurate */
};

/* Parts are concatenated along n; host memory, row-major [n,k], borrowed during the call only. */
struct matrix_part {
    const void *data; /* [n,k] of `type` */
    enum dtype type;
    int n;
    const void *bias; /* [n] of bias_type, or NULL; kept as f32 */
    enum dtype bias_type;
};

/* Consecutive step rows of one sequence at consecutive positions. Runs are in row order and cover rows 0..n-1.
 * A sequence's keys in one layer are listed in its slot table, in position order: slot number `table[j]` holds key j.
 * The table of layer l starts at tables + table_off + l * table_cap. */
struct kern_run {
    int row0, n;   /* step rows row0 .. row0+n-1 */
    int append;    /* 1: new tokens, leave K and V; 0: their K and V are in the cache already, nothing is written */
    int table_cap; /* entries of one layer's table */
    int64_t table_off;
    /* Of sequences whose routers have a state: */
    int state_in;      /* the slot whose states precede the run's first row; -1: the start of a sequence, zeros */
    int state_out;     /* the slot that gets the states after the run's last row, or -1; it may be state_in */
    int save0, n_save; /* entries of kern_step.saves that belong to the run, rows ascending */
    int select;        /* 1: select_top decides its rows; 0: it leaves them alone */
};

/* After step row `row` its sequence's router states are copied to slot `slot`. */
struct kern_save {
    int row, slot;
};

/* What a step knows of its rows; the same for every layer. */
struct kern_step {
    struct rows all;              /* every row of the step */
    const struct dev_i32 *pos;    /* [n] position in the sequence, from 0 */
    const struct dev_i32 *run_of; /* [n] index into runs */
    const struct dev_runs *runs;  /* [n_runs] */
    int n_runs;
    struct dev_i32 *tables; /* block tables of all sequences */
    /* Router states: that of router m in slot s is the state_floats floats at states + (s * n_routers + m) * state_floats, laid out as
     * mamba_state_floats tells. A slot that a run writes (state_out, saves) is read by no other run of the step. */
    struct dev_f32 *states;
    const struct dev_saves *saves;
    int n_routers, state_floats;
};

/* Row lists and key places of one layer; the arrays are outputs of place(). */
struct kern_place {
    struct dev_i32 *sel, *sel_n;   /* [n], [1] rows that attend, ascending */
    struct dev_i32 *exec, *exec_n; /* [n], [1] rows that do not skip the layer, ascending */
    struct dev_i32 *run_start;     /* [n_runs+1] run i's rows that attend are sel[run_start[i] .. run_start[i+1]-1] */
    struct dev_i32 *visible;       /* [n] for rows with K and V: how many keys of the sequence the row sees, its own included */
    struct dev_i32 *slot;          /* [n] KV slot that the row must write, or -1 */
};

/* Row slots of K and V, shared by all layers: slot s is at kv + s * 2*hk*hd elements (act): K [hk,hd] rotated, then V [hk,hd]. */
struct kern_heads {
    int h, hk, hd;
    struct dev_act *kv;
};

/* What a router op writes, by step row. */
struct route_out {
    struct dev_u8 *route;       /* [n] `below` or `above` */
    struct dev_f32 *gate;       /* [n] */
    struct dev_f32 *prob;       /* [n] the probability that was compared */
    unsigned char below, above; /* codes of enum decision */
};

/* A router that is an MLP of one hidden layer: z = w2 silu(w1 x + b1) + b2. */
struct route_mlp {
    const struct kern_matrix *w1;  /* MATRIX_ACCURATE [m,d], with b1 */
    const struct dev_f32 *w2, *b2; /* [2,m], [2] */
    int m;
    struct dev_f32 *hid; /* [n,m], scratch: what it holds afterwards is not told */
};

/* D-LLM's router behind its first matmul: z = w2 silu(rmsnorm(hid; norm_w, eps)) + b2. */
struct route_dllm {
    const struct dev_f32 *norm_w; /* [m] */
    float eps;
    const struct dev_f32 *w2, *b2; /* [2,m], [2] */
    int m;
    int forced; /* rows at the first `forced` positions get `above` */
};

/* Where logprobs() finds its targets and leaves its results. */
struct kern_scores {
    const struct dev_i32 *target; /* [..] a token, or -1: none */
    struct dev_f32 *target_lp;    /* [..] */
    int top_k;                    /* 1 <= top_k <= min(KERN_TOP_K_MAX, v) */
    struct dev_i32 *top_id;       /* [.., top_k] */
    struct dev_f32 *top_lp;       /* [.., top_k] */
    struct dev_u8 *bad;           /* [..] 1 if any logit is not finite; then the row's other results are unspecified */
};

struct kern_ctx;
struct op_times;

struct kern_ops {
    /* ---- weights. Not on the compute path; may allocate. ------------------------------------------------ */
    /* Values that are not finite give ERR_CORRUPT. On success the caller owns *ret. */
    int (*matrix_new)(struct kern_ctx *k, enum matrix_kind kind, const struct matrix_part *parts, int n_parts, int cols,
                      struct kern_matrix **ret, struct err *err);
    void (*matrix_free)(struct kern_ctx *k, struct kern_matrix *w); /* NULL is valid */
    size_t (*matrix_bytes)(const struct kern_matrix *w);

    /* ---- rows in, rows out ------------------------------------------------------------------------------- */
    /* x[r,d] = table[ids[r],d]. ids: [n], each in 0..v-1 (the caller's duty). */
    int (*embed)(struct kern_ctx *k, struct dev_f32 *x, const struct kern_matrix *table, const struct dev_i32 *ids, struct rows n);

    /* y[r,d] = x[r,d] / sqrt(mean_d(x^2) + eps) * w[d]; the mean is taken in f32. RMSNorm, arXiv 1910.07467. */
    int (*rmsnorm)(struct kern_ctx *k, struct dev_act *y, const struct dev_f32 *x, const struct dev_f32 *w, struct rows n, int d,
                   float eps);

    /* y[r*ldy + col + j] = sum_i x[r*ldx + i] W[j,i] + b[j]. */
    int (*matmul)(struct kern_ctx *k, struct dev_act *y, int col, int ldy, const struct dev_act *x, int ldx, const struct kern_matrix *w,
                  struct rows n);

    /* y[r,:] = W x[r,:] + b, kept in f32. */
    int (*matmul_f32)(struct kern_ctx *k, struct dev_f32 *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n);

    /* x[r,:] += gate[r] * (W a[r,:] + b). a: row stride lda; gate: [n], NULL means 1. */
    int (*matmul_residual)(struct kern_ctx *k, struct dev_f32 *x, const struct dev_act *a, int lda, const struct kern_matrix *w,
                           const struct dev_f32 *gate, struct rows n);

    /* y[r,f] = silu(G x[r]) * (U x[r]), w = MATRIX_GATE_UP of G and U; biases apply before silu and the product. x: [n,d].
     * The two products are taken in f32. */
    int (*matmul_swiglu)(struct kern_ctx *k, struct dev_act *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n);

    /* y[r,:] = W x[r,:] + b, w being MATRIX_ACCURATE. */
    int (*matmul_accurate)(struct kern_ctx *k, struct dev_f32 *y, const struct dev_f32 *x, const struct kern_matrix *w, struct rows n);

    /* ---- routing: each row's decision, gate and compared probability ---------------------------------------- */
    /* DTRNet (golden section 7; the authors' Router.weight_predictor): (p0,p1) = softmax(z). Above: p0 > 0.5; gate = above ? p0 : p1;
     * prob = p0. x: [n,d]. */
    int (*route_mlp)(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x, struct rows n);
    /* MoD: a = sigmoid(w[0].x[r] + b[0]), g = sigmoid(w[1].x[r] + b[1]). Above: a > 0.5; gate = g; prob = a.
     * x: [n,d]; w: [2,d] (aux router, router); b: [2]. */
    int (*route_mod)(struct kern_ctx *k, const struct route_out *to, const struct dev_f32 *x, const struct dev_f32 *w,
                     const struct dev_f32 *b, int d, struct rows n);
    /* D-LLM: (p0,p1) = softmax(z). Above: p1 >= 0.5 or pos[r] < forced; prob = p1; there is no gate. hid: [n,m]; pos: [n]. */
    int (*route_dllm)(struct kern_ctx *k, const struct route_out *to, const struct route_dllm *p, const struct dev_f32 *hid,
                      const struct dev_i32 *pos, struct rows n);

    /* Turns decisions into row lists and key places. route: [n] of enum decision; NULL: every row attends. A row leaves (or has) K and V
     * if it attends or keep_all is set. The i-th such row of a run sees base[run] + i + 1 keys; if the run appends, the row takes
     * the next of reserved[] (one running count over all appending runs, in row order), which is also written to the slot table of
     * `layer` at index base[run] + i. base: [n_runs], keys of the sequence in this layer before the run. */
    int (*place)(struct kern_ctx *k, const struct kern_step *s, int layer, const struct dev_u8 *route, bool keep_all,
                 const struct dev_i32 *base, const struct dev_i32 *reserved, const struct kern_place *to);

    /* ---- attention ----------------------------------------------------------------------------------------- */
    /* qkv: [n, (h+2hk)*hd] = q heads, k heads, v heads of a row. Rotates q of the rows `q_rows` in place, and for every
     * row with slot[r] >= 0 stores rotated K and V in its slot. Rotation (golden section 5): halves j and j+hd/2 by cos/sin[pos, j],
     * [max_pos, hd/2], YaRN's factor already in them. */
    int (*rope_store)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_f32 *cos,
                      const struct dev_f32 *sin, const struct kern_step *s, const struct dev_i32 *slot, struct rows q_rows);

    /* out[r, h*hd] = softmax_j(q . K_j * scale) V over the row's visible keys j < visible[r] of its sequence, for the rows p->sel.
     * Keys are walked in blocks aligned to j. hd: a multiple of 8 up to 256. q: as rope_store left it in qkv. */
    int (*attention)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                     const struct kern_step *s, int layer, const struct kern_place *p, float scale);

    /* The linear path: v = W xn[r] is written to the v heads of qkv[r], and query head i of out[r, h*hd] gets value head i / (h/hk): attention's
     * result for a token that sees itself alone. xn: [n,d]; w: [hk*hd, d], whose bias applies. */
    int (*matmul_bypass)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                         const struct dev_act *xn, const struct kern_matrix *w, int d, struct rows n);

    /* ---- whole-layer gates ---------------------------------------------------------------------------------- */
    int (*copy_rows)(struct kern_ctx *k, struct dev_f32 *dst, const struct dev_f32 *src, int d, struct rows n);
    /* dst[i,d] = src[idx[i],d]: the one op that compacts (wanted rows before the head). */
    int (*gather_rows)(struct kern_ctx *k, struct dev_f32 *dst, const struct dev_f32 *src, int d, struct rows n);
    /* x[r] = x0[r] + gate[r] * x[r] (MoD: x0 is the layer's input, x its output). */
    int (*blend)(struct kern_ctx *k, struct dev_f32 *x, const struct dev_f32 *x0, const struct dev_f32 *gate, int d, struct rows n);

    /* ---- scores --------------------------------------------------------------------------------------------- */
    /* For rows i < n of logits (row stride ld), to index first + i of `to`: lse = log sum exp over v, lp(t) = logit[t] - lse in one
     * fixed formula, so that equal logits give equal floats everywhere. target_lp = lp(target) (0 where target < 0); top_id, top_lp: the
     * top_k best tokens, descending, ties by smaller id. */
    int (*logprobs)(struct kern_ctx *k, const struct kern_scores *to, int first, const struct dev_f32 *logits, size_t ld, int n, int v);

    /* ---- optional ------------------------------------------------------------------------------------------- */
    /* Issues the ops that issue(arg) issues, at less cost when the same were issued before. `key` (at most 32 bytes) stands for everything
     * that the ops are given by value or address; what lies in backend memory may differ. NULL: call issue(arg) instead. */
    int (*replay)(struct kern_ctx *k, const void *key, size_t key_bytes, int (*issue)(void *arg), void *arg);
};

#define KERN_TOP_K_MAX 20

/* An opened backend. `ops` is complete unless a slot is marked optional above. */
struct kern_ctx {
    const struct kern_ops *ops;
    const struct backend *backend;
    enum dtype act;
    void *impl;             /* the backend's own state */
    struct op_times *times; /* op_times.h; NULL: no step is being sampled */
};
