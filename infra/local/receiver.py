"""Receives webhooks on loopback, verifies and prints them, until Ctrl-C; started by `just webhook-receiver`.

Start `just dev` with FETCH_ALLOWED_NETWORKS=127.0.0.0/8, or it sends nothing here: loopback is not public.
"""

import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

from addresses import LOOPBACK
from image_analysis_api.webhook_secrets import WebhookSecret

MAX_BYTES = 1_000_000


def make_handler(webhook: Webhook) -> type[BaseHTTPRequestHandler]:
    """Make a handler that answers 204 to a webhook with a valid signature, and 400 to anything else."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            body = self.rfile.read(min(int(length), MAX_BYTES) if length.isdecimal() else 0)
            try:
                status = webhook.verify(body, dict(self.headers.items()))
            except (WebhookVerificationError, ValueError) as error:
                print(f"refused: {error}", file=sys.stderr)
                self.send_response(HTTPStatus.BAD_REQUEST)
            else:
                print(self.headers["webhook-id"], status, flush=True)
                self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Log nothing: `do_POST` prints what matters."""

    return Handler


def main() -> int:
    """Serve. The arguments are the secret and the port."""
    secret, port = sys.argv[1:]
    try:
        webhook = Webhook(WebhookSecret.parse(secret).key)
        server = ThreadingHTTPServer((LOOPBACK, int(port)), make_handler(webhook))
    except (ValueError, OSError, OverflowError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with server:
        print(f"Give http://{LOOPBACK}:{server.server_port}/ as webhook_url. Ctrl-C stops.", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
