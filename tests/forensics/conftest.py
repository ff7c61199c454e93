"""The course that several tests look at, run once."""

from __future__ import annotations

import pytest

from .course import AGE, BORN, SHOT, Course


@pytest.fixture(scope="module")
def shot() -> Course:
    """Units 7, 8 dead from birth; 1, 4 shot after 1,000 updates."""
    course = Course()
    course.shift(BORN)
    course.train(1000)
    course.shift(SHOT)
    course.train(AGE)
    return course
