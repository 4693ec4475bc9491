"""Parsers of responses with the results of aiobotocore's, for a fraction of the CPU, that never stall the event loop.

`fast_parser_factory()` is a drop-in for a session's `response_parser_factory` component. It compiles the output shape
of each operation once (see the modules `xml` and `json`). A worker thread parses bodies above 64 KiB. Everything else
goes unchanged to the inherited parser: errors, event streams, streams, and uncommon shapes and bodies. So results and
exceptions are aiobotocore's in all those cases.

Only `_do_parse` is overridden; aiobotocore's `parse` handles status, headers and metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiobotocore.parsers import (
    PROTOCOL_PARSERS,
    AioEC2QueryParser,
    AioJSONParser,
    AioQueryParser,
    AioResponseParserFactory,
    AioRestJSONParser,
    AioRestXMLParser,
)
from botocore.compat import ETree, XMLParseError
from botocore.parsers import JSONParser

from asyncauth._clients.parsing.json import JSONCompiler, RestJSONCompiler, decode_json
from asyncauth._clients.parsing.timestamps import parse_timestamp
from asyncauth._clients.parsing.xml import GiveUp, Unsupported, XMLCompiler, parse_document
from asyncauth._clients.switches import SWITCHES
from asyncauth._runtime.compute_thread import run_in_compute_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    YieldGil = Callable[[], None] | None
    Plan = Callable[[Any, dict[str, Any], YieldGil], Any]  # (parser, response, function between two slices) -> parsed

__all__ = ["INLINE_BYTES", "FastParserFactory", "fast_parser_factory"]

INLINE_BYTES = 64 * 1024
"""Bodies up to this size, in bytes, are parsed where they arrive: that takes about a millisecond."""

_MAX_SHAPES = 4096
_MAX_MISSES = 16


class _ShapeParser:
    """Parser of one output shape.

    Attributes:
        shape: kept alive, so that its id cannot be reused.
        plan: the compiled parser; None if botocore's parser must be used.
        misses: consecutive bodies on which the plan gave up.
    """

    __slots__ = ("misses", "plan", "shape")

    def __init__(self, shape: Any, plan: Plan | None) -> None:
        self.shape = shape
        self.plan = plan
        self.misses = 0

    def count_miss(self) -> None:
        """Count a body on which the plan gave up. After too many in a row, botocore's parser is used for the shape."""
        self.misses += 1
        if self.misses >= _MAX_MISSES:
            self.plan = None


class _ShapeParsers:
    """Compiled parsers of one protocol, by the identity of the output shape."""

    def __init__(self, compile_plan: Callable[[Any, Any], Plan], new_compiler: Callable[[], Any]) -> None:
        self._compile = compile_plan
        self._new_compiler = new_compiler
        self._entries: dict[int, _ShapeParser] = {}
        self._compilers: dict[int, tuple[Any, Any]] = {}

    def find(self, shape: Any) -> _ShapeParser:
        """Return the parser of an output shape, which may be None; compile it at first use."""
        entry = self._entries.get(id(shape))
        if entry is not None:
            return entry
        try:
            plan = self._compile(self._compiler(shape), shape)
        except Unsupported:
            plan = None
        if len(self._entries) >= _MAX_SHAPES:
            self._entries.clear()
            self._compilers.clear()
        entry = self._entries[id(shape)] = _ShapeParser(shape, plan)
        return entry

    def _compiler(self, shape: Any) -> Any:
        # Shape names are unique within one service's model, whose operations share the compiled structures.
        model = getattr(shape, "_shape_resolver", None)
        if model is None:
            return self._new_compiler()
        if id(model) not in self._compilers:
            self._compilers[id(model)] = (model, self._new_compiler())
        return self._compilers[id(model)][1]


