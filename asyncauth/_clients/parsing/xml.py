"""XML bodies, parsed by closures compiled from an operation's output shape, without a tree in between.

The parser accepts the subset of XML that AWS sends: one declaration, one `xmlns` on the root, plain elements, text with
references. Anything else in a body (attributes, comments, CDATA, prefixes, a stray `]]>`, a control character, a
repeated or truncated element) raises `GiveUp`, and botocore's parser reads the body from the start. So this module
never decides what unusual input means; it only has to detect it.

The detection is cheap because it runs in C. When all characters except the special ones are deleted from a slice,
`<><><>` must remain; splitting at both brackets then gives tag, text, tag, text, and the closures only compare strings.
Malformed nesting appears there as a tag that is neither known nor the expected closing tag.
"""

from __future__ import annotations

import re
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Tokens = Iterator[tuple[str, str]]  # each tag without its brackets, and the text up to the next tag
    Convert = Callable[[str], Any] | None  # a scalar's conversion; None: the text is the value
    Node = Callable[[Tokens, str], Any]  # reads an element's children, up to and including the given closing tag

__all__ = ["GiveUp", "Unsupported", "XMLCompiler", "parse_document", "tokenize"]


class GiveUp(Exception):
    """botocore's parser must read this body."""


class Unsupported(Exception):
    """botocore's parser must read all bodies of this shape."""


# Small enough that the C calls on one slice hold the interpreter's lock for well under a millisecond.
_SLICE_BYTES = 64 * 1024
_SPECIAL = bytes(code for code in range(0x20) if code not in (0x09, 0x0A)) + b"<>&"
_ORDINARY = bytes(code for code in range(0x100) if code not in _SPECIAL)
_SPACE = " \t\n"
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII).fullmatch
_EMPTY = re.compile(r"[A-Za-z_][\w.-]* ?/", re.ASCII).fullmatch
_DECLARATION = re.compile(
    r"""\?xml version=(?:"1\.0"|'1\.0')(?: encoding=(?:"(?i:utf-8)"|'(?i:utf-8)'))?"""
    r"""(?: standalone=(?:"(?:yes|no)"|'(?:yes|no)'))? ?\?""",
    re.ASCII,
).fullmatch
# Without the w3.org names: XML reserves some of them, and a parser must reject those.
_ROOT = re.compile(
    r"""([A-Za-z_][\w.-]*)(?: xmlns=(["'])https?://(?!www\.w3\.org)[\w./-]+\2)?( ?/)?""",
    re.ASCII,
).fullmatch
_REFERENCE = re.compile(r"&(?:#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}))|(amp|lt|gt|quot|apos));", re.ASCII)
_PREDEFINED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_END = "/"  # closes an empty element; no real tag is equal to it
_MAX_ORDERS = 512


def tokenize(body: bytes, yield_gil: Callable[[], None] | None = None) -> Tokens:
    """Yield each tag of `body` without its brackets, with the text that follows it.

    Args:
        body: the whole document.
        yield_gil: called before each slice of a long body; an exception that it raises ends the parsing. None for a
            short body.

    Raises:
        GiveUp: while iterating, at the first slice that holds more than tags, text and references.
    """
    if not body.startswith(b"<") or not body[-64:].rstrip(b" \t\n").endswith(b">"):
        raise GiveUp
    if len(body) <= _SLICE_BYTES:
        return _pairs(body)
    return chain.from_iterable(_slices(body, yield_gil))


def _slices(body: bytes, yield_gil: Callable[[], None] | None) -> Iterator[Iterable[tuple[str, str]]]:
    start, end = 0, len(body)
    while start < end:
        if yield_gil is not None:
            yield_gil()
        cut = body.rfind(b"<", start + 1, start + _SLICE_BYTES) if start + _SLICE_BYTES < end else end
        if cut < 0:
            cut = body.find(b"<", start + _SLICE_BYTES)
        if cut < 0:
            cut = end
        yield _pairs(body[start:cut])
        start = cut


