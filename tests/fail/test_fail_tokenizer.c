/* Every allocation of opening, using and closing a tokenizer fails once: an error comes back, and nothing is left. */
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tokenizer/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ALLOCATIONS 100000

static const char text[] =
    "Hello hello, it's 1234 </s><|e|> \n\n aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa "
    "hellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohello";

static int use(const struct tokenizer *t)
{
    struct token_ids ids = {0};
    size_t border, len;
    char *back = NULL;
    int r = tokenizer_encode_pair(t, text, 20, text + 20, sizeof(text) - 21, 10000, &ids, &border, NULL);
    if (r >= 0)
        r = tokenizer_encode(t, text, sizeof(text) - 1, true, 10000, &ids, NULL);
    if (r >= 0)
        r = tokenizer_decode(t, ids.ids, ids.n, false, &back, &len, NULL);
    free(r < 0 ? NULL : back);
    token_ids_done(&ids);
    return r;
}

static void test_dir(const char *dir)
{
    bool reached = true;
    int r = -1;
    long n = 0;
    for (; reached && n < MAX_ALLOCATIONS; n++) {
        struct tokenizer *t = NULL;
        struct err e = {0};
        long before = failing_live();
        failing_plan(n);
        r = tokenizer_open(dir, NULL, &t, &e);
        if (r >= 0)
            r = use(t);
        reached = failing_reached();
        tokenizer_close(t);
        /* jansson goes on without a byte when its token buffer cannot grow, so a failure may pass unseen */
        if (!CHECK_INT(failing_live(), before) || !CHECK(reached || r >= 0)) {
            fprintf(stderr, "%s: allocation %ld: %d %s\n", dir, n, r, e.text);
            return;
        }
    }
    CHECK(n > 50);
}

int main(void)
{
    static const char *const seeds[][2] = {{"tokenizer_json/llama3", "tokenizer.json"}, {"tokenizer_model/bytes", "tokenizer.model"}};
    char dir[] = "/tmp/test_fail_tokenizer_XXXXXX", command[512];
    if (!CHECK(mkdtemp(dir)))
        return 1;
    failing_init();
    for (size_t i = 0; i < 2; i++) {
        snprintf(command, sizeof(command), "rm -f %s/* && cp '%s/%s' %s/%s", dir, CORPUS_DIR, seeds[i][0], dir, seeds[i][1]);
        CHECK_INT(system(command), 0);
        test_dir(dir);
    }
    snprintf(command, sizeof(command), "rm -r %s", dir);
    CHECK_INT(system(command), 0);
    return check_result();
}
