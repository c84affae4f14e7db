"""Runs rq-dashboard behind a same-origin check, with the options and variables of its own command.

rq-dashboard itself takes every POST, and its buttons delete jobs: any site could press them through an operator's
browser. Here, what changes something must come from the dashboard's own pages or from no page at all, and no page of
another site can show the dashboard in a frame and have its buttons clicked.

Without a login, it answers to `localhost` and IP addresses only. Any other name may be one whose DNS answer changed to
this machine's address after its page was loaded (DNS rebinding), which makes that page one of the same origin.
"""

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Response, abort, request
from rq_dashboard.cli import main  # type: ignore[import-untyped]
from rq_dashboard.web import blueprint  # type: ignore[import-untyped]

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


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


def _is_same_origin() -> bool:
    """Whether a POST comes from a page of ours or from a program; a browser sends at least one of these headers."""
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


if __name__ == "__main__":
    blueprint.before_app_request(refuse_foreign_requests)
    blueprint.after_app_request(forbid_frames)
    main()
