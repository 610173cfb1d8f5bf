/* What every handler shares: the engine, the tokenizer, the settings, the metrics and the log. */
#pragma once
#include "common/log.h"
#include "engine/engine.h"
#include "server/api/metrics.h"
#include "server/program/options.h"
#include "tokenizer/tokenizer.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define SERVER_NOTED_NAMES 64

struct server {
    const struct options *options;
    struct log *log;
    struct arena arena; /* as long as the server */
    const char *model_dir, *model_name;
    struct engine *engine;
    const struct engine_info *info;
    struct tokenizer *tokenizer; /* NULL: the checkpoint has none, requests are made of ids */
    int32_t bos, eos;            /* -1: none. From the flags, else the tokenizer's files, else the checkpoint's */
    struct metrics metrics;
    time_t started;
    atomic_bool stopping;       /* /ready says 503 */
    pthread_mutex_t noted_lock; /* unknown request fields, told once each; innermost lock */
    const char *noted[SERVER_NOTED_NAMES];
    int n_noted;
};

/* Loads the checkpoint and its tokenizer. `o` and `log` are borrowed and must outlive the server. */
int server_open(const struct options *o, struct log *log, struct server **ret, struct err *err);
void server_close(struct server *s); /* NULL is valid */

/* Logs once for each name that a request field is unknown and ignored. Any thread. */
void server_note_unknown(struct server *s, const char *request_id, const char *field);
/* The logger that the settings ask for, on stderr. */
int server_log(const struct options *o, struct log **ret, struct err *err);
