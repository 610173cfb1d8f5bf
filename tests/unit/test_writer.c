/* The JSON writer: commas, escapes, numbers at their ends, and an error that sticks. */
#include "common/err.h"
#include "server/http/writer.h"
#include "tests/check.h"
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static void test_structure(void)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    struct writer w = writer_on(&b);
    writer_open(&w, '{');
    writer_key(&w, "empty");
    writer_open(&w, '[');
    writer_close(&w, ']');
    writer_key(&w, "list");
    writer_open(&w, '[');
    writer_int(&w, INT64_MIN);
    writer_int(&w, INT64_MAX);
    writer_int(&w, 0);
    writer_open(&w, '{');
    writer_close(&w, '}');
    writer_open(&w, '[');
    writer_bool(&w, true);
    writer_bool(&w, false);
    writer_null(&w);
    writer_close(&w, ']');
    writer_raw(&w, "7", 1);
    writer_close(&w, ']');
    writer_key_text(&w, "text", "a\"\\\n\x01/\xc3\xa9");
    writer_key_text(&w, "none", NULL);
    writer_key_int(&w, "n", -5);
    writer_key(&w, "f");
    writer_float(&w, 0.1f);
    writer_key(&w, "d");
    writer_double(&w, 0.1);
    writer_key(&w, "inf");
    writer_float(&w, INFINITY);
    writer_close(&w, '}');
    CHECK_INT(w.code, 0);
    CHECK_STR(b.data, "{\"empty\":[],\"list\":[-9223372036854775808,9223372036854775807,0,{},[true,false,null],7],\"text\":"
                      "\"a\\\"\\\\\\n\\u0001/\xc3\xa9\","
                      "\"none\":null,\"n\":-5,\"f\":0.1,\"d\":0.1,\"inf\":null}");
    json_t *back = json_loads(b.data, 0, NULL);
    CHECK(back != NULL);
    json_decref(back);
    buf_done(&b);
}

/* Values that are put in place have their commas, and room for what was asked, from the first byte of a buffer on. */
static void test_in_place(void)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    struct writer w = writer_on(&b);
    writer_open(&w, '[');
    for (size_t i = 0; i < 100; i++) {
        char *o = writer_begin(&w, i);
        if (!CHECK(o != NULL))
            break;
        CHECK(b.cap_bytes >= (size_t)(o - b.data) + i + 1);
        memset(o, '1', i);
        if (i)
            writer_end(&w, o + i);
        writer_int(&w, 2);
    }
    writer_close(&w, ']');
    CHECK_INT(strncmp(b.data, "[2,1,2,11,2,111,2,", 18), 0);
    CHECK_INT(b.len, strlen(b.data));
    b.max_bytes = b.len + 10;
    CHECK(writer_begin(&w, 9) != NULL);
    CHECK(writer_begin(&w, 1 << 16) == NULL);
    CHECK_INT(w.code, ERR_TOO_LARGE);
    CHECK(writer_begin(&w, 1) == NULL);
    buf_done(&b);
}

static void test_error_sticks(void)
{
    struct buf b;
    buf_init(&b, 6);
    struct writer w = writer_on(&b);
    writer_open(&w, '[');
    writer_text(&w, "too long");
    CHECK_INT(w.code, ERR_TOO_LARGE);
    size_t len = b.len;
    writer_int(&w, 1);
    writer_close(&w, ']');
    CHECK_INT(w.code, ERR_TOO_LARGE);
    CHECK_INT(b.len, len);
    buf_done(&b);
}

int main(void)
{
    test_structure();
    test_in_place();
    test_error_sticks();
    return check_result();
}
