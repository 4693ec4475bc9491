"""The quick signature is botocore's: the same headers, in the same order, for the same request at the same second."""

from __future__ import annotations

import datetime as dt
import importlib
import io
import logging
from typing import Any

import botocore.auth
import pytest
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.signers import AioRequestSigner
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._clients import ClientFactory
from asyncauth._clients.speedups import sigv4 as _signing
from asyncauth._clients.speedups.sigv4 import _MAX_URLS, FastSigning, FastSigV4Auth, _known_urls
from tests.support.clients import ALICE, FakeIdentity, serving

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]

NOW = dt.datetime(2026, 1, 31, 8, 0, 0)


@pytest.fixture(autouse=True)
def _second_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: NOW)


#: One for all, so that what it remembers of one request meets the next.
SIGNER = FastSigning()


def quick(*arguments: Any) -> FastSigV4Auth:
    return FastSigV4Auth(SigV4Auth(*arguments), SIGNER)


def signed(auth_class: Any, arguments: dict[str, Any], context: dict[str, Any], token: str | None) -> object:
    """Sign a new request twice, as a retry does, and tell all that became of it; or the exception."""
    data = arguments.get("data")
    request = AWSRequest(**{**arguments, "data": io.BytesIO(data[1]) if isinstance(data, tuple) else data})
    request.context.update(context)
    auth = auth_class(ReadOnlyCredentials("AKIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token), "ec2", "eu-west-1")
    try:
        auth.add_auth(request)
        auth.add_auth(request)
        prepared = request.prepare()
    except Exception as error:
        return type(error), str(error)
    return request.headers.items(), prepared.headers.items(), prepared.url, request.context, str(prepared.body)[:20]


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
header_names = st.sampled_from(
    [
        "Content-Type",
        "User-Agent",
        "X-Amz-Target",
        "X-Custom",
        "x-custom",
        "Host",
        "Date",
        "Expect",
        "Connection",
        "Authorization",
        "X-Amz-Date",
        "X-Amz-Security-Token",
        "X-Amz-Content-SHA256",
        "traceparent",
    ]
)
header_values = st.one_of(
    st.sampled_from(["application/x-amz-json-1.1", "  a   b ", "", "\N{LATIN SMALL LETTER E WITH ACUTE}"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10),
    st.integers(0, 9),
    st.binary(max_size=3),
)
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["https", "http"]),
    st.sampled_from(["ec2.eu-west-1.amazonaws.com", "EC2.example:443", "127.0.0.1:8080", "[::1]:80", "h:80"]),
    st.sampled_from(["", "/", "/a/../b//c", "/2015-03-31/functions/a%20b:1/", "/\N{SNOWMAN}", "/x~y+z"]),
    st.sampled_from(["", "", "", "?a=1&b=2", "?"]),
)
bodies = st.one_of(
    st.none(),
    st.binary(max_size=8),
    words,
    st.dictionaries(words, st.one_of(words, st.integers(), st.booleans(), st.lists(words, max_size=2)), max_size=4),
    st.tuples(st.just("stream"), st.binary(max_size=8)),
)
contexts = st.sampled_from(
    [
        {},
        {"client_region": "eu-west-1"},
        {"payload_signing_enabled": False},
        {"payload_signing_enabled": True},
        {"checksum": {"request_algorithm": {"in": "trailer"}}},
        {"checksum": {}},
    ]
)


@given(
    method=st.sampled_from(["POST", "GET", "put"]),
    url=urls,
    headers=st.dictionaries(header_names, header_values, max_size=4),
    data=bodies,
    params=st.sampled_from([None, None, {}, {"q": "1"}]),
    context=contexts,
    token=st.sampled_from([None, "", "IQoJb3JpZ2luX2VjEXAMPLE=="]),
)
@settings(max_examples=600, deadline=None)
def test_any_request_is_signed_as_by_botocore(
    method: str, url: str, headers: Any, data: Any, params: Any, context: dict[str, Any], token: str | None
) -> None:
    """Every request gets the headers that `SigV4Auth` gives it, or its exception; also when it is signed again."""
    arguments = {"method": method, "url": url, "headers": headers, "data": data, "params": params}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: NOW)
        expected = signed(SigV4Auth, arguments, context, token)

        assert signed(quick, arguments, context, token) == expected


@given(
    secrets=st.lists(st.sampled_from(["secret", "other", "secret"]), min_size=2, max_size=6),
    region=st.sampled_from(["eu-west-1", "cn-north-1"]),
    service=st.sampled_from(["ec2", "sts"]),
    day=st.sampled_from([31, 30]),
)
@settings(deadline=None)
def test_a_key_is_derived_anew_when_anything_of_it_changes(
    secrets: list[str], region: str, service: str, day: int
) -> None:
    """New credentials, another day, region or service are signed for as by botocore, whatever was signed before."""
    for secret in secrets:
        credentials = ReadOnlyCredentials("AKIAEXAMPLE", secret, None)
        signatures = []
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: NOW.replace(day=day))
            for auth in (SigV4Auth(credentials, service, region), quick(credentials, service, region)):
                request = plain_request()
                auth.add_auth(request)
                signatures.append(request.headers["Authorization"])

        assert signatures[0] == signatures[1]


