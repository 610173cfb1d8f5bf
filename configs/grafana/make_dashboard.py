"""Writes dtrnet.json beside this file from the list of panels below: `python3 configs/grafana/make_dashboard.py`.

Every query is summed over the labels that its panel is not about, so that series of several servers and devices do not mix.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent / "dtrnet.json"
CHOSEN = 'job=~"$job",instance=~"$instance"'
RATE = "[$__rate_interval]"


def rate(metric: str, by: str = "instance", more: str = "") -> str:
    """The rate of a counter, summed."""
    return f"sum by ({by}) (rate({metric}{{{CHOSEN}{more}}}{RATE}))"


def quantile(q: float, metric: str, by: str = "", more: str = "") -> str:
    """Of a histogram, over all servers chosen."""
    return f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket{{{CHOSEN}{more}}}{RATE})))"


def gauge(metric: str, by: str = "instance") -> str:
    """A gauge, summed."""
    return f"sum by ({by}) ({metric}{{{CHOSEN}}})"


def quantiles(metric: str) -> list[tuple[str, str]]:
    """Median and 99th percentile."""
    return [(quantile(0.5, metric), "median"), (quantile(0.99, metric), "99 %")]


CACHED, COMPUTED = rate("dtrnet_rows_cached_total"), rate("dtrnet_rows_computed_total")
LAYER_ROWS = f"scalar(sum(rate(dtrnet_rows_computed_total{{{CHOSEN}}}{RATE})))"
# Title, unit, what it says, queries with their legends. Two panels a line.
PANELS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    ("Servers that answer", "none", "1: the last scrape had an answer.", [(f"up{{{CHOSEN}}}", "{{instance}}")]),
    ("Sequences", "none", "Waiting and running.", [
        (gauge("dtrnet_queue_sequences"), "waiting {{instance}}"), (gauge("dtrnet_running_sequences"), "running {{instance}}")]),
    ("Requests", "reqps", "Answered, by route and status.", [
        (rate("dtrnet_http_requests_total", "route, status"), "{{route}} {{status}}")]),
    ("Time of a request", "s", "From its headers to the end of its answer.", [
        (quantile(0.5, "dtrnet_http_request_seconds", ", route"), "median {{route}}"),
        (quantile(0.99, "dtrnet_http_request_seconds", ", route"), "99 % {{route}}")]),
    ("Tokens", "none", "Of prompts, scored and generated, a second.", [
        (rate("dtrnet_prompt_tokens_total"), "prompts {{instance}}"), (rate("dtrnet_tokens_scored_total"), "scored {{instance}}"),
        (rate("dtrnet_tokens_generated_total"), "generated {{instance}}")]),
    ("Positions", "none", "Computed, taken from the prefix tree, and run again for their scores, a second.", [
        (COMPUTED, "computed {{instance}}"), (CACHED, "cached {{instance}}"),
        (rate("dtrnet_rows_rescored_total"), "again {{instance}}")]),
    ("Prefix reuse", "percentunit", "Share of positions that were not computed.", [
        (f"{CACHED} / ({CACHED} + {COMPUTED})", "{{instance}}")]),
    ("Share of rows that attend", "percentunit", "By layer, of all positions computed: dense layers are at 1.", [
        (f"{rate('dtrnet_layer_rows_routed_total', 'layer, kind')} / {LAYER_ROWS}", "{{layer}} {{kind}}")]),
    ("Share of rows that do not skip a layer", "percentunit", "Below 1 in nested layers only.", [
        (f"{rate('dtrnet_layer_rows_executed_total', 'layer, kind')} / {LAYER_ROWS}", "{{layer}} {{kind}}")]),
    ("Wait in the queue", "s", "Of a sequence, before it runs.", quantiles("dtrnet_queue_seconds")),
    ("Time to the first token", "s", "Of generation.", quantiles("dtrnet_time_to_first_token_seconds")),
    ("Time between tokens", "s", "Of generation.", quantiles("dtrnet_time_between_tokens_seconds")),
    ("Steps until a call begins", "none", "99 %: alone is a client's only request, shared others of usual size, bulk large ones.", [
        (quantile(0.99, "dtrnet_start_steps", ", lane"), "{{lane}}")]),
    ("Sequences that made way", "none", "A second; they are computed again.", [(rate("dtrnet_preemptions_total"), "{{instance}}")]),
    ("Share of time in forward passes", "percentunit", "Of each kind of op; above 1 where a server has several devices.", [
        (rate("dtrnet_busy_op_seconds_total", "instance, op"), "{{op}} {{instance}}")]),
    ("Devices that work", "none", "0 once one has failed; the others have taken its requests over.", [
        (gauge("dtrnet_device_up", "instance, device"), "{{device}} {{instance}}")]),
    ("Share of time in forward passes, by device", "percentunit", "", [
        (rate("dtrnet_device_busy_seconds_total", "instance, device"), "{{device}} {{instance}}")]),
    ("Positions computed, by device", "none", "A second.", [
        (rate("dtrnet_device_rows_computed_total", "instance, device"), "{{device}} {{instance}}")]),
    ("Sequences of a device", "none", "Waiting for it and running on it.", [
        (gauge("dtrnet_device_queue_sequences", "instance, device"), "waiting {{device}} {{instance}}"),
        (gauge("dtrnet_device_running_sequences", "instance, device"), "running {{device}} {{instance}}")]),
    ("Forward passes", "none", "A second.", [(rate("dtrnet_steps_total"), "{{instance}}")]),
    ("KV pool", "percentunit", "Held, and promised to running sequences. A pool that is full of cached prefixes is in order.", [
        (f"{gauge('dtrnet_kv_held_rows')} / {gauge('dtrnet_kv_pool_rows')}", "held {{instance}}"),
        (f"{gauge('dtrnet_kv_reserved_rows')} / {gauge('dtrnet_kv_pool_rows')}", "promised {{instance}}")]),
    ("Prefix tree", "none", "Tokens in it, and given up a second.", [
        (gauge("dtrnet_prefix_tree_tokens"), "tokens {{instance}}"),
        (rate("dtrnet_prefix_tree_evicted_tokens_total"), "given up {{instance}}")]),
    ("Memory of the device", "bytes", "Held by use, and free.", [
        (gauge("dtrnet_device_memory_held_bytes", "instance, use"), "{{use}} {{instance}}"),
        (gauge("dtrnet_device_memory_free_bytes"), "free {{instance}}")]),
    ("Ended otherwise", "none", "Sequences that failed, and those whose client left, a second.", [
        (rate("dtrnet_sequences_failed_total"), "failed {{instance}}"), (rate("dtrnet_sequences_cancelled_total"), "left {{instance}}")]),
    ("CPU of the process", "none", "Cores in use.", [(rate("process_cpu_seconds_total"), "{{instance}}")]),
    ("Memory of the process", "bytes", "Resident.", [(gauge("process_resident_memory_bytes"), "{{instance}}")]),
]  # fmt: skip
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number: int, title: str, unit: str, about: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    """One graph."""
    targets = [
        {"datasource": SOURCE, "refId": chr(65 + n), "expr": expr, "legendFormat": legend} for n, (expr, legend) in enumerate(queries)
    ]
    place = {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)}
    more = {"fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {"legend": {"displayMode": "list"}}}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": targets,
        **more,
    }


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice among the values of a label."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
    }


def dashboard() -> dict[str, Any]:
    """The whole of it, as Grafana imports it."""
    choices = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        variable("job", "label_values(dtrnet_steps_total, job)"),
        variable("instance", 'label_values(dtrnet_steps_total{job=~"$job"}, instance)'),
    ]
    panels = [panel(number, *one) for number, one in enumerate(PANELS)]
    head = {"uid": "dtrnet", "title": "dtrnet", "tags": ["dtrnet"], "schemaVersion": 38, "editable": True, "refresh": "30s"}
    return {**head, "time": {"from": "now-1h", "to": "now"}, "templating": {"list": choices}, "panels": panels}


if __name__ == "__main__":
    OUT.write_text(json.dumps(dashboard(), indent=1) + "\n")
