/* The table of operations that a backend fills: arithmetic on arrays, with shapes and dtypes but no
 * layers, no config and no requests.
 *
 * Conventions
 *   - Pointers to a `struct dev_...` (dev.h) are memory of the backend that owns `k` (backend.h: alloc); pointers to any other
 *     struct are host memory, which is read before the call returns.
 *   - "act" is k->act, the compute dtype: f32, bf16 or f16. Everything named f32 is float32 in every mode.
 *   - Dimensions: n rows, d model, f ffn, h query heads, hk KV heads, hd head size, v vocab.
 *   - Buffers are addressed by *step row* r in 0..n-1: an op on a row set reads and writes row r of each buffer for each r
 *     in the set. Rows outside the set are neither read nor written. A layer may pack the rows that it executes, so that they lie side by side and
 *     have numbers 0, 1, ... of their own: buffers and row sets of ops between gather_rows and blend are then all of packed rows.
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
#include "kernels/mamba.h"
#include "kernels/random_values.h"
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
    const void *data; /* [n,k] of `type`; NULL: random values, rounded to `type` */
    enum dtype type;
    int n;
    const void *bias; /* [n] of bias_type, or NULL; kept as f32 */
    enum dtype bias_type;
    struct random_values random; /* where data is NULL: element i*k + j is that of row i, column j */
};

/* Consecutive step rows of one sequence at consecutive positions. Runs are in row order and cover rows 0..n-1.
 * A sequence's keys in one layer are listed in its slot table, in position order: slot number `table[j]` holds key j.
 * The table of layer l starts at tables + table_off + l * table_cap. */
struct kern_run {
    int row0, n;   /* step rows row0 .. row0+n-1 */
    int append;    /* 1: new tokens, leave K and V; 0: their K and V are in the cache already, nothing is written */
    int table_cap; /* entries of one layer's table */
    int64_t table_off;
    /* Of models whose routers have a state: */
    int state_in;      /* the slot whose states precede the run's first row; -1: the start of a sequence, zeros */
    int state_out;     /* the slot that gets the states after the run's last row, or -1; it may be state_in */
    int save0, n_save; /* entries of kern_step.saves that belong to the run, rows ascending */
    int select;        /* 1: select_top decides its rows; 0: it leaves them alone */
};

/* After step row `row` its sequence's router states are copied to slot `slot`. */
struct kern_save {
    int row, slot;
};

/* Run `run` *branches* from run `from`, which comes before it in the step, appends and branches from none: what lies before `from` in its sequence and
 * the first n rows of `from` are what lies before `run`. */
struct kern_branch {
    int run, from, n;
    int n_listed; /* rows of `from`, from the first on, whose keys branch_keys lists for `run`: n where `run` appends, and else those that `run` repeats too; 0:
                   * another branch has the same table and lists them */
};

/* What a step knows of its rows; the same for every layer. */
struct kern_step {
    struct rows all;              /* every row of the step */
    const struct dev_i32 *pos;    /* [n] position in the sequence, from 0 */
    const struct dev_i32 *run_of; /* [n] index into runs */
    const struct dev_runs *runs;  /* [n_runs] */
    int n_runs;
    const struct dev_branches *branches; /* [n_branches] at most one a run */
    int n_branches;
    struct dev_i32 *tables; /* block tables of all sequences */
    /* Router states: that of router m in slot s is the state_floats floats at states + (s * n_routers + m) * state_floats, laid out as
     * mamba.h tells. A slot that a run writes (state_out, saves) is read by no other run of the step. */
    struct dev_f32 *states;
    const struct dev_saves *saves;
    int n_routers, state_floats;
};

/* What packed rows bring along: entry i is that of step row exec[i]. */
struct kern_packed {
    struct dev_i32 *pos, *run_of; /* [n] as in kern_step; NULL: rows are not packed */
    struct dev_f32 *gate;         /* [n] of gate_of, which is by step row; NULL: not wanted */
    const struct dev_f32 *gate_of;
};

