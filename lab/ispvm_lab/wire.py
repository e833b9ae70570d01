"""The RouterOS API's framing: words with a length in front, sentences ending in an empty word."""

from __future__ import annotations

from asyncio import IncompleteReadError, StreamReader
from collections.abc import Mapping

MAX_WORD = 1 << 20
MAX_SENTENCE = 4 << 20


class FramingError(Exception):
    """The peer sent something that is no API sentence (or one too long to be meant)."""


def encode_length(length: int) -> bytes:
    """The prefix of a word of `length` bytes, one to five bytes long."""
    if length < 0x80:
        return length.to_bytes(1, "big")
    if length < 0x4000:
        return (length | 0x8000).to_bytes(2, "big")
    if length < 0x200000:
        return (length | 0xC00000).to_bytes(3, "big")
    if length < 0x10000000:
        return (length | 0xE0000000).to_bytes(4, "big")
    return b"\xf0" + length.to_bytes(4, "big")


def encode_word(word: bytes) -> bytes:
    """One word with its length in front."""
    return encode_length(len(word)) + word


def encode_sentence(*words: bytes) -> bytes:
    """Words as one sentence, with the empty word that ends it."""
    return b"".join(map(encode_word, words)) + b"\x00"


def encode_row(row: Mapping[str, str], tail: bytes, codepage: str = "utf-8") -> bytes:
    """A `!re` sentence: one `=name=value` word a field, then `tail` (the tag's encoded word, or nothing)."""
    words = [f"={name}={value}" for name, value in row.items()]
    text = "".join([chr(len(word)) + word for word in words])
    if text.isascii() and max(map(len, words), default=0) < 0x80:  # nearly always: lengths and words encoded at once
        return b"".join((b"\x03!re", text.encode("ascii"), tail, b"\x00"))
    encoded = [encode_word(word.encode(codepage, errors="replace")) for word in words]
    return b"".join((b"\x03!re", *encoded, tail, b"\x00"))


async def read_word(reader: StreamReader) -> bytes:
    """The next word, empty at the end of a sentence. Raises FramingError, IncompleteReadError at the stream's end."""
    first = (await reader.readexactly(1))[0]
    if first < 0x80:
        length = first
    elif first < 0xC0:
        length = (first & 0x3F) << 8 | (await reader.readexactly(1))[0]
    elif first < 0xE0:
        length = (first & 0x1F) << 16 | int.from_bytes(await reader.readexactly(2), "big")
    elif first < 0xF0:
        length = (first & 0x0F) << 24 | int.from_bytes(await reader.readexactly(3), "big")
    elif first == 0xF0:
        length = int.from_bytes(await reader.readexactly(4), "big")
    else:
        raise FramingError(f"control byte 0x{first:02x}")
    if length > MAX_WORD:
        raise FramingError(f"a word of {length} bytes")
    return await reader.readexactly(length) if length else b""


async def read_sentence(reader: StreamReader) -> list[bytes] | None:
    """The next sentence that has words, or None when the peer closed between two sentences."""
    words: list[bytes] = []
    size = 0
    while True:
        try:
            word = await read_word(reader)
        except IncompleteReadError as end:
            if words or end.partial:
                raise FramingError("the stream ended inside a sentence") from end
            return None
        if word:
            words.append(word)
            size += len(word)
            if size > MAX_SENTENCE:
                raise FramingError(f"a sentence of more than {MAX_SENTENCE} bytes")
        elif words:
            return words
