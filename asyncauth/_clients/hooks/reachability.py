"""Whether one object leads to another: how a handler is found out that holds on to a client or its credentials."""

from __future__ import annotations

import types
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

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

#: Made from models and options alone, and large.
_INERT: Final = (
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

#: More than any client of today has by a factor of ten; beyond it the answer is the careful one.
_MAX_OBJECTS: Final = 20_000


def find_reachable(starts: Iterable[Any], targets: Collection[Any]) -> Any:
    """Return the first of `targets` that `starts` lead to, None if they lead to none.

    Followed are attributes, containers, closures, defaults, partials, bound methods and weak references; not followed
    are globals, classes, and what botocore makes of models and options. When there is too much to look at, the first
    target is returned: who cannot be shown to be free of it is not.
    """
    wanted = {id(target): target for target in targets}
    seen: dict[int, Any] = {}  # keeps what it has seen alive: an id is good only as long as its object
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
            # A proxy passes every look-up on, so this is bound to what it stands for.
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
    """Return what a container holds at one moment; the event loop may change it meanwhile, this runs in a thread."""
    while True:
        try:
            return list(iterate())
        except RuntimeError:
            continue


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
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
