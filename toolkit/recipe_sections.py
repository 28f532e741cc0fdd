"""The sections of a recipe: every option with its limits, its default and its meaning, which stand nowhere else."""

import re
from math import isclose
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from modelpress.export.choices import (
    CALIBRATION_INPUTS,
    CALIBRATION_METHOD,
    CALIBRATION_PERCENTILE,
    CalibrationMethod,
    Effort,
)
from modelpress.export.errors import InputError
from modelpress.toolkit.byte_sizes import ByteSize, parse_size
from modelpress.toolkit.data.options import NormalisationOptions
from modelpress.toolkit.networks.names import NetworkName, Shortcut
from modelpress.toolkit.section import Fraction, Options, PositiveInt

Bits = Annotated[int, Field(ge=2, le=8)]
MagnitudeMethod = Literal["global-magnitude", "layer-magnitude", "layer-percentile"]
PenaltyMethod = Literal["proximal-l1", "trimmed-l1", "group-lasso", "l1-subgradient"]
PruneMethod = Literal[MagnitudeMethod, PenaltyMethod]
LayerBits = dict[str, Bits | Literal["float"]]


ROLE = "role:"  # before the part that a layer plays, in place of its name


_SHARE = r"^(\d+(\.\d+)?|\.\d+)x$"  # of what the full network costs
_COUNTS = {"k": 1e3, "M": 1e6, "G": 1e9}
_ARCHITECTURES = rf"^({'|'.join(get_args(NetworkName))}|(torchvision|timm)/[\w.]+)$"


class ModelOptions(Options):
    """Which network."""

    arch: Annotated[str, Field(pattern=_ARCHITECTURES)] = "resnet20"
    """resnet20, resnet32, resnet44 or resnet56; torchvision/NAME, or timm/NAME where timm is installed."""
    factory: str | None = None
    """A function of yours that makes the network, in place of arch: package.module:function, or file.py:function."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the factory, or of a library's network."""
    shortcut: Shortcut = "B"
    """Shortcut where the shape changes: A pads with zeros, B projects."""
    checkpoint: str | None = None
    """Trained weights to start from; without them the network is trained from scratch."""
    checkpoint_key: str | None = None
    """Where in the checkpoint the weights are, as in `ema`; without it at the usual places."""
    map_names: bool = False
    """Match layers of other names by their shapes and order, in checkpoint and teacher."""
    keep_zeros: bool = True
    """Weights that are zero in a checkpoint pruned elsewhere stay zero."""
    normalisation: NormalisationOptions | None = None
    """{mean, std} that a checkpoint from elsewhere was trained with; else the data set's."""
    teacher: str | None = None
    """Trained weights of the network to distil from; without them the one before pruning."""
    teacher_arch: Annotated[str, Field(pattern=_ARCHITECTURES)] | None = None
    """Architecture of a teacher from elsewhere; else as arch."""
    teacher_shortcut: Shortcut | None = None
    """Shortcut of a teacher from elsewhere; else as shortcut."""
    teacher_normalisation: NormalisationOptions | None = None
    """{mean, std} that a teacher from elsewhere was trained with; else the data set's."""

    @property
    def is_ours(self) -> bool:
        """Whether the network is one that this toolkit brings."""
        return self.factory is None and self.arch in get_args(NetworkName)

    @property
    def of_teacher(self) -> "ModelOptions":
        """The teacher as a network of its own."""
        return ModelOptions(
            arch=self.teacher_arch or self.arch,
            factory=None if self.teacher_arch else self.factory,
            arguments={} if self.teacher_arch else self.arguments,
            shortcut=self.teacher_shortcut or self.shortcut,
            checkpoint=self.teacher,
            map_names=self.map_names,
            normalisation=self.teacher_normalisation,
        )


