"""The address on which the API listens."""

import socket

from image_analysis_common.startup import StartupError


def check_address(host: str, port: int) -> None:
    """Check that the API can listen there: uvicorn would log the reason in the middle of other lines.

    Raises:
        StartupError: it cannot; the message names the settings.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: such a name of a host cannot be
        reason = getattr(error, "strerror", None) or error
        raise StartupError(f"API_HOST={host}, API_PORT={port}: the API cannot listen there: {reason}.") from error
