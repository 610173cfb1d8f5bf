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

static void test_memory(void)
{
    static const struct {
        const char *proc;
        bool found;
        size_t limit, left;
    } cases[] = {
        {"0::/m/n\n", true, 1000, 400}, /* the parent's limit, and what the child leaves */
        {"0::/m\n", true, 1000, 700},
        {"0::/m/gone/deeper\n", true, 1000, 700},
        {"0::/free\n", false, 0, 0},
        {"4:memory:/v1/own\n0::/\n", true, 500, 480},
        {"4:cpu:/v1/own\n", false, 0, 0},
        {"0::/hybrid\n", true, 90, 60},
        {"", false, 0, 0},
    };
    put("m/memory.max", "1000\n");
    put("m/memory.current", "500\n");
    put("m/memory.stat", "anon 1\ninactive_file 200\n");
    put("m/n/memory.max", "2000\n");
    put("m/n/memory.current", "1600\n");
    put("free/memory.max", "max\n");
    put("free/memory.current", "7\n");
    put("memory/v1/own/memory.limit_in_bytes", "500\n");
    put("memory/v1/own/memory.usage_in_bytes", "100\n");
    put("memory/v1/own/memory.stat", "inactive_file 3\ntotal_inactive_file 80\n");
    put("memory/v1/memory.limit_in_bytes", "9223372036854771712\n");
    put("memory/v1/memory.usage_in_bytes", "100\n");
    put("unified/hybrid/memory.max", "90\n");
    put("unified/hybrid/memory.current", "30\n");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[128];
        size_t l = 0, left = 0;
        put("proc", cases[i].proc);
        snprintf(path, sizeof(path), "%s/proc", root);
        CHECK_INT(cgroup_memory_limit(path, root, &l, &left), cases[i].found);
        CHECK_INT(l, cases[i].limit);
        CHECK_INT(left, cases[i].left);
    }
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
    test_memory();
    snprintf(command, sizeof(command), "rm -r %s", root);
    CHECK_INT(system(command), 0);
    return check_result();
}
