"""Endpoints: a URL of http or https with a host; user, password and query are never quoted."""

from __future__ import annotations

import pytest

from asyncauth import ConfigurationError, SessionPool
from asyncauth._aws.plain_http import check_endpoint_url


@pytest.mark.parametrize("url", ["http://localhost", "https://sts.cn-north-1.amazonaws.com.cn", "http://[::1]:4566/x"])
def test_urls_are_accepted(url: str) -> None:
    """A URL with http or https and a host is an endpoint."""
    check_endpoint_url("endpoint_url", url)


@pytest.mark.parametrize("url", ["localhost", "127.0.0.1:4566", "ftp://host", "http://", "//host", "", "http://[::1"])
def test_an_endpoint_without_scheme_or_host_is_refused_by_the_pool(url: str) -> None:
    """The constructor of a pool names the argument and its value, and what an endpoint begins with."""
    with pytest.raises(ConfigurationError, match=r"endpoint_url is .*must begin with http:// or https://"):
        SessionPool(endpoint_url=url)


def test_secrets_of_an_endpoint_are_not_quoted() -> None:
    """User and password before the host, and the query after it, are left out of the message."""
    with pytest.raises(ConfigurationError) as raised:
        check_endpoint_url("AWS_ENDPOINT_URL", "user:s3cr3t@host:1/x?token=s3cr3t")

    assert "AWS_ENDPOINT_URL is 'host:1/x'" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)
