/* dtrnet inspect: what a checkpoint, or a config alone, amounts to. engine/tools/inspect.h makes the report; this prints it. */
#include "engine/tools/inspect.h"
#include "server/api/names.h"
#include "server/program/commands.h"
#include "server/program/options.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_MAX_BYTES ((size_t)1 << 26)

static int dtype_of(const char *name)
{
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (!strcmp(dtype_name((enum dtype)t), name))
            return t;
    return -1;
}

static int print(const json_t *report, bool as_json, struct err *err)
{
    struct buf table;
    buf_init(&table, REPORT_MAX_BYTES);
    char *text = as_json ? json_dumps(report, JSON_INDENT(2)) : NULL;
    int r = as_json ? (text ? buf_printf(&table, "%s\n", text) : ERR_NOMEM) : inspect_table(report, &table);
    if (r >= 0 && (fputs(table.data, stdout) == EOF || fflush(stdout) == EOF))
        r = ERR_IO;
    free(text);
    buf_done(&table);
    return r < 0 ? err_set(err, r, "the report cannot be printed: %s", err_name(r)) : 0;
}

static int inspect(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    json_t *report = NULL;
    int r = o->model ? 0 : options_shipped_model(arena, &o->model, err);
    struct inspect_options i = {.model = o->model,
                                .family = o->family,
                                .route_rate = o->route_rate,
                                .execute_rate = o->execute_rate,
                                .context = o->context,
                                .kv_dtype = dtype_of(o->dtype),
                                .rope_scaling = o->rope_scaling,
                                .rope_factor = o->rope_factor,
                                .accept_keys = o->accept_config_key,
                                .dense_layers = o->dense_layers,
                                .expert_choice = o->expert_choice,
                                .log = log};
    if (r >= 0)
        r = inspect_report(&i, &report, err);
    if (r >= 0)
        r = print(report, o->json, err);
    if (r < 0)
        names_as_flags(err);
    json_decref(report);
    return r;
}

int cmd_inspect(int argc, char **argv)
{
    return command_run(COMMAND_INSPECT, "layer plan, parameters, FLOPs and KV bytes of a checkpoint or a config", argc, argv, inspect);
}
