/* Any bytes as a settings file; what precedes a NUL, as the flag and value before it. */
#include "server/program/options.h"
#include "tests/fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void parse(int argc, char **argv)
{
    struct options o;
    struct arena arena;
    struct err err = {0};
    bool help = false;
    arena_init(&arena, 1 << 22);
    if (options_parse(COMMAND_SERVE, argc, argv, &arena, &o, &help, &err) < 0 && !err.text[0])
        abort();
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const uint8_t *nul = len ? memchr(data, 0, len) : NULL;
    size_t n_flag = nul ? (size_t)(nul - data) : 0, at = nul ? n_flag + 1 : 0;
    char command[] = "serve", config[] = "--config", path[64], *flag = malloc(n_flag + 1);
    int fd = memfd_create("settings", MFD_CLOEXEC);
    if (!flag || fd < 0 || write(fd, data + at, len - at) != (ssize_t)(len - at))
        abort();
    memcpy(flag, data, n_flag);
    flag[n_flag] = '\0';
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    char *value = strchr(flag, ' ');
    if (value)
        *value++ = '\0';
    char *argv[] = {command, config, path, flag, value, NULL};
    parse(value ? 5 : n_flag ? 4 : 3, argv);
    close(fd);
    free(flag);
    return 0;
}
