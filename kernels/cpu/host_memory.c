#include "kernels/cpu/host_memory.h"
#include <stdio.h>
#include <unistd.h>

static size_t meminfo_bytes(const char *key)
{
    char line[128];
    unsigned long long kb = 0;
    size_t len = strlen(key);
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, len) && sscanf(line + len, ": %llu kB", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (size_t)kb * 1024;
}

/* False for a missing file and for "max". */
static bool read_bytes(const char *path, size_t *ret)
{
    unsigned long long v;
    FILE *f = fopen(path, "re");
    bool ok = f && fscanf(f, "%llu", &v) == 1;
    if (f)
        fclose(f);
    if (ok)
        *ret = v;
    return ok;
}

static void apply_limit(struct backend_memory *m, const char *limit_path, const char *used_path)
{
    size_t limit = 0, used = 0;
    if (!read_bytes(limit_path, &limit) || !read_bytes(used_path, &used) || limit >= m->total_bytes)
        return;
    size_t left = used < limit ? limit - used : 0;
    m->total_bytes = limit;
    m->free_bytes = left < m->free_bytes ? left : m->free_bytes;
}

int host_memory(struct backend_memory *ret)
{
    struct backend_memory m = {meminfo_bytes("MemTotal"), meminfo_bytes("MemAvailable")};
    if (!m.total_bytes)
        return ERR_IO;
    apply_limit(&m, "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
    apply_limit(&m, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes");
    *ret = m;
    return 0;
}
