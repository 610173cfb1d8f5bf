/* Classes of characters as the languages that define the reference behaviour see them. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool unicode_is_space(uint32_t cp);        /* the property White_Space: Rust's char::is_whitespace and \s */
bool unicode_is_python_space(uint32_t cp); /* Python's str.isspace: also U+001C..U+001F */
bool unicode_is_word(uint32_t cp);         /* \w of Rust's regex: Alphabetic, M, Nd, Pc, Join_Control */
bool unicode_is_numeric(uint32_t cp);      /* Rust's char::is_numeric: Nd, Nl, No */
bool unicode_is_punctuation(uint32_t cp);  /* what the pre-tokenizer Punctuation cuts at */
/* Rust's char::to_lowercase: writes one or two characters and returns how many. */
int unicode_lower(uint32_t cp, uint32_t ret[2]);

/* Bytes of the grapheme (extended cluster) at the front of s[0..len), valid UTF-8; len > 0. */
size_t unicode_grapheme(const char *s, size_t len);

/* The `tokenizers` library normalizes by the tables of Unicode 9: younger characters pass through as they are, and nothing
 * composes or reorders across them. */
bool unicode_is_inert(uint32_t cp);
/* A text of these alone is its own NFC (not all such characters, only common and quickly told ones). */
bool unicode_is_nfc_plain(uint32_t cp);
