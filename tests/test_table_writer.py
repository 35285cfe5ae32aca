"""Writing Kaldi tables: the bytes, and what is on disk when it ends well or badly."""

import gzip
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from small_table import ROWS, float_matrix, write_ark

from pyser.errors import PyserError
from pyser.kaldi.tables import MatrixWriter, load_mat, read_mats


def writer_to(directory, **options):
    return MatrixWriter(f"ark,scp:{directory}/f.ark,{directory}/f.scp", **options)


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
def test_devices_are_written_to_directly(tmp_path):
    ark = write_ark(tmp_path / "m.ark")
    code = "import sys; from pyser.cli import cli; cli(['table', 'copy', *sys.argv[1:]])"
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        command = [sys.executable, "-c", code, f"ark:{ark}", f"ark:{name}"]
        assert subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout == ark.read_bytes()
    script = f'"$1" -c "$2" ark:{ark} ark:>(cat > {tmp_path}/out; mv {tmp_path}/out {tmp_path}/done); ' \
             f'for i in $(seq 500); do [ -e {tmp_path}/done ] && break; sleep 0.02; done'
    subprocess.run(["bash", "-c", script, "bash", sys.executable, code], stderr=subprocess.DEVNULL, timeout=60)
    assert (tmp_path / "done").read_bytes() == ark.read_bytes()
