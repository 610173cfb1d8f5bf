/* What the subcommands share. */
#include <stdio.h>
#include <stdlib.h>
#include "server/commands.h"
#include "server/options.h"

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

int command_options(int command, const char *about, int argc, char **argv, struct arena *arena, struct options *ret, int *ret_status)
{
    struct err err = {0};
    bool help;
    int r = options_parse((enum command)command, argc, argv, arena, ret, &help, &err);
    if (r >= 0 && !help)
        return 0;
    *ret_status = help ? print_help(command, about, argv[0]) : command_fail(&err);
    return 1;
}
