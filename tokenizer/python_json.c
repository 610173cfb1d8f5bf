/* The words that are no JSON are overwritten by numbers of the same length, so that errors keep their places. */
#include "tokenizer/python_json.h"
#include "common/buf.h"
#include "common/json.h"
#include "common/mapfile.h"
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)32 << 20)

static void overwrite(char *text, size_t len)
{
    static const char *const words[][2] = {{"Infinity", "1e99    "}, {"NaN", "0  "}};
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        for (int k = 0; !in_string && k < 2 && i < len; k++) {
            size_t n = strlen(words[k][0]);
            if (len - i >= n && memcmp(text + i, words[k][0], n) == 0)
                memcpy(text + i, words[k][1], n);
        }
    }
}

static int parse(const struct mapfile *file, const char *path, json_t **ret, struct err *err)
{
    struct buf text;
    struct err why;
    buf_init(&text, MAX_FILE_BYTES);
    int r = file->len ? buf_append(&text, file->data, file->len) : 0;
    if (r < 0) {
        buf_done(&text);
        return r == ERR_TOO_LARGE ? err_set(err, ERR_CORRUPT, "%s has %zu bytes; the limit is %zu", path, file->len, MAX_FILE_BYTES)
                                  : err_set(err, r, "no memory for %s", path);
    }
    overwrite(text.data, text.len);
    r = json_parse(text.data, text.len, path, ret, &why);
    buf_done(&text);
    if (r < 0)
        return err_set(err, r == ERR_NOMEM ? r : ERR_CORRUPT, "%s", why.text);
    if (json_is_object(*ret))
        return 0;
    json_decref(*ret);
    *ret = NULL;
    return err_set(err, ERR_CORRUPT, "%s is not a JSON object", path);
}

int python_json_read(const char *dir, const char *name, json_t **ret, struct err *err)
{
    char path[PATH_MAX];
    struct mapfile file;
    *ret = NULL;
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return err_set(err, ERR_INVALID, "the path of %s is too long", name);
    int r = mapfile_open(&file, path, err);
    if (r < 0)
        return r == ERR_NOT_FOUND ? 0 : r;
    r = parse(&file, path, ret, err);
    mapfile_close(&file);
    return r;
}
