/* A fuzz target: must cope with any bytes, without leaks. With -Dfuzzers=true (clang) it is linked with libFuzzer; always also with
 * replay.c, which runs it on a corpus and on mutations of it as an ordinary test. */
#pragma once
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
