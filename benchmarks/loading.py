"""How fast photographs are read, scaled to 224 pixels and batched, beside torchvision's and timm's loaders; and memory.

python -m benchmarks.loading [--rounds 5] [--files 10000 100000 1000000]
python -m benchmarks.loading --augmented [--rounds 5]

Every way reads the same JPEG files (quality 90, 4:2:0) with two workers, in turn in each round, and gives batches of
uint8. The photographs are mosaics of crops of scikit-learn's two. The others are spared what they need not do here:
torchvision scales with its bilinear filter, and neither normalises.

With --augmented all give training views, drawn alike: random crops of 35 % of the area and more, of a width / height of
3/4 to 4/3, mirrored, with brightness, contrast and saturation changed by up to 40 %: `--augmentation photo` here,
RandomResizedCrop, RandomHorizontalFlip and ColorJitter of torchvision's v2 on tensors and on Pillow's images, and
timm's training pipeline.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.record import line, surroundings, write
from model_compression.core.data_config import DataConfig
from model_compression.data.image_files import decode_image, decode_scaled
from model_compression.data.sources import load_dataset
from model_compression.data.streaming import loader_for

SIDE, WORKERS = 224, 2
# width, height: how many photographs, how often each file is shown in a pass, batch size, goal
PHOTOS = {(500, 375): (200, 10, 64, 1.3), (1600, 1200): (40, 10, 32, 2.0), (4000, 3000): (12, 16, 8, 6.0)}
Batches = Iterator[torch.Tensor]


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000], metavar="N", help="of a folder")
    parser.add_argument("--augmented", action="store_true", help="measure training views only")
    parser.add_argument("--memory", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory_here(*args.memory)))
        return
    if args.augmented:
        measure_augmented(args.rounds)
        return
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MODEL_COMPRESSION_CACHE"] = f"{scratch}/cache"
        rates = {size: measure(Path(scratch), size, args.rounds) for size in PHOTOS}
        starts = {count: start(Path(scratch) / f"{count}", count) for count in args.files}
    facts = surroundings(torch.device("cpu"))
    content = {
        "surroundings": facts,
        "load_before_and_after": [load_before, os.getloadavg()[0]],
        "photographs": {f"{width}x{height}": found for (width, height), found in rates.items()},
        "folders": starts,
    }
    text = "\n".join([f"# Loading photographs\n\n{line(facts)}. `python -m benchmarks.loading`.\n", *tables(content)])
    print(text)
    write("loading", content, text)


def measure_augmented(rounds: int) -> None:
    """Measures training views, prints and writes."""
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MODEL_COMPRESSION_CACHE"] = f"{scratch}/cache"
        rates = {size: measure(Path(scratch), size, rounds, AUGMENTED) for size in list(PHOTOS)[:2]}
    facts = surroundings(torch.device("cpu"))
    content = {
        "surroundings": facts,
        "load_before_and_after": [load_before, os.getloadavg()[0]],
        "photographs": {f"{width}x{height}": found for (width, height), found in rates.items()},
    }
    head = f"# Training views of photographs\n\n{line(facts)}. `python -m benchmarks.loading --augmented`.\n"
    text = "\n".join([head, *augmented_table(content["photographs"])])
    print(text)
    write("loading-augmented", content, text)


def augmented_table(found: dict[str, Any]) -> Iterator[str]:
    """The rows of the table, in Markdown."""
    others = [way for way in AUGMENTED if way != "here"]
    yield f"| photographs | here, images/s | {' | '.join(others)} | {' | '.join(f'times {way}' for way in others)} |"
    yield "|---|" + "---:|" * (1 + 2 * len(others))
    for size, one in found.items():
        rates = " | ".join(f"{one['median'][way]:,.0f}" for way in AUGMENTED)
        times = " | ".join(f"{one['times_faster'][way]:.2f}" for way in others)
        yield f"| {size} | {rates} | {times} |"
    yield ""


def here(folder: str, batch_size: int, seed: int) -> Batches:
    """A pass over the training images of this package's loader."""
    train, _ = load_dataset(f"folder:{folder}", image_size=SIDE, resident="off", workers=WORKERS)
    loader = loader_for(train, DataConfig(), torch.device("cpu"))
    return (batch.inputs for batch in loader.epoch(epoch=0, seed=seed, batch_size=batch_size))


