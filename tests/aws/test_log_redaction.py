"""Log redaction: botocore's records at DEBUG hold no secret."""

from __future__ import annotations

import logging

import pytest

from asyncauth._aws.log_redaction import redact, redact_botocore_logs

SECRET, TOKEN = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "FQoGZXIvYXdzEJr//////////wEaDEXAMPLE/+="


@pytest.mark.parametrize(
    "text",
    [
        f"<SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>",
        f"{{'SecretAccessKey': '{SECRET}', 'SessionToken': \"{TOKEN}\"}}",
        f'{{"secretAccessKey":"{SECRET}","sessionToken":"{TOKEN}"}}',
        f'{{"AccessKeyId": "ASIA", "SecretAccessKey": "{SECRET}", "Token": "{TOKEN}"}}',
        f"{{'X-Amz-Security-Token': b'{TOKEN}', 'X-Amz-Date': b'20260101T000000Z'}}",
        f"POST\n/\n\nhost:sts.amazonaws.com\nx-amz-security-token:{TOKEN}\n\nhost",
        f"https://example.org/?X-Amz-Security-Token={TOKEN}&X-Amz-Expires=60",
        f"{{'accessToken': '{TOKEN}', 'clientSecret': '{SECRET}', 'refreshToken': '{TOKEN}'}}",
        f"body=WebIdentityToken={TOKEN}&Version=2011-06-15",
        f"Authorization: Bearer {TOKEN}",
        f"{{'Authorization': b'Bearer {TOKEN}'}}",
        f"X-aws-ec2-metadata-token: {TOKEN}",
        f"x-amz-sso_bearer_token:{TOKEN}",
        f'{{"SecretString":"{SECRET}"}}',
    ],
)
def test_secrets_are_replaced_in_every_format_that_botocore_prints(text: str) -> None:
    """In XML, JSON, repr, canonical headers and queries the name stays and the value is replaced."""
    redacted = redact(text)

    assert SECRET not in redacted
    assert TOKEN not in redacted
    assert "***" in redacted


def test_text_without_secrets_is_unchanged() -> None:
    """Hosts, dates, key ids and regions stay readable."""
    text = "POST https://sts.us-east-1.amazonaws.com/ AKIAIOSFODNN7EXAMPLE us-east-1 20260101T000000Z"

    assert redact(text) == text


@pytest.mark.parametrize("name", ["botocore.parsers", "botocore.auth", "botocore.endpoint"])
def test_botocores_loggers_have_the_filter(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A record of these loggers is redacted, also when the secret is in the record's arguments."""
    redact_botocore_logs()
    redact_botocore_logs()
    with caplog.at_level(logging.DEBUG, name):
        logging.getLogger(name).debug("Response body:\n%s", f"<SecretAccessKey>{SECRET}</SecretAccessKey>")

    assert caplog.messages == ["Response body:\n<SecretAccessKey>***</SecretAccessKey>"]
    assert len([each for each in logging.getLogger(name).filters if type(each).__name__ == "RedactSecrets"]) == 1
