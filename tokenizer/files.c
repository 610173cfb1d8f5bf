/* tokenizer.json wins; version 4 goes back to the files of its slow classes where the configuration makes it. */
#include "tokenizer/files.h"
#include "tokenizer/hf_json.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool path_of(char path[PATH_MAX], const char *dir, const char *name)
{
    struct stat st;
    return snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX && stat(path, &st) == 0;
}

int tokenizer_files_find(struct tokenizer_files *f, const char *dir, struct err *err)
{
    f->has_json = path_of(f->json_path, dir, "tokenizer.json");
    f->has_spm = path_of(f->spm_path, dir, "tokenizer.model");
    if (!f->has_json && !f->has_spm)
        return err_set(err, ERR_NOT_FOUND, "%s holds no tokenizer.json and no tokenizer.model", dir);
    return f->has_json ? hf_json_read(f->json_path, &f->json, err) : 0;
}

/* Version 4 opens the file that a key of the configuration names. One that is not there is a leftover of the machine where the
 * configuration was written; transformers gives up on it, and the directory's own file will do. */
static int check_named(const char *key, const char *named, const char *own, struct log *log, struct err *err)
{
    struct stat a, b;
    if (!named)
        return 0;
    if (stat(named, &a) < 0) {
        log_warn(log, "tokenizer_config.json: %s names a file that is not there; transformers 4 cannot load it, %s is read", key, own);
        return 0;
    }
    if (stat(own, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return 0;
    return err_set(err, ERR_UNSUPPORTED, "tokenizer_config.json: %s is not supported: transformers 4 opens that file instead of %s", key,
                   own);
}

/* A slow tokenizer's file that is not read here. Where there is none transformers finds nothing to read, and the tokenizer.json will do. */
static int check_slow(const char *dir, const struct settings *s, struct err *err)
{
    const char *name = class_rules_of(s->class, s->rules)->slow_file;
    char path[PATH_MAX];
    if (!name || !path_of(path, dir, name))
        return 0;
    return err_set(err, ERR_UNSUPPORTED, "tokenizer_config.json: %s makes transformers 4 read %s, which is not supported for %s",
                   s->no_tokenizer_file ? "tokenizer_file null" : "from_slow", name, s->class->name);
}

int tokenizer_files_choose(struct tokenizer_files *f, const char *dir, const struct settings *s, struct log *log, struct err *err)
{
    const struct class_rules *rules = class_rules_of(s->class, s->rules);
    if (s->rules == TOKENIZER_RULES_5) {
        f->spm = !f->has_json;
        return 0;
    }
    bool slow = knob_is_true(s->from_slow, false) || s->no_tokenizer_file;
    int r = slow && f->has_json ? check_slow(dir, s, err) : 0;
    if (r < 0)
        return r;
    slow |= rules->prefix_is_slow && s->add_prefix_space != KNOB_ABSENT && s->add_prefix_space != KNOB_NULL;
    f->spm = f->has_spm && (!f->has_json || (slow && rules->takes_spm && rules->template == TEMPLATE_OWN));
    return f->spm ? check_named("vocab_file", s->vocab_file, f->spm_path, log, err)
                  : check_named("tokenizer_file", s->tokenizer_file, f->json_path, log, err);
}

void tokenizer_files_done(struct tokenizer_files *f)
{
    json_decref(f->json);
    f->json = NULL;
}
