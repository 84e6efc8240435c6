"""Stored teacher answers: fill them before training, look at them, check them, delete them.

`distill` fills what it needs by itself; `build` does so beforehand, for the same options as `distill`."""

import argparse
import time
from pathlib import Path
from typing import Any

from model_compression.cli.launch import add_processes
from model_compression.core.console import json_text

EXAMPLES = """examples:
  model-compression cache build --teacher nin-cifar10
  model-compression cache build --augmentation flip_shift --views 4
  model-compression cache info
  model-compression cache check
  model-compression cache clear --all

They lie where MODEL_COMPRESSION_CACHE says, else in the user's cache.
"""

_LEGEND = "found there: of the views that runs and builds asked for; `cache info STORE` shows more of one"
_SHORT = 8  # letters of a store's name that do to tell it from others
_VERDICTS = {True: "good", False: "BAD ", None: "-   "}
_CHECKED = 500  # answers of each view that `check` computes again
_TOLERANCES = {
    "float32": 1e-3,
    "bfloat16": 0.05,
    "float16": 5e-3,
}  # of the logits' range: another batch, another device


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions and their options."""
    from model_compression.cli import distill

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="fill the views that `distill` with these options reads")
    distill.add_distill_options(build)
    add_processes(build)
    for name, text in (
        ("info", "what is stored: teacher, views, size, how often it served"),
        ("check", "compute a sample of the stored answers again and compare"),
        ("clear", "delete stored answers"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="one store (default: all)")
        action.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        if name == "clear":
            action.add_argument("--all", action="store_true", help="all stores of the user's cache")
        if name == "check":
            action.add_argument(
                "--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)"
            )


def run(args: argparse.Namespace) -> int:
    """Does what the action says; returns the exit code."""
    return {"build": _build, "info": _info, "check": _check, "clear": _clear}[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from model_compression.cli.distill import distill_config
    from model_compression.core.errors import UsageError
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.engine.runs import fill_cache

    if args.scheme:
        raise UsageError("--scheme has no effect here: the answers of a teacher to one run are stored")
    begun = time.monotonic()
    with ConsoleObserver() as observer:
        teacher = fill_cache(distill_config(args), observer)
    facts = {**_facts(teacher.store), "seconds": round(time.monotonic() - begun, 1)}
    print(json_text(facts) if args.json else _text(facts))
    return 0


def _info(args: argparse.Namespace) -> int:
    from model_compression.distillation.teachers.store import cache_folder

    found = [_facts(store) for store in _stores(args.folder)]
    if args.json:
        print(json_text({"folder": str(args.folder or cache_folder()), "stores": found}))
        return 0
    if len(found) == 1:
        print(_text(found[0]))
    else:
        print(_table(found, args.folder or cache_folder()))
    return 0


def _check(args: argparse.Namespace) -> int:
    from model_compression.core.device import choose_device
    from model_compression.engine.console_observer import ConsoleObserver

    choose_device(args.device)
    results: list[dict[str, Any]] = []
    with ConsoleObserver() as observer:  # one: what is so of the data is said once
        for store in _stores(args.folder):
            good, reason = _verdict(store, args.device, observer)
            results.append({"folder": str(store.folder), "good": good, "result": reason})
    if args.json:
        print(json_text({"stores": results}))
    else:
        for result in results:
            print(f"{_VERDICTS[result['good']]}  {result['folder']}\n      {result['result']}")
        if not results:
            print("nothing is stored: nothing to check")
    return 1 if any(result["good"] is False for result in results) else 0


def _verdict(store: Any, device: str, observer: Any) -> tuple[bool | None, str]:
    """Whether a store's answers are those that its teacher gives, None where nobody can tell, and why."""
    from model_compression.core.errors import GivenAsObjectError, ModelCompressionError, UntrustedCodeError
    from model_compression.engine.teachers import reopen

    try:
        precision, views = store.fingerprint["precision"], store.views()
        teacher = reopen(store, device, observer.message)
        if not views:
            return None, "nothing to check: a run was stopped while it stored the first view"
        count = observer.counter("check", len(views), "views")
        largest = 0.0
        for number, view in enumerate(views, start=1):
            largest = max(largest, teacher.difference(teacher.stored(view), view, _CHECKED))
            count(number)
        good = largest <= _TOLERANCES[precision]
        return good, f"largest difference {largest:.1e} of the range of the answers"
    except (GivenAsObjectError, UntrustedCodeError) as error:
        return None, f"not checked: {error}"
    except ModelCompressionError as error:
        return False, str(error)
    except (KeyError, TypeError) as error:
        return False, f"damaged, or of another version of this package: {error!r}"


def _clear(args: argparse.Namespace) -> int:
    from model_compression.core.errors import UsageError

    if (args.folder is None) != args.all:
        raise UsageError("say what to delete: a FOLDER, as `cache info` prints them, or --all")
    freed = {str(store.folder): store.clear() for store in _stores(args.folder)}
    if args.json:
        print(json_text({"freed_bytes": sum(freed.values()), "folders": list(freed)}))
    else:
        print(f"{len(freed)} stores deleted, {_size(sum(freed.values()))} freed")
    return 0


