"""nnet3 files: read and written back byte for byte, text and binary, imported and exported; and files that are damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnet3_skeleton import skeleton

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer
from pyser.kaldi.nnet3.nnet import read_nnet, write_nnet
from pyser.kaldi.tables import MatrixWriter, read_mats
from pyser.kaldi.transition_model import read_transition_model, write_transition_model
from pyser.nn import model_io
from pyser.nn.compute import ComputeConfig, compute
from pyser.nn.nnet3 import Nnet3
from pyser.nn.tdnnf import BatchNorm, TdnnF, TdnnfConfig
from pyser.nn.tdnnf_nnet3 import from_nnet3, to_nnet3

GOLDEN = Path(__file__).parent / "golden" / "nnet3"
EXPECTED = np.load(GOLDEN / "expected.npz")
CONFIG = TdnnfConfig(feat_dim=5, ivector_dim=4, dim=16, bottleneck_dim=6, prefinal_dim=8, strides=(1, 0, 3), num_pdfs=7)


def run(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return result.exit_code, str(result.exception) if result.exception else result.output


def message(*arguments):
    code, text = run(*arguments)
    assert code == 1 and "\n" not in text
    return text


def network(config=CONFIG):
    """A TDNN-F with random parameters and statistics."""
    torch.manual_seed(0)
    model = TdnnF(config)
    size = 3 * config.feat_dim + config.ivector_dim
    model.set_lda(torch.randn(size, size), torch.randn(size))
    for parameter in model.parameters():
        parameter.data.normal_()
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.num_batches_tracked.fill_(40)
    return model.eval()


@pytest.mark.parametrize("name", ["final.mdl", "noivector.raw"])
def test_the_same_bytes(tmp_path, name):
    nnet = read_nnet(GOLDEN / name)
    contexts = Nnet3(nnet).context("output") if name == "final.mdl" else None
    write_nnet(nnet, tmp_path / "out", contexts=contexts)
    assert (tmp_path / "out").read_bytes() == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", ["final.mdl", "noivector.raw"])
def test_text(tmp_path, name):
    """Kaldi's grammar, and numbers good to seven digits."""
    nnet = read_nnet(GOLDEN / name)
    write_nnet(nnet, tmp_path / "text", binary=False)
    stem = name.split(".")[0]
    assert skeleton((tmp_path / "text").read_text()) == (GOLDEN / f"{stem}.skeleton.txt").read_text()
    again = read_nnet(tmp_path / "text")
    assert again.config() == nnet.config() and list(again.components) == list(nnet.components)
    for old, new in zip(nnet.components.values(), again.components.values(), strict=True):
        assert old.type == new.type and list(old.fields) == list(new.fields)
        for key, value in old.fields.items():
            np.testing.assert_allclose(np.asarray(new.fields[key], float), np.asarray(value, float), rtol=1e-6)


def test_transition_model(tmp_path):
    nnet = read_nnet(GOLDEN / "final.mdl")
    assert nnet.transition_model.num_pdfs == 80 and nnet.transition_model.extended and len(nnet.priors) == 0
    writer = Writer(binary=False)
    write_transition_model(writer, nnet.transition_model)
    assert writer.data() == (GOLDEN / "transition_model.txt").read_bytes()
    model = read_transition_model(Reader(GOLDEN / "transition_model.txt"))
    assert np.array_equal(model.tuples, nnet.transition_model.tuples) and model.entries == nnet.transition_model.entries
    # The old form: one pdf for both kinds of arcs.
    old = type(model)(tuple(tuple(type(s)(s.forward_pdf_class, s.forward_pdf_class, s.transitions) for s in entry)
                            for entry in model.entries), model.phones,
                      np.concatenate([model.tuples[:, :3], model.tuples[:, 2:3]], 1), model.log_probs, False)
    for binary in (True, False):
        writer = Writer(binary)
        write_transition_model(writer, old)
        (tmp_path / "old").write_bytes(writer.data())
        again = read_transition_model(Reader(tmp_path / "old"))
        assert np.array_equal(again.tuples, old.tuples) and again.entries == old.entries and not again.extended
        assert again.phones == old.phones


