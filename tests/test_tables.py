"""Kaldi tables: hand-made bytes, what Kaldi wrote, and what the writer leaves on disk when it ends well or badly."""

import gzip
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.kaldi.maps import read_map
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
    read_scp,
    read_table,
    read_vecs,
)

GOLDEN = Path(__file__).parent / "golden/tables"

ROWS = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], dtype=np.float32)


def float_matrix(matrix: np.ndarray) -> bytes:
    rows, cols = matrix.shape
    return b"\0BFM " + struct.pack("<bibi", 4, rows, 4, cols) + matrix.astype("<f4").tobytes()


@pytest.fixture
def ark(tmp_path):
    """Two matrices, with keys a and b: the second one starts after 'a ', 15 + 48 bytes and 'b '."""
    path = tmp_path / "m.ark"
    path.write_bytes(b"a " + float_matrix(ROWS) + b"b " + float_matrix(-ROWS[:1]))
    return path


def writer_to(directory, **options):
    return MatrixWriter(f"ark,scp:{directory}/f.ark,{directory}/f.scp", **options)


def test_read_scp_keeps_the_order_and_the_ranges(tmp_path):
    (tmp_path / "x.scp").write_text("b x.ark:7\na  x.ark:9[0:3]\n")
    assert list(read_scp(tmp_path / "x.scp").items()) == [("b", "x.ark:7"), ("a", "x.ark:9[0:3]")]


@pytest.mark.parametrize("text, message", [("a x:1\nb\n", r"x\.scp:2: expected"), ("a x:1\na x:2\n", r":2: a occurs twice")])
def test_read_scp_names_the_bad_line(tmp_path, text, message):
    (tmp_path / "x.scp").write_text(text)
    with pytest.raises(PyserError, match=message):
        read_scp(tmp_path / "x.scp")


def test_read_table_splits_at_any_white_space(tmp_path):
    (tmp_path / "text").write_text("a\tb c\nd   e\u3000f \ng\n", encoding="utf-8")
    assert read_table(tmp_path / "text") == {"a": "b c", "d": "e\u3000f", "g": ""}


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


def test_writer_without_compression_writes_these_bytes(tmp_path):
    with writer_to(tmp_path / "new", compress=False) as writer:
        writer.write("a", ROWS)
        writer.write("b", -ROWS[:1].astype(np.float64))
    assert (tmp_path / "new/f.ark").read_bytes() == b"a " + float_matrix(ROWS) + b"b " + float_matrix(-ROWS[:1])
    assert (tmp_path / "new/f.scp").read_text() == f"a {tmp_path}/new/f.ark:2\nb {tmp_path}/new/f.ark:67\n"


