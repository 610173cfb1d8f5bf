/* A model's hash in a thread of its own: what it is, that files may go on being read and change meanwhile, and that it can be given up. */
#include "engine/model/hash_job.h"
#include "tests/check.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/test_hash_job.XXXXXX";
static char path[128];

static struct safetensors *make_files(void)
{
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    struct safetensors *s = NULL;
    struct err err = {0};
    uint64_t len = sizeof(header) - 1;
    FILE *f = fopen(path, "wb");
    fwrite(&len, 8, 1, f);
    fwrite(header, 1, len, f);
    fwrite("01234567", 1, 8, f);
    fclose(f);
    CHECK_INT(safetensors_open_file(path, &s, &err), 0);
    return s;
}

static struct hash_job *start(struct safetensors *files, const char *more)
{
    struct hash_job *j = NULL;
    CHECK_INT(hash_job_start(dir, files, more, NULL, &j, NULL), 0);
    return j;
}

/* Whoever releases the files last, the hash is that of sha256sum; `more` changes it. */
static void test_result(void)
{
    char want[65] = "", command[256];
    const char *hex = "", *again = "";
    struct safetensors *files = make_files();
    snprintf(command, sizeof(command), "cat %s/config.json %s | sha256sum", dir, path);
    FILE *p = popen(command, "r");
    CHECK(p && fscanf(p, "%64s", want) == 1);
    pclose(p);
    struct hash_job *j = start(files, NULL);
    CHECK_INT(hash_job_result(j, true, &hex, NULL), 1);
    CHECK_STR(hex, want);
    CHECK(safetensors_find(files, "a") != NULL); /* the job is done, and they are here still */
    hash_job_release(j);
    CHECK_INT(hash_job_result(j, false, &again, NULL), 1);
    CHECK_STR(again, want);
    hash_job_free(j);
    j = start(make_files(), "seed 1");
    hash_job_release(j);
    CHECK_INT(hash_job_result(j, true, &hex, NULL), 1);
    CHECK(strcmp(hex, want) != 0);
    hash_job_free(j);
}

/* A file that was written since it was opened has no hash. */
static void test_changed(void)
{
    const char *hex = NULL;
    struct err err = {0};
    struct safetensors *files = make_files();
    truncate(path, 4);
    struct hash_job *j = start(files, NULL);
    CHECK_INT(hash_job_result(j, true, &hex, &err), ERR_IO);
    CHECK(!hex && strstr(err.text, path) != NULL);
    hash_job_release(j);
    hash_job_free(j);
}

/* Freed while it runs, with files that were not released. */
static void test_given_up(void)
{
    for (int i = 0; i < 20; i++)
        hash_job_free(start(make_files(), NULL));
    hash_job_free(NULL);
}

int main(void)
{
    char config[128];
    if (!CHECK(mkdtemp(dir) != NULL))
        return check_result();
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    snprintf(config, sizeof(config), "%s/config.json", dir);
    FILE *f = fopen(config, "w");
    fputs("{}", f);
    fclose(f);
    test_result();
    test_changed();
    test_given_up();
    remove(path);
    remove(config);
    rmdir(dir);
    return check_result();
}