def test_import_and_export(tmp_path):
    (tmp_path / "kaldi").mkdir()
    (tmp_path / "kaldi" / "final.mdl").write_bytes((GOLDEN / "final.mdl").read_bytes())
    (tmp_path / "kaldi" / "cmvn_opts").write_text("--norm-means=false --norm-vars=false\n")
    exp = tmp_path / "exp"
    code, text = run("nnet3", "import", tmp_path / "kaldi", exp)
    assert code == 0 and "49 components, 145312 parameters, inputs ivector 30, input 40" in text
    assert sorted(path.name for path in exp.iterdir()) == ["cmvn_opts", "final.safetensors"]
    assert run("nnet3", "export", exp, tmp_path / "again.mdl")[0] == 0
    assert (tmp_path / "again.mdl").read_bytes() == (GOLDEN / "final.mdl").read_bytes()
    assert run("nnet3", "export", exp, tmp_path / "final.raw")[0] == 0
    assert run("nnet3", "export", "--transition-model", GOLDEN / "transition_model.txt", tmp_path / "final.raw",
               tmp_path / "third.mdl")[0] == 0
    assert (tmp_path / "third.mdl").read_bytes() == (GOLDEN / "final.mdl").read_bytes()
    assert run("nnet3", "export", "--text", tmp_path / "final.raw", tmp_path / "text.raw")[0] == 0
    assert (tmp_path / "text.raw").read_text().startswith("<Nnet3> \ninput-node name=ivector dim=30\n")
    assert "holds a transition model" in message("nnet3", "export", tmp_path / "final.raw", tmp_path / "no.mdl")
    assert not (tmp_path / "no.mdl").exists()
    model_io.save(tmp_path / "small.safetensors", network(), CONFIG)
    text = message("nnet3", "export", "--transition-model", GOLDEN / "final.mdl", tmp_path / "small.safetensors",
                   tmp_path / "no.mdl")
    assert "its transition model has 80 pdfs, the network 7 outputs" in text


def test_compute_command(tmp_path):
    utts = ["spk1-u4", "spk3-u3"]
    for what in ("feats", "ivectors"):
        with MatrixWriter(f"ark,scp:{tmp_path}/{what}.ark,{tmp_path}/{what}.scp", compress=False) as writer:
            for utt in utts:
                writer.write(utt, EXPECTED[f"{what}/{utt}"])
    command = ["nnet3", "compute", "--online-ivectors=scp:{0}/ivectors.scp", "--frame-subsampling-factor=3", "--output-node",
               "output", str(GOLDEN / "final.mdl"), "scp:{0}/feats.scp", "ark,t:{0}/out.txt"]
    assert run(*(part.format(tmp_path) for part in command))[0] == 0
    for utt, output in read_mats(f"ark:{tmp_path}/out.txt"):
        np.testing.assert_allclose(output, EXPECTED[f"nnet3/output_sub3_fpc50/{utt}"], atol=3e-5)
    text = message("nnet3", "compute", GOLDEN / "final.mdl", f"scp:{tmp_path}/feats.scp", f"ark:{tmp_path}/no.ark")
    assert text == "spk1-u4: no i-vectors, the network was trained with i-vectors of 30"
    text = message("nnet3", "compute", GOLDEN / "final.mdl", f"scp:{tmp_path}/ivectors.scp", f"ark:{tmp_path}/no.ark")
    assert text == "spk1-u4: features of 30 columns, the network was trained on 40"
    text = message("nnet3", "compute", "--output-node", "tdnnf7", GOLDEN / "final.mdl", f"scp:{tmp_path}/feats.scp",
                   f"ark:{tmp_path}/no.ark")
    assert text.startswith("the network has no node 'tdnnf7'; it has ivector input lda tdnn1 tdnnf2")
    assert not list(tmp_path.glob("*no.ark*"))


