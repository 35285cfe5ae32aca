"""Kaldi data directories <-> Lhotse manifests and cuts."""

import re

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

from pyser.cli.corpus import group
from pyser.errors import PyserError
from pyser.kaldi import datadir
from pyser.kaldi.datadir import read_table, validate
from pyser.kaldi.manifests import read_cuts, read_data_dir, recording, write_data_dir
from pyser.kaldi.tables import MatrixWriter
from pyser.kaldi.wav import Source, read_audio

LISTS = {
    "utt2spk": "a-1 a\na-2 a\nb-1 b\n", "text": "a-1 YES\na-2 NO WAY\nb-1 YES\n", "spk2gender": "a f\nb m\n",
    "utt2emo": "a-1 hap\na-2 sad\nb-1 neu\n", "segments": "a-1 rec1 0 0.5\na-2 rec1 0.5 1.25\nb-1 rec2 0.1 -1\n",
}


@pytest.fixture
def data(tmp_path):
    for number, name in enumerate(("rec1", "rec2")):
        soundfile.write(tmp_path / f"{name}.wav", np.full(24000, 0.1 * number), 16000)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "wav.scp").write_text(f"rec1 {tmp_path}/rec1.wav\nrec2 {tmp_path}/rec2.wav\n")
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    return folder


def test_there_and_back_loses_nothing(data, tmp_path):
    recordings, supervisions = read_data_dir(data)
    one = supervisions["a-2"]
    assert (one.recording_id, one.start, one.duration, one.speaker, one.gender) == ("rec1", 0.5, 0.75, "a", "f")
    assert one.custom["emotion"] == "sad" and one.text == "NO WAY"
    assert supervisions["b-1"].end == 1.5  # -1: to the end of the recording
    write_data_dir(recordings, supervisions, tmp_path / "again")
    for name in ("utt2spk", "text", "spk2gender", "utt2emo"):
        assert read_table(tmp_path / "again" / name) == read_table(data / name)
    assert read_table(tmp_path / "again/segments") == {"a-1": "rec1 0 0.5", "a-2": "rec1 0.5 1.25", "b-1": "rec2 0.1 1.5"}
    assert read_table(tmp_path / "again/spk2utt") == {"a": "a-1 a-2", "b": "b-1"}


def test_whole_recordings_need_no_segments(data, tmp_path):
    (data / "segments").write_text("a-1 rec1 0 -1\nb-1 rec2 0 -1\n")
    for name in ("utt2spk", "text", "utt2emo"):
        (data / name).write_text("".join(line + "\n" for line in LISTS[name].splitlines() if "a-2" not in line))
    write_data_dir(*read_data_dir(data), tmp_path / "whole")
    assert not (tmp_path / "whole/segments").exists()
    assert set(read_table(tmp_path / "whole/wav.scp")) == {"a-1", "b-1"}


def test_cuts_carry_features_emotion_and_ivectors(data, tmp_path):
    with MatrixWriter(f"ark,scp:{tmp_path}/f.ark,{data}/feats.scp", compress=False) as writer:
        for number, utt in enumerate(("a-1", "a-2", "b-1")):
            writer.write(utt, np.full((40 + number, 3), number, np.float32))
    (data / "utt2num_frames").write_text("a-1 40\na-2 41\nb-1 42\n")
    (tmp_path / "iv").mkdir()
    with MatrixWriter(f"ark,scp:{tmp_path}/iv/i.ark,{tmp_path}/iv/ivector_online.scp") as writer:
        for utt in ("a-1", "a-2", "b-1"):
            writer.write(utt, np.ones((5, 4), np.float32))
    cuts = read_cuts(data, tmp_path / "iv")
    cut = cuts["a-2"]
    assert cut.duration == 0.41 and cut.supervisions[0].custom["emotion"] == "sad"
    assert cut.features.num_frames == 41 and cut.custom["ivector"].startswith(f"{tmp_path}/iv/i.ark:")
    lines = (tmp_path / "iv/ivector_online.scp").read_text().splitlines()
    (tmp_path / "iv/ivector_online.scp").write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(PyserError, match="b-1 is missing; extract the i-vectors"):
        read_cuts(data, tmp_path / "iv")


