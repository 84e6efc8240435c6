"""Fuzzes a target with atheris for a while: python -m fuzz TARGET [--seconds 60]. Findings are in fuzz/findings.

`python -m fuzz cli` makes 10,000 calls with wrong values, without atheris: see fuzz/sweep.py.
"""

import argparse
import sys
from pathlib import Path

if sys.argv[1:2] == ["cli"]:
    from fuzz.sweep import main

    sys.exit(main(sys.argv[2:]))

parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
parser.add_argument("target", help="a target, or `list`")
parser.add_argument("--seconds", type=int, default=60, help="default: 60")
args = parser.parse_args()

try:
    import atheris
except ImportError:
    sys.exit("python -m fuzz needs atheris; install it with: pip install -e '.[fuzz]'")

with atheris.instrument_imports(include=["model_compression", "safetensors"]):
    from fuzz.targets import TARGETS

if args.target == "list":
    print("cli", *TARGETS)
    sys.exit()
if args.target not in TARGETS:
    sys.exit(f"unknown target {args.target!r}; there are: {', '.join(TARGETS)}")
here = Path(__file__).parent
corpus, findings = here / "corpus" / args.target, here / "findings" / args.target
for folder in (corpus, findings):
    folder.mkdir(parents=True, exist_ok=True)
target = TARGETS[args.target]
for number, seed in enumerate(target.seeds()):
    (corpus / f"seed-{number}").write_bytes(seed)
limits = [f"-max_total_time={args.seconds}", f"-artifact_prefix={findings}/", "-rss_limit_mb=4096", "-timeout=20"]
atheris.Setup([sys.argv[0], *limits, str(corpus)], target)
atheris.Fuzz()
