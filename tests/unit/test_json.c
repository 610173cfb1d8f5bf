#include "common/json.h"
#include "tests/check.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static json_t *parsed(const char *text)
{
    json_t *v = NULL;
    struct err e = {0};
    if (!CHECK_INT(json_parse(text, strlen(text), "text", &v, &e), 0))
        fprintf(stderr, "%s\n", e.text);
    return v;
}

static void test_parse_errors(void)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {"", 0},    {"{", 1},     {"{} x", 4}, {"{\"a\":1,\"a\":2}", 13}, {"\"\\u0000\"", 8}, {"\"\xff\"", 3}, {"\"a\0b\"", 5}, {"[1,]", 4},
        {"nan", 3}, {"1e999", 5}, {"-", 1},    {"\"\\ud800\"", 8},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        json_t *v = NULL;
        struct err e;
        CHECK_INT(json_parse(bad[i].text, bad[i].len, "text", &v, &e), ERR_INVALID);
        CHECK(v == NULL);
    }
    char deep[131];
    for (int depth = 64; depth <= 65; depth++) {
        json_t *v = NULL;
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        CHECK_INT(json_parse(deep, (size_t)depth * 2, "text", &v, NULL), depth == 64 ? 0 : ERR_INVALID);
        json_decref(v);
    }
    json_decref(parsed("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[\""));
}

static void test_readers(void)
{
    json_t *o =
        parsed("{\"i\":5,\"r\":2.5,\"w\":16.0,\"b\":true,\"s\":\"x\",\"n\":null,\"ids\":[1,2,3],\"mixed\":[1,\"a\"],\"big\":1e300}");
    struct err e;
    int64_t i = 42;
    double d = 0;
    bool b = false;
    const char *s = "unset";
    size_t len = 0;
    CHECK_INT(json_get_int(o, "", "absent", 0, 9, &i, &e), 0);
    CHECK_INT(json_get_int(o, "", "n", 0, 9, &i, &e), 0);
    CHECK_INT(i, 42);
    CHECK_INT(json_get_int(o, "", "i", 0, 9, &i, &e), 0);
    CHECK_INT(i, 5);
    CHECK_INT(json_get_int(o, "", "w", 0, 99, &i, &e), 0);
    CHECK_INT(i, 16);
    CHECK_INT(json_get_int(o, "requests[3].", "i", 6, 9, &i, &e), ERR_INVALID);
    CHECK_STR(e.param, "requests[3].i");
    CHECK_STR(e.text, "requests[3].i must be between 6 and 9, but is 5");
    CHECK_INT(json_get_int(o, "", "r", 0, 9, &i, &e), ERR_INVALID);
    CHECK_INT(json_get_int(o, "", "s", 0, 9, &i, &e), ERR_INVALID);
    CHECK_STR(e.text, "s must be an integer, but is a string");
    CHECK_INT(json_get_int(o, "", "big", 0, 9, &i, &e), ERR_INVALID);
    CHECK_INT(json_get_double(o, "", "i", 0, 9, &d, &e), 0);
    CHECK(d == 5);
    CHECK_INT(json_get_double(o, "", "r", 3, 9, &d, &e), ERR_INVALID);
    CHECK_INT(json_get_double(o, "", "b", 3, 9, &d, &e), ERR_INVALID);
    CHECK_INT(json_get_bool(o, "", "b", &b, &e), 0);
    CHECK(b);
    CHECK_INT(json_get_bool(o, "", "i", &b, &e), ERR_INVALID);
    CHECK_INT(json_get_string(o, "", "s", &s, &len, &e), 0);
    CHECK(strcmp(s, "x") == 0 && len == 1);
    CHECK_INT(json_get_string(o, "", "ids", &s, NULL, &e), ERR_INVALID);

    int32_t *ids = NULL;
    size_t n = 0;
    CHECK_INT(json_get_ids(o, "", "ids", 0, 9, 3, &ids, &n, &e), 0);
    CHECK(n == 3 && ids && ids[2] == 3);
    free(ids);
    CHECK_INT(json_get_ids(o, "", "absent", 0, 9, 3, &ids, &n, &e), 0);
    CHECK(n == 0 && ids == NULL);
    CHECK_INT(json_get_ids(o, "", "ids", 0, 9, 2, &ids, &n, &e), ERR_INVALID);
    CHECK_INT(json_get_ids(o, "", "ids", 0, 2, 3, &ids, &n, &e), ERR_INVALID);
    CHECK_STR(e.param, "ids[2]");
    CHECK_INT(json_get_ids(o, "", "mixed", 0, 2, 3, &ids, &n, &e), ERR_INVALID);
    json_decref(o);
}

