"""Pins of the upstream code that bound clients depend on: an upgrade that changes it fails here and names our module.

`python tests/clients/test_upstream_pins.py` prints the hashes of what is installed. When a test here fails: read the
upstream change, compare it with the module named, adapt the module if needed, and add the new hash to the known ones.
"""

from __future__ import annotations

import hashlib
import inspect
from importlib import import_module
from typing import Any

import aiobotocore
import botocore
import pytest

pytestmark = pytest.mark.botocore

#: Our module, the upstream behaviour that it depends on, and the upstream code that has this behaviour.
DEPENDENCIES: dict[str, tuple[str, ...]] = {
    "template: the parts of a client, their attributes, and their references to each other": (
        "botocore.client:BaseClient.__init__",
        "botocore.client:BaseClient._register_handlers",
        "botocore.client:ClientMeta.__init__",
        "botocore.signers:RequestSigner.__init__",
        "botocore.endpoint:Endpoint.__init__",
        "aiobotocore.endpoint:AioEndpoint.__init__",
        "botocore.regions:EndpointRulesetResolver.__init__",
        "aiobotocore.regions:AioEndpointRulesetResolver._get_customized_builtins",
        "aiobotocore.args:AioClientArgsCreator.get_client_args",
        "aiobotocore.args:AioClientArgsCreator._build_endpoint_resolver",
        "aiobotocore.client:AioBaseClient.get_paginator",
        "aiobotocore.client:AioBaseClient.get_waiter",
    ),
    "builder: how a client is created, and from which components": (
        "aiobotocore.session:AioSession._create_client",
        "aiobotocore.client:AioClientCreator.create_client",
        "aiobotocore.client:AioClientCreator._create_client_class",
        "botocore.client:ClientCreator._load_service_model",
        "botocore.session:Session._register_endpoint_resolver",
        "botocore.session:Session._register_default_config_resolver",
        "aiobotocore.session:AioSession._register_smart_defaults_factory",
        "botocore.session:Session.get_auth_token",
        "botocore.session:ComponentLocator",
        "botocore.handlers:_set_auth_scheme_preference_signer",
        "aiobotocore.context:with_current_context",
    ),
    "hooks/handler_rules: the handlers that client creation registers": (
        "aiobotocore.client:AioClientCreator._register_retries",
        "aiobotocore.client:AioClientCreator._register_s3_events",
        "aiobotocore.client:AioClientCreator._register_s3express_events",
        "aiobotocore.client:AioClientCreator._register_endpoint_discovery",
        "botocore.client:ClientCreator._register_s3_control_events",
        "botocore.client:ClientCreator._register_importexport_events",
        "botocore.client:ClientCreator._inject_s3_input_parameters",
        "botocore.client:ClientCreator._default_s3_presign_to_sigv2",
        "aiobotocore.retries.standard:register_retry_handler",
        "aiobotocore.retries.standard:AioRetryHandler",
        "botocore.retries.standard:RetryQuotaChecker",
        "botocore.retries.quota:RetryQuota",
        "aiobotocore.retries.adaptive:register_retry_handler",
        "aiobotocore.retryhandler:AioRetryHandler",
        "botocore.utils:S3RegionRedirectorv2.__init__",
        "botocore.utils:S3RegionRedirectorv2.register",
        "aiobotocore.utils:AioS3RegionRedirectorv2.redirect_from_error",
        "botocore.utils:S3ExpressIdentityResolver",
        "aiobotocore.utils:AioS3ExpressIdentityResolver",
        "aiobotocore.utils:AioS3ExpressIdentityCache",
        "botocore.useragent:UserAgentString.rebuild_and_replace_user_agent_handler",
    ),
    "hooks/bound_events: how handlers are stored, found and called": (
        "botocore.hooks:EventAliaser",
        "botocore.hooks:HierarchicalEmitter",
        "botocore.hooks:NodeList",
        "botocore.hooks:_PrefixTrie",
        "aiobotocore.hooks:AioHierarchicalEmitter",
    ),
    "bound_client: the method that makes every call": (
        "aiobotocore.client:AioBaseClient._make_api_call",
        "aiobotocore.client:AioBaseClient.__aenter__",
        "aiobotocore.client:AioBaseClient.__aexit__",
        "aiobotocore.client:AioBaseClient.close",
        "aiobotocore.paginate:AioPageIterator._make_request",
    ),
    "identity: how credentials are requested": (
        "aiobotocore.signers:AioRequestSigner.handler",
        "aiobotocore.signers:AioRequestSigner.sign",
        "aiobotocore.signers:AioRequestSigner.get_auth_instance",
        "botocore.args:ClientArgsCreator.compute_endpoint_resolver_builtin_defaults",
    ),
    "retry_state: the rate limiter": (
        "aiobotocore.retries.adaptive:AsyncClientRateLimiter",
        "aiobotocore.retries.bucket:AsyncTokenBucket",
        "botocore.retries.adaptive:RateClocker",
        "botocore.retries.throttling:CubicCalculator",
    ),
    "http: how a session is made, opened and closed": (
        "aiobotocore.endpoint:AioEndpointCreator.create_endpoint",
        "aiobotocore.httpsession:AIOHTTPSession.__init__",
        "aiobotocore.httpsession:AIOHTTPSession.__aenter__",
        "aiobotocore.httpsession:AIOHTTPSession.__aexit__",
        "aiobotocore.httpsession:AIOHTTPSession._create_connector",
        "aiobotocore.httpsession:AIOHTTPSession._get_session",
        "aiobotocore.httpsession:AIOHTTPSession.send",
        "aiobotocore.httpsession:AIOHTTPSession._setup_proxy_ssl_context",
        "botocore.httpsession:ProxyConfiguration",
        "aiobotocore.httpxsession:HttpxSession.__aenter__",
        "aiobotocore.httpxsession:HttpxSession.send",
        "httpx:AsyncHTTPTransport.__init__",
        "httpx2:AsyncHTTPTransport.__init__",
    ),
    "connection_reuse: how connections are made, released, checked and reused, and where data can wait": (
        "aiohttp.connector:BaseConnector.__init__",
        "aiohttp.connector:BaseConnector._get",
        "aiohttp.connector:BaseConnector._release",
        "aiohttp.client_proto:ResponseHandler",
        "aiohttp.streams:DataQueue.feed_data",
        "aiohttp.streams:StreamReader.on_eof",
        "httpcore:AsyncConnectionPool.create_connection",
        "httpcore:AsyncConnectionPool.handle_async_request",
        "httpcore:AsyncHTTP11Connection.handle_async_request",
        "httpcore:AsyncHTTP11Connection._response_closed",
        "httpcore:AsyncHTTP11Connection.has_expired",
        "httpcore2:AsyncConnectionPool.create_connection",
        "httpcore2:AsyncConnectionPool.handle_async_request",
        "httpcore2:AsyncHTTP11Connection.handle_async_request",
        "httpcore2:AsyncHTTP11Connection._response_closed",
        "httpcore2:AsyncHTTP11Connection.has_expired",
        "h11:Connection.start_next_cycle",
        "h11:Connection.trailing_data",
        "anyio._backends._asyncio:StreamProtocol",
        "anyio._backends._asyncio:SocketStream.receive",
        "anyio.streams.tls:TLSStream",
    ),
    "config: the options that a config records, and how configs are merged": (
        "aiobotocore.config:AioConfig.__init__",
        "aiobotocore.config:AioConfig.merge",
        "botocore.config:Config.__init__",
        "botocore.config:Config._record_user_provided_options",
    ),
}

