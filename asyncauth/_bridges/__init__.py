"""Bridges: sessions of other AWS libraries, and environments of subprocesses, that use an account's token."""

from __future__ import annotations

from asyncauth._bridges.credential_requests import CredentialRequests
from asyncauth._bridges.credential_server import CredentialServer
from asyncauth._bridges.environment import container_environ, static_environ
from asyncauth._bridges.sessions import aioboto3_session, aiobotocore_session, boto3_session
from asyncauth._bridges.settings import BridgeSettings, SharedLoader

__all__ = [
    "BridgeSettings",
    "CredentialRequests",
    "CredentialServer",
    "SharedLoader",
    "aioboto3_session",
    "aiobotocore_session",
    "boto3_session",
    "container_environ",
    "static_environ",
]
