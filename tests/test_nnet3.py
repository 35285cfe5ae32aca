"""Kaldi's nnet3 networks: outputs of every node against Kaldi's own, and networks made up to reach every descriptor."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pyser.errors import PyserError
from pyser.kaldi.nnet3.component import Component
from pyser.kaldi.nnet3.descriptor import parse
from pyser.kaldi.nnet3.nnet import Nnet, parse_config, read_nnet
from pyser.nn.components import make_layer
from pyser.nn.compute import ComputeConfig, compute
from pyser.nn.nnet3 import Nnet3

GOLDEN = Path(__file__).parent / "golden" / "nnet3"
EXPECTED = np.load(GOLDEN / "expected.npz")
CASES = [name for name in EXPECTED.files if name.startswith("nnet3")]


@pytest.fixture(scope="module")
def networks():
    return {"nnet3": Nnet3(read_nnet(GOLDEN / "final.mdl")), "nnet3_noivector": Nnet3(read_nnet(GOLDEN / "noivector.raw"))}


@pytest.mark.parametrize("case", CASES)
def test_as_kaldi(networks, case):
    name, what, utt = case.split("/")
    config = ComputeConfig(what.removeprefix("node_") if "node_" in what else "output", 150 if "fpc150" in what else 50,
                           3 if "sub3" in what else 1)
    ivectors = EXPECTED[f"ivectors/{utt}"] if name == "nnet3" else None
    output = compute(networks[name], EXPECTED[f"feats/{utt}"], ivectors, config)
    assert output.shape == EXPECTED[case].shape
    assert np.abs(output - EXPECTED[case]).max() < 3e-5


def test_info(networks):
    ours = [line for line in networks["nnet3"].info().splitlines() if not line.startswith("component name")]
    assert ours == (GOLDEN / "info.txt").read_text().splitlines()
    assert networks["nnet3_noivector"].context("output") == (8, 9)


def test_gradients_flow_and_nothing_is_overwritten(networks):
    """The module can be trained: the same output with and without gradients, and every parameter of the path has one."""
    model = Nnet3(read_nnet(GOLDEN / "noivector.raw"))
    x = torch.randn(30, 2, 40, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    with torch.no_grad():
        quick = model(x, None, "output")
    y = model(x, None, "output")
    torch.testing.assert_close(y, quick, rtol=1e-4, atol=1e-4)
    assert torch.equal(x, kept)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_short_utterances_together(networks):
    """Chunks of the same length from different utterances are one batch: no utterance sees another."""
    from pyser.nn.compute import compute_batch

    feats = [EXPECTED["feats/spk3-u3"][:n] for n in (5, 60, 99, 5)]
    ivectors = [EXPECTED["ivectors/spk3-u3"], EXPECTED["ivectors/spk3-u3"][::-1].copy()] * 2
    config = ComputeConfig("tdnnf5")
    for i, output in enumerate(compute_batch(networks["nnet3"], feats, ivectors, config)):
        np.testing.assert_allclose(output, compute(networks["nnet3"], feats[i], ivectors[i], config), atol=2e-5)


def test_one_ivector_for_the_utterance(networks):
    feats, ivectors = EXPECTED["feats/spk3-u3"], EXPECTED["ivectors/spk3-u3"]
    last = compute(networks["nnet3"], feats, ivectors, ComputeConfig("tdnnf5", fast=True))
    np.testing.assert_allclose(last, compute(networks["nnet3"], feats, ivectors[-1], ComputeConfig("tdnnf5")), atol=2e-5)
    np.testing.assert_allclose(last, compute(networks["nnet3"], feats, ivectors[-1:].repeat(10, 0), ComputeConfig("tdnnf5")),
                               atol=2e-5)


def test_bfloat16_is_close():
    model = Nnet3(read_nnet(GOLDEN / "final.mdl")).bfloat16()
    feats, ivectors = EXPECTED["feats/spk3-u3"], EXPECTED["ivectors/spk3-u3"]
    output, exact = compute(model, feats, ivectors, ComputeConfig()), EXPECTED["nnet3/output_fpc50/spk3-u3"]
    assert output.dtype == np.float32 and 1e-4 < np.abs(output - exact).mean() < 0.03 * exact.std()


# descriptors: networks without components to speak of, computed frame by frame by hand

X = np.arange(1.0, 13.0, dtype=np.float32).reshape(6, 2)
WIDE = np.arange(-3, 9).clip(0, 5)  # frame 0 is WIDE[3]


def of(descriptor, frames=6, step=1, dim=2):
    """The descriptor over an input of 6 frames with repeated edges; frame t of it is X[t]."""
    config = f"input-node name=input dim=2\ncomponent-node name=same component=same input={descriptor}\n"
    model = Nnet3(Nnet(parse_config(config, "test"), {"same": Component("NoOpComponent", {"Dim": dim})}))
    left, right = model.context("same")
    x = torch.from_numpy(X[np.arange(-left, frames + right).clip(0, 5)])[:, None]
    with torch.no_grad():
        return model(x, None, "same", step)[:, 0].numpy(), (left, right)


@pytest.mark.parametrize("descriptor, context, expected", [
    ("input", (0, 0), X),
    ("Offset(input, -1)", (1, 0), X[[0, 0, 1, 2, 3, 4]]),
    ("Offset(Offset(input, 3), -1)", (0, 2), X[[2, 3, 4, 5, 5, 5]]),
    ("Sum(input, Offset(input, 1))", (0, 1), X + X[[1, 2, 3, 4, 5, 5]]),
    ("Sum(Scale(0.5, input), Scale(-2, input), Const(1.5, 2))", (0, 0), -1.5 * X + 1.5),
    ("Scale(2, Sum(input, input))", (0, 0), 4 * X),
    ("ReplaceIndex(input, t, 0)", (0, 0), X[[0] * 6]),
    ("Sum(input, ReplaceIndex(input, t, 1))", (0, 0), X + X[1]),
    ("Round(input, 3)", (2, 0), X[[0, 0, 0, 3, 3, 3]]),
    ("Round(Offset(input, 1), 2)", (0, 1), X[[1, 1, 3, 3, 5, 5]]),
    ("Switch(input, Offset(input, 1), Const(0, 2))", (0, 1), np.stack([X[0], X[2], 0 * X[0], X[3], X[5], 0 * X[0]])),
    ("IfDefined(Offset(input, -1))", (0, 0), np.concatenate([0 * X[:1], X[:5]])),
    ("Sum(input, IfDefined(Offset(input, 2)))", (0, 0), X + np.concatenate([X[2:], 0 * X[:2]])),
    ("Failover(Offset(input, 4), input)", (0, 0), X[[4, 5, 2, 3, 4, 5]]),
    ("Failover(Offset(input, 9), input)", (0, 0), X),
])
def test_descriptors(descriptor, context, expected):
    output, found = of(descriptor)
    assert found == context
    np.testing.assert_allclose(output, expected)
    np.testing.assert_allclose(of(descriptor, step=2)[0] if "Round" not in descriptor else expected[::2], expected[::2])


@pytest.mark.parametrize("descriptor, chunk, expected", [
    ("Round(input, 2)", 1, X[[0, 0, 2, 2, 4, 4]]), ("Round(input, 3)", 4, X[[0, 0, 0, 3, 3, 3]]),
    ("Switch(input, Offset(input, -1), Offset(input, 2))", 4, X[[0, 0, 4, 3, 3, 5]]),
])
def test_chunks_begin_at_multiples_of_the_modulus(descriptor, chunk, expected):
    model = Nnet3(Nnet(parse_config(f"input-node name=input dim=2\noutput-node name=output input={descriptor}", "test"), {}))
    np.testing.assert_array_equal(compute(model, X, None, ComputeConfig(frames_per_chunk=chunk)), expected)


@pytest.mark.parametrize("descriptor, frames, expected", [
    ("Sum(input, IfDefined(Offset(input, -3)))", 3, X[:3]),  # nowhere there: zeros
    ("Append(IfDefined(Offset(input, -3)), input)", 2, np.concatenate([0 * X[:2], X[:2]], 1)),
    ("Failover(input, Offset(input, -5))", 6, X),  # the second is never wanted
    ("Sum(Failover(input, Offset(input, -5)), IfDefined(Offset(input, -2)))", 6, X + np.concatenate([0 * X[:2], X[:4]])),
    ("Switch(input, Const(1, 2))", 1, X[:1]),
    ("Const(1.5, 3)", 2, np.full((2, 3), 1.5)),
])
def test_branches_that_are_not_there(descriptor, frames, expected):
    output, context = of(descriptor, frames, dim=expected.shape[1])
    assert context == (0, 0)
    np.testing.assert_allclose(output, expected)
    if "Switch" in descriptor:
        np.testing.assert_allclose(of(descriptor, 6, step=2)[0], X[::2])


def test_context_of_a_switch():
    """Frames whose turn it is for the furthest source are lost, and all beyond the first of them."""
    output, context = of("Switch(input, Offset(input, -1), Offset(input, 2))", 7)
    assert context == (1, 2) and len(output) == 7


@pytest.mark.parametrize("descriptor", ["Offset(input, 999999)", "Round(input, 100000)"])
def test_absurd_contexts_end(descriptor):
    with pytest.raises(PyserError, match="cannot be computed from 2560 frames|modulus of 100000"):
        of(descriptor)


def test_a_constant_stays_constant():
    config = """input-node name=input dim=2
