/* See synth_tokenizer.h. */
#include "server/program/synth_tokenizer.h"
#include "common/mapfile.h"
#include "engine/checkpoint/model_config.h"
#include "tokenizer/tokenizer.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
    "added_tokens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
};

int synth_tokenizer_check(const char *dir, const char *config, struct log *log, struct err *err)
{
    struct tokenizer *t = NULL;
    struct model_config *c = calloc(1, sizeof(*c));
    int r = c ? model_config_load_file(config, NULL, NULL, c, err) : err_set(err, ERR_NOMEM, "no memory for the config");
    if (r >= 0)
        r = tokenizer_open(dir, TOKENIZER_RULES_4, log, &t, err);
    if (r >= 0 && tokenizer_vocab_size(t) > c->vocab)
        r = err_field(err, ERR_INVALID, "tokenizer", "--tokenizer %s has %d ids, but vocab_size of %s is %d; it must be at least as large",
                      dir, tokenizer_vocab_size(t), config, c->vocab);
    tokenizer_close(t);
    free(c);
    return r;
}

static int copy(const char *dir, const char *out, const char *name, struct err *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    struct mapfile m = {0};
    if (snprintf(from, sizeof(from), "%s/%s", dir, name) >= (int)sizeof(from) ||
        snprintf(to, sizeof(to), "%s/%s", out, name) >= (int)sizeof(to))
        return err_field(err, ERR_INVALID, "tokenizer", "--tokenizer or --out is longer than %d bytes", PATH_MAX - 32);
    if (access(from, F_OK))
        return 0;
    int r = mapfile_open(&m, from, err);
    if (r < 0)
        return r;
    FILE *f = fopen(to, "wbx");
    bool ok = f && fwrite(m.data, 1, m.len, f) == m.len;
    if (f && fclose(f))
        ok = false;
    mapfile_close(&m);
    return ok ? 0 : err_field(err, ERR_IO, "out", "%s cannot be written: %s", to, strerror(errno));
}

int synth_tokenizer_copy(const char *dir, const char *out, struct err *err)
{
    int r = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && r >= 0; i++)
        r = copy(dir, out, names[i], err);
    return r;
}
