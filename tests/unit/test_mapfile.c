#include "common/mapfile.h"
#include "tests/check.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (CHECK(f)) {
        fputs(text, f);
        fclose(f);
    }
}

/* Whatever happens to the file, reading is safe, and the check tells. */
static void test_changes(const char *path, const char *other)
{
    enum { BYTES = 20000 };
    char *text = calloc(1, BYTES + 1);
    struct mapfile m;
    struct err e;
    memset(text, 'x', BYTES);
    write_file(path, text);
    CHECK_INT(mapfile_open(&m, path, &e), 0);
    CHECK_INT(mapfile_check(&m, &e), 0);
    CHECK_INT(truncate(path, 100), 0);
    CHECK_INT(m.data[BYTES - 1], 0); /* SIGBUS without the guard */
    CHECK_INT(m.data[50], 'x');
    CHECK_INT(mapfile_check(&m, &e), ERR_IO);
    CHECK(strstr(e.text, path) && strstr(e.text, "shorter"));
    mapfile_close(&m);
    write_file(path, text);
    CHECK_INT(mapfile_open(&m, path, &e), 0);
    write_file(other, text);
    CHECK_INT(rename(other, path), 0);
    CHECK_INT(m.data[BYTES - 1], 'x');
    CHECK_INT(mapfile_check(&m, &e), ERR_IO);
    mapfile_close(&m);
    CHECK_INT(mapfile_open(&m, path, &e), 0); /* guards are given back and taken again */
    CHECK_INT(unlink(path), 0);
    CHECK_INT(mapfile_check(&m, &e), ERR_IO);
    mapfile_close(&m);
    free(text);
}

int main(void)
{
    char dir[] = "/tmp/test_mapfile_XXXXXX", path[64];
    struct mapfile m;
    struct err e;
    if (!CHECK(mkdtemp(dir)))
        return 1;
    snprintf(path, sizeof(path), "%s/f", dir);

    CHECK_INT(mapfile_open(&m, path, &e), ERR_NOT_FOUND);
    CHECK(strstr(e.text, path) != NULL);
    CHECK_INT(mapfile_open(&m, dir, &e), ERR_IO);
    write_file(path, "");
    CHECK_INT(mapfile_open(&m, path, &e), 0);
    CHECK(m.data == NULL && m.len == 0);
    mapfile_close(&m);
    write_file(path, "hello");
    CHECK_INT(mapfile_open(&m, path, &e), 0);
    CHECK_INT(m.len, 5);
    CHECK(memcmp(m.data, "hello", 5) == 0);
    mapfile_close(&m);
    mapfile_close(&m);
    CHECK(m.data == NULL);
    unlink(path);
    CHECK_INT(mkfifo(path, 0600), 0);
    CHECK_INT(mapfile_open(&m, path, &e), ERR_IO);
    unlink(path);
    char other[80];
    snprintf(other, sizeof(other), "%s/g", dir);
    test_changes(path, other);
    rmdir(dir);
    return check_result();
}
