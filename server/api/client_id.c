/* See client_id.h. */
#include "server/api/client_id.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

/* ---- addresses ---- */

static bool read_plain(const char *text, struct client_address *ret)
{
    if (inet_pton(AF_INET6, text, ret->bytes) == 1)
        return true;
    memcpy(ret->bytes, mapped, sizeof(mapped));
    return inet_pton(AF_INET, text, ret->bytes + 12) == 1;
}

static bool is_port(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && n <= 5 && !s[n];
}

bool client_address_read(const char *text, size_t n, struct client_address *ret)
{
    char copy[64], *end, *colon;
    struct client_address a;
    while (n && (text[n - 1] == ' ' || text[n - 1] == '\t'))
        n--;
    while (n && (*text == ' ' || *text == '\t'))
        text++, n--;
    if (!n || n >= sizeof(copy))
        return false;
    memcpy(copy, text, n);
    copy[n] = 0;
    if (*copy == '[') {
        end = strchr(copy, ']');
        if (!end || (end[1] && (end[1] != ':' || !is_port(end + 2))))
            return false;
        *end = 0;
        if (inet_pton(AF_INET6, copy + 1, a.bytes) != 1)
            return false;
    } else {
        colon = strchr(copy, ':');
        if (colon && !strchr(colon + 1, ':')) { /* one colon: an IPv4 address with a port */
            if (!is_port(colon + 1))
                return false;
            *colon = 0;
        }
        if (!read_plain(copy, &a))
            return false;
    }
    *ret = a;
    return true;
}

/* ---- proxies ---- */

static int read_proxy(const char *text, size_t n, struct client_proxies *p, struct err *err)
{
    const char *slash = memchr(text, '/', n);
    size_t len = slash ? (size_t)(slash - text) : n, digits = slash ? n - len - 1 : 0;
    char bits_text[4] = "";
    if (p->n == CLIENT_ID_PROXIES)
        return err_field(err, ERR_INVALID, "trusted-proxy", "--trusted-proxy names more than %d addresses", CLIENT_ID_PROXIES);
    struct client_address *a = &p->items[p->n].net;
    bool ok = client_address_read(text, len, a) && *text != '[' && digits < sizeof(bits_text);
    bool four = ok && !memcmp(a->bytes, mapped, sizeof(mapped));
    int most = four ? 32 : 128, bits = most;
    if (ok && slash) {
        memcpy(bits_text, slash + 1, digits);
        ok = digits && strspn(bits_text, "0123456789") == digits;
        bits = atoi(bits_text);
    }
    if (!ok || bits > most)
        return err_field(err, ERR_INVALID, "trusted-proxy", "--trusted-proxy: \"%.*s\" is not ADDR or ADDR/BITS", (int)(n < 64 ? n : 64),
                         text);
    p->items[p->n++].bits = bits + (four ? 96 : 0);
    return 0;
}

int client_proxies_read(const char *list, struct client_proxies *ret, struct err *err)
{
    struct client_proxies p = {0};
    int r = 0;
    for (const char *at = list; at && r >= 0;) {
        size_t n = strcspn(at, ",");
        r = read_proxy(at, n, &p, err);
        at = at[n] ? at + n + 1 : NULL;
    }
    if (r >= 0)
        *ret = p;
    return r;
}

static bool begins_alike(const struct client_address *a, const struct client_address *b, int bits)
{
    int bytes = bits / 8, rest = bits % 8;
    return !memcmp(a->bytes, b->bytes, (size_t)bytes) && (!rest || !((a->bytes[bytes] ^ b->bytes[bytes]) >> (8 - rest)));
}

static bool is_trusted(const struct client_proxies *p, const struct client_address *a)
{
    for (int i = 0; i < p->n; i++)
        if (begins_alike(&p->items[i].net, a, p->items[i].bits))
            return true;
    return false;
}

struct client_address client_address_of(const struct client_proxies *p, const struct client_address *peer, const char *forwarded)
{
    struct client_address at = *peer;
    size_t end = forwarded ? strlen(forwarded) : 0;
    while (end && is_trusted(p, &at)) {
        size_t begin = end;
        while (begin && forwarded[begin - 1] != ',')
            begin--;
        if (!client_address_read(forwarded + begin, end - begin, &at))
            break;
        end = begin ? begin - 1 : 0;
    }
    return at;
}

/* ---- ids ---- */

static uint64_t salt;

static void choose_salt(void)
{
    if (getrandom(&salt, sizeof(salt), GRND_NONBLOCK) != sizeof(salt))
        salt = (uint64_t)time(NULL);
}

static uint64_t mix(uint64_t h, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        h = (h ^ ((const unsigned char *)bytes)[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

uint64_t client_id(const char *name, const struct client_address *a)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose_salt);
    bool named = *name && strcmp(name, CLIENT_ID_UNNAMED);
    size_t n = memcmp(a->bytes, mapped, sizeof(mapped)) ? 8 : 16;
    uint64_t id = named ? mix(salt ^ 1, name, strlen(name)) : mix(salt, a->bytes, n);
    return id ? id : 1;
}
