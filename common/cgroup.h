/* What control groups (v1 and v2) leave to this process: CPUs and memory. The smallest limit on the way from the process's group to the
 * root counts.
 *
 * proc_file is the process's group list ("/proc/self/cgroup"), sysfs_root where groups are mounted ("/sys/fs/cgroup"); both are parameters
 * so that tests can give their own. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* CPUs allowed, rounded up; 0: no quota found. */
int cgroup_cpu_limit(const char *proc_file, const char *sysfs_root);

/* Bytes allowed, and bytes left of them; page cache that can be dropped is not counted as used. False: no limit found. */
bool cgroup_memory_limit(const char *proc_file, const char *sysfs_root, size_t *ret_limit, size_t *ret_left);
