"""Keepers among each other: liars found, nothing let go too early, who returns counts, what was fetched joins in."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from p2plearn.dht.custody import Unit
from p2plearn.dht.duty import Promises
from p2plearn.dht.leaving import Handover
from p2plearn.dht.messages import Challenge, Decline, Inquiry, Offer, Reason, Receipts, Release
from p2plearn.dht.receipts import decode_receipt
from tests.keeping.room import Member, room, until


def others(members: list[Member], member: Member) -> list[Member]:
    return [each for each in members if each is not member]


async def test_who_acks_and_drops_is_found_by_challenges_and_another_copy_is_made(tmp_path: Path) -> None:
    async with room(tmp_path, 5) as members:
        teacher = members[0]
        course = await teacher.publish(300_000, 3)
        liar = next(each for each in others(members, teacher) if each.keeps(course))
        # From now on it has nothing and says that it has everything.
        asked: list[Challenge] = []

        def lie(challenge: Challenge) -> bytes:
            asked.append(challenge)
            return b"\1" * 32

        liar.keeper.asking.prove = lie  # type: ignore[method-assign]
        await until(lambda: liar.node not in teacher.counts(course))
        assert asked
        honest = others(members, liar)
        await until(lambda: sum(each.keeps(course) for each in honest) >= 3)
        await until(lambda: len(teacher.counts(course)) >= 3)
        assert liar.node not in teacher.counts(course)
        # Its word alone doesn't make it count again.
        said = await teacher.keeper.asking.question(liar.node, Release(Unit(course, 0)))
        while isinstance(said, Decline) and said.reason is Reason.BUSY:
            await trio.sleep(0.1)
            said = await teacher.keeper.asking.question(liar.node, Release(Unit(course, 0)))
        assert not isinstance(said, Decline)
        assert liar.node not in teacher.counts(course)


async def test_a_copy_that_can_not_be_shown_is_not_counted_when_it_is_made(tmp_path: Path) -> None:
    async with room(tmp_path, 3) as members:
        teacher, liar, honest = members
        liar.keeper.asking.prove = lambda challenge: b""  # type: ignore[method-assign]
        course = await teacher.publish(100_000, 3)
        assert teacher.counts(course) == {teacher.node, honest.node}


async def test_damage_found_here_is_said_at_once_and_mended(tmp_path: Path) -> None:
    async with room(tmp_path, 3) as members:
        teacher = members[0]
        course = await teacher.publish(600_000, 3)
        victim = members[1]
        (extent,) = (victim.home / "store" / "extents").iterdir()
        raw = bytearray(extent.read_bytes())
        raw[len(raw) // 2] ^= 1
        extent.write_bytes(raw)
        assert await trio.to_thread.run_sync(victim.store.verify)
        denied = await victim.keeper.kept.look_for_damage(course)
        assert [receipt.holds for _, receipt in denied] == [False]
        assert not victim.keeps(course)
        await teacher.keeper.asking.tell([teacher.node], [receipt for _, receipt in denied])
        await until(lambda: victim.keeps(course))
        assert await trio.to_thread.run_sync(victim.store.verify) == []
        await until(lambda: victim.node in teacher.counts(course))
        assert victim.store.custody.damaged() == []


async def test_surplus_goes_only_when_enough_others_say_that_they_keep_theirs(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=0.5) as members:
        teacher, *friends = members
        course = await teacher.publish(100_000, 2)
        for each in friends:
            if not each.keeps(course):
                assert await teacher.keeper.give(Unit(course, 0), each.node) is None
        # Those that would have to vouch for the rest are leaving, so whoever asks is told no.
        for each in members:
            each.keeper.kept.leaving = True
        await until(lambda: all(len(each.counts(course)) == 3 for each in members))
        for each in friends:
            holders = [other.node for other in members if other is not each]
            refused = await each.keeper.let_go(Unit(course, 0), holders, lambda _: None)
            assert set(refused.values()) == {Reason.LEAVING}
        assert sum(each.keeps(course) for each in members) == 3
        for each in members:
            each.keeper.kept.leaving = False
        await until(lambda: sum(each.keeps(course) for each in members) == 2)
        assert teacher.keeps(course)
        (friend,) = [each for each in friends if each.keeps(course)]
        await until(lambda: friend.counts(course) == teacher.counts(course) == {teacher.node, friend.node})


async def test_all_want_to_go_at_once_and_as_many_as_asked_for_stay(tmp_path: Path) -> None:
    async with room(tmp_path, 5, grace=30.0) as members:
        course = await members[0].publish(100_000, 5)
        unit = Unit(course, 0)
        for each in members:
            entry = each.keeper.ledger.entry(unit)
            assert entry is not None
            await each.keeper.kept.learn([r for other in members for r in other.keeper.kept.receipts_of(unit)])
        for each in members:  # from now on two are enough
            entry = each.keeper.ledger.entry(unit)
            assert entry is not None
            for node, receipt in list(entry.receipts.items()):
                owner = next(m for m in members if m.node == node)
                entry.receipts[node] = owner.keeper.ledger.state(unit, entry.size, 2, True, receipt.time)
        together = [[member] for member in members]  # after they failed each other, one by one
        for going in [members, members[1:4], *together, *together]:
            async with trio.open_nursery() as nursery:
                for each in going:
                    holders = [other.node for other in members if other is not each]
                    nursery.start_soon(each.keeper.let_go, unit, holders, lambda _: None)
            assert sum(each.keeps(course) for each in members) >= 2
            for each in members:
                each.keeper.kept.promises = Promises()  # as if every node had crashed meanwhile
        assert sum(each.keeps(course) for each in members) == 2


async def test_what_was_fetched_joins_in_when_too_few_keep_it_and_not_otherwise(tmp_path: Path) -> None:
    async with room(tmp_path, 5, grace=30.0) as members:
        teacher = members[0]
        enough, short = await teacher.publish(100_000, 2, seed=1), await teacher.publish(100_000, 1, seed=2)
        reader = next(each for each in members if not each.keeps(enough) and not each.keeps(short))
        for course in (enough, short):
            assert await teacher.keeper.give(Unit(course, 0), reader.node) is None
            # As a get leaves it: here for its person, counted on by nobody.
            await reader.keeper.let_go(Unit(course, 0), [], lambda _: None)
            reader.store.custody.claim(course, "fetched")
            denial = reader.keeper.kept.deny(Unit(course, 0))
            assert denial is not None
            await reader.keeper.asking.tell([teacher.node], [denial[1]])
            reader.inquiries.fetched(course, 100_000)
        await until(lambda: Unit(enough, 0) in reader.inquiries.heard and Unit(short, 0) in reader.inquiries.heard)
        assert len(reader.inquiries.heard[Unit(enough, 0)].holders) == 2
        assert reader.inquiries.heard[Unit(enough, 0)].wanted == 2
        assert not reader.keeps(enough)
        assert not reader.keeps(short)
        # The only one that keeps it goes for good: the reader's copy is what is left, and counts from now on.
        await teacher.vanish()
        heard = await reader.inquiries.ask(Unit(short, 0))
        assert heard.holders == frozenset()
        assert reader.keeps(short)
        # How many were asked for is remembered.
        entry = reader.keeper.ledger.entry(Unit(short, 0))
        assert entry is not None
        assert (entry.copies, reader.counts(short)) == (1, {reader.node})


async def test_a_course_whose_holders_all_went_is_named_until_one_returns(tmp_path: Path) -> None:
    async with room(tmp_path, 4) as members:
        teacher, friend, *rest = members
        course = await teacher.publish(50_000, 1)
        witness = rest[0]
        witness.records[course] = {teacher.node, friend.node}
        await teacher.vanish()
        await friend.vanish()
        await until(lambda: course in witness.lookout.watch.lost(trio.current_time()))
        await witness.lookout._save()
        saved = json.loads((witness.home / "absences.json").read_text())
        assert [each[0] for each in saved["lost"]] == [course.hex()]
        # It stays named when the records have run out, and after a restart.
        witness.records.clear()
        witness.lookout.load()
        with trio.move_on_after(1):
            await until(lambda: course not in witness.lookout.watch.lost(trio.current_time()))
        assert course in witness.lookout.watch.lost(trio.current_time())
        teacher.up = True
        await until(lambda: course not in witness.lookout.watch.lost(trio.current_time()))


async def test_absence_is_counted_on_across_restarts(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=30.0) as members:
        teacher = members[0]
        course = await teacher.publish(50_000, 3)
        gone = members[1]
        await gone.vanish()
        await until(lambda: gone.node in teacher.keeper.vigil.absences())
        assert gone.node in teacher.counts(course)  # away for less than the grace period
        teacher.keeper.vigil.detector.forget(gone.node)
        teacher.keeper.vigil.been_away({gone.node: 31.0})
        await until(lambda: gone.node not in teacher.counts(course))
        gone.up = True
        await until(lambda: gone.node in teacher.counts(course))


async def test_a_leaver_serves_on_and_what_it_can_not_place_stays(tmp_path: Path) -> None:
    async with room(tmp_path, 3, grace=30.0) as members:
        teacher, *friends = members
        course = await teacher.publish(100_000, 3)  # all three hold it, so nobody is left to take a third copy
        handover = Handover()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(teacher.repair.leave, handover)
            await until(lambda: handover.unplaced)
            shown = await friends[0].keeper.asking.challenge(Unit(course, 0), teacher.node)
            assert shown is True
            declined = await friends[0].keeper.asking.question(teacher.node, Release(Unit(course, 0)))
            assert isinstance(declined, Decline)
            assert declined.reason is Reason.LEAVING
        assert handover.unplaced == {Unit(course, 0): (2, 3)}
        assert handover.placed == {}
        assert teacher.keeps(course)
        teacher.keeper.kept.leaving = False
        # A leave cut short leaves nothing half: others may rely on this copy again.
        granted = await friends[0].keeper.asking.question(teacher.node, Release(Unit(course, 0)))
        assert not isinstance(granted, Decline)


async def test_an_offer_made_by_many_is_taken_once_and_room_is_never_exceeded(tmp_path: Path) -> None:
    async with room(tmp_path, 4, give=400_000, grace=30.0) as members:
        *givers, taker = members
        course = await givers[0].publish(150_000, 1)
        signed = givers[0].store.signed_manifest(course)
        assert signed is not None
        accepted: list[object] = []

        async def offer(giver: Member) -> None:
            answer = await giver.keeper.asking.question(
                taker.node, Offer(0, 1, signed.signature, signed.raw)
            )  # fmt: skip
            accepted.append(answer)

        async with trio.open_nursery() as nursery:
            for giver in givers * 3:
                nursery.start_soon(offer, giver)
        await until(lambda: taker.keeps(course))
        assert len(accepted) == 9
        given = taker.store.custody.given()
        assert 150_000 <= given <= 400_000
        big = await givers[1].publish(300_000, 1, seed=7)
        declined = await givers[1].keeper.give(Unit(big, 0), taker.node)
        assert declined is not None
        assert declined.reason is Reason.NO_QUOTA
        assert taker.store.custody.given() == given


async def test_who_is_asked_who_keeps_a_unit_tells_what_it_knows(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=30.0) as members:
        course = await members[0].publish(50_000, 2)
        (keeper,) = [each for each in members[1:] if each.keeps(course)]
        stranger = next(each for each in members if not each.keeps(course))
        told = await stranger.keeper.asking.question(keeper.node, Inquiry(Unit(course, 0)))
        assert isinstance(told, Receipts)
        assert {decode_receipt(each.encode()).node for each in told.receipts} == {members[0].node, keeper.node}
        nothing = await keeper.keeper.asking.question(stranger.node, Inquiry(Unit(course, 0)))
        assert nothing == Receipts(())


async def test_what_was_removed_here_is_not_brought_back_by_the_others(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=30.0) as members:
        course = await members[0].publish(50_000, 3)
        (free,) = [each for each in members if not each.keeps(course)]
        members[0].keeper.forgotten(course)
        await trio.to_thread.run_sync(members[0].store.remove, course)
        await until(lambda: free.keeps(course))
        assert not members[0].keeps(course)
        holder = next(each for each in members[1:] if each is not free)
        declined = await holder.keeper.give(Unit(course, 0), members[0].node)
        assert declined is not None
        assert declined.reason is Reason.NO_QUOTA


async def test_who_let_go_just_before_a_crash_denies_it_when_it_is_counted_on(tmp_path: Path) -> None:
    async with room(tmp_path, 4, grace=30.0) as members:
        course = await members[0].publish(50_000, 3)
        crashed = next(each for each in members[1:] if each.keeps(course))
        # On record it has let go, and nobody was told.
        crashed.store.custody.release(course, 0)
        crashed.keeper.ledger.state(Unit(course, 0), 50_000, 3, False, 0)
        await until(lambda: crashed.node not in members[0].counts(course))
        await until(lambda: len(members[0].counts(course)) == 3)