def test_compression_is_one_byte_a_value_and_close(tmp_path):
    long = np.arange(200, dtype=np.float32).reshape(100, 2)  # more than 8 rows: 8 bits a value, per-column percentiles
    with writer_to(tmp_path) as writer:
        writer.write("a", long)
    assert (tmp_path / "f.ark").stat().st_size == 2 + 2 + 3 + 16 + 2 * 8 + 200  # key, '\0B', 'CM ', header, quartiles, values
    # each quarter of the percentile range spans at most 100 and has 63 steps or more: half a step is below 1
    np.testing.assert_allclose(load_mat(f"{tmp_path}/f.ark:2"), long, atol=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused_and_nothing_is_left(tmp_path, bad):
    with pytest.raises(PyserError, match="^utt7: not a number or infinite"), writer_to(tmp_path) as writer:
        writer.write("utt6", ROWS)
        writer.write("utt7", np.array([[0.0, bad]]))
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_earlier_files(tmp_path):
    with writer_to(tmp_path) as writer:
        writer.write("a", ROWS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError), writer_to(tmp_path) as writer:
        writer.write("b", -ROWS)
        raise KeyError("stop")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("wspecifier", [
    "ark,scp:f.ark", "ark,scp:f.ark,f.scp,g", "f.ark", "ark,x:f", "scp,ark:a,b", "ark,ark:f"])
def test_writer_refuses_other_specifiers(wspecifier):
    with pytest.raises(PyserError, match="expected"):
        MatrixWriter(wspecifier)


@pytest.mark.parametrize("rspecifier", ["f.ark", "ark,scp:f", "ark,x:f", "", "ark", "ark:f ", ":f", "scp,scp:f"])
def test_reader_refuses_other_specifiers(rspecifier):
    with pytest.raises(PyserError, match="expected"):
        list(read_mats(rspecifier))


# what Kaldi wrote

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


# streams

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


def test_output_through_a_pipe_and_into_gzip(tmp_path):
    for wspecifier in (f"ark:| gzip -c > {tmp_path}/x.gz", f"ark:{tmp_path}/x.gz"):
        with MatrixWriter(wspecifier, compress=False, allow_pipes=True) as writer:
            writer.write("a", ROWS)
        assert gzip.decompress((tmp_path / "x.gz").read_bytes()) == b"a " + float_matrix(ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["x.gz"]


def test_links_and_devices_stay_what_they_are(tmp_path):
    (tmp_path / "disk2").mkdir()
    (tmp_path / "x.ark").symlink_to("disk2/x.ark")
    os.mkfifo(tmp_path / "fifo")
    reader = subprocess.Popen(["cat", tmp_path / "fifo"], stdout=subprocess.PIPE)
    for wspecifier in (f"ark,scp:{tmp_path}/x.ark,{tmp_path}/x.scp", f"ark:{tmp_path}/fifo"):
        with MatrixWriter(wspecifier, compress=False) as writer:
            writer.write("a", ROWS)
    assert (tmp_path / "x.ark").is_symlink() and not (tmp_path / "disk2/x.ark").is_symlink()
    assert reader.communicate()[0] == (tmp_path / "disk2/x.ark").read_bytes() == b"a " + float_matrix(ROWS)
    np.testing.assert_array_equal(dict(read_mats(f"scp:{tmp_path}/x.scp"))["a"], ROWS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path):
    (tmp_path / "x.gz").symlink_to("/dev/full")
    for name in ("/dev/full", f"{tmp_path}/x.gz"):
        with pytest.raises(PyserError, match=f"^cannot write {name}: No space left"):
            with MatrixWriter(f"ark:{name}") as writer:
                writer.write("a", ROWS)


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


# order, duplicates, permissive reading, random access

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


def test_writing_to_the_files_of_an_scp_file(tmp_path):
    (tmp_path / "w.scp").write_text(f"a {tmp_path}/a.mat\nb {tmp_path}/b.mat\n")
    with MatrixWriter(f"scp:{tmp_path}/w.scp", compress=False) as writer:
        writer.write("b", ROWS)
        with pytest.raises(PyserError, match=r"w\.scp: has no c"):
            writer.write("c", ROWS)
    assert (tmp_path / "b.mat").read_bytes() == float_matrix(ROWS)
    np.testing.assert_array_equal(load_mat(f"{tmp_path}/b.mat"), ROWS)


@pytest.mark.parametrize("key", ["", "a b", "a\n", "\u3000"])
def test_keys_that_cannot_be_read_back(tmp_path, key):
    with pytest.raises(PyserError, match="not a key"), writer_to(tmp_path) as writer:
        writer.write(key, ROWS)


# names, numbers and outputs that are refused, or that only look odd

@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value, compress", [
    (np.full((2, 2), 1e300), False), (np.full((2, 2), 1e39), 2),
    (np.array([[-3e38, 3e38]]), 1), (np.array([[-3e38, 3e38]]), 5),
    (np.full((9, 1), 3e38), 2), (np.array([[0], [1e37]] * 9), 2),
])
def test_numbers_too_large_are_refused(tmp_path, value, compress):
    with pytest.raises(PyserError, match="^u: numbers .*(too large|too far apart)"):
        with writer_to(tmp_path, compress=compress) as writer:
            writer.write("u", value)
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("value", [np.zeros(3), np.zeros((1, 2, 3)), np.ones((1, 2), complex), np.array([["a"]])])
def test_what_is_no_matrix_is_refused(tmp_path, value):
    for compress in (False, True):
        with pytest.raises(PyserError, match="^u: an array .* is no matrix"):
            with writer_to(tmp_path, compress=compress) as writer:
                writer.write("u", value)


