"""One way in a process of its own: says when it is ready, then runs for the seconds that it is told.

python -m benchmarks.worker MODULE WAY JSON-OF-THE-JOB

MODULE has the ways: a function `ready`, and the class `Job` that it takes.
"""

import contextlib
import importlib
import json
import resource
import sys
from typing import Any


def main() -> None:
    """Talks in lines of JSON; what libraries print goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        _work()


def _work() -> None:
    module, way, job = sys.argv[1:]
    ways = importlib.import_module(module)
    run, facts = ways.ready(way, ways.Job(**json.loads(job)))
    run(0.1)
    _say(facts)
    for line in sys.stdin:
        samples, seconds = run(float(line))
        _say({"samples": samples, "seconds": seconds, "memory_bytes": _memory()})


def _memory() -> int:
    """Largest resident memory so far, of this process and of the workers that load its data."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024


def _say(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True, file=sys.__stdout__)


if __name__ == "__main__":
    main()
