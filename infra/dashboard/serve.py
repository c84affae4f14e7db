"""Runs rq-dashboard behind a same-origin check, with the options and variables of its own command.

rq-dashboard itself accepts every POST, and its buttons delete jobs: any site could send such a POST through an
operator's browser. Here, a request that changes something must come from the dashboard's own pages or from a program,
and no other site can show the dashboard in a frame to have its buttons clicked.

With API_URL, the address of the API for an operator's browser, a job's page links to the job's status in the API.

Without a login, it answers to `localhost` and IP addresses only. The DNS entry of any other name may have changed to
this machine's address after a page of that name was loaded (DNS rebinding); that page then has the same origin.

With REDIS_SENTINELS, the dashboard reads the primary that these sentinels know. The URL that rq-dashboard has for this
allows no user, no TLS, and no special characters in passwords.
"""

import os
import sys
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from flask import Response, abort, request
from markupsafe import escape
from redis import Redis
from redis.connection import SSLConnection, parse_url
from redis.sentinel import Sentinel
from rq_dashboard import web  # type: ignore[import-untyped]
from rq_dashboard.cli import main  # type: ignore[import-untyped]

JOB_PAGE = "/view/job/<job_id>"
JOB_DATA = '<div id="job-data"'
"""Where rq-dashboard shows the job's fields on its page."""

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
TIMEOUT_S = 3


def refuse_foreign_requests() -> None:
    """Answer 403 or 405 to a request that another site may have made."""
    if not os.environ.get("RQ_DASHBOARD_USERNAME") and not _is_address(request.host):
        abort(403, description="Without a login, the dashboard answers to localhost and IP addresses only.")
    if request.method in SAFE_METHODS:
        # `GET /requeue/QUEUE` requeues, and for a GET a link or an image on another site is enough.
        if request.url_rule is not None and "POST" in (request.url_rule.methods or ()):
            abort(405, description="This changes something: use POST.", valid_methods=["POST"])
    elif not _is_same_origin():
        abort(403, description="A page of another site made this request.")


def forbid_frames(answer: Response) -> Response:
    """Let no page show this one in a frame."""
    answer.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
    return answer


def link_to_status(answer: Response) -> Response:
    """Add a link to the job's status in the API to a job's page."""
    api_url = os.environ.get("API_URL", "").rstrip("/")
    if api_url and request.url_rule is not None and request.url_rule.rule.endswith(JOB_PAGE):
        url = f"{api_url}/analysis-status/{quote((request.view_args or {})['job_id'], safe='')}"
        link = f'<p><a href="{escape(url)}">Status in the API</a></p>'
        answer.set_data(answer.get_data(as_text=True).replace(JOB_DATA, link + JOB_DATA, 1))
    return answer


def _is_same_origin() -> bool:
    """Whether a POST comes from one of our pages or from a program; a browser sends at least one of these headers."""
    # Browsers leave it out over plain HTTP, except to this machine.
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == request.host.lower()


def _is_address(host: str) -> bool:
    """Whether a Host header is `localhost` or an IP address, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False


def connect_to_primary(url: str, **_options: Any) -> tuple[Sentinel, Redis]:
    """Connect to the primary; user, password, database and TLS options are those of the URL."""
    options: dict[str, Any] = {**parse_url(url)}
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    times = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    for name in ("host", "port"):
        options.pop(name, None)
    addresses = [urlsplit(f"//{part.strip()}") for part in os.environ["REDIS_SENTINELS"].split(",") if part.strip()]
    sentinel = Sentinel(
        [(address.hostname, address.port or 26379) for address in addresses],
        sentinel_kwargs={"password": os.environ.get("REDIS_SENTINEL_PASSWORD") or None, **times, **tls},
    )
    service = os.environ.get("REDIS_SENTINEL_SERVICE") or "mymaster"
    return sentinel, sentinel.master_for(service, **options, **times)


def serve() -> None:
    """Run the dashboard; if it cannot start, end with one line for the operator."""
    try:
        if not (os.environ.get("API_URL") or "http://").startswith(("http://", "https://")):
            sys.exit("image-analysis-dashboard: write API_URL like https://images.example.")
        main()
    except (OSError, OverflowError) as error:
        reason = f"it cannot listen on this address and port: {error}"
    except (TypeError, ValueError):  # its text could repeat a part of a password
        reason = (
            "write REDIS_URL, or RQ_DASHBOARD_REDIS_URL, like redis://USER:PASSWORD@HOST:6379/0, "
            "REDIS_SENTINELS like 10.0.0.5:26379, and RQ_DASHBOARD_URL_PREFIX like /queues"
        )
    sys.exit(f"image-analysis-dashboard: {reason}.")


if __name__ == "__main__":
    web.blueprint.before_app_request(refuse_foreign_requests)
    web.blueprint.after_app_request(forbid_frames)
    web.blueprint.after_app_request(link_to_status)
    if os.environ.get("REDIS_SENTINELS"):
        web.from_url = connect_to_primary
    serve()
