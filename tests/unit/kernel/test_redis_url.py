"""The address of a Redis: what it may say, and what is told of one that cannot be used."""

from pathlib import Path

import pytest

from penstock.kernel.errors import Invalid
from penstock.kernel.redis_url import check_redis_url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://redis:6380/0", "redis:6380"),
        ("redis://user:secret@redis/1?ssl_cert_reqs=none", "redis:6379"),
        ("rediss://:secret@[::1]:7000/0", "[::1]:7000"),
        ("redis://", "localhost:6379"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
    ],
)
def test_it_is_told_without_user_and_password(url: str, told: str) -> None:
    assert check_redis_url(url) == told


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "redis://user:password@host:port/db"),
        ("localhost:6379", "redis://user:password@host:port/db"),
        ("http://redis:6379", "rediss:// for TLS"),
        ("redis://redis:99999", "%XX"),
        ("redis://:my/secret@redis:6379", "%XX"),
        ("redis://redis?max_connections=100", "'max_connections'"),
        ("redis://redis?protocol=3", "'protocol'"),
        ("rediss://redis?ssl_ca_certs=/nowhere.pem", "/nowhere.pem: No such file"),
    ],
)
def test_what_cannot_be_used_is_told_without_the_password(url: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_redis_url(url)
    assert said in caught.value.detail
    assert caught.value.field == "REDIS_URL"
    assert "secret" not in caught.value.detail


def test_a_file_that_is_there_will_do(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificate")
    assert check_redis_url(f"rediss://redis/0?ssl_ca_certs={tmp_path / 'ca.pem'}") == "redis:6379"


@pytest.mark.parametrize("cut", ["/", "?", "#"])
def test_a_password_that_is_cut_in_two_is_not_told(cut):
    with pytest.raises(Invalid) as caught:
        check_redis_url(f"redis://user:12{cut}s3cret@redis:6379")
    assert "s3cret" not in caught.value.detail
    assert "12" not in caught.value.detail
