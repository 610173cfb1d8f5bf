/* The one table of settings, and where the shipped model lies. */
#include "server/program/options.h"
#include "server/http/cors.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AT(member) offsetof(struct options, member)
#define SERVE COMMAND_SERVE
#define HEALTH COMMAND_HEALTH
#define LOADS (COMMAND_SERVE | COMMAND_SCORE | COMMAND_INSPECT | COMMAND_BENCH | COMMAND_CHECK)
#define RUNS (COMMAND_SERVE | COMMAND_SCORE | COMMAND_BENCH | COMMAND_CHECK)
#define GIB 1073741824.0

static const struct option_row rows[] = {
    /* name, type, commands, member, min, max, choices, default, value, help */
    {"model", OPTION_STRING, LOADS, AT(model), 0, 0, NULL, NULL, "DIR",
     "checkpoint as Hugging Face saves it; default: the small model that comes with dtrnet"},
    {"host", OPTION_STRING, SERVE | HEALTH, AT(host), 0, 0, NULL, "127.0.0.1", "ADDRESS", "address to listen on"},
    {"allow-host", OPTION_LIST, SERVE, AT(allow_host), 0, 0, NULL, NULL, "LIST",
     "names that requests may be meant for (Host), beside addresses, localhost and names without a dot; *: any; default: none on loopback, "
     "else any"},
    {"port", OPTION_INT, SERVE | HEALTH, AT(port), 0, 65535, NULL, "8000", "N", "port to listen on; 0 picks a free one"},
    {"device", OPTION_CHOICE, RUNS, AT(device), 0, 0, "auto|cpu|cuda", "auto", NULL, "where to compute"},
    {"devices", OPTION_LIST, RUNS, AT(devices), 0, 0, NULL, NULL, "LIST",
     "which devices, by number: 0,2 or all; each has all of the model, and requests are divided among them; the cpu can be named as "
     "0,1,... for "
     "tests; default: 0"},
    {"tensor-parallel", OPTION_INT, RUNS, AT(tensor_parallel), 1, 16, NULL, "1", "N",
     "devices that compute one model together, each a part of it, with the bits of one; with --devices, in groups of N"},
    {"dtype", OPTION_CHOICE, LOADS, AT(dtype), 0, 0, "auto|f32|bf16|f16", "auto", NULL,
     "what to compute in, and what K and V are stored in; f32 is the reference"},
    {"matmul-precision", OPTION_CHOICE, RUNS, AT(matmul_precision), 0, 0, "highest|high", "highest", NULL,
     "in f32: highest gives the same bits on every machine (portable-1); high lets tensor cores and AMX take products in terms of 16 bits, "
     "as near to the exact sums, faster and of another class; a device without them computes highest"},
    {"threads", OPTION_INT, RUNS, AT(threads), 0, 1024, NULL, "0", "N", "CPU threads; 0: all that the process may use"},
    {"cpu-level", OPTION_CHOICE, RUNS, AT(cpu_level), 0, 0, "scalar|avx2|avx512|avx512bf16|amx", NULL, NULL,
     "highest CPU level to use; default: the machine's"},
    {"cuda-level", OPTION_CHOICE, RUNS, AT(cuda_level), 0, 0, "simt|mma|wgmma", NULL, NULL,
     "highest level of CUDA kernels to use; default: the device's"},
    {"max-model-len", OPTION_INT, RUNS, AT(max_model_len), 0, 16777216, NULL, "0", "N",
     "positions of a sequence; 0: the model's own limit"},
    {"max-batch-tokens", OPTION_INT, RUNS, AT(max_batch_tokens), 0, 1048576, NULL, "0", "N", "rows of one step; 0: the device's default"},
    {"kv-cache-memory", OPTION_SIZE, RUNS, AT(kv_cache_memory), 0, 16384 * GIB, NULL, "0", "SIZE",
     "memory for K and V on each device (K, M or G may follow); 0: a share of what is free"},
    {"prefix-cache", OPTION_ON_OFF, RUNS, AT(prefix_cache), 0, 0, NULL, "on", NULL, "reuse computed prefixes across requests"},
    {"rope-scaling", OPTION_JSON, LOADS, AT(rope_scaling), 0, 0, NULL, NULL, "JSON",
     "RoPE scaling instead of config.json's, e.g. {\"rope_type\":\"yarn\",\"factor\":4}"},
    {"rope-factor", OPTION_CHOICE, LOADS, AT(rope_factor), 0, 0, "config|ratio", NULL, NULL,
     "YaRN where config.json has both lengths: take its factor (transformers 4.57 and 5) or the ratio of the lengths (4.52); default: "
     "ratio in "
     "rope_scaling of llama models, config elsewhere"},
    {"accept-config-key", OPTION_NAMES, LOADS, AT(accept_config_key), 0, 0, NULL, NULL, "NAME",
     "pass over a key of config.json that dtrnet does not know, which you say changes nothing; may be given several times"},
    {"dense-layers", OPTION_LIST, LOADS, AT(dense_layers), 0, 0, NULL, NULL, "LIST",
     "layers to run dense: 0,2,4 or all or none; default: as the checkpoint says"},
    {"expert-choice", OPTION_CHOICE, LOADS, AT(expert_choice), 0, 0, "exact|threshold", NULL, NULL,
     "how expert-choice models select tokens; default: as the checkpoint says"},
    {"bos-id", OPTION_INT, RUNS, AT(bos_id), -1, 2147483647, NULL, "-1", "N", "id of BOS; -1: from the model's files"},
    {"eos-id", OPTION_INT, RUNS, AT(eos_id), -1, 2147483647, NULL, "-1", "N", "id of EOS; -1: from the model's files"},
    {"tokenizer", OPTION_STRING, RUNS, AT(tokenizer), 0, 0, NULL, NULL, "DIR",
     "directory of the tokenizer's files; default: the checkpoint's own"},
    {"tokenizer-rules", OPTION_CHOICE, RUNS, AT(tokenizer_rules), 0, 0, "4|5", "4", NULL,
     "whose reading of the tokenizer's files counts: transformers 4's (4.57) or 5's (5.24)"},
    {"max-queue", OPTION_INT, RUNS, AT(max_queue), 1, 16777216, NULL, "65536", "N",
     "sequences that may wait; beyond that requests get 503"},
    {"served-model-name", OPTION_STRING, SERVE, AT(served_model_name), 0, 0, NULL, NULL, "NAME",
     "name in answers and /v1/models; default: the directory's name"},
    {"strict-model-name", OPTION_FLAG, SERVE, AT(strict_model_name), 0, 0, NULL, "off", NULL,
     "refuse requests whose `model` is another name"},
    {"api-key", OPTION_STRING, SERVE, AT(api_key), 0, 0, NULL, NULL, "KEY",
     "require `Authorization: Bearer KEY` (better given in the environment)"},
    {"trusted-proxy", OPTION_STRING, SERVE, AT(trusted_proxy), 0, 0, NULL, NULL, "LIST",
     "ADDR or ADDR/BITS of proxies whose X-Forwarded-For tells clients apart that have no key with a name; separated by commas"},
    {"api-key-file", OPTION_STRING, SERVE, AT(api_key_file), 0, 0, NULL, NULL, "FILE",
     "keys of several clients: a line NAME KEY for each; read again on SIGHUP"},
    {"tls-cert", OPTION_STRING, SERVE | HEALTH, AT(tls_cert), 0, 0, NULL, NULL, "FILE", "PEM certificate chain; needs --tls-key"},
    {"tls-key", OPTION_STRING, SERVE | HEALTH, AT(tls_key), 0, 0, NULL, NULL, "FILE", "PEM private key; needs --tls-cert"},
    {"max-connections", OPTION_INT, SERVE, AT(max_connections), 1, 65536, NULL, "1024", "N",
     "connections open at once; beyond them idle ones give way, and when all are busy requests get 503"},
    {"header-timeout", OPTION_INT, SERVE, AT(header_timeout_s), 1, 86400, NULL, "20", "SECONDS",
     "closes a connection whose request headers are not complete within so long"},
    {"idle-timeout", OPTION_INT, SERVE, AT(idle_timeout_s), 1, 86400, NULL, "300", "SECONDS",
     "closes a connection that has no request, sends nothing of a body or takes nothing of an answer for so long"},
    {"transfer-period", OPTION_INT, SERVE, AT(transfer_period_s), 1, 86400, NULL, "30", "SECONDS",
     "over every such period of a body or an answer under way --min-rate must be kept"},
    {"min-rate", OPTION_SIZE, SERVE, AT(min_rate), 0, GIB, NULL, "16K", "SIZE",
     "bytes a second, on average, below which a body or an answer is given up"},
    {"max-body", OPTION_SIZE, SERVE, AT(max_body_bytes), 1024, GIB, NULL, "64M", "SIZE", "largest request body"},
    {"request-memory", OPTION_SIZE, SERVE, AT(request_memory), 0, 16384 * GIB, NULL, "0", "SIZE",
     "memory that all requests together may hold; 0: a quarter of what is free when the model is loaded"},
    {"cors-origin", OPTION_LIST, SERVE, AT(cors_origin), 0, 0, NULL, NULL, "LIST",
     "origins whose pages may ask from a browser: https://host,http://host:3000 or *; default: none"},
    {"gzip", OPTION_CHOICE, SERVE, AT(gzip), 0, 0, "auto|on|off", "auto", NULL,
     "compress answers for clients that send Accept-Encoding: gzip; auto: not for those on this machine"},
    {"shutdown-delay", OPTION_DOUBLE, SERVE, AT(shutdown_delay_s), 0, 3600, NULL, "1", "SECONDS",
     "after SIGTERM requests are served for so long while /ready says 503; then no connection is taken"},
    {"drain-timeout", OPTION_INT, SERVE, AT(drain_timeout_s), 0, 86400, NULL, "30", "SECONDS",
     "then requests in flight have so long to end; those left get 503"},
    {"tokenizer-info", OPTION_ON_OFF, SERVE, AT(tokenizer_info), 0, 0, NULL, "on", NULL, "answer GET /tokenizer_info"},
    {"json", OPTION_FLAG, COMMAND_INSPECT | COMMAND_BENCH, AT(json), 0, 0, NULL, "off", NULL, "print JSON"},
    {"family", OPTION_CHOICE, COMMAND_INSPECT, AT(family), 0, 0, "dense|dtrnet|mod|dllm", NULL, NULL,
     "how to read a config without tensors; default: dtrnet if it has dtrnet_layers"},
    {"context", OPTION_INT, COMMAND_INSPECT, AT(context), 0, 16777216, NULL, "0", "N",
     "tokens of context for the cost of attention; 0: the model's limit"},
    {"route-rate", OPTION_DOUBLE, COMMAND_INSPECT, AT(route_rate), 0, 1, NULL, "0.1", "SHARE",
     "share of tokens that attend in a routed layer, for FLOPs and bytes"},
    {"execute-rate", OPTION_DOUBLE, COMMAND_INSPECT, AT(execute_rate), 0, 1, NULL, "0.6", "SHARE",
     "share of tokens that a nested layer executes; the routing rate is then of these"},
    {"workloads", OPTION_LIST, COMMAND_BENCH, AT(workloads), 0, 0, NULL, "prefill,score,generate,http", "LIST", "what to time"},
    {"lengths", OPTION_LIST, COMMAND_BENCH, AT(lengths), 0, 0, NULL, "512", "LIST", "tokens of a prompt in the prefill workload"},
    {"batches", OPTION_LIST, COMMAND_BENCH, AT(batches), 0, 0, NULL, "1,4", "LIST", "sequences at once in prefill and generate"},
    {"generate", OPTION_INT, COMMAND_BENCH, AT(generate), 2, 65536, NULL, "64", "N",
     "tokens that each sequence of the generate workload makes"},
    {"connections", OPTION_INT, COMMAND_BENCH, AT(connections), 1, 256, NULL, "4", "N", "connections of the http workload"},
    {"repeats", OPTION_INT, COMMAND_BENCH, AT(repeats), 1, 99, NULL, "3", "N", "runs of a workload after one to warm up; medians are told"},
    {"random-weights", OPTION_FLAG, COMMAND_BENCH, AT(random_weights), 0, 0, NULL, "off", NULL,
     "fill the device with random weights; --model names a config.json, or a directory with one, and no weights are read"},
    {"seed", OPTION_INT, COMMAND_BENCH, AT(seed), 0, 2147483647, NULL, "1", "N", "of random weights"},
    {"ready", OPTION_FLAG, HEALTH, AT(ready), 0, 0, NULL, "off", NULL,
     "ask /ready, which says no while the model is loaded and before a stop"},
    {"timeout", OPTION_DOUBLE, HEALTH, AT(timeout_s), 0.01, 3600, NULL, "2", "SECONDS", "no answer in so long means no"},
    {"config", OPTION_STRING, LOADS | HEALTH, AT(config), 0, 0, NULL, NULL, "FILE.json",
     "settings from a file: {\"port\": 8000, \"max_model_len\": 4096}"},
    {"log-file", OPTION_STRING, LOADS | HEALTH, AT(log_file), 0, 0, NULL, NULL, "FILE",
     "appends the log to a file instead of stderr; opened again on SIGHUP"},
    {"log-format", OPTION_CHOICE, LOADS | HEALTH, AT(log_format), 0, 0, "text|json", "text", NULL, "form of the log lines on stderr"},
    {"log-level", OPTION_CHOICE, LOADS | HEALTH, AT(log_level), 0, 0, "debug|info|warn|error", "info", NULL,
     "lines below this level are dropped"},
};

