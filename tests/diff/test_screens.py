"""The screens of hand-made results: within any width, in ASCII, and saying what they know and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from deadrelu.differences import (
    Difference,
    LayerDifference,
    Moment,
    Series,
    Silence,
    SiteDifference,
    Timeline,
    UnitDeath,
)
from deadrelu.render.canvas import Canvas
from deadrelu.render.difference import difference_page, difference_to_markdown
from deadrelu.render.timeline import timeline_page, timeline_to_html

LONG = "encoder.layers.11.a_rather_long_block_name.feed_forward.activation"
DEATH = UnitDeath(
    unit=3,
    status="undecided",
    max_z=(1.0, -2.0),
    rate=0.4,
    cause="weights",
    sufficient=("weights",),
    necessary=("weights",),
    shares={"weights": -2.0, "bias": 0.0, "upstream": -1.0},
    fraction=(0.1, None),
    lr=(0.01, None),
    safe_fraction=0.09,
    safe_lr=0.009,
)
SITE = SiteDifference(
    site=LONG,
    op="relu",
    units=2048,
    can_die=True,
    samples=500,
    deaths=(DEATH, replace(DEATH, unit=9, cause="several")),
    revivals=(1,),
    silent=(10, 11),
    causes={"weights": 1, "several": 1},
    revived_by={"weights": 1, "bias": 0, "own": 1, "upstream": 0},
)
LAYER = LayerDifference(
    layer=LONG,
    units=4,
    weight_move=(0.5, 3.0, None, 0.0),
    turn=(0.0, 1.0, None, 0.0),
    bias_move=(-0.5, 0.0, None, 7.0),
    zeroed=(2,),
    refilled=(),
    old_silence=(),
    new_silence=(Silence(1, "no_gradient", 90),),
)
WITH_DATA = Difference("old.pt", "new.pt", (10, 20), "intervention", 500, 500, (SITE,), (LAYER,), notes=("a note",))
ALONE = replace(WITH_DATA, evidence="weights", samples=0, probed=0, sites=())
COURSE = Timeline(
    moments=tuple(
        Moment(f"{i}.pt", 10 * i, (i, 0), deaths=i, causes={LONG: {"bias": i}} if i else {}) for i in range(200)
    ),
    series=(
        Series(LONG, 200, tuple(i / 200 for i in range(200)), tuple(1 - i / 200 for i in range(200))),
        Series("1", 8, (None,) * 200, (None,) * 200),
    ),
    order="step",
    order_name="the step inside",
    evidence="data",
    samples=100,
    above=0.1,
    first_bad=21,
)


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 160])
def test_screens_keep_within_their_width(width: int, ascii: bool) -> None:
    canvas = Canvas(width, ascii=ascii)
    pages = [difference_page(WITH_DATA, canvas), difference_page(ALONE, canvas), timeline_page(COURSE, canvas)]
    for line in (line.plain for page in pages for line in page):
        assert cell_len(line) <= width
        assert line.isascii() or not ascii


def text(found: Difference) -> str:
    return " ".join(" ".join(line.plain for line in difference_page(found, Canvas(120))).split())


def test_what_a_difference_says() -> None:
    said = text(WITH_DATA)
    assert "2 units died between the two, 1 silent unit came back." in said
    assert "old.pt (step 10) against new.pt (step 20)" in said
    assert "2 deaths rest on too few samples" in said
    assert "a learning rate of 0.009" in said
    assert "a note" in said
    assert "1 its own weights alone" in said
    assert "| 2,048 | weights 1, several 1 |" in difference_to_markdown(WITH_DATA)


def test_what_weights_say() -> None:
    said = text(ALONE)
    assert "1 unit lost all weights; 1 unit stopped to have a gradient." in said
    assert "no data was run" in said
    assert "0 -> 1" in said


def test_nothing_known_is_not_nothing_found() -> None:
    unread = replace(LAYER, zeroed=(), old_silence=None, new_silence=None, unread="no optimizer state is there")
    said = text(replace(ALONE, layers=(unread,)))
    assert "No unit lost all its weights between the two; who fires is not known" in said
    assert "tells nothing of 1 layer" in said


def test_what_a_course_says() -> None:
    said = " ".join(" ".join(line.plain for line in timeline_page(COURSE, Canvas(120))).split())
    assert "first bad checkpoint is 21.pt (step 210)" in said
    assert "20.pt (step 200) is the last good one" in said
    assert "and 187 more checkpoints" in said
    fine = replace(COURSE, first_bad=None)
    assert "No checkpoint is bad" in timeline_page(fine, Canvas(120))[0].plain
    unknown = timeline_page(replace(fine, evidence="weights"), Canvas(120))[0].plain
    assert "with a model and data there may be one" in unknown


def test_the_page_draws_every_known_value() -> None:
    page = timeline_to_html(COURSE)
    assert page.count("<polyline") == 4
    assert page.count('points=""') == 2  # the second series knows nothing
    assert page.count("<svg") == 2
    assert 'class="bad"' in page


def test_json_holds_no_infinity() -> None:
    broken = replace(DEATH, max_z=(float("inf"), float("nan")))
    told = replace(WITH_DATA, sites=(replace(SITE, deaths=(broken,)),)).to_dict()
    assert told["sites"][0]["deaths"][0]["max_z"] == [None, None]
    assert told["layers"][0]["silenced"] == [1]
    assert COURSE.to_dict()["first_bad_name"] == "21.pt"
