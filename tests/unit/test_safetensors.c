/* Hostile safetensors: every truncation, every flipped header bit, lying headers, and indexes that point elsewhere. */
#include "engine/checkpoint/safetensors.h"
#include "tests/check.h"
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file in memory whose last byte lies before an unreadable page, so that any read past the end faults. */
struct guarded {
    unsigned char *map, *data;
    size_t map_len, len;
};

static void guarded_init(struct guarded *g, const void *bytes, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (len + page - 1) / page;
    g->map_len = (pages + 1) * page;
    g->map = mmap(NULL, g->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g->data = g->map + pages * page - len;
    g->len = len;
    if (len)
        memcpy(g->data, bytes, len);
    mprotect(g->map + pages * page, page, PROT_NONE);
}

static void guarded_done(struct guarded *g)
{
    munmap(g->map, g->map_len);
}

/* 8 bytes of length, `header`, then n_data bytes 0, 1, 2, ... */
static size_t make_file(unsigned char *out, const char *header, size_t n_data)
{
    uint64_t len = strlen(header);
    for (int i = 0; i < 8; i++)
        out[i] = (unsigned char)(len >> (8 * i));
    memcpy(out + 8, header, len);
    for (size_t i = 0; i < n_data; i++)
        out[8 + len + i] = (unsigned char)i;
    return 8 + len + n_data;
}

static int open_guarded(const void *bytes, size_t len, struct safetensors **ret, struct err *err)
{
    struct guarded g;
    guarded_init(&g, bytes, len);
    int r = safetensors_open_memory("file", g.data, len, ret, err);
    if (r >= 0) { /* touch all that is handed out */
        unsigned sum = 0;
        for (size_t i = 0; i < safetensors_count(*ret); i++) {
            const struct tensor *t = safetensors_at(*ret, i);
            for (size_t j = 0; j < t->n_bytes; j++)
                sum += ((const unsigned char *)t->data)[j];
            CHECK(safetensors_find(*ret, t->name) == t);
        }
        CHECK(sum < UINT32_MAX);
        safetensors_close(*ret);
        *ret = NULL;
    }
    guarded_done(&g);
    return r;
}

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
    "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},\"empty\":{\"dtype\":\"U8\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
    "\"scalar\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[28,30]}}";

static void test_good(void)
{
    unsigned char file[1024];
    size_t len = make_file(file, good, 30);
    struct safetensors *s = NULL;
    struct err e = {0};
    if (!CHECK_INT(safetensors_open_memory("file", file, len, &s, &e), 0))
        return;
    CHECK_INT(safetensors_count(s), 4);
    const struct tensor *b = safetensors_find(s, "b");
    if (CHECK(b != NULL)) {
        CHECK(b->type == TENSOR_F32 && b->n_dims == 2 && b->shape[0] == 2 && b->shape[1] == 3 && b->n_bytes == 24);
        CHECK_INT(*(const unsigned char *)b->data, 4);
        CHECK_INT(tensor_elements(b), 6);
    }
    CHECK_INT(tensor_elements(safetensors_find(s, "scalar")), 1);
    CHECK_INT(safetensors_find(s, "empty")->n_bytes, 0);
    CHECK(safetensors_find(s, "c") == NULL);
    CHECK_STR(safetensors_at(s, 0)->name, "a");
    CHECK_INT(safetensors_file_count(s), 1);
    safetensors_close(s);
    safetensors_close(NULL);
}

static void test_truncation(void)
{
    unsigned char file[1024];
    size_t len = make_file(file, good, 30);
    struct safetensors *s = NULL;
    for (size_t n = 0; n < len; n++)
        CHECK_INT(open_guarded(file, n, &s, NULL), ERR_CORRUPT);
    CHECK_INT(open_guarded(file, len, &s, NULL), 0);
    file[len] = 0;
    CHECK_INT(open_guarded(file, len + 1, &s, NULL), ERR_CORRUPT);
}

static void test_bit_flips(void)
{
    unsigned char file[1024];
    size_t len = make_file(file, good, 30);
    for (size_t bit = 0; bit < 8 * (len - 30); bit++) {
        struct safetensors *s = NULL;
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
        int r = open_guarded(file, len, &s, NULL);
        CHECK(r == 0 || r == ERR_CORRUPT);
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static void test_bad_headers(void)
{
    static const struct {
        const char *header;
        size_t n_data;
        const char *says;
    } bad[] = {
        {"[]", 0, "not a JSON object"},
        {"", 0, "header of file"},
        {"{\"a\":1}", 0, "object"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "F31"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "at most 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[900000000000000000,4],\"data_offsets\":[0,0]}}", 0, "overflow"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[900000000000000000,4,0],\"data_offsets\":[0,0]}}", 0, "overflow"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775808]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,900000000000000000]}}", 4, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "span 4 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "1 bytes follow"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "a hole"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3,
         "overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2,
         "overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}", 3,
         "a hole"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2,
         "header of file"},
    };
    unsigned char file[1024];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct safetensors *s = NULL;
        struct err e = {0};
        size_t len = make_file(file, bad[i].header, bad[i].n_data);
        bool ok = CHECK_INT(open_guarded(file, len, &s, &e), ERR_CORRUPT) && CHECK(strstr(e.text, bad[i].says) != NULL);
        if (!ok)
            fprintf(stderr, "  case %zu: %s\n", i, e.text);
    }
    make_file(file, "{}", 0);
    file[7] = 0x7f; /* a header of nearly 2^63 bytes */
    struct safetensors *s = NULL;
    CHECK_INT(open_guarded(file, 10, &s, NULL), ERR_CORRUPT);
}

