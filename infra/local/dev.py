"""Runs the local stack in the foreground: what `just dev` does.

Ends with 0 after Ctrl-C or SIGTERM, the way it is meant to end (just then reports 130 or 143 of its own), and with 1
when the stack cannot start or fails. A second Ctrl-C, a second or more after the first, kills everything.
"""

import os
import sys
import time
from contextlib import suppress
from textwrap import dedent

from addresses import StackError
from image_analysis_api.webhook_secrets import WebhookSecret
from interrupts import Interrupts
from stack import Stack

CHECK_S = 1.0


def main() -> int:
    """Start the stack, say where it is, stay until told to stop."""
    Interrupts().install()
    has_terminal = sys.stdout.isatty()
    # The programs write into a pipe and would choose JSON.
    log_format = os.environ.get("LOG_FORMAT") or ("console" if has_terminal else "auto")
    try:
        with suppress(KeyboardInterrupt), Stack({"LOG_FORMAT": log_format}) as stack:
            print(greeting(stack), flush=True)
            # A closed terminal: uv and just keep the SIGHUP to themselves where no shell sends one to every process.
            while sys.stdout.isatty() == has_terminal:
                stack.check()
                time.sleep(CHECK_S)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with suppress(OSError):
        print("Everything has stopped.", flush=True)
    return 0


def greeting(stack: Stack) -> str:
    """Name the addresses; Redis without its password."""
    return dedent(f"""
        Ready.
          API          {stack.api_url}
          Try it       {stack.api_url}/docs
          Dashboard    {stack.dashboard_url}
          Metrics      {" ".join(stack.metrics_urls)}
          Webhooks     {describe_webhooks(stack)}
          Redis        {stack.redis_url.rpartition("@")[2].removeprefix("redis://")}
        Ctrl-C stops everything.
    """)


def describe_webhooks(stack: Stack) -> str:
    """Say with what webhooks are verified, where nobody but the stack knows."""
    if not stack.has_own_secret:
        return "signed with WEBHOOK_SECRET"
    if os.environ.get("API_KEYS"):
        return "signed; set WEBHOOK_SECRET to know each owner's secret"
    return f"verify them with {WebhookSecret.parse(stack.webhook_secret).of(None)}"


if __name__ == "__main__":
    sys.exit(main())
