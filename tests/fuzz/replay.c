/* Runs a fuzz target without a fuzzer: on every file of the corpus, each of its prefixes where it is small, and random mutations of it. The
 * input ends at an unreadable page.
 *
 *   replay ROUNDS PATH...      ROUNDS mutations of each file; a PATH is a file or a directory of files */
#include "tests/fuzz/fuzz.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES (1 << 20)
#define SMALL 4096

static unsigned char *window_end; /* the unreadable page */
static uint64_t rng = 1;
static long n_runs;

static uint32_t rnd(uint32_t n)
{
    uint64_t z = rng += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 33) % n;
}

static void run(const unsigned char *data, size_t len)
{
    if (len)
        memcpy(window_end - len, data, len);
    LLVMFuzzerTestOneInput(window_end - len, len);
    n_runs++;
}

/* Flips, overwrites, deletes, repeats, or puts a number that tends to hurt. */
static size_t mutate(unsigned char *d, size_t len)
{
    static const char *const tokens[] = {"0",  "-1", "1e999", "9223372036854775807", "null",   "true",   "[", "]", "{", "}",
                                         "\"", ",",  ":",     "4294967296",          "1e-300", "\\u0000"};
    for (uint32_t n = 1 + rnd(4); n && len; n--) {
        size_t at = rnd((uint32_t)len), span = 1 + rnd(16);
        const char *t = tokens[rnd(sizeof(tokens) / sizeof(tokens[0]))];
        span = span > len - at ? len - at : span;
        switch (rnd(5)) {
        case 0: d[at] ^= (unsigned char)(1u << rnd(8)); break;
        case 1: d[at] = (unsigned char)rnd(256); break;
        case 2:
            memmove(d + at, d + at + span, len - at - span);
            len -= span;
            break;
        case 3:
            if (len + span <= MAX_BYTES) {
                memmove(d + at + span, d + at, len - at);
                len += span;
            }
            break;
        case 4:
            if (len + strlen(t) <= MAX_BYTES) {
                memmove(d + at + strlen(t), d + at, len - at);
                memcpy(d + at, t, strlen(t));
                len += strlen(t);
            }
            break;
        }
    }
    return len;
}

static void replay_file(const char *path, long rounds)
{
    static unsigned char original[MAX_BYTES], copy[MAX_BYTES];
    FILE *f = fopen(path, "rb");
    size_t len = f ? fread(original, 1, sizeof(original), f) : 0;
    if (!f) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    fclose(f);
    run(original, len);
    for (size_t n = 0; n < len && n < SMALL; n++)
        run(original, n);
    for (long i = 0; i < rounds; i++) {
        memcpy(copy, original, len);
        run(copy, mutate(copy, len));
    }
}

static void replay(const char *path, long rounds)
{
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        replay_file(path, rounds);
        return;
    }
    struct dirent **list = NULL;
    int n = scandir(path, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char full[4096];
        snprintf(full, sizeof(full), "%s/%s", path, list[i]->d_name);
        if (list[i]->d_name[0] != '.')
            replay(full, rounds);
        free(list[i]);
    }
    free(list);
}

int main(int argc, char **argv)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *map = mmap(NULL, MAX_BYTES + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc < 3 || map == MAP_FAILED || mprotect(map + MAX_BYTES, page, PROT_NONE))
        return 2;
    window_end = map + MAX_BYTES;
    for (int i = 2; i < argc; i++)
        replay(argv[i], atol(argv[1]));
    printf("%ld inputs\n", n_runs);
    return n_runs ? 0 : 1;
}
