"""Reports made by hand: what a screen is tested on, without a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deadrelu.report import STATUSES, Confidence, Coverage, Level, Report, SiteReport, Status

HOSTILE = "[red]x[/red]'\"<b>&\x1b[31m\x07\r\n\u202e\ud800" + "very.long." * 28 + "act"
MORTAL = ("relu", "relu6", "hardswish")


def site(name: str, units: int, *, op: str = "relu", samples: int = 10_000, rate: float = 0.4, **of: Any) -> SiteReport:
    """Make a site with so many units of each status given (`dead=3`), the rest active at `rate`.

    Besides the statuses: `nan`, `infinite`, `grad_dead`, `input_dead`, `dormant` count units from the first on;
    `producers`, `source`, `unit_dim` are those of the report.
    """
    status: list[Status] = [s for s in STATUSES if s != "active" for _ in range(of.get(s, 0))]
    status += ["active"] * (units - len(status))
    assert len(status) == units, f"{name}: more statuses than units"
    silent = np.array([s in ("dead", "undecided") for s in status], dtype=bool)
    activation_rate = np.where(silent, 0.0, np.where([s == "always_on" for s in status], 1.0, rate))
    place = np.arange(units)
    max_z = np.where(silent, -0.5, 2.0)
    max_z[place < of.get("nan", 0)] = np.nan
    max_z[units - of.get("infinite", 0) :] = np.inf
    return SiteReport(
        site=name,
        op=op,
        source=of.get("source"),
        producers=of.get("producers", (name.rsplit(".", 1)[0] + ".linear",)),
        unit_dim=of.get("unit_dim", 1),
        units=units,
        can_die=op in MORTAL,
        samples=samples,
        positions=samples,
        status=tuple(status),
        activation_rate=activation_rate,
        sample_rate=activation_rate,
        rate_upper=np.where(silent, 1 - 0.05 ** (1 / samples) if samples else np.nan, 1.0),
        max_z=max_z,
        dormant_score=np.where(silent | (place >= units - of.get("dormant", 0)), 0.0, 1.0),
        grad_flow=None,
        grad_dead=place >= units - of.get("grad_dead", 0),
        input_dead=place < of.get("input_dead", 0),
    )


def report(*sites: SiteReport, evidence: Level = "statistical", coverage: Coverage | None = None, **of: Any) -> Report:
    """Make the report of an audit of these sites; its confidence is worked out from their samples."""
    samples = of.pop("samples", max((s.samples for s in sites), default=0))
    return Report(
        mode=of.pop("mode", "audit"),
        evidence=evidence,
        samples=samples,
        sites=sites,
        coverage=coverage or Coverage(sites=len(sites)),
        confidence=of.pop("confidence", _confidence(sites) if sites and samples else None),
        **of,
    )


def _confidence(sites: tuple[SiteReport, ...], rate: float = 1e-3, alpha: float = 0.05) -> Confidence | None:
    able = [s for s in sites if s.can_die]
    if not able:
        return None
    needed = math.ceil(math.log(alpha) / math.log(1 - rate))
    seen = min(s.samples for s in ([s for s in able if s.silent.any()] or able))
    units = sum(s.units for s in able)
    return Confidence(
        rate=rate,
        alpha=alpha,
        needed=needed,
        seen=seen,
        missing=max(needed - seen, 0) if any(s.undecided.any() for s in able) else 0,
        bound=1 - alpha ** (1 / seen),
        joint_bound=1 - (alpha / units) ** (1 / seen),
    )


def _resnet(dead: dict[str, int], samples: int = 50_000) -> tuple[SiteReport, ...]:
    names = ["relu", *(f"layer{i}.{j}.relu{k}" for i in range(1, 5) for j in range(2) for k in ("", "#1"))]
    widths = [64] * 5 + [128] * 4 + [256] * 4 + [512] * 4
    return tuple(
        site(name, width, dead=dead.get(name, 0), samples=samples, rate=0.31, producers=(name.replace("relu", "bn"),))
        for name, width in zip(names, widths, strict=True)
    )


def _opt(layers: int) -> tuple[SiteReport, ...]:
    return tuple(
        site(
            f"model.decoder.layers.{i}.activation_fn",
            1024,
            dead=12 * (i % 7 == 3) + 700 * (i == 41) + 1 * (i > 150),
            rare=i,
            rate=0.03,
            producers=(f"model.decoder.layers.{i}.fc1",),
        )
        for i in range(layers)
    )


CASES: dict[str, Report] = {
    "bottleneck": report(
        site("conv1", 64, rate=0.47),
        site("conv2", 192, dead=8, rate=0.38, always_on=3),
        site("conv3", 256, dead=0, rare=4, rate=0.22),
        site("fc1", 512, dead=56, rate=0.17, rare=11),
        site("fc2", 256, dead=150, rate=0.05, rare=2, dormant=9),
    ),
    "healthy": report(
        site("features.1", 64, rate=0.47), site("features.4", 128, rate=0.35), site("classifier.1", 256, rate=0.21)
    ),
    "healthy_remarks": report(
        site("features.1", 64, always_on=5, rare=1), site("features.4", 128, dormant=14), site("head", 10, op="tanh")
    ),
    "harmless": report(*_resnet({"layer4.0.relu": 2})),
    "one_in_ten_thousand": report(site("fc", 10_000, dead=1)),
    "cut": report(
        site("stem.act", 32, rate=0.5),
        site("body.act", 64, dead=64, producers=("body.conv",)),
        site("head.act", 128, dead=100, input_dead=128, undecided=0, producers=("head.fc",), rate=1.0),
    ),
    "all_dead": report(site("a", 64, dead=64), site("b", 1280, dead=1280), evidence="exhaustive", samples=360),
    "single_unit": report(site("gate", 1, dead=1)),
    "half": report(site("a", 64, dead=32), site("b", 64)),
    "worst_of_many": report(*_opt(200)),
    "undecided": report(
        site("fc1", 640, undecided=1, samples=100), site("fc2", 640, undecided=299, samples=100), samples=100
    ),
    "dead_and_undecided": report(
        site("experts.0.act", 256, dead=12, samples=8_000),
        site("experts.1.act", 256, undecided=90, samples=600),
        site("experts.2.act", 256, dead=20, samples=3_000),
    ),
    "exhaustive": report(
        site("relu1", 64, dead=3, samples=360), site("relu2", 64, dead=9, samples=360), evidence="exhaustive"
    ),
    "proved": report(site("relu1", 64, dead=3, samples=0), evidence="proved", mode="checkpoint", confidence=None),
    "optimizer": report(site("relu1", 64, dead=30, samples=0), evidence="optimizer", mode="checkpoint"),
    "heuristic": report(site("relu1", 64, dead=30, samples=0), evidence="heuristic", mode="checkpoint"),
    "checkpoint_clean": report(site("relu1", 64, samples=0), evidence="proved", mode="checkpoint"),
    "immune": report(*(site(f"blocks.{i}.act", 3072, op="gelu", rate=0.9) for i in range(12))),
    "immune_saturated": report(
        site("encoder.act", 256, op="tanh", saturated=37),
        site("decoder.act", 128, op="leaky_relu", stuck_negative=5),
        site("head.act", 10, op="sigmoid"),
    ),
    "mixed": report(
        site("stem", 96, op="hardswish", dead=4),
        site("se.fc1", 24, op="relu", dead=6),
        site("se.gate", 96, op="hardsigmoid", saturated=2),
        site("mlp", 384, op="gelu", saturated=120, grad_dead=7),
    ),
    "nan": report(
        site("fc1", 256, rate=0.5),
        site("fc2", 256, dead=256, nan=256),
        site("fc3", 128, dead=128, nan=128),
        site("head", 10, op="gelu", nan=10, rate=0.0),
    ),
    "nan_undecided": report(site("fc1", 256, undecided=12, nan=12, samples=50), samples=50),
    "overflow": report(site("fc1", 256, infinite=3), site("fc2", 256)),
    "coverage": report(
        site("cell.relu()", 128, dead=1, source="models/cell.py:41"),
        site("pool.relu()", 1, unit_dim=None, source="a/very/long/path/to/the/models/of/somebody/pooling.py:1041"),
        coverage=Coverage(
            sites=2,
            uncalled=("head.act", "aux1.act", "aux2.act", "aux3.act", "aux4.act"),
            unsupported=(("rnn", "fused RNN: its activations never leave the kernel"), ("scripted", "TorchScript")),
            merged=(("cell.relu()", 5),),
            batch_lost=("pool.relu()",),
        ),
    ),
    "hostile": report(
        site(HOSTILE, 64, dead=40, producers=(HOSTILE + "p",), source=HOSTILE),
        site("層.活性化." * 12 + "終", 64, dead=12),
        site("[bold]markup[/bold]", 64, op="[blink]relu", can_die=True),
        coverage=Coverage(
            sites=3, uncalled=(HOSTILE + "2",), unsupported=((HOSTILE, HOSTILE),), merged=((HOSTILE, 3),)
        ),
    ),
    "starved": report(
        site("fc1", 128, dead=128), site("fc2", 64, dead=30, input_dead=64, rate=1.0), site("fc3", 64, rate=0.3)
    ),
    "wide_numbers": report(
        site("mlp.act", 28_672, dead=14_337, rare=1_204, always_on=12_000, samples=1_000_000),
        site("mlp.act#1", 11_008, dead=1_203, samples=1_000_000),
    ),
    "numbered": report(
        *(site(str(i), 64, dead=40 * (i == 3), producers=(str(i - 1),)) for i in (1, 3, 5)),
        coverage=Coverage(sites=3, uncalled=("7",), batch_lost=("5",), merged=(("1", 2),)),
    ),
    "empty": report(),
}

PAIRS: dict[str, tuple[Report, Report]] = {
    "digits_mlp": (
        report(
            site("relu1", 64, dead=1, samples=360, rate=0.44),
            site("relu2", 64, samples=360, rate=0.39),
            evidence="exhaustive",
        ),
        report(
            site("relu1", 64, dead=61, samples=360, rate=0.12),
            site("relu2", 64, dead=64, samples=360),
            evidence="exhaustive",
        ),
    ),
    "resnet": (report(*_resnet({})), report(*_resnet({"layer4.0.relu": 200, "layer4.1.relu#1": 512, "relu": 3}))),
    "different": (
        report(site("stem", 64), site("body", 128, undecided=9, samples=900), samples=900),
        report(site("stem", 32, dead=3), site("mlp", 64, op="gelu", saturated=4), site(HOSTILE, 64, nan=3, dead=3)),
    ),
    "immune": (CASES["immune"], CASES["healthy"]),
    "empty": (CASES["empty"], CASES["empty"]),
}