def torchvision(folder: str, batch_size: int, seed: int) -> Batches:
    """A pass of ImageFolder and PyTorch's DataLoader."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

    dataset = ImageFolder(f"{folder}/train", Compose([Resize(SIDE), CenterCrop(SIDE), PILToTensor()]))
    loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, num_workers=WORKERS)
    return (images for images, _ in loader)


def timm(folder: str, batch_size: int, seed: int) -> Batches:
    """A pass of timm's loader, without its last step, which normalises."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", f"{folder}/train"),
        (3, SIDE, SIDE),
        batch_size,
        num_workers=WORKERS,
        interpolation="bicubic",
        crop_pct=1.0,
        device=torch.device("cpu"),
    )
    return (images for images, _ in loader.loader)


def augmented_here(folder: str, batch_size: int, seed: int) -> Batches:
    """Views of `--augmentation photo`."""
    train, _ = load_dataset(f"folder:{folder}", image_size=SIDE, resident="off", workers=WORKERS, crops=True)
    loader = loader_for(train, DataConfig(augmentation="photo"), torch.device("cpu"))
    return (batch.inputs for batch in loader.epoch(epoch=seed, seed=seed, batch_size=batch_size))


def augmented_torchvision(folder: str, batch_size: int, seed: int, *, tensors: bool = True) -> Batches:
    """torchvision's classes on ImageFolder: on ``tensors`` uint8, or on Pillow's images."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    first, last = ([v2.PILToTensor()], []) if tensors else ([], [v2.PILToTensor()])
    crop = v2.RandomResizedCrop(SIDE, scale=(0.35, 1.0), antialias=True)
    dataset = ImageFolder(
        f"{folder}/train", v2.Compose([*first, crop, v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4), *last])
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, num_workers=WORKERS)
    return (images for images, _ in loader)


def augmented_timm(folder: str, batch_size: int, seed: int) -> Batches:
    """timm's training pipeline, without its last step, which normalises."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", f"{folder}/train"),
        (3, SIDE, SIDE),
        batch_size,
        is_training=True,
        scale=(0.35, 1.0),
        color_jitter=0.4,
        interpolation="bicubic",
        num_workers=WORKERS,
        device=torch.device("cpu"),
        use_multi_epochs_loader=False,
    )
    return (images for images, _ in loader.loader)


Ways = dict[str, Callable[[str, int, int], Batches]]
WAYS: Ways = {"here": here, "torchvision": torchvision, "timm": timm}
AUGMENTED: Ways = {
    "here": augmented_here,
    "torchvision": augmented_torchvision,
    "torchvision on Pillow": partial(augmented_torchvision, tensors=False),
    "timm": augmented_timm,
}


def measure(scratch: Path, size: tuple[int, int], rounds: int, ways: Ways = WAYS) -> dict[str, Any]:
    """Images a second of every way, in turn, and how far the pixels here are from those of a full decode."""
    count, shown, batch_size, goal = PHOTOS[size]
    folder = scratch / f"{size[0]}"
    written = photographs(folder / "photographs", size, count)
    spread(folder / "train", written, count * shown)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    processor_ms: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in sorted(ways, key=lambda way: (list(ways).index(way) + number) % len(ways)):
            batches = ways[way](str(folder), batch_size, number)
            begun, used = time.perf_counter(), sum(os.times()[:4])  # workers count once they have ended
            images = sum(len(batch) for batch in batches)
            rates[way].append(images / (time.perf_counter() - begun))
            processor_ms[way].append((sum(os.times()[:4]) - used) / images * 1e3)
            print(f"{size}, {number}: {way} {rates[way][-1]:,.0f}/s, {processor_ms[way][-1]:.2f} ms", file=sys.stderr)
    differences = [pixel_difference(path) for path in written[:20]]
    middle = {way: statistics.median(found) for way, found in rates.items()}
    return {
        "bytes_each": statistics.mean(path.stat().st_size for path in written),
        "images_per_second": rates,
        "times_faster": ratios(rates),
        "processor_ms_an_image": processor_ms,
        "times_less_processor": {way: 1 / ratio for way, ratio in ratios(processor_ms).items()},
        "median": middle,
        "goal": goal,
        "mean_difference_levels": {"mean": statistics.mean(differences), "largest": max(differences)},
    }


def ratios(of: dict[str, list[float]]) -> dict[str, float]:
    """Median over the rounds of what is here to what every other way has."""
    return {
        way: statistics.median(own / other for own, other in zip(of["here"], of[way], strict=True))
        for way in of
        if way != "here"
    }


def pixel_difference(path: Path) -> float:
    """Mean difference in levels, of 255, from Pillow's full decode and antialiased bicubic filter."""
    whole = ImageOps.fit(decode_image(path, str(path)), (SIDE, SIDE), method=Image.Resampling.BICUBIC)
    found = decode_scaled(path, str(path), 3, (SIDE, SIDE)).transpose(1, 2, 0)
    return float(np.abs(found.astype(float) - np.asarray(whole)).mean())


