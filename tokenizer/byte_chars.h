/* GPT-2's spelling of bytes as printable characters: '!'..'~', U+00A1..U+00AC and U+00AE..U+00FF are themselves, the 68 others
 * U+0100.. in their order. */
#pragma once
#include <stddef.h>
#include <stdint.h>

uint32_t byte_char(unsigned char byte);
int byte_of_char(uint32_t cp); /* 0..255, or -1: not a character of the table */
/* Appends the UTF-8 of text's bytes to out (room for 2 * len); returns the length. */
size_t byte_chars_spell(const char *text, size_t len, char *out);
