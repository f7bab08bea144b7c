import pytest

from penstock.stores.backends.edge import generation_builder as module
from penstock.stores.backends.edge.generation_builder import UpdateJournal
from penstock.stores.commands import DeleteDocuments, SealDocument, TrimDocument
from penstock.stores.data_model import DocumentInfo


def test_updates_come_back_in_their_order_also_those_written_while_it_is_read(tmp_path):
    journal = UpdateJournal(tmp_path / "j")
    first, second, third = (
        TrimDocument("c", "a", 1),
        SealDocument("c", DocumentInfo("b", "h", 1)),
        DeleteDocuments("c", ()),
    )
    assert journal.pop() is None
    journal.append(first)
    journal.append(second)
    assert journal.pop() == first
    journal.append(third)
    assert [journal.pop(), journal.pop(), journal.pop()] == [second, third, None]
    assert journal.pending_bytes == 0
    journal.close()
    assert not (tmp_path / "j").exists()


def test_a_journal_that_gets_too_long_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "JOURNAL_BYTES_MAX", 60)
    journal = UpdateJournal(tmp_path / "j")
    journal.append(TrimDocument("c", "a", 1))
    with pytest.raises(OSError, match="too long"):
        journal.append(TrimDocument("c", "b" * 100, 1))
    assert journal.pop() == TrimDocument("c", "a", 1)
    journal.close()
