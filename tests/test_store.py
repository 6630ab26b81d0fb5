import errno

import pytest
import rstar_nb.store as store
from rstar_nb.store import (
    RunLock,
    StoreError,
    append_lines,
    is_complete,
    publish,
    read_lines,
    write_lines,
    write_text,
)

ROWS = [{"id": i, "text": "é" * i} for i in range(5)]


def test_lines_round_trip(tmp_path):
    append_lines(tmp_path / "a", ROWS[:2])
    append_lines(tmp_path / "a", ROWS[2:])
    assert read_lines(tmp_path / "a") == ROWS and read_lines(tmp_path / "none") == []
    write_lines(tmp_path / "a", ROWS[:1])
    assert read_lines(tmp_path / "a") == ROWS[:1]


def test_any_torn_tail_is_cut_and_can_be_written_over(tmp_path):
    path = tmp_path / "a"
    append_lines(path, ROWS)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_lines(path) == ROWS[:-1]
        append_lines(path, ROWS[-1:])
        assert path.read_bytes() == whole


def test_damage_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "a"
    append_lines(path, ROWS)
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="line 1: the checksum does not match"):
        read_lines(path)


def full_disk(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a"
    append_lines(path, ROWS[:2])
    write_text(tmp_path / "t", "old")
    publish(tmp_path / "f", lambda f: (f / "x").write_text("old"))
    monkeypatch.setattr(store.os, "fsync", full_disk)
    for write in (
        lambda: append_lines(path, ROWS[2:]),
        lambda: write_text(tmp_path / "t", "new"),
        lambda: publish(tmp_path / "f", lambda f: (f / "x").write_text("new")),
    ):
        with pytest.raises(StoreError, match="free some space"):
            write()
    monkeypatch.undo()
    assert read_lines(path) == ROWS[:2] and (tmp_path / "t").read_text() == "old"
    assert is_complete(tmp_path / "f") and (tmp_path / "f" / "x").read_text() == "old"


def test_a_folder_counts_only_when_it_is_whole(tmp_path):
    publish(tmp_path / "f", lambda f: (f / "x").write_text("1"))
    assert is_complete(tmp_path / "f")
    (tmp_path / "f" / "x").write_text("2")
    assert not is_complete(tmp_path / "f")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "x").write_text("1")
    assert not is_complete(tmp_path / "g")


def test_an_interrupted_publish_shows_nothing(tmp_path):
    def interrupted(folder):
        (folder / "x").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "f", interrupted)
    assert not (tmp_path / "f").exists()
    publish(tmp_path / "f", lambda f: (f / "x").write_text("whole"))
    assert is_complete(tmp_path / "f")


def test_one_writer_at_a_time(tmp_path):
    with RunLock(tmp_path):
        with pytest.raises(StoreError, match="another process is writing this run"):
            RunLock(tmp_path).__enter__()
    with RunLock(tmp_path):
        pass
