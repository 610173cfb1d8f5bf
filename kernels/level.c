/* See level.h. */
#include "kernels/level.h"
#include <stdio.h>
#include <string.h>

/* "a, b or c" */
static void list_names(char *out, size_t size, const char *const *names, int n)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", !i ? "" : i < n - 1 ? ", " : " or ", names[i]);
}

int level_parse(const char *field, const char *where, const char *const *names, int n, int have, const char *name, int *ret,
                struct err *err)
{
    char list[128];
    int l = have;
    if (name)
        for (l = 0; l < n && strcmp(name, names[l]); l++)
            ;
    if (l == n) {
        list_names(list, sizeof(list), names, n);
        return err_field(err, ERR_INVALID, field, "%s must be %s, not \"%.32s\"", field, list, name);
    }
    if (l > have)
        return err_field(err, ERR_UNSUPPORTED, field, "this %s's highest level is %s, not %s", where, names[have], name);
    *ret = l;
    return 0;
}