class _Fast:
    """Mixin of the fast parsers, before aiobotocore's parser in their bases."""

    plans: _ShapeParsers

    def _do_parse(self, response: dict[str, Any], shape: Any) -> Any:
        body = response["body"]
        if type(body) is not bytes or response["status_code"] >= 300 or (shape is not None and shape.event_stream_name):
            return super()._do_parse(response, shape)  # type: ignore[misc]  # the next base is aiobotocore's
        if len(body) > INLINE_BYTES:
            return run_in_compute_thread(lambda yield_gil: self._parse(response, shape, yield_gil))
        return self._parse(response, shape, None)

    def _parse(self, response: dict[str, Any], shape: Any, yield_gil: YieldGil) -> Any:
        entry = self.plans.find(shape)
        if entry.plan is not None:
            try:
                parsed = entry.plan(self, response, yield_gil)
            except Unsupported:
                entry.plan = None
            except Exception:  # noqa: BLE001 -- botocore's parser repeats the work and raises its own error
                entry.count_miss()
            else:
                entry.misses = 0
                return parsed
        return self._parse_as_botocore(response, shape)

    def _parse_as_botocore(self, response: dict[str, Any], shape: Any) -> Any:
        return super()._do_parse(response, shape)  # type: ignore[misc]  # as above


class _FastXML(_Fast):
    _SLICE_BYTES = 64 * 1024  # as in the module xml

    def _parse_xml_string_to_dom(self, xml_string: Any) -> Any:
        if not isinstance(xml_string, bytes) or len(xml_string) <= self._SLICE_BYTES:
            return super()._parse_xml_string_to_dom(xml_string)  # type: ignore[misc]  # the next base is aiobotocore's
        # ElementTree's parser is C code that holds the interpreter's lock during each feed: 0.2 s for 4 MB.
        parser = ETree.XMLParser(target=ETree.TreeBuilder(), encoding="utf-8")
        try:
            for start in range(0, len(xml_string), self._SLICE_BYTES):
                parser.feed(xml_string[start : start + self._SLICE_BYTES])
            return parser.close()
        except XMLParseError:
            return super()._parse_xml_string_to_dom(xml_string)  # type: ignore[misc]  # as above


class _FastQueryParser(_FastXML, AioQueryParser):
    pass


class _FastEC2Parser(_FastXML, AioEC2QueryParser):
    pass


class _FastRestXMLParser(_FastXML, AioRestXMLParser):
    pass


class _FastJSONParser(_Fast, AioJSONParser):
    def _parse_as_botocore(self, response: dict[str, Any], shape: Any) -> Any:
        # aiobotocore's method is a coroutine, for event streams, which do not come here; a thread cannot await it.
        return JSONParser._do_parse(self, response, shape)


class _FastRestJSONParser(_Fast, AioRestJSONParser):
    pass


def _query_plan(compiler: XMLCompiler, shape: Any) -> Plan:
    root = compiler.query_root(shape)
    wrapped = shape is not None and bool(shape.serialization.get("resultWrapper"))

    def parse(parser: Any, response: dict[str, Any], yield_gil: YieldGil) -> Any:
        parsed = parse_document(response["body"], root, yield_gil)
        if not wrapped:
            return parsed
        result = parsed["Result"]
        if "ResponseMetadata" in parsed:
            result["ResponseMetadata"] = parsed["ResponseMetadata"]
        return result

    return parse


def _ec2_plan(compiler: XMLCompiler, shape: Any) -> Plan:
    root = compiler.ec2_root(shape)

    def parse(parser: Any, response: dict[str, Any], yield_gil: YieldGil) -> Any:
        parsed = parse_document(response["body"], root, yield_gil)
        if "ResponseMetadata" in parsed:
            parsed["ResponseMetadata"] = {"RequestId": parsed["ResponseMetadata"]}
        return parsed

    return parse


def _rest_plan(compiler: Any, shape: Any, read: Callable[[Any, bytes, YieldGil], Any]) -> Plan:
    """Compile an operation of a REST protocol. `read` converts the body for the compiled structure."""
    if shape is None:
        raise Unsupported  # botocore's parser has next to nothing to do either
    members = shape.members
    located = any("location" in member.serialization for member in members.values())
    payload = shape.serialization.get("payload")
    body_of = compiler.structure(members[payload] if payload else shape)
    if body_of is None:
        raise Unsupported

    def parse(parser: Any, response: dict[str, Any], yield_gil: YieldGil) -> Any:
        parsed = {"ResponseMetadata": parser._populate_response_metadata(response)}
        if located:
            parser._parse_non_payload_attrs(response, shape, members, parsed)
        body = read(body_of, response["body"], yield_gil)
        if payload:
            parsed[payload] = body
        else:
            parsed.update(body)
        return parsed

    return parse


