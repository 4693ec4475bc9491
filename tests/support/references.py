"""Objects that are reachable from another one: a walk along the references that the garbage collector knows."""

from __future__ import annotations

import gc
import types
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Shared by the whole process: through them, everything is reachable from anything.
_SHARED = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


def reachable(roots: Iterable[object], *, ends: Callable[[object], bool] = lambda _: False) -> Iterator[object]:
    """Yield `roots` and every object that they reference, once each.

    Classes, modules, functions and their globals are left out, but not a function's closure and its defaults.

    Args:
        roots: where the walk begins.
        ends: whether the walk leaves out an object, and what only it references.
    """
    todo: deque[Any] = deque(roots)
    seen: dict[int, object] = {}  # keeps the objects, since an id belongs to another object later
    while todo:
        each = todo.popleft()
        if id(each) in seen or ends(each):
            continue
        seen[id(each)] = each
        yield each
        todo.extend(_references(each))


def _references(each: object) -> Iterator[object]:
    if isinstance(each, types.FunctionType):
        yield from (each.__closure__, each.__defaults__, each.__kwdefaults__)
        return
    if isinstance(each, _SHARED) or (type(each) is dict and "__builtins__" in each):
        return
    yield from gc.get_referents(each)
