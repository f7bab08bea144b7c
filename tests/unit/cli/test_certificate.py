"""The certificate of a server, by handshakes in memory."""

import logging
import os
import ssl
import subprocess

import pytest

from penstock.cli.certificate import ServerCertificate
from penstock.client.pinning import pinned_context
from penstock.kernel.errors import Invalid
from tests.rigs.certificates import make_certificate


def shake(client: ssl.SSLContext, server: ssl.SSLContext) -> str:
    """Return the version of TLS that both agree on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="search.example"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version()


def test_a_client_with_the_certificate_at_hand_believes_it_and_no_other(tmp_path):
    certificate, key = make_certificate(tmp_path)
    served = ServerCertificate(str(certificate), str(key))
    assert shake(pinned_context(served.pem), served.context) == "TLSv1.3"
    (tmp_path / "other").mkdir()
    other = ServerCertificate(*map(str, make_certificate(tmp_path / "other")))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(pinned_context(served.pem), other.context)


def test_one_file_may_hold_both(tmp_path):
    certificate, key = make_certificate(tmp_path)
    certificate.write_text(key.read_text() + certificate.read_text())
    served = ServerCertificate(str(certificate), "")
    shake(pinned_context(served.pem), served.context)
    assert "PRIVATE" not in served.pem


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_older_versions_of_tls_are_refused(tmp_path):
    served = ServerCertificate(*map(str, make_certificate(tmp_path)))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake(old, served.context)


def test_a_certificate_that_has_expired_is_warned_of(tmp_path, caplog):
    certificate, key = make_certificate(tmp_path, days=-1)
    with caplog.at_level(logging.WARNING):
        ServerCertificate(str(certificate), str(key))
    assert [record.why for record in caplog.records] == ["certificate has expired"]


def test_a_good_one_is_not_warned_of(tmp_path, caplog):
    ServerCertificate(*map(str, make_certificate(tmp_path)))
    assert caplog.records == []


@pytest.mark.parametrize("harm", ["missing", "junk", "empty", "another key", "passphrase", "directory", "pipe"])
def test_files_that_cannot_be_used_are_told_at_the_start_and_left_later(harm, tmp_path, caplog):
    certificate, key = make_certificate(tmp_path)
    served = ServerCertificate(str(certificate), str(key))
    before = served.pem
    if harm == "another key":
        (tmp_path / "other").mkdir()
        key.write_bytes(make_certificate(tmp_path / "other")[1].read_bytes())
    elif harm == "passphrase":
        locked = ["openssl", "pkcs8", "-topk8", "-in", key, "-passout", "pass:x", "-out", tmp_path / "locked.pem"]
        subprocess.run(locked, check=True, capture_output=True)
        key.write_bytes((tmp_path / "locked.pem").read_bytes())
    elif harm in ("junk", "empty"):
        certificate.write_text("junk\n" if harm == "junk" else "")
    else:
        certificate.unlink()
        if harm == "directory":
            certificate.mkdir()
        elif harm == "pipe":
            os.mkfifo(certificate)
    with pytest.raises(Invalid) as caught:
        ServerCertificate(str(certificate), str(key))
    assert caught.value.code == "certificate_unusable"
    assert str(certificate) in caught.value.detail
    with caplog.at_level(logging.WARNING):
        served.reload()
    assert "stays" in caplog.text
    assert served.pem == before
    shake(pinned_context(before), served.context)


def test_a_replaced_certificate_is_taken_for_connections_from_now_on(tmp_path):
    certificate, key = make_certificate(tmp_path)
    served = ServerCertificate(str(certificate), str(key))
    before = served.pem
    make_certificate(tmp_path)
    served.reload()
    assert served.pem != before
    shake(pinned_context(served.pem), served.context)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(pinned_context(before), served.context)
