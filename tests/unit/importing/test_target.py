"""Where it is published: nothing is written over, and what fails leaves nothing that could be taken for a set."""

import threading

import pytest
from tests.unit.importing.conftest import TO
from tests.unit.importing.sources import easy_vqa, tsv_row, write_tsv

from dpe_api.names import MANIFEST
from dpe_jobs.importing import run as importing
from dpe_jobs.importing.target import MARKER, BucketTarget, FolderTarget, Publication
from dpe_jobs.questions import write_questions
from dpe_jobs.runtime import BadConfig, BadData, Stopped
from dpe_jobs.store import StoreUnreachable


@pytest.fixture
def source(tmp_path):
    return write_tsv([tsv_row(q) for q in easy_vqa(6)], tmp_path / "probe.tsv")


@pytest.fixture(params=["bucket", "folder"])
def place(request, store, tmp_path):
    """(flags, what lies there, put a file there)"""
    if request.param == "bucket":
        return (
            [],
            lambda: {u.removeprefix(TO + "/"): d for u, d in store.objects.items()},
            lambda name, data: store.put(f"{TO}/{name}", data),
        )
    folder = tmp_path / "out"
    folder.mkdir()
    return (
        ["--to", str(folder)],
        lambda: {p.name: p.read_bytes() for p in folder.iterdir()},
        lambda name, data: (folder / name).write_bytes(data),
    )


def test_a_dataset_is_never_written_over(bring, source, place):
    flags, there, _ = place
    bring(source, *flags)
    before = there()
    for restart in ([], ["--restart"]):
        with pytest.raises(BadConfig, match="holds a dataset already: choose another folder, or delete it first"):
            bring(source, *flags, *restart)
    assert there() == before


@pytest.mark.parametrize("restart", [[], ["--restart"]])
def test_what_people_uploaded_by_hand_is_not_touched(bring, source, place, restart):
    flags, there, put = place
    put("part-00000.parquet", b"mine")
    with pytest.raises(BadConfig, match=r"is not empty \(part-00000.parquet\)"):
        bring(source, *flags, *restart)
    assert there() == {"part-00000.parquet": b"mine"}


def test_a_killed_import_is_cleared_away_on_request_only(bring, source, place):
    flags, there, put = place
    put(MARKER, b"{}")
    put("part-00007.parquet", b"half")
    with pytest.raises(BadConfig, match="has not ended: wait for it, or, when it was killed, add --restart"):
        bring(source, *flags)
    assert set(there()) == {MARKER, "part-00007.parquet"}
    bring(source, *flags, "--restart")
    assert set(there()) == {MANIFEST, "import.json", "part-00000.parquet"}


def test_a_strange_file_stops_a_restart(bring, source, place):
    flags, there, put = place
    put(MARKER, b"{}")
    put("notes.txt", b"mine")
    with pytest.raises(BadConfig, match=r"is not empty \(notes.txt\)"):
        bring(source, *flags, "--restart")
    assert there()["notes.txt"] == b"mine"


def test_after_a_refusal_the_mended_source_goes_to_the_same_place(bring, source, place, tmp_path):
    flags, there, _ = place
    rows = [tsv_row(q) for q in easy_vqa(6)]
    with pytest.raises(BadData):
        bring(write_tsv([{**row, "answer": ""} for row in rows], tmp_path / "bad.tsv"), *flags)
    assert set(there()) == {"import.json", "bad-rows.jsonl"}
    bring(source, *flags)
    assert set(there()) == {MANIFEST, "import.json", "part-00000.parquet"}


def test_parts_that_were_up_before_the_bad_row_are_taken_back(bring, place, tmp_path, monkeypatch):
    monkeypatch.setattr("dpe_jobs.importing.parts.GROUP_ROWS", 2)
    flags, there, _ = place
    rows = [tsv_row(q) for q in easy_vqa(6)]
    rows[-1]["answer"] = ""
    with pytest.raises(BadData, match="1 of 42 rows"):
        bring(write_tsv(rows, tmp_path / "bad.tsv"), *flags, part_bytes=1)
    assert set(there()) == {"import.json", "bad-rows.jsonl"}


@pytest.mark.parametrize("end", [KeyboardInterrupt, Stopped, StoreUnreachable("away"), OSError("disk full")])
def test_an_import_that_is_stopped_leaves_nothing(bring, source, place, monkeypatch, end):
    flags, there, _ = place
    monkeypatch.setattr("dpe_jobs.importing.parts.GROUP_ROWS", 2)

    def stop(*_):
        raise end

    monkeypatch.setattr(importing, "_manifest", stop)
    with pytest.raises(type(end) if isinstance(end, Exception) else end):
        bring(source, *flags, part_bytes=1)
    assert there() == {}


def test_a_store_that_is_away_while_an_import_fails_hides_no_reason(bring, source, store, monkeypatch, caplog):
    def stop(*_):
        raise Stopped

    def away(_uris):
        raise StoreUnreachable("no answer")

    monkeypatch.setattr(importing, "_manifest", stop)
    delete = store.delete
    monkeypatch.setattr(store, "delete", lambda uris: delete(uris) if not store.objects else away(uris))
    with pytest.raises(Stopped):
        bring(source)
    assert "the next one needs --restart" in caplog.text
    monkeypatch.undo()
    bring(source, "--restart")


def test_of_two_imports_at_once_one_is_refused(store):
    outcomes = []

    def claim():
        try:
            outcomes.append(Publication(BucketTarget(store, TO), restart=False))
        except BadConfig as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(o for o in outcomes if isinstance(o, str)) == ["ImportUnfinished"] * 7


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match="cannot be made: "):
        FolderTarget(tmp_path / "file" / "out")


def test_a_set_with_duplicates_over_files_is_refused(bring, tmp_path, capsys):
    for name in ("a", "b"):
        write_questions(easy_vqa(6)[:1], tmp_path / f"{name}.parquet")
    with pytest.raises(BadData, match="1 of 2 rows"):
        bring(tmp_path)
    assert "row 1 (b.parquet row 0), id: 'train-" in capsys.readouterr().err
