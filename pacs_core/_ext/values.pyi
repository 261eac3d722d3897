"""The bytes of a value as Python objects (PS3.5 6.2)."""

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
        Of one value, without padding, of the VRs whose values are more than text: DA, DS, DT, IS, TM.
    """

    def __init__(
        self,
        decode: Callable[[bytes, bytes, bool], tuple[str, bool]],
        person_name: Callable[[str], Any],
        of_text: Mapping[str, Callable[[str], Any]],
    ) -> None: ...
    @property
    def decode(self) -> Callable[[bytes, bytes, bool], tuple[str, bool]]: ...
    @property
    def person_name(self) -> Callable[[str], Any]: ...
    @property
    def of_text(self) -> dict[int, Callable[[str], Any]]: ...

__pyx_capi__: dict[str, object]
