from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pyser.config import read_conf, write_conf
from pyser.errors import PyserError


@dataclass(frozen=True)
class Options:
    num_ceps: int = 13
    low_freq: float = 20.0
    use_energy: bool = True
    name: str = "x"
    strides: tuple[int, ...] = (1, 2)


def test_a_conf_file_in_kaldis_form(tmp_path: Path) -> None:
    path = tmp_path / "mfcc.conf"
    path.write_text("# hires\n--num-ceps=40   # as many as bins\n\n--low_freq=-400\n--use-energy=false\n--strides=1,0,3\n")
    assert read_conf(path, Options) == Options(40, -400.0, False, "x", (1, 0, 3))
    assert read_conf(path, Options, num_ceps=7, name=None).num_ceps == 7
    assert read_conf(None, Options) == Options()


def test_names_and_common_options_as_kaldi_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("--Num_Ceps=7\n--use-energy\n--verbose=2\n--print_args=false\n--print-args\n")
    assert read_conf(path, Options, name="y") == Options(7, name="y")


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    config = Options(5, 0.1, False, "a b", (3,))
    path = tmp_path / "x.conf"
    path.write_text(write_conf(config))
    assert read_conf(path, Options) == config


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--num-cepts=3", r"x.conf:2: unknown option --num-cepts; known: .*num-ceps"),
        ("--num-ceps=many", r"x.conf:2: --num-ceps is 'many', expected a whole number"),
        ("--use-energy=yes", r"expected true or false"),
        ("--use-energy=", r"--use-energy is '', expected true or false"),
        ("--num-ceps", r"--num-ceps is '', expected a whole number"),
        ("--verbose=much", r"--verbose is 'much', expected a whole number"),
        ("--strides=1,a", r"expected a comma-separated list of a whole number"),
        ("num-ceps=3", r"not of the form --name=value"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(f"\n{line}\n")
    with pytest.raises(PyserError, match=complaint):
        read_conf(path, Options)
