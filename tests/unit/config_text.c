#include "tests/unit/config_text.h"
#include "tests/check.h"
#include <sys/mman.h>
#include <unistd.h>

char config_text_log[4096];

int config_text_read(const char *members, const char *generation, const struct model_overrides *o, struct model_config *ret, struct err *e)
{
    char text[4096];
    json_t *config = NULL, *gen = NULL;
    struct log *log = NULL;
    int sink = memfd_create("log", MFD_CLOEXEC);
    *e = (struct err){0};
    snprintf(text, sizeof(text), "{%s}", members);
    int r = json_parse(text, strlen(text), "config", &config, e);
    snprintf(text, sizeof(text), "{%s}", generation ? generation : "");
    if (r >= 0 && generation)
        r = json_parse(text, strlen(text), "generation", &gen, e);
    CHECK_INT(log_new(sink, LOG_FORMAT_TEXT, LOG_WARN, &log), 0);
    if (r >= 0)
        r = model_config_from_json(config, gen, o, log, ret, e);
    log_free(log);
    ssize_t n = pread(sink, config_text_log, sizeof(config_text_log) - 1, 0);
    config_text_log[n > 0 ? n : 0] = '\0';
    close(sink);
    json_decref(config);
    json_decref(gen);
    return r;
}
