"""One update on its way to many readers: decoded and encoded when the first of them needs it, and once."""

import msgspec

from headrace.v1.task_pb2 import TaskUpdate
from servicekit.live.cursors import Cursor
from servicekit.task_views import is_final, update_view

TASK_UPDATE = "task_update"


class LiveEvent:
    """An update, serialized or not, and its place. A source that cannot be resumed gives no place."""

    __slots__ = ("_data", "_placed", "_unplaced", "_update", "cursor", "size")

    def __init__(self, update: TaskUpdate | bytes, cursor: Cursor | None = None) -> None:
        self.cursor = cursor
        # Bytes of the serialized update; decoded and encoded it takes some times as much.
        self.size = len(update) if isinstance(update, bytes) else update.ByteSize()
        self._update = update
        self._data: bytes | None = None
        self._placed: str | None = None
        self._unplaced: str | None = None

    @property
    def update(self) -> TaskUpdate:
        if isinstance(self._update, bytes):
            self._update = TaskUpdate.FromString(self._update)
        return self._update

    @property
    def is_final(self) -> bool:
        return is_final(self.update.status)

    @property
    def is_progress(self) -> bool:
        return self.update.HasField("progress")

    def data(self) -> bytes:
        """The JSON of the data alone."""
        if self._data is None:
            self._data = msgspec.json.encode(update_view(self.update))
        return self._data

    def text(self, *, placed: bool) -> str:
        """The JSON of the whole event, with its cursor if it is to be `placed` and has one."""
        if placed and self.cursor is not None:
            if self._placed is None:
                self._placed = f'{{"event":"{TASK_UPDATE}","cursor":"{self.cursor}","data":{self.data().decode()}}}'
            return self._placed
        if self._unplaced is None:
            self._unplaced = f'{{"event":"{TASK_UPDATE}","cursor":null,"data":{self.data().decode()}}}'
        return self._unplaced
