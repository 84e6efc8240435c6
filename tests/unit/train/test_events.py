"""Event logs: whole lines, cut back to what a saved state counts."""

import pytest

from model_compression.errors import FileFormatError, ModelCompressionError
from model_compression.train.events import EventLog, read_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def test_events_come_back_as_they_were_written(path):
    log = EventLog(path)
    events = [{"epoch": 1, "loss": 0.1 + 0.2, "terms": {"kd": 1e-9}}, {"epoch": 2, "name": "é\n"}]
    for event in events:
        log.append(event)
    assert log.count == 2
    assert read_events(path) == events
    assert len(path.read_text().splitlines()) == 2


def test_events_without_a_file_are_none(path):
    assert read_events(path) == []
    EventLog(path)
    assert not path.exists()


def test_event_log_is_cut_back_to_its_count(path):
    log = EventLog(path)
    for number in range(5):
        log.append({"epoch": number})
    whole = path.read_bytes()
    again = EventLog(path, 3)
    assert [event["epoch"] for event in read_events(path)] == [0, 1, 2]
    for number in (3, 4):
        again.append({"epoch": number})
    assert (path.read_bytes(), again.count) == (whole, 5)
    EventLog(path, 0)
    assert path.read_bytes() == b""


def test_a_line_that_a_crash_cut_is_left_out(path):
    log = EventLog(path)
    for number in range(3):
        log.append({"epoch": number})
    path.write_bytes(path.read_bytes()[:-4])
    assert [event["epoch"] for event in read_events(path)] == [0, 1]
    EventLog(path, 2).append({"epoch": 9})
    assert [event["epoch"] for event in read_events(path)] == [0, 1, 9]


def test_fewer_lines_than_the_state_counts_are_an_error(path):
    EventLog(path).append({"epoch": 0})
    with pytest.raises(FileFormatError, match=r"events.jsonl holds 1 of the 2 lines that the saved state counts"):
        EventLog(path, 2)
    path.unlink()
    with pytest.raises(FileFormatError, match="holds 0 of the 2 lines"):
        EventLog(path, 2)


@pytest.mark.parametrize("content", [b"{nonsense}\n", b"\xff\xfe\n", b'{"a": 1}\n\n{"a": 2}\n'])
def test_damaged_lines_are_an_error(path, content):
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"events.jsonl is damaged"):
        read_events(path)


def test_log_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(ModelCompressionError, match="cannot write"):
        EventLog(tmp_path / "missing" / "events.jsonl").append({})
