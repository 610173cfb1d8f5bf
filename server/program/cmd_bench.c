/* dtrnet bench: the command. The workloads are in bench_engine.c and bench_http.c. */
#include "common/json.h"
#include "server/bench/bench.h"
#include "server/program/commands.h"
#include "server/program/settings.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LIST = 16 };

/* "512,2048" to numbers. */
static int read_list(const char *name, const char *text, int max, int ret[MAX_LIST], int *ret_n, struct err *err)
{
    *ret_n = 0;
    for (const char *p = text; *p; p += *p == ',') {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < 1 || v > max || *ret_n == MAX_LIST)
            return err_field(err, ERR_INVALID, name, "%s must be at most %d numbers in 1..%d with commas between, not \"%.60s\"", name,
                             MAX_LIST, max, text);
        ret[(*ret_n)++] = (int)v;
        p = end;
    }
    return 0;
}

/* Memory that the process holds now, 0 if it cannot be told. */
static size_t resident_bytes(void)
{
    size_t size, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu %zu", &size, &pages) != 2)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int add_totals(struct bench *b, double read_rate, struct err *err)
{
    size_t resident = resident_bytes();
    const struct engine_info *i = b->info;
    struct engine_stats s;
    engine_stats(b->engine, &s);
    json_t *j = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:f, s:{s:I, s:I, s:I}, s:{s:f, s:f, s:f}}", "version", DTRNET_VERSION,
        "device", i->device, "dtype", i->dtype, "numerics", i->numerics_class, "threads", i->n_threads, "max_batch_tokens",
        i->max_batch_tokens, "weight_bytes", (json_int_t)i->weight_bytes, "kv_row_bytes", (json_int_t)i->kv_row_bytes, "kv_rows_total",
        (json_int_t)i->kv_rows_total, "resident_bytes", (json_int_t)resident, "read_gb_per_s", read_rate, "device_memory", "total_bytes",
        (json_int_t)s.memory_total_bytes, "free_bytes", (json_int_t)s.memory_free_bytes, "workspace_bytes", (json_int_t)i->workspace_bytes,
        "busy_seconds", "matmul", s.matmul_s, "attention", s.attention_s, "other", s.other_s);
    int r = j && !json_object_update(b->report, j) ? 0 : err_set(err, ERR_NOMEM, "no memory for the report");
    json_decref(j);
    if (r >= 0 && b->o->json && (json_dumpf(b->report, stdout, JSON_INDENT(1)) || putchar('\n') == EOF))
        r = err_set(err, ERR_IO, "cannot write the report");
    else if (r >= 0 && !b->o->json)
        printf("weights %.1f MB, KV row %zu bytes, resident %.1f MB, memory read by %d threads %.1f GB/s; busy with matmuls %.3f s, "
               "attention %.3f s, other %.3f s\n",
               1e-6 * i->weight_bytes, i->kv_row_bytes, 1e-6 * resident, i->n_threads, read_rate, s.matmul_s, s.attention_s, s.other_s);
    return r;
}

enum { WORKLOADS = 4 };
static const char *const workload_names[WORKLOADS] = {"prefill", "score", "generate", "http"};

/* "score,http" to flags in the order of workload_names. */
static int read_workloads(const char *text, bool ret[WORKLOADS], struct err *err)
{
    memset(ret, 0, WORKLOADS * sizeof(*ret));
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, ",");
        int i = 0;
        while (i < WORKLOADS && (strlen(workload_names[i]) != len || memcmp(workload_names[i], p, len)))
            i++;
        if (i == WORKLOADS)
            return err_field(err, ERR_INVALID, "workloads", "workloads: \"%.*s\" is none of prefill, score, generate, http",
                             (int)(len < 60 ? len : 60), p);
        ret[i] = true;
        p += len + (p[len] == ',');
    }
    return 0;
}

static int run_workloads(struct bench *b, const bool wanted[WORKLOADS], struct err *err)
{
    int lengths[MAX_LIST], batches[MAX_LIST], n_lengths, n_batches;
    int r = read_list("lengths", b->o->lengths, b->info->max_model_len, lengths, &n_lengths, err);
    if (r >= 0)
        r = read_list("batches", b->o->batches, 4096, batches, &n_batches, err);
    for (int i = 0; r >= 0 && wanted[0] && i < n_lengths; i++)
        for (int j = 0; r >= 0 && j < n_batches; j++)
            r = bench_prefill(b, lengths[i], batches[j], err);
    if (r >= 0 && wanted[1])
        r = bench_score(b, err);
    for (int j = 0; r >= 0 && wanted[2] && j < n_batches; j++)
        r = bench_generate(b, batches[j], err);
    if (r >= 0 && wanted[3])
        r = bench_http(b, err);
    return r;
}

static int run(const struct options *o, struct server *s, const bool wanted[WORKLOADS], struct err *err)
{
    struct bench b = {.server = s, .o = o, .engine = s->engine, .info = s->info, .random = 88172645463325252ull};
    b.report = json_pack("{s:[]}", "workloads");
    if (!b.report)
        return err_set(err, ERR_NOMEM, "no memory for the report");
    double rate = wanted[2] && b.info->host_memory ? bench_probe_read(b.info->n_threads) : 0;
    int r = run_workloads(&b, wanted, err);
    if (r >= 0)
        r = add_totals(&b, rate, err);
    json_decref(b.report);
    return r;
}

static int bench(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    struct server_settings settings;
    struct server *s = NULL;
    bool wanted[WORKLOADS];
    int r = read_workloads(o->workloads, wanted, err);
    if (r >= 0)
        r = settings_open_server(o, arena, log, &settings, &s, err);
    if (r >= 0)
        r = run(o, s, wanted, err);
    server_close(s);
    return r;
}

int cmd_bench(int argc, char **argv)
{
    return command_run(COMMAND_BENCH, "time fixed workloads on random tokens", argc, argv, bench);
}
