"""Words and sentences of the RouterOS API.

A word is a length prefix of 1 to 5 bytes and that many bytes; an empty word ends a sentence. A reply sentence is a
reply word ("!re", "!done", "!trap", "!fatal", "!empty", or one not invented yet), attributes ("=key=value"), API
attributes (".tag=7") and, after "!fatal", a bare word of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

MAX_WORD_BYTES = 1 << 20
MAX_SENTENCE_BYTES = 4 << 20
MAX_SHAPES = 64  # learned on one connection: a router that keeps inventing new ones is read word by word
MAX_SHAPE_BYTES = 2048
_EQUALS = ord("=")
_TAG = ".tag="


class WireError(Exception):
    """The bytes are not the RouterOS API, or more than this agent accepts. The connection cannot be used any more."""


class Sentence(NamedTuple):
    """One reply that is no row. `tag` is "" when the router sent none; `bare` holds words that are not attributes."""

    reply: str
    tag: str
    attributes: dict[str, str]
    bare: list[str]


class Rows(NamedTuple):
    """`size` successive "!re" sentences with one tag and the same keys: for each key the values, row by row."""

    tag: str
    size: int
    octets: int  # on the wire
    columns: dict[str, Sequence[str]]


# What the words of a row begin with, in their order: (".tag=", "=name=", "=type=").
_Shape = tuple[str, ...]


def encode_length(length: int) -> bytes:
    """The length prefix of a word; raises WireError above 2^32 - 1."""
    if length < 0x80:
        return length.to_bytes(1, "big")
    if length < 0x4000:
        return (length | 0x8000).to_bytes(2, "big")
    if length < 0x20_0000:
        return (length | 0xC0_0000).to_bytes(3, "big")
    if length < 0x1000_0000:
        return (length | 0xE000_0000).to_bytes(4, "big")
    if length < 1 << 32:
        return b"\xf0" + length.to_bytes(4, "big")
    raise WireError(f"a word of {length} bytes cannot be sent")


def encode_sentence(words: Iterable[str]) -> bytes:
    """A sentence ready to be written. An empty word would end it early and is refused."""
    parts: list[bytes] = []
    for word in words:
        raw = word.encode()
        if not raw:
            raise WireError("a sentence cannot hold an empty word")
        parts += (encode_length(len(raw)), raw)
    return b"".join((*parts, b"\0"))


def decode_text(latin: str) -> str:
    """Text of unknown encoding, given as latin-1 (one character a byte): UTF-8 if it is, else cp1252, else latin-1."""
    if latin.isascii():
        return latin
    raw = latin.encode("latin-1")
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return latin


@lru_cache(maxsize=1024)
def _pattern(shape: _Shape) -> re.Pattern[str]:
    """One row of this shape; for each word the character of its length and its value.

    Neither "=" nor NUL is accepted in a value, so matching is linear. A value with one is read word by word.
    """
    words = (rf"([\x01-\x7f]){re.escape(prefix)}([^=\0]*)" for prefix in shape)
    return re.compile("\x03!re" + "".join(words) + "\0")


class Decoder:
    """Turns whatever pieces the network delivers into sentences; work and memory stay linear in what was received.

    Rows of an answer have the same keys in the same order. So the shape of two successive rows becomes a pattern, by
    which the rows after them are read at once; what does not fit it exactly is read word by word.
    """

    def __init__(self) -> None:
        """At the beginning of a stream."""
        self._tail = bytearray()  # the beginning of a word that is not complete yet
        self._need = 0  # how long the tail must be before looking at it again pays
        self._size = 0  # of the sentence that is not complete yet, without the tail
        self._reply = self._tag = ""
        self._attributes: dict[str, str] = {}
        self._bare: list[str] = []
        self._shapes: dict[_Shape, re.Pattern[str]] = {}
        self._shape: _Shape = ()  # of the last row

    def feed(self, data: bytes) -> list[Sentence | Rows]:
        """All sentences that `data` completes, in order. Raises WireError; then the decoder is of no further use."""
        if self._tail:
            self._tail += data
            if len(self._tail) < self._need:
                return []
            data = bytes(self._tail)
            self._tail.clear()
        # One character a byte: positions in `text` and `data` agree, and ASCII, nearly everything, is final.
        text = data.decode("latin-1")
        as_sent = data.isascii()
        reply, tag, attributes, bare = self._reply, self._tag, self._attributes, self._bare
        at, begin, end = 0, -self._size, len(data)
        found: list[Sentence | Rows] = []
        by_shape = True  # until rows turn out to be none: then not again in this piece, so that work stays linear
        while at < end:
            if by_shape and not reply and (pattern := self._shapes.get(self._shape)) is not None:
                rows, stop = _alike(pattern, self._shape, text, at, as_sent)
                if rows is not None:
                    found.append(rows)
                    at = begin = stop
                    continue
                by_shape = stop == at
            length, start = data[at], at + 1
            if length >= 0x80:
                start = at + _prefix_width(length)
                if start > end:
                    self._need = start - at
                    break
                length = _long_length(data[at:start])
                if length > MAX_WORD_BYTES:
                    raise WireError(f"a word of {length} bytes; at most {MAX_WORD_BYTES} are accepted")
            stop = start + length
            if stop > end:
                self._need = stop - at
                break
            at = stop
            if not length:
                if reply == "!re":
                    found.append(Rows(tag, 1, at - begin, {key: (value,) for key, value in attributes.items()}))
                    self._learn(text.startswith(_TAG, begin + 5), tag, attributes)
                elif reply:
                    found.append(Sentence(reply, tag, attributes, bare))
                reply, tag, attributes, bare, begin = "", "", {}, [], at
            elif not reply:
                reply = text[start:stop]
            elif data[start] == _EQUALS:
                middle = text.find("=", start + 1, stop)
                if middle < 0:  # "=key": an attribute without a value
                    middle = stop
                value = text[middle + 1 : stop]
                attributes[text[start + 1 : middle]] = value if as_sent else decode_text(value)
            elif text.startswith(_TAG, start, stop):
                tag = text[start + 5 : stop]
            else:
                bare.append(decode_text(text[start:stop]))
            if at - begin > MAX_SENTENCE_BYTES:
                raise WireError(f"a sentence of more than {MAX_SENTENCE_BYTES} bytes")
        self._reply, self._tag, self._attributes, self._bare = reply, tag, attributes, bare
        self._size = at - begin
        if at < end:
            self._tail += data[at:]
        return found

    def _learn(self, tag_first: bool, tag: str, attributes: dict[str, str]) -> None:
        """Remember the shape of a row that was read word by word; a guess will do, `_alike` takes nothing on trust."""
        prefixes = [f"={key}=" for key in attributes]
        if tag:
            prefixes.insert(0 if tag_first else len(prefixes), _TAG)
        before, self._shape = self._shape, tuple(prefixes)
        new = self._shape == before and self._shape not in self._shapes and len(self._shapes) < MAX_SHAPES
        if new and attributes and sum(map(len, prefixes)) <= MAX_SHAPE_BYTES:
            self._shapes[self._shape] = _pattern(self._shape)


@cache
def _value_lengths(prefix: int) -> dict[str, int]:
    """How long the value of a word is that begins with so many characters, by the character of the word's length."""
    return {chr(length): length - prefix for length in range(0x80)}


