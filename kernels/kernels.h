/* The table of operations that a backend fills: arithmetic on arrays, with shapes and dtypes but no
 * layers, no config and no requests.
 *
 * Conventions
 *   - Array pointers are memory of the backend that owns `k` (backend.h: alloc); on the CPU that is plain memory.
 *     Arguments that are `struct` pointers are host memory and are read before the call returns.
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
#include "kernels/dtype.h"
#include "kernels/router.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A set of step rows. How many there are may be known only on the device:
 * idx[0 .. *n_dev - 1], ascending; idx NULL: rows 0, 1, ...; n_dev NULL: exactly n_max rows. 0 <= *n_dev <= n_max. */
struct rows {
    const int *idx;   /* [n_max] */
    const int *n_dev; /* [1] */
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

/* A Mamba router, made ready for the backend. */
struct kern_mamba;

/* What a step knows of its rows; the same for every layer. */
struct kern_step {
    struct rows all;             /* every row of the step */
    const int *pos;              /* [n] position in the sequence, from 0 */
    const int *run_of;           /* [n] index into runs */
    const struct kern_run *runs; /* [n_runs], backend memory */
    int n_runs;
    int *tables; /* slot tables of all sequences */
    /* Router states: that of router m in slot s is the state_floats floats at states + (s * n_routers + m) * state_floats, laid out as
     * mamba_state_floats tells. A slot that a run writes (state_out, saves) is read by no other run of the step. */
    float *states;
    const struct kern_save *saves; /* backend memory */
    int n_routers, state_floats;
};

/* Row lists and key places of one layer; the arrays are outputs of place(). */
struct kern_place {
    int *sel, *sel_n;   /* [n], [1] selected rows, ascending */
    int *rest, *rest_n; /* [n], [1] the other rows, ascending */
    int *run_start;     /* [n_runs+1] run i's selected rows are sel[run_start[i] .. run_start[i+1]-1] */
    int *visible;       /* [n] for rows with K and V: how many keys of the sequence the row sees, its own included */
    int *slot;          /* [n] KV slot that the row must write, or -1 */
};

/* Row slots of K and V, shared by all layers: slot s is at kv + s * 2*hk*hd elements (act): K [hk,hd] rotated, then V [hk,hd]. */
struct kern_heads {
    int h, hk, hd;
    void *kv;
};

enum blend_mode { BLEND_ADD, BLEND_TOWARDS };

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
    /* x[r,d] (f32) = table[ids[r],d]. ids: int32 [n], each in 0..v-1 (the caller's duty). */
    int (*embed)(struct kern_ctx *k, float *x, const struct kern_matrix *table, const int *ids, struct rows n);

    /* y[r,d] (act) = x[r,d] / sqrt(mean_d(x^2) + eps) * w[d]. x, w: f32; the mean is taken in f32. z (f32 [n,d], may be x): the same before
     * it is rounded to act; NULL: not wanted. RMSNorm, arXiv 1910.07467. */
    int (*rmsnorm)(struct kern_ctx *k, void *y, float *z, const float *x, const float *w, struct rows n, int d, float eps);
    /* y[r,d] (act) = x[r,d] (f32). */
    int (*cast_rows)(struct kern_ctx *k, void *y, const float *x, struct rows n, int d);
    /* RMS norm of each head on its own, in place: head i of x[r] (act, row stride ldx) is columns i*hp .. i*hp + hp - 1, of which hd are the
     * head's; the others (padding, anywhere among them) are zero and stay so. The mean is taken over hd. w: f32 [hp], the same for all heads. */
    int (*head_norm)(struct kern_ctx *k, void *x, int ldx, int heads, int hp, int hd, const float *w, struct rows n, float eps);

    /* y[r*ldy + j] = sum_i x[r*ldx + i] W[j,i] + b[j]. y: act or f32 (y_type); x: act. */
    int (*matmul)(struct kern_ctx *k, void *y, enum dtype y_type, int ldy, const void *x, int ldx, const struct kern_matrix *w,
                  struct rows n);

    /* x[r,:] (f32) += gate[r] * (W a[r,:] + b). a: act, row stride lda; gate: f32 [n], NULL means 1. */
    int (*matmul_residual)(struct kern_ctx *k, float *x, const void *a, int lda, const struct kern_matrix *w, const float *gate,
                           struct rows n);

