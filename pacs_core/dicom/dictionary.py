"""The data dictionary: what a tag is called and holds, by the standard (PS3.6) or by its private creator.

Tags are group << 16 | element. The standard's part is native; `keywords`, `keyword_of`, `name_of` and `vr_of`
are it. The private part is pydicom's, read when it is first asked.
"""

from __future__ import annotations

import difflib
import re
import sys
from functools import cache
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import NamedTuple

from pacs_core._ext import dictionary as native
from pacs_core._ext.dictionary import keyword_of as keyword_of
from pacs_core._ext.dictionary import keywords as keywords
from pacs_core._ext.dictionary import name_of as name_of
from pacs_core._ext.dictionary import vr_of as vr_of

_PRIVATE_MODULE = "pydicom._private_dict"
_Private = dict[str, dict[str, tuple[str, str, str, str]]]

_TAG = re.compile(r"(0[xX])?[0-9A-Fa-f]{8}|[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}|\([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\)")


class Entry(NamedTuple):
    """An element of the standard.

    `vrs`: where the data set decides (US or SS), all choices; none for items and their delimiters. `vm`: the
    number of values as PS3.6 writes it, such as 1-n. Of some retired elements keyword or name is empty.
    """

    tag: int
    keyword: str
    name: str
    vrs: tuple[str, ...]
    vm: str
    retired: bool

    @property
    def vr(self) -> str:
        """The VR, or the first choice; empty if there is none."""
        return self.vrs[0] if self.vrs else ""


class PrivateEntry(NamedTuple):
    """A private element; `vrs` and `vm` are as those of an `Entry`."""

    name: str
    vrs: tuple[str, ...]
    vm: str
    retired: bool

    @property
    def vr(self) -> str:
        """The VR, or the first choice."""
        return self.vrs[0]


def entry(tag: int) -> Entry | None:
    """The element of that tag, None if the standard has none.

    Repeating groups (60xx,3000), group lengths and private creators (PS3.5 7.2, 7.8.1) are found too.
    """
    found = native.find(tag)
    if found is None:
        return None
    keyword, name, vrs, multiplicity, retired = found
    return Entry(tag, keyword, name, vrs, _vm(*multiplicity), retired)


def _vm(least: int, most: int, step: int) -> str:
    if most == 0:
        return f"{least}-{'n' if step == 1 else f'{step}n'}"
    return str(least) if least == most else f"{least}-{most}"


def tag_of(keyword: str) -> int:
    """The tag of a keyword; KeyError if there is none, with the keywords that look like it.

    Those of repeating groups are none: they don't say which of their tags they mean.
    """
    try:
        return native.tag_of(keyword)
    except KeyError:
        raise KeyError(_unknown(keyword)) from None


def parse_tag(text: str) -> int:
    """The tag that somebody wrote: PatientName, 00100010, 0x00100010, 0010,0010 or (0010,0010).

    Raises KeyError for anything else, with the keywords that look like it; a tag need not be known.
    """
    if _TAG.fullmatch(text):
        return int(text.strip("()").replace(",", ""), 16)
    return tag_of(text)


def _unknown(text: str) -> str:
    if text in keywords(repeating=True):
        return f"{text} is in many groups: its tag says in which"
    close = difflib.get_close_matches(text, keywords())
    return f"no keyword or tag: {text!r}" + (f"; perhaps {' or '.join(close)}" if close else "")


def private_entry(creator: str, tag: int) -> PrivateEntry | None:
    """The private element of that tag, in a block of that creator; None if neither or only one is known.

    Which block it is (the xx of gggg,xxee) makes no difference, nor do spaces around the creator, a LO.
    """
    dictionaries = _private_dictionaries()
    elements = dictionaries.get(creator) or dictionaries.get(creator.strip(" "), {})
    digits = f"{tag:08X}"
    for key in (digits, f"{digits[:4]}xx{digits[6:]}", f"{digits[:2]}xxxx{digits[6:]}"):
        if key in elements:
            vr, vm, name, retired = elements[key]
            return PrivateEntry(name, tuple(re.split(" or |_", vr)), vm, retired != "")
    return None


def _private_dictionaries() -> _Private:
    """pydicom's private dictionary, by creator and digits of the tag: its own, if it is imported."""
    module = sys.modules.get(_PRIVATE_MODULE)
    return _read_alone() if module is None else module.private_dictionaries


@cache
def _read_alone() -> _Private:
    """The same without pydicom, which takes 0.4 s to import: this module needs nothing of it, and 0.02 s."""
    package = PathFinder.find_spec("pydicom")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], "_private_dict.py")
    loader = SourceFileLoader(_PRIVATE_MODULE, str(path))
    spec = spec_from_loader(_PRIVATE_MODULE, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    found: _Private = module.private_dictionaries
    return found
