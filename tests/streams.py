"""Servers of live pictures on this machine: motion JPEG over HTTP, and RTSP, as network cameras speak them."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import cv2
import numpy as np

SIZE_WH = (160, 120)
FRAME_S = 0.02
QUALITY = 90
JPEG_PAYLOAD, JPEG_420, VIDEO_CLOCK_HZ = 26, 1, 90_000  # RFC 3551, RFC 2435
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
SESSION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n"  # RFC 4566
DESCRIPTION = f"{SESSION}m=video 0 RTP/AVP {JPEG_PAYLOAD}\r\na=control:one\r\n"


def jpeg(number: int) -> bytes:
    """Picture `number`, gray: each one is a little brighter than the one before."""
    image = np.full((SIZE_WH[1], SIZE_WH[0], 3), number % 200, np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


class HttpPictures(BaseHTTPRequestHandler):
    """JPEGs one after the other, in one answer that does not end."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        with contextlib.suppress(OSError):  # nobody listens any more
            for number in count():
                encoded = jpeg(number)
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(encoded)}\r\n\r\n"
                self.wfile.write(head.encode() + encoded + b"\r\n")
                time.sleep(FRAME_S)

    def log_message(self, *args):
        """Says nothing."""


class HttpFile(BaseHTTPRequestHandler):
    """The server's `file`, of which the last third never comes."""

    def do_GET(self):
        content = self.server.file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content[: 2 * len(content) // 3])
            self.wfile.flush()
            self.server.is_over.wait(60)

    def log_message(self, *args):
        """Says nothing."""


class RtspPictures(StreamRequestHandler):
    """An RTSP session with the pictures in the same connection (RFC 2326, 10.12), as RTP packets of JPEG (RFC 2435).

    The server's `last` says how many pictures a session has; then the camera hangs up.
    """

    def handle(self):
        playing = None
        with contextlib.suppress(OSError):
            while request := self._request():
                method, fields = request
                answer = {"CSeq": fields["cseq"], "Session": "1"}
                body = DESCRIPTION if method == "DESCRIBE" else ""
                answer |= {
                    "OPTIONS": {"Public": "DESCRIBE, SETUP, PLAY, TEARDOWN"},
                    "DESCRIBE": {"Content-Type": "application/sdp", "Content-Length": str(len(body))},
                    "SETUP": {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1"},
                }.get(method, {})
                lines = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
                self.wfile.write(f"RTSP/1.0 200 OK\r\n{lines}\r\n{body}".encode())
                if method == "PLAY" and playing is None:
                    playing = threading.Thread(target=self._play, daemon=True)
                    playing.start()

    def _request(self):
        """Method and header fields; None at the end. RTCP packets in between are passed over."""
        while (first := self.rfile.read(1)) == b"$":
            self.rfile.read(struct.unpack(">xH", self.rfile.read(3))[0])
        line = first + self.rfile.readline()
        if not line:
            return None
        fields = {}
        while field := self.rfile.readline().decode().strip():
            name, _, value = field.partition(":")
            fields[name.lower()] = value.strip()
        return line.decode().split()[0], fields

    def _play(self):
        with contextlib.suppress(OSError):
            for number in range(self.server.last):
                encoded = jpeg(number)
                scan = encoded.index(START_OF_SCAN) + 2
                scan += struct.unpack(">H", encoded[scan : scan + 2])[0]
                pixels = encoded[scan : encoded.rindex(END_OF_IMAGE)]
                header = struct.pack(">IBBBB", 0, JPEG_420, QUALITY, SIZE_WH[0] // 8, SIZE_WH[1] // 8)
                ticks = round(number * FRAME_S * VIDEO_CLOCK_HZ)
                packet = struct.pack(">BBHII", 0x80, 0x80 | JPEG_PAYLOAD, number % 65536, ticks, 1) + header + pixels
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                time.sleep(FRAME_S)
            self.connection.shutdown(2)


SERVERS = {
    "http": (ThreadingHTTPServer, HttpPictures),
    "file": (ThreadingHTTPServer, HttpFile),
    "rtsp": (ThreadingTCPServer, RtspPictures),
}


@contextlib.contextmanager
def served(kind: str, last: int = 10**6, file: Path | None = None) -> Iterator[str]:
    """The URL, without its scheme, of a server ("http" or "rtsp", or "file" over HTTP) that runs meanwhile."""
    server_class, handler = SERVERS[kind]
    server = server_class(("127.0.0.1", 0), handler)
    server.daemon_threads, server.last, server.file, server.is_over = True, last, file, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}/live"
    finally:
        server.is_over.set()
        server.shutdown()
        server.server_close()
