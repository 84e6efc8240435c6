"""Which channels go, checked against gates written out and against networks whose channels are worth nothing."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model_compression.compression import channels, groups
from model_compression.compression.channels import cost_of, cut_channels
from model_compression.compression.groups import find_groups
from model_compression.core.errors import UsageError
from model_compression.models import create_model
from model_compression.models.base import MODELS, Network
from model_compression.models.external import External
from model_compression.models.loading import load_model, read_model
from model_compression.models.pruned import as_pruned
from model_compression.models.sparse import as_sparse
from model_compression.models.weights import save_weights


def small(num_classes=3):
    return Network(
        OrderedDict(
            conv1=nn.Conv2d(3, 12, 3),
            bn1=nn.BatchNorm2d(12),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(12, 10, 3),
            flatten=nn.Flatten(),
            ip1=nn.Linear(160, 16),
            relu2=nn.ReLU(),
            ip2=nn.Linear(16, num_classes),
        ),
        flatten_shape=(10, 4, 4),
    )


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(MODELS._entries, "small", small)


def images(count=16, side=8, batches=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)] * batches


def test_worthless_channels_go_first_and_the_answers_stay():
    network = create_model("small", seed=0).eval()
    with torch.no_grad():
        network.conv2.weight[:, [1, 5, 7]] = 0
        network.ip1.weight.view(16, 10, 16)[:, [0, 4]] = 0
        network.ip2.weight[:, [2, 3, 11, 12]] = 0
    left = (9 * 27 + 9) + 2 * 9 + (8 * 9 * 9 + 8) + (12 * 8 * 16 + 12) + (3 * 12 + 3)
    cut = cut_channels(network, images(), resource="params", target=left, round_to=1)
    assert cost_of(cut, "params", (3, 8, 8)) <= left
    assert cut.flatten_shape == (8, 4, 4)
    pixels = network.preprocessing(images()[0])
    with torch.no_grad():
        torch.testing.assert_close(cut(pixels), network(pixels), rtol=1e-5, atol=1e-6)
    assert network.conv1.out_channels == 12  # it stays as it was


def test_what_channels_are_worth_is_the_square_of_the_slope_of_their_gates():
    network = create_model("small", seed=3).eval()
    batches = [network.preprocessing(batch) for batch in images(count=4, batches=3)]
    _, groups = find_groups(network, (3, 8, 8))
    found = channels._fisher(network, groups, batches, torch.Generator().manual_seed(9), "categorical")
    exact, generator = network.double(), torch.Generator().manual_seed(9)
    gates = [torch.ones(size, dtype=torch.float64, requires_grad=True) for size in (16, 10, 12)]
    expected = [torch.zeros(len(gate), dtype=torch.float64) for gate in gates]
    for batch in batches:
        maps = exact.relu1(exact.bn1(exact.conv1(batch.double()))) * gates[2].view(1, -1, 1, 1)
        maps = exact.conv2(maps) * gates[1].view(1, -1, 1, 1)
        logits = exact.ip2(exact.relu2(exact.ip1(maps.flatten(1))) * gates[0])
        classes = torch.multinomial(logits.detach().float().softmax(dim=1), 1, generator=generator)[:, 0]
        slopes = torch.autograd.grad(F.cross_entropy(logits, classes, reduction="sum"), gates)
        for total, slope in zip(expected, slopes, strict=True):
            total += slope.square() / (4 * 3)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("round_to", [1, 3, 4, 8])
def test_layers_that_lose_channels_keep_a_multiple(round_to):
    network = create_model("resnet8", seed=0).eval()
    before = {name: layer.out_channels for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    target = cost_of(network, "params", (3, 32, 32)) // 2
    cut = cut_channels(network, images(4, 32, 1), resource="params", target=target, round_to=round_to)
    widths = {name: layer.out_channels for name, layer in cut.named_modules() if isinstance(layer, nn.Conv2d)}
    assert 0.8 * target < cost_of(cut, "params", (3, 32, 32)) <= target
    changed = {name: width for name, width in widths.items() if width != before[name]}
    assert len(changed) > 3
    assert all(width % round_to == 0 and width >= 4 for width in changed.values())
    if round_to == 1:
        assert any(width % 2 for width in changed.values())  # else nothing is seen of the others


def test_the_block_that_is_worth_least_for_what_it_costs_goes_first():
    worth = [torch.tensor([9.0, 1, 9, 2, 9, 3, 9, 9, 9, 9]), torch.tensor([1.0, 1, 1, 1, 5, 5, 5, 5])]
    spared = [torch.full((10,), 1.0), torch.full((8,), 0.5)]
    assert channels._cheapest(worth, spared, 1.0, 4) == [[1, 3], []]  # 10 become 8
    assert channels._cheapest(worth, spared, 2.5, 4) == [[1, 3], [0, 1, 2, 3]]
    assert channels._cheapest(worth, spared, 1.0, 1) == [[1], []]
    spared[1] = torch.full((8,), 0.6)
    assert channels._cheapest(worth, spared, 2.2, 4) == [[], [0, 1, 2, 3]]  # it spares enough, so [1, 3] stay


@pytest.mark.parametrize(
    "name",
    [
        "lenet-caffe",
        "resnet8",
        "wrn_16_1",
        pytest.param("vgg8", marks=pytest.mark.slow),
        pytest.param("nin", marks=pytest.mark.slow),
        pytest.param("whitening-cnn", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("resource", ["macs", "params"])
def test_families_are_cut_to_what_is_asked_for_and_saved(name, resource, tmp_path):
    network = create_model(name, seed=0).eval()
    target = cost_of(network, resource, (3, 32, 32)) // 2
    cut = cut_channels(network, images(4, 32, 1), resource=resource, target=target)
    assert 0.9 * target < cost_of(cut, resource, (3, 32, 32)) <= target
    save_weights(tmp_path / "cut.safetensors", cut)
    again, pixels = read_model(tmp_path / "cut.safetensors").eval(), network.preprocessing(images(4, 32, 1)[0])
    with torch.no_grad():
        assert torch.equal(again(pixels), cut(pixels))
    assert (again.name, again.options["body"]) == ("pruned", name)
    twice = cut_channels(again, images(4, 32, 1), resource=resource, target=round(0.8 * target))
    assert twice.options["body"] == name
    fresh = load_model("pruned", twice.options, seed=1)
    assert [t.shape for t in fresh.state_dict().values()] == [t.shape for t in twice.state_dict().values()]


OWN_CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, fixed=False):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3), nn.Linear(16 * 36, 3)
        self.fixed = fixed

    def forward(self, images):
        maps = self.one(images).relu()
        return self.two(maps.reshape(len(maps), 576 if self.fixed else -1))
"""


