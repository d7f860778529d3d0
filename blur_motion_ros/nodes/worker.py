"""The thread that fits: takes the newest image, runs the engine, hands the estimate on. Never dies of bad input."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from blur_motion_ros.background.buffer import FrameBuffer
from blur_motion_ros.messages.diagnostics import Rate, Window
from blur_motion_ros.messages.stamps import StreamClock
from blur_motion_ros.nodes.engine import Engine
from blur_motion_ros.nodes.intake import Intake
from blur_motion_ros.types import Frame, MotionEstimate


@dataclass(frozen=True)
class Result:
    """One processed frame.  arrived: monotonic seconds when its message came in."""

    frame: Frame
    estimate: MotionEstimate
    clock: StreamClock
    arrived: float


class FitWorker:
    """Runs `engine` on the newest image in a thread of its own.

    requests: functions of the engine (reset, background) run between two frames, in the worker's thread.
    """

    def __init__(self, make_engine: Callable[[], Engine], intake: Intake, deliver: Callable[[Engine, Result], None],
                 problem: Callable[[str, str], None]) -> None:
        self._make_engine, self._intake, self._deliver, self._problem = make_engine, intake, deliver, problem
        self.mailbox: FrameBuffer[tuple[Any, float]] = FrameBuffer()
        self.watch: Callable[[np.ndarray], None] = lambda image: None  # sees every good image
        self.input_rate, self.output_rate, self.fit_ms = Rate(), Rate(), Window()
        self.timings: dict[str, float] = {}
        self.error = ""
        self.ready = threading.Event()
        self._requests: list[Callable[[Engine], None]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blur fit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end and wait; False if it is still busy after `timeout` s."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def put(self, message: Any) -> None:
        """Called by the image subscription: keep the newest, nothing else."""
        self.input_rate.tick()
        self.mailbox.put((message, time.monotonic()))

    def request(self, action: Callable[[Engine], None]) -> None:
        """Have `action(engine)` run before the next frame."""
        with self._lock:
            self._requests.append(action)

    def _run(self) -> None:
        try:
            engine = self._make_engine()
        except Exception as error:  # missing weights, a broken body file: say so and stay up for diagnostics
            self.error = f"the pipeline cannot start: {error}"
            self._problem("start", self.error)
            return
        self.ready.set()
        while not self._stop.is_set():
            self._run_requests(engine)
            item = self.mailbox.get(0.1)
            if item is not None and not self._stop.is_set():
                self._process(engine, *item)

    def _run_requests(self, engine: Engine) -> None:
        with self._lock:
            requests, self._requests = self._requests, []
        for action in requests:
            try:
                action(engine)
            except Exception as error:
                self._problem("request", f"{error}")

    def _process(self, engine: Engine, message: Any, arrived: float) -> None:
        try:
            taken = self._intake.frame(message)
            if taken is None:
                return
            if taken.flush:
                engine.reset()
            self.watch(taken.frame.image)
            start = time.perf_counter()
            estimate = engine.process(taken.frame)
            self.fit_ms.add(1e3 * (time.perf_counter() - start))
            self.timings = dict(engine.timings)
            self._deliver(engine, Result(taken.frame, estimate, taken.clock, arrived))
            self.output_rate.tick()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._problem("fit", f"frame skipped: {type(error).__name__}: {error} ({where.name}, line {where.lineno})")
