"""Options as Kaldi's programs take them: on the command line, in conf files, in whatever spelling."""

import numpy as np
import pytest
from click.testing import CliRunner

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.kaldi.tables import MatrixWriter, read_mats


def call(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if isinstance(result.exception, PyserError):
        raise result.exception
    return result


@pytest.fixture
def feats(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    with MatrixWriter(f"ark:{tmp_path}/f.ark", compress=False) as writer:
        writer.write("u", values)
    return tmp_path


def sliding(path, *options):
    result = call("cmvn", "apply-sliding", *options, f"ark:{path}/f.ark", f"ark:{path}/out.ark")
    assert result.exit_code == 0, result.output
    return dict(read_mats(f"ark:{path}/out.ark"))["u"]


def test_names_in_any_spelling(feats):
    expected = sliding(feats, "--cmn-window=11", "--min-cmn-window=3", "--center=true", "--norm-vars=true")
    for options in (["--cmn_window=11", "--Min_CMN-window", "3", "--CENTER", "--norm_vars", "T"],
                    ["--norm_vars", "--cmn_window=11", "--min_cmn_window=3", "--center=1"]):
        np.testing.assert_array_equal(sliding(feats, *options), expected)
    assert np.abs(sliding(feats, "--cmn_window=11") - expected).max() > 0.1
    unknown = call("cmvn", "apply-sliding", "--cmn_windows=3", "ark:a", "ark:b")
    assert unknown.exit_code == 2 and "No such option: --cmn-windows" in unknown.output


def test_conf_files_of_any_program(feats):
    expected = sliding(feats, "--cmn-window=11", "--norm-vars=true", "--min-cmn-window=3")
    (feats / "a.conf").write_text("--norm_vars # both\n--cmn-window=30\n--min_cmn-window=3\n--verbose=1\n--max-warnings=0\n")
    (feats / "b.conf").write_text("--Cmn_Window=11\n")
    np.testing.assert_array_equal(sliding(feats, "--config", feats / "a.conf", f"--config={feats}/b.conf"), expected)
    np.testing.assert_array_equal(sliding(feats, "--cmn_window=11", "--config", feats / "a.conf"), expected)  # overrides
    assert np.abs(sliding(feats, f"--config={feats}/a.conf") - expected).max() > 0.1
    for line, message in (("--cmn-windows=3", "unknown option --cmn-windows; known: .* cmn-window "),
                          ("--allow-pipes=true", "unknown option --allow-pipes"),
                          ("--config=b.conf", "unknown option --config"),
                          ("--cmn-window=long", "--cmn-window is 'long', expected a whole number"),
                          ("--norm-vars=", "--norm-vars is '', expected true or false"),
                          ("--max-dropped=x", "--max-dropped is 'x': .*not a share"),
                          ("cmn_window=3", "not of the form --name=")):
        (feats / "a.conf").write_text(f"\n{line}\n")
        with pytest.raises(PyserError, match=f"a.conf:2: .*{message}"):
            sliding(feats, "--config", feats / "a.conf")
    with pytest.raises(PyserError, match="none.conf: no such file"):
        sliding(feats, "--config", feats / "none.conf")


COMMON = ["--verbose=3", "--print-args=false", "--print_args", "--num-threads=8", "--num_threads", "2"]


@pytest.mark.parametrize("command, options", [
    (("mfcc", "compute"), ["--debug-mel", "--max-feature-vectors=100", "--output-format=kaldi", "--debug_mel=false"]),
    (("fbank", "compute"), ["--debug-mel=true", "--max_feature_vectors=100", "--output_format=kaldi"]),
    (("cmvn", "compute"), []), (("cmvn", "apply"), []), (("cmvn", "apply-online"), []),
    (("cmvn", "apply-sliding"), ["--max-warnings=3"]),
    (("ivector", "extract"), ["--length-tolerance=2", "--num-threads=1"]),
    (("nnet3", "compute"), ["--debug-computation=true", "--extra-left-context=0", "--extra-right-context-final=-1"]),
])
def test_options_without_effect_are_taken(tmp_path, command, options):
    """They are parsed: what stops the command is the missing input."""
    arguments = [f"ark:{tmp_path}/none"] * (2 if command[1] == "apply-sliding" or command[1] == "compute" else 3)
    if command[0] == "nnet3":
        arguments = [tmp_path / "none", *arguments]
    result = CliRunner().invoke(cli, [*command, *COMMON, *options, *map(str, arguments)])
    assert isinstance(result.exception, PyserError) and "none" in str(result.exception), result.output
    if command[0] != "ivector":
        (tmp_path / "x.conf").write_text("".join(f"{word}\n" for word in [*COMMON[:4], *options]))
        result = CliRunner().invoke(cli, [*command, f"--config={tmp_path}/x.conf", *map(str, arguments)])
        assert isinstance(result.exception, PyserError) and "/none" in str(result.exception), result.output


def test_htk_files_are_refused_in_one_line():
    for name in ("mfcc", "fbank"):
        with pytest.raises(PyserError, match="^--output-format=htk: only Kaldi's archives are written"):
            call(name, "compute", "--output-format=htk", "scp:a", "ark:b")