def test_bad_recordings(tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(PyserError, match="empty.wav: not readable as audio"):
        recording(tmp_path / "empty.wav", "x")
    with pytest.raises(PyserError, match="none.wav: no such audio file"):
        recording(tmp_path / "none.wav", "x")
    soundfile.write(tmp_path / "zero.wav", np.zeros(0), 16000)
    with pytest.raises(PyserError, match="zero.wav: no samples in it"):
        recording(tmp_path / "zero.wav", "x")


def test_export_command(data, tmp_path):
    run = CliRunner().invoke(group, ["export-manifests", str(data), str(tmp_path / "m")])
    assert run.exit_code == 0, run.output
    assert "2 recordings, 3 supervisions" in run.output
    found = {one.id: one for one in SupervisionSet.from_file(tmp_path / "m/data_supervisions.jsonl.gz")}
    assert found["b-1"].custom == {"emotion": "neu"} and found["b-1"].gender == "m"
    assert [one.num_samples for one in RecordingSet.from_file(tmp_path / "m/data_recordings.jsonl.gz")] == [24000, 24000]


def test_lhotse_manifests_become_a_valid_data_directory(tmp_path):
    soundfile.write(tmp_path / "r.wav", np.zeros(16000), 16000)
    recordings = RecordingSet.from_recordings([recording(tmp_path / "r.wav", "r")])
    segments = [SupervisionSegment("2", "r", 0.5, 0.25, text="B  C\n", speaker="J Doe", gender="Female", language="English"),
                SupervisionSegment("1", "r", 0, 0.5, text="A", speaker="J Doe", gender="Female", language="English")]
    write_data_dir(recordings, SupervisionSet.from_segments(segments), tmp_path / "d")
    assert read_table(tmp_path / "d/text") == {"J_Doe-1": "A", "J_Doe-2": "B C"}
    assert read_table(tmp_path / "d/spk2gender") == {"J_Doe": "f"}
    assert read_table(tmp_path / "d/utt2lang") == {"J_Doe-1": "English", "J_Doe-2": "English"}
    assert "2 utterances, 1 speakers" in validate(tmp_path / "d", need_text=True)
    assert read_data_dir(tmp_path / "d")[1]["J_Doe-2"].language == "English"
    slower = RecordingSet.from_recordings([recordings["r"].perturb_tempo(0.9, affix_id=False)])
    with pytest.raises(PyserError, match="recording r: wav.scp holds files, .* or Lhotse's other transforms; save"):
        write_data_dir(slower, SupervisionSet.from_segments(segments), tmp_path / "d")
    with pytest.raises(PyserError, match="utterance 2: no recording q"):
        segments[0].recording_id = "q"
        write_data_dir(recordings, SupervisionSet.from_segments(segments), tmp_path / "d")


@pytest.mark.parametrize("name, content, message", [
    ("segments", "a-1 rec1 0 0.5\na-2 rec1 0.5 1.25\n", "segments: b-1 of utt2spk is missing"),
    ("segments", "a-1 rec1 0 0\na-2 rec1 0.5\nb-1 rec3 0 -1\n", "3 with a bad segment .e.g. a-1.: nothing is left"),
    ("wav.scp", "rec1 sph2pipe -f wav x.sph |\nrec2 y.wav\n", "rec1 is a command"),
])
def test_bad_data_directories(data, name, content, message):
    (data / name).write_text(content)
    with pytest.raises(PyserError, match=message):
        read_data_dir(data)


@pytest.mark.parametrize("line, message", [
    ("rec1 0.5", "expected 'recording start end'"), ("rec1 0.5 9", "0.5-9 s does not fit into 1.50 s"),
    ("rec9 0.5 1", "no recording rec9"), ("rec1 1 0.5", "from 1 to 0.5 is no segment"),
    ("rec1 0.5 0.55", "shorter than 0.1 s"), ("rec1 0.5 1 1", "no channel 1 in the 1 of rec1"),
])
def test_segments_that_kaldi_leaves_out_are_left_out(data, capsys, line, message):
    (data / "segments").write_text(f"a-1 rec1 0 0.5\na-2 {line}\nb-1 rec2 0 -1\n")
    assert [one.id for one in read_data_dir(data)[1]] == ["a-1", "b-1"]
    assert re.search(f"segments: a-2: .*{re.escape(message)}", capsys.readouterr().err)


def test_channels_go_there_and_back(data, tmp_path):
    soundfile.write(tmp_path / "rec1.wav", np.zeros((24000, 2)), 16000)
    (data / "segments").write_text("a-1 rec1 0 1.5 1\na-2 rec1 0.5 1.25 0\nb-1 rec2 0.1 -1 0\n")
    recordings, supervisions = read_data_dir(data)
    assert [one.channel for one in supervisions] == [1, 0, 0]
    write_data_dir(recordings, supervisions, tmp_path / "again")
    assert read_table(tmp_path / "again/segments") == {
        "a-1": "rec1 0 1.5 1", "a-2": "rec1 0.5 1.25 0", "b-1": "rec2 0.1 1.5"}


def test_speeds_and_volumes_go_there_and_back(data, tmp_path):
    datadir.perturb_speed(data, tmp_path / "speed", [0.9, 1.0, 1.1])
    datadir.perturb_volume(tmp_path / "speed", tmp_path / "both")
    run = CliRunner().invoke(group, ["export-manifests", str(tmp_path / "both"), str(tmp_path / "m")])
    assert run.exit_code == 0, run.output
    names = [str(tmp_path / f"m/both_{kind}.jsonl.gz") for kind in ("recordings", "supervisions")]
    recordings = RecordingSet.from_file(names[0])
    assert {one.id: one.num_samples for one in recordings} == {
        f"{prefix}{name}": length for name in ("rec1", "rec2")
        for prefix, length in (("", 24000), ("sp0.9-", 26667), ("sp1.1-", 21818))}
    one = {one.id: one for one in SupervisionSet.from_file(names[1])}["sp0.9-a-2"]
    assert one.custom == {"emotion": "sad", "uniq": "a-2"} and (one.speaker, one.gender) == ("sp0.9-a", "f")
    assert (one.recording_id, one.start, one.end) == ("sp0.9-rec1", pytest.approx(0.5 / 0.9), pytest.approx(1.25 / 0.9))
    run = CliRunner().invoke(group, ["import-manifests", *names, str(tmp_path / "back")])
    assert run.exit_code == 0 and "9 utterances, 6 speakers" in run.output
    for name in ("wav.scp", "utt2spk", "utt2emo", "utt2uniq", "text", "spk2gender"):
        assert read_table(tmp_path / "back" / name) == read_table(tmp_path / "both" / name)


def test_lhotse_hears_the_same_speed_and_volume(tmp_path):
    pytest.importorskip("torchaudio")
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    soundfile.write(tmp_path / "r.wav", tone, 16000)
    entry = Source(f"{tmp_path}/r.wav", 0.9, 0.5).entry()
    (tmp_path / "d").mkdir()
    for name, value in (("wav.scp", entry), ("utt2spk", "r"), ("utt2emo", "hap")):
        (tmp_path / "d" / name).write_text(f"r {value}\n")
    ours, rate = read_audio(entry)
    lhotses = read_data_dir(tmp_path / "d")[0]["r"].load_audio()[0] * 32768
    assert rate == 16000 and len(ours) == len(lhotses)
    assert np.abs(ours - lhotses)[100:-100].max() < 0.01 * np.abs(ours).max()


def test_import_command_is_the_way_back(data, tmp_path):
    CliRunner().invoke(group, ["export-manifests", str(data), str(tmp_path / "m")])
    names = [str(tmp_path / f"m/data_{kind}.jsonl.gz") for kind in ("recordings", "supervisions")]
    run = CliRunner().invoke(group, ["import-manifests", *names, str(tmp_path / "back")])
    assert run.exit_code == 0 and "3 utterances, 2 speakers" in run.output
    assert read_table(tmp_path / "back/utt2emo") == read_table(data / "utt2emo")
    run = CliRunner().invoke(group, ["import-manifests", "none.jsonl.gz", names[1], str(tmp_path / "x")])
    assert isinstance(run.exception, PyserError) and "none.jsonl.gz: no such manifest" in str(run.exception)
