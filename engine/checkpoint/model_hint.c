#include "engine/checkpoint/model_hint.h"
#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ENTRIES 4096 /* of a directory that is looked through */

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static bool has_file(const char *dir, const char *name)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path) && !access(path, F_OK);
}

static int say(struct err *err, const char *path, const char *what)
{
    return err_field(err, ERR_NOT_FOUND, "model", "%.200s %s", path, what);
}

/* The least name in `dir` that `fits`, so that the answer does not depend on the order of the directory; false: none. */
static bool find_entry(const char *dir, bool (*fits)(const char *dir, const char *name), char ret[NAME_MAX + 1], int *ret_n)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    *ret_n = 0;
    for (int i = 0; d && i < MAX_ENTRIES && (e = readdir(d)); i++) {
        if (e->d_name[0] == '.' || !fits(dir, e->d_name))
            continue;
        if (!*ret_n || strcmp(e->d_name, ret) < 0)
            snprintf(ret, NAME_MAX + 1, "%s", e->d_name);
        ++*ret_n;
    }
    if (d)
        closedir(d);
    return *ret_n > 0;
}

/* ---- kinds of names ------------------------------------------------------------------------------------------------ */

static bool is_gguf(const char *dir, const char *name)
{
    return ends_with(name, ".gguf");
}

static bool is_pickle(const char *dir, const char *name)
{
    return !strncmp(name, "pytorch_model", 13) && (ends_with(name, ".bin") || ends_with(name, ".bin.index.json"));
}

static bool is_consolidated(const char *dir, const char *name)
{
    return !strncmp(name, "consolidated", 12) && (ends_with(name, ".pth") || ends_with(name, ".safetensors"));
}

static bool is_safetensors(const char *dir, const char *name)
{
    return ends_with(name, ".safetensors");
}

static bool is_model_folder(const char *dir, const char *name)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path) && has_file(path, "config.json");
}

/* "org/name", of the letters that the hub allows. */
static bool is_repository(const char *path)
{
    const char *slash = strchr(path, '/');
    if (!slash || slash == path || !slash[1] || strchr(slash + 1, '/') || *path == '.' || *path == '~')
        return false;
    for (const char *p = path; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("/-_.", *p))
            return false;
    return true;
}

/* ---- the sentences -------------------------------------------------------------------------------------------------- */

static const char gguf[] = "GGUF, which dtrnet does not read: take the repository that it was made from, which has config.json and "
                           "model.safetensors";
static const char pickle[] = "weights as a PyTorch pickle, which dtrnet does not read: convert them once with transformers, "
                             "AutoModelForCausalLM.from_pretrained(DIR, torch_dtype=\"auto\").save_pretrained(NEW_DIR)";

static int hint_file(const char *path, struct err *err)
{
    char what[400];
    if (ends_with(path, ".gguf"))
        snprintf(what, sizeof(what), "is a file in %s", gguf);
    else if (ends_with(path, ".bin") || ends_with(path, ".pt") || ends_with(path, ".pth"))
        snprintf(what, sizeof(what), "holds %s", pickle);
    else if (ends_with(path, ".safetensors") || ends_with(path, ".json"))
        snprintf(what, sizeof(what), "is one file of a checkpoint: name the directory that it is in");
    else
        snprintf(what, sizeof(what), "is a file: a model is a directory with config.json and model.safetensors");
    return say(err, path, what);
}

static int hint_absent(const char *path, struct err *err)
{
    if (!is_repository(path))
        return say(err, path, "is not there: a model is a directory with config.json and model.safetensors");
    return err_field(err, ERR_NOT_FOUND, "model",
                     "%.120s is not a directory here, and reads like a repository of the Hugging Face hub; dtrnet downloads nothing: "
                     "hf download %.120s --local-dir DIR, then name DIR",
                     path, path);
}

static int hint_folders(const char *dir, const char *first, int n, struct err *err)
{
    return err_field(err, ERR_NOT_FOUND, "model", "%.200s holds no model itself, but %s that do%s: name %.200s/%.100s%s", dir,
                     n == 1 ? "a folder" : "folders", n == 1 ? "es" : "", dir, first, n == 1 ? "" : ", or another of them");
}

int model_hint_no_config(const char *path, struct err *err)
{
    struct stat st;
    char name[NAME_MAX + 1], snapshots[PATH_MAX];
    int n;
    if (stat(path, &st) < 0)
        return hint_absent(path, err);
    if (!S_ISDIR(st.st_mode))
        return hint_file(path, err);
    if (find_entry(path, is_model_folder, name, &n))
        return hint_folders(path, name, n, err);
    if (snprintf(snapshots, sizeof(snapshots), "%s/snapshots", path) < (int)sizeof(snapshots) &&
        find_entry(snapshots, is_model_folder, name, &n))
        return hint_folders(snapshots, name, n, err);
    if (has_file(path, "adapter_config.json"))
        return say(
            err, path,
            "holds an adapter (LoRA or another of PEFT's), not a model: merge it into its base model (merge_and_unload) and save that");
    if (find_entry(path, is_gguf, name, &n)) {
        char what[400];
        snprintf(what, sizeof(what), "has no config.json, but %.100s in %s", name, gguf);
        return say(err, path, what);
    }
    if (has_file(path, "params.json"))
        return say(err, path, "holds a model in its makers' own format (params.json): take the version for transformers, with config.json");
    return say(err, path, "has no config.json: a model is a directory with config.json and model.safetensors");
}

int model_hint_no_weights(const char *dir, struct err *err)
{
    char name[NAME_MAX + 1], what[400];
    int n;
    struct stat st;
    if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return model_hint_no_config(dir, err);
    if (find_entry(dir, is_pickle, name, &n))
        snprintf(what, sizeof(what), "has %s", pickle);
    else if (find_entry(dir, is_gguf, name, &n))
        snprintf(what, sizeof(what), "has its weights in %s", gguf);
    else if (find_entry(dir, is_consolidated, name, &n))
        snprintf(what, sizeof(what),
                 "has its weights in its makers' own format (%.60s): take the version for transformers, with model.safetensors", name);
    else if (has_file(dir, "adapter_config.json"))
        snprintf(what, sizeof(what), "holds an adapter, not a model: merge it into its base model (merge_and_unload) and save that");
    else if (find_entry(dir, is_safetensors, name, &n))
        snprintf(what, sizeof(what),
                 "has %d .safetensors files (%.60s), but neither model.safetensors nor model.safetensors.index.json, which tells how they "
                 "belong together",
                 n, name);
    else
        snprintf(what, sizeof(what),
                 "has config.json, but neither model.safetensors nor model.safetensors.index.json: the weights are missing");
    return say(err, dir, what);
}

int model_hint_check(const char *path, struct err *err)
{
    return has_file(path, "config.json") ? 0 : model_hint_no_config(path, err);
}
