"""The options of every subcommand, with their defaults, are those of options.txt: scripts of users depend on them."""

import argparse
import re
from pathlib import Path

from model_compression.cli.main import COMMANDS, parser_of

FROZEN = Path(__file__).parent / "options.txt"


def test_no_option_of_a_subcommand_and_no_default_is_lost():
    """A new option is a new line of options.txt; one that goes, or has another default, breaks a script."""
    found = [line for name in COMMANDS for line in described(name, parser_of(name)[1])]
    assert sorted(found) == FROZEN.read_text().splitlines()


def described(name, parser):
    """A line for each argument: the command, the option with its default, if that is a value, or the positional."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part, own in action.choices.items():
                yield from described(f"{name} {part}", own)
        elif not isinstance(action, argparse._HelpAction):
            kind = "" if action.nargs != 0 else " (no value)"
            stated = re.search(r"\(?default: ([^) ]*)\)?$", action.help or "")
            has_own = action.default not in (None, False, [], argparse.SUPPRESS)
            value = action.default if has_own else stated and stated[1]
            name_of = "/".join(action.option_strings) or action.dest.upper()
            yield f"{name} {name_of}{kind}" + (f" = {value}" if value is not None else "")
