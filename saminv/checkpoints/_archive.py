"""Zip archives, read with bounds: nothing is unpacked to a disk, and no size is believed that the file cannot have.

Python's ``zipfile`` reads a whole list of members before one can look at it, and believes the sizes that it states.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from .._errors import CheckpointError
from ._limits import MAX_MEMBERS, Budget

_END, _END64, _LOCATOR64, _ENTRY, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_STORED, _DEFLATED = 0, 8
_MOST_TAIL = 22 + 0xFFFF


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: As the archive states it.
        method: 0 stored, 8 deflated.
        start: Of its bytes in the file.
        packed: Their count.
        size: Their count when unpacked.
        checksum: CRC-32 of the unpacked bytes; 0 where nobody has computed it, as torch can be told to.
    """

    name: str
    method: int
    start: int
    packed: int
    size: int
    checksum: int


class Archive:
    """The members of a zip archive by name.

    Args:
        data: The file.
        budget: Unpacked bytes are counted.

    Raises:
        CheckpointError: If the archive is damaged, encrypted, packed in an unusual way, or hostile: members that lie
            over each other, that leave the folder, that come twice, or that unpack to far more than the file.
    """

    def __init__(self, data: memoryview, budget: Budget) -> None:
        self.data, self.budget = data, budget
        try:
            members = list(self._members())
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise CheckpointError(f"its list of members is damaged ({error})") from error
        self.members: Mapping[str, Member] = {member.name: member for member in members}
        if len(self.members) < len(members):
            raise CheckpointError("it is an archive in which a name comes twice")
        end = 0
        for member in sorted(members, key=lambda member: member.start):
            if member.start < end:
                raise CheckpointError(f"it is an archive whose member {member.name[:80]!r} lies over another one")
            end = member.start + member.packed

    def read(self, name: str) -> memoryview:
        """The bytes of a member; of a stored one a view of the file."""
        if name not in self.members:
            raise CheckpointError(f"its member {name[:80]!r} is missing")
        member = self.members[name]
        content = self._unpacked(member)
        if member.checksum and zlib.crc32(content) != member.checksum:
            raise CheckpointError(f"its member {name[:80]!r} is damaged: its checksum is another one; get it again")
        return content

    def _unpacked(self, member: Member) -> memoryview:
        name = member.name
        raw = self.data[member.start : member.start + member.packed]
        if member.method == _STORED:
            return raw
        self.budget.copy(member.size)
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One byte more than stated tells whether there would be more.
            content = unpacker.decompress(raw, member.size + 1)
        except zlib.error as error:
            raise CheckpointError(f"its member {name[:80]!r} is damaged ({error})") from error
        if len(content) != member.size:
            raise CheckpointError(f"its member {name[:80]!r} does not unpack to the {member.size:,} bytes it states")
        return memoryview(content)

    def _members(self):
        count, size, start = self._directory()
        if count > MAX_MEMBERS:
            raise CheckpointError(f"it is an archive of {count:,} members")
        place, total = start, 0
        for _ in range(count):
            if place + 46 > start + size or bytes(self.data[place : place + 4]) != _ENTRY:
                raise CheckpointError("its list of members is cut short")
            flags, method = struct.unpack_from("<HH", self.data, place + 8)
            checksum, packed, unpacked, name_length, extra_length, note_length = struct.unpack_from(
                "<IIIHHH", self.data, place + 16
            )
            (offset,) = struct.unpack_from("<I", self.data, place + 42)
            name = str(self.data[place + 46 : place + 46 + name_length], "utf-8")
            extra = self.data[place + 46 + name_length : place + 46 + name_length + extra_length]
            unpacked, packed, offset = _wide(extra, unpacked, packed, offset)
            place += 46 + name_length + extra_length + note_length
            _check_name(name)
            if flags & 0x41:
                raise CheckpointError("it is an encrypted archive")
            if name.endswith("/") and not unpacked:
                continue
            if method not in (_STORED, _DEFLATED) or (method == _STORED and packed != unpacked):
                raise CheckpointError(f"its member {name[:80]!r} is packed by the unknown method {method}")
            total += unpacked
            if total > self.budget.copies:
                raise CheckpointError(f"it is an archive that unpacks to far more than its {len(self.data):,} bytes")
            yield Member(name, method, self._content(offset, packed, name), packed, unpacked, checksum)

    def _content(self, offset: int, packed: int, name: str) -> int:
        """Where the bytes of a member begin."""
        if bytes(self.data[offset : offset + 4]) != _LOCAL:
            raise CheckpointError(f"its member {name[:80]!r} is not where the list says")
        name_length, extra_length = struct.unpack_from("<HH", self.data, offset + 26)
        if bytes(self.data[offset + 30 : offset + 30 + name_length]) != name.encode():
            raise CheckpointError(f"its member {name[:80]!r} has another name in the list")
        start = offset + 30 + name_length + extra_length
        if start + packed > len(self.data):
            raise CheckpointError(f"its member {name[:80]!r} reaches beyond the end of the file")
        return start

    def _directory(self) -> tuple[int, int, int]:
        """Count, size and place of the list of members."""
        tail_start = max(0, len(self.data) - _MOST_TAIL)
        tail = bytes(self.data[tail_start:])
        found = tail.rfind(_END)
        if found < 0 or len(tail) - found < 22:
            raise CheckpointError("it is an archive that was cut off: its list of members is missing")
        count, size, start = struct.unpack_from("<HII", tail, found + 10)
        locator = tail_start + found - 20
        if locator >= 0 and bytes(self.data[locator : locator + 4]) == _LOCATOR64:
            (place,) = struct.unpack_from("<Q", self.data, locator + 8)
            if place + 56 > len(self.data) or bytes(self.data[place : place + 4]) != _END64:
                raise CheckpointError("its list of members is missing")
            count, size, start = struct.unpack_from("<QQQ", self.data, place + 32)
        if start + size > len(self.data):
            raise CheckpointError("its list of members reaches beyond the end of the file")
        return count, size, start


def _wide(extra: memoryview, *short: int) -> list[int]:
    """Sizes and places, of which those of archives over 4 GB stand in a field of their own."""
    wide: list[int] = []
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            field = extra[place + 4 : place + 4 + length]
            wide = list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
        place += 4 + length
    return [wide.pop(0) if value == 0xFFFFFFFF and wide else value for value in short]


def _check_name(name: str) -> None:
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name) or not name:
        raise CheckpointError(f"it is an archive with a member that would leave its folder: {name[:80]!r}")
