"""The code tables that tensors of a file share, in a chunk of their own: FORMAT.md, "Chunks".

As they are (`TABL`), or compressed (`TABZ`), whichever is shorter. Tables resemble one another: a short code has the
lengths of the next one in much the same order. So compression takes a fifth to a third of them, and tables of one
tensor alone may be shorter among the others than in its blob.
"""

import struct
from collections.abc import Sequence
from typing import IO

from modelpress.export.coding import lzma_stream
from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.choice import MAX_GROUPS, Choice
from modelpress.export.press.encodings.huffman_blob import OWN, Group, SharedGroup, pack_groups
from modelpress.export.press.frame import CHUNK, MAX_TABLES_BYTES, SQUEEZED, TABLES, Frame, read_chunk

MINOR = 4  # the version that compressed tables came with
_HEAD = struct.Struct("<I")  # bytes of the tables
_TRIED = 64  # groups of single tensors, those of the longest tables; each is a compression

_Name = tuple[str, int]


def pack_tables(groups: Sequence[Group]) -> tuple[bytes, bytes]:
    """Type and payload of the chunk.

    Example:
        >>> table = CodeTable.read(PartReader(bytes([0, 2, 0x11])))
        >>> pack_tables([(table,)])
        (b'TABL', b'\\x01\\x01\\x00\\x02\\x11')
        >>> kind, payload = pack_tables([(table,) * 99])
        >>> kind, len(payload) < 99
        (b'TABZ', True)
    """
    plain = pack_groups(groups)
    squeezed = _HEAD.pack(len(plain)) + lzma_stream.compress(plain)
    return (SQUEEZED, squeezed) if len(squeezed) < len(plain) else (TABLES, plain)


def read_tables(file: IO[bytes], frame: Frame) -> tuple[Group, ...]:
    """Undo `pack_tables`; no groups where the file has neither chunk.

    Raises:
        DamagedArtifact: The chunk is too large, does not decompress to what it declares, or a table is no code.
    """
    if SQUEEZED in frame.chunks:
        head = PartReader(read_chunk(file, frame.chunks[SQUEEZED]))
        (size,) = head.unpack("I")
        _check_size(size)
        payload = lzma_stream.decompress(head.rest("payload"), size, what="shared code tables")
    elif TABLES in frame.chunks:
        _check_size(frame.chunks[TABLES].n_bytes)
        payload = read_chunk(file, frame.chunks[TABLES])
    else:
        return ()

    reader = PartReader(payload)
    (n_groups,) = reader.unpack("B")

    groups = []
    for _ in range(n_groups):
        (n_tables,) = reader.unpack("B")
        groups.append(tuple(CodeTable.read(reader) for _ in range(n_tables)))

    reader.finish()
    return tuple(groups)


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_TABLES_BYTES:
        raise DamagedArtifact(f"shared code tables take {n_bytes:,} bytes; the limit is {MAX_TABLES_BYTES:,}")


def with_own_tables(choice: Choice) -> Choice:
    """Tables that one tensor alone uses put among the shared ones, as long as the file gets shorter.

    Source: greedy, longest first; what a group adds is counted by compressing all of them.
    """
    shared = {name: list(groups) for name, groups in choice.shared.items()}
    groups = choice.groups
    size = _chunk_bytes(groups)

    for n_bytes, name, tables in _own_tables(choice)[: min(_TRIED, MAX_GROUPS - len(groups))]:
        more = [*groups, tables]
        grown = _chunk_bytes(more)
        if grown - size < n_bytes:
            groups, size = more, grown
            shared.setdefault(name, []).append(SharedGroup(len(groups), tables))

    return Choice(choice.plans, shared)


def _own_tables(choice: Choice) -> list[tuple[int, _Name, Group]]:
    """The groups that tensors have for themselves, with their bytes; the longest first."""
    own = [
        (sum(len(table.pack()) for table in tables), name, tables)
        for plan in choice.plans
        if plan is not None
        for name, (number, tables, _) in zip(plan.coder.groups, plan.references(choice.shared), strict=True)
        if number == OWN
    ]
    return sorted(own, key=lambda group: -group[0])


def _chunk_bytes(groups: Sequence[Group]) -> int:
    return CHUNK.size + len(pack_tables(groups)[1]) if groups else 0
