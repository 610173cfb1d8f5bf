#include "common/json.h"
#include "common/log.h"
#include "tests/check.h"
#include <stdlib.h>

/* One logged line; the caller frees it. */
static char *line_of(enum log_format format, enum log_level level, const char *id, const char *message)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    struct log *log = NULL;
    CHECK_INT(log_new(f, format, LOG_INFO, &log), 0);
    log_write(log, level, id, "%s", message);
    log_free(log);
    fclose(f);
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

int main(void)
{
    log_info(NULL, "silent");
    log_free(NULL);
    test_text();
    test_json();
    return check_result();
}
