/* The subcommands: each gets argv from its own name on and returns the exit status. */
#pragma once
#include "common/err.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int cmd_serve(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_synth(int argc, char **argv);
int cmd_health(int argc, char **argv);

struct arena;
struct options;
struct log;
/* What every command that takes the server's settings does: settings, --help, flags, the log, `body`, and one line on stderr for an error.
 * body returns 0, or > 0 for EXIT_FAILED without a line, or a negative code with err filled. Returns the exit status. */
int command_run(int command, const char *about, int argc, char **argv,
                int (*body)(struct options *o, struct arena *arena, struct log *log, struct err *err));
/* One line on stderr; the exit status for the code: bad flags and bad input are EXIT_USAGE. */
int command_fail(const struct err *err);
