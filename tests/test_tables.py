"""Reading Kaldi tables: hand-made bytes and what Kaldi wrote; front to back, by key, from pipes and damaged files."""

import gzip
import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from small_table import ROWS, float_matrix, write_ark

from pyser.errors import PyserError
from pyser.kaldi.objects import KINDS
from pyser.kaldi.tables import (
    MatrixTable,
    MatrixWriter,
    TableWriter,
    VectorTable,
    load_mat,
    load_vec,
    read_ints,
    read_mats,
    read_objects,
    read_posts,
    read_vecs,
)

GOLDEN = Path(__file__).parent / "golden/tables"


@pytest.fixture
def ark(tmp_path):
    return write_ark(tmp_path / "m.ark")


def test_load_matrix_at_an_offset(ark):
    np.testing.assert_array_equal(load_mat(f"{ark}:2"), ROWS)
    np.testing.assert_array_equal(load_mat(f"{ark}:67"), [[-1, -2, -3]])
    assert load_mat(f"{ark}:2").dtype == np.float32


@pytest.mark.parametrize("rows, expected", [
    ("[1:2]", [[4, 5, 6], [7, 8, 9]]), ("[0:0]", [[1, 2, 3]]), ("[3:3]", [[10, 11, 12]]), ("[1:2,0:1]", [[4, 5], [7, 8]]),
    ("[:,1:1]", [[2], [5], [8], [11]]), ("[3:3,:]", [[10, 11, 12]]),
    ("[3:6]", [[10, 11, 12]]),  # Kaldi lets a range end up to three rows late
])
def test_ranges_include_their_last_row(ark, rows, expected):
    np.testing.assert_array_equal(load_mat(f"{ark}:2{rows}"), expected)


def test_load_vector(tmp_path):
    (tmp_path / "v.ark").write_bytes(b"v \0BFV " + struct.pack("<bi2f", 4, 2, 0.5, -3))
    np.testing.assert_array_equal(load_vec(f"{tmp_path}/v.ark:2"), [0.5, -3])


@pytest.mark.parametrize("entry, message", [
    ("{}/none.ark:2", "no such file"), ("{}/none.ark:2[0:1]", "no such file"), ("{}", "cannot read it"),
    ("{}/m.ark:5", r"byte 5: expected \["), ("{}/m.ark:900", "no such place"),
    ("{}/m.ark:99999999999999999999999", "no such place"),
    ("{}/m.ark:2[7:9]", "7:9 is not inside the 4x3"), ("{}/m.ark:2[4:4]", "not inside"), ("{}/m.ark:2[2:1]", "not inside"),
    ("{}/m.ark:2[0:1,0:3]", "0:3 is not inside"), ("{}/m.ark:2[a]", "expected a range"),
    ("{}/m.ark:2[0:1,:,:]", "expected a range"),
    ("{}/m.ark:2[", "no such file"), ("cat {}/m.ark |", "pipes are not run here"),
    ("touch {}/ran |", "pipes are not run here"),
])
def test_bad_entries_are_named(ark, entry, message):
    with pytest.raises(PyserError, match=message) as caught:
        load_mat(entry.format(ark.parent))
    assert str(caught.value).startswith(entry.format(ark.parent)) and "\n" not in str(caught.value)
    assert not (ark.parent / "ran").exists()


def test_read_matrices_from_ark_and_scp(ark):
    (scp := ark.with_suffix(".scp")).write_text(f"b {ark}:67\na {ark}:2[3:3]\n")
    assert [(key, matrix.tolist()) for key, matrix in read_mats(f"scp:{scp}")] == [
        ("b", [[-1, -2, -3]]), ("a", [[10, 11, 12]])]
    assert [(key, matrix.shape) for key, matrix in read_mats(f"ark:{ark}")] == [("a", (4, 3)), ("b", (1, 3))]
    scp.write_text(f"a {ark.parent}/none.ark:2\n")
    with pytest.raises(PyserError, match=r"m\.scp: a: .*no such file"):
        list(read_mats(f"scp:{scp}"))


@pytest.mark.parametrize("rspecifier", ["f.ark", "ark,scp:f", "ark,x:f", "", "ark", "ark:f ", ":f", "scp,scp:f"])
def test_reader_refuses_other_specifiers(rspecifier):
    with pytest.raises(PyserError, match="expected"):
        list(read_mats(rspecifier))


def test_ranges_as_kaldi_takes_them(monkeypatch):
    monkeypatch.chdir(GOLDEN)
    expected = dict(read_mats("ark:ranges_result.ark"))
    found = dict(read_mats("scp:ranges.scp"))
    assert list(found) == list(expected) and len(found) == 6
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], key)


