"""Data sets: a tape, and over it what was set and deleted; `dicom.dataset.Dataset` is what users see."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Never, Self, final, overload

from typing_extensions import disjoint_base

from pacs_core._ext.findings import Finding
from pacs_core._ext.values import Types

@final
class Sequence:
    """The items of a sequence (PS3.5 7.5), as a list of data sets; made when they are looked at.

    Parameters
    ----------
    items : iterable of Dataset
    """

    def __init__(self, items: Iterable[Tree] = ()) -> None: ...
    def copy(self) -> Sequence:
        """A sequence of copies of its data sets."""
    def __copy__(self) -> Sequence: ...
    def __deepcopy__(self, memo: object) -> Sequence: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> Any: ...
    @overload
    def __getitem__(self, key: slice, /) -> list[Any]: ...
    def __setitem__(self, place: int, item: Tree, /) -> None: ...
    def __delitem__(self, place: int | slice, /) -> None: ...
    def insert(self, place: int, item: Tree) -> None:
        """Put a data set before that of the place."""
    def append(self, item: Tree) -> None:
        """Add a data set at the end."""
    def extend(self, items: Iterable[Tree]) -> None:
        """Add several at the end."""
    def __iter__(self) -> Iterator[Any]: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Frame: ...

@disjoint_base
class Tree:
    """The elements of a data set; `dicom.dataset.Dataset` is what users see of it.

    A class made of it has an attribute `types`: the `Types` that its values become.
    """

    types: ClassVar[Types]

    @property
    def meta(self) -> Any: ...
    def _resolve(self, key: object) -> tuple[Tree, int]:
        """The data set and the tag that a key means that is neither tag nor keyword. KeyError if none."""
    def _item(self, key: object) -> Tree | None:
        """The item of a sequence that such a key means, None if it means something else."""
    def creator_of(self, tag: int) -> str:
        """The private creator of a tag's block (PS3.5 7.8.1), '' if it has none."""
    def _private_vr(self, tag: int) -> str:
        """The VR of a private element that tells none."""
    def __getitem__(self, key: object, /) -> Any: ...
    def get(self, key: object, default: Any = None) -> Any:
        """The value of an element, `default` if there is none of that key."""
    def __getattr__(self, name: str) -> Any: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __iter__(self) -> Iterator[Element]: ...
    def walk(self) -> Iterator[Element]:
        """Every element, those in sequences after the sequence; see `Element.path`.

        InvalidValueError for more than 256 sequences in each other.
        """
    def pick(self, *keys: object) -> tuple[Any, ...]:
        """The values of several elements, a tuple; None for those that are not there.

        Fastest in the order of their tags.
        """
    def element(self, key: object) -> Element:
        """The element of a key, for its VR, its place, its bytes. KeyError if there is none."""
    def copy(self) -> Self:
        """A data set of its own, that shares what was read."""
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: object) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def _put(self, tag: int, vr: str, data: object) -> None:
        """Set an element: bytes in little endian and UTF-8, a tuple of them for fragments, or a Sequence."""
    def _remove(self, tag: int) -> None:
        """Delete an element. KeyError if there is none."""
    @property
    def changed(self) -> bool:
        """Whether anything in it was set or deleted since it was read; True of what was not read."""
    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was odd about the data set as it was read: `Finding` (kind, tag, offset, times) each."""
    @property
    def truncated(self) -> bool:
        """Whether the data set as it was read ends in the middle of something."""
    @property
    def cut(self) -> tuple[int, int] | None:
        """Of what is truncated, the tag and the offset of what is not whole; None of what is not."""
    @property
    def encoding(self) -> tuple[bool, bool]:
        """(implicit, little endian): how what was read turned out to be encoded; else (False, True)."""
    @property
    def character_set(self) -> bytes:
        """The value of (0008,0005) that text which was read is decoded by; b'' if there is none."""
    @property
    def signed(self) -> bool: ...

@final
class Element:
    """One element of a data set, as it is at the moment it is asked."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def dataset(self) -> Tree: ...
    @property
    def tag(self) -> int: ...
    @property
    def vr(self) -> str:
        """Its VR (PS3.5 6.2); where the data set tells none, by the dictionary."""
    @property
    def value(self) -> Any:
        """Its value: a tuple of several."""
    @property
    def values(self) -> tuple[Any, ...]:
        """All its values, a tuple."""
    @property
    def keyword(self) -> str:
        """Its keyword (PS3.6), '' if it has none."""
    @property
    def name(self) -> str:
        """Its name (PS3.6), '' if it is not in the dictionary."""
    @property
    def path(self) -> str:
        """Where `walk` found it: keywords (tags in hexadecimal where there are none) and places of items."""
    @property
    def offset(self) -> int | None:
        """Where its value begins in what was read, in bytes; None of one that was set."""
    @property
    def length(self) -> int | None:
        """Of its value as it was read, in bytes, up to the delimiter if it is undefined; None of one that was
        set."""
    @property
    def undefined(self) -> bool:
        """Whether it was of undefined length."""
    @property
    def raw(self) -> Any:
        """The bytes of its value as it was read, a view; as they are kept, of one that was set."""

__pyx_capi__: dict[str, object]