def photographs(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """``count`` JPEG files of mosaics: crops of two photographs, enlarged with the square root of the size."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "scikit-learn is not installed, whose photographs are used: pip install 'model-compression[bench]'"
        )
    samples = Path(spec.origin).parent / "datasets" / "images"
    scenes = [Image.open(samples / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
    generator = np.random.Generator(np.random.PCG64(size[0]))
    folder.mkdir(parents=True)
    width, height = (round(side * max(1.0, size[0] / 600) ** 0.5) for side in (600, 400))
    for number in range(count):
        mosaic = Image.new("RGB", size)
        for top in range(0, size[1], height):
            for left in range(0, size[0], width):
                scene = scenes[generator.integers(2)]
                x, y = generator.integers(scene.width - 599), generator.integers(scene.height - 399)
                tile = scene.crop((x, y, x + 600, y + 400)).resize((width, height), Image.Resampling.LANCZOS)
                mosaic.paste(ImageOps.mirror(tile) if generator.integers(2) else tile, (left, top))
        mosaic.save(folder / f"{number:04}.jpg", quality=90, subsampling="4:2:0")
    return sorted(folder.iterdir())


def spread(folder: Path, files: list[Path], count: int, in_each: int = 1000) -> None:
    """``count`` links to ``files`` in class folders of about ``in_each``, an hour old."""
    classes = max(2, count // in_each)
    for label in range(classes):
        (folder / f"{label:04}").mkdir(parents=True)
        for number in range(label, count, classes):
            os.link(files[number % len(files)], folder / f"{label:04}" / f"{number:07}.jpg")
        os.utime(folder / f"{label:04}", (0, time.time() - 3600))


def start(folder: Path, count: int) -> dict[str, Any]:
    """Seconds until a folder of ``count`` small files is ready, twice, and the memory of a pass over a part of it."""
    written = []
    for number in range(20 * -(-count // 1_000_000)):  # a file takes no more than 65,000 links
        written += [folder / "photographs" / f"{number}.jpg"]
        written[-1].parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(written[-1], quality=90)
        os.utime(written[-1], (0, time.time() - 3600))
    spread(folder / "train", written, count)
    found: dict[str, Any] = {}
    for way in ("here", *WAYS):  # here first with no index, then with one
        command = [sys.executable, "-m", "benchmarks.loading", "--memory", way, str(folder)]
        result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
        found["here, first start" if way == "here" and not found else way] = result
    return found


def memory_here(way: str, folder: str) -> dict[str, float]:
    """Seconds until the first batch, and the memory of this process and its workers after 100 batches of 32."""
    begun = time.perf_counter()
    batches = WAYS[way](folder, 32, 0)
    next(batches)
    seconds = time.perf_counter() - begun
    for _ in islice(batches, 99):
        pass
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    return {"seconds": seconds, "megabytes": sum(map(resident_bytes, pids)) / 1e6}


def resident_bytes(pid: int | None) -> int:
    """What a process holds in memory besides files, its share of what several hold (Linux)."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith(("Pss_Anon:", "Pss_Shmem:"))) * 1024


def tables(content: dict[str, Any]) -> Iterator[str]:
    """The rows of the tables, in Markdown."""
    yield "| photographs | kB each | here, images/s | torchvision | timm | goal | levels off |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for size, found in content["photographs"].items():
        rates = " | ".join(f"{found['median'][way]:,.0f}" for way in WAYS)
        off = found["mean_difference_levels"]["mean"]
        yield f"| {size} | {found['bytes_each'] / 1e3:,.0f} | {rates} | {found['goal']} | {off:.2f} |"
    yield "\nTimes faster here, by the clock and by the time of the processor, median of the rounds:\n"
    yield "| photographs | than torchvision | than timm | less than torchvision | less than timm |"
    yield "|---|---:|---:|---:|---:|"
    for size, found in content["photographs"].items():
        times = [*found["times_faster"].values(), *found["times_less_processor"].values()]
        yield f"| {size} | {' | '.join(f'{one:.2f}' for one in times)} |"
    yield "\n| files | first batch here, s | again, s | torchvision | timm | MB here | torchvision | timm |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for count, found in content["folders"].items():
        seconds = " | ".join(f"{found[way]['seconds']:.1f}" for way in ("here, first start", *WAYS))
        megabytes = " | ".join(f"{found[way]['megabytes']:,.0f}" for way in WAYS)
        yield f"| {count:,} | {seconds} | {megabytes} |"
    yield ""


if __name__ == "__main__":
    main()
