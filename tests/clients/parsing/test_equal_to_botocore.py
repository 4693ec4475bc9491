"""The fast parsers give what aiobotocore's give: the same dictionaries in the same order, or the same exception."""

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
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncauth._clients.parsing.factory import FastParserFactory, fast_parser_factory
from asyncauth._clients.parsing.xml import XMLCompiler, parse_document
from tests.support.parsing_bodies import CBORMaker, JSONMaker, Maker, XMLMaker

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]

RECORDED = sorted((Path(__file__).parents[2] / "data" / "responses").iterdir())
SERVICES = ["ec2", "sts", "iam", "cloudwatch", "s3", "organizations", "dynamodb", "route53", "redshift", "lambda"]
HEADERS = {
    "x-amzn-requestid": "a3a2b1c0-1111-2222-3333-444455556666",
    "Content-Type": "text/xml",
    "date": "Sat, 31 Jan 2026 08:00:00 GMT",
}

# What no service in the list combines: recursion, unions, documents, maps and lists of every kind, for each protocol.
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
    """Make a service with one operation whose answer has a bit of everything, and one whose answer is its payload."""
    shapes = json.loads(json.dumps(ODD_SHAPES))
    if protocol == "smithy-rpc-v2-cbor":
        del shapes["Root"]["members"]["Choice"], shapes["Root"]["members"]["Document"]
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
    if protocol == "smithy-rpc-v2-cbor":
        return CBORMaker
    return JSONMaker if "json" in protocol else XMLMaker


class Both:
    """Parses with both factories, and counts how often the fast one asked aiobotocore's parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fast: FastParserFactory = fast_parser_factory()
        self.stock = AioResponseParserFactory()
        self.asked = 0
        for protocol in ("query", "ec2", "rest-xml", "json", "rest-json", "smithy-rpc-v2-cbor"):
            self._watch(monkeypatch, type(self.fast.create_parser(protocol)))

    def _watch(self, monkeypatch: pytest.MonkeyPatch, parser_class: Any) -> None:
        ask = parser_class._parse_as_botocore

        def counted(parser: Any, response: Any, shape: Any) -> Any:
            self.asked += 1
            return ask(parser, response, shape)

        monkeypatch.setattr(parser_class, "_parse_as_botocore", counted)

    def check(self, service: str, operation: str, body: bytes, headers: dict[str, str], status: int = 200) -> str:
        """Assert that both say the same of an answer, and return what they say."""
        model = model_of(service)
        shape = model.operation_model(operation).output_shape
        said = [
            outcome(factory, model.resolved_protocol, shape, body, headers, status)
            for factory in (self.stock, self.fast, self.fast)
        ]

        assert said[1] == said[0], (service, operation, body)
        assert said[2] == said[0], (service, operation, body)
        return said[0]


def outcome(factory: Any, protocol: str, shape: Any, body: bytes, headers: dict[str, str], status: int) -> str:
    """Put into words all that a caller could see: `repr` has the values, their types and the order of the keys."""
    context = {"operation_name": "Any"}
    response = {"body": body, "headers": HeadersDict(headers), "status_code": status, "context": context}

    async def parse() -> Any:
        return await factory.create_parser(protocol).parse(response, shape)

    try:
        said = repr(drive(parse()))
    except Exception as error:
        said = f"{type(error)} {error}"
    return re.sub(" at 0x[0-9a-f]+>", ">", said)  # Elements, where botocore lets them out


def drive(coroutine: Any) -> Any:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a small body was not parsed at once")


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    return Both(monkeypatch)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_recorded_answers(both: Both, path: Path) -> None:
    """A recorded answer is parsed to botocore's dictionary, without botocore's parser."""
    service, operation, *_ = path.stem.split(".")
    body = path.read_bytes()
    if (path.suffix == ".json") != ("json" in model_of(service).resolved_protocol):
        pytest.skip("recorded in another protocol than this botocore speaks with the service")

    said = both.check(service, operation, body, HEADERS)

    assert said.startswith("{")
    assert both.asked == (2 if operation == "GetBucketAcl" else 0)  # its grantees have attributes


def operations() -> st.SearchStrategy[tuple[str, str]]:
    protocols = ("query", "ec2", "rest-xml", "json", "rest-json", "smithy-rpc-v2-cbor")
    odd = st.sampled_from([f"odd {protocol}" for protocol in protocols])
    return st.one_of(st.sampled_from(SERVICES), odd).flatmap(
        lambda service: st.tuples(st.just(service), st.sampled_from(sorted(model_of(service).operation_names)))
    )


def parseable(service: str, operation: str) -> bool:
    """Tell whether the operation's answer has a body that a parser reads: no stream, no bare text or bytes."""
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
def test_any_well_formed_answer(operation: tuple[str, str], seed: int) -> None:
    """Whatever a model allows is parsed as by botocore."""
    service, name = operation
    if not parseable(service, name):
        return
    model = model_of(service)
    maker: Any = maker_of(model.resolved_protocol)(seed)
    shape = model.operation_model(name).output_shape
    body = maker.document(model.resolved_protocol, shape)
    with pytest.MonkeyPatch.context() as monkeypatch:
        both = Both(monkeypatch)
        both.check(service, name, body, HEADERS)

        # Two members of this one share the name of their element, which is left to botocore.
        assert both.asked == 0 or operation == ("s3", "GetBucketNotification"), body


