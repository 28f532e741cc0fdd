"""The recipe: everything a run does, as one validated document.

A recipe file is YAML with the keys of `Recipe`; what it leaves out keeps the default given here. The
defaults are a complete run by themselves: the embedded digits, a ResNet-20 trained from scratch.
"""

import difflib
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from modelpress.export.errors import InputError

Fraction = Annotated[float, Field(ge=0, le=1)]
Bits = Annotated[int, Field(ge=2, le=8)]
MagnitudeMethod = Literal["global-magnitude", "layer-magnitude", "layer-percentile"]
PenaltyMethod = Literal["proximal-l1", "trimmed-l1", "group-lasso"]
PruneMethod = Literal[MagnitudeMethod, PenaltyMethod]
PositiveInt = Annotated[int, Field(ge=1)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Architecture = Literal["resnet20", "resnet32", "resnet44", "resnet56"]
Shortcut = Literal["A", "B"]
Compile = Literal["auto", "on", "off"]
LayerBits = dict[str, Bits | Literal["float"]]


Flavour = Literal["float", "weight-only", "sparse", "int8", "int8-sparse"]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataOptions(_Options):
    """Which images."""

    dataset: Literal["digits", "cifar10"] = "digits"
    """`digits` ships inside scikit-learn; `cifar10` needs a folder."""
    dir: str | None = None
    """Folder of the data set."""
    download: bool = False
    """Fetch missing data."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Fraction of the training images held out for watching the training."""


class NormalisationOptions(_Options):
    """How pixels become network input: ``(pixel / 255 - mean) / std``."""

    mean: Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]
    """Per channel, as in R, G, B; in units of pixel / 255."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """Per channel; in units of pixel / 255."""

    @model_validator(mode="after")
    def _as_many_means_as_deviations(self) -> "NormalisationOptions":
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} values, std {len(self.std)}: give one of each per channel"
            )
        return self


class ModelOptions(_Options):
    """Which network."""

    arch: Architecture = "resnet20"
    """Depth."""
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
    teacher_arch: Architecture | None = None
    """Depth of a teacher from elsewhere; else as arch."""
    teacher_shortcut: Shortcut | None = None
    """Shortcut of a teacher from elsewhere; else as shortcut."""
    teacher_normalisation: NormalisationOptions | None = None
    """{mean, std} that a teacher from elsewhere was trained with; else the data set's."""

    @property
    def of_teacher(self) -> "ModelOptions":
        """The teacher as a network of its own."""
        return ModelOptions(
            arch=self.teacher_arch or self.arch,
            shortcut=self.teacher_shortcut or self.shortcut,
            checkpoint=self.teacher,
            map_names=self.map_names,
            normalisation=self.teacher_normalisation,
        )


