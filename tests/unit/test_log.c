#include "common/json.h"
#include "common/log.h"
#include "tests/check.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* One logged line; the caller frees it. */
static char *line_of(enum log_format format, enum log_level level, const char *id, const char *message)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    char *text = calloc(1, 1 << 16);
    struct log *log = NULL;
    CHECK_INT(log_new(fd, format, LOG_INFO, &log), 0);
    log_write(log, level, id, "%s", message);
    log_free(log);
    CHECK(pread(fd, text, (1 << 16) - 1, 0) >= 0);
    close(fd);
    return text;
}

static char *field_line(enum log_format format, const struct log_field *fields, int n)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    char *text = calloc(1, 1 << 16);
    struct log *log = NULL;
    CHECK_INT(log_new(fd, format, LOG_INFO, &log), 0);
    log_fields(log, LOG_INFO, "r", "request", fields, n);
    log_fields(log, LOG_DEBUG, "r", "dropped", fields, n);
    log_free(log);
    CHECK(pread(fd, text, (1 << 16) - 1, 0) >= 0);
    close(fd);
    return text;
}

static void test_text(void)
{
    char *s = line_of(LOG_FORMAT_TEXT, LOG_WARN, "r1", "two\nlines");
    CHECK_INT(strlen(s), strlen("2026-01-01T00:00:00.000Z warn  [r1] two lines\n"));
    CHECK_STR(s + 24, " warn  [r1] two lines\n");
    free(s);
    s = line_of(LOG_FORMAT_TEXT, LOG_DEBUG, NULL, "dropped");
    CHECK_STR(s, "");
    free(s);
}

static void test_json(void)
{
    char *s = line_of(LOG_FORMAT_JSON, LOG_ERROR, "a\"b", "x\n\xff\"y\"");
    json_t *v = NULL;
    struct err e;
    if (CHECK_INT(json_parse(s, strlen(s), "line", &v, &e), 0)) {
        CHECK_STR(json_string_value(json_object_get(v, "level")), "error");
        CHECK_STR(json_string_value(json_object_get(v, "request_id")), "a\"b");
        CHECK_STR(json_string_value(json_object_get(v, "message")), "x\n\xef\xbf\xbd\"y\"");
        CHECK_INT(json_string_length(json_object_get(v, "time")), 24);
    }
    CHECK(strchr(s, '\n') == s + strlen(s) - 1);
    json_decref(v);
    free(s);
}

/* Fields beside the message, in both forms. */
static void test_fields(void)
{
    static const struct log_field fields[] = {{"path", "/a b\"\n"}, {"status", NULL, 200}, {"ms", NULL, 0.125}, {"word", "x"}};
    char *s = field_line(LOG_FORMAT_TEXT, fields, 4);
    CHECK_STR(s + 24, " info  [r] request path=\"/a b\\\"\\n\" status=200 ms=0.125 word=x\n");
    free(s);
    s = field_line(LOG_FORMAT_JSON, fields, 4);
    json_t *v = NULL;
    struct err e;
    if (CHECK_INT(json_parse(s, strlen(s), "line", &v, &e), 0)) {
        CHECK_STR(json_string_value(json_object_get(v, "message")), "request");
        CHECK_STR(json_string_value(json_object_get(v, "path")), "/a b\"\n");
        CHECK_INT(json_integer_value(json_object_get(v, "status")), 200);
        CHECK(json_number_value(json_object_get(v, "ms")) == 0.125);
    }
    json_decref(v);
    free(s);
}

/* Lines that end with all of their 500 zeros. */
static int whole_lines(char *text)
{
    int n = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        const char *last = strrchr(line, ' ');
        n += last && strlen(last + 1) == 500;
    }
    return n;
}

/* Nobody reads: lines are dropped and counted, and nothing waits; then they are told. */
static void test_unread(int fd[2])
{
    enum { LINES = 3000 };
    struct log *log = NULL;
    char *text = calloc(1, 1 << 24);
    CHECK_INT(log_new(fd[1], LOG_FORMAT_TEXT, LOG_INFO, &log), 0);
    for (int i = 0; i < LINES; i++)
        log_info(log, "line %d %0500d", i, 0); /* this hangs if it waits */
    int dropped = (int)log_dropped(log);
    CHECK(dropped > 0 && dropped < LINES);
    size_t len = 0;
    ssize_t n;
    while ((n = recv(fd[0], text + len, 1 << 20, MSG_DONTWAIT)) > 0 ||
           (n < 0 && errno == ENOTSOCK && (n = read(fd[0], text + len, 1 << 20)) > 0))
        len += (size_t)n;
    log_info(log, "after");
    n = read(fd[0], text + len, 1 << 20);
    char said[64];
    snprintf(said, sizeof(said), "%d log lines were dropped", dropped);
    CHECK(n > 0 && strstr(text + len, said) && strstr(text + len, "after"));
    CHECK_INT(whole_lines(text), LINES - dropped);
    log_free(log);
    free(text);
    close(fd[0]);
    close(fd[1]);
}

static void test_pipes(void)
{
    int fd[2];
    CHECK_INT(pipe2(fd, O_CLOEXEC), 0);
    CHECK_INT(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
    test_unread(fd);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    test_unread(fd);
}

static void test_file(void)
{
    char path[] = "/tmp/test_log_XXXXXX", moved[64], text[1000] = "";
    struct log *log = NULL;
    struct err err;
    close(mkstemp(path));
    snprintf(moved, sizeof(moved), "%s.1", path);
    CHECK_INT(log_open(path, LOG_FORMAT_TEXT, LOG_INFO, &log, &err), 0);
    log_info(log, "first");
    CHECK_INT(rename(path, moved), 0);
    log_info(log, "second");
    CHECK_INT(log_reopen(log, &err), 0);
    log_info(log, "third");
    FILE *f = fopen(path, "r");
    CHECK(f && fgets(text, sizeof(text), f) && strstr(text, "third"));
    fclose(f);
    f = fopen(moved, "r");
    CHECK(f && fgets(text, sizeof(text), f) && strstr(text, "first") && fgets(text, sizeof(text), f) && strstr(text, "second"));
    fclose(f);
    log_free(log);
    unlink(path);
    unlink(moved);
    CHECK_INT(log_open("/no/such/dir/log", LOG_FORMAT_TEXT, LOG_INFO, &log, &err), ERR_IO);
    CHECK_INT(log_reopen(NULL, &err), 0);
}

int main(void)
{
    log_info(NULL, "silent");
    log_free(NULL);
    test_text();
    test_json();
    test_fields();
    test_pipes();
    test_file();
    return check_result();
}