@pytest.mark.parametrize("compress", [False, True])
def test_matrices_without_elements_are_0_by_0(tmp_path, compress):
    with writer_to(tmp_path, compress=compress) as writer:
        writer.write("a", np.zeros((0, 5)))
        writer.write("b", np.zeros((5, 0)))
    assert [matrix.shape for _, matrix in read_mats(f"scp:{tmp_path}/f.scp")] == [(0, 0)] * 2


@pytest.mark.parametrize("name", ["x |", "a|b", "x.ark:12", " x", "x\t", " | cat", "ark:x", "scp,p:x", "x\0y"])
def test_names_that_are_no_output(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PyserError) as caught, MatrixWriter("ark:" + name, allow_pipes=True):
        pass
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_an_scp_file_to_write_to_leads_to_any_output(tmp_path, monkeypatch, capfdbinary):
    lines = f"a {tmp_path}/a.gz\nb -\nc | cat > {tmp_path}/c\nd {tmp_path}/d:5\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    with MatrixWriter("scp,p:-", compress=False, allow_pipes=True) as writer:
        for key in "abcx":
            writer.write(key, ROWS)
        with pytest.raises(PyserError, match="^-: d: .*d:5.*can only be read"):
            writer.write("d", ROWS)
        assert writer.count == 3  # (x is not in the script)
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == float_matrix(ROWS) == (tmp_path / "c").read_bytes()
    assert capfdbinary.readouterr().out == float_matrix(ROWS)
    (tmp_path / "w.scp").write_text(f"a | touch {tmp_path}/ran\n")
    with pytest.raises(PyserError, match="w.scp: a: .*pipes are not run"), MatrixWriter(f"scp:{tmp_path}/w.scp") as writer:
        writer.write("a", ROWS)
    (tmp_path / "w.scp").write_text("a\n")
    with pytest.raises(PyserError, match="no file after the key"), MatrixWriter(f"scp:{tmp_path}/w.scp"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")
def test_devices_are_written_to_directly(tmp_path, ark):
    code = "import sys; from pyser.cli import cli; cli(['table', 'copy', *sys.argv[1:]])"
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        command = [sys.executable, "-c", code, f"ark:{ark}", f"ark:{name}"]
        assert subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout == ark.read_bytes()
    script = f'"$1" -c "$2" ark:{ark} ark:>(cat > {tmp_path}/out; mv {tmp_path}/out {tmp_path}/done); ' \
             f'for i in $(seq 500); do [ -e {tmp_path}/done ] && break; sleep 0.02; done'
    subprocess.run(["bash", "-c", script, "bash", sys.executable, code], stderr=subprocess.DEVNULL, timeout=60)
    assert (tmp_path / "done").read_bytes() == ark.read_bytes()


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


def test_maps_are_read_with_any_option_of_an_archive(tmp_path):
    (tmp_path / "spk2utt").write_text("s u1 u2\nt u3\n")
    for before in ("", "ark:", "ark,t:", "ark,s,cs:", "t,ark:"):
        assert read_map(f"{before}{tmp_path}/spk2utt") == {"s": "u1 u2", "t": "u3"}
    for source in (f"ark,x:{tmp_path}/spk2utt", f"scp:{tmp_path}/spk2utt"):
        with pytest.raises(PyserError, match=source):
            read_map(source)
