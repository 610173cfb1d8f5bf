/* A stored head beside a tied embedding: told when the two differ. */
#include "engine/checkpoint/tied_head.h"
#include "tests/check.h"
#include <sys/mman.h>
#include <unistd.h>

#define EMBED "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}"

static void check(const char *header, const char *data, bool tied, bool warns)
{
    unsigned char file[512] = {(unsigned char)strlen(header)};
    char text[1024] = "";
    struct safetensors *s = NULL;
    struct log *log = NULL;
    struct err e = {0};
    const struct model_config c = {.tied = tied};
    int sink = memfd_create("log", MFD_CLOEXEC);
    memcpy(file + 8, header, strlen(header));
    memcpy(file + 8 + strlen(header), data, 16);
    size_t n = strstr(header, "lm_head") ? (strstr(header, "BF16") ? 12 : 16) : 8;
    CHECK_INT(log_new(sink, LOG_FORMAT_TEXT, LOG_WARN, &log), 0);
    if (CHECK_INT(safetensors_open_memory("file", file, 8 + strlen(header) + n, &s, &e), 0))
        CHECK_INT(tied_head_check(&c, s, log), warns);
    else
        fprintf(stderr, "  %s\n", e.text);
    CHECK(pread(sink, text, sizeof(text) - 1, 0) >= 0);
    CHECK_INT(strstr(text, "transformers 4 does; transformers 5 takes the stored one") != NULL, warns);
    safetensors_close(s);
    log_free(log);
    close(sink);
}

int main(void)
{
    static const char both[] = "{" EMBED ",\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[8,16]}}";
    static const char narrow[] = "{" EMBED ",\"lm_head.weight\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[8,12]}}";
    check(both, "abcdefghabcdefgh", true, false); /* the same bytes */
    check(both, "abcdefghabcdefgX", true, true);
    check(both, "abcdefghabcdefgX", false, false); /* not tied: the stored one is the head */
    check(narrow, "abcdefghabcdefgh", true, true);
    check("{" EMBED "}", "abcdefghabcdefgh", true, false);
    return check_result();
}
