/* Every value of a config.json becomes one of another kind in turn: it is read with every number in its range, or the error says what is wrong. */
#include "engine/checkpoint/model_config.h"
#include "tests/check.h"
#include "tests/unit/json_values.h"
#include <dirent.h>
#include <stdlib.h>

static long n_read, n_refused;

static void read_one(const json_t *root, const char *where, void *user)
{
    static struct model_config c;
    const struct model_overrides none = {.bos_id = -1, .eos_id = -1};
    struct err e = {0};
    int r = model_config_from_json(root, NULL, &none, NULL, &c, &e);
    bool ok = r < 0 ? e.text[0] && r != ERR_NOMEM && r != ERR_INTERNAL
                    : c.hidden > 0 && c.ffn > 0 && c.n_layers > 0 && c.n_layers <= MODEL_MAX_LAYERS && c.n_kv_heads > 0 && c.head_dim > 0 &&
                          c.n_heads % c.n_kv_heads == 0 && c.vocab > 0 && c.bos_id < c.vocab && c.eos_id < c.vocab;
    n_read += r >= 0;
    n_refused += r < 0;
    if (!CHECK(ok))
        fprintf(stderr, "  %s: %s: %s %s\n", (const char *)user, where, err_name(r), e.text);
}

static void test_folder(const char *folder)
{
    struct dirent **list = NULL;
    int n = scandir(folder, &list, NULL, alphasort);
    CHECK(n > 5);
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s/config.json", folder, list[i]->d_name);
        json_t *root = list[i]->d_name[0] == '.' ? NULL : json_load_file(path, 0, NULL);
        if (root)
            json_values_each(root, read_one, path);
        json_decref(root);
        free(list[i]);
    }
    free(list);
}

int main(void)
{
    test_folder(GOLDEN_DIR);
    test_folder(ULTRADEEP_DIR);
    printf("%ld read, %ld refused\n", n_read, n_refused);
    CHECK(n_read > 1000 && n_refused > 1000);
    return check_result();
}
