"""The folder of a stage belongs to one process at a time."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from model_compression.core.config_values import Config
from model_compression.core.errors import RunFolderError, UsageError
from model_compression.engine.stages import Stage


@dataclass(frozen=True, kw_only=True)
class Wish(Config):
    """What the stage writes."""

    number: int = 1
    fails: bool = False


class Writing(Stage[Wish, int]):
    """Writes a number; checks what is seen of the folder from outside meanwhile."""

    KIND, FILE, NOUN = Wish, "prune.json", "writing"

    def check(self):
        return self.config

    def run(self):
        with pytest.raises(RunFolderError, match="in use by another process"):
            Writing(Wish(number=2), self.folder).resume()
        if self.config.fails:
            raise UsageError("it cannot be")
        self.result.write_text(str(self.config.number))
        return self.config.number

    @property
    def result(self) -> Path:
        return self.folder / "result"

    def is_done(self):
        return self.result.exists()


def test_a_second_process_is_refused_and_leaves_all_as_it_is(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        for act in ("start", "resume", "finish"):
            with pytest.raises(RunFolderError, match="s is in use by another process; wait for it or choose another"):
                getattr(Writing(Wish(), folder), act)()
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert Writing(Wish(), folder).start() == 1  # whose lock file is left
    assert json.loads((folder / "prune.json").read_text())["number"] == 1
    with pytest.raises(RunFolderError, match="is begun already"):
        Writing(Wish(number=2), folder).start()


def test_a_stage_that_fails_before_anything_is_done_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError):
        Writing(Wish(fails=True), tmp_path / "s").start()
    assert not list(tmp_path.iterdir())
