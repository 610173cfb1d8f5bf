/* dtrnet health: does the server on this machine answer its probe? For container health checks and scripts: host, port and certificate come
 * from where `dtrnet serve` has them, so that both see one environment or one settings file. */
#include "server/program/commands.h"
#include "server/program/options.h"
#include "server/program/probe.h"
#include <stdio.h>

static int health(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    struct probe p = {
        .host = o->host, .port = o->port, .tls = o->tls_cert, .path = o->ready ? "/ready" : "/health", .timeout_s = o->timeout_s};
    struct buf body;
    int status = 0;
    buf_init(&body, 1 << 16);
    int r = probe_get(&p, &status, &body, err);
    if (r >= 0)
        printf("%d %s\n", status, body.data);
    buf_done(&body);
    return r < 0 ? r : status != 200;
}

int cmd_health(int argc, char **argv)
{
    return command_run(COMMAND_HEALTH, "asks the server on this machine whether it works; exit status 0: yes, 1: no", argc, argv, health);
}
