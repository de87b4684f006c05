"""The screen of a match on torch tensors; what it leaves is verified by the compiled core.

::

    Panel ── GpuScreen ──► ŵ (bf16), error norms, value, cost ─┐               on the device
    rows ── rounded ─────► x̂ (bf16), error norms ──────────────┴─ mm ─► z ± margin
                                                                           │
       plane bits, h ──────────────────────────────────────────────────────┤
                                                                           ▼
                     threshold of the row: K′ pairs reach it ──► pairs that the bound cannot exclude
                                                                           │
    MatchResult ◄── kernel.match of rows that are not certain ◄── kernel.verify     on the host

    match.py     GpuScreen and match: blocks of rows, memory, what goes to the compiled core
    screen.py    a panel on the device and the pairs of a block that its bound cannot exclude
    bounds.py    roundings and what they can cost: norms, margins, expected values
    device.py    torch, its devices, their memory and their product

The answer is that of `kernel.match`, bit for bit: the device decides which pairs are scored, never
what a score is (docs/kernel.md, *A screen on a GPU*). Only this package imports torch, and only
when it is used: ``pip install 'visavis[gpu]'``.
"""

from visavis.gpu.match import GpuScreen, check_device, match

__all__ = ["GpuScreen", "check_device", "match"]
