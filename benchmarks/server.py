"""Canned server: prepared bodies, so that the benchmarks measure the client.

It answers `AssumeRole` for the account in the role's ARN, and `DescribeInstances` for the account *that signed*: access
key id and session token contain their account, and the answer's owner is the signer. A client that signs as the wrong
account gets the wrong owner, and every benchmark checks the owner. `GetMetricData` has the same answer for all.

    python -m benchmarks.server --measure      requests a second that one core of it answers

A server that is the bottleneck would make a benchmark wrong: `server_busy` in every result is the share of a core that
the server used, and a result above 0.8 is marked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import resource
import ssl
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from benchmarks import _bodies
from benchmarks._sigv4 import signature_is_right

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
_MAX_REQUEST_BYTES: Final = 1 << 20
_SETTINGS: Final = ("latency", "instances", "pages", "detailed", "verify", "metric_series", "metric_points")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_SIGNER = re.compile(rb"Credential=A[KS]IABNCH(\d{12})/")
_TOKEN = re.compile(rb"(?i)\r\nx-amz-security-token: *BNCHTOKEN(\d{12})")
_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")
_NEXT = re.compile(rb"NextToken=(\d+)")
_TARGET = re.compile(rb"(?i)\r\nx-amz-target: *\w+\.(\w+)")
_ROLE = re.compile(rb"RoleArn=arn%3Aaws%3Aiam%3A%3A(\d{12})%3Arole")


class _Listener:
    """Counts of one endpoint. With TLS, connections are counted after their handshake."""

    def __init__(self) -> None:
        self.reset()
        self.in_flight = 0

    def reset(self) -> None:
        self.connections = 0
        self.peak_in_flight = 0


class _Server:
    """State and answers of the server."""

    def __init__(self, *, latency: float, instances: int, pages: int, detailed: bool, verify: bool) -> None:
        self.listeners = {name: _Listener() for name in ("sts", "ec2")}
        self.requests: dict[str, int] = {}
        self.crossed = 0
        self.latency, self.instances, self.detailed, self.verify = latency, instances, detailed, verify
        self.pages = pages
        self.metric_series, self.metric_points = 0, 0
        self._identity = _bodies.caller_identity()
        self._assume_role = b""
        self._assume_role_until = 0.0
        self._render()

    def _render(self) -> None:
        self._page = _bodies.describe_instances(self.instances, detailed=self.detailed)
        self._metrics = _bodies.metric_data(self.metric_series, self.metric_points)

    def answer(self, head: bytes, body: bytes) -> bytes:
        signer = _SIGNER.search(head)
        found = _ACTION.search(body) or _TARGET.search(head)
        action = found[1].decode() if found else "other"
        self.requests[action] = self.requests.get(action, 0) + 1
        if signer is None:
            return _http(403, _bodies.refusal("MissingAuthenticationToken", "not signed"))
        account = signer[1]
        if not self._is_consistent(account, head, body):
            self.crossed += 1
            return _http(403, _bodies.refusal("SignatureDoesNotMatch", "key id, token and signature disagree"))
        if action == "DescribeInstances":
            return _http(200, self._page_of(account, body))
        if action == "DescribeInstanceImageMetadata":
            return _http(200, _bodies.image_metadata())
        if action == "GetMetricData":
            return _http(200, self._metrics, b"application/x-amz-json-1.0")
        if action == "AssumeRole" and (role := _ROLE.search(body)):
            secret = _bodies.secret(role[1].decode()).encode()
            return _http(200, self._credentials().replace(_bodies.PLACEHOLDER, role[1]).replace(b"@SECRET@", secret))
        if action == "GetCallerIdentity":
            return _http(200, self._identity.replace(_bodies.PLACEHOLDER, account))
        if b"AWSOrganizationsV20161128" in head:
            # The answer to a member account; tools then use the given accounts.
            text = b'{"__type":"AccessDeniedException","Message":"no access to Organizations here"}'
            return _http(400, text, b"application/x-amz-json-1.1")
        return _http(400, _bodies.refusal("InvalidAction", "the canned server does not know this action"))

    def _page_of(self, account: bytes, body: bytes) -> bytes:
        found = _NEXT.search(body)
        number = int(found[1]) if found else 0
        token = b"<nextToken>%d</nextToken>" % (number + 1) if number + 1 < self.pages else b""
        page = self._page.replace(_bodies.PLACEHOLDER, account).replace(_bodies.TOKEN_PLACEHOLDER, token)
        return page.replace(_bodies.PAGE_PLACEHOLDER, b"%03d" % number)

    def _is_consistent(self, account: bytes, head: bytes, body: bytes) -> bool:
        token = _TOKEN.search(head)
        if token is None:
            if account != _bodies.SOURCE_ACCOUNT.encode():
                return False
        elif token[1] != account:
            return False
        return not self.verify or signature_is_right(head, body, _bodies.secret(account.decode()))

    def _credentials(self) -> bytes:
        now = time.time()
        if now >= self._assume_role_until:
            expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 3600))
            self._assume_role, self._assume_role_until = _bodies.assume_role(expiration), now + 1
        return self._assume_role

    def control(self, path: str, body: bytes) -> bytes:
        if path == "/__config":
            for name, value in json.loads(body).items():
                if name not in _SETTINGS:
                    return _http(400, b"{}", b"application/json")
                setattr(self, name, value)
            self._render()
        elif path == "/__reset":
            self.requests, self.crossed = {}, 0
            for listener in self.listeners.values():
                listener.reset()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        stats = {
            "requests": self.requests,
            "crossed": self.crossed,
            "connections": {name: listener.connections for name, listener in self.listeners.items()},
            "peak_in_flight": {name: listener.peak_in_flight for name, listener in self.listeners.items()},
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "page_bytes": len(self._page),
        }
        return _http(200, json.dumps(stats).encode(), b"application/json")


def _http(status: int, body: bytes, content_type: bytes = b"text/xml;charset=UTF-8") -> bytes:
    reason = b"OK" if status == 200 else b"Refused"
    return (
        b"HTTP/1.1 %d %s\r\nx-amzn-RequestId: 8b2b62a1-4b3c-4f0f-9d5f-1c2f3a4b5c6d\r\nContent-Type: %s\r\n"
        b"Content-Length: %d\r\n\r\n" % (status, reason, content_type, len(body))
    ) + body


class _Connection(asyncio.Protocol):
    """Persistent connection of a client that waits for each answer; pipelining is not supported."""

    def __init__(self, server: _Server, listener: _Listener | None) -> None:
        self._server = server
        self._listener = listener
        self._buffer = b""
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._pending = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._listener is not None:
            self._listener.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._listener is not None:
            self._listener.in_flight -= self._pending
        self._pending = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end + 2)
            total = end + 4 + (int(length[1]) if length else 0)
            if total > _MAX_REQUEST_BYTES:
                self._transport.abort()
                return
            if len(self._buffer) < total:
                return
            head, body = self._buffer[:end], self._buffer[end + 4 : total]
            self._buffer = self._buffer[total:]
            self._handle(head, body)
        if len(self._buffer) > _MAX_REQUEST_BYTES:
            self._transport.abort()

    def _handle(self, head: bytes, body: bytes) -> None:
        if self._listener is None:
            self._transport.write(self._server.control(head.split(b" ", 2)[1].decode(), body))
            return
        answer = self._server.answer(head, body)
        self._pending += 1
        self._listener.in_flight += 1
        self._listener.peak_in_flight = max(self._listener.peak_in_flight, self._listener.in_flight)
        if self._server.latency > 0:
            self._loop.call_later(self._server.latency, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._pending and self._listener is not None:
            self._pending -= 1
            self._listener.in_flight -= 1
            self._transport.write(answer)


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(
        latency=options.latency,
        instances=options.instances,
        pages=options.pages,
        detailed=options.detailed,
        verify=options.verify,
    )
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    ports: dict[str, int] = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, listener in (*server.listeners.items(), ("control", None)):
            listening = await loop.create_server(
                partial(_Connection, server, listener),
                "127.0.0.1",
                0,
                ssl=context if listener is not None else None,
                backlog=2048,
            )
            await stack.enter_async_context(listening)
            ports[name] = listening.sockets[0].getsockname()[1]
        print(json.dumps(ports), flush=True)
        # Standard input closes when the parent ends, whatever the reason, so no server outlives its benchmark.
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), options.seconds)


class CannedServer:
    """Canned server in a process of its own, started and stopped by `with`.

    Args:
        latency: seconds before every answer.
        instances: number of instances in an answer to DescribeInstances.
        pages: number of such answers, until the last one has no token.
        detailed: use instances of real size (3.9 kB) instead of small ones (1 kB).
        verify: check every signature, which makes the server a third slower.
        certificates: the paths of a CA, a certificate and its key; None: plain HTTP.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        instances: int = 5,
        pages: int = 1,
        detailed: bool = False,
        verify: bool = False,
        certificates: tuple[Path, Path, Path] | None = None,
    ) -> None:
        self._certificates = certificates
        self._arguments = [f"--latency={latency}", f"--instances={instances}", f"--pages={pages}"]
        self._arguments += ["--detailed"] * detailed + ["--verify"] * verify
        if certificates is not None:
            self._arguments += [f"--certificate={certificates[1]}", f"--key={certificates[2]}"]
        self._process: subprocess.Popen[str] | None = None
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError("the canned server did not start; its output is above")
        self.ports = json.loads(line)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self._process.communicate(timeout=10)

    def environment(self) -> dict[str, str]:
        """Return the variables with which every AWS SDK calls this server, with the source's long-term keys."""
        scheme = "https" if self._certificates else "http"
        url = {name: f"{scheme}://127.0.0.1:{port}" for name, port in self.ports.items()}
        trust = {"AWS_CA_BUNDLE": str(self._certificates[0])} if self._certificates else {}
        return {
            "AWS_ACCESS_KEY_ID": _bodies.key_id(_bodies.SOURCE_ACCOUNT, long_term=True),
            "AWS_SECRET_ACCESS_KEY": _bodies.secret(_bodies.SOURCE_ACCOUNT),
            "AWS_DEFAULT_REGION": _bodies.REGION,
            "AWS_REGION": _bodies.REGION,
            "AWS_ENDPOINT_URL": url["sts"],
            "AWS_ENDPOINT_URL_STS": url["sts"],
            "AWS_ENDPOINT_URL_EC2": url["ec2"],
            "AWS_ENDPOINT_URL_CLOUDWATCH": url["ec2"],
            "BENCHMARK_CONTROL_PORT": str(self.ports["control"]),
            **trust,
        }

    def stats(self) -> dict[str, Any]:
        """Return the counts since the last reset."""
        return control(self.ports["control"], "/__stats")

    def reset(self) -> dict[str, Any]:
        """Reset the counts; open connections stay open and are not counted again."""
        return control(self.ports["control"], "/__reset")

    def configure(self, **settings: float | bool) -> dict[str, Any]:
        """Change settings from now on: those of the class, and `metric_series` and `metric_points`."""
        return control(self.ports["control"], "/__config", settings)


