/* Lists of origins: which are lists, and whom they let read. */
#include "server/http/cors.h"
#include "tests/check.h"

static void test_check(void)
{
    static const struct {
        const char *list;
        int code;
    } cases[] = {
        {"*", 0},
        {"https://a.example", 0},
        {"http://localhost:3000,https://a.example", 0},
        {"http://localhost:3000, https://[::1]:80", 0},
        {"app://local", 0},
        {"a.example", ERR_INVALID},
        {"https://", ERR_INVALID},
        {"://a", ERR_INVALID},
        {"https://a.example/", ERR_INVALID},
        {"https://a.example/path", ERR_INVALID},
        {"https://a.example,*", ERR_INVALID},
        {"https://*.example", ERR_INVALID},
    };
    struct err err = {0};
    CHECK_INT(cors_check(NULL, &err), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        CHECK_INT(cors_check(cases[i].list, &err), cases[i].code);
    CHECK_STR(err.param, "cors-origin");
}

static void test_allow(void)
{
    static const char list[] = "https://a.example, http://localhost:3000";
    static const struct {
        const char *list, *origin, *want;
    } cases[] = {
        {"*", "https://any.example", "*"},
        {"*", "null", "*"},
        {list, "https://a.example", "https://a.example"},
        {list, "HTTP://localhost:3000", "HTTP://localhost:3000"},
        {list, "http://localhost:30000", NULL},
        {list, "http://localhost:300", NULL},
        {list, "https://a.example.org", NULL},
        {list, "https://a.exampl", NULL},
        {list, "null", NULL},
        {list, "", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *got = cors_allow(cases[i].list, cases[i].origin);
        CHECK_STR(got ? got : "none", cases[i].want ? cases[i].want : "none");
    }
    CHECK(!cors_allow(NULL, "https://a.example") && !cors_allow("*", NULL));
}

int main(void)
{
    test_check();
    test_allow();
    return check_result();
}
