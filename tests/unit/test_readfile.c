#include "common/readfile.h"
#include "tests/check.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void expect(const char *path, size_t max_bytes, int code, const char *text)
{
    struct buf b;
    struct err e;
    buf_init(&b, max_bytes);
    CHECK_INT(readfile(path, &b, &e), code);
    if (code)
        CHECK(strstr(e.text, path));
    else
        CHECK(strcmp(b.data, text) == 0);
    buf_done(&b);
}

int main(void)
{
    char dir[] = "/tmp/dtrnet-readfile-XXXXXX", path[64], fifo[64];
    if (!CHECK(mkdtemp(dir)))
        return check_result();
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    expect(path, 10, ERR_NOT_FOUND, NULL);
    FILE *f = fopen(path, "w");
    if (CHECK(f)) {
        fputs("0123456789", f);
        fclose(f);
    }
    expect(path, 10, 0, "0123456789");
    expect(path, 9, ERR_TOO_LARGE, NULL);
    CHECK_INT(mkfifo(fifo, 0600), 0);
    expect(fifo, 10, ERR_IO, NULL); /* and does not wait for a writer */
    expect(dir, 10, ERR_IO, NULL);
    expect("/dev/zero", 10, ERR_IO, NULL);
    unlink(fifo);
    unlink(path);
    rmdir(dir);
    return check_result();
}
