"""Operations are torchvision's: each beside what torchvision's own class does with the same parameters."""

import pytest
import torch

from model_compression.data.operations import (
    BINS,
    GEOMETRIC,
    RANDAUGMENT,
    TRIVIALAUGMENT,
    Operation,
    apply_operation,
    move_mask,
)

v2 = pytest.importorskip("torchvision.transforms.v2")

FILL = (10, 200, 60)
SPACES = {"RandAugment": RANDAUGMENT, "TrivialAugmentWide": TRIVIALAUGMENT}
DRAWN = [(kind, name) for kind, space in SPACES.items() for name in space]


def image(channels=3, height=24, width=31):
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "name"), DRAWN)
def test_operation_is_that_of_torchvisions_class(monkeypatch, kind, name, channels):
    """The class draws this very operation, sign and bin; it may write to nothing else than its own copy."""
    theirs = getattr(v2, kind)(fill=list(FILL[:channels]))
    space, before = SPACES[kind], image(channels)
    magnitudes, signed = space[name]
    monkeypatch.setattr(theirs, "_get_random_item", lambda known: (name, known[name]))
    for number in (0, 7, BINS - 1):
        for negative in (False, True)[: 1 + signed]:
            monkeypatch.setattr(torch, "rand", lambda shape, negative=negative: torch.tensor(0.1 if negative else 0.9))
            monkeypatch.setattr(torch, "randint", lambda high, shape, number=number: torch.tensor(number))
            theirs.num_ops, theirs.magnitude = 1, number
            expected = theirs(before.clone())
            size = float(magnitudes(24, 31)[number])
            operation = Operation(name, -size if negative else size)
            found = apply_operation(before.clone(), operation, FILL[:channels])
            # magnitudes are float32 there: a pixel on the border between two may go the other way
            assert (found != expected).float().mean() <= 0.015, (number, negative)
            assert name in GEOMETRIC or (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(("kind", "space"), SPACES.items())
def test_spaces_have_torchvisions_names_signs_and_magnitudes(kind, space):
    theirs = getattr(v2, kind)._AUGMENTATION_SPACE
    assert list(space) == list(theirs)
    for name, (magnitudes, signed) in theirs.items():
        expected = magnitudes(BINS, 24, 31)
        expected = torch.zeros(BINS) if expected is None else expected.double()
        torch.testing.assert_close(torch.tensor(space[name][0](24, 31)), expected.double(), atol=1e-5, rtol=1e-6)
        assert space[name][1] == signed


@pytest.mark.parametrize(
    ("option", "name", "sizes"),
    [
        ("brightness", "Brightness", (-0.375, 0.25)),
        ("contrast", "Contrast", (-0.375, 0.25)),
        ("saturation", "Color", (-0.375, 0.25)),
        ("hue", "Hue", (-0.1875, 0.5)),
    ],
)
def test_operation_of_photo_is_that_of_color_jitter(option, name, sizes):
    for size in sizes:
        factor = size if name == "Hue" else 1 + size
        expected = v2.ColorJitter(**{option: (factor, factor)})(image())
        assert torch.equal(apply_operation(image(), Operation(name, size), FILL), expected)


def test_grey_is_that_of_random_grayscale():
    assert torch.equal(apply_operation(image(), Operation("Grey"), FILL), v2.RandomGrayscale(p=1.0)(image()))


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("channels", [1, 5, 64])
def test_geometric_operations_move_any_number_of_channels_and_masks_alike(name, channels):
    """Each channel moves as a mask does, and what comes in is the fill."""
    before = image(channels)
    operation = Operation(name, 7.0 if name.startswith("Tr") else 20.0 if name == "Rotate" else 0.3)
    found = apply_operation(before, operation, (255,) * channels)
    for channel, moved in zip(before, found, strict=True):
        assert torch.equal(move_mask(channel, operation, 255), moved)
        assert torch.equal(move_mask(channel.long(), operation, 255), moved.long())
    assert not torch.equal(found, before)
    assert (found == 255).float().mean() > 0.02


def test_operations_on_colours_leave_masks():
    mask = image(1)[0]
    for name in {*RANDAUGMENT, "Hue", "Grey"} - set(GEOMETRIC):
        assert move_mask(mask, Operation(name, 0.5), 255) is mask
