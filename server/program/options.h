/* The settings of every command that loads a model: one table (options.c), one struct. */
#pragma once
#include "server/program/option_rows.h"

enum command { COMMAND_SERVE = 1, COMMAND_SCORE = 2, COMMAND_INSPECT = 4, COMMAND_BENCH = 8, COMMAND_CHECK = 16, COMMAND_HEALTH = 32 };

struct options {
    /* the model and the engine */
    const char *model;     /* directory; NULL: the model that comes with the program */
    const char *tokenizer; /* directory; NULL: the model's */
    const char *device, *dtype;
    const char *devices; /* "0,2", "all" or NULL */
    int tensor_parallel;
    const char *matmul_precision; /* "highest" or "high" */
    int threads;                  /* 0: all that the process may use */
    const char *cpu_level;        /* NULL: the machine's */
    const char *cuda_level;       /* NULL: the device's */
    int max_model_len;            /* 0: the model's */
    int max_batch_tokens;         /* 0: the device's default */
    size_t kv_cache_memory;       /* bytes; 0: a share of free memory */
    bool prefix_cache;
    const char *rope_scaling;      /* JSON text or NULL */
    const char *rope_factor;       /* "config", "ratio" or NULL */
    const char *dense_layers;      /* "0,2,4", "all", "none" or NULL */
    const char *expert_choice;     /* "exact", "threshold" or NULL */
    const char *tokenizer_rules;   /* "4" or "5" */
    const char *accept_config_key; /* "a,b" or NULL */
    int bos_id, eos_id;            /* -1: from the model's files */
    int max_queue;                 /* sequences that wait at most */
    /* the server */
    const char *host;
    const char *allow_host;        /* names beside those that are always good; NULL: on loopback none, else all */
    int port;                      /* 0: a free one */
    const char *served_model_name; /* NULL: the directory's name */
    bool strict_model_name;
    const char *trusted_proxy;          /* NULL: none */
    const char *api_key, *api_key_file; /* NULL: none needed */
    const char *tls_cert, *tls_key;
    int max_connections, header_timeout_s, idle_timeout_s, transfer_period_s;
    size_t min_rate;                       /* bytes a second */
    size_t max_body_bytes, request_memory; /* request_memory 0: a share of what is free */
    bool tokenizer_info;
    const char *cors_origin; /* "*", or origins with commas between; NULL: none */
    const char *gzip;        /* "auto", "on", "off" */
    double shutdown_delay_s;
    int drain_timeout_s;
    /* inspect, bench */
    bool json;
    const char *family;  /* NULL: as the tensors or the config say */
    double execute_rate; /* share of rows that a nested layer executes */
    double route_rate;   /* share of rows that a routed layer attends, for FLOPs and KV bytes */
    int context;         /* tokens of context for the cost of attention; 0: the model's limit */
    /* bench */
    const char *workloads;         /* of "prefill,score,generate,http" */
    const char *lengths, *batches; /* "512,2048" */
    int generate, connections, repeats;
    bool random_weights;
    int seed; /* of random weights */
    /* health */
    bool ready; /* ask /ready */
    double timeout_s;
    /* all */
    const char *config;
    const char *log_format, *log_level, *log_file; /* log_file NULL: stderr */
};

extern const struct option_table options_table;

/* As option_rows_parse, and checks what spans several rows (a certificate needs its key). */
int options_parse(enum command command, int argc, char **argv, struct arena *arena, struct options *ret, bool *ret_help, struct err *err);

/* Directory of the model that comes with the program, in `arena`: beside the executable in the source tree, else where it was
 * installed; never relative to the working directory. ERR_NOT_FOUND names the places that were tried. */
int options_shipped_model(struct arena *arena, const char **ret_dir, struct err *err);
