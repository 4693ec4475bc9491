"""Limit on open files: a warning if it is too low for a pool's connections."""

from __future__ import annotations

from typing import Final

#: Files of the process besides connections: interpreter, libraries, event loop, log.
_RESERVE: Final = 64

#: Endpoints that a target uses: STS and one service.
_ENDPOINTS: Final = 2

#: Connections per endpoint host for each running target. With one, targets that stream a body while they call the
#: same host for another operation (a copy within a bucket) would all wait for each other.
CONNECTIONS_EACH: Final = 2


def files_needed(max_connections: int) -> int:
    """Return how many files a pool may have open at once if its targets use two endpoints, one after the other.

    A target uses one connection at a time, and leaves one idle connection, kept alive for some seconds, at the endpoint
    before (STS, then the service). Jobs that use more endpoints leave more. The pool allows jobs that make several
    calls at a time more connections, see `files_at_most`; most jobs do not need them, so no warning is given for those.
    """
    return _ENDPOINTS * max_connections + _RESERVE


def files_at_most(max_connections: int) -> int:
    """Return how many files are open if every target uses all connections that the pool allows at both endpoints."""
    return _ENDPOINTS * CONNECTIONS_EACH * max_connections + _RESERVE


def check_open_files(max_connections: int) -> str | None:
    """Return a warning with a remedy if the limit on open files is too low for `max_connections`, else None.

    None too if the system has no such limit (Windows).
    """
    try:
        import resource
    except ImportError:
        return None
    limit, ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(max_connections)
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return None
    at_most = max(1, (limit - _RESERVE) // _ENDPOINTS)
    remedy = (
        f"raise it with `ulimit -n {needed}`"
        if ceiling == resource.RLIM_INFINITY or ceiling >= needed
        else f"raise the system's limit of {ceiling} to {needed}"
    )
    return (
        f"this process may open {limit} files, but {max_connections} targets at once need up to {needed} "
        f"({files_at_most(max_connections)} if their jobs make several calls at a time); "
        f"{remedy}, or lower max_at_once to {at_most}"
    )
