"""A `.press` file opened, checked and decoded, tensor by tensor, as specified in FORMAT.md."""

import io
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.varint import unpack_varint
from modelpress.export.errors import (
    ArtifactError,
    ChecksumMismatch,
    DamagedArtifact,
    InputError,
    ModelError,
    NoSuchTensor,
    NotAnArtifact,
)
from modelpress.export.files.inputs import is_folder, open_input
from modelpress.export.files.kinds import Wanted, wrong_kind
from modelpress.export.graphs.bounds import check_bounds
from modelpress.export.graphs.parts import check_self_contained
from modelpress.export.lazy_tensors import LazyTensors
from modelpress.export.press.directory import (
    TensorRecord,
    read_directory,
    read_directory_1_1,
)
from modelpress.export.press.encodings import SAME, decode_blob, decode_dense, encoding_by_id
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.frame import (
    DATA,
    DIRECTORY,
    GRAPH,
    MAX_DIRECTORY_BYTES,
    MAX_GRAPH_BYTES,
    META,
    SQUEEZED,
    TABLES,
    Frame,
    inflate,
    read_chunk,
    read_frame,
    unpack_meta,
)
from modelpress.export.press.shared_tables import read_tables
from modelpress.export.quantized import QuantizedModel, Tensor
from modelpress.export.shown import Facts, Shown, some_names
from modelpress.export.tensor_spec import TensorSpec

_T = TypeVar("_T")
_PARALLEL_FROM = 1 << 22  # elements in all; below, threads cost more than they save


@dataclass(frozen=True)
class TensorUsage:
    """What a tensor costs in the file: its record and the bytes of each part of its blob."""

    record: TensorRecord
    tensor: Tensor
    parts: Counter[str]

    @property
    def encoding_name(self) -> str:
        """Name of the encoding."""
        return encoding_by_id(self.record.encoding).name


