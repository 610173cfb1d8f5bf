/* A line at each quarter of something large, none for something small. */
#include "engine/checkpoint/load_progress.h"
#include "tests/check.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is logged while `total` steps are taken `each` at a time; the caller frees it. */
static char *said(size_t bytes, size_t total, size_t each)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    char *text = calloc(1, 1 << 16);
    struct log *log = NULL;
    CHECK_INT(log_new(fd, LOG_FORMAT_TEXT, LOG_INFO, &log), 0);
    struct load_progress p = {.log = log, .what = "weights hashed", .bytes = bytes, .total = total};
    for (size_t at = 0; at < total; at += each)
        load_progress_add(&p, total - at < each ? total - at : each);
    log_free(log);
    CHECK(pread(fd, text, (1 << 16) - 1, 0) >= 0);
    close(fd);
    return text;
}

static int lines(const char *text)
{
    int n = 0;
    for (; (text = strchr(text, '\n')); text++)
        n++;
    return n;
}

static void test_lines(void)
{
    static const struct {
        size_t bytes, total, each;
        int want;
        const char *says; /* of one line */
    } cases[] = {
        {LOAD_PROGRESS_LEAST - 1, 100, 1, 0, ""},
        {LOAD_PROGRESS_LEAST, 100, 1, 4, "weights hashed: 25 % of 256 MiB\n"},
        {(size_t)2 << 30, 24, 1, 4, "weights hashed: 75 % of 2048 MiB\n"},
        {(size_t)2 << 30, 2, 1, 2, "weights hashed: 50 % of 2048 MiB\n"},
        {(size_t)2 << 30, 1, 1, 1, "weights hashed: 100 % of 2048 MiB\n"},
        {(size_t)1 << 40, (size_t)1 << 40, (size_t)1 << 30, 4, "weights hashed: 100 % of 1048576 MiB\n"},
        {(size_t)1 << 40, 0, 1, 0, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = said(cases[i].bytes, cases[i].total, cases[i].each);
        CHECK_INT(lines(text), cases[i].want);
        CHECK(strstr(text, cases[i].says) != NULL);
        free(text);
    }
    load_progress_add(NULL, 1);
}

int main(void)
{
    test_lines();
    return check_result();
}
