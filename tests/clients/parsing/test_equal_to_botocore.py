"""Equality of the fast parsers with aiobotocore's: the same dictionaries in the same order, or the same exception."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.parsers import AioResponseParserFactory
from botocore.awsrequest import HeadersDict
from botocore.compat import ETree
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import HealthCheck, assume, example, given, reject, settings
from hypothesis import strategies as st

from asyncauth._clients.parsing.factory import FastParserFactory, fast_parser_factory
from asyncauth._clients.parsing.xml import XMLCompiler, parse_document
from tests.support.parsing_bodies import JSONMaker, Maker, XMLMaker

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]

RECORDED = sorted((Path(__file__).parents[2] / "data" / "responses").iterdir())
SERVICES = ["ec2", "sts", "iam", "cloudwatch", "s3", "organizations", "dynamodb", "route53", "redshift", "lambda"]
HEADERS = {
    "x-amzn-requestid": "a3a2b1c0-1111-2222-3333-444455556666",
    "Content-Type": "text/xml",
    "date": "Sat, 31 Jan 2026 08:00:00 GMT",
}

# No service in the list combines all of these, for each protocol: recursion, unions, documents, maps and lists.
ODD_SHAPES = {
    "Root": {
        "type": "structure",
        "members": {
            "Tree": {"shape": "Node"},
            "Choice": {"shape": "Union", "locationName": "choice"},
            "Plain": {"shape": "Names"},
            "Flat": {"shape": "FlatNodes"},
            "FlatNamed": {"shape": "FlatNames", "locationName": "ignored"},
            "FlatMap": {"shape": "FlatMap"},
            "Map": {"shape": "NodeMap"},
            "Bytes": {"shape": "Blob"},
            "Many": {"shape": "Stamps"},
            "Document": {"shape": "Document"},
            "Maps": {"shape": "Maps"},
            "Flags": {"shape": "Flags"},
            "Lists": {"shape": "Lists"},
            "Attribute": {"shape": "Text", "locationName": "xsi:type", "xmlAttribute": True},
            "PlainAttribute": {"shape": "Text", "locationName": "kind", "xmlAttribute": True},
        },
    },
    "Node": {
        "type": "structure",
        "members": {
            "Value": {"shape": "Whole"},
            "When": {"shape": "Stamp"},
            "Left": {"shape": "Node"},
            "Others": {"shape": "Nodes", "locationName": "others"},
        },
    },
    "Union": {
        "type": "structure",
        "union": True,
        "members": {"A": {"shape": "Text", "locationName": "a"}, "B": {"shape": "Node"}, "C": {"shape": "Names"}},
    },
    "Document": {"type": "structure", "document": True, "members": {}},
    "Nodes": {"type": "list", "member": {"shape": "Node", "locationName": "node"}},
    "Names": {"type": "list", "member": {"shape": "Text"}},
    "Lists": {"type": "list", "member": {"shape": "Names"}},
    "Flags": {"type": "list", "member": {"shape": "Flag"}},
    "Stamps": {"type": "list", "member": {"shape": "Stamp", "locationName": "stamp"}},
    "FlatNodes": {"type": "list", "flattened": True, "member": {"shape": "Node"}},
    "FlatNames": {"type": "list", "flattened": True, "member": {"shape": "Text", "locationName": "name"}},
    "FlatMap": {"type": "map", "flattened": True, "key": {"shape": "Text"}, "value": {"shape": "Real"}},
    "NodeMap": {
        "type": "map",
        "key": {"shape": "Text", "locationName": "Name"},
        "value": {"shape": "Node", "locationName": "Setting"},
    },
    "Maps": {"type": "list", "member": {"shape": "TextMap"}},
    "TextMap": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Text"}},
    "Text": {"type": "string"},
    "Whole": {"type": "long"},
    "Real": {"type": "double"},
    "Flag": {"type": "boolean"},
    "Blob": {"type": "blob"},
    "Stamp": {"type": "timestamp"},
}
ODD_HEADERS = {
    "X-Text": {"shape": "Text", "location": "header", "locationName": "X-Text"},
    "X-Names": {"shape": "Names", "location": "header", "locationName": "X-Names"},
    "X-When": {"shape": "Stamp", "location": "header", "locationName": "date"},
    "Meta": {"shape": "TextMap", "location": "headers", "locationName": "x-amz-meta-"},
    "Status": {"shape": "Whole", "location": "statusCode"},
}


@cache
def model_of(service: str) -> ServiceModel:
    if service.startswith("odd "):
        return odd_model(service[4:])
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def odd_model(protocol: str) -> ServiceModel:
    """Return a service with one operation whose response has all kinds of members, and one whose response is its
    payload."""
    shapes = json.loads(json.dumps(ODD_SHAPES))
    if protocol == "query":
        shapes["Wrapped"] = {**shapes["Root"], "resultWrapper": "AnswerResult"}
    if protocol.startswith("rest"):
        shapes["Root"]["members"].update(ODD_HEADERS)
        shapes["Paid"] = {"type": "structure", "payload": "Node", "members": {"Node": {"shape": "Node"}, **ODD_HEADERS}}
    operations = {
        name: {"name": name, "http": {"method": "GET", "requestUri": "/"}, "output": {"shape": name}}
        for name in ("Root", "Wrapped", "Paid")
        if name in shapes
    }
    return ServiceModel(
        {"metadata": {"protocol": protocol, "serviceId": "odd"}, "operations": operations, "shapes": shapes}, "odd"
    )


def maker_of(protocol: str) -> type[Maker]:
    return JSONMaker if "json" in protocol else XMLMaker


class BothParsers:
    """Parses with both factories, and counts how often the fast one falls back to aiobotocore's parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fast: FastParserFactory = fast_parser_factory()
        self.stock = AioResponseParserFactory()
        self.fallbacks = 0
        for protocol in ("query", "ec2", "rest-xml", "json", "rest-json"):
            self._watch(monkeypatch, type(self.fast.create_parser(protocol)))

    def _watch(self, monkeypatch: pytest.MonkeyPatch, parser_class: Any) -> None:
        original = parser_class._parse_as_botocore

        def counted(parser: Any, response: Any, shape: Any) -> Any:
            self.fallbacks += 1
            return original(parser, response, shape)

        monkeypatch.setattr(parser_class, "_parse_as_botocore", counted)

    def check(self, service: str, operation: str, body: bytes, headers: dict[str, str], status: int = 200) -> str:
        """Assert that both parsers give the same result, and return it as text."""
        model = model_of(service)
        shape = model.operation_model(operation).output_shape
        result = [
            outcome(factory, model.resolved_protocol, shape, body, headers, status)
            for factory in (self.stock, self.fast, self.fast)
        ]

        assert result[1] == result[0], (service, operation, body)
        assert result[2] == result[0], (service, operation, body)
        return result[0]


