/* dtrnet synth: a random checkpoint whose routers select a given share of tokens (engine/tools/synth.h). */
#include "engine/tools/synth.h"
#include "server/api/names.h"
#include "server/program/commands.h"
#include "server/program/option_rows.h"
#include "server/program/synth_tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct synth_flags {
    const char *config, *out, *family, *tokenizer;
    double route_rate, execute_rate;
    int seed, tokens, threads;
    const char *log_level;
};

#define AT(member) offsetof(struct synth_flags, member)

static const struct option_row rows[] = {
    {"config", OPTION_STRING, 1, AT(config), 0, 0, NULL, NULL, "FILE", "config.json that gives the shape; needed"},
    {"out", OPTION_STRING, 1, AT(out), 0, 0, NULL, NULL, "DIR", "directory for the checkpoint; needed; must not hold one"},
    {"tokenizer", OPTION_STRING, 1, AT(tokenizer), 0, 0, NULL, NULL, "DIR",
     "directory whose tokenizer is copied to the checkpoint; default: none, and requests are made of ids"},
    {"family", OPTION_CHOICE, 1, AT(family), 0, 0, "dense|dtrnet|mod|dllm", NULL, NULL,
     "default: dtrnet if the config has dtrnet_layers, else dense"},
    {"route-rate", OPTION_DOUBLE, 1, AT(route_rate), 0, 1, NULL, "0.1", "SHARE",
     "share of tokens that every routed layer selects; in nested layers, of those that are executed"},
    {"execute-rate", OPTION_DOUBLE, 1, AT(execute_rate), 0, 1, NULL, "0.6", "SHARE", "share of tokens that every nested layer executes"},
    {"seed", OPTION_INT, 1, AT(seed), 0, 2147483647, NULL, "1", "N", "the same seed gives the same weights"},
    {"tokens", OPTION_INT, 1, AT(tokens), 1, 16777216, NULL, "32768", "N", "random tokens to calibrate on, and others to measure on"},
    {"threads", OPTION_INT, 1, AT(threads), 0, 1024, NULL, "0", "N", "CPU threads; 0: all that the process may use"},
    {"log-level", OPTION_CHOICE, 1, AT(log_level), 0, 0, "debug|info|warn|error", "info", NULL, "lines below this level are dropped"},
};

static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0]), NULL, NULL};

static int print_help(void)
{
    struct buf help;
    buf_init(&help, 1 << 16);
    int r = option_rows_help(&table, 1, &help);
    if (r >= 0)
        printf(
            "dtrnet synth: write a random checkpoint with calibrated routers\n\nusage: dtrnet synth --config FILE --out DIR [FLAGS]\n\n%s",
            help.data);
    buf_done(&help);
    return r < 0 ? EXIT_FAILED : EXIT_OK;
}

static int open_log(const char *level, struct log **ret, struct err *err)
{
    static const char *const names[] = {"debug", "info", "warn", "error"}; /* in the order of enum log_level */
    int l = 0;
    while (l < 3 && strcmp(names[l], level))
        l++;
    return log_new(STDERR_FILENO, LOG_FORMAT_TEXT, (enum log_level)l, ret) < 0 ? err_set(err, ERR_NOMEM, "no memory for the log") : 0;
}

static void print_report(const struct synth_flags *f, const struct synth_report *r)
{
    printf("%s: %lld parameters\n", f->out, (long long)r->n_params);
    for (int l = 0; l < r->n_layers; l++) {
        const struct layer_plan *p = &r->plan[l];
        if (p->skip_router != ROUTER_NONE)
            printf("layer %-4d %-7s executes %.4f of other random tokens, of which %.4f attend\n", l, layer_plan_kind(p), r->executed[l],
                   r->rate[l]);
        else if (layer_is_routed(p))
            printf("layer %-4d %-7s selects %.4f of other random tokens\n", l, layer_plan_kind(p), r->rate[l]);
    }
    if (r->worst > 0)
        printf("largest distance from what was asked for: %.4f\n", r->worst);
}

static int run(const struct synth_flags *f, struct log *log, struct err *err)
{
    if (!f->config || !f->out)
        return err_field(err, ERR_INVALID, f->config ? "out" : "config", "--%s is needed; see dtrnet synth --help",
                         f->config ? "out" : "config");
    struct synth_report *report = calloc(1, sizeof(*report));
    const struct synth_options o = {.config = f->config,
                                    .out = f->out,
                                    .family = f->family,
                                    .route_rate = f->route_rate,
                                    .execute_rate = f->execute_rate,
                                    .seed = (uint64_t)f->seed,
                                    .n_tokens = f->tokens,
                                    .n_threads = f->threads,
                                    .log = log};
    int r = report ? 0 : err_set(err, ERR_NOMEM, "no memory for the report");
    if (r >= 0 && f->tokenizer)
        r = synth_tokenizer_check(f->tokenizer, f->config, log, err);
    if (r >= 0)
        r = synth_run(&o, report, err);
    if (r >= 0 && f->tokenizer)
        r = synth_tokenizer_copy(f->tokenizer, f->out, err);
    if (r >= 0)
        print_report(f, report);
    else
        names_as_flags(err);
    free(report);
    return r;
}

int cmd_synth(int argc, char **argv)
{
    struct synth_flags f = {0};
    struct arena arena;
    struct log *log = NULL;
    struct err err = {0};
    bool help = false;
    arena_init(&arena, 1 << 20);
    int r = option_rows_parse(&table, 1, argc, argv, &arena, &f, &help, &err), status = EXIT_OK;
    if (r >= 0 && help) {
        status = print_help();
    } else {
        if (r >= 0)
            r = open_log(f.log_level, &log, &err);
        if (r >= 0)
            r = run(&f, log, &err);
        status = r < 0 ? command_fail(&err) : EXIT_OK;
    }
    log_free(log);
    arena_done(&arena);
    return status;
}