static void test_long_integers(void)
{
    json_t *o = parsed("{\"a\": 1000000000000000019884624838656, \"b\": [-99999999999999999999], \"s\": \"99999999999999999999\\\"\", "
                       "\"c\": 999999999999999999, \"d\": 1234567890123456789012e2}");
    struct err e;
    int64_t i = 0;
    CHECK(json_real_value(json_object_get(o, "a")) == 1e30);
    CHECK(json_real_value(json_array_get(json_object_get(o, "b"), 0)) == -1e20);
    CHECK_STR(json_string_value(json_object_get(o, "s")), "99999999999999999999\"");
    CHECK(json_integer_value(json_object_get(o, "c")) == 999999999999999999);
    CHECK(json_real_value(json_object_get(o, "d")) == 1234567890123456789012e2);
    CHECK_INT(json_get_int(o, "", "a", 0, 9, &i, &e), ERR_INVALID);
    CHECK_STR(e.text, "a must be between 0 and 9, but is 1e+30");
    json_decref(o);
}

static void test_file(void)
{
    char path[] = "/tmp/test_json_XXXXXX";
    int fd = mkstemp(path);
    json_t *v = NULL;
    struct err e;
    CHECK_INT(write(fd, "{\"a\": 1}", 8), 8);
    close(fd);
    CHECK_INT(json_parse_file(path, 7, &v, &e), ERR_TOO_LARGE);
    CHECK_INT(json_parse_file(path, 8, &v, &e), 0);
    CHECK_INT(json_integer_value(json_object_get(v, "a")), 1);
    json_decref(v);
    unlink(path);
    CHECK_INT(json_parse_file(path, 8, &v, &e), ERR_NOT_FOUND);
    CHECK_INT(json_parse_file("/", 8, &v, &e), ERR_IO);
}

/* Significant digits of a spelling. */
static int digits_of(const char *s)
{
    int n = 0, zeros = 0;
    for (; *s && *s != 'e'; s++) {
        if (*s == '0')
            zeros += n > 0;
        else if (*s >= '1' && *s <= '9') {
            n += zeros + 1;
            zeros = 0;
        }
    }
    return n;
}

static void check_float(float v)
{
    char text[32], other[40];
    json_t *j = NULL;
    int len = json_format_float(text, v), shortest = 1;
    if (strtof(text, NULL) != v || (int)strlen(text) != len)
        CHECK_STR(text, "the float");
    for (; shortest < 9; shortest++) {
        snprintf(other, sizeof(other), "%.*e", shortest - 1, (double)v);
        if (strtof(other, NULL) == v)
            break;
    }
    if (digits_of(text) > shortest)
        CHECK_STR(text, other);
    snprintf(other, sizeof(other), "%.*e", shortest - 1, (double)v);
    if (strtod(text, NULL) != strtod(other, NULL)) /* of that many digits the nearest */
        CHECK_STR(text, other);
    if (!CHECK_INT(json_parse(text, (size_t)len, text, &j, NULL), 0))
        CHECK_STR(text, "a JSON number");
    json_decref(j);
}

