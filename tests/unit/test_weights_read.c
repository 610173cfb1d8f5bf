/* What loading reads: every byte of a matrix is given to the backend where it lies in the file, once, by the rank whose it is; the embedding by every rank. */
#include "engine/model/share.h"
#include "engine/model/weights.h"
#include "tests/check.h"
#include <stdlib.h>

enum { RANKS = 2 };

static const struct kern_ops *cpu_ops;
static const unsigned char *file;
static size_t file_bytes;
static unsigned char *n_read; /* [file_bytes] how often */
static int n_elsewhere;       /* parts that lie outside the file */

static int counting_matrix_new(struct kern_ctx *k, enum matrix_kind kind, const struct matrix_part *parts, int n_parts, int cols,
                               struct kern_matrix **ret, struct err *err)
{
    for (int i = 0; i < n_parts; i++) {
        size_t n = (size_t)parts[i].n * (size_t)cols * dtype_size(parts[i].type);
        size_t at = (size_t)((const unsigned char *)parts[i].data - file);
        n_elsewhere += at >= file_bytes;
        for (size_t b = 0; at < file_bytes && b < n; b++)
            n_read[at + b]++;
    }
    return cpu_ops->matrix_new(k, kind, parts, n_parts, cols, ret, err);
}

static int check_tensor(void *user, const struct tensor_spec *spec)
{
    const struct tensor *t = safetensors_find(user, spec->name);
    bool embed = spec->row == SCHEMA_EMBED, matrix = embed || spec->row == SCHEMA_HEAD || (spec->slice != SLICE_NONE && spec->n_dims == 2);
    size_t at = (size_t)((const unsigned char *)t->data - file), wrong = 0;
    for (size_t b = 0; matrix && b < t->n_bytes; b++)
        wrong += n_read[at + b] != (embed ? RANKS : 1);
    if (!CHECK_INT(wrong, 0))
        fprintf(stderr, "  %s\n", spec->name);
    return 0;
}

static void load(const char *dir, const struct backend *cpu)
{
    struct model_config c;
    struct layer_plan plan[MODEL_MAX_LAYERS];
    struct safetensors *s = NULL;
    struct err err = {0};
    struct kern_ctx *k = NULL;
    const struct backend_config config = {.dtype = DTYPE_F32, .n_threads = 2};
    if (!CHECK_INT(model_config_load(dir, NULL, NULL, &c, &err), 0) || !CHECK_INT(safetensors_open_dir(dir, &s, &err), 0) ||
        !CHECK_INT(layer_plan_fill(&c, s, NULL, plan, &err), 0) || !CHECK_INT(cpu->open(&config, &k, &err), 0))
        return;
    file = safetensors_file_bytes(s, 0, &file_bytes);
    n_read = calloc(file_bytes, 1);
    n_elsewhere = 0;
    cpu_ops = k->ops;
    struct kern_ops ops = *k->ops;
    struct kern_ctx counting = *k;
    ops.matrix_new = counting_matrix_new;
    counting.ops = &ops;
    for (int rank = 0; n_read && rank < RANKS; rank++) {
        struct weights w = {0};
        if (!CHECK_INT(weights_load(&counting, &c, plan, s, &(struct share){rank, RANKS}, NULL, &w, &err), 0))
            fprintf(stderr, "  %s: %s\n", dir, err.text);
        weights_free(&counting, &w);
    }
    schema_walk(&c, plan, check_tensor, s);
    CHECK_INT(n_elsewhere, 0);
    free(n_read);
    cpu->close(k);
    safetensors_close(s);
}

int main(void)
{
    const struct backend *cpu = NULL;
    struct err err = {0};
    if (!CHECK_INT(backend_find("cpu", &cpu, &err), 0))
        return check_result();
    load(GOLDEN_DIR "/dense-gqa-tied", cpu);
    load(GOLDEN_DIR "/dense-mha-untied-bf16", cpu);
    load(GOLDEN_DIR "/dtrnet-bilayer", cpu);
    return check_result();
}
