/* Every op of a backend, declared once: kernels.h makes the table of this list, op_times.c the ops with time stamps, tests/check the list of
 * checks. Conventions: kernels.h.
 *
 * Included with OP(name, kind, bits, args, params...) defined, which it undefines.
 *   kind    what its time counts as (op_times.h): MATMUL, ATTENTION or OTHER
 *   bits    on the CPU in 16-bit dtypes: those of an op of ALL_LEVELS are the same at every level, one of ITS_LEVEL has the level's own. In float32 all
 *           have the same bits at every level and on every device (docs/portable-float32.md)
 *   params  of the function, which returns 0 or a negative code; args: their names */
#ifndef OP
#define OP(name, kind, bits, args, ...)
#endif

/* ---- rows in, rows out ------------------------------------------------------------------------------- */
/* x[r,d] = table[ids[r],d]. ids: [n], each in 0..v-1 (the caller's duty), or -1 - i: latest[i], a token that the device chose; where that is not in
 * 0..v-1, as behind logits that are not finite, token 0 stands for it. latest: NULL where no id is negative. */
OP(embed, OTHER, ALL_LEVELS, (k, x, table, ids, latest, n), struct kern_ctx *k, struct dev_f32 *x, const struct kern_matrix *table,
   const struct dev_i32 *ids, const struct dev_i32 *latest, struct rows n)

/* y[r,d] = x[r,d] / sqrt(mean_d(x^2) + eps) * w[d]; the mean is taken in f32. z (may be x): the same in f32; NULL: not wanted.
 * RMSNorm, arXiv 1910.07467. */
OP(rmsnorm, OTHER, ALL_LEVELS, (k, y, z, x, w, n, d, eps), struct kern_ctx *k, struct dev_act *y, struct dev_f32 *z,
   const struct dev_f32 *x, const struct dev_f32 *w, struct rows n, int d, float eps)
/* dst[i,d] = x[idx[i],d], and y[i,d] = what rmsnorm gives for it: executed rows are packed (kernels.h) and normed. */
OP(gather_norm, OTHER, ALL_LEVELS, (k, y, dst, x, w, n, d, eps), struct kern_ctx *k, struct dev_act *y, struct dev_f32 *dst,
   const struct dev_f32 *x, const struct dev_f32 *w, struct rows n, int d, float eps)
/* y[r,d] = x[r,d]: what stands for the norm where a layer has none. */
OP(cast_rows, OTHER, ALL_LEVELS, (k, y, x, n, d), struct kern_ctx *k, struct dev_act *y, const struct dev_f32 *x, struct rows n, int d)
/* RMS norm of each head on its own, in place: head i of row r is x[r*ldx + col + i*hp ..], hp elements, of which hd are the head's; the others (padding,
 * anywhere among them) are zero and stay so. The mean is taken over hd. w: [hp], the same for all heads. col, ldx and hp: multiples of 8. */
OP(head_norm, OTHER, ALL_LEVELS, (k, x, col, ldx, heads, hp, hd, w, n, eps), struct kern_ctx *k, struct dev_act *x, int col, int ldx,
   int heads, int hp, int hd, const struct dev_f32 *w, struct rows n, float eps)

/* y[r*ldy + col + j] = sum_i x[r*ldx + i] W[j,i] + b[j]. */
OP(matmul, MATMUL, ITS_LEVEL, (k, y, col, ldy, x, ldx, w, n), struct kern_ctx *k, struct dev_act *y, int col, int ldy,
   const struct dev_act *x, int ldx, const struct kern_matrix *w, struct rows n)

/* y[r,:] = W x[r,:] + b, kept in f32. */
OP(matmul_f32, MATMUL, ITS_LEVEL, (k, y, x, w, n), struct kern_ctx *k, struct dev_f32 *y, const struct dev_act *x,
   const struct kern_matrix *w, struct rows n)

/* x[r,:] += gate[r] * (W a[r,:] + b). a: row stride lda; gate: [n], NULL means 1. */
OP(matmul_residual, MATMUL, ITS_LEVEL, (k, x, a, lda, w, gate, n), struct kern_ctx *k, struct dev_f32 *x, const struct dev_act *a, int lda,
   const struct kern_matrix *w, const struct dev_f32 *gate, struct rows n)

/* The last product of packed rows and their blend: y[i,:] += W a[i,:] + b for row i of the set, counted from 0, then blend() with y. Afterwards y is
 * not told. */
OP(matmul_blend, MATMUL, ITS_LEVEL, (k, x, y, a, lda, w, gate, mode, n), struct kern_ctx *k, struct dev_f32 *x, struct dev_f32 *y,
   const struct dev_act *a, int lda, const struct kern_matrix *w, const struct dev_f32 *gate, enum blend_mode mode, struct rows n)

/* y[r,f] = silu(G x[r]) * (U x[r]), w = MATRIX_GATE_UP of G and U; biases apply before silu and the product. x: [n,d].
 * The two products are taken in f32. */
