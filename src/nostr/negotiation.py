"""NIP-77 on a connection: learning by set reconciliation which events a relay holds."""

import asyncio
import re
from binascii import unhexlify
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from errors import MessageMalformed
from nostr.messages import NegError, NegMessage, Notice, encode_neg_message, encode_neg_open
from nostr.negentropy import FRAME_BYTES, MAX_MESSAGE_BYTES, VERSION, Negentropy
from nostr.pages import PageEnd

# With frames of 60,000 bytes a round tells of 1,800 ids or more: enough for every set that
# `max_ids` allows, and an end to a relay that never finds one.
MAX_ROUNDS = 500
MAX_IDS = 200_000
# The longest a reconciliation may take in all, as a multiple of the longest silence.
_TOTAL_TIMEOUTS = 15

# What relays are known to say in a NOTICE to a NEG-OPEN that they do not understand.
_NOT_SPOKEN = re.compile(
    r"bad msg|bad message|unknown|unrecogni[sz]ed|unsupported|not supported|not enabled|disabled"
    r"|invalid message|could not parse|unable to parse|invalid enum|invalid_enum|not implemented"
).search
_NAMES_IT = re.compile(r"negentropy|\bneg\b").search
_TOO_MANY = re.compile(
    r"too many [a-z ]*(records|results|events|items|ids)\b|too (big|large)"
).search

Send = Callable[[bytes], Awaitable[bool]]
Answer = NegMessage | NegError | Notice | PageEnd


@dataclass(frozen=True, slots=True)
class Negotiation:
    """How a reconciliation ended. Only "done" says anything about what the relay holds.

    Attributes:
        outcome: "done"; "unsupported" (the relay does not speak NIP-77, or an older form of
            it); "refused"; "timeout"; "disconnected"; "malformed"; "overflow" (more ids came
            than wanted).
        need: ids that the relay has and we lack.
        have: ids that we have and the relay lacks.
        rounds: answers that came.
        prefix: the machine-readable reason of a refusal, "" if there is none.
        text: the relay's words, or what is known of the end.
        too_many: refused because the filter selects too many events; a narrower one may do.
        max_records: how many events the relay would have reconciled, if it said so.
    """

    outcome: str
    need: frozenset[str] = frozenset()
    have: frozenset[str] = frozenset()
    rounds: int = 0
    prefix: str = ""
    text: str = ""
    too_many: bool = False
    max_records: int | None = None


class Exchange:
    """The answers to one NEG-OPEN; at most one is expected at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[Answer] | None = None

    def expect(self) -> asyncio.Future[Answer]:
        """The answer to the message that is sent next."""
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def take(self, answer: Answer) -> bool:
        """Whether what the relay said is the answer that is expected now.

        A NOTICE is an answer only if it is about NIP-77 or about not being understood, for it
        may be meant for any request on this connection.
        """
        if isinstance(answer, Notice) and not _concerns_negentropy(answer.text.lower()):
            return False
        if self._answer is None or self._answer.done():
            return False
        self._answer.set_result(answer)
        return True


async def negotiate(
    exchange: Exchange,
    send: Send,
    name: str,
    flt: Mapping[str, Any],
    items: Iterable[tuple[int, str]],
    *,
    timeout: float,
    frame_bytes: int = FRAME_BYTES,
    max_ids: int = MAX_IDS,
) -> Negotiation:
    """Reconciles under a subscription name, until an end; the caller sends NEG-CLOSE.

    Args:
        exchange: given every answer to that name.
        send: sends a message; False if the connection does not take it.
        name: the subscription.
        flt: selects the relay's set.
        items: (created_at, id) of our set.
        timeout: the longest silence, in seconds.
        frame_bytes: the longest message, in bytes before hex.
        max_ids: the most ids to hear of.
    """
    ours = Negentropy(items, frame_bytes=frame_bytes)
    message = encode_neg_open(name, flt, ours.initiate())
    give_up_at = asyncio.get_running_loop().time() + timeout * _TOTAL_TIMEOUTS
    for rounds in range(MAX_ROUNDS):
        expected = exchange.expect()
        try:
            async with asyncio.timeout_at(
                min(give_up_at, asyncio.get_running_loop().time() + timeout)
            ):
                if not await send(message):
                    return Negotiation("disconnected", rounds=rounds, text="could not be sent")
                answer = await expected
        except TimeoutError:
            return Negotiation("timeout", rounds=rounds)
        if not isinstance(answer, NegMessage):
            return _end(answer, rounds)
        try:
            payload = _payload(answer)
            if payload[0] != VERSION and (len(payload) == 1 or not rounds):
                version = f"protocol version {payload[:1].hex()}"
                return Negotiation("unsupported", rounds=rounds + 1, text=version)
            reply = ours.reconcile(payload)
        except MessageMalformed as error:
            return Negotiation("malformed", rounds=rounds + 1, text=str(error))
        if ours.need_count > max_ids:
            return Negotiation("overflow", rounds=rounds + 1, too_many=True)
        if reply is None:
            return Negotiation("done", ours.need, ours.have, rounds + 1)
        message = encode_neg_message(name, reply)
    return Negotiation("malformed", rounds=MAX_ROUNDS, text=f"no end after {MAX_ROUNDS} rounds")


def _end(answer: NegError | Notice | PageEnd, rounds: int) -> Negotiation:
    match answer:
        case PageEnd(text=text):
            return Negotiation("disconnected", rounds=rounds, text=text)
        case NegError(_, prefix, text, most):
            low = text.lower().replace("_", " ")
            too_many = most is not None or _TOO_MANY(low) is not None
            unsupported = not too_many and (prefix == "unsupported" or "disabled" in low)
            outcome = "unsupported" if unsupported else "refused"
            return Negotiation(
                outcome, frozenset(), frozenset(), rounds, prefix, text, too_many, most
            )
        case Notice(text):
            low = text.lower()
            spoken = rounds > 0 or "too many" in low or not _NOT_SPOKEN(low)
            return Negotiation("refused" if spoken else "unsupported", rounds=rounds, text=text)


def _concerns_negentropy(text: str) -> bool:
    return _NAMES_IT(text) is not None or _NOT_SPOKEN(text) is not None


def _payload(answer: NegMessage) -> bytes:
    if len(answer.payload) > 2 * MAX_MESSAGE_BYTES:
        raise MessageMalformed(f"NEG-MSG of {len(answer.payload)} hex digits")
    try:
        payload = unhexlify(answer.payload)
    except ValueError:
        raise MessageMalformed("NEG-MSG that is not hex") from None
    if not payload:
        raise MessageMalformed("NEG-MSG that is empty")
    return payload
