"""What an error that stops a run says beside its reason: what is kept, and how to go on from it."""

from collections.abc import Iterator
from contextlib import contextmanager

from model_compression.core.errors import FileFormatError, Interrupted, NumericalError
from model_compression.core.memory import named_out_of_memory
from model_compression.core.options import setting
from model_compression.core.processes import lost_is_said
from model_compression.engine.checkpoint import load_state
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.stop_requests import words_and_code


@contextmanager
def ways_on(run: RunFolder) -> Iterator[None]:
    """Adds to a NumericalError the state that is kept, and names memory that runs out outside of a step."""
    remedy = (
        f"take a smaller {setting('batch_size')} or student, or store no answers ({setting('teacher_cache', 'off')})"
    )
    try:
        with named_out_of_memory(remedy), lost_is_said(lambda: f"its last state is kept; continue with: {run.way_on}"):
            yield
    except NumericalError as error:
        raise NumericalError(f"{error}; {_kept(run)}") from None


@contextmanager
def way_on_after_signal(run: RunFolder) -> Iterator[None]:
    """Turns a signal that came before the first step or behind the last one into Interrupted, with the way on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        words, code = words_and_code(stop)
        begun = f"what is done is kept; continue with: {run.way_on}"
        said = begun if run.config.exists() else "nothing was written yet: repeat the command"
        raise Interrupted(f"{words}; {said}", code) from None


def _kept(run: RunFolder) -> str:
    try:
        state = load_state(run.state)
    except FileFormatError:
        state = None
    if state is None:
        return f"no state was saved yet: start a new run, with another {setting('run_dir', flag='out')}"
    step = state.progress.get("step")
    return f"the state of step {step} is kept; go on from it with: model-compression resume {run.path} --lr RATE"
