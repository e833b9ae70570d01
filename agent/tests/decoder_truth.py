"""What must hold for the decoder whatever arrives: the fuzzer looks for a counterexample, unit tests replay its corpus.

However the bytes arrive, the decoder gives the same sentences or the same refusal as it gives for single bytes, which
are read word by word and never by a pattern; it keeps no more than it was given.
"""

from __future__ import annotations

from types import SimpleNamespace

from ispvm_agent.routeros import wire


class Anything(int):
    """Equal to every number."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        """Always."""
        return True

    def __ne__(self, other: object) -> bool:
        """Never."""
        return False


def any_length(_: int) -> SimpleNamespace:
    """In place of `wire._value_lengths`, a planted bug: every word is as long as its length says."""
    return SimpleNamespace(get=lambda _: Anything())


def read(pieces: list[bytes]) -> tuple[list[wire.Sentence], wire.WireError | None]:
    """All sentences, rows as sentences of their own, and why the stream was refused."""
    decoder = wire.Decoder()
    found: list[wire.Sentence] = []
    try:
        for piece in pieces:
            for one in decoder.feed(piece):
                if isinstance(one, wire.Rows):
                    rows = [dict(zip(one.columns, row, strict=True)) for row in zip(*one.columns.values(), strict=True)]
                    found += [wire.Sentence("!re", one.tag, row, []) for row in rows or [{}] * one.size]
                else:
                    found.append(one)
    except wire.WireError as error:
        return found, error
    assert len(decoder._tail) <= sum(map(len, pieces))
    assert len(decoder._shapes) <= wire.MAX_SHAPES
    return found, None


def holds(data: bytes) -> None:
    """Raises AssertionError if not. The first byte says where the stream is cut; the rest is the stream."""
    if not data:
        return
    cut, stream = data[0] * 4, data[1:]
    by_byte, refused = read([stream[place : place + 1] for place in range(len(stream))])
    assert all(sentence.reply for sentence in by_byte)
    for pieces in ([stream], [stream[:cut], stream[cut:]]):
        found, also_refused = read([piece for piece in pieces if piece])
        assert (also_refused is None) == (refused is None)
        # a refusal ends the piece it is in: what stood before it in that piece is not handed out
        assert found == by_byte or (refused is not None and found == by_byte[: len(found)])
