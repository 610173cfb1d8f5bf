#include "common/cgroup.h"
#include "tests/check.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/test_cgroup_XXXXXX";

static void put(const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    for (char *s = full + strlen(root) + 1; *s; s++)
        if (*s == '/') {
            *s = 0;
            mkdir(full, 0700);
            *s = '/';
        }
    FILE *f = fopen(full, "w");
    if (CHECK(f)) {
        fputs(text, f);
        fclose(f);
    }
}

static int limit(const char *proc)
{
    char path[128];
    put("proc", proc);
    snprintf(path, sizeof(path), "%s/proc", root);
    return cgroup_cpu_limit(path, root);
}

int main(void)
{
    char command[128];
    if (!CHECK(mkdtemp(root)))
        return 1;
    put("a/b/cpu.max", "150000 100000\n");
    put("a/cpu.max", "max 100000\n");
    put("c/cpu.max", "400000 100000\n");
    put("c/d/cpu.max", "900000 100000\n");
    put("cpu/v1/cpu.cfs_quota_us", "50000\n");
    put("cpu/v1/cpu.cfs_period_us", "100000\n");
    put("cpu,cpuacct/w/cpu.cfs_quota_us", "250000\n");
    put("cpu,cpuacct/w/cpu.cfs_period_us", "100000\n");
    put("cpu/none/cpu.cfs_quota_us", "-1\n");
    CHECK_INT(limit("0::/a/b\n"), 2);
    CHECK_INT(limit("0::/a\n"), 0);
    CHECK_INT(limit("0::/c/d/gone\n"), 4);
    CHECK_INT(limit("0::/\n"), 0);
    CHECK_INT(limit("5:memory:/x\n3:cpu:/v1\n"), 1);
    CHECK_INT(limit("3:cpu,cpuacct:/w\n"), 3);
    CHECK_INT(limit("3:cpu:/none\n"), 0);
    CHECK_INT(limit("garbage\n::\n"), 0);
    CHECK_INT(cgroup_cpu_limit("/nonexistent", root), 0);
    snprintf(command, sizeof(command), "rm -r %s", root);
    CHECK_INT(system(command), 0);
    return check_result();
}
