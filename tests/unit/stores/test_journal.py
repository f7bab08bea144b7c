import pytest

from penstock.stores.backends.edge import journal as module
from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.journal import Journal
from penstock.stores.records import Head


def test_updates_come_back_in_their_order_also_those_written_while_it_is_read(tmp_path):
    journal = Journal(tmp_path / "j")
    first, second, third = wire.Trim("c", "a", 1), wire.Seal("c", Head("b", "h", 1)), wire.Delete("c", [])
    assert journal.take() is None
    journal.append(first)
    journal.append(second)
    assert journal.take() == first
    journal.append(third)
    assert [journal.take(), journal.take(), journal.take()] == [second, third, None]
    assert journal.behind == 0
    journal.close()
    assert not (tmp_path / "j").exists()


def test_a_journal_that_gets_too_long_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "JOURNAL_BYTES_MAX", 60)
    journal = Journal(tmp_path / "j")
    journal.append(wire.Trim("c", "a", 1))
    with pytest.raises(OSError, match="too long"):
        journal.append(wire.Trim("c", "b" * 100, 1))
    assert journal.take() == wire.Trim("c", "a", 1)
    journal.close()
