"""What an error that stops a run says beside its reason: what is kept, and how to go on from it."""

from collections.abc import Iterator
from contextlib import contextmanager

from model_compression.core.errors import FileFormatError, NumericalError
from model_compression.core.memory import named_out_of_memory
from model_compression.core.options import setting
from model_compression.engine.checkpoint import load_state
from model_compression.engine.run_folder import RunFolder


@contextmanager
def ways_on(run: RunFolder) -> Iterator[None]:
    """Adds to a NumericalError the state that is kept, and names memory that runs out outside of a step."""
    remedy = (
        f"take a smaller {setting('batch_size')} or student, or store no answers ({setting('teacher_cache', 'off')})"
    )
    try:
        with named_out_of_memory(remedy):
            yield
    except NumericalError as error:
        raise NumericalError(f"{error}; {_kept(run)}") from None


def _kept(run: RunFolder) -> str:
    try:
        state = load_state(run.state)
    except FileFormatError:
        state = None
    if state is None:
        return f"no state was saved yet: start a new run, with another {setting('run_dir', flag='out')}"
    step = state.progress.get("step")
    return f"the state of step {step} is kept; go on from it with: model-compression resume {run.path} --lr RATE"
