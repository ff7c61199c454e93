"""`diff` and `timeline` on checkpoints alone: moves on each unit's own scale, lost weights, gradient silence."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deadrelu
from deadrelu.errors import CheckpointError, InputError

from .runs import Run


def trained(steps: Sequence[int], killed_at: int | None = None, optimizer_class: Any = torch.optim.Adam) -> list[Any]:
    """Train a little, and return what there is after so many steps; from `killed_at` on, units 2 and 5 never fire."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = optimizer_class(net.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    kept = []
    for step in range(max(steps)):
        if step == killed_at:
            with torch.no_grad():
                net[0].bias[[2, 5]] -= 1e3
        x = torch.randn(64, 5, generator=generator)
        optimizer.zero_grad()
        (net(x) - x.abs().sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        if step + 1 in steps:
            held = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            kept.append(copy.deepcopy(held))
    return kept


def write(folder: Path, name: str, held: dict[str, Any]) -> Path:
    torch.save(held, folder / name)
    return folder / name


def test_moves_are_on_the_scale_of_each_unit(tmp_path: Path) -> None:
    """Against the definitions, worked out again with plain lists."""
    torch.manual_seed(0)
    old = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double().state_dict()
    new = {name: tensor.clone() for name, tensor in old.items()}
    new["0.weight"][0] *= 2
    new["0.weight"][1] = 0
    new["0.weight"][2] *= -1
    new["0.bias"][3] -= 5
    found = deadrelu.diff(write(tmp_path, "a.pt", old), write(tmp_path, "b.pt", new))
    assert found.evidence == "weights"
    first, last = found.layers
    norms = [sum(float(w) ** 2 for w in row) ** 0.5 for row in old["0.weight"]]
    assert first.layer == "0"
    assert first.weight_move == pytest.approx((1.0, 1.0, 2.0, 0.0))
    assert first.turn[1] is None
    assert [first.turn[unit] for unit in (0, 2, 3)] == pytest.approx([0.0, 2.0, 0.0], abs=1e-12)
    assert first.bias_move == pytest.approx((0, 0, 0, -5 / norms[3]))
    assert (first.zeroed, first.refilled) == ((1,), ())
    assert deadrelu.diff(tmp_path / "b.pt", tmp_path / "a.pt").layers[0].refilled == (1,)
    assert last.zeroed == ()
    assert first.bias_drop == (3, pytest.approx(-5 / norms[3]))
    assert last.bias_drop is None


def test_gradient_silence_of_both(tmp_path: Path) -> None:
    """Units 2 and 5 were killed at step 400 of 600; the checkpoint at 300 knows nothing of it."""
    first, last = trained((300, 600), killed_at=400)
    old, new = write(tmp_path, "a.pt", first), write(tmp_path, "b.pt", last)
    layer = deadrelu.diff(old, new).layers[0]
    assert layer.silenced == (2, 5)
    assert layer.old_silence == ()
    assert layer.new_silence is not None
    assert [silence.steps for silence in layer.new_silence] == pytest.approx([200, 200], abs=30)
    text = str(deadrelu.diff(old, new))
    assert "2 units stopped to have a gradient" in text
    assert "units 2 and 5" in text


def test_an_optimizer_without_memory_is_said_so(tmp_path: Path) -> None:
    before, after = trained((40, 60), optimizer_class=torch.optim.SGD)
    first = deadrelu.diff(write(tmp_path, "a.pt", before), write(tmp_path, "b.pt", after)).layers[0]
    assert first.new_silence is None
    assert first.unread is not None
    assert first.silenced == ()


def test_timeline_of_weights_and_memory(tmp_path: Path) -> None:
    for held in trained((300, 400, 500, 600), killed_at=400):
        write(tmp_path, f"net{held['step']}.pt", held)
    paths = sorted(tmp_path.glob("*.pt"))
    found = deadrelu.timeline(paths, above=0.2)
    assert found.evidence == "weights"
    assert found.order == "step"
    first = next(one for one in found.series if one.site == "0")
    assert first.silent == (0.0, 0.0, 0.25, 0.25)
    assert found.first_bad == 2
    said = " ".join(str(found).split())
    assert "the counted share of layer 0 rose to 25.0 % from 0 % at its lowest" in said
    assert "net500.pt (step 500): 2 more counted" in said
    assert "died" not in said


def test_weights_by_other_names(tmp_path: Path) -> None:
    old = {**nn.RNN(3, 4).state_dict(prefix="rnn."), **nn.MultiheadAttention(4, 2).state_dict(prefix="heads.")}
    new = {name: tensor.clone() for name, tensor in old.items()}
    new["rnn.bias_hh_l0"][1] -= 1
    new["heads.in_proj_weight"][7] = 0
    new["heads.in_proj_weight"][8, 0] = float("nan")
    found = deadrelu.diff(write(tmp_path, "a.pt", old), write(tmp_path, "b.pt", new))
    layers = {layer.layer: layer for layer in found.layers}
    assert set(layers) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "heads.in_proj_weight", "heads.out_proj"}
    drop = layers["rnn.weight_hh_l0"].bias_drop
    assert drop is not None
    assert drop[0] == 1
    assert layers["heads.in_proj_weight"].zeroed == (7,)
    assert layers["heads.in_proj_weight"].weight_move[8] is None
    assert any("holds NaN or inf in heads.in_proj_weight" in note for note in found.notes)


