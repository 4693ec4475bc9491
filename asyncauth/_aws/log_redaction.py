"""Log redaction: a filter that removes secrets from the records of botocore's loggers and of the HTTP libraries below.

Three rules, from the exact to the general:

- A request's parameters are checked against the service model: those that it marks as sensitive, and those that are
  named like a secret, are replaced by `***`.
- A response's body is replaced by its length if the model of the output has such a member. A damaged body shows nothing
  then either.
- In all other text the values that are named like a secret, and user names and passwords in URLs, are replaced.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from inspect import currentframe
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncauth._aws.plain_http import mask_urls, without_secrets

if TYPE_CHECKING:
    from types import FrameType

#: The modules of botocore with a logger. A filter on a parent logger does not see the records of its children, so each
#: logger needs the filter itself. aiobotocore logs under its own names and under botocore's.
_BOTOCORE_MODULES: Final = (
    "args",
    "auth",
    "awsrequest",
    "client",
    "compat",
    "compress",
    "configprovider",
    "credentials",
    "discovery",
    "endpoint",
    "endpoint_provider",
    "handlers",
    "history",
    "hooks",
    "httpchecksum",
    "httpsession",
    "loaders",
    "monitoring",
    "paginate",
    "parsers",
    "plugin",
    "regions",
    "response",
    "retries.adaptive",
    "retries.special",
    "retries.standard",
    "retryhandler",
    "session",
    "tokens",
    "useragent",
    "utils",
    "waiter",
)
#: The modules of boto3 and aioboto3 with a logger that is used for calls.
_BOTO3_MODULES: Final = (
    "dynamodb.table",
    "resources.action",
    "resources.base",
    "resources.collection",
    "resources.factory",
    "resources.model",
    "s3.inject",
    "s3.transfer",
)
#: Below botocore, the HTTP libraries that print URLs or headers. aiobotocore's httpx is httpx2 in newer versions.
_HTTP_LOGGERS: Final = (
    "urllib3.connectionpool",
    "httpx",
    "httpx2",
    *(
        f"{package}.{name}"
        for package in ("httpcore", "httpcore2")
        for name in ("connection", "http11", "http2", "proxy", "socks")
    ),
)
LOGGERS_WITH_SECRETS: Final = (
    "botocore",
    *(f"{package}.{name}" for package in ("botocore", "aiobotocore") for name in _BOTOCORE_MODULES),
    "aiobotocore.httpxsession",
    *(f"{package}.{name}" for package in ("boto3", "aioboto3") for name in _BOTO3_MODULES),
    *_HTTP_LOGGERS,
)
#: These print URLs, whose query can be that of `endpoint_url`, or have the signature and token of a presigned request.
_LOGGERS_OF_URLS: Final = frozenset(
    {
        "aiobotocore.client",
        "aiobotocore.discovery",
        "aiobotocore.regions",
        "botocore.client",
        "botocore.discovery",
        "botocore.regions",
        "httpx",
        "httpx2",
        "urllib3.connectionpool",
    }
)

_MASK: Final = "***"

#: How the name of a secret ends, in any case: `MasterUserPassword`, `x-amz-security-token`, `secretAccessKey`.
#: `NextToken` and `ClientRequestToken` are no secrets, so a token needs its kind before it.
_NAMES: Final = (
    r"secret_?access_?key|session_?token|security-?token|access_?token|refresh_?token|id_?token|identity_?token"
    r"|auth(?:entication)?_?token|bearer_?token|metadata-token|s3session-token|token_?code|assertion|authorization"
    r"|secret_?string|secret_?binary|secret_?key|shared_?secret|client_?secret|secret|pass(?:word|phrase|wd)|cookie"
    r"|external_?id|private_?key|pre_?shared_?key|api_?key|customer[-_]?key|x-amz-server-side-encryption-context"
    r"|x-amz-lex-session-(?:attributes|state)|x-amzn-sagemaker-custom-attributes|x-amzn-bedrock-request-metadata"
)
_IS_SECRET_NAME: Final = re.compile(rf"(?i)(?:.*(?:{_NAMES})|token|authentication)")
#: A name, the separator (XML's `>`, JSON's and repr's `": "`, also escaped, a header's `:`, a query's `=`), and the
#: value: a quoted one up to its closing quote, another one up to the next delimiter.
_NAMED_VALUE: Final = re.compile(
    rf"""(?ix)
    ( (?:{_NAMES} | (?<=['"<])token | (?<=[?&])(?:key|sig|signature|token|code)) )
    (?:
        ( \\*['"]?\s*[:=]\s*b?\\+(?P<escaped>['"]) ) (?: (?!\\+(?P=escaped)) . )*
      | ( ['"]?\s*[:=]\s*b?(?P<quote>['"]) ) (?: \\. | (?!(?P=quote)) [^\\] )*
      | ( ['"]?\s*(?:[:=]|%3D)\s*(?:(?:Basic|Bearer)\s+)? ) [^\s<>'"&,;)}}]+
      | ( > ) [^<]+
    )""",
)
#: Operations on secrets, by the names of their structures: API Gateway's CreateApiKeyRequest has a mere `value`.
_IS_ABOUT_SECRETS: Final = re.compile(r"(?i)(?:secret|password|credential|api_?key|access_?key|private_?key|token)")
_QUERY: Final = re.compile(r"(?<=[^\s'\"])\?[^\s'\",]+")
#: The third line of a request to be signed is its query.
_CANONICAL_QUERY: Final = re.compile(r"\A(CanonicalRequest:\n.*\n.*\n).+")
#: Errors of parsers quote what they read as a bytes literal: botocore's the whole body, those of HTTP a line.
_BYTES_LITERAL: Final = re.compile(r"""(?s)\bb(?P<quote>['"])(?:\\.|(?!(?P=quote))[^\\])*(?P=quote)""")


class RedactSecrets(logging.Filter):
    """Logging filter that replaces secrets in a record by `***`. It drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` in place and return True."""
        message = record.getMessage()
        redacted = _redact_record(record, message)
        if redacted != message:
            record.msg, record.args = redacted, None
        self._redact_exception(record)
        return True

    def _redact_exception(self, record: logging.LogRecord) -> None:
        # botocore logs some exceptions with their traceback, and their messages quote the response.
        if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
            return
        formatted = logging.Formatter().formatException(record.exc_info)
        redacted = redact_error(formatted)
        if redacted != formatted:
            record.exc_info, record.exc_text = None, redacted


def redact(text: str) -> str:
    """Return `text` with `***` in place of values that are named like a secret, and of passwords in URLs."""
    return mask_urls(_NAMED_VALUE.sub(_masked, text))


def redact_error(text: str) -> str:
    """Return the message of an error or a traceback redacted, also without the bytes that the error quotes."""
    return redact(_BYTES_LITERAL.sub(f"b'{_MASK}'", text))


def redact_botocore_logs() -> None:
    """Add the filter to the loggers that print secrets at DEBUG. A second call changes nothing."""
    for name in LOGGERS_WITH_SECRETS:
        logging.getLogger(name).addFilter(_FILTER)


def _masked(found: re.Match[str]) -> str:
    separator = next(each for each in (found[2], found[4], found[6], found[7]) if each is not None)
    return f"{found[1]}{separator}{_MASK}"


def _redact_record(record: logging.LogRecord, message: str) -> str:
    arguments = record.args
    if record.name.endswith(".endpoint") and isinstance(arguments, tuple) and len(arguments) == 2:
        model, request = arguments
        if isinstance(request, dict) and hasattr(model, "input_shape"):
            message = str(record.msg) % (model, _redact_request(request, model.input_shape))
    elif record.name.endswith(".parsers") and message.startswith("Response body:"):
        return _redact_body(message, arguments)
    elif record.name in _LOGGERS_OF_URLS or message.startswith("Sending http request"):
        message = _QUERY.sub(f"?{_MASK}", message)
    elif record.name.endswith(".auth"):
        message = _CANONICAL_QUERY.sub(rf"\1{_MASK}", message)
    # httpcore prints the error of a malformed response, which quotes it.
    return redact_error(message) if ".failed exception=" in message else redact(message)


# -- requests and responses, by the service's model ------------------------------------------------------------------


class _SecretMembers(NamedTuple):
    """Where a structure of a service model has secrets: names in lower case.

    Attributes:
        whole_body: whether the structure is about secrets, so that no member is shown.
        body: members in the body, at any depth.
        headers: headers.
        in_url: whether a member is a part of the URL.
    """

    whole_body: bool
    body: frozenset[str]
    headers: frozenset[str]
    in_url: bool


@lru_cache(maxsize=256)
def _secret_members(shape: Any) -> _SecretMembers:
    body: set[str] = set()
    headers: set[str] = set()
    in_url = False
    for name, member in getattr(shape, "members", {}).items():
        location = member.serialization.get("location")
        if location is None:
            body |= _secret_names(name, member, frozenset())
        elif _is_secret(name, member):
            headers.add(str(member.serialization.get("name", name)).lower())
            in_url = in_url or location in ("uri", "querystring")
    whole_body = _IS_ABOUT_SECRETS.search(getattr(shape, "name", "")) is not None
    return _SecretMembers(whole_body, frozenset(body), frozenset(headers), in_url)


def _secret_names(name: str, shape: Any, within: frozenset[str]) -> set[str]:
    if _is_secret(name, shape):
        return {name.lower(), str(shape.serialization.get("name", name)).lower()}
    if shape.name in within:
        return set()
    within |= {shape.name}
    if shape.type_name == "list":
        return _secret_names(name, shape.member, within)
    if shape.type_name == "map":
        return _secret_names(name, shape.key, within) | _secret_names(name, shape.value, within)
    return set().union(*(_secret_names(each, member, within) for each, member in getattr(shape, "members", {}).items()))


def _is_secret(name: str, shape: Any) -> bool:
    return bool(shape.metadata.get("sensitive")) or _IS_SECRET_NAME.fullmatch(name) is not None


def _redact_request(request: dict[str, Any], shape: Any) -> dict[str, Any]:
    secret = _secret_members(shape)
    # The URL repeats the query, and has that of `endpoint_url`.
    shown = {**request, "url": without_secrets(str(request.get("url", "")))}
    shown["context"] = _plain_values(request.get("context"))
    body = request.get("body")
    if isinstance(body, dict) and not secret.whole_body:
        # The query protocol writes a nested member as `Parent.member.1.Child`.
        shown["body"] = {
            name: value if secret.body.isdisjoint(name.lower().split(".")) else _MASK for name, value in body.items()
        }
    elif body and (secret.body or secret.whole_body):
        shown["body"] = _MASK
    if secret.in_url:
        shown |= {name: _MASK for name in ("url", "url_path", "query_string") if name in shown}
    if secret.headers:
        headers = request.get("headers") or {}
        shown["headers"] = {name: _MASK if name.lower() in secret.headers else headers[name] for name in headers}
    return shown


def _plain_values(context: Any) -> Any:
    # S3 keeps all parameters of a call in its context, for a redirect.
    if not isinstance(context, dict):
        return context
    return {name: value for name, value in context.items() if isinstance(value, str | bool | int | list | None)}


def _redact_body(message: str, arguments: Any) -> str:
    shape, is_known = _output_shape(currentframe())
    secret = _secret_members(shape)
    if is_known and not secret.body and not secret.whole_body:
        return redact(message)
    body = arguments[0] if isinstance(arguments, tuple) and arguments else b""
    length = f"{len(body)} bytes" if isinstance(body, bytes | str) else "a stream"
    return f"Response body: {length}, not shown because it may hold secrets"


def _output_shape(frame: FrameType | None) -> tuple[Any, bool]:
    """Return the shape that botocore's parser is about to read, and whether it was found.

    The record has the body only. The parser's frame has the shape, and it is exact where one call makes another.
    """
    while frame is not None:
        if frame.f_code.co_name == "parse" and frame.f_globals.get("__name__", "").endswith("botocore.parsers"):
            return frame.f_locals.get("shape"), "shape" in frame.f_locals
        frame = frame.f_back
    return None, False


_FILTER: Final = RedactSecrets()