def _rest_xml_plan(compiler: XMLCompiler, shape: Any) -> Plan:
    def read(root: Any, body: bytes, yield_gil: YieldGil) -> Any:
        return parse_document(body or b"<empty/>", root, yield_gil)

    return _rest_plan(compiler, shape, read)


def _rest_json_plan(compiler: RestJSONCompiler, shape: Any) -> Plan:
    return _rest_plan(compiler, shape, _read_json)


def _read_json(structure: Any, body: bytes, yield_gil: YieldGil) -> Any:
    return structure(decode_json(body, yield_gil))


def _json_plan(compiler: JSONCompiler, shape: Any) -> Plan:
    structure = None if shape is None else compiler.structure(shape)
    if structure is None:
        raise Unsupported

    def parse(parser: Any, response: dict[str, Any], yield_gil: YieldGil) -> Any:
        parsed = _read_json(structure, response["body"], yield_gil)
        if type(parsed) is not dict:
            raise GiveUp
        parser._inject_response_metadata(parsed, response["headers"])
        return parsed

    return parse


_PARSERS: dict[type, tuple[type[_Fast], Callable[[Any, Any], Plan], str]] = {
    AioQueryParser: (_FastQueryParser, _query_plan, "xml"),
    AioEC2QueryParser: (_FastEC2Parser, _ec2_plan, "xml"),
    AioRestXMLParser: (_FastRestXMLParser, _rest_xml_plan, "xml"),
    AioJSONParser: (_FastJSONParser, _json_plan, "json"),
    AioRestJSONParser: (_FastRestJSONParser, _rest_json_plan, "rest-json"),
}


class FastParserFactory(AioResponseParserFactory):
    """Makes the fast parsers, one per protocol. Parsers keep no state of a response, so calls share them.

    Safe to share between clients, sessions and threads: it caches only compiled shapes, which belong to a loaded model.
    """

    _defaults: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._parsers: dict[str, Any] = {}
        if SWITCHES.timestamps:
            self.set_parser_defaults(timestamp_parser=parse_timestamp)

    def set_parser_defaults(self, **kwargs: Any) -> None:
        """Set `timestamp_parser` or `blob_parser`, as in botocore; the compiled parsers use them as well."""
        super().set_parser_defaults(**kwargs)
        self._parsers.clear()

    def create_parser(self, protocol_name: str) -> Any:
        """Return the parser for a protocol, by botocore's name; aiobotocore's own for a protocol unknown here."""
        parser = self._parsers.get(protocol_name)
        if parser is None:
            parser = self._parsers[protocol_name] = self._make_parser(protocol_name)
        return parser

    def _make_parser(self, protocol_name: str) -> Any:
        stock = PROTOCOL_PARSERS[protocol_name]
        if stock not in _PARSERS or not SWITCHES.parsers:
            return stock(**self._defaults)
        fast, compile_plan, family = _PARSERS[stock]
        parser: Any = fast(**self._defaults)
        parser.plans = _ShapeParsers(compile_plan, lambda: _new_compiler(family, parser))
        return parser


def _new_compiler(family: str, parser: Any) -> Any:
    timestamp, blob = parser._timestamp_parser, parser._blob_parser
    if family == "xml":
        return XMLCompiler(timestamp, blob, parser.KNOWN_LOCATIONS)
    return (JSONCompiler if family == "json" else RestJSONCompiler)(timestamp, blob)


def fast_parser_factory() -> FastParserFactory:
    """Return a factory to register as a session's `response_parser_factory`, or to pass to an endpoint.

    Example:
        >>> from aiobotocore.session import AioSession
        >>> session = AioSession()
        >>> session.register_component("response_parser_factory", fast_parser_factory())
    """
    return FastParserFactory()
