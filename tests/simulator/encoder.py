"""Writes recordings as latency-user reads them: HdrHistogram interval logs, V2, from scratch.

Shares no code with latency-user. Durations have two significant digits in buckets of 256 slots, as
HdrHistogram lays them out for a highest value of 2^36 - 1.
"""

import base64
import json
import struct
import zlib

SLOTS = 256
HALF = SLOTS // 2
HIGHEST = (1 << 36) - 1


def index_of(value):
    """The slot of a value (HdrHistogram, countsArrayIndex)."""
    bucket = max(value.bit_length() - 8, 0)
    return (bucket + 1) * HALF + (value >> bucket) - HALF


def zigzag(number):
    """A signed number as HdrHistogram's LEB128 of up to nine bytes."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    for _ in range(8):
        if number < 0x80:
            out.append(number)
            return bytes(out)
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number & 0xFF)
    return bytes(out)


def histogram(counts):
    """The base64 text of a histogram of {value: count}."""
    slots = {}
    for value, count in counts.items():
        if count:
            slot = index_of(value)
            slots[slot] = slots.get(slot, 0) + count
    payload, at = b"", 0
    for slot in sorted(slots):
        if slot > at:
            payload += zigzag(-(slot - at))
        payload += zigzag(slots[slot])
        at = slot + 1
    head = struct.pack(">iiiiqqd", 0x1C849303 | 0x10, len(payload), 0, 2, 1, HIGHEST, 1.0)
    packed = zlib.compress(head + payload, 1)
    whole = struct.pack(">ii", 0x1C849304 | 0x10, len(packed)) + packed
    return base64.b64encode(whole).decode()


TYPICAL = 5_000
STALL = 2_000_000


def recording(path, seconds, host="h", start=0.0, length=1.0):
    """Writes a recording of `seconds`: pairs of events and stalls in each interval."""
    moment = 1_767_323_045 + start
    run = {
        "kind": "run", "schema_version": 2, "host": host, "kernel": "6.18",
        "started_at": stamp(moment), "duration_s": 0.0, "ifaces": [], "threshold_ns": 1_000_000,
        "transport": "maps", "cpus": 2, "version": "0.1.0",
        "probes": [{"stage": "net_rx", "method": "tracepoint", "at": "softirq_entry"}],
    }
    with open(path, "w", encoding="ascii") as log:
        log.write("#[Histogram log format version 1.3]\n")
        log.write(f"#[StartTime: {moment:.3f} (seconds since epoch)]\n")
        log.write(f"#[latency-user] {json.dumps(run)}\n")
        log.write('"StartTimestamp","Interval_Length","Interval_Max",'
                  '"Interval_Compressed_Histogram"\n')
        for at, (events, stalls) in enumerate(seconds):
            counts = {TYPICAL: max(events - stalls, 0), STALL: stalls}
            most = (STALL if stalls else TYPICAL) / 1e6
            log.write(f"Tag=stage=net_rx;cpu=0,{at * length:.3f},{length:.3f},{most:.3f},"
                      f"{histogram(counts)}\n")
            sums = {"sum_ns": sum(value * count for value, count in counts.items()),
                    "max_ns": STALL if stalls else TYPICAL, "over_threshold": stalls, "work": 0}
            interval = {"kind": "interval", "schema_version": 2, "start_s": at * length,
                        "duration_s": length, "series": {"stage=net_rx;cpu=0": sums}}
            log.write(f"#[latency-user] {json.dumps(interval)}\n")


def stamp(seconds):
    """RFC 3339 of seconds since the epoch."""
    import datetime

    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
