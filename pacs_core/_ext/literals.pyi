"""Dates, times and numbers in their standard forms, for other native modules."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Self

from typing_extensions import disjoint_base

@disjoint_base
class DecimalString(float):
    """A DS; infinite where a float can't hold it.

    Raises
    ------
    InvalidValueError
        Of a number that no DS can be, or a text that is none.
    """

    def __new__(cls, value: float | Decimal | str = 0.0) -> Self: ...
    @property
    def text(self) -> str:
        """The value as it is written, without padding; as it was, if it was read."""
    @property
    def decimal(self) -> Decimal:
        """Exactly what is written; as the float where the exponent is beyond a Decimal's, too."""
    def __reduce__(self) -> tuple[Any, ...]: ...

def read_decimal(text: str) -> DecimalString:
    """The decimal string of an ASCII text that `float` reads. ValueError for others."""

def make_decimals(
    *, as_written: Callable[[float | Decimal | str], str], again: Callable[[str], DecimalString | str]
) -> None:
    """What `dicom.values` knows of DecimalString, once and for all.

    `as_written` gives the text of a value, or raises InvalidValueError; `again` reads that of pickles and
    copies.
    """

__pyx_capi__: dict[str, object]
