"""The chain from features to words on a toy language whose phones are far apart; and its parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from stored_graph import ENGINES, K2, decoding_graph

from pyser.chain import intersection, numerator
from pyser.chain.align import align
from pyser.chain.average import average
from pyser.chain.data import ChainData, select, text_of
from pyser.chain.decode import decode
from pyser.chain.denominator import Denominator
from pyser.chain.search import DecodeConfig, Hypothesis, load_search
from pyser.chain.train import ChainConfig, train
from pyser.cli import cli
from pyser.config import write_conf
from pyser.errors import PyserError
from pyser.kaldi.manifests import read_cuts
from pyser.kaldi.tables import MatrixWriter
from pyser.lang import graphs, lang
from pyser.lang.denominator import load_denominator
from pyser.lang.numerator import NumeratorCompiler
from pyser.nn import model_io
from pyser.training import checkpoints

LEXICON = {"ba": "B A", "bi": "B I", "ab": "A B", "dib": "D I B", "dada": "D A D A", "!SIL": "SIL", "<UNK>": "SPN"}
WORDS = ["ba", "bi", "ab", "dib", "dada"]
PHONES = ["SIL", "A", "B", "D", "I"]
FEAT_DIM, IVECTOR_DIM = 6, 3
CONFIG = ChainConfig(dim=48, bottleneck_dim=16, prefinal_dim=24, strides=(1, 0, 3), num_epochs=12, lr_initial=1e-2,
                     lr_final=2e-3, max_duration=12.0, warmup=0.3, leaky_hmm_coefficient=0.0, dropout_schedule="0,0.1@0.5,0",
                     seed=1)


def write_data(directory, num, seed):
    """A data directory of random sentences; a phone is a Gaussian blob of 6 to 12 frames, coloured by the speaker."""
    rng = np.random.default_rng(seed)
    means = 3 * np.random.default_rng(99).standard_normal((len(PHONES), FEAT_DIM))
    directory.mkdir(parents=True)
    lines = {name: [] for name in ("text", "utt2spk", "spk2utt", "wav.scp", "utt2num_frames", "utt2dur")}
    with MatrixWriter(f"ark,scp:{directory}/feats.ark,{directory}/feats.scp", compress=False) as feats, MatrixWriter(
        f"ark,scp:{directory}/iv/iv.ark,{directory}/iv/ivector_online.scp", compress=False
    ) as ivectors:
        for n in range(num):
            utt = f"s{n:03d}-u{n:03d}"
            words = [WORDS[i] for i in rng.integers(len(WORDS), size=rng.integers(1, 5))]
            phones = ["SIL", *(p for w in words for p in LEXICON[w].split()), "SIL"]
            colour = rng.standard_normal(IVECTOR_DIM)
            rows = np.concatenate([np.tile(means[PHONES.index(p)], (rng.integers(6, 13), 1)) for p in phones])
            rows = rows + 0.5 * rng.standard_normal(rows.shape)
            rows[:, :IVECTOR_DIM] += colour
            feats.write(utt, rows)
            ivectors.write(utt, np.tile(colour, (-(-len(rows) // 10), 1)))
            row = {"text": " ".join(words), "utt2spk": utt[:4], "wav.scp": f"/nowhere/{utt}.wav",
                   "utt2num_frames": len(rows), "utt2dur": round(0.01 * len(rows) + 0.015, 3)}
            for name, value in row.items():
                lines[name].append(f"{utt} {value}\n")
            lines["spk2utt"].append(f"{utt[:4]} {utt}\n")
    for name, content in lines.items():
        (directory / name).write_text("".join(content))
    (directory / "iv" / "ivector_period").write_text("10\n")
    return directory


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    write_data(root / "train", 60, seed=1)
    write_data(root / "test", 15, seed=2)
    (root / "dict").mkdir()
    (root / "dict/lexicon.txt").write_text("".join(f"{w} {p}\n" for w, p in sorted(LEXICON.items())))
    lang.prepare(root / "dict", root / "lang")
    graphs.phone_lm(root / "lang", root / "train", 2)
    graphs.word_lm(root / "lang", [str(root / "train")], 2)
    decoding_graph(root / "lang", "toy_ctc")
    return root


def run(root, exp, config=CONFIG):
    return train(root / "train", root / "test", root / "lang", root / "train/iv", root / "test/iv", exp, config)


def test_learns_to_decode(toy, tmp_path):
    """The recipe's three commands."""
    exp = tmp_path / "exp"
    (tmp_path / "tdnn.conf").write_text(write_conf(CONFIG))

    def command(*words):
        result = CliRunner().invoke(cli, ["chain", *map(str, words)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    lists = toy / "train", toy / "test", toy / "lang", toy / "train/iv", toy / "test/iv"
    assert "parameters" in command("train", "--conf", tmp_path / "tdnn.conf", *lists, exp)
    history = json.loads((exp / "history.json").read_text())
    assert history[-1]["valid_objf"] > -0.2 and history[-1]["valid_skipped"] == 0
    assert history[0]["den"] == 0 and history[-1]["den"] != 0  # warm-up, then the whole objective
    assert "epochs 11 12" in command("average", "--avg", 2, exp)
    line = command("decode", "--ivectors", toy / "test/iv", exp, toy / "lang", toy / "test", exp / "decode").strip()
    assert float(line.split()[1]) < 10
    assert line in (exp / "decode/wer.txt").read_text()
    assert (exp / "decode/ref.txt").read_text() == (toy / "test/text").read_text()
    assert len((exp / "decode/hyp.txt").read_text().splitlines()) == 15
    _, metadata = model_io.read(exp / "final.safetensors")
    assert metadata["subsampling"] == "3" and json.loads(metadata["averaged"]) == [11, 12]


def test_chain_topology(toy, tmp_path):
    """Kaldi's topology and objective, decoded and aligned."""
    shutil.copytree(toy / "lang", tmp_path / "lang")
    lang.topo(tmp_path / "lang", "chain", "mono")
    decoding_graph(tmp_path / "lang", "toy_chain")
    lists = toy / "train", toy / "test", tmp_path / "lang", toy / "train/iv", toy / "test/iv"
    with pytest.raises(PyserError, match="--warmup=0.3: without the denominator"):
        train(*lists, tmp_path / "exp", CONFIG)
    config = ChainConfig(**{**vars(CONFIG), "warmup": 0.0, "leaky_hmm_coefficient": 0.1})
    train(*lists, tmp_path / "exp", config)
    average(tmp_path / "exp", 2)
    rest = tmp_path / "lang", toy / "test", toy / "test/iv"
    for engine in ENGINES:
        assert float(decode(tmp_path / "exp", *rest, tmp_path / engine, engine=engine).split()[1]) < 10
    assert len({(tmp_path / engine / "hyp.txt").read_text() for engine in ENGINES}) == 1
    assert align(tmp_path / "exp", *rest, tmp_path / "ali").startswith(f"align {toy / 'test'}: 15 utterances, 0 dropped")
    said = [line.split() for line in (tmp_path / "ali/words.ctm").read_text().splitlines()]
    text = {line.split()[0]: line.split()[1:] for line in (toy / "test/text").read_text().splitlines()}
    assert {utt: [row[4] for row in said if row[0] == utt] for utt in text} == text
    with pytest.raises(PyserError, match="a CTC topology"):
        align(tmp_path / "exp", toy / "lang", toy / "test", toy / "test/iv", tmp_path / "ali")


def test_biphones_from_an_alignment(toy, tmp_path):
    """Monophones, their alignment of the training data, tied biphones near it; n-best lists and their scales."""

    def command(*words):
        result = CliRunner().invoke(cli, [*map(str, words)])
        assert result.exit_code == 0, result.output
        return result.output

    config = ChainConfig(**{**vars(CONFIG), "warmup": 0.0, "leaky_hmm_coefficient": 0.1, "num_epochs": 6})
    (tmp_path / "tdnn.conf").write_text(write_conf(config))
    mono, tied = tmp_path / "mono", tmp_path / "tied"
    for path in (mono, tied):
        shutil.copytree(toy / "lang", path)
    lists = toy / "train/iv", toy / "test/iv"
    conf, sets = tmp_path / "tdnn.conf", (toy / "train", toy / "test")
    command("lang", "topo", mono)
    command("chain", "align-equal", mono, toy / "train", tmp_path / "equal")
    first = [line.split() for line in (tmp_path / "equal/phones.ctm").read_text().splitlines() if "s000-u000 " in line]
    lists_of = ((toy / "train" / name).read_text().splitlines()[0].split() for name in ("text", "utt2num_frames"))
    (_, *text), (_, frames) = lists_of
    assert [row[4] for row in first] == ["SIL", *(p for word in text for p in LEXICON[word].split()), "SIL"]
    assert sum(float(row[3]) for row in first) == pytest.approx(int(frames) / 100)
    lengths = {row[3] for row in first}
    assert len(lengths) <= 2 and max(map(float, lengths)) - min(map(float, lengths)) < 0.011
    even = "--num-epochs", 1, "--ali-dir", tmp_path / "equal"
    command("chain", "train", "--conf", conf, *even, *sets, mono, *lists, tmp_path / "exp_even")
    command("chain", "average", tmp_path / "exp_even")
    command("chain", "train", "--conf", conf, "--init", tmp_path / "exp_even", *sets, mono, *lists, tmp_path / "exp_mono")
    command("chain", "average", tmp_path / "exp_mono")
    command("chain", "align", "--ivectors", toy / "train/iv", tmp_path / "exp_mono", mono, toy / "train", tmp_path / "ali")
    said = command("lang", "topo", "--context", "biphone", "--tie", toy / "train", "--min-biphone-count", 20, tied)
    assert 2 * 6 < int(said.split()[5]) < 2 * 6 * 7
    decoding_graph(tied, "toy_biphone")
    near = "chain", "train", "--conf", conf, "--ali-dir", tmp_path / "ali", "--init", tmp_path / "exp_mono"
    said = command(*near, *sets, tied, *lists, tmp_path / "exp")
    assert "60 utterances aligned, 0 not" in said and "new: chain.output, xent.output\n" in said
    assert json.loads((tmp_path / "exp/history.json").read_text())[0]["valid_objf"] > -0.5
    command("chain", "average", tmp_path / "exp")
    decoded = command("chain", "decode", *(("--nbest", 20) if K2 else ()), "--ivectors", toy / "test/iv", tmp_path / "exp",
                      tied, toy / "test", tmp_path / "decode_test")
    assert float(decoded.split()[1]) < 10
    if K2:
        tuned = command("chain", "rescore", tied, tmp_path / "decode_test", tmp_path / "tuned")
        assert float(tuned.split()[1]) <= float(decoded.split()[1])
        same = command("chain", "rescore", "--lm", tied / "G.arpa", "--lm-scale", 1, tied, tmp_path / "decode_test",
                       tmp_path / "same")
        assert same.startswith(decoded.strip())
    others = write_data(tmp_path / "others", 20, seed=3)
    for path in others.iterdir():  # other utterances than those of the alignment
        if path.is_file() and path.suffix != ".ark":
            path.write_text(path.read_text().replace("-u", "-v"))
    wrong = *near, others, toy / "test", tied, "-", "-", tmp_path / "x"
    result = CliRunner().invoke(cli, [str(word) for word in wrong])
    assert result.exit_code != 0 and "0 utterances aligned, 20 not (e.g. s000-v000); align this" in str(result.exception)


def test_resume_is_exact(toy, tmp_path):
    config = ChainConfig(**{**vars(CONFIG), "num_epochs": 3})
    run(toy, tmp_path / "a", config)
    run(toy, tmp_path / "b", config)
    (tmp_path / "b/epoch-3.pt").unlink()
    (tmp_path / "b/epoch-2.pt").unlink()
    run(toy, tmp_path / "b", config)
    run(toy, tmp_path / "c", replace(config, start_epoch=1))  # from nothing and, then, from the beginning again
    run(toy, tmp_path / "c", replace(config, start_epoch=1))
    average(tmp_path / "a", 1)
    average(tmp_path / "b", 1)
    average(tmp_path / "c", 1)
    one, *others = (model_io.read(tmp_path / x / "final.safetensors")[0] for x in "abc")
    assert all(torch.equal(one[name], other[name]) for name in one for other in others)
    description = (tmp_path / "a/config.json").read_text()
    with pytest.raises(PyserError, match="num_epochs 3 -> 4"):
        run(toy, tmp_path / "a", replace(config, num_epochs=4, start_epoch=3))
    assert (tmp_path / "a/config.json").read_text() == description and checkpoints.numbers(tmp_path / "a") == [1, 2, 3]
    with pytest.raises(PyserError, match="another network"):
        run(toy, tmp_path / "a", ChainConfig(**{**vars(config), "dim": 32}))


def test_graphs_agree(toy):
    """Real graphs: the denominator bounds the numerator, and k2 and our own recursion agree on both."""
    k2 = pytest.importorskip("k2", reason="needs k2 (default stack)")
    denominator = load_denominator(toy / "lang")
    graphs_ = NumeratorCompiler.load(toy / "lang", denominator).graphs("abc", ["ba dib", "dada", "ab ab ab"])
    y = torch.randn(3, 40, len(lang.read_tokens(toy / "lang")), generator=torch.Generator().manual_seed(0)).mul(2)
    lengths = torch.tensor([40, 22, 31])
    num = numerator.total_scores(graphs_, y, lengths)
    den = Denominator(denominator, leaky_hmm_coefficient=0)(y, lengths)
    assert (num[0] < den[0]).all()
    for ours, theirs in (num, graphs_), (den, [denominator]):
        fsas = k2.create_fsa_vec([graph.to_k2() for graph in theirs])
        scores, posteriors = intersection.total_scores(fsas, y, lengths, 1000.0)
        torch.testing.assert_close(ours[0], scores, atol=0, rtol=1e-6)
        torch.testing.assert_close(ours[1], posteriors, atol=2e-5, rtol=0)


def test_best_words_of_ideal_outputs(toy):
    tokens = lang.read_tokens(toy / "lang")
    spoken = ["SIL", "D", "I", "B", "<eps>", "B", "A", "SIL"]
    log_probs = torch.full((len(spoken), len(tokens)), -20.0)
    for t, phone in enumerate(spoken):
        log_probs[t, tokens[phone]] = -0.01
    for engine in ENGINES:
        assert load_search(toy / "lang", DecodeConfig(), engine)(log_probs.numpy())[0].words == ["dib", "ba"]
        narrow = DecodeConfig(search_beam=1.0, min_active=0)
        assert load_search(toy / "lang", narrow, engine)(log_probs[:1].numpy()) in ([], [Hypothesis([])])


def data_of(toy, training, seed=0):
    return ChainData(read_cuts(toy / "train", toy / "train/iv"), 5, 4, 3, 10.0, seed, training)


def test_batches(toy):
    data = data_of(toy, training=True)
    batches = list(data.batches(1))
    assert sorted(utt for b in batches for utt in b.ids) == sorted(data.cuts.ids)
    assert abs(len(batches) - data.steps()) == 0
    for b in batches:
        span = -(-3 * int(b.lengths.max()) // 30) * 30  # few shapes, for the sake of oneDNN
        assert b.feats.shape == (len(b.ids), 5 + span + 4, FEAT_DIM)
        assert b.ivectors.shape == (len(b.ids), IVECTOR_DIM)
    again = list(data_of(toy, training=True).batches(1))
    assert all(torch.equal(a.feats, b.feats) and a.texts == b.texts for a, b in zip(batches, again, strict=True))
    assert [b.ids for b in data.batches(2)] != [b.ids for b in batches]
    assert [b.ids for b in data_of(toy, True, seed=1).batches(1)] != [b.ids for b in batches]


def test_padding_repeats_edges(toy):
    data = data_of(toy, training=False)
    batch = next(data.batches(0))
    cut = data.cuts[0]
    assert batch.ids[0] == cut.id and batch.texts[0] == text_of(cut) and batch.lengths[0] == -(-cut.num_frames // 3)
    feats = batch.feats[0]
    assert torch.equal(feats[:5], feats[5].expand(5, -1))
    tail = feats[5 + cut.num_frames - 1 :]
    assert torch.equal(tail, tail[:1].expand_as(tail)) and not torch.equal(feats[5], feats[6])


def test_select(toy):
    cuts = read_cuts(toy / "train", toy / "train/iv")
    longest = max(cut.duration for cut in cuts)
    kept, line = select(cuts, longest - 1e-6, 3, lambda text: 2, max_dropped=0.5)
    assert len(kept) == len(cuts) - 1 and "longer than" in line
    with pytest.raises(PyserError, match="too short for their phones"):
        select(cuts, 100.0, 3, lambda text: 10_000)
    with pytest.raises(PyserError, match="without words"):
        select(cuts, 100.0, 3, lambda text: None)
