#!/usr/bin/env bash
# Regenerates the models, the test catalogues and the tables behind docs/results.md (about an hour and a half on two
# cores). Arguments name the steps to run; without any, all of them.
#     benchmarks/results.sh [catalogs paper best scatter coverage recalibration novelty survey budget ablation cnn mass_function]
set -euo pipefail
cd "$(dirname "$0")/.."
PY=${PYTHON:-.venv/bin/python}
RUNS=${RUNS:-runs/results}
TEST="--masses hmf --log10-mass-range 13.5 15.6 --no-progress"
SCATTERS="0.10 0.18 0.25"
mkdir -p "$RUNS" docs/results

simulate() { $PY -m bayesflowmass simulate --no-progress "$@"; }
train() { # name, flags: a finished model is not trained again, an interrupted one goes on
  local out="$RUNS/$1"; shift
  [ -f "$out/model.json" ] || $PY -m bayesflowmass train --no-progress --resume --out "$out" "$@"
}

step_catalogs() {
  simulate $TEST --n-clusters 20000 --seed 101 --out "$RUNS/hmf_contaminated.parquet"
  simulate $TEST --n-clusters 20000 --seed 102 --kind pure --out "$RUNS/hmf_pure.parquet"
  simulate --n-clusters 10000 --seed 103 --out "$RUNS/flat_contaminated.parquet"
  for s in $SCATTERS; do
    simulate --masses hmf --log10-mass-range 14.0 15.6 --n-clusters 10000 --seed 104 \
      --parameters richness_scatter=$s --out "$RUNS/hmf14_scatter_$s.parquet"
  done
}
step_paper() {
  train paper_contaminated --config paper.yaml
  train paper_pure --config paper.yaml --simulate.kind pure
}
step_best() {
  train best_no_richness --config best_no_richness.yaml
  train best --config best.yaml
  $PY -m benchmarks.results_tables --bootstrap 100 --title "Contaminated, 20 000 clusters of the mass function, flat prior" \
    --model "paper configuration=$RUNS/paper_contaminated" --model "best without richness=$RUNS/best_no_richness" \
    --model "best with richness=$RUNS/best" --catalog "contaminated=$RUNS/hmf_contaminated.parquet" \
    --out docs/results/contaminated
  $PY -m benchmarks.results_tables --bootstrap 100 --title "Pure, 20 000 clusters of the mass function, flat prior" \
    --model "paper configuration=$RUNS/paper_pure" --catalog "pure=$RUNS/hmf_pure.parquet" --out docs/results/pure
}
step_scatter() {
  for s in $SCATTERS; do
    train "no_richness_$s" --config default.yaml --simulate.n-clusters 30000 --fit.max-updates 1500 \
      --simulate.parameters richness_scatter=$s
    train "richness_$s" --config default.yaml --simulate.n-clusters 30000 --fit.max-updates 1500 \
      --simulate.parameters richness_scatter=$s --encoder.scaling log1p_richness --encoder.constant 25
    $PY -m benchmarks.results_tables --bootstrap 100 --title "Richness scatter $s" --model "without richness=$RUNS/no_richness_$s" \
      --model "with richness=$RUNS/richness_$s" --catalog "scatter $s=$RUNS/hmf14_scatter_$s.parquet" \
      --out "docs/results/richness_scatter_${s/./}"
  done
}
step_survey() { # the comparison with real clusters needs their catalogues
  train survey --config survey.yaml
  [ ! -d ../shared/data ] || $PY -m benchmarks.real_sky --model sky --data ../shared/data --out docs/results/real_sky
}
step_coverage() {
  $PY -m benchmarks.results_tables --bootstrap 100 --title "Coverage where it can be nominal" --prior matching \
    --model "best without richness=$RUNS/best_no_richness" --model "best with richness=$RUNS/best" \
    --catalog "flat=$RUNS/flat_contaminated.parquet" --catalog "mass function=$RUNS/hmf_contaminated.parquet" \
    --out docs/results/coverage
}
step_recalibration() { # the best model by bin of predicted mass, raw and recalibrated on 60 000 fresh mocks
  train best_no_richness --config best_no_richness.yaml
  $PY -m benchmarks.recalibration --model "$RUNS/best_no_richness" --catalog "$RUNS/hmf_contaminated.parquet"
}
step_novelty() { # power against data unlike the training set
  train quick --config quick.yaml
  $PY -m benchmarks.novelty --model "$RUNS/quick"
}
step_mass_function() { # about an hour; trains what runs/mass_function lacks
  $PY -m benchmarks.mass_function
  local start=runs/mass_function/contaminated_1 method
  for method in variational laplace; do
    local out=runs/mass_function/contaminated_$method
    [ -f "$out/model.json" ] || $PY -m bayesflowmass train --no-progress --resume --out "$out" --config quick.yaml --seed 1 \
      --simulate.log10-mass-range 12.6 15.6 --weights $method --weights.start "$start"
  done
  $PY -m benchmarks.mass_function --members 1 --n-simulations 100 --n-draws 8 --out docs/results/mass_function_variational \
    --model variational=runs/mass_function/contaminated_variational --model laplace=runs/mass_function/contaminated_laplace
  $PY -m benchmarks.mass_function --kind pure --members 1 --n-simulations 100 --out docs/results/mass_function_pure
}
step_budget() { $PY -m benchmarks.information_budget --config default.yaml --seed 0 --n-train 15000 --fit.max-updates 1000 \
    --out docs/results/information_budget; }
step_cnn() { $PY -m benchmarks.cnn --work runs/cnn --seeds 3 --out docs/results/cnn; }
step_ablation() { $PY -m benchmarks.ablation --seed 0 --n-train 20000 --fit.max-updates 900 --out docs/results/ablation; }

for step in "${@:-catalogs paper best scatter coverage recalibration novelty survey budget ablation cnn mass_function}"; do
  for one in $step; do echo "== $one ($(date +%H:%M))"; "step_$one"; done
done