def _alike(pattern: re.Pattern[str], shape: _Shape, text: str, at: int, as_sent: bool) -> tuple[Rows | None, int]:
    """The rows at `at` that have this shape, and where they end; None when there are none or not what they look like.

    The pattern finds the words by what they begin with; that each is as long as its length says proves it right.
    """
    found: list[tuple[str, ...]] = []
    tag = ""
    columns: dict[str, Sequence[str]] = {}
    begin = at
    while (match := pattern.match(text, at)) is not None:
        found.append(match.groups())
        at = match.end()
    lengths_and_values = list(zip(*found, strict=True))
    for prefix, lengths, values in zip(shape, lengths_and_values[::2], lengths_and_values[1::2], strict=False):
        if [*map(len, values)] != [*map(_value_lengths(len(prefix)).get, lengths)]:
            return None, at
        if prefix != _TAG:
            columns[prefix[1:-1]] = values if as_sent else [*map(decode_text, values)]
        elif values.count(values[0]) == len(values):
            tag = values[0]
        else:
            return None, at
    return (Rows(tag, len(found), at - begin, columns) if found else None), at


def _prefix_width(first: int) -> int:
    """How many bytes the length prefix has that begins with `first` (0x80 or more)."""
    if first < 0xC0:
        return 2
    if first < 0xE0:
        return 3
    if first < 0xF0:
        return 4
    if first == 0xF0:
        return 5
    raise WireError(f"0x{first:02x} begins no length known to this agent")


def _long_length(prefix: bytes) -> int:
    """The word length in a prefix of 2 to 5 bytes."""
    if len(prefix) == 5:
        return int.from_bytes(prefix[1:], "big")
    return int.from_bytes(prefix, "big") & ((1 << (7 * len(prefix))) - 1)
