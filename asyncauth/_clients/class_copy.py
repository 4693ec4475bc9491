"""Cheap copies of an object: a class made once carries what all copies share, so each holds only what is its own."""

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
    """Return a subclass of the class of `original`, of the same name, that has its attributes as class attributes.

    `object.__new__` of it is a copy of `original` that lacks the attributes in `own`; they are the caller's to set.

    Args:
        original: what is copied.
        own: the attributes that each copy has for itself.
        shared: the attributes that may be shared between copies.
        extra: more for the class.
        mixin: a base whose methods go before those of the original's class.

    Raises:
        ValueError: it has an attribute that is in neither set: whom that belongs to is not known.
    """
    kind = type(original)
    unexpected = vars(original).keys() - own - shared
    if unexpected:
        raise ValueError(f"{kind.__module__}.{kind.__qualname__} has unknown state: {', '.join(sorted(unexpected))}")
    namespace = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    namespace |= {name: as_class_attribute(value) for name, value in vars(original).items() if name not in own}
    return type(kind.__name__, (kind,) if mixin is None else (mixin, kind), namespace | (extra or {}))


def as_class_attribute(value: Any) -> Any:
    """Return what an instance sees as `value` when it is put into its class.

    A function would turn into a method; a static method gives back what it was made of, whatever that is.
    """
    return staticmethod(value) if hasattr(type(value), "__get__") else value
