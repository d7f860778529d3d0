"""The threads that work: take the newest image, find the person, fit, hand the estimate on. Bad input never ends them.

Two threads, so that two cores are used: while one fits frame n, the other looks for the person in the newest image. It
also makes the matte, unless the first has nothing to do meanwhile.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from blur_motion_ros import threads
from blur_motion_ros.background.buffer import FrameBuffer
from blur_motion_ros.messages.diagnostics import Rate, Window
from blur_motion_ros.messages.stamps import StreamClock
from blur_motion_ros.nodes.engine import Engine
from blur_motion_ros.nodes.intake import Arrived, Intake
from blur_motion_ros.types import Frame, MotionEstimate

_POLL_S = 0.1
_WAITED = 0.2  # share of the time between images that an image waits for the one before until it is late


@dataclass(frozen=True)
class Result:
    """One processed frame.  arrived: monotonic seconds when its message came in."""

    frame: Frame
    estimate: MotionEstimate
    clock: StreamClock
    arrived: float


class Handover:
    """One place between the two threads. The first waits until it is free *before* it takes a new image, so that no
    image grows old in a queue."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: Any = None
        self.awaited = False  # the second waits for it now

    def wait_free(self, timeout: float) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self._item is None, timeout)

    def put(self, item: Any) -> None:
        with self._condition:
            self._item = item
            self._condition.notify_all()

    def take(self, timeout: float) -> Any:
        """The item, or None after `timeout` s."""
        with self._condition:
            self.awaited = True
            self._condition.wait_for(lambda: self._item is not None, timeout)
            self.awaited = False
            item, self._item = self._item, None
            self._condition.notify_all()
            return item


class FitWorker:
    """Runs an engine on the newest image.

    make_engine: called in the worker's thread, as loading takes seconds.  deliver(engine, result): gets every estimate.
    watch(image): sees every good image.  hurry_after: share of the time between images after which a fit takes only the
    steps that it must (0: nothing is ever hurried).  error: why there is no engine, or ''.
    """

    def __init__(self, make_engine: Callable[[], Engine], intake: Intake, deliver: Callable[[Engine, Result], None],
                 problem: Callable[[str, str], None], hurry_after: float = 0.0) -> None:
        self._make_engine, self._intake, self._deliver, self._problem = make_engine, intake, deliver, problem
        self.mailbox: FrameBuffer[tuple[Any, float]] = FrameBuffer()
        self._hurry_after = hurry_after
        self.watch: Callable[[np.ndarray], None] = lambda image: None
        self.input_rate, self.output_rate = Rate(), Rate()
        self.see_ms, self.fit_ms = Window(), Window()
        self.seen_late, self.fitted_late = Window(), Window()
        self.timings: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self.error = ""
        self.ready = threading.Event()
        self._handover = Handover()
        self._requests: list[Callable[[Engine], None]] = []
        self._fresh = False
        self._seen_at = -math.inf  # when the last image had been looked at, monotonic s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="see", daemon=True)]

    def start(self) -> None:
        self._threads[0].start()

    def stop(self, timeout: float) -> bool:
        """Ask the threads to end and wait; False if one is still busy after `timeout` s."""
        self._stop.set()
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def put(self, message: Any) -> None:
        """Called by the image subscription: keep the newest, nothing else."""
        self.input_rate.tick()
        self.mailbox.put((message, time.monotonic()))

    def request(self, action: Callable[[Engine], None]) -> None:
        """Have `action(engine)` run before the next image is looked at."""
        with self._lock:
            self._requests.append(action)

    def start_anew(self) -> None:
        """Let the next image continue nothing that came before."""
        self._fresh = True

    def _run(self) -> None:
        threads.name("see")
        try:
            engine = self._make_engine()
        except Exception as error:  # missing weights, a broken body file: say so and stay up for diagnostics
            self.error = f"the pipeline cannot start: {' '.join(str(error).split())}"
            self._problem("start", self.error)
            return
        fitting = threading.Thread(target=self._run_fit, args=(engine,), name="fit", daemon=True)
        self._threads.append(fitting)
        fitting.start()
        self.ready.set()
        while not self._stop.is_set():
            self._run_requests(engine)
            if not self._handover.wait_free(_POLL_S):
                continue
            item = self.mailbox.get(_POLL_S)
            if item is not None and not self._stop.is_set():
                self._guarded(self._see, engine, *item)

    def _run_fit(self, engine: Engine) -> None:
        threads.name("fit")
        while not self._stop.is_set():
            item = self._handover.take(_POLL_S)
            if item is not None and not self._stop.is_set():
                self._guarded(self._fit, engine, *item)

    def _see(self, engine: Engine, message: Any, arrived: float) -> None:
        taken = self._intake.frame(message)
        if taken is None:
            return
        self.watch(taken.frame.image)
        fresh, self._fresh = taken.flush or self._fresh, False
        start = time.perf_counter()
        try:
            late = self._seen_at - arrived > self._share_of_period(_WAITED)
            seen = engine.see(taken.frame, fresh, late)
            if not self._handover.awaited:
                seen = engine.matte(seen)
        except Exception:
            self._fresh = fresh  # the next image is then the one that starts anew
            raise
        self._seen_at = time.monotonic()
        self.seen_late.add(float(late))
        self.see_ms.add(1e3 * (time.perf_counter() - start))
        self._handover.put((seen, taken, arrived))

    def _fit(self, engine: Engine, seen: Any, taken: Arrived, arrived: float) -> None:
        start = time.perf_counter()
        until = start + self._share_of_period(self._hurry_after)
        estimate = engine.fit(seen, until)
        self.fitted_late.add(float(time.perf_counter() > until))
        self.fit_ms.add(1e3 * (time.perf_counter() - start))
        self.timings = engine.timings.copy()
        self.values = dict(getattr(engine, "values", {}))
        frame = getattr(seen, "frame", taken.frame)  # its exposure may be an estimate
        self._deliver(engine, Result(frame, estimate, taken.clock, arrived))
        self.output_rate.tick()

    def _share_of_period(self, share: float) -> float:
        """Of the time between images, s; endless where nothing is hurried or no rate is known."""
        rate = self.input_rate.value()
        return share / rate if self._hurry_after > 0 and rate > 0 else math.inf

    def _run_requests(self, engine: Engine) -> None:
        with self._lock:
            requests, self._requests = self._requests, []
        for action in requests:
            try:
                action(engine)
            except Exception as error:
                self._problem("request", f"{error}")

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._problem("fit", f"frame skipped: {type(error).__name__}: {error} ({where.name}, line {where.lineno})")
