"""What proxies report about a request: the client, the scheme, and the prefix that they strip from its path."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from image_analysis_api.settings import PATH_PREFIX, ApiSettings


class ProxyHeaders(ProxyHeadersMiddleware):
    """Adds the stripped prefix to uvicorn's middleware, as the `root_path` of ASGI.

    It is `X-Forwarded-Prefix` if a trusted proxy sends a valid one, otherwise the setting `ROOT_PATH`.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        super().__init__(app, [str(network) for network in settings.trusted_proxies])  # type: ignore[arg-type]
        self._root_path = settings.root_path or ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] != "lifespan":
            prefix = self._root_path
            client = scope.get("client")
            if client and client[0] in self.trusted_hosts:
                # The last one is the nearest proxy's.
                given = Headers(scope=scope).getlist("x-forwarded-prefix")[-1:]
                prefix = next((path.rstrip("/") for path in given if PATH_PREFIX.fullmatch(path)), prefix)
            _prepend(scope, prefix)
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]


def _prepend(scope: Scope, prefix: str) -> None:
    """Add a prefix to the path of a request: by ASGI, `path` begins with `root_path`."""
    scope["root_path"] = prefix
    scope["path"] = prefix + scope["path"]
    if scope.get("raw_path"):
        scope["raw_path"] = prefix.encode() + scope["raw_path"]


def public_path(scope: Scope, path: str) -> str:
    """Return the path of a call as the client has to send it."""
    prefix = scope.get("app_root_path", scope.get("root_path", ""))  # a mounted app has a longer root_path
    return f"{prefix}{path}"
