/* Stop strings: a text cut at any borders into tokens gives the same cut, and what was called settled is never taken back. */
#include "common/err.h"
#include "server/api/stop.h"
#include "tests/check.h"

static const struct {
    const char *text, *stops[4], *want;
} cases[] = {
    {"hello world", {0}, "hello world"},
    {"hello world", {"nothing"}, "hello world"},
    {"hello world", {"o w"}, "hell"},
    {"hello world", {"hello"}, ""},
    {"hello world", {"world"}, "hello "},
    {"hello world", {"world", "lo"}, "hel"},
    {"aaaaab", {"aab"}, "aaa"},
    {"abababc", {"ababc"}, "ab"},
    {"one\n\ntwo", {"\n\n", "two"}, "one"},
    {"caf\xc3\xa9 \xe2\x82\xac 5", {"\xe2\x82\xac"}, "caf\xc3\xa9 "},
    {"abc", {"abcd"}, "abc"},
    {"", {"a"}, ""},
};

static struct stop_set make_set(const char *const *stops, const char **strings, size_t *lens)
{
    struct stop_set set = {.strings = strings, .lens = lens};
    while (set.n < 4 && stops[set.n])
        stop_set_add(&set, stops[set.n], strlen(stops[set.n]));
    return set;
}

/* Bit i of `borders`: a token ends before byte i + 1. */
static void check_borders(const char *text, const struct stop_set *set, const char *want, unsigned borders)
{
    struct stop_text t;
    size_t n = strlen(text), begin = 0, settled = 0;
    stop_text_init(&t, set, 1 << 20);
    for (size_t i = 0; i < n && !t.hit; i++) {
        if (i + 1 < n && !(borders >> i & 1))
            continue;
        int r = stop_text_add(&t, text + begin, i + 1 - begin);
        CHECK_INT(r, t.hit);
        begin = i + 1;
        size_t now = stop_text_settled(&t, false);
        CHECK(now >= settled && now <= strlen(want));
        settled = now;
    }
    size_t end = stop_text_settled(&t, true);
    CHECK_INT(end, strlen(want));
    CHECK(!memcmp(t.text.data, want, end));
    CHECK_INT(t.hit, strlen(want) < n);
    stop_text_done(&t);
}

static void test_cuts(void)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t lens[4], n = strlen(cases[i].text);
        const char *strings[4];
        struct stop_set set = make_set(cases[i].stops, strings, lens);
        if (n == 0)
            continue;
        for (unsigned borders = 0; borders < 1u << (n - 1); borders++)
            check_borders(cases[i].text, &set, cases[i].want, borders);
    }
}

static void test_unfinished_characters(void)
{
    static const struct {
        const char *text;
        size_t settled;
    } rows[] = {{"a\xc3", 1},    {"a\xc3\xa9", 3}, {"\xe2\x82", 0}, {"\xe2\x82\xac", 3}, {"x\xf0\x9f\x98", 1}, {"x\xf0\x9f\x98\x80", 5},
                {"\x80\x80", 2}, {"\xff", 0},      {"\xff z", 3}};
    struct stop_set none = {0};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct stop_text t;
        stop_text_init(&t, &none, 100);
        CHECK_INT(stop_text_add(&t, rows[i].text, strlen(rows[i].text)), 0);
        CHECK_INT(stop_text_settled(&t, false), rows[i].settled);
        CHECK_INT(stop_text_settled(&t, true), strlen(rows[i].text));
        stop_text_done(&t);
    }
}

static void test_limit(void)
{
    struct stop_set none = {0};
    struct stop_text t;
    stop_text_init(&t, &none, 4);
    CHECK_INT(stop_text_add(&t, "abcd", 4), 0);
    CHECK_INT(stop_text_add(&t, "e", 1), ERR_TOO_LARGE);
    CHECK_INT(t.text.len, 4);
    stop_text_done(&t);
}

int main(void)
{
    test_cuts();
    test_unfinished_characters();
    test_limit();
    return check_result();
}
