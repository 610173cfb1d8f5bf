/* How the counts of struct engine_stats are cut: data alone, so that whoever shows them needs no engine. */
#include "engine/engine.h"

const char *const engine_lanes[ENGINE_LANES] = {"alone", "shared", "bulk"};
const int engine_start_edges[ENGINE_STARTS - 1] = {1, 2, 3, 4, 6, 8, 16, 32, 64, 256, 1024};
