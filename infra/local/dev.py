"""Runs the local stack in the foreground; started by `just dev`.

Exits with 0 after Ctrl-C or SIGTERM (`just` itself then exits with 130 or 143), and with 1 if the stack cannot start or
fails. A second Ctrl-C, a second or more after the first, kills everything.
"""

import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from textwrap import dedent

from addresses import StackError
from image_analysis_api.webhook_secrets import WebhookSecret
from interrupts import Interrupts
from stack import Stack

CHECK_S = 0.5

RATE_LIMIT_MAX_REQUESTS = "1000"
"""Enough to try everything; the API's own default is for untrusted clients."""
RATE_LIMIT_INTERVAL_SECONDS = "60"


def main() -> int:
    """Start the stack, print its addresses, and wait for the signal to stop."""
    Interrupts().install()
    has_terminal = sys.stdout.isatty()
    settings = choose_settings(os.environ, has_terminal=has_terminal)
    try:
        # A download of a model takes as long as it takes; a program that cannot start ends the wait.
        with suppress(KeyboardInterrupt), Stack(settings, ready_s=math.inf) as stack:
            print(greeting(stack, settings), flush=True)
            # When a terminal closes, uv and just may get a SIGHUP that they do not pass on.
            while sys.stdout.isatty() == has_terminal:
                stack.check()
                time.sleep(CHECK_S)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with suppress(OSError):
        print("Everything has stopped.", flush=True)
    return 0


def choose_settings(environment: Mapping[str, str], *, has_terminal: bool) -> dict[str, str]:
    """Return settings that suit a developer better than a service's defaults; the environment has precedence."""
    defaults = {
        # The programs write into a pipe, so they would choose JSON.
        "LOG_FORMAT": "console" if has_terminal else "auto",
        "RATE_LIMIT_MAX_REQUESTS": RATE_LIMIT_MAX_REQUESTS,
        "RATE_LIMIT_INTERVAL_SECONDS": RATE_LIMIT_INTERVAL_SECONDS,
    }
    return {name: environment.get(name) or default for name, default in defaults.items()}


def greeting(stack: Stack, settings: Mapping[str, str]) -> str:
    """List the addresses (Redis without its password) and what differs from a deployment."""
    return dedent(f"""
        Ready.
          Page         {stack.api_url}/
          API          {stack.api_url}
          Docs         {stack.api_url}/docs
          Dashboard    {stack.dashboard_url}
          Metrics      {" ".join(stack.metrics_urls)}
          Webhooks     {describe_webhooks(stack)}
          Redis        {stack.redis_url.rpartition("@")[2].removeprefix("redis://").partition("?")[0]}
          Rate limit   {describe_rate_limit(settings)}
        Ctrl-C stops everything.
    """)


def describe_rate_limit(settings: Mapping[str, str]) -> str:
    """Say how many images a client may send, and that a deployment accepts fewer by default."""
    limit = f"{settings['RATE_LIMIT_MAX_REQUESTS']} images in {settings['RATE_LIMIT_INTERVAL_SECONDS']} s"
    if os.environ.get("RATE_LIMIT_MAX_REQUESTS"):
        return f"{limit} for each client"
    return f"{limit} for each client; a deployment allows 5 unless RATE_LIMIT_MAX_REQUESTS says otherwise"


def describe_webhooks(stack: Stack) -> str:
    """Print the secret that verifies webhooks, if the stack generated it."""
    if not stack.has_own_secret:
        return "signed with WEBHOOK_SECRET"
    if os.environ.get("API_KEYS"):
        return "signed; set WEBHOOK_SECRET to know each owner's secret"
    return f"verify them with {WebhookSecret.parse(stack.webhook_secret).of(None)}"


if __name__ == "__main__":
    sys.exit(main())
