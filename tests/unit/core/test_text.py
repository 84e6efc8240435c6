"""Numbers and tables as text."""

import shlex

import pytest

from model_compression.core.text import (
    count,
    duration,
    escape_markdown,
    markdown_table,
    percent,
    percent_interval,
    shell_word,
    short_count,
    size,
)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (468.7, "7 min 49 s"), (7260, "2 h 1 min")]
)
def test_duration_in_two_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999 bytes"), (1500, "1.5 kB"), (13_991_808, "14 MB"), (2.5e9, "2.5 GB")]
)
def test_size_in_powers_of_ten(number, text):
    assert size(number) == text


def test_counts_and_shares():
    assert (count(1, "epoch"), count(1000, "epoch")) == ("1 epoch", "1,000 epochs")
    assert (percent(0.7587), percent_interval((0.75, 0.7671))) == ("75.87\u00a0%", "75.0 to 76.7\u00a0%")


def test_markdown_table_fills_short_rows():
    assert markdown_table(("a", "b", "c"), [("1",), ("2", "3", "4")], left=2).splitlines() == [
        "| a | b | c |", "|---|---|---:|", "| 1 |  |  |", "| 2 | 3 | 4 |",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["plain", "it's", "a b", "*", ""])
def test_shell_words_are_read_back(word):
    assert shlex.split(shell_word(word)) == [word]
    assert "\n" not in shell_word("a\nb")


def test_escaped_text_is_no_markup():
    assert escape_markdown("<b>|*x*\n https://a") == r"\<b\>\|\*x\* https\://a"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (999, "999"), (2560, "2.560 k"), (27_530_240, "27.53 M"), (222_486_528, "222.5 M"), (10**9, "1.000 G")],
)
def test_counts_have_four_digits_and_a_unit(count, shown):
    assert short_count(count) == shown