def test_own_code_is_cut_where_it_takes_its_sizes_from_its_layers(tmp_path, monkeypatch):
    (tmp_path / "pruned_net.py").write_text(OWN_CODE)
    monkeypatch.chdir(tmp_path)
    network = load_model("pruned_net:Net", seed=0)
    assert isinstance(network, External)
    target = cost_of(network, "params", (3, 8, 8)) // 2
    cut = cut_channels(network, images(), resource="params", target=target, round_to=1)
    assert cut.options["widths"] == {"module.one": [3, 7], "module.two": [252, 3]}
    with pytest.raises(UsageError, match="pruned_net:Net cannot be built again with fewer channels: "):
        cut_channels(load_model("pruned_net:Net", {"fixed": True}), images(), resource="params", target=target)


class Body(nn.Module):
    """Convolutions, a middle part of (B, 16, 8, 8) to maps of as many channels, and a classifier."""

    def __init__(self, middle):
        super().__init__()
        self.stem, self.before, self.middle = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), middle
        self.wide, self.head = nn.Conv2d(16, 24, 1), nn.Linear(24, 3)

    def forward(self, images):
        maps = self.middle(self.before(self.stem(images).relu()).relu())
        return self.head(self.wide(maps).relu().mean((2, 3)))


class Split(nn.Module):
    """Each half of the channels has a convolution of its own, as in MixNet; the sizes are in the code."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, maps):
        one, two = maps.split([8, 8], dim=1)
        return torch.cat([self.one(one), self.two(two)], dim=1)


class Ghost(nn.Module):
    """Maps and what is made of them, joined and cut to size, as in GhostNet."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(16, 10, 1), nn.Conv2d(10, 10, 3, padding=1, groups=10)

    def forward(self, maps):
        one = self.one(maps)
        return torch.cat([one, self.two(one)], dim=1)[:, :16]


