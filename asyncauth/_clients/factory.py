"""The factory of a pool's clients: builds a core once, binds it for each account, and closes all of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, Unpack

import anyio
import anyio.to_thread

from asyncauth._clients.bound_client import LeaseCount
from asyncauth._clients.builder import TemplateSession
from asyncauth._clients.config import config_key
from asyncauth._clients.http import Connections
from asyncauth._clients.identity import BoundCredentials, FactoryState
from asyncauth._clients.isolated import isolate
from asyncauth._clients.retry_state import RetryStates
from asyncauth._clients.template import ClientTemplate
from asyncauth._errors import PoolClosed
from asyncauth._models import Identity
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from aiobotocore.session import AioSession
    from botocore.config import Config

    from asyncauth._clients.bound_client import CallHook
    from asyncauth._runtime.clock import Clock

#: About 0.1 MiB each. A job that asks more kinds of clients than this of every account has them all built anew.
_MAX_CORES: Final = 512


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """What a factory has done, and holds now.

    Attributes:
        cores: how many are held.
        leased: how many clients are inside `async with`.
        built: how many cores were built.
        evicted: how many of them went because there were too many.
        bound: how many clients were bound to a core.
        isolated: how many clients were built for one account alone.
    """

    templates: int
    leased: int
    built: int
    evicted: int
    bound: int
    isolated: int


class ClientOptions(TypedDict, total=False):
    """What a client can be asked with besides service and region; all of it as for botocore's `create_client`."""

    endpoint_url: str | None
    config: Config | None
    verify: bool | str | None
    use_ssl: bool
    api_version: str | None


class _Asked(NamedTuple):
    """What sort of client was asked for.

    Attributes:
        key: equal for clients that can share a core.
        chosen: the values of `_CHOICES`.
        config: the client's own.
    """

    key: Hashable
    chosen: tuple[Any, ...]
    config: Config | None

    def place(self, client: Any) -> Hashable:
        """Return where an account's retries are remembered: service, region and endpoint."""
        return (self.chosen[0], client.meta.region_name, self.chosen[2])


_CHOICES: Final = ("service_name", "region_name", "endpoint_url", "verify", "use_ssl", "api_version")


