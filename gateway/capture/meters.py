"""From records to metrics, in the outbox's thread: the request path updates no counter."""

from __future__ import annotations

from monitoring.records.events import Inference
from monitoring.telemetry.shared import Metrics

_OPERATION = {"chat": "chat", "completions": "text_completion", "responses": "chat", "embeddings": "embeddings"}


class Meters:
    """What this process counts of its requests. One writer: the outbox's thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._dropped = 0

    def count(self, record: Inference) -> None:
        """Count one finished request under the adapter version that answered it."""
        metrics, adapter = self._metrics, record.adapter or "base"
        operation = _OPERATION[record.endpoint]
        code = record.error or str(record.status)
        metrics.counter("graftline_requests_total", endpoint=record.endpoint, code=code).add(1)
        if record.error == "client_left":
            metrics.counter("graftline_clients_left_total", endpoint=record.endpoint).add(1)
        if record.status == 429:
            metrics.counter("graftline_quota_rejections_total", reason=record.error).add(1)
        if record.attempts > 1:
            metrics.counter("graftline_retries_total", endpoint=record.endpoint).add(record.attempts - 1)
        if record.status != 200:
            return
        if record.incomplete:
            metrics.counter("graftline_stream_errors_total", endpoint=record.endpoint).add(1)
        labels = {"gen_ai_operation_name": operation, "gen_ai_response_model": adapter}
        metrics.histogram("gen_ai_server_request_duration_seconds", **labels).observe(record.total_ms / 1e3)
        if record.first_token_ms is not None and record.stream:
            metrics.histogram("gen_ai_server_time_to_first_token_seconds", **labels).observe(
                record.first_token_ms / 1e3
            )
            if record.completion_tokens > 1 and record.last_token_ms is not None:
                per_token_s = (record.last_token_ms - record.first_token_ms) / 1e3 / (record.completion_tokens - 1)
                metrics.histogram("gen_ai_server_time_per_output_token_seconds", **labels).observe(per_token_s)
        for kind, tokens in (("input", record.prompt_tokens), ("output", record.completion_tokens)):
            metrics.counter("graftline_tokens_total", gen_ai_token_type=kind, gen_ai_response_model=adapter).add(tokens)
            metrics.histogram("gen_ai_client_token_usage", gen_ai_token_type=kind, **labels).observe(tokens)

    def dropped(self, total: int) -> None:
        """Records lost so far, of which some were counted before."""
        if total > self._dropped:
            self._metrics.counter("graftline_records_dropped_total").add(total - self._dropped)
            self._dropped = total

    def spool_failed(self) -> None:
        self._metrics.counter("graftline_spool_errors_total").add(1)
