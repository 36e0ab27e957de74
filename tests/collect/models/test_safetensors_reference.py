"""Headers of safetensors files against the reference: what it refuses is never proved whole."""

from __future__ import annotations

import json
import random
import struct
from typing import TYPE_CHECKING, Any

import pytest
import safetensors

from bundler.errors import DamagedError
from bundler.safetensors import BITS, read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    Header = dict[str, Any]
    Fault = Callable[[Header, random.Random], object]

ODD: list[object] = [
    None,
    True,
    -1,
    1.5,
    1e300,
    2**62,
    2**63,
    2**64 - 1,
    2**64,
    "",
    "x",
    [],
    {},
    [1],
    {"a": 1},
]
MANY = 60
"""Files of each fault."""


def good(chance: random.Random) -> tuple[Header, int]:
    """Return a sound header and its data's length."""
    header: Header = {}
    if chance.random() < 0.5:
        header["__metadata__"] = {"format": "pt", "größe": "\u0000\n"}
    end = 0
    for number in range(chance.randrange(1, 5)):
        # A multiple of 8 elements ends on a byte with every type.
        shape = [8, *(chance.randrange(4) for _ in range(chance.randrange(3)))]
        dtype = chance.choice(sorted(BITS))
        begin, end = end, end + _product(shape) * BITS[dtype] // 8
        header[f"layer.{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return header, end


def _product(shape: list[int]) -> int:
    result = 1
    for extent in shape:
        result *= extent
    return result


def shard(header: object, size: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def some_tensor(header: Header, chance: random.Random) -> Header:
    """Return the description of one of the tensors, to be changed."""
    found: Header = header[chance.choice([name for name in header if name != "__metadata__"])]
    return found


def odd_field(header: Header, chance: random.Random) -> None:
    some_tensor(header, chance)[chance.choice(["dtype", "shape", "data_offsets"])] = chance.choice(ODD)


def missing_field(header: Header, chance: random.Random) -> None:
    tensor = some_tensor(header, chance)
    del tensor[chance.choice(sorted(tensor))]


def odd_extent(header: Header, chance: random.Random) -> None:
    shape = some_tensor(header, chance)["shape"]
    shape[chance.randrange(len(shape))] = chance.choice(ODD)


def overflowing_shape(header: Header, chance: random.Random) -> None:
    extents = [2**62, 2**32, 2**33, 4, 0, 1]
    some_tensor(header, chance)["shape"] = chance.sample(extents, chance.randrange(1, 6))


def odd_offset(header: Header, chance: random.Random) -> None:
    some_tensor(header, chance)["data_offsets"][chance.randrange(2)] = chance.choice(ODD)


def moved_offset(header: Header, chance: random.Random) -> None:
    some_tensor(header, chance)["data_offsets"][chance.randrange(2)] += chance.choice([-8, -1, 1, 8])


def more_offsets(header: Header, chance: random.Random) -> None:
    offsets = some_tensor(header, chance)["data_offsets"]
    offsets[:] = offsets[:1] if chance.random() < 0.5 else [*offsets, 0]


def other_dtype(header: Header, chance: random.Random) -> None:
    words = [*sorted(BITS), "F33", "f32", "F16 ", "U4"]
    some_tensor(header, chance)["dtype"] = chance.choice(words)


def odd_tensor(header: Header, chance: random.Random) -> None:
    header["odd"] = chance.choice(ODD)


def unknown_field(header: Header, chance: random.Random) -> None:
    some_tensor(header, chance)["more"] = chance.choice(ODD)


def odd_metadata(header: Header, chance: random.Random) -> None:
    header["__metadata__"] = chance.choice([*ODD, {"a": "b"}])


def odd_metadata_value(header: Header, chance: random.Random) -> None:
    header["__metadata__"] = {"a": "b", "c": chance.choice([*ODD, "d"])}


def lost_tensor(header: Header, chance: random.Random) -> None:
    del header[chance.choice([name for name in header if name != "__metadata__"])]


def second_tensor_at_one_place(header: Header, chance: random.Random) -> None:
    header["again"] = some_tensor(header, chance)


def nothing(header: Header, chance: random.Random) -> None:
    pass


def twice(header: Header, chance: random.Random) -> bytes:
    """Give a key of any object a second time."""
    text = json.dumps(header)
    key = chance.choice(["__metadata__", "dtype", "shape", "data_offsets", "layer.0"])
    value = chance.choice(['"F32"', "[1]", "[0, 4]", '{"a": "b"}', "null"])
    places = [at for at, letter in enumerate(text) if letter == "{"]
    at = chance.choice(places) + 1
    return f'{text[:at]}"{key}": {value}, {text[at:]}'.encode()


def altered_byte(header: Header, chance: random.Random) -> bytes:
    data = bytearray(json.dumps(header).encode())
    data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def altered_number(header: Header, chance: random.Random) -> bytes:
    text = json.dumps(header)
    digits = [at for at, letter in enumerate(text) if letter.isdigit()]
    at = chance.choice(digits)
    return (
        text[:at] + chance.choice(["-0", "+1", "01", "1.0", "1e0", "NaN", "-", "9" * 30]) + text[at + 1 :]
    ).encode()


def around(header: Header, chance: random.Random) -> bytes:
    before, after = (chance.choice([b"", b" ", b"\n", b"\0", b"\xef\xbb\xbf", b"{}", b","]) for _ in range(2))
    return before + json.dumps(header).encode() + after


FAULTS: list[Fault] = [
    *(
        nothing,
        odd_field,
        missing_field,
        odd_extent,
        overflowing_shape,
        odd_offset,
        moved_offset,
        more_offsets,
    ),
    *(other_dtype, odd_tensor, unknown_field, odd_metadata, odd_metadata_value, lost_tensor),
    *(second_tensor_at_one_place, twice, altered_byte, altered_number, around),
]


def cases(fault: Fault) -> list[bytes]:
    """Return files with a fault, some of them cut or longer besides."""
    found = []
    for seed in range(MANY):
        chance = random.Random(seed)
        header, size = good(chance)
        changed = fault(header, chance)
        content = shard(header if changed is None else changed, size)
        cut = chance.choice([0, 0, 0, 0, 0, 1, -1, 9, chance.randrange(len(content))])
        found.append(content + b"\0" if cut < 0 else content[: len(content) - cut])
    return found


def ours_reads(content: bytes) -> bool:
    try:
        read_header(lambda offset, length: content[offset : offset + length], len(content), "x.safetensors")
    except DamagedError:
        return False
    return True


def reference_reads(content: bytes) -> bool:
    try:
        safetensors.deserialize(content)
    except safetensors.SafetensorError:
        return False
    return True


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_the_reference_refuses_is_refused(fault: Fault) -> None:
    """The other way round it may be stricter: what is refused is looked at, what is passed is served."""
    wrong = [case for case in cases(fault) if ours_reads(case) and not reference_reads(case)]
    assert not wrong


def test_the_files_are_of_both_kinds() -> None:
    """Sound files are read by both; of the faults, most are refused by the reference."""
    sound = [shard(*good(random.Random(seed))) for seed in range(MANY)]
    assert all(ours_reads(case) and reference_reads(case) for case in sound)
    refused = [fault for fault in FAULTS if not all(map(reference_reads, cases(fault)))]
    assert refused == FAULTS
