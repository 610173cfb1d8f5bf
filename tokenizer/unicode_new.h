/* What the reference tokenizers know of Unicode (16.0) and the libraries of a stable distribution (14.0) do not: the characters
 * assigned since, by category. Adding them to a library that does know them changes nothing. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct unicode_new {
    uint32_t low, high;
    char category[3]; /* "Lo" */
};

extern const struct unicode_new unicode_new[]; /* ascending */
extern const size_t unicode_new_count;