#: Hashes of the versions with which the tests pass, by pinned object.
KNOWN_HASHES: dict[str, set[str]] = {
    "botocore.client:BaseClient.__init__": {"e91e997a93b3"},
    "botocore.client:BaseClient._register_handlers": {"2ceaedb627d6"},
    "botocore.client:ClientMeta.__init__": {"597c977f54c0"},
    "botocore.signers:RequestSigner.__init__": {"090359a21058"},
    "botocore.endpoint:Endpoint.__init__": {"a80dd5155bf4"},
    "aiobotocore.endpoint:AioEndpoint.__init__": {"9c4475a945b9"},
    "botocore.regions:EndpointRulesetResolver.__init__": {"683514afc6b3", "70621ebf94c8", "daf06863f6b0"},
    "aiobotocore.regions:AioEndpointRulesetResolver._get_customized_builtins": {"12bc6ed53745"},
    "aiobotocore.args:AioClientArgsCreator.get_client_args": {"5f349eabca34", "7f4ac0a55e6b", "3dc369255559"},
    "aiobotocore.args:AioClientArgsCreator._build_endpoint_resolver": {"67d30cd2e2b1", "d4ea735b00ef"},
    "aiobotocore.client:AioBaseClient.get_paginator": {"04bcdf00cd2e", "a5eb5c4980d3"},
    "aiobotocore.client:AioBaseClient.get_waiter": {"236608dd8fde"},
    "aiobotocore.session:AioSession._create_client": {"35ae154c952b", "94335d6a94eb", "dc1dec1427f6"},
    "aiobotocore.client:AioClientCreator.create_client": {"f57a487adeb6"},
    "aiobotocore.client:AioClientCreator._create_client_class": {"0bc177985a17"},
    "botocore.client:ClientCreator._load_service_model": {"274f95ac3278"},
    "botocore.session:Session._register_endpoint_resolver": {"163d9c714bb0"},
    "botocore.session:Session._register_default_config_resolver": {"a16bc97808ea"},
    "aiobotocore.session:AioSession._register_smart_defaults_factory": {"e379225ded57", "be248d9eb4d6"},
    "botocore.session:Session.get_auth_token": {"ef018d1d995e"},
    "botocore.session:ComponentLocator": {"1b857ea1f963"},
    "botocore.handlers:_set_auth_scheme_preference_signer": {"62217973ce35", "8b0499be94af"},
    "aiobotocore.client:AioClientCreator._register_retries": {"28bedc1687c7"},
    "aiobotocore.client:AioClientCreator._register_s3_events": {"94ad75425b39"},
    "aiobotocore.client:AioClientCreator._register_s3express_events": {"09c792bc9be8", "2ea564216438"},
    "aiobotocore.client:AioClientCreator._register_endpoint_discovery": {"f2a5d034425d"},
    "botocore.client:ClientCreator._register_s3_control_events": {"d4650fa0137a"},
    "botocore.client:ClientCreator._register_importexport_events": {"866f5263edc3"},
    "botocore.client:ClientCreator._inject_s3_input_parameters": {"06a0e37c5235"},
    "botocore.client:ClientCreator._default_s3_presign_to_sigv2": {"f7c433499dd8"},
    "aiobotocore.retries.standard:register_retry_handler": {"fd5eff3bfc92", "bdb855387862", "a5c20d67e072"},
    "aiobotocore.retries.standard:AioRetryHandler": {"3a89fe505c8a", "b5216b684777", "445e9fa53913"},
    "botocore.retries.standard:RetryQuotaChecker": {"c51320559fe8", "4a263153ee76"},
    "botocore.retries.quota:RetryQuota": {"1bf80e15aa3c"},
    "aiobotocore.retries.adaptive:register_retry_handler": {"644a95f37787", "69e43e9d0388"},
    "aiobotocore.retryhandler:AioRetryHandler": {"eb19dcb17c64"},
    "botocore.utils:S3RegionRedirectorv2.__init__": {"8c7647789cd9"},
    "botocore.utils:S3RegionRedirectorv2.register": {"a69962339e9f"},
    "aiobotocore.utils:AioS3RegionRedirectorv2.redirect_from_error": {"b78b0ce713b2", "4b3fcb1b24d0"},
    "botocore.utils:S3ExpressIdentityResolver": {"03e1405a0005"},
    "aiobotocore.utils:AioS3ExpressIdentityResolver": {"de5442df1822", "9ba93a77730b"},
    "aiobotocore.utils:AioS3ExpressIdentityCache": {"eee6676790a8", "99bf4578d040"},
    "botocore.useragent:UserAgentString.rebuild_and_replace_user_agent_handler": {"eb371177232b"},
    "botocore.hooks:EventAliaser": {"f4124930dcd6"},
    "botocore.hooks:HierarchicalEmitter": {"b12ed53756a4"},
    "botocore.hooks:NodeList": {"ac273f0c9960"},
    "botocore.hooks:_PrefixTrie": {"b7d383d492f4"},
    "aiobotocore.hooks:AioHierarchicalEmitter": {"f24f40e2dd97"},
    "aiobotocore.client:AioBaseClient._make_api_call": {"d2de8558218d", "7dc7fe047556"},
    "aiobotocore.client:AioBaseClient.__aenter__": {"29353faf5955"},
    "aiobotocore.client:AioBaseClient.__aexit__": {"f887dfeff53f"},
    "aiobotocore.client:AioBaseClient.close": {"3da01dc93489"},
    "aiobotocore.paginate:AioPageIterator._make_request": {"7f0bc3d24f6c"},
    "aiobotocore.context:with_current_context": {"5414b98761a6"},
    "botocore.httpsession:ProxyConfiguration": {"af70c6fc2114"},
    "aiobotocore.signers:AioRequestSigner.handler": {"1ae1493e7e9b"},
    "aiobotocore.signers:AioRequestSigner.sign": {"e2f8f11840ef"},
    "aiobotocore.signers:AioRequestSigner.get_auth_instance": {"c37c507f186b"},
    "botocore.args:ClientArgsCreator.compute_endpoint_resolver_builtin_defaults": {"47b726d68a3f", "4510859cdc58"},
    "aiobotocore.retries.adaptive:AsyncClientRateLimiter": {"41fd72ca2784", "5200cd5f8518"},
    "aiobotocore.retries.bucket:AsyncTokenBucket": {"62280e773e0f", "1f36e2d3e56c"},
    "botocore.retries.adaptive:RateClocker": {"d536456ac2d8"},
    "botocore.retries.throttling:CubicCalculator": {"bfd6a5442fc7"},
    "aiobotocore.endpoint:AioEndpointCreator.create_endpoint": {"5196b6756dc9", "50c6f0b9e71b"},
    "aiobotocore.httpsession:AIOHTTPSession.__init__": {"b600f7a9127c", "3f9671cc5f76", "4458f337d16f", "36c0ed8433da"},
    "aiobotocore.httpsession:AIOHTTPSession.__aenter__": {"c4acc17eb313", "d9ef86520ff8"},
    "aiobotocore.httpsession:AIOHTTPSession.__aexit__": {"ec50449f1fee", "9f2065e524ea", "0d4b902b135d"},
    "aiobotocore.httpsession:AIOHTTPSession._create_connector": {"a9b0c08d3a1c", "8de7c2588046", "a821be493474"},
    "aiobotocore.httpsession:AIOHTTPSession._get_session": {"8b1662f5cb1d", "612ba6ce5f90", "1df49f9f36ca"},
    "aiobotocore.httpsession:AIOHTTPSession.send": {"ef176ffeb6cb", "7eac3a6fe168"},
    "aiobotocore.httpsession:AIOHTTPSession._setup_proxy_ssl_context": {"e9e49e07414d", "a385956106f8"},
    "aiobotocore.config:AioConfig.__init__": {"75ec0c05ad79", "87616f8f6107", "b813f08744b3", "1bac7571e915"},
    "aiobotocore.config:AioConfig.merge": {"088a6e11585f", "31a431bff503"},
    "botocore.config:Config.__init__": {"d7c70d36f826"},
    "botocore.config:Config._record_user_provided_options": {"24b409400e47"},
    "aiobotocore.httpxsession:HttpxSession.__aenter__": {"9bb271084704", "f313d472449d"},
    "aiobotocore.httpxsession:HttpxSession.send": {"454d7b39f653", "be5d57097034"},
    "aiohttp.client_proto:ResponseHandler": {"f979dae80419"},
    "aiohttp.connector:BaseConnector.__init__": {"a3f2ff62a251"},
    "aiohttp.connector:BaseConnector._get": {"6aac1f79b68b"},
    "aiohttp.connector:BaseConnector._release": {"d790bf134178"},
    "aiohttp.streams:DataQueue.feed_data": {"367381cd1da9"},
    "aiohttp.streams:StreamReader.on_eof": {"05fb2840c70b"},
    "anyio._backends._asyncio:SocketStream.receive": {"8ac1c49d626e"},
    "anyio._backends._asyncio:StreamProtocol": {"76778a00252f"},
    "anyio.streams.tls:TLSStream": {"bfb97629406d"},
    "h11:Connection.start_next_cycle": {"c821fa6c0cd0"},
    "h11:Connection.trailing_data": {"25dff192fe25"},
    "httpcore2:AsyncConnectionPool.create_connection": {"b0998960e553"},
    "httpcore2:AsyncConnectionPool.handle_async_request": {"ab6620c65d49"},
    "httpcore2:AsyncHTTP11Connection._response_closed": {"dd8e691204c4"},
    "httpcore2:AsyncHTTP11Connection.handle_async_request": {"dc4eed70801d"},
    "httpcore2:AsyncHTTP11Connection.has_expired": {"eccaf90263ea"},
    "httpcore:AsyncConnectionPool.create_connection": {"b0998960e553"},
    "httpcore:AsyncConnectionPool.handle_async_request": {"9f83876ddcfb"},
    "httpcore:AsyncHTTP11Connection._response_closed": {"3fe55e3a2ac8"},
    "httpcore:AsyncHTTP11Connection.handle_async_request": {"b198ec97aaf2"},
    "httpcore:AsyncHTTP11Connection.has_expired": {"1c71518eadec"},
    "httpx2:AsyncHTTPTransport.__init__": {"e04bed89c3da"},
    "httpx:AsyncHTTPTransport.__init__": {"fd5ab19a4a71"},
}


