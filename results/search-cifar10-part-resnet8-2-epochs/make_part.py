"""Writes the first 5,000 training and 1,000 test images of CIFAR-10 as folder:cifar10-part, PNG files by class."""

from pathlib import Path

from PIL import Image

import model_compression as mc

for part, dataset, count in zip(("train", "test"), mc.load_cifar10(), (5000, 1000), strict=True):
    for number in range(count):
        name = dataset.class_names[dataset.labels[number]]
        folder = Path("cifar10-part") / part / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.images[number].transpose(1, 2, 0)).save(folder / f"{number:05}.png")
