"""Construction of botocore clients, as a template of others or isolated for one account."""

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
from asyncauth._clients.identity import PlaceholderCredentials
from asyncauth._clients.parsing.factory import fast_parser_factory
from asyncauth._clients.speedups.user_agent_cache import cache_user_agent
from asyncauth._clients.switches import SWITCHES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from botocore.config import Config
    from botocore.session import Session


class ModelCache:
    """botocore's loaded data files and the models made from them: 20 MiB for EC2 alone.

    All factories of the process that read the same directories share one cache, as long as one of them exists.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.models: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, loader: Loader) -> ModelCache:
        """Return the cache for the directories that `loader` reads."""
        if type(loader) is not Loader:  # a user's subclass may read other data from the same directories
            return cls(loader)
        paths = list(loader.search_paths)
        with _model_caches_lock:
            model_cache = _model_caches.get(tuple(paths))
            if model_cache is None:
                plain = Loader(extra_search_paths=paths, file_loader=PlainLoader(), include_default_search_paths=False)
                model_cache = _model_caches[tuple(paths)] = cls(plain)
            return model_cache


class PlainLoader(JSONFileLoader):
    """Loads botocore's data into plain dictionaries, which keep their order too.

    botocore's OrderedDicts take a third more memory, and twice the time to load and to traverse in a garbage
    collection: with EC2's model a full collection stops the process, event loop included, for 0.1 s.
    """

    def _load_file(self, full_path: str, open_method: Callable[..., Any]) -> Any:
        try:
            with open_method(full_path, "rb") as file:
                payload = file.read()
        except (FileNotFoundError, IsADirectoryError):
            return None
        return json.loads(payload.decode("utf-8"))


_model_caches: Final[WeakValueDictionary[Hashable, ModelCache]] = WeakValueDictionary()
_model_caches_lock: Final = threading.Lock()


class TemplateSession(AioSession):
    """Session that clients are built from: a user's session without its credentials.

    Changes to the user's session after the copy have no effect here. A bearer token found in the environment or in an
    SSO cache is not used: it would act as its owner in the calls of every account.
    """

    own_config: Config | None
    signs_as: Any = None
    _components: Any
    _create: Callable[..., Coroutine[Any, Any, Any]]
    _credentials: Any
    _events: Any
    _internal_components: Any

    @classmethod
    def of(cls, session: AioSession | None) -> TemplateSession:
        """Return a copy that is configured like `session`, which is not changed. None: like boto's default session."""
        made = cls._copy(AioSession() if session is None else session)
        made.own_config = getattr(session, "_client_config", None)
        made._credentials = None
        made._events = copy.copy(made._events)
        replace_handlers(made._events._emitter, _without_bearer)
        components = made._components = _copy_of_locator(made._components)
        components.register_component("event_emitter", made._events)
        # Tokens of STS's global endpoint, to which the setting `legacy` leads, are not valid in opt-in regions.
        config_store = copy.copy(components.get_component("config_store"))
        config_store.set_config_variable("sts_regional_endpoints", "regional")
        components.register_component("config_store", config_store)
        model_cache = ModelCache.of(components.get_component("data_loader"))
        components.register_component("data_loader", model_cache.loader)
        if SWITCHES.user_agent:
            creator = cache_user_agent(components.get_component("user_agent_creator"))
            components.register_component("user_agent_creator", creator)
        if type(components.get_component("response_parser_factory")) is AioResponseParserFactory:
            components.register_component("response_parser_factory", fast_parser_factory())
        made._internal_components = _copy_of_locator(made._internal_components)
        # Registered again, so that they find the loader in this session and not in the original one.
        made._register_endpoint_resolver()
        made._register_default_config_resolver()
        made._register_smart_defaults_factory()
        made._create = _create_with(AioSession._create_client, _creator_class(model_cache))
        return made

    def signing_as(self, credentials: Any) -> TemplateSession:
        """Return a copy of this session with the given credentials."""
        made = self._copy(self)
        made.signs_as = credentials
        return made

    @classmethod
    def _copy(cls, session: AioSession) -> TemplateSession:
        made = cls.__new__(cls)
        made.__dict__.update(session.__dict__)
        return made

    async def get_credentials(self) -> Any:
        """Return the credentials that clients sign with: the given ones, else placeholders, new for each template."""
        return self.signs_as or PlaceholderCredentials()

    def get_auth_token(self, **_: Any) -> Any:
        """Return no bearer token."""
        return None

    def get_default_client_config(self) -> Any:
        """Return None: `build` merges this config itself, because aiobotocore 2 would drop two of its own options."""
        return None

    def build(self, options: dict[str, Any], max_connections: int, *configs: Config | None) -> Any:
        """Build a client. Call it in a worker thread: it reads models from disk and takes up to a second.

        No part of the client is bound to the event loop that runs here, because no request is sent.
        """
        config: Any = client_config(self, max_connections, self.own_config, *configs)
        session_class = config.http_session_cls
        config.http_session_cls = shared_session_class(session_class)
        client = asyncio.run(self._create(self, config=config, **options))
        _restore_session_class(client.meta.config, session_class)
        _read_ahead(client)
        return client


