/* How the counts of struct engine_stats are cut, and their sum: apart from the engine, so that whoever shows them needs none. */
#include "engine/engine.h"

const char *const engine_lanes[ENGINE_LANES] = {"alone", "shared", "bulk"};
const int engine_start_edges[ENGINE_STARTS - 1] = {1, 2, 3, 4, 6, 8, 16, 32, 64, 256, 1024};

static void add_counts(uint64_t *sum, const uint64_t *n, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += n[i];
}

static void add_times(struct engine_stats *sum, const struct engine_stats *s)
{
    sum->busy_s += s->busy_s;
    sum->wait_s += s->wait_s;
    sum->matmul_s += s->matmul_s;
    sum->attention_s += s->attention_s;
    sum->other_s += s->other_s;
}

static void add_held(struct engine_stats *sum, const struct engine_stats *s)
{
    sum->kv_rows_held += s->kv_rows_held;
    sum->kv_rows_most += s->kv_rows_most;
    sum->kv_rows_reserved += s->kv_rows_reserved;
    sum->tree_tokens += s->tree_tokens;
    sum->tree_nodes += s->tree_nodes;
    sum->tree_bytes += s->tree_bytes;
    sum->states_held += s->states_held;
    sum->states_total += s->states_total;
    sum->queued += s->queued;
    sum->running += s->running;
    sum->memory_total_bytes += s->memory_total_bytes;
    sum->memory_free_bytes += s->memory_free_bytes;
}

void engine_stats_add(struct engine_stats *sum, const struct engine_stats *s)
{
    sum->requests_done += s->requests_done;
    sum->requests_failed += s->requests_failed;
    sum->requests_cancelled += s->requests_cancelled;
    sum->requests_moved += s->requests_moved;
    sum->steps += s->steps;
    sum->steps_launched += s->steps_launched;
    sum->steps_overlapped += s->steps_overlapped;
    sum->tokens_generated += s->tokens_generated;
    sum->tokens_scored += s->tokens_scored;
    sum->preemptions += s->preemptions;
    sum->evicted_tokens += s->evicted_tokens;
    sum->rows_computed += s->rows_computed;
    sum->rows_followed += s->rows_followed;
    sum->sequences_joined += s->sequences_joined;
    sum->rows_dropped += s->rows_dropped;
    sum->rows_rescored += s->rows_rescored;
    sum->rows_cached += s->rows_cached;
    add_counts(sum->starts[0], s->starts[0], (size_t)ENGINE_LANES * ENGINE_STARTS);
    add_counts(sum->start_steps, s->start_steps, ENGINE_LANES);
    add_counts(sum->rows_routed, s->rows_routed, MODEL_MAX_LAYERS);
    add_counts(sum->rows_executed, s->rows_executed, MODEL_MAX_LAYERS);
    add_times(sum, s);
    add_held(sum, s);
}
