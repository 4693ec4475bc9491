"""Keys of configs: equal for equal options."""

from __future__ import annotations

import pytest
from aiobotocore.config import AioConfig
from botocore.config import Config

from asyncauth._clients.config import config_key, freeze, options_of

pytestmark = pytest.mark.botocore


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (AioConfig(), Config(), True),
        (AioConfig(read_timeout=1), Config(read_timeout=1), True),
        (AioConfig(read_timeout=1), Config(read_timeout=2), False),
        (AioConfig(s3={"addressing_style": "path"}), AioConfig(s3={"addressing_style": "path"}), True),
        (AioConfig(s3={"addressing_style": "path"}), AioConfig(s3={"addressing_style": "virtual"}), False),
        (AioConfig(connector_args={"force_close": True}), AioConfig(connector_args={"force_close": True}), True),
        (AioConfig(connector_args={"force_close": True}), AioConfig(), False),
        (
            AioConfig(warm_up_loader_caches=True) if hasattr(AioConfig(), "warm_up_loader_caches") else Config(),
            Config(),
            True,
        ),
    ],
)
def test_configs_are_compared_by_their_options(one: Config, other: Config, same: bool) -> None:
    """Equal options give equal keys, whatever their class and order."""
    assert (config_key(one) == config_key(other)) is same


def test_unhashable_values_are_compared_by_identity() -> None:
    """An unhashable value is equal to itself alone."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    one, other = Unhashable(), Unhashable()

    assert freeze([one]) == freeze([one])
    assert freeze([one]) != freeze([other])
    assert hash(freeze({"a": {1, 2}, "b": one})) == hash(freeze({"b": one, "a": {2, 1}}))


def test_options_are_those_that_were_given() -> None:
    """An option that a config leaves at its default is not returned, so it does not override another config's."""
    assert options_of(None) == {}
    assert options_of(AioConfig(read_timeout=5)) == {"read_timeout": 5}
