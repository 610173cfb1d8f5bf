/* See memory.h. */
#include "common/memory.h"
#include "common/cgroup.h"
#include "common/err.h"
#include <stdio.h>
#include <string.h>

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

int memory_read(struct memory *ret)
{
    struct memory m = {meminfo_bytes("MemTotal"), meminfo_bytes("MemAvailable")};
    size_t limit, left;
    if (!m.total_bytes)
        return ERR_IO;
    if (cgroup_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup", &limit, &left) && limit < m.total_bytes) {
        m.total_bytes = limit;
        m.free_bytes = left < m.free_bytes ? left : m.free_bytes;
    }
    *ret = m;
    return 0;
}
