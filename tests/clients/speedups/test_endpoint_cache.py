"""Equality of cached endpoints with those that aiobotocore resolves."""

from __future__ import annotations

from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.regions import AioEndpointRulesetResolver
from aiobotocore.session import AioSession
from botocore.context import get_context, start_as_current_context

from asyncauth._clients.speedups import endpoint_cache
from asyncauth._clients.speedups.endpoint_cache import CachedEndpoints

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]


class CachedResolver(CachedEndpoints, AioEndpointRulesetResolver):
    pass


async def resolvers(service: str, region: str, **options: Any) -> tuple[Any, Any, Any]:
    """Return a client's own resolver, a caching one for the same client, and the service's model."""
    async with AioSession().create_client(
        service, region, aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret", **options
    ) as client:
        stock = client._ruleset_resolver
        cached = CachedResolver.__new__(CachedResolver)
        cached.__dict__.update(stock.__dict__)
        return stock, cached, client.meta.service_model


async def resolved(resolver: Any, operation: Any, arguments: dict[str, Any]) -> Any:
    """Resolve an endpoint and return all that a caller can observe: endpoint and features of the call, or the
    exception."""
    with start_as_current_context():
        try:
            endpoint = await resolver.construct_endpoint(operation, arguments, {})
        except Exception as error:
            return type(error), str(error)
        return endpoint, get_context().features


ARGUMENTS: list[dict[str, Any]] = [{}, {"Bucket": "bucket", "Key": "key"}, {"Bucket": "arn:aws:s3:eu-west-1:1:bad"}]


@pytest.mark.parametrize(
    ("service", "region", "options"),
    [
        ("sts", "eu-west-1", {}),
        ("sts", "cn-north-1", {"endpoint_url": "http://127.0.0.1:1"}),
        ("s3", "eu-west-1", {"config": AioConfig(s3={"addressing_style": "path"})}),
        ("dynamodb", "us-west-2", {"config": AioConfig(account_id_endpoint_mode="preferred", use_fips_endpoint=True)}),
        ("events", "us-gov-west-1", {}),
    ],
)
async def test_every_operation(service: str, region: str, options: dict[str, Any]) -> None:
    """For all operations of a service, with and without arguments, the first and second result are aiobotocore's."""
    stock, cached, model = await resolvers(service, region, **options)
    for name in model.operation_names:
        operation = model.operation_model(name)
        for arguments in ARGUMENTS if service == "s3" else ARGUMENTS[:1]:
            expected = await resolved(stock, operation, arguments)

            assert await resolved(cached, operation, arguments) == expected
            assert await resolved(cached, operation, arguments) == expected


async def test_an_endpoint_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call of an operation does not resolve again, and a change of its result does not affect the third."""
    _, cached, model = await resolvers("sts", "eu-west-1")
    operation = model.operation_model("AssumeRole")
    with_header = (await cached.construct_endpoint(operation, {}, {}))._replace(headers={"x-amz-from": "the rules"})
    ((key, (params, _)),) = cached.cache.endpoints.items()
    cached.cache.add(key, params, with_header)
    monkeypatch.setattr(AioEndpointRulesetResolver, "construct_endpoint", None)

    (await cached.construct_endpoint(operation, {}, {})).headers.clear()

    assert await cached.construct_endpoint(operation, {}, {}) == with_header


async def test_debug_logs_are_complete(caplog: pytest.LogCaptureFixture) -> None:
    """While its log is at DEBUG, aiobotocore resolves every time, and logs it."""
    stock, cached, model = await resolvers("sts", "eu-west-1")
    operation = model.operation_model("AssumeRole")
    with caplog.at_level("DEBUG", "aiobotocore.regions"):
        for resolver in (stock, cached, cached):
            caplog.clear()
            await resolver.construct_endpoint(operation, {}, {})

            assert [record.message.split(":")[0] for record in caplog.records] == [
                "Calling endpoint provider with parameters",
                "Endpoint provider result",
            ]


async def test_a_handler_that_changes_a_builtin_is_called_once_per_call() -> None:
    """`before-endpoint-resolution` is emitted for each call, and a handler's change affects this call alone."""
    stock, cached, model = await resolvers("sts", "eu-west-1")
    regions = ["eu-west-1", "us-east-2", "eu-west-1"]
    calls = iter(regions)
    stock._event_emitter.register(
        "before-endpoint-resolution", lambda builtins, **_: builtins.update({"AWS::Region": next(calls)})
    )

    seen = [await cached.construct_endpoint(model.operation_model("AssumeRole"), {}, {}) for _ in regions]

    assert [endpoint.url for endpoint in seen] == [f"https://sts.{region}.amazonaws.com" for region in regions]


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that change a builtin each time do not grow the cache without limit."""
    monkeypatch.setattr(endpoint_cache, "_MAX_ENDPOINTS", 10)
    _, cached, model = await resolvers("sts", "eu-west-1")
    for number in range(50):
        cached._builtins = {**cached._builtins, "AWS::Region": f"eu-west-{number}"}
        await cached.construct_endpoint(model.operation_model("AssumeRole"), {}, {})

    assert len(cached.cache.endpoints) <= 10