OP(matmul_swiglu, MATMUL, ITS_LEVEL, (k, y, x, w, n), struct kern_ctx *k, struct dev_act *y, const struct dev_act *x,
   const struct kern_matrix *w, struct rows n)

/* y[r,:] = W x[r,:] + b, w being MATRIX_ACCURATE. */
OP(matmul_accurate, MATMUL, ITS_LEVEL, (k, y, x, w, n), struct kern_ctx *k, struct dev_f32 *y, const struct dev_f32 *x,
   const struct kern_matrix *w, struct rows n)

/* ---- routing: each row's decision, gate and compared probability ---------------------------------------- */
/* DTRNet (the authors' Router.weight_predictor): (p0,p1) = softmax(z). Above: p0 > 0.5, or margin > threshold;
 * gate = above ? p0 : p1; prob = p0. x: [n,d], or the set's rows packed. */
OP(route_mlp, MATMUL, ITS_LEVEL, (k, to, p, x, n), struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p,
   const struct dev_f32 *x, struct rows n)
/* UltraDeep's Mamba router (mamba.h); decisions as route_mlp's. x: [n,d], every row of the step (s->all): the state of router number
 * `router` follows every row of its sequence, whatever the row set n, which tells only the rows that get a decision. A state goes on row by row in
 * one order, so its bits do not depend on how rows are cut into runs. bad: [n], or NULL; of every row of the step: 1 if its margin is not a finite number
 * (as x or a state is not), else 0. The decision of such a row is `below`; its prob, gate and margin are NaN. */
OP(route_mamba, MATMUL, ITS_LEVEL, (k, to, bad, w, x, s, router, n), struct kern_ctx *k, const struct route_out *to, struct dev_u8 *bad,
   const struct kern_mamba *w, const struct dev_f32 *x, const struct kern_step *s, int router, struct rows n)
/* MoD: a = sigmoid(w[0].x[r] + b[0]), g = sigmoid(w[1].x[r] + b[1]). Above: a > 0.5; gate = g; prob = a.
 * x: [n,d]; w: [2,d] (aux router, router); b: [2]. */
OP(route_mod, OTHER, ALL_LEVELS, (k, to, x, w, b, d, n), struct kern_ctx *k, const struct route_out *to, const struct dev_f32 *x,
   const struct dev_f32 *w, const struct dev_f32 *b, int d, struct rows n)
/* D-LLM: (p0,p1) = softmax(z). Above: p1 >= 0.5 or pos[r] < forced; prob = p1; there is no gate. hid: [n,m]; pos: [n]. */
OP(route_dllm, OTHER, ALL_LEVELS, (k, to, p, hid, pos, n), struct kern_ctx *k, const struct route_out *to, const struct route_dllm *p,
   const struct dev_f32 *hid, const struct dev_i32 *pos, struct rows n)

/* Expert choice, in every run with `select` set. A run's eligible rows are those with route[r] >= least; the expert_count(capacity, how many there are)
 * (expert_count.h) of largest margin get `above`, the other eligible rows `below`, and both their gate = above ? p0 : p1, from the margin. Of equal
 * margins the earlier row's comes first; those that are not numbers come last. to->route is read as well; to->prob, threshold and margin are not used. */
OP(select_top, OTHER, ALL_LEVELS, (k, to, margin, least, capacity, s), struct kern_ctx *k, const struct route_out *to,
   const struct dev_f32 *margin, int least, double capacity, const struct kern_step *s)
/* idx[0 .. *n_dev-1] = the rows of `all` (whose idx is NULL) with route[r] >= least, ascending. idx: [all.n_max]; n_dev: [1]. */
OP(list_rows, OTHER, ALL_LEVELS, (k, idx, n_dev, route, least, all), struct kern_ctx *k, struct dev_i32 *idx, struct dev_i32 *n_dev,
   const struct dev_u8 *route, int least, struct rows all)

/* Turns decisions into row lists and key places. route: [n] of enum decision; NULL: every row attends. A row leaves (or has) K and V
 * if it attends or keep_all is set. The i-th such row of a run sees base[run] + i + 1 keys; if the run appends, the row takes
 * the next of reserved[] (one running count over all appending runs, in row order), which is also written to the slot table of
 * `layer` at index base[run] + i. base: [n_runs], keys of the sequence in this layer before the run. Packed rows (to->packed): not with keep_all. */
OP(place, OTHER, ALL_LEVELS, (k, s, layer, route, keep_all, base, reserved, to), struct kern_ctx *k, const struct kern_step *s, int layer,
   const struct dev_u8 *route, bool keep_all, const struct dev_i32 *base, const struct dev_i32 *reserved, const struct kern_place *to)

/* Key counts that hang on what the step before decided: where base[l,i] is negative, it becomes -1 - base[l,i], and one more for each of rows after[i] ..
 * after[i] + after[n_runs + i] - 1 of that step that attended in layer l. base: [n_layers, n_runs]; after: [2 n_runs], and then how many rows that step
 * had; route: [n_layers, so many], its decisions. */
