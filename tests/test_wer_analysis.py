"""Word error rate by emotion and length: counts worked out by hand, compute-wer's totals, intervals by other means."""

import csv
import doctest
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.scoring import wer_analysis
from pyser.scoring.wer import Errors
from pyser.scoring.wer_analysis import analyse, as_csv, bin_names, interval, remarks, tables
from pyser.scoring.wer_figure import plot_wer

GOLDEN = Path(__file__).parent / "golden/wer"

REFS = {"u1": "a b c", "u2": "a b c d e f", "u3": "a", "u4": "", "u5": "a b c d e f g h i j k", "u6": "a b"}
HYPS = {"u1": "a x c", "u2": "a b c d e f g h", "u3": "a", "u4": "y", "u5": "a b c d e"}
EMOTIONS = {"u1": "sad", "u2": "sad", "u3": "ang", "u4": "ang", "u5": "ang", "u6": "ang", "u7": "hap"}


def read(name):
    return {line.split()[0]: " ".join(line.split()[1:]) for line in (GOLDEN / name).read_text().splitlines()}


def rows(text):
    return list(csv.DictReader(text.splitlines()))


def test_cells_are_the_pooled_words():
    found = analyse(REFS, HYPS, (1, 6, 11, 16), EMOTIONS)
    assert (found.emotions, found.lengths) == (("ang", "sad"), ("0", "1-5", "6-10", "11-15"))
    expected = {  # utterances, short, errors
        ("sad", "1-5"): (1, 1, Errors(sub=1, n=3)), ("sad", "6-10"): (1, 0, Errors(ins=2, n=6)),
        ("sad", "0"): (0, 0, Errors()), ("sad", "11-15"): (0, 0, Errors()), ("sad", None): (2, 1, Errors(2, 0, 1, 9)),
        ("ang", "0"): (1, 1, Errors(ins=1)), ("ang", "1-5"): (2, 2, Errors(dels=2, n=3)), ("ang", "6-10"): (0, 0, Errors()),
        ("ang", "11-15"): (1, 0, Errors(dels=6, n=11)), ("ang", None): (4, 3, Errors(1, 8, 0, 14)),
        (None, "0"): (1, 1, Errors(ins=1)), (None, "1-5"): (3, 3, Errors(0, 2, 1, 6)),
        (None, "6-10"): (1, 0, Errors(2, 0, 0, 6)), (None, "11-15"): (1, 0, Errors(0, 6, 0, 11)),
        (None, None): (6, 4, Errors(3, 8, 1, 23)),
    }
    assert {key: (cell.utterances, cell.short, cell.errors) for key, cell in found.cells.items()} == expected
    assert found.cells["ang", "1-5"].rate == pytest.approx(100 * 2 / 3)  # (the mean over the two utterances were 50)
    assert found.cells["ang", None].short_share == 75 and np.isnan(found.cells["ang", "0"].rate)


@pytest.mark.parametrize("hyp,report", [("hyp", "compute_wer_strict"), ("hyp_missing", "compute_wer_missing_all")])
def test_all_is_compute_wers_total_whatever_the_parts(hyp, report):
    refs, hyps = read("ref.txt"), read(f"{hyp}.txt")
    wrong, words, ins, dels, sub = map(int, re.findall(r"\d+", (GOLDEN / f"{report}.txt").read_text().split("[")[1])[:5])
    found = analyse(refs, hyps, (1, 2, 4), {utt: utt[-1] for utt in refs})
    total = found.cells[None, None].errors
    assert (total.total, total) == (wrong, Errors(ins, dels, sub, words))
    for cells in ([found.cells[e, n] for e in found.emotions for n in found.lengths],
                  [found.cells[e, None] for e in found.emotions], [found.cells[None, n] for n in found.lengths]):
        assert sum((cell.errors for cell in cells), Errors()) == total
        assert sum(cell.utterances for cell in cells) == len(refs)


def test_interval_of_single_words_is_the_binomials():
    low, high = interval([Errors(sub=1, n=1)] * 120 + [Errors(n=1)] * 280)
    assert (low, high) == pytest.approx(100 * binom.ppf((0.025, 0.975), 400, 0.3) / 400, abs=0.51)  # steps are 0.25


