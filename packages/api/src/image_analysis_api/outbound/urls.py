"""Checks the form of user-supplied URLs: of images, their redirects, and webhooks.

Does not check where a URL leads: a well-formed URL may still have a forbidden address.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

import httpx

from image_analysis_common.errors import FetchFailed, UrlRefused

URL_LENGTH_MAX = 2048

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
# Names that resolvers read as an IPv4 address in octal, hexadecimal, one integer or a short form (WHATWG URL Standard,
# "ends in a number"). Only the dotted decimal form is accepted, as a literal address.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


@dataclass(frozen=True)
class WebUrl:
    """A well-formed URL; `host` is ASCII, in lower case, without a trailing dot or brackets."""

    url: httpx.URL
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL: http or https, no credentials, a name or an address in its plain form, a port.

        Raises:
            UrlRefused: it breaks a rule, or is longer than `URL_LENGTH_MAX`; the message names the rule.
        """
        if len(text) > URL_LENGTH_MAX:
            raise UrlRefused(f"The URL has more than {URL_LENGTH_MAX} characters: use a shorter one.")
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, ValueError) as error:
            raise UrlRefused("The URL is malformed: give one like https://example.com/path.") from error
        if url.scheme not in _DEFAULT_PORTS:
            raise UrlRefused("The URL must begin with http:// or https://.")
        if "@" in re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]:
            raise UrlRefused("The URL must not contain a user name or password.")
        # Not `url.host`, which decodes IDNA and fails on names that are not valid IDNA.
        host = url.raw_host.decode("ascii").removesuffix(".")
        is_name = _NAME.fullmatch(host) is not None and _ENDS_IN_NUMBER.fullmatch(host) is None
        if not is_name and not _is_literal(host):
            raise UrlRefused("The URL's host must be a name, a dotted decimal IPv4 address or a plain IPv6 address.")
        port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
        if not 0 < port < 2**16:
            raise UrlRefused("The URL's port must be between 1 and 65535.")
        return cls(url.copy_with(host=host), host, port)

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address, not a name."""
        return _is_literal(self.host)

    def redirected(self, location: str) -> Self:
        """Read the target of a redirect from this URL, absolute or relative, by the same rules.

        Raises:
            UrlRefused: the target breaks a rule, or changes from https to http.
            FetchFailed: there is no target.
        """
        if not location:
            raise FetchFailed("The URL redirects to nowhere: check it, or try again.")
        try:
            text = str(self.url.join(location))
        except (httpx.InvalidURL, ValueError) as error:
            raise UrlRefused("The URL redirects to a malformed one: give the address of the image itself.") from error
        target = self.parse(text)
        if self.url.scheme == "https" and target.url.scheme == "http":
            raise UrlRefused("The URL redirects from https to http: give the address of the image itself.")
        return target


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host
