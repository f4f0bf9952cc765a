"""Metadata as it travels: what is packed comes out again, and nothing else does."""

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shared import metadata
from shared.errors import BadMetadata
from shared.metadata import MetadataFile, known_bytes, pack, unpack
from shared.wire import pinned, split_pinned

FILES = st.lists(
    st.builds(
        MetadataFile,
        st.sampled_from(metadata.ROLES),
        st.integers(0, 10**12 - 1),
        st.binary(max_size=300),
    ),
    max_size=6,
)


@given(FILES, st.binary(max_size=200))
def test_what_is_packed_comes_out_again(files: list[MetadataFile], known: bytes) -> None:
    assert unpack(pack(files, known), known) == files


def test_what_the_asker_holds_costs_next_to_nothing() -> None:
    held = known_bytes({"targets": b'{"signed":' + bytes(range(256)) * 8 + b"}"})
    files = [MetadataFile("targets", 8, held.replace(b"signed", b"Signed"))]
    assert len(pack(files, held)) < 60 < len(pack(files)) // 4


def test_an_answer_against_other_files_is_refused() -> None:
    answer = pack([MetadataFile("targets", 1, b"abcdefgh" * 50)], b"abcdefgh" * 40)
    with pytest.raises(BadMetadata):
        unpack(answer, b"")


@given(st.binary(max_size=80), st.sampled_from([b"", b"\0", b"\1"]), st.booleans())
def test_noise_is_refused_or_empty(noise: bytes, flag: bytes, is_frame: bool) -> None:
    answer = flag + (zstandard.compress(noise) if is_frame else noise)
    try:
        files = unpack(answer)
    except BadMetadata:
        return
    assert flag
    assert b"".join(file.content for file in files) in noise


@pytest.mark.parametrize(
    "content",
    [
        b"root 1 9\nabc",
        b"root 1 3 abc",
        b"mirrors 1 3\nabc",
        b"root -1 3\nabc",
        b"root 1 3\nabcd",
        b"\n",
    ],
)
def test_files_that_do_not_add_up_are_refused(content: bytes) -> None:
    with pytest.raises(BadMetadata):
        unpack(b"\0" + zstandard.compress(content))


def test_a_frame_that_unpacks_to_too_much_is_refused_unseen() -> None:
    bomb = b"\0" + zstandard.compress(bytes(metadata.MAX_BYTES + 1))
    assert len(bomb) < 200
    with pytest.raises(BadMetadata):
        unpack(bomb)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 22))
    with pytest.raises(BadMetadata):
        unpack(b"\0" + unsized)


@pytest.mark.parametrize("junk", [b"", b"\2", b"\0\0"])
def test_other_answers_are_refused(junk: bytes) -> None:
    with pytest.raises(BadMetadata):
        unpack(junk)


def test_an_enrolment_token_carries_the_root_or_does_not() -> None:
    root = "ab" * 32
    assert split_pinned(pinned("a.secret", root)) == ("a.secret", root)
    assert split_pinned("a.secret") == ("a.secret", None)
    assert split_pinned(f".{root}") == (f".{root}", None)