class Artifact(Shown):
    """An open file: checked as a whole, its tensors decoded when asked for.

    Attributes:
        version: Format version, major and minor.
        size_bytes: The whole file.
        graph_bytes: The compressed graph, and the directory where both are compressed together.
        directory_bytes: The compressed directory; 0 where it is counted above.
        table_bytes: The code tables that tensors share.
        records: The directory.
        graph: The ONNX model without weights.

    Raises:
        ArtifactError: The file cannot be trusted.
    """

    def __init__(self, file: IO[bytes], *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> None:
        self._file = file
        frame = read_frame(file)

        self.version, self.size_bytes = frame.version, frame.size_bytes
        self.graph_bytes, self.directory_bytes, self.table_bytes = (
            frame.chunks[kind].n_bytes if kind in frame.chunks else 0
            for kind in (
                META if META in frame.chunks else GRAPH,
                DIRECTORY,
                SQUEEZED if SQUEEZED in frame.chunks else TABLES,
            )
        )

        graph, self.records = _read_meta(file, frame)
        self.graph = _read_graph(graph)
        self.shared = read_tables(file, frame)

        # before anything is decoded: a small file can declare huge tensors
        _check_decoded_size(self.records, max_decoded_bytes)
        self._starts = _blob_starts(self.records, frame)

    def __enter__(self) -> "Artifact":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def summary(self) -> Facts:
        """What there is to say in a few lines."""
        names = [record.name for record in self.records]
        return {
            "format": ".".join(map(str, self.version)),
            "bytes": f"{self.size_bytes:,}",
            "tensors": f"{len(names)}: {some_names(names)}",
            "state": "closed" if self._file.closed else "open",
        }

    @property
    def frame_bytes(self) -> int:
        """File header, chunk headers and unknown ancillary chunks."""
        blobs = sum(record.n_bytes for record in self.records)
        return self.size_bytes - self.graph_bytes - self.directory_bytes - self.table_bytes - blobs

    def stored(self) -> Iterator[TensorUsage]:
        """Decode one tensor after the other, in file order; none is kept.

        Raises:
            ArtifactError: A blob cannot be trusted.
        """
        state = FileState(self.shared)
        for index in range(len(self.records)):
            yield self.decode(index, state)

    def decode(self, index: int, state: FileState) -> TensorUsage:
        """Decode one tensor, `state` being that after all tensors before it.

        Raises:
            ArtifactError: The blob cannot be trusted.
        """
        return self._decode(index, self._source(index), state)

    def dense(self, index: int, state: FileState) -> npt.NDArray[np.generic]:
        """The values of one tensor, in one pass where the codes are compiled; `state` as for `decode`.

        Raises:
            ArtifactError: The blob cannot be trusted.
        """
        source, blob = self._source(index)
        with _named(self.records[index]):
            return decode_dense(source.encoding, blob, source.spec, state)

    def blob(self, index: int) -> bytes:
        """The stored bytes of a tensor.

        Raises:
            ChecksumMismatch: They changed since the file was written.
        """
        record = self.records[index]
        self._file.seek(self._starts[index])
        blob = self._file.read(record.n_bytes)
        if record.crc32 is not None and zlib.crc32(blob) != record.crc32:
            raise ChecksumMismatch(f"{record.name}: its bytes changed since the file was written")
        return blob

    def model(self) -> QuantizedModel:
        """Decode everything; large models in parallel.

        Raises:
            ArtifactError: A blob cannot be trusted.
        """
        return QuantizedModel(self.graph, {t.record.name: t.tensor for t in self.usages()})

    def model_within(self, n_bytes: int) -> QuantizedModel:
        """The model decoded if its tensors take no more than this; else with tensors as those of `lazy_model`.

        Raises:
            ArtifactError: A blob cannot be trusted; of a larger model, when it is asked for.
        """
        return self.model() if sum(r.spec.n_bytes for r in self.records) <= n_bytes else self.lazy_model()

    def lazy_model(self) -> QuantizedModel:
        """The model with tensors that are decoded at each access; the file must stay open."""
        return QuantizedModel(self.graph, _StoredTensors(self))

    def model_once(self) -> QuantizedModel:
        """The model for one who asks for each tensor once, in file order, while the file is open.

        Small models are decoded as they are asked for, straight to values; large ones beforehand, in parallel.

        Raises:
            ArtifactError: A blob cannot be trusted; of a small model, when it is asked for.
        """
        return self.model() if self._in_parallel() else self.lazy_model()

    def _in_parallel(self) -> bool:
        elements = sum(record.spec.size for record in self.records)
        return (os.cpu_count() or 1) > 1 and elements >= _PARALLEL_FROM

    def usages(self) -> list[TensorUsage]:
        """Every tensor decoded, with what it costs; large models in parallel.

        Raises:
            ArtifactError: A blob cannot be trusted.
        """
        if not self._in_parallel():
            return list(self.stored())

        # imported here: it brings logging, and most files are small
        from concurrent.futures import ThreadPoolExecutor

        # an adaptive encoding needs every tensor before it, so those are decoded here, in file order
        state = FileState(self.shared)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pending = [
                None
                if encoding_by_id(record.encoding).in_order
                else pool.submit(self._decode, index, self._source(index), state)
                for index, record in enumerate(self.records)
            ]
            return [
                self.decode(index, state) if future is None else future.result()
                for index, future in enumerate(pending)
            ]

    def _decode(self, index: int, stored: tuple[TensorRecord, bytes], state: FileState) -> TensorUsage:
        record, (source, blob) = self.records[index], stored
        with _named(record):
            tensor, parts = decode_blob(source.encoding, blob, source.spec, state)
        return TensorUsage(record, tensor, parts if source is record else Counter(header=record.n_bytes))

    def _source(self, index: int) -> tuple[TensorRecord, bytes]:
        """The record of a tensor and its blob; those of the tensor that it is the same as, if it is.

        Raises:
            DamagedArtifact: There is no such tensor.
        """
        record, blob = self.records[index], self.blob(index)
        if record.encoding != SAME:
            return record, blob

        with _named(record):
            reader = PartReader(blob)
            number = unpack_varint(reader, "header")
            reader.finish()
            if number >= index:
                raise DamagedArtifact(f"is the same as tensor {number}; expected an earlier one than {index}")
            source = self.records[number]
            if (
                source.spec != record.spec
                or source.encoding == SAME
                or encoding_by_id(source.encoding).in_order
            ):
                raise DamagedArtifact(f"cannot be the same as {source.name}")
        return source, self.blob(number)


@contextmanager
def _named(record: TensorRecord) -> Iterator[None]:
    """Put the tensor before what is wrong with it."""
    try:
        yield
    except ArtifactError as error:
        raise type(error)(f"{record.name}: {error}") from error


class _StoredTensors(LazyTensors):
    """The tensors of an open artifact, decoded at each access; in file order this takes one pass."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._index = {record.name: index for index, record in enumerate(artifact.records)}
        self._ordered = [
            index for index, record in enumerate(artifact.records) if encoding_by_id(record.encoding).in_order
        ]
        self._rank = {index: rank for rank, index in enumerate(self._ordered)}
        self._state, self._done = FileState(artifact.shared), 0  # of the ordered ones

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def _make(self, name: str) -> Tensor:
        return self._read(name, lambda index, state: self._artifact.decode(index, state).tensor)

    def dense(self, name: str) -> npt.NDArray[np.generic]:
        """In one pass, where the codes are compiled."""
        if name not in self:
            raise NoSuchTensor(name, self)
        return self._read(name, self._artifact.dense)

    def _read(self, name: str, read: Callable[[int, FileState], _T]) -> _T:
        index = self._index[name]
        if index not in self._rank:
            return read(index, self._state)

        rank = self._rank[index]
        if rank < self._done:  # an adaptive model has no way back
            self._state, self._done = FileState(self._artifact.shared), 0

        for before in self._ordered[self._done : rank]:
            self._artifact.decode(before, self._state)
            self._done += 1

        self._done += 1
        return read(index, self._state)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def _spec(self, name: str) -> TensorSpec:
        return self._artifact.records[self._index[name]].spec


def open_artifact(path: Path | str, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> Artifact:
    """Open a file for reading tensor by tensor; use it in a ``with`` block.

    Raises:
        InputError: The file cannot be opened.
        ArtifactError: It cannot be trusted.
    """
    path = Path(path)
    if is_folder(path):
        raise InputError(wrong_kind(path, Wanted.PRESS))
    file = open_input(path)
    try:
        return Artifact(file, max_decoded_bytes=max_decoded_bytes)
    except NotAnArtifact as error:
        file.close()
        raise NotAnArtifact(f"{wrong_kind(path, Wanted.PRESS)} ({error})") from error
    except OSError as error:
        file.close()
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ArtifactError as error:
        file.close()
        raise type(error)(f"{path}: {error}") from error
    except BaseException:  # Ctrl-C as well: nothing else knows of the file yet
        file.close()
        raise


def read_artifact(path: Path | str, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> QuantizedModel:
    """Load a whole file; see `open_artifact`.

    Example:
        >>> read_artifact("/")
        Traceback (most recent call last):
        modelpress.export.errors.InputError: /: is a folder, expected a .press artifact
    """
    with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
        return artifact.model()


def decode_artifact(data: bytes, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> QuantizedModel:
    """Undo `encode_artifact`.

    Args:
        data: A whole file.
        max_decoded_bytes: Refuse files whose tensors are larger in memory.

    Raises:
        ArtifactError: The bytes cannot be trusted.
    """
    return Artifact(io.BytesIO(data), max_decoded_bytes=max_decoded_bytes).model()


def _read_meta(file: IO[bytes], frame: Frame) -> tuple[bytes, list[TensorRecord]]:
    """The serialised graph, and the directory."""
    if META in frame.chunks:
        directory, graph = unpack_meta(read_chunk(file, frame.chunks[META]))
        return graph, read_directory(directory)

    graph = inflate(read_chunk(file, frame.chunks[GRAPH]), limit=MAX_GRAPH_BYTES, what="graph")
    directory = inflate(
        read_chunk(file, frame.chunks[DIRECTORY]), limit=MAX_DIRECTORY_BYTES, what="tensor directory"
    )
    return graph, read_directory_1_1(directory)


def _read_graph(serialised: bytes) -> onnx.ModelProto:
    graph = onnx.ModelProto()
    try:
        graph.ParseFromString(serialised)
        check_bounds(graph)
        check_self_contained(graph)
    except (DecodeError, ModelError) as error:
        raise DamagedArtifact(f"the graph cannot be used: {error}") from error

    return graph


def _check_decoded_size(records: list[TensorRecord], limit: int) -> None:
    decoded = sum(record.spec.n_bytes for record in records)
    if decoded > limit:
        raise DamagedArtifact(f"tensors decode to {decoded:,} bytes; the limit is {limit:,}")


def _blob_starts(records: list[TensorRecord], frame: Frame) -> list[int]:
    """Where each blob starts in the file."""
    data = frame.chunks[DATA]
    stored = sum(record.n_bytes for record in records)
    if stored != data.n_bytes:
        raise DamagedArtifact(f"directory declares {stored:,} bytes of data, the file holds {data.n_bytes:,}")

    starts, start = [], data.start
    for record in records:
        starts.append(start)
        start += record.n_bytes

    return starts
