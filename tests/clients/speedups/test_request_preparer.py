"""Equality of fast prepared requests with botocore's."""

from __future__ import annotations

import functools
import io
from typing import Any

import pytest
from aiobotocore.endpoint import AioEndpoint
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSRequestPreparer, HeadersDict
from botocore.endpoint import Endpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._clients import ClientFactory
from asyncauth._clients.speedups.request_preparer import FastRequests, _FastHeaders, _is_botocores
from tests.support.clients import ALICE, FakeIdentity, serving

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]


class Fast(FastRequests, Endpoint):
    pass


STOCK, FAST = (kind("https://ec2.eu-west-1.amazonaws.com", "ec2", None) for kind in (Endpoint, Fast))

names = st.sampled_from(
    ["Content-Type", "content-type", "Content-Length", "Transfer-Encoding", "X-Amz-Date", "User-Agent", "x-amz-meta-a"]
)
values = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    st.text(st.characters(min_codepoint=32), max_size=4),  # surrogates among them
    st.binary(max_size=4),
    st.integers(0, 9),
)
bodies = st.one_of(
    st.none(),
    st.binary(max_size=8),
    st.text(max_size=4),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.integers(), max_size=2),
    st.tuples(st.just("stream"), st.binary(max_size=8)),
    st.tuples(st.just("endless"), st.binary(max_size=8)),
)


class UnknownLength:
    """Body of unknown length."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def prepared(endpoint: Any, method: str, headers: list[tuple[str, Any]], body: Any, params: Any) -> object:
    """Return all that a caller can observe of a prepared request, or the exception."""
    data = {"stream": io.BytesIO, "endless": UnknownLength}[body[0]](body[1]) if isinstance(body, tuple) else body
    request = AWSRequest(method, "https://ec2.eu-west-1.amazonaws.com/", data=data, params=params)
    for name, value in headers:
        request.headers[name] = value
    request.context["client_region"] = "eu-west-1"
    try:
        made = endpoint.prepare_request(request)
    except Exception as error:
        return type(error), str(error)
    assert isinstance(made, AWSPreparedRequest)
    assert isinstance(made.headers, HeadersDict)
    fields = {name: value for name, value in vars(made).items() if name not in ("headers", "body")}
    # The email package makes Header objects of surrogates, which have no equality and no text.
    items = [(name, value if isinstance(value, str | bytes) else type(value)) for name, value in made.headers.items()]
    return fields, items, list(made.headers), body if isinstance(body, tuple) else made.body


@given(
    method=st.sampled_from(["POST", "GET", "PUT", "HEAD"]),
    headers=st.lists(st.tuples(names, values), max_size=5),
    body=bodies,
    params=st.sampled_from([None, {"q": "1"}]),
)
@settings(max_examples=500, deadline=None)
def test_a_request_is_prepared_as_by_botocore(
    method: str, headers: list[tuple[str, Any]], body: Any, params: Any
) -> None:
    """Any headers and body give the same URL, headers in the same order and body, or the same exception."""
    assert prepared(FAST, method, headers, body, params) == prepared(STOCK, method, headers, body, params)


def test_a_plain_request_takes_the_fast_path() -> None:
    """A plain request does not go through botocore's preparer, so the test above compares two implementations."""
    made = FAST.prepare_request(AWSRequest("POST", "http://h/", headers={"A": "1"}, data={"Action": "X"}))

    assert type(made.headers) is _FastHeaders
    assert list(made.headers.items()) == [("A", b"1"), ("Content-Length", "8")]
    assert made.headers["content-length"] == "8"


def test_a_request_with_another_preparer_is_left_to_it() -> None:
    """A preparer that a handler has set on the request is used."""

    class Own(AWSRequestPreparer):
        def prepare(self, original: Any) -> str:
            return f"prepared by its own: {original.url}"

    request = AWSRequest("POST", "http://h/")
    request._request_preparer = Own()

    assert FAST.prepare_request(request) == "prepared by its own: http://h/"


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        (AioEndpoint, "prepare_request"),
        (Endpoint, "prepare_request"),
        (Endpoint, "_encode_headers"),
        (AioEndpoint, "_encode_headers"),
        (AWSRequest, "prepare"),
        (AWSRequestPreparer, "prepare"),
        (AWSRequestPreparer, "_prepare_headers"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_tracers_patch_is_called(holder: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """X-Ray and OpenTelemetry add a header in one of these methods; a bound client sends it as botocore's client
    does."""
    original = getattr(holder, name)

    def patched(self: Any, *arguments: Any) -> Any:
        calls.append(name)
        return original(self, *arguments)

    calls: list[str] = []
    monkeypatch.setattr(holder, name, patched)
    factory = ClientFactory(max_connections=1)
    async with serving() as server:
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
        await client.get_caller_identity()
        await factory.aclose()

    assert calls[:1] == [name]


def test_a_patch_installed_before_import_is_detected() -> None:
    """A method that was patched before this module was imported is not botocore's own."""

    def foreign(*_: Any) -> None: ...

    assert _is_botocores(Endpoint.prepare_request)
    assert not _is_botocores(foreign)
    assert not _is_botocores(functools.wraps(Endpoint.prepare_request)(foreign))
