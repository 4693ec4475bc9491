"""Reachability between objects: finds handlers that hold a client or its credentials."""

from __future__ import annotations

import types
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.client import AioClientCreator
from botocore.config import Config
from botocore.endpoint_provider import EndpointProvider
from botocore.errorfactory import BaseClientExceptions, ClientExceptionsFactory
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import ResponseParser, ResponseParserFactory
from botocore.regions import BaseEndpointResolver
from botocore.serialize import Serializer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

#: Large objects that are made from models and options alone, or from the session, which all clients share in botocore.
_INERT: Final = (
    AioClientCreator,
    BaseClientExceptions,
    BaseEndpointResolver,
    ClientExceptionsFactory,
    Config,
    EndpointProvider,
    Loader,
    OperationModel,
    ResponseParser,
    ResponseParserFactory,
    Serializer,
    ServiceModel,
    Shape,
    type,
    types.ModuleType,
    str,
    bytes,
    int,
    float,
    type(None),
)

#: Ten times more than any current client has. Beyond it the result is "reachable", which is the safe answer.
_MAX_OBJECTS: Final = 20_000


def find_reachable(starts: Iterable[Any], targets: Collection[Any]) -> Any:
    """Return the first of `targets` that is reachable from `starts`, None if none is.

    The search follows attributes, containers, closures, defaults, partials, bound methods and weak references. It does
    not follow globals, classes, and botocore's objects made from models, options or the session. Beyond the limit of
    objects it returns the first target, because it cannot exclude that this target is reachable.
    """
    wanted = {id(target): target for target in targets}
    seen: dict[int, Any] = {}  # keeps the objects alive: an id is valid only as long as its object
    queue = deque(starts)
    while queue:
        value = _dereferenced(queue.popleft())
        if id(value) in wanted:
            return value
        if isinstance(value, _INERT) or id(value) in seen:
            continue
        seen[id(value)] = value
        if len(seen) > _MAX_OBJECTS:
            return next(iter(targets))
        queue.extend(_referents(value))
    return None


def _dereferenced(value: Any) -> Any:
    if type(value) in weakref.ProxyTypes:
        try:
            # A proxy forwards every attribute access, so this method is bound to the object behind it.
            return value.__repr__.__self__
        except ReferenceError:
            return None
    return value


def _referents(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, types.MappingProxyType)):
        for pair in _snapshot(value.items):
            yield from pair
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from _snapshot(value.__iter__)
    elif isinstance(value, types.MethodType):
        yield value.__self__
        yield value.__func__
    elif isinstance(value, types.BuiltinMethodType):
        yield value.__self__
    elif isinstance(value, (staticmethod, classmethod)):
        yield value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, partial):
        yield value.func
        yield value.args
        yield value.keywords
    elif isinstance(value, weakref.ref):
        yield value()
    yield from _attributes(value)


def _snapshot(iterate: Callable[[], Iterable[Any]]) -> list[Any]:
    """Return the items of a container, which the event loop may change meanwhile: the search runs in a thread."""
    while True:
        try:
            return list(iterate())
        except RuntimeError:
            continue


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # an empty cell
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def _attributes(value: Any) -> Iterator[Any]:
    yield from _snapshot(getattr(value, "__dict__", {}).values)
    for cls in type(value).__mro__:
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in {"__dict__", "__weakref__"}:
                yield getattr(value, name, None)
