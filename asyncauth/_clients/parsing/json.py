"""JSON and CBOR bodies: converted into botocore's dictionaries by closures compiled from an operation's output shape.

The decoders return plain values. The closures keep the members that the model has, and convert those that differ from
their wire form (timestamps, blobs). A shape without any conversion has no closure (`None`): the decoded value is the
result.

A value of a kind that the model does not allow raises an exception, and botocore's parser reads the body instead.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from asyncauth._clients.parsing.xml import GiveUp, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    Convert = Callable[[Any], Any]

__all__ = ["CBORCompiler", "JSONCompiler", "RestJSONCompiler", "decode_cbor", "decode_json"]


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

    _null_structures_agree = True  # whether every supported botocore parses a null structure as None

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
            (name, self._wire_name(name, member), self._value(member) if self._in_body(member) else _give_up)
            for name, member in shape.members.items()
        ]

    def _wire_name(self, name: str, shape: Any) -> str:
        return str(shape.serialization.get("name", name))

    def _in_body(self, shape: Any) -> bool:
        return "location" not in shape.serialization

    def _value(self, shape: Any) -> Convert | None:
        kind = shape.type_name
        if kind == "structure":
            convert: Convert | None = self.structure(shape)
            return convert
        if kind == "list":
            nulls = self._null_structures_agree and shape.member.type_name == "structure"
            return _sequence(self._value(shape.member), nulls=nulls)
        if kind == "map":
            return self._map(shape)
        return self._converts.get(kind)

    def _map(self, shape: Any) -> Convert | None:
        if shape.key.type_name != "string":
            raise Unsupported
        return _mapping(self._value(shape.value))


class RestJSONCompiler(JSONCompiler):
    """Compiles output shapes for the rest-json protocol, which converts numbers and booleans too."""

    def __init__(self, timestamp: Convert, blob: Convert) -> None:
        super().__init__(timestamp, blob)
        self._converts.update(boolean=_boolean, integer=int, long=int, float=float, double=float)


class CBORCompiler(JSONCompiler):
    """Compiles output shapes for the smithy-rpc-v2-cbor protocol, whose decoder handles timestamps and blobs itself."""

    _null_structures_agree = False

    def __init__(self) -> None:
        super().__init__(_give_up, _give_up)
        self._converts.clear()

    def structure(self, shape: Any) -> Any:
        """Compile a structure. In contrast to JSON, botocore's CBOR parser has no special case for documents.

        Raises:
            Unsupported: the shape is not a structure, or it is a union or a document, which botocore's CBOR parser
                reads in its own way.
        """
        if shape.type_name == "structure" and (shape.is_document_type or shape.is_tagged_union):
            raise Unsupported
        return super().structure(shape)

    def _wire_name(self, name: str, shape: Any) -> str:
        return name

    def _in_body(self, shape: Any) -> bool:
        return True

    def _map(self, shape: Any) -> Convert | None:
        return None


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


_LENGTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}
_FLOATS = {25: (struct.Struct(">e"), 2), 26: (struct.Struct(">f"), 4), 27: (struct.Struct(">d"), 8)}
_INDEFINITE = 31
_BREAK = 0xFF


def decode_cbor(body: bytes, timestamp: Convert) -> Any:
    """Decode the first CBOR item of a body, with tag 1 as a timestamp and null members left out.

    Raises:
        GiveUp: a tag, an extension or an indefinite string, which AWS does not send.
        Exception: a truncated item, or text that is not UTF-8; the caller must give up then as well.
    """
    return _Decoder(body, timestamp).item()


class _Decoder:
    __slots__ = ("_at", "_data", "_timestamp")

    def __init__(self, data: bytes, timestamp: Convert) -> None:
        self._data = data
        self._at = 0
        self._timestamp = timestamp

    def item(self) -> Any:
        initial = self._data[self._at]
        self._at += 1
        major, info = initial >> 5, initial & 0b11111
        if major == 3:
            return self._take(self._number(info)).decode()
        if major == 0:
            return self._number(info)
        if major == 7:
            return self._simple(info)
        if major == 5:
            return self._map(info)
        if major == 4:
            return self._array(info)
        if major == 6:
            return self._tagged(info)
        if major == 2:
            return self._take(self._number(info))
        return -1 - self._number(info)

    def _take(self, length: int) -> bytes:
        end = self._at + length
        taken = self._data[self._at : end]
        if len(taken) != length:
            raise GiveUp
        self._at = end
        return taken

    def _number(self, info: int) -> int:
        if info < 24:
            return info
        length = _LENGTHS.get(info)
        if length is None:
            raise GiveUp
        return int.from_bytes(self._take(length), "big")

    def _simple(self, info: int) -> Any:
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info not in _FLOATS:
            raise GiveUp
        form, length = _FLOATS[info]
        return form.unpack(self._take(length))[0]

    def _tagged(self, info: int) -> Any:
        if self._number(info) != 1:
            raise GiveUp
        value = self.item()
        if not isinstance(value, int | float):
            raise GiveUp
        return self._timestamp(value)

    def _array(self, info: int) -> list[Any]:
        if info != _INDEFINITE:
            return [self.item() for _ in range(self._number(info))]
        items = []
        while not self._at_break():
            items.append(self.item())
        return items

    def _map(self, info: int) -> dict[Any, Any]:
        items: dict[Any, Any] = {}
        if info != _INDEFINITE:
            for _ in range(self._number(info)):
                self._pair(items)
            return items
        while not self._at_break():
            self._pair(items)
        return items

    def _pair(self, items: dict[Any, Any]) -> None:
        key = self.item()
        value = self.item()
        if value is not None:
            items[key] = value

    def _at_break(self) -> bool:
        if self._data[self._at] != _BREAK:
            return False
        self._at += 1
        return True
