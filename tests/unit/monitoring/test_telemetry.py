"""Metrics in shared memory: what is counted by several processes, restarted or not, and how it is rendered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from itertools import product
from math import prod
from pathlib import Path

import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from monitoring.telemetry import layout
from monitoring.telemetry.names import METRICS
from monitoring.telemetry.render import render, total
from monitoring.telemetry.shared import Metrics

MODEL = {"gen_ai_operation_name": "chat", "gen_ai_response_model": "support:7"}


def families(folder: Path) -> dict[str, Family]:
    return {family.name: family for family in text_string_to_metric_families(render(folder).decode())}


def value(folder: Path, sample: str, **labels: str) -> float | None:
    for family in families(folder).values():
        for each in family.samples:
            if each.name == sample and each.labels == labels:
                return float(each.value)
    return None


def test_counters_of_several_processes_are_summed(tmp_path: Path) -> None:
    for worker, amount in (("w0", 1.0), ("w1", 2.5)):
        Metrics(tmp_path, worker).counter("graftline_requests_total", endpoint="chat", code="200").add(amount)
    assert value(tmp_path, "graftline_requests_total", endpoint="chat", code="200") == 3.5


def test_a_total_is_that_of_all_processes_and_labels(tmp_path: Path) -> None:
    for worker, endpoint in (("w0", "chat"), ("w0", "completions"), ("w1", "chat")):
        metrics = Metrics(tmp_path, worker)
        metrics.counter("graftline_retries_total", endpoint=endpoint).add(2)
        metrics.counter("graftline_spool_errors_total").add()
        metrics.close()
    assert total(tmp_path, "graftline_retries_total") == 6
    assert total(tmp_path, "graftline_records_dropped_total") == 0
    assert total(tmp_path / "none", "graftline_retries_total") == 0


def test_a_restarted_process_counts_on_and_its_gauges_start_anew(tmp_path: Path) -> None:
    first = Metrics(tmp_path, "w0")
    first.counter("graftline_retries_total", endpoint="chat").add(3)
    first.gauge("graftline_inflight").set(9)
    first.close()
    second = Metrics(tmp_path, "w0")
    second.counter("graftline_retries_total", endpoint="chat").add()
    assert value(tmp_path, "graftline_retries_total", endpoint="chat") == 4
    assert value(tmp_path, "graftline_inflight") == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_gauges_of_a_process_that_ended_are_gone_and_its_counts_are_not(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "w0")
    metrics.gauge("graftline_inflight").set(9)
    metrics.counter("graftline_spool_errors_total").add()
    assert value(tmp_path, "graftline_inflight") == 9
    metrics.close()
    assert value(tmp_path, "graftline_inflight") is None
    assert value(tmp_path, "graftline_spool_errors_total") == 1


def test_gauges_join_as_they_are_declared(tmp_path: Path) -> None:
    workers = [Metrics(tmp_path, f"w{i}") for i in range(3)]
    for worker, much in zip(workers, (1, 5, 3), strict=True):
        worker.gauge("graftline_inflight").set(much)
        worker.gauge("graftline_snapshot_age_seconds").set(much)
    assert value(tmp_path, "graftline_inflight") == 9
    assert value(tmp_path, "graftline_snapshot_age_seconds") == 5


def test_histograms_are_cumulative_summed_and_count_a_bound_as_within(tmp_path: Path) -> None:
    for worker in ("w0", "w1"):
        histogram = Metrics(tmp_path, worker).histogram("gen_ai_server_time_to_first_token_seconds", **MODEL)
        for seconds in (0.001, 0.0011, 0.05, 10.0, 11.0):
            histogram.observe(seconds)
    name = "gen_ai_server_time_to_first_token_seconds"
    counts = {bound: value(tmp_path, f"{name}_bucket", **MODEL, le=bound) for bound in ("0.001", "0.005", "10", "+Inf")}
    assert counts == {"0.001": 2, "0.005": 4, "10": 8, "+Inf": 10}
    assert value(tmp_path, f"{name}_count", **MODEL) == 10
    assert value(tmp_path, f"{name}_sum", **MODEL) == pytest.approx(2 * 21.0521)


def test_values_beyond_the_bound_are_counted_as_other_and_closed_labels_stay(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "w0", series_max=3)
    for model in range(1000):
        for kind in ("input", "output"):
            metrics.counter("graftline_tokens_total", gen_ai_token_type=kind, gen_ai_response_model=f"m{model}").add()
    tokens = {(s.labels["gen_ai_token_type"], s.labels["gen_ai_response_model"]): s.value
              for s in families(tmp_path)["graftline_tokens"].samples}  # fmt: skip
    assert tokens == {
        ("input", "m0"): 1,
        ("output", "m0"): 1,
        ("input", "m1"): 1,
        ("input", "other"): 998,
        ("output", "other"): 999,
    }


def test_every_metric_can_be_filled_to_its_bound_without_touching_another(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "w0", series_max=5)
    calls: Counter[str] = Counter()
    many = [f"v{number}" + '"\\' * 60 for number in range(8)]
    for metric in METRICS:
        names = [label.name for label in metric.labels]
        for values in product(*([*label.values, "unknown"] if label.values else many for label in metric.labels)):
            labels = dict(zip(names, values, strict=True))
            calls[metric.name] += 1
            if metric.kind == "histogram":
                metrics.histogram(metric.name, **labels).observe(1e9)
            elif metric.kind == "counter":
                metrics.counter(metric.name, **labels).add()
            else:
                metrics.gauge(metric.name, **labels).set(1)
    found = families(tmp_path)
    for metric in METRICS:
        samples = found[metric.name.removesuffix("_total")].samples
        wanted = metric.name + ("_count" if metric.kind == "histogram" else "")
        total = sum(sample.value for sample in samples if sample.name == wanted)
        closed = prod(len(label.values) + 1 for label in metric.labels if label.values)
        most = 5 + closed if metric.kind == "gauge" else calls[metric.name]
        assert total == min(most, calls[metric.name]), metric.name


def test_a_label_value_not_in_its_set_is_other_and_strange_ones_are_escaped(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "w0")
    metrics.counter("graftline_requests_total", endpoint="nope", code='a"b\\c\nd').add()
    assert value(tmp_path, "graftline_requests_total", endpoint="other", code='a"b\\c?d') == 1


def test_long_values_are_cut_between_characters(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "w0")
    metrics.counter("graftline_requests_total", endpoint="chat", code="é" * 100).add()
    assert value(tmp_path, "graftline_requests_total", endpoint="chat", code="é" * 40) == 1


def test_the_same_labels_in_any_order_are_the_same_series(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "w0")
    first = metrics.counter("graftline_requests_total", endpoint="chat", code="200")
    metrics.counter("graftline_requests_total", code="200", endpoint="chat").add()
    first.add()
    assert metrics.counter("graftline_requests_total", endpoint="chat", code="200") is first
    assert value(tmp_path, "graftline_requests_total", endpoint="chat", code="200") == 2


def test_what_is_not_declared_cannot_be_counted(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "w0")
    with pytest.raises(ValueError, match="not declared"):
        metrics.counter("graftline_typo_total")
    with pytest.raises(ValueError, match=r"labelled \['endpoint', 'code'\]"):
        metrics.counter("graftline_requests_total", endpoint="chat")
    with pytest.raises(ValueError, match="is a Gauge, not a Counter"):
        metrics.counter("graftline_inflight")
    with pytest.raises(ValueError, match="only goes up"):
        metrics.counter("graftline_spool_errors_total").add(-1)
    with pytest.raises(ValueError, match="name"):
        Metrics(tmp_path, "../w0")


def test_two_processes_of_one_name_do_not_share_a_file(tmp_path: Path) -> None:
    draining, fresh = Metrics(tmp_path, "w0"), Metrics(tmp_path, "w0")
    for each in (draining, fresh):
        each.counter("graftline_spool_errors_total").add()
    assert value(tmp_path, "graftline_spool_errors_total") == 2


def test_a_file_of_another_version_is_left_out_and_replaced_by_its_owner(tmp_path: Path) -> None:
    old = tmp_path / "w0.metrics"
    old.write_bytes(b"GLMETR00" + bytes(1000))
    assert value(tmp_path, "graftline_spool_errors_total") == 0
    Metrics(tmp_path, "w0").counter("graftline_spool_errors_total").add()
    assert value(tmp_path, "graftline_spool_errors_total") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["w0.metrics"]


def test_counters_without_labels_are_rendered_from_the_start_so_that_alerts_see_zero(tmp_path: Path) -> None:
    assert value(tmp_path, "graftline_records_dropped_total") == 0


def test_declarations_are_sound() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.help.endswith(".")
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
        assert metric.unit != "seconds" or metric.name.endswith("_seconds"), metric.name
    assert layout.Layout.of(128).bytes < 2 << 20


@pytest.mark.slow
def test_counts_survive_kill_9(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from monitoring.telemetry.shared import Metrics
metrics = Metrics(Path(sys.argv[1]), "w0")
metrics.counter("graftline_spool_errors_total").add(7)
metrics.gauge("graftline_inflight").set(3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    assert value(tmp_path, "graftline_spool_errors_total") == 7
    assert value(tmp_path, "graftline_inflight") is None


@pytest.mark.slow
def test_an_update_costs_less_than_a_microsecond_of_cpu(tmp_path: Path) -> None:
    counter = Metrics(tmp_path, "w0").counter("graftline_spool_errors_total")
    histogram = Metrics(tmp_path, "w1").histogram("gen_ai_server_request_duration_seconds", **MODEL)
    best_s = 1.0
    for _ in range(5):
        begin = time.process_time()
        for _ in range(20_000):
            counter.add()
            histogram.observe(0.3)
        best_s = min(best_s, (time.process_time() - begin) / 40_000)
    assert best_s < 1e-6


def test_the_file_takes_its_space_at_once(tmp_path: Path) -> None:
    Metrics(tmp_path, "w0")
    found = os.stat(tmp_path / "w0.metrics")
    assert found.st_blocks * 512 >= found.st_size
