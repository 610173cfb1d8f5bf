/* See cors.h. */
#include "server/http/cors.h"
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* scheme "://" host [":" port], and nothing behind it. */
static bool is_origin(const char *s, size_t len)
{
    static const char host[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~[]:";
    const char *mark = memmem(s, len, "://", 3);
    size_t scheme = mark ? (size_t)(mark - s) : 0;
    if (scheme == 0 || scheme + 3 == len)
        return false;
    for (size_t i = scheme + 3; i < len; i++)
        if (!strchr(host, s[i]))
            return false;
    return memchr(s, ' ', scheme) == NULL;
}

/* Calls the list's next part; false at its end. */
static bool next_part(const char **list, const char **ret, size_t *ret_len)
{
    *list += strspn(*list, ", ");
    *ret = *list;
    *ret_len = strcspn(*list, ", ");
    *list += *ret_len;
    return *ret_len > 0;
}

int cors_check(const char *list, struct err *err)
{
    const char *part;
    size_t len;
    if (!list || !strcmp(list, "*"))
        return 0;
    while (next_part(&list, &part, &len))
        if (!is_origin(part, len))
            return err_field(err, ERR_INVALID, "cors-origin",
                             "--cors-origin: \"%.*s\" is no origin; * or e.g. https://host or http://host:3000 is", (int)len, part);
    return 0;
}

const char *cors_allow(const char *list, const char *origin)
{
    const char *part;
    size_t len;
    if (!list || !origin)
        return NULL;
    if (!strcmp(list, "*"))
        return "*";
    while (next_part(&list, &part, &len))
        if (strlen(origin) == len && !strncasecmp(origin, part, len))
            return origin;
    return NULL;
}