def _stores(folder: Path | None) -> list[Any]:
    """The stores that are meant. Raises UsageError when ``folder`` is none and has none."""
    from model_compression.core.errors import UsageError
    from model_compression.distillation.teachers.store import stores

    if folder is not None and not folder.exists() and folder.name == str(folder):
        named = [store.folder for store in stores() if store.folder.name.startswith(folder.name)]
        if len(named) > 1:
            raise UsageError(f"{folder} begins the names of {len(named)} stores; give more letters of one")
        folder = named[0] if named else folder
    found = stores(folder)
    if folder is not None and not found:
        raise UsageError(f"{folder} holds no stored answers; `model-compression cache info` lists those there are")
    return found


def _facts(store: Any) -> dict[str, Any]:
    from model_compression.core.errors import FileFormatError

    usage, blocks = store.usage, store.blocks()
    part = [(filled, count) for filled, count in blocks.values() if 0 < filled < count]
    found = {
        "folder": str(store.folder),
        "views": len(store.views()),
        "views_in_part": len(part),
        "blocks_in_part": [sum(filled for filled, _ in part), sum(count for _, count in part)],
        "views_with_embeddings": len(store.views("embedding")),
        "size_bytes": store.size_bytes(),
    }
    try:
        print_, origin = store.fingerprint, store.origin
        known = {
            "teacher": origin["teacher"],
            "tta": print_["tta"],
            "data": origin["data"]["name"],
            "augmentation": print_["augmentation"],
            **{name: print_[name] for name in _drawn() if name in print_},
            "precision": print_["precision"],
            "dtype": print_["dtype"],
            **({"topk": print_["teacher_cache_topk"]} if "teacher_cache_topk" in print_ else {}),
        }
    except (FileFormatError, KeyError, TypeError) as error:  # or of another version of this package
        return {**found, "damaged": str(error)}
    return {
        **found,
        **known,
        "found": usage.found,
        "filled": usage.filled,
        "hit_rate": usage.hit_rate,
    }


def _drawn() -> list[str]:
    """Options of the data, as a fingerprint may have them, that say how views are drawn."""
    from model_compression.core.config_values import types_of_fields
    from model_compression.core.data_config import DataConfig

    return [name for name in types_of_fields(DataConfig) if name != "augmentation"]


def _table(found: list[dict[str, Any]], folder: Path) -> str:
    """A line for each store in ``folder``, the damaged ones behind the others."""
    if not found:
        return f"no answers are stored in {folder}"
    good = [facts for facts in found if "damaged" not in facts]
    rows = [("store", "teacher", "data", "views", "size", "found there")]
    for facts in sorted(good, key=lambda facts: (str(facts["teacher"]), str(facts["data"]), facts["views"])):
        teacher = f"{facts['teacher']}{' (flip-averaged)' if facts['tta'] == 'flip' else ''}"
        drawn = [name for name in ("cutout", "mixup", "cutmix") if facts.get(name)]
        data = ", ".join([facts["data"], *([facts["augmentation"]] * (facts["augmentation"] != "none")), *drawn])
        views = f"{facts['views']}{f' + {part} in part' if (part := facts['views_in_part']) else ''}"
        rows.append(
            (
                Path(facts["folder"]).name[:_SHORT],
                _cut(teacher, 28),
                _cut(data, 20),
                f"{views} {facts['dtype']}{', top {topk}'.format(**facts) if 'topk' in facts else ''}",
                _size(facts["size_bytes"]),
                f"{facts['found']} of {facts['found'] + facts['filled']}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [
        f"{Path(facts['folder']).name[:_SHORT]}  damaged, or of another version; `cache clear` deletes it"
        for facts in found
        if "damaged" in facts
    ]
    total = _size(sum(facts["size_bytes"] for facts in found))
    return "\n".join([*lines, "", f"{len(found)} stores, {total}, in {folder}", _LEGEND])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _text(facts: dict[str, Any]) -> str:
    if "damaged" in facts:
        name = Path(facts["folder"]).name
        return f"{facts['folder']}\n  damaged, or of another version; model-compression cache clear {name} deletes it"
    stored = f"{facts['views']} view{'' if facts['views'] == 1 else 's'}"
    embedded = facts["views_with_embeddings"]
    stored += f", {embedded} with embeddings," if embedded else ""
    if facts["views_in_part"]:
        stored += " and {views_in_part} in part ({0:,} of {1:,} blocks)".format(*facts["blocks_in_part"], **facts)
    tta = ", averaged with those to mirror images" if facts["tta"] == "flip" else ""
    kept = facts.get("topk", 0)
    largest = f"{kept} largest logits" if kept > 1 else "largest logit"
    of = f", the {largest} of each answer and the mass of the rest" if kept else ""
    drawn = "".join(f", {name.replace('_', ' ')} {facts[name]}" for name in _drawn() if facts.get(name))
    asked = facts["found"] + facts["filled"]
    lines = [
        facts["folder"],
        f"  teacher   {facts['teacher']}{tta}, in {facts['precision']}",
        f"  data      {facts['data']}, augmentation {facts['augmentation']}{drawn}",
        f"  stored    {stored} as {facts['dtype']}{of}, {_size(facts['size_bytes'])}",
        f"  served    {facts['found']} of {asked} requests for a view were there ({facts['hit_rate']:.0%})",
    ]
    return "\n".join(lines)


def _size(size_bytes: int) -> str:
    from model_compression.core.text import size

    return size(size_bytes)
