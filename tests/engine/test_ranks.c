/* A model computed by several ranks gives the bits of one device: scores, alternatives, decisions, what routers compared, and generated tokens, for every
 * checkpoint of the directories, in f32 and bf16, by 2, 4 and 6 ranks where these divide it; else they are refused by name.
 *
 *   test_ranks DIR... */
#include "engine/model/share.h"
#include "tests/check.h"
#include "tests/engine/five.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static int n_equal, n_refused;

static struct engine *open_ranks(const char *dir, const char *dtype, int n, struct err *err)
{
    struct engine_options o = five_options(dir, dtype);
    o.device = "cpu";
    o.tensor_parallel = n;
    o.expert_choice = strstr(dir, "expert") ? "threshold" : NULL;
    struct engine *e = NULL;
    return engine_open(&o, &e, err) < 0 ? NULL : e;
}

static void check_ranks(const char *dir, const char *dtype, int n, const struct engine_info *info, struct engine_ticket *want)
{
    struct err err = {0}, why = {0};
    struct engine *e = open_ranks(dir, dtype, n, &err);
    if (share_check(n, info->config, &why) < 0) {
        CHECK(!e && strstr(err.text, "tensor_parallel") != NULL);
        CHECK_STR(err.text, why.text);
        n_refused++;
        return;
    }
    if (!CHECK(e != NULL)) {
        fprintf(stderr, "  %s by %d ranks: %s\n", dir, n, err.text);
        return;
    }
    struct engine_ticket *got = five_run(e);
    for (int i = 0; i < FIVE; i++)
        if (CHECK(five_same(engine_result(got, i), engine_result(want, i), (size_t)info->config->n_layers)))
            n_equal++;
        else
            fprintf(stderr, "  request %d of %s in %s by %d ranks\n", i, dir, dtype, n);
    engine_ticket_free(got);
    engine_close(e);
}

static void check_model(const char *dir, const char *dtype)
{
    static const int counts[] = {2, 4, 6};
    struct err err;
    struct engine *one = open_ranks(dir, dtype, 1, &err);
    if (!one) /* some are there to be refused */
        return;
    five_requests(engine_info(one)->config->vocab);
    struct engine_ticket *want = five_run(one);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        check_ranks(dir, dtype, counts[i], engine_info(one), want);
    engine_ticket_free(want);
    engine_close(one);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        for (struct dirent *f; d && (f = readdir(d));) {
            char dir[1024];
            snprintf(dir, sizeof(dir), "%s/%s", argv[i], f->d_name);
            if (f->d_name[0] == '.' || strstr(dir, "deep92")) /* test_traffic has the deep one */
                continue;
            check_model(dir, "f32");
            check_model(dir, "bf16");
        }
        closedir(d);
    }
    printf("%d requests equal, %d counts of ranks refused\n", n_equal, n_refused);
    CHECK(n_equal > 500 && n_refused > 20);
    return check_result();
}