@pytest.mark.parametrize("name", ["embed_tokens", "wte", "model.word_embeddings", "embedding", "pos_embed"])
def test_a_row_of_an_embedding_is_no_unit(tmp_path: Path, name: str) -> None:
    state = {f"{name}.weight": torch.zeros(3, 2), "embedder.conv.weight": torch.ones(3, 2)}
    found = deadrelu.diff(write(tmp_path, "a.pt", state), write(tmp_path, "b.pt", state))
    assert [layer.layer for layer in found.layers] == ["embedder.conv"]


def test_large_weights_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = torch.randn(2, 30, 7, generator=torch.Generator().manual_seed(0))
    paths = write(tmp_path, "a.pt", {"weight": old}), write(tmp_path, "b.pt", {"weight": new})
    (whole,) = deadrelu.diff(*paths).layers
    monkeypatch.setattr("deadrelu.states.layers._CHUNK", 20)
    (parts,) = deadrelu.diff(*paths).layers
    assert whole == parts


def test_different_architectures(tmp_path: Path) -> None:
    old = write(tmp_path, "a.pt", nn.Sequential(nn.Linear(3, 4)).state_dict())
    wide = write(tmp_path, "b.pt", nn.Sequential(nn.Linear(3, 5)).state_dict())
    more = write(tmp_path, "c.pt", nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)).state_dict())
    with pytest.raises(CheckpointError, match=r"0.weight is \[4, 3\] in one and \[5, 3\] in the other") as told:
        deadrelu.diff(old, wide)
    assert "\n" not in str(told.value)
    with pytest.raises(CheckpointError, match=r"only the second has 1.weight, 1.bias"):
        deadrelu.diff(old, more)
    with pytest.raises(CheckpointError, match="different architectures"):
        deadrelu.timeline([old, wide])


def test_prefixes_of_wrappers_do_not_matter(tmp_path: Path) -> None:
    state = nn.Sequential(nn.Linear(3, 4)).state_dict()
    old = write(tmp_path, "a.pt", {f"module.{name}": tensor for name, tensor in state.items()})
    new = write(tmp_path, "b.pt", {f"_orig_mod.{name}": tensor for name, tensor in state.items()})
    (layer,) = deadrelu.diff(old, new).layers
    assert layer.weight_move == (0.0,) * 4


def test_one_checkpoint_is_no_timeline(run: Run) -> None:
    with pytest.raises(InputError, match="needs two or more"):
        deadrelu.timeline([run.folder / "ckpt_50.pt"])


def test_units_of_a_transposed_convolution(tmp_path: Path) -> None:
    """Its weight is (inputs, units, ...): the unit that lost its weights is 3 of 6, not 3 of 4."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 6, 3))
    old = {name.replace("2.", "upconv."): tensor.clone() for name, tensor in net.state_dict().items()}
    new = {name: tensor.clone() for name, tensor in old.items()}
    new["0.weight"][:, 3], new["0.bias"][3] = 0, -1
    new["upconv.weight"][:, 5], new["upconv.bias"][5] = 0, 1
    first, second = deadrelu.diff(write(tmp_path, "a.pt", old), write(tmp_path, "b.pt", new)).layers
    assert (first.units, first.zeroed, first.counted) == (6, (3,), (0, 1))
    assert (second.units, second.zeroed, second.counted) == (6, (5,), (0, 0))
    assert first.weight_move[3] == pytest.approx(1.0)


def test_a_linear_that_keeps_its_weight_by_columns(tmp_path: Path) -> None:
    old = {"c_fc.weight": torch.ones(4, 6), "c_fc.bias": torch.ones(6)}
    new = {"c_fc.weight": torch.ones(4, 6), "c_fc.bias": torch.ones(6)}
    new["c_fc.weight"][:, 5] = 0
    (layer,) = deadrelu.diff(write(tmp_path, "a.pt", old), write(tmp_path, "b.pt", new)).layers
    assert (layer.units, layer.zeroed) == (6, (5,))


def test_what_an_optimizer_does_not_tell_is_unknown_and_not_zero(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"s{held['step']}.pt", held) for held in trained((5, 60), optimizer_class=torch.optim.SGD)]
    found = deadrelu.timeline(paths)
    assert [one.silent for one in found.series] == [(None, None)] * 2
    assert [moment.silent for moment in found.moments] == [(None, None)] * 2
    assert found.first_bad is None
    assert "tells nothing" in found.notes[0]


def test_one_prefix_that_a_trainer_put_before_all_names(tmp_path: Path) -> None:
    """A LightningModule calls its network `net`; with that network alone its checkpoints can be compared."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    held = {f"net.{name}": tensor.clone() for name, tensor in net.state_dict().items()}
    old = write(tmp_path, "a.ckpt", {"pytorch-lightning_version": "2.6.0", "state_dict": held})
    new = write(tmp_path, "b.ckpt", {"state_dict": held | {"net.0.bias": torch.tensor([0.0, -1e3, 0.0, 0.0])}})
    found = deadrelu.diff(old, new, model=net, data=torch.randn(32, 3))
    assert [death.unit for death in found["1"].deaths] == [1]
