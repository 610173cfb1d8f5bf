/* What every handler shares: the engine, the tokenizer, the settings, the metrics and the log. */
#pragma once
#include "common/arena.h"
#include "common/budget.h"
#include "common/log.h"
#include "engine/engine.h"
#include "server/api/client_id.h"
#include "server/api/keys.h"
#include "server/api/metrics.h"
#include "server/api/spellings.h"
#include "tokenizer/tokenizer.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define SERVER_NOTED_NAMES 64

/* What the program decides. Strings are borrowed and outlive the server. */
struct server_settings {
    struct engine_options engine;         /* model_dir is needed; bos_id and eos_id -1: from the model's files; log: the server's too */
    const char *model_name;               /* NULL: the last part of model_dir */
    const char *tokenizer_dir;            /* NULL: model_dir */
    const char *allow_host;               /* hosts.h; NULL: any */
    bool strict_model_name;               /* refuse requests whose `model` is another */
    bool tokenizer_info;                  /* answer /tokenizer_info */
    enum tokenizer_rules tokenizer_rules; /* whose reading of the tokenizer's files is followed */
    struct client_proxies proxies;        /* who may tell for whom it asks */
    struct keys *keys;                    /* borrowed; NULL: none is needed */
    struct budget *budget;                /* of requests; borrowed; NULL: none. Its limit is set when the model is loaded */
    size_t request_memory;                /* the limit; 0: a share of what is then free */
};

struct server {
    const struct server_settings *settings;
    struct log *log;
    struct arena arena; /* as long as the server */
    const char *model_name;
    struct engine *engine;
    const struct engine_info *info;
    struct tokenizer *tokenizer; /* NULL: the checkpoint has none, requests are made of ids */
    struct spellings spellings;  /* of its tokens in answers */
    char tokenizer_hash[65];     /* of its files (tokenizer_hash.h); empty without one */
    int32_t bos, eos;            /* -1: none. From the settings, else the tokenizer's files, else the checkpoint's */
    struct metrics metrics;
    time_t started;
    atomic_bool loaded;         /* engine, info, tokenizer, bos and eos are there */
    atomic_bool stopping;       /* /ready says 503 */
    atomic_bool draining;       /* new work is refused */
    pthread_mutex_t noted_lock; /* unknown request fields, told once each; innermost lock */
    const char *noted[SERVER_NOTED_NAMES];
    int n_noted;
};

/* A server that says it is loading. `settings` is borrowed and must outlive it. */
int server_new(const struct server_settings *settings, struct server **ret, struct err *err);
/* Loads the checkpoint and its tokenizer. Errors name the engine's fields; the server is then good for server_close alone. */
int server_load(struct server *s, struct err *err);
/* Both at once. */
int server_open(const struct server_settings *settings, struct server **ret, struct err *err);
void server_close(struct server *s); /* NULL is valid */

/* Where the tokenizer is read. */
const char *server_tokenizer_dir(const struct server *s);

/* Logs once for each name that a request field is unknown and ignored. Any thread. */
void server_note_unknown(struct server *s, const char *request_id, const char *field);
