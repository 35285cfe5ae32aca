"""The components of a network as the file holds them: a type and its fields in order, `<LinearParams>` and so on
(nnet3/nnet-simple-component.cc and its neighbours). What they compute is in pyser/nn/nnet3.py.

Fields come and go with Kaldi's versions, so any known field may stand in any place and is written back where it stood.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer

UPDATABLE = "LearningRateFactor IsGradient MaxChange L2Regularize LearningRate"
NONLINEAR = ("Dim BlockDim ValueAvg DerivAvg Count OderivRms OderivCount NumDimsSelfRepaired NumDimsProcessed "
             "SelfRepairLowerThreshold SelfRepairUpperThreshold SelfRepairScale")
NATURAL_GRADIENT = "RankIn RankOut UpdatePeriod NumSamplesHistory Alpha MaxChangePerSample"

# Type -> the fields it may have.
FIELDS = {
    "AffineComponent": f"{UPDATABLE} LinearParams BiasParams OrthonormalConstraint",
    "NaturalGradientAffineComponent": f"{UPDATABLE} LinearParams BiasParams OrthonormalConstraint {NATURAL_GRADIENT} "
                                      "UpdateCount ActiveScalingCount MaxChangeScaleStats",
    "BlockAffineComponent": f"{UPDATABLE} NumBlocks LinearParams BiasParams",
    "RepeatedAffineComponent": f"{UPDATABLE} NumRepeats LinearParams BiasParams",
    "NaturalGradientRepeatedAffineComponent": f"{UPDATABLE} NumRepeats LinearParams BiasParams",
    "LinearComponent": f"{UPDATABLE} Params OrthonormalConstraint UseNaturalGradient RankInOut Alpha NumSamplesHistory "
                       "UpdatePeriod",
    "TdnnComponent": f"{UPDATABLE} TimeOffsets LinearParams BiasParams OrthonormalConstraint UseNaturalGradient "
                     "NumSamplesHistory AlphaInOut Alpha RankInOut",
    "FixedAffineComponent": "LinearParams BiasParams",
    "FixedScaleComponent": "Scales",
    "FixedBiasComponent": "Bias",
    "PerElementScaleComponent": f"{UPDATABLE} Params",
    "NaturalGradientPerElementScaleComponent": f"{UPDATABLE} Params Rank UpdatePeriod NumSamplesHistory Alpha "
                                               "MaxChangePerMinibatch",
    "PerElementOffsetComponent": f"{UPDATABLE} Offsets Dim UseNaturalGradient",
    "ScaleAndOffsetComponent": f"{UPDATABLE} Dim Scales Offsets UseNaturalGradient Rank",
    "ConstantFunctionComponent": f"{UPDATABLE} InputDim Output IsUpdatable UseNaturalGradient",
    "ConstantComponent": f"{UPDATABLE} Output IsUpdatable UseNaturalGradient",
    "RectifiedLinearComponent": NONLINEAR,
    "SigmoidComponent": NONLINEAR,
    "TanhComponent": NONLINEAR,
    "SoftmaxComponent": NONLINEAR,
    "LogSoftmaxComponent": NONLINEAR,
    "NoOpComponent": f"{NONLINEAR} BackpropScale",
    "BatchNormComponent": "Dim BlockDim Epsilon TargetRms TestMode Count StatsMean StatsVar",
    "NormalizeComponent": "Dim InputDim BlockDim TargetRms AddLogStddev ValueAvg DerivAvg Count",
    "DropoutComponent": "Dim DropoutProportion DropoutPerFrame TestMode",
    "GeneralDropoutComponent": "Dim BlockDim TimePeriod DropoutProportion SpecAugmentMaxProportion SpecAugmentMaxRegions "
                               "TestMode Continuous",
    "SpecAugmentTimeMaskComponent": "Dim ZeroedProportion TimeMaskMaxFrames TestMode",
    "ClipGradientComponent": "Dim ClippingThreshold NormBasedClipping SelfRepairClippedProportionThreshold SelfRepairTarget "
                             "SelfRepairScale NumElementsClipped NumElementsProcessed NumSelfRepaired NumBackpropped",
    "BackpropTruncationComponent": "Dim Scale ClippingThreshold ZeroingThreshold ZeroingInterval RecurrenceInterval "
                                   "NumElementsClipped NumElementsZeroed NumElementsProcessed NumZeroingBoundaries",
    "PnormComponent": "InputDim OutputDim",
    "SumGroupComponent": "Sizes",
    "SumBlockComponent": "InputDim OutputDim Scale",
    "ElementwiseProductComponent": "InputDim OutputDim",
    "PermuteComponent": "ColumnMap",
}

# How a field is written; those not named here are numbers of single precision.
KINDS = {
    "matrix": "LinearParams",
    "vector": "BiasParams Scales Bias Offsets Output ValueAvg DerivAvg OderivRms StatsMean StatsVar",
    "integers": "TimeOffsets Sizes ColumnMap",
    "integer": "Dim BlockDim InputDim OutputDim TimePeriod SpecAugmentMaxRegions RankIn RankOut Rank UpdatePeriod NumBlocks "
               "NumRepeats TimeMaskMaxFrames ZeroingInterval RecurrenceInterval",
    "two integers": "RankInOut",
    "two numbers": "AlphaInOut",
    "boolean": "IsGradient UseNaturalGradient IsUpdatable AddLogStddev DropoutPerFrame NormBasedClipping TestMode",
    "flag": "Continuous",
    "double": "Count OderivCount NumDimsSelfRepaired NumDimsProcessed UpdateCount ActiveScalingCount MaxChangeScaleStats "
              "NumElementsClipped NumElementsZeroed NumElementsProcessed NumSelfRepaired NumBackpropped NumZeroingBoundaries",
}
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
_EXCEPTIONS = {
    ("LinearComponent", "Params"): "matrix",
    ("PerElementScaleComponent", "Params"): "vector",
    ("NaturalGradientPerElementScaleComponent", "Params"): "vector",
    ("ClipGradientComponent", "NumElementsClipped"): "integer",
    ("ClipGradientComponent", "NumElementsProcessed"): "integer",
    ("ClipGradientComponent", "NumSelfRepaired"): "integer",
    ("ClipGradientComponent", "NumBackpropped"): "integer",
    ("GeneralDropoutComponent", "TestMode"): "flag",
    ("SpecAugmentTimeMaskComponent", "TestMode"): "flag",
}


@dataclass
class Component:
    """`type` as `TdnnComponent`; `fields` from names without brackets to numbers, booleans or arrays (matrices and
    vectors float32, integer vectors int32)."""

    type: str
    fields: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(name, default)


def _kind(type_: str, name: str) -> str:
    return _EXCEPTIONS.get((type_, name)) or _KIND_OF.get(name, "number")


def read_component(reader: Reader, name: str, nodes: str) -> Component:
    """The component that begins at the reader's place; its name and its nodes are for the message if it is not known."""
    opening = reader.token()
    component = Component(opening.strip("<>"))
    if component.type not in FIELDS:
        raise PyserError(f"{reader.path}: component '{name}' of node '{nodes}' is a {opening[:60]}, which pyser does not "
                         "know; it computes feed-forward networks without convolutions")
    allowed = set(FIELDS[component.type].split())
    while True:
        token = reader.token()
        # (Kaldi's early versions closed some components with the opening tag.)
        if token in (f"</{component.type}>", opening):
            return component
        field_name = token.strip("<>")
        if field_name not in allowed or token != f"<{field_name}>":
            raise reader.fail(f"a field of {component.type} '{name}', not '{token[:40]}'")
        component.fields[field_name] = _read(reader, _kind(component.type, field_name))


