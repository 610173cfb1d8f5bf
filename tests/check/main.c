/* check_kernels [--backend cpu|cuda] [--level L (of the CPU, or of CUDA)] [--matmul panel|scalar] [--dtype f32|bf16|f16] [--precision highest|high] [--threads N] [--seed N]
 *               [--once] [--bench] [op ...]
 *
 * Checks (or times) the named ops, all by default. --once: not again by one thread and by plain C, for what looks at memory and not at bits.
 * Exit status 77: this machine has no such device, level or dtype. */
#include "common/thread.h"
#include "tests/check/harness.h"

enum bits { ITS_LEVEL, ALL_LEVELS };
static const struct {
    const char *name;
    void (*fn)(struct check *c);
    enum bits bits;
} ops[] = {
#define OP(name, kind, bits, args, ...) {#name, check_##name, bits},
#include "kernels/op_list.h"
    {"route_mlp_place", check_route_mlp_place, ITS_LEVEL},
    {"rope_attention", check_rope_attention, ITS_LEVEL},
    {"matmul_rope_store", check_matmul_rope_store, ITS_LEVEL},
    {"matmul_with_bypass", check_matmul_with_bypass, ITS_LEVEL},
};
enum { N_OPS = sizeof(ops) / sizeof(*ops) };

struct options {
    const char *backend;
    struct backend_config config;
    uint64_t seed;
    bool once, bench, wanted[N_OPS], any;
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
        if (!strcmp(argv[i], "--once")) {
            o->once = true;
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
            o->config.cpu_level = o->config.cuda_level = value;
        else if (!strcmp(argv[i], "--matmul"))
            o->config.cpu_matmul = value;
        else if (!strcmp(argv[i], "--dtype"))
            o->config.dtype = !strcmp(value, "bf16") ? DTYPE_BF16 : !strcmp(value, "f16") ? DTYPE_F16 : DTYPE_F32;
        else if (!strcmp(argv[i], "--precision"))
            o->config.precision = strcmp(value, "high") ? MATMUL_HIGHEST : MATMUL_HIGH;
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

/* One op in one setting. Returns its failures; *ret_digest: of all its outputs. */
static int run_op(const struct options *o, const char *backend, int op, struct backend_config config, uint64_t *ret_digest, struct err *err)
{
    struct check c = {
        .act = config.dtype, .op = ops[op].name, .rng = o->seed, .many_tiles = !strcmp(o->backend, "cuda"), .bench = o->bench};
    int r = backend_find(backend, &c.backend, err);
    if (r >= 0)
        r = c.backend->open(&config, &c.k, err);
    if (r < 0)
        return r;
    ops[op].fn(&c);
    if (!o->bench)
        printf("%-15s %s %s %-12s %d thread%s: %d cases, %d failures\n", c.op, backend, c.k->limits.levels[c.k->limits.level],
               c.backend->numerics_class(c.k), config.n_threads, config.n_threads > 1 ? "s" : "", c.cases, c.failures);
    c.backend->close(c.k);
    *ret_digest = c.digest;
    return c.failures;
}

/* The op once more in another setting, which must not change a bit. */
static int run_again(const struct options *o, const char *backend, int op, struct backend_config config, const char *what, uint64_t want,
                     struct err *err)
{
    uint64_t digest;
    int r = run_op(o, backend, op, config, &digest, err);
    if (r < 0 || digest == want)
        return r;
    fprintf(stderr, "%s: %s changes bits\n", ops[op].name, what);
    return r + 1;
}

static int check_one(const struct options *o, int op, struct err *err)
{
    struct backend_config config = o->config;
    uint64_t digest;
    int failures = run_op(o, o->backend, op, config, &digest, err), r = 0;
    bool cpu = !strcmp(o->backend, "cpu"), portable = config.dtype == DTYPE_F32 && config.precision == MATMUL_HIGHEST;
    if (failures < 0 || o->bench || o->once)
        return failures;
    config.n_threads = 1;
    if (cpu) /* elsewhere one thread issues everything */
        r = run_again(o, "cpu", op, config, "the number of threads", digest, err);
    if (r < 0)
        return r;
    failures += r;
    r = 0;
    config.cpu_level = "scalar";
    config.cpu_matmul = NULL;
    if (portable || (cpu && ops[op].bits == ALL_LEVELS))
        r = run_again(o, "cpu", op, config, cpu ? "the CPU level" : "the device", digest, err);
    return r < 0 ? r : failures + r;
}

static int run_all(const struct options *o, struct err *err)
{
    int failures = 0;
    for (int i = 0; i < N_OPS; i++) {
        int r = o->any && !o->wanted[i] ? 0 : check_one(o, i, err);
        if (r < 0)
            return r;
        failures += r;
    }
    return failures;
}

int main(int argc, char **argv)
{
    struct options o = {.backend = "cpu", .seed = 20240917};
    struct err err = {0};
    if (parse(&o, argc, argv) < 0)
        return 2;
    if (!o.config.n_threads) /* more than there are CPUs shows what depends on threads; a benchmark wants just as many */
        o.config.n_threads = o.bench ? thread_usable_count() : 3;
    printf("seed %llu\n", (unsigned long long)o.seed);
    int r = run_all(&o, &err);
    if (r < 0)
        fprintf(stderr, "check_kernels: %s\n", err.text);
    return r == ERR_UNSUPPORTED || r == ERR_DEVICE ? 77 : r != 0;
}
