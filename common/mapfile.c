/* Read-only file mapping. */
#include "common/mapfile.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_GUARDS 8192 /* mappings at once whose faults are caught; twice the shards of a checkpoint */

/* ---- faults ------------------------------------------------------------------------------------------------- */

static struct guard {
    _Atomic uintptr_t begin, end; /* 0: free. The handler reads them without a lock */
    atomic_bool faulted;
} guards[MAX_GUARDS];

static pthread_mutex_t guards_lock = PTHREAD_MUTEX_INITIALIZER; /* taking and giving back */
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static struct sigaction previous;

static struct guard *find_guard(uintptr_t at)
{
    for (int i = 0; i < MAX_GUARDS; i++)
        if (at >= atomic_load(&guards[i].begin) && at < atomic_load(&guards[i].end))
            return &guards[i];
    return NULL;
}

/* mmap without the library: safe in a signal handler, and no sanitizer takes it for a write to what other threads read at that moment. */
static bool put_zeros(uintptr_t page, size_t bytes)
{
    return syscall(SYS_mmap, page, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (long)page;
}

/* Puts a page of zeros under the address, and the access is tried again. */
static void on_fault(int signal, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct guard *g = find_guard(at);
    if (g && put_zeros(at / page * page, page)) {
        atomic_store(&g->faulted, true);
        return;
    }
    sigaction(SIGBUS, &previous, NULL); /* not ours: the access faults again, and they decide */
}

static void install_handler(void)
{
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &a, &previous);
}

static int take_guard(const void *data, size_t len)
{
    int found = 0;
    pthread_once(&handler_once, install_handler);
    pthread_mutex_lock(&guards_lock);
    for (int i = 0; i < MAX_GUARDS && !found; i++)
        if (!atomic_load(&guards[i].begin)) {
            atomic_store(&guards[i].faulted, false);
            atomic_store(&guards[i].end, (uintptr_t)data + len);
            atomic_store(&guards[i].begin, (uintptr_t)data);
            found = i + 1;
        }
    pthread_mutex_unlock(&guards_lock);
    return found;
}

static void give_guard(int guard)
{
    pthread_mutex_lock(&guards_lock);
    atomic_store(&guards[guard - 1].end, 0);
    atomic_store(&guards[guard - 1].begin, 0);
    pthread_mutex_unlock(&guards_lock);
}

/* ---- files -------------------------------------------------------------------------------------------------- */

static int map_fd(struct mapfile *m, int fd, const char *path, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set(err, ERR_IO, "cannot stat %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_IO, "%s is not a regular file", path);
    if ((uintmax_t)st.st_size > SIZE_MAX)
        return err_set(err, ERR_IO, "%s is too large to map: %jd bytes", path, (intmax_t)st.st_size);
    *m = (struct mapfile){.dev = st.st_dev, .ino = st.st_ino, .changed = st.st_mtim, .path = malloc(strlen(path) + 1)};
    if (!m->path)
        return err_set(err, ERR_NOMEM, "no memory for %s", path);
    strcpy(m->path, path);
    if (st.st_size == 0)
        return 0;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_set(err, ERR_IO, "cannot map %s: %s", path, strerror(errno));
    m->data = p;
    m->len = (size_t)st.st_size;
    m->guard = take_guard(p, m->len);
    return 0;
}

int mapfile_open(struct mapfile *m, const char *path, struct err *err)
{
    *m = (struct mapfile){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* NONBLOCK: a FIFO must not hang us */
    if (fd < 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        return err_set(err, absent ? ERR_NOT_FOUND : ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    int r = map_fd(m, fd, path, err);
    close(fd);
    if (r < 0)
        mapfile_close(m);
    return r;
}

int mapfile_check(const struct mapfile *m, struct err *err)
{
    struct stat st;
    if (m->guard && atomic_load(&guards[m->guard - 1].faulted))
        return err_set(err, ERR_IO, "%s became shorter while it was read, or its disk failed", m->path);
    if (stat(m->path, &st))
        return err_set(err, ERR_IO, "%s went away while it was read: %s", m->path, strerror(errno));
    bool same = st.st_dev == m->dev && st.st_ino == m->ino && (size_t)st.st_size == m->len && st.st_mtim.tv_sec == m->changed.tv_sec &&
                st.st_mtim.tv_nsec == m->changed.tv_nsec;
    return same ? 0 : err_set(err, ERR_IO, "%s was written or replaced while it was read", m->path);
}

void mapfile_close(struct mapfile *m)
{
    if (m->data)
        munmap((void *)m->data, m->len);
    if (m->guard)
        give_guard(m->guard);
    free(m->path);
    *m = (struct mapfile){0};
}