def test_interval_is_that_of_drawing_whole_utterances():
    rng = np.random.default_rng(3)
    n = rng.integers(0, 30, 60)
    wrong = np.where(rng.random(60) < 0.3, n, rng.binomial(n, 0.1))  # errors come together: words are not independent
    low, high = interval([Errors(sub=int(w), n=int(words)) for w, words in zip(wrong, n, strict=True)])
    drawn = rng.integers(0, 60, (4000, 60))
    expected = np.percentile(100 * wrong[drawn].sum(axis=1) / n[drawn].sum(axis=1), [2.5, 97.5])
    assert (low, high) == pytest.approx(expected, abs=1.2) and high - low > 15


def test_interval_where_there_is_little():
    assert np.isnan(interval([])).all() and np.isnan(interval([Errors(sub=1, n=3)])).all()
    assert np.isnan(interval([Errors(ins=1), Errors()])).all()
    assert interval([Errors(n=3)] * 5) == (0, 0)
    assert interval([Errors(ins=1), Errors(sub=1, n=2)]) == (50, 100)  # draws without any word have no WER


def test_without_emotions_there_are_lengths_only():
    found = analyse(REFS, HYPS, (1, 4))
    assert set(found.cells) == {(None, "0"), (None, "1-3"), (None, "4+"), (None, None)}
    assert analyse({}, {}).cells[None, None].utterances == 0


def test_bad_input_is_one_line():
    with pytest.raises(PyserError, match=r"u5 has no emotion in utt2emo \(2 such\)"):
        analyse(REFS, HYPS, emotions=EMOTIONS | {"u5": "", "u6": ""})
    for bounds in ((1,), (2, 6), (1, 6, 6), (1, 6, 3), (0, 5)):
        with pytest.raises(PyserError, match=f"bins {','.join(map(str, bounds))}: "):
            bin_names(bounds)


def test_tables_say_all_of_it():
    found = analyse(REFS, HYPS, (1, 6, 11, 16), EMOTIONS)
    by_emotion, by_length, by_both = ([re.split(r"\s{2,}", line) for line in table.splitlines()]
                                      for table in tables(found, ("emotion", "length")).values())
    assert by_emotion[0] == ["emotion", "utterances", "<6 words", "words", "WER", "95% interval", "ins", "del", "sub"]
    assert [row[:5] + row[6:] for row in by_emotion[1:]] == [
        ["ang", "4", "75.0 %", "14", "64.29", "7.14", "57.14", "0.00"],
        ["sad", "2", "50.0 %", "9", "33.33", "22.22", "0.00", "11.11"],
        ["all", "6", "66.7 %", "23", "52.17", "13.04", "34.78", "4.35"]]
    assert by_emotion[2][5] == "33.33 … 33.33"
    assert by_length[1:3] == [["0", "1", "0", *"-----"],
                              ["1-5", "3", "6", "50.00", "0.00 … 100.00", "0.00", "33.33", "16.67"]]
    assert by_both == [["length", "ang", "sad", "all"], ["0", "- (1)", "- (0)", "- (1)"],
                       ["1-5", "66.67 (2)", "33.33 (1)", "50.00 (3)"], ["6-10", "- (0)", "33.33 (1)", "33.33 (1)"],
                       ["11-15", "54.55 (1)", "- (0)", "54.55 (1)"], ["all", "64.29 (4)", "33.33 (2)", "52.17 (6)"]]
    said = "\n".join(remarks(found, REFS, HYPS, EMOTIONS))
    for line in ("without words: 1 (e.g. u4); they have no WER, words inserted there (1)", "without hypothesis: 1 (e.g. u6)",
                 "utt2emo without reference: 1 (e.g. u7)"):
        assert line in said
    assert len(remarks(analyse({"u1": "a"}, {"u1": "a"}), {"u1": "a"}, {"u1": "a"})) == 1


def test_csv_has_counts_and_leaves_the_undefined_empty():
    found = analyse(REFS, HYPS, (1, 6, 11, 16), EMOTIONS)
    both = {(row.pop("emotion"), row.pop("length")): row for row in rows(as_csv(found, ("emotion", "length")))}
    assert len(both) == 15 and both["ang", "0"] == {
        "utterances": "1", "below_6_words_percent": "100.00", "words": "0", "wer": "", "wer_low": "", "wer_high": "",
        "ins": "1", "del": "0", "sub": "0"}
    assert (both["all", "all"]["wer"], both["sad", "6-10"]["ins"]) == ("52.17", "2")
    assert both["sad", "0"]["below_6_words_percent"] == ""
    assert [row["emotion"] for row in rows(as_csv(found, ("emotion",)))] == ["ang", "sad", "all"]
    assert [row["length"] for row in rows(as_csv(found, ("length",)))] == ["0", "1-5", "6-10", "11-15", "all"]
    quoted = analyse({"u1": "a"}, {}, emotions={"u1": 'so, "so"'})
    assert rows(as_csv(quoted, ("emotion",)))[0]["emotion"] == 'so, "so"'


