"""Requests to the benchmark's server: signed with the keys of an account, or with mixed ones."""

from __future__ import annotations

import http.client

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks import _bodies
from benchmarks.server import CannedServer


def keys(key_of: str, secret_of: str, token_of: str) -> Credentials:
    return Credentials(_bodies.key_id(key_of), _bodies.secret(secret_of), _bodies.token(token_of))


def call(server: CannedServer, service: str, credentials: Credentials, body: bytes) -> tuple[int, str]:
    """Send a request signed by botocore; return the status and the body."""
    url = f"http://127.0.0.1:{server.ports[service]}/"
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    SigV4Auth(credentials, service, _bodies.REGION).add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[service], timeout=5)
    try:
        connection.request("POST", "/", body, dict(request.headers.items()))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def describe(server: CannedServer, credentials: Credentials) -> tuple[int, str]:
    return call(server, "ec2", credentials, b"Action=DescribeInstances&Version=2016-11-15")


def assume(server: CannedServer, account: str) -> None:
    source = Credentials(_bodies.key_id(_bodies.SOURCE_ACCOUNT, long_term=True), _bodies.secret(_bodies.SOURCE_ACCOUNT))
    role = f"arn%3Aaws%3Aiam%3A%3A{account}%3Arole%2F{_bodies.ROLE}"
    assert call(server, "sts", source, f"Action=AssumeRole&RoleArn={role}".encode())[0] == 200
