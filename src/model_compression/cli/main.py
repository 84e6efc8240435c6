"""The `model-compression` command: finds the subcommand, and turns errors into one line and an exit code."""

import argparse
import difflib
import importlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn, cast

from model_compression._version import __version__
from model_compression.cli.early import check_early
from model_compression.cli.hints import hint
from model_compression.cli.launch import check_started_alone, heard_once, launch, num_processes
from model_compression.core import processes, trust
from model_compression.core.argument_types import register_types
from model_compression.core.console import error_line, safe_streams, unforeseen
from model_compression.core.errors import (
    EXIT_BUG,
    EXIT_FAILURE,
    EXIT_USAGE,
    Interrupted,
    ModelCompressionError,
    UsageError,
)
from model_compression.core.files import is_of_writing, writing_failed
from model_compression.core.options import speaking_flags
from model_compression.core.registry import unknown_name
from model_compression.engine.stop_requests import ended_by_signals, words_and_code

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Name → (module in this package, one-line help). The modules are imported only when asked for: help stays instant.
COMMANDS = {
    "train": ("train", "train a network on labels"),
    "distill": ("distill", "train a student on a teacher's answers"),
    "resume": ("resume", "resume an interrupted run, bit for bit"),
    "test": ("test", "measure a network on the test set"),
    "prune": ("prune", "remove channels of a network, and retrain it with the teacher"),
    "quantize": ("quantize", "write an int8 file, and retrain if it loses too much"),
    "compress": ("compress", "distil, prune, quantise, export and verify within a size budget"),
    "pack": ("pack", "write a run's network as a small file, with its figures"),
    "export": ("export", "write an ONNX file, and check it on every test image"),
    "verify": ("verify", "compare an exported file with its network"),
    "predict": ("predict", "classify images with an exported file"),
    "embed": ("embed", "write the embeddings of images, from any network without its head"),
    "measure": ("measure", "measure size, operations, memory and latency"),
    "doctor": ("doctor", "check machine, data, teacher and loss before a run"),
    "runs": ("runs", "list runs with their state and result"),
    "compare": ("compare", "test whether run A is better than run B, and show what differs"),
    "push": ("push", "upload a run to the Hugging Face hub"),
    "demo": ("demo", "train a LeNet on CIFAR-10, with a teacher and without, in minutes"),
    "compare-methods": ("compare_methods", "compare distillation methods over seeds, with tests"),
    "search": ("search", "tune options on held-out images, and test the best against the defaults"),
    "reproduce": ("reproduce", "repeat the classic experiment and its table"),
    "report": ("report", "write one page: results, curves, costs, mistakes"),
    "methods": ("methods", "list the distillation methods, or explain one"),
    "features": ("features", "list the layers of a network that methods can compare"),
    "draw": ("draw", "draw a network"),
    "data": ("data", "download a dataset, or describe a folder of images"),
    "cache": ("cache", "fill, show, check or delete stored teacher answers"),
    "import": ("import_weights", "convert weights from Caffe and caffe-tensorflow"),
    "export-npy": ("export_npy", "write a network's weights as a caffe-tensorflow .npy file"),
}

_GROUP = "model_compression.commands"
_OPTIONS_IN_USAGE = 8
_TRUST_NOTHING = ("runs", "compare", "push", "demo", "report", "methods", "data", "import")


_KEPT = {  # after a signal, of commands that keep more than whole files
    "cache": "answers of complete views are kept: the same command goes on",
    **dict.fromkeys(
        ("compare-methods", "demo", "reproduce", "search"), "what is done is saved: the same command goes on"
    ),
}


