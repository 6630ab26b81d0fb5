import errno

import pytest

import rstar_nb.store as store
from rstar_nb.store import (
    RunLock,
    StoreError,
    append_lines,
    is_complete,
    iterate_lines,
    publish,
    read_lines,
    repair_folder,
    repair_lines,
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


def test_any_torn_tail_is_passed_over_then_cut_and_can_be_written_over(tmp_path):
    path = tmp_path / "a"
    append_lines(path, ROWS)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_lines(path) == ROWS[:-1]
        assert path.read_bytes() == whole[:cut]  # reading never writes
        if cut > start:
            with pytest.raises(StoreError, match="middle of a line"):
                append_lines(path, ROWS[-1:])
        repair_lines(path)
        append_lines(path, ROWS[-1:])
        assert path.read_bytes() == whole


def test_reading_while_another_process_appends_loses_nothing(tmp_path):
    """The writer's line is on its way: what a reader sees of it must stay there."""
    path = tmp_path / "a"
    append_lines(path, ROWS[:4])
    first, rest = path.read_bytes(), store._sealed(ROWS[4]).encode()
    with open(path, "ab") as f:
        f.write(rest[:10])
        f.flush()
        assert read_lines(path) == ROWS[:4]
        f.write(rest[10:])
    assert path.read_bytes() == first + rest and read_lines(path) == ROWS


def test_a_folder_is_repaired_whole(tmp_path):
    for name in ("a.jsonl", "below/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        append_lines(tmp_path / name, ROWS)
        with open(tmp_path / name, "a") as f:
            f.write('{"torn')
    repair_folder(tmp_path)
    for name in ("a.jsonl", "below/b.jsonl"):
        assert (tmp_path / name).read_text() == "".join(map(store._sealed, ROWS))


def test_iterate_lines_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "a"
    path.write_text('{"id": 1}\nnonsense\n[2]\n{"id": 3}\n{"id": 4')
    before = path.read_bytes()
    found = list(iterate_lines(path))
    assert found == [(0, {"id": 1}), (23, {"id": 3})] and path.read_bytes() == before
    with open(path, "a") as f:
        f.write("}\n")
    assert list(iterate_lines(path, 33)) == [(33, {"id": 4})]
    assert list(iterate_lines(tmp_path / "none")) == []


def test_a_new_name_reaches_the_disk_too(tmp_path, monkeypatch):
    """After a rename the folder that holds the name is synced."""
    synced = []
    fsync = store.os.fsync
    monkeypatch.setattr(
        store.os,
        "fsync",
        lambda f: (synced.append(store.os.readlink(f"/proc/self/fd/{f}")), fsync(f)),
    )
    for write in (
        lambda: write_text(tmp_path / "t", "text"),
        lambda: publish(tmp_path / "f", lambda f: (f / "x").write_text("1")),
    ):
        synced.clear()
        write()
        assert synced[-1] == str(tmp_path)


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


def test_weights_are_readable_as_the_folder_is(tmp_path):
    """Some libraries write files for their owner only; a colleague must be able to read them."""

    def write(folder):
        (folder / "weights").write_text("1")
        (folder / "weights").chmod(0o600)

    publish(tmp_path / "f", write)
    folder_mode = (tmp_path / "f").stat().st_mode
    assert (tmp_path / "f" / "weights").stat().st_mode & 0o444 == folder_mode & 0o444
    assert is_complete(tmp_path / "f")


class LibraryError(Exception):
    """What safetensors raises when the disk is full is no OSError."""


@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
        (LibraryError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EACCES, "Permission denied"), "you may not write there"),
        (OSError(errno.EROFS, "Read-only file system"), "you may not write there"),
        (OSError(errno.EIO, "Input/output error"), r"cannot write \(Input/output error\)"),
    ],
)
def test_each_trouble_is_called_what_it_is(tmp_path, error, message):
    def write(folder):
        raise error

    with pytest.raises(StoreError, match=message) as refused:
        publish(tmp_path / "f", write)
    assert "\n" not in str(refused.value) and not (tmp_path / "f").exists()


def test_other_errors_of_a_library_are_not_hidden(tmp_path):
    def write(folder):
        raise LibraryError("the tensor is not contiguous")

    with pytest.raises(LibraryError):
        publish(tmp_path / "f", write)


def test_a_file_system_without_locks_is_called_that(tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(store.fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match="this file system has no locks .*local disk"):
        RunLock(tmp_path).__enter__()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        RunLock(tmp_path / "file" / "run").__enter__()
