"""Corpora of acted emotions: names -> labels, speakers and words; folds; what is said of a copy that is not whole.

Trees of empty files do for what a preparer reads: the names.
"""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from small_wav import wav

from pyser.corpora.corpus import write_corpus
from pyser.corpora.cremad import prepare_cremad
from pyser.corpora.emodb import prepare_emodb
from pyser.corpora.esd import prepare_esd
from pyser.corpora.ravdess import prepare_ravdess
from pyser.corpora.savee import prepare_savee
from pyser.corpora.tess import WORDS, prepare_tess
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table
from pyser.ser.folds import check_leaks, fold_names, read_fold

PREPARERS = {prepare_ravdess: ("8", "4"), prepare_cremad: ("6", "4"), prepare_emodb: ("7", "4"), prepare_esd: ("5", "4"),
             prepare_savee: ("7", "4"), prepare_tess: ("7", "4")}
FOUR = {"angry", "happy", "neutral", "sad"}


def touch(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def by_id(corpus):
    return {one.id: one for one in corpus.utterances}


def check_groups(corpus, both=True):
    """Every speaker is in one group, and every group has women and men where the corpus has."""
    genders = {one.speaker: one.gender for one in corpus.utterances}
    speakers = [speaker for group in corpus.groups for speaker in group]
    assert sorted(speakers) == sorted(genders)
    assert all(({genders[speaker] for speaker in group} == {"f", "m"}) == both for group in corpus.groups)


def check_folds(data_dir, corpus):
    """The folds on disk: every utterance is tested once, and no speaker is in two lists of a fold."""
    folds_dir, speakers = data_dir / corpus.name / "folds", {one.id: one.speaker for one in corpus.utterances}
    folds = [read_fold(folds_dir / name, name) for name in fold_names(folds_dir)]
    assert sorted(utt for fold in folds for utt in fold.test) == sorted(speakers)
    for fold in folds:
        check_leaks(fold, speakers)
        assert not {speakers[utt] for utt in fold.train} & {speakers[utt] for utt in fold.valid}
        assert sorted((*fold.train, *fold.valid, *fold.test)) == sorted(speakers)
    assert read_table(data_dir / corpus.name / "utt2emo") == {one.id: one.emotion for one in corpus.utterances}
    return folds


@pytest.mark.parametrize("prepare", PREPARERS, ids=lambda prepare: prepare.__name__)
def test_wrong_folders_and_label_sets_are_one_line(prepare, tmp_path):
    with pytest.raises(PyserError, match=f"no label set 3; there are {', '.join(PREPARERS[prepare])}"):
        prepare(tmp_path, "3")
    with pytest.raises(PyserError, match="nowhere: no such folder; give the folder that holds"):
        prepare(tmp_path / "nowhere")
    wav(tmp_path / "other.wav")
    with pytest.raises(PyserError, match=r"no file .* 0?\w+.*\.wav.*; give the folder"):
        prepare(tmp_path)


def ravdess_names():
    """03-01-…: neutral has one intensity."""
    for actor, (emotion, intensity), statement, repetition in product(
            range(1, 25), [(1, 1), *product(range(2, 9), (1, 2))], (1, 2), (1, 2)):
        yield f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}.wav"


def test_ravdess(tmp_path):
    for actor in range(1, 25):
        for emotion in ("01", "05"):
            wav(tmp_path / f"Actor_{actor:02d}/03-01-{emotion}-01-02-01-{actor:02d}.wav")
    wav(tmp_path / "Actor_01/._03-01-08-01-01-01-01.wav")
    wav(tmp_path / "Actor_02/03-01-05-01-02-01-02.flac")  # beside its .wav: the same utterance
    wav(tmp_path / "songs/03-02-05-01-02-01-02.wav")
    corpus = prepare_ravdess(tmp_path)
    assert len(corpus.utterances) == 48 and len(corpus.groups) == 6
    one = by_id(corpus)["Actor_02-03-01-05-01-02-01-02"]
    assert (one.emotion, one.gender, one.text) == ("angry", "f", "DOGS ARE SITTING BY THE DOOR")
    assert one.path.suffix == ".wav"
    check_groups(corpus)
    write_corpus(corpus, tmp_path / "data")
    tests = [fold.test for fold in check_folds(tmp_path / "data", corpus)]
    assert {utt[:8] for utt in tests[1]} == {"Actor_05", "Actor_06", "Actor_07", "Actor_08"}
    assert json.loads((tmp_path / "data/ravdess/folds/info.json").read_text())["label_set"] == "8 emotions"
    wav(tmp_path / "03-01-01-01-02-01-25.wav")
    with pytest.raises(PyserError, match="RAVDESS has no emotion 01, statement 02 or actor 25"):
        prepare_ravdess(tmp_path)


