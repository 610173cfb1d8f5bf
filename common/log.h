/* Levelled structured logging through one sink. A NULL logger is valid and silent.
 * Thread-safe: one call writes one line. */
#pragma once
#include <stdarg.h>
#include <stdio.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log;

/* `out` is borrowed and must outlive the logger. Lines below `min` are dropped. */
int log_new(FILE *out, enum log_format format, enum log_level min, struct log **ret_log);
void log_free(struct log *log);

/* One line: time, level, `request_id` (NULL: none), and the message. In JSON format the members are
 * "time" (RFC 3339, UTC, ms), "level", "request_id", "message". */
void log_write(struct log *log, enum log_level level, const char *request_id, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#define log_debug(log, ...) log_write((log), LOG_DEBUG, NULL, __VA_ARGS__)
#define log_info(log, ...) log_write((log), LOG_INFO, NULL, __VA_ARGS__)
#define log_warn(log, ...) log_write((log), LOG_WARN, NULL, __VA_ARGS__)
#define log_error(log, ...) log_write((log), LOG_ERROR, NULL, __VA_ARGS__)
