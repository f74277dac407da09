"""The fault model: every fault by name, and what it leaves of a relay."""

from collections.abc import Mapping

from simnet import making as make
from simnet.drafts import Fault, Reading
from simnet.events import outside_events, wrong_events

_R, _U, _L, _S = Reading.READABLE, Reading.UNREADABLE, Reading.LYING, Reading.SHIFTY
_PERMANENT = (
    *("restricted", "blocked", "invalid", "mute", "pow", "unsupported", "duplicate"),
    *("auth-required", "payment-required"),
)
_NO_ANSWER = ("timeout", "disconnected")

FAULTS: tuple[Fault, ...] = (
    Fault("cap-20", "cap", make.knobs(cap=20)),
    Fault("cap-small", "cap", make.drawn("cap", 21, 120)),
    Fault("cap-large", "cap", make.large_cap),
    Fault("cap-5000", "cap", make.knobs(cap=5_000)),
    Fault("cap-below-default", "cap", make.cap_below_default),
    Fault("cap-by-load", "cap", make.knobs(cap=100, cap_by_load=True)),
    Fault("cap-by-filter", "cap", make.cap_by_filter),
    Fault("cap-random", "cap", make.knobs(_S, cap=100, cap_low=20)),
    Fault("over-limit", "cap", make.over_limit),
    Fault("ignores-limit", "cap", make.knobs(cap=10_000, ignore_limit=True)),
    Fault("oldest-first", "order", make.knobs(order="asc")),
    Fault("no-order", "order", make.knobs(order="random")),
    Fault("random-ties", "ties", make.knobs(ties="random")),
    Fault("until-exclusive", "until", make.knobs(until_exclusive=True)),
    Fault("since-exclusive", "since", make.knobs(since_exclusive=True)),
    Fault("burst-of-kinds", "burst", make.burst(kinds=True)),
    Fault("burst-of-one-kind", "burst", make.burst(kinds=False)),
    Fault("eose-late", "eose", make.drawn("eose_delay", 0.05, 0.5, eose="late")),
    Fault("eose-never", "eose", make.knobs(_U, "timeout", eose="never")),
    Fault("eose-first", "eose", make.knobs(_U, "contradiction", eose="first")),
    Fault("eose-twice", "eose", make.knobs(eose="twice")),
    Fault("eose-in-the-middle", "eose", make.knobs(eose="middle")),
    Fault("hint-right", "hint", make.knobs(hint="auto")),
    Fault("hint-always-more", "hint", make.knobs(hint="more")),
    Fault("hint-unknown", "hint", make.knobs(hint="perhaps")),
    Fault("hint-lying-finish", "hint", make.knobs(_L, hint="lie", cap=50)),
    Fault("outside-filter", "noise", make.noise(outside_events)),
    Fault("wrong-events", "noise", make.noise(wrong_events)),
    Fault("repeats", "repeats", make.knobs(repeat=3)),
    Fault("extra-keys", "keys", make.extra_keys),
    Fault("large-keys", "keys", make.large_keys),
    Fault("holds-junk", "junk", make.junk),
    Fault(
        "garbage-frames",
        "garbage",
        make.knobs(
            garbage=[
                "nonsense",
                '["EVENT"]',
                "[]",
                "{}",
                "",
                b"\xff\x00",
                "[" * 5_000,
                "[" * 500 + "]" * 500,
                '["EVENT","?",' + '{"tags":[' * 500 + "]}" * 500 + "]",
                '["EOSE","of nobody",["finish"]]',
                '["CLOSED","of nobody","error: which?"]',
            ]
        ),
    ),
    Fault("oversized-once", "size", make.knobs(oversized=5 * 2**20, oversized_times=1)),
    Fault("oversized-always", "size", make.knobs(_U, "disconnected", oversized=5 * 2**20)),
    *(
        Fault(
            f"closed-{prefix}",
            "refusal",
            make.knobs(_U, prefix, refuse=f"{prefix}: go away", refuse_every=1),
        )
        for prefix in _PERMANENT
    ),
    Fault("closed-no-prefix", "refusal", make.knobs(_U, "closed", refuse="no", refuse_every=1)),
    Fault("closed-error", "refusal", make.knobs(_U, "error", refuse="error: oops", refuse_every=1)),
    Fault(
        "closed-error-once",
        "refusal",
        make.knobs(_R, "error", refuse="error: oops", refuse_every=4, refuse_times=2),
    ),
    Fault(
        "closed-blocked-later",
        "refusal",
        make.knobs(_U, "blocked", refuse="blocked: enough", refuse_every=5, cap=40),
    ),
    Fault(
        "closed-rate-limited-twice",
        "refusal",
        make.knobs(
            _R, "rate-limited", refuse="rate-limited: slow down", refuse_every=6, refuse_times=2
        ),
    ),
    Fault(
        "closed-rate-limited",
        "refusal",
        make.knobs(_U, "rate-limited", refuse="rate-limited: slow down", refuse_every=1),
        slow=True,
    ),
    Fault(
        "notice-for-closed",
        "refusal",
        make.knobs(_U, "timeout", refuse="blocked: no", refuse_every=1, as_notice=True),
    ),
    Fault(
        "notice-once",
        "refusal",
        make.knobs(refuse="error: oops", refuse_every=5, refuse_times=1, as_notice=True),
    ),
    Fault("silence", "silence", make.knobs(_U, "timeout", silent_every=1)),
    Fault("silence-once", "silence", make.knobs(silent_every=4, silent_times=1)),
    Fault("drops-mid-page", "drop", make.drawn("drop_after", 20, 200, drop_times=2)),
    Fault("drops-always", "drop", make.knobs(_U, "disconnected", drop_after=0)),
    Fault(
        "down-after",
        "drop",
        make.drawn(
            "down_after", 1, 8, "connect-refused", "connect-reset", "connect-closed", cap=60
        ),
    ),
    Fault("auth-first", "auth", make.knobs(auth=True)),
    Fault("auth-in-the-middle", "auth", make.drawn("auth_after", 2, 8, cap=60)),
    Fault("auth-in-vain", "auth", make.knobs(_U, "restricted", auth="restricted")),
    Fault("rate-of-requests", "rate", make.rate("rate", 6, 3)),
    Fault("rate-of-events", "rate", make.rate("event_rate", 250, 90)),
    Fault("few-subscriptions", "subs", make.subs(2, as_notice=False)),
    Fault("few-subscriptions-notice", "subs", make.subs(2, as_notice=True)),
    Fault("one-subscription", "subs", make.subs(1, as_notice=False)),
    Fault("limits-told", "subs", make.told_limits),
    Fault("limits-absurd", "subs", make.absurd_limits),
    Fault("empty-without-bounds", "lie", make.empty_for(make.no_bounds)),
    Fault("empty-for-long-lists", "lie", make.empty_for(make.long_list)),
    Fault("empty-for-authors", "lie", make.empty_for(make.by_author)),
    Fault("no-deflate", "deflate", make.knobs(deflate=False)),
    Fault("drip", "pace", make.knobs(_U, *_NO_ANSWER, drip=1.0, deflate=False)),
    Fault("trickle", "pace", make.knobs(delay=0.004)),
    Fault("latency", "pace", make.drawn("latency", 0.05, 0.5)),
    Fault("latency-of-seconds", "pace", make.drawn("latency", 1.0, 2.0)),
    Fault("negentropy", "negentropy", make.negentropy()),
    Fault("negentropy-small-sets", "negentropy", make.negentropy(neg_records=200, neg_frame=5_000)),
    Fault("negentropy-silent", "negentropy", make.negentropy(negentropy="silent")),
    Fault("negentropy-old", "negentropy", make.negentropy(negentropy="old")),
    Fault("negentropy-hides", "negentropy", make.negentropy(neg_hides=make.every_third)),
    Fault("negentropy-cuts", "negentropy", make.negentropy(neg_cap=100)),
    Fault("publishes", "change", make.changes("publish")),
    Fault("deletes", "change", make.changes("delete")),
    Fault("backdates", "change", make.changes("backdate")),
)
BY_NAME: Mapping[str, Fault] = {fault.name: fault for fault in FAULTS}
