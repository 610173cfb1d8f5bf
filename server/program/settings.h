/* Flags become what the parts of the server take. */
#pragma once
#include "server/api/server.h"
#include "server/program/options.h"

/* The server's settings; `keys` (or NULL) and strings of `o` are borrowed, the shipped model's path lies in `arena`. */
int settings_of_server(const struct options *o, struct keys *keys, struct arena *arena, struct log *log, struct server_settings *ret,
                       struct err *err);
/* settings_of_server without keys, and server_open; errors name flags. *ret_settings must outlive the server. */
int settings_open_server(const struct options *o, struct arena *arena, struct log *log, struct server_settings *ret_settings,
                         struct server **ret, struct err *err);
/* The logger that the settings ask for, on stderr or --log-file. */
int settings_open_log(const struct options *o, struct log **ret, struct err *err);
