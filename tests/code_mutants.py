# SPDX-License-Identifier: Apache-2.0
"""Small faults in the code, each of which a test must notice; ``mutants.py`` damages inputs instead.

python tests/code_mutants.py [NAME ...]        all, or those whose names contain one of these words

Each fault is put alone into a copy of the repository in a temporary folder, and the tests named for it run there until
the first fails. Exit code 1 where no test fails: one is missing; write it. Exit code 2 where the table does not fit
the code. A new fault is a row in ``MUTANTS``, in no kernel that kernels of other files call: those stay as compiled.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
COPIED = ("runtime", "tests", "models", "pyproject.toml")
LONGEST = 10.0
"""Times as long as all tests of the sound copy take: then a fault counts as noticed, as the code runs endlessly."""


class Mutant(NamedTuple):
    """name: what is wrong with it.   file: within runtime/instance_flow.   old: text that is there once.

    tests: files of tests/runtime, those that should notice it first.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


def _of(file: str, tests: str, *changes: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(f"{Path(file).stem}: {name}", file, old, new, tests) for name, old, new in changes]


MUTANTS = [
    *_of(
        "assembly/matching.py",
        "test_matching test_tracking",
        (
            "the sum of both offsets is the flow",
            "dy = reference_offset[r, 0, y, k] - offset[0, y, k]",
            "dy = reference_offset[r, 0, y, k] + offset[0, y, k]",
        ),
        ("the spread is that around zero in x", "- y * y - x * x, 0.0", "- y * y, 0.0"),
        ("Eq. 5 with the flow's other sign", "_points(centers) + flows[r]", "_points(centers) - flows[r]"),
        ("the mean is over all references", "total /= shown\n", "total /= np.float32(len(reference_centers))\n"),
        (
            "of equally near references the last is named",
            "if distance[m, n] < nearest[m, k]",
            "if distance[m, n] <= nearest[m, k]",
        ),
        ("how long an id was away costs nothing", "costs.gap_weight * np.log", "0.0 * np.log"),
        ("gaps are those of the other identities", "np.log(known.gaps[order])", "np.log(known.gaps)"),
        ("the sum of costs is least, not that of roots", "np.sqrt(np.concatenate", "np.abs(np.concatenate"),
        ("lost ids cost nothing", "+= costs.lost_cost", "+= 0.0"),
        ("who was away strays in proportion", "np.sqrt(known.gaps[order])", "known.gaps[order]"),
        ("a lost id has a reference", "if k < len(compared.ids):", "if k < len(identities):"),
        ("colours are those of the other identities", "known.appearance[order]", "known.appearance"),
        ("motion is that of the other identities", "known.expected[order]", "known.expected"),
        ("classes are those of the other identities", ", class_scores.shape[1])[order]", ", class_scores.shape[1])"),
    ),
    *_of(
        "assembly/assignment.py",
        "test_matching",
        ("the limit itself is too much", "cost[m, k] <= limit and", "cost[m, k] < limit and"),
        ("an identity is given twice", "identities[other] != identities[k]", "other != k"),
        ("of equal costs the last is taken", "or place < first", "or place > first"),
    ),
    *_of(
        "tracking/memory.py",
        "test_memory test_tracking",
        (
            "removed from the anchor a frame early",
            "self._away > self._anchor_frames",
            "self._away >= self._anchor_frames",
        ),
        ("released with half of its objects", "2 * len(self._anchor.ids) < self", "2 * len(self._anchor.ids) <= self"),
        ("who is back is still away", ", 0, self._away + 1)", ", self._away, self._away + 1)"),
        ("times away go to the wrong objects", "self._away[~gone]", "self._away[: len(left.ids)]"),
        ("one place less without an anchor", "self.capacity - (self._anchor is not None)", "self.capacity - 1"),
        (
            "cleared, it seeks no anchor",
            "return ReferenceMemory(self.capacity, self._anchored, self._anchor_frames)\n\n    @property",
            "return ReferenceMemory(self.capacity, False, self._anchor_frames)\n\n    @property",
        ),
        ("an empty frame is the anchor", " or not len(self._anchor.ids)", ""),
    ),
    *_of(
        "tracking/tracker.py",
        "test_tracking test_published",
        ("appearance is the latest alone", "max(1 / self.sightings, LEAST_SHARE)", "1.0"),
        ("a streak lasts over gaps", "self.last_frame + 1 else 1", "self.last_frame + 1 else self.streak + 1"),
        ("forgotten a frame early", "<= self.lost_frames]", "< self.lost_frames]"),
        ("of too many lost the oldest stay", "[-MOST_LOST:]", "[:MOST_LOST]"),
        (
            "motion is not by frames",
            "moved = (center - self.center) / (frame_index - self.last_frame)",
            "moved = center - self.center",
        ),
        ("no hysteresis", "min_score / 2 if track.published else min_score", "min_score"),
        ("a reset keeps the next id", "self._next_id = 1\n        self._tracks.clear()", "self._tracks.clear()"),
        ("recovered though it was there", "frame_index - 1 if references", "frame_index if references"),
        ("the class is that of this frame", "self.votes += votes", "self.votes = votes.astype(np.float64)"),
    ),
    *_of(
        "assembly/grouping.py",
        "test_grouping test_tracking",
        ("of a flat peak the last column", "(i == y and k < x)", "(i == y and k > x)"),
        ("the window is a row short", "min(h, y + radius + 1)", "min(h, y + radius)"),
        ("the threshold itself is a center", "heat[y, x] > threshold", "heat[y, x] >= threshold"),
        ("of equally near centers the last", "rows[place] < row", "rows[place] > row"),
        ("the search goes one way", "for step in (1, -1)", "for step in (1,)"),
        ("class means begin with the background", "semantic[c + 1, y, k]", "semantic[c, y, k]"),
        ("the margin leaves a class out", "range(2, channels)", "range(3, channels)"),
        ("stray by width alone", "dx = x + offset[1, y, x] - centers[m, 1]", "dx = np.float32(0)"),
    ),
    *_of(
        "assembly/preprocess.py",
        "test_preprocess test_tracking",
        ("masks half a cell off", "(i + 0.5) * factor - 0.5", "i * factor"),
        ("votes of the corners swapped", "total += wq if q == label", "total += wr if q == label"),
        ("nearest label, whatever its weight", "if total > most:", "if best == 0:"),
        ("a margin of zero is foreground", "if value > 0 else -1", "if value >= 0 else -1"),
        ("a pixel short in boxes", "_grow(boxes, k, y, x, y + 1, x + 1)", "_grow(boxes, k, y, x, y + 1, x)"),
        ("areas count one stretch", "(bottom - top) * (lefts[j] - left)", "(bottom - top)"),
        ("centers at the corner of a cell", "(points + 0.5) * stride / scale - 0.5", "points * stride / scale"),
        (
            "the last part of a cell is cut off",
            "max(1, round(rows)), max(1, round(columns))",
            "max(1, int(rows)), max(1, int(columns))",
        ),
    ),
    *_of(
        "assembly/assembly.py",
        "test_tracking test_published test_sizes",
        ("tracks in the order of heat", "order = np.argsort(identities.ids)", "order = np.arange(len(identities.ids))"),
        (
            "distances in cells",
            "identities.distances[keep] * np.float32(pixels_per_cell)",
            "identities.distances[keep]",
        ),
    ),
    *_of(
        "spatial/pairing.py",
        "test_pairing",
        ("of two equally near depths the last", "if distance < request.distance:", "if distance <= request.distance:"),
        (
            "the tolerance itself is too much",
            "if distance <= self.tolerance * 1e9:",
            "if distance < self.tolerance * 1e9:",
        ),
        ("depth of the same stamp is waited past", "or stamp >= request.stamp", "or stamp > request.stamp"),
        ("a calibration counts after its stamp", "if one[0] <= stamp]", "if one[0] < stamp]"),
        ("differences have the other sign", "(stamp - request.stamp) / 1e9", "(request.stamp - stamp) / 1e9"),
    ),
    *_of(
        "spatial/transforms.py",
        "test_transforms",
        ("the longer arc", "if cosine < 0:", "if cosine > 0:"),
        (
            "translations from the second to the first",
            "(1 - share) * first.translation + share",
            "share * first.translation + (1 - share)",
        ),
        ("the inverse shifts along unturned axes", "-transform[:3, :3].T @ transform[:3, 3]", "-transform[:3, 3]"),
        (
            "steps to the root in the other order",
            "_matrix(first, second, share) @ out",
            "out @ _matrix(first, second, share)",
        ),
        ("interpolated over a change of parent", " and samples[before].parent == samples[after].parent", ""),
        (
            "what is older than the seconds kept stays",
            "max(too_old, len(history.stamps) - _SAMPLES)",
            "len(history.stamps) - _SAMPLES",
        ),
    ),
    *_of(
        "spatial/measure.py",
        "test_spatial",
        ("the edge of a mask counts", "erosion = min(4, 1 + int(0.04 * np.sqrt(area)))", "erosion = 0"),
        ("any half of the depths", "if length < best:", "if i == 0:"),
        ("65535 millimetres are 65.535 m", "1e-3, 65535.0", "1e-3, -1.0"),
        ("too far counts as depth", "if z > max_depth:", "if z > 2 * max_depth:"),
        ("the covariance stays in the camera's axes", "turn @ covariances @ turn.T", "covariances"),
        (
            "an object cut by the edge is as certain",
            "np.where(cut_by_edge, 1 / 4, 1 / 400)",
            "np.where(cut_by_edge, 1 / 400, 1 / 400)",
        ),
        ("the box leaves out what was cut off", " + _cut_off(cut, means, rotations, intrinsics)", ""),
    ),
]


