/* Packing of weights into panels, and the loop around the panel kernels: rows are packed once, then tasks of a few panels by a block of
 * row groups are spread over the pool.
 *
 * Rows are taken CHUNK at a time, so scratch is bounded. In a task the block of rows stays in the L2 cache while the weights pass
 * by once; a panel's next block is fetched ahead while the current one is used. Tasks are small, so that no thread waits long for the
 * last one; those of AMX, which multiplies several times as fast, have more panels. Nothing here touches the order of sums (panel.h). */
#include "kernels/cpu/panel.h"

enum { CHUNK = 1024, BLOCK_ROWS = 512, L2_ROWS_BYTES = 1280 << 10, TASKS_PER_THREAD = 32, TILE_TASKS = 8, MAX_TASK_PANELS = 8, LINE = 64 };

struct task_grid {
    struct cpu *c;
    const struct matmul_job *job;
    const struct panel_kernel *kernel;
    int first, count; /* members of the row set in this chunk */
    int n_steps;
    int block_groups;        /* row groups of a task */
    int panels, panel_tasks; /* panels of a task; tasks along n */
};

static size_t term_size(const struct kern_matrix *w)
{
    return (size_t)panel_steps(w) * ROWS * K_STEP;
}
static size_t group_bytes(const struct kern_matrix *w)
{
    return term_size(w) * panel_kernel_of(w)->x_terms * dtype_size(w->x_type);
}

/* ---- weights ---- */

static const struct panel_kernel *choose(const struct cpu *c, const struct kern_matrix *w)
{
    enum cpu_level level = c->level;
    bool bf16 = w->weight_type == DTYPE_BF16, exact = c->base.act == DTYPE_F32 || w->kind == MATRIX_ACCURATE;
    if (level >= CPU_AMX && c->split && bf16)
        return exact ? &panel_amx_accurate : &panel_amx;
    if (level >= CPU_AMX && c->split && w->kind == MATRIX_ACCURATE)
        return &panel_amx_accurate3;
    if (level >= CPU_AVX512BF16 && bf16 && !exact)
        return &panel_avx512bf16;
    if (level >= CPU_AVX512)
        return bf16 ? &panel_avx512_wbf16 : &panel_avx512_wf32;
    return bf16 ? &panel_avx2_wbf16 : &panel_avx2_wf32;
}

static int plan(struct cpu *c, struct kern_matrix *w)
{
    if (c->level < CPU_AVX2)
        return ERR_UNSUPPORTED;
    const struct panel_kernel *kernel = choose(c, w);
    w->state = (void *)kernel;
    w->x_type = kernel->x_type;
    w->tile = ROWS;
    w->panel = PANEL;
    w->packed_bytes = (size_t)((w->n + PANEL - 1) / PANEL) * kernel->w_terms * panel_bytes(w);
    w->x_scratch = CHUNK / ROWS * group_bytes(w);
    w->out_scratch = sizeof(float) * BLOCK_ROWS * PANEL;
    return 0;
}

/* The place in a panel of packed column c: up columns begin the second half, however narrow the panel. */
static int lane_of(const struct kern_matrix *w, int p, int c)
{
    int half = matrix_panel_columns(w, p) / 2;
    return w->kind == MATRIX_GATE_UP && c >= half ? PANEL / 2 + c - half : c;
}

/* Of bf16 weights: from one pair of inputs to the next, and where input i of an output is. */
static int pair_size(const struct kern_matrix *w)
{
    return panel_kernel_of(w)->tiles ? PAIR_SIZE / 2 : PAIR_SIZE;
}
static size_t bf16_offset(const struct kern_matrix *w, int lane, int i)
{
    size_t half = panel_kernel_of(w)->tiles ? STEP_SIZE / 2 : PAIR_SIZE / 2;
    return (size_t)(i / K_STEP) * STEP_SIZE + lane / 16 * half + (size_t)(i % K_STEP / 2 * pair_size(w)) + lane % 16 * 2 + i % 2;
}