def texts(path):
    return re.findall(r"<!-- (.*?) -->", re.sub(r"\s+", " ", path.read_text()))


def test_figure_says_rates_and_utterances(tmp_path):
    found = analyse(REFS, HYPS, (1, 6, 11, 16), EMOTIONS)
    plot_wer(found, ("emotion",), tmp_path / "emotion.svg", "exp/decode")
    said = texts(tmp_path / "emotion.svg")
    assert {"exp/decode", "ang", "sad", "all", "64.3", "33.3", "52.2", "4", "2", "6", "utterances"} <= set(said)
    plot_wer(found, ("emotion", "length"), tmp_path / "both.svg")
    said = texts(tmp_path / "both.svg")
    start = said.index("1-5")
    assert said[start:start + 4] == ["1-5", "6-10", "11-15", "all"] and "0.0" not in said  # "0" is no bin of the figure
    assert said.count("ang") == said.count("sad") == 1 and "bootstrap over utterances" in " ".join(said)
    plot_wer(analyse({"u1": ""}, {}), ("length",), tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").read_bytes().startswith(b"\x89PNG")


def test_bars_are_the_cells(tmp_path):
    """Heights of the bars in an SVG, as shares of the tallest: all emotions in a bin before the next bin's."""
    found = analyse(REFS, HYPS, (1, 6, 11, 16), EMOTIONS)
    plot_wer(found, ("emotion", "length"), tmp_path / "both.svg")
    drawn = []
    for path in re.findall(r'<path d="([^"]*)" clip-path', (tmp_path / "both.svg").read_text()):
        points = np.array([list(map(float, point)) for point in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)])
        if len(points) == 4:
            drawn.append((points[:, 0].min(), np.ptp(points[:, 1])))
    heights = np.array([height for _, height in sorted(drawn)])
    rates = [found.cells[key].rate for key in (("ang", "1-5"), ("sad", "1-5"), (None, "1-5"), ("sad", "6-10"), (None, "6-10"),
                                               ("ang", "11-15"), (None, "11-15"), ("ang", None), ("sad", None), (None, None))]
    assert heights / heights.max() == pytest.approx(np.array(rates) / max(rates), abs=1e-4)


def write(path, table):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{key} {value}\n" for key, value in table.items()))
    return str(path)


def test_command(tmp_path):
    ref, hyp = write(tmp_path / "decode/ref.txt", REFS), write(tmp_path / "decode/hyp.txt", HYPS)
    write(tmp_path / "data/utt2emo", EMOTIONS)
    decode, data, out = (str(tmp_path / name) for name in ("decode", "data", "out"))

    def run(*arguments):
        return CliRunner().invoke(cli, ["score", "wer", *arguments])

    report = "%WER 52.17 [ 12 / 23, 3 ins, 8 del, 1 sub ] [PARTIAL]\n%SER 83.33 [ 5 / 6 ]\n"
    assert run(ref, hyp).output == run(decode).output == report + "Scored 6 sentences, 1 not present in hyp.\n"
    done = run("--by", "emotion,length", "--data", data, "--out", out, "--bins", "1,4", decode)
    assert done.exit_code == 0 and done.output.startswith(report) and "<4 words" in done.output
    assert sorted(path.name for path in Path(out).iterdir()) == [
        "wer_by_emotion.csv", "wer_by_emotion_length.csv", "wer_by_emotion_length.png", "wer_by_emotion_length.svg",
        "wer_by_length.csv"]
    assert [row["length"] for row in rows(Path(out, "wer_by_length.csv").read_text())] == ["0", "1-3", "4+", "all"]
    assert "emotion" not in run("--by", "length", ref, hyp).output
    for arguments, message in (
        (["--by", "emotion", decode], "--by emotion needs --data"), (["--out", out, decode], "for --by"),
        ([ref, hyp, hyp], "DECODE_DIR, or REF and HYP"), (["--bins", "1,x", decode], "no numbers such"),
    ):
        wrong = run(*arguments)
        assert wrong.exit_code == 2 and message in wrong.output
    assert isinstance(run("--by", "length", "--bins", "3,4", decode).exception, PyserError)


def test_examples():
    assert doctest.testmod(wer_analysis).failed == 0
