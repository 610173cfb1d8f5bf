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
    rmdir(dir);
    return check_result();
}