static size_t f32_offset(int lane, int i)
{
    return (size_t)i * PANEL + lane;
}

static void pack_split(const struct kern_matrix *w, int p, int lane, int first, int n, const float *src)
{
    uint16_t *term[3];
    for (int t = 0; t < 3; t++)
        term[t] = (uint16_t *)panel_at(w, t, p);
    for (int i = 0; i < n; i++) {
        size_t at = bf16_offset(w, lane, first + i);
        float rest = src[i];
        for (int t = 0; t < 3; t++) {
            term[t][at] = f32_to_bf16(rest);
            rest -= bf16_to_f32(term[t][at]);
        }
    }
}

/* Two inputs of an output lie side by side. */
static void pack_bf16(const struct kern_matrix *w, uint16_t *panel, int lane, int first, int n, const uint16_t *src)
{
    int i = 0, pair = pair_size(w);
    for (; i + K_STEP <= n; i += K_STEP)
        for (int j = 0; j < K_STEP; j += 2)
            memcpy(panel + bf16_offset(w, lane, first + i) + j / 2 * pair, src + i + j, 2 * sizeof(*src));
    for (; i < n; i++)
        panel[bf16_offset(w, lane, first + i)] = src[i];
}

/* What no column and no input fills is zero. */
static void clear_padding(const struct kern_matrix *w, int p)
{
    if (matrix_panel_columns(w, p) < PANEL || w->k % K_STEP)
        for (int t = 0; t < panel_kernel_of(w)->w_terms; t++)
            memset(panel_at(w, t, p), 0, panel_bytes(w));
}

static void pack(struct kern_matrix *w, int p, int c, int first, int n, const void *src)
{
    int lane = lane_of(w, p, c);
    if (!c && !first)
        clear_padding(w, p);
    if (panel_kernel_of(w)->w_terms == 3)
        pack_split(w, p, lane, first, n, src);
    else if (w->weight_type == DTYPE_BF16)
        pack_bf16(w, (uint16_t *)panel_at(w, 0, p), lane, first, n, src);
    else
        for (int i = 0; i < n; i++)
            ((float *)panel_at(w, 0, p))[f32_offset(lane, first + i)] = ((const float *)src)[i];
}

static void read_column(const struct kern_matrix *w, int p, int c, float *dst)
{
    const void *src = panel_at(w, 0, p);
    int lane = lane_of(w, p, c);
    if (w->weight_type == DTYPE_BF16)
        for (int i = 0; i < w->k; i++)
            dst[i] = bf16_to_f32(((const uint16_t *)src)[bf16_offset(w, lane, i)]);
    else
        for (int i = 0; i < w->k; i++)
            dst[i] = ((const float *)src)[f32_offset(lane, i)];
}

/* ---- products ---- */

static int group_rows(const struct task_grid *t, int group, int ids[ROWS])
{
    int n = min_int(ROWS, t->count - group * ROWS);
    for (int i = 0; i < n; i++)
        ids[i] = rows_at(&t->job->rows, t->first + group * ROWS + i);
    return n;
}

static char *group_at(const struct task_grid *t, int group)
{
    return (char *)t->c->matmul->x + group * group_bytes(t->job->w);
}

static void pack_group(void *arg, int group, int thread)
{
    const struct task_grid *t = arg;
    const struct matmul_job *job = t->job;
    int ids[ROWS], n = group_rows(t, group, ids);
    for (int i = 0; i < n; i++)
        t->kernel->pack_row(group_at(t, group), term_size(job->w), ROWS, i, act_at(job->x, job->x_type, (size_t)ids[i] * job->ldx),
                            job->x_type, job->w->k);
}

/* A block of steps of one panel in one pass. */
struct block {
    int panel, pass, step, steps;
    bool last; /* the sums are complete after it */
};