def source_hash(name: str) -> str:
    """Return a short hash of the source of `module:qualified.name`, without blank lines and comment lines."""
    module, _, qualified = name.partition(":")
    found: Any = import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    found = found.fget if isinstance(found, property) else found
    lines = inspect.getsource(inspect.unwrap(found) if callable(found) and not inspect.isclass(found) else found)
    code = [line.rstrip() for line in lines.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("module", "name"),
    [pytest.param(module, name, id=name) for module, names in DEPENDENCIES.items() for name in names],
)
def test_upstream_code_is_a_known_version(module: str, name: str) -> None:
    """This upstream code is one of the versions that bound clients were tested with."""
    try:
        found = source_hash(name)
    except AttributeError as error:
        pytest.fail(f"{name} no longer exists ({error}); look at asyncauth/_clients/{module}")

    assert found in KNOWN_HASHES.get(name, set()), (
        f"{name} is an unknown version (aiobotocore {aiobotocore.__version__}, botocore "
        f"{botocore.__version__}, hash {found}); look at asyncauth/_clients/{module}"
    )


def test_every_known_hash_is_used() -> None:
    """Every known hash belongs to code that a module depends on."""
    assert KNOWN_HASHES.keys() == {name for names in DEPENDENCIES.values() for name in names}


if __name__ == "__main__":
    for names in DEPENDENCIES.values():
        for name in names:
            print(f"{name} {source_hash(name)}")
