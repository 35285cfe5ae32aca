"""The shell that recipes share: option parsing by Kaldi's rules, the job runner, finished work recognised."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LOCAL = Path(__file__).parent.parent / "local"


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{LOCAL}:{LOCAL}/steps:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", script], cwd=cwd, env=env, capture_output=True, text=True)


OPTIONS = """
stage=0; use_gpu=false; cmd=run.sh; mfcc_config=conf/a.conf
help_message="usage: me"
set -- {}
. parse_options.sh || exit 1
echo "$stage $use_gpu $cmd $mfcc_config | $*"
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "0 false run.sh conf/a.conf | "),
        ("--stage 3 --use-gpu true data exp", "3 true run.sh conf/a.conf | data exp"),
        ("--mfcc-config 'a b.conf' --cmd 'queue.pl --mem 4G'", "0 false queue.pl --mem 4G a b.conf | "),
        ("data --stage 3", "0 false run.sh conf/a.conf | data --stage 3"),  # options stand before the arguments
    ],
)
def test_options_set_variables(tmp_path: Path, arguments: str, expected: str) -> None:
    done = shell(OPTIONS.format(arguments), tmp_path)
    assert (done.returncode, done.stdout.rstrip("\n")) == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--stage=3", "write '--name value'"),
        ("--unknown 3", "invalid option --unknown"),
        ("--use-gpu yes", "takes true or false"),
        ("--stage three", "takes a whole number, not 'three'"),
        ("--cmd ''", "--cmd is empty"),
        ("--stage", "needs a value"),
        ("--config nowhere.conf", "cannot read the config nowhere.conf"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, arguments: str, complaint: str) -> None:
    done = shell(OPTIONS.format(arguments), tmp_path)
    assert done.returncode == 1 and complaint in done.stderr


def test_config_file_comes_first_and_help_prints(tmp_path: Path) -> None:
    (tmp_path / "my.conf").write_text("stage=7\nuse_gpu=true\n")
    done = shell(OPTIONS.format("--use-gpu false --config my.conf"), tmp_path)
    assert done.stdout == "7 false run.sh conf/a.conf | \n"
    assert "usage: me" in shell(OPTIONS.format("--help"), tmp_path).stderr


def test_job_runner_replaces_job_and_keeps_logs(tmp_path: Path) -> None:
    done = shell("run.sh JOB=1:3 log/x.JOB.log echo 'hello there' number JOB", tmp_path)
    assert done.returncode == 0
    for job in "123":
        log = (tmp_path / f"log/x.{job}.log").read_text()
        assert f"hello there number {job}\n" in log
        assert log.startswith("# echo") and "# Started at" in log and "# Ended (code 0)" in log


def test_job_runner_pipes_and_redirections(tmp_path: Path) -> None:
    done = shell(r"run.sh JOB=2:3 x.JOB.log echo b a \| tr ' ' '\n' \| sort \> out.JOB", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "out.2").read_text() == (tmp_path / "out.3").read_text() == "a\nb\n"


def test_a_failing_job_fails_the_runner_and_names_its_log(tmp_path: Path) -> None:
    done = shell("run.sh JOB=1:3 x.JOB.log bash -c 'echo trouble; test JOB != 2'", tmp_path)
    assert done.returncode == 1
    assert "x.2.log" in done.stderr and "trouble" in done.stderr and "1 of 3 jobs failed" in done.stderr
    assert shell("run.sh JOB=1:3 x.log true", tmp_path).returncode == 1  # the log's name must contain JOB
    assert shell("run.sh JOB=0:3 x.JOB.log true", tmp_path).returncode == 1


def runs(script: str, cwd: Path) -> int:
    """Run it; how often it has written a word to `count` by now."""
    assert shell(script, cwd).returncode == 0
    return len((cwd / "count").read_text().split())


def test_once_runs_again_only_when_something_changed(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("1")
    (tmp_path / "b.conf").write_text("1")
    run = "once.sh --also b.conf done bash -c 'echo ran >> count' a.conf"

    assert [runs(run, tmp_path), runs(run, tmp_path)] == [1, 1]
    (tmp_path / "a.conf").write_text("2")
    assert [runs(run, tmp_path), runs(run, tmp_path)] == [2, 2]
    (tmp_path / "b.conf").write_text("2")
    assert [runs(run, tmp_path), runs(run, tmp_path)] == [3, 3]


def test_once_sees_what_comes_and_goes_below_a_directory(tmp_path: Path) -> None:
    """A corpus that was not copied whole at first, or lists of folds that were edited."""
    (tmp_path / "corpus/Actor_01").mkdir(parents=True)
    (tmp_path / "corpus/Actor_01/a.wav").write_text("1")
    run = "once.sh --also corpus done bash -c 'echo x >> count'"

    assert [runs(run, tmp_path), runs(run, tmp_path)] == [1, 1]
    (tmp_path / "corpus/Actor_02").mkdir()
    (tmp_path / "corpus/Actor_02/b.wav").write_text("1")
    assert [runs(run, tmp_path), runs(run, tmp_path)] == [2, 2]
    os.utime(tmp_path / "corpus/Actor_01/a.wav", (1, 1))
    assert [runs(run, tmp_path), runs(run, tmp_path)] == [3, 3]
    (tmp_path / "corpus/Actor_02/b.wav").unlink()
    assert [runs(run, tmp_path), runs(run, tmp_path)] == [4, 4]


def test_once_does_not_take_half_done_work_for_finished(tmp_path: Path) -> None:
    assert shell("once.sh done bash -c 'echo x >> count; exit 3'", tmp_path).returncode == 3
    assert not (tmp_path / "done").exists()
    shell("once.sh done bash -c 'echo x >> count; exit 3'", tmp_path)
    assert (tmp_path / "count").read_text() == "x\nx\n"


def test_once_sees_a_rewritten_archive(tmp_path: Path) -> None:
    ark = tmp_path / "f.ark"
    ark.write_text("features")
    (tmp_path / "f.scp").write_text(f"utt1 {ark}:5\n")
    run = "once.sh done bash -c 'echo x >> count' _ scp:f.scp"
    shell(run, tmp_path)
    shell(run, tmp_path)
    os.utime(ark, (1, 1))
    shell(run, tmp_path)
    assert (tmp_path / "count").read_text() == "x\nx\n"
