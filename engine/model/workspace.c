/* Plans and allocates the activation buffers. */
#include "engine/model/workspace.h"
#include "engine/model/forward_pack.h"
#include <stdlib.h>
#include <string.h>

/* A chunk of the head needs no more memory than this many rows of logits; a quarter of a step keeps it in proportion. */
static int head_rows(int max_rows)
{
    int n = max_rows / 4;
    return n < 16 ? (max_rows < 16 ? max_rows : 16) : n;
}

static int clear_positions(struct workspace *w, struct err *err)
{
    size_t bytes = (size_t)w->max_rows * sizeof(int32_t);
    int32_t *zeros = calloc(1, bytes);
    int r = zeros ? w->k->backend->upload(w->k, DEV_BYTES(w->no_pos), zeros, bytes) : ERR_NOMEM;
    free(zeros);
    return r < 0 ? err_set(err, r, "no positions for the layers that have none") : 0;
}

int workspace_init(struct workspace *w, const struct model *m, int max_rows, struct err *err)
{
    const struct model_config *c = &m->config;
    size_t n = (size_t)max_rows, d = (size_t)c->hidden, l = (size_t)c->n_layers, act = dtype_size(m->k->act), router = 0;
    const struct share *s = &m->share;
    size_t hd = (size_t)model_config_padded_head_dim(c), own_q = (size_t)share_heads(s, c) * hd, kv = (size_t)share_kv_heads(s, c) * hd;
    bool parts = share_n(s) > 1;
    bool packs = false, nested = false, no_rope = false, unrouted = false;
    for (int i = 0; i < c->n_layers; i++) {
        const struct layer_weights *lw = &m->weights.layers[i];
        if (lw->router.in && (size_t)lw->router.dim > router)
            router = (size_t)lw->router.dim;
        packs |= forward_packs(&m->plan[i]);
        nested |= layer_is_nested(&m->plan[i]);
        no_rope |= m->plan[i].no_rope;
        unrouted |= !layer_is_routed(&m->plan[i]);
    }
    *w = (struct workspace){.k = m->k, .max_rows = max_rows, .head_rows = head_rows(max_rows)};
    size_t hr = (size_t)w->head_rows;
    const struct {
        void *field; /* the address of a field of a type of dev.h */
        size_t bytes;
    } plan[] = {
        {&w->x, n * d * 4},
        {&w->packed_x, packs ? n * d * 4 : 0},
        {&w->xn, n * d * act},
        {&w->qkv, n * (own_q + 2 * kv) * act},
        {&w->attn, n * (size_t)c->n_heads * hd * act},
        {&w->attn_part, parts ? n * own_q * act : 0},
        {&w->ffn_part, parts ? n * (size_t)share_ffn(s, c) * act : 0},
        {&w->x_part, parts ? n * (size_t)share_hidden(s, c) * 4 : 0},
        {&w->ffn, n * (size_t)c->ffn * act},
        {&w->router, n * router * 4},
        {&w->route, l * n},
        {&w->prob, l * n * 4},
        {&w->gate, n * 4},
        {&w->margin, n * 4},
        {&w->skip_gate, nested ? n * 4 : 0},
        {&w->skip_prob, nested ? l * n * 4 : 0},
        {&w->router_bad, (size_t)m->weights.n_states * n},
        {&w->no_pos, no_rope ? n * 4 : 0},
        {&w->place.sel, n * 4},
        {&w->place.sel_n, 4},
        {&w->place.exec, n * 4},
        {&w->place.exec_n, 4},
        {&w->place.packed.pos, packs ? n * 4 : 0},
        {&w->place.packed.run_of, packs ? n * 4 : 0},
        {&w->place.packed.gate, packs ? n * 4 : 0},
        {&w->place.run_start, (n + 1) * 4},
        {&w->place.visible, n * 4},
        {&w->place.slot, n * 4},
        {&w->lists, unrouted && m->k->ops->place_layers ? l * workspace_lists_stride(max_rows) * 4 : 0},
        {&w->want_x, hr * d * 4},
        {&w->want_xn, hr * d * act},
        {&w->logits, hr * (size_t)c->vocab * 4},
        {&w->target_lp, n * 4},
        {&w->top_id, n * KERN_TOP_K_MAX * 4},
        {&w->top_lp, n * KERN_TOP_K_MAX * 4},
        {&w->bad, n},
        {&w->lse, n * 4},
    };
    for (size_t i = 0; i < sizeof(plan) / sizeof(plan[0]); i++)
        w->bytes += plan[i].bytes;
    size_t bytes = w->bytes;
    for (size_t i = 0; i < sizeof(plan) / sizeof(plan[0]); i++) {
        struct dev_bytes *p = plan[i].bytes ? m->k->backend->alloc(m->k, plan[i].bytes) : NULL;
        memcpy(plan[i].field, &p, sizeof(p));
        if (plan[i].bytes && !p) {
            workspace_done(w);
            return err_set(err, ERR_NOMEM, "no memory for the activations of %d rows (%zu MiB); lower max_batch_tokens", max_rows,
                           bytes >> 20);
        }
    }
    int r = no_rope ? clear_positions(w, err) : 0;
    if (r < 0)
        workspace_done(w);
    return r;
}

