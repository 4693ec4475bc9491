"""JSON bodies: converted into botocore's dictionaries by closures compiled from an operation's output shape.

The decoder returns plain values. The closures keep the members that the model has, and convert those that differ from
their wire form (timestamps, blobs). A shape without any conversion has no closure (`None`): the decoded value is the
result.

A value of a kind that the model does not allow raises an exception, and botocore's parser reads the body instead.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from asyncauth._clients.parsing.xml import GiveUp, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    Convert = Callable[[Any], Any]

__all__ = ["JSONCompiler", "RestJSONCompiler", "decode_json"]


_OBJECTS_PER_SLICE = 1000


def decode_json(body: bytes, yield_gil: Callable[[], None] | None = None) -> Any:
    """Decode a JSON body as botocore does; an empty body is an empty object.

    Args:
        body: the whole document.
        yield_gil: called after every thousandth object; without it the decoder would hold the interpreter's lock from
            the first byte to the last. None for a short body.

    Raises:
        ValueError: the body is not JSON (botocore uses it as a message then).
    """
    if not body:
        return {}
    return json.loads(body.decode(), object_hook=None if yield_gil is None else _yielding_hook(yield_gil))


def _yielding_hook(yield_gil: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    seen = 0

    def hook(value: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        if not seen % _OBJECTS_PER_SLICE:
            yield_gil()
        return value

    return hook


class JSONCompiler:
    """Compiles output shapes for the json protocol.

    Args:
        timestamp: parses a timestamp's text or number.
        blob: parses a blob's text.
    """

    def __init__(self, timestamp: Convert, blob: Convert) -> None:
        self._structures: dict[str, Any] = {}
        self._converts: dict[str, Convert] = {"timestamp": timestamp, "blob": blob}

    def structure(self, shape: Any) -> Any:
        """Compile a structure; None if botocore returns the decoded value unchanged.

        Raises:
            Unsupported: the shape is not a structure.
        """
        if shape.type_name != "structure":
            raise Unsupported
        if shape.is_document_type:
            return None
        if shape.name not in self._structures:
            self._structures[shape.name] = _structure(lambda: self._members(shape), union=bool(shape.is_tagged_union))
        return self._structures[shape.name]

    def _members(self, shape: Any) -> list[tuple[str, str, Convert | None]]:
        return [
            (
                name,
                str(member.serialization.get("name", name)),
                _give_up if "location" in member.serialization else self._value(member),
            )
            for name, member in shape.members.items()
        ]

    def _value(self, shape: Any) -> Convert | None:
        kind = shape.type_name
        if kind == "structure":
            convert: Convert | None = self.structure(shape)
            return convert
        if kind == "list":
            return _sequence(self._value(shape.member), nulls=shape.member.type_name == "structure")
        if kind == "map":
            if shape.key.type_name != "string":
                raise Unsupported
            return _mapping(self._value(shape.value))
        return self._converts.get(kind)


class RestJSONCompiler(JSONCompiler):
    """Compiles output shapes for the rest-json protocol, which converts numbers and booleans too."""

    def __init__(self, timestamp: Convert, blob: Convert) -> None:
        super().__init__(timestamp, blob)
        self._converts.update(boolean=_boolean, integer=int, long=int, float=float, double=float)


def _structure(members: Callable[[], list[tuple[str, str, Convert | None]]], *, union: bool) -> Convert:
    fields: list[tuple[str, str, Convert | None]] = []
    by_wire: dict[str, tuple[str, Convert | None]] = {}
    waiting = True  # compiled at first use: a model's shapes form a large graph, of which a response uses little

    def choose(value: Any) -> Any:
        ((wire, raw),) = value.items()
        if raw is None:
            raise GiveUp
        name, convert = by_wire[wire]
        return {name: raw if convert is None else convert(raw)}

    def parse(value: Any) -> Any:
        nonlocal waiting
        if value is None:
            return None
        if waiting:
            fresh = members()
            by_wire.update({wire: (name, convert) for name, wire, convert in fresh})
            if union and len(by_wire) < len(fresh):
                raise Unsupported  # two members with one name
            fields[:] = fresh
            waiting = False
        if union:
            return choose(value)
        parsed = {}
        get = value.get
        for name, wire, convert in fields:
            raw = get(wire)
            if raw is not None:
                parsed[name] = raw if convert is None else convert(raw)
        return parsed

    return parse


def _sequence(convert: Convert | None, *, nulls: bool) -> Convert:
    if convert is None:
        return _list_as_it_is

    def parse(value: Any) -> list[Any]:
        # A null item is None in newer botocore; older botocore passes it to the item's parser.
        if not nulls and None in value:
            raise GiveUp
        return [convert(item) for item in value]

    return parse


def _list_as_it_is(value: Any) -> list[Any]:
    if type(value) is not list:
        raise GiveUp
    return value


def _mapping(convert: Convert | None) -> Convert:
    if convert is None:
        return _dict_as_it_is

    def parse(value: Any) -> dict[str, Any]:
        return {key: convert(item) for key, item in value.items()}

    return parse


def _dict_as_it_is(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise GiveUp
    return value


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise GiveUp


def _give_up(value: Any) -> Any:
    raise GiveUp