def test_alignments_in_every_container(monkeypatch):
    monkeypatch.chdir(GOLDEN)
    lines = [line.split() for line in Path("ali.txt").read_text().splitlines()]
    expected = {key: [int(word) for word in words] for key, *words in lines}
    for rspecifier in ("ark:ali.ark", "scp:ali.scp", "ark,t:ali.txt", "ark:ali.1.gz", "ark:ali_text.1.gz",
                       "ark:gunzip -c ali.1.gz |"):
        assert {key: value.tolist() for key, value in read_ints(rspecifier, allow_pipes=True)} == expected
    assert [indices.tolist() for indices, _ in dict(read_posts("ark:ali_post.ark"))["utt-b"]] == [[41]]


def test_standard_input_and_output(monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((GOLDEN / "float_matrix.ark").read_bytes())))
    with MatrixWriter("ark,t,f:-", compress=False) as writer:
        for key, matrix in read_mats("ark:-"):
            writer.write(key, matrix)
    assert capfdbinary.readouterr().out == (GOLDEN / "float_matrix.txt").read_bytes()


def test_pipes_only_run_when_allowed(tmp_path, ark):
    command = f"cat {ark}; touch {tmp_path}/ran |"
    (tmp_path / "p.scp").write_text(f"a tail -c +3 {ark}; touch {tmp_path}/ran |\n")
    for rspecifier in (f"ark:{command}", f"scp:{tmp_path}/p.scp", f"scp:cat {tmp_path}/p.scp; touch {tmp_path}/ran |"):
        with pytest.raises(PyserError, match="pipes are not run here"):
            list(read_mats(rspecifier))
        assert not (tmp_path / "ran").exists()
        assert next(iter(read_mats(rspecifier, allow_pipes=True)))[1].tolist() == ROWS.tolist()
        assert (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink()
    with pytest.raises(PyserError, match="pipes are not run here"), MatrixWriter(f"ark:| touch {tmp_path}/ran"):
        pass
    assert not (tmp_path / "ran").exists()


def test_a_command_that_fails_is_an_error(tmp_path, ark):
    for command in (f"cat {ark}; exit 3", "exit 3", f"head -c 40 {ark}; exit 3"):
        with pytest.raises(PyserError, match="the command failed .exit status 3"):
            list(read_mats(f"ark:{command} |", allow_pipes=True))
    with pytest.raises(PyserError, match="exit status 4"):
        load_mat(f"tail -c +3 {ark}; exit 4 |", allow_pipes=True)
    with pytest.raises(PyserError, match="exit status 5"):
        with MatrixWriter("ark:| cat > /dev/null; exit 5", allow_pipes=True) as writer:
            writer.write("a", ROWS)


def test_reading_less_than_a_command_gives_is_no_error(ark):
    reader = read_mats(f"ark:cat {ark}; yes |", allow_pipes=True)
    assert next(reader)[0] == "a"
    reader.close()


def test_an_scp_file_reads_its_archive_without_opening_it_again(ark, monkeypatch):
    (scp := ark.with_suffix(".scp")).write_text(f"a {ark}:2\nb {ark}:67\nc {ark}:2[0:1]\nd {ark}:2[2:3]\n")
    opened = []

    def count(rxfilename, *arguments):
        opened.append(rxfilename)
        return open_input(rxfilename, *arguments)

    open_input = sys.modules["pyser.kaldi.tables"].open_input
    monkeypatch.setattr("pyser.kaldi.tables.open_input", count)
    assert len(list(read_mats(f"scp:{scp}"))) == 4
    assert opened == [str(scp), f"{ark}:2"]


def test_what_is_read_may_be_changed(ark):
    (scp := ark.with_suffix(".scp")).write_text(f"a {ark}:2[0:1]\nb {ark}:2[0:1]\n")
    for rspecifier in (f"ark:{ark}", f"scp:{scp}"):
        for _, matrix in read_mats(rspecifier):
            assert abs(matrix[0, 0]) == 1
            matrix[:] = 0


def table_of(directory, *keys):
    with MatrixWriter(f"ark,scp:{directory}/t.ark,{directory}/t.scp", compress=False) as writer:
        for number, key in enumerate(keys):
            writer.write(key, np.full((1, 1), number))
    return [f"ark:{directory}/t.ark", f"scp:{directory}/t.scp"]


def test_random_access(tmp_path):
    for rspecifier in table_of(tmp_path, "b", "a", "é"):
        table = MatrixTable(rspecifier)
        assert list(table) == ["b", "a", "é"] and len(table) == 3 and "c" not in table and "a" in table
        assert table["é"].item() == 2 and table["b"].item() == 0 and table["b"].dtype == np.float32
        with pytest.raises(KeyError):
            table["c"]
    assert VectorTable(f"ark:{GOLDEN}/double_vector.ark", dtype=np.float64)["v1"].shape == (9,)


def test_sorted_archives_are_read_alongside(tmp_path):
    rspecifier = table_of(tmp_path, "a", "c", "d")[0].replace("ark", "ark,s,cs")
    table = MatrixTable(f"{rspecifier.replace(',s,cs', '')}".replace("ark:", "s,cs,ark:"))
    assert "0" not in table and "a" in table and table["a"].item() == 0 and "b" not in table and table["d"].item() == 2
    assert "e" not in table
    with pytest.raises(PyserError, match="asked for a after e"):
        table["a"]
    with pytest.raises(PyserError, match="can only be looked up"):
        list(table)


def test_unsorted_and_repeated_keys(tmp_path):
    for rspecifier in table_of(tmp_path, "a", "c", "b"):
        assert len(list(read_mats(rspecifier.replace(":", ",s,cs:", 1)))) == 3  # front to back order makes no difference
        assert len(MatrixTable(rspecifier.replace(":", ",s,ns:", 1))) == 3
        with pytest.raises(PyserError, match="t.(ark|scp): b comes after c"):
            MatrixTable(rspecifier.replace(":", ",s:", 1))
        with pytest.raises(PyserError, match="b comes after c"):
            MatrixTable(rspecifier.replace(":", ",s,cs:", 1)).get("z")
    for rspecifier in table_of(tmp_path, "a", "a"):
        assert len(list(read_mats(rspecifier))) == 2  # front to back there is nothing ambiguous, as in Kaldi
        with pytest.raises(PyserError, match=r"t\.(ark|scp): a occurs twice"):
            MatrixTable(rspecifier)


def test_permissive_reading(tmp_path, ark):
    (tmp_path / "p.scp").write_text(f"x {tmp_path}/none:4\na {ark}:2\ny {ark}:5\nb {ark}:67\n")
    assert [key for key, _ in read_mats(f"scp,p:{tmp_path}/p.scp")] == ["a", "b"]
    table = MatrixTable(f"p,scp:{tmp_path}/p.scp")
    assert "x" not in table and "a" in table and table.get("y") is None
    with pytest.raises(PyserError, match=r"p\.scp: x: .*none:4: no such file"):
        MatrixTable(f"scp:{tmp_path}/p.scp")["x"]
    ark.write_bytes(ark.read_bytes()[:-1])
    assert [key for key, _ in read_mats(f"ark,p:{ark}")] == ["a"]


@pytest.mark.parametrize("cut, message", [
    (-1, r"m\.ark: b: byte 82: expected 3 numbers"), (-14, "b: byte 77: expected an int32"), (66, "byte 65: expected a key"),
    (1, "byte 0: expected a key"), (4, "a: byte 4: expected a matrix"), (3, r"m\.ark: a: byte 2: expected a Kaldi file"),
])
def test_archives_cut_short(ark, cut, message):
    ark.write_bytes(ark.read_bytes()[:cut])
    for path in (ark, ark.with_suffix(".gz")):
        if path != ark:
            path.write_bytes(gzip.compress(ark.read_bytes()))
        with pytest.raises(PyserError, match=message.replace("ark", path.suffix[1:])):
            list(read_mats(f"ark:{path}"))


@pytest.mark.filterwarnings("error")
def test_numbers_of_text_that_single_precision_does_not_hold(tmp_path):
    (tmp_path / "t").write_text("a [ 1e300 -1e999 ]\n")
    assert dict(read_vecs(f"ark:{tmp_path}/t"))["a"].tolist() == [np.inf, -np.inf]
    with TableWriter(f"ark:{tmp_path}/f", KINDS["float"]) as writer, pytest.raises(PyserError, match="^a: numbers too large"):
        writer.write("a", 1e300)
    (tmp_path / "t").write_text("a [ 1_0 ]\n")
    with pytest.raises(PyserError, match="t: a: byte .*expected numbers"):
        list(read_vecs(f"ark:{tmp_path}/t"))
    (tmp_path / "t").write_text("a 1_0\n")
    for kind in ("integers", "int32", "float"):
        with pytest.raises(PyserError, match="t: a: byte .*expected"):
            list(read_objects(f"ark:{tmp_path}/t", KINDS[kind]))


def test_names_of_files_that_are_not_utf8(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.ark")
    with MatrixWriter(f"ark,scp:{name},{tmp_path}/f.scp", compress=False) as writer:
        writer.write("a", ROWS)
    assert (tmp_path / "f.scp").read_bytes() == b"a " + os.fsencode(name) + b":2\n"
    np.testing.assert_array_equal(dict(read_mats(f"scp:{tmp_path}/f.scp"))["a"], ROWS)
    (tmp_path / "f.scp").write_bytes(b"\xff x\n")
    with pytest.raises(PyserError, match="f.scp:1: a key that is not UTF-8"):
        list(read_mats(f"scp:{tmp_path}/f.scp"))


def test_errors_name_the_key(tmp_path, ark):
    (tmp_path / "p.scp").write_text(f"k cat {ark.parent}/none; exit 3 |\n")
    with pytest.raises(PyserError, match=r"p\.scp: k: cat .*exit status 3"):
        list(read_mats(f"scp:{tmp_path}/p.scp", allow_pipes=True))
    packed = gzip.compress(b"a " + float_matrix(ROWS) + b"b " + float_matrix(np.random.default_rng(0).random((300, 99))))
    (tmp_path / "x.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(PyserError, match=r"x\.gz: b: cannot read it"):
        list(read_mats(f"ark:{tmp_path}/x.gz"))