struct kern_place workspace_lists(const struct workspace *w, int layer, int n_rows)
{
    size_t n = (size_t)n_rows;
    struct dev_i32 *at = dev_i32_at(w->lists, (size_t)layer * workspace_lists_stride(n_rows));
    return (struct kern_place){.sel = at,
                               .exec = dev_i32_at(at, n),
                               .visible = dev_i32_at(at, 2 * n),
                               .slot = dev_i32_at(at, 3 * n),
                               .run_start = dev_i32_at(at, 4 * n),
                               .sel_n = dev_i32_at(at, 5 * n + 1),
                               .exec_n = dev_i32_at(at, 5 * n + 2)};
}

void workspace_done(struct workspace *w)
{
    if (!w->k)
        return;
    struct dev_bytes *all[] = {DEV_BYTES(w->x),
                               DEV_BYTES(w->packed_x),
                               DEV_BYTES(w->xn),
                               DEV_BYTES(w->qkv),
                               DEV_BYTES(w->attn),
                               DEV_BYTES(w->ffn),
                               DEV_BYTES(w->attn_part),
                               DEV_BYTES(w->ffn_part),
                               DEV_BYTES(w->x_part),
                               DEV_BYTES(w->router),
                               DEV_BYTES(w->route),
                               DEV_BYTES(w->prob),
                               DEV_BYTES(w->gate),
                               DEV_BYTES(w->margin),
                               DEV_BYTES(w->skip_gate),
                               DEV_BYTES(w->skip_prob),
                               DEV_BYTES(w->router_bad),
                               DEV_BYTES(w->no_pos),
                               DEV_BYTES(w->place.sel),
                               DEV_BYTES(w->place.sel_n),
                               DEV_BYTES(w->place.exec),
                               DEV_BYTES(w->place.exec_n),
                               DEV_BYTES(w->place.packed.pos),
                               DEV_BYTES(w->place.packed.run_of),
                               DEV_BYTES(w->place.packed.gate),
                               DEV_BYTES(w->place.run_start),
                               DEV_BYTES(w->place.visible),
                               DEV_BYTES(w->place.slot),
                               DEV_BYTES(w->lists),
                               DEV_BYTES(w->want_x),
                               DEV_BYTES(w->want_xn),
                               DEV_BYTES(w->logits),
                               DEV_BYTES(w->target_lp),
                               DEV_BYTES(w->top_id),
                               DEV_BYTES(w->top_lp),
                               DEV_BYTES(w->bad),
                               DEV_BYTES(w->lse)};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        w->k->backend->free(w->k, all[i]);
    memset(w, 0, sizeof(*w));
}