const struct option_table options_table = {rows, sizeof(rows) / sizeof(rows[0]), "DTRNET_", "config"};

int options_parse(enum command command, int argc, char **argv, struct arena *arena, struct options *ret, bool *ret_help, struct err *err)
{
    struct options o = {0};
    int r = option_rows_parse(&options_table, command, argc, argv, arena, &o, ret_help, err);
    if (r < 0 || *ret_help)
        return r;
    if (!o.tls_cert != !o.tls_key)
        return err_field(err, ERR_INVALID, o.tls_cert ? "tls-key" : "tls-cert",
                         "--tls-cert and --tls-key must be given together; --tls-%s is missing", o.tls_cert ? "key" : "cert");
    r = cors_check(o.cors_origin, err);
    if (r >= 0)
        *ret = o;
    return r < 0 ? r : 0;
}

static int try_place(const char *base, const char *below, const char *name, struct arena *arena, const char **ret_dir)
{
    char path[8192], real[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s%s%s/config.json", base, below, name);
    if (n < 0 || n >= (int)sizeof(path) || access(path, R_OK))
        return 0;
    path[n - (int)strlen("/config.json")] = 0;
    *ret_dir = realpath(path, real) ? arena_strndup(arena, real, strlen(real)) : NULL;
    return *ret_dir != NULL;
}

/* The executable lies in the build directory of the source tree, in bin/ beside share/, or anywhere (then the build's own paths). */
int options_shipped_model(struct arena *arena, const char **ret_dir, struct err *err)
{
    static const char name[] = "models/dtrnet-26m";
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = 0;
    if (strrchr(exe, '/'))
        *strrchr(exe, '/') = 0;
    if (try_place(exe, "/../", name, arena, ret_dir) || try_place(exe, "/../share/dtrnet/", name, arena, ret_dir) ||
        try_place(DTRNET_DATADIR, "/", name, arena, ret_dir) || try_place(DTRNET_SOURCE_ROOT, "/", name, arena, ret_dir))
        return 0;
    return err_field(err, ERR_NOT_FOUND, "model", "%s was not found beside the program nor in %s; name a model with --model", name,
                     DTRNET_DATADIR);
}