component-node name=one component=one input=input
component-node name=relu component=relu input=one
component-node name=a__b component=a__b input=relu
component-node name=a.b component=a.b input=a__b
output-node name=output input=a.b"""
    components = {"one": Component("ConstantFunctionComponent", {"InputDim": 2, "Output": np.array([-1.0, 2.0])}),
                  "relu": Component("RectifiedLinearComponent", {"Dim": 2}),
                  "a__b": Component("FixedScaleComponent", {"Scales": np.array([2.0, 2.0])}),
                  "a.b": Component("FixedScaleComponent", {"Scales": np.array([10.0, 10.0])})}
    model = Nnet3(Nnet(parse_config(config, "test"), components))
    for _ in range(2):
        assert compute(model, X, None, ComputeConfig()).tolist() == [[0, 40]] * 6


@pytest.mark.parametrize("name", ["frames_per_chunk", "frame_subsampling_factor", "online_ivector_period"])
def test_options_below_one(name):
    with pytest.raises(PyserError, match=f"--{name.replace('_', '-')}=0: expected at least 1"):
        ComputeConfig(**{name: 0})


def test_append_of_parts():
    output, context = of("Append(Offset(input, -1), Append(input, ReplaceIndex(input, t, 0)), Const(7, 1))", dim=7)
    assert context == (1, 0)
    np.testing.assert_allclose(output, np.concatenate([X[[0, 0, 1, 2, 3, 4]], X, X[[0] * 6], np.full((6, 1), 7)], 1))


@pytest.mark.parametrize("text, what", [
    ("Append(a, b", "expected '\\)', found ''"), ("Offset(a, x)", "expected a number, found 'x'"), ("", "name of a node"),
    ("Maybe(a)", "no descriptor is called Maybe"), ("a b", "expected the end"), ("Offset(a)", "expected ',', found '\\)'"),
    ("ReplaceIndex(a, y, 0)", "expected t or x"), ("Sum(" * 300, "more than 100 descriptors"), ("Round(a, 0)", "a number"),
    ("Const(1, -1)", "a number"),
    ("Scale(nan, a)", "a number"), ("Offset(a, 1_0)", "a number"), ("a %", "found '%'"),
])
def test_bad_descriptors(text, what):
    with pytest.raises(ValueError, match=what):
        parse(text)


def test_a_shared_tensor_is_not_overwritten():
    """`a` is read by the identity `b` and again, later, by `d`; the ReLU of `c` must not write into it."""
    config = """input-node name=input dim=2
