"""Cheap copies of an object: a generated class holds what all share, a copy only its own attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


def copy_class(
    original: Any,
    *,
    own: AbstractSet[str],
    shared: AbstractSet[str],
    extra: dict[str, Any] | None = None,
    mixin: type | None = None,
) -> type[Any]:
    """Return a subclass of the class of `original`, of the same name, with the shared attributes as class attributes.

    `object.__new__` of it is a copy of `original` without the attributes in `own`; the caller must set those.

    Args:
        original: the object to copy.
        own: names of the attributes that each copy has for itself.
        shared: names of the attributes that copies may share.
        extra: further attributes for the class; None for none.
        mixin: a base whose methods override those of the original's class; None for none.

    Raises:
        ValueError: `original` has an attribute in neither set, so it is unknown whether copies may share it.
    """
    kind = type(original)
    unexpected = vars(original).keys() - own - shared
    if unexpected:
        raise ValueError(f"{kind.__module__}.{kind.__qualname__} has unknown state: {', '.join(sorted(unexpected))}")
    namespace = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    namespace |= {name: as_class_attribute(value) for name, value in vars(original).items() if name not in own}
    return type(kind.__name__, (kind,) if mixin is None else (mixin, kind), namespace | (extra or {}))


def as_class_attribute(value: Any) -> Any:
    """Return an object that an instance sees as `value` when it is a class attribute.

    A function would become a method; a static method returns the wrapped object itself, whatever its type.
    """
    return staticmethod(value) if hasattr(type(value), "__get__") else value
