"""How much a file may unpack to, a pipe may give, and how long an archive is waited for: at each limit."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from archive_answers import Clock

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io import opening
from bayesflowmass.io.archives import ArchiveError, Caller
from bayesflowmass.io.archives.access import NoAnswer, _reason, _retry_after
from bayesflowmass.io.opening import open_bytes, packed_as, read_bytes


@pytest.mark.parametrize(("limit", "ratio", "size", "fits"), [
    (1000, 0, 1000, True), (1000, 0, 1001, False), (0, 10, "ten", True), (0, 10, "more", False),
])  # fmt: skip
def test_a_packed_file_unpacks_to_a_limit_or_a_ratio(tmp_path, monkeypatch, limit, ratio, size, fits):
    path = tmp_path / "a.gz"
    content = b"a" * (size if isinstance(size, int) else 4000)
    path.write_bytes(gzip.compress(content))
    monkeypatch.setattr(opening, "UNPACKED_LIMIT", limit)
    monkeypatch.setattr(opening, "UNPACKED_RATIO", ratio)
    if isinstance(size, str):
        # As often its own size as it unpacks to, or a little less.
        monkeypatch.setattr(opening, "UNPACKED_RATIO", 4000 / path.stat().st_size - (0.0 if fits else 0.1))
    if fits:
        assert read_bytes(path) == content
    else:
        with pytest.raises(CatalogError, match=r"unpacks to more than .* times its size, as no table does"):
            read_bytes(path)


@pytest.mark.parametrize(
    ("size", "message"), [(10, None), (11, "gives more than"), (0, "nothing came through")]
)
def test_a_pipe_gives_something_and_not_too_much(tmp_path, monkeypatch, size, message):
    monkeypatch.setattr(opening, "PIPE_LIMIT", 10)
    source = tmp_path / "pipe"
    source.write_bytes(b"x" * size)
    if message is None:
        copy = opening._copied(source)
        assert (copy.name, copy.read_bytes()) == ("pipe", b"x" * size)
        assert copy != source
    else:
        with pytest.raises(CatalogError, match=message):
            opening._copied(source)


def test_limits_are_those_of_the_documentation():
    said = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    words = f"more than {opening.UNPACKED_LIMIT / 2**20:g} MiB and {opening.UNPACKED_RATIO} times their size"
    assert words in " ".join(said.split())
    assert f"Files of more than {opening.PIPE_LIMIT / 2**30:g} GiB do not come through pipes" in " ".join(
        said.split()
    )
    assert packed_as(b"") is None


def test_what_is_packed_is_told_by_its_first_bytes(tmp_path):
    assert [packed_as(start) for start in (b"\x1f\x8b8", b"BZh9", b"\xfd7zXZ\0\0", b"BZ", b"")] == [
        *("gzip", "bzip2", "xz"),
        *(None, None),
    ]
    (tmp_path / "a").write_bytes(b"plain text")
    with open_bytes(tmp_path / "a") as stream:
        assert stream.read() == b"plain text"
    with pytest.raises(CatalogError, match="a folder where a file is expected"):
        open_bytes(tmp_path)


def test_requests_wait_for_what_is_left_of_a_second():
    clock = Clock()
    caller = Caller(sleep=clock.sleep, clock=lambda: clock.now)
    caller.wait()
    clock.now += 0.25
    caller.wait()
    clock.now += 1.0
    caller.wait()
    assert clock.pauses == [0.75]
    assert caller.requests_made == 3


@pytest.mark.parametrize(("attempts", "pauses", "words"), [
    (1, [], "asked once .cut"), (3, [2.0, 4.0], "asked 3 times .cut"), (9, [2, 4, 8, 16, 32, 64, 120, 120], "9 times"),
])  # fmt: skip
def test_pauses_are_doubled_up_to_two_minutes(attempts, pauses, words):
    pytest.importorskip("astroquery")
    clock, asked = Clock(), []
    caller = Caller(attempts=attempts, sleep=clock.sleep, clock=lambda: clock.now)

    def question():
        asked.append(1)
        raise NoAnswer("cut")

    with pytest.raises(ArchiveError, match=words):
        caller.ask("X", question)
    assert clock.pauses == pauses
    assert len(asked) == attempts
    assert Caller().attempts == 4
    assert caller.ask("X", lambda: 7) == 7


class Response:
    def __init__(self, **headers):
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def test_a_server_may_say_how_long_to_wait():
    assert _retry_after(Response(Retry_After="30")) == 30.0
    assert _retry_after(Response()) == 0.0
    assert _retry_after(Response(Retry_After="tomorrow")) == 0.0
    assert _reason(ValueError("the socket timed out")) == "it does not answer in time"
    assert _reason(ValueError("a\n b" + "c" * 200)) == "a b" + "c" * 117
    assert _reason(ValueError()) == "ValueError"
