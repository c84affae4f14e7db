"""A URL has one meaning or is refused; no notation of an address is taken for a name."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_analysis_api.outbound.urls import URL_LENGTH_MAX, WebUrl
from image_analysis_common.errors import FetchFailed, UrlRefused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://example.com", ("example.com", 80, "http://example.com")),
        ("https://EXAMPLE.com/Cat.JPG?a=b", ("example.com", 443, "https://example.com/Cat.JPG?a=b")),
        ("https://example.com./cat", ("example.com", 443, "https://example.com/cat")),
        ("http://bücher.example/ä", ("xn--bcher-kva.example", 80, "http://xn--bcher-kva.example/%C3%A4")),
        ("http://my_bucket.example:8080/", ("my_bucket.example", 8080, "http://my_bucket.example:8080/")),
        ("http://[2606:4700::1111]:443/", ("2606:4700::1111", 443, "http://[2606:4700::1111]:443/")),
        ("http://93.184.216.34/", ("93.184.216.34", 80, "http://93.184.216.34/")),
        ("http://example.com/a@b?c@d", ("example.com", 80, "http://example.com/a@b?c@d")),
        ("http://127。0。0。1/", ("127.0.0.1", 80, "http://127.0.0.1/")),
    ],
)
def test_well_formed_url_is_read_in_its_normal_form(text: str, expected: tuple[str, int, str]) -> None:
    target = WebUrl.parse(text)

    assert (target.host, target.port, str(target.url)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "//example.com/",
        "http:example.com",
        "http:///example.com",
        "http://",
        "http://./",
        " http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "data:image/png;base64,AAAA",
        "unix:///run/redis.sock",
        "http://user:pass@example.com/",
        "http://user@example.com/",
        "http://@example.com/",
        "http://:@example.com/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com:80@127.0.0.1/",
        "http://example.com:0/",
        "http://example.com:-1/",
        "http://example.com:65536/",
        "http://example.com:http/",
        "http://127.1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0x/",
        "http://0177.0.0.1/",
        "http://127.0.0.01/",
        "http://256.0.0.1/",
        "http://example.com.1/",
        "http://example.com.0x7f/",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://[::1%25lo]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://[::1].example.com/",
        "http://[v1.a]/",
        "http://a..b/",
        "http://example.com../",
        "http://-a.example/",
        "http://exam%70le.com/",
        "http://example.com%00.example/",
        "http://exa mple.com/",
        "http://example.com|/",
        "http://ex\u00adample.com/",
        "http://ⓔxample.com/",
        "http://example.com/\r\nX: y",
        "http://example.com/\ud800",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 126}aa/",
        "http://example.com/".ljust(URL_LENGTH_MAX + 1, "a"),
    ],
)
def test_malformed_or_disguised_url_is_refused(text: str) -> None:
    with pytest.raises(UrlRefused):
        WebUrl.parse(text)


def test_url_of_the_longest_length_is_read() -> None:
    assert WebUrl.parse("http://example.com/".ljust(URL_LENGTH_MAX, "a")).host == "example.com"


@given(st.text() | st.text().map("http://{}/".format) | st.text().map("https://[{}]/".format))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        target = WebUrl.parse(text)
    except UrlRefused:
        return
    assert target.url.raw_host.decode() == target.host
    assert WebUrl.parse(str(target.url)) == target


@given(st.ip_addresses(v=4), st.sampled_from(["{:d}", "{:#x}", "{:#o}"]))
def test_integer_form_of_any_address_is_refused(address: IPv4Address, form: str) -> None:
    with pytest.raises(UrlRefused):
        WebUrl.parse(f"http://{form.format(int(address)).replace('0o', '0')}/")


@given(st.ip_addresses())
def test_any_plain_address_is_a_literal(address: object) -> None:
    host = f"[{address}]" if ":" in str(address) else str(address)

    target = WebUrl.parse(f"http://{host}/")

    assert target.is_literal
    assert ip_address(target.host) == address


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("b.png", "https://example.com/a/b.png"),
        ("/b.png", "https://example.com/b.png"),
        ("//other.example/b.png", "https://other.example/b.png"),
        ("https://other.example:8443/", "https://other.example:8443/"),
    ],
)
def test_redirect_is_read_from_where_it_stands(location: str, expected: str) -> None:
    assert str(WebUrl.parse("https://example.com/a/").redirected(location).url) == expected


@pytest.mark.parametrize(
    "location", ["http://example.com/", "file:///etc/passwd", "https://u:p@example.com/", "https://0x7f.1/", "//[::1"]
)
def test_redirect_that_breaks_a_rule_is_refused(location: str) -> None:
    with pytest.raises(UrlRefused):
        WebUrl.parse("https://example.com/").redirected(location)


def test_redirect_to_nowhere_is_a_failed_fetch() -> None:
    with pytest.raises(FetchFailed):
        WebUrl.parse("https://example.com/").redirected("")