def control(port: int, path: str, settings: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Send a command to the control port of a canned server, from any process; return its counts."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(settings) if settings else "")
        answer = connection.getresponse()
        stats: dict[str, Any] = json.loads(answer.read())
        if answer.status != 200:
            raise ValueError(f"the canned server refused {path} with {settings}")
        return stats
    finally:
        connection.close()


def measure(requests: int = 20_000, at_once: int = 16) -> dict[str, float]:
    """Measure the speed of the server, with a client that sends the same bytes again and again.

    Returns requests per second of wall time, and per second of the server's CPU time, which is the rate of one core.
    """
    account = _bodies.account_ids(1)[0]
    body = b"Action=DescribeInstances&Version=2016-11-15"
    request = (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"User-Agent: Boto3/1.43 md/Botocore#1.43 ua/2.1 os/linux md/arch#x86_64 lang/python#3.11\r\n"
        b"X-Amz-Date: 20260301T000000Z\r\nX-Amz-Security-Token: %s\r\nAuthorization: AWS4-HMAC-SHA256 "
        b"Credential=%s/20260301/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=00\r\n"
        b"Content-Length: %d\r\n\r\n%s"
        % (_bodies.token(account).encode(), _bodies.key_id(account).encode(), len(body), body)
    )

    async def one(port: int, share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        size = 0
        for _ in range(share):
            writer.write(request)
            if not size:
                head = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(head)
                assert found is not None
                size = len(head) + int(found[1])
                await reader.readexactly(int(found[1]))
            else:
                await reader.readexactly(size)
        writer.close()

    async def all_requests(port: int) -> None:
        await asyncio.gather(*(one(port, requests // at_once) for _ in range(at_once)))

    with CannedServer() as server:
        before, started = server.stats()["cpu_seconds"], time.perf_counter()
        asyncio.run(all_requests(server.ports["ec2"]))
        elapsed = time.perf_counter() - started
        after = server.stats()
    answered = after["requests"]["DescribeInstances"]
    return {
        "requests": answered,
        "requests_per_second": answered / elapsed,
        "requests_per_core_second": answered / (after["cpu_seconds"] - before),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input closes or `--seconds` have passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description="The canned AWS server.")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--instances", type=int, default=5, help="instances per DescribeInstances answer")
    parser.add_argument("--pages", type=int, default=1, help="DescribeInstances answers until the last one")
    parser.add_argument("--detailed", action="store_true", help="instances of 3.9 kB instead of 1 kB")
    parser.add_argument("--verify", action="store_true", help="check every signature")
    parser.add_argument("--certificate", help="serve TLS with this certificate")
    parser.add_argument("--key", help="and this key")
    parser.add_argument(
        "--seconds", type=float, default=1800.0, help="seconds after which the server stops (default: %(default)s)"
    )
    parser.add_argument("--measure", action="store_true", help="measure the speed of the server, and end")
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(), indent=2))
        return
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