class TrainingOptions(Options):
    """How weights are trained."""

    epochs: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Passes over the training images."""
    batch: PositiveInt = 128
    """Images per step."""
    accumulate: PositiveInt = 1
    """Parts that the batch of a step is computed in, one after the other, where it does not fit the memory."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum; or AdamW, whose rates are about a hundredth of those."""
    lr: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Highest learning rate."""
    schedule: Literal["cosine", "constant", "one-cycle", "step"] = "cosine"
    """Rate after the warm-up: cosine, constant, one-cycle (a rise first), or step (a tenth at 60 %, again at 85 %)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of all steps over which the rate rises linearly."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum; of AdamW the decay of the mean gradient."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """L2 penalty on all parameters; of AdamW the decay itself."""
    clip: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Longest gradient of a step, over all parameters; longer ones are shortened to it. 0: any."""
    early_stopping: Annotated[int, Field(ge=0, le=10_000)] = 0
    """End after so many epochs without a better figure on the validation examples, with the best weights; 0: never."""
    padding: Annotated[int, Field(ge=0, le=8)] = 4
    """Random crops shift the image by up to so many pixels."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of every label spread evenly over all classes."""
    distill_weight: Fraction = 0.0
    """Share of the loss that compares with the dense network's output."""
    distill_temperature: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Softens both outputs for that comparison."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of weights that the training ends with; 0: the last weights."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "TrainingOptions":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class FinetuneOptions(TrainingOptions):
    """How the compressed network is trained."""

    rate: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Price of the file's bytes in the loss, in nats per kilobyte; zeros and levels follow from it. 0: none."""
    target_bytes: ByteSize | None = None
    """Size of the file to train towards, as in 30kB: the price is found on the way, from `rate` where that is given."""
    rate_ramp: Fraction = 0.5
    """Share of the training over which the size falls to target_bytes."""

    @property
    def priced(self) -> bool:
        """Whether bytes have a price."""
        return self.rate > 0 or self.target_bytes is not None


class ExitOptions(TrainingOptions):
    """Early exits: where, how their heads are trained, and when an example leaves."""

    after: tuple[str, ...] = ()
    """Modules after which there is an exit, by name; none: the end of every stage, where images become smaller."""
    head: Literal["conv", "pool"] = "conv"
    """What makes classes of a block's output: two convolutions of stride 2 and a linear layer, or the mean and one."""
    training: Literal["joint", "frozen"] = "joint"
    """Heads and network are trained together; or heads alone, and the network is what it would be without them."""
    weight: Annotated[float, Field(gt=0, le=10)] = 0.3
    """Of each early exit's loss beside that of the last one."""
    epochs: Annotated[int, Field(ge=0, le=10_000)] = 6
    """Passes over the training images for the heads of a checkpoint without any; from scratch `train` trains them."""
    batch: PositiveInt = 64
    """Images per step."""
    lr: Annotated[float, Field(gt=0, le=10)] = 0.03
    """Highest learning rate."""
    padding: Annotated[int, Field(ge=0, le=8)] = 2
    """Random crops shift the image by up to so many pixels."""
    distill_last: Fraction = 0.5
    """Share of each early exit's loss that compares it with the last one, at distill_temperature."""
    rule: Literal["probability", "margin"] = "probability"
    """An example leaves where the largest probability, or its distance to the second, reaches the exit's threshold."""
    loss: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Points of top-1 that leaving early may cost on the held-out images, a standard error included."""
    overhead: Annotated[float, Field(ge=0, le=1)] = 0.06
    """What asking at an exit costs beside its head, in inferences of the network: of ResNet-20 in ONNX Runtime."""
    unseen: bool = False
    """The checkpoint was trained without the held-out images, though its file does not say so."""
    timed: PositiveInt = 1000
    """Test images that the network is timed on, one at a time, at most."""


class BudgetOptions(Options):
    """What the network may cost once channels are removed; one of these."""

    latency: Annotated[str, Field(pattern=_SHARE)] | None = None
    """Time of one example in ONNX Runtime on one thread of this machine, as in 0.75x: of the full network's."""
    macs: str | int | float | None = None
    """Multiplications for one example: 20M, 20_000_000, or 0.5x."""
    bytes: str | int | float | None = None
    """Size of the packed file, as it would be before the finetuning: 30kB, 30_000, or 0.5x."""

    @model_validator(mode="after")
    def _one_that_can_be_read(self) -> "BudgetOptions":
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"a budget is one of latency, macs and bytes; given: {', '.join(given) or 'none'}"
            )
        self.most(1.0)
        return self

    @property
    def of(self) -> str:
        """What is limited."""
        return next(name for name, value in self if value is not None)

    def most(self, full: float) -> float:
        """The limit, for a network that costs `full` as it is.

        Example:
            >>> BudgetOptions(macs="0.5x").most(300), BudgetOptions(bytes="30kB").most(60_000)
            (150.0, 30000.0)
        """
        value = str(getattr(self, self.of)).strip()
        share = re.fullmatch(_SHARE, value)
        if share is not None:
            if not 0 < float(value[:-1]) < 1:
                raise ValueError(f"{self.of} is {value}; expected less than 1x, and more than nothing")
            return float(value[:-1]) * full

        if re.fullmatch(r"-.*|0+", value):
            raise ValueError(f"{self.of} is {value}; expected more than nothing")
        counted = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG])", value)
        if self.of == "macs" and counted is not None:
            return float(counted[1]) * _COUNTS[counted[2]]
        if self.of == "macs" and not value.isdigit():
            raise ValueError(f"macs is {value!r}; expected a number, 20M, or a share as in 0.5x")
        try:
            return float(parse_size(value, "bytes"))
        except InputError as error:
            raise ValueError(f"{error}; or a share as in 0.5x") from error


