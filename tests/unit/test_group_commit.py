"""When what waits is committed: by size, by age, by idleness, and for those who wait."""

import asyncio
from typing import Any

import pytest

from errors import DatabaseUnavailable
from nostr.urls import RelayUrl
from sync import group_commit
from sync.group_commit import GroupCommit, Waiting, due_at, is_full
from sync.share import Share
from sync.windows import Window

MOST, AGE = group_commit._MOST_EVENTS, group_commit._OLDEST_SECONDS
IDLE, ASKED = group_commit._IDLE_SECONDS, group_commit._ASKED_SECONDS


@pytest.mark.parametrize(
    ("waiting", "latest", "due"),
    [
        ([Waiting(100.0, 20)], 100.0, 100.0 + IDLE),
        ([Waiting(100.0, 20), Waiting(101.0, 20)], 101.0, 101.0 + IDLE),
        ([Waiting(100.0, 20), Waiting(101.9, 20)], 101.9, 100.0 + AGE),
        ([Waiting(100.0, MOST - 1)], 100.1, 100.1 + IDLE),
        ([Waiting(100.0, MOST)], 100.1, 100.1),
        ([Waiting(100.0, MOST // 2), Waiting(100.1, MOST - MOST // 2)], 100.1, 100.1),
        # A session that waits for its commit gets company if there is any, and not for long.
        ([Waiting(100.0, 20), Waiting(100.1, 0, asked=100.1)], 100.1, 100.1 + ASKED),
        ([Waiting(100.0, 20), Waiting(100.0, 0, asked=100.0)], 100.04, 100.0 + ASKED),
        ([Waiting(100.0, 20, asked=100.1)], 100.1, 100.1),
        ([Waiting(100.0, 20, asked=100.1), Waiting(99.0, 0, asked=100.2)], 100.2, 100.2),
        # Nobody waits longer than the oldest share may.
        ([Waiting(100.0, 20), Waiting(101.99, 20, asked=101.99)], 101.99, 100.0 + AGE),
    ],
)
def test_when_shares_are_due(waiting: list[Waiting], latest: float, due: float) -> None:
    assert due_at(waiting, latest) == due


def test_full_is_what_all_of_them_hold() -> None:
    assert not is_full([])
    assert not is_full([Waiting(0.0, MOST - 1)])
    assert is_full([Waiting(0.0, 1), Waiting(9.0, MOST - 1)])
    half = group_commit._MOST_BYTES // 2
    assert not is_full([Waiting(0.0, 1, half), Waiting(9.0, 1, half - 1)])
    assert is_full([Waiting(0.0, 1, half), Waiting(9.0, 1, half)])


class Session:
    """A member that keeps account of what it is told."""

    def __init__(self, number: int) -> None:
        relay = RelayUrl.parse(f"wss://relay{number}.example.com")
        self.share = Share(relay, "f" * 64, Window(0, 9))
        self.told: list[object] = []

    def hand_over(self) -> Share:
        return self.share

    def committed(self, share: Share, new: int) -> None:
        assert share is self.share
        self.told.append(new)

    def give_back(self, share: Share, failure: Exception | None) -> None:
        assert share is self.share
        self.told.append(failure)


class Archive:
    """Instead of a database: takes what it is given once it may, or fails."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.may = asyncio.Event()
        self.failures: dict[str, Exception] = {}

    async def write(self, shares: list[Share]) -> list[int]:
        await self.may.wait()
        self.transactions.append([share.relay.host.partition(".")[0] for share in shares])
        for share in shares:
            if failure := self.failures.get(share.relay.host):
                raise failure
        return list(range(len(shares)))


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def group(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> GroupCommit:
    unused: Any = None
    made = GroupCommit(unused)
    monkeypatch.setattr(made, "_write", archive.write)
    return made


async def steps() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_during_a_commit_is_written_together_in_the_next(
    group: GroupCommit, archive: Archive
) -> None:
    sessions = [Session(number) for number in range(4)]
    first = asyncio.create_task(group.commit(sessions[0]))
    await steps()
    others = [asyncio.create_task(group.commit(session)) for session in sessions[1:]]
    await steps()
    archive.may.set()
    await asyncio.gather(first, *others)
    assert archive.transactions == [["relay0"], ["relay1", "relay2", "relay3"]]
    assert [session.told for session in sessions] == [[0], [0], [1], [2]]


async def test_a_full_group_lets_sessions_wait_until_it_is_taken(
    group: GroupCommit, archive: Archive
) -> None:
    one, other = Session(1), Session(2)
    await group.add(one, MOST)
    await group.add(one, MOST - 1)
    adding = asyncio.create_task(group.add(other, 1))
    await steps()
    assert not adding.done()
    archive.may.set()
    await adding
    await group.commit(other)
    assert archive.transactions[:2] == [["relay1"], ["relay1", "relay2"]]


async def test_one_share_that_cannot_be_written_does_not_harm_the_others(
    group: GroupCommit, archive: Archive
) -> None:
    sessions = [Session(number) for number in range(3)]
    failure = archive.failures["relay1.example.com"] = ValueError("of one relay")
    archive.may.set()
    ended = await asyncio.gather(*map(group.commit, sessions), return_exceptions=True)
    assert ended == [None, failure, None]
    assert archive.transactions == [
        ["relay0", "relay1", "relay2"],
        ["relay0"],
        ["relay1"],
        ["relay2"],
    ]
    assert [session.told for session in sessions] == [[0], [None], [0]]


async def test_a_lost_database_is_told_to_everybody_and_everybody_has_all_back(
    group: GroupCommit, archive: Archive
) -> None:
    silent, waiting = Session(1), Session(2)
    failure = archive.failures["relay2.example.com"] = DatabaseUnavailable("gone")
    archive.may.set()
    await group.add(silent, 20)
    with pytest.raises(DatabaseUnavailable):
        await group.commit(waiting)
    assert len(archive.transactions) == 1
    assert (silent.told, waiting.told) == ([failure], [None])
    # Nothing is tried again by itself.
    await steps()
    assert group._task is None
    archive.failures.clear()
    await group.commit(silent)
    assert silent.told == [failure, 0]


async def test_a_cancelled_session_takes_nothing_with_it(
    group: GroupCommit, archive: Archive
) -> None:
    sessions = [Session(number) for number in range(3)]
    commits = [asyncio.create_task(group.commit(session)) for session in sessions]
    await steps()
    commits[1].cancel()
    await steps()
    assert commits[1].cancelled()
    archive.may.set()
    await asyncio.gather(commits[0], commits[2])
    assert [session.told for session in sessions] == [[0], [1], [2]]


async def test_closing_gives_everything_back(group: GroupCommit) -> None:
    under_way, waiting = Session(1), Session(2)
    commits = [asyncio.create_task(group.commit(under_way))]
    await steps()
    commits.append(asyncio.create_task(group.commit(waiting)))
    await steps()
    await group.close()
    assert under_way.told == [None]
    assert waiting.told == []
    for commit in commits:
        commit.cancel()
    ended = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(error) for error in ended] == [asyncio.CancelledError] * 2