@given(operation=operations(), seed=st.integers(0, 2**32), trouble=st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=400, deadline=None)
def test_any_bent_answer(operation: tuple[str, str], seed: int, trouble: float) -> None:
    """Missing, unknown, repeated, empty, misplaced, ill-typed or broken parts give botocore's result or exception."""
    service, name = operation
    if not parseable(service, name):
        return
    model = model_of(service)
    maker: Any = maker_of(model.resolved_protocol)(seed, trouble=trouble)
    body = maker.document(model.resolved_protocol, model.operation_model(name).output_shape)
    headers = {**HEADERS, "X-Text": "é", "X-Names": "a, b ,c", "x-amz-meta-One": "1"}
    with pytest.MonkeyPatch.context() as monkeypatch:
        Both(monkeypatch).check(service, name, body, headers)


@given(
    path=st.sampled_from([path for path in RECORDED if path.stat().st_size < 20_000]),
    at=st.integers(0, 2**16),
    old=st.integers(0, 12),
    new=st.one_of(
        st.binary(max_size=3), st.sampled_from([b"<", b">", b"/>", b"</", b"&", b"&lt;", b" ", b"\r", b"<!--"])
    ),
)
@settings(max_examples=150, deadline=None)
def test_any_damage_to_a_recorded_answer(path: Path, at: int, old: int, new: bytes) -> None:
    """A recorded answer with some bytes lost and others in their place gives botocore's result or exception."""
    service, operation, *_ = path.stem.split(".")
    body = path.read_bytes()
    at %= len(body)
    if (path.suffix == ".json") != ("json" in model_of(service).resolved_protocol):
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        Both(monkeypatch).check(service, operation, body[:at] + new + body[at + old :], HEADERS)


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


@given(scraps=st.lists(st.sampled_from(SCRAPS), max_size=8), whole=st.booleans())
@settings(max_examples=600, deadline=None)
@example(scraps=["<a>", "]]>", "</a>"], whole=True)
@example(scraps=["<a>", "&#xFFFE;", "</a>"], whole=True)
@example(scraps=["<&#98;>x</b>"], whole=True)
@example(scraps=["<?XML version='1.0'?>", "<a>", "</a>"], whole=False)
def test_what_is_read_is_xml(scraps: list[str], whole: bool) -> None:
    """No document is accepted that ElementTree refuses, and the text of an element is what ElementTree says."""
    text = "".join(scraps)
    body = (f"<root><v>{text}</v></root>" if whole else text).encode()
    compiler = XMLCompiler(str, str, ())
    root = compiler.structure(ServiceModel(TEXT_MODEL).shape_for("Text"))
    try:
        parsed = parse_document(body, root)
    except Exception:
        return

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
def test_errors_are_botocores(both: Both, service: str, status: int) -> None:
    """Answers from 300 on go through aiobotocore's own code, as do pages of HTML that a proxy sends."""
    operation = min(model_of(service).operation_names)

    for body in (ERRORS[service], b"", b"<html><body>Bad gateway</body></html>"):
        both.check(service, operation, body, HEADERS, status)

    assert both.asked == 0


