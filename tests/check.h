/* The smallest test harness: CHECK counts and prints failures with file and line; main ends with `return check_result();`. */
#pragma once
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CHECK_SKIP 77 /* exit status of a test that cannot run here */

__attribute__((weak)) int check_failures; /* one for all files of a test */

static inline bool check_that(bool ok, const char *file, int line, const char *text)
{
    if (!ok) {
        check_failures++;
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
    }
    return ok;
}

static inline bool check_equal(long long got, long long want, const char *file, int line, const char *text)
{
    if (got != want) {
        check_failures++;
        fprintf(stderr, "%s:%d: failed: %s is %lld, not %lld\n", file, line, text, got, want);
    }
    return got == want;
}

static inline bool check_same(const char *got, const char *want, const char *file, int line, const char *text)
{
    bool ok = got && want ? strcmp(got, want) == 0 : got == want;
    if (!ok) {
        check_failures++;
        fprintf(stderr, "%s:%d: failed: %s is \"%s\", not \"%s\"\n", file, line, text, got ? got : "(null)", want ? want : "(null)");
    }
    return ok;
}

static inline int check_result(void)
{
    if (check_failures)
        fprintf(stderr, "%d failed checks\n", check_failures);
    return check_failures ? 1 : 0;
}

/* Each is true when the check holds, so a test can stop early: if (!CHECK(p)) return; */
#define CHECK(cond) check_that((cond), __FILE__, __LINE__, #cond)
#define CHECK_INT(got, want) check_equal((long long)(got), (long long)(want), __FILE__, __LINE__, #got)
#define CHECK_STR(got, want) check_same((got), (want), __FILE__, __LINE__, #got)
