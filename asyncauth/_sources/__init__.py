"""Where base credentials come from: keys, boto's chain or a profile of it, a session, or a callable of the user's."""

from asyncauth._sources._choice import SourceIgnoredWarning, SourceSpec, choose_source, make_source
from asyncauth._sources._source import Source, SourceFacts

__all__ = ["Source", "SourceFacts", "SourceIgnoredWarning", "SourceSpec", "choose_source", "make_source"]
