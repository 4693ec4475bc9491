"""HTTP sessions shared by all clients of a factory. Only the factory closes them; TLS contexts are built in threads."""

from __future__ import annotations

import ssl
import threading
from http.cookiejar import DefaultCookiePolicy
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakSet, WeakValueDictionary

import aiohttp
import anyio
import anyio.to_thread
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import BotoCoreError
from botocore.httpsession import ProxyConfiguration, get_cert_path

from asyncauth._aws.transport_errors import strip_request
from asyncauth._clients.config import freeze
from asyncauth._clients.connection_reuse import check_aiohttp_connections, check_httpcore_connections
from asyncauth._errors import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

#: One context for all sessions with equal settings, as long as one of them exists: 23 ms and 0.7 MiB each.
_contexts: Final[WeakValueDictionary[Hashable, ssl.SSLContext]] = WeakValueDictionary()
_contexts_lock: Final = threading.Lock()

_classes: Final[dict[type, type[Any]]] = {}

#: Cookies would carry one account's state into the requests of another. No AWS API needs them, but a load balancer or a
#: gateway in between may set them.
_NO_COOKIES: Final = DefaultCookiePolicy(allowed_domains=[])

#: aiobotocore 3.9 builds TLS contexts in a thread and checks host names; earlier versions lack one or both.
_BUILDS_IN_THREAD: Final = hasattr(AIOHTTPSession, "_build_ssl_contexts")


