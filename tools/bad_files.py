"""Over a thousand bad model files of all kinds, and what `kerasbn.load` and the command make of them.

    python tools/bad_files.py                       # all, some minutes; writes docs/support/bad_files.md
    python tools/bad_files.py --only "deep"         # those whose name has this in it, and how it went with each
    python tools/bad_files.py --shown               # the messages too

Each file is one of those in `tools/harm/good.py` with one of the harms in `tools/harm/` done to it. It has to
be refused in one line (by the command with status 2), or to be read as what it says; without a traceback, a file left,
or code run, in bounded memory and time. A worker keeps TensorFlow loaded; that it dies or hangs is a fault too. POSIX
alone.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).parent.parent))

import click

from harm import good
from harm.harm import Harm
from harm.harms import every
from harm.judging import CHANGED, REFUSED, SAME, Judge

PAGE = Path(__file__).parent.parent / "docs" / "support" / "bad_files.md"
LONGEST_SECONDS = 60


class Worker:
    """A process that tries files by their numbers."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def outcome(self, number: int) -> tuple[str, str]:
        """What becomes of a file, and the message."""
        if self._process is None:
            arguments = [sys.executable, __file__, "--work"]
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert self._line(300) == "ready"
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(f"{number}\n".encode())
        stdin.flush()
        line = self._line(LONGEST_SECONDS)
        if line:
            outcome, message = json.loads(line)
            return outcome, message
        hangs = self._process.poll() is None
        self.close()
        return ("FAULT: it hangs" if hangs else "FAULT: the process died"), ""

    def _line(self, seconds: float) -> str:
        assert self._process is not None
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], seconds)
        return stdout.readline().decode().strip() if ready else ""

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def work() -> None:
    """Try what is asked for until nothing more is."""
    import resource

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    harms = every()
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(good.make(Path(folder)), good.KINDS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, -1))  # what asks for more is told so
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(judge.outcome(harms[int(line)])), file=answers, flush=True)


def tried(harms: list[Harm], only: str) -> Iterator[tuple[Harm, str, str]]:
    worker = Worker()
    try:
        for number, harm in enumerate(harms):
            if only in f"{harm.group}: {harm.name}, {harm.kind.name}":
                yield (harm, *worker.outcome(number))
    finally:
        worker.close()


@click.command()
@click.option("--only", default="", help="Those whose name has this in it; the page stays as it is then.")
@click.option("--shown", is_flag=True, help="Show every outcome.")
@click.option("--work", "as_worker", is_flag=True, hidden=True)
def main(only: str, shown: bool, as_worker: bool) -> None:
    if as_worker:
        return work()
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    faults = 0
    for harm, outcome, message in tried(every(), only):
        counts[harm.group][harm.kind.name][outcome.partition(":")[0]] += 1
        faults += outcome.startswith("FAULT")
        if shown or outcome.startswith("FAULT"):
            text = f"{harm.group}: {harm.name}, {harm.kind.name}\n    {outcome}  {message[:1500]}"
            print(text.encode(errors="backslashreplace").decode(), flush=True)
    total = Counter(
        {each: sum(row[kind][each] for row in counts.values() for kind in row) for each in (REFUSED, SAME, CHANGED)}
    )
    print(sum(total.values()) + faults, "files:", dict(total), f"and {faults} faults")
    if not only and not faults:
        PAGE.write_text(page(counts, total), encoding="utf-8")
    sys.exit(faults > 0)


def page(counts: dict[str, dict[str, Counter[str]]], total: Counter[str]) -> str:
    kinds = [kind.name for kind in good.KINDS]
    lines = [f"| | {' | '.join(kinds)} |", "| --- |" + " ---: |" * len(kinds)]
    for group, row in counts.items():
        cells = [" + ".join(str(row[kind][each]) for each in (REFUSED, SAME, CHANGED)) for kind in kinds]
        cells = ["" if cell == "0 + 0 + 0" else cell for cell in cells]
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return (
        "# Bad files\n\n"
        f"What `kerasbn.load` and `kerasbn-rewrite` made of {sum(total.values())} files that were harmed: "
        f"{total[REFUSED]} were refused in one line (status 2),\n{total[SAME]} were read right, and {total[CHANGED]} "
        "hold another model since and were read as what they say now: HDF5 and JSON have no\nchecksums, so that a bit "
        "more or less in a weight is a weight. No traceback, no file left, no code run; at most\n400 MB and 20 s each. "
        "`python tools/bad_files.py` makes and tries them, and writes this page.\n\n"
        "Of each harm and kind of file: refused + read right + read as it says.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
