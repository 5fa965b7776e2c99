import contextlib
import json
import sqlite3
import stat
import sys
import warnings

import pytest

from baal_widgets.journal import Draft, Journal, JournalDamagedError, checkpoint, fold, repair
from baal_widgets.journal.journal import ROWS_AT_ONCE

ROWS = 10


@pytest.fixture
def path(tmp_path):
    """A journal of ten labels, closed."""
    journal = Journal(tmp_path / "labels.db")
    for item in range(ROWS):
        journal.append(Draft("label", item=item, key=f"{item}.png", value="cat", annotator="me", op_id=f"op-{item}"))
    journal.close()
    return tmp_path / "labels.db"


def copy_of(path):
    return path.with_name(path.name + ".jsonl")


def change(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def damage(path):
    """What `verify` has to say."""
    journal = Journal(path, create=False)
    try:
        journal.verify()
    except JournalDamagedError as error:
        return list(error.differences)
    finally:
        journal.close()
    return []


def lines_of(path):
    return copy_of(path).read_bytes().splitlines(keepends=True)


def labels(path):
    journal = Journal(path, create=False)
    events = journal.events()
    journal.close()
    return fold(events).labels


def test_a_copy_holds_each_fact_as_a_line_that_only_the_owner_may_read(path):
    lines = [json.loads(line) for line in lines_of(path)]
    assert [(line[0], line[1], line[4], line[5]) for line in lines] == [
        (item + 1, f"op-{item}", f"{item}.png", "cat") for item in range(ROWS)
    ]
    assert stat.S_IMODE(copy_of(path).stat().st_mode) == 0o600


def test_a_sound_journal_is_verified_and_left_as_it_is(path):
    before = path.read_bytes(), copy_of(path).read_bytes()
    assert damage(path) == []
    assert repair(path).damaged is None
    assert (path.read_bytes(), copy_of(path).read_bytes()) == before


def test_rows_gone_from_the_end_are_noticed_and_brought_back(path):
    before = labels(path)
    change(path, "DELETE FROM events WHERE seq > 7")
    said = damage(path)
    assert [line.split(" of ")[0] for line in said] == ["Row 8", "Row 9", "Row 10"]
    report = repair(path)
    assert (report.kept, report.restored, report.relined, report.lost) == (7, (8, 9, 10), (), ())
    assert report.differences == tuple(said)
    assert labels(path) == before
    assert damage(path) == []
    assert len(labels(report.damaged)) == 7


def test_an_emptied_journal_is_noticed_and_brought_back(path):
    before = labels(path)
    change(path, "DELETE FROM events")
    assert len(damage(path)) == ROWS
    assert repair(path).restored == tuple(range(1, ROWS + 1))
    assert labels(path) == before


def test_a_journal_whose_file_is_gone_is_brought_back_from_the_copy(path):
    before = labels(path)
    path.unlink()
    report = repair(path)
    assert (report.kept, len(report.restored)) == (0, ROWS)
    assert labels(path) == before


def test_a_changed_row_is_brought_back_with_the_same_chain(path):
    before = lines_of(path)
    change(path, "UPDATE events SET value = 'dog' WHERE seq = 4")
    (said,) = damage(path)
    assert "Row 4" in said
    assert "'dog'" in said
    assert "'cat'" in said
    assert repair(path).restored == (4,)
    assert lines_of(path) == before
    assert damage(path) == []


def test_a_changed_line_of_the_copy_is_noticed_and_brought_back(path):
    before = lines_of(path)
    copy_of(path).write_bytes(b"".join(before).replace(b"3.png", b"9.png"))
    (said,) = damage(path)
    assert said.startswith("Row 4 of the copy is not as it was written")
    report = repair(path)
    assert (report.kept, report.restored, report.relined) == (ROWS, (), (4,))
    assert lines_of(path) == before


@pytest.mark.parametrize("gone", [slice(2, 3), slice(0, 1), slice(3, 6)])
def test_lines_gone_from_the_middle_of_the_copy_are_noticed_and_brought_back(path, gone):
    before = lines_of(path)
    left = list(before)
    del left[gone]
    copy_of(path).write_bytes(b"".join(left))
    assert len(damage(path)) == gone.stop - gone.start
    assert repair(path).relined == tuple(range(gone.start + 1, gone.stop + 1))
    assert lines_of(path) == before


def test_lines_in_another_order_are_noticed(path):
    lines = lines_of(path)
    copy_of(path).write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    assert damage(path)
    repair(path)
    assert lines_of(path) == lines


@pytest.mark.parametrize("lost", [1, 4, ROWS])
def test_what_neither_copy_holds_is_told_and_changes_nothing_else(path, lost):
    before = labels(path)
    change(path, f"UPDATE events SET value = 'dog' WHERE seq = {lost}")
    copy_of(path).write_bytes(b"".join(lines_of(path)).replace(f"{lost - 1}.png".encode(), b"zzz"))
    report = repair(path)
    assert (report.lost, report.restored, report.relined, report.kept) == ((lost,), (), (), ROWS - 1)
    assert labels(path) == {item: value for item, value in before.items() if item != lost - 1}
    assert damage(path) == []
    journal = Journal(path)
    told = journal.events()[lost - 1]
    assert told.kind == "lost"
    assert told.payload["database"][0][5] == "dog"
    journal.close()


def test_a_row_gone_from_both_is_told(path):
    change(path, "DELETE FROM events WHERE seq = 5")
    copy_of(path).write_bytes(b"".join(line for place, line in enumerate(lines_of(path)) if place != 4))
    assert damage(path) == ["Row 5 of the journal is missing, from its copy too."]
    report = repair(path)
    assert (report.lost, report.kept) == ((5,), ROWS - 1)
    assert damage(path) == []


def test_history_rewritten_with_new_hashes_is_noticed_and_told(path, tmp_path):
    before = labels(path)
    copy_of(path).rename(tmp_path / "aside")
    forged = Journal(tmp_path / "forged.db")
    for item in range(ROWS):
        value = "dog" if item == 6 else "cat"
        forged.append(Draft("label", item=item, key=f"{item}.png", value=value, annotator="me", op_id=f"op-{item}"))
    forged.close()
    (tmp_path / "forged.db").replace(path)
    (tmp_path / "aside").rename(copy_of(path))
    assert len(damage(path)) == ROWS
    report = repair(path)
    assert report.refused == tuple(range(1, ROWS + 1))
    assert labels(path) == before


def test_labels_given_after_rows_were_lost_are_kept_with_those_brought_back(path):
    change(path, "DELETE FROM events WHERE seq > 8")
    journal = Journal(path)
    with pytest.warns(UserWarning, match="verify"):
        journal.append(Draft("label", item=50, key="50.png", value="dog", op_id="later"))
    journal.append(Draft("undo", item=50, payload={"target": 9}))
    journal.append(Draft("label", item=51, key="51.png", value="dog"))
    journal.close()
    assert damage(path)
    report = repair(path)
    assert report.restored == (9, 10)
    assert report.moved == ((9, 11), (10, 12), (11, 13))
    assert labels(path) == {**dict.fromkeys(range(ROWS), "cat"), 51: "dog"}
    assert damage(path) == []


def test_a_copy_that_lags_is_caught_up(path):
    lines = lines_of(path)
    for kept in (b"".join(lines[:-1]), b"".join(lines[:3]) + lines[3][:20], b"", b"".join(lines)[:-1]):
        copy_of(path).write_bytes(kept)
        Journal(path).close()
        assert lines_of(path) == lines
    copy_of(path).write_bytes(b"".join(lines[:4]))
    assert damage(path) == []
    assert lines_of(path) == lines


def test_a_journal_from_before_there_were_copies_gets_one(path):
    lines = lines_of(path)
    copy_of(path).unlink()
    assert damage(path) == []
    assert not copy_of(path).exists()  # looking changes nothing
    Journal(path).close()
    assert lines_of(path) == lines


def test_a_long_lag_is_made_up_for_over_several_appends(tmp_path):
    journal = Journal(tmp_path / "labels.db")
    journal.append(*[Draft("label", item=item) for item in range(ROWS_AT_ONCE + 500)])
    copy_of(tmp_path / "labels.db").unlink()
    journal.append(Draft("label", item=0))
    assert 0 < len(lines_of(tmp_path / "labels.db")) < ROWS_AT_ONCE
    assert journal.verify() == ROWS_AT_ONCE + 501
    assert len(lines_of(tmp_path / "labels.db")) == ROWS_AT_ONCE + 501


def test_a_copy_that_cannot_be_written_is_told_once_and_fails_no_append(path):
    copy_of(path).unlink()
    copy_of(path).mkdir()
    with pytest.warns(UserWarning, match="cannot be written"):
        journal = Journal(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journal.append(Draft("label", item=77))
    assert journal.events()[-1].item == 77
    journal.close()


def test_a_journal_in_memory_has_no_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.append(Draft("label", item=1))
    assert journal.verify() == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_repair_from_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no copy"):
        repair(tmp_path / "labels.db")
    Journal(tmp_path / "empty.db").close()
    with pytest.raises(ValueError, match="Neither"):
        repair(tmp_path / "empty.db")


def test_a_repaired_journal_and_its_copy_are_private(path):
    change(path, "DELETE FROM events WHERE seq > 7")
    report = repair(path)
    for file in (path, copy_of(path), report.damaged, copy_of(report.damaged)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_changes_its_type_in_the_database_is_verified(path):
    journal = Journal(path)
    journal.append(Draft("label", item=True, score=1), Draft("label", item=2, score=float("nan")))
    assert journal.verify() == ROWS + 2
    journal.close()
    assert sys.float_info.max in [event.score for event in _scored(path)]


def _scored(path):
    journal = Journal(path)
    journal.append(Draft("label", item=3, score=sys.float_info.max))
    assert journal.verify() == ROWS + 3
    events = journal.events()
    journal.close()
    return events


def test_an_anchor_tells_of_an_end_that_is_gone_from_both_copies(path):
    journal = Journal(path)
    anchor, rows = journal.anchor, journal.events()
    assert anchor == f"{ROWS}:{rows[-1].hash}"
    assert journal.verify(anchor) == journal.verify(anchor[:20]) == journal.verify("0:") == ROWS
    with pytest.raises(ValueError, match="Expected an anchor"):
        journal.verify("7:abc")
    journal.close()
    change(path, "DELETE FROM events WHERE seq > 7")
    copy_of(path).unlink()
    journal = Journal(path)
    assert journal.verify() == 7  # nothing in it tells of more
    with pytest.raises(JournalDamagedError, match=f"Fact {ROWS} is not the one"):
        journal.verify(anchor)
    assert journal.verify(f"7:{rows[6].hash}") == 7
    journal.close()
    assert Journal(None).anchor == "0:"


def test_a_checkpoint_tells_of_an_end_that_is_gone_from_both_copies(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 1)
    journal = Journal(path)
    checkpoint.resume(journal)
    journal.close()
    change(path, "DELETE FROM events WHERE seq > 7")
    copy_of(path).unlink()
    (said,) = damage(path)
    assert said.startswith(f"Fact {ROWS}, up to which a checkpoint tells, is gone")
    report = repair(path)
    assert (report.rows, report.damaged is not None) == (7, True)
    journal = Journal(path)
    assert journal.verify() == 7
    journal.close()
