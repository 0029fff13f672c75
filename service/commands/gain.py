"""What a training was worth: the net before and after, on questions that nothing was chosen by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import Progress

from service.commands.encoding_cache import cache_home
from service.commands.mining import Questions
from service.commands.train_kinds import Trial
from service.commands.trial_run import TrialRun
from service.evaluation import Answer, Report, compare

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class Gain:
    """nDCG@10 before and after on so many questions, and p of the difference (paired randomisation)."""

    source: str
    questions: int
    before: float
    after: float
    p: float

    @property
    def difference(self) -> float:
        """What was gained."""
        return self.after - self.before


def measure(
    questions: Questions, trials: Sequence[Trial], language: str, seed: int, progress: Progress
) -> Gain:
    """Try a net before and after on questions that have relevant documents."""
    qrels = {query: dict.fromkeys(sorted(questions.relevant[query]), 1) for query in questions.queries}
    answers = {
        place: _answers(questions, trial, language, progress)
        for place, trial in zip(("before", "after"), trials, strict=True)
    }
    reports = compare(qrels, answers, seed=seed)
    return Gain(questions.source, len(qrels), *_values(reports))


def _values(reports: Mapping[str, Report]) -> tuple[float, float, float]:
    before, after = (reports[name].measures[MEASURE] for name in ("before", "after"))
    return before, after, (reports["after"].p_values or {})[MEASURE]


def _answers(questions: Questions, trial: Trial, language: str, progress: Progress) -> dict[str, Answer]:
    with TemporaryDirectory(prefix="winnow-") as root:
        stages = {trial.label: trial.stages}
        run = TrialRun(Path(root), cache_home(), stages, None, progress, **trial.settings)
        run.index(questions.folder, {"language": language, **trial.schema})
        return run.answers(questions.queries)[trial.label]
