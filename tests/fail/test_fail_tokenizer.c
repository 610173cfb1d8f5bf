/* Every allocation of opening, using and closing a tokenizer, and every call of failing_own.h, fails once: an error comes back, and nothing is left. */
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/fail/failing_own.h"
#include "tokenizer/tokenizer.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ALLOCATIONS 100000

static const char text[] =
    "Hello hello, it's 1234 </s><|e|> \n\n aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa "
    "hellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohellohello";

static const char gap[] = "one <FILL_ME> two"; /* CodeLlama's */

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
    if (r >= 0)
        r = tokenizer_encode(t, gap, sizeof(gap) - 1, true, 10000, &ids, NULL);
    token_ids_done(&ids);
    return r;
}

/* Tokens of every kind, so that all lists are made; the class has a frame of its own under rules 5. */
static void write_config(const char *dir)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir);
    FILE *f = fopen(path, "w");
    if (!CHECK(f))
        return;
    fputs("{\"tokenizer_class\": \"LlamaTokenizer\", \"additional_special_tokens\": [\"<a>\", \"<b>\"], \"image_token\": \"<i>\"}", f);
    fclose(f);
    snprintf(path, sizeof(path), "%s/special_tokens_map.json", dir);
    f = fopen(path, "w");
    if (!CHECK(f))
        return;
    fputs("{\"eos_token\": {\"content\": \"</s>\", \"lstrip\": false, \"normalized\": false}, \"additional_special_tokens\": [\"<c>\"]}",
          f);
    fclose(f);
}

static bool opens(const char *dir, enum tokenizer_rules rules)
{
    struct tokenizer *t = NULL;
    bool ok = tokenizer_open(dir, rules, NULL, &t, NULL) >= 0 && use(t) >= 0;
    tokenizer_close(t);
    return ok;
}

/* Fails number n of the plan; false when there were not so many, or something is wrong. */
static bool fail_at(const char *dir, enum tokenizer_rules rules, void (*plan)(long n), long n)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    long before = failing_live();
    plan(n);
    int r = tokenizer_open(dir, rules, NULL, &t, &e);
    if (r >= 0)
        r = use(t);
    const char *own = plan == failing_own_plan ? failing_own_reached() : NULL;
    bool reached = own || (plan == failing_plan && failing_reached());
    tokenizer_close(t);
    /* jansson goes on without a byte when its token buffer cannot grow, so a failure may pass unseen */
    bool ok = CHECK_INT(failing_live(), before) && CHECK(reached || r >= 0) && CHECK(!own || r < 0);
    if (!ok)
        fprintf(stderr, "%s: %s %ld: %d %s\n", dir, own ? own : "allocation", n, r, e.text);
    return ok && reached;
}

/* One allocation of `every` fails. */
static void test_dir(const char *dir, enum tokenizer_rules rules, long every)
{
    long n = 0, own = 0;
    while (fail_at(dir, rules, failing_plan, n) && n < MAX_ALLOCATIONS)
        n += every;
    while (fail_at(dir, rules, failing_own_plan, own) && own < MAX_ALLOCATIONS)
        own++;
    CHECK(n > 50 && own > 10);
}

/* The directories of tests/tokenizer/cases, as far as both rules' fallbacks read them. */
static void test_cases(void)
{
    struct dirent **list = NULL;
    int n = scandir(CASES_DIR, &list, NULL, alphasort);
    CHECK(n > 10);
    for (int i = 0; i < n; i++) {
        char dir[512];
        snprintf(dir, sizeof(dir), "%s/%s", CASES_DIR, list[i]->d_name);
        for (int rules = TOKENIZER_RULES_4; rules <= TOKENIZER_RULES_5 && list[i]->d_name[0] != '.'; rules++)
            if (opens(dir, (enum tokenizer_rules)rules))
                test_dir(dir, (enum tokenizer_rules)rules, 101);
        free(list[i]);
    }
    free(list);
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
        test_dir(dir, TOKENIZER_RULES_4, 1);
        write_config(dir);
        test_dir(dir, TOKENIZER_RULES_4, 1);
        test_dir(dir, TOKENIZER_RULES_5, 1);
    }
    failing_spare_jansson();
    test_cases();
    snprintf(command, sizeof(command), "rm -r %s", dir);
    CHECK_INT(system(command), 0);
    return check_result();
}
