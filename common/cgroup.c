/* Reads the limits of the process's group and of its ancestors. CPUs: cpu.max (v2), cpu.cfs_quota_us and cpu.cfs_period_us (v1). Memory:
 * memory.max and memory.current (v2), memory.limit_in_bytes and memory.usage_in_bytes (v1), and the inactive files of memory.stat.
 * Inside a container the group's path may be the host's and not exist; then only its ancestors that do count. */
#include "common/cgroup.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Called for each group directory from the process's own up to the root. */
typedef void visit(const char *dir, void *result);

static bool read_line(const char *dir, const char *name, char *line, int size)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(line, size, f);
    if (f)
        fclose(f);
    return ok;
}

/* ---- CPUs ---- */

static int cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0 || quota / period >= INT_MAX)
        return 0;
    return (int)((quota + period - 1) / period);
}

/* Quota of one group directory, 0 if it has none. */
static int group_cpus(const char *dir)
{
    char line[128];
    long long quota, period;
    if (read_line(dir, "cpu.max", line, sizeof(line)))
        return sscanf(line, "%lld %lld", &quota, &period) == 2 ? cpus(quota, period) : 0; /* "max 100000": none */
    if (!read_line(dir, "cpu.cfs_quota_us", line, sizeof(line)))
        return 0;
    quota = atoll(line);
    return read_line(dir, "cpu.cfs_period_us", line, sizeof(line)) ? cpus(quota, atoll(line)) : 0;
}

static void visit_cpus(const char *dir, void *result)
{
    int *limit = result, n = group_cpus(dir);
    if (n > 0 && (*limit == 0 || n < *limit))
        *limit = n;
}

/* ---- memory ---- */

struct memory {
    bool found;
    size_t limit, left;
};

/* False for a missing file and for "max". */
static bool read_bytes(const char *dir, const char *name, size_t *ret)
{
    char line[128];
    unsigned long long v;
    bool ok = read_line(dir, name, line, sizeof(line)) && sscanf(line, "%llu", &v) == 1;
    if (ok)
        *ret = (size_t)v;
    return ok;
}

static size_t inactive_files(const char *dir)
{
    char path[PATH_MAX + 64], line[128];
    unsigned long long v, found = 0;
    snprintf(path, sizeof(path), "%s/memory.stat", dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "inactive_file %llu", &v) == 1 || sscanf(line, "total_inactive_file %llu", &v) == 1)
            found = v; /* v1 has both; the total comes later */
    if (f)
        fclose(f);
    return (size_t)found;
}

static void visit_memory(const char *dir, void *result)
{
    struct memory *m = result;
    size_t limit, used;
    bool v2 = read_bytes(dir, "memory.max", &limit) && read_bytes(dir, "memory.current", &used);
    if (!v2 && !(read_bytes(dir, "memory.limit_in_bytes", &limit) && read_bytes(dir, "memory.usage_in_bytes", &used)))
        return;
    size_t files = inactive_files(dir), kept = used > files ? used - files : 0, left = limit > kept ? limit - kept : 0;
    m->limit = !m->found || limit < m->limit ? limit : m->limit;
    m->left = !m->found || left < m->left ? left : m->left;
    m->found = true;
}

/* ---- groups ---- */

/* root/group, its parents and root itself. */
static void walk(const char *root, const char *group, visit *one, void *result)
{
    char dir[PATH_MAX];
    size_t root_len = strlen(root);
    int n = snprintf(dir, sizeof(dir), "%s%s", root, strcmp(group, "/") == 0 ? "" : group);
    if (n < 0 || (size_t)n >= sizeof(dir))
        return;
    for (;;) {
        one(dir, result);
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= root_len || !slash)
            return;
        *slash = 0;
    }
}

/* Does "cpu,cpuacct" name the controller? */
static bool has_controller(const char *controllers, const char *name)
{
    char list[256], *rest;
    snprintf(list, sizeof(list), "%s", controllers);
    for (char *c = strtok_r(list, ",", &rest); c; c = strtok_r(NULL, ",", &rest))
        if (strcmp(c, name) == 0)
            return true;
    return false;
}

/* One line "id:controllers:group". No controllers: v2, which lies in unified/ where v1 is mounted too. */
static void visit_line(char *line, const char *sysfs_root, const char *controller, visit *one, void *result)
{
    char root[PATH_MAX];
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return;
    *group++ = 0;
    controllers++;
    group[strcspn(group, "\n")] = 0;
    if (*controllers && !has_controller(controllers, controller))
        return;
    const char *places[] = {*controllers ? controller : "unified", controllers};
    for (int i = 0; i < 2; i++) {
        snprintf(root, sizeof(root), "%s%s%s", sysfs_root, *places[i] ? "/" : "", places[i]);
        walk(root, group, one, result);
    }
}

static void visit_all(const char *proc_file, const char *sysfs_root, const char *controller, visit *one, void *result)
{
    char line[PATH_MAX + 256];
    FILE *f = fopen(proc_file, "re");
    while (f && fgets(line, sizeof(line), f))
        visit_line(line, sysfs_root, controller, one, result);
    if (f)
        fclose(f);
}

int cgroup_cpu_limit(const char *proc_file, const char *sysfs_root)
{
    int limit = 0;
    visit_all(proc_file, sysfs_root, "cpu", visit_cpus, &limit);
    return limit;
}

bool cgroup_memory_limit(const char *proc_file, const char *sysfs_root, size_t *ret_limit, size_t *ret_left)
{
    struct memory m = {0};
    visit_all(proc_file, sysfs_root, "memory", visit_memory, &m);
    if (m.found) {
        *ret_limit = m.limit;
        *ret_left = m.left;
    }
    return m.found;
}