def outcome(factory: Any, protocol: str, shape: Any, body: bytes, headers: dict[str, str], status: int) -> str:
    """Return all that a caller can observe as text: `repr` has the values, their types and the order of the keys."""
    context = {"operation_name": "Any"}
    response = {"body": body, "headers": HeadersDict(headers), "status_code": status, "context": context}

    async def parse() -> Any:
        return await factory.create_parser(protocol).parse(response, shape)

    try:
        result = repr(drive(parse()))
    except Exception as error:
        result = f"{type(error)} {error}"
    return re.sub(" at 0x[0-9a-f]+>", ">", result)  # ElementTree elements, which some of botocore's errors contain


def drive(coroutine: Any) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a small body was not parsed at once")


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> BothParsers:
    return BothParsers(monkeypatch)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_recorded_responses(both: BothParsers, path: Path) -> None:
    """A recorded response is parsed to botocore's dictionary, without botocore's parser."""
    service, operation, *_ = path.stem.split(".")
    body = path.read_bytes()
    if (path.suffix == ".json") != ("json" in model_of(service).resolved_protocol):
        pytest.skip("recorded in another protocol than this botocore speaks with the service")

    result = both.check(service, operation, body, HEADERS)

    assert result.startswith("{")
    assert both.fallbacks == (2 if operation == "GetBucketAcl" else 0)  # its grantees have attributes


def operations() -> st.SearchStrategy[tuple[str, str]]:
    protocols = ("query", "ec2", "rest-xml", "json", "rest-json")
    odd = st.sampled_from([f"odd {protocol}" for protocol in protocols])
    return st.one_of(st.sampled_from(SERVICES), odd).flatmap(
        lambda service: st.tuples(st.just(service), st.sampled_from(sorted(model_of(service).operation_names)))
    )


def parseable(service: str, operation: str) -> bool:
    """Return whether the operation's response has a body to parse: no stream, no bare text or bytes."""
    model = model_of(service).operation_model(operation)
    shape = model.output_shape
    if shape is None:
        return model.service_model.resolved_protocol in ("query", "ec2")
    if model.has_event_stream_output or model.has_streaming_output:
        return False
    payload = shape.serialization.get("payload")
    return payload is None or shape.members[payload].type_name == "structure"


