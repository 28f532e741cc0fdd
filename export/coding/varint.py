"""Integers in as few bytes as they need: seven bits a byte, low bits first, the top bit set if more follow (LEB128)."""

from typing import TYPE_CHECKING

from modelpress.export.errors import DamagedArtifact

if TYPE_CHECKING:
    from modelpress.export.coding.byte_parts import Part, PartReader

_MAX_BYTES = 9  # 63 bits


def pack_varint(value: int) -> bytes:
    """A non-negative integer below 2**63.

    Example:
        >>> pack_varint(300).hex()
        'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def unpack_varint(reader: "PartReader", part: "Part") -> int:
    """Undo `pack_varint`.

    Raises:
        DamagedArtifact: The bytes end, the integer is longer than nine bytes, or not in its shortest form.

    Example:
        >>> from modelpress.export.coding.byte_parts import PartReader
        >>> unpack_varint(PartReader(bytes.fromhex("ac02")), "header")
        300
    """
    value = reader.take(part, 1)[0]
    if value < 128:
        return value

    value &= 127
    for position in range(1, _MAX_BYTES):
        byte = reader.take(part, 1)[0]
        value |= (byte & 127) << 7 * position
        if byte < 128:
            if byte == 0:
                raise DamagedArtifact("an integer is not in its shortest form")
            return value

    raise DamagedArtifact(f"an integer takes more than {_MAX_BYTES} bytes")


def zigzag(value: int) -> int:
    """Signed to unsigned, small magnitudes first: 0, -1, 1, -2 become 0, 1, 2, 3.

    Example:
        >>> [zigzag(value) for value in (0, -1, 1, -2)]
        [0, 1, 2, 3]
    """
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """Undo `zigzag`.

    Example:
        >>> [unzigzag(value) for value in range(4)]
        [0, -1, 1, -2]
    """
    return value >> 1 if value % 2 == 0 else -(value + 1) >> 1
