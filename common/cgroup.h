/* The CPU quota that control groups (v1 and v2) put on this process. */
#pragma once

/* CPUs allowed, rounded up: the smallest quota on the way from the process's group to the root; 0: no quota found.
 * proc_file is the process's group list ("/proc/self/cgroup"), sysfs_root where groups are mounted ("/sys/fs/cgroup");
 * both are parameters so that tests can give their own. */
int cgroup_cpu_limit(const char *proc_file, const char *sysfs_root);
