"""Decoding, with librouteros as the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest
from decoder_truth import any_length, holds, read
from hypothesis import given, settings
from hypothesis import strategies as st
from ispvm_agent.routeros import wire
from ispvm_agent.routeros.wire import (
    Decoder,
    Rows,
    Sentence,
    WireError,
    decode_text,
    encode_length,
    encode_sentence,
)
from librouteros.exceptions import FatalError
from librouteros.protocol import ApiProtocol, parse_word

RESERVED = "\0"
text = st.text(st.characters(codec="utf-8", exclude_characters=RESERVED), max_size=40)
ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
key = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1, max_size=20)
reply_word = st.sampled_from(["!re", "!done", "!trap", "!empty", "!something"])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def decode(data: bytes, cuts: list[int] | None = None) -> list[Sentence]:
    """What the decoder makes of the pieces, rows as sentences of their own."""
    found, refused = read(pieces(data, cuts or []))
    if refused is not None:
        raise refused
    return found


class Memory:
    """A transport of librouteros that reads from memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, length: int) -> bytes:
        self.at += length
        return self.data[self.at - length : self.at]

    def close(self) -> None:
        self.at = len(self.data)


def oracle(data: bytes, count: int) -> list[tuple[str, dict[str, str]]]:
    """What librouteros reads, its casts of values undone (they are by design, ours keeps text)."""
    protocol = ApiProtocol(Memory(data), encoding="utf-8")
    found = []
    for _ in range(count):
        reply, words = protocol.readSentence()
        casts = dict(parse_word(word) for word in words)
        raw = dict(word[1:].split("=", 1) for word in words)
        assert casts.keys() == raw.keys()
        found.append((reply, raw))
    return found


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(reply_word, st.dictionaries(key, ascii_text | text, max_size=8)), max_size=8), st.data())
def test_same_as_librouteros_however_the_bytes_arrive(
    sentences: list[tuple[str, dict[str, str]]], data: st.DataObject
) -> None:
    raw = b"".join(encode_sentence([reply, *(f"={k}={v}" for k, v in row.items())]) for reply, row in sentences)
    cuts = data.draw(st.lists(st.integers(0, max(1, len(raw))), max_size=12))
    ours = [(s.reply, s.attributes) for s in decode(raw, cuts)]
    assert ours == oracle(raw, len(sentences))


# Where the two differ, and why ours is what is wanted.


def test_difference_tags() -> None:
    """librouteros raises on `.tag=`; pipelining needs it."""
    raw = encode_sentence(["!re", ".tag=7", "=name=a"])
    assert decode(raw) == [Sentence("!re", "7", {"name": "a"}, [])]
    with pytest.raises(ValueError, match="not enough values"):
        parse_word(".tag=7")


def test_difference_five_byte_length() -> None:
    """librouteros does not know the form with 0xF0."""
    word = b"=comment=x"
    raw = b"\x03!re\xf0" + len(word).to_bytes(4, "big") + word + b"\0"
    assert decode(raw)[0].attributes == {"comment": "x"}
    with pytest.raises(Exception, match="controll byte"):
        ApiProtocol(Memory(raw), encoding="utf-8").readSentence()


def test_difference_undecodable_bytes_are_kept() -> None:
    """librouteros drops bytes that are not its encoding, so that names collide; ours tries cp1252."""
    word = "=name=Zürich".encode("cp1252")
    raw = b"\x03!re" + bytes([len(word)]) + word + b"\0"
    assert decode(raw)[0].attributes == {"name": "Zürich"}
    assert ApiProtocol(Memory(raw), encoding="utf-8").readSentence()[1] == ("=name=Zrich",)


def test_difference_attribute_without_value() -> None:
    """librouteros raises on a word with one "="."""
    assert decode(encode_sentence(["!re", "=flag"]))[0].attributes == {"flag": ""}
    with pytest.raises(ValueError, match="not enough values"):
        parse_word("=flag")


def test_difference_fatal_has_a_bare_word() -> None:
    raw = encode_sentence(["!fatal", "not logged in"])
    assert decode(raw) == [Sentence("!fatal", "", {}, ["not logged in"])]
    with pytest.raises(FatalError, match="not logged in"):
        ApiProtocol(Memory(raw), encoding="utf-8").readSentence()


def test_difference_empty_sentence_is_skipped() -> None:
    """librouteros raises IndexError on a sentence without words."""
    assert decode(b"\0\0" + encode_sentence(["!done"])) == [Sentence("!done", "", {}, [])]
    with pytest.raises(IndexError):
        ApiProtocol(Memory(b"\0"), encoding="utf-8").readSentence()


# Lengths and limits


@pytest.mark.parametrize(
    ("length", "prefix"),
    [
        (0x7F, "7f"), (0x80, "8080"), (0x3FFF, "bfff"), (0x4000, "c04000"), (0x1FFFFF, "dfffff"),
        (0x200000, "e0200000"), (0xFFFFFFF, "efffffff"), (0x10000000, "f010000000"), (0xFFFFFFFF, "f0ffffffff"),
    ],
)  # fmt: skip
def test_length_prefixes(length: int, prefix: str) -> None:
    assert encode_length(length).hex() == prefix


def test_length_too_large_to_send() -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        encode_length(1 << 32)


@pytest.mark.parametrize("size", [0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFF])
def test_long_words_byte_by_byte_boundaries(size: int) -> None:
    value = "v" * size
    raw = encode_sentence(["!re", f"=a={value}"])
    assert decode(raw, [4, 5, 6, 7, len(raw) - 1]) == [Sentence("!re", "", {"a": value}, [])]