/* ---- directories ------------------------------------------------------------------------------------------- */

static char root[] = "/tmp/test_safetensors.XXXXXX";

static const char *path_of(const char *rel)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, rel);
    return path;
}

static void put(const char *rel, const void *bytes, size_t len)
{
    FILE *f = fopen(path_of(rel), "wb");
    if (!CHECK(f != NULL))
        return;
    CHECK(fwrite(bytes, 1, len, f) == len);
    fclose(f);
}

static void put_shard(const char *rel, const char *tensor)
{
    char header[128];
    unsigned char file[256];
    snprintf(header, sizeof(header), "{\"%s\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", tensor);
    put(rel, file, make_file(file, header, 2));
}

static int open_with_index(const char *index, struct err *e)
{
    struct safetensors *s = NULL;
    char dir[256];
    put("snapshots/rev/model.safetensors.index.json", index, strlen(index));
    snprintf(dir, sizeof(dir), "%s", path_of("snapshots/rev"));
    int r = safetensors_open_dir(dir, &s, e);
    if (r >= 0) {
        CHECK_INT(safetensors_count(s), 2);
        CHECK_INT(safetensors_file_count(s), 2);
    }
    safetensors_close(s);
    return r;
}

static void test_index(void)
{
    static const struct {
        const char *index;
        int code;
        const char *says;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\"}}", 0, ""},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"blob.st\"}}", 0, ""},    /* the hub cache's layout */
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"inside.st\"}}", 0, ""},  /* a link to a neighbour */
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"outside.st\"}}", 0, ""}, /* a link to a file anywhere */
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"gone.st\"}}", ERR_NOT_FOUND, "a link to a file that is gone"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"circle.st\"}}", ERR_NOT_FOUND, "circle.st"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"null.st\"}}", ERR_IO, ""},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"dir/1.st\"}}", ERR_CORRUPT, "not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"./2.st\"}}", ERR_CORRUPT, "not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"../rev/2.st\"}}", ERR_CORRUPT, "not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"/etc/passwd\"}}", ERR_CORRUPT, "not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"..\"}}", ERR_CORRUPT, "not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"\"}}", ERR_CORRUPT, "not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"none.st\"}}", ERR_NOT_FOUND, "none.st"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"dir\"}}", ERR_IO, ""},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":3}}", ERR_CORRUPT, "weight_map.b"},
        {"{\"weight_map\":{\"a\":\"1.st\"},\"x\":1", ERR_CORRUPT, ""},
        {"{\"weight_map\":{}}", ERR_CORRUPT, "weight_map"},
        {"{\"weight_map\":[]}", ERR_CORRUPT, "weight_map"},
        {"[]", ERR_CORRUPT, "weight_map"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\"}}", 0,
         ""},                                                        /* c is in no shard: whether that matters is tensor_match's */
        {"{\"weight_map\":{\"a\":\"1.st\",\"c\":\"2.st\"}}", 0, ""}, /* and so is b, which the index does not name */
        {"{\"weight_map\":{\"a\":\"2.st\",\"b\":\"1.st\"}}", ERR_CORRUPT, "tensor a is in 1.st"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"again.st\"}}", ERR_CORRUPT, "tensor a is in 1.st and in again.st"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err e = {0};
        int r = open_with_index(cases[i].index, &e);
        bool ok = cases[i].code == ERR_IO ? CHECK(r < 0) : CHECK_INT(r, cases[i].code);
        if (!ok || !CHECK(strstr(e.text, cases[i].says) != NULL))
            fprintf(stderr, "  case %zu: %s\n", i, e.text);
    }
}

static void test_directories(void)
{
    struct safetensors *s = NULL;
    struct err e = {0};
    if (!CHECK(mkdtemp(root) != NULL))
        return;
    CHECK_INT(safetensors_open_dir(root, &s, &e), ERR_NOT_FOUND);
    CHECK_INT(safetensors_open_dir(path_of("absent"), &s, &e), ERR_NOT_FOUND);
    static const char *const dirs[] = {"snapshots", "snapshots/rev", "snapshots/rev/dir", "blobs"};
    for (int i = 0; i < 4; i++)
        CHECK_INT(mkdir(path_of(dirs[i]), 0700), 0);
    put_shard("snapshots/rev/1.st", "a");
    put_shard("snapshots/rev/2.st", "b");
    put_shard("snapshots/rev/again.st", "a");
    put_shard("blobs/123", "b");
    put_shard("elsewhere.st", "b");
    CHECK_INT(symlink("../../blobs/123", path_of("snapshots/rev/blob.st")), 0);
    CHECK_INT(symlink("2.st", path_of("snapshots/rev/inside.st")), 0);
    CHECK_INT(symlink("../../elsewhere.st", path_of("snapshots/rev/outside.st")), 0);
    CHECK_INT(symlink("../../blobs/gone", path_of("snapshots/rev/gone.st")), 0);
    CHECK_INT(symlink("circle.st", path_of("snapshots/rev/circle.st")), 0);
    CHECK_INT(symlink("/dev/null", path_of("snapshots/rev/null.st")), 0);
    test_index();
    put_shard("snapshots/rev/model.safetensors", "whole"); /* preferred to the index */
    char dir[256];
    snprintf(dir, sizeof(dir), "%s", path_of("snapshots/rev"));
    if (CHECK_INT(safetensors_open_dir(dir, &s, &e), 0))
        CHECK(safetensors_find(s, "whole") != NULL);
    safetensors_close(s);
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    CHECK_INT(system(command), 0);
}

int main(void)
{
    test_good();
    test_truncation();
    test_bit_flips();
    test_bad_headers();
    test_directories();
    return check_result();
}
