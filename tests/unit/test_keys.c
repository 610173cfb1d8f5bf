/* Key files: good and bad lines, names, reloading, and that no error shows a key. */
#include "common/err.h"
#include "server/api/keys.h"
#include "tests/check.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/test_keys_XXXXXX";

static void put(const char *text)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && !fclose(f));
}

static void expect_name(struct keys *k, const char *key, const char *name)
{
    char got[KEYS_NAME_MAX + 1] = "";
    CHECK_INT(keys_find(k, key, got), name != NULL);
    CHECK_STR(got, name ? name : "");
}

static void test_file(void)
{
    struct keys *k = NULL;
    struct err err = {0};
    put("# who may ask\n\n  team-a\tsecret-a  \nb.b_2 s2\r\nlast s3");
    CHECK_INT(keys_open("alone", path, NULL, &k, &err), 0);
    CHECK(keys_needed(k));
    expect_name(k, "alone", "default");
    expect_name(k, "secret-a", "team-a");
    expect_name(k, "s2", "b.b_2");
    expect_name(k, "s3", "last");
    static const char *const wrong[] = {"", "s", "s33", "secret-", "secret-a ", "SECRET-A", "team-a", "default"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        expect_name(k, wrong[i], NULL);
    put("team-a new\n");
    CHECK_INT(keys_reload(k, &err), 0);
    expect_name(k, "new", "team-a");
    expect_name(k, "s2", NULL);
    expect_name(k, "alone", "default");
    put("broken\n");
    CHECK_INT(keys_reload(k, &err), ERR_INVALID);
    expect_name(k, "new", "team-a"); /* the old ones stay */
    keys_close(k);
}

static void test_bad_lines(void)
{
    static const char *const bad[] = {"name", "na/me s3cret", "a s3cret\nb s3cret", "a s3cret\na other", "a s3cret x",
                                      "",     "# none\n",     "a s3cret\x01",       "a\xc3\xa9 s3cret"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct keys *k = NULL;
        struct err err = {0};
        put(bad[i]);
        if (!CHECK_INT(keys_open(NULL, path, NULL, &k, &err), ERR_INVALID))
            fprintf(stderr, "  case %zu\n", i);
        CHECK(!strstr(err.text, "s3cret") && strstr(err.text, path));
    }
    struct keys *k = NULL;
    CHECK_INT(keys_open(NULL, "/no/such/file", NULL, &k, NULL), ERR_NOT_FOUND);
    CHECK_INT(keys_open(NULL, NULL, NULL, &k, NULL), 0);
    CHECK(!keys_needed(k) && !keys_needed(NULL));
    CHECK_INT(keys_reload(k, NULL), 0);
    keys_close(k);
}

/* Names, keys and their number at the limit and beyond it. */
static void test_limits(void)
{
    char longer[2000], line[2100];
    struct keys *k = NULL;
    struct err err = {0};
    memset(longer, 'k', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    CHECK_INT(keys_open(longer, NULL, NULL, &k, &err), ERR_INVALID);
    CHECK_STR(err.param, "api-key");
    for (int extra = 0; extra < 2; extra++) {
        snprintf(line, sizeof(line), "%.*s key%d\n", KEYS_NAME_MAX + extra, longer, extra);
        put(line);
        CHECK_INT(keys_open(NULL, path, NULL, &k, &err), extra ? ERR_INVALID : 0);
        if (!extra)
            keys_close(k);
    }
    snprintf(line, sizeof(line), "name %s\n", longer);
    put(line);
    CHECK_INT(keys_open(NULL, path, NULL, &k, &err), ERR_INVALID);
    CHECK(!chmod(path, 0644));
    put("name key\n");
    CHECK_INT(keys_open(NULL, path, NULL, &k, &err), 0);
    keys_close(k);
}

int main(void)
{
    int fd = mkstemp(path);
    if (!CHECK(fd >= 0))
        return check_result();
    close(fd);
    test_file();
    test_bad_lines();
    test_limits();
    unlink(path);
    return check_result();
}
