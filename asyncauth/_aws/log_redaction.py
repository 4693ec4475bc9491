"""Log redaction: a filter that replaces secrets in the records of botocore's loggers."""

from __future__ import annotations

import logging
import re
from typing import Final

#: At DEBUG these loggers print requests with their security token, canonical requests, and whole responses of STS.
_LOGGERS_WITH_SECRETS: Final = (
    "botocore.auth",
    "botocore.endpoint",
    "botocore.parsers",
    "botocore.hooks",
    "botocore.client",
    "botocore.credentials",
    "botocore.utils",
    "botocore.tokens",
    "botocore.httpsession",
    "botocore.retryhandler",
    "aiobotocore.credentials",
    "aiobotocore.utils",
    "aiobotocore.tokens",
    "aiobotocore.httpsession",
    "aiobotocore.httpxsession",
)

_NAMES: Final = (
    r"secret_?access_?key|session_?token|x-amz-security-token|security-?token|access_?token|refresh_?token|id_?token"
    r"|client_?secret|web_?identity_?token|assertion|x-amz-s3session-token|authorization|token_?code"
    r"|x-aws-ec2-metadata-token|(?<=['\"<])token|x-amz-sso_bearer_token|secret_?string|secret_?key"
)
#: A secret's name, the separator (XML's `>`, JSON's and repr's `": "`, a header's `:`, a query's `=`), and the value up
#: to the next delimiter.
_NAMED_VALUE: Final = re.compile(
    rf"(?i)((?:{_NAMES})(?:['\"]?\s*[:=]\s*(?:b?['\"])?|>|%3D)(?:Bearer\s+)?)[^\s<>'\"&,;)}}]+"
)


class RedactSecrets(logging.Filter):
    """Logging filter that replaces secrets in a record by `***`. It drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` in place and return True."""
        message = record.getMessage()
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, None
        self._redact_exception(record)
        return True

    def _redact_exception(self, record: logging.LogRecord) -> None:
        # botocore logs some exceptions with their traceback, and their messages quote the response.
        if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
            return
        formatted = logging.Formatter().formatException(record.exc_info)
        redacted = redact(formatted)
        if redacted != formatted:
            record.exc_info, record.exc_text = None, redacted


def redact(text: str) -> str:
    """Return `text` with `***` in place of each value whose name is a secret's."""
    return _NAMED_VALUE.sub(r"\1***", text)


_FILTER: Final = RedactSecrets()


def redact_botocore_logs() -> None:
    """Add the filter to botocore's loggers that print secrets at DEBUG. A second call changes nothing."""
    for name in _LOGGERS_WITH_SECRETS:
        logging.getLogger(name).addFilter(_FILTER)
