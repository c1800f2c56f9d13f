"""One cell as its notebook runs it: opened first, so that whatever fails is on record, and kept at its end.

Here stands what every notebook of a study does beside its own work: the run, its live curve and checkpoint, tables,
results, and the saved model.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lab.study.identity import checkpoint_of, stages_folder
from lab.study.tracking import cell_run
from lab.training.parameters import Parameters

if TYPE_CHECKING:
    import pandas

    from lab.parts.omni_model import OmniModel
    from lab.training.stage_training import StagesRecord

OPENED_WITH = {
    "audio_encoder": {"name": "audio_encoder", "window": "encoder_window"},
    "vision_encoder": {"name": "vision_encoder", "image_size": "image_size", "stride": "stride"},
    "language_model": {"name": "language_model", "pretraining_steps": "pretraining_steps"},
}
"""What a part is opened with, and the parameter that says it."""


class OpenCell:
    """The run of a cell, from its notebook's first line to its last.

    Args:
        notebook: its stem.
        parameters: of the cell.
        run_id: of the run that a sweep opened; empty for a run of its own.
    """

    def __init__(self, notebook: str, parameters: Parameters, run_id: str) -> None:
        self.parameters = parameters
        self.run = cell_run(run_id, parameters.as_dict())
        self._steps: set[int] = set()  # whose loss is written
        self.told = {"checkpoint": checkpoint_of(notebook, parameters.as_dict()), "on_step": self._write_loss}
        """What a training is told: where an interrupted one is kept, and whom it tells its steps."""
        self.shared = {"kept": stages_folder(notebook, parameters.as_dict())}
        """What a training of several stages is told besides: where other cells find those that they begin with too."""

    def _write_loss(self, step: int, loss: float) -> None:
        self._steps.add(step)
        self.run.log_metrics({"loss": [(step, loss)]})

    def trained(self, record: "StagesRecord", **artifacts: Any) -> None:
        """Keep the curves of a training, where its weights come from, and artifacts that say something, as JSON."""
        from lab.training.stage_training import as_json

        # Those before a checkpoint's were told to another run.
        losses = [(step, loss) for step, loss in enumerate(record.losses) if step not in self._steps]
        self.run.log_metrics({"loss": losses, "learning_rate": enumerate(record.learning_rates)})
        for name, value in {"ancestry": as_json(record.ancestry), **artifacts}.items():
            if value:
                self.run.log_json(value, name)

    def measured(
        self,
        answers: "Mapping[str, pandas.DataFrame]",
        score: "Callable[[pandas.DataFrame, str], Mapping[str, float]]",
        **others: "pandas.DataFrame",
    ) -> dict[str, float]:
        """Keep the tables of answers by their split, and others with them; returns the scores of the answers."""
        import pandas as pd

        every = {**answers, **others}
        told = [table if "split" in table else table.assign(split=name) for name, table in every.items()]
        self.run.log_table(pd.concat(told, ignore_index=True))
        return {name: value for split, table in answers.items() for name, value in score(table, split).items()}

    def finish(self, model: "OmniModel", results: Mapping[str, float], **opened: Any) -> dict[str, float]:
        """Keep the results and the model, and close the run; returns the results.

        Args:
            model: as it was trained.
            results: one line of the results file.
            opened: parts as they were opened that nothing trained; they are kept by their names.

        Raises:
            LabError: a result that is no finite number, or a part whose make is not known.
        """
        from lab.parts.saved_model import save_model

        self.run.set_results(results)
        named = {part: (self._asked(part), made) for part, made in opened.items()}
        save_model(model, self.run.artifact("model"), by_name=named, cell=self.parameters.as_dict())
        self.run.finish()
        return dict(results)

    def _asked(self, part: str) -> dict[str, Any]:
        return {option: getattr(self.parameters, name) for option, name in OPENED_WITH[part].items()}
