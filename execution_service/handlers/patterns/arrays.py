"""Types of arrays. To be imported for annotations alone: numpy costs a worker 16 MiB and 0.1 s."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = int | Integers
