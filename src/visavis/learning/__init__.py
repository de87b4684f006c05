"""Learning: what customers did after a cut → calibrated weights for every capability.

::

    spec.py          what to learn from, and how carefully
    windows.py       what was known up to a cut, and what was bought after it
    pairs.py         sampled pairs with features, weighted back to the full population
    pooled.py        one model over many products
    fit.py           a product's own deviation from it
    learn.py         the whole: windows → catalog and provenance
    checkpoint.py    finished blocks, for resumption
    calibration.py   do the propensities mean what they say?
    card.py          the model card

The model is linear in the indicators and in the history features, because that is what a catalog
can carry and a match can explain. For each product

    z = level + Σ history weights · own history + length · (declared weights · x) + Σ weights · x

is fitted to "buys in the next window"; σ(z) is the propensity and log(1 + e^z) the expected
purchases (link ``count``).
"""

from visavis.learning.calibration import outliers, recalibrated, reliability
from visavis.learning.card import model_card
from visavis.learning.learn import Learned, learn
from visavis.learning.spec import LearnSpec
from visavis.learning.windows import Window, window_of

__all__ = [
    "LearnSpec",
    "Learned",
    "Window",
    "learn",
    "model_card",
    "outliers",
    "recalibrated",
    "reliability",
    "window_of",
]
