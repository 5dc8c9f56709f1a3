"""Two models on the same clusters: numbers, paired errors, and the sentence."""

from __future__ import annotations

import numpy as np
import pytest

from bayesflowmass.survey.compared import beside, table, verdict
from tests.support.small_model import toy_catalog, toy_estimator


@pytest.fixture(scope="module")
def found():
    catalog, model = toy_catalog(120, seed=3), toy_estimator()
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64).copy()
    truth[:20] = np.nan
    return (
        beside({"this model": (model, catalog), "other": (model, catalog)}, truth, "flat"),
        catalog,
        model,
        truth,
    )


def test_a_model_beside_itself_differs_by_nothing(found):
    result, *_ = found
    assert result["n"], result["n_judged"] == (120, 100)
    for value, error in result["models"]["other"]["minus"].values():
        assert value == error == 0.0


def test_numbers_are_those_of_the_posteriors(found):
    result, catalog, model, truth = found
    posterior = model.posterior(catalog)
    residual = (posterior.median - truth)[20:]
    own = result["models"]["this model"]
    assert own["bias"][0] == pytest.approx(residual.mean(), abs=1e-9)
    assert own["scatter"] == pytest.approx(
        [
            residual.std(ddof=1),
            np.sqrt(np.var((residual - residual.mean()) ** 2) / 99) / (2 * residual.std(ddof=1)),
        ],
        rel=1e-6,
    )
    assert own["width"][0] == pytest.approx(posterior.sigma.mean(), abs=1e-9)


def test_without_a_reference_nothing_is_judged():
    catalog, model = toy_catalog(60, seed=3), toy_estimator()
    result = beside({"a": (model, catalog), "b": (model, catalog)}, np.full(60, np.nan), "flat")
    assert set(result["models"]["a"]) == {"width"}
    assert "shift" in result["models"]["b"]["minus"]
    assert "width" in table(result)[0]


def numbers(width, in_68, gain):
    own = {"scatter": [0.2, 0.01], "width": [width, 0.01], "in_68": [in_68, 0.01], "log_score": [0.3, 0.02]}
    other = own | {"width": [0.25, 0.01], "log_score": [0.1, 0.02], "minus": {"log_score": gain}}
    worse = other | {"log_score": [0.0, 0.02], "minus": {"log_score": [1.0, 0.01]}}
    return {"models": {"this model": own, "sky, told": other, "sky": worse}}


@pytest.mark.parametrize(
    ("case", "begins"),
    [
        ((0.2, 0.68, [0.2, 0.02]), "It was worth it: on mocks"),
        ((0.25, 0.68, [0.01, 0.02]), "It was not worth it, use sky, told: on mocks"),
        ((0.1, 0.55, [0.2, 0.02]), "Not worth it as it is: its intervals do not hold; on mocks"),
    ],
)
def test_the_verdict_is_one_sentence_beside_the_best_of_the_others(case, begins):
    sentence = verdict(numbers(*case))
    assert sentence.startswith(begins)
    assert sentence.count(". ") == 0
    assert "sky, told" in sentence


def test_a_survey_that_contradicts_its_mocks_is_heard():
    mocks = numbers(0.2, 0.68, [0.2, 0.02])
    against = {"models": {"sky, told": {"minus": {"log_score": [-0.5, 0.1]}}}}
    assert verdict(mocks, against).startswith("Not worth it before this is understood: beside the reference")
    within = {"models": {"sky, told": {"minus": {"log_score": [-0.1, 0.1]}}}}
    assert verdict(mocks, within).startswith("It was worth it")
    assert verdict(mocks, {"models": {"sky, told": {"minus": {"shift": [0.1, 0.1]}}}}).startswith(
        "It was worth it"
    )
