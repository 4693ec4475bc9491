"""botocore's debug log without the secrets that it prints: signed requests, and whole answers of STS."""

from __future__ import annotations

import logging
import re
from typing import Final

#: At DEBUG these print requests with their security token, canonical requests, and whole answers of STS.
_LOUD_LOGGERS: Final = (
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
#: A secret's name and whatever stands between it and its value: XML's `>`, JSON's and repr's `": "`, a header's `:`,
#: a query's `=`. The value goes on to the next delimiter.
_NAMED_VALUE: Final = re.compile(
    rf"(?i)((?:{_NAMES})(?:['\"]?\s*[:=]\s*(?:b?['\"])?|>|%3D)(?:Bearer\s+)?)[^\s<>'\"&,;)}}]+"
)


class RedactSecrets(logging.Filter):
    """Replaces secrets in a record by `***`; the record itself still goes out."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` in place and let it pass."""
        message = record.getMessage()
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, None
        self._redact_exception(record)
        return True

    def _redact_exception(self, record: logging.LogRecord) -> None:
        """botocore logs some exceptions with their traceback, and their words quote what it read."""
        if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
            return
        told = logging.Formatter().formatException(record.exc_info)
        redacted = redact(told)
        if redacted != told:
            record.exc_info, record.exc_text = None, redacted


def redact(text: str) -> str:
    """Return `text` with the values of what is named like a secret replaced by `***`."""
    return _NAMED_VALUE.sub(r"\1***", text)


_FILTER: Final = RedactSecrets()


def redact_botocore_logs() -> None:
    """Put the filter on botocore's loggers that print secrets at DEBUG; doing so again changes nothing."""
    for name in _LOUD_LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
