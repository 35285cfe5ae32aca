"""Every kind of object in Kaldi's tables, and `pyser table copy`, against what Kaldi's table writers wrote."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.kaldi.binary import Reader
from pyser.kaldi.objects import KINDS
from pyser.kaldi.stream import Stream
from pyser.kaldi.table_copy import copy_object, kind_of
from pyser.kaldi.tables import (
    Table,
    TableWriter,
    load_mat,
    read_ints,
    read_key,
    read_mats,
    read_objects,
    read_posts,
    read_vecs,
)

GOLDEN = Path(__file__).parent / "golden/tables"
KIND_OF = {
    "double_matrix": "matrix", "float_matrix": "matrix", "double_vector": "vector", "float_vector": "vector",
    "int32": "int32", "float": "float", "double": "double", "bool": "bool", "int32_vector": "integers",
    "int32_vector_vector": "integer-lists", "int32_pair_vector": "integer-pairs", "float_pair_vector": "float-pairs",
    "posterior": "posterior", "general_sparse": "sparse",
}


ROUNDED = [name for name in KIND_OF if name.endswith(("_matrix", "_vector")) and KIND_OF[name] in ("matrix", "vector")]
COPIES = [(name, *copy) for name in KIND_OF for copy in (
    ("ark", "", "ark"), ("ark", ",t", "txt"), ("txt", ",t", "txt"), ("txt", "", "ark")
) if not (name in ROUNDED and copy == ("txt", "", "ark"))]  # (seven digits of text do not give the last bits back)


@pytest.mark.parametrize("name, source, options, target", COPIES)
def test_copies_are_the_bytes_that_kaldi_writes(tmp_path, name, source, options, target):
    kind = KINDS[KIND_OF[name]]
    with TableWriter(f"ark{options}:{tmp_path}/copy", kind) as writer:
        for key, value in read_objects(f"ark:{GOLDEN / name}.{source}", kind):
            writer.write(key, value)
    assert (tmp_path / "copy").read_bytes() == (GOLDEN / f"{name}.{target}").read_bytes()


def test_values_of_every_kind():
    def read(name, kind):
        return dict(read_objects(f"ark:{GOLDEN / name}", KINDS[kind]))

    assert read("int32.ark", "int32") == {"a": -5, "b": 70000}
    assert read("bool.txt", "bool") == {"a": True, "b": False}
    assert read("double.ark", "double") == {"a": 1.5, "b": -0.1}
    assert {key: value.tolist() for key, value in read_ints(f"ark:{GOLDEN}/int32_vector.ark")} == {
        "a": [1, 2, 3, -4, 100000], "empty": []}
    assert [part.tolist() for part in read("int32_vector_vector.ark", "integer-lists")["a"]] == [[1, 2], [], [3]]
    assert read("int32_pair_vector.txt", "integer-pairs")["a"].tolist() == [[1, 2], [3, 4], [5, 60000]]
    assert read("float_pair_vector.ark", "float-pairs")["a"].tolist() == [[1.25, 2], [-3.5, 4]]
    [(key, posterior)] = read_posts(f"ark:{GOLDEN}/posterior.ark")
    frames = [(indices.tolist(), weights.tolist()) for indices, weights in posterior]
    assert frames == [([1, 7], [0.5, 0.5]), ([], []), ([3], [1])]
    assert read("general_sparse.ark", "matrix")["s"].tolist() == [[1.5, 0, 0, -2], [0, 0, 0, 0], [0, 0, 7, 0]]
    assert {key: (len(value), value.dtype) for key, value in read_vecs(f"ark:{GOLDEN}/double_vector.ark")} == {
        "v1": (9, np.float32), "empty": (0, np.float32)}
    [(_, matrix), _] = read_mats(f"ark:{GOLDEN}/double_matrix.ark", dtype=np.float64)
    assert matrix.dtype == np.float64 and matrix[1, 1] == -1234.5678


def test_other_objects_that_are_not_finite(tmp_path):
    nan = np.array([np.nan], np.float32)
    for kind, value in (("vector", nan), ("float", float("inf")), ("posterior", [(np.zeros(1, np.int32), nan)])):
        with pytest.raises(PyserError, match="^u: not a number"), TableWriter(f"ark:{tmp_path}/x", KINDS[kind]) as writer:
            writer.write("u", value)
    assert list(tmp_path.iterdir()) == []


def test_sparse_matrices_are_not_made_dense_at_any_size(tmp_path):
    (tmp_path / "s").write_bytes(b"a \0BSM \4\1\0\0\0SV \4\xff\xff\xff\x7f\4\0\0\0\0")
    with pytest.raises(PyserError, match="moderate size"):
        list(read_mats(f"ark:{tmp_path}/s"))
    assert Table(f"ark:{tmp_path}/s", KINDS["sparse"])["a"].rows[0][0] == 2**31 - 1
    with pytest.raises(PyserError, match="a range of what is no matrix"):
        (tmp_path / "i.scp").write_text(f"a {GOLDEN}/int32_vector.ark:2[0:1]\n")
        list(read_ints(f"scp:{tmp_path}/i.scp"))


# pyser table copy

def copy(*arguments):
    return CliRunner().invoke(cli, ["table", "copy", *map(str, arguments)])


@pytest.mark.parametrize("arguments, source, target", [
    ([], "features_method1.ark", "features_method1_decompressed.ark"), ([], "general_sparse.txt", "general_sparse.ark"),
    (["--compression-method", 7], "gen_zero_one.txt", "zero_one_method7.ark"),
    (["--text"], "float_matrix.ark", "float_matrix.txt"),
    (["--text"], "double_vector.ark", "double_vector.txt"), (["--type", "posterior"], "posterior.txt", "posterior.ark"),
    (["--type", "integers"], "ali.txt", "ali.ark"), (["--type", "bool", "--text"], "bool.ark", "bool.txt"),
])
def test_copy(tmp_path, arguments, source, target):
    result = copy(*arguments, f"ark:{GOLDEN / source}", f"ark:{tmp_path}/out")
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "out").read_bytes() == (GOLDEN / target).read_bytes()


@pytest.mark.parametrize("arguments, source, message", [
    ([], "int32.txt", "int32.txt: a: the kind of object cannot be seen from it (int32 or integers?); say it with --type"),
    (["--type", "matrices"], "posterior.ark", "--type matrices: expected one of matrix, vector"),
    (["--compression-method", 2], "float_vector.ark", "is for matrices"),
    (["--type", "vector"], "float_matrix.ark", "m1: byte 5: expected a vector"),
    (["--type", "integers"], "float_matrix.ark", "m1: byte 5: expected an int32"),
    (["--type", "posterior"], "double.ark", "a: byte 4: expected an int32"),
])
def test_copies_that_fail_leave_nothing(tmp_path, arguments, source, message):
    result = copy(*arguments, f"ark:{GOLDEN / source}", f"ark:{tmp_path}/out")
    assert isinstance(result.exception, PyserError) and message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


GUESSED = sorted(
    path.name for path in GOLDEN.glob("*.*") if path.suffix in (".ark", ".txt") and path.name != "int32.txt"
    and not path.name.startswith(("sp_", "tp_", "matrix_double", "vector_double")))


@pytest.mark.parametrize("name", GUESSED)
def test_the_kind_is_found(tmp_path, name):
    source = GOLDEN / name
    result = copy(*["--text"] * (source.suffix == ".txt"), f"ark:{source}", f"ark:{tmp_path}/out")
    assert result.exit_code == 0, result.exception
    if name.startswith(("gen_", "features_method", "int16", "uint8", "zero_one", "hires_comp", "ali.txt", "general_sparse")):
        return  # (not in the form of the writer, or compressed)
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("text, kind", [
    ("a [ ]\nb [ 1 2 ]\n", "vector"), ("a [ ]\nb [ 1 2\n 3 4 ]\n", "matrix"), ("a [ 1 2 ; 3 4 ]\n", "matrix"),
    ("a [ ]\n", "matrix"), ("a [\n1 2 ]\r\n", "matrix"), ("a [\n1\n2 3 ]\n", "packed"), ("a 5\nb 5 6\n", "integers"),
    ("a \nb 1 2\nc 3\n", "integers"), ("a \n", "integers"), ("a [ 1 0.5 ]\nb [ 1 1 ] [ 2 1 ]\n", "posterior"),
    ("a 1 2\nb 1 2 ; 3 4\n", "integer-pairs"), ("a 1 2\nb 1 2.5\n", "float-pairs"), ("a 1 ; \n", "integer-lists"),
    ("a 1\nb 1e3\n", "double"), ("a -1.5\n", "double"), ("a T\n", "bool"), ("a rows=0\n", "sparse"),
    ("a 5\n", None), ("a hello world\n", None), ("a 1 2 x\n", None), ("a 1_0.5\n", None),
])
def test_kinds_of_text(text, kind):
    stream = Stream(io.BytesIO(text.encode()), "t")
    read_key(stream)
    if kind is None:
        with pytest.raises(PyserError, match="cannot be seen .*say it with --type"):
            kind_of(Reader.of(stream, "t"))
    else:
        assert kind_of(Reader.of(stream, "t")) == kind


@pytest.mark.parametrize("kind, values, found", [
    ("integers", [[], [1, 0, 2]], "integers"), ("integers", [[0, 0, 0]], "integers"), ("integers", [[]], None),
    ("integers", [range(300_000)], "integers"), ("integers", [range(90_000)] * 2, "integers"),
    ("posterior", [[], [([1, 2], [0.5, 0.5])]], "posterior"), ("posterior", [[([1], [1.0])] * 9] * 4000, "posterior"),
    ("integer-lists", [[[5, 6], [7]]], "integer-lists"), ("integer-pairs", [[[1, 2]], [[3, -4]]], "integer-pairs"),
    ("float-pairs", [[[1.5, 2]]], "float-pairs"), ("int32", [1, 0, 3], "int32"), ("float", [0.0, 2.5], "float"),
    ("double", [0.0], "double"), ("bool", [True, False], "bool"),
])
def test_kinds_of_binary_objects_without_a_mark(tmp_path, kind, values, found):
    with TableWriter(f"ark:{tmp_path}/x", KINDS[kind]) as writer:
        for number, value in enumerate(values):
            if kind in ("integers", "integer-pairs", "float-pairs"):
                value = np.array(value, np.float32 if kind == "float-pairs" else np.int32)
            elif kind == "integer-lists":
                value = [np.array(part, np.int32) for part in value]
            elif kind == "posterior":
                value = [(np.array(indices, np.int32), np.array(weights, np.float32)) for indices, weights in value]
            writer.write(f"utt{number}", value)
    result = copy("--text", f"ark:{tmp_path}/x", f"ark:{tmp_path}/y")
    if found is None:
        assert "(integers or int32?)" in str(result.exception)
        return
    assert result.exit_code == 0, result.exception
    copy("--text", "--type", found, f"ark:{tmp_path}/x", f"ark:{tmp_path}/z")
    assert (tmp_path / "y").read_bytes() == (tmp_path / "z").read_bytes()


@pytest.mark.parametrize("rows, kind", [("\n1 2 3" * 90_000, "matrix"), (" 1 2 3" * 90_000, "vector")])
def test_kinds_of_large_objects_of_text(rows, kind):
    """More than is looked at first; and one that was cut short is still named by its own kind."""
    for text in (f"a [{rows} ]\nb [{rows} ]\n", f"a [{rows} ]\nb [{rows}"):
        stream = Stream(io.BytesIO(text.encode()), "t")
        read_key(stream)
        assert kind_of(Reader.of(stream, "t")) == kind


def test_the_kind_is_that_of_what_precedes_the_damage(tmp_path):
    (tmp_path / "t").write_text("a [\n 1 2\n 3 4 ]\nb [\n 1 2\n 3 x ]\n")
    result = copy(f"ark:{tmp_path}/t", f"ark:{tmp_path}/out")
    assert "t: b: byte 32: expected numbers" in str(result.exception)


def test_one_truth_value_is_one_letter(tmp_path):
    (tmp_path / "t").write_text("a True\n")
    result = copy("--type", "bool", f"ark:{tmp_path}/t", f"ark:{tmp_path}/out")
    assert "t: a: byte 7: expected one value on the line, not 'True'" in str(result.exception)


def test_the_kind_is_found_in_the_next_file_of_an_scp_file(tmp_path):
    (tmp_path / "1").write_text("[ ]\n")
    (tmp_path / "2").write_text("[ 1 2 ]\n")
    (tmp_path / "scp").write_text(f"a {tmp_path}/1\nb {tmp_path}/2\n")
    assert copy(f"scp:{tmp_path}/scp", f"ark,t:{tmp_path}/out").exit_code == 0
    assert (tmp_path / "out").read_text() == "a  [ ]\nb  [ 1 2 ]\n"


@pytest.mark.parametrize("source, target, arguments", [
    ("sp_double.bin", "sp_double.txt", ["--text"]), ("sp_float.bin", "sp_float.bin", []),
    ("tp_double.bin", "tp_double.txt", ["--text"]),
    ("sp_float.txt", "sp_float.txt", ["--text"]), ("matrix_double.bin", "matrix_double.mat.txt", ["--text"]),
    ("vector_double.bin", "vector_double.vec.txt", ["--text"]),
    ("vector_double.vec.txt", "vector_double.vec.txt", ["--text"]),
    ("matrix_double.bin", "matrix_double.bin", ["--type", "matrix"]),
])
def test_single_objects_are_copied(tmp_path, source, target, arguments):
    result = copy(*arguments, GOLDEN / source, tmp_path / "out")
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "out").read_bytes() == (GOLDEN / target).read_bytes()


def test_single_objects_of_other_forms(tmp_path, capfdbinary):
    (tmp_path / "ints").write_bytes(b"\0B\4\2\0\0\0" + struct.pack("<2i", 5, 70000))
    assert copy("--text", tmp_path / "ints", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out").read_text() == "[ 5 70000 ]\n"
    assert copy("--type", "integers", tmp_path / "out", tmp_path / "back").exit_code == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "ints").read_bytes()
    copy_object(f"{GOLDEN}/vector_double.bin", "-", text=True)
    assert capfdbinary.readouterr().out == (GOLDEN / "vector_double.vec.txt").read_bytes()
    place = (GOLDEN / "features_float.scp").read_text().split(":")[1].split()[0]
    assert copy(f"{GOLDEN}/features_float.ark:{place}[1:2,0:0]", tmp_path / "part").exit_code == 0
    assert load_mat(str(tmp_path / "part")).shape == (2, 1)
    assert copy("--compression-method", 5, GOLDEN / "matrix_double.bin", tmp_path / "cm").exit_code == 0
    assert (tmp_path / "cm").read_bytes().startswith(b"\0BCM3 ")


@pytest.mark.parametrize("arguments, message", [
    (["none.bin", "x"], "none.bin: no such file"), (["float_matrix.ark", "x"], "or ark:float_matrix.ark if it"),
    (["--compression-method", 2, "vector_double.bin", "x"], "is for binary matrices"),
    (["ark:float_matrix.ark", "x"], "expected scp:FILE, ark:FILE"),
    (["vector_double.bin", "ark:x"], "expected scp:FILE, ark:FILE"),
    (["--type", "matrix", "vector_double.bin", "x"], "expected a matrix"),
    (["cat vector_double.bin |", "x"], "use --allow-pipes"),
])
def test_single_objects_that_cannot_be_copied(monkeypatch, arguments, message):
    monkeypatch.chdir(GOLDEN)
    result = copy(*arguments)
    assert isinstance(result.exception, PyserError) and message in str(result.exception), result.exception
    assert not Path("x").exists()


def test_what_is_not_finite_is_copied_with_a_warning(tmp_path):
    (tmp_path / "in").write_text("a  [ 1 ]\nb  [ nan inf ]\nc  [ -inf ]\n")
    result = copy("--text", f"ark:{tmp_path}/in", f"ark:{tmp_path}/out")
    assert result.exit_code == 0 and result.output.count("WARNING") == 1 and "in: b: not a number" in result.output
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    result = copy("--type", "matrix", "--compression-method", 2, f"ark:{tmp_path}/in", f"ark:{tmp_path}/cm")
    assert str(result.exception).startswith("b: not a number or infinite") and not (tmp_path / "cm").exists()


def test_a_table_without_objects_is_an_error(tmp_path):
    (tmp_path / "in").touch()
    result = copy(f"ark:{tmp_path}/in", f"ark:{tmp_path}/out")
    assert result.exit_code == 1 and str(result.exception) == f"table copy: no objects in ark:{tmp_path}/in"


def test_copy_asks_before_it_runs_commands(tmp_path):
    ark = GOLDEN / "float_matrix.ark"
    assert "use --allow-pipes" in str(copy(f"ark:cat {ark} |", f"ark:{tmp_path}/out").exception)
    assert copy("--allow-pipes", f"ark:cat {ark} |", f"ark:{tmp_path}/out").exit_code == 0
    assert (tmp_path / "out").read_bytes() == ark.read_bytes()
