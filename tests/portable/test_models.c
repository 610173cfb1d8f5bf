/* Models in float32 at every level of this machine: the bits of everything that they answer have the hash that stands in hashes.txt.
 *
 *   test_models HASHES MODEL_DIR...            status 1 if a hash is another; then the first op that differs from plain C is named
 *   test_models --write HASHES MODEL_DIR...    writes the file anew, by plain C
 *
 * DTRNET_TEST_DEVICE=cuda: and on that device. */
#include "engine/engine.h"
#include "tests/check.h"
#include "tests/portable/watch.h"
#include <stdlib.h>
#include <unistd.h>

enum { SEQUENCES = 3, TOP = 5, NEW = 12, LENGTH = 160 };

static const struct place places[] = {{"cpu", "scalar", 2}, {"cpu", "avx2", 1},       {"cpu", "avx2", 2},
                                      {"cpu", "avx512", 2}, {"cpu", "avx512bf16", 2}, {"cpu", "amx", 2}};
enum { PLACES = sizeof(places) / sizeof(*places) };
static const struct place cuda = {"cuda", NULL, 1};

static uint64_t hash_of(uint64_t hash, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
    return hash;
}

static const char *name_of(const char *dir)
{
    const char *slash = strrchr(dir, '/');
    return slash ? slash + 1 : dir;
}

/* Tokens that follow from the sequence's number alone. */
static void fill_tokens(int32_t *ids, int n, int sequence, int vocab)
{
    uint32_t x = 12345 + (uint32_t)sequence;
    for (int i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        ids[i] = 3 + (int32_t)((x >> 8) % (uint32_t)(vocab - 3));
    }
}

static uint64_t hash_result(const struct engine_info *info, const struct eval_result *r, uint64_t hash)
{
    size_t scored = (size_t)r->n_scored, new = (size_t)r->n_new;
    hash = hash_of(hash, r->logprobs, scored * sizeof(float));
    hash = hash_of(hash, r->top_ids, scored * TOP * sizeof(int32_t));
    hash = hash_of(hash, r->top_logprobs, scored * TOP * sizeof(float));
    hash = hash_of(hash, r->new_tokens, new * sizeof(int32_t));
    hash = hash_of(hash, r->new_logprobs, new * sizeof(float));
    hash = hash_of(hash, r->new_top_logprobs, new *TOP * sizeof(float));
    return hash_of(hash, r->routing, (size_t)info->config->n_layers * (size_t)r->n_routing);
}

/* Sequences of a third, two thirds and all of the length; the first is continued greedily, the others by drawing. */
static uint64_t hash_answers(struct engine *e, struct err *err)
{
    const struct engine_info *info = engine_info(e);
    int32_t ids[SEQUENCES][LENGTH];
    struct eval_request q[SEQUENCES];
    struct engine_ticket *t;
    uint64_t hash = 0xcbf29ce484222325;
    int most = info->max_model_len - NEW < LENGTH ? info->max_model_len - NEW : LENGTH;
    for (int i = 0; i < SEQUENCES; i++) {
        int n = most * (i + 1) / SEQUENCES;
        fill_tokens(ids[i], n, i, info->config->vocab);
        q[i] = (struct eval_request){.tokens = ids[i],
                                     .n_tokens = n,
                                     .score_begin = 1,
                                     .top_k = TOP,
                                     .max_new = NEW,
                                     .temperature = i ? 0.8f : 0,
                                     .top_p = i == 2 ? 0.9f : 1,
                                     .seed = 17,
                                     .ignore_eos = true,
                                     .want_routing = true};
    }
    if (!CHECK_INT(engine_submit(e, q, SEQUENCES, &t, err), 0))
        return 0;
    CHECK(engine_wait(t, -1));
    for (int i = 0; i < SEQUENCES; i++) {
        const struct eval_result *r = engine_result(t, i);
        if (CHECK_INT(r->code, 0))
            hash = hash_result(info, r, hash);
        else
            fprintf(stderr, "  %s\n", r->err.text);
    }
    engine_ticket_free(t);
    return hash;
}

