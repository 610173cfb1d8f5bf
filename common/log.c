/* Levelled logging: a line is built aside and written under the logger's lock. */
#include "common/log.h"
#include "common/buf.h"
#include "common/json.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 16384 /* a longer message is cut */

struct log {
    int fd;
    bool own; /* fd is the logger's */
    const char *path;
    enum log_format format;
    enum log_level min;
    pthread_mutex_t lock; /* what follows, and the order of lines; a leaf: nothing else is taken under it */
    bool torn;            /* the end of the last line is missing */
    uint64_t dropped, told;
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* A pipe or terminal may be shared with others, who would not like it to stop blocking: it is opened once more. -1: use it as it is. */
static int unblocked(int fd)
{
    char path[48];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fstat(fd, &st) || !(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
        return -1;
    return open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

int log_new(int fd, enum log_format format, enum log_level min, struct log **ret_log)
{
    struct log *log = calloc(1, sizeof(*log));
    if (!log)
        return ERR_NOMEM;
    int other = unblocked(fd);
    *log = (struct log){.fd = other < 0 ? fd : other, .own = other >= 0, .format = format, .min = min};
    pthread_mutex_init(&log->lock, NULL);
    *ret_log = log;
    return 0;
}

static int open_file(const char *path, struct err *err)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
    return fd >= 0 ? fd : err_field(err, ERR_IO, "log-file", "cannot open the log %s: %s", path, strerror(errno));
}

int log_open(const char *path, enum log_format format, enum log_level min, struct log **ret_log, struct err *err)
{
    int fd = open_file(path, err);
    if (fd < 0)
        return fd;
    if (log_new(fd, format, min, ret_log) < 0) {
        close(fd);
        return err_set(err, ERR_NOMEM, "no memory for the log");
    }
    if ((*ret_log)->own) /* a pipe was opened once more */
        close(fd);
    (*ret_log)->own = true;
    (*ret_log)->path = path;
    return 0;
}

int log_reopen(struct log *log, struct err *err)
{
    if (!log || !log->path)
        return 0;
    int fd = open_file(log->path, err);
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&log->lock);
    int old = log->fd;
    log->fd = fd;
    pthread_mutex_unlock(&log->lock);
    close(old);
    return 0;
}

void log_free(struct log *log)
{
    if (!log)
        return;
    if (log->own)
        close(log->fd);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

uint64_t log_dropped(struct log *log)
{
    if (!log)
        return 0;
    pthread_mutex_lock(&log->lock);
    uint64_t n = log->dropped;
    pthread_mutex_unlock(&log->lock);
    return n;
}

/* ---- lines --------------------------------------------------------------------------------------------------- */

/* RFC 3339 in UTC with milliseconds. */
static void now_text(char out[32])
{
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 32 - n, ".%03dZ", (int)(ts.tv_nsec / 1000000));
}

/* What is logged, as it was said. */
struct record {
    const char *request_id, *message;
    const struct log_field *fields;
    int n_fields;
};

static void put_fields_text(struct buf *b, const struct record *r)
{
    for (int i = 0; i < r->n_fields; i++) {
        const struct log_field *f = &r->fields[i];
        buf_printf(b, "%s%s=", i || *r->message ? " " : "", f->name);
        if (!f->text)
            buf_printf(b, "%.15g", f->number);
        else if (f->text[strcspn(f->text, " \"=\\")])
            json_put_string(b, f->text, strlen(f->text));
        else
            buf_puts(b, f->text);
    }
}

static void put_fields_json(struct buf *b, const struct record *r)
{
    for (int i = 0; i < r->n_fields; i++) {
        const struct log_field *f = &r->fields[i];
        buf_printf(b, ",\"%s\":", f->name);
        if (f->text)
            json_put_string(b, f->text, strlen(f->text));
        else
            buf_printf(b, "%.15g", f->number);
    }
}

static void put_text(struct buf *b, const char *time, const char *level, const struct record *r)
{
    const char *request_id = r->request_id;
    buf_printf(b, "%s %-5s %s%s%s", time, level, request_id ? "[" : "", request_id ? request_id : "", request_id ? "] " : "");
    size_t start = b->len;
    buf_puts(b, r->message);
    put_fields_text(b, r);
    for (size_t i = start; i < b->len; i++)
        if ((unsigned char)b->data[i] < 0x20 || b->data[i] == 0x7f)
            b->data[i] = ' ';
}

static void put_json(struct buf *b, const char *time, const char *level, const struct record *r)
{
    buf_printf(b, "{\"time\":\"%s\",\"level\":\"%s\"", time, level);
    if (r->request_id) {
        buf_puts(b, ",\"request_id\":");
        json_put_string(b, r->request_id, strlen(r->request_id));
    }
    buf_puts(b, ",\"message\":");
    json_put_string(b, r->message, strlen(r->message));
    put_fields_json(b, r);
    buf_puts(b, "}");
}

static void put_line(const struct log *log, struct buf *b, const char *level, const struct record *r)
{
    char time[32];
    now_text(time);
    if (log->format == LOG_FORMAT_JSON)
        put_json(b, time, level, r);
    else
        put_text(b, time, level, r);
    buf_puts(b, "\n");
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

/* Where a descriptor blocks (sockets, pipes without /proc), one that is ready takes PIPE_BUF bytes without doing so. Returns how many of n
 * bytes were written. */
static size_t write_now(int fd, const char *s, size_t n)
{
    size_t done = 0;
    while (done < n) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        size_t piece = n - done < PIPE_BUF ? n - done : PIPE_BUF;
        ssize_t w = poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) ? write(fd, s + done, piece) : 0;
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            break;
        done += (size_t)w;
    }
    return done;
}

/* The lock is held. */
static bool write_line(struct log *log, const struct buf *line)
{
    if (log->torn && write_now(log->fd, "\n", 1) != 1)
        return false;
    log->torn = false;
    size_t n = write_now(log->fd, line->data, line->len);
    log->torn = n > 0 && n < line->len;
    return n == line->len;
}

/* The lock is held. */
static void tell_dropped(struct log *log)
{
    char message[96];
    struct buf line;
    uint64_t n = log->dropped - log->told;
    snprintf(message, sizeof(message), "%llu log lines were dropped, since they could not be written at once", (unsigned long long)n);
    buf_init(&line, 1024);
    put_line(log, &line, level_names[LOG_WARN], &(struct record){.message = message});
    if (write_line(log, &line))
        log->told += n;
    buf_done(&line);
}

static void write_record(struct log *log, enum log_level level, const struct record *r)
{
    struct buf line;
    buf_init(&line, (size_t)LINE_BYTES * 8);
    put_line(log, &line, level_names[level], r);
    pthread_mutex_lock(&log->lock);
    if (log->dropped != log->told)
        tell_dropped(log);
    if (log->dropped != log->told || !write_line(log, &line))
        log->dropped++;
    pthread_mutex_unlock(&log->lock);
    buf_done(&line);
}

void log_write(struct log *log, enum log_level level, const char *request_id, const char *fmt, ...)
{
    if (!log || level < log->min)
        return;
    char message[LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(message, sizeof(message), fmt, ap) < 0)
        snprintf(message, sizeof(message), "%s", fmt);
    va_end(ap);
    write_record(log, level, &(struct record){.request_id = request_id, .message = message});
}

void log_fields(struct log *log, enum log_level level, const char *request_id, const char *message, const struct log_field *fields, int n)
{
    if (log && level >= log->min)
        write_record(log, level, &(struct record){request_id, message, fields, n});
}