static void test_floats(void)
{
    static const struct {
        float v;
        const char *text;
    } rows[] = {
        {0, "0"},
        {-0.0f, "-0"},
        {-1.5f, "-1.5"},
        {1e-7f, "1e-07"},
        {0.1f, "0.1"},
        {100, "100"},
        {16777216, "16777216"},
        {FLT_MAX, "3.4028235e+38"},
        {FLT_MIN, "1.1754944e-38"},
        {1e-45f, "1e-45"},
        {-0.00001f, "-0.00001"},
        {9.9999996e-6f, "1e-05"},
        {999999.9f, "999999.9"},
        {1e6f, "1000000"},
        {123456789.0f, "123456790"},
        {1e15f, "1000000000000000"},
        {1e16f, "1e+16"},
    };
    char text[32];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_format_float(text, rows[i].v);
        if (i != 11)
            CHECK_STR(text, rows[i].text);
        check_float(rows[i].v);
    }
    for (int e = -40; e < 24; e++) { /* below a power of two the floats lie twice as close */
        check_float(ldexpf(1, e));
        check_float(nextafterf(ldexpf(1, e), 0));
        check_float(nextafterf(ldexpf(1, e), INFINITY));
    }
    uint32_t x = 12345;
    for (int i = 0; i < 60000; i++) {
        union {
            uint32_t u;
            float f;
        } bits;
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        bits.u = x;
        if (isfinite(bits.f))
            check_float(bits.f);
        check_float(-(float)(x % 100000) / 1000 - (float)(x >> 20) * 1e-9f);
        check_float((float)(x % 1000) * powf(10, (int)(x >> 28) - 8));
    }
}

static void test_doubles(void)
{
    static const struct {
        double v;
        const char *text;
    } rows[] = {
        {0.1, "0.1"},
        {DBL_MAX, "1.7976931348623157e+308"},
        {5e-324, "5e-324"},
        {1.0 / 3, "0.3333333333333333"},
        {2, "2"},
        {-123456.789, "-123456.789"},
        {9007199254740993.0, "9007199254740992"},
    };
    char text[32];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_format_double(text, rows[i].v);
        CHECK_STR(text, rows[i].text);
    }
}

static void test_writers(void)
{
    struct buf b;
    buf_init(&b, 200);
    CHECK_INT(json_put_string(&b, "a\"\\\n\x01\x7f\xc3\xa9\xff\xe2\x82", 11), 0);
    CHECK_STR(b.data, "\"a\\\"\\\\\\n\\u0001\\u007f\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\"");
    buf_clear(&b);
    CHECK_INT(json_put_string(&b, "\0", 1), 0);
    CHECK_STR(b.data, "\"\\u0000\"");
    buf_clear(&b);
    json_put_float(&b, -1.5f);
    json_put_float(&b, NAN);
    json_put_double(&b, INFINITY);
    CHECK_STR(b.data, "-1.5nullnull");
    buf_done(&b);
    buf_init(&b, 5);
    buf_puts(&b, "x");
    CHECK_INT(json_put_string(&b, "abcd", 4), ERR_TOO_LARGE);
    CHECK_STR(b.data, "x");
    buf_done(&b);
}

/* What parsing takes is told before it is done, and not much too high. */
static void test_estimate(void)
{
    static const struct {
        const char *begin, *unit, *end;
    } cases[] = {
        {"[", "{},", "1]"},
        {"[", "[],", "1]"},
        {"[", "{\"a\":1},", "1]"},
        {"[", "{\"context\":\"some words\",\"continuations\":[\" a\",\" b\"]},", "1]"},
        {"[", "12345,", "1]"},
        {"[", "1.5,", "1]"},
        {"[", "true,", "1]"},
        {"[", "\"\",", "1]"},
        {"[", "\"a string of some length, as texts are\",", "1]"},
        {"[", "[[[1,2],[3,4]]],", "1]"},
        {"\"", "abcdefgh\\n", "\""},
        {"[", "123456789012345678901234567890,", "1]"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf text;
        json_t *v = NULL;
        buf_init(&text, 1 << 24);
        buf_puts(&text, cases[i].begin);
        for (int k = 0; k < 3000; k++)
            buf_puts(&text, cases[i].unit);
        buf_puts(&text, cases[i].end);
        size_t most = json_estimate(text.data, text.len);
        CHECK_INT(json_parse(text.data, text.len, "text", &v, NULL), 0);
        size_t held = json_parsed_bytes();
        if (!CHECK(held <= most && most <= 4 * held + 8192))
            fprintf(stderr, "  %s: held %zu, told %zu\n", cases[i].unit, held, most);
        json_decref(v);
        buf_done(&text);
    }
    CHECK(json_estimate("{\"a", 3) < 8192 && json_estimate("", 0) < 8192 && json_estimate("\"\\", 2) < 8192);
}

int main(void)
{
    test_parse_errors();
    test_readers();
    test_long_integers();
    test_file();
    test_floats();
    test_doubles();
    test_writers();
    test_estimate();
    return check_result();
}
