/* The list of backends, and what the CPU one says of its settings. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu_level.h"
#include "tests/check.h"
#include <sys/mman.h>
#include <unistd.h>

static void names(void)
{
    const struct backend *b = NULL;
    struct err err;
    CHECK_INT(backend_find("cpu", &b, &err), 0);
    CHECK(b && b->present(NULL) == 0);
    CHECK_STR(b->name, "cpu");
    CHECK_INT(backend_find("auto", &b, &err), 0);
    CHECK_INT(backend_find("tpu", &b, &err), ERR_INVALID);
    CHECK_STR(err.param, "device");
    CHECK(strstr(err.text, "tpu"));
    int r = backend_find("cuda", &b, &err);
    CHECK(r == 0 || r == ERR_UNSUPPORTED || r == ERR_DEVICE);
}

static void levels(void)
{
    enum cpu_level l, have = cpu_level_detect();
    struct err err;
    CHECK_INT(cpu_level_parse(NULL, &l, &err), 0);
    CHECK_INT(l, have);
    for (int i = 0; i < CPU_LEVEL_COUNT; i++)
        CHECK_INT(cpu_level_parse(cpu_level_names[i], &l, &err), i <= (int)have ? 0 : ERR_UNSUPPORTED);
    CHECK_INT(cpu_level_parse("sse", &l, &err), ERR_INVALID);
    CHECK_STR(err.param, "cpu_level");
}

static int open_code(const struct backend *b, struct backend_config c)
{
    struct kern_ctx *k = NULL;
    struct err err;
    int r = b->open(&c, &k, &err);
    CHECK((r == 0) == (k != NULL));
    if (k)
        b->close(k);
    return r;
}

static void settings(const struct backend *b)
{
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F32, .n_threads = 1}), 0);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_BF16, .n_threads = 3, .cpu_level = "scalar"}), 0);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F16, .n_threads = 1}), ERR_UNSUPPORTED);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F32, .n_threads = 0}), ERR_INVALID);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F32, .n_threads = 1, .device_index = BACKEND_CPU_DEVICES}), ERR_INVALID);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F32, .n_threads = 1, .device_index = -1}), ERR_INVALID);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F32, .n_threads = 1 << 20}), ERR_INVALID);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F32, .n_threads = 1, .cpu_level = "x"}), ERR_INVALID);
    CHECK_INT(open_code(b, (struct backend_config){.dtype = DTYPE_F32, .n_threads = 1, .cpu_matmul = "x"}), ERR_INVALID);
    CHECK_INT(b->auto_dtype(DTYPE_F16), DTYPE_F32);
    CHECK_INT(b->auto_dtype(DTYPE_F32), DTYPE_F32);
    CHECK_INT(b->auto_dtype(DTYPE_BF16), cpu_level_detect() >= CPU_AVX512BF16 ? DTYPE_BF16 : DTYPE_F32);
}

/* What the device says of itself, and that its levels are the names that it takes. */
static void limits(const struct backend *b)
{
    struct backend_config c = {.dtype = DTYPE_F32, .n_threads = 1};
    struct kern_ctx *k;
    struct err err;
    if (!CHECK_INT(b->open(&c, &k, &err), 0))
        return;
    const struct backend_limits l = k->limits;
    b->close(k);
    CHECK(l.step_rows > 0);
    CHECK_INT(l.steps_in_flight, 1);
    CHECK(l.host_memory);
    CHECK_INT(l.level, cpu_level_detect());
    for (int i = 0; i < l.n_levels; i++) {
        c.cpu_level = l.levels[i];
        CHECK_INT(open_code(b, c), i <= l.level ? 0 : ERR_UNSUPPORTED);
    }
}

