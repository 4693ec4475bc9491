"""What boto's configuration says of a source: its region, and the partition that follows. Read in a worker thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.session import AioSession

from asyncauth._aws.partitions import get_partition, partition_of_region
from asyncauth._errors import ConfigurationError
from asyncauth._models import parse_role_arn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.session import Session

_NAMES_OF_IDENTITY: Final = ("role_arn", "sso_account_id", "sso_role_name", "login_session")


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What the caller said about a source beside the source itself."""

    partition: str | None
    region_name: str | None


@dataclass(frozen=True, slots=True)
class Configuration:
    """A session with its files read, and what they say.

    Args:
        session: the session.
        region_name, partition: as in SourceFacts.
        identity: whom a profile's temporary credentials are for, where it says so (a role, a login); else empty.
    """

    session: AioSession
    region_name: str | None
    partition: str | None
    identity: tuple[str, ...]


def open_session(profile: str | None) -> AioSession:
    """Return a session of ours for `profile` (None: the default one, or the one that AWS_PROFILE names)."""
    return AioSession(profile=profile)


def read_configuration(session: AioSession, asked: SourceRequest, label: str) -> Configuration:
    """Read a session's files, and work out its region and partition.

    boto's own rule for the region: the one that was asked for, AWS_DEFAULT_REGION, the profile's. (AWS_REGION, which
    other SDKs read, is not part of it.)

    Raises:
        ConfigurationError: the region is in no partition that botocore's data knows.
        botocore.exceptions.BotoCoreError: a file cannot be read, or the profile does not exist.
    """
    region_name = asked.region_name or session.get_config_variable("region")
    profile: Mapping[str, Any] = session.get_scoped_config()
    partition = asked.partition or _partition_of(region_name, label) or _partition_of_role(profile)
    identity = tuple(str(profile[name]) for name in _NAMES_OF_IDENTITY if name in profile)
    return Configuration(session, region_name, partition, identity)


def settle_region(session: Session, configuration: Configuration) -> None:
    """Give a session the region that its own calls to STS shall go to.

    Without any, botocore would ask the global endpoint of the partition `aws`, also about a role of `aws-cn`.
    """
    region_name = configuration.region_name
    if region_name is None and configuration.partition is not None:
        region_name = get_partition(configuration.partition).default_region
    if region_name is not None:
        session.set_config_variable("region", region_name)


def _partition_of(region_name: str | None, label: str) -> str | None:
    if region_name is None:
        return None
    try:
        return partition_of_region(region_name).name
    except ConfigurationError as error:
        raise ConfigurationError(f"{label}: {error}", region_name=region_name) from None


def _partition_of_role(profile: Mapping[str, Any]) -> str | None:
    arn = profile.get("role_arn")
    if not isinstance(arn, str):
        return None
    try:
        return parse_role_arn(arn).partition
    except ConfigurationError:
        return None  # boto will send it as it is, and STS will say what is wrong with it


def fingerprint(access_key_id: str) -> str:
    """Return what tells keys apart without being one."""
    return hashlib.sha256(access_key_id.encode()).hexdigest()[:16]
