"""Log redaction: botocore's records at DEBUG hold no secret."""

from __future__ import annotations

import base64
import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest

from asyncauth._aws.log_redaction import LOGGERS_WITH_SECRETS, redact, redact_botocore_logs

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


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"'Password': '{SECRET}, it\\'s \"quoted\"', 'UserName': 'u'", "'Password': '***', 'UserName': 'u'"),
        (f'{{"SecretString": "{{\\"p\\":\\"{SECRET}\\"}}", "Name": "n"}}', '{"SecretString": "***", "Name": "n"}'),
        (f'text: {{\\"password\\": \\"{SECRET} x\\", \\"a\\": 1}}', 'text: {\\"password\\": \\"***\\", \\"a\\": 1}'),
        (
            f"<MasterUserPassword>{SECRET} with a blank</MasterUserPassword>",
            "<MasterUserPassword>***</MasterUserPassword>",
        ),
        (f"'ExternalId': '{SECRET}'", "'ExternalId': '***'"),
        (f"external_id={SECRET}&x=1", "external_id=***&x=1"),
        (f"x-amz-server-side-encryption-customer-key:{SECRET}", "x-amz-server-side-encryption-customer-key:***"),
        (f"http://user:{SECRET.replace('/', '%2F')}@proxy:3128/ and more", "http://***@proxy:3128/ and more"),
        ("http://user:p@ss@proxy:3128", "http://***@proxy:3128"),
        ('{"NextToken": "page", "ClientRequestToken": "c"}', '{"NextToken": "page", "ClientRequestToken": "c"}'),
        ("https://example.org/a@b?c=d@e", "https://example.org/a@b?c=d@e"),
    ],
)
def test_a_secret_is_replaced_to_its_end_and_nothing_else(text: str, redacted: str) -> None:
    """Quotes, blanks and delimiters inside of a secret do not end it; names that only resemble a secret's stay."""
    assert redact(text) == redacted


@pytest.mark.parametrize("name", ["botocore.auth", "botocore.endpoint", "aiobotocore.regions"])
def test_botocores_loggers_have_the_filter(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A record of these loggers is redacted, also when the secret is in the record's arguments."""
    redact_botocore_logs()
    redact_botocore_logs()
    with caplog.at_level(logging.DEBUG, name):
        logging.getLogger(name).debug("text:\n%s", f"<SecretAccessKey>{SECRET}</SecretAccessKey>")

    assert caplog.messages == ["text:\n<SecretAccessKey>***</SecretAccessKey>"]
    assert len([each for each in logging.getLogger(name).filters if type(each).__name__ == "RedactSecrets"]) == 1


@pytest.mark.botocore
def test_every_logger_of_botocore_has_the_filter() -> None:
    """Each module of botocore and aiobotocore with a logger is in the list, so a new module is noticed."""
    import aiobotocore
    import botocore

    with_logger = {
        ".".join([package.__name__, *path.relative_to(root).with_suffix("").parts])
        for package in (botocore, aiobotocore)
        for root in map(Path, package.__path__)
        for path in root.rglob("*.py")
        if "docs" not in path.parts and "getLogger(__name__)" in path.read_text(encoding="utf-8")
    }

    assert with_logger - set(LOGGERS_WITH_SECRETS) == set()


def secret_of(number: int) -> str:
    return f"{SECRET} 'a', \"b\" {number}"


#: Operation, parameters with a marked secret, and a parameter that stays readable; None if the body is not shown.
CALLS: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("iam", "CreateLoginProfile", {"UserName": "visible", "Password": secret_of(1)}, "visible"),
    ("iam", "ChangePassword", {"OldPassword": secret_of(2), "NewPassword": secret_of(3)}, None),
    (
        "rds",
        "CreateDBInstance",
        {"DBInstanceIdentifier": "visible", "DBInstanceClass": "c", "Engine": "e", "MasterUserPassword": SECRET},
        "visible",
    ),
    ("ssm", "PutParameter", {"Name": "n", "Value": secret_of(4), "Type": "SecureString"}, None),
    ("secretsmanager", "PutSecretValue", {"SecretId": "n", "SecretString": secret_of(5)}, None),
    ("secretsmanager", "PutSecretValue", {"SecretId": "n", "SecretBinary": SECRET.encode()}, None),
    ("cognito-idp", "AdminSetUserPassword", {"UserPoolId": "p_1", "Username": "u", "Password": secret_of(6)}, None),
    ("apigateway", "CreateApiKey", {"name": "n", "value": secret_of(7)}, None),
    ("lambda", "UpdateFunctionConfiguration", {"FunctionName": "f", "Environment": {"Variables": {"A": SECRET}}}, None),
    ("s3", "PutObject", {"Bucket": "b", "Key": "visible", "SSECustomerKey": SECRET}, "visible"),
    ("sts", "AssumeRole", {"RoleArn": "visible" * 4, "RoleSessionName": "xx", "ExternalId": SECRET}, "visible"),
    ("sts", "GetSessionToken", {"SerialNumber": "s" * 9, "TokenCode": SECRET}, None),
    ("ec2", "DescribeInstances", {"Filters": [{"Name": "tag:visible", "Values": ["v"]}]}, "tag:visible"),
    ("ec2", "RunInstances", {"MinCount": 1, "MaxCount": 1, "ImageId": "visible", "UserData": SECRET}, "visible"),
    (
        "ec2",
        "ModifyVpnTunnelOptions",
        {"VpnConnectionId": "visible", "VpnTunnelOutsideIpAddress": "i", "TunnelOptions": {"PreSharedKey": SECRET}},
        "visible",
    ),
]