class Parser(argparse.ArgumentParser):
    """ArgumentParser that lists near matches for an unknown option or choice."""

    def __init__(self, *args: object, **kwargs: object):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        register_types(self)

    @property
    def flags(self) -> set[str]:
        """All options, also of actions within it, as those of `cache`."""
        groups = [] if self._subparsers is None else self._subparsers._group_actions
        inner = [cast(dict[str, Parser], group.choices) for group in groups]
        own = {option for action in self._actions for option in action.option_strings}
        return own.union(*(parser.flags for actions in inner for parser in actions.values()))

    def shorten_usage(self) -> None:
        """Leaves what may be left out to the list of options, where naming all of it would fill the screen."""
        optional = [action for action in self._actions if action.option_strings and not action.required]
        if self.usage is not None or len(optional) <= _OPTIONS_IN_USAGE:
            return
        needed = [action for action in self._actions if not action.option_strings or action.required]
        formatter = argparse.HelpFormatter(self.prog)
        formatter.add_usage(None, needed, [], prefix="")
        self.usage = f"{formatter.format_help().strip()} [options]"

    def _get_values(self, action, arg_strings):  # type: ignore[no-untyped-def]
        if action.option_strings and arg_strings == ["--"]:  # of --option=--, which argparse makes an empty list
            raise argparse.ArgumentError(action, "must be a value, got '--'")
        return super()._get_values(action, arg_strings)

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        known = {option for action in self._actions for option in action.option_strings}
        for argument in args:  # before what is missing, which may be what this one was to be
            if argument == "--":
                break
            if argument.startswith("--") and argument.partition("=")[0] not in known and self._subparsers is None:
                self._unknown(argument, known)
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._unknown(unknown[0], known)
        return parsed

    def _unknown(self, argument: str, known: set[str]) -> NoReturn:
        if not argument.startswith("-"):
            self.error(f"unrecognized argument: {argument}; see {self.prog} --help")
        self.error(f"unrecognized argument: {argument}; {hint(argument, sorted(known), self.prog)}")

    def error(self, message: str) -> NoReturn:
        kind = re.fullmatch(r"argument ([^ :]+)[^:]*: (must be .*)", message, re.DOTALL)  # of `register_types`
        if kind:
            message = f"{kind[1]} {kind[2]}"
        choice = re.fullmatch(r"argument ([^ :]+).*: invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL)
        if choice:
            message = str(unknown_name(choice[1], choice[2], [one.strip("'") for one in choice[3].split(", ")]))
        self.exit(EXIT_USAGE, f"{self.prog}: error: {error_line(message)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0, 1 for a failure, 2 for wrong usage, 70 for a bug, 128 + N after signal N."""
    with safe_streams(), speaking_flags():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        print(f"model-compression {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS and name not in _plugins():
        near = difflib.get_close_matches(name, [*COMMANDS, *_plugins()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        print(
            f"model-compression: error: unknown command {name!r}; {hint}see model-compression --help", file=sys.stderr
        )
        return EXIT_USAGE
    return run_command(name, rest)


def _plugins() -> "dict[str, EntryPoint]":
    """Subcommands of other packages by name: modules with a docstring, EXAMPLES, `configure` and `run`."""
    from importlib.metadata import entry_points  # a tenth of the time in which a help is printed

    return {plugin.name: plugin for plugin in entry_points(group=_GROUP) if plugin.name not in COMMANDS}


def _module_of(name: str) -> ModuleType:
    """The module of a subcommand. Raises UsageError for a plug-in that cannot be loaded, or is none."""
    if name in COMMANDS:
        return importlib.import_module(f"model_compression.cli.{COMMANDS[name][0]}")
    plugin = _plugins()[name]
    try:
        module = plugin.load()
    except Exception as error:  # a stranger's module can raise anything while it is imported
        raise UsageError(
            f"the command {name!r}, a plug-in, cannot be loaded from {plugin.value}: {type(error).__name__}: {error}; "
            "mend or remove it"
        ) from error
    missing = [part for part in ("EXAMPLES", "configure", "run") if not hasattr(module, part)]
    if missing:
        raise UsageError(f"the command {name!r}, a plug-in, has no {missing[0]} in {plugin.value}")
    return cast(ModuleType, module)


def parser_of(name: str) -> tuple[ModuleType, Parser]:
    """The module of a subcommand, and what parses its arguments."""
    module = _module_of(name)
    parser = Parser(
        prog=f"model-compression {name}", description=_wrapped(module.__doc__ or ""), epilog=module.EXAMPLES
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if name not in _TRUST_NOTHING:
        parser.add_argument("--trust", action="store_true", help="import code that files name; run ONNX without limits")
    module.configure(parser)
    parser.shorten_usage()
    return module, parser


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Imports the subcommand, parses its arguments and runs it, with the package's errors as one line on stderr."""
    debug = "--debug" in arguments
    try:
        with ended_by_signals():
            return _run_command(name, arguments)
    except KeyboardInterrupt as stop:
        words, code = words_and_code(stop)
        kept = _KEPT.get(name, "no file was left in part: repeat the command")
        return _ended(name, f"{words}; {kept}", code)
    except BrokenPipeError:
        raise
    except (ModelCompressionError, OSError, MemoryError) as error:
        if debug:
            raise
        if isinstance(error, Interrupted):  # as somebody wished
            return _ended(name, str(error), error.exit_code)
        if isinstance(error, OSError) and is_of_writing(error):
            error = writing_failed(error.filename or "a file", error)
        code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
        return _ended(name, f"error: {str(error) or type(error).__name__}", code)
    except Exception as error:  # nobody foresaw it
        if debug:
            raise
        return _ended(name, unforeseen(error), EXIT_BUG)


def _run_command(name: str, arguments: Sequence[str]) -> int:
    module, parser = parser_of(name)
    args = parser.parse_args(arguments)
    with (
        speaking_flags(parser.flags),
        trust.command(arguments, trusts_all=getattr(args, "trust", False)),
        _strict(getattr(args, "strict", False)),
    ):
        count = num_processes(getattr(args, "processes", None), getattr(args, "device", None))
        check_started_alone(name, args)
        if "torch" not in sys.modules:  # else there is no time to be won
            check_early(name, args)
        if count > 1:
            return launch(count, [name, *arguments])
        with heard_once():
            return int(module.run(args) or 0)


@contextmanager
def _strict(wanted: bool) -> Iterator[None]:
    """Strict checks in this process and those that it starts, see `checks.before_run`."""
    before = dict(os.environ)
    if wanted:
        os.environ["MODEL_COMPRESSION_STRICT"] = "1"
    try:
        yield
    finally:
        if "MODEL_COMPRESSION_STRICT" not in before:
            os.environ.pop("MODEL_COMPRESSION_STRICT", None)


def _ended(name: str, message: str, code: int) -> int:
    if processes.speaks_first():
        print(f"model-compression {name}: {error_line(message)}", file=sys.stderr)
    return code


def _wrapped(text: str) -> str:
    """Paragraphs at the width of the terminal, as argparse wraps the options."""
    width = max(40, shutil.get_terminal_size().columns - 2)
    return "\n\n".join(textwrap.fill(" ".join(paragraph.split()), width) for paragraph in text.split("\n\n"))


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    lines += [f"  {name:<{width}}  {plugin.value}" for name, plugin in _plugins().items()]
    return "\n".join(
        [
            "usage: model-compression COMMAND [options]",
            "",
            "Distil, prune, quantise and export a small network, and measure what each step gained or cost.",
            "",
            "commands:",
            *lines,
            "",
            "model-compression COMMAND --help shows the options of one, with examples.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