    /* y[r,f] (act) = silu(G x[r]) * (U x[r]), w = MATRIX_GATE_UP of G and U; biases apply before silu and the product.
     * x: act [n,d]. The two products are taken in f32. */
    int (*matmul_swiglu)(struct kern_ctx *k, void *y, const void *x, const struct kern_matrix *w, struct rows n);

    /* y[r,:] (f32) = W x[r,:] + b with x f32 and w MATRIX_ACCURATE. */
    int (*matmul_accurate)(struct kern_ctx *k, float *y, const float *x, const struct kern_matrix *w, struct rows n);

    /* ---- routing: a decision, the gate and the compared probability, one each a row ------------------------- */
    /* DTRNet (golden section 7; the authors' Router.weight_predictor): (r0,r1) = W2 silu(W1 x[r] + b1) + b2. x: f32 [n,d]; w1: MATRIX_ACCURATE
     * [m,d]; w2: f32 [2,m]; b2: f32 [2]; hid: f32 [n,m], scratch: what it holds afterwards is not told. */
    int (*route_mlp)(struct kern_ctx *k, const struct route_out *out, const struct route_rule *rule, float *hid, const float *x,
                     const struct kern_matrix *w1, const float *w2, const float *b2, int m, struct rows n);

    /* Weights of a Mamba router: as matrix_new. ERR_UNSUPPORTED names a size beyond router.h's limits. On success the caller owns *ret. */
    int (*mamba_new)(struct kern_ctx *k, const struct mamba_parts *parts, struct kern_mamba **ret, struct err *err);
    void (*mamba_free)(struct kern_ctx *k, struct kern_mamba *w); /* NULL is valid */
    size_t (*mamba_bytes)(const struct kern_mamba *w);
    /* UltraDeep's Mamba router. x: f32, every row of the step (s->all); the states of router `router` follow every row of their sequence,
     * whatever the row set n, which tells only the rows that get a decision. A state goes on row by row in one order, so its bits do not
     * depend on how rows are cut into runs. bad: [n], or NULL; of every row of the step: 1 if the margin is not a finite number (x or a
     * state is not), else 0. Such a row's code is `below`, its prob, gate and margin are NaN. */
    int (*route_mamba)(struct kern_ctx *k, const struct route_out *out, const struct route_rule *rule, unsigned char *bad, const float *x,
                       const struct kern_mamba *w, const struct kern_step *s, int router, struct rows n);

    /* Expert choice, in every run with `select` set. A run's eligible rows are those with route[r] >= least; the count(capacity, how many there are) of largest margin
     * (equal ones: the earlier rows) get out->route = rule->above, the others rule->below; out->gate as router.h has it, from the margin.
     * count(c, m) = 0 if m = 0, else min(m, max(1, ceil(c m - 1e-6))) in double. Margins that are not numbers come last. route: also the
     * input; rule->threshold and out->prob are not used. */
    int (*select_top)(struct kern_ctx *k, const struct route_out *out, const struct route_rule *rule, const float *margin, int least,
                      double capacity, const struct kern_step *s);

    /* idx[0 .. *n_dev - 1] = the rows r of `all` (idx NULL) with route[r] >= least, ascending. idx: [all.n_max], n_dev: [1]. */
    int (*list_rows)(struct kern_ctx *k, int *idx, int *n_dev, const unsigned char *route, int least, struct rows all);

    /* MoD: a = sigmoid(w[0].x[r] + b[0]), g = sigmoid(w[1].x[r] + b[1]). route = a > 0.5, gate = g, prob = a.
     * x: f32 [n,d]; w: f32 [2,d] (aux router, router); b: f32 [2]. */
    int (*route_mod)(struct kern_ctx *k, unsigned char *route, float *gate, float *prob, const float *x, const float *w, const float *b,
                     int d, struct rows n);
    /* D-LLM: z = W2 silu(rmsnorm(hid[r]; norm_w, eps)) + b2, (p0,p1) = softmax(z). route = p1 >= 0.5 or pos[r] < forced; prob = p1. */
    int (*route_dllm)(struct kern_ctx *k, unsigned char *route, float *prob, const float *hid, const float *norm_w, float eps,
                      const float *w2, const float *b2, int m, const int *pos, int forced, struct rows n);

