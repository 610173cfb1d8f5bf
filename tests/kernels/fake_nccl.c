/* NCCL's library for programs with the fake runtime: the linker puts these before dlopen and dlsym (meson.build). Its communicators exist, and its gathers fail: the
 * fake runtime runs no kernels that could lay out what they bring. */
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

void *__real_dlopen(const char *path, int flags);
void *__real_dlsym(void *library, const char *name);
void *__wrap_dlopen(const char *path, int flags);
void *__wrap_dlsym(void *library, const char *name);

static int communicators;

static int get_version(int *version)
{
    *version = 22800;
    return 0;
}

static int init_all(void **comms, int n, const int *devices)
{
    for (int i = 0; i < n; i++)
        comms[i] = &communicators;
    return 0;
}

static int nothing(void *comm)
{
    return 0;
}

static int all_gather(const void *send, void *recv, size_t count, int type, void *comm, void *stream)
{
    return 1;
}

static const char *error_string(int result)
{
    return "not a gather of the fake library";
}

static char library;

void *__wrap_dlopen(const char *path, int flags)
{
    return path && !strcmp(path, "libnccl.so.2") ? &library : __real_dlopen(path, flags);
}

void *__wrap_dlsym(void *from, const char *name)
{
    const struct {
        const char *name;
        void (*function)(void);
    } functions[] = {
        {"ncclGetVersion", (void (*)(void))get_version}, {"ncclCommInitAll", (void (*)(void))init_all},
        {"ncclCommDestroy", (void (*)(void))nothing},    {"ncclCommAbort", (void (*)(void))nothing},
        {"ncclAllGather", (void (*)(void))all_gather},   {"ncclGroupStart", (void (*)(void))nothing},
        {"ncclGroupEnd", (void (*)(void))nothing},       {"ncclGetErrorString", (void (*)(void))error_string},
    };
    void *found = NULL;
    if (from != &library)
        return __real_dlsym(from, name);
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (!strcmp(functions[i].name, name))
            memcpy(&found, &functions[i].function, sizeof(found));
    return found;
}
