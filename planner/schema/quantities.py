"""Numbers in files with their upper limits.

A limit lies far above what any model or fleet needs, and below what would end in an overflow or take all memory.
"""

from typing import Annotated

from pydantic import Field

MAX_BYTES = 2**50
MAX_CLASSES = 100_000
# Parameters of a network: a ViT-22B has 2.2e10.
MAX_PARAMS = 10**11

# --- sizes of networks ---

Depth = Annotated[int, Field(ge=1, le=1000)]
Channels = Annotated[int, Field(ge=1, le=1024)]
Dim = Annotated[int, Field(ge=1, le=65_536)]
Heads = Annotated[int, Field(ge=1, le=4096)]
HiddenDim = Annotated[int, Field(ge=1, le=2**20)]
Tokens = Annotated[int, Field(ge=1, le=2**20)]
FusionHidden = Annotated[int, Field(ge=1, le=65_536)]
# Index of a head, a hidden channel, a channel group or an embed dim, and a number of them that may be 0.
Index = Annotated[int, Field(ge=0, le=2**20)]

# --- costs ---

Macs = Annotated[int, Field(ge=0, le=10**18)]
Params = Annotated[int, Field(ge=0, le=2**40)]
NumBytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Microseconds = Annotated[int, Field(ge=0, le=10**18)]
# A measured time, or a coefficient of one [us]; a size that is fitted [bytes]; an energy [mJ]; a duration [s].
MeasuredUs = Annotated[float, Field(ge=0, le=1e15)]
FittedBytes = Annotated[float, Field(ge=0, le=1e15)]
Energy = Annotated[float, Field(ge=0, le=1e30)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
# The power of a device [W], and its MAC rate [MAC/s].
Power = Annotated[float, Field(gt=0, le=1e6)]
MacRate = Annotated[float, Field(ge=1, le=1e18)]

# --- others ---

Share = Annotated[float, Field(ge=0, le=1)]
NumEpochs = Annotated[float, Field(ge=0, le=1e6)]
RandomSeed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
# Any number that is fitted or measured and may be negative.
Coefficient = Annotated[float, Field(ge=-1e15, le=1e15)]
# An error or a spread relative to what it is of.
Ratio = Annotated[float, Field(ge=0, le=1e15)]
Positive = Annotated[float, Field(gt=0, le=1e15)]