def test_ravdess_whole_and_with_files_missing(tmp_path):
    touch(tmp_path, ravdess_names())
    corpus = prepare_ravdess(tmp_path)
    assert len(corpus.utterances) == 1440 and corpus.notes == []
    four = prepare_ravdess(tmp_path, "4")
    assert Counter(one.emotion for one in four.utterances) == {"angry": 192, "happy": 192, "neutral": 96, "sad": 192}
    assert four.notes == [] and four.info["label_set"] == "4 emotions"
    for path in tmp_path.glob("03-01-0[38]-02-*-2[01].wav"):
        path.unlink()
    assert prepare_ravdess(tmp_path).notes == [
        "ravdess: NOT the full corpus: 184 of 192 happy, 184 of 192 surprised",
        "ravdess: missing 16 of the corpus's files: 03-01-03-02-01-01-20, 03-01-03-02-01-01-21, 03-01-03-02-01-02-20, "
        "03-01-03-02-01-02-21, 03-01-03-02-02-01-20, 03-01-03-02-02-01-21, 03-01-03-02-02-02-20, 03-01-03-02-02-02-21, "
        "03-01-08-02-01-01-20, 03-01-08-02-01-01-21 and 6 more"]
    assert "missing 8 of the corpus's files" in prepare_ravdess(tmp_path, "4").notes[1]


def test_missing_files_are_all_listed_beside_the_folds(tmp_path):
    listed = tmp_path / "data/ravdess/folds/missing.txt"
    names = {name[:-4] for name in ravdess_names()}
    for name in names:
        if name < "03-01-03":
            wav(tmp_path / f"corpus/{name}.wav")
    write_corpus(prepare_ravdess(tmp_path / "corpus"), tmp_path / "data")
    assert listed.read_text().splitlines() == sorted(name for name in names if name >= "03-01-03")
    whole = prepare_ravdess(tmp_path / "corpus")
    write_corpus(replace(whole, missing=()), tmp_path / "data")
    assert not listed.exists()


SENTENCES = "IEO TIE IOM IWW TAI MTI IWL ITH DFA ITS TSI WSI".split()


