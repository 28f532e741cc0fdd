"""The errors a user can meet, in one tree.

    ModelpressError                 anything wrong with what was given; the command exits with 1
    ├── InputError                  a file, folder, option, recipe, data set or checkpoint
    │   └── CommandLineError        options that contradict each other or cannot be; the command exits with 2
    ├── ModelError                  a model that cannot be packed or emitted
    ├── NoSuchTensor                a tensor name that a model does not have; a KeyError as well
    └── ArtifactError               a `.press` file that cannot be trusted
        ├── NotAnArtifact           the magic number is missing
        ├── TruncatedArtifact       fewer or more bytes than the header declares
        ├── UnsupportedVersion      a newer major version, or an unknown critical chunk or encoding
        ├── ChecksumMismatch        bytes changed since they were written
        └── DamagedArtifact         checksums hold but the content contradicts itself or a limit

Reading an artifact raises `ArtifactError` and nothing else, whatever the bytes.
"""

from collections.abc import Iterable


class ModelpressError(Exception):
    """Base of every error that the user can cause and mend."""


class InputError(ModelpressError):
    """A file, folder, option, recipe, data set or checkpoint is not usable."""


class CommandLineError(InputError):
    """What the command line asks for cannot be, whatever the files hold."""


class ModelError(ModelpressError):
    """A model holds something that cannot be packed or emitted."""


class NoSuchTensor(ModelpressError, KeyError):  # noqa: N818 - reads as the fact it states
    """A model has no tensor of this name; the message tells the nearest one that it has.

    Example:
        >>> print(NoSuchTensor("conv1.wieght", ["conv1.weight", "fc.bias"]))
        no tensor 'conv1.wieght'; nearest: conv1.weight
    """

    def __init__(self, name: object, names: Iterable[str]) -> None:
        super().__init__(name, names)
        self._name, self._names = name, names

    def __str__(self) -> str:
        import difflib

        # found out here: a mapping raises this error for every `in` that is false, and the search takes a while
        near = difflib.get_close_matches(str(self._name), list(self._names), n=1, cutoff=0.0)
        return f"no tensor {self._name!r}" + (f"; nearest: {near[0]}" if near else "; the model has none")


class ArtifactError(ModelpressError):
    """A `.press` file cannot be read."""


class NotAnArtifact(ArtifactError):  # noqa: N818 - reads as the fact it states
    """The bytes do not start with the magic number."""


class TruncatedArtifact(ArtifactError):  # noqa: N818
    """The number of bytes is not the number that the header declares."""


class UnsupportedVersion(ArtifactError):  # noqa: N818
    """The file needs a newer reader."""


class ChecksumMismatch(ArtifactError):  # noqa: N818
    """Bytes changed since the file was written."""


class DamagedArtifact(ArtifactError):  # noqa: N818
    """The content contradicts itself or exceeds a limit."""
