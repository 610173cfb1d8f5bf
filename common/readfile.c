#include "common/readfile.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A descriptor of a regular file. O_NONBLOCK: opening a FIFO must not wait for its writer. */
static int open_regular(const char *path, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return err_set(err, ERR_IO, "%s is not a regular file", path);
}

static int append(const char *path, struct buf *b, const char *bytes, size_t n, struct err *err)
{
    int r = buf_append(b, bytes, n);
    if (r == ERR_TOO_LARGE)
        return err_set(err, r, "%s is larger than %zu bytes", path, b->max_bytes);
    return r < 0 ? err_set(err, r, "no memory for %s", path) : 0;
}

int readfile(const char *path, struct buf *b, struct err *err)
{
    char chunk[65536];
    ssize_t n = 1;
    int fd = open_regular(path, err), r = fd < 0 ? fd : 0;
    while (r >= 0 && n) {
        n = read(fd, chunk, sizeof(chunk));
        if (n > 0)
            r = append(path, b, chunk, (size_t)n, err);
        else if (n < 0 && errno != EINTR)
            r = err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    return r;
}
