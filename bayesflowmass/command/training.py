"""Settings of training: encoder, flow, fit, posterior of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bayesflowmass.command.limits import Device, Seed
from bayesflowmass.command.mocks import AugmentationSettings, MockSettings
from bayesflowmass.command.paths import InputPath, ModelPath, OutFolder
from bayesflowmass.common.settings import Settings
from bayesflowmass.training.options import FitOptions

_Bins = Annotated[int, Field(ge=2, le=1024)]


class KernelSettings(Settings):
    """One kernel density estimate."""

    bandwidth: float = Field(0.15, gt=0, description="h0, the bandwidth factor")
    convention: Literal["covariance", "scipy"] = Field(
        "covariance", description="covariance: H = h0 Sigma (the paper); scipy: H = h0^2 Sigma"
    )


class EncoderSettings(Settings):
    """Galaxies to context: kernel density images and their scaling, or the galaxies themselves."""

    kind: Literal["image", "galaxies"] = Field(
        "image",
        description="image: kernel densities on a grid; galaxies: at each galaxy, for a network over them",
    )
    grid: tuple[_Bins, _Bins] = Field((50, 50), description="image: bins in R_proj and in v_los")
    kernels: tuple[KernelSettings, ...] = Field(
        (KernelSettings(),), min_length=1, max_length=16, description="image: one for each kernel"
    )
    scaling: Literal["mean", "sqrt", "log1p_richness"] = Field(
        "mean", description="image: mean and sqrt ignore the galaxy count; log1p_richness uses it"
    )
    constant: float | None = Field(
        None, gt=0, description="image: factor when scaled; default depends on the scaling"
    )
    widths: tuple[tuple[float, float], ...] | None = Field(
        None,
        description="galaxies: widths of the kernels on the sky [Mpc/h] and in velocity [km/s]; default: five",
    )
    counted: bool = Field(True, description="galaxies: whether the network may count them")
    extras: tuple[str, ...] = Field((), description="cluster columns in each context, e.g. redshift")
    optional: tuple[str, ...] = Field(
        (), description="columns that may be unknown, e.g. mode; see augmentation.known"
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> EncoderSettings:
        image, galaxies = {"grid", "kernels", "scaling", "constant"}, {"widths", "counted"}
        foreign = sorted(self.model_fields_set & (image if self.kind == "galaxies" else galaxies))
        changed = [name for name in foreign if getattr(self, name) != type(self).model_fields[name].default]
        if changed:
            raise ValueError(
                f"'{changed[0]}' has no meaning for kind '{self.kind}'; leave it out, or change the kind"
            )
        return self


class FlowSettings(Settings):
    """The conditional density p(log10 M200c | context)."""

    kind: str = Field("affine", description="affine (the paper: one Gaussian), spline, mixture, ...")
    options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of that flow, e.g. hidden, blocks, trunk"
    )


class FitSettings(FitOptions):
    """Maximum likelihood by stochastic gradients."""

    flip_velocity: bool = Field(False, description="mirror v_los of half of each batch")
    fresh_mocks: bool = Field(False, description="simulate new clusters each epoch")
    redraw_every: int = Field(
        1, gt=0, description="epochs of training on each draw of augmentation or of fresh mocks"
    )
    prefetch: bool = Field(True, description="prepare the next epoch's clusters in the background")
    population: Literal["flat", "hmf"] | None = Field(
        None,
        description="how the training masses were drawn, if the network is to learn PDFs under a flat prior; default:"
        " it learns PDFs under whatever population its training clusters have",
    )
    selection: InputPath | None = Field(
        None,
        description="table log10_mass, probability that a cluster of the population is in the catalogue",
    )


class WeightsSettings(Settings):
    """The posterior of the network's weights, fitted after maximum likelihood."""

    shorthand: ClassVar[str] = "method"
    """``--weights METHOD`` stands for ``--weights.method METHOD``; in a file the section may be that one word."""

    method: str = Field(
        "point",
        description="point (maximum likelihood alone), variational, ensemble:K, ... (docs/weights.md)",
    )
    which: str | tuple[str, ...] | None = Field(
        None,
        description="random weights: all, last, last:K or patterns of names; default: the method's"
        " (variational: the last two layers; laplace: the last layers that give location and width)",
    )
    guide: str | None = Field(None, description="variational: eigenbasis, mean_field, full_covariance")
    prior: float | str | dict[str, Any] | None = Field(
        None, description="standard deviation of the weights a priori; default fan_in"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="further options of the method")
    fit: dict[str, Any] = Field(
        default_factory=dict, description="settings of fit that differ in the phases of this posterior"
    )
    start: InputPath | None = Field(
        None,
        description="model folder of the same settings and seed, whose trained weights are taken instead of"
        " training them again",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, values: Any) -> Any:
        return {"method": values} if isinstance(values, str) else values


class TrainSettings(Settings):
    """`bayesflowmass train`: train a mass estimator."""

    catalog: InputPath | None = Field(None, description="training catalogue (parquet); simulated when absent")
    out: OutFolder = Field(Path("runs/default"), description="model folder to write")
    start: ModelPath | None = Field(
        None, description="model of the same encoder and flow, whose weights training begins with"
    )
    resume: bool = Field(False, description="continue from the last checkpoint in --out")
    seed: Seed = Field(0, description="random seed")
    device: Device = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show a progress bar")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the haloes kept for validation")
    simulate: MockSettings = Field(default_factory=MockSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    flow: FlowSettings = Field(default_factory=FlowSettings)
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings)
    fit: FitSettings = Field(default_factory=FitSettings)
    variational: bool = Field(False, description="the same as --weights variational")
    weights: WeightsSettings = Field(default_factory=WeightsSettings)

    @model_validator(mode="after")
    def _one_method(self) -> TrainSettings:
        if self.variational and self.weights.method.partition(":")[0] not in ("point", "variational"):
            raise ValueError(
                f"variational was asked for and weights is '{self.weights.method}'; choose one of them"
            )
        return self