class Attention(nn.Module):
    """Heads are cut out of one inner product, as in ViT."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, maps):
        tokens = maps.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(len(maps), 64, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        found = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(found.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, maps.shape[2:]) + maps


class Gained(nn.Conv2d):
    """Has a parameter for each output channel that other convolutions do not have, as in NFNet."""

    def __init__(self):
        super().__init__(16, 16, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(16, 1, 1, 1))

    def forward(self, maps):
        return F.conv2d(maps, self.weight * self.gain, self.bias, padding=1)


class Shuffled(nn.Module):
    """Channel i of one half is multiplied by channel i of the other, as in gated units."""

    def __init__(self):
        super().__init__()
        self.both, self.out = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 16, 1)

    def forward(self, maps):
        one, two = self.both(maps).chunk(2, dim=1)
        return self.out(one * two.sigmoid())


MIDDLES = {
    "split": Split,
    "ghost": Ghost,
    "attention": Attention,
    "gained": Gained,
    "gated": Shuffled,
    "multiplied": lambda: nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, groups=16), nn.Conv2d(32, 16, 1)),
    "grouped": lambda: nn.Conv2d(16, 16, 3, padding=1, groups=4),
}


@pytest.mark.parametrize("middle", MIDDLES)
@pytest.mark.parametrize("round_to", [1, 4])
def test_layers_whose_channels_are_bound_stay_whole_and_the_rest_is_cut(middle, round_to, monkeypatch):
    monkeypatch.setitem(MODELS._entries, "odd", lambda num_classes=3: Network(OrderedDict(net=Body(MIDDLES[middle]()))))
    network = create_model("odd", seed=0).eval()
    whole = cost_of(network, "params", (3, 8, 8))
    with torch.no_grad():  # what is worth nothing: the answers stay when only that goes
        network.net.wide.weight[4:], network.net.wide.bias[4:] = 0, 0
        network.net.stem.weight[4:], network.net.stem.bias[4:] = 0, 0
    cut = cut_channels(network, images(), resource="params", target=round(0.75 * whole), round_to=round_to)
    pixels = network.preprocessing(images()[0])
    with torch.no_grad():
        torch.testing.assert_close(cut(pixels), network(pixels), rtol=1e-4, atol=1e-5)
    assert cost_of(cut, "params", (3, 8, 8)) <= 0.75 * whole
    widths = cut.options["widths"]
    assert all(min(given) >= 1 for given in widths.values())
    assert {"net.wide", "net.head"} <= widths.keys()


class Fixed(nn.Module):
    """Pairs of convolutions; the code of the first ones has written how many channels lie between them."""

    def __init__(self, fixed=6, free=5):
        super().__init__()
        self.fixed = nn.ModuleList(nn.Conv2d(*sizes, 1) for _ in range(fixed) for sizes in ((16, 12), (12, 16)))
        self.free = nn.ModuleList(nn.Conv2d(*sizes, 1) for _ in range(free) for sizes in ((16, 12), (12, 16)))

    def forward(self, maps):
        for one, two in zip(self.fixed[::2], self.fixed[1::2], strict=True):
            maps = maps + two(one(maps).reshape(len(maps), 12, 8, 8).relu()) * 0.1
        for one, two in zip(self.free[::2], self.free[1::2], strict=True):
            maps = maps + two(one(maps).relu()) * 0.1
        return maps


def test_each_group_that_does_not_go_is_tried_once(monkeypatch):
    monkeypatch.setitem(MODELS._entries, "odd", lambda num_classes=3: Network(OrderedDict(net=Body(Fixed()))))
    network, cuts, seen = create_model("odd", seed=0).eval(), [], []
    before = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr(groups, "as_pruned", lambda *given: cuts.append(1) or as_pruned(*given))
    watcher = SimpleNamespace(counter=lambda name, total, unit: seen.append(total) or seen.append)
    cut, going = groups.smallest(network, (3, 8, 8), 4, watcher)
    assert going == {"net.stem", "net.wide", "net.middle.free.9", *(f"net.middle.free.{n}" for n in range(0, 10, 2))}
    assert seen == [14, *range(1, 15)]
    assert len(cuts) == 2  # all at once, and all that go alone
    assert [cut.net.middle.fixed[0].out_channels, cut.net.middle.free[0].out_channels] == [12, 4]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_groups_that_go_alone_but_not_together_are_parted(monkeypatch):
    class Either(Fixed):
        def forward(self, maps):
            assert self.free[0].out_channels == 12 or self.free[2].out_channels == 12
            return super().forward(maps)

    monkeypatch.setitem(MODELS._entries, "odd", lambda num_classes=3: Network(OrderedDict(net=Body(Either(1, 3)))))
    _, going = groups.smallest(create_model("odd", seed=0).eval(), (3, 8, 8), 4)
    assert {"net.stem", "net.middle.free.4"} <= going
    assert len({"net.middle.free.0", "net.middle.free.2"} & going) == 1
    assert "net.middle.fixed.0" not in going


def test_zeros_of_a_sparse_network_stay_when_it_has_lost_channels():
    source = as_sparse(create_model("small", seed=0), 0.3)
    network = cut_channels(
        source, images(), resource="params", target=round(0.6 * cost_of(source, "params", (3, 8, 8)))
    )
    before = [weight.detach().clone() for weight in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for batch in images():
        optimizer.zero_grad()
        network.train()(network.preprocessing(batch)).square().mean().backward()
        optimizer.step()
    for old, new in zip(before, network.parameters(), strict=True):
        if old.ndim > 1:
            assert not torch.equal(old, new)
            assert 0 < int((old == 0).sum()) < old.numel()
            assert torch.equal(old == 0, new == 0)


def test_what_cannot_be_cut_is_said():
    network = create_model("small", seed=0)
    with pytest.raises(UsageError, match=r"small cannot be cut to 100 parameters: with 4 channels in every layer"):
        cut_channels(network, images(), resource="params", target=100)
    plain = Network(OrderedDict(flatten=nn.Flatten(), ip=nn.Linear(192, 3)))
    with pytest.raises(UsageError, match="has no channels that can be taken away"):
        cut_channels(plain, images(), resource="params", target=100)
    with pytest.raises(UsageError, match="shufflenet_v2 cannot be followed"):
        cut_channels(create_model("shufflenet_v2", seed=0), images(4, 32, 1), resource="macs", target=10**6)
