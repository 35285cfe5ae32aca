"""What all corpora share: folds, the command, labels that follow their utterances; and any Kaldi data directory."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from lhotse import SupervisionSet
from small_wav import wav
from tiny_corpus import make_data_dir

from pyser.cli.corpus import group
from pyser.corpora.corpus import Corpus, Utterance, write_corpus, write_folds, write_partition
from pyser.corpora.kaldi_dir import prepare_kaldi_dir
from pyser.errors import PyserError
from pyser.files import read_json, write_json
from pyser.kaldi import datadir
from pyser.kaldi.datadir import read_table, validate, write_table
from pyser.ser.folds import Fold, check_leaks, fold_names, read_fold, write_fold


def prepare(*args):
    """Output of `pyser corpus prepare …`; a PyserError comes through."""
    return CliRunner().invoke(group, ["prepare", *map(str, args)], catch_exceptions=False).output


def rated(root: Path) -> Corpus:
    """Three speakers, two utterances each, with emotions and ratings."""
    utterances = [
        Utterance(f"{speaker}-{n}", wav(root / f"{speaker}{n}.wav", 0.2 + 0.1 * n), speaker, "f", "WORDS",
                  ("ang", "sad")[n], f"{n + 1}.5 2.0 {number}.25")
        for number, speaker in enumerate("abc", start=1) for n in range(2)
    ]
    return Corpus("rated", utterances, [["a"], ["b"], ["c"]], "Licence", (), {"avd": "1-5"})


def labels(directory):
    """Emotions and ratings, which must be there for every utterance."""
    emotions, ratings = (read_table(directory / name) for name in ("utt2emo", "utt2avd"))
    assert emotions.keys() == ratings.keys() == read_table(directory / "utt2spk").keys()
    return {utt: (emotions[utt], ratings[utt]) for utt in emotions}


def test_labels_follow_their_utterances(tmp_path):
    write_corpus(rated(tmp_path / "corpus"), tmp_path)
    source, whole = tmp_path / "rated", {
        "a-0": ("ang", "1.5 2.0 1.25"), "a-1": ("sad", "2.5 2.0 1.25"), "b-0": ("ang", "1.5 2.0 2.25"),
        "b-1": ("sad", "2.5 2.0 2.25"), "c-0": ("ang", "1.5 2.0 3.25"), "c-1": ("sad", "2.5 2.0 3.25")}
    assert labels(source) == whole
    datadir.copy(source, tmp_path / "copy", datadir.Affixes(utt_prefix="x-", spk_prefix="x-"))
    assert labels(tmp_path / "copy") == {f"x-{utt}": both for utt, both in whole.items()}
    datadir.split(source, tmp_path / "split", 3)
    assert [labels(tmp_path / f"split/{job}") for job in (1, 2, 3)] == [
        {utt: both for utt, both in whole.items() if utt[0] == speaker} for speaker in "abc"]
    datadir.split(source, tmp_path / "by_utt", 6, per_utt=True)
    assert labels(tmp_path / "by_utt/4") == {"b-1": whole["b-1"]}
    datadir.subset(source, tmp_path / "subset", ["a-1", "c-0"])
    assert labels(tmp_path / "subset") == {"a-1": whole["a-1"], "c-0": whole["c-0"]}
    datadir.combine(tmp_path / "both", [tmp_path / "copy", source])
    assert labels(tmp_path / "both") == whole | labels(tmp_path / "copy")
    datadir.perturb_speed(source, tmp_path / "speed", [0.9, 1.0, 1.1])
    speeds = {f"{sp}{utt}": both for sp in ("", "sp0.9-", "sp1.1-") for utt, both in whole.items()}
    assert labels(tmp_path / "speed") == speeds
    datadir.perturb_volume(source, tmp_path / "volume")
    assert labels(tmp_path / "volume") == whole
    supervisions = SupervisionSet.from_file(tmp_path / "manifests/rated_supervisions.jsonl.gz")
    assert {one.id: (one.custom["emotion"], one.custom["avd"]) for one in supervisions} == whole


def test_an_utterance_without_label_goes(tmp_path):
    write_corpus(rated(tmp_path / "corpus"), tmp_path)
    (tmp_path / "rated/utt2avd").write_text("a-0 1 2 3\nb-1 1 2 3\n")
    datadir.fix(tmp_path / "rated")
    assert labels(tmp_path / "rated") == {"a-0": ("ang", "1 2 3"), "b-1": ("sad", "1 2 3")}


def test_a_speaker_of_unknown_gender(tmp_path):
    corpus = rated(tmp_path / "corpus")
    one = corpus.utterances[0]
    someone = Utterance(one.id, one.path, one.speaker, None, one.text, one.emotion)
    write_corpus(Corpus("rated", [someone, *corpus.utterances[2:]], corpus.groups, "Licence"), tmp_path)
    assert not (tmp_path / "rated/spk2gender").exists()  # all speakers or none, as Kaldi wants it


def test_folds_of_two_groups_have_no_validation(tmp_path):
    assert write_folds({"a1": "a", "b1": "b", "b2": "b"}, [["a"], ["b"]], tmp_path) == 2
    files = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.list")}
    assert files == {"1/train.list": "b1\nb2\n", "1/test.list": "a1\n", "2/train.list": "a1\n", "2/test.list": "b1\nb2\n"}
    with pytest.raises(PyserError, match="speakers of 1 folds only: training and test need two"):
        write_folds({"a1": "a"}, [["a"], ["b"]], tmp_path)


def test_a_partition_is_one_fold(tmp_path):
    write_folds({"a1": "a", "b1": "b", "c1": "c"}, [["a"], ["b"], ["c"]], tmp_path)
    parts = {"train": {"a1", "a0"}, "valid": ["b1"], "test": ["c1"], "test2": ["d1"]}
    assert write_partition(parts, tmp_path) == 1
    files = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.list")}
    assert files == {"1/train.list": "a0\na1\n", "1/valid.list": "b1\n", "1/test.list": "c1\n", "1/test2.list": "d1\n"}
    with pytest.raises(PyserError, match="no utterances for valid.list; copy the corpus whole"):
        write_partition(parts | {"valid": []}, tmp_path)
    assert (tmp_path / "1/valid.list").exists()


def test_folds_rotate_validation_and_refuse_strangers(tmp_path):
    write_folds({"a1": "a", "b1": "b", "c1": "c", "d1": "d"}, [["a"], ["b"], ["c", "d"]], tmp_path)
    assert (tmp_path / "3/test.list").read_text() == "c1\nd1\n"
    assert (tmp_path / "3/valid.list").read_text() == "a1\n"
    assert (tmp_path / "3/train.list").read_text() == "b1\n"
    write_folds({"a1": "a", "c1": "c", "e1": "e"}, [["a"], ["b"], ["c"], ["e"]], tmp_path)  # b's fold goes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "4"]
    assert (tmp_path / "4/valid.list").read_text() == "a1\n"
    with pytest.raises(PyserError, match="speakers of 2 folds only"):
        write_folds({"a1": "a", "b1": "b"}, [["a"], ["b"], ["c"]], tmp_path)
    with pytest.raises(PyserError, match="speaker z belongs to no fold"):
        write_folds({"z1": "z"}, [["a"]], tmp_path)


def test_kaldi_dir_drops_what_cannot_be_used(tmp_path):
    source = tmp_path / "source"
    for utt in ("a1", "a2", "a3", "a4"):
        wav(source / f"audio/{utt}.wav")
    (source / "audio/a3.wav").write_bytes(b"RIFF")
    (source / "wav.scp").write_text("".join(f"{utt} audio/{utt}.wav\n" for utt in ("a1", "a2", "a3", "a4")))
    (source / "utt2spk").write_text("a1 a\na2 a\na3 a\na4 a\n")
    (source / "text").write_text("a1 HELLO\na2\na3 HELLO\na4 WORLD\n")
    line = prepare_kaldi_dir(source, tmp_path / "target", max_dropped=0.5)
    assert "2 dropped" in line and "without transcript in text (e.g. a2)" in line and "unreadable (e.g. a3)" in line
    assert read_table(tmp_path / "target/wav.scp") == {u: str(source / f"audio/{u}.wav") for u in ("a1", "a4")}
    with pytest.raises(PyserError, match="more than --max-dropped 5%"):
        prepare_kaldi_dir(source, tmp_path / "target")
    with pytest.raises(PyserError, match="the source itself"):
        prepare_kaldi_dir(source, source)
    (source / "text").unlink()
    with pytest.raises(PyserError, match="text: missing"):
        prepare_kaldi_dir(source, tmp_path / "target")
    (source / "wav.scp").write_text("a1 flac -c -d -s a1.flac |\n")
    (source / "text").write_text("a1 HELLO\n")
    with pytest.raises(PyserError, match="wav.scp: a1 is a command; write the path of its file"):
        prepare_kaldi_dir(source, tmp_path / "target")


def test_kaldi_dir_with_segments_and_emotions(tmp_path):
    source = tmp_path / "corpus/source"
    wav(tmp_path / "corpus/audio/r.ogg", 1.0)  # beside the data directory
    source.mkdir()
    (source / "wav.scp").write_text("r audio/r.ogg\n")
    (source / "segments").write_text("a-1 r 0 0.25\na-2 r 0.5 -1\na-3 r 0.5 1.4\na-4 r 3 4\n")
    (source / "utt2spk").write_text("".join(f"a-{n} a\n" for n in range(1, 5)))
    (source / "utt2emo").write_text("".join(f"a-{n} hap\n" for n in range(1, 5)))
    target = tmp_path / "data/set"
    line = prepare_kaldi_dir(source, target, max_dropped=0.5)
    assert "4 utterances, 1 dropped: 1 with a bad segment (e.g. a-4)" in line and "3 utterances, 1 speakers" in line
    assert read_table(target / "utt2dur") == {"a-1": "0.25", "a-2": "0.5", "a-3": "0.5"}
    supervisions = SupervisionSet.from_file(tmp_path / "data/manifests/set_supervisions.jsonl.gz")
    assert [(one.id, one.start, one.end, one.custom) for one in supervisions] == [
        ("a-1", 0, 0.25, {"emotion": "hap"}), ("a-2", 0.5, 1, {"emotion": "hap"}), ("a-3", 0.5, 1, {"emotion": "hap"})]
    (source / "segments").write_text("a-1 r 0.5 0.25\n")
    with pytest.raises(PyserError, match="1 with a bad segment .e.g. a-1."):
        prepare_kaldi_dir(source, target, max_dropped=1.0)


def test_folds_of_a_kaldi_directory_with_emotions(tmp_path):
    """Its own, without what was dropped; otherwise five of its speakers, or as many as there are."""
    source = make_data_dir(tmp_path / "source", speakers=7, utts=3, seed=1)
    speakers = read_table(source / "utt2spk")
    write_table(source / "utt2emo", dict.fromkeys(speakers, "sad"))
    assert "folds: 5, of every 5th speaker each" in prepare_kaldi_dir(source, tmp_path / "target")
    folds = tmp_path / "target/folds"
    assert fold_names(folds) == list("12345")
    tested = [utt for name in "12345" for utt in read_fold(folds / name, name).test]
    assert sorted(tested) == sorted(speakers)
    for name in "12345":
        check_leaks(read_fold(folds / name, name), speakers)
    first, *others = sorted(speakers)
    write_fold(source / "folds/a", Fold("a", tuple(others[3:]), (), (first, *others[:2])))
    (source / f"wav/{first}.wav").unlink()
    assert f"folds: those of {source}/folds" in prepare_kaldi_dir(source, tmp_path / "target", max_dropped=0.1)
    assert fold_names(folds) == ["a"] and read_fold(folds / "a", "a").test == tuple(others[:2])
    write_table(source / "utt2spk", dict.fromkeys(speakers, "one"))
    shutil.rmtree(source / "folds")
    assert "no folds: what is labelled is of 1 speaker" in prepare_kaldi_dir(source, tmp_path / "target", max_dropped=0.1)



def test_a_kaldi_directory_of_ratings(tmp_path):
    """It needs neither words nor emotions; what is said of its ratings is kept."""
    source = make_data_dir(tmp_path / "source", speakers=4, utts=2, seed=1)
    (source / "text").unlink()
    with pytest.raises(PyserError, match="or ratings, utt2avd"):
        prepare_kaldi_dir(source, tmp_path / "target")
    speakers = read_table(source / "utt2spk")
    write_table(source / "utt2avd", dict.fromkeys(speakers, "1 2 -"))
    assert "folds: 4, of every 4th speaker each" in prepare_kaldi_dir(source, tmp_path / "target")
    first, *others = sorted(speakers)
    write_fold(source / "folds/a", Fold("a", tuple(others[1:]), (), (first, others[0])))
    write_json(source / "folds/info.json", {"corpus": "acted", "avd": "category-derived"})
    assert "folds: those of" in prepare_kaldi_dir(source, tmp_path / "target")
    assert read_json(tmp_path / "target/folds/info.json") == {"corpus": "acted", "avd": "category-derived"}
    assert fold_names(tmp_path / "target/folds") == ["a"]


def test_options_where_they_do_not_belong(tmp_path):
    with pytest.raises(PyserError, match="corpus prepare ravdess: --subset is for iemocap and esd; leave it out"):
        prepare("--subset", "all", "ravdess", tmp_path, tmp_path / "data")
    for name in ("tedlium2", "librispeech", "kaldi"):
        with pytest.raises(PyserError, match=f"corpus prepare {name}: it has no label sets"):
            prepare("--label-set", "4", name, tmp_path, tmp_path / "data")
    assert "'switchboard' is not one of 'tedlium2', 'librispeech'," in prepare("switchboard", tmp_path, tmp_path)


def test_prepare_command_with_a_label_set(tmp_path):
    for actor in (1, 2, 5, 6, 9, 10):
        for emotion in ("02", "04"):
            wav(tmp_path / f"corpus/03-01-{emotion}-01-01-01-{actor:02d}.wav")
    out = prepare("--label-set", "4", "ravdess", tmp_path / "corpus", tmp_path / "data")
    assert "CC BY-NC-SA 4.0" in out and "3 speaker-independent folds; sad 6" in out  # no calm ones
    assert json.loads((tmp_path / "data/ravdess/folds/info.json").read_text()) == {
        "corpus": "ravdess", "label_set": "4 emotions", "subset": "all"}
    assert set(read_table(tmp_path / "data/ravdess/utt2emo").values()) == {"sad"}
    assert "6 utterances, 6 speakers" in validate(tmp_path / "data/ravdess", need_text=True)
    with pytest.raises(PyserError, match="ravdess: no label set 7; there are 8, 4"):
        prepare("--label-set", "7", "ravdess", tmp_path / "corpus", tmp_path / "data")