def test_word_over_the_cap_is_refused_before_it_is_buffered() -> None:
    with pytest.raises(WireError, match="at most"):
        Decoder().feed(b"\x03!re" + encode_length(wire.MAX_WORD_BYTES + 1))


def test_sentence_over_the_cap_is_refused() -> None:
    decoder = Decoder()
    word = encode_length(1 << 19) + b"=" * (1 << 19)
    decoder.feed(b"\x03!re")
    for _ in range(7):
        assert decoder.feed(word) == []
    with pytest.raises(WireError, match="sentence of more than"):
        decoder.feed(word)


@pytest.mark.parametrize("first", [0xF1, 0xF8, 0xFF])
def test_reserved_control_bytes(first: int) -> None:
    with pytest.raises(WireError, match="begins no length"):
        Decoder().feed(bytes([first, 0, 0, 0, 0]))


def test_empty_word_cannot_be_sent() -> None:
    with pytest.raises(WireError, match="empty word"):
        encode_sentence(["/login", ""])


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_gives_sentences_or_a_wire_error(data: bytes, cuts: list[int]) -> None:
    try:
        found = decode(data, cuts)
    except WireError:
        return
    assert all(sentence.reply for sentence in found)


row = st.lists(st.tuples(st.sampled_from(["a", "b", "name"]), ascii_text | text), max_size=4)
mutation = st.tuples(st.integers(0, 400), st.integers(0, 255))


# Rows of one shape are read by a pattern; names that look like words, or hold "=" and NUL, must not deceive it.
tricky = st.sampled_from(["", "a=b", "\0", "x\x0e=default-name=y", "ä", "\x03!re", "1" * 130])
shape = st.lists(st.sampled_from(["name", "default-name", "type", "ä"]), min_size=1, max_size=4)
alike = shape.flatmap(
    lambda keys: st.lists(st.tuples(*(st.tuples(st.just(k), tricky | ascii_text | text) for k in keys)).map(list),
                          min_size=3, max_size=8)
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(st.lists(row, max_size=6) | alike, st.lists(mutation, max_size=3), st.lists(st.integers(0, 400), max_size=8))
def test_broken_streams_mean_the_same_however_the_bytes_arrive(
    rows: list[list[tuple[str, str]]], mutations: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Rows alike and unlike, with some bytes changed: the same sentences, or an error, in one piece and in many."""
    raw = bytearray(b"".join(encode_sentence(["!re", ".tag=1", *(f"={k}={v}" for k, v in row)]) for row in rows))
    for at, byte in mutations:
        if raw:
            raw[at % len(raw)] = byte
    try:
        whole = decode(bytes(raw))
    except WireError:
        with pytest.raises(WireError):
            decode(bytes(raw), cuts)
    else:
        assert decode(bytes(raw), cuts) == whole
        assert decode(bytes(raw), list(range(len(raw)))) == whole


def test_rows_that_only_look_alike_are_read_by_their_lengths() -> None:
    """A router without default names, and a port named so that it seems to have one."""
    honest = encode_sentence(["!re", ".tag=1", "=name=ether1", "=default-name=ether1", "=type=ether"])
    fake = encode_sentence(["!re", ".tag=1", "=name=x\x13=default-name=ether1", "=type=vlan"])
    found = decode(honest * 3 + fake + honest * 2)
    assert [sentence.attributes.get("name") for sentence in found] == [
        *["ether1"] * 3, "x\x13=default-name=ether1", *["ether1"] * 2,
    ]  # fmt: skip
    assert "default-name" not in found[3].attributes


def test_rows_of_two_answers_that_look_alike_keep_their_tags() -> None:
    raw = b"".join(encode_sentence(["!re", f".tag={tag}", "=name=a"]) for tag in "1111222121")
    assert "".join(sentence.tag for sentence in decode(raw)) == "1111222121"


def test_shapes_are_learned_up_to_a_limit_and_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_SHAPES", 2)
    decoder = Decoder()
    for number in range(5):
        found = decoder.feed(encode_sentence(["!re", f"=key{number}=v"]) * 4)
        assert sum(rows.size for rows in found if isinstance(rows, Rows)) == 4
    assert len(decoder._shapes) == 2


def test_rows_alike_become_one_table() -> None:
    """What makes it fast happens: after two rows the others come as columns."""
    raw = b"".join(encode_sentence(["!re", ".tag=1", f"=name=ether{n}", f"=rx-byte={n * n}"]) for n in range(50))
    *first, rest = Decoder().feed(raw)
    assert len(first) == 2
    assert isinstance(rest, Rows)
    assert sum(rows.octets for rows in [*first, rest] if isinstance(rows, Rows)) == len(raw)
    assert rest == Rows("1", 48, rest.octets, {"name": tuple(f"ether{n}" for n in range(2, 50)),
                                  "rx-byte": tuple(str(n * n) for n in range(2, 50))})  # fmt: skip


CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus_of_the_fuzzer(path: Path) -> None:
    holds(path.read_bytes())


def test_a_planted_bug_is_found_in_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of lengths a name that looks like a word deceives the pattern."""
    monkeypatch.setattr(wire, "_value_lengths", any_length)
    with pytest.raises(AssertionError):
        holds((CORPUS[0].parent / "name-like-a-word").read_bytes())


@settings(deadline=None)
@given(text)
def test_utf8_survives(value: str) -> None:
    assert decode_text(value.encode().decode("latin-1")) == value


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"Z\xfcrich", "Zürich"), (b"5 \x80", "5 €"), (b"\x81", "\x81"), ("Узел".encode(), "Узел"), (b"plain", "plain")],
)
def test_text_of_unknown_encoding(raw: bytes, expected: str) -> None:
    assert decode_text(raw.decode("latin-1")) == expected
