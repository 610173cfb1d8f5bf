/* See hosts.h. */
#include "server/http/hosts.h"
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

static bool is_address(const char *host)
{
    unsigned char ignored[16];
    return *host == '[' || inet_pton(AF_INET, host, ignored) == 1;
}

static bool ends_with(const char *s, size_t len, const char *end)
{
    size_t n = strlen(end);
    return len > n && !memcmp(s + len - n, end, n);
}

static bool in_list(const char *list, const char *host, size_t len)
{
    while (*list) {
        list += strspn(list, ", ");
        size_t n = strcspn(list, ", ");
        if ((n == 1 && *list == '*') || (n == len && n && !strncasecmp(list, host, n)))
            return true;
        list += n;
    }
    return false;
}

bool hosts_allow(const char *allowed, const char *host)
{
    size_t len = strlen(host);
    if (!allowed || is_address(host) || !strchr(host, '.'))
        return true;
    len -= host[len - 1] == '.';
    return (len == 9 && !memcmp(host, "localhost", 9)) || ends_with(host, len, ".localhost") || in_list(allowed, host, len);
}

bool hosts_is_loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1") || !strcasecmp(address, "localhost");
}
