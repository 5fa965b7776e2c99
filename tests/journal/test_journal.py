import json
import stat
import threading

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from baal_widgets.journal import Draft, Journal, JournalDamagedError


def change(place, statement):
    """As somebody else would, by SQL."""
    engine = create_engine(place if isinstance(place, str) else f"sqlite:///{place}")
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_what_was_appended_is_there_after_opening_again(place):
    journal = Journal(place)
    journal.append(Draft("label", item=3, key="a/b.png", value="cat", annotator="me", round=2, score=0.5))
    journal.close()
    (event,) = Journal(place).events()
    assert (event.seq, event.kind, event.item, event.key, event.value) == (1, "label", 3, "a/b.png", "cat")
    assert (event.annotator, event.round, event.score) == ("me", 2, 0.5)


def test_the_same_operation_is_written_once(place):
    journal = Journal(place)
    first = journal.append(Draft("label", item=1, value="cat", op_id="x"))
    again = journal.append(Draft("label", item=1, value="dog", op_id="x"))
    assert first == again
    assert len(journal.events()) == 1


def test_a_journal_knows_the_operations_it_holds(place):
    journal = Journal(place)
    journal.append(Draft("label", item=1, value="cat", op_id="x"))
    assert journal.holds("x")
    assert not journal.holds("y")


def test_a_batch_is_written_whole_or_not_at_all(place):
    journal = Journal(place)
    with pytest.raises(ValueError, match="JSON"):
        journal.append(Draft("label", item=1), Draft("measured", payload={"loss": float("nan")}))
    assert journal.events() == []


def test_threads_and_processes_can_append_at_once(place):
    journals = [Journal(place) for _ in range(3)]

    def write(journal):
        for item in range(20):
            journal.append(Draft("label", item=item))

    threads = [threading.Thread(target=write, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journals[0].verify() == 60


def test_any_changed_value_breaks_the_chain(place):
    journal = Journal(place)
    journal.append(*[Draft("label", item=item, value="cat") for item in range(5)])
    journal.close()
    change(place, "UPDATE events SET value = 'dog' WHERE seq = 3")
    with pytest.raises(JournalDamagedError, match="Row 3"):
        Journal(place).verify()


def test_a_missing_row_breaks_the_chain(place):
    journal = Journal(place)
    journal.append(*[Draft("label", item=item) for item in range(5)])
    journal.close()
    change(place, "DELETE FROM events WHERE seq = 2")
    with pytest.raises(JournalDamagedError, match="Row 2"):
        Journal(place).verify()


def test_commits_are_flushed_to_the_disk_by_a_rollback_journal(tmp_path):
    journal = Journal(tmp_path / "labels.db")
    with journal._engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 3  # EXTRA
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"


def test_only_the_owner_may_read_a_new_journal(tmp_path):
    Journal(tmp_path / "labels.db")
    assert stat.S_IMODE((tmp_path / "labels.db").stat().st_mode) == 0o600


def test_a_full_disk_loses_nothing_that_was_there_and_writing_goes_on_after(tmp_path):
    journal = Journal(tmp_path / "labels.db")
    journal.append(Draft("label", item=0))
    with journal._engine.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OperationalError, match="full"):
        journal.append(Draft("measured", payload={"text": "x" * 100_000}))
    with journal._engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    journal.append(Draft("label", item=1))
    assert [event.item for event in journal.events()] == [0, 1]
    assert journal.verify() == 2


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Journal(tmp_path / "nowhere" / "labels.db")


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE events; --", "<img src=x onerror=alert(1)>", "猫 🐈\n\t", "a" * 10_000]
)
def test_any_text_comes_back_as_it_went_in(place, text):
    journal = Journal(place)
    journal.append(Draft("label", item=0, key=text, value=text, payload={"note": text}))
    (event,) = journal.events()
    assert (event.key, event.value, json.loads(json.dumps(event.payload))) == (text, text, {"note": text})
    assert journal.verify() == 1
