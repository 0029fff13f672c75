"""A connection that knows how long its client has kept it waiting.

uvicorn bounds how long an idle connection stays, but not how long half a head may take, how large a head may
be, or how long an answer may lie unread; a few thousand such clients would hold every file descriptor and the
memory of their answers. Bodies that the application reads are its own to time (`BodyGuard`).
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.answer_headers import SAFE
from service.error_shapes import error_response
from service.errors import LongHeadError, ServiceError, SlowHeadError

HEAD_BYTES = 64 * 2**10
"""As much as uvicorn's other parser takes."""

WORTH_MENTION = 64 * 2**10
"""Bytes of an answer that a client must take each time if it is not to count as gone."""


class Connection(HttpToolsProtocol):
    """One client. What it is waited for is either a request, since `_waiting`, or that it reads."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: float | None = self.loop.time()
        self._head: int | None = None  # bytes of a head that is not complete
        self._unanswered = 0  # requests
        self.asked = False  # anything yet
        self._unread, self._unread_since = 0, self.loop.time()

    def give_up_after(self, seconds: float) -> None:
        """End it if the client has kept us waiting for longer. To be called about every second."""
        now = self.loop.time()
        if self._unread_for(now) > seconds:
            self.transport.abort()
        elif self._waiting is not None and now - self._waiting > seconds and not self.transport.is_closing():
            self._give_up(now - self._waiting)

    def _give_up(self, seconds: float) -> None:
        if self._head is None:
            self.transport.close()
        else:
            self._refuse(SlowHeadError(f"the head of the request did not arrive within {seconds:.0f} s"))

    def data_received(self, data: bytes) -> None:
        """Parse, and bound the part of it that is not complete."""
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._refuse(LongHeadError(f"the head of a request may have {HEAD_BYTES} bytes at most"))

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head = 0
        if not self._unanswered:
            self._waiting = self.loop.time()

    def on_headers_complete(self) -> None:
        """From here on it is the application's."""
        self._waiting = self._head = None
        self._unanswered += 1
        self.asked = True
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """And here it is the client's turn again, be it to finish a body that nobody waited for."""
        super().on_response_complete()
        self._unanswered -= 1
        if not self._unanswered:
            self._waiting = self.loop.time()

    def resume_writing(self) -> None:
        """The client has read what lay here."""
        super().resume_writing()
        self._unread = 0

    def _unread_for(self, now: float) -> float:
        """Seconds since the client last read something worth mention of what lies here for it."""
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or self._unread == 0 or unread <= self._unread - WORTH_MENTION:
            self._unread, self._unread_since = unread, now
        return now - self._unread_since

    def _refuse(self, error: ServiceError) -> None:
        """Answer in the application's place, unless an answer is under way, and close."""
        self._head = None
        if not self._unanswered:
            response = error_response(error, "", "")
            headers = [*response.raw_headers, *SAFE, (b"connection", b"close")]
            lines = [b"%s: %s\r\n" % header for header in headers]
            head = STATUS_LINE[error.status_code]
            self.transport.write(b"".join([head, *lines, b"\r\n", bytes(response.body)]))
        self.transport.close()
