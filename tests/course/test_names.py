"""Names of a course: every form there and back, and a helpful word for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course.names import CourseLink, course_cid, format_link, parse_link
from p2plearn.errors import UsageProblem

addresses = st.text(st.characters(min_codepoint=0x21, exclude_categories=["C", "Z"]), max_size=100).map("/".__add__)


def test_every_form_names_the_course(vectors: Callable[[str], Any]) -> None:
    told = vectors("links")
    course = bytes.fromhex(told["course"])
    assert course_cid(course) == told["cid"]
    for each in told["good"]:
        assert parse_link(each["text"]) == CourseLink(course, tuple(each["providers"])), each["text"]
    for each in told["formatted"]:
        assert format_link(course, each["providers"]) == each["link"]


def test_what_names_no_course_is_told_why(vectors: Callable[[str], Any]) -> None:
    for each in vectors("links")["bad"]:
        with pytest.raises(UsageProblem) as problem:
            parse_link(each["text"])
        assert problem.value.message == each["message"]
        assert problem.value.message.isprintable()


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=32, max_size=32), st.lists(addresses, unique=True, max_size=16))
def test_there_and_back(course: bytes, providers: list[str]) -> None:
    assert parse_link(format_link(course, providers)) == CourseLink(course, tuple(providers))
    assert parse_link(course_cid(course).upper()) == CourseLink(course)


def test_a_link_never_carries_more_than_it_may() -> None:
    many = [f"/ip4/192.0.2.7/tcp/{port}" for port in range(40)]
    assert parse_link(format_link(bytes(32), many)).providers == tuple(many[:16])


@settings(deadline=None, max_examples=500)
@given(
    st.one_of(
        st.text(max_size=100),
        st.text("abcdefz234567B0x", max_size=70),
        st.text(max_size=60).map("p2plearn:".__add__),
        st.text("%0123456789abcdef&=from/", max_size=60).map(f"p2plearn:{'ab' * 32}?from=".__add__),
        st.binary(max_size=40).map(lambda raw: "f" + raw.hex()),
    )
)
def test_anything_is_a_course_or_the_users_mistake(text: str) -> None:
    try:
        link = parse_link(text)
    except UsageProblem:
        return
    assert len(link.course) == 32
