/* See settings.h. */
#include "server/program/settings.h"
#include "server/api/names.h"
#include "server/http/hosts.h"
#include <string.h>
#include <unistd.h>

int settings_open_log(const struct options *o, struct log **ret, struct err *err)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    enum log_level level = LOG_INFO;
    for (int i = 0; i < 4; i++)
        if (!strcmp(o->log_level, levels[i]))
            level = (enum log_level)i;
    enum log_format format = strcmp(o->log_format, "json") ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
    if (o->log_file)
        return log_open(o->log_file, format, level, ret, err);
    return log_new(STDERR_FILENO, format, level, ret) < 0 ? err_set(err, ERR_NOMEM, "no memory for the log") : 0;
}

int settings_of_server(const struct options *o, struct keys *keys, struct arena *arena, struct log *log, struct server_settings *ret,
                       struct err *err)
{
    *ret = (struct server_settings){
        .engine = {.model_dir = o->model,
                   .device = o->device,
                   .device_list = o->devices,
                   .tensor_parallel = o->tensor_parallel,
                   .dtype = o->dtype,
                   .matmul_precision = o->matmul_precision,
                   .n_threads = o->threads,
                   .cpu_level = o->cpu_level,
                   .cuda_level = o->cuda_level,
                   .max_model_len = o->max_model_len,
                   .max_batch_tokens = o->max_batch_tokens,
                   .kv_cache_bytes = o->kv_cache_memory,
                   .prefix_cache = o->prefix_cache,
                   .rope_scaling = o->rope_scaling,
                   .rope_factor = o->rope_factor,
                   .accept_keys = o->accept_config_key,
                   .dense_layers = o->dense_layers,
                   .expert_choice = o->expert_choice,
                   .bos_id = o->bos_id,
                   .eos_id = o->eos_id,
                   .random_weights = o->random_weights,
                   .seed = (uint64_t)o->seed,
                   .max_queue = o->max_queue,
                   .log = log},
        .model_name = o->served_model_name,
        .tokenizer_dir = o->tokenizer,
        .allow_host = o->allow_host                           ? o->allow_host
                      : o->host && hosts_is_loopback(o->host) ? ""
                                                              : NULL,
        .strict_model_name = o->strict_model_name,
        .tokenizer_info = o->tokenizer_info,
        .tokenizer_rules = o->tokenizer_rules && !strcmp(o->tokenizer_rules, "5") ? TOKENIZER_RULES_5 : TOKENIZER_RULES_4,
        .request_memory = o->request_memory,
        .keys = keys,
    };
    int r = client_proxies_read(o->trusted_proxy, &ret->proxies, err);
    if (r < 0)
        return r;
    return o->model ? 0 : options_shipped_model(arena, &ret->engine.model_dir, err);
}

int settings_open_server(const struct options *o, struct arena *arena, struct log *log, struct server_settings *ret_settings,
                         struct server **ret, struct err *err)
{
    int r = settings_of_server(o, NULL, arena, log, ret_settings, err);
    if (r >= 0)
        r = server_open(ret_settings, ret, err);
    if (r < 0)
        names_as_flags(err);
    return r;
}
