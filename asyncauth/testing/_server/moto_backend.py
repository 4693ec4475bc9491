"""moto as a backend: a request to the fleet becomes a WSGI call in this process, under the account that signed it."""

from __future__ import annotations

import io
import logging
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from asyncauth.testing._server import ec2, listings, moto_regions
from asyncauth.testing._server.aws_errors import Protocol, not_implemented
from asyncauth.testing._server.http import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from asyncauth.testing._server.http import Request
    from asyncauth.testing._server.seed import Seeds

logger: Final = logging.getLogger("asyncauth.testing.moto")

_REGION_IN_AGENT: Final = re.compile(r"\bregion/")
_DROPPED: Final = frozenset({"date", "server", "content-length", "connection", "transfer-encoding"})
_CONTENT_TYPES: Final[Mapping[Protocol, str]] = {
    "query": "text/xml",
    "ec2": "text/xml;charset=UTF-8",
    "rest-xml": "application/xml",
    "json": "application/x-amz-json-1.1",
    "rest-json": "application/json",
}


class Moto:
    """moto in a single worker thread, because its backends are plain dictionaries without locks.

    That thread imports moto at the first call that needs it; the other parts of the fleet do not wait for the import.
    """

    def __init__(
        self, seeds: Seeds, regions: Mapping[str, Sequence[str]], ec2_troubles: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self._seeds = seeds
        self._regions = regions
        self._ec2_troubles = ec2_troubles
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="moto")
        self._app: Any = None
        self._lock = threading.Lock()

    def preload(self, services: list[str]) -> Future[None]:
        """Start to import moto and the backends of `services`."""
        return self._worker.submit(self._preload, services)

    def run(self, call: Callable[[], Any]) -> Future[Any]:
        """Run a function in moto's thread."""
        return self._worker.submit(call)

    def run_prepared(self, call: Callable[[], Any]) -> Future[Any]:
        """Run a function that reads moto's backends in moto's thread, after moto's import."""

        def prepared() -> Any:
            self._load()
            moto_regions.add_zones(self._regions)
            return call()

        return self._worker.submit(prepared)

    def _preload(self, services: list[str]) -> None:
        self._load()
        for service in services:
            self._seeds.load(service)

    def _load(self) -> Any:
        if self._app is None:
            moto_regions.set_regions(self._regions)
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

            def create(service: Any) -> Any:
                if service is None:
                    raise NotImplementedError("moto does not have this service")
                app = create_backend_app(service)
                moto_regions.add_zones(self._regions)
                if service == "ec2":
                    ec2.install(self._ec2_troubles)
                elif service == "iam":
                    listings.install_iam()
                # Raise moto's exceptions here; Flask would answer with a page of HTML.
                app.config["PROPAGATE_EXCEPTIONS"] = True
                app.config["TESTING"] = True
                return app

            self._app = DomainDispatcherApplication(create)
        return self._app

    def call(
        self,
        request: Request,
        *,
        service: str,
        action: str,
        account: str,
        region: str,
        key: str,
        protocol: Protocol,
    ) -> Response:
        """Return moto's answer; blocks, so it must run in moto's thread.

        Raises:
            AwsError: moto does not implement the action, or raised an exception.
        """
        app = self._load()
        environ = _environ(request, service=service, account=account, region=region, key=key)
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [status, headers]

        try:
            moto_regions.add_zones(self._regions)
            self._seeds.ensure(service, account, region)
            chunks = app(environ, start_response)
            body = b"".join(chunks)
        except NotImplementedError as error:
            raise not_implemented(service, action, f"moto has not implemented it: {error}") from None
        except ModuleNotFoundError as error:
            reason = f"moto needs {error.name} for it, which is not installed (moto's extra of that service has it)"
            raise not_implemented(service, action, reason) from None
        except Exception as error:
            logger.exception("moto failed to answer %s %s", service, action)
            raise not_implemented(service, action, f"moto failed with {type(error).__name__}: {error}") from None
        status = int(started[0].split(" ", 1)[0])
        if status == 404 and body.startswith((b"<!doctype", b"<!DOCTYPE")):
            raise not_implemented(service, action, "moto has no such path")
        response = Response(status, body, _headers(started[1], protocol))
        if request.method == "HEAD":
            lengths = [value for name, value in started[1] if name.lower() == "content-length"]
            response.head_length = int(lengths[0]) if lengths else len(body)
            response.body = b""
        return response

    def action(self, request: Request, service: str, path: str) -> str:
        """Return the operation name of a call to a REST service; blocks, so it must run in moto's thread."""
        self._load()
        from moto.core.request import Request as MotoRequest
        from moto.core.routing import get_service_router

        try:
            router = get_service_router(_service_name(service, path))
            environ = _environ(request, service=service, account="", region="us-east-1", key="")
            return str(router.match(MotoRequest(environ))[0].name)
        except Exception as error:  # noqa: BLE001 - of werkzeug, botocore or moto: the action then has no name
            logger.debug("no operation found for %s %s: %r", request.method, path, error)
            return f"{request.method} /"


