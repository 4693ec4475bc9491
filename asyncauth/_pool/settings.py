"""Settings of a pool: its checked arguments, as one value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asyncauth._aws.partitions import get_partition
from asyncauth._aws.plain_http import check_endpoint_url
from asyncauth._credentials.sources import choose_source
from asyncauth._errors import ConfigurationError
from asyncauth._refresh import RefreshPolicy
from asyncauth._resilience import RateLimit, check_rate_limits
from asyncauth._runtime.validation import check_count

if TYPE_CHECKING:
    from random import Random

    from aiobotocore.config import AioConfig

    from asyncauth._credentials.sources import SourceSpec
    from asyncauth._models import Keys, Profile
    from asyncauth._runtime.clock import Clock
    from asyncauth.caches import TokenCache


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked arguments of a pool."""

    sources: Mapping[str | None, SourceSpec]
    region_name: str | None
    endpoint_url: str | None
    max_at_once: int
    allow_long_term: bool
    allow_http_sts: bool
    rate_limits: tuple[RateLimit, ...]
    policy: RefreshPolicy
    cache: TokenCache | None
    config: AioConfig | None
    verify: bool | str | None
    clock: Clock
    random: Random

    @classmethod
    def checked(
        cls,
        *,
        source: SourceSpec,
        sources: Mapping[str, SourceSpec] | None,
        keys: Keys | None,
        profile: Profile | str | None,
        endpoint_url: str | None,
        rate_limits: Iterable[RateLimit],
        refresh: RefreshPolicy | None,
        token_cache: TokenCache | None,
        **others: Any,
    ) -> Settings:
        """Return the settings of the arguments of a pool.

        Raises:
            ConfigurationError: an argument is invalid, or two contradict each other.
        """
        check_count("max_at_once", others["max_at_once"])
        if endpoint_url is not None:
            check_endpoint_url("endpoint_url", endpoint_url)
        return cls(
            sources=_by_partition(sources, choose_source(source=source, keys=keys, profile=profile)),
            endpoint_url=endpoint_url,
            rate_limits=check_rate_limits(rate_limits),
            policy=_check_policy(refresh),
            cache=_check_cache(token_cache),
            **others,
        )

    def without_secrets(self) -> Settings:
        """Return the settings of a closed pool. A cache that was given belongs to the caller, and keeps its tokens."""
        return replace(self, sources={}, cache=None)


def _by_partition(sources: Mapping[str, SourceSpec] | None, single: SourceSpec) -> dict[str | None, SourceSpec]:
    """Return the sources by partition; a single one, for all partitions, has the key None.

    Raises:
        ConfigurationError: both are given, or `sources` is no mapping of partitions to sources.
    """
    if sources is None:
        return {None: single}
    if single is not None:
        raise ConfigurationError(
            "sources= has one source per partition; it cannot be combined with source, keys or profile"
        )
    if not isinstance(sources, Mapping):
        raise ConfigurationError(
            f'sources= must map partitions to sources, {{"aws": ..., "aws-cn": ...}}, got {type(sources).__name__}'
        )
    if not sources:
        raise ConfigurationError('sources is empty; it maps partitions to sources, {"aws": ..., "aws-cn": ...}')
    return {get_partition(name).name: choose_source(source=spec) for name, spec in sources.items()}


def _check_policy(refresh: RefreshPolicy | None) -> RefreshPolicy:
    """Return a refresh policy, the default one for None."""
    if refresh is not None and not isinstance(refresh, RefreshPolicy):
        raise ConfigurationError(f"refresh= must be a RefreshPolicy, got {refresh!r}")
    return refresh or RefreshPolicy()


def _check_cache(cache: TokenCache | None) -> TokenCache | None:
    """Return a token cache, after a check that it has the methods that a pool calls."""
    missing = [name for name in ("load", "store", "discard", "lock") if not hasattr(cache, name)]
    if cache is not None and missing:
        raise ConfigurationError(
            f"token_cache= must be a TokenCache, such as MemoryTokenCache(); a {type(cache).__name__} has no "
            f"{', no '.join(missing)}"
        )
    return cache
