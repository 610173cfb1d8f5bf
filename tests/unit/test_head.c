/* Heads of requests by table: targets, lines, fields, and hosts. Every text ends at the end of its memory, so reading beyond it is seen. */
#include "server/http/head.h"
#include "server/http/hosts.h"
#include "tests/check.h"
#include <stdint.h>
#include <stdlib.h>

/* A copy without a NUL behind it. */
static struct head_field field(const char *name, const char *value, size_t value_len)
{
    struct head_field f = {.name_len = strlen(name), .value_len = value_len};
    char *n = malloc(f.name_len ? f.name_len : 1), *v = malloc(value_len ? value_len : 1);
    if (!CHECK(n && v))
        exit(1);
    memcpy(n, name, f.name_len);
    memcpy(v, value, value_len);
    f.name = n;
    f.value = v;
    return f;
}

static void test_targets(void)
{
    static const struct {
        const char *target, *host, *path; /* path NULL: refused */
        const char *word;
    } cases[] = {
        {"/", "", "/", ""},
        {"/a%20b?c=%01", "", "/a%20b?c=%01", ""},
        {"*", "", "*", ""},
        {"http://Host/a", "host", "/a", ""},
        {"HTTPS://h:443/", "h", "/", ""},
        {"http://[::1]:80/a", "[::1]", "/a", ""},
        {"http://h?q", "h", "?q", ""},
        {"http://h", "h", "", ""},
        {"", "", NULL, "path or an http URL"},
        {"a", "", NULL, "path or an http URL"},
        {"ftp://h/", "", NULL, "path or an http URL"},
        {"http:///a", "", NULL, "path or an http URL"},
        {"http://u@h/a", "", NULL, "path or an http URL"},
        {"http://h:a/", "", NULL, "path or an http URL"},
        {"http://h:123456/", "", NULL, "path or an http URL"},
        {"http://[::1/", "", NULL, "path or an http URL"},
        {"http://[]/", "", NULL, "path or an http URL"},
        {"http://[::1]x/", "", NULL, "path or an http URL"},
        {"http://a%41/", "", NULL, "path or an http URL"},
        {"/%00", "", NULL, "NUL"},
        {"/%", "", NULL, "hexadecimal"},
        {"/%a", "", NULL, "hexadecimal"},
        {"/%g0", "", NULL, "hexadecimal"},
        {"/a b", "", NULL, "0x20"},
        {"/\x7f", "", NULL, "0x7f"},
        {"/\xc3\xa9", "", NULL, "0xc3"},
        {"/a#b", "", NULL, "0x23"},
        {"/a\\b", "", NULL, "0x5c"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct head_target t;
        struct err err = {0};
        int r = head_check_target(cases[i].target, &t, &err);
        CHECK_INT(r, cases[i].path ? 0 : ERR_INVALID);
        CHECK(strstr(err.text, cases[i].word) != NULL);
        if (r < 0 || !cases[i].path)
            continue;
        CHECK_STR(t.host, cases[i].host);
        CHECK_STR(cases[i].target + t.path, cases[i].path);
        CHECK_INT(t.rootless, *t.host && cases[i].path[0] != '/');
    }
}

static void test_lines(void)
{
    struct err err;
    CHECK_INT(head_check_line("GET", "HTTP/1.1", &err), 0);
    CHECK_INT(head_check_line("a-B!1", "HTTP/1.0", &err), 0);
    static const char *const bad[][2] = {{"", "HTTP/1.1"},     {"G T", "HTTP/1.1"}, {"G:T", "HTTP/1.1"}, {"\xff", "HTTP/1.1"}, {"GET", ""},
                                         {"GET", "HTTP/1.10"}, {"GET", "HTTP/2.0"}, {"GET", "http/1.1"}, {"GET", "HTTP/1.1 "}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_INT(head_check_line(bad[i][0], bad[i][1], &err), ERR_INVALID);
}

struct field_case {
    const char *a, *av, *b, *bv; /* two fields; b NULL: one */
    bool http10;
    const char *word; /* of the error; NULL: good */
};

static void check_fields(const struct field_case *c, size_t av_len)
{
    struct head_field f[2];
    struct head_framing fr;
    struct err err = {0};
    size_t n = 1 + (c->b != NULL);
    f[0] = field(c->a, c->av, av_len);
    if (c->b)
        f[1] = field(c->b, c->bv, strlen(c->bv));
    int r = head_check_fields(f, n, !c->http10, &fr, &err);
    if (!CHECK_INT(r, c->word ? ERR_INVALID : 0) || !CHECK(!c->word || strstr(err.text, c->word)))
        fprintf(stderr, "  %s: %s: %s\n", c->a, c->av, err.text);
    for (size_t i = 0; i < n; i++) {
        free((void *)(uintptr_t)f[i].name);
        free((void *)(uintptr_t)f[i].value);
    }
}

static void test_fields(void)
{
    static const struct field_case cases[] = {
        {"Host", "h", NULL, NULL, false, NULL},
        {"host", " H.example:80\t", NULL, NULL, false, NULL},
        {"Host", "a_b", NULL, NULL, false, NULL},
        {"X", "", NULL, NULL, true, NULL},
        {"X", "", NULL, NULL, false, "Host is missing"},
        {"Host", "", NULL, NULL, false, "Host must be"},
        {"Host", " ", NULL, NULL, true, "Host must be"},
        {"Host", ":80", NULL, NULL, false, "Host must be"},
        {"Host", "h:", NULL, NULL, false, NULL},
        {"Host", "h:8a", NULL, NULL, false, "Host must be"},
        {"Host", "h", "HOST", "h", false, "Host came twice"},
        {"Host", "h", "Content-Length", "0", false, NULL},
        {"Host", "h", "Content-Length", " 18446744073709551616 ", false, NULL},
        {"Host", "h", "Content-Length", "", false, "digits"},
        {"Host", "h", "Content-Length", "1,1", false, "digits"},
        {"Host", "h", "Content-Length", "-1", false, "digits"},
        {"Host", "h", "Transfer-Encoding", "CHUNKED", false, NULL},
        {"Host", "h", "Transfer-Encoding", "chunked", true, "HTTP/1.0"},
        {"Host", "h", "Transfer-Encoding", "chunke", false, "must be chunked"},
        {"Host", "h", "Transfer-Encoding", "", false, "must be chunked"},
        {"Content-Length", "5", "Transfer-Encoding", "chunked", true, "not both"},
        {"Content-Length", "5", "content-length", "5", true, "came twice"},
        {"Content-Length ", "5", NULL, NULL, true, "before the colon"},
        {"", "5", NULL, NULL, true, "name of a header"},
        {"a(b", "5", NULL, NULL, true, "name of a header"},
        {"X", "\x01", NULL, NULL, true, "0x01"},
        {"X", "a\tb\x80", NULL, NULL, true, NULL},
        {"X", "\x7f", NULL, NULL, true, "0x7f"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_fields(&cases[i], strlen(cases[i].av));
    check_fields(&(struct field_case){"X", "a\0b", NULL, NULL, true, "0x00"}, 3);
}

static void test_facts(void)
{
    const struct head_field length[] = {{"Host", "H:1", 4, 3}, {"Content-Length", "0015", 14, 4}};
    const struct head_field most[] = {{"Host", "h", 4, 1}, {"Content-Length", "99999999999999999999", 14, 20}};
    const struct head_field coding[] = {{"Host", "h", 4, 1}, {"Transfer-Encoding", " chunked ", 17, 9}};
    struct head_framing fr;
    CHECK_INT(head_check_fields(length, 2, true, &fr, NULL), 0);
    CHECK(fr.has_length && !fr.chunked && fr.length == 15);
    CHECK_STR(fr.host, "h");
    CHECK_INT(head_check_fields(most, 2, true, &fr, NULL), 0);
    CHECK(fr.length >= SIZE_MAX - 9);
    CHECK_INT(head_check_fields(coding, 2, true, &fr, NULL), 0);
    CHECK(fr.chunked && !fr.has_length);
    struct head_field many[HEAD_FIELDS_MAX + 1];
    for (int i = 0; i <= HEAD_FIELDS_MAX; i++)
        many[i] = (struct head_field){i ? "X" : "Host", "h", i ? 1 : 4, 1};
    CHECK_INT(head_check_fields(many, HEAD_FIELDS_MAX, true, &fr, NULL), 0);
    CHECK_INT(head_check_fields(many, HEAD_FIELDS_MAX + 1, true, &fr, NULL), ERR_INVALID);
}

static void test_hosts(void)
{
    static const char *const good[] = {"",          "localhost", "localhost.", "a.localhost", "127.0.0.1",
                                       "192.0.2.1", "[::1]",     "x",          "b.example",   "c.example."};
    static const char *const bad[] = {"a.example", "127.0.0.1.a", "localhost.a", "b.example.a",   "xb.example",
                                      "1.2.3",     ".",           "..",          "notlocalhost.a"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        CHECK(hosts_allow("b.example, C.example", good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK(!hosts_allow("b.example, C.example", bad[i]));
        CHECK(!hosts_allow("", bad[i]));
        CHECK(hosts_allow("*", bad[i]) && hosts_allow(NULL, bad[i]));
    }
    CHECK(hosts_is_loopback("127.9.9.9") && hosts_is_loopback("::1") && hosts_is_loopback("localhost"));
    CHECK(!hosts_is_loopback("0.0.0.0") && !hosts_is_loopback("::") && !hosts_is_loopback("10.0.0.1"));
}

int main(void)
{
    test_targets();
    test_lines();
    test_fields();
    test_facts();
    test_hosts();
    return check_result();
}