OP(follow, OTHER, ALL_LEVELS, (k, base, n_layers, n_runs, after, route), struct kern_ctx *k, struct dev_i32 *base, int n_layers, int n_runs,
   const struct dev_i32 *after, const struct dev_u8 *route)

/* Key counts of runs that branch, before place(): base[run] becomes one more for each of the first n rows of `from` that attend. route: [n] of enum decision;
 * base: [n_runs], of this layer. For layers in which the host cannot know them. */
OP(branch_counts, OTHER, ALL_LEVELS, (k, s, route, base), struct kern_ctx *k, const struct kern_step *s, const struct dev_u8 *route,
   struct dev_i32 *base)
/* Behind place() of the n layers that `layers` lists: the keys of `from`'s first n_listed rows, which its table lists from entry base[from] on, are
 * listed in the same entries of each branch's table. route: as above, of the one layer; NULL: all rows have keys. base: [layers, n_runs]. */
OP(branch_keys, OTHER, ALL_LEVELS, (k, s, layers, n, route, base), struct kern_ctx *k, const struct kern_step *s, const int *layers, int n,
   const struct dev_u8 *route, const struct dev_i32 *base)

/* ---- attention ----------------------------------------------------------------------------------------- */
/* qkv: [n, (h+2hk)*hd] = q heads, k heads, v heads of a row. Rotates q of the rows `q_rows` in place, and for every
 * row with slot[r] >= 0 stores rotated K and V in its slot. Rotation (golden section 5): halves j and j+hd/2 by cos/sin[pos, j],
 * [max_pos, hd/2], YaRN's factor already in them. */
OP(rope_store, OTHER, ALL_LEVELS, (k, hs, qkv, cos, sin, s, slot, q_rows), struct kern_ctx *k, const struct kern_heads *hs,
   struct dev_act *qkv, const struct dev_f32 *cos, const struct dev_f32 *sin, const struct kern_step *s, const struct dev_i32 *slot,
   struct rows q_rows)

/* out[r, h*hd] = softmax_j(q . K_j * scale) V over the row's visible keys j < visible[r] of its sequence, for the rows p->sel.
 * Keys are walked in blocks aligned to j. hd: a multiple of 8 up to 256. q: as rope_store left it in qkv. */
OP(attention, ATTENTION, ITS_LEVEL, (k, hs, out, qkv, s, layer, p, scale), struct kern_ctx *k, const struct kern_heads *hs,
   struct dev_act *out, const struct dev_act *qkv, const struct kern_step *s, int layer, const struct kern_place *p, float scale)

/* The linear path: v = W xn[r] is written to the v heads of qkv[r], and query head i of out[r, h*hd] gets value head i / (h/hk): attention's
 * result for a token that sees itself alone. xn: [n,d]; w: [hk*hd, d], whose bias applies. */
OP(matmul_bypass, MATMUL, ITS_LEVEL, (k, hs, out, qkv, xn, w, d, n), struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out,
   struct dev_act *qkv, const struct dev_act *xn, const struct kern_matrix *w, int d, struct rows n)

/* The end of matmul_bypass alone: query head i of out[r] gets value head i / (h/hk) of qkv[r] as it is. */
OP(spread_values, OTHER, ALL_LEVELS, (k, hs, out, qkv, n), struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out,
   const struct dev_act *qkv, struct rows n)

/* ---- whole-layer gates ---------------------------------------------------------------------------------- */
/* dst[i,d] = src[idx[i],d]: wanted rows before the head, executed rows of a layer with such a gate. */
OP(gather_rows, OTHER, ALL_LEVELS, (k, dst, src, d, n), struct kern_ctx *k, struct dev_f32 *dst, const struct dev_f32 *src, int d,
   struct rows n)
/* x is the layer's input, y its output for the rows of the set, packed: with r = idx[i], x[r] = x[r] + gate[r] * y[i] (BLEND_ADD: MoD), or
 * x[r] + gate[r] * (y[i] - x[r]) (BLEND_TOWARDS: nested layers), each step rounded to f32. */
OP(blend, OTHER, ALL_LEVELS, (k, x, y, gate, mode, d, n), struct kern_ctx *k, struct dev_f32 *x, const struct dev_f32 *y,
   const struct dev_f32 *gate, enum blend_mode mode, int d, struct rows n)

/* ---- scores --------------------------------------------------------------------------------------------- */
/* For rows i < n of logits (row stride ld), to index first + i of `to`: lse = log sum exp over v, lp(t) = logit[t] - lse in one
 * fixed formula, so that equal logits give equal floats everywhere. target_lp = lp(target) (0 where target < 0); top_id, top_lp: the
 * top_k best tokens, descending, ties by smaller id. */
OP(logprobs, OTHER, ALL_LEVELS, (k, to, first, logits, ld, n, v), struct kern_ctx *k, const struct kern_scores *to, int first,
   const struct dev_f32 *logits, size_t ld, int n, int v)

#undef OP
