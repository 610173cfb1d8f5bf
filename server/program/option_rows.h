/* Settings as rows of a table: the same row is a command line flag (--max-queue 8), an environment variable
 * (DTRNET_MAX_QUEUE=8), a key of the --config file ({"max_queue": 8}) and a line of --help. The command line wins,
 * then the environment, then the file, then the row's default. */
#pragma once
#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/log.h"
#include <stdbool.h>
#include <stddef.h>

enum option_type {
    OPTION_STRING, /* const char * */
    OPTION_INT,    /* int in [min, max] */
    OPTION_SIZE,   /* size_t bytes in [min, max]; K, M, G and T are powers of 1024, "B" or "iB" may follow */
    OPTION_DOUBLE, /* double in [min, max] */
    OPTION_ON_OFF, /* bool; on|off, true|false, 1|0 */
    OPTION_FLAG,   /* bool; on the command line its name alone means on */
    OPTION_CHOICE, /* const char *, one of `choices` */
    OPTION_LIST,   /* const char *, "0,2,4"; in the file an array or that string */
    OPTION_NAMES,  /* const char *, "a,b"; on the command line each time adds to the list; in the file an array or that string */
    OPTION_JSON,   /* const char *; in the file a JSON object, elsewhere its text */
};

struct option_row {
    const char *name; /* "max-queue" */
    enum option_type type;
    unsigned commands;   /* the commands that take it, one bit each */
    size_t offset;       /* of the member in the struct that is filled */
    double min, max;     /* OPTION_INT, OPTION_SIZE, OPTION_DOUBLE */
    const char *choices; /* OPTION_CHOICE: "text|json" */
    const char *initial; /* the default as it would be written; NULL: the member stays zero */
    const char *arg;     /* what --help calls the value: "DIR" */
    const char *help;
};

struct option_table {
    const struct option_row *rows;
    size_t n;
    const char *env_prefix;  /* "DTRNET_"; NULL: no environment */
    const char *file_option; /* the row that names a JSON file of settings; NULL: none */
};

/* Fills the struct at `dst` from argv[1..argc) for one command. Strings are borrowed from argv and the environment or lie
 * in `arena`, and live as long as these. *ret_help is set when -h or --help is there; nothing else is then read.
 * Errors: ERR_INVALID with one sentence naming the flag, variable or key, the limit and the value. */
int option_rows_parse(const struct option_table *t, unsigned command, int argc, char **argv, struct arena *arena, void *dst, bool *ret_help,
                      struct err *err);

/* Warns of variables with the table's prefix that are the name of no row, of any command. `variables` is as `environ`. */
void option_rows_warn_unknown(const struct option_table *t, char *const *variables, struct log *log);

/* One line for each row of the command: name, meaning, range, default. */
int option_rows_help(const struct option_table *t, unsigned command, struct buf *out);