class TrainingOptions(_Options):
    """How weights are trained: stochastic gradient descent with momentum."""

    epochs: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Passes over the training images."""
    batch: PositiveInt = 128
    """Images per step."""
    lr: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Highest learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of all steps over which the rate rises linearly."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """L2 penalty on all parameters."""
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


class PruneOptions(_Options):
    """Which weights are removed."""

    method: PruneMethod = "global-magnitude"
    """By magnitude, one threshold for all layers or one for each (the same share); or by a penalty in training."""
    sparsity: Fraction = 0.7
    """Fraction of weights removed; a penalty ends when it is reached."""
    exclude: tuple[str, ...] = ("*id_mapping*",)
    """Name patterns of layers that stay dense."""
    granularity: Annotated[str, Field(pattern=r"^(weight|channel|[1-9]\d?:[1-9]\d?)$")] = "weight"
    """weight, channel (whole output channels), or N:M as in 2:4."""
    schedule: Literal["one-shot", "linear", "cubic"] = "one-shot"
    """By magnitude at once, before finetuning; or in steps during its first epochs."""
    epochs: PositiveInt = 10
    """Epochs of the finetuning over which a schedule rises."""
    updates_per_epoch: PositiveInt = 1
    """Steps of a schedule per epoch."""
    hold: bool = True
    """Weights removed by a step of a schedule stay removed; else only those of the last step."""
    penalty: Annotated[float, Field(gt=0, le=1e6)] = 0.2
    """Strength of a penalty: the threshold per step is this times the learning rate."""
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
        if self.by_penalty and (self.schedule != "one-shot" or self.granularity != "weight"):
            raise ValueError(
                f"schedule and granularity are for pruning by magnitude; method is {self.method}"
            )
        return self


class QuantizeOptions(_Options):
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
    layers: LayerBits = Field(default={"head_conv*": "float", "final_fc*": "float"})
    """Exceptions by name pattern: another width, or `float`."""

    @model_validator(mode="after")
    def _a_symmetric_grid_has_no_zero_point(self) -> "QuantizeOptions":
        if self.symmetric and self.zero_point == "integer":
            raise ValueError("zero_point integer is for asymmetric grids: set symmetric to false")
        return self


class PackOptions(_Options):
    """How the artifact is written."""

    effort: Literal["fast", "default", "max"] = "default"
    """fast, default (Huffman) or max (mixed contexts: smallest, slower to load)."""
    float16_parameters: bool = True
    """Scales and biases in float16 if that costs no accuracy on the validation images."""


class CalibrateOptions(_Options):
    """Ranges of the activations, for the integer flavours of the ONNX model; measured on training images."""

    method: Literal["min-max", "percentile", "mse", "entropy"] = "min-max"
    """How a range is chosen from the values seen."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Of the values each bound covers, for percentile."""
    images: PositiveInt = 512
    """How many images, at most."""
    reduce_range: bool = False
    """Weights of 7 bits, for x86 processors without VNNI."""


class BenchOptions(_Options):
    """What is measured."""

    batch: tuple[PositiveInt, ...] = (1, 8, 64)
    """Batch sizes of the latency measurement."""
    threads: tuple[PositiveInt, ...] = (1, 2)
    """Thread counts of the latency measurement."""
    rounds: PositiveInt = 3
    """How often the models take turns."""


