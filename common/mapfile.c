/* Read-only file mapping. */
#include "common/mapfile.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_fd(struct mapfile *m, int fd, const char *path, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set(err, ERR_IO, "cannot stat %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_IO, "%s is not a regular file", path);
    if ((uintmax_t)st.st_size > SIZE_MAX)
        return err_set(err, ERR_IO, "%s is too large to map: %jd bytes", path, (intmax_t)st.st_size);
    if (st.st_size == 0)
        return 0;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_set(err, ERR_IO, "cannot map %s: %s", path, strerror(errno));
    *m = (struct mapfile){.data = p, .len = (size_t)st.st_size};
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
    return r;
}

void mapfile_close(struct mapfile *m)
{
    if (m->data)
        munmap((void *)m->data, m->len);
    *m = (struct mapfile){0};
}
