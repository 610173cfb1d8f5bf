/* NCCL's library by dlopen. The functions are those of NCCL 2 (nccl.h), whose types are pointers and enums. */
#include "kernels/cuda/nccl.h"
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#define LIBRARY "libnccl.so.2"

enum { OLDEST = 21000 /* 2.10.0 */, NEXT_MAJOR = 30000 };

static struct nccl table;
static int code;
static struct err why;

static int find(void *library, const char *name, void *field)
{
    void *f = dlsym(library, name);
    memcpy(field, &f, sizeof(f));
    return f ? 0 : err_set(&why, ERR_UNSUPPORTED, LIBRARY " has no %s", name);
}

static int check_version(void *library)
{
    int (*get_version)(int *version), version = 0, r = find(library, "ncclGetVersion", &get_version);
    if (r >= 0 && (get_version(&version) || version < OLDEST || version >= NEXT_MAJOR))
        r = err_set(&why, ERR_UNSUPPORTED, LIBRARY " is NCCL %d.%d, and 2.10 or a later 2 is needed", version / 10000, version / 100 % 100);
    return r;
}

static void load(void)
{
    const struct {
        const char *name;
        void *field;
    } functions[] = {
        {"ncclCommInitAll", &table.init_all},        {"ncclCommDestroy", &table.destroy},    {"ncclCommAbort", &table.abort},
        {"ncclAllGather", &table.all_gather},        {"ncclGroupStart", &table.group_start}, {"ncclGroupEnd", &table.group_end},
        {"ncclGetErrorString", &table.error_string},
    };
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        code = err_set(&why, ERR_UNSUPPORTED, "NCCL, by which devices work together, was not found: %s", dlerror());
        return;
    }
    code = check_version(library);
    for (size_t i = 0; code >= 0 && i < sizeof(functions) / sizeof(functions[0]); i++)
        code = find(library, functions[i].name, functions[i].field);
}

int nccl_load(const struct nccl **ret, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (code < 0)
        return err_set(err, code, "%s", why.text);
    *ret = &table;
    return 0;
}