/* Row lists and key places of one layer; the arrays are outputs of place(). Where rows are packed, those of sel, visible and slot are packed rows. */
struct kern_place {
    struct dev_i32 *sel, *sel_n;   /* [n], [1] rows that attend, ascending */
    struct dev_i32 *exec, *exec_n; /* [n], [1] step rows that do not skip the layer, ascending */
    struct dev_i32 *run_start;     /* [n_runs+1] run i's rows that attend are sel[run_start[i] .. run_start[i+1]-1] */
    struct dev_i32 *visible;       /* [n] for rows with K and V: how many keys of the sequence the row sees, its own included */
    struct dev_i32 *slot;          /* [n] KV slot that the row must write, or -1 */
    struct kern_packed packed;
    bool again; /* attention() was last called for a layer whose lists were the same but for slots; what it made of them holds */
};

/* Row slots of K and V, shared by all layers: slot s is at kv + s * 2*hk*hd elements (act): K [hk,hd] rotated, then V [hk,hd]. */
struct kern_heads {
    int h, hk, hd;
    struct dev_act *kv;
};

/* What a router op writes, by step row. */
struct route_out {
    struct dev_u8 *route;       /* [n] `below` or `above` */
    struct dev_f32 *gate;       /* [n] route_mlp, route_mamba, select_top: NULL where it is not wanted */
    struct dev_f32 *prob;       /* [n] the probability that was compared */
    unsigned char below, above; /* codes of enum decision */
    /* Of route_mlp and route_mamba, whose margin is z0 - z1: */
    const struct dev_f32 *threshold; /* [1] above: margin > threshold; NULL: p0 > 0.5 */
    struct dev_f32 *margin;          /* [n], or NULL: not wanted */
};

/* A router that is an MLP of one hidden layer: z = w2 silu(w1 x + b1) + b2. */
struct route_mlp {
    const struct kern_matrix *w1;  /* MATRIX_ACCURATE [m,d], with b1 */
    const struct dev_f32 *w2, *b2; /* [2,m], [2] */
    int m;
    struct dev_f32 *hid; /* [n,m], scratch: what it holds afterwards is not told */
    bool packed;         /* x holds the rows of the set packed; decisions go to step rows all the same */
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
    struct dev_f32 *lse;          /* [..] from which the logprob of any other token follows */
};

/* Rows to be normed on their way into a product (rmsnorm's formula): the set's own, or for its first, second, .. row those that idx names. */
struct kern_norm {
    const struct dev_f32 *x, *w; /* [.., d], [d] */
    const struct dev_i32 *idx;   /* or NULL */
    float eps;
};

enum blend_mode { BLEND_ADD, BLEND_TOWARDS };

/* A Mamba router, made ready for the backend. */
struct kern_mamba;

struct kern_ctx;
struct op_times;

struct kern_ops {
    /* ---- weights. Not on the compute path; may allocate. ------------------------------------------------ */
    /* Values that are not finite give ERR_CORRUPT. On success the caller owns *ret. */
    int (*matrix_new)(struct kern_ctx *k, enum matrix_kind kind, const struct matrix_part *parts, int n_parts, int cols,
                      struct kern_matrix **ret, struct err *err);
    void (*matrix_free)(struct kern_ctx *k, struct kern_matrix *w); /* NULL is valid */
    size_t (*matrix_bytes)(const struct kern_matrix *w);
    /* Likewise. ERR_UNSUPPORTED names a size beyond mamba.h's limits. */
    int (*mamba_new)(struct kern_ctx *k, const struct mamba_parts *parts, struct kern_mamba **ret, struct err *err);
    void (*mamba_free)(struct kern_ctx *k, struct kern_mamba *w); /* NULL is valid */
    size_t (*mamba_bytes)(const struct kern_mamba *w);
    /* The same weights in k's memory, copied from those that were made on `from`, another device of the backend that computes as k does. NULL where
     * contexts share them (backend.h). ERR_NOMEM, ERR_DEVICE. */
    int (*matrix_copy)(struct kern_ctx *k, struct kern_ctx *from, const struct kern_matrix *w, struct kern_matrix **ret);
    int (*mamba_copy)(struct kern_ctx *k, struct kern_ctx *from, const struct kern_mamba *w, struct kern_mamba **ret);

    /* ---- the ops ----------------------------------------------------------------------------------------- */
#define OP(name, kind, bits, args, ...) int (*name)(__VA_ARGS__);
#include "kernels/op_list.h"

