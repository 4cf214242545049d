import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_jobs.generation.fetching.addresses import Allowed, check, is_public
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason

NOTHING = Allowed()


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/a.png",
        "http://10.1.2.3/a.png",
        "http://100.64.0.1/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://172.31.255.255/a.png",
        "http://192.168.0.1/a.png",
        "http://198.18.0.1/a.png",
        "http://224.0.0.1/a.png",
        "http://255.255.255.255/a.png",
        "http://0.0.0.0/a.png",
        "http://[::1]/a.png",
        "http://[::]/a.png",
        "http://[fe80::1]/a.png",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://[ff02::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://[::ffff:a9fe:a9fe]/a.png",
        "http://[::127.0.0.1]/a.png",
        "http://[64:ff9b::10.0.0.1]/a.png",
        "http://[64:ff9b:1::8.8.8.8]/a.png",
        "http://[2002:7f00:1::]/a.png",
        "http://[2001:0:53aa:64c::]/a.png",
        "http://8.8.8.8:22/a.png",
        "http://8.8.8.8:6379/a.png",
    ],
)
def test_an_address_that_is_not_the_internets_is_blocked(address):
    with pytest.raises(NotFetched) as refused:
        check(address, NOTHING)
    assert refused.value.reason is Reason.BLOCKED_ADDRESS


@pytest.mark.parametrize(
    "address",
    [
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://0x7f.0.0.1/a.png",
        "http://0177.0.0.1/a.png",
        "http://017700000001/a.png",
        "http://127.1/a.png",
        "http://127.0.0.1./a.png",
        "http://127.0.0.0x1/a.png",
        "http://example.org.0/a.png",
        "http://１２７.1/a.png",
        "file:///etc/passwd",
        "ftp://example.org/a.png",
        "gopher://example.org:70/a",
        "data:image/png;base64,AAAA",
        "//example.org/a.png",
        "a.png",
        "",
        "http://",
        "http:///a.png",
        "http://user@example.org/a.png",
        "http://user:secret@example.org/a.png",
        "http://example.org:port/a.png",
        "http://example.org:99999/a.png",
        "http://exa mple.org/a.png",
        "http://[::1/a.png",
        "http://%31%32%37.example.org/a.png",
        "http://example.org\\@10.0.0.1/a.png",
        "http://.example.org/a.png",
        "http://-/a.png",
        "http://example.org/" + 3000 * "a",
        "http://example.org/\r\nHost: evil",
        "http://\udcff.org/",
        "http://xn--i-7iq.ws/a.png",
        "http://user@xn--i-7iq.ws/a.png",
    ],
)
def test_an_address_that_deceives_or_is_none_is_refused(address):
    with pytest.raises(NotFetched) as refused:
        check(address, NOTHING)
    assert refused.value.reason is Reason.BAD_ADDRESS
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("https://upload.wikimedia.org/a/b.jpg?x=1#part", "https://upload.wikimedia.org/a/b.jpg?x=1"),
        ("http://EXAMPLE.org", "http://example.org"),
        ("http://8.8.8.8/a.png", "http://8.8.8.8/a.png"),
        ("http://example.org:80/a.png", "http://example.org/a.png"),
        ("https://example.org:80/a.png", "https://example.org:80/a.png"),
        ("https://bücher.example/ä.png", "https://xn--bcher-kva.example/%C3%A4.png"),
        ("http://[2606:4700::1111]/a.png", "http://[2606:4700::1111]/a.png"),
        ("http://[64:ff9b::8.8.8.8]/a.png", "http://[64:ff9b::8.8.8.8]/a.png"),
        ("https://live_static.flickr.com/a.jpg", "https://live_static.flickr.com/a.jpg"),
    ],
)
def test_what_the_web_has_is_taken(address, asked):
    url = check(address, NOTHING)
    assert f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}" in (asked, asked + "/")


def test_what_the_platform_lists_is_taken_at_any_port():
    allowed = Allowed.of(["10.1.0.0/16", "127.0.0.2", "fd00::/8", "searxng.tools.svc"])
    for address in (
        "http://10.1.2.3:8080/",
        "http://127.0.0.2:1234/",
        "http://[fd00::1]:9/",
        "http://searxng.tools.svc:8888/",
    ):
        check(address, allowed)
    for address in ("http://10.2.0.1/", "http://127.0.0.1/", "http://[fe80::1]/"):
        with pytest.raises(NotFetched):
            check(address, allowed)
    assert allowed.trouble("searxng.tools.svc", ipaddress.ip_address("10.96.0.1"), 8888) is None
    assert allowed.trouble("other.tools.svc", ipaddress.ip_address("10.96.0.1"), 80) is not None


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0", "not a host", "http://example.org", "", "0x7f.1"])
def test_an_entry_of_the_list_that_means_nothing_is_named(entry):
    with pytest.raises(ValueError, match="is no host name, address or CIDR network"):
        Allowed.of([entry])


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_public_that_python_calls_private_or_multicast(address):
    if address.is_private or address.is_multicast or address.is_link_local or address.is_reserved:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_wrapping_an_ipv4_address_into_ipv6_makes_it_no_more_public(address):
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(ipaddress.ip_address(wrapped)) is is_public(address)
    number = int(address)
    assert not is_public(ipaddress.ip_address(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"))


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_public_that_python_calls_special(address):
    if address.is_private or address.is_multicast or address.is_link_local or address.is_loopback:
        assert not is_public(address)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_named_reason(text):
    for address in (text, f"http://{text}", f"http://example.org/{text}", f"http://{text}@example.org"):
        with suppress(NotFetched):
            url = check(address, NOTHING)
            assert url.scheme in ("http", "https")
            assert not url.userinfo