def run(root: Path, tests: Sequence[str], cache: Path, limit: float | None = None) -> tuple[int, str]:
    """pytest's exit code on these files of a copy, and what failed first.

    cache: numba's.   limit: seconds; None = of the sound copy, whose bytecode is kept.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "runtime"),
        "NUMBA_CACHE_DIR": str(cache),
        # A mutant may be as long as the code and as old, to the second: bytecode of the one would stand for the other.
        "PYTHONDONTWRITEBYTECODE": "" if limit is None else "1",
    }
    files = [f"tests/runtime/{name}.py" for name in tests]
    command = [sys.executable, "-m", "pytest", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider", *files]
    try:
        ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return 1, f"no end within {limit:.0f} s"
    first = re.search(r"^(?:FAILED|ERROR) tests/runtime/(\S+\.py(?:::.*?)?)(?: - .*)?$", ran.stdout, re.MULTILINE)
    return ran.returncode, first[1] if first else (ran.stdout + ran.stderr)[-500:].strip()


def try_mutant(root: Path, cache: Path, mutant: Mutant, limit: float) -> tuple[int, str]:
    """What ``run`` says of a copy that has the fault; the copy is sound again afterwards."""
    path = root / "runtime" / "instance_flow" / mutant.file
    sound, written = path.read_text(), path.stat()
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        # Each has its own cache, which begins with the kernels of the sound copy: numba looks at the file's time.
        with tempfile.TemporaryDirectory(dir=root) as own:
            shutil.copytree(cache, own, dirs_exist_ok=True)
            return run(root, mutant.tests.split(), Path(own), limit)
    finally:
        path.write_text(sound)
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))


def main(names: Sequence[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    unfit = [m for m in chosen if (REPOSITORY / "runtime/instance_flow" / m.file).read_text().count(m.old) != 1]
    for mutant in unfit:
        print(f"{mutant.name}: {mutant.old!r} is not just once in {mutant.file}; change its row to what is there now")
    if not chosen:
        print(
            f"no mutant is named {' or '.join(names)}; expected a part of one of:", *(m.name for m in MUTANTS), sep="\n"
        )
    if unfit or not chosen:
        return 2
    survived, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="code-mutants-") as folder:
        root = Path(folder)
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, root / name)
        cache = root / "numba"
        start = monotonic()
        code, first = run(root, sorted({name for m in chosen for name in m.tests.split()}), cache)
        limit = LONGEST * (monotonic() - start)
        if code:
            print(f"the tests do not pass without a mutant: {first}")
            return 2
        for mutant in chosen:
            start = monotonic()
            code, first = try_mutant(root, cache, mutant, limit)
            said = {0: "SURVIVED", 1: first}.get(code, f"pytest ended with {code}: {first}")
            survived, failed = survived + (code == 0), failed + (code not in (0, 1))
            print(f"{mutant.name} | {said} | {monotonic() - start:.0f} s", flush=True)
    print(f"{survived} of {len(chosen)} survived")
    return 2 if failed else int(survived > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
