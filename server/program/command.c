/* What the subcommands share. */
#include "server/program/commands.h"
#include "server/program/settings.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int command_fail(const struct err *err)
{
    fprintf(stderr, "dtrnet: %s\n", err->text);
    return err->code == ERR_INVALID || err->code == ERR_NOT_FOUND || err->code == ERR_UNSUPPORTED ? EXIT_USAGE : EXIT_FAILED;
}

static int print_help(int command, const char *about, const char *name)
{
    struct buf help;
    buf_init(&help, 1 << 16);
    int r = option_rows_help(&options_table, (unsigned)command, &help);
    if (r >= 0)
        printf("dtrnet %s: %s\n\nusage: dtrnet %s [FLAGS]\n\n%s\nEvery flag is also an environment variable (--max-queue: "
               "DTRNET_MAX_QUEUE) and a key of the "
               "--config file\n(max_queue). The command line wins, then the environment, then the file.\n",
               name, about, name, help.data);
    buf_done(&help);
    return r < 0 ? EXIT_FAILED : EXIT_OK;
}

int command_run(int command, const char *about, int argc, char **argv,
                int (*body)(struct options *o, struct arena *arena, struct log *log, struct err *err))
{
    struct options o;
    struct arena arena;
    struct log *log = NULL;
    struct err err = {0};
    bool help = false;
    int status;
    arena_init(&arena, 1 << 22);
    int r = options_parse((enum command)command, argc, argv, &arena, &o, &help, &err);
    if (r >= 0 && help) {
        status = print_help(command, about, argv[0]);
    } else {
        if (r >= 0)
            r = settings_open_log(&o, &log, &err);
        if (r >= 0)
            option_rows_warn_unknown(&options_table, environ, log);
        if (r >= 0)
            r = body(&o, &arena, log, &err);
        status = r < 0 ? command_fail(&err) : r ? EXIT_FAILED : EXIT_OK;
    }
    log_free(log);
    arena_done(&arena);
    return status;
}
