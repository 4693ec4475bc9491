"""Equality of the cached user-agent with botocore's."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.config import Config
from botocore.context import start_as_current_context
from botocore.session import Session
from botocore.useragent import UserAgentString, register_feature_id

from asyncauth._clients.speedups.user_agent_cache import CachedUserAgent, cache_user_agent

pytestmark = pytest.mark.botocore


@pytest.fixture
def creator() -> UserAgentString:
    return Session().get_component("user_agent_creator")


@pytest.mark.parametrize(
    "config",
    [
        None,
        Config(),
        Config(retries={"mode": "standard"}),
        Config(user_agent="mine/1.0", user_agent_extra="more"),
        Config(user_agent_extra="md/tool#1"),
        Config(user_agent_appid="app", endpoint_discovery_enabled=True, retries={"mode": "adaptive"}),
    ],
)
def test_the_string_is_botocores(creator: UserAgentString, config: Config | None) -> None:
    """For every kind of config the header equals the original builder's, the first time and the second."""
    stock = creator.with_client_config(config)
    cached = cache_user_agent(creator).with_client_config(config)

    assert cached.to_string() == stock.to_string()
    assert cached.to_string() == stock.to_string()


def test_features_of_the_call_are_in_the_string(creator: UserAgentString) -> None:
    """Two calls with different features get different headers, each equal to botocore's."""
    cached = cache_user_agent(creator)
    seen = []
    for feature in ("WAITER", "PAGINATOR"):
        with start_as_current_context():
            register_feature_id(feature)
            assert cached.to_string() == creator.to_string()
            seen.append(cached.to_string())

    assert len({*seen, cached.to_string()}) == 3


def test_a_field_set_later_has_its_effect(creator: UserAgentString) -> None:
    """A change of session fields or of the config after the first use changes the header."""
    config = Config(user_agent_extra="one")
    stock = creator.with_client_config(config)
    cached = cache_user_agent(creator).with_client_config(config)
    first = cached.to_string()

    config.user_agent_extra = "two"
    for builder in (stock, cached):
        builder.set_session_config("aws-cli", "2.0", "session-extra")
        builder.set_client_features({"B"})

    assert cached.to_string() == stock.to_string() != first


def test_the_string_is_built_once(creator: UserAgentString, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients of one session with equal configs build one string, however many calls they make."""
    cached = cache_user_agent(creator)
    first, second = (cached.with_client_config(Config(retries={"mode": "standard"})) for _ in range(2))
    expected = first.to_string()
    monkeypatch.setattr(UserAgentString, "to_string", None)

    assert [second.to_string() for _ in range(3)] == [expected] * 3


def test_the_cache_is_bounded(creator: UserAgentString) -> None:
    """A user who changes the header for every call does not grow the cache without limit."""
    cached: Any = cache_user_agent(creator)
    for number in range(1000):
        cached.set_session_config("tool", str(number), None)
        cached.to_string()

    assert len(cached._cache) <= 256


def test_the_handler_rewrites_the_header(creator: UserAgentString) -> None:
    """botocore's handler puts the cached string into the request."""
    from botocore.awsrequest import AWSRequest

    cached = cache_user_agent(creator)
    request = AWSRequest("GET", "http://127.0.0.1/", headers={"User-Agent": "old"})

    cached.rebuild_and_replace_user_agent_handler("DescribeInstances", request)

    assert request.headers["User-Agent"] == creator.to_string()


def test_a_builder_of_another_class_is_not_cached(creator: UserAgentString) -> None:
    """A builder of another class, whose inputs are unknown, is returned unchanged, and so is a cached one."""
    cached = cache_user_agent(creator)

    assert isinstance(cached, CachedUserAgent)
    assert cache_user_agent(cached) is cached
