"""Sources of base credentials: explicit keys, boto's default chain, a profile, a session, or a callable."""

from __future__ import annotations

from asyncauth._credentials.sources.selection import SourceIgnoredWarning, SourceSpec, choose_source, make_source
from asyncauth._credentials.sources.source import Source, SourceFacts

__all__ = ["Source", "SourceFacts", "SourceIgnoredWarning", "SourceSpec", "choose_source", "make_source"]
