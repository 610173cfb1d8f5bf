/* Who asks: addresses as they are written, the last one that is not a trusted proxy, and ids by name or address. */
#include "server/api/client_id.h"
#include "tests/check.h"
#include <arpa/inet.h>

static struct client_address address(const char *text)
{
    struct client_address a = {{0}};
    if (!CHECK(client_address_read(text, strlen(text), &a)))
        fprintf(stderr, "  %s\n", text);
    return a;
}

static bool is(const struct client_address *a, const char *text)
{
    struct client_address b = address(text);
    return !memcmp(a, &b, sizeof(b));
}

static void test_addresses(void)
{
    static const char *const good[][2] = {
        {"192.0.2.1", "::ffff:192.0.2.1"},
        {" 192.0.2.1\t", "192.0.2.1"},
        {"192.0.2.1:80", "192.0.2.1"},
        {"[2001:db8::1]:65535", "2001:db8::1"},
        {"[::1]", "::1"},
        {"2001:DB8:0::1", "2001:db8::1"},
    };
    static const char *const bad[] = {
        "",     " ",      "unknown", "192.0.2",          "192.0.2.1:", "192.0.2.1:x", "192.0.2.1:123456", "_abc",          "[192.0.2.1]",
        "[::1", "[::1]x", "[::1]:",  "1.2.3.4, 5.6.7.8", "::1%lo",     "[::1]:-1",    "0x7f.1",           "2001:db8::1::2"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct client_address a = address(good[i][0]);
        CHECK(is(&a, good[i][1]));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct client_address a;
        if (!CHECK(!client_address_read(bad[i], strlen(bad[i]), &a)))
            fprintf(stderr, "  \"%s\"\n", bad[i]);
    }
    char longest[200];
    memset(longest, '1', sizeof(longest));
    CHECK(!client_address_read(longest, sizeof(longest), &(struct client_address){{0}}));
}

static void test_lists(void)
{
    static const char *const bad[] = {"",          "10.0.0.0/33", "10.0.0.0/",     "10.0.0.0/-1", "10.0.0.0/x",    "::/129",
                                      "10.0.0.1,", ",10.0.0.1",   "proxy.example", "[::1]",       "10.0.0.0/1234", "10.0.0.1:80/8x"};
    struct client_proxies p = {.n = 7};
    struct err err;
    CHECK_INT(client_proxies_read(NULL, &p, &err), 0);
    CHECK_INT(p.n, 0);
    CHECK_INT(client_proxies_read("10.0.0.0/8, 127.0.0.1,2001:db8::/32", &p, &err), 0);
    CHECK_INT(p.n, 3);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (!CHECK_INT(client_proxies_read(bad[i], &p, &err), ERR_INVALID))
            fprintf(stderr, "  \"%s\"\n", bad[i]);
        CHECK(strstr(err.text, "trusted-proxy"));
    }
    CHECK_INT(p.n, 3); /* an error leaves it as it is */
    char many[CLIENT_ID_PROXIES * 8 + 8] = "1.1.1.1";
    for (int i = 0; i < CLIENT_ID_PROXIES; i++)
        strcat(many, ",1.1.1.1");
    CHECK_INT(client_proxies_read(many, &p, &err), ERR_INVALID);
}

static void test_forwarding(void)
{
    static const struct {
        const char *trusted, *peer, *forwarded, *who;
    } cases[] = {
        {NULL, "10.0.0.1", "192.0.2.9", "10.0.0.1"},
        {"10.0.0.0/8", "11.0.0.1", "192.0.2.9", "11.0.0.1"}, /* who is not trusted says nothing */
        {"10.0.0.0/8", "10.0.0.1", NULL, "10.0.0.1"},
        {"10.0.0.0/8", "10.0.0.1", "", "10.0.0.1"},
        {"10.0.0.0/8", "10.0.0.1", "192.0.2.9", "192.0.2.9"},
        {"10.0.0.0/8", "10.0.0.1", "192.0.2.1, 192.0.2.9", "192.0.2.9"}, /* what came before the proxy can be anything */
        {"10.0.0.0/8", "10.0.0.1", "192.0.2.1, 192.0.2.9,10.2.2.2", "192.0.2.9"},
        {"10.0.0.0/8", "10.0.0.1", "10.3.3.3, 10.2.2.2", "10.3.3.3"},
        {"10.0.0.0/8", "10.0.0.1", "192.0.2.9, unknown", "10.0.0.1"},
        {"10.0.0.0/8", "10.0.0.1", "192.0.2.9, nonsense, 10.2.2.2", "10.2.2.2"},
        {"10.0.0.0/8", "10.0.0.1", "192.0.2.9:1234", "192.0.2.9"},
        {"10.0.0.1", "10.0.0.2", "192.0.2.9", "10.0.0.2"},
        {"10.0.0.4/30", "10.0.0.7", "192.0.2.9", "192.0.2.9"},
        {"10.0.0.4/30", "10.0.0.8", "192.0.2.9", "10.0.0.8"},
        {"2001:db8::/33", "2001:db8:7fff::1", "[2001:db9::5]:80", "2001:db9::5"},
        {"2001:db8::/33", "2001:db8:8000::1", "2001:db9::5", "2001:db8:8000::1"},
        {"0.0.0.0/0", "10.0.0.1", "192.0.2.1,192.0.2.2", "192.0.2.1"},
        {"0.0.0.0/0", "2001:db8::1", "192.0.2.1", "2001:db8::1"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client_proxies p;
        struct err err;
        struct client_address peer = address(cases[i].peer);
        CHECK_INT(client_proxies_read(cases[i].trusted, &p, &err), 0);
        struct client_address who = client_address_of(&p, &peer, cases[i].forwarded);
        if (!CHECK(is(&who, cases[i].who)))
            fprintf(stderr, "  in case %zu\n", i);
    }
}

static void test_ids(void)
{
    struct client_address a = address("192.0.2.1"), b = address("192.0.2.2"), c = address("2001:db8::1"), d = address("2001:db8::ffff:1"),
                          e = address("2001:db8:0:1::1");
    CHECK(client_id("", &a) != client_id("", &b));
    CHECK(client_id("", &a) == client_id("", &a));
    CHECK(client_id("", &c) == client_id("", &d)); /* of one /64 */
    CHECK(client_id("", &c) != client_id("", &e));
    CHECK(client_id("x", &a) == client_id("x", &b));
    CHECK(client_id("x", &a) != client_id("y", &a));
    CHECK(client_id("x", &a) != client_id("", &a));
    CHECK(client_id(CLIENT_ID_UNNAMED, &a) == client_id("", &a)); /* --api-key, which many may share */
}

int main(void)
{
    test_addresses();
    test_lists();
    test_forwarding();
    test_ids();
    return check_result();
}