def _read(reader: Reader, kind: str) -> Any:
    if kind == "matrix":
        return reader.matrix().astype(np.float32)
    if kind == "vector":
        return reader.vector().astype(np.float32)
    if kind == "integers":
        return reader.integers()
    if kind == "integer":
        return reader.int32()
    if kind == "two integers":
        return (reader.int32(), reader.int32())
    if kind == "two numbers":
        return (reader.real(), reader.real())
    if kind == "boolean":
        return reader.boolean()
    return True if kind == "flag" else reader.real()


def write_component(writer: Writer, component: Component) -> None:
    """Append the component, opening and closing tag included."""
    writer.token(f"<{component.type}>")
    for name, value in component.fields.items():
        writer.token(f"<{name}>")
        kind = _kind(component.type, name)
        if kind == "matrix":
            writer.matrix(value, "FM")
        elif kind == "vector":
            writer.vector(value, "FV")
        elif kind == "integers":
            writer.integers(value)
        elif kind in ("integer", "two integers"):
            for number in value if isinstance(value, tuple) else (value,):
                writer.int32(number)
        elif kind == "boolean":
            writer.boolean(value)
        elif kind == "double":
            writer.double(value)
        elif kind != "flag":
            for number in value if isinstance(value, tuple) else (value,):
                writer.real(number)
    writer.token(f"</{component.type}>")
