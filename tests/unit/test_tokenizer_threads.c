/* One tokenizer used by several threads at once, with a regular expression in it: each gets what a single thread gets. */
#include "tests/check.h"
#include "tokenizer/tokenizer.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_THREADS 4
#define ROUNDS 200

static const char *const texts[] = {"Hello world, it's 1234 \n\n  x", "a  aa aaa", "\xc3\xa9t\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 <|e|> hello",
                                    ""};
#define N_TEXTS (sizeof(texts) / sizeof(texts[0]))

struct shared {
    const struct tokenizer *t;
    struct token_ids want[N_TEXTS];
};

static void *encode_all(void *arg)
{
    const struct shared *s = arg;
    intptr_t bad = 0;
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < N_TEXTS; i++) {
            struct token_ids got = {0};
            bad += tokenizer_encode(s->t, texts[i], strlen(texts[i]), false, 1000, &got, NULL) < 0 || got.n != s->want[i].n ||
                   (got.n && memcmp(got.ids, s->want[i].ids, got.n * sizeof(*got.ids)) != 0);
            token_ids_done(&got);
        }
    return (void *)bad;
}

static void test_dir(const char *dir)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    struct shared s = {0};
    pthread_t threads[N_THREADS];
    if (!CHECK_INT(tokenizer_open(dir, TOKENIZER_RULES_4, NULL, &t, &e), 0)) {
        fprintf(stderr, "%s\n", e.text);
        return;
    }
    s.t = t;
    for (size_t i = 0; i < N_TEXTS; i++)
        CHECK_INT(tokenizer_encode(t, texts[i], strlen(texts[i]), false, 1000, &s.want[i], &e), 0);
    for (int i = 0; i < N_THREADS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, encode_all, &s), 0);
    for (int i = 0; i < N_THREADS; i++) {
        void *bad = NULL;
        pthread_join(threads[i], &bad);
        CHECK_INT((intptr_t)bad, 0);
    }
    for (size_t i = 0; i < N_TEXTS; i++)
        token_ids_done(&s.want[i]);
    tokenizer_close(t);
}

int main(void)
{
    char dir[] = "/tmp/test_tokenizer_threads_XXXXXX", command[512];
    if (!CHECK(mkdtemp(dir)))
        return 1;
    snprintf(command, sizeof(command), "cp '%s/llama3' %s/tokenizer.json", SEED_DIR, dir);
    CHECK_INT(system(command), 0);
    test_dir(dir);
    test_dir(MODEL_DIR);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    CHECK_INT(system(command), 0);
    return check_result();
}
