"""What an examination finds."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: ``text`` says how it is with ``subject`` of ``area``; ``remedy`` what to do, where it is not ok."""

    area: str
    subject: str
    level: Level
    text: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """All of it that is worth a line by itself."""
        return f"{self.text}; {self.remedy}" if self.remedy else self.text
