"""The exceptions that users can catch. Each message says what was received, what was expected and the remedy."""

from typing import Any

EXIT_FAILURE, EXIT_USAGE, EXIT_BUG, EXIT_INTERRUPTED = 1, 2, 70, 130
"""Exit codes of every command line of this package."""

_SHOWN = 80  # characters of a value that an error repeats
_LINE = 200  # characters of what another library said


class ModelCompressionError(Exception):
    """Base of all errors that this package raises on purpose; the command line prints it as one line, exit code 1."""


class UsageError(ModelCompressionError, ValueError):
    """A value that the user gave is impossible: an unknown name, a number out of range. Exit code 2.

    ``field`` names the field of the configuration that it was given for, where it is one.
    """

    field: str | None = None


class UnknownNameError(UsageError):
    """A name that no registry has; the message lists near matches."""


class GivenAsObjectError(UsageError):
    """Something asks by its name for data or a network that was given from Python as an object."""

    def __init__(self, what: str, remedy: str):
        super().__init__(
            f"{what} was given from Python as an object, which no name brings back; {remedy}; a run that was stopped "
            "goes on from Python: model_compression.distill with the same objects, run_dir and resume=True"
        )


class DataError(ModelCompressionError):
    """A dataset is missing, corrupt or something else than it was said to be."""


class SizesDifferError(DataError):
    """Images of files differ in size, and nothing says which they shall get."""


class FileFormatError(ModelCompressionError):
    """A file is corrupt, truncated, or holds something that is refused; the message names the file."""


class UntrustedCodeError(ModelCompressionError):
    """A file names code that its reader did not ask for; nothing was imported."""


class WeightsMismatchError(FileFormatError):
    """Weights do not fit the model: the message names every layer with what was found and what was expected."""


class CacheMismatchError(ModelCompressionError):
    """A cache holds answers of another teacher, or to other data; the message says what differs."""


class RunFolderError(ModelCompressionError):
    """A run folder is taken, incomplete, or belongs to another configuration."""


class NotVerifiedError(ModelCompressionError):
    """A file does not answer as the network that it was made of; it is not kept under its name."""


class MissingExtraError(ModelCompressionError):
    """An optional package is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"install it with: pip install 'model-compression[{extra}]'"
        )


class FinishedError(RunFolderError):
    """There is nothing to resume, as everything is finished. The command line ends with exit code 0."""


class NumericalError(ModelCompressionError):
    """A loss became NaN or infinite, or exploded; the message names the step and the term."""


class OutOfMemoryError(ModelCompressionError):
    """Memory ran out; the message names a number of images that fits, or what else would help."""


class NotThereError(UsageError, DataError, FileFormatError, RunFolderError):
    """A path that the user gave leads to nothing. Exit code 2, whatever was expected there."""


class Interrupted(ModelCompressionError):
    """A run was stopped by a signal after its state had been saved; `resume` continues it."""

    def __init__(self, message: str, exit_code: int = EXIT_INTERRUPTED):
        super().__init__(message)
        self.exit_code = exit_code


def shown(value: Any) -> str:
    """``value`` for an error, shortened: `repr` without the middle of a long text."""
    try:
        text = repr(value)
    except Exception:  # of an object of the user's, or an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 4 :]}"


def reason_of(error: BaseException) -> str:
    """The first line of what another library's ``error`` says, as a part of a message; without words its kind."""
    return str(error).strip().partition("\n")[0].rstrip(". ")[:_LINE] or type(error).__name__
