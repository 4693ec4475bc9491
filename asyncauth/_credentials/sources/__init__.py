"""Sources of base credentials: keys, boto's default chain, a profile, a role of a portal, a session, or a callable."""

from __future__ import annotations

from asyncauth._credentials.sources.configuration import open_session
from asyncauth._credentials.sources.selection import (
    SourceIgnoredWarning,
    SourceSpec,
    check_source,
    choose_source,
    make_source,
)
from asyncauth._credentials.sources.settings import check_ca_bundle
from asyncauth._credentials.sources.source import Source, SourceFacts
from asyncauth._credentials.sources.sso_role import SsoPortals

__all__ = [
    "Source",
    "SourceFacts",
    "SourceIgnoredWarning",
    "SourceSpec",
    "SsoPortals",
    "check_ca_bundle",
    "check_source",
    "choose_source",
    "make_source",
    "open_session",
]
