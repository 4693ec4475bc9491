"""Sessions of aiobotocore, aioboto3 and boto3 that use an account's token, configured like the pool's own clients.

Each session requests credentials from the pool for every request that it signs, so its clients never hold an expired
token while the pool is open.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, Final

import botocore.session
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.config import Config

from asyncauth._aws.client_arguments import check_client_arguments
from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._bridges.credential_requests import CredentialRequests
    from asyncauth._bridges.settings import BridgeSettings
    from asyncauth._models import Credentials, Identity

#: Options of aiobotocore's Config that botocore's does not have.
_AIO_OPTIONS: Final = frozenset({"connector_args", "http_session_cls"})


class _Credentials:
    """Credentials object of a botocore session; botocore calls its methods by these names."""

    method: Final = "asyncauth"

    def __init__(self, identity: Identity, requests: CredentialRequests) -> None:
        self._identity = identity
        self._requests = requests

    def check(self) -> None:
        """Refuse a process in which the pool does not run.

        Raises:
            PoolClosed: this process was forked after the pool was opened.
        """
        self._requests.check_process(self._identity.account_id)

    def get_deferred_property(self, _: str) -> Callable[[], Any]:
        """Return the getter of the account id, the only deferred property that botocore reads."""
        return self.get_account_id  # type: ignore[attr-defined, no-any-return]  # of the subclasses


class _AsyncCredentials(_Credentials):
    """Credentials object of an AioSession: every request gets its credentials from the identity; none are kept."""

    async def load_credentials(self) -> _AsyncCredentials:
        """Return itself: it is the `credential_provider` component as well."""
        return self

    async def get_frozen_credentials(self) -> Credentials:
        self.check()
        return await self._identity.get_frozen_credentials()

    async def get_account_id(self) -> str | None:
        return self._identity.account_id


class _ThreadCredentials(_Credentials):
    """Credentials object of a botocore session in worker threads: every request gets its credentials from the pool."""

    def load_credentials(self) -> _ThreadCredentials:
        """Return itself: it is the `credential_provider` component as well."""
        return self

    def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now.

        Raises:
            PoolClosed: the pool has closed, or stayed in the process that forked this one.
            AsyncAuthError: called on the event loop's own thread; or there are no credentials.
        """
        self.check()
        self._requests.check_thread(self._identity.account_id)
        return self._requests.get(self._identity)

    def get_account_id(self) -> str | None:
        """Return the 12-digit id of the account."""
        return self._identity.account_id

    @property
    def access_key(self) -> str:
        """The access key id of the current credentials."""
        return self.get_frozen_credentials().access_key_id

    @property
    def secret_key(self) -> str:
        """The secret access key of the current credentials."""
        return self.get_frozen_credentials().secret_access_key

    @property
    def token(self) -> str | None:
        """The session token of the current credentials; None for long-term keys."""
        return self.get_frozen_credentials().session_token


class _ConfiguredSession:
    """Base of a botocore session that reads its configuration where the source's session reads it.

    The configuration files are those that the source's session has read already.
    """

    bridge_settings: BridgeSettings
    bridge_credentials: _Credentials

    def configure(self: Any, settings: BridgeSettings, region_name: str, credentials: _Credentials) -> None:
        """Take over the source's configuration, and sign with `credentials`."""
        self.bridge_settings = settings
        self.bridge_credentials = credentials
        config_store = copy.copy(settings.session.get_component("config_store"))
        self.register_component("config_store", config_store)
        self.register_component("data_loader", settings.loader.view())
        self.register_component("credential_provider", credentials)
        settings.refuse_bearer_tokens(self)
        self.set_config_variable("region", region_name)
        # As for the pool's own clients: tokens of STS's global endpoint are not valid in opt-in regions.
        self.set_config_variable("sts_regional_endpoints", "regional")

    @property
    def full_config(self) -> Any:
        """The configuration files."""
        return self.bridge_settings.session.full_config

    def set_config_variable(self: Any, logical_name: str, value: Any) -> None:
        """Set a variable of this session alone; the providers of the source read those of the source's session."""
        self.get_component("config_store").set_config_variable(logical_name, value)

    def get_auth_token(self, **_: Any) -> None:
        """Return None: a bearer token of the environment or of an SSO login belongs to another identity."""

    def create_client(
        self,
        service_name: str,
        region_name: str | None = None,
        api_version: str | None = None,
        use_ssl: bool = True,
        verify: bool | str | None = None,
        endpoint_url: str | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """Create a client; the pool's endpoint and CA bundle hold unless the caller gives others.

        Raises:
            PoolClosed: this process was forked after the pool was opened.
            ConfigurationError: an argument has a wrong type.
        """
        self.bridge_credentials.check()
        given = {"region_name": region_name, "api_version": api_version, "use_ssl": use_ssl, "verify": verify}
        check_client_arguments(service_name, given | {"endpoint_url": endpoint_url, "config": options.get("config")})
        settings = self.bridge_settings
        return super().create_client(  # type: ignore[misc]  # the other base is botocore's
            service_name,
            region_name,
            api_version,
            use_ssl,
            settings.verify if verify is None else verify,
            settings.endpoint_url if endpoint_url is None else endpoint_url,
            *arguments,
            **options,
        )


class _ConfiguredAioSession(_ConfiguredSession, AioSession):
    """A session of aiobotocore."""


class _ConfiguredBotocoreSession(_ConfiguredSession, botocore.session.Session):
    """A session of botocore, for threads."""


def aiobotocore_session(
    identity: Identity, region_name: str, settings: BridgeSettings, requests: CredentialRequests
) -> AioSession:
    """Return an `AioSession` that signs as `identity`."""
    session = _ConfiguredAioSession()
    session.configure(settings, region_name, _AsyncCredentials(identity, requests))
    session.set_default_client_config(AioConfig(**settings.options))
    return session


def aioboto3_session(
    identity: Identity, region_name: str, settings: BridgeSettings, requests: CredentialRequests
) -> Any:
    """Return an `aioboto3.Session` that signs as `identity`.

    Raises:
        ConfigurationError: aioboto3 is not installed.
    """
    try:
        import aioboto3
        import boto3
    except ImportError:
        raise ConfigurationError("aioboto3 is not installed: pip install 'asyncauth[aioboto3]'") from None
    settings.loader.add_search_path(_data_directory(boto3))
    return aioboto3.Session(botocore_session=aiobotocore_session(identity, region_name, settings, requests))


def boto3_session(identity: Identity, region_name: str, settings: BridgeSettings, requests: CredentialRequests) -> Any:
    """Return a `boto3.Session` for worker threads that signs as `identity`.

    Raises:
        ConfigurationError: boto3 is not installed.
    """
    try:
        import boto3
    except ImportError:
        raise ConfigurationError("boto3 is not installed: pip install 'asyncauth[boto3]'") from None
    settings.loader.add_search_path(_data_directory(boto3))
    session = _ConfiguredBotocoreSession()
    session.configure(settings, region_name, _ThreadCredentials(identity, requests))
    options = {name: value for name, value in settings.options.items() if name not in _AIO_OPTIONS}
    session.set_default_client_config(Config(**options))
    return boto3.Session(botocore_session=session)


def _data_directory(boto3: Any) -> str:
    """Return where boto3 keeps the models of its resources."""
    return os.path.join(os.path.dirname(boto3.__file__), "data")