component-node name=a component=minus input=input
component-node name=b component=same input=a
component-node name=c component=relu input=b
component-node name=e component=relu input=input
component-node name=d component=same input=Sum(a, Sum(c, e))
output-node name=output input=d
dim-range-node name=r input-node=a dim-offset=1 dim=1"""
    minus = Component("PerElementScaleComponent", {"Params": np.array([-1.0, 1.0], np.float32)})
    components = {"minus": minus, "same": Component("NoOpComponent", {"Dim": 2}),
                  "relu": Component("RectifiedLinearComponent", {"Dim": 2})}
    model = Nnet3(Nnet(parse_config(config, "test"), components))
    x = torch.tensor([[[1.0, -2.0]], [[-3.0, 4.0]]])
    with torch.no_grad():
        a = x * torch.tensor([-1.0, 1.0])
        assert torch.equal(model(x.clone(), None, "output"), a + a.relu() + x.relu())
        assert torch.equal(model(x.clone(), None, "r"), a[:, :, 1:])
        assert torch.equal(model(x.clone(), None, "c"), a.relu())


@pytest.mark.parametrize("config, what", [
    ("component-node name=a component=c input=b", "node a reads 'b', and there is no such node"),
    ("input-node name=input dim=2\ninput-node name=input dim=2", "two nodes are called input"),
    ("input-node name=input", "dim= is missing"), ("input-node name=input dim=x", "a number above 0, found 'x'"), 
    ("input-node name=input dim=0", "above 0"),
    ("input-node name=input dim=1\noutput-node name=o input=input objective=o", "neither linear nor quadratic"),
    ("some-node name=a", "expected input-node, component-node"),
])
def test_bad_configs(config, what):
    with pytest.raises(PyserError, match=what):
        parse_config(config, "test")


def test_networks_that_do_not_fit():
    same = {"same": Component("NoOpComponent", {"Dim": 3})}
    for config, what in (
        ("input-node name=input dim=2\ncomponent-node name=a component=same input=input",
         "node a reads 2 columns, its component same takes 3"),
        ("input-node name=input dim=3\ncomponent-node name=a component=same input=Sum(input, Offset(a, -1))",
         "node a reads its own output"),
        ("input-node name=input dim=3\ncomponent-node name=a component=same input=Sum(input, b)\n"
         "component-node name=b component=same input=a", "node . reads its own output"),
        ("input-node name=input dim=3\ndim-range-node name=a input-node=input dim-offset=2 dim=2",
         "columns that input does not"),
        ("input-node name=input dim=3\ncomponent-node name=a component=same input=Sum(input, Const(1, 2))",
         "node a: .* joins 3 and 2 columns"),
    ):
        with pytest.raises(PyserError, match=f"^some.raw: .*{what}"):
            Nnet3(Nnet(parse_config(config, "some.raw"), same), "some.raw")


# components, against their definitions

def layer(kind, x, **fields):
    made = make_layer(Component(kind, fields), "name")
    assert made.in_dim == x.shape[1]
    with torch.no_grad():
        y = made(torch.from_numpy(x.astype(np.float32))[:, None])[:, 0].numpy()
        again = made(torch.from_numpy(x.astype(np.float32))[:, None].clone(), overwrite=True)[:, 0].numpy()
    assert y.shape == (len(x), made.out_dim)
    np.testing.assert_array_equal(y, again)
    return y


def test_components():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6))
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    w, b = f(4, 6), f(4)
    for kind in ("AffineComponent", "NaturalGradientAffineComponent", "FixedAffineComponent"):
        close(layer(kind, x, LinearParams=w, BiasParams=b), x @ w.T + b)
    close(layer("LinearComponent", x, Params=w), x @ w.T)
    w, b = f(2, 3), f(2)
    y = np.concatenate([x[:, :3] @ w.T + b, x[:, 3:] @ w.T + b], 1)
    close(layer("RepeatedAffineComponent", x, NumRepeats=2, LinearParams=w, BiasParams=b), y)
    w, b = f(4, 3), f(4)
    y = np.concatenate([x[:, :3] @ w[:2].T, x[:, 3:] @ w[2:].T], 1) + b
    close(layer("BlockAffineComponent", x, NumBlocks=2, LinearParams=w, BiasParams=b), y)
    s, o = f(6), f(6)
    close(layer("PerElementScaleComponent", x, Params=s), x * s)
    close(layer("FixedScaleComponent", x, Scales=s), x * s)
    close(layer("FixedBiasComponent", x, Bias=o), x + o)
    close(layer("PerElementOffsetComponent", x, Offsets=o[:3], Dim=6), x + np.tile(o[:3], 2))
    close(layer("ScaleAndOffsetComponent", x, Dim=6, Scales=s[:2], Offsets=o[:2]), x * np.tile(s[:2], 3) + np.tile(o[:2], 3))
    mean, var = f(3), f(3) ** 2
    y = 0.5 * (x - np.tile(mean, 2)) / np.sqrt(np.tile(var, 2) + 0.01)
    close(layer("BatchNormComponent", x, Dim=6, BlockDim=3, Epsilon=0.01, TargetRms=0.5, Count=9, StatsMean=mean,
                StatsVar=var), y)
    rms = np.sqrt((x**2).mean(1, keepdims=True))
    y = np.concatenate([2 * x / rms, np.log(rms)], 1)
    close(layer("NormalizeComponent", x, InputDim=6, TargetRms=2.0, AddLogStddev=True), y)
    rms = np.sqrt((x.reshape(5, 2, 3) ** 2).mean(2, keepdims=True))
    close(layer("NormalizeComponent", x, Dim=6, BlockDim=3), (x.reshape(5, 2, 3) / rms).reshape(5, 6))
    assert np.isfinite(layer("NormalizeComponent", 0 * x, Dim=6)).all()
    e = np.exp(x)
    close(layer("SoftmaxComponent", x, Dim=6), e / e.sum(1, keepdims=True))
    close(layer("LogSoftmaxComponent", x, Dim=6), x - np.log(e.sum(1, keepdims=True)))
    close(layer("SigmoidComponent", x, Dim=6), 1 / (1 + np.exp(-x)))
    close(layer("TanhComponent", x, Dim=6), np.tanh(x))
    close(layer("RectifiedLinearComponent", x, Dim=6), np.maximum(x, 0))
    close(layer("PnormComponent", x, InputDim=6, OutputDim=2), np.sqrt((x.reshape(5, 2, 3) ** 2).sum(2)))
    close(layer("SumGroupComponent", x, Sizes=np.array([1, 3, 2])), np.stack([x[:, 0], x[:, 1:4].sum(1), x[:, 4:].sum(1)], 1))
    close(layer("SumBlockComponent", x, InputDim=6, OutputDim=3, Scale=0.5), 0.5 * (x[:, :3] + x[:, 3:]))
    close(layer("ElementwiseProductComponent", x, InputDim=6, OutputDim=3), x[:, :3] * x[:, 3:])
    order = np.array([5, 0, 3, 1, 2, 4])
    close(layer("PermuteComponent", x, ColumnMap=order), x[:, order])
    close(layer("ConstantFunctionComponent", x, InputDim=6, Output=s[:2]), np.tile(s[:2], (5, 1)))
    close(layer("DropoutComponent", x, Dim=6, DropoutProportion=0.2), 0.8 * x)
    close(layer("BackpropTruncationComponent", x, Dim=6, Scale=0.5), 0.5 * x)
    for kind in ("DropoutComponent", "GeneralDropoutComponent", "SpecAugmentTimeMaskComponent", "NoOpComponent",
                 "ClipGradientComponent", "BackpropTruncationComponent"):
        close(layer(kind, x, Dim=6), x)
    with pytest.raises(ValueError, match="never trained"):
        make_layer(Component("BatchNormComponent", {"Dim": 6, "StatsMean": f(0), "StatsVar": f(0)}), "name")
    statistics = {"Dim": 6, "Epsilon": 0.1, "TargetRms": 1.0, "StatsMean": s, "StatsVar": s}
    for kind, fields in (
        ("AffineComponent", {"BiasParams": b}), ("AffineComponent", {"LinearParams": w, "BiasParams": b[:2]}),
        ("AffineComponent", {"LinearParams": np.full((2, 2), np.nan), "BiasParams": b[:2]}),
        ("TdnnComponent", {"LinearParams": w, "BiasParams": b, "TimeOffsets": np.array([0, 1])}),
        ("BatchNormComponent", {**statistics, "BlockDim": 6, "Count": 0.0}),
        ("BatchNormComponent", {**statistics, "BlockDim": 3, "Count": 1.0}),
        ("NormalizeComponent", {"InputDim": 6, "BlockDim": 4}), ("NormalizeComponent", {"InputDim": 6, "BlockDim": 0}),
        ("PermuteComponent", {"ColumnMap": np.array([0, 2])}), ("PnormComponent", {"InputDim": 6, "OutputDim": 4}),
        ("SumBlockComponent", {"InputDim": 6, "OutputDim": 3}), ("FixedScaleComponent", {"Scales": s[:0]}),
        ("ScaleAndOffsetComponent", {"Dim": 4, "Scales": s[:3], "Offsets": s[:3]}), ("NoOpComponent", {"Dim": 0}),
        ("SumGroupComponent", {"Sizes": np.array([1, 0])}), ("TanhComponent", {}),
    ):
        with pytest.raises(ValueError, match=f"component 'name' \\({kind}\\)"):
            make_layer(Component(kind, fields), "name")


@pytest.mark.parametrize("inputs, out", [(3, 40), (40, 3)])  # copied together first, and multiplied one by one
def test_tdnn_component_of_several_frames_and_parts(inputs, out):
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(out, 2 * (inputs + 1))).astype(np.float32), rng.normal(size=out).astype(np.float32)
    component = Component("TdnnComponent", {"TimeOffsets": np.array([-1, 2]), "LinearParams": weight, "BiasParams": bias})
    config = (f"input-node name=input dim={inputs}\ninput-node name=ivector dim=1\n"
              "component-node name=a component=c input=Append(input, ReplaceIndex(ivector, t, 0))")
    model = Nnet3(Nnet(parse_config(config, "test"), {"c": component}))
    assert model.context("a") == (1, 2)
    x, ivector = rng.normal(size=(7, 2, inputs)).astype(np.float32), rng.normal(size=(2, 1)).astype(np.float32)
    both = np.concatenate([x, np.repeat(ivector[None], 7, 0)], 2)
    expected = np.concatenate([both[:4], both[3:]], 2) @ weight.T + bias
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            y = model(torch.from_numpy(x), torch.from_numpy(ivector), "a")
            np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
