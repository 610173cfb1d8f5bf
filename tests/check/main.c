/* check_kernels [--backend cpu|cuda] [--level L] [--matmul panel|onednn|scalar] [--dtype f32|bf16|f16] [--threads N] [--seed N] [--bench] [op ...]
 *
 * Checks (or times) the named ops, all by default. Exit status 77: this machine has no such device, level or dtype. */
#include "common/thread.h"
#include "tests/check/harness.h"

static const struct {
    const char *name;
    void (*fn)(struct check *c);
} ops[] = {
    {"embed", check_embed},   {"matmul", check_matmul}, {"rmsnorm", check_rmsnorm},     {"route", check_route},     {"place", check_place},
    {"rope", check_rope},     {"attention", check_attention}, {"gates", check_gates}, {"logprob", check_logprob},
};
enum { N_OPS = sizeof(ops) / sizeof(*ops) };

struct options {
    const char *backend;
    struct backend_config config;
    uint64_t seed;
    bool bench, wanted[N_OPS], any;
};

static int usage(const char *word)
{
    fprintf(stderr, "check_kernels: do not understand \"%s\"\n", word);
    return -1;
}

static int parse_op(struct options *o, const char *name)
{
    for (int i = 0; i < N_OPS; i++)
        if (!strcmp(name, ops[i].name))
            return o->wanted[i] = o->any = true, 0;
    return usage(name);
}

static int parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--bench")) {
            o->bench = true;
            continue;
        }
        if (strncmp(argv[i], "--", 2)) {
            if (parse_op(o, argv[i]) < 0)
                return -1;
            continue;
        }
        if (!strcmp(argv[i], "--backend"))
            o->backend = value;
        else if (!strcmp(argv[i], "--level"))
            o->config.cpu_level = value;
        else if (!strcmp(argv[i], "--matmul"))
            o->config.cpu_matmul = value;
        else if (!strcmp(argv[i], "--dtype"))
            o->config.dtype = !strcmp(value, "bf16") ? DTYPE_BF16 : !strcmp(value, "f16") ? DTYPE_F16 : DTYPE_F32;
        else if (!strcmp(argv[i], "--threads"))
            o->config.n_threads = atoi(value);
        else if (!strcmp(argv[i], "--seed"))
            o->seed = strtoull(value, NULL, 0);
        else
            return usage(argv[i]);
        i++;
    }
    return 0;
}

/* One op with one thread count. Returns its failures; *ret_digest: of all its outputs. */
static int run_op(const struct options *o, int op, int n_threads, uint64_t *ret_digest, struct err *err)
{
    struct check c = {.act = o->config.dtype, .op = ops[op].name, .rng = o->seed, .bench = o->bench};
    struct backend_config config = o->config;
    config.n_threads = n_threads;
    int r = backend_find(o->backend, &c.backend, err);
    if (r >= 0)
        r = c.backend->open(&config, &c.k, err);
    if (r < 0)
        return r;
    ops[op].fn(&c);
    if (!o->bench)
        printf("%-10s %-30s %d thread%s: %d cases, %d failures\n", c.op, c.backend->numerics_class(c.k), n_threads,
               n_threads > 1 ? "s" : "", c.cases, c.failures);
    c.backend->close(c.k);
    *ret_digest = c.digest;
    return c.failures;
}

static int run_all(const struct options *o, struct err *err)
{
    int failures = 0;
    for (int i = 0; i < N_OPS; i++) {
        uint64_t one, many;
        if (o->any && !o->wanted[i])
            continue;
        int r = run_op(o, i, o->config.n_threads, &many, err);
        if (r < 0)
            return r;
        failures += r;
        if (o->bench)
            continue;
        failures += r = run_op(o, i, 1, &one, err);
        if (r < 0)
            return r;
        if (one != many) {
            fprintf(stderr, "%s: the bits differ between 1 and %d threads\n", ops[i].name, o->config.n_threads);
            failures++;
        }
    }
    return failures;
}

int main(int argc, char **argv)
{
    struct options o = {.backend = "cpu", .seed = 20240917};
    struct err err = {0};
    if (parse(&o, argc, argv) < 0)
        return 2;
    if (!o.config.n_threads)   /* more than there are CPUs shows what depends on threads; a benchmark wants just as many */
        o.config.n_threads = o.bench ? thread_usable_count() : 3;
    printf("seed %llu\n", (unsigned long long)o.seed);
    int r = run_all(&o, &err);
    if (r < 0)
        fprintf(stderr, "check_kernels: %s\n", err.text);
    return r == ERR_UNSUPPORTED || r == ERR_DEVICE ? 77 : r != 0;
}
