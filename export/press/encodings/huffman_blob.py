"""The frame that all Huffman encodings share: grid, parameters, code tables, slabs.

Writing has two steps. `survey` counts symbols, from which every cost is known exactly but for the padding of
lanes; `write` does it with the tables that were chosen. A group of tables is the tensor's own, or one of the
file's shared groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.core import core
from modelpress.export.coding.slabs import read_slabs, slab_bounds, write_slabs
from modelpress.export.coding.symbol_runs import LANE_SYMBOLS, RunReader, RunWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.grid import StoredGrid, read_grid
from modelpress.export.press.encodings.levels import Levels, LevelSink, LevelSource, Sink, source_of
from modelpress.export.press.encodings.slab_coder import Slab, SlabCoder, Survey
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import TensorSpec

_T = TypeVar("_T")
Group = tuple[CodeTable, ...]
OWN = 0  # reference to tables that follow; k refers to the k-th shared group


@dataclass(frozen=True)
class SharedGroup:
    """A group of tables that tensors may refer to by its number in the file, counted from 1."""

    number: int
    tables: Group


Shared = Mapping[
    tuple[str, int], Sequence[SharedGroup]
]  # by the coders' names; of each the first that is best
NO_SHARED: Shared = {}


@dataclass(frozen=True)
class HuffmanPlan:
    """What one coder would write of one tensor.

    Attributes:
        groups: Symbol counts, per group and table.
        plain_bytes: Bytes that no code table governs.
        signed_centre: Whether it is for levels with a signed centre.
    """

    coder: SlabCoder
    groups: tuple[tuple[Counts, ...], ...]
    plain_bytes: int
    signed_centre: bool = True

    @cached_property
    def own(self) -> tuple[Group, ...]:
        """The best tables for this tensor alone."""
        return tuple(tuple(CodeTable.for_counts(c.trimmed()) for c in counts) for counts in self.groups)

    @cached_property
    def own_bits(self) -> tuple[int, ...]:
        """Bits of every group with its own tables, these included."""
        return tuple(
            8 * sum(len(table.pack()) for table in tables) + _payload_bits(tables, counts)
            for tables, counts in zip(self.own, self.groups, strict=True)
        )

    def entropy_bytes(self) -> float:
        """No Huffman code over these symbols gets below this."""
        return self.plain_bytes + sum(c.entropy_bits() for counts in self.groups for c in counts) / 8

    @cached_property
    def _known_bits(self) -> dict[tuple[int, Group], int | None]:
        """Of groups under shared tables; the same are asked for again and again while tables are chosen."""
        return {}

    def _bits_under(self, tables: Group, at: int) -> int | None:
        """Bits of the group `at` under these tables; None if they have no codeword for a symbol of it."""
        if (at, tables) not in self._known_bits:
            counts = self.groups[at]
            fits = all(map(CodeTable.covers, tables, counts))
            self._known_bits[at, tables] = _payload_bits(tables, counts) if fits else None
        return self._known_bits[at, tables]

    def references(self, shared: Shared) -> tuple[tuple[int, Group, int], ...]:
        """Per group: the number and tables of the cheaper choice, and the bits it takes."""
        chosen = []
        for at, (name, own, own_bits) in enumerate(
            zip(self.coder.groups, self.own, self.own_bits, strict=True)
        ):
            choice = (OWN, own, own_bits)
            for group in shared.get(name, ()):
                bits = self._bits_under(group.tables, at)
                if bits is not None and bits < choice[2]:
                    choice = (group.number, group.tables, bits)
            chosen.append(choice)

        return tuple(chosen)

    def n_bytes(self, shared: Shared) -> int:
        """Size of the blob with these shared tables to choose from; without the padding of lanes."""
        return self.plain_bytes + (sum(bits for _, _, bits in self.references(shared)) + 7) // 8


def survey(tensor: QuantizedTensor | LevelSource, coders: Sequence[SlabCoder]) -> list[HuffmanPlan]:
    """Count what each coder would write; levels are made and counted once for all whose slabs are the same."""
    source = source_of(tensor)
    counts = [[[Counts.none()] * n_tables for _, n_tables in coder.groups] for coder in coders]
    plain = [source.front_bytes + len(coder.parameters()) + len(coder.groups) for coder in coders]

    # making levels costs more than counting them, so coders of one slab size share them
    for per_slab in dict.fromkeys(coder.slab_elements for coder in coders):
        bounds = slab_bounds(source.spec.size, per_slab=per_slab)
        alike = [at for at, coder in enumerate(coders) if coder.slab_elements == per_slab]
        for start, stop in bounds:
            slab = Slab(source.levels(start, stop))
            for at in alike:
                plain[at] += coders[at].plain_bytes(slab.levels) + 4 * (len(bounds) > 1)
                counts[at] = _summed(counts[at], coders[at].survey(slab))

    return [_plan(*parts) for parts in zip(coders, counts, plain, strict=True)]


def _summed(totals: Survey, more: Survey) -> Survey:
    return [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(totals, more, strict=True)]


def _plan(coder: SlabCoder, counts: Survey, plain_bytes: int) -> HuffmanPlan:
    """With the lengths and the padding of lanes, as far as they can be told beforehand."""
    n_symbols = sum(table.total for group in counts for table in group)
    # lanes end on whole bytes and say where they start: a few bytes for every so many symbols
    lanes = 5 * n_symbols // (2 * LANE_SYMBOLS) if n_symbols > LANE_SYMBOLS else 0
    groups = tuple(tuple(table.trimmed() for table in group) for group in counts)
    return HuffmanPlan(coder, groups, plain_bytes + lanes)


def write(tensor: QuantizedTensor | LevelSource, plan: HuffmanPlan, shared: Shared) -> PartWriter:
    """The blob of a plan."""
    source, coder = source_of(tensor), plan.coder
    writer = PartWriter()
    source.write_front(writer)
    writer.add("header", coder.parameters())

    references = plan.references(shared)
    for number, tables, _ in references:
        writer.add("header", bytes([number]))
        if number == OWN:
            for table in tables:
                writer.add("tables", table.pack())

    slabs = []
    for start, stop in slab_bounds(source.spec.size, per_slab=coder.slab_elements):
        levels = source.levels(start, stop)
        slabs.append(_slab(coder, levels, [tables for _, tables, _ in references]))

    write_slabs(writer, slabs)
    return writer


def _slab(coder: SlabCoder, levels: Levels, tables: Sequence[Group]) -> bytes:
    functions = core()
    if functions is None:
        runs = RunWriter()
        coder.write(runs, levels, tables)
        return runs.data()

    words = tuple((table.lowest, table.words) for group in tables for table in group)
    return functions.write_slab(coder.number, coder.parameters(), levels, words)


def read(
    reader: PartReader, spec: TensorSpec, kind: type[SlabCoder], shared: Sequence[Group]
) -> QuantizedTensor:
    """Undo `write`.

    Raises:
        DamagedArtifact: Grid, parameters, tables or runs contradict each other or the shape.
    """
    return decode_levels(reader, LevelSink(read_grid(reader, spec)), kind, shared)


def decode_levels(reader: PartReader, sink: Sink[_T], kind: type[SlabCoder], shared: Sequence[Group]) -> _T:
    """What comes after the grid, or another front.

    Raises:
        DamagedArtifact: As for `read`.
    """
    coder, tables = read_tables(reader, kind, shared)
    bounds = slab_bounds(sink.spec.size, per_slab=coder.slab_elements)
    for (start, stop), slab in zip(bounds, read_slabs(reader, len(bounds)), strict=True):
        runs = RunReader(slab)
        sink.put(start, coder.read(runs, stop - start, tables))
        runs.finish()

    return sink.tensor()


def read_front(
    reader: PartReader, spec: TensorSpec, kind: type[SlabCoder], shared: Sequence[Group]
) -> tuple[StoredGrid, SlabCoder, list[Group]]:
    """What comes before the slabs.

    Raises:
        DamagedArtifact: As for `read`.
    """
    grid = read_grid(reader, spec)
    return grid, *read_tables(reader, kind, shared)


def read_tables(
    reader: PartReader, kind: type[SlabCoder], shared: Sequence[Group]
) -> tuple[SlabCoder, list[Group]]:
    """Parameters and tables of a coder.

    Raises:
        DamagedArtifact: As for `read`.
    """
    coder = kind.from_parameters(reader)
    tables = [_read_group(reader, n_tables, shared) for _, n_tables in coder.groups]
    coder.check(tables)
    return coder, tables


def _read_group(reader: PartReader, n_tables: int, shared: Sequence[Group]) -> Group:
    (number,) = reader.unpack("B")
    if number == OWN:
        return tuple(CodeTable.read(reader) for _ in range(n_tables))
    if number > len(shared):
        raise DamagedArtifact(f"shared code tables {number} of {len(shared)} do not exist")

    if len(shared[number - 1]) != n_tables:
        raise DamagedArtifact(
            f"shared code tables {number} are {len(shared[number - 1])}; expected {n_tables}"
        )

    return shared[number - 1]


def pack_groups(groups: Sequence[Group]) -> bytes:
    """The chunk that holds the shared tables; FORMAT.md, "Chunks"."""
    return bytes([len(groups)]) + b"".join(
        bytes([len(tables)]) + b"".join(table.pack() for table in tables) for tables in groups
    )


def _payload_bits(tables: Group, counts: tuple[Counts, ...]) -> int:
    return sum(table.payload_bits(count) for table, count in zip(tables, counts, strict=True))
