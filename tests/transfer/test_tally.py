"""Words and counts about a fetch."""

from __future__ import annotations

from courses import make_course

from p2plearn.course.index import IndexBuilder
from p2plearn.transfer.tally import FileCount, Tally


def test_files_are_done_when_the_last_of_their_slots_has_come() -> None:
    builder = IndexBuilder()
    builder.add_file("a", 2, [(b"1" * 32, 1), (b"2" * 32, 1)])
    builder.add_file("b-empty", 0, [])
    builder.add_file("c", 1, [(b"3" * 32, 1)])
    count = FileCount(builder.build(), [0, 1, 2])
    assert count.lacking == 2
    count.verified(1)
    assert count.lacking == 2
    count.verified(0)
    assert count.lacking == 1
    count.verified(2)
    assert count.lacking == 0


def test_of_a_resumed_course_only_files_that_lack_something_count() -> None:
    index = make_course(chunks=9).index
    assert FileCount(index, [8]).lacking == 1
    assert FileCount(index, []).lacking == 0


def test_the_words_count_who_was_asked() -> None:
    tally = Tally()
    assert tally.words() == "0 providers found"
    tally.found |= {"a", "b"}
    tally.unreachable["a"] = "refused"
    tally.not_here.add("b")
    assert tally.words() == "2 providers found, 1 unreachable, 1 no longer has it"


def test_each_is_counted_once_and_it_is_said_why_somebody_is_not_asked() -> None:
    tally = Tally()
    tally.found |= {"a", "b"}
    tally.unreachable |= {"a": "refused", "b": "refused", "guess": "refused"}
    tally.declined |= {"a": "the cap is used up", "caller": "the cap is used up"}
    assert tally.words() == "3 providers found, 1 unreachable, 2 not asked: the cap is used up"
    assert str(tally.why_not(partly=False, kept=False)).count("the cap is used up") == 1
