"""What a model was trained on, and how the training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bayesflowmass.common.numbers import UNKNOWN, interval, number
from bayesflowmass.page.document import Block, Facts, Paragraph, Section, Verdict

_MASSES = {"flat": "flat in log mass", "hmf": "following the mass function"}
_MODES = {
    "paper": "paper (satellites of other haloes, no central galaxies)",
    "survey": "survey (central galaxies too)",
    "mixed": "mixed (paper and survey)",
}


def training_verdict(model: Mapping[str, Any]) -> Verdict:
    """What a model folder alone can say: on what it speaks, and that its worth is not known.

    Args:
        model: content of model.json.
    """
    training, weights = model["training"], model.get("weights")
    redshifts = _redshifts(training)
    points = [
        f"It speaks about {training.get('kind') or 'unknown'} clusters with log10 M200c ="
        f" {interval(*training['log10_mass_range'])} [Msun/h] at redshift {redshifts};"
        " others are flagged."
    ]
    if weights is None:
        points.append("Its weights are one set: the PDFs do not widen where the network does not know.")
    if weights is not None and weights.get("converged") is False:
        return Verdict(
            "bad", "The posterior of the weights has not converged: train for longer.", tuple(points)
        )
    return Verdict(
        "open", "Trained. Whether to believe it is for `bayesflowmass evaluate` to say.", tuple(points)
    )


def training_section(
    training: Mapping[str, Any] | None,
    *,
    model: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, float]] = (),
    figures: Sequence[Block] = (),
) -> Section:
    """What the model was trained on; with a model folder, what it is and how it was fitted.

    Args:
        training: facts of the training set, as `TrainingInfo.summary` gives them; None where not known.
        model: content of model.json.
        history: rows of history.csv.
        figures: of the loss.
    """
    if training is None:
        return Section("What it was trained on", (Paragraph("These files do not say it."),))
    blocks: list[Block] = [trained_on(training)]
    if model is not None:
        blocks.append(_network(model))
    if history:
        blocks.append(Paragraph(history_text(history)))
    return Section("What it was trained on", (*blocks, *figures))


def trained_on(training: Mapping[str, Any]) -> Facts:
    """The population that a model can speak about, as names and values."""
    low, high = training["log10_mass_range"]
    few, many = training["richness_range"]
    kind = str(training.get("kind") or "unknown")
    galaxies = (
        f"{kind}; interlopers of mode {_MODES[mode]}" if (mode := training.get("mode")) in _MODES else kind
    )
    selection = training.get("selection") or {}
    cosmology = training.get("cosmology") or {}
    pairs = [
        ("Clusters", f"{training.get('n_train') or UNKNOWN}"),
        (
            "Masses",
            f"log10 M200c [Msun/h] {interval(low, high)}, {_MASSES.get(training.get('masses', ''), 'unknown')}",
        ),
        ("Redshift", _redshifts(training)),
        ("Galaxies", galaxies),
        ("Galaxies in a cluster", f"{few} to {many}"),
        ("Selection", ", ".join(f"{key} {_plain(value)}" for key, value in selection.items()) or UNKNOWN),
        (
            "Uses the number of galaxies",
            "yes: the completeness of the sample matters" if training.get("uses_richness") else "no",
        ),
        ("Cosmology", ", ".join(f"{key} {_plain(value)}" for key, value in cosmology.items()) or UNKNOWN),
        ("Seed", UNKNOWN if training.get("seed") is None else str(training["seed"])),
        ("Version", f"bayesflowmass {training.get('version', UNKNOWN)}"),
    ]
    return Facts(tuple(pairs))


def history_text(history: Sequence[Mapping[str, float]]) -> str:
    """How many updates, and the best validation loss."""
    best = min(history, key=lambda row: row["smoothed_validation_loss"])
    last = history[-1]
    return (
        f"{last['update']:.0f} updates ({last['epoch']:.0f} epochs) in {number(last['seconds'], 0)} s."
        " Smallest smoothed validation loss, -ln p(log10 M) per cluster:"
        f" {number(best['smoothed_validation_loss'])} nats at update {best['update']:.0f}; at the end"
        f" {number(last['smoothed_validation_loss'])} nats, training loss {number(last['train_loss'])} nats."
    )


def loss_alt(history: Sequence[Mapping[str, float]]) -> str:
    """The loss figure for readers who cannot see it."""
    first, last = history[0], history[-1]
    return (
        f"Training and validation loss against the number of updates: validation from"
        f" {number(first['validation_loss'], 2)} nats at update {first['update']:.0f} to"
        f" {number(last['validation_loss'], 2)} nats at update {last['update']:.0f}."
    )


def _redshifts(training: Mapping[str, Any]) -> str:
    low, high = training["redshift_range"]
    return interval(low, high, 3)


def _network(model: Mapping[str, Any]) -> Facts:
    encoder, flow = model["encoder"], model["flow"]
    layers = f"{flow.get('trunk', 'dense')} network with hidden layers {_plain(flow.get('hidden'))}"
    weights = model.get("weights")
    method = (
        "one set, at the maximum of the likelihood"
        if weights is None
        else f"{weights.get('method')} posterior"
    )
    pairs = [("Encoder", _encoder(encoder)), ("Flow", f"{flow.get('kind')}, {layers}"), ("Weights", method)]
    return Facts(tuple(pairs))


def _encoder(encoder: Mapping[str, Any]) -> str:
    if "local" in encoder:
        widths = ", ".join(f"{r:g} Mpc/h and {s:g} km/s" for r, s in encoder["local"]["widths"])
        counted = "galaxies are counted" if encoder["local"]["counted"] else "galaxies are not counted"
        return f"kernel density of (x, y, v_los) at each galaxy, of widths {widths}; {counted}"
    kernels = ", ".join(
        f"{'×'.join(map(str, kde['grid']))} bins, h0 = {kde['bandwidth']} ({kde['convention']})"
        for kde in encoder.get("kdes", ())
    )
    return f"kernel density of (R_proj, v_los): {kernels}; scaling {encoder.get('scaling')}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
