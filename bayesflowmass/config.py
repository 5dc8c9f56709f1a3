"""Typed, validated settings of the commands, and the YAML files they come from.

Every command has one settings class; a YAML file fills it and flags override the file (see
:mod:`bayesflowmass.command`). Unknown keys are errors that name the nearest valid key. Functions of the
library never see these classes: a verb takes the values out and passes them on.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

__all__ = [
    "AugmentationSettings",
    "ConfigError",
    "EncoderSettings",
    "EvaluateSettings",
    "FitSettings",
    "FlowSettings",
    "InferSettings",
    "InspectSettings",
    "MockSettings",
    "Settings",
    "SimulateSettings",
    "TrainSettings",
    "WeightsSettings",
    "build_settings",
    "config_path",
    "load_yaml",
]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, what was found and what to do."""


class Settings(BaseModel):
    """Base of all settings: immutable, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class KernelSettings(Settings):
    """One kernel density estimate."""

    bandwidth: float = Field(0.15, gt=0, description="h0, the bandwidth factor")
    convention: Literal["covariance", "scipy"] = Field(
        "covariance", description="covariance: H = h0 Sigma (the paper); scipy: H = h0^2 Sigma"
    )


class EncoderSettings(Settings):
    """Galaxies to context: the kernel density images and their scaling."""

    grid: tuple[int, int] = Field((50, 50), description="bins in R_proj and in v_los")
    kernels: tuple[KernelSettings, ...] = Field((KernelSettings(),), description="one image for each kernel")
    scaling: Literal["mean", "sqrt", "log1p_richness"] = Field(
        "mean", description="mean and sqrt ignore the galaxy count; log1p_richness uses it"
    )
    constant: float | None = Field(
        None, gt=0, description="factor of the scaled image; default depends on the scaling"
    )
    extras: tuple[str, ...] = Field((), description="cluster columns appended to the image, e.g. redshift")


class MockSettings(Settings):
    """Which mock clusters to make."""

    n_clusters: int = Field(20000, gt=0, description="clusters in the catalogue")
    masses: Literal["flat", "hmf"] = Field("flat", description="flat in log10 mass, or the mass function")
    log10_mass_range: tuple[float, float] = Field((13.2, 15.6), description="limits of log10 M200c [Msun/h]")
    kind: Literal["pure", "contaminated"] = Field(
        "contaminated", description="members only, or with interlopers"
    )
    mode: Literal["paper", "survey", "mixed"] = Field(
        "paper",
        description="interlopers: satellites only (paper), with central galaxies (survey), or either (mixed)",
    )
    redshift: float = Field(0.117, description="redshift of all clusters, 0.01-0.5")
    redshift_range: tuple[float, float] | None = Field(
        None, description="draw redshifts between these instead"
    )
    n_projections: int = Field(1, gt=0, description="lines of sight of each halo (they share halo_id)")
    r_max: float = Field(1.6, gt=0, description="aperture [comoving Mpc/h]")
    v_max: float = Field(2500.0, gt=0, description="velocity cut [km/s]")
    min_galaxies: int = Field(10, ge=3, description="fewest galaxies of a cluster")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="mock parameters that differ from the defaults"
    )

    @model_validator(mode="after")
    def _ordered(self) -> MockSettings:
        low, high = self.log10_mass_range
        if not low < high:
            raise ValueError(f"log10_mass_range is [{low}, {high}]; the first limit must be the smaller one")
        if self.redshift_range is not None and not self.redshift_range[0] <= self.redshift_range[1]:
            raise ValueError(
                f"redshift_range is {list(self.redshift_range)}; the first limit must be the smaller one"
            )
        return self


class SimulateSettings(MockSettings):
    """`bayesflowmass simulate`: make a mock catalogue."""

    out: Path = Field(Path("catalog.parquet"), description="catalogue to write (parquet)")
    seed: int = Field(0, ge=0, description="random seed")
    progress: bool = Field(True, description="show a progress bar")


class FlowSettings(Settings):
    """The conditional density p(log10 M200c | context)."""

    kind: str = Field("affine", description="affine (the paper: one Gaussian), spline, mixture, ...")
    options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of that flow, e.g. hidden, blocks, trunk"
    )


class AugmentationSettings(Settings):
    """What observing does to each training cluster, drawn anew each epoch."""

    magnitude_limit: tuple[float, float] | None = Field(
        None, description="faintest magnitude, drawn between these"
    )
    apparent: bool = Field(True, description="the limit is an apparent magnitude, else M - 5 log10 h")
    completeness: tuple[float, float] | None = Field(
        None, description="fraction of galaxies kept, drawn between these"
    )
    central_losses: tuple[float, float] | None = Field(
        None, description="fraction of galaxies lost at the centre, drawn between these"
    )
    central_losses_scale: float = Field(0.1, gt=0, description="where half of that is lost [comoving Mpc/h]")
    velocity_error: tuple[float, float] | None = Field(
        None, description="velocity errors [km/s], drawn between these"
    )
    miscentre_r: float = Field(0.0, ge=0, description="scatter of the centre on the sky [comoving Mpc/h]")
    miscentre_v: float = Field(0.0, ge=0, description="scatter of the velocity centre [km/s]")
    recentre: bool = Field(False, description="find the velocity centre again, as is done with data")


class FitSettings(Settings):
    """Maximum likelihood by stochastic gradients."""

    learning_rate: float = Field(1e-4, gt=0, description="Adam step size")
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        "constant", description="learning rate over the updates"
    )
    warmup_updates: int = Field(0, ge=0, description="steps of linear warm-up of the learning rate")
    final_fraction: float = Field(
        0.01, ge=0, le=1, description="share of the learning rate that cosine ends at"
    )
    plateau_updates: int = Field(
        200, gt=0, description="plateau: steps without improvement before a reduction"
    )
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="plateau: factor of each reduction")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (AdamW)")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    average_decay: float = Field(
        0.0, ge=0, lt=1, description="decay of the running mean of the weights; 0: none"
    )
    batch_size: int = Field(100, gt=0, description="clusters in a batch")
    max_updates: int = Field(2000, gt=0, description="gradient steps at most")
    patience_updates: int | None = Field(
        200, gt=0, description="stop after so many steps without a better smoothed validation loss"
    )
    validate_every: int = Field(20, gt=0, description="steps between validations")
    smoothing_updates: float = Field(
        200.0, ge=0, description="time constant, in steps, of the smoothed validation loss; 0: raw"
    )
    flip_velocity: bool = Field(False, description="mirror v_los of half of each batch")
    fresh_mocks: bool = Field(False, description="simulate new clusters each epoch")
    redraw_every: int = Field(
        1, gt=0, description="epochs of training on each draw of augmentation or of fresh mocks"
    )
    prefetch: bool = Field(True, description="prepare the next epoch's clusters in the background")
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="of matrix products; tf32 and bf16 need a GPU"
    )
    cuda_graphs: bool = Field(False, description="replay each step as one CUDA graph (GPU only)")


class WeightsSettings(Settings):
    """The posterior of the network's weights, fitted after maximum likelihood."""

    shorthand: ClassVar[str] = "method"
    """`--weights METHOD` stands for `--weights.method METHOD`, and `weights: METHOD` in a file."""

    method: str = Field(
        "point",
        description="point (maximum likelihood alone), variational, ensemble[:K], laplace, swag, dropout, nuts",
    )
    which: str | tuple[str, ...] | None = Field(
        None,
        description="random weights: all, last, last:K or patterns of names; default: the method's"
        " (variational, laplace: the last layers that give location and width)",
    )
    guide: str | None = Field(
        None, description="variational: eigenbasis, mean_field, full_covariance, low_rank"
    )
    prior: float | str | dict[str, Any] | None = Field(
        None, description="standard deviation of the weights a priori; default fan_in"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="further options of the method")
    fit: dict[str, Any] = Field(
        default_factory=dict, description="settings of fit that differ in the phases of this posterior"
    )
    start: Path | None = Field(
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

    catalog: Path | None = Field(None, description="training catalogue (parquet); simulated when absent")
    out: Path = Field(Path("runs/default"), description="model folder to write")
    resume: bool = Field(False, description="continue from the last checkpoint in --out")
    seed: int = Field(0, ge=0, description="random seed")
    device: str = Field("auto", description="auto, cpu or cuda")
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


class InferSettings(Settings):
    """`bayesflowmass infer`: masses of the clusters of a catalogue or of tables."""

    model: Path = Field(Path("runs/default"), description="model folder")
    galaxies: Path = Field(description="catalogue (parquet), or table of galaxies")
    clusters: Path | None = Field(None, description="table of clusters")
    out: Path = Field(Path("masses.ecsv"), description="table to write (ecsv, fits, votable, parquet)")
    prior: Literal["flat", "hmf"] = Field("flat", description="prior on log10 mass")
    pdf: bool = Field(False, description="add each PDF on a grid")
    mdef: Literal["200c", "500c", "vir", "200m"] = Field("200c", description="mass definition")
    units: Literal["Msun/h", "Msun"] = Field("Msun/h", description="unit of mass")
    h: float | None = Field(None, gt=0, description="Hubble parameter for Msun; default: the model's")
    column: dict[str, str] = Field(default_factory=dict, description="OURS=THEIRS, names of columns")
    unit: dict[str, str] = Field(
        default_factory=dict, description="OURS=UNIT, units of columns, such as 'r_proj=proper kpc'"
    )
    cluster_id: str | None = Field(None, description="all galaxies belong to this cluster")
    redshift: float | None = Field(None, description="redshift of all clusters, where tables have none")
    cleaned: bool = Field(False, description="interlopers were removed from this catalogue")
    mode: Literal["paper", "survey", "mixed"] | None = Field(None, description="interloper mode of the data")
    n_draws: int | None = Field(
        None, gt=1, description="draws of the weights; default: 31, or all that a model has"
    )
    seed: int = Field(0, ge=0, description="random seed")
    device: str = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show a progress bar")


class InspectSettings(Settings):
    """`bayesflowmass inspect FILE`: what a file is, what is wrong with it, and which command takes it."""

    file: Path = Field(description="table, catalogue, N-body box, model folder or settings")
    clusters: Path | None = Field(None, description="table of clusters that goes with a table of galaxies")
    column: dict[str, str] = Field(default_factory=dict, description="OURS=THEIRS, names of columns")
    unit: dict[str, str] = Field(default_factory=dict, description="OURS=UNIT, units of columns")
    cluster_id: str | None = Field(None, description="all galaxies belong to this cluster")
    redshift: float | None = Field(None, description="redshift of all clusters, where tables have none")
    quick: bool = Field(False, description="of an N-body box, look at the first part only")


class EvaluateSettings(Settings):
    """`bayesflowmass evaluate`: accuracy and calibration on a catalogue of known masses."""

    model: Path = Field(description="model folder")
    catalog: Path = Field(description="test catalogue with log10_mass (parquet)")
    out: Path = Field(Path("evaluation"), description="folder for metrics.json and figures")
    prior: Literal["flat", "hmf"] = Field("flat", description="prior on log10 mass")
    baseline_catalog: Path | None = Field(
        None, description="catalogue to fit the baselines on; simulated when absent"
    )
    bootstrap: int = Field(200, gt=1, description="bootstrap samples over haloes")
    n_draws: int | None = Field(
        None, gt=1, description="draws of the weights; default: 31, or all that a model has"
    )
    seed: int = Field(0, ge=0, description="random seed")
    device: str = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show a progress bar")

    @field_validator("out")
    @classmethod
    def _not_a_file(cls, out: Path) -> Path:
        if out.is_file():
            raise ValueError(f"'{out}' is a file; give a folder")
        return out


S = TypeVar("S", bound=Settings)


def config_path(name: str) -> Path:
    """Path of a configuration that comes with the package, such as ``default.yaml``."""
    here = Path(__file__).parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"There is no configuration '{name}' in the package; give the path of a YAML file.")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings; ``paper.yaml`` and other shipped names work from anywhere."""
    path = Path(path)
    if not path.is_file():
        if path.parent == Path() and path.suffix == ".yaml":
            path = config_path(path.name)
        else:
            raise ConfigError(f"The configuration '{path}' does not exist.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not a YAML file: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' holds a {type(content).__name__}; expected 'key: value' lines.")
    return content


def build_settings(kind: type[S], values: dict[str, Any], source: str = "the settings") -> S:
    """Validate ``values`` as settings of type ``kind``; a problem becomes one sentence that names the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(" ".join(_sentence(kind, e, source) for e in error.errors()[:3])) from None


def _valid_keys(kind: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            break
        kind = field.annotation
    return list(kind.model_fields)


def _sentence(kind: type[BaseModel], error: Any, source: str) -> str:
    location = tuple(error["loc"])
    name = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        keys = _valid_keys(kind, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), keys, n=1, cutoff=0.5)
        remedy = f"did you mean '{near[0]}'?" if near else f"valid keys are {', '.join(keys)}."
        return f"Unknown key '{name}' in {source}; {remedy}"
    if error["type"] == "missing":
        flag = name.replace("_", "-")
        return f"'{name}' is missing from {source}; give it as --{flag} or in the configuration."
    message = error["msg"].removeprefix("Value error, ")
    if not location:
        return f"In {source}: {message}."
    return f"'{name}' in {source} is {error['input']!r}: {message[0].lower()}{message[1:]}."
