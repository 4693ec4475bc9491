"""The remembered user-agent is botocore's, letter for letter."""

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
    """For every kind of config the header equals what the wrapped builder gives, the first time and the second."""
    stock = creator.with_client_config(config)
    memo = cache_user_agent(creator).with_client_config(config)

    assert memo.to_string() == stock.to_string()
    assert memo.to_string() == stock.to_string()


def test_features_of_the_call_are_in_the_string(creator: UserAgentString) -> None:
    """Two calls that use different features get different headers, each the one that botocore builds."""
    memo = cache_user_agent(creator)
    seen = []
    for feature in ("WAITER", "PAGINATOR"):
        with start_as_current_context():
            register_feature_id(feature)
            assert memo.to_string() == creator.to_string()
            seen.append(memo.to_string())

    assert len({*seen, memo.to_string()}) == 3


def test_a_field_set_later_is_seen(creator: UserAgentString) -> None:
    """Session fields and the config can change under a builder that has answered before."""
    config = Config(user_agent_extra="one")
    stock = creator.with_client_config(config)
    memo = cache_user_agent(creator).with_client_config(config)
    first = memo.to_string()

    config.user_agent_extra = "two"
    for builder in (stock, memo):
        builder.set_session_config("aws-cli", "2.0", "session-extra")
        builder.set_client_features({"B"})

    assert memo.to_string() == stock.to_string() != first


def test_the_string_is_built_once(creator: UserAgentString, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients of one session with equal configs build one string between them, whatever the number of calls."""
    memo = cache_user_agent(creator)
    first, second = (memo.with_client_config(Config(retries={"mode": "standard"})) for _ in range(2))
    expected = first.to_string()
    monkeypatch.setattr(UserAgentString, "to_string", None)

    assert [second.to_string() for _ in range(3)] == [expected] * 3


def test_the_memory_is_bounded(creator: UserAgentString) -> None:
    """A user who changes the header for every call does not fill the memory."""
    memo: Any = cache_user_agent(creator)
    for number in range(1000):
        memo.set_session_config("tool", str(number), None)
        memo.to_string()

    assert len(memo._remembered) <= 256


def test_the_handler_rewrites_the_header(creator: UserAgentString) -> None:
    """The handler that botocore registers on the builder puts the remembered string into the request."""
    from botocore.awsrequest import AWSRequest

    memo = cache_user_agent(creator)
    request = AWSRequest("GET", "http://127.0.0.1/", headers={"User-Agent": "old"})

    memo.rebuild_and_replace_user_agent_handler("DescribeInstances", request)

    assert request.headers["User-Agent"] == creator.to_string()


def test_a_foreign_builder_is_left_alone(creator: UserAgentString) -> None:
    """A builder of another class, whose inputs nobody knows, comes back as it is, and so does a wrapped one."""
    memo = cache_user_agent(creator)

    assert isinstance(memo, CachedUserAgent)
    assert cache_user_agent(memo) is memo
