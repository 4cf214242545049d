"""Real pictures for tests and benchmarks.

- `china.jpg`: by danielbuechele, and `flower.jpg`: by vultilion, both CC-BY-2.0, 640 x 427.
- `digits.csv.gz`: the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
  Learning Repository, CC-BY-4.0: 1,797 digits of 8 x 8 pixels from 0 to 16, and which digit each is.

All three are as scikit-learn brings them; that is no requirement because transformers would import it wherever it is
found, seconds of each start of a model server and a training rank.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent


@cache
def photographs() -> dict[str, Image.Image]:
    """What they show -> RGB."""
    files = {"temple in china": "china.jpg", "dahlia flower": "flower.jpg"}
    return {shown: Image.open(FOLDER / file).convert("RGB") for shown, file in files.items()}


@cache
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(N, 8, 8) grey images from 0 to 255, and (N,) the digit of each."""
    rows = np.loadtxt(FOLDER / "digits.csv.gz", delimiter=",")
    return (rows[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8), rows[:, -1].astype(np.uint8)