static void run_block(const struct task_grid *t, float *acc, struct block s, int group0, int groups)
{
    const struct panel_kernel *kernel = t->kernel;
    size_t w_step = STEP_SIZE * dtype_size(panel_type(t->job->w)), x_step = ROWS * K_STEP * dtype_size(kernel->x_type);
    const char *w = panel_at(t->job->w, kernel->pass[s.pass].w_term, s.panel) + s.step * w_step;
    size_t x_offset = ((size_t)kernel->pass[s.pass].x_term * t->n_steps + s.step) * x_step;
    int step_lines = w_step / LINE, ahead = (step_lines + groups - 1) / groups; /* the next block, spread over the groups */
    for (int g = group0; g < group0 + groups; g++, acc += ROWS * PANEL) {
        int ids[ROWS], rows = group_rows(t, g, ids);
        kernel->block(acc, group_at(t, g) + x_offset, w, s.steps, rows, s.pass == 0 && s.step == 0,
                      w + s.steps * w_step + (size_t)(g - group0) * s.steps * ahead * LINE, ahead);
        if (s.last)
            kernel->finish(t->job, acc, s.panel, ids, rows);
    }
}

static void run_task(void *arg, int i, int thread)
{
    const struct task_grid *t = arg;
    const struct panel_kernel *kernel = t->kernel;
    int group0 = i / t->panel_tasks * t->block_groups, all = (t->count + ROWS - 1) / ROWS;
    int panel0 = i % t->panel_tasks * t->panels, end = min_int(panel0 + t->panels, t->job->w->n_panels);
    int blocks = (t->n_steps + kernel->block_steps - 1) / kernel->block_steps, size = (t->n_steps + blocks - 1) / blocks;
    if (kernel->begin)
        kernel->begin();
    for (struct block s = {.panel = panel0}; s.panel < end; s.panel++)
        for (s.pass = 0; s.pass < kernel->n_passes; s.pass++)
            for (s.step = 0; s.step < t->n_steps; s.step += size) {
                s.steps = min_int(size, t->n_steps - s.step);
                s.last = s.pass + 1 == kernel->n_passes && s.step + s.steps == t->n_steps;
                run_block(t, t->c->matmul->out[thread], s, group0, min_int(t->block_groups, all - group0));
            }
}

/* Row groups of a task: as many as L2 holds, in parts of like size. */
static int choose_block_groups(const struct kern_matrix *w, int groups)
{
    int most = L2_ROWS_BYTES / group_bytes(w);
    most = most < 1 ? 1 : min_int(most, BLOCK_ROWS / ROWS);
    int parts = (groups + most - 1) / most;
    return (groups + parts - 1) / parts;
}

static void run_chunk(struct task_grid *t)
{
    int groups = (t->count + ROWS - 1) / ROWS, n_panels = t->job->w->n_panels;
    t->block_groups = choose_block_groups(t->job->w, groups);
    int row_tasks = (groups + t->block_groups - 1) / t->block_groups;
    int share = t->kernel->tiles ? TILE_TASKS : TASKS_PER_THREAD;
    t->panels = n_panels * row_tasks / (t->c->n_threads * share);
    t->panels = t->panels < 1 ? 1 : min_int(t->panels, MAX_TASK_PANELS);
    t->panel_tasks = (n_panels + t->panels - 1) / t->panels;
    parallel_for(t->c->pool, groups, pack_group, t);
    parallel_for(t->c->pool, row_tasks * t->panel_tasks, run_task, t);
}

static void run(struct cpu *c, const struct matmul_job *job)
{
    struct task_grid t = {.c = c, .job = job, .kernel = panel_kernel_of(job->w), .n_steps = panel_steps(job->w)};
    int count = rows_count(job->rows);
    if (count <= ROWS && t.kernel->stream) {
        matmul_stream(c, job, count);
        return;
    }
    for (t.first = 0; t.first < count; t.first += CHUNK) {
        t.count = min_int(CHUNK, count - t.first);
        run_chunk(&t);
    }
}

const struct cpu_matrix_ops matrix_ops_panel = {
    .name = "panel",
    .plan = plan,
    .pack = pack,
    .run = run,
    .read_column = read_column,
};