class PruneOptions(Options):
    """Which weights are removed."""

    method: PruneMethod = "global-magnitude"
    """By magnitude, one threshold for all layers or one for each (the same share); or by a penalty in training."""
    sparsity: Fraction = 0.7
    """Fraction of weights removed; a penalty ends when it is reached (l1-subgradient: never). Or a budget."""
    budget: BudgetOptions | None = None
    """What the network may cost once channels are removed: {latency: 0.75x}, {macs: 20M} or {bytes: 30kB}."""
    branches: bool = False
    """Under a budget, residual branches may go altogether, and their additions with them."""
    latency_table: str | None = None
    """File that keeps measured latencies of layers and networks; without it one in your cache folder."""
    shrink: bool = True
    """Take whole channels that are removed out of the network, before it is finetuned and quantized."""
    exclude: tuple[str, ...] = (f"{ROLE}shortcut",)
    """Layers that stay dense: name patterns, or role:first, :last, :depthwise, :shortcut (projections of shortcuts)."""
    granularity: Annotated[str, Field(pattern=r"^(weight|channel|[1-9]\d?:[1-9]\d?)$")] = "weight"
    """weight, channel (whole output channels, with all that are coupled to them), or N:M as in 2:4."""
    multiple: PositiveInt = 1
    """Channels are removed so that widths are left at multiples of this; 8 is what hardware likes."""
    schedule: Literal["one-shot", "linear", "cubic"] = "one-shot"
    """By magnitude at once, before finetuning; or in steps during its first epochs."""
    epochs: PositiveInt = 10
    """Epochs of the finetuning over which a schedule rises."""
    updates_per_epoch: PositiveInt = 1
    """Steps of a schedule per epoch."""
    hold: bool = True
    """Weights removed by a step of a schedule stay removed; else only those of the last step."""
    penalty: Annotated[float, Field(gt=0, le=1e6)] = 0.2
    """Threshold of a step over its learning rate (group-lasso: for weights of square 1); or strength in the loss."""
    penalty_warmup: Fraction = 1.0
    """Fraction of the `sparsify` steps over which a penalty rises from zero."""

    @property
    def by_penalty(self) -> bool:
        """Whether the method needs training."""
        return self.method in get_args(PenaltyMethod)

    @property
    def scheduled(self) -> bool:
        """Whether weights are removed step by step during the finetuning."""
        return self.schedule != "one-shot" and self.sparsity > 0

    @property
    def of_channels(self) -> bool:
        """Whether whole channels are removed."""
        return self.granularity == "channel" or self.method == "group-lasso"

    @field_validator("granularity", mode="before")
    @classmethod
    def _pattern_that_yaml_read_as_a_number(cls, value: object) -> object:
        """YAML 1.1 takes 2:4 for 2 * 60 + 4."""
        return "{}:{}".format(*divmod(value, 60)) if type(value) is int and value > 60 else value

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> "PruneOptions":
        n, colon, m = self.granularity.partition(":")
        if colon and not int(n) < int(m):
            raise ValueError(
                f"granularity {self.granularity} keeps {n} of {m}: the first must be the smaller"
            )
        if colon and self.sparsity and not isclose(self.sparsity, 1 - int(n) / int(m), abs_tol=1e-6):
            raise ValueError(
                f"granularity {self.granularity} removes {1 - int(n) / int(m):g} of the weights, sparsity is "
                f"{self.sparsity:g}: set sparsity to {1 - int(n) / int(m):g}"
            )

        if self.multiple > 1 and self.granularity != "channel" and self.budget is None:
            raise ValueError(
                f"multiple is for granularity channel, or a budget; granularity is {self.granularity}"
            )
        if self.branches and self.budget is None:
            raise ValueError("branches are removed under a budget: set prune.budget as well")
        if self.budget is not None and (not self.of_channels or self.scheduled):
            raise ValueError(
                "budget is for whole channels, removed at once: set granularity to channel and schedule to one-shot, "
                "or method to group-lasso"
            )
        if self.by_penalty and (self.schedule != "one-shot" or self.granularity != "weight"):
            raise ValueError(
                f"schedule and granularity are for pruning by magnitude; method is {self.method}"
            )

        return self


