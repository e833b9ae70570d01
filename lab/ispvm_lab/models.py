"""What the boards are made of, as far as the API tells. Sizes are the data sheets'; the serial is made up."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Model:
    """A board: processor, memory and flash in bytes, and whether it is a virtual machine."""

    name: str
    architecture: str
    cpu: str
    cores: int
    megahertz: int
    memory: int
    flash: int
    virtual: bool = False
    fans: int = 0
    supplies: int = 0


_BOARDS = {
    board.name: board
    for board in (
        Model("CCR2216-1G-12XS-2XQ", "arm64", "ARM64", 16, 2000, 16384 * MIB, 128 * MIB, fans=4, supplies=2),
        Model("CCR2116-12G-4S+", "arm64", "ARM64", 16, 2000, 16384 * MIB, 128 * MIB, fans=4, supplies=2),
        Model("CCR2004-16G-2S+", "arm64", "ARM64", 4, 1700, 4096 * MIB, 128 * MIB, fans=2, supplies=2),
        Model("CCR2004-1G-12S+2XS", "arm64", "ARM64", 4, 1700, 4096 * MIB, 128 * MIB, fans=2, supplies=2),
        Model("CCR1036-8G-2S+", "tile", "tilegx", 36, 1200, 4096 * MIB, 1024 * MIB, fans=2, supplies=2),
        Model("CCR1009-7G-1C-1S+", "tile", "tilegx", 9, 1200, 2048 * MIB, 128 * MIB, supplies=2),
        Model("RB5009UG+S+", "arm64", "ARM64", 4, 1400, 1024 * MIB, 1024 * MIB),
        Model("RB4011iGS+", "arm", "ARMv7", 4, 1400, 1024 * MIB, 512 * MIB),
        Model("RB760iGS", "mmips", "MIPS 1004Kc V2.15", 4, 880, 256 * MIB, 16 * MIB),
        Model("CHR", "x86_64", "Intel(R)", 1, 2400, 1024 * MIB, 128 * MIB, virtual=True),
    )
}


def model(name: str) -> Model:
    """The board of that name; one the table does not know is a middling arm64 box of that name."""
    return _BOARDS.get(name) or Model(name, "arm64", "ARM64", 4, 1400, 1024 * MIB, 128 * MIB)
