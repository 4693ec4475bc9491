"""Sources of base credentials: keys, boto's chain or a profile of it, a session, or a callable."""

from __future__ import annotations

from asyncauth._credentials.sources.selection import SourceIgnoredWarning, SourceSpec, choose_source, make_source
from asyncauth._credentials.sources.source import Source, SourceFacts

__all__ = ["Source", "SourceFacts", "SourceIgnoredWarning", "SourceSpec", "choose_source", "make_source"]