@given(operation=operations(), seed=st.integers(0, 2**32))
@settings(max_examples=250, deadline=None)
def test_any_well_formed_response(operation: tuple[str, str], seed: int) -> None:
    """Any body that a model allows is parsed as by botocore."""
    service, name = operation
    assume(parseable(service, name))
    model = model_of(service)
    maker: Any = maker_of(model.resolved_protocol)(seed)
    shape = model.operation_model(name).output_shape
    body = maker.document(model.resolved_protocol, shape)
    with pytest.MonkeyPatch.context() as monkeypatch:
        both = BothParsers(monkeypatch)
        both.check(service, name, body, HEADERS)

        # Two members of this shape share the name of their element, so botocore parses it.
        assert both.fallbacks == 0 or operation == ("s3", "GetBucketNotification"), body


@given(operation=operations(), seed=st.integers(0, 2**32), trouble=st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=400, deadline=None)
def test_any_malformed_response(operation: tuple[str, str], seed: int, trouble: float) -> None:
    """Missing, unknown, repeated, empty, misplaced, ill-typed or broken parts give botocore's result or exception."""
    service, name = operation
    assume(parseable(service, name))
    model = model_of(service)
    maker: Any = maker_of(model.resolved_protocol)(seed, trouble=trouble)
    body = maker.document(model.resolved_protocol, model.operation_model(name).output_shape)
    headers = {**HEADERS, "X-Text": "é", "X-Names": "a, b ,c", "x-amz-meta-One": "1"}
    with pytest.MonkeyPatch.context() as monkeypatch:
        BothParsers(monkeypatch).check(service, name, body, headers)


def is_small_and_current(path: Path) -> bool:
    """Whether a recorded response is small, and in the format of the installed model, which changes with botocore."""
    protocol = model_of(path.stem.split(".")[0]).resolved_protocol
    return path.stat().st_size < 20_000 and (path.suffix == ".json") == ("json" in protocol)


@given(
    path=st.deferred(lambda: st.sampled_from([*filter(is_small_and_current, RECORDED)])),  # not at import: reads models
    at=st.integers(0, 2**16),
    old=st.integers(0, 12),
    new=st.one_of(
        st.binary(max_size=3), st.sampled_from([b"<", b">", b"/>", b"</", b"&", b"&lt;", b" ", b"\r", b"<!--"])
    ),
)
@settings(max_examples=150, deadline=None)
def test_any_damage_to_a_recorded_response(path: Path, at: int, old: int, new: bytes) -> None:
    """A recorded response with some bytes replaced gives botocore's result or exception."""
    service, operation, *_ = path.stem.split(".")
    body = path.read_bytes()
    at %= len(body)
    with pytest.MonkeyPatch.context() as monkeypatch:
        BothParsers(monkeypatch).check(service, operation, body[:at] + new + body[at + old :], HEADERS)


SCRAPS = [
    "<a>",
    "</a>",
    "<b>",
    "</b>",
    "<a/>",
    "<b />",
    "< a>",
    "<a b='c'>",
    "<:>",
    "<a:b>",
    "<>",
    "</>",
    "<1>",
    "<\xe9>",
]
SCRAPS += [
    "text",
    " ",
    "\n",
    "\r",
    "\t",
    "\x00",
    "\x0b",
    "\x7f",
    "\x85",
    "\ufffe",
    "\uffff",
    "\ufeff",
    "\U0001f600",
    "]]>",
    ">",
    "<",
]
SCRAPS += [
    "&amp;",
    "&lt;",
    "&#65;",
    "&#x41;",
    "&#0;",
    "&#xD800;",
    "&#xFFFE;",
    "&#x110000;",
    "&no;",
    "&",
    "&amp",
    "&;",
    "&#;",
]
SCRAPS += [
    "<!-- -->",
    "<![CDATA[x]]>",
    "<?pi?>",
    "<?xml version='1.0'?>",
    "<!DOCTYPE a>",
    "<a xmlns='http://a.b/'>",
    '"',
    "'",
    "=",
]


#: Texts that no parser refuses, so that many documents with one scrap at any position have a result to compare.
HARMLESS = st.sampled_from(["x", " ", "\n", "]", "&amp;", "&#65;", "\U0001f600"])
SCRAP = st.sampled_from(SCRAPS)
NONE = st.just("")


