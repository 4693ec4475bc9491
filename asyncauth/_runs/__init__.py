"""Runs: a job over accounts and regions, with an outcome for every target."""

from __future__ import annotations

from asyncauth._runs.confirmation import Confirm, Plan
from asyncauth._runs.engine import Engine, GatheringJob, Landing, RemoteRun, ResultStream, WorkerJob
from asyncauth._runs.options import DEFAULT_RETRY, RunKeywords, RunOptions
from asyncauth._runs.outcome import DONE_BEFORE, Outcome, Phase, Succeeded
from asyncauth._runs.preflight import Coverage, Unreachable, coverage
from asyncauth._runs.regions import RegionFinder
from asyncauth._runs.report import Report
from asyncauth._runs.targets import RejectedAccount, Target, Targets

__all__ = [
    "DEFAULT_RETRY",
    "DONE_BEFORE",
    "Confirm",
    "Coverage",
    "Engine",
    "GatheringJob",
    "Landing",
    "Outcome",
    "Phase",
    "Plan",
    "RegionFinder",
    "RejectedAccount",
    "RemoteRun",
    "Report",
    "ResultStream",
    "RunKeywords",
    "RunOptions",
    "Succeeded",
    "Target",
    "Targets",
    "Unreachable",
    "WorkerJob",
    "coverage",
]