class _Flight:
    """A core that is being built, and those who wait for it."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: Exception | None = None


class ClientFactory:
    """Makes clients for one source: botocore's own, at the price of a method call once the first was made.

    All clients of it share loaded models, classes, endpoint rules and connections; no two accounts share anything
    that has to do with who they are. It does file and CPU work in one worker thread, so that no event loop waits.

    Args:
        max_connections: connections per endpoint host, however many accounts use them.
        session: whose configuration (profile, environment, events) counts; its credentials are not used. None: boto's
            default configuration.
        config: options for all clients; those of a single `bind` go before them.
        verify: a CA bundle's path, or False, for clients that do not say otherwise. None: as configured.
        clock: what retries are timed on.
        max_cores: how many cores are kept; beyond it the least recently used go that nobody has a lease of.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        session: AioSession | None = None,
        config: Config | None = None,
        verify: bool | str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        max_cores: int = _MAX_CORES,
    ) -> None:
        self._max_connections = max_connections
        self._given_session = session
        self._session: TemplateSession | None = None
        self._config = config
        self._verify = verify
        self._max_cores = max_cores
        self._factory_state = FactoryState()
        self._connections = Connections()
        self._states = RetryStates(clock)
        self._templates: OrderedDict[Hashable, ClientTemplate] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}
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
        """Return a client that signs as `identity`, in microseconds when its core exists.

        It can be used at once, inside and outside of `async with`, as long as the factory is open.

        Args:
            identity: who signs.
            service_name: as for `create_client`, `ec2`.
            region_name: None: the region that the session is configured with.
            isolated: build a client for this identity alone, which shares nothing but loaded models and connections.
            call_hook: stands around every API call.
            options: as for `create_client`.

        Raises:
            PoolClosed: the factory is closed.
            ConfigurationError: another event loop than the factory's is running.
            botocore's exceptions: an unknown service, no region, options that botocore refuses.
        """
        self._check_open()
        asked = self._asked(service_name, region_name, **options)
        if not isolated:
            template = self._templates.get(asked.key) or await self._template(asked)
            if template.unshared is None:
                return self._bind(asked.key, template, identity, call_hook)
        return await self._build_isolated(identity, asked, call_hook)

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
        """Return what `bind` would, without waiting; None if a core or a client had to be built for it."""
        self._check_open()
        key = self._asked(service_name, region_name, **options).key
        template = self._templates.get(key)
        if template is None or isolated or template.unshared is not None:
            return None
        return self._bind(key, template, identity, call_hook)

    async def warm(self, service_name: str, region_name: str | None = None, **options: Unpack[ClientOptions]) -> None:
        """Build a core ahead of its use, so that the first account does not wait for it.

        Raises:
            PoolClosed: the factory is closed.
            botocore's exceptions: as for `bind`.
        """
        self._check_open()
        await self._template(self._asked(service_name, region_name, **options))

    async def aclose(self) -> None:
        """Close every connection, also when cancelled; every client of the factory raises PoolClosed from now on."""
        self._factory_state.closed = True
        with anyio.CancelScope(shield=True):
            await self._connections.aclose()
        self._templates.clear()

    def statistics(self) -> ClientStatistics:
        """Return counters and gauges of this moment."""
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

    def _asked(
        self,
        service_name: str,
        region_name: str | None,
        *,
        endpoint_url: str | None = None,
        config: Config | None = None,
        verify: bool | str | None = None,
        use_ssl: bool = True,
        api_version: str | None = None,
    ) -> _Asked:
        verify = self._verify if verify is None else verify
        chosen = (service_name, region_name, endpoint_url, verify, use_ssl, api_version)
        return _Asked((chosen, config_key(config)), chosen, config)

    async def _template(self, asked: _Asked) -> ClientTemplate:
        while (template := self._templates.get(asked.key)) is None:
            flight = self._flights.get(asked.key)
            if flight is None:
                return await self._lead(asked)
            await flight.done.wait()
            if flight.error is not None:
                raise flight.error
            # Else it is there, or who built it was cancelled before it began, and this task is the next to try.
        return template

    async def _lead(self, asked: _Asked) -> ClientTemplate:
        flight = self._flights[asked.key] = _Flight()
        try:
            template: ClientTemplate = await self._in_thread(lambda: self._build_core(asked))
            self._built += 1
            self._evict()
            self._templates[asked.key] = template
        except Exception as error:
            flight.error = error
            raise
        else:
            return template
        finally:
            del self._flights[asked.key]
            flight.done.set()

    async def _in_thread(self, build: Callable[[], Any]) -> Any:
        built = await anyio.to_thread.run_sync(build, limiter=self._builder)
        self._check_open()
        return built

    def _build_core(self, asked: _Asked) -> ClientTemplate:
        session = self._open_session()
        client = self._build(session, asked)
        place = asked.place(client)
        return ClientTemplate(
            client, session, place, connections=self._connections, states=self._states, state=self._factory_state
        )

    async def _build_isolated(self, identity: Identity, asked: _Asked, call_hook: CallHook | None) -> Any:
        def build() -> Any:
            return self._build(self._open_session().signing_as(BoundCredentials(identity, self._factory_state)), asked)

        client = await self._in_thread(build)
        self._isolated += 1
        return isolate(
            client,
            identity,
            call_hook,
            retry_state=self._states.get((identity.key, asked.place(client))),
            connections=self._connections,
            state=self._factory_state,
            leases=self._isolated_leases,
        )

    def _build(self, session: TemplateSession, asked: _Asked) -> Any:
        options = dict(zip(_CHOICES, asked.chosen, strict=True))
        return session.build(options, self._max_connections, self._config, asked.config)

    def _open_session(self) -> TemplateSession:
        if self._session is None:
            self._session = TemplateSession.of(self._given_session)
        return self._session

    def _evict(self) -> None:
        """Make room for one more core. They hold nothing to be closed: the connections are the factory's."""
        excess = max(0, len(self._templates) + 1 - self._max_cores)
        for key in [key for key, template in self._templates.items() if not template.leases.count][:excess]:
            del self._templates[key]
            self._evicted += 1

    def _check_open(self) -> None:
        if self._factory_state.closed:
            raise PoolClosed("the pool is closed, and lends no clients any more")
        self._factory_state.check(None)
