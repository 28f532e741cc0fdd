"""Jobs on models from anywhere: in a process with a limit of time inside `foreign_work`, else where they are asked for.

A job is a function of a module, from facts and arrays to facts and arrays. What comes from a stranger may make a
library work for ever, or crash; inside the block that ends in one typed error and leaves nothing behind.
"""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from modelpress.export import errors
from modelpress.export.choices import DEFAULT_TIMEOUT_S
from modelpress.export.errors import ModelError, ModelpressError
from modelpress.export.isolation.current import CURRENT, foreign_process
from modelpress.export.isolation.fresh import fresh_process
from modelpress.export.isolation.messages import Array, Facts, receive, send

Job = Callable[[Facts, list[Array]], tuple[Facts, list[Array]]]


class JobFailed(Exception):  # noqa: N818 - reads as the fact it states
    """A job raised an error that is none of ours; the text is that error's."""


class ForeignProcess:
    """A process for jobs, started when it is needed, and again after it had to be ended.

    Attributes:
        timeout_s: Seconds for each job.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self, *modules: str) -> "ForeignProcess":
        """Start it now: these modules load there while this process does something else."""
        if self._process is None:
            self._process = subprocess.Popen(
                fresh_process("-m", "modelpress.export.isolation.worker", *modules),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us, who end it
            )
        return self

    def run(
        self, job: Job, facts: Facts, arrays: Sequence[Array], *, memory_bytes: int | None = None
    ) -> tuple[Facts, list[Array]]:
        """One job, see `run_foreign`."""
        with self._lock:
            process = self.start()._process
            assert process is not None
            assert process.stdin is not None
            assert process.stdout is not None
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(self.timeout_s, end)
            timer.start()
            told = {
                "job": f"{job.__module__}:{job.__qualname__}",
                "facts": facts,
                "limit_s": self.timeout_s,
                "memory_bytes": memory_bytes,
            }
            try:
                send(process.stdin, told, arrays)
                found, made = receive(process.stdout)
            except (EOFError, OSError) as error:
                code = self._end()
                if late.is_set():
                    raise ModelError(
                        f"working on the model took longer than {self.timeout_s:g} s and was stopped; "
                        "if it is to take as long, give more (--timeout SECONDS)"
                    ) from None
                raise ModelError(f"the process that worked on the model died: {_cause(code)}") from error
            except BaseException:  # Ctrl-C: the answer would be taken for that of the next job
                self._end()
                raise
            finally:
                timer.cancel()

        if "error" in found:
            raise _raised(found)
        return found["found"], made

    def forget(self, job: Job, facts: Facts) -> None:
        """A job that frees something, where there is still somebody to do it."""
        # called while objects are dropped, maybe in the middle of another job: that one's process ends soon anyway
        if self._process is not None and not self._lock.locked():
            with suppress(ModelpressError, JobFailed):
                self.run(job, facts, [])

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            self._end()

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        process.kill()
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code


@contextmanager
def foreign_work(timeout_s: float | None = None) -> Iterator[ForeignProcess]:
    """Jobs inside the block run in a process of their own, which ends with the block.

    Args:
        timeout_s: Seconds for each job; None: those of the block around this one, else `DEFAULT_TIMEOUT_S`.
    """
    around = CURRENT.get()
    if around is not None and timeout_s in (None, around.timeout_s):
        yield around
        return

    process = ForeignProcess(DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s)
    token = CURRENT.set(process)
    try:
        yield process
    finally:
        CURRENT.reset(token)
        process.close()


def start_early(*modules: str) -> None:
    """Start the process of the innermost `foreign_work`, if any; it loads these modules while we load ours."""
    process = CURRENT.get()
    if process is not None:
        process.start(*modules)


def run_foreign(
    job: Job, facts: Facts, arrays: Sequence[Array] = (), *, memory_bytes: int | None = None
) -> tuple[Facts, list[Array]]:
    """What a job returns, done in the process of `foreign_work`, or here where there is none.

    Args:
        job: A function of a module.
        facts: Whatever JSON can say.
        arrays: Of numbers.
        memory_bytes: What the job may take beyond what its process has, where the system can hold it to that.

    Raises:
        ModelError: It took too long, or the process died.
        ModelpressError: As the job raised it.
        JobFailed: The job raised anything else.
    """
    process = foreign_process()
    if process is not None:
        return process.run(job, facts, arrays, memory_bytes=memory_bytes)
    try:
        return job(facts, list(arrays))
    except ModelpressError:
        raise
    except Exception as error:
        raise JobFailed(str(error)) from error


def _raised(found: Facts) -> Exception:
    kind = getattr(errors, found["kind"], None) if found["kind"] else None
    return JobFailed(found["error"]) if kind is None else kind(found["error"])


def _cause(code: int) -> str:
    known = {-item.value: item.name for item in signal.Signals}
    return f"{known[code]}; out of memory?" if code in known else f"exit code {code}"
