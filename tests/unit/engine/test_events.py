"""Event logs: whole lines, cut back to what a saved state counts."""

import pytest

from model_compression.core.errors import ModelCompressionError
from model_compression.engine.events import EventLog, read_events


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


def numbered(path, epochs, **options):
    """A log with the lines of ``epochs`` added to what it has."""
    log = EventLog(path, **options)
    for epoch in epochs:
        log.append({"epoch": epoch})
    return log


def epochs_in(path):
    return [event["epoch"] for event in read_events(path)]


def test_event_log_is_cut_back_to_its_count(path):
    numbered(path, range(1, 6))
    whole = path.read_bytes()
    again = EventLog(path, 3)
    assert epochs_in(path) == [1, 2, 3]
    for epoch in (4, 5):
        again.append({"epoch": epoch})
    assert (path.read_bytes(), again.count) == (whole, 5)
    EventLog(path, 0)
    assert path.read_bytes() == b""


def test_a_line_that_a_crash_cut_is_left_out(path):
    numbered(path, range(1, 4))
    path.write_bytes(path.read_bytes()[:-4])
    assert epochs_in(path) == [1, 2]
    numbered(path, [3], count=2)
    assert epochs_in(path) == [1, 2, 3]


DAMAGES = {
    "a changed byte": lambda content: b"\xff" + content[1:],
    "two lines in one": lambda content: content.replace(b"\n", b" ", 1),
    "nothing in it": lambda content: b"",
    "another type": lambda content: b"[1]\n3\n" + content[content.index(b"\n") + 1 :],
    "an empty line": lambda content: content.replace(b"\n", b"\n\n", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_log_is_that_of_the_state_again(path, damage):
    events = numbered(path, [1, 2, 3]).events
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    EventLog(path, 3, events).append({"epoch": 4})
    assert path.read_bytes() == whole + b'{"epoch": 4}\n'


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_log_that_no_state_has_loses_the_damaged_lines_and_says_so(path, damage):
    numbered(path, [1, 2, 3])
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    kept, said = epochs_in(path), []
    log = EventLog(path, 3, report=said.append)
    log.append({"epoch": 4})
    assert epochs_in(path) == [*kept, 4]
    assert log.count == 4
    assert said == (
        [] if len(kept) == 3 else [f"{path} holds {len(kept)} of 3 lines whole; the run goes on without the others"]
    )


def test_log_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(ModelCompressionError, match="cannot write"):
        EventLog(tmp_path / "missing" / "events.jsonl").append({})
