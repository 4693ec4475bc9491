"""Remembered endpoint parameters lead to the endpoints that aiobotocore resolves."""

from __future__ import annotations

from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.regions import AioEndpointRulesetResolver
from aiobotocore.session import AioSession
from botocore.context import get_context, start_as_current_context

from asyncauth._clients.speedups import endpoint_cache as _endpoints
from asyncauth._clients.speedups.endpoint_cache import CachedEndpoints

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]


class Memo(CachedEndpoints, AioEndpointRulesetResolver):
    pass


async def resolvers(service: str, region: str, **options: Any) -> tuple[Any, Any, Any]:
    """Return a client's own resolver, one with a memory for the same client, and the service's model."""
    async with AioSession().create_client(
        service, region, aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret", **options
    ) as client:
        stock = client._ruleset_resolver
        memo = Memo.__new__(Memo)
        memo.__dict__.update(stock.__dict__)
        return stock, memo, client.meta.service_model


async def resolved(resolver: Any, operation: Any, arguments: dict[str, Any]) -> Any:
    """Resolve, and give all that comes of it: the endpoint, the features of the call, or the exception."""
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
    """For all operations of a service, with and without arguments, first and second answer are aiobotocore's."""
    stock, memo, model = await resolvers(service, region, **options)
    for name in model.operation_names:
        operation = model.operation_model(name)
        for arguments in ARGUMENTS if service == "s3" else ARGUMENTS[:1]:
            expected = await resolved(stock, operation, arguments)

            assert await resolved(memo, operation, arguments) == expected
            assert await resolved(memo, operation, arguments) == expected


async def test_an_endpoint_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call of an operation does not ask botocore again, and cannot spoil what the third gets."""
    _, memo, model = await resolvers("sts", "eu-west-1")
    operation = model.operation_model("AssumeRole")
    with_header = (await memo.construct_endpoint(operation, {}, {}))._replace(headers={"x-amz-from": "the rules"})
    ((key, (params, _)),) = memo.remembered.endpoints.items()
    memo.remembered.add(key, params, with_header)
    monkeypatch.setattr(AioEndpointRulesetResolver, "construct_endpoint", None)

    (await memo.construct_endpoint(operation, {}, {})).headers.clear()

    assert await memo.construct_endpoint(operation, {}, {}) == with_header


async def test_what_aiobotocore_logs_is_logged_for_each_call(caplog: pytest.LogCaptureFixture) -> None:
    """While its log is at DEBUG, aiobotocore resolves every time, and says so."""
    stock, memo, model = await resolvers("sts", "eu-west-1")
    operation = model.operation_model("AssumeRole")
    with caplog.at_level("DEBUG", "aiobotocore.regions"):
        for resolver in (stock, memo, memo):
            caplog.clear()
            await resolver.construct_endpoint(operation, {}, {})

            assert [record.message.split(":")[0] for record in caplog.records] == [
                "Calling endpoint provider with parameters",
                "Endpoint provider result",
            ]


async def test_a_handler_that_changes_a_builtin_is_heard_once_per_call() -> None:
    """`before-endpoint-resolution` is emitted for each call, and what its handler sets counts for this call alone."""
    stock, memo, model = await resolvers("sts", "eu-west-1")
    regions = ["eu-west-1", "us-east-2", "eu-west-1"]
    calls = iter(regions)
    stock._event_emitter.register(
        "before-endpoint-resolution", lambda builtins, **_: builtins.update({"AWS::Region": next(calls)})
    )

    seen = [await memo.construct_endpoint(model.operation_model("AssumeRole"), {}, {}) for _ in regions]

    assert [endpoint.url for endpoint in seen] == [f"https://sts.{region}.amazonaws.com" for region in regions]


async def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that change a builtin each time do not fill the memory."""
    monkeypatch.setattr(_endpoints, "_MAX_REMEMBERED", 10)
    _, memo, model = await resolvers("sts", "eu-west-1")
    for number in range(50):
        memo._builtins = {**memo._builtins, "AWS::Region": f"eu-west-{number}"}
        await memo.construct_endpoint(model.operation_model("AssumeRole"), {}, {})

    assert len(memo.remembered.endpoints) <= 10
