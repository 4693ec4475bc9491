"""Factory of a pool's clients: builds each template once, binds it for each account, and closes all connections."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, Unpack

import anyio
import anyio.to_thread

from asyncauth._clients.bound_client import LeaseCount
from asyncauth._clients.builder import TemplateSession
from asyncauth._clients.config import config_key, merged_options
from asyncauth._clients.http import Connections
from asyncauth._clients.identity import BoundCredentials, FactoryState
from asyncauth._clients.isolated import isolate
from asyncauth._clients.retry_state import RetryStates
from asyncauth._clients.template import ClientTemplate
from asyncauth._errors import PoolClosed
from asyncauth._models import Identity
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from aiobotocore.session import AioSession
    from botocore.config import Config
    from botocore.loaders import Loader

    from asyncauth._clients.bound_client import CallHook
    from asyncauth._runtime.clock import Clock

logger: Final = logging.getLogger("asyncauth.clients")

#: About 0.1 MiB each. A job that uses more kinds of clients than this in every account builds all of them again.
_MAX_TEMPLATES: Final = 512


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Counters and gauges of a client factory.

    Attributes:
        templates: templates held now.
        leased: clients that are inside `async with` now.
        built: templates built since the factory was made.
        evicted: templates dropped because there were too many.
        bound: clients bound to a template.
        isolated: clients built for one account alone.
    """

    templates: int
    leased: int
    built: int
    evicted: int
    bound: int
    isolated: int


class ClientOptions(TypedDict, total=False):
    """Options of a client besides service and region, with the same meaning as for botocore's `create_client`."""

    endpoint_url: str | None
    config: Config | None
    verify: bool | str | None
    use_ssl: bool
    api_version: str | None


class _ClientSpec(NamedTuple):
    """The kind of client that a caller requests.

    Attributes:
        key: equal for clients that can share a template.
        values: the values of `_OPTION_NAMES`.
        config: the config of this client; None for no config.
    """

    key: Hashable
    values: tuple[Any, ...]
    config: Config | None

    def retry_scope(self, client: Any) -> Hashable:
        """Return the scope in which an account's retries are counted: service, region and endpoint."""
        return (self.values[0], client.meta.region_name, self.values[2])


_OPTION_NAMES: Final = ("service_name", "region_name", "endpoint_url", "verify", "use_ssl", "api_version")


