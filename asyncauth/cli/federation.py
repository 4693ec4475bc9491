"""Federation endpoint of AWS sign-in: a URL of the web console for temporary credentials."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from asyncauth._aws.plain_http import check_endpoint_url, refuse_plain_http
from asyncauth._errors import AssumeRoleError, ConfigurationError

if TYPE_CHECKING:
    from asyncauth._models import Keys

#: Sign-in endpoint and console of each partition, from AWS's page "Enabling custom identity broker access".
_ENDPOINTS: Final = {
    "aws": ("https://signin.aws.amazon.com", "https://console.aws.amazon.com/"),
    "aws-cn": ("https://signin.amazonaws.cn", "https://console.amazonaws.cn/"),
    "aws-us-gov": ("https://signin.amazonaws-us-gov.com", "https://console.amazonaws-us-gov.com/"),
}
_TIMEOUT_SECONDS: Final = 30.0
_MAX_ANSWER_BYTES: Final = 64 * 1024


def sign_in_url(keys: Keys, partition: str, *, destination: str | None = None, endpoint_url: str | None = None) -> str:
    """Return a URL that signs a browser in, valid for 15 minutes. It blocks until AWS has answered.

    Args:
        keys: temporary keys of a role.
        partition: the partition of the account.
        destination: a path in the console, `ec2/home`, or a whole URL; None: its first page.
        endpoint_url: replaces the sign-in endpoint; None: AWS_ENDPOINT_URL_SIGNIN, AWS_ENDPOINT_URL, AWS's.

    Raises:
        ConfigurationError: the partition's endpoint is unknown, or the endpoint is plain http on another machine.
        AssumeRoleError: the endpoint did not return a sign-in token.
    """
    if partition not in _ENDPOINTS:
        raise ConfigurationError(f"the sign-in endpoint of partition {partition!r} is unknown")
    endpoint, console = _ENDPOINTS[partition]
    override = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_SIGNIN") or os.environ.get("AWS_ENDPOINT_URL")
    if override:
        check_endpoint_url("the sign-in endpoint", override)
        refuse_plain_http(override, "the sign-in endpoint")
        endpoint = override.rstrip("/")
    session = {
        "sessionId": keys.access_key_id,
        "sessionKey": keys.secret_access_key,
        "sessionToken": keys.session_token,
    }
    token = _sign_in_token(f"{endpoint}/federation", json.dumps(session))
    target = destination if destination and "://" in destination else console + (destination or "").lstrip("/")
    login = {"Action": "login", "Issuer": "asyncauth", "Destination": target, "SigninToken": token}
    return f"{endpoint}/federation?{urlencode(login)}"


def _sign_in_token(url: str, session: str) -> str:
    query = urlencode({"Action": "getSigninToken", "Session": session})
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect())
    try:
        with opener.open(f"{url}?{query}", timeout=_TIMEOUT_SECONDS) as answer:
            content = answer.read(_MAX_ANSWER_BYTES)
        return str(json.loads(content)["SigninToken"])
    except urllib.error.HTTPError as error:
        error.close()
        raise AssumeRoleError(f"the sign-in endpoint refused the credentials (HTTP {error.code})") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Not the error itself: the URL of a request has the credentials.
        raise AssumeRoleError(f"the sign-in endpoint did not return a token ({type(error).__name__})") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the credentials to another host."""

    def redirect_request(self, *_: object) -> None:
        return None