def test_what_is_done_to_the_output(tmp_path):
    """Priors, scale and exponential; i-vectors of speakers."""
    feats, ivectors = EXPECTED["feats/spk1-u4"], EXPECTED["ivectors/spk1-u4"]
    with MatrixWriter(f"ark:{tmp_path}/feats.ark", compress=False) as writer:
        writer.write("u", feats)
    (tmp_path / "ivectors.txt").write_text("s [ " + " ".join(f"{x:.9g}" for x in ivectors[-1]) + " ]\n")
    (tmp_path / "utt2spk").write_text("u s\n")
    nnet = read_nnet(GOLDEN / "final.mdl")
    priors = np.linspace(0.1, 1, 80, dtype=np.float32)
    write_nnet(replace(nnet, priors=priors), tmp_path / "final.mdl", contexts=(9, 9))
    expected = compute(Nnet3(nnet), feats, ivectors[-1], ComputeConfig())
    given = ["nnet3", "compute", f"--ivectors=ark:{tmp_path}/ivectors.txt", f"--utt2spk=ark:{tmp_path}/utt2spk"]
    files = [tmp_path / "final.mdl", f"ark:{tmp_path}/feats.ark", f"ark:{tmp_path}/out.ark"]
    for options, wanted in (([], expected), (["--use-priors=true"], expected - np.log(priors)),
                            (["--use-priors", "--acoustic-scale=0.1"], 0.1 * (expected - np.log(priors))),
                            (["--apply-exp", "true"], np.exp(expected))):
        assert run(*given, *options, *files)[0] == 0
        np.testing.assert_allclose(dict(read_mats(f"ark:{tmp_path}/out.ark"))["u"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config, what", [
    ("<Nnet3>\ninput-node name=input dim=2\n\n", "expected '<Nnet3> ' and the end of the line"),
    ("<Nnet3> \n\n<NumComponents> 0 </Nnet3> ", "has no nodes"),
])
def test_odd_files(tmp_path, config, what):
    (tmp_path / "a.raw").write_text(config)
    with pytest.raises(PyserError, match=what):
        Nnet3(read_nnet(tmp_path / "a.raw"), "a.raw")


def test_odd_files_that_are_fine(tmp_path):
    """Line ends of another system, comments, tabs, quotes and white space in the middle."""
    text = ("<Nnet3> \r\ninput-node name=input dim=2\r\n  \r\ncomponent-node\tname=a component=c  input=\"Sum(input,"
            "Offset(input, 1))\" # so\r\n\r\n<NumComponents> 1\n<ComponentName> c <NoOpComponent> <Dim> 2 "
            "<BackpropScale> 1 </NoOpComponent>\n</Nnet3>")
    (tmp_path / "a.raw").write_bytes(text.encode())
    nnet = read_nnet(tmp_path / "a.raw")
    assert nnet.config() == ("input-node name=input dim=2\n"
                             "component-node name=a component=c input=Sum(input, Offset(input, 1))\n")
    assert Nnet3(nnet).context("a") == (0, 1)


# the network trained here

@pytest.mark.parametrize("more", [{}, {"ivector_dim": 0}, {"strides": (3, 1), "bypass_scale": 0.75}])
def test_tdnnf_there_and_back(tmp_path, more):
    config = TdnnfConfig(**{**CONFIG.__dict__, **more})
    model = network(config)
    nnet = to_nnet3(model)
    write_nnet(nnet, tmp_path / "final.raw")
    again = model_io.load_tdnnf(tmp_path / "final.raw")
    assert again.config == config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    for subsampling in (1, 3):
        x = torch.randn(3, model.left_context + 12 + model.right_context, 5)
        ivector = torch.randn(3, config.ivector_dim) if config.ivector_dim else None
        with torch.no_grad():
            expected = model(x, ivector, subsampling)
            for name, value in zip(("output", "output-xent"), expected, strict=True):
                found = Nnet3(nnet)(x.transpose(0, 1), ivector, name, subsampling).transpose(0, 1)
                torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-3)
    assert Nnet3(nnet).context("output") == (model.left_context, model.right_context)


def test_kaldis_tdnnf_can_be_trained_on():
    """The golden network has the layers of run_tdnn_1g.sh: as a TDNN-F it gives Kaldi's outputs."""
    model = model_io.load_tdnnf(GOLDEN / "final.mdl")
    assert model.config.strides == (1, 1, 0, 3, 3) and model.config.num_pdfs == 80
    feats, ivectors = EXPECTED["feats/spk1-u4"], EXPECTED["ivectors/spk1-u4"]
    x = torch.from_numpy(feats[np.arange(-9, 28 + 9).clip(0, 27)])[None]
    with torch.no_grad():
        output = model(x, torch.from_numpy(ivectors[1:2]))[0][0].numpy()
    assert np.abs(output - EXPECTED["nnet3/output_fpc50/spk1-u4"]).max() < 3e-5
    with pytest.raises(PyserError, match="noivector.raw: not the layers of run_tdnn_1g.sh .* not trained or decoded"):
        model_io.load_tdnnf(GOLDEN / "noivector.raw")