def _read_ahead(client: Any) -> None:
    """Load the models of paginators and waiters, which a client would otherwise load at first use, on the event loop.

    The loader caches them by exactly these arguments.
    """
    model = client.meta.service_model
    for kind in ("paginators-1", "waiters-2"):
        with suppress(DataNotFoundError):  # some services have none
            client._loader.load_service_model(model.service_name, kind, model.api_version)


def _restore_session_class(config: Any, session_class: type[Any]) -> None:
    """Put the HTTP session class that the user chose back into a client's config.

    A user may pass the config to another client, which would never close a shared session.
    """
    config.http_session_cls = session_class
    if "http_session_cls" in config._user_provided_options:
        config._user_provided_options["http_session_cls"] = session_class


def _copy_of_locator(locator: Any) -> Any:
    made = type(locator)()
    made.__dict__.update({name: dict(value) for name, value in locator.__dict__.items()})
    return made


def refuse_bearer_tokens(session: Session) -> None:
    """Make the clients of a session sign with its credentials, even if the environment holds a bearer token."""
    replace_handlers(session._events._emitter, _without_bearer)


def _without_bearer(handler: Any) -> Any:
    if handler is not _set_auth_scheme_preference_signer:
        return handler

    def choose(**kwargs: Any) -> Any:
        chosen = handler(**kwargs)
        return None if chosen == "bearer" else chosen

    return choose


def _creator_class(model_cache: ModelCache) -> type[AioClientCreator]:
    """Return a client creator that makes a service's model and class once, not once per region.

    Two thirds of building a client is the creation of 800 methods that are the same in all regions. A parser compiled
    from a model's shapes serves all regions only if the regions share those shapes.
    """
    models = model_cache.models
    classes: dict[Hashable, Any] = {}

    class Creator(AioClientCreator):
        model_cache: ModelCache

        def _load_service_model(self, service_name: str, api_version: str | None = None) -> Any:
            key = (service_name, api_version)
            if key not in models:
                models[key] = super()._load_service_model(service_name, api_version)
            return models[key]

        async def _create_client_class(self, service_name: str, service_model: Any) -> Any:
            key = (service_name, id(service_model))
            if key not in classes:
                # The entry holds the model, so that its id cannot be reused.
                classes[key] = await super()._create_client_class(service_name, service_model), service_model
            return classes[key][0]

    # Keeps the model cache alive as long as the session that uses this creator.
    Creator.model_cache = model_cache
    return Creator


def _create_with(create: Any, creator: type[AioClientCreator]) -> Any:
    """Return aiobotocore's function that creates clients, with `creator` in the place of `AioClientCreator`.

    Any other way to replace the creator would have to copy the function's hundred lines.
    """
    plain = unwrap(create)
    if not isinstance(plain, types.FunctionType) or "AioClientCreator" not in plain.__code__.co_names:
        return create
    made = types.FunctionType(
        plain.__code__, plain.__globals__ | {"AioClientCreator": creator}, plain.__name__, plain.__defaults__
    )
    made.__kwdefaults__ = plain.__kwdefaults__
    return with_current_context()(made)
