"""URLs and credentials: endpoints are well-formed and encrypted, and URLs are shown without their secrets."""

from __future__ import annotations

import pytest

from asyncauth import ConfigurationError, SessionPool
from asyncauth._aws.plain_http import check_endpoint_url, is_loopback, mask_urls, refuse_plain_http, without_secrets

SECRET = "marked"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://sts.cn-north-1.amazonaws.com.cn", "https://sts.cn-north-1.amazonaws.com.cn"),
        ("http://127.0.0.1:5000/path", "http://127.0.0.1:5000/path"),
        (f"http://user:{SECRET}@gateway:80/path", "http://***@gateway:80/path"),
        (f"http://{SECRET}@gateway", "http://***@gateway"),
        (f"http://user:p@{SECRET}@gateway", "http://***@gateway"),
        (f"https://gateway/?key={SECRET}", "https://gateway/?***"),
        (f"https://gateway/#{SECRET}", "https://gateway/?***"),
        (f"http://user:{SECRET}@[::1]:80/?a={SECRET}", "http://***@[::1]:80/?***"),
        (f"http://user:{SECRET}@[::1", "http://***@[::1"),
        (f"user:{SECRET}@gateway:80/path", "***@gateway:80/path"),
        ("https://gateway/path@x", "https://gateway/path@x"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    """Scheme, host, port and path stay."""
    assert without_secrets(url) == shown


def test_passwords_of_urls_in_a_text_are_masked() -> None:
    """Each URL of the text loses its user and password; text without URLs is unchanged."""
    text = f'proxy "http://u:{SECRET}@a:1" and https://v:{SECRET}@b/c?d=e@f, mail a@b'

    assert mask_urls(text) == 'proxy "http://***@a:1" and https://***@b/c?d=e@f, mail a@b'


@pytest.mark.parametrize("url", ["https://gateway", "http://127.0.0.1:80", "http://[::1]", "http://a.localhost"])
def test_encrypted_and_local_endpoints_are_accepted(url: str) -> None:
    """Https is accepted for any host, plain http for this machine."""
    refuse_plain_http(url, "STS")

    assert is_loopback(url) is not url.startswith("https")


@pytest.mark.parametrize("url", [f"http://user:{SECRET}@gateway/?key={SECRET}", "http://127.0.0.1.example"])
def test_plain_http_to_another_machine_is_refused(url: str) -> None:
    """The message names the host and the parameter that permits it, and no secret of the URL."""
    with pytest.raises(ConfigurationError, match="allow_http_sts=True") as refused:
        refuse_plain_http(url, "STS")

    assert SECRET not in str(refused.value)


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
