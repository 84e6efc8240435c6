"""One way in a process of its own: says when it is ready, then runs for the seconds that it is told.

python -m benchmarks.worker WAY JSON-OF-THE-JOB
"""

import json
import resource
import sys
from typing import Any

from benchmarks.ways import Job, ready


def main() -> None:
    """Talks in lines of JSON."""
    run, facts = ready(sys.argv[1], Job(**json.loads(sys.argv[2])))
    run(0.1)
    _say(facts)
    for line in sys.stdin:
        images, seconds = run(float(line))
        _say({"images": images, "seconds": seconds, "memory_bytes": _memory()})


def _memory() -> int:
    """Largest resident memory so far, of this process and of the workers that load its data."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024


def _say(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main()
