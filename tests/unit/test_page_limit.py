"""How many events a walk asks for."""

from sync.page_limit import PageLimit


def test_little_that_is_expected_is_asked_for_in_ever_larger_pages() -> None:
    limit = PageLimit(full=100, asked=30, most=100)
    assert not limit.is_full
    assert [limit.may_have_cut(received) for received in (29, 30, 31)] == [False, True, True]
    assert limit.double()
    assert limit.asked == 60
    assert limit.double()
    assert limit.is_full
    assert not limit.double()
    assert not limit.may_have_cut(100)  # the relay's cap is the plan's affair


def test_large_events_halve_the_limit_and_it_recovers() -> None:
    limit = PageLimit(full=100, asked=100, most=100)
    limit.recover()
    assert limit.is_full
    limit.halve(40)
    assert (limit.asked, limit.most) == (20, 20)
    assert not limit.double()
    asked = []
    while not limit.is_full:
        limit.recover()
        asked.append(limit.asked)
    assert asked == sorted(set(asked))
    assert asked[0] == 23
    assert asked[-1] == 100


def test_what_is_asked_for_as_little_is_expected_does_not_recover() -> None:
    limit = PageLimit(full=100, asked=10, most=50)
    limit.recover()
    assert (limit.asked, limit.most) == (10, 50)
