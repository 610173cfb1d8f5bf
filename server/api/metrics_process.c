/* See metrics_process.h; the fields of /proc/self/stat are in proc(5). */
#include "server/api/metrics_process.h"
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Numbers behind the command's name, from `state`, which is field 3. */
enum { FIELD_FIRST = 4, FIELD_UTIME = 14, FIELD_STIME = 15, FIELD_THREADS = 20, FIELD_START = 22, FIELD_VSIZE = 23, FIELD_RSS = 24 };

static bool read_stat(double fields[FIELD_RSS + 1])
{
    char text[1024];
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    char *at = strrchr(text, ')'); /* the name may hold anything */
    if (!at || strlen(at) < 4)
        return false;
    at += 4;
    for (int i = FIELD_FIRST; i <= FIELD_RSS; i++) {
        char *end = at;
        fields[i] = strtod(at, &end);
        if (end == at)
            return false;
        at = end;
    }
    return true;
}

/* Seconds since 1970 at which the machine started; 0: unknown. */
static double boot_time(void)
{
    char line[256];
    double at = 0;
    FILE *f = fopen("/proc/stat", "re");
    while (f && at <= 0 && fgets(line, sizeof(line), f))
        if (!strncmp(line, "btime ", 6))
            at = strtod(line + 6, NULL);
    if (f)
        fclose(f);
    return at;
}

/* Descriptors that are open, this directory's own left out; -1: unknown. */
static int open_descriptors(void)
{
    int n = -2; /* . and .. */
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return -1;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 1;
}

static void write_descriptors(struct metrics_page *p)
{
    int n = open_descriptors();
    struct rlimit lim;
    if (n >= 0)
        metrics_one(p, "process_open_fds", "gauge", "File descriptors that are open.", n);
    if (!getrlimit(RLIMIT_NOFILE, &lim))
        metrics_one(p, "process_max_fds", "gauge", "File descriptors that may be open.", (double)lim.rlim_cur);
}

void metrics_process(struct metrics_page *p)
{
    double f[FIELD_RSS + 1], tick = (double)sysconf(_SC_CLK_TCK), boot = boot_time();
    write_descriptors(p);
    if (!read_stat(f))
        return;
    metrics_one(p, "process_cpu_seconds_total", "counter", "User and system CPU time.", (f[FIELD_UTIME] + f[FIELD_STIME]) / tick);
    metrics_one(p, "process_resident_memory_bytes", "gauge", "Memory that is resident.", f[FIELD_RSS] * (double)sysconf(_SC_PAGESIZE));
    metrics_one(p, "process_virtual_memory_bytes", "gauge", "Address space in use.", f[FIELD_VSIZE]);
    metrics_one(p, "process_threads", "gauge", "Threads.", f[FIELD_THREADS]);
    if (boot > 0)
        metrics_one(p, "process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970.", boot + f[FIELD_START] / tick);
}
