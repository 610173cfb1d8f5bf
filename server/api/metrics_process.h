/* What every Prometheus client tells of its process, under the names that dashboards know: process_cpu_seconds_total and its like. */
#pragma once
#include "server/api/metrics_text.h"

/* Read anew from /proc; what cannot be read is left out. */
void metrics_process(struct metrics_page *p);
