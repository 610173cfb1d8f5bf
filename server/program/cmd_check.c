/* dtrnet check: is a checkpoint good to serve? Opens it as `serve` would, with the same flags, so that every file is read and every tensor checked,
 * and runs a self-test. A line for each thing that holds; exit status 0, or one line that names the fault and 1 or 2. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "server/program/commands.h"
#include "server/program/self_test.h"
#include "server/program/settings.h"
#include <stdio.h>

#define REPORT_MAX 65536

static int print_model(const struct server *s, const char *hash, struct buf *out)
{
    const struct engine_info *i = s->info;
    int routed = 0;
    for (int l = 0; l < i->config->n_layers; l++)
        routed += layer_is_routed(&i->plan[l]);
    int r = buf_printf(out, "ok  config.json: %s, %d layers, %d of them routed, vocabulary %d, up to %d positions\n",
                       layer_plan_family(i->plan, i->config->n_layers), i->config->n_layers, routed, i->config->vocab, i->max_model_len);
    if (r >= 0)
        r = buf_printf(out, "ok  weights: every tensor there, of its shape and finite; %.1f MiB as %s on %s; hash %s\n",
                       (double)i->weight_bytes / 1048576, i->dtype, i->device, hash);
    if (r >= 0 && s->tokenizer)
        r = buf_printf(out, "ok  tokenizer: %d ids, bos %d, eos %d, by the rules of transformers %d\n", tokenizer_vocab_size(s->tokenizer),
                       s->bos, s->eos, (int)tokenizer_rules(s->tokenizer));
    return r < 0 ? r : buf_printf(out, "ok  memory: %zu rows of K and V, %zu bytes each\n", i->kv_rows_total, i->kv_row_bytes);
}

static int check(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    struct server_settings settings;
    struct server *s = NULL;
    struct buf out;
    const char *hash = NULL;
    buf_init(&out, REPORT_MAX);
    int r = settings_open_server(o, arena, log, &settings, &s, err);
    if (r >= 0)
        r = engine_model_hash(s->engine, true, &hash, err);
    if (r >= 0)
        r = print_model(s, hash, &out) < 0 ? err_set(err, ERR_NOMEM, "no memory for the report") : self_test_run(s, &out, err);
    fwrite(out.data, 1, out.len, stdout);
    if (r >= 0)
        printf("%s can be served\n", settings.engine.model_dir);
    if (fflush(stdout) == EOF)
        r = err_set(err, ERR_IO, "the report cannot be written");
    buf_done(&out);
    server_close(s);
    return r;
}

int cmd_check(int argc, char **argv)
{
    return command_run(COMMAND_CHECK, "validate a checkpoint and score a self-test", argc, argv, check);
}
