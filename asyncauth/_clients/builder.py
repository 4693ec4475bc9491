"""How botocore is made to build a client that signs as nobody, for a core, or as one account, for an isolated one."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import types
from contextlib import suppress
from inspect import unwrap
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from aiobotocore.client import AioClientCreator
from aiobotocore.context import with_current_context
from aiobotocore.parsers import AioResponseParserFactory
from aiobotocore.session import AioSession
from botocore.exceptions import DataNotFoundError
from botocore.handlers import _set_auth_scheme_preference_signer
from botocore.loaders import JSONFileLoader, Loader

from asyncauth._clients.config import client_config
from asyncauth._clients.hooks.bound_events import replace_handlers
from asyncauth._clients.http import shared_session_class
from asyncauth._clients.identity import PLACEHOLDER_CREDENTIALS
from asyncauth._clients.parsing.factory import fast_parser_factory
from asyncauth._clients.speedups.user_agent_cache import cache_user_agent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from botocore.config import Config


class Library:
    """What was read of botocore's data, and the models made of it: 20 MiB for EC2 alone.

    Shared by all factories of the process that read the same directories, as long as one of them lives.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.models: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, loader: Loader) -> Library:
        """Return the library of the directories from which `loader` reads."""
        if type(loader) is not Loader:  # a user's own may read something else from the same place
            return cls(loader)
        paths = list(loader.search_paths)
        with _libraries_lock:
            library = _libraries.get(tuple(paths))
            if library is None:
                plain = Loader(extra_search_paths=paths, file_loader=PlainFiles(), include_default_search_paths=False)
                library = _libraries[tuple(paths)] = cls(plain)
            return library


class PlainFiles(JSONFileLoader):
    """Reads botocore's data into plain dictionaries, which keep their order too.

    botocore's ordered ones take a third more memory, and twice as long to be read and to be looked over by the garbage
    collector: with EC2's model a full collection stops the process, event loop included, for 0.1 s.
    """

    def _load_file(self, full_path: str, open_method: Callable[..., Any]) -> Any:
        try:
            with open_method(full_path, "rb") as file:
                payload = file.read()
        except (FileNotFoundError, IsADirectoryError):
            return None
        return json.loads(payload.decode("utf-8"))


_libraries: Final[WeakValueDictionary[Hashable, Library]] = WeakValueDictionary()
_libraries_lock: Final = threading.Lock()


class TemplateSession(AioSession):
    """The session that clients are built from: a user's, without its credentials.

    What a user registers on the own session later is not seen here. A bearer token that is found in the environment or
    in an SSO cache is not used: it would speak for its owner in every account's name.
    """

    own_config: Config | None
    signs_as: Any = PLACEHOLDER_CREDENTIALS
    _components: Any
    _create: Callable[..., Coroutine[Any, Any, Any]]
    _credentials: Any
    _events: Any
    _internal_components: Any

    @classmethod
    def of(cls, session: AioSession | None) -> TemplateSession:
        """Return one that is configured like `session`, which stays as it is; None: like boto's default."""
        made = cls._copy(AioSession() if session is None else session)
        made.own_config = getattr(session, "_client_config", None)
        made._credentials = None
        made._events = copy.copy(made._events)
        replace_handlers(made._events._emitter, _without_bearer)
        components = made._components = _copy_of_locator(made._components)
        components.register_component("event_emitter", made._events)
        library = Library.of(components.get_component("data_loader"))
        components.register_component("data_loader", library.loader)
        creator = cache_user_agent(components.get_component("user_agent_creator"))
        components.register_component("user_agent_creator", creator)
        if type(components.get_component("response_parser_factory")) is AioResponseParserFactory:
            components.register_component("response_parser_factory", fast_parser_factory())
        made._internal_components = _copy_of_locator(made._internal_components)
        # Registered again so that they look for the library in this session, and not in the one that it copies.
        made._register_endpoint_resolver()
        made._register_default_config_resolver()
        made._register_smart_defaults_factory()
        made._create = _creating(AioSession._create_client, _creator(library))
        return made

    def signing_as(self, credentials: Any) -> TemplateSession:
        """Return the same session with credentials."""
        made = self._copy(self)
        made.signs_as = credentials
        return made

    @classmethod
    def _copy(cls, session: AioSession) -> TemplateSession:
        made = cls.__new__(cls)
        made.__dict__.update(session.__dict__)
        return made

    async def get_credentials(self) -> Any:
        """Return what clients sign with."""
        return self.signs_as

    def get_auth_token(self, **_: Any) -> Any:
        """Return no bearer token."""
        return None

    def get_default_client_config(self) -> Any:
        """Return None: it is merged in before, where aiobotocore 2 would drop two of its own options."""
        return None

    def build(self, options: dict[str, Any], max_connections: int, *configs: Config | None) -> Any:
        """Build a client. For a worker thread: it reads models, and takes its time.

        Nothing of the client is bound to the event loop that runs it here, for nothing is sent.
        """
        config: Any = client_config(self, max_connections, self.own_config, *configs)
        config.http_session_cls = shared_session_class(config.http_session_cls)
        client = asyncio.run(self._create(self, config=config, **options))
        _read_ahead(client)
        return client


def _read_ahead(client: Any) -> None:
    """Read the models of paginators and waiters, which a client else reads where the first is asked for: on the loop.

    The loader remembers them by these very arguments.
    """
    model = client.meta.service_model
    for kind in ("paginators-1", "waiters-2"):
        with suppress(DataNotFoundError):  # not every service has them
            client._loader.load_service_model(model.service_name, kind, model.api_version)


def _copy_of_locator(locator: Any) -> Any:
    made = type(locator)()
    made.__dict__.update({name: dict(value) for name, value in locator.__dict__.items()})
    return made


def _without_bearer(handler: Any) -> Any:
    if handler is not _set_auth_scheme_preference_signer:
        return handler

    def choose(**kwargs: Any) -> Any:
        chosen = handler(**kwargs)
        return None if chosen == "bearer" else chosen

    return choose


def _creator(library: Library) -> type[AioClientCreator]:
    """Return a client creator that makes a service's model and class once, not once per region.

    Two thirds of building a client is making 800 methods again that are the same everywhere; and parsers that were
    compiled from a model's shapes serve all regions only if they have the same shapes.
    """
    models = library.models
    classes: dict[Hashable, Any] = {}

    class Creator(AioClientCreator):
        library: Library

        def _load_service_model(self, service_name: str, api_version: str | None = None) -> Any:
            key = (service_name, api_version)
            if key not in models:
                models[key] = super()._load_service_model(service_name, api_version)
            return models[key]

        async def _create_client_class(self, service_name: str, service_model: Any) -> Any:
            key = (service_name, id(service_model))
            if key not in classes:
                # With the model, so that its id stays its own.
                classes[key] = await super()._create_client_class(service_name, service_model), service_model
            return classes[key][0]

    # The library lives as long as the session whose creator this is.
    Creator.library = library
    return Creator


def _creating(create: Any, creator: type[AioClientCreator]) -> Any:
    """Return aiobotocore's function that creates clients, with `creator` where its module says AioClientCreator.

    It is the one way to another creator that copies none of its hundred lines.
    """
    plain = unwrap(create)
    if not isinstance(plain, types.FunctionType) or "AioClientCreator" not in plain.__code__.co_names:
        return create
    made = types.FunctionType(
        plain.__code__, plain.__globals__ | {"AioClientCreator": creator}, plain.__name__, plain.__defaults__
    )
    made.__kwdefaults__ = plain.__kwdefaults__
    return with_current_context()(made)