/* Float32 is portable but where AMX may take products in terms; other dtypes have the level's own class. */
static void classes(const struct backend *b)
{
    struct err err;
    for (int i = 0; i <= (int)cpu_level_detect(); i++)
        for (int high = 0; high < 2; high++)
            for (int bf16 = 0; bf16 < 2; bf16++) {
                struct backend_config c = {.dtype = bf16 ? DTYPE_BF16 : DTYPE_F32, .n_threads = 1, .cpu_level = cpu_level_names[i]};
                c.precision = high ? MATMUL_HIGH : MATMUL_HIGHEST;
                struct kern_ctx *k;
                char own[64];
                snprintf(own, sizeof(own), "cpu %s", cpu_level_names[i]);
                if (!CHECK_INT(b->open(&c, &k, &err), 0))
                    continue;
                CHECK_STR(b->numerics_class(k), bf16 || (high && i >= CPU_AMX) ? own : "portable-1");
                b->close(k);
            }
}

/* Whole pages between bytes that stay as they are. */
static void given_memory(const struct backend *b, struct kern_ctx *k)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 9 * page, from = page / 2, given = 6 * page;
    unsigned char *p = b->alloc_host(k, n), in_memory[10] = {0};
    if (!CHECK(p))
        return;
    memset(p, 7, n);
    b->give_host(k, p + from, 100); /* no whole page, wherever p lies */
    b->give_host(k, p + from, given);
    for (size_t i = 0; i < n; i++)
        if (i < from || i >= from + given)
            CHECK_INT(p[i], 7);
    int n_given = 0;
    unsigned char *first = (unsigned char *)((uintptr_t)(p + from) & ~(page - 1));
    CHECK_INT(mincore(first, 7 * page, in_memory), 0);
    for (int i = 0; i < 7; i++)
        n_given += !(in_memory[i] & 1);
    CHECK(n_given >= 5);
    memset(p, 8, n);
    CHECK_INT(p[from + given / 2], 8);
    b->free_host(k, p);
}

static void memory(const struct backend *b)
{
    struct backend_config c = {.dtype = DTYPE_F32, .n_threads = 1};
    struct backend_memory m;
    struct kern_ctx *k;
    struct err err;
    if (!CHECK_INT(b->open(&c, &k, &err), 0))
        return;
    CHECK_INT(b->memory(k, &m), 0);
    CHECK(m.total_bytes > 0 && m.free_bytes <= m.total_bytes);
    for (size_t bytes = 0; bytes < 300; bytes += 37) {
        struct dev_bytes *p = b->alloc(k, bytes);
        CHECK(p && (uintptr_t)p % 64 == 0);
        b->free(k, p);
    }
    CHECK(b->alloc(k, SIZE_MAX) == NULL);
    b->free(k, NULL);
    int from[3] = {1, 2, 3}, to[3] = {0};
    struct dev_bytes *dev = b->alloc(k, sizeof(from));
    CHECK_INT(b->upload(k, dev, from, sizeof(from)), 0);
    CHECK_INT(b->download(k, to, dev, sizeof(to)), 0);
    CHECK_INT(b->sync(k, &err), 0);
    CHECK(!memcmp(from, to, sizeof(to)));
    int *pinned = b->alloc_host(k, sizeof(to));
    CHECK(pinned && (uintptr_t)pinned % 64 == 0);
    CHECK_INT(b->fetch(k, pinned, dev, sizeof(to)), 0);
    CHECK_INT(b->mark(k, BACKEND_MARKS - 1), 0);
    CHECK_INT(b->wait(k, BACKEND_MARKS - 1, &err), 0);
    CHECK(pinned && !memcmp(from, pinned, sizeof(to)));
    b->free_host(k, pinned);
    b->free_host(k, NULL);
    given_memory(b, k);
    b->free(k, dev);
    b->close(k);
    b->close(NULL);
}

int main(void)
{
    const struct backend *cpu;
    struct err err;
    names();
    levels();
    if (CHECK_INT(backend_find("cpu", &cpu, &err), 0)) {
        settings(cpu);
        limits(cpu);
        memory(cpu);
        classes(cpu);
    }
    return check_result();
}