/* False: the machine has no such place. */
static bool run_place(const char *dir, const struct place *p, uint64_t *ret)
{
    bool on_cpu = !strcmp(p->device, "cpu");
    const struct engine_options o = {.model_dir = dir,
                                     .device = p->device,
                                     .dtype = "f32",
                                     .cpu_level = on_cpu ? p->level : NULL,
                                     .cuda_level = on_cpu ? NULL : p->level,
                                     .n_threads = p->n_threads,
                                     .max_model_len = LENGTH + NEW,
                                     .kv_cache_bytes = 64 << 20,
                                     .prefix_cache = true,
                                     .bos_id = -1,
                                     .eos_id = -1};
    struct engine *e = NULL;
    struct err err = {0};
    int r = engine_open(&o, &e, &err);
    if (r == ERR_UNSUPPORTED || r == ERR_DEVICE)
        return false;
    if (!CHECK_INT(r, 0)) {
        fprintf(stderr, "  %s\n", err.text);
        return false;
    }
    CHECK_STR(engine_info(e)->numerics_class, "portable-1");
    *ret = hash_answers(e, &err);
    engine_close(e);
    return true;
}

/* The hash of a model in the file; 0: it has none. */
static uint64_t stored_hash(const char *path, const char *name)
{
    char line_name[128];
    unsigned long long hash;
    FILE *f = fopen(path, "r");
    while (f && fscanf(f, "%127s %llx", line_name, &hash) == 2)
        if (!strcmp(line_name, name)) {
            fclose(f);
            return hash;
        }
    if (f)
        fclose(f);
    return 0;
}

static void explain(const char *dir, const struct place *p)
{
    int32_t ids[LENGTH];
    fill_tokens(ids, LENGTH, SEQUENCES - 1, 300);
    watch_difference(dir, &places[0], p, ids, LENGTH);
}

static void check_model(const char *dir, uint64_t want)
{
    uint64_t hash;
    int n = 0;
    bool with_cuda = getenv("DTRNET_TEST_DEVICE") && !strcmp(getenv("DTRNET_TEST_DEVICE"), "cuda");
    for (int i = 0; i < PLACES + with_cuda; i++) {
        const struct place *p = i < PLACES ? &places[i] : &cuda;
        if (!run_place(dir, p, &hash))
            continue;
        n++;
        if (CHECK(hash == want))
            continue;
        fprintf(stderr, "  %s on %s %s with %d threads is %016llx, not %016llx\n", name_of(dir), p->device, p->level ? p->level : "",
                p->n_threads, (unsigned long long)hash, (unsigned long long)want);
        explain(dir, p);
    }
    printf("%-36s %016llx at %d places\n", name_of(dir), (unsigned long long)want, n);
}

static int write_hashes(const char *path, char **dirs, int n)
{
    FILE *f = fopen(path, "w");
    uint64_t hash;
    for (int i = 0; f && i < n; i++)
        if (CHECK(run_place(dirs[i], &places[0], &hash)))
            fprintf(f, "%s %016llx\n", name_of(dirs[i]), (unsigned long long)hash);
    CHECK(f && fclose(f) == 0);
    return check_result();
}

int main(int argc, char **argv)
{
    if (argc > 3 && !strcmp(argv[1], "--write"))
        return write_hashes(argv[2], argv + 3, argc - 3);
    if (argc < 3)
        return 2;
    for (int i = 2; i < argc; i++) {
        uint64_t want = stored_hash(argv[1], name_of(argv[i]));
        if (CHECK(want != 0))
            check_model(argv[i], want);
        else
            fprintf(stderr, "  %s has no hash in %s\n", name_of(argv[i]), argv[1]);
    }
    return check_result();
}
