"""Equality of the fast signature with botocore's: the same headers in the same order."""

from __future__ import annotations

import datetime as dt
import hmac
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
from asyncauth._clients.speedups import sigv4
from asyncauth._clients.speedups.sigv4 import _MAX_KEYS, _MAX_URLS, FastSigning, FastSigV4Auth, _known_urls
from asyncauth._models import Credentials
from tests.support.clients import ALICE, FakeIdentity, serving

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]

NOW = dt.datetime(2026, 1, 31, 8, 0, 0)


@pytest.fixture(autouse=True)
def _second_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: NOW)


def fast(*arguments: Any) -> FastSigV4Auth:
    return FastSigV4Auth(SigV4Auth(*arguments))


def signed(auth_class: Any, arguments: dict[str, Any], context: dict[str, Any], token: str | None) -> object:
    """Sign a new request twice, as a retry does, and return all that a caller can observe, or the exception."""
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
    """Every request gets the headers of `SigV4Auth`, or its exception; also when it is signed again."""
    arguments = {"method": method, "url": url, "headers": headers, "data": data, "params": params}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: NOW)
        expected = signed(SigV4Auth, arguments, context, token)

        assert signed(fast, arguments, context, token) == expected


@given(
    secrets=st.lists(st.sampled_from(["secret", "other", "secret"]), min_size=2, max_size=6),
    region=st.sampled_from(["eu-west-1", "cn-north-1"]),
    service=st.sampled_from(["ec2", "sts"]),
    day=st.sampled_from([31, 30]),
)
@settings(deadline=None)
def test_a_key_is_derived_again_after_any_change(secrets: list[str], region: str, service: str, day: int) -> None:
    """After a change of credentials, day, region or service the signature is botocore's."""
    for secret in secrets:
        credentials = Credentials("AKIAEXAMPLE", secret)
        fast(credentials, "sts", "eu-west-1").add_auth(plain_request())
        signatures = []
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: NOW.replace(day=day))
            for auth in (SigV4Auth(credentials, service, region), fast(credentials, service, region)):
                request = plain_request()
                auth.add_auth(request)
                signatures.append(request.headers["Authorization"])

        assert signatures[0] == signatures[1]


def test_a_key_is_derived_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same credentials, the second request needs no new key."""
    arguments = (Credentials("AKIAEXAMPLE", "secret"), "sts", "eu-west-1")
    fast(*arguments).add_auth(plain_request())
    digests: list[object] = []
    digest = hmac.digest
    monkeypatch.setattr(sigv4.hmac, "digest", lambda *of: digests.append(of) or digest(*of))
    request = plain_request()

    fast(*arguments).add_auth(request)

    assert "Authorization" in request.headers
    assert len(digests) == 1


def test_the_keys_of_credentials_are_bounded() -> None:
    """Keys that live for months do not collect one derived key for each day, region and service."""
    credentials = Credentials("AKIAEXAMPLE", "secret")
    for number in range(2 * _MAX_KEYS):
        fast(credentials, f"service-{number}", "eu-west-1").add_auth(plain_request())

    assert len(credentials.derived_keys) <= _MAX_KEYS


@given(st.dictionaries(words, st.one_of(words, st.integers(), st.booleans(), st.none(), st.lists(words)), max_size=4))
@settings(deadline=None)
def test_a_form_is_encoded_as_by_botocore(data: dict[str, Any]) -> None:
    """For any fields, the signed and sent body is the one that botocore would send."""
    assert sigv4._form(data) == AWSRequest("POST", "http://h/", data=data).prepare().body


def plain_request() -> AWSRequest:
    data = {"Action": "DescribeInstances", "Version": "2016-11-15"}
    return AWSRequest("POST", "https://ec2.eu-west-1.amazonaws.com/", data=data)


def test_a_plain_request_is_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query service's request is signed without botocore's canonical request."""
    monkeypatch.setattr(SigV4Auth, "canonical_request", None)
    request = plain_request()

    fast(ReadOnlyCredentials("AKIAEXAMPLE", "secret", None), "ec2", "eu-west-1").add_auth(request)

    assert request.headers["Authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260131/eu-west-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, "
    )


def test_debug_logs_are_botocores(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, botocore's own code signs, and logs its usual messages."""
    with caplog.at_level(logging.DEBUG, "botocore.auth"):
        fast(ReadOnlyCredentials("AKIAEXAMPLE", "secret", None), "ec2", "eu-west-1").add_auth(plain_request())

    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "Calculating signature using v4 auth.",
        "CanonicalRequest",
        "StringToSign",
        "Signature",
    ]


def test_no_credentials_is_botocores_error() -> None:
    """Signing without credentials raises botocore's error."""
    with pytest.raises(NoCredentialsError):
        fast(None, "ec2", "eu-west-1").add_auth(plain_request())


def test_the_cache_of_urls_is_bounded() -> None:
    """A service with resources in its paths does not grow the cache without limit."""
    auth = fast(ReadOnlyCredentials("AKIAEXAMPLE", "secret", None), "lambda", "eu-west-1")
    for number in range(2 * _MAX_URLS):
        auth.add_auth(AWSRequest("POST", f"https://lambda.eu-west-1.amazonaws.com/f/{number}", data=b""))

    assert len(_known_urls) <= _MAX_URLS


class Signer(FastSigning, AioRequestSigner):
    pass


class Provider:
    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials("AKIAEXAMPLE", "secret", None)


async def test_a_handler_after_the_signer_finds_the_fields_of_the_form() -> None:
    """The request's data stays the form, as with botocore, and the body that was signed is sent."""
    factory, seen = ClientFactory(max_connections=1), []
    async with serving() as server:
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
        client.meta.events.register_last("request-created", lambda request, **_: seen.append(request.data))
        await client.get_caller_identity()
        await factory.aclose()

    assert seen == [{"Action": "GetCallerIdentity", "Version": "2011-06-15"}]
    assert server.received[0].body == b"Action=GetCallerIdentity&Version=2011-06-15"


@pytest.mark.parametrize(
    ("version", "replaced"), [("v4", True), ("s3v4", False), ("v4-query", False), ("v2", False), ("s3v4-query", False)]
)
async def test_only_plain_v4_is_replaced(version: str, replaced: bool) -> None:
    """botocore signs URLs, S3 requests and older signatures; v4 is replaced, with and without awscrt."""
    events = AioHierarchicalEmitter()
    signer = Signer("id", "eu-west-1", "ec2", version, Provider(), events)

    auth = await signer.get_auth_instance("ec2", "eu-west-1", version)

    stock = botocore.auth.AUTH_TYPE_MAPS[version]
    assert type(auth) is (FastSigV4Auth if replaced else stock)
    assert not replaced or type(auth._auth) is stock


def test_awscrt_signs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """If awscrt is installed, its signature of a plain request is equal."""
    pytest.importorskip("awscrt")
    crt: Any = importlib.import_module("botocore.crt.auth")
    monkeypatch.setattr(crt, "get_current_datetime", lambda **_: NOW.replace(tzinfo=dt.UTC))
    credentials = ReadOnlyCredentials("AKIAEXAMPLE", "secret", "token")
    signatures = []
    for auth in (crt.CrtSigV4Auth(credentials, "ec2", "eu-west-1"), fast(credentials, "ec2", "eu-west-1")):
        request = plain_request()
        auth.add_auth(request)
        signatures.append(request.headers["Authorization"])

    assert signatures[0] == signatures[1]