def _pairs(part: bytes) -> Tokens:
    special = part.translate(None, _ORDINARY)
    references = b"&" in special
    if references:
        special = special.replace(b"&", b"")
    if special != b"<>" * (len(special) // 2):
        raise GiveUp
    try:
        text = part.decode()
    except UnicodeDecodeError:
        raise GiveUp from None
    if not part.isascii() and ("\ufffe" in text or "\uffff" in text):
        raise GiveUp
    pieces = text.replace("<", ">").split(">")
    if references:  # resolved in texts only: a tag with a reference is not a name and is rejected later
        texts = [_resolve(piece) if "&" in piece else piece for piece in pieces[2::2]]
        return zip(pieces[1::2], texts, strict=True)
    flow = iter(pieces)
    next(flow)
    return zip(flow, flow, strict=True)


def _resolve(text: str) -> str:
    resolved = _REFERENCE.sub(_character, text)
    if text.count("&") != len(_REFERENCE.findall(text)):
        raise GiveUp
    return resolved


def _character(reference: re.Match[str]) -> str:
    hexadecimal, decimal, name = reference.groups()
    if name:
        return _PREDEFINED[name]
    code = int(hexadecimal, 16) if hexadecimal else int(decimal)
    if code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF:
        return chr(code)
    raise GiveUp


def parse_document(body: bytes, root: Node, yield_gil: Callable[[], None] | None = None) -> Any:
    """Parse a whole document with the closure compiled for its root element.

    Raises:
        GiveUp: the body is not in the subset of XML that this module reads.
        Exception: a conversion's error, or StopIteration for a truncated body; the caller must give up then as well.
    """
    tokens = tokenize(body, yield_gil)
    tag, text = next(tokens)
    if tag.startswith("?"):
        # A reference to white space is resolved already, but it is not allowed here.
        if not _DECLARATION(tag) or text.strip(_SPACE) or b"&" in body[: body.index(b"<", 1)]:
            raise GiveUp
        tag, text = next(tokens)
    match = _ROOT(tag)
    if match is None:
        raise GiveUp
    parsed = root(_no_children(), _END) if match[3] else root(tokens, f"/{match[1]}")
    if next(tokens, None) is not None:
        raise GiveUp
    return parsed


def _no_children() -> Tokens:
    return iter(((_END, ""),))


def _skip(tag: str, tokens: Tokens) -> None:
    """Skip an element that the model does not have, as botocore does."""
    if _EMPTY(tag):
        return
    if not _NAME(tag):
        raise GiveUp
    expected = [f"/{tag}"]
    for inner, _ in tokens:
        if inner == expected[-1]:
            expected.pop()
            if not expected:
                return
        elif _NAME(inner):
            expected.append(f"/{inner}")
        elif not _EMPTY(inner):
            raise GiveUp
    raise GiveUp


def _refuse(tag: str, tokens: Tokens) -> None:
    """Replacement of `_skip` where an unknown element changes the meaning: give up."""
    raise GiveUp


class _Fields:
    """Members of one structure, compiled when the first such structure is read.

    A service's shapes form a graph of up to thousands, of which a response uses a few.

    Attributes:
        entries: tag -> (key, convert, node, closing tag) for elements that occur once; `node` is None for scalars.
        actions: tag -> function that handles it, for flattened members and for empty elements.
        order: the keys in the model's order, which is the order of botocore's dictionaries.
    """

    __slots__ = ("actions", "entries", "fill", "order")

    def __init__(self, fill: Callable[[_Fields], None] | None) -> None:
        self.entries: dict[str, Any] = {}
        self.actions: dict[str, Any] = {}
        self.order: list[str] = []
        self.fill = fill

    def add(self, tag: str, key: str, convert: Convert, node: Node | None) -> None:
        """Expect an element `tag` at most once, and store its value under `key`."""
        self._claim(tag, key)
        self.entries[tag] = (key, convert, node, f"/{tag}")
        make = _empty_value(convert, node)

        def empty(parsed: dict[str, Any], tokens: Tokens, text: str) -> None:
            if key in parsed:
                raise GiveUp
            parsed[key] = make()

        self.actions[f"{tag}/"] = self.actions[f"{tag} /"] = empty

    def add_each(
        self, tag: str, key: str, convert: Convert, node: Node | None, collect: Callable[[Any, Any], None]
    ) -> None:
        """Expect elements `tag`, any number anywhere, and `collect` their values into the container under `key`."""
        self._claim(tag, key)
        end = f"/{tag}"
        make = _empty_value(convert, node)
        start = list if collect is list.append else dict

        def take(parsed: dict[str, Any], tokens: Tokens, text: str) -> None:
            value = _scalar(convert, tokens, text, end) if node is None else node(tokens, end)
            if key not in parsed:
                parsed[key] = start()
            collect(parsed[key], value)

        def empty(parsed: dict[str, Any], tokens: Tokens, text: str) -> None:
            value = make()
            if key not in parsed:
                parsed[key] = start()
            collect(parsed[key], value)

        self.actions[tag] = take
        self.actions[f"{tag}/"] = self.actions[f"{tag} /"] = empty

    def _claim(self, tag: str, key: str) -> None:
        # botocore gives one element to both of two members that share its name; only S3's deprecated ones do.
        if tag in self.entries or tag in self.actions or not _NAME(tag):
            raise Unsupported
        self.order.append(key)

    def ensure_filled(self) -> None:
        if self.fill is not None:
            fresh = _Fields(None)
            self.fill(fresh)
            # Several threads may reach this. They write the same values, and `fill` is cleared last, when all is
            # complete.
            self.order[:] = fresh.order
            self.actions.update(fresh.actions)
            self.entries.update(fresh.entries)
            self.fill = None


def _scalar(convert: Any, tokens: Tokens, text: str, end: str) -> Any:
    following, _ = next(tokens)
    if following != end:
        raise GiveUp
    return text if convert is None else convert(text)


def _empty_value(convert: Convert, node: Node | None) -> Callable[[], Any]:
    if node is not None:
        return lambda: node(_no_children(), _END)
    if convert is not None:
        return lambda: convert("")
    return str


def _structure(fields: _Fields, unknown: Callable[[str, Any], None], *, members_wanted: int | None = None) -> Any:
    """Compile a closure that reads a structure's children into a new dictionary in the model's order."""
    get, act = fields.entries.get, fields.actions.get
    orders: dict[tuple[str, ...], Any] = {}
    find_order = orders.get

    def parse(tokens: Tokens, close: str) -> dict[str, Any]:
        if fields.fill is not None:
            fields.ensure_filled()
        parsed: dict[str, Any] = {}
        for tag, text in tokens:
            entry = get(tag)
            if entry is None:
                if tag == close:
                    break
                action = act(tag)
                if action is None:
                    unknown(tag, tokens)
                else:
                    action(parsed, tokens, text)
                continue
            key, convert, node, end = entry
            if key in parsed:
                raise GiveUp
            if node is not None:
                parsed[key] = node(tokens, end)
                continue
            following, _ = next(tokens)
            if following != end:
                raise GiveUp
            parsed[key] = text if convert is None else convert(text)
        else:
            raise GiveUp
        if members_wanted is not None and len(parsed) != members_wanted:
            raise GiveUp
        if len(parsed) < 2:
            return parsed
        keys = tuple(parsed)
        order = find_order(keys)
        if order is None:
            order = _order(keys, fields.order)
            if len(orders) < _MAX_ORDERS:
                orders[keys] = order
        if not order:
            return parsed
        ordered, values = order
        return dict(zip(ordered, values(parsed), strict=True))

    return parse


def _order(keys: tuple[str, ...], model_order: list[str]) -> tuple[tuple[str, ...], Any] | tuple[()]:
    ordered = tuple(key for key in model_order if key in keys)
    return () if ordered == keys else (ordered, itemgetter(*ordered))


def _sequence(convert: Convert, node: Node | None, item: str) -> Any:
    """Compile a closure that reads a list. Every child is an item, whatever its name; `item` is the usual one."""
    item_end = f"/{item}"
    make = _empty_value(convert, node)

    def parse(tokens: Tokens, close: str) -> list[Any]:
        parsed: list[Any] = []
        for tag, text in tokens:
            if tag == item:
                end = item_end
            elif tag == close:
                return parsed
            elif _NAME(tag):
                end = f"/{tag}"
            elif _EMPTY(tag):
                parsed.append(make())
                continue
            else:
                raise GiveUp
            if node is not None:
                parsed.append(node(tokens, end))
                continue
            following, _ = next(tokens)
            if following != end:
                raise GiveUp
            parsed.append(text if convert is None else convert(text))
        raise GiveUp

    return parse


def _pair(fields: _Fields) -> Any:
    """Compile a closure that reads one entry of a map; it gives up on an entry without key or value."""
    return _structure(fields, _refuse, members_wanted=2)


def _put(into: dict[Any, Any], pair: dict[str, Any]) -> None:
    into[pair["key"]] = pair["value"]


def _mapping(pair: Any) -> Any:
    def parse(tokens: Tokens, close: str) -> dict[Any, Any]:
        parsed: dict[Any, Any] = {}
        for tag, _ in tokens:
            if tag == close:
                return parsed
            if not _NAME(tag):
                raise GiveUp
            _put(parsed, pair(tokens, f"/{tag}"))
        raise GiveUp

    return parse


def _texts(tokens: Tokens, close: str) -> dict[str, str | None]:
    """Read `<ResponseMetadata>` as botocore does: the text of each child by its name, None for an empty one."""
    parsed: dict[str, str | None] = {}
    for tag, text in tokens:
        if tag == close:
            return parsed
        name = tag.rstrip("/ ")
        if name in parsed:
            raise GiveUp
        if _NAME(tag):
            parsed[name] = _scalar(None, tokens, text, f"/{tag}") or None
        elif _EMPTY(tag):
            parsed[name] = None
        else:
            raise GiveUp
    raise GiveUp


class XMLCompiler:
    """Compiles output shapes for the XML protocols (ec2, query, rest-xml).

    Args:
        timestamp: parses a timestamp's text.
        blob: parses a blob's text.
        locations: values of `location` of members that are not in the body.
    """

    def __init__(self, timestamp: Callable[[Any], Any], blob: Callable[[Any], Any], locations: tuple[str, ...]) -> None:
        self._locations = locations
        self._structures: dict[str, Any] = {}
        self._converts: dict[str, Any] = {
            "string": None,
            "character": None,
            "integer": int,
            "long": int,
            "float": float,
            "double": float,
            "boolean": "true".__eq__,
            "timestamp": timestamp,
            "blob": blob,
        }

    def structure(self, shape: Any) -> Any:
        """Compile a structure. All uses of the shape in the model share one closure, also inside itself.

        Raises:
            Unsupported: the shape is not a structure.
        """
        if shape.type_name != "structure" or shape.metadata.get("exception"):
            raise Unsupported
        if shape.name not in self._structures:
            fields = _Fields(lambda fresh: self.members(shape, fresh))
            # botocore reports an unknown member of a union to the caller, and requires exactly one member.
            unknown, wanted = (_refuse, 1) if shape.is_tagged_union else (_skip, None)
            self._structures[shape.name] = _structure(fields, unknown, members_wanted=wanted)
        return self._structures[shape.name]

    def query_root(self, shape: Any) -> Any:
        """Compile the root of a response of the query protocol; the request's id is stored under `ResponseMetadata`."""

        def fill(fields: _Fields) -> None:
            wrapper = shape is not None and shape.serialization.get("resultWrapper")
            if wrapper:
                fields.add(wrapper, "Result", None, self.structure(shape))
            elif shape is not None:
                self.members(shape, fields)
            fields.add("ResponseMetadata", "ResponseMetadata", None, _texts)

        return self._root(shape, fill)

    def ec2_root(self, shape: Any) -> Any:
        """Compile the root of a response of EC2; the request's bare id is stored under `ResponseMetadata`."""

        def fill(fields: _Fields) -> None:
            if shape is not None:
                self.members(shape, fields)
            fields.add("requestId", "ResponseMetadata", lambda text: text or None, None)

        return self._root(shape, fill)

    def _root(self, shape: Any, fill: Callable[[_Fields], None]) -> Any:
        if shape is not None and (shape.type_name != "structure" or shape.is_tagged_union):
            raise Unsupported
        return _structure(_Fields(fill), _skip)

    def members(self, shape: Any, fields: _Fields) -> None:
        """Add each member of the structure `shape` to `fields`, by its tag."""
        for name, member in shape.members.items():
            if member.serialization.get("location") in self._locations or member.serialization.get("eventheader"):
                if shape.is_tagged_union:
                    raise Unsupported
                continue
            if member.serialization.get("xmlAttribute") and not _NAME(member.serialization["name"]):
                continue  # neither its attribute nor an element with a prefix is in the subset
            self._member(fields, name, member, union=shape.is_tagged_union)

    def _member(self, fields: _Fields, name: str, shape: Any, *, union: bool) -> None:
        tag = shape.serialization.get("name", name)
        flattened = shape.serialization.get("flattened")
        if flattened and shape.type_name == "list":
            if union:
                raise Unsupported
            item = shape.member.serialization.get("name")
            fields.add_each(tag if item is None else item, name, *self._value(shape.member), list.append)
        elif flattened and shape.type_name == "map":
            fields.add_each(tag, name, None, self._map_pair(shape), _put)
        else:
            fields.add(tag, name, *self._value(shape))

    def _value(self, shape: Any) -> tuple[Any, Any]:
        kind = shape.type_name
        if kind in self._converts:
            return self._converts[kind], None
        if kind == "structure":
            return None, self.structure(shape)
        if shape.serialization.get("flattened"):
            raise Unsupported  # a flattened list as an item or a map's value: no model has one
        if kind == "list":
            return None, _sequence(*self._value(shape.member), shape.member.serialization.get("name") or "member")
        if kind == "map":
            return None, _mapping(self._map_pair(shape))
        raise Unsupported

    def _map_pair(self, shape: Any) -> Any:
        def fill(fields: _Fields) -> None:
            key, value = shape.key, shape.value
            if key.type_name not in self._converts:
                raise Unsupported
            fields.add(key.serialization.get("name") or "key", "key", *self._value(key))
            fields.add(value.serialization.get("name") or "value", "value", *self._value(value))

        return _pair(_Fields(fill))
