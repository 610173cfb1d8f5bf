/* What people give as a model that is none, and the sentence that they get. */
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/model_hint.h"
#include "engine/checkpoint/safetensors.h"
#include "tests/check.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/test_model_hint.XXXXXX";

static void make(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = '\0';
        mkdir(path, 0700);
    }
    FILE *f = fopen(path, "w");
    if (CHECK(f != NULL)) {
        fputs("{}", f);
        fclose(f);
    }
}

/* `model` is below root unless it starts with '='. */
static void test_no_config(void)
{
    static const struct {
        const char *model, *says;
    } cases[] = {
        {"=HuggingFaceTB/SmolLM3-3B", "hf download HuggingFaceTB/SmolLM3-3B --local-dir DIR, then name DIR"},
        {"=absent", "absent is not there: a model is a directory with config.json and model.safetensors"},
        {"=./absent/model", "is not there"},
        {"=../absent/model", "is not there"},
        {"=/absent/model", "is not there"},
        {"=a/b/c", "is not there"},
        {"=org/na me", "is not there"},
        {"=org/", "is not there"},
        {"x.Q4_K_M.gguf", "is a file in GGUF, which dtrnet does not read: take the repository that it was made from"},
        {"weights.bin", "PyTorch pickle"},
        {"weights.pth", "save_pretrained"},
        {"weights.safetensors", "one file of a checkpoint: name the directory"},
        {"readme.txt", "is a file: a model is a directory"},
        {"gguf", "has no config.json, but a.gguf in GGUF"},
        {"folders", "holds no model itself, but folders that do: name "},
        {"folders", "/folders/checkpoint-100, or another of them"},
        {"one", "but a folder that does: name "},
        {"models--org--name", "models--org--name/snapshots/4f2a"},
        {"lora", "adapter (LoRA"},
        {"meta", "makers' own format (params.json)"},
        {"empty", "has no config.json"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[512];
        struct model_config c;
        struct err e = {0};
        const char *m = cases[i].model;
        snprintf(path, sizeof(path), "%s%s%s", *m == '=' ? "" : root, *m == '=' ? "" : "/", *m == '=' ? m + 1 : m);
        bool ok = CHECK_INT(model_config_load(path, NULL, NULL, &c, &e), ERR_NOT_FOUND) && CHECK(strstr(e.text, cases[i].says) != NULL) &&
                  CHECK_STR(e.param, "model") && CHECK_INT(model_hint_check(path, NULL), ERR_NOT_FOUND) && CHECK(!strchr(e.text, '\n'));
        if (!ok)
            fprintf(stderr, "  %s: %s\n", path, e.text);
    }
}

static void test_no_weights(void)
{
    static const struct {
        const char *model, *says;
    } cases[] = {
        {"pickled", "has weights as a PyTorch pickle, which dtrnet does not read: convert them once"},
        {"pickled-shards", "PyTorch pickle"},
        {"gguf-with-config", "has its weights in GGUF"},
        {"makers", "makers' own format (consolidated.safetensors)"},
        {"lora-with-config", "holds an adapter"},
        {"no-index", "has 2 .safetensors files (model-00001-of-00002.safetensors), but neither"},
        {"config-alone", "the weights are missing"},
        {"absent", "is not there"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[512];
        struct safetensors *s = NULL;
        struct err e = {0};
        snprintf(path, sizeof(path), "%s/%s", root, cases[i].model);
        bool ok = CHECK_INT(safetensors_open_dir(path, &s, &e), ERR_NOT_FOUND) && CHECK(strstr(e.text, cases[i].says) != NULL);
        if (!ok)
            fprintf(stderr, "  %s: %s\n", path, e.text);
        if (strcmp(cases[i].model, "absent"))
            CHECK_INT(model_hint_check(path, &e), 0);
    }
}

int main(void)
{
    static const char *const files[] = {
        "x.Q4_K_M.gguf",
        "weights.bin",
        "weights.pth",
        "weights.safetensors",
        "readme.txt",
        "gguf/b.gguf",
        "gguf/a.gguf",
        "folders/checkpoint-200/config.json",
        "folders/checkpoint-100/config.json",
        "folders/other/x",
        "one/model/config.json",
        "models--org--name/snapshots/4f2a/config.json",
        "models--org--name/refs/main",
        "lora/adapter_config.json",
        "lora/adapter_model.safetensors",
        "meta/params.json",
        "meta/consolidated.00.pth",
        "empty/README.md",
        "pickled/config.json",
        "pickled/pytorch_model.bin",
        "pickled-shards/config.json",
        "pickled-shards/pytorch_model.bin.index.json",
        "gguf-with-config/config.json",
        "gguf-with-config/x.gguf",
        "makers/config.json",
        "makers/consolidated.safetensors",
        "lora-with-config/config.json",
        "lora-with-config/adapter_config.json",
        "no-index/config.json",
        "no-index/model-00001-of-00002.safetensors",
        "no-index/model-00002-of-00002.safetensors",
        "config-alone/config.json",
    };
    if (!CHECK(mkdtemp(root) != NULL))
        return check_result();
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        make(files[i]);
    test_no_config();
    test_no_weights();
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    CHECK_INT(system(command), 0);
    return check_result();
}
