#include "common/utf8.h"
#include "tests/check.h"

static void test_every_character(void)
{
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        char s[4];
        uint32_t back = 0;
        if (cp >= 0xd800 && cp <= 0xdfff)
            continue;
        size_t n = utf8_encode(s, cp);
        if (utf8_decode(s, n, &back) != n || back != cp || utf8_valid_prefix(s, n) != n)
            CHECK_INT(back, cp);
        for (size_t cut = 1; cut < n; cut++) {
            bool open = false;
            if (utf8_decode(s, cut, NULL) != 0 || utf8_bad_length(s, cut, &open) != cut || !open)
                CHECK_INT(cut, n);
        }
    }
}

static void test_bad(void)
{
    static const struct {
        const char *s;
        size_t len, prefix, bad;
    } rows[] = {
        {"\x80", 1, 0, 1},
        {"ab\xff"
         "c",
         4, 2, 1},
        {"\xc0\x80", 2, 0, 1},
        {"\xc1\xbf", 2, 0, 1},
        {"\xe0\x80\x80", 3, 0, 1},
        {"\xed\xa0\x80", 3, 0, 1},
        {"\xf4\x90\x80\x80", 4, 0, 1},
        {"\xf5\x80\x80\x80", 4, 0, 1},
        {"12345678\xe2\x82", 10, 8, 2},
        {"\xe2\x82z", 3, 0, 2},
        {"\xf0\x9f\x98z", 4, 0, 3},
        {"\xf0\x80", 2, 0, 1},
        {"123456789\xc2", 10, 9, 1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK_INT(utf8_valid_prefix(rows[i].s, rows[i].len), rows[i].prefix);
        CHECK_INT(utf8_bad_length(rows[i].s + rows[i].prefix, rows[i].len - rows[i].prefix, NULL), rows[i].bad);
    }
    CHECK_INT(utf8_decode("", 0, NULL), 0);
    CHECK_INT(utf8_valid_prefix("", 0), 0);
}

int main(void)
{
    test_every_character();
    test_bad();
    return check_result();
}
