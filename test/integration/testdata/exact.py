"""Spells values so that two of them are alike only if they are the same, to the last bit and digit, and of the same
kind. What a producer meant and what a reader found are compared in this spelling."""
import datetime
import decimal
import struct
import uuid


def single(f):
    """The float that is left of f in 32 bits."""
    return struct.unpack("<f", struct.pack("<f", f))[0]


def spell(v):
    match v:
        case None:
            return None
        case bool():
            return f"bool {v}"
        case int():
            return f"int {v}"
        case float():
            return f"float {v.hex()}"
        case str():
            return f"text {v}"
        case bytes():
            return f"bytes {v.hex()}"
        case decimal.Decimal():
            return f"decimal {v:f}"
        case uuid.UUID():
            return f"uuid {v}"
        case datetime.datetime():
            zone = "zone" if v.tzinfo else "local"
            return f"{zone} {(v.astimezone(datetime.timezone.utc) if v.tzinfo else v).replace(tzinfo=None).isoformat()}"
        case datetime.date():
            return f"date {v.isoformat()}"
        case datetime.time():
            return f"time {v.isoformat()}"
        case dict():
            return {k: spell(x) for k, x in v.items()}
        case [*entries] if entries and all(isinstance(e, tuple) for e in entries):  # a map
            return sorted(([spell(k), spell(x)] for k, x in entries), key=str)
        case list():
            return [spell(x) for x in v]
    raise TypeError(f"{type(v)}: {v}")
