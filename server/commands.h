/* The subcommands: each gets argv from its own name on and returns the exit status. */
#pragma once
#include "common/err.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int cmd_serve(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_synth(int argc, char **argv);

struct arena;
struct options;
/* What every command that loads a model begins with: settings, --help, flags in one line. Returns 0 to go on; else the command
 * returns *ret_status. */
int command_options(int command, const char *about, int argc, char **argv, struct arena *arena, struct options *ret, int *ret_status);
/* One line on stderr; the exit status for the code: bad flags and bad input are EXIT_USAGE. */
int command_fail(const struct err *err);