class QuantizeOptions(Options):
    """Which values weights may take."""

    bits: Bits = 4
    """Code width."""
    symmetric: bool = False
    """Grid around zero, or from minimum to maximum."""
    per_channel: bool = False
    """One scale per output channel, or per tensor."""
    zero_point: Literal["float", "integer"] = "float"
    """Offset of an asymmetric grid: any float, or a whole number of steps."""
    range: Literal["min-max", "mse"] = "min-max"
    """The grid covers all kept weights, or is the one of least squared error."""
    learned: bool = False
    """Scale and offset are parameters of the finetuning (learned step size)."""
    after: Annotated[int, Field(ge=0)] = 0
    """Epochs of the finetuning before weights are quantized."""
    batch_norm_images: Annotated[int, Field(ge=0)] = 0
    """Training images on which batch-norm statistics are measured anew at the end; 0 keeps them."""
    layers: LayerBits = Field(default={f"{ROLE}first": "float", f"{ROLE}last": "float"})
    """Exceptions by name pattern or role: another width, or `float`."""
    price: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Price of a bit at which weights are rounded before any finetuning, as `pack --rate`: widths and zeros follow."""
    price_bytes: ByteSize | None = None
    """Size of the file to find that price by, as in 30kB, in place of a price."""

    @property
    def priced(self) -> bool:
        """Whether a bit has a price, so that `bits`, `symmetric`, `per_channel` and `range` follow from it."""
        return self.price > 0 or self.price_bytes is not None

    @model_validator(mode="after")
    def _one_price_from_the_start(self) -> "QuantizeOptions":
        if self.price and self.price_bytes is not None:
            raise ValueError("price is a price, price_bytes finds one: give one of them")
        if self.priced and self.after:
            raise ValueError("at a price weights are rounded before the finetuning: set after to 0")
        return self

    @model_validator(mode="after")
    def _a_symmetric_grid_has_no_zero_point(self) -> "QuantizeOptions":
        if self.symmetric and self.zero_point == "integer":
            raise ValueError("zero_point integer is for asymmetric grids: set symmetric to false")
        return self


class PackOptions(Options):
    """How the artifact is written."""

    effort: Effort = "default"
    """fast, default (Huffman) or max (mixed contexts: smallest, slower to load)."""
    float16_parameters: bool = True
    """Scales and biases in float16 if that costs no accuracy on the validation images."""


class CalibrateOptions(Options):
    """Ranges of the activations, for the integer flavours of the ONNX model; measured on training images."""

    method: CalibrationMethod = CALIBRATION_METHOD
    """How a range is chosen from the values seen; best: min-max or mse, as disturbs the outputs less."""
    percentile: Annotated[float, Field(gt=50, le=100)] = CALIBRATION_PERCENTILE
    """Of the values each bound covers, for percentile."""
    images: PositiveInt = CALIBRATION_INPUTS
    """How many images, at most."""
    reduce_range: bool = False
    """Weights of 7 bits, for x86 processors without VNNI."""


class BenchOptions(Options):
    """What is measured."""

    batch: tuple[PositiveInt, ...] = (1, 8, 64)
    """Batch sizes of the latency measurement."""
    threads: tuple[PositiveInt, ...] = (1, 2)
    """Thread counts of the latency measurement."""
    rounds: PositiveInt = 3
    """How often the models take turns."""


class RunOptions(Options):
    """How the work is done; changes no result but for rounding."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    bf16: bool = True
    """Train in bfloat16 where the device computes in it."""
    channels_last: bool = True
    """Activations as (N, H, W, C) in memory."""
    compile: bool = False
    """Compile networks in training; takes a minute or so for each."""
    cuda_graphs: bool = True
    """Record training steps as CUDA graphs, on CUDA devices."""

    @field_validator("device")
    @classmethod
    def _a_device_that_there_may_be(cls, value: str) -> str:
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is None:
            raise ValueError(f"device {value!r} is not supported; choose auto, cpu or cuda")
        return value