@pytest.mark.botocore
@pytest.mark.parametrize("logger", ["botocore.endpoint", "aiobotocore.endpoint"])
@pytest.mark.parametrize(
    ("service", "operation", "parameters", "visible"), CALLS, ids=[f"{call[0]} {call[1]}" for call in CALLS]
)
def test_parameters_that_the_model_marks_as_sensitive_are_replaced(
    service: str,
    operation: str,
    parameters: dict[str, Any],
    visible: str | None,
    logger: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In each protocol, whatever the parameter is called; the others stay readable where the body has named fields."""
    from botocore.serialize import create_serializer
    from botocore.session import Session

    model = Session().get_service_model(service)
    operation_model = model.operation_model(operation)
    request = create_serializer(model.metadata["protocol"], include_validation=False).serialize_to_request(
        parameters, operation_model
    )
    request |= {"url": "https://example.org/", "context": {"s3_redirect": {"params": parameters}, "auth_type": "v4"}}
    redact_botocore_logs()

    with caplog.at_level(logging.DEBUG, logger):
        logging.getLogger(logger).debug("Making request for %s with params: %s", operation_model, request)

    [message] = caplog.messages
    assert SECRET not in message
    assert base64.b64encode(SECRET.encode()).decode() not in message
    assert visible is None or visible in message
    assert "auth_type" in message


@pytest.mark.botocore
@pytest.mark.anyio
@pytest.mark.parametrize("stock", [False, True], ids=["fast", "stock"])
@pytest.mark.parametrize("damage", ["", "\x01"])
@pytest.mark.parametrize(
    ("service", "operation", "content", "shown"),
    [
        (
            "sts",
            "AssumeRole",
            f"<a><Secret{{}}AccessKey>{SECRET}</SecretAccessKey></a>",
            False,
        ),
        ("ssm", "GetParameter", f'{{{{"Parameter{{}}": {{{{"Value": "{SECRET}"}}}}}}}}', False),
        ("secretsmanager", "GetSecretValue", f'{{{{"Secret{{}}String": "{SECRET}"}}}}', False),
        ("iam", "CreateAccessKey", f"<a><Secret{{}}AccessKey>{SECRET}</SecretAccessKey></a>", False),
        ("apigateway", "GetApiKey", f'{{{{"value{{}}": "{SECRET}"}}}}', False),
        ("sqs", "ListQueues", '{{"QueueUrls": ["visible{}"]}}', True),
    ],
)
async def test_a_body_with_secrets_is_not_shown(
    service: str,
    operation: str,
    content: str,
    shown: bool,
    damage: str,
    stock: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The model of the output decides, so a damaged body, whose names are not readable, shows nothing either."""
    from aiobotocore.parsers import AioResponseParserFactory
    from botocore.parsers import ResponseParserError
    from botocore.session import Session

    from asyncauth._clients.parsing.factory import fast_parser_factory

    model = Session().get_service_model(service)
    factory = AioResponseParserFactory() if stock else fast_parser_factory()
    parser = factory.create_parser(model.metadata["protocol"])
    body = content.format(damage).encode()
    redact_botocore_logs()

    with caplog.at_level(logging.DEBUG, "botocore"), contextlib.suppress(ResponseParserError, KeyError, ValueError):
        await parser.parse(
            {"headers": {}, "body": body, "status_code": 200, "context": {}},
            model.operation_model(operation).output_shape,
        )

    assert SECRET not in caplog.text
    [message] = [each for each in caplog.messages if each.startswith("Response body")]
    assert ("visible" in message) is shown
    assert shown or message == f"Response body: {len(body)} bytes, not shown because it may hold secrets"


def test_a_body_whose_model_is_not_known_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """A record from elsewhere has no model, so its body may hold anything."""
    redact_botocore_logs()

    with caplog.at_level(logging.DEBUG, "botocore.parsers"):
        logging.getLogger("botocore.parsers").debug("Response body:\n%s", SECRET.encode())

    assert caplog.messages == [f"Response body: {len(SECRET)} bytes, not shown because it may hold secrets"]


def test_the_error_of_an_unreadable_response_is_logged_without_it(caplog: pytest.LogCaptureFixture) -> None:
    """botocore logs such an error with its traceback, whose message quotes the response."""
    redact_botocore_logs()
    quoting = f"Unable to parse response (x), invalid XML received. Further retries may succeed:\n{SECRET.encode()!r}"

    with caplog.at_level(logging.DEBUG, "botocore.parsers"):
        try:
            raise ValueError(quoting)
        except ValueError:
            logging.getLogger("botocore.parsers").debug("Exception caught:", exc_info=True)

    assert SECRET not in caplog.text
    assert "ValueError: Unable to parse response" in caplog.text
