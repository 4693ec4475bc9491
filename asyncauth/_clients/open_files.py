"""Whether this process may open as many files as its connections need."""

from __future__ import annotations

from typing import Final

#: Besides connections: what an interpreter with its libraries, an event loop and a log keeps open.
_RESERVE: Final = 64

#: STS and a service.
_ENDPOINTS: Final = 2

#: Connections per endpoint host for each target that runs. With one, targets that stream a body while they ask the
#: same host for something else (a copy within a bucket) would all wait for each other.
CONNECTIONS_EACH: Final = 2


def files_needed(max_connections: int) -> int:
    """Return how many files a pool may have open at once, if its targets ask two endpoints each, one after the other.

    A target uses one connection at a time, and leaves one behind, kept alive for some seconds, at the endpoint it asked
    before (STS, then the service). Jobs that ask more endpoints than that leave more behind: up to as many each. The
    pool lets jobs that make several calls at a time have more, see `files_at_most`; most do not, and get no warning.
    """
    return _ENDPOINTS * max_connections + _RESERVE


def files_at_most(max_connections: int) -> int:
    """Return how many it may be if every target has all the connections that the pool allows it at both endpoints."""
    return _ENDPOINTS * CONNECTIONS_EACH * max_connections + _RESERVE


def check_open_files(max_connections: int) -> str | None:
    """Return a warning that says what to do if the limit on open files is too low for `max_connections`, else None.

    None too where the system knows no such limit (Windows).
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
