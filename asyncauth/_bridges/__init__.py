"""Bridges: sessions of other AWS libraries, and environments of subprocesses, that use an account's token."""

from __future__ import annotations

from asyncauth._bridges.credential_server import CredentialServer
from asyncauth._bridges.environment import static_environ
from asyncauth._bridges.sessions import aioboto3_session, aiobotocore_session, boto3_session

__all__ = ["CredentialServer", "aioboto3_session", "aiobotocore_session", "boto3_session", "static_environ"]