def cremad_names():
    """As the corpus's SentenceFilenames.csv: 82 clips of each of 91 actors, but for 20."""
    never = {f"{one}_{emotion}" for one in ("1008_WSI", "1009_MTI", "1019_ITH")
             for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")} | {"1002_TIE_NEU", "1076_ITS_NEU"}
    for actor, sentence in product(range(1001, 1092), SENTENCES):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            for level in ("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",):
                if f"{actor}_{sentence}_{emotion}" not in never:
                    yield f"{actor}_{sentence}_{emotion}_{level}.wav"


def test_cremad_whole_and_with_files_missing(tmp_path):
    touch(tmp_path / "AudioWAV", cremad_names())
    corpus = prepare_cremad(tmp_path)
    assert len(corpus.utterances) == 7442 and corpus.notes == []
    sizes = dict.fromkeys(("angry", "disgust", "fearful", "happy", "sad"), 1271) | {"neutral": 1087}
    assert Counter(one.emotion for one in corpus.utterances) == sizes
    genders = {one.speaker: one.gender for one in corpus.utterances}
    assert Counter(genders.values()) == {"m": 48, "f": 43} and (genders["1001"], genders["1091"]) == ("m", "f")
    check_groups(corpus)
    assert sorted(len(group) for group in corpus.groups) == [17, 17, 19, 19, 19]
    assert Counter(one.emotion for one in prepare_cremad(tmp_path, "4").utterances) == {one: sizes[one] for one in FOUR}
    (tmp_path / "AudioWAV/1091_WSI_SAD_XX.wav").unlink()
    (tmp_path / "AudioWAV/1002_IEO_ANG_HI.wav").unlink()
    assert prepare_cremad(tmp_path).notes == [
        "cremad: NOT the full corpus: 1270 of 1271 angry, 1270 of 1271 sad",
        "cremad: missing 2 of the corpus's files: 1002_IEO_ANG_HI, 1091_WSI_SAD_XX"]


def test_cremad(tmp_path):
    for actor in range(1001, 1021):
        wav(tmp_path / f"AudioWAV/{actor}_ITH_SAD_XX.wav")
    wav(tmp_path / "AudioWAV/1040_ITH_SAD_X.wav")  # as the corpus has it
    corpus = prepare_cremad(tmp_path)
    one = by_id(corpus)["1040_ITH_SAD_XX"]
    assert (one.emotion, one.speaker, one.gender) == ("sad", "1040", "m")
    assert one.text == "I THINK I HAVE A DOCTOR'S APPOINTMENT"
    assert "Open Database License" in write_corpus(corpus, tmp_path / "data")
    assert len(check_folds(tmp_path / "data", corpus)) == 5
    (tmp_path / "pointers").mkdir()
    (tmp_path / "pointers/1001_DFA_ANG_XX.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(PyserError, match="1001_DFA_ANG_XX.wav: a pointer of Git LFS and no audio; .* `git lfs pull`"):
        prepare_cremad(tmp_path / "pointers")
    wav(tmp_path / "AudioWAV/1001_XYZ_SAD_XX.wav")
    with pytest.raises(PyserError, match="1001_XYZ_SAD_XX.wav: CREMA-D has no actor 1001, sentence XYZ or emotion SAD"):
        prepare_cremad(tmp_path)


def test_emodb(tmp_path):
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        wav(tmp_path / "Angry" / f"{speaker}a01Wa.flac")
    corpus = prepare_emodb(tmp_path)
    one = corpus.utterances[0]
    assert (one.id, one.speaker, one.gender, one.emotion) == ("03a01Wa", "03", "m", "angry")
    assert "10 of 127 angry" in corpus.notes[0] and corpus.info["label_set"] == "1 emotions"
    check_groups(corpus)
    write_corpus(corpus, tmp_path / "data")
    assert len(check_folds(tmp_path / "data", corpus)) == 5
    wav(tmp_path / "copy/16a01Wa.wav")
    with pytest.raises(PyserError, match="16a01Wa is twice in the corpus, .*Angry/16a01Wa.flac and .*copy/16a01Wa.wav"):
        write_corpus(prepare_emodb(tmp_path), tmp_path / "data")
    wav(tmp_path / "99a01Wa.wav")
    with pytest.raises(PyserError, match="99a01Wa.wav: EmoDB has no speaker 99"):
        prepare_emodb(tmp_path)


def test_emodb_names_are_the_corpuss(tmp_path):
    from pyser.corpora.emodb import NAMES, SIZES

    assert len(NAMES) == 535 and {"03a01Fa", "08b09Ab", "16b10Wb"} <= NAMES
    # By emotion as published (F. Burkhardt et al. 2005 and the corpus's pages); by speaker and by name as EmoBox lists them.
    assert SIZES == {"angry": 127, "happy": 71, "neutral": 79, "sad": 62, "bored": 81, "disgust": 46, "fearful": 69}
    assert Counter(name[:2] for name in NAMES) == {"03": 49, "08": 58, "09": 43, "10": 38, "11": 55, "12": 35, "13": 61,
                                                   "14": 69, "15": 56, "16": 71}
    assert hashlib.md5("\n".join(sorted(NAMES)).encode()).hexdigest() == "7fd55d1a0e57057b9405a49533dd9ab9"
    touch(tmp_path, (f"{name}.wav" for name in NAMES))
    assert prepare_emodb(tmp_path).notes == []
    (tmp_path / "16b10Wb.wav").unlink()
    assert prepare_emodb(tmp_path, "4").notes == ["emodb: NOT the full corpus: 126 of 127 angry",
                                                  "emodb: missing 1 of the corpus's files: 16b10Wb"]
    assert {one.emotion for one in prepare_emodb(tmp_path, "4").utterances} == FOUR


TESS_EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")


def test_tess(tmp_path):
    for actress, word, emotion in product(("OAF", "YAF"), ("back", "bite"), TESS_EMOTIONS):
        if (actress, word, emotion) != ("OAF", "bite", "neutral"):
            wav(tmp_path / f"{actress}_{emotion}/{actress}_{word}_{emotion}.wav")
    wav(tmp_path / "OAF_neutral/OA_bite_neutral.wav")  # as the corpus has it
    corpus = prepare_tess(tmp_path)
    one = by_id(corpus)["OAF_bite_neutral"]
    assert (one.speaker, one.gender, one.emotion, one.text) == ("OAF", "f", "neutral", "SAY THE WORD BITE")
    assert by_id(corpus)["YAF_back_ps"].emotion == "surprised"
    assert len(corpus.utterances) == 28 and "4 of 400 angry" in corpus.notes[1]
    assert "missing 2772 of the corpus's files: OAF_bar_angry, OAF_bar_disgust, " in corpus.notes[2]
    assert {one.emotion for one in prepare_tess(tmp_path, "4").utterances} == FOUR
    out = write_corpus(corpus, tmp_path / "data")
    assert "two speakers" in out and "--selection last" in out and "2 speaker-independent folds" in out
    folds = check_folds(tmp_path / "data", corpus)
    assert [{utt[:3] for utt in fold.train} for fold in folds] == [{"YAF"}, {"OAF"}]
    assert not list((tmp_path / "data").rglob("valid.list"))
    for path in tmp_path.glob("YAF_*/*.wav"):
        path.unlink()
    with pytest.raises(PyserError, match="speakers of 1 folds only: training and test need two"):
        write_corpus(prepare_tess(tmp_path), tmp_path / "data")


def test_tess_whole(tmp_path):
    touch(tmp_path, (f"{'_'.join(one)}.wav" for one in product(("OAF", "YAF"), WORDS, TESS_EMOTIONS)))
    corpus = prepare_tess(tmp_path)
    assert len(corpus.utterances) == 2800 and len(corpus.notes) == 1 and "two speakers" in corpus.notes[0]
    for path in (*tmp_path.glob("YAF_bite_*.wav"), *tmp_path.glob("?AF_youth_sad.wav")):
        path.unlink()
    assert prepare_tess(tmp_path, "4").notes[2] == (
        "tess: missing 6 of the corpus's files: OAF_youth_sad, YAF_bite_angry, YAF_bite_happy, YAF_bite_neutral, "
        "YAF_bite_sad, YAF_youth_sad")


def test_tess_words_are_the_corpuss():
    """By name as EmoBox lists them."""
    assert len(WORDS) == 200 and hashlib.md5("\n".join(WORDS).encode()).hexdigest() == "529b96dc2859ec22f14d405a3ae69d64"


SAVEE = [f"{code}{number:02d}" for code in ("a", "d", "f", "h", "n", "sa", "su") for number in range(1, 31)
         if code == "n" or number <= 15]


@pytest.mark.parametrize("flat", [True, False])
def test_savee(tmp_path, flat):
    for speaker in ("DC", "JE", "JK", "KL"):
        touch(tmp_path if flat else tmp_path / "AudioData" / speaker,
              (f"{speaker}_{name}.wav" if flat else f"{name}.wav" for name in SAVEE))
    corpus = prepare_savee(tmp_path)
    assert len(corpus.utterances) == 480 and corpus.notes == []
    assert Counter(one.emotion for one in corpus.utterances) == {
        "neutral": 120, "angry": 60, "disgust": 60, "fearful": 60, "happy": 60, "sad": 60, "surprised": 60}
    one = by_id(corpus)["KL_sa15"]
    assert (one.speaker, one.gender, one.emotion, one.text) == ("KL", "m", "sad", None)
    assert len(prepare_savee(tmp_path, "4").utterances) == 300
    next(tmp_path.rglob("*su07.wav")).unlink()
    notes = prepare_savee(tmp_path).notes
    assert notes[0] == "savee: NOT the full corpus: 59 of 60 surprised" and "missing 1 of the corpus's files" in notes[1]
    (tmp_path / ("KL_a16.wav" if flat else "AudioData/KL/a16.wav")).touch()
    with pytest.raises(PyserError, match="a16.wav: SAVEE has no speaker KL or no sentence a16"):
        prepare_savee(tmp_path)


def test_savee_folds(tmp_path):
    for speaker in ("DC", "JE", "JK", "KL"):
        wav(tmp_path / f"corpus/{speaker}/n30.wav")
        wav(tmp_path / f"corpus/{speaker}/su01.flac")
    corpus = prepare_savee(tmp_path / "corpus")
    check_groups(corpus, both=False)
    write_corpus(corpus, tmp_path / "data")
    assert [fold.test[0][:2] for fold in check_folds(tmp_path / "data", corpus)] == ["DC", "JE", "JK", "KL"]
    assert not (tmp_path / "data/savee/text").exists()


FOLDERS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")


def test_esd_whole_and_with_files_missing(tmp_path):
    for speaker, (place, folder) in product(range(11, 21), enumerate(FOLDERS)):
        numbers = range(350 * place + 1, 350 * place + 351)
        touch(tmp_path / f"{speaker:04d}/{folder}", (f"{speaker:04d}_{number:06d}.wav" for number in numbers))
    touch(tmp_path / "0001/Angry/train", ["0001_000351.wav"])
    corpus = prepare_esd(tmp_path)
    assert len(corpus.utterances) == 17500
    assert corpus.notes == ["esd: 17500 utterances have no words in the lists, transcribed <UNK>"]
    assert Counter(one.emotion for one in corpus.utterances) == dict.fromkeys(
        ("neutral", "angry", "happy", "sad", "surprised"), 3500)
    check_groups(corpus)
    assert corpus.info == {"label_set": "5 emotions", "subset": "english"}
    (tmp_path / "0020/Surprise/0020_001750.wav").unlink()
    assert prepare_esd(tmp_path).notes[1:] == ["esd: NOT the full corpus: 3499 of 3500 surprised",
                                               "esd: missing 1 of the corpus's files: 0020_001750"]
    everyone = prepare_esd(tmp_path, subset="all")
    assert "3501 of 7000 angry" in everyone.notes[1]
    assert everyone.notes[2].startswith("esd: missing 17500 of the corpus's files: 0001_000001, 0001_000002, ")
    assert all(len(group) == 4 for group in everyone.groups)
    with pytest.raises(PyserError, match="esd: no subset french; there are english, mandarin, all"):
        prepare_esd(tmp_path, subset="french")


def test_esd(tmp_path):
    for speaker in (1, 4, *range(11, 21)):
        for number, folder in ((351, "Angry"), (1401, "Surprise")):
            wav(tmp_path / f"{speaker:04d}/{folder}/test/{speaker:04d}_{number:06d}.wav")
    lines = "0011_000351\tThe nine the eggs, I keep.\tAngry\r\n0011_001401\tHe said, it\u2019s mine.\tSurprise\r\n\r\n"
    (tmp_path / "0011/0011.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    (tmp_path / "0012/0012.txt").write_text(lines.replace("0011", "0012"), encoding="utf-16")
    (tmp_path / "0016/0016.txt").write_text(lines.replace("0011", "0016"), encoding="cp1252")
    (tmp_path / "0001/0001.txt").write_text("0001_000351\t打远一看，它们的确很是美丽。\t生气\n", encoding="gb2312")
    corpus = prepare_esd(tmp_path)
    one, found = by_id(corpus)["0011_000351"], by_id(corpus)
    assert (one.speaker, one.gender, one.emotion, one.text) == ("0011", "m", "angry", "THE NINE THE EGGS I KEEP")
    assert {found[f"{speaker}_001401"].text for speaker in ("0011", "0012", "0016")} == {"HE SAID IT'S MINE"}
    assert (found["0015_000351"].gender, found["0015_000351"].text) == ("f", "<UNK>")
    write_corpus(corpus, tmp_path / "data")
    assert len(check_folds(tmp_path / "data", corpus)) == 5
    assert {one.emotion for one in prepare_esd(tmp_path, "4").utterances} == {"angry"}
    mandarin = by_id(prepare_esd(tmp_path, subset="mandarin"))["0001_000351"]
    assert (mandarin.text, mandarin.gender) == ("打远一看 它们的确很是美丽", "f")
    wav(tmp_path / "0011/Happy/0011_000352.wav")
    with pytest.raises(PyserError, match="0011_000352.wav: by its number it is angry, by its folder happy"):
        prepare_esd(tmp_path)
    (tmp_path / "0011/Happy/0011_000352.wav").rename(tmp_path / "0011/Happy/0011_001751.wav")
    with pytest.raises(PyserError, match="0011_001751.wav: ESD's numbers end at 1750"):
        prepare_esd(tmp_path)