@given(
    text=st.lists(HARMLESS, max_size=4),
    at=st.integers(0, 4),
    others=st.tuples(SCRAP, NONE, NONE, NONE)
    | st.tuples(NONE, SCRAP, NONE, NONE)
    | st.tuples(NONE, NONE, SCRAP, NONE)
    | st.tuples(HARMLESS, NONE, SCRAP, NONE)
    | st.tuples(HARMLESS, NONE, NONE, SCRAP),
)
# Most scraps are refused at most positions, as they should be.
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@example(text=["<a>", "]]>", "</a>"], at=0, others=("", "", "", ""))
@example(text=["<a>", "&#xFFFE;", "</a>"], at=0, others=("", "", "", ""))
@example(text=["<&#98;>x</b>"], at=0, others=("", "", "", ""))
@example(text=["x"], at=0, others=("", "<?XML version='1.0'?>", "", ""))
def test_only_xml_is_accepted(text: list[str], at: int, others: tuple[str, str, str, str]) -> None:
    """Every accepted document is accepted by ElementTree too, and the texts of its elements are equal."""
    inside, before, beside, after = others
    element = f"<v>{''.join([*text[:at], inside, *text[at:]])}</v>"
    body = f"{before}<root>{beside}{element}</root>{after}".encode()
    compiler = XMLCompiler(str, str, ())
    root = compiler.structure(ServiceModel(TEXT_MODEL).shape_for("Text"))
    try:
        parsed = parse_document(body, root)
    except Exception:
        reject()

    document = ETree.XMLParser(encoding="utf-8")
    document.feed(body)
    assert [value.text or "" for value in document.close() if value.tag.rpartition("}")[2] == "v"] == list(
        parsed.values()
    )


TEXT_MODEL = {
    "metadata": {},
    "operations": {},
    "shapes": {"Text": {"type": "structure", "members": {"v": {"shape": "S"}}}, "S": {"type": "string"}},
}

ERRORS = {
    "ec2": b"<Response><Errors><Error><Code>RequestExpired</Code><Message>m</Message></Error></Errors></Response>",
    "sts": b"<ErrorResponse><Error><Code>ExpiredToken</Code></Error><RequestId>r</RequestId></ErrorResponse>",
    "s3": b"<Error><Code>NoSuchBucket</Code><BucketName>b</BucketName></Error>",
    "dynamodb": b'{"__type": "com.amazonaws#ResourceNotFoundException", "message": "m"}',
    "lambda": b'{"Message": "m"}',
}


@pytest.mark.parametrize("status", [300, 301, 400, 403, 500, 503])
@pytest.mark.parametrize("service", ERRORS)
def test_errors_are_parsed_by_botocore(both: BothParsers, service: str, status: int) -> None:
    """aiobotocore's code handles responses with status 300 and above, also HTML pages from a proxy."""
    operation = min(model_of(service).operation_names)

    for body in (ERRORS[service], b"", b"<html><body>Bad gateway</body></html>"):
        both.check(service, operation, body, HEADERS, status)

    assert both.fallbacks == 0


def test_an_unsupported_shape_is_parsed_by_botocore(both: BothParsers) -> None:
    """botocore parses two members that share an element (S3's deprecated notifications), each time."""
    body = (
        b"<NotificationConfiguration><TopicConfiguration><Id>i</Id><Event>s3:ObjectCreated:*</Event>"
        b"<Topic>t</Topic></TopicConfiguration></NotificationConfiguration>"
    )

    result = both.check("s3", "GetBucketNotification", body, HEADERS)

    assert "'Events': ['s3:ObjectCreated:*']" in result
    assert both.fallbacks == 2


@pytest.mark.parametrize("reference", ["&#32;", "&#x20;", "&#10;", "&#x9;", "\n&#32;\n", "&amp;", " \n\t"])
def test_a_reference_before_the_root_is_botocores_error(both: BothParsers, reference: str) -> None:
    """White space is allowed between the declaration and the root, but no reference, not even one to white space."""
    body = f"""<?xml version="1.0"?>{reference}<GetCallerIdentityResponse><GetCallerIdentityResult><Account>1</Account>
        </GetCallerIdentityResult></GetCallerIdentityResponse>"""

    result = both.check("sts", "GetCallerIdentity", body.encode(), HEADERS)

    assert ("ResponseParserError" in result) is ("&" in reference)


