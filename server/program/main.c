/* dtrnet COMMAND: dispatch, --help, --version. */
#include "server/program/commands.h"
#include "server/program/options.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", "answer lm-evaluation-harness and OpenAI clients over HTTP", cmd_serve},
    {"health", "ask the server on this machine whether it works", cmd_health},
    {"score", "the loglikelihood endpoint on standard input and output, a JSON object a line", cmd_score},
    {"inspect", "layer plan, parameters, FLOPs and KV bytes of a checkpoint or a config", cmd_inspect},
    {"check", "validate a checkpoint and score a self-test", cmd_check},
    {"bench", "time prefill, scoring and generation on random tokens", cmd_bench},
    {"synth", "write a random checkpoint whose routers select a given share of tokens", cmd_synth},
};

static int usage(FILE *out, int status)
{
    fprintf(out, "dtrnet %s: scores and continues text with token-routed language models\n\nusage: dtrnet COMMAND [FLAGS]\n\n",
            DTRNET_VERSION);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].about);
    fprintf(out, "\ndtrnet COMMAND --help lists the flags; dtrnet --version tells the version.\n");
    return status;
}

/* Else the first files and connections would become 0, 1 and 2, and log lines would go there. */
static void open_standard_descriptors(void)
{
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = dup(fd))
        if (fd > STDERR_FILENO) {
            close(fd);
            break;
        }
}

int main(int argc, char **argv)
{
    open_standard_descriptors();
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "--version")) {
        printf("dtrnet %s (%s)\n", DTRNET_VERSION, DTRNET_BUILD);
        return EXIT_OK;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
        return usage(stdout, EXIT_OK);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(name, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    if (*name)
        fprintf(stderr, "dtrnet: unknown command \"%.60s\"; see dtrnet --help\n", name);
    return *name ? EXIT_USAGE : usage(stderr, EXIT_USAGE);
}
