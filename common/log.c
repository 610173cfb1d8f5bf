/* Levelled logging: a line is built aside and written whole under the logger's lock. */
#include "common/log.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE_BYTES 16384 /* a longer message is cut */

struct log {
    FILE *out;
    enum log_format format;
    enum log_level min;
    pthread_mutex_t lock; /* the order of lines; a leaf: nothing else is taken under it */
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

int log_new(FILE *out, enum log_format format, enum log_level min, struct log **ret_log)
{
    struct log *log = calloc(1, sizeof(*log));
    if (!log)
        return ERR_NOMEM;
    log->out = out;
    log->format = format;
    log->min = min;
    pthread_mutex_init(&log->lock, NULL);
    *ret_log = log;
    return 0;
}

void log_free(struct log *log)
{
    if (!log)
        return;
    pthread_mutex_destroy(&log->lock);
    free(log);
}

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

static void put_text(struct buf *b, const char *time, const char *level, const char *request_id, const char *message)
{
    buf_printf(b, "%s %-5s %s%s%s", time, level, request_id ? "[" : "", request_id ? request_id : "", request_id ? "] " : "");
    size_t start = b->len;
    buf_puts(b, message);
    for (size_t i = start; i < b->len; i++)
        if ((unsigned char)b->data[i] < 0x20 || b->data[i] == 0x7f)
            b->data[i] = ' ';
}

static void put_json(struct buf *b, const char *time, const char *level, const char *request_id, const char *message)
{
    buf_printf(b, "{\"time\":\"%s\",\"level\":\"%s\"", time, level);
    if (request_id) {
        buf_puts(b, ",\"request_id\":");
        json_put_string(b, request_id, strlen(request_id));
    }
    buf_puts(b, ",\"message\":");
    json_put_string(b, message, strlen(message));
    buf_puts(b, "}");
}

void log_write(struct log *log, enum log_level level, const char *request_id, const char *fmt, ...)
{
    if (!log || level < log->min)
        return;
    char message[LINE_BYTES], time[32];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(message, sizeof(message), fmt, ap) < 0)
        snprintf(message, sizeof(message), "%s", fmt);
    va_end(ap);
    now_text(time);

    struct buf line;
    buf_init(&line, (size_t)LINE_BYTES * 8);
    if (log->format == LOG_FORMAT_JSON)
        put_json(&line, time, level_names[level], request_id, message);
    else
        put_text(&line, time, level_names[level], request_id, message);
    buf_puts(&line, "\n");
    pthread_mutex_lock(&log->lock);
    fwrite(line.data, 1, line.len, log->out);
    fflush(log->out);
    pthread_mutex_unlock(&log->lock);
    buf_done(&line);
}
