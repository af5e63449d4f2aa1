"""The server's side of a WebSocket: uvicorn's own protocol, which does not log what a client says wrongly."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_NO_TEXT = 1007


class Socket(WebSocketsSansIOProtocol):
    """One WebSocket."""

    def send_receive_event_to_app(self) -> None:
        """Called by uvicorn with a whole message in `frames`."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(_NO_TEXT)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()