    /* Turns decisions into row lists and key places. route NULL: every row is selected. A row leaves (or has) K and V if
     * it is selected or kv_all is set. The i-th such row of a run sees base[run] + i + 1 keys; if the run appends, the row takes
     * the next of reserved[] (one running count over all appending runs, in row order), which is also written to the slot table of
     * `layer` at index base[run] + i. base: int [n_runs], keys of the sequence in this layer before the run. */
    int (*place)(struct kern_ctx *k, const struct kern_step *s, int layer, const unsigned char *route, bool kv_all, const int *base,
                 const int *reserved, struct kern_place *ret);

    /* ---- attention ----------------------------------------------------------------------------------------- */
    /* qkv: act [n, (h+2hk)*hd] = q heads, k heads, v heads of a row. Rotates q of the rows `q_rows` in place, and for every
     * row with slot[r] >= 0 stores rotated K and V in its slot. Rotation (golden section 5): halves j and j+hd/2 by cos/sin[pos, j],
     * f32 [max_pos, hd/2], YaRN's factor already in them. */
    int (*rope_store)(struct kern_ctx *k, const struct kern_heads *hs, void *qkv, const float *cos, const float *sin,
                      const struct kern_step *s, const int *slot, struct rows q_rows);

    /* out[r, h*hd] (act) = softmax_j(q . K_j * scale) V over the row's visible keys j < visible[r] of its sequence, for the rows p->sel.
     * Keys are walked in blocks aligned to j. hd: a multiple of 8 up to 256. q: as rope_store left it in qkv. */
    int (*attention)(struct kern_ctx *k, const struct kern_heads *hs, void *out, const void *qkv, const struct kern_step *s, int layer,
                     const struct kern_place *p, float scale);

    /* The linear path: v (act) = W xn[r] is written to the v heads of qkv[r], and query head i of out[r, h*hd] (act) gets value head i / (h/hk): attention's
     * result for a token that sees itself alone. xn: act [n,d]; w: [hk*hd, d], whose bias applies. */
    int (*matmul_bypass)(struct kern_ctx *k, const struct kern_heads *hs, void *out, void *qkv, const void *xn, const struct kern_matrix *w,
                         int d, struct rows n);
    /* The last part of matmul_bypass alone: query head i of out[r] gets value head i / (h/hk) of qkv[r] as it is. */
    int (*spread_values)(struct kern_ctx *k, const struct kern_heads *hs, void *out, const void *qkv, struct rows n);

    /* ---- whole-layer gates ---------------------------------------------------------------------------------- */
    int (*copy_rows)(struct kern_ctx *k, float *dst, const float *src, int d, struct rows n);
    /* dst[i,d] = src[idx[i],d]: the one op that compacts (wanted rows before the head). All f32. */
    int (*gather_rows)(struct kern_ctx *k, float *dst, const float *src, int d, struct rows n);
    /* x0 is the layer's input, x its output: x[r] = x0[r] + gate[r] * x[r] (BLEND_ADD: MoD), or x0[r] + gate[r] * (x[r] - x0[r])
     * (BLEND_TOWARDS: nested layers). All f32; subtract, multiply, add, each rounded. */
    int (*blend)(struct kern_ctx *k, float *x, const float *x0, const float *gate, enum blend_mode mode, int d, struct rows n);

    /* ---- scores --------------------------------------------------------------------------------------------- */
    /* For rows i < n of logits (f32, row stride ld): lse = log sum exp over v, lp(t) = logit[t] - lse in one fixed formula, so that equal
     * logits give equal floats everywhere. target_lp[i] = lp(target[i]) (0 where target[i] < 0); top_id/top_lp [i*top_k + j]: the
     * top_k best tokens, descending, ties by smaller id. bad[i] = 1 if any logit is not finite (then the rest is unspecified).
     * 1 <= top_k <= min(KERN_TOP_K_MAX, v). */
    int (*logprobs)(struct kern_ctx *k, const float *logits, size_t ld, int n, int v, const int *target, int top_k, float *target_lp,
                    int *top_id, float *top_lp, unsigned char *bad);

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
