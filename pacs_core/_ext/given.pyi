"""Elements that were set, for other native modules."""

from typing import Never, final

@final
class Context:
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...

@final
class Given:
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...

__pyx_capi__: dict[str, object]
