/* Reads cpu.max (v2) or cpu.cfs_quota_us and cpu.cfs_period_us (v1) of the process's group and of its ancestors.
 * Inside a container the group's path may be the host's and not exist; then only its ancestors that do count. */
#include "common/cgroup.h"
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_line(const char *path, char *line, int size)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(line, size, f);
    if (f)
        fclose(f);
    return ok;
}

static int cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0 || quota / period >= INT_MAX)
        return 0;
    return (int)((quota + period - 1) / period);
}

/* Quota of one group directory, 0 if it has none. */
static int group_limit(const char *dir)
{
    char path[PATH_MAX + 64], line[128];
    long long quota, period;
    snprintf(path, sizeof(path), "%s/cpu.max", dir);
    if (read_line(path, line, sizeof(line)))
        return sscanf(line, "%lld %lld", &quota, &period) == 2 ? cpus(quota, period) : 0; /* "max 100000": none */
    snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", dir);
    if (!read_line(path, line, sizeof(line)))
        return 0;
    quota = atoll(line);
    snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", dir);
    return read_line(path, line, sizeof(line)) ? cpus(quota, atoll(line)) : 0;
}

static int smaller(int a, int b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

/* The smallest quota of root/group, its parents and root itself. */
static int limit_along(const char *root, const char *group)
{
    char dir[PATH_MAX];
    size_t root_len = strlen(root);
    int n = snprintf(dir, sizeof(dir), "%s%s", root, strcmp(group, "/") == 0 ? "" : group);
    if (n < 0 || (size_t)n >= sizeof(dir))
        return 0;
    for (int limit = 0;;) {
        limit = smaller(limit, group_limit(dir));
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= root_len || !slash)
            return limit;
        *slash = 0;
    }
}

/* Does "cpu,cpuacct" name the cpu controller? */
static bool has_cpu(const char *controllers)
{
    char list[256], *rest;
    snprintf(list, sizeof(list), "%s", controllers);
    for (char *c = strtok_r(list, ",", &rest); c; c = strtok_r(NULL, ",", &rest))
        if (strcmp(c, "cpu") == 0)
            return true;
    return false;
}

/* One line "id:controllers:group". */
static int line_limit(char *line, const char *sysfs_root)
{
    char root[PATH_MAX];
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return 0;
    *group++ = 0;
    controllers++;
    group[strcspn(group, "\n")] = 0;
    if (*controllers == 0)
        return limit_along(sysfs_root, group);
    if (!has_cpu(controllers))
        return 0;
    snprintf(root, sizeof(root), "%s/cpu", sysfs_root);
    int limit = limit_along(root, group);
    snprintf(root, sizeof(root), "%s/%s", sysfs_root, controllers);
    return smaller(limit, limit_along(root, group));
}

int cgroup_cpu_limit(const char *proc_file, const char *sysfs_root)
{
    char line[PATH_MAX + 256];
    FILE *f = fopen(proc_file, "re");
    int limit = 0;
    while (f && fgets(line, sizeof(line), f))
        limit = smaller(limit, line_limit(line, sysfs_root));
    if (f)
        fclose(f);
    return limit;
}