class RunOptions(_Options):
    """How the work is done; changes no result but for rounding."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    bf16: bool = True
    """Train in bfloat16 where the device computes in it."""
    channels_last: bool = True
    """Activations as (N, H, W, C) in memory."""
    compile: Compile = "auto"
    """Compile networks in training: on, off, or auto (on CUDA devices)."""


class Recipe(_Options):
    """A whole run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of every random generator."""
    data: DataOptions = DataOptions()
    model: ModelOptions = ModelOptions()
    train: TrainingOptions = TrainingOptions(epochs=12, batch=64, padding=2)
    prune: PruneOptions = PruneOptions()
    sparsify: TrainingOptions = TrainingOptions(epochs=6, batch=64, lr=0.03, padding=2)
    finetune: TrainingOptions = TrainingOptions(epochs=6, batch=64, lr=0.03, padding=2)
    quantize: QuantizeOptions = QuantizeOptions()
    pack: PackOptions = PackOptions()
    onnx: Annotated[tuple[Flavour, ...], Field(min_length=1)] = ("float", "sparse", "int8-sparse")
    """Flavours written: float, weight-only, sparse, int8, int8-sparse."""
    calibrate: CalibrateOptions = CalibrateOptions()
    bench: BenchOptions = BenchOptions()
    run: RunOptions = RunOptions()

    @model_validator(mode="after")
    def _flavours_are_distinct(self) -> "Recipe":
        if len(set(self.onnx)) < len(self.onnx):
            raise ValueError(f"onnx names a flavour twice: {', '.join(self.onnx)}; name each once")
        return self

    @model_validator(mode="after")
    def _penalty_needs_training(self) -> "Recipe":
        if self.prune.by_penalty and self.sparsify.epochs == 0:
            raise ValueError(
                f"prune.method {self.prune.method} works by training: set sparsify.epochs above 0"
            )
        return self

    @model_validator(mode="after")
    def _schedules_end_within_the_run(self) -> "Recipe":
        epochs = self.finetune.epochs
        if self.prune.scheduled and self.prune.epochs > epochs:
            raise ValueError(
                f"the pruning schedule is longer than the run: prune.epochs is {self.prune.epochs}, finetune.epochs "
                f"{epochs}; lower prune.epochs, or set prune.schedule to one-shot"
            )
        if self.quantize.after and self.quantize.after >= max(epochs, 1):
            raise ValueError(
                f"weights would never be finetuned on their grid: quantize.after is {self.quantize.after}, "
                f"finetune.epochs {epochs}; lower quantize.after"
            )
        return self

    @model_validator(mode="after")
    def _training_from_scratch_has_no_teacher_of_its_own(self) -> "Recipe":
        if self.train.distill_weight and self.model.teacher is None:
            raise ValueError(
                "train.distill_weight: a network trained from scratch has no teacher; name one with "
                "model.teacher, or set it to 0"
            )
        return self


def load_recipe(path: Path | None, overrides: dict[str, Any]) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: YAML file, or None for the defaults.
        overrides: Values by dotted key, which win over the file.

    Raises:
        InputError: The file is unreadable, a key is unknown or a value out of range; each is named.
    """
    document = over_defaults(_read_yaml(path) if path is not None else {})
    for key, value in overrides.items():
        _place(document, key.split(".", 2), value, key)  # layer patterns below the second level may hold dots
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        source = f"recipe {path}" if path is not None else "recipe"
        raise InputError(f"{source}: {'; '.join(map(_explain, error.errors()))}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """Split ``key.subkey=value``; the value is read as YAML.

    Raises:
        InputError: There is no equals sign, or the value is no YAML.

    Example:
        >>> parse_setting("quantize.bits=6")
        ('quantize.bits', 6)
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set {text!r}: expected key=value, as in quantize.bits=4")
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"--set {text[:80]!r}: the value is no YAML") from error


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, every key with its meaning."""
    return "\n".join(_commented(recipe, "")) + "\n"


def _commented(options: _Options, indent: str) -> Iterator[str]:
    values = options.model_dump(mode="json")
    for name, field in type(options).model_fields.items():
        section = getattr(options, name)
        if isinstance(section, _Options) and not indent:  # deeper ones are collections on one line
            yield f"{name}:"
            yield from _commented(section, indent="  ")
        else:
            flow = isinstance(values[name], list | dict)  # collections on one line
            text = (
                f"{name}: {yaml.safe_dump(values[name], default_flow_style=True, width=1000).strip()}"
                if flow
                else yaml.safe_dump({name: values[name]}, default_flow_style=False, width=1000).strip()
            )
            yield f"{indent}{text:<34}  # {field.description}"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"recipe {path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"recipe {path}: is no YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InputError(f"recipe {path}: expected keys and values, got a {type(document).__name__}")
    return document


def over_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Fill every section with its defaults; inside a section, given keys win whole."""
    defaults = Recipe().model_dump(mode="json")
    for key, value in document.items():
        both_sections = isinstance(defaults.get(key), dict) and isinstance(value, dict)
        defaults[key] = {**defaults[key], **value} if both_sections else value
    return defaults


def _place(document: dict[str, Any], keys: list[str], value: Any, full: str) -> None:
    for key in keys[:-1]:
        if document.get(key) is None:  # absent, or a section that is optional
            document[key] = {}
        document = document[key]
        if not isinstance(document, dict):
            raise InputError(f"{full}: {key} has no keys below it")
    document[keys[-1]] = value


_UNION_BRANCHES = ("constrained-", "literal[")  # pydantic names the branch of a union in the location


def _explain(error: Any) -> str:
    """One problem of pydantic's list in a user's words."""
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith(_UNION_BRANCHES))
    if error["type"] == "extra_forbidden":
        valid = _keys_at(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), valid, n=1, cutoff=0.0)
        return f"unknown key {where!r}; did you mean {near[0]!r}? Valid keys: {', '.join(valid)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} is {error['input']!r}: {message[0].lower()}{message[1:]}"


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in location:
        annotation = model.model_fields[str(key)].annotation
        section = next(kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None))
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        model = section
    return list(model.model_fields)
