#!/bin/sh
# The synthetic benchmark set, version 1: held-out motions, bodies that are not the fitted one. About 6 minutes of one core.
#   benchmarks/make_set.sh DIR        (needs the package anny, the CMU subset and the DeepMimic clips: docs/data.md)
set -eu
out=${1:?usage: make_set.sh DIR}
synth="python3 -m blur_motion_ros.cli synth --out $out --set split=test --set candidates=6 --set body=anny"
$synth --name walk   --seed 1000 --count 2 --clips walking
$synth --name run    --seed 1100 --count 2 --clips running --set frames=18
$synth --name arms   --seed 1200 --count 2 --clips washwindow punch --set frames=18
$synth --name sport  --seed 1300 --count 3 --clips soccer jumping basketball kick cartwheel --set frames=18
$synth --name slow   --seed 1400 --count 3 --clips walking soccer jumping washwindow --set fps=15 --set duty=0.99 --set frames=14
$synth --verify
