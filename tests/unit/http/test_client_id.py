import pytest

from penstock.http.request_context import HOPS_MAX, ClientIdentifier
from penstock.kernel.errors import Invalid


def name(callers, headers=(), peer="10.0.0.1"):
    pairs = [(key.encode(), value.encode("latin-1")) for key, value in headers]
    return callers.client_id({"client": (peer, 5) if peer else None, "headers": pairs}, dict(pairs))


def test_without_a_key_the_client_is_its_address():
    assert name(ClientIdentifier()) == "10.0.0.1"
    assert name(ClientIdentifier(), peer=None) == "local"


@pytest.mark.parametrize("header", [("authorization", "Bearer k"), ("authorization", "bearer  k "), ("x-api-key", "k")])
def test_a_key_names_the_client_wherever_it_stands_and_is_not_kept(header):
    assert name(ClientIdentifier(), [header]) == name(ClientIdentifier(), [("x-api-key", "k")], peer="10.9.9.9")
    assert name(ClientIdentifier(), [header]).startswith("key:")
    assert name(ClientIdentifier(), [("x-api-key", "other")]) != name(ClientIdentifier(), [header])
    assert len(name(ClientIdentifier(), [("x-api-key", "k" * 60_000)])) < 48


@pytest.mark.parametrize("header", [("authorization", "Basic k"), ("authorization", "Bearer "), ("x-api-key", "")])
def test_what_is_no_key_is_passed_over(header):
    assert name(ClientIdentifier(), [header]) == "10.0.0.1"


def test_of_ipv6_the_network_is_the_client_and_mapped_ipv4_is_ipv4():
    assert (
        name(ClientIdentifier(), peer="2001:db8::1")
        == name(ClientIdentifier(), peer="2001:db8::ffff:2")
        == "2001:db8::/64"
    )
    assert name(ClientIdentifier(), peer="2001:db8:0:1::1") != name(ClientIdentifier(), peer="2001:db8::1")
    assert name(ClientIdentifier(), peer="::ffff:10.0.0.1") == "10.0.0.1"


PROXIES = "10.0.0.0/8, 192.0.2.1 ,2001:db8::/32"


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2a00::1]:4711", "2a00::/64"),
        ("2a00::1", "2a00::/64"),
        ("10.1.1.1", "10.1.1.1"),
        ("10.3.3.3,10.2.2.2", "10.3.3.3"),
        ("198.51.100.1, unknown", "10.0.0.1"),
        ("198.51.100.1, _hidden, 10.2.2.2", "10.2.2.2"),
        ("", "10.0.0.1"),
        (",,", "10.0.0.1"),
        ("\xff\x00", "10.0.0.1"),
    ],
)
def test_the_rightmost_hop_that_is_no_proxy_of_ours_is_the_client(said, client):
    assert name(ClientIdentifier(PROXIES), [("x-forwarded-for", said)]) == client


def test_several_headers_are_one_list():
    headers = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "10.2.2.2")]
    assert name(ClientIdentifier(PROXIES), headers) == "203.0.113.7"


def test_a_stranger_is_not_believed():
    said = [("x-forwarded-for", "203.0.113.7")]
    assert name(ClientIdentifier(PROXIES), said, peer="198.51.100.1") == "198.51.100.1"
    assert name(ClientIdentifier(), said) == "10.0.0.1"


def test_of_a_very_long_list_only_the_end_is_looked_at():
    hops = ["198.51.100.1"] + ["10.1.1.1"] * (HOPS_MAX + 3)
    assert name(ClientIdentifier(PROXIES), [("x-forwarded-for", ",".join(hops))]) == "10.1.1.1"


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.0/33", "10.0.0.1;10.0.0.2"])
def test_a_proxy_that_is_none_is_refused_at_the_start(text):
    with pytest.raises(Invalid, match="PENSTOCK_TRUSTED_PROXIES"):
        ClientIdentifier(text)


def test_what_is_remembered_of_addresses_is_bounded():
    callers = ClientIdentifier()
    for number in range(5000):
        name(callers, peer=f"10.0.{number // 250}.{number % 250}")
    assert callers._classify.cache_info().currsize == 4096
