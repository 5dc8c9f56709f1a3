"""Names of the files that tell how a folder of results was made; the commands write them, the page reads them."""

from __future__ import annotations

RECORD = "run.json"
"""The command, its settings, the date and the versions."""

SETTINGS = "settings.yaml"
"""All settings of a training run, as ``--config`` takes them."""