def test_a_key_is_derived_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same credentials, the second request needs no new key."""
    arguments = (ReadOnlyCredentials("AKIAEXAMPLE", "secret", None), "sts", "eu-west-1")
    quick(*arguments).add_auth(plain_request())
    monkeypatch.setattr(_signing, "DerivedKey", None)
    request = plain_request()

    quick(*arguments).add_auth(request)

    assert "Authorization" in request.headers


@given(st.dictionaries(words, st.one_of(words, st.integers(), st.booleans(), st.none(), st.lists(words)), max_size=4))
@settings(deadline=None)
def test_a_form_is_encoded_as_by_botocore(data: dict[str, Any]) -> None:
    """Whatever the fields are, what is signed and sent is what botocore would send."""
    assert _signing._form(data) == AWSRequest("POST", "http://h/", data=data).prepare().body


def plain_request() -> AWSRequest:
    data = {"Action": "DescribeInstances", "Version": "2016-11-15"}
    return AWSRequest("POST", "https://ec2.eu-west-1.amazonaws.com/", data=data)


def test_a_plain_request_is_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request of a query service is signed without botocore's canonical request."""
    monkeypatch.setattr(SigV4Auth, "canonical_request", None)
    request = plain_request()

    quick(ReadOnlyCredentials("AKIAEXAMPLE", "secret", None), "ec2", "eu-west-1").add_auth(request)

    assert request.headers["Authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260131/eu-west-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, "
    )


def test_debug_logs_are_botocores(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, botocore's own code signs, and logs what it always logs."""
    with caplog.at_level(logging.DEBUG, "botocore.auth"):
        quick(ReadOnlyCredentials("AKIAEXAMPLE", "secret", None), "ec2", "eu-west-1").add_auth(plain_request())

    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "Calculating signature using v4 auth.",
        "CanonicalRequest",
        "StringToSign",
        "Signature",
    ]


def test_no_credentials_is_botocores_error() -> None:
    """Signing without credentials raises what botocore raises."""
    with pytest.raises(NoCredentialsError):
        quick(None, "ec2", "eu-west-1").add_auth(plain_request())


def test_the_memory_of_urls_is_bounded() -> None:
    """A service whose resources are in its paths does not fill the memory."""
    auth = quick(ReadOnlyCredentials("AKIAEXAMPLE", "secret", None), "lambda", "eu-west-1")
    for number in range(2 * _MAX_URLS):
        auth.add_auth(AWSRequest("POST", f"https://lambda.eu-west-1.amazonaws.com/f/{number}", data=b""))

    assert len(_known_urls) <= _MAX_URLS


class Signer(FastSigning, AioRequestSigner):
    pass


class Credentials:
    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials("AKIAEXAMPLE", "secret", None)


async def test_a_handler_after_the_signer_finds_the_fields_of_the_form() -> None:
    """What is signed is sent, encoded once; the request's data stays what it was, as with botocore."""
    factory, seen = ClientFactory(max_connections=1), []
    async with serving() as server:
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
        client.meta.events.register_last("request-created", lambda request, **_: seen.append(request.data))
        await client.get_caller_identity()
        await factory.aclose()

    assert seen == [{"Action": "GetCallerIdentity", "Version": "2011-06-15"}]
    assert server.seen[0].body == b"Action=GetCallerIdentity&Version=2011-06-15"


@pytest.mark.parametrize(
    ("version", "replaced"), [("v4", True), ("s3v4", False), ("v4-query", False), ("v2", False), ("s3v4-query", False)]
)
async def test_only_plain_v4_is_replaced(version: str, replaced: bool) -> None:
    """Presigning, S3's signatures and the older ones stay with botocore; v4 is replaced, with and without awscrt."""
    events = AioHierarchicalEmitter()
    signer = Signer("id", "eu-west-1", "ec2", version, Credentials(), events)

    auth = await signer.get_auth_instance("ec2", "eu-west-1", version)

    stock = botocore.auth.AUTH_TYPE_MAPS[version]
    assert type(auth) is (FastSigV4Auth if replaced else stock)
    assert not replaced or type(auth._auth) is stock


def test_awscrt_signs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where awscrt is installed, its signature of a plain request is ours."""
    pytest.importorskip("awscrt")
    crt: Any = importlib.import_module("botocore.crt.auth")
    monkeypatch.setattr(crt, "get_current_datetime", lambda **_: NOW.replace(tzinfo=dt.UTC))
    credentials = ReadOnlyCredentials("AKIAEXAMPLE", "secret", "token")
    signatures = []
    for auth in (crt.CrtSigV4Auth(credentials, "ec2", "eu-west-1"), quick(credentials, "ec2", "eu-west-1")):
        request = plain_request()
        auth.add_auth(request)
        signatures.append(request.headers["Authorization"])

    assert signatures[0] == signatures[1]
