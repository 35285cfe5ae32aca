"""Every kind of object in Kaldi's tables, and `pyser table copy`, against what Kaldi's table writers wrote."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.kaldi.objects import KINDS
from pyser.kaldi.tables import (
    Table,
    TableWriter,
    read_ints,
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
    ([], "posterior.ark", "posterior.ark: a: the kind of object cannot be seen"),
    ([], "float_vector.txt", "say it with --type"),
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


def test_copy_asks_before_it_runs_commands(tmp_path):
    ark = GOLDEN / "float_matrix.ark"
    assert "use --allow-pipes" in str(copy(f"ark:cat {ark} |", f"ark:{tmp_path}/out").exception)
    assert copy("--allow-pipes", f"ark:cat {ark} |", f"ark:{tmp_path}/out").exit_code == 0
    assert (tmp_path / "out").read_bytes() == ark.read_bytes()
