/* "0,2" or "all", checked against what is there. */
#include "engine/devices.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int add(struct devices *d, long index, int numbers, const struct backend *backend, struct err *err)
{
    if (index >= numbers)
        return err_field(err, ERR_INVALID, "device_list", "device_list names %ld, and the %s devices here have the numbers 0 to %d", index,
                         backend->name, numbers - 1);
    for (int i = 0; i < d->n; i++)
        if (d->index[i] == (int)index)
            return err_field(err, ERR_INVALID, "device_list", "device_list names %ld twice", index);
    if (d->n == ENGINE_DEVICES_MAX)
        return err_field(err, ERR_INVALID, "device_list", "device_list names more than %d, which is the limit", ENGINE_DEVICES_MAX);
    d->index[d->n++] = (int)index;
    return 0;
}

static int read_list(const char *text, int numbers, const struct backend *backend, struct devices *d, struct err *err)
{
    const char *at = text;
    for (;;) {
        char *end = NULL;
        long index = isdigit((unsigned char)*at) ? strtol(at, &end, 10) : -1;
        if (!end || (*end && *end != ','))
            return err_field(err, ERR_INVALID, "device_list", "device_list is \"%.64s\"; it must be numbers with commas between, or all",
                             text);
        int r = add(d, index, numbers, backend, err);
        if (r < 0 || !*end)
            return r;
        at = end + 1;
    }
}

static void number(struct devices *d, int n)
{
    for (d->n = 0; d->n < n; d->n++)
        d->index[d->n] = d->n;
}

/* The first n devices, or numbers where there are several of one. */
static int take_first(int n, int numbers, const struct backend *backend, struct devices *d, struct err *err)
{
    if (n > numbers || n > ENGINE_DEVICES_MAX)
        return err_field(err, ERR_INVALID, "tensor_parallel", "tensor_parallel is %d, and there %s %d %s device%s", n,
                         numbers == 1 ? "is" : "are", numbers, backend->name, numbers == 1 ? "" : "s");
    number(d, n);
    return 0;
}

int devices_read(const char *text, int ranks, const struct backend *backend, struct devices *ret, struct err *err)
{
    int numbers, n = backend->count(&numbers), r = 0;
    struct devices d = {0};
    if (!text)
        r = take_first(ranks, numbers, backend, &d, err);
    else if (strcmp(text, "all"))
        r = read_list(text, numbers, backend, &d, err);
    else if (n > ENGINE_DEVICES_MAX)
        r = err_field(err, ERR_INVALID, "device_list", "device_list is all, which are %d, and %d is the limit: name those to take", n,
                      ENGINE_DEVICES_MAX);
    else
        number(&d, n);
    if (r >= 0 && d.n % ranks)
        r = err_field(err, ERR_INVALID, "tensor_parallel",
                      "tensor_parallel is %d, and device_list names %d device%s, which is no multiple of it", ranks, d.n,
                      d.n == 1 ? "" : "s");
    if (r >= 0)
        *ret = d;
    return r;
}
