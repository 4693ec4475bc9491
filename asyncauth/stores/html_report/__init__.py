"""HTML report: one self-contained page of what a SQLite store holds, for people who do not write SQL."""

from __future__ import annotations

from asyncauth.stores.html_report.page import report

__all__ = ["report"]