class SharedSession:
    """Mixin for aiobotocore's HTTP sessions: clients can neither open nor close a session that others use.

    The session opens at its first request, on the event loop that sends it.
    """

    key: Hashable
    _closed: bool
    _active: bool
    _opening: anyio.Lock | None

    def __init__(self, **arguments: Any) -> None:
        self.key = (type(self), freeze(arguments))
        self._closed = self._active = False
        self._opening = None
        self._bodies: WeakSet[Any] = WeakSet()
        self._prepared: dict[int, Any] = {}
        super().__init__(**self._adapt(arguments))
        proxies: Any = getattr(self, "_proxy_config", None)
        if type(proxies) is ProxyConfiguration and not proxies._proxies:
            self._proxy_config = _NoProxies(proxies_settings=proxies.settings)

    @staticmethod
    def _adapt(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def close(self) -> None:
        """Do nothing: another account's client may be using the session."""

    async def send(self, request: Any) -> Any:
        """Send a request and return the response."""
        if not self._active:
            await self._open()
        try:
            response = await super().send(request)  # type: ignore[misc]  # the other base is aiobotocore's
        except BotoCoreError as error:
            strip_request(error)
            raise
        if request.stream_output and isinstance(response.raw, aiohttp.ClientResponse):
            self._bodies.add(response.raw)
        return response

    async def close_connections(self) -> None:
        """Close every connection. Later requests raise PoolClosed."""
        self._closed = True
        for body in self._bodies:
            if not body.content.is_eof():
                body.content.set_exception(PoolClosed("the pool was closed before this body was read to its end"))
            body.close()
        self._prepared.clear()
        if self._active:
            self._active = False
            await super().__aexit__(None, None, None)  # type: ignore[misc]

    async def _open(self) -> None:
        if self._opening is None:
            # Not in `__init__`, which runs in a thread with an event loop of its own.
            self._opening = anyio.Lock()
        async with self._opening:
            if self._closed:
                raise PoolClosed("the pool is closed, and its connections with it")
            if not self._active:
                await super().__aenter__()  # type: ignore[misc]
                # aiobotocore 2's httpx transport makes its client here, the others in `_get_session`.
                if (client := getattr(self, "_session", None)) is not None:
                    _prepare_httpx(client)
                self._active = True

    async def _get_session(self, where: str | None) -> Any:
        client = await super()._get_session(where)  # type: ignore[misc]
        prepared = self._prepared.get(id(client))
        if prepared is None:
            prepare = _prepare_aiohttp if isinstance(client, aiohttp.ClientSession) else _prepare_httpx
            prepared = self._prepared[id(client)] = prepare(client)
        return prepared


class _NoProxies(ProxyConfiguration):
    """botocore's proxy configuration without proxies: returns that result without parsing each URL."""

    def proxy_url_for(self, url: str) -> None:
        """Return None, for a direct connection."""

    def proxy_headers_for(self, proxy_url: str) -> dict[str, str]:
        """Return no headers."""
        return {}


def _prepare_aiohttp(client: aiohttp.ClientSession) -> Any:
    """Make an aiohttp client safe for sharing between accounts, and return its restricted form."""
    if not isinstance(client.cookie_jar, aiohttp.DummyCookieJar):
        client._cookie_jar = aiohttp.DummyCookieJar()
    if client.connector is not None:
        check_aiohttp_connections(client.connector)
    return _NoRedirects(client)


def _prepare_httpx(client: Any) -> Any:
    """Make an httpx client safe for sharing between accounts, and return it."""
    client.cookies.jar.set_policy(_NO_COOKIES)
    client.follow_redirects = False
    for transport in (client._transport, *client._mounts.values()):
        if (pool := getattr(transport, "_pool", None)) is not None:
            check_httpcore_connections(pool)
    return client


class _NoRedirects:
    """aiohttp client that returns a redirect as the response, as botocore's own transport does.

    aiohttp would send the request again, with the session token, to any host that the response names, also unencrypted.
    """

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Send a request."""
        return self._client.request(*arguments, **(options | {"allow_redirects": False}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class _SharedAiohttpSession(SharedSession, AIOHTTPSession):
    """aiobotocore's default transport, with a limit of connections per endpoint host."""

    @staticmethod
    def _adapt(arguments: dict[str, Any]) -> dict[str, Any]:
        # aiohttp's `limit` counts all hosts together: a thousand accounts in one region would block another region.
        connector_args = {"limit_per_host": arguments.get("max_pool_connections") or 0}
        connector_args |= arguments.get("connector_args") or {}
        return arguments | {"max_pool_connections": 0, "connector_args": connector_args}


if _BUILDS_IN_THREAD:

    class SharedAiohttpSession(_SharedAiohttpSession):
        """Default transport, on aiobotocore 3.9 and later."""

        def _build_ssl_contexts(self, proxy_url: str | None) -> tuple[ssl.SSLContext, ssl.SSLContext | None]:
            def build() -> tuple[ssl.SSLContext, ssl.SSLContext | None]:
                endpoint, proxy = super(SharedAiohttpSession, self)._build_ssl_contexts(proxy_url)
                return endpoint, proxy

            if proxy_url is not None:  # proxies have many settings and few users, so these contexts are not shared
                return build()
            return _context((self._verify, self._cert_file, self._key_file), lambda: build()[0]), None

else:

    class SharedAiohttpSession(_SharedAiohttpSession):  # type: ignore[no-redef]
        """Default transport, on aiobotocore before 3.9.

        It builds TLS contexts in a thread, checks host names, and verifies certificates behind a proxy too.
        """

        _built_contexts: dict[str | None, ssl.SSLContext]

        async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
            if proxy_url not in self._sessions:
                assert self._opening is not None
                async with self._opening:
                    if not hasattr(self, "_ready"):
                        self._built_contexts = {}
                    if proxy_url not in self._built_contexts:
                        self._built_contexts[proxy_url] = await anyio.to_thread.run_sync(self._build, proxy_url)
                    if self._closed:
                        raise PoolClosed("the pool is closed, and its connections with it")
            session: aiohttp.ClientSession = await super()._get_session(proxy_url)
            return session

        def _connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
            return aiohttp.TCPConnector(
                limit=self._max_pool_connections, ssl=self._built_contexts[proxy_url], **self._connector_args
            )

        if iscoroutinefunction(AIOHTTPSession._create_connector):

            async def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
                return self._connector(proxy_url)

        else:
            _create_connector = _connector  # type: ignore[assignment]  # not a coroutine function in these versions

        def _build(self, proxy_url: str | None) -> ssl.SSLContext:
            if proxy_url is None:
                return _context((self._verify, self._cert_file, self._key_file), self._build_context)
            return self._build_context(proxy_url)

        def _build_context(self, proxy_url: str | None = None) -> ssl.SSLContext:
            context: ssl.SSLContext | None = None
            if proxy_url is not None:
                context = self._setup_proxy_ssl_context(proxy_url)
            if context is None:
                context = self._get_ssl_context()
            assert context is not None
            if self._verify:
                context.check_hostname = True
                if bundle := get_cert_path(self._verify):
                    context.load_verify_locations(bundle)
            else:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self._cert_file:
                context.load_cert_chain(self._cert_file, self._key_file)
            return context


def _context(settings: Hashable, build: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    with _contexts_lock:
        context = _contexts.get(settings)
        if context is None:
            context = _contexts[settings] = build()
        return context


def shared_session_class(base: type[Any]) -> type[Any]:
    """Return the shared form of `base`: aiobotocore's aiohttp or httpx session, or a user's own class."""
    if issubclass(base, SharedSession):
        return base
    if base is AIOHTTPSession:
        return SharedAiohttpSession
    made = _classes.get(base)
    if made is None:
        parents = (_SharedAiohttpSession, base) if issubclass(base, AIOHTTPSession) else (SharedSession, base)
        made = _classes[base] = type(base.__name__, parents, {"__module__": base.__module__})
    return made


class Connections:
    """HTTP sessions of one factory: one for each distinct set of TLS, proxy, timeout and connector settings."""

    def __init__(self) -> None:
        self._sessions: dict[Hashable, SharedSession] = {}

    def adopt(self, session: SharedSession) -> SharedSession:
        """Return the existing session with the same settings, else register and return `session`."""
        return self._sessions.setdefault(session.key, session)

    async def aclose(self) -> None:
        """Close every connection of every session, then raise the first error if there was one."""
        errors: list[Exception] = []
        for session in list(self._sessions.values()):  # a thread may be adding a session
            try:
                await session.close_connections()
            except Exception as error:  # noqa: BLE001  # the others must be closed too
                errors.append(error)
        if errors:
            raise errors[0]
