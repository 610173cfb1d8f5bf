/* Lists of devices: what is read, and what is refused with a sentence. */
#include "engine/devices.h"
#include "tests/check.h"

static int n_here;

static int count(int *ret_numbers)
{
    *ret_numbers = n_here > 1 ? n_here : 16;
    return n_here;
}

static const struct {
    int here;
    const char *text;
    int n, first;
    const char *says; /* NULL: it is read */
    int ranks;        /* 0: 1 */
} cases[] = {
    {4, NULL, 1, 0, NULL},
    {4, "all", 4, 0, NULL},
    {1, "all", 1, 0, NULL}, /* numbers beyond it must be named */
    {4, "3", 1, 3, NULL},
    {4, "2,0", 2, 2, NULL},
    {1, "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", 16, 0, NULL},
    {4, "4", 0, 0, "device_list names 4, and the here devices here have the numbers 0 to 3"},
    {4, "0,1,0", 0, 0, "device_list names 0 twice"},
    {4, "", 0, 0, "device_list is \"\"; it must be"},
    {4, "0,", 0, 0, "device_list is \"0,\"; it must be"},
    {4, ",0", 0, 0, "it must be numbers"},
    {4, "0 1", 0, 0, "it must be numbers"},
    {4, "-1", 0, 0, "it must be numbers"},
    {4, "0x1", 0, 0, "it must be numbers"},
    {4, "All", 0, 0, "it must be numbers"},
    {4, "99999999999999999999", 0, 0, "the numbers 0 to 3"},
    {4, NULL, 2, 0, NULL, 2},
    {4, "2,3,0,1", 4, 2, NULL, 2},
    {4, "all", 4, 0, NULL, 4},
    {4, NULL, 0, 0, "tensor_parallel is 5, and there are 4 here devices", 5},
    {4, "0,1,2", 0, 0, "tensor_parallel is 2, and device_list names 3 devices, which is no multiple of it", 2},
    {20, NULL, 0, 0, "tensor_parallel is 17", 17},
    {20, "all", 0, 0, "20, and 16 is the limit"},
    {20, "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", 0, 0, "more than 16"},
};

int main(void)
{
    static const struct backend backend = {.name = "here", .count = count};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct devices d = {0};
        struct err err = {0};
        n_here = cases[i].here;
        int r = devices_read(cases[i].text, cases[i].ranks ? cases[i].ranks : 1, &backend, &d, &err);
        CHECK_INT(r, cases[i].says ? ERR_INVALID : 0);
        CHECK_INT(d.n, cases[i].n);
        CHECK_INT(d.index[0], cases[i].first);
        if (cases[i].says && !CHECK(strstr(err.text, cases[i].says) != NULL))
            fprintf(stderr, "  %s\n", err.text);
    }
    return check_result();
}
