"""Lines as ffprobe writes them by key, from short ones."""

TIMES = ("pts", "dts", "duration", "size", "flags")
COUNTED = ("stream_index", *TIMES, "data_hash")


def keyed(values: str, names: tuple[str, ...]) -> str:
    """Return `values`, separated by commas, each behind its name."""
    return "|".join(f"{n}={v}" for n, v in zip(names, values.split(","), strict=False))


def counted(lines: str) -> str:
    """Return packets for a PacketReader; of a line `,HASH` only the hash, as ffprobe 5.1 writes it."""
    made = []
    for line in lines.split("\n"):
        hashed = line.startswith(",")
        made.append(f"|data_hash={line[1:]}" if hashed else keyed(line, COUNTED) if line else "")
    return "\n".join(made)


def packet(values: str, names: tuple[str, ...] = TIMES) -> str:
    """Return the line of a packet."""
    return f"packet|{keyed(values, names)}"
