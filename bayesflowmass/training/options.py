"""The options of one phase of training: each with its default, its range and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bayesflowmass.common.settings import Settings
from bayesflowmass.training.learning_rate import LearningRate, Schedule
from bayesflowmass.training.stopping import SmoothedStopping

Precision = Literal["float32", "tf32", "bf16"]

# Another value of these gives no other weights, but for rounding.
_NO_RESULT = {"checkpoint_every", "cuda_graphs"}


class FitOptions(Settings):
    """Options of :func:`~bayesflowmass.training.fit.fit`.

    The defaults are those of the paper (Kodi Ramanah et al. 2020), except that the patience applies to a smoothed
    validation loss.
    """

    learning_rate: float = Field(1e-4, gt=0, allow_inf_nan=False, description="Adam step size")
    betas: tuple[float, float] = Field((0.9, 0.999), description="memories of Adam")
    schedule: Schedule = Field("constant", description="learning rate over the updates")
    warmup_updates: int = Field(0, ge=0, description="steps of linear warm-up of the learning rate")
    final_fraction: float = Field(
        0.01, ge=0, le=1, description="share of the learning rate that cosine ends at"
    )
    hold_fraction: float = Field(
        0.0, ge=0, lt=1, description="cosine: share of the steps at full learning rate before it falls"
    )
    plateau_updates: int = Field(
        200, gt=0, description="plateau: steps without improvement before a reduction"
    )
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="plateau: factor of each reduction")
    weight_decay: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="decoupled weight decay (AdamW), which spares biases"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    average_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the running mean of the weights, which is then what counts; 0: none",
    )
    batch_size: int = Field(100, gt=0, le=1_000_000, description="clusters in a batch")
    max_updates: int = Field(2000, gt=0, description="gradient steps at most")
    patience_updates: int | None = Field(
        200, gt=0, description="stop after so many steps without a better smoothed validation loss"
    )
    validate_every: int = Field(20, gt=0, description="steps between validations")
    smoothing_updates: float = Field(
        200.0,
        ge=0,
        allow_inf_nan=False,
        description="time constant, in steps, of the smoothed validation loss; 0: raw",
    )
    min_improvement: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="least decrease [nats] of the smoothed loss that counts"
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="weights that stay: of the best smoothed validation loss, or the last ones, where an objective"
        " must be converged and not stopped early",
    )
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints")
    precision: Precision = Field("float32", description="of matrix products; tf32 and bf16 need a GPU")
    cuda_graphs: bool = Field(False, description="replay each step as one CUDA graph (GPU only)")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_updates >= self.max_updates:
            raise ValueError(
                f"warmup_updates is {self.warmup_updates}; expected less than max_updates = {self.max_updates}"
            )
        return self

    def rate(self) -> LearningRate:
        """The learning rate at each update, from the start."""
        return LearningRate(
            self.learning_rate,
            self.schedule,
            self.warmup_updates,
            self.max_updates,
            self.final_fraction,
            self.plateau_factor,
            self.plateau_updates,
            self.hold_fraction,
        )

    def stopping(self) -> SmoothedStopping:
        """When to stop, from the start."""
        return SmoothedStopping(self.patience_updates, self.smoothing_updates, self.min_improvement)

    def result(self) -> dict[str, Any]:
        """What decides the weights, for JSON: a resumed run must share it."""
        return self.model_dump(mode="json", exclude=_NO_RESULT)


def with_default_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run whose section ``fit`` names all options, to compare them with those of other versions."""
    return {**settings, "fit": FitOptions().result() | dict(settings.get("fit") or {})}
