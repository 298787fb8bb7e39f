"""The disk that a power cut leaves, in each form."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from board import replay, write_log
from board.replay import FORMS, LOST_ALL, LOST_SOME, RECORDED, TORN, Cut
from board.write_log import FLUSH, FUA, Entry

SECTOR = 512

ENTRIES = st.lists(
    st.sampled_from(
        [
            Entry(0, 0, FLUSH, 0),
            Entry(0, SECTOR, 0, 0),
            Entry(0, 4 * SECTOR, 0, 0),
            Entry(0, SECTOR, FUA, 0),
        ]
    ),
    max_size=20,
)


def write(number: int, sectors: int = 1) -> Entry:
    """Return a write to a place of its own, so that it can be recognized."""
    return Entry(number * 100 * SECTOR, sectors * SECTOR, 0, 0)


FLUSHED = Entry(0, 0, FLUSH, 0)
A, B, C, D = write(1), write(2), write(3, 4), write(4)
LOG = (A, FLUSHED, B, C, D, FLUSHED)


def on_disk(cut: Cut) -> list[tuple[Entry, int]]:
    return replay.writes(LOG, cut)


def test_a_cut_as_recorded_has_every_write_before_it() -> None:
    assert on_disk(Cut(4, RECORDED)) == [(A, SECTOR), (B, SECTOR), (C, 4 * SECTOR)]
    assert on_disk(Cut(0, RECORDED)) == []


def test_a_torn_write_has_its_first_sector_only() -> None:
    assert on_disk(Cut(3, TORN)) == [(A, SECTOR), (B, SECTOR), (C, SECTOR)]


def test_a_lost_cache_leaves_what_was_flushed() -> None:
    assert on_disk(Cut(5, LOST_ALL)) == [(A, SECTOR)]
    assert on_disk(Cut(1, LOST_ALL)) == []
    assert on_disk(Cut(6, LOST_ALL)) == on_disk(Cut(6, RECORDED))


def test_a_partly_lost_cache_leaves_some_of_it_and_the_seed_chooses() -> None:
    found = {tuple(on_disk(Cut(5, LOST_SOME, seed))) for seed in range(50)}
    assert len(found) > 3
    for writes in found:
        assert writes[0] == (A, SECTOR)
        assert 1 < len(writes) < 4
    assert on_disk(Cut(5, LOST_SOME, 7)) == on_disk(Cut(5, LOST_SOME, 7))


def test_a_write_with_fua_is_never_lost() -> None:
    kept = Entry(500 * SECTOR, SECTOR, FUA, 0)
    assert replay.writes((B, kept, C), Cut(3, LOST_ALL)) == [(kept, SECTOR)]


def test_each_point_is_cut_in_each_form_that_leaves_another_disk() -> None:
    assert [str(cut) for cut in replay.cuts(LOG, 0, len(LOG), seed=3)] == [
        "0-recorded",
        "1-recorded",
        "1-lost-all",
        "3-recorded",
        "3-torn",
        "4-recorded",
        "4-lost-some-3",
        "5-recorded",
        "5-lost-all",
        "5-lost-some-3",
    ]


@given(ENTRIES, st.integers(0, 5))
def test_a_cut_never_has_a_write_that_came_later_and_always_has_one_that_was_flushed(
    entries: list[Entry], seed: int
) -> None:
    entries = [entry._replace(start=number * 100 * SECTOR) for number, entry in enumerate(entries)]
    for cut in replay.cuts(entries, 0, len(entries), seed):
        found = replay.writes(entries, cut)
        flushed = [entry for entry in entries[: replay.last_flush(entries, cut.point)] if entry.is_write]
        assert [entry for entry, _ in found][: len(flushed)] == flushed
        later = {entry for entry, _ in found} & set(entries[cut.point :])
        assert later == ({entries[cut.point]} if cut.form == TORN else set())


@given(ENTRIES, st.integers(1, 30), st.integers(0, 5))
def test_a_sample_has_its_size_and_every_phase_that_there_is(
    entries: list[Entry], size: int, seed: int
) -> None:
    def phase(point: int) -> str:
        return "early" if point < 3 else "late"

    every = list(replay.cuts(entries, 0, len(entries), seed))
    found = replay.sample(every, size, seed, phase)
    assert len(found) == len(set(found)) == min(size, len(every))
    assert found == [cut for cut in every if cut in found]
    assert found == replay.sample(every, size, seed, phase)
    if size >= 2:
        assert {phase(cut.point) for cut in found} == {phase(cut.point) for cut in every}
    if size >= 2 * len(FORMS):
        assert {cut.form for cut in found} == {cut.form for cut in every}


def test_a_small_sample_of_one_phase_has_each_form() -> None:
    every = list(replay.cuts(LOG, 0, len(LOG)))
    found = replay.sample(every, len(FORMS), 1, lambda _: "phase")
    assert {cut.form for cut in found} == set(FORMS)


def test_a_cut_at_a_flush_has_one_before_it_or_after_it() -> None:
    every = replay.cuts(LOG, 0, len(LOG))
    assert {cut.point for cut in every if replay.at_flush(LOG, cut)} == {1, 5}


def test_a_replayed_disk_has_the_bytes_of_the_log_over_those_of_the_base(tmp_path: Path) -> None:
    base, path = tmp_path / "base", tmp_path / "log"
    base.write_bytes(b"-" * 6 * SECTOR)
    path.write_bytes(b"a" * SECTOR + b"b" * 2 * SECTOR)
    entries = (Entry(SECTOR, SECTOR, 0, 0), Entry(3 * SECTOR, 2 * SECTOR, 0, SECTOR))
    log = write_log.WriteLog(path, SECTOR, entries)
    for cut, wanted in ((Cut(2, RECORDED), "-a-bb-"), (Cut(1, TORN), "-a-b--"), (Cut(0, RECORDED), "------")):
        replay.replay(log, base, tmp_path / "disk", cut)
        content = (tmp_path / "disk").read_bytes()
        assert content == b"".join(letter.encode() * SECTOR for letter in wanted)
