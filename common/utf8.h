/* UTF-8: strict decoding (no overlong forms, no surrogates, nothing past U+10FFFF). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length (1..4) of the character that starts at s, its code point in *ret_cp (may be NULL); 0 if s[0..len) does not
 * begin with a whole valid character, also when len is 0. */
size_t utf8_decode(const char *s, size_t len, uint32_t *ret_cp);

/* Writes the character (1..4 bytes, no NUL); returns its length. cp must be a Unicode scalar value. */
size_t utf8_encode(char out[4], uint32_t cp);

/* Bytes of s[0..len) before the first that is not part of a valid character; len if all is valid. */
size_t utf8_valid_prefix(const char *s, size_t len);

/* How many bytes one U+FFFD stands for at s (which is not a valid character): the longest start of a valid character,
 * at least 1. *ret_cut (may be NULL): that start runs to the end of s, so more bytes could complete it. len >= 1. */
size_t utf8_bad_length(const char *s, size_t len, bool *ret_cut);