class ClientFactory:
    """Makes clients for one source. After the first client of a kind, each further one costs about a method call.

    All clients of a factory share loaded models, classes, endpoint rules and connections. Clients of different
    accounts share nothing that depends on the account. File and CPU work runs in one worker thread, so the event loop
    is not blocked.

    Args:
        max_connections: connections per endpoint host, for all accounts together.
        session: provides configuration (profile, environment, event handlers); its credentials are not used. None:
            boto's default configuration.
        config: options for all clients; the options of a single `bind` override them.
        verify: path of a CA bundle, or False, for clients that do not set it. None: as configured.
        clock: times the retries.
        max_templates: templates kept. Beyond this number the least recently used template without a leased client is
            dropped.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        session: AioSession | None = None,
        config: Config | None = None,
        verify: bool | str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        max_templates: int = _MAX_TEMPLATES,
    ) -> None:
        self._max_connections = max_connections
        self._given_session = session
        self._session: TemplateSession | None = None
        self._config = config
        self._verify = verify
        self._max_templates = max_templates
        self._factory_state = FactoryState()
        self._connections = Connections()
        self._states = RetryStates(clock)
        self._templates: OrderedDict[Hashable, ClientTemplate] = OrderedDict()
        self._builds: SingleFlight[ClientTemplate] = SingleFlight()
        # One at a time: building is bound by the interpreter's lock, and botocore's sessions are not safe for threads.
        self._builder = anyio.CapacityLimiter(1)
        self._isolated_leases = LeaseCount()
        self._built = self._evicted = self._bound = self._isolated = 0

    async def bind(
        self,
        identity: Identity,
        service_name: str,
        region_name: str | None = None,
        *,
        isolated: bool = False,
        call_hook: CallHook | None = None,
        **options: Unpack[ClientOptions],
    ) -> Any:
        """Return a client that signs as `identity`, in microseconds if its template exists.

        The client can be used at once, inside and outside of `async with`, as long as the factory is open.

        Args:
            identity: provides the credentials that sign.
            service_name: as for `create_client`, for example `ec2`.
            region_name: None for the region that the session is configured with.
            isolated: build a client for this identity alone; it shares only loaded models and connections.
            call_hook: wraps every API call; None for no hook.
            options: as for `create_client`.

        Raises:
            PoolClosed: the factory is closed.
            ConfigurationError: another event loop than the factory's is running.
            botocore's exceptions: an unknown service, no region, options that botocore rejects.
        """
        self._check_open()
        spec = self._spec(service_name, region_name, **options)
        if not isolated:
            template = self._templates.get(spec.key) or await self._template(spec)
            if template.unshared is None:
                return self._bind(spec.key, template, identity, call_hook)
        return await self._build_isolated(identity, spec, call_hook)

    def try_bind(
        self,
        identity: Identity,
        service_name: str,
        region_name: str | None = None,
        *,
        isolated: bool = False,
        call_hook: CallHook | None = None,
        **options: Unpack[ClientOptions],
    ) -> Any:
        """Return the client that `bind` would return, or None if a template or a client must be built first. Never
        waits."""
        self._check_open()
        key = self._spec(service_name, region_name, **options).key
        template = self._templates.get(key)
        if template is None or isolated or template.unshared is not None:
            return None
        return self._bind(key, template, identity, call_hook)

    async def warm(self, service_name: str, region_name: str | None = None, **options: Unpack[ClientOptions]) -> None:
        """Build a template before its first use, so that the first account does not wait for it.

        Raises:
            PoolClosed: the factory is closed.
            botocore's exceptions: as for `bind`.
        """
        self._check_open()
        await self._template(self._spec(service_name, region_name, **options))

    def default_options(self) -> dict[str, Any]:
        """Return the options of botocore's Config with which every client of the factory starts."""
        session = self._open_session()
        return merged_options(session, session.own_config, self._config)

    def loader(self) -> Loader:
        """Return the loader of botocore's data files, which keeps what it read for all clients of the factory."""
        loader: Loader = self._open_session().get_component("data_loader")
        return loader

    async def aclose(self) -> None:
        """Close every connection, also when cancelled. Every client of the factory raises PoolClosed from then on."""
        self._factory_state.closed = True
        with anyio.CancelScope(shield=True):
            await self._connections.aclose()
        self._templates.clear()
        # A session that was handed over can hold credentials of its own.
        self._given_session = self._session = None

    def statistics(self) -> ClientStatistics:
        """Return the counters and gauges of this moment."""
        return ClientStatistics(
            templates=len(self._templates),
            leased=self._isolated_leases.count + sum(template.leases.count for template in self._templates.values()),
            built=self._built,
            evicted=self._evicted,
            bound=self._bound,
            isolated=self._isolated,
        )

    def _bind(self, key: Hashable, template: ClientTemplate, identity: Identity, call_hook: CallHook | None) -> Any:
        self._templates.move_to_end(key)
        self._bound += 1
        return template.bind(identity, call_hook)

    def _spec(
        self,
        service_name: str,
        region_name: str | None,
        *,
        endpoint_url: str | None = None,
        config: Config | None = None,
        verify: bool | str | None = None,
        use_ssl: bool = True,
        api_version: str | None = None,
    ) -> _ClientSpec:
        verify = self._verify if verify is None else verify
        values = (service_name, region_name, endpoint_url, verify, use_ssl, api_version)
        return _ClientSpec((values, config_key(config)), values, config)

    async def _template(self, spec: _ClientSpec) -> ClientTemplate:
        template = self._templates.get(spec.key)
        return template or await self._builds.run(spec.key, partial(self._build_shared, spec))

    async def _build_shared(self, spec: _ClientSpec) -> ClientTemplate:
        template: ClientTemplate = await self._in_thread(lambda: self._build_template(spec))
        self._built += 1
        self._evict()
        self._templates[spec.key] = template
        return template

    async def _in_thread(self, build: Callable[[], Any]) -> Any:
        built = await anyio.to_thread.run_sync(build, limiter=self._builder)
        self._check_open()
        return built

    def _build_template(self, spec: _ClientSpec) -> ClientTemplate:
        session = self._open_session()
        client = self._build(session, spec)
        retry_scope = spec.retry_scope(client)
        template = ClientTemplate(
            client, session, retry_scope, connections=self._connections, states=self._states, state=self._factory_state
        )
        if template.unshared is not None:
            logger.info(
                "clients of %s in %s are built for each account alone, which takes longer: %s",
                spec.values[0],
                client.meta.region_name,
                template.unshared,
            )
        return template

    async def _build_isolated(self, identity: Identity, spec: _ClientSpec, call_hook: CallHook | None) -> Any:
        def build() -> Any:
            return self._build(self._open_session().signing_as(BoundCredentials(identity, self._factory_state)), spec)

        client = await self._in_thread(build)
        self._isolated += 1
        return isolate(
            client,
            identity,
            call_hook,
            retry_state=self._states.get((identity.key, spec.retry_scope(client))),
            connections=self._connections,
            state=self._factory_state,
            leases=self._isolated_leases,
        )

    def _build(self, session: TemplateSession, spec: _ClientSpec) -> Any:
        options = dict(zip(_OPTION_NAMES, spec.values, strict=True))
        return session.build(options, self._max_connections, self._config, spec.config)

    def _open_session(self) -> TemplateSession:
        if self._session is None:
            self._session = TemplateSession.of(self._given_session)
        return self._session

    def _evict(self) -> None:
        """Drop idle templates to allow for one more. They need no closing: the factory owns the connections."""
        excess = max(0, len(self._templates) + 1 - self._max_templates)
        for key in [key for key, template in self._templates.items() if not template.leases.count][:excess]:
            del self._templates[key]
            self._evicted += 1

    def _check_open(self) -> None:
        if self._factory_state.closed:
            raise PoolClosed("the pool is closed and provides no more clients")
        self._factory_state.check(None)