def _headers(given: list[tuple[str, str]], protocol: Protocol) -> list[tuple[str, str]]:
    """Return moto's headers without those of the connection; the protocol's content type replaces Flask's default."""
    headers = [(name, value) for name, value in given if name.lower() not in _DROPPED]
    usual = _CONTENT_TYPES.get(protocol)
    if usual is None:
        return headers
    return [
        (name, usual) if name.lower() == "content-type" and value.startswith("text/html") else (name, value)
        for name, value in headers
    ]


def _service_name(signing_name: str, path: str) -> str:
    """Return botocore's name of a REST service, which is not always its signing name."""
    if signing_name == "s3":
        return "s3control" if path.startswith("/v20180820/") else "s3"
    if signing_name == "ses":
        return "sesv2"
    return {
        "elasticfilesystem": "efs",
        "es": "opensearch",
        "aps": "amp",
        "mobiletargeting": "pinpoint",
        "execute-api": "apigatewaymanagementapi",
        "access-analyzer": "accessanalyzer",
        "airflow": "mwaa",
        "iotdata": "iot-data",
        "refactor-spaces": "migration-hub-refactor-spaces",
        "aoss": "opensearchserverless",
        "sso-oauth": "sso-oidc",
        "awsssoportal": "sso",
        "lex": "lexv2-models",
    }.get(signing_name, signing_name)


def _environ(request: Request, *, service: str, account: str, region: str, key: str) -> dict[str, Any]:
    """Return the WSGI environment of a request, with the headers from which moto reads service, region and account.

    moto reads service and region from the Authorization header and does not check the signature; it reads the account
    from its own header. A region in the user agent would take precedence, so that part is removed.
    """
    host, _, port = request.headers.get("host", "127.0.0.1").partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "RAW_URI": request.target,
        "REQUEST_URI": request.target,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "CONTENT_LENGTH": str(len(request.body)),
    }
    preserved: dict[str, str] = {}
    for name, value in request.raw_headers:
        lower = name.lower()
        if lower in {"content-length", "transfer-encoding", "x-moto-account-id", "expect"}:
            continue
        key_name = "CONTENT_TYPE" if lower == "content-type" else "HTTP_" + name.upper().replace("-", "_")
        environ[key_name] = f"{environ[key_name]},{value}" if key_name in environ else value
        if "_" in name and lower.startswith("x-amz-meta-"):
            preserved[key_name] = name
    environ["moto.preserved_header_names"] = preserved
    environ["HTTP_USER_AGENT"] = _REGION_IN_AGENT.sub("region-", environ.get("HTTP_USER_AGENT", ""))
    environ["HTTP_AUTHORIZATION"] = (
        f"AWS4-HMAC-SHA256 Credential={key or 'AKIASIMULATEDFLEET00'}/20260101/{region}/{service}/aws4_request, "
        "SignedHeaders=host, Signature=0"
    )
    environ["HTTP_X_MOTO_ACCOUNT_ID"] = account
    return environ


def prepare_environment() -> None:
    """Set the variables that moto and boto read at import, and remove those of the user's environment."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "BOTO_", "MOTO_")) or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID="AKIASIMULATEDFLEET00",
        AWS_SECRET_ACCESS_KEY="simulated",  # noqa: S106 - signs nothing
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_DEFAULT_REGION="us-east-1",
        MOTO_ALLOW_NONEXISTENT_REGION="true",
        MOTO_EC2_LOAD_DEFAULT_AMIS="false",
        MOTO_DISABLE_GLOBAL_CORS="true",
        TEST_SERVER_MODE="true",
    )
