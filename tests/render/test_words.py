"""How numbers and names are written."""

from __future__ import annotations

import math
import unicodedata

import pytest

from deadrelu.render.words import ceiling, clean, count, elide, listing, many, percent


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, "0 %"),
        (1e-12, "<0.1 %"),
        (1 / 10_000, "<0.1 %"),
        (0.001, "0.1 %"),
        (0.0625, "6.2 %"),
        (0.5, "50.0 %"),
        (0.999, "99.9 %"),
        (0.9995, ">99.9 %"),
        (1 - 1e-12, ">99.9 %"),
        (1.0, "100 %"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_percent(fraction: float | None, expected: str) -> None:
    """By hand. What is something never reads as nothing, and what is not all never as all."""
    assert percent(fraction) == expected


@pytest.mark.parametrize("samples", [1, 2, 7, 59, 100, 2_995, 10_000, 123_457, 10**9])
def test_a_bound_is_rounded_up_to_two_digits(samples: int) -> None:
    """The written bound is no smaller than the bound, and larger by less than a tenth of it."""
    bound = 1 - 0.05 ** (1 / samples)
    written = float(ceiling(bound).removesuffix(" %")) / 100
    assert bound * (1 - 1e-9) <= written <= bound * 1.1


def test_bounds_at_round_numbers() -> None:
    """0.07 is 7.000000000000001 per cent in floating point: no reason to write 7.1 %."""
    assert [ceiling(rate) for rate in (0.07, 0.001, 0.0, -1e-17, 1.0, 1.5)] == [
        *("7 %", "0.1 %", "0 %", "0 %", "100 %", "100 %")
    ]


def test_counts() -> None:
    assert (count(0), count(1234567), many(0, "unit"), many(1, "unit"), many(1000, "unit")) == (
        *("0", "1,234,567", "0 units", "1 unit", "1,000 units"),
    )


def test_listing() -> None:
    assert [listing(list("abcde")[:n], 2) for n in range(5)] == [
        "",
        "a",
        "a and b",
        "a, b and 1 more",
        "a, b and 2 more",
    ]


@pytest.mark.parametrize(
    "codepoint", [*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x200B, 0x2028, 0x202E, 0x2066, 0xDC80, 0xFEFF]
)
def test_nothing_unprintable_survives(codepoint: int) -> None:
    """Unicode categories C (control, format, surrogate...) and Zl, Zp: a terminal obeys some, and shows none."""
    cleaned = clean(f"a{chr(codepoint)}b")
    assert cleaned.startswith("a\\")
    assert cleaned.endswith("b")
    assert not any(unicodedata.category(c)[0] == "C" for c in cleaned)


def test_clean_leaves_what_can_be_read() -> None:
    assert clean("layer1.0.relu#1 [red] 層 é") == "layer1.0.relu#1 [red] 層 é"


@pytest.mark.parametrize("width", range(1, 45))
def test_elide_fits_and_tells_apart(width: int) -> None:
    names = [f"model.decoder.layers.{i}.activation_fn" for i in range(24)] + ["a", ""]
    cut = elide(names, width)
    assert all(len(name) <= width for name in cut)
    assert [c for n, c in zip(names, cut, strict=True) if len(n) <= width] == [n for n in names if len(n) <= width]
    if width >= 17:  # `16 characters from the number on, and the ellipsis
        assert len(set(cut)) == len(names)


def test_elide_keeps_both_ends() -> None:
    assert elide(["abcdefghij"], 5) == ["ab…ij"]
    assert elide(["abcdefghij"], 7, ellipsis="...") == ["ab...ij"]
    assert elide([], 5) == []
