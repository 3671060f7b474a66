"""A window that nobody sees, in place of OpenCV's."""

from __future__ import annotations

import time

import cv2

from runtime import webcam


class FakeWindow:
    """Stands for OpenCV's window: notes what is shown and written on it, presses keys at their time."""

    def __init__(self, monkeypatch, presses):
        self.shown, self.texts, self.is_open = [], [], True
        self.presses = sorted(presses)  # (frames shown before it, key)
        monkeypatch.setattr(webcam, "has_display", lambda: True)
        monkeypatch.setattr(cv2, "imshow", self.show)
        monkeypatch.setattr(cv2, "waitKey", self.wait)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: int(self.is_open))
        monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
        put_text = cv2.putText
        monkeypatch.setattr(cv2, "putText", lambda *args: (self.texts.append(args[1]), put_text(*args)))

    def show(self, name, image):
        self.shown.append(image.copy())

    def wait(self, delay_ms):
        if self.presses and len(self.shown) >= self.presses[0][0]:
            key = self.presses.pop(0)[1]
            if key == "close":
                self.is_open = False
                return -1
            return ord(key)
        time.sleep(delay_ms / 1000)
        return -1