def test_a_shape_that_is_not_understood_is_botocores(both: Both) -> None:
    """Two members that share an element (S3's deprecated notifications) are left to botocore, each time."""
    body = (
        b"<NotificationConfiguration><TopicConfiguration><Id>i</Id><Event>s3:ObjectCreated:*</Event>"
        b"<Topic>t</Topic></TopicConfiguration></NotificationConfiguration>"
    )

    said = both.check("s3", "GetBucketNotification", body, HEADERS)

    assert "'Events': ['s3:ObjectCreated:*']" in said
    assert both.asked == 2


def test_a_shape_whose_bodies_are_never_plain_is_left_to_botocore(both: Both) -> None:
    """After sixteen bodies in a row that were not for the fast parser, it does not try the shape any more."""
    path = Path(__file__).parents[2] / "data" / "responses" / "s3.GetBucketAcl.xml"
    shape = model_of("s3").operation_model("GetBucketAcl").output_shape
    known = both.fast.create_parser("rest-xml").plans.find(shape)
    plain = re.sub(b' xmlns:xsi.*?"CanonicalUser"', b"", path.read_bytes())
    for _ in range(7):
        both.check("s3", "GetBucketAcl", path.read_bytes(), HEADERS)
    both.check("s3", "GetBucketAcl", plain, HEADERS)
    assert known.misses == 0
    assert known.plan is not None

    for _ in range(8):
        both.check("s3", "GetBucketAcl", path.read_bytes(), HEADERS)

    assert known.plan is None


def test_every_result_is_fresh(both: Both) -> None:
    """Changing what one call returned changes nothing of what the next returns."""
    shape = model_of("ec2").operation_model("DescribeVpcs").output_shape
    body = (Path(__file__).parents[2] / "data" / "responses" / "ec2.DescribeVpcs.xml").read_bytes()
    response = {"body": body, "headers": HEADERS, "status_code": 200}
    parser = both.fast.create_parser("ec2")
    first = drive(parser.parse(response, shape))
    said = repr(first)

    first["Vpcs"][0]["Tags"].append("mine")
    first["Vpcs"].append("mine")
    first["ResponseMetadata"].clear()

    assert repr(drive(parser.parse(response, shape))) == said


def test_a_users_own_parsers_are_used(both: Both) -> None:
    """`timestamp_parser` and `blob_parser` set on the factory reach the compiled parsers, also when set later."""
    response = {"body": b"<A><When>now</When><Bytes>AA==</Bytes></A>", "headers": {}, "status_code": 200}
    model = odd_model("ec2")
    model._shape_resolver._shape_map["Root"]["members"]["When"] = {"shape": "Stamp"}
    shape = model.operation_model("Root").output_shape
    seen = []
    for mark in ("one", "two"):
        both.fast.set_parser_defaults(timestamp_parser=lambda text, mark=mark: (mark, text), blob_parser=len)
        seen.append(drive(both.fast.create_parser("ec2").parse(response, shape)))

    assert [(parsed["When"], parsed["Bytes"]) for parsed in seen] == [(("one", "now"), 4), (("two", "now"), 4)]


def test_a_body_that_is_no_bytes_is_botocores(both: Both) -> None:
    """A streaming body passes through untouched."""
    stream = object()
    shape = model_of("s3").operation_model("GetObject").output_shape
    response = {"body": stream, "headers": HeadersDict({"content-length": "3"}), "status_code": 200}

    parsed = drive(both.fast.create_parser("rest-xml").parse(response, shape))

    assert parsed["Body"] is stream
    assert parsed["ContentLength"] == 3


def test_shapes_are_compiled_once(both: Both) -> None:
    """Responses find the compiled parser by the shape that every client of a model shares."""
    shape = model_of("sts").operation_model("AssumeRole").output_shape
    parser = both.fast.create_parser("query")
    known = parser.plans.find(shape)

    assert known.plan is not None
    assert parser.plans.find(shape) is known
    assert both.fast.create_parser("query") is parser


def test_threads_may_meet_a_shape_together() -> None:
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
        said = set(pool.map(parse, range(8)))

    assert said == {expected}


def test_an_unknown_protocol_is_aiobotocores() -> None:
    """A protocol that this library does not know keeps the parser that aiobotocore has for it, or its KeyError."""
    with pytest.raises(KeyError):
        fast_parser_factory().create_parser("carrier-pigeon")
