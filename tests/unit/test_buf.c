#include "common/buf.h"
#include "common/err.h"
#include "tests/check.h"
#include <stdlib.h>

static void test_limit(void)
{
    struct buf b;
    buf_init(&b, 10);
    CHECK_STR(b.data, "");
    CHECK_INT(buf_append(&b, "12345678901", 11), ERR_TOO_LARGE);
    CHECK_INT(b.len, 0);
    CHECK_INT(buf_puts(&b, "1234567890"), 0);
    CHECK_INT(buf_puts(&b, "x"), ERR_TOO_LARGE);
    CHECK_INT(buf_printf(&b, "%d", 1), ERR_TOO_LARGE);
    CHECK_STR(b.data, "1234567890");
    buf_clear(&b);
    CHECK_STR(b.data, "");
    CHECK_INT(buf_printf(&b, "%s", "1234567890"), 0);
    CHECK_INT(b.len, 10);
    buf_done(&b);
    CHECK_STR(b.data, "");
}

static void test_growth(void)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 10000; i++)
        CHECK_INT(buf_printf(&b, "%d,", i % 10), 0);
    CHECK_INT(b.len, 20000);
    CHECK_INT(strlen(b.data), 20000);
    CHECK(memcmp(b.data + 19980, "0,1,2,3,4,5,6,7,8,9,", 20) == 0);
    CHECK_INT(buf_append(&b, "a\0b", 3), 0);
    CHECK_INT(b.len, 20003);
    size_t len = 0;
    char *bytes = buf_take(&b, &len);
    CHECK_INT(len, 20003);
    CHECK_INT(bytes[20002], 'b');
    CHECK_INT(b.len, 0);
    free(bytes);
    bytes = buf_take(&b, NULL);
    CHECK_STR(bytes, "");
    free(bytes);
    buf_done(&b);
}

int main(void)
{
    test_limit();
    test_growth();
    return check_result();
}
