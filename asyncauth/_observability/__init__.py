"""Observability of runs: progress displays, spans and metrics."""

from __future__ import annotations

from asyncauth._observability.progress import Display, ProgressSpec, choose_display
from asyncauth._observability.telemetry import RunTelemetry, Telemetry, open_telemetry

__all__ = ["Display", "ProgressSpec", "RunTelemetry", "Telemetry", "choose_display", "open_telemetry"]