def test_from_nnet3_refuses_other_batch_norms():
    nnet = to_nnet3(network())
    nnet.components["tdnnf2.batchnorm"].fields["TargetRms"] = 0.5
    with pytest.raises(PyserError, match="target-rms 0.5"):
        from_nnet3(nnet)


def test_run_tdnn_1g_in_kaldis_eyes():
    nnet = to_nnet3(TdnnF(TdnnfConfig()))
    model = Nnet3(nnet)
    assert sum(p.numel() for p in model.parameters()) == 9_431_072
    assert [model.dim(name) for name in ("lda", "tdnnf12", "tdnnf12.linear", "prefinal-l", "output")] == \
        [220, 1024, 128, 256, 3600]
    assert model.context("output") == (28, 28) and model.context("tdnnf12.noop") == (25, 25)


# damaged files

def test_an_unknown_component_is_named(tmp_path):
    data = (GOLDEN / "noivector.raw").read_bytes().replace(b"<NoOpComponent>", b"<MyOpComponent>", 1)
    (tmp_path / "a.raw").write_bytes(data)
    what = "component 'tdnnf3.noop' of node 'tdnnf3.noop' is a <MyOpComponent>, which pyser does not know"
    with pytest.raises(PyserError, match=f"^{tmp_path}/a.raw: .*{what}"):
        read_nnet(tmp_path / "a.raw")
    data = (GOLDEN / "noivector.raw").read_bytes().replace(b"<BackpropScale>", b"<BackpropScala>", 1)
    (tmp_path / "a.raw").write_bytes(data)
    with pytest.raises(PyserError, match="a field of NoOpComponent 'tdnnf3.noop', not '<BackpropScala>'"):
        read_nnet(tmp_path / "a.raw")


@pytest.mark.parametrize("kept", [0, 1, 2, 10, 400, 1500, 100_000, -4])
def test_truncated(tmp_path, kept):
    for name in ("final.mdl", "noivector.raw"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes()[:kept])
        with pytest.raises(PyserError, match=f"^{tmp_path}/{name}: "):
            read_nnet(tmp_path / name)


def test_absurd_sizes(tmp_path):
    data = (GOLDEN / "noivector.raw").read_bytes()
    at = data.index(b"FM \4") + 4
    (tmp_path / "a.raw").write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4:])
    with pytest.raises(PyserError, match="expected .* numbers"):
        read_nnet(tmp_path / "a.raw")
    at = data.index(b"<NumComponents> ") + 17
    (tmp_path / "a.raw").write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4:])
    with pytest.raises(PyserError, match="expected <ComponentName>"):
        read_nnet(tmp_path / "a.raw")


@settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 10**6), new=st.binary(min_size=0, max_size=8), removed=st.integers(0, 8), binary=st.booleans())
def test_damage_is_one_line(tmp_path_factory, place, new, removed, binary):
    path = tmp_path_factory.mktemp("fuzz") / "a.raw"
    whole = WHOLE[binary]
    place %= len(whole)
    path.write_bytes(whole[:place] + new + whole[place + removed :])
    try:
        network = Nnet3(read_nnet(path), str(path))
        compute(network, np.zeros((3, 2), np.float32), np.zeros((1, 1), np.float32), ComputeConfig())
    except PyserError as error:
        assert "\n" not in str(error)


def _whole(binary):
    import tempfile

    small = TdnnfConfig(feat_dim=2, ivector_dim=1, dim=3, bottleneck_dim=2, prefinal_dim=2, strides=(1,), num_pdfs=2)
    with tempfile.TemporaryDirectory() as folder:
        write_nnet(to_nnet3(network(small)), Path(folder) / "a.raw", binary)
        return (Path(folder) / "a.raw").read_bytes()


WHOLE = {binary: _whole(binary) for binary in (True, False)}
