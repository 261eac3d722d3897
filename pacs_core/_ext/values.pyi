"""The bytes of a value as Python objects (PS3.5 6.2)."""

import datetime
from collections.abc import Callable, Mapping
from typing import Any, final

@final
class Types:
    """What values become.

    Parameters
    ----------
    decode : callable (value, character_set, is_name) -> (text, sound)
        As `dicom.charset.decode`.
    person_name : callable (text) -> object
        Of one value of PN.
    of_text : dict of VR to callable (text) -> object
        Of one value, without padding, of each VR whose values are more than text: DA, DS, DT, IS, TM.
    integer_string, date, time, date_time : class
        What values in the standard forms are made of at once: subclasses of int and of datetime's classes,
        with an attribute `_text`.
    """

    def __init__(
        self,
        decode: Callable[[bytes, bytes, bool], tuple[str, bool]],
        person_name: Callable[[str], Any],
        of_text: Mapping[str, Callable[[str], Any]],
        *,
        integer_string: type[int],
        date: type[datetime.date],
        time: type[datetime.time],
        date_time: type[datetime.datetime],
    ) -> None: ...
    @property
    def decode(self) -> Callable[[bytes, bytes, bool], tuple[str, bool]]: ...
    @property
    def person_name(self) -> Callable[[str], Any]: ...
    @property
    def of_text(self) -> dict[int, Callable[[str], Any]]: ...

__pyx_capi__: dict[str, object]
