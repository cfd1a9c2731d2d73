"""A form with a file, taken in while it arrives: nothing of the file is kept in memory or in a second file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from contest.errors import UsageError
from leaderboard.storage.file_store import Incoming

_FIELD_BYTES = 4096
_PARTS = 5


class UploadForm:
    """A multipart/form-data body in pieces: short fields into `fields`, the part FILE into an incoming file.

    `before_file` is called with the fields that stand before the file (a browser sends them in the form's order), so
    that a form can be turned away before its file has arrived. What it raises, and TooLargeError, `feed` raises.
    Raises UsageError for a body that is no such form.
    """

    def __init__(
        self, content_type: str, name: str, incoming: Incoming, before_file: Callable[[Mapping[str, str]], None]
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UsageError("the body is no multipart/form-data with a boundary")
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self._name, self._incoming, self._before_file = name, incoming, before_file
        self._parts, self._disposition, self._header, self._value = 0, b"", b"", b""
        self._field: str | None = None
        self._text = b""
        self._ended = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise UsageError("the form is damaged: its parts cannot be told apart") from error

    def finish(self) -> None:
        """The body has ended. Raises UsageError when its last part has not, or no file was in it."""
        if not self._ended:
            raise UsageError("the form is damaged: it breaks off")
        if not self.file_name:
            raise UsageError("no file was chosen")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise UsageError(f"the form has more than {_PARTS} parts")
        self._disposition, self._header, self._value, self._field, self._text = b"", b"", b"", None, b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header = self._limited(self._header + data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._limited(self._value + data[start:end])

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        if name == self._name and b"filename" in options:
            if self.file_name:
                raise UsageError("the form has more than one file")
            self._before_file(self.fields)
            self.file_name = file_name
        else:
            self._field = name

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._incoming.write(data[start:end])
        else:
            self._text = self._limited(self._text + data[start:end])

    def _end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True

    def _limited(self, text: bytes) -> bytes:
        if len(text) > _FIELD_BYTES:
            raise UsageError(f"a field of the form has more than {_FIELD_BYTES} bytes")
        return text
