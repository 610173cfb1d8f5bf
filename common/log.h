/* Levelled structured logging through one sink. A NULL logger is valid and silent. Thread-safe: one call writes one line.
 *
 * A line that cannot be written at once, because nobody reads the pipe, terminal or socket, is dropped and counted; the next one that can be
 * written is preceded by their number. Nobody ever waits for a reader of the log. */
#pragma once
#include "common/err.h"
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log;

/* Writes to a descriptor that is borrowed and must outlive the logger. Lines below `min` are dropped. */
int log_new(int fd, enum log_format format, enum log_level min, struct log **ret_log);
/* Appends to a file, which is made if need be; `path` is borrowed. */
int log_open(const char *path, enum log_format format, enum log_level min, struct log **ret_log, struct err *err);
/* Opens the file of log_open again, so that a rotated one is let go; on an error the old one stays. Without a file nothing happens. */
int log_reopen(struct log *log, struct err *err);
void log_free(struct log *log);
uint64_t log_dropped(struct log *log); /* lines, since the start */

/* One line: time, level, `request_id` (NULL: none), and the message. In JSON format the members are
 * "time" (RFC 3339, UTC, ms), "level", "request_id", "message". */
void log_write(struct log *log, enum log_level level, const char *request_id, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* A line with named fields beside the message: members of their own in JSON format, name=value in text. */
struct log_field {
    const char *name; /* plain ASCII */
    const char *text; /* NULL: the number */
    double number;
};
void log_fields(struct log *log, enum log_level level, const char *request_id, const char *message, const struct log_field *fields, int n);

#define log_debug(log, ...) log_write((log), LOG_DEBUG, NULL, __VA_ARGS__)
#define log_info(log, ...) log_write((log), LOG_INFO, NULL, __VA_ARGS__)
#define log_warn(log, ...) log_write((log), LOG_WARN, NULL, __VA_ARGS__)
#define log_error(log, ...) log_write((log), LOG_ERROR, NULL, __VA_ARGS__)
