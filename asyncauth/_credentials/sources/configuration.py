"""Configuration of a source in boto's files and variables: its region and partition. Read in a worker thread."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.session import AioSession
from botocore.session import Session

from asyncauth._aws.partitions import get_partition, partition_of_region
from asyncauth._credentials.sources.settings import check_settings, prepare_session, settled_profile
from asyncauth._errors import ConfigurationError
from asyncauth._models import parse_role_arn

if TYPE_CHECKING:
    from collections.abc import Mapping

#: botocore reads the first; a session that is given may read the second as well.
_REGION_VARIABLES: Final = ("AWS_DEFAULT_REGION", "AWS_REGION")

_IDENTITY_SETTINGS: Final = ("role_arn", "sso_account_id", "sso_role_name", "login_session")


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """The settings that the caller gives beside the source itself; None: read them from the configuration."""

    partition: str | None
    region_name: str | None


@dataclass(frozen=True, slots=True)
class Configuration:
    """A session whose files were read, and the settings that they hold.

    Args:
        session: the session.
        region_name, partition: as in SourceFacts.
        identity: the identity of a profile's temporary credentials where it is configured (a role, a login); else
            empty.
        region_variable: as in SourceFacts.
    """

    session: AioSession
    region_name: str | None
    partition: str | None
    identity: tuple[str, ...]
    region_variable: str | None = None


def open_session(profile: str | None) -> AioSession:
    """Return a new session for `profile`; None: the default profile, or the one in AWS_PROFILE."""
    return prepare_session(AioSession(profile=settled_profile(profile)))


def open_blocking_session(profile: str | None) -> Session:
    """Return a new session of synchronous botocore, as `open_session` does."""
    return prepare_session(Session(profile=settled_profile(profile)))


def read_configuration(session: AioSession, request: SourceRequest, label: str) -> Configuration:
    """Read a session's files, and determine its region and partition.

    The region follows boto's own order: the requested one, AWS_DEFAULT_REGION, the profile's. AWS_REGION, which other
    SDKs read, is not part of it.

    Raises:
        ConfigurationError: the region is in no partition that botocore's data knows, or a setting cannot be read.
        botocore.exceptions.BotoCoreError: a file cannot be read, or the profile does not exist.
    """
    check_settings(session, label)
    region_name = request.region_name or session.get_config_variable("region") or None
    profile: Mapping[str, Any] = session.get_scoped_config()
    partition = request.partition or _partition_of(region_name, label) or _partition_of_role(profile)
    identity = tuple(str(profile[name]) for name in _IDENTITY_SETTINGS if name in profile)
    variable = None if request.region_name else _region_variable(region_name, profile)
    return Configuration(session, region_name, partition, identity, variable)


def set_region(session: Session, configuration: Configuration) -> None:
    """Set the region in which a session sends its own requests to STS.

    Without a region, botocore sends them to the global endpoint of the partition `aws`, also for a role of `aws-cn`.
    """
    region_name = configuration.region_name
    if region_name is None and configuration.partition is not None:
        region_name = get_partition(configuration.partition).default_region
    if region_name is not None:
        session.set_config_variable("region", region_name)
    # The setting `legacy` leads to the global endpoint as well, whose tokens are not valid in opt-in regions.
    session.set_config_variable("sts_regional_endpoints", "regional")


def _region_variable(region_name: str | None, profile: Mapping[str, Any]) -> str | None:
    """Return the variable that sets another region than the profile; None if none does."""
    if region_name is None or profile.get("region") == region_name:
        return None
    return next((name for name in _REGION_VARIABLES if os.environ.get(name) == region_name), None)


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
        return None  # boto sends it unchanged, and the refusal of boto or STS names the mistake


def fingerprint(access_key_id: str) -> str:
    """Return a digest of a key id: equal for equal keys, and not the key id."""
    return hashlib.sha256(access_key_id.encode()).hexdigest()[:16]
