/* GET / and GET /page/...: the page that shows the routing of a text. Its files are the same for everyone, so no key is asked for. */
#include "server/api/api.h"
#include "server/page/page.h"
#include <string.h>

/* Nothing from other hosts, nothing inline, and no page may frame it. */
#define POLICY                                                                                                                          \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; " \
    "frame-ancestors 'none'"

static const struct file {
    const char *path, *type, *bytes;
    const size_t *len;
} files[] = {
    {"/", "text/html; charset=utf-8", page_html, &page_html_len},
    {"/page/page.css", "text/css; charset=utf-8", page_css, &page_css_len},
    {"/page/page.js", "text/javascript; charset=utf-8", page_js, &page_js_len},
};

int api_page(struct call *c, struct err *err)
{
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (strcmp(files[i].path, c->req->path))
            continue;
        c->resp->content_type = files[i].type;
        c->resp->content_policy = POLICY;
        int r = buf_append(&c->resp->body, files[i].bytes, *files[i].len);
        return r < 0 ? err_set(err, r, "no memory for the answer") : 0;
    }
    return err_set(err, ERR_NOT_FOUND, "there is no %.100s here", c->req->path);
}
