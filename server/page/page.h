/* The files of the page at "/", as they were at build time; server/api/embed.py makes the sources of them. */
#pragma once
#include <stddef.h>

extern const char page_html[], page_css[], page_js[];
extern const size_t page_html_len, page_css_len, page_js_len;
