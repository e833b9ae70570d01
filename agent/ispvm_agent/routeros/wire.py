"""Words and sentences of the RouterOS API.

A word is a length prefix of 1 to 5 bytes and that many bytes; an empty word ends a sentence. A reply sentence is a
reply word ("!re", "!done", "!trap", "!fatal", "!empty", or one not invented yet), attributes ("=key=value"), API
attributes (".tag=7") and, after "!fatal", a bare word of text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MAX_WORD_BYTES = 1 << 20
MAX_SENTENCE_BYTES = 4 << 20
_EQUALS = ord("=")


class WireError(Exception):
    """The bytes are not the RouterOS API, or more than this agent accepts. The connection cannot be used any more."""


class Sentence(NamedTuple):
    """One reply. `tag` is "" when the router sent none; `bare` holds words that are not attributes."""

    reply: str
    tag: str
    attributes: dict[str, str]
    bare: list[str]


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


class Decoder:
    """Turns whatever pieces the network delivers into sentences; work and memory stay linear in what was received."""

    def __init__(self) -> None:
        """At the beginning of a stream."""
        self._tail = bytearray()  # the beginning of a word that is not complete yet
        self._need = 0  # how long the tail must be before looking at it again pays
        self._size = 0  # of the sentence that is not complete yet, without the tail
        self._reply = self._tag = ""
        self._attributes: dict[str, str] = {}
        self._bare: list[str] = []
        # Rows of one answer have the same keys in the same order, so each key is expected where it stood in the row
        # before: (the word up to its value, how long that is, the key).
        self._expected: list[tuple[str, int, str]] = []

    def feed(self, data: bytes) -> list[Sentence]:
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
        expected = self._expected
        at, begin, end = 0, -self._size, len(data)
        found: list[Sentence] = []
        while at < end:
            word, length, start = at, data[at], at + 1
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
                if reply:
                    found.append(Sentence(reply, tag, attributes, bare))
                reply, tag, attributes, bare, begin = "", "", {}, [], at
            elif not reply:
                reply = text[start:stop]
            elif data[start] == _EQUALS:
                if as_sent and not attributes and (after := _familiar(expected, data, text, word, attributes)) > word:
                    at = after
                    continue
                middle = text.find("=", start + 1, stop)
                if middle < 0:  # "=key": an attribute without a value
                    middle = stop
                key, value = text[start + 1 : middle], text[middle + 1 : stop]
                del expected[len(attributes) :]
                expected.append((f"={key}=", middle + 1 - start, key))
                attributes[key] = value if as_sent else decode_text(value)
            elif text.startswith(".tag=", start, stop):
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


def _familiar(expected: list[tuple[str, int, str]], data: bytes, text: str, at: int, attributes: dict[str, str]) -> int:
    """Take the words at `at` as long as they are short and those expected; returns where the first other one begins."""
    end = len(data)
    for prefix, width, key in expected:
        if at == end:
            break
        length, start = data[at], at + 1
        stop = start + length
        if not width <= length < 0x80 or stop > end or not text.startswith(prefix, start):
            break
        attributes[key] = text[start + width : stop]
        at = stop
    return at


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