def test_a_shape_without_plain_bodies_is_left_to_botocore(both: BothParsers) -> None:
    """After sixteen consecutive bodies that the fast parser gave up on, botocore's parser gets the shape."""
    path = Path(__file__).parents[2] / "data" / "responses" / "s3.GetBucketAcl.xml"
    shape = model_of("s3").operation_model("GetBucketAcl").output_shape
    entry = both.fast.create_parser("rest-xml").plans.find(shape)
    plain = re.sub(b' xmlns:xsi.*?"CanonicalUser"', b"", path.read_bytes())
    for _ in range(7):
        both.check("s3", "GetBucketAcl", path.read_bytes(), HEADERS)
    both.check("s3", "GetBucketAcl", plain, HEADERS)
    assert entry.misses == 0
    assert entry.plan is not None

    for _ in range(8):
        both.check("s3", "GetBucketAcl", path.read_bytes(), HEADERS)

    assert entry.plan is None


def test_every_result_is_independent(both: BothParsers) -> None:
    """A change of one result does not change the next."""
    shape = model_of("ec2").operation_model("DescribeVpcs").output_shape
    body = (Path(__file__).parents[2] / "data" / "responses" / "ec2.DescribeVpcs.xml").read_bytes()
    response = {"body": body, "headers": HEADERS, "status_code": 200}
    parser = both.fast.create_parser("ec2")
    first = drive(parser.parse(response, shape))
    result = repr(first)

    first["Vpcs"][0]["Tags"].append("mine")
    first["Vpcs"].append("mine")
    first["ResponseMetadata"].clear()

    assert repr(drive(parser.parse(response, shape))) == result


def test_a_users_own_parsers_are_used(both: BothParsers) -> None:
    """`timestamp_parser` and `blob_parser` set on the factory are used by the compiled parsers, also when set later."""
    response = {"body": b"<A><When>now</When><Bytes>AA==</Bytes></A>", "headers": {}, "status_code": 200}
    model = odd_model("ec2")
    model._shape_resolver._shape_map["Root"]["members"]["When"] = {"shape": "Stamp"}
    shape = model.operation_model("Root").output_shape
    seen = []
    for mark in ("one", "two"):
        both.fast.set_parser_defaults(timestamp_parser=lambda text, mark=mark: (mark, text), blob_parser=len)
        seen.append(drive(both.fast.create_parser("ec2").parse(response, shape)))

    assert [(parsed["When"], parsed["Bytes"]) for parsed in seen] == [(("one", "now"), 4), (("two", "now"), 4)]


def test_a_streaming_body_is_left_to_botocore(both: BothParsers) -> None:
    """A streaming body is returned unchanged."""
    stream = object()
    shape = model_of("s3").operation_model("GetObject").output_shape
    response = {"body": stream, "headers": HeadersDict({"content-length": "3"}), "status_code": 200}

    parsed = drive(both.fast.create_parser("rest-xml").parse(response, shape))

    assert parsed["Body"] is stream
    assert parsed["ContentLength"] == 3


def test_shapes_are_compiled_once(both: BothParsers) -> None:
    """The compiled parser is found by the shape, which all clients of a model share."""
    shape = model_of("sts").operation_model("AssumeRole").output_shape
    parser = both.fast.create_parser("query")
    entry = parser.plans.find(shape)

    assert entry.plan is not None
    assert parser.plans.find(shape) is entry
    assert both.fast.create_parser("query") is parser


def test_threads_may_compile_a_shape_at_once() -> None:
    """Eight threads that see a large shape for the first time all get botocore's result."""
    path = Path(__file__).parents[2] / "data" / "responses" / "ec2.DescribeInstances.xml"
    response = {"body": path.read_bytes(), "headers": HEADERS, "status_code": 200, "context": {}}
    shape = model_of("ec2").operation_model("DescribeInstances").output_shape
    expected = repr(drive(AioResponseParserFactory().create_parser("ec2").parse(response, shape)))
    parser = fast_parser_factory().create_parser("ec2")
    barrier = threading.Barrier(8)

    def parse(_: int) -> str:
        barrier.wait(10)
        return repr(drive(parser.parse(response, shape)))

    with ThreadPoolExecutor(8) as pool:
        result = set(pool.map(parse, range(8)))

    assert result == {expected}


def test_an_unknown_protocol_is_left_to_aiobotocore() -> None:
    """A protocol that the fast parsers do not support keeps aiobotocore's parser, or its KeyError."""
    with pytest.raises(KeyError):
        fast_parser_factory().create_parser("carrier-pigeon")