    /* ---- optional ------------------------------------------------------------------------------------------- */
    /* place() with no decisions and rows that are not packed for each of the n layers that `layers` lists, in one: layer l has its n_runs entries of base from l *
     * n_runs on and its n_append of reserved from l * n_append on, and writes to *to with each array l * stride further. Returns 1; 0: no rows, a number of them
     * that the device tells, or too many layers, and nothing was done; or a negative code. NULL: never. */
    int (*place_layers)(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_i32 *base,
                        const struct dev_i32 *reserved, int n_append, const struct kern_place *to, size_t stride);
    /* route_mlp of all rows of the step, KERN_ROUTE_PLACE_ROWS at most, and then place() of what it decides, in one; neither of packed rows. Returns as
     * matmul_normed. NULL: never. */
    int (*route_mlp_place)(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x,
                           const struct kern_step *s, int layer, bool keep_all, const struct dev_i32 *base, const struct dev_i32 *reserved,
                           const struct kern_place *place);
    /* rope_store of the rows that attend and then attention, in one, with the bits of both, where each run has one row. qkv's q need not be rotated afterwards.
     * base: [n_runs] as place() is given it, or as follow() is before it has turned it into that: the first keys of a run may be read before the ops ahead of
     * this one have ended. Returns as matmul_normed. NULL: never. */
    int (*rope_attention)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                          const struct dev_f32 *cos, const struct dev_f32 *sin, const struct kern_step *s, int layer,
                          const struct kern_place *p, const struct dev_i32 *base, float scale);
    /* rmsnorm and then matmul, matmul_f32 or matmul_swiglu, in one, with the bits of both. Return 1; 0: not of such rows or weights, and nothing was done; or
     * a negative code. NULL: never. */
    int (*matmul_normed)(struct kern_ctx *k, struct dev_act *y, int col, int ldy, const struct kern_norm *norm, const struct kern_matrix *w,
                         struct rows n);
    int (*matmul_f32_normed)(struct kern_ctx *k, struct dev_f32 *y, const struct kern_norm *norm, const struct kern_matrix *w,
                             struct rows n);
    int (*matmul_swiglu_normed)(struct kern_ctx *k, struct dev_act *y, const struct kern_norm *norm, const struct kern_matrix *w,
                                struct rows n);
    /* matmul of w_qk [(h+hk)*hd, d] to the q and k heads of qkv, and matmul_bypass of the same rows, in one, with the bits of both; the second form with rmsnorm
     * before them. Return as matmul_normed. NULL: never. */
    int (*matmul_with_bypass)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                              const struct dev_act *xn, const struct kern_matrix *w_qk, const struct kern_matrix *w_v, int d,
                              struct rows n);
    int (*matmul_with_bypass_normed)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                                     const struct kern_norm *norm, const struct kern_matrix *w_qk, const struct kern_matrix *w_v,
                                     struct rows n);
    /* matmul of w [(h+2hk)*hd, d] to qkv and rope_store, of all rows of the step, in one, with the bits of both; what qkv holds of k and v afterwards is not told.
     * Returns as matmul_normed. NULL: never. */
    int (*matmul_rope_store)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_act *xn,
                             const struct kern_matrix *w, int d, const struct dev_f32 *cos, const struct dev_f32 *sin,
                             const struct kern_step *s, const struct dev_i32 *slot);
    /* Issues the ops that issue(arg) issues, at less cost when the same were issued before. `key` (at most 32 bytes) stands for everything
     * that the ops are given by value or address; what lies in backend memory may differ. NULL: call issue(arg) instead. */
    int (*replay)(struct kern_ctx *k, const void *key, size_t key_bytes, int (*issue)(void *arg), void *arg);
    /* Issues the ops that one(arg) issues, and those that other(arg) does, which may run at the same time: neither may write what the other reads or
     * writes, nor call this. `one` should be what takes longer. Ops that are issued later come after both. Returns 0 or the first negative code that one or other
     * returned. NULL: call one, and then other, instead. */
    int (*beside)(struct kern_ctx *k, int (*one)(void *arg), int (*other)(void *arg), void *arg);
};

#define KERN_TOP_K_MAX 20
#define KERN_ROUTE_PLACE_ROWS 128 /* of route_mlp_place */
