"""Every query of the dashboard and of the alerts, asked by promtool of a real Prometheus that scrapes a real server.

Each must return a series with a number. Alerts are asked with their comparison as a value (`> bool`), since they return nothing while all
is well; that they fire is tested with made series (configs/prometheus/alerts_test.yaml). Needs Debian's package prometheus.

Exit status 77: skipped.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from cluster_support import PATIENCE_S, ROOT, ServerProcess, free_port, skip, wait_until

sys.path.insert(0, str(ROOT / "configs" / "grafana"))
import make_dashboard

try:
    import yaml
except ImportError:
    skip("no Python package yaml")

PROMETHEUS = ROOT / "configs" / "prometheus"
COMPARISON = re.compile(r"(==|>|<)(?= )")
ANY = {"$job": ".*", "$instance": ".*", "$__rate_interval": "1m"}


def dashboard_queries(dashboard: dict[str, Any]) -> dict[str, str]:
    """Name -> query, with the variables filled in."""
    out = {}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in ANY.items():
                text = text.replace(name, value)
            assert "$" not in text, text
            out[f"{panel['title']} {target['refId']}"] = text
    return out


def alert_queries() -> dict[str, str]:
    """Name -> what its condition is made of."""
    rules = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        assert COMPARISON.search(rule["expr"]), f"{rule['alert']} compares nothing"
        assert {"summary", "description"} <= set(rule["annotations"]) and rule["labels"]["severity"], rule["alert"]
    return {rule["alert"]: COMPARISON.sub(r"\1 bool", rule["expr"]) for rule in rules}


def check_files() -> None:
    """Prometheus' own reading of the files, the alerts on made series, and that each alert is tested."""
    for line in (["check", "config", "prometheus.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(["promtool", *line], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    quiet = {one["alertname"] for one in tests[0]["alert_rule_test"]}
    firing = set(re.findall(r'alertname="(\w+)"', str(tests[1]["promql_expr_test"])))
    assert quiet == firing == set(alert_queries()), "an alert is not tested"
    written = json.loads(make_dashboard.OUT.read_text())
    assert written == make_dashboard.dashboard(), "configs/grafana/dtrnet.json is not what make_dashboard.py makes"
    print(f"{len(quiet)} alerts fire on what they are for, and on nothing else")


class Prometheus:
    """With the project's configuration but for the address and the interval, for a `with` block."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        settings = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
        settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings["rule_files"] = [str(PROMETHEUS / "alerts.yaml")]
        settings["scrape_configs"][0]["static_configs"] = [{"targets": [server.url.removeprefix("http://")]}]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        self.url = f"http://127.0.0.1:{free_port()}"
        line = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
        line += [f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=error"]
        self.process = subprocess.Popen(line)

    def __enter__(self) -> Prometheus:
        wait_until("the first scrape", lambda: self.ask("up == 1"), 0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, query: str) -> list[float]:
        """Values of a query, by promtool."""
        assert self.process.poll() is None, "Prometheus ended"
        done = subprocess.run(["promtool", "query", "instant", self.url, query], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            assert "connection refused" in done.stderr, f"{query}: {done.stderr}"
            return []
        return [float(value) for value in re.findall(r"=> (\S+) @\[", done.stdout)]

    def rules(self) -> dict[str, tuple[str, str]]:
        """Alert -> health and state as Prometheus has them."""
        with urllib.request.urlopen(f"{self.url}/api/v1/rules", timeout=60) as answer:
            groups = json.load(answer)["data"]["groups"]
        return {rule["name"]: (rule["health"], rule["state"]) for group in groups for rule in group["rules"]}


def use(server: ServerProcess, n: int) -> None:
    """A little of everything that is counted."""
    texts = {"requests": [{"context": f"{n} the old man", "continuations": [" sat", " ran"]}]}
    for path, body in (("/v1/completions", {"prompt": f"{n} it was", "max_tokens": 4}), ("/v1/loglikelihood", texts)):
        request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=PATIENCE_S).read()


def numbers(values: list[float]) -> bool:
    """True if there is a series, and it has a number."""
    return any(value == value for value in values)


def ask_all(prometheus: Prometheus, server: ServerProcess, queries: dict[str, str]) -> None:
    """Uses the server until each query has a series."""
    left, begin, n = dict(queries), time.monotonic(), 0
    while left:
        use(server, n := n + 1)
        time.sleep(0.5)
        left = {name: query for name, query in left.items() if not numbers(prometheus.ask(query))}
        assert time.monotonic() < begin + PATIENCE_S, f"no series: {left}"


def run(folder: Path) -> None:
    """One server, one Prometheus."""
    panels, alerts = dashboard_queries(json.loads(make_dashboard.OUT.read_text())), alert_queries()
    with ServerProcess("--kv-cache-memory", "96M") as server, Prometheus(folder, server) as prometheus:
        ask_all(prometheus, server, {**panels, **alerts})
        print(f"{len(panels)} queries of {len(make_dashboard.PANELS)} panels and {len(alerts)} of alerts have series")
        rules = wait_until("the rules' evaluation", lambda: _evaluated(prometheus.rules()), 0.5)
        assert set(rules) == set(alerts) and all(one == ("ok", "inactive") for one in rules.values()), rules
        assert not prometheus.ask("no_such_metric"), "promtool finds what is not there"
    print("Prometheus has all alerts, none of them fires")


def _evaluated(rules: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]] | None:
    return rules if rules and all(health != "unknown" for health, _ in rules.values()) else None


def main() -> int:
    """Runs it, or skips."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        skip(f"no {', '.join(missing)}")
    check_files()
    with tempfile.TemporaryDirectory(prefix="dtrnet-prometheus-") as name:
        run(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
