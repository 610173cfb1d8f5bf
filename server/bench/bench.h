/* What the files of `dtrnet bench` share. The command is cmd_bench.c; each workload times fixed work on random tokens or words, --repeats
 * times after one run to warm up, each with an empty prefix cache, and adds a row of medians to the report. */
#pragma once
#include "server/api/server.h"
#include "server/program/options.h"
#include <jansson.h>

enum { BENCH_MAX_REPEATS = 99, BENCH_CONTEXT = 160, BENCH_CONTINUATIONS = 4, BENCH_CONTINUATION = 12 };

struct bench {
    struct server *server;
    const struct options *o;
    struct engine *engine;
    const struct engine_info *info;
    json_t *report; /* {"workloads": [...]} */
    uint64_t random;
};

/* bench_engine.c: straight into the engine. */
int bench_prefill(struct bench *b, int length, int batch, struct err *err);
int bench_score(struct bench *b, struct err *err);
int bench_generate(struct bench *b, int batch, struct err *err);
/* bench_http.c: the same questions as bench_score through a listener of this process, over o->connections kept connections. */
int bench_http(struct bench *b, struct err *err);
/* bench_probe.c: GB/s of memory that `threads` threads read, the best of several passes over memory that no cache holds; 0 if it cannot be told. */
double bench_probe_read(int threads);

/* bench.c */
double bench_seconds(void);
double bench_cpu_seconds(void);        /* of all threads: what is left to compare on a machine that others use too */
double bench_median(double *v, int n); /* sorts v */
uint64_t bench_random(struct bench *b);
/* [n] ids that no other call has in the same order; the caller's. NULL: no memory. */
int32_t *bench_random_tokens(struct bench *b, size_t n);
/* Takes a row of the report over; NULL stands for one that there was no memory for. */
int bench_add_row(struct bench *b, json_t *row, struct err *err);
